//! The live route table: which path is answered by which node.
//!
//! Nodes add routes while they start and lose them when they go; the server looks paths up. Paths are matched
//! exactly and case-sensitively, without their query, and percent-encoding is left as it was sent.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hyper::Method;

use super::{BoxFuture, HttpRequest, HttpResponse, UpgradeAnswer, UpgradeRequest};

/// Answers requests to a path. Called on the server's tasks, for many requests at once.
pub trait RequestHandler: Send + Sync {
    /// Starts to answer. The future is dropped if the client goes away first.
    fn handle(&self, request: HttpRequest) -> BoxFuture<HttpResponse>;
}

/// Decides about WebSocket handshakes on a path.
pub trait UpgradeHandler: Send + Sync {
    /// Starts to decide. A future that stays pending defers the handshake, up to `upgrade_timeout_ms`; it is
    /// dropped then, and also if the client goes away first.
    fn upgrade(&self, request: UpgradeRequest) -> BoxFuture<UpgradeAnswer>;
}

impl<F> RequestHandler for F
where
    F: Fn(HttpRequest) -> BoxFuture<HttpResponse> + Send + Sync,
{
    fn handle(&self, request: HttpRequest) -> BoxFuture<HttpResponse> {
        self(request)
    }
}

impl<F> UpgradeHandler for F
where
    F: Fn(UpgradeRequest) -> BoxFuture<UpgradeAnswer> + Send + Sync,
{
    fn upgrade(&self, request: UpgradeRequest) -> BoxFuture<UpgradeAnswer> {
        self(request)
    }
}

/// Who may use a request route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone who reaches the port.
    Public,
    /// Whom the [`AdminGuard`](super::AdminGuard) lets through.
    Admin,
}

/// What a route answers, and how.
#[derive(Clone)]
pub enum Handler {
    /// Requests of one method.
    Request(Access, Method, Arc<dyn RequestHandler>),
    /// WebSocket handshakes. They are public: a listener's own protocol decides whom it serves.
    Upgrade(Arc<dyn UpgradeHandler>),
}

/// Names one route for [`Routes::remove`]. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(u64);

/// A path that cannot be had, because another node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTaken {
    /// The path, with its leading slash.
    pub path: String,
    /// The id of the node that has it.
    pub owner: String,
}

impl fmt::Display for RouteTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the path {} is taken by node {}", self.path, self.owner)
    }
}

impl std::error::Error for RouteTaken {}

/// The table, shared by the server and the runtime.
#[derive(Default)]
pub struct Routes {
    // A std lock: it is held for a look-up, never across an await, and changes are rare.
    paths: RwLock<HashMap<String, Vec<Route>>>,
    next_id: AtomicU64,
}

struct Route {
    id: RouteId,
    owner: String,
    handler: Handler,
}

impl Routes {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `path` to the node `owner`; `x` and `/x` are the same path. It takes effect at once. One path may
    /// carry several methods and one upgrade route.
    ///
    /// # Errors
    /// The path already has a route for this method, or for upgrades.
    pub fn add(&self, owner: &str, path: &str, handler: Handler) -> Result<RouteId, RouteTaken> {
        let path = with_leading_slash(path);
        let mut paths = self.write();
        let routes = paths.entry(path.clone()).or_default();
        if let Some(taken) = routes.iter().find(|route| collide(&route.handler, &handler)) {
            return Err(RouteTaken { path, owner: taken.owner.clone() });
        }
        let id = RouteId(self.next_id.fetch_add(1, Ordering::Relaxed));
        routes.push(Route { id, owner: owner.to_owned(), handler });
        Ok(id)
    }

    /// Takes one route away. What it is answering goes on. `false` if it was gone already.
    pub fn remove(&self, id: RouteId) -> bool {
        self.retain(|route| route.id != id) > 0
    }

    /// Takes every route of a node away and says how many there were. What they are answering goes on.
    pub fn remove_owner(&self, owner: &str) -> usize {
        self.retain(|route| route.owner != owner)
    }

    /// The node whose upgrade route this path is.
    #[must_use]
    pub fn upgrade_owner(&self, path: &str) -> Option<String> {
        let paths = self.read();
        let mut routes = paths.get(&with_leading_slash(path))?.iter();
        routes.find(|route| matches!(route.handler, Handler::Upgrade(_))).map(|route| route.owner.clone())
    }

    /// Who answers a WebSocket handshake to this path.
    pub(super) fn find_upgrade(&self, path: &str) -> Option<Arc<dyn UpgradeHandler>> {
        self.read().get(path)?.iter().find_map(|route| match &route.handler {
            Handler::Upgrade(handler) => Some(Arc::clone(handler)),
            Handler::Request(..) => None,
        })
    }

    /// Who answers a request.
    pub(super) fn find_request(&self, method: &Method, path: &str) -> Found {
        let paths = self.read();
        let routes = paths.get(path).map_or(&[][..], Vec::as_slice);
        let requests = || {
            routes.iter().filter_map(|route| match &route.handler {
                Handler::Request(access, method, handler) => Some((*access, method, handler)),
                Handler::Upgrade(_) => None,
            })
        };
        let of = |wanted: &Method| requests().find(|(_, method, _)| *method == wanted);
        // HEAD is GET without the body, which hyper leaves out by itself.
        let found = of(method).or_else(|| of(&Method::GET).filter(|_| method == Method::HEAD));
        if let Some((access, _, handler)) = found {
            return Found::Request(access, Arc::clone(handler));
        }
        let Some((first, ..)) = requests().next() else { return Found::Nothing };
        // A path with both kinds shows its methods to those who may use all of them.
        let access =
            if requests().any(|(access, ..)| access == Access::Admin) { Access::Admin } else { first };
        let methods: Vec<&str> = requests().map(|(_, method, _)| method.as_str()).collect();
        Found::WrongMethod(access, methods.join(", "))
    }

    fn retain(&self, keep: impl Fn(&Route) -> bool) -> usize {
        let mut removed = 0;
        self.write().retain(|_, routes| {
            let before = routes.len();
            routes.retain(&keep);
            removed += before - routes.len();
            !routes.is_empty()
        });
        removed
    }

    // A panic cannot leave the map half changed in a way that matters, so a poisoned lock is as good as any.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Vec<Route>>> {
        self.paths.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Vec<Route>>> {
        self.paths.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.read().keys()).finish()
    }
}

/// What the table says about a request.
pub(super) enum Found {
    Request(Access, Arc<dyn RequestHandler>),
    /// The path is known, with these methods.
    WrongMethod(Access, String),
    Nothing,
}

fn collide(one: &Handler, other: &Handler) -> bool {
    match (one, other) {
        (Handler::Upgrade(_), Handler::Upgrade(_)) => true,
        (Handler::Request(_, one, _), Handler::Request(_, other, _)) => one == other,
        _ => false,
    }
}

fn with_leading_slash(path: &str) -> String {
    format!("/{}", path.strip_prefix('/').unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    fn answering() -> Arc<dyn RequestHandler> {
        Arc::new(|_: HttpRequest| -> BoxFuture<HttpResponse> {
            Box::pin(async { HttpResponse::empty(StatusCode::OK) })
        })
    }

    fn upgrade() -> Handler {
        Handler::Upgrade(Arc::new(|_: UpgradeRequest| -> BoxFuture<UpgradeAnswer> {
            Box::pin(std::future::pending())
        }))
    }

    fn request(method: Method) -> Handler {
        Handler::Request(Access::Public, method, answering())
    }

    #[test]
    fn a_path_is_the_same_with_and_without_its_slash_and_matched_exactly() {
        for registered in ["ws/echo", "/ws/echo"] {
            let routes = Routes::new();
            routes.add("n1", registered, upgrade()).unwrap();
            for (path, found) in [
                ("/ws/echo", true),
                ("/ws/echo/", false),
                ("/WS/echo", false),
                ("/ws%2Fecho", false),
                ("//ws/echo", false),
                ("/", false),
            ] {
                assert_eq!(routes.find_upgrade(path).is_some(), found, "{registered} {path}");
            }
        }
        let routes = Routes::new();
        routes.add("n1", "", upgrade()).unwrap();
        assert!(routes.find_upgrade("/").is_some(), "an empty path is the root");
    }

    #[test]
    fn a_taken_path_is_refused_with_the_name_of_the_node_that_has_it() {
        let routes = Routes::new();
        routes.add("n1", "/a", upgrade()).unwrap();
        let error = routes.add("n2", "a", upgrade()).unwrap_err();
        assert_eq!(error, RouteTaken { path: "/a".into(), owner: "n1".into() });
        assert_eq!(error.to_string(), "the path /a is taken by node n1");
        assert_eq!(routes.upgrade_owner("a").as_deref(), Some("n1"));

        routes.add("n2", "/a", request(Method::GET)).unwrap();
        routes.add("n2", "/a", request(Method::POST)).unwrap();
        let admin = Handler::Request(Access::Admin, Method::GET, answering());
        assert_eq!(routes.add("n3", "/a", admin).unwrap_err().owner, "n2", "an admin route is no exception");
    }

    #[test]
    fn routes_leave_with_their_node_and_others_stay() {
        let routes = Routes::new();
        routes.add("n1", "/a", upgrade()).unwrap();
        routes.add("n1", "/b", upgrade()).unwrap();
        routes.add("n2", "/a", request(Method::GET)).unwrap();
        assert_eq!(routes.remove_owner("n1"), 2);
        assert_eq!(routes.remove_owner("n1"), 0);
        assert!(routes.find_upgrade("/a").is_none() && routes.find_upgrade("/b").is_none());
        assert!(matches!(routes.find_request(&Method::GET, "/a"), Found::Request(..)));
        routes.add("n3", "/a", upgrade()).expect("the path is free again");
    }

    #[test]
    fn one_route_can_be_removed_alone_and_only_once() {
        let routes = Routes::new();
        let id = routes.add("n1", "/a", upgrade()).unwrap();
        routes.add("n1", "/b", upgrade()).unwrap();
        assert!(routes.remove(id));
        routes.add("n2", "/a", upgrade()).unwrap();
        assert!(!routes.remove(id), "the id does not name its successor");
        assert_eq!(routes.upgrade_owner("/a").as_deref(), Some("n2"));
    }

    #[test]
    fn the_method_decides_and_head_is_answered_by_get() {
        let routes = Routes::new();
        routes.add("n1", "/a", request(Method::GET)).unwrap();
        routes.add("n1", "/a", Handler::Request(Access::Admin, Method::POST, answering())).unwrap();
        let found = |method| routes.find_request(&method, "/a");
        assert!(matches!(found(Method::GET), Found::Request(Access::Public, _)));
        assert!(matches!(found(Method::HEAD), Found::Request(Access::Public, _)));
        assert!(matches!(found(Method::POST), Found::Request(Access::Admin, _)));
        let Found::WrongMethod(access, methods) = found(Method::DELETE) else { panic!("not refused") };
        assert_eq!((access, methods.as_str()), (Access::Admin, "GET, POST"));
        routes.add("n1", "/ws", upgrade()).unwrap();
        assert!(matches!(routes.find_request(&Method::GET, "/ws"), Found::Nothing));
    }
}
