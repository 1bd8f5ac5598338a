//! The live route table: which path is answered by which node.
//!
//! Nodes add routes while they start and lose them when they go; the server looks paths up. Paths are matched
//! exactly and case-sensitively, without their query, and percent-encoding is left as it was sent; but a segment
//! `:name` of a route stands for any one segment, whose decoded value the node gets by that name.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::seldom::Seldom;
use super::{BoxFuture, HttpRequest, HttpResponse, UpgradeAnswer, UpgradeRequest};

/// Answers requests to a path. Called on the server's tasks, for many requests at once.
pub trait RequestHandler: Send + Sync {
    /// Starts to answer. The future is dropped if the client goes away first.
    fn handle(&self, request: HttpRequest) -> BoxFuture<HttpResponse>;
}

/// Decides about WebSocket handshakes on a path.
pub trait UpgradeHandler: Send + Sync {
    /// Starts to decide. A future that stays pending defers the handshake, up to `upgrade_timeout_ms` (an answer may
    /// ask for longer, see [`UpgradeAnswer::Deferred`]); it is dropped then, and also if the client goes away first.
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

/// Names one route for [`Routes::remove`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteId {
    /// Never used twice.
    number: u64,
    owner: String,
    path: String,
}

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

/// What a path has in place of a route's parameters: names and percent-decoded values, in the path's order.
pub type Params = Vec<(String, String)>;

/// The table, shared by the server and the runtime.
#[derive(Default)]
pub struct Routes {
    // A std lock: it is held for a look-up, never across an await, and changes are rare.
    table: RwLock<Table>,
    next_number: AtomicU64,
}

#[derive(Default)]
struct Table {
    /// Paths without parameters: there may be thousands of them.
    literal: HashMap<String, Vec<Route>>,
    /// Paths with parameters, those with more literal segments in front first. Looked through one by one.
    patterns: Vec<Pattern>,
    /// The paths of each node's routes, so that one that goes need not be looked for everywhere: when the host stops,
    /// all of them go.
    owned: HashMap<String, Vec<String>>,
}

/// A shape of paths, with all routes that have it, whatever they call their parameters.
struct Pattern {
    /// The path's segments; `None` is a parameter.
    shape: Vec<Option<String>>,
    routes: Vec<Route>,
}

struct Route {
    number: u64,
    owner: String,
    handler: Handler,
    /// The names of its parameters, in order.
    parameters: Vec<String>,
    /// For the lines about handshakes to it that were refused.
    refusals: Arc<Seldom>,
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
    /// A segment `:name` is a parameter: it stands for one segment that is not empty. Two paths that differ only in
    /// the names of parameters are the same path. Of several that match, the one without a parameter is used, or else
    /// the one whose first parameter comes later.
    ///
    /// # Errors
    /// The path already has a route for this method, or for upgrades.
    pub fn add(&self, owner: &str, path: &str, handler: Handler) -> Result<RouteId, RouteTaken> {
        let path = with_leading_slash(path);
        let (shape, parameters) = parsed(&path);
        let mut table = self.write();
        let routes = if parameters.is_empty() {
            table.literal.entry(path.clone()).or_default()
        } else {
            table.pattern(shape)
        };
        if let Some(taken) = routes.iter().find(|route| collide(&route.handler, &handler)) {
            return Err(RouteTaken { path, owner: taken.owner.clone() });
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        routes.push(Route { number, owner: owner.to_owned(), handler, parameters, refusals: Arc::default() });
        table.owned.entry(owner.to_owned()).or_default().push(path.clone());
        Ok(RouteId { number, owner: owner.to_owned(), path })
    }

    /// Takes one route away. What it is answering goes on. `false` if it was gone already.
    pub fn remove(&self, id: &RouteId) -> bool {
        let mut table = self.write();
        let removed = table.retain(&id.path, |route| route.number != id.number) > 0;
        if removed && let Some(paths) = table.owned.get_mut(&id.owner) {
            // One of them for each of its routes.
            if let Some(place) = paths.iter().position(|path| *path == id.path) {
                paths.swap_remove(place);
            }
            if paths.is_empty() {
                table.owned.remove(&id.owner);
            }
        }
        removed
    }

    /// Takes every route of a node away and says how many there were. What they are answering goes on.
    pub fn remove_owner(&self, owner: &str) -> usize {
        let mut table = self.write();
        let paths = table.owned.remove(owner).unwrap_or_default();
        paths.iter().map(|path| table.retain(path, |route| route.owner != owner)).sum()
    }

    /// The node whose upgrade route this path is, as [`Routes::add`] was told it.
    #[must_use]
    pub fn upgrade_owner(&self, path: &str) -> Option<String> {
        let path = with_leading_slash(path);
        let (shape, parameters) = parsed(&path);
        let table = self.read();
        let routes = if parameters.is_empty() {
            table.literal.get(&path)?
        } else {
            &table.patterns.iter().find(|pattern| pattern.shape == shape)?.routes
        };
        let mut upgrades = routes.iter().filter(|route| matches!(route.handler, Handler::Upgrade(_)));
        upgrades.next().map(|route| route.owner.clone())
    }

    /// Who answers a WebSocket handshake to this path.
    pub(super) fn find_upgrade(&self, path: &str) -> Option<UpgradeRoute> {
        let table = self.read();
        let mut matches = table.matches(path);
        matches.find_map(|(routes, values)| {
            routes.iter().find_map(|route| match &route.handler {
                Handler::Upgrade(handler) => Some(UpgradeRoute {
                    owner: route.owner.clone(),
                    handler: Arc::clone(handler),
                    params: route.params(&values),
                    refusals: Arc::clone(&route.refusals),
                }),
                Handler::Request(..) => None,
            })
        })
    }

    /// Who answers a request.
    pub(super) fn find_request(&self, method: &Method, path: &str) -> Found {
        let table = self.read();
        let mut others = None;
        for (routes, values) in table.matches(path) {
            let requests = || {
                routes.iter().filter_map(|route| match &route.handler {
                    Handler::Request(access, method, handler) => Some((route, *access, method, handler)),
                    Handler::Upgrade(_) => None,
                })
            };
            let of = |wanted: &Method| requests().find(|(_, _, method, _)| *method == wanted);
            // HEAD is GET without the body, which hyper leaves out by itself.
            let found = of(method).or_else(|| of(&Method::GET).filter(|_| method == Method::HEAD));
            if let Some((route, access, _, handler)) = found {
                return Found::Request(access, Arc::clone(handler), route.params(&values));
            }
            let Some((_, first, ..)) = requests().next() else { continue };
            // A path with both kinds shows its methods to those who may use all of them.
            let for_admins = requests().any(|(_, access, ..)| access == Access::Admin);
            let access = if for_admins { Access::Admin } else { first };
            let methods: Vec<&str> = requests().map(|(_, _, method, _)| method.as_str()).collect();
            others.get_or_insert_with(|| Found::WrongMethod(access, methods.join(", ")));
        }
        others.unwrap_or(Found::Nothing)
    }

    // A panic cannot leave the table half changed in a way that matters, so a poisoned lock is as good as any.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Drops routes of a path, as it was given to [`Routes::add`]; how many.
    fn retain(&mut self, path: &str, keep: impl Fn(&Route) -> bool) -> usize {
        let mut removed = 0;
        let mut keep_some = |routes: &mut Vec<Route>| {
            let before = routes.len();
            routes.retain(&keep);
            removed += before - routes.len();
            !routes.is_empty()
        };
        let (shape, parameters) = parsed(path);
        if parameters.is_empty() {
            if self.literal.get_mut(path).is_some_and(|routes| !keep_some(routes)) {
                self.literal.remove(path);
            }
        } else {
            self.patterns.retain_mut(|pattern| pattern.shape != shape || keep_some(&mut pattern.routes));
        }
        removed
    }

    /// The routes of a shape, which is added in its place if it is new.
    fn pattern(&mut self, shape: Vec<Option<String>>) -> &mut Vec<Route> {
        let place = match self.patterns.iter().position(|pattern| pattern.shape == shape) {
            Some(place) => place,
            None => {
                let rank =
                    |shape: &[Option<String>]| -> Vec<bool> { shape.iter().map(Option::is_none).collect() };
                let own = rank(&shape);
                let place = self.patterns.partition_point(|pattern| rank(&pattern.shape) <= own);
                self.patterns.insert(place, Pattern { shape, routes: Vec::new() });
                place
            }
        };
        &mut self.patterns[place].routes
    }

    /// What a path means, the first meaning first: routes, and the decoded values of their parameters.
    fn matches(&self, path: &str) -> impl Iterator<Item = (&[Route], Vec<String>)> {
        let literal = self.literal.get(path).map(|routes| (routes.as_slice(), Vec::new()));
        let patterns = self
            .patterns
            .iter()
            .filter_map(move |pattern| Some((pattern.routes.as_slice(), values_of(&pattern.shape, path)?)));
        literal.into_iter().chain(patterns)
    }
}

impl Route {
    fn params(&self, values: &[String]) -> Params {
        self.parameters.iter().cloned().zip(values.iter().cloned()).collect()
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.read();
        let patterns = table.patterns.iter().map(|pattern| {
            let segments = pattern.shape.iter().map(|segment| segment.as_deref().unwrap_or(":"));
            format!("/{}", segments.collect::<Vec<_>>().join("/"))
        });
        f.debug_list().entries(table.literal.keys()).entries(patterns).finish()
    }
}

/// Who decides about a handshake.
pub(super) struct UpgradeRoute {
    /// The node.
    pub(super) owner: String,
    pub(super) handler: Arc<dyn UpgradeHandler>,
    pub(super) params: Params,
    /// For the lines about those that are refused.
    pub(super) refusals: Arc<Seldom>,
}

/// What the table says about a request.
pub(super) enum Found {
    Request(Access, Arc<dyn RequestHandler>, Params),
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

/// The shape of a path that begins with a slash, and the names of its parameters. A colon alone is no parameter.
fn parsed(path: &str) -> (Vec<Option<String>>, Vec<String>) {
    let mut parameters = Vec::new();
    let shape = path[1..].split('/').map(|segment| match segment.strip_prefix(':') {
        Some(name) if !name.is_empty() => {
            parameters.push(name.to_owned());
            None
        }
        _ => Some(segment.to_owned()),
    });
    (shape.collect(), parameters)
}

/// The decoded values that a path has for the parameters of a shape; `None` if it has another shape. What is not UTF-8
/// once decoded is no value: replaced by something else, one value could pass for another.
fn values_of(shape: &[Option<String>], path: &str) -> Option<Vec<String>> {
    let mut values = Vec::new();
    let mut segments = path.strip_prefix('/')?.split('/');
    for expected in shape {
        let segment = segments.next()?;
        match expected {
            Some(literal) if literal == segment => {}
            None if !segment.is_empty() => {
                values.push(percent_decode_str(segment).decode_utf8().ok()?.into_owned());
            }
            _ => return None,
        }
    }
    segments.next().is_none().then_some(values)
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
        assert!(routes.remove(&id));
        routes.add("n2", "/a", upgrade()).unwrap();
        assert!(!routes.remove(&id), "the id does not name its successor");
        assert_eq!(routes.upgrade_owner("/a").as_deref(), Some("n2"));
    }

    #[test]
    fn the_method_decides_and_head_is_answered_by_get() {
        let routes = Routes::new();
        routes.add("n1", "/a", request(Method::GET)).unwrap();
        routes.add("n1", "/a", Handler::Request(Access::Admin, Method::POST, answering())).unwrap();
        let found = |method| routes.find_request(&method, "/a");
        assert!(matches!(found(Method::GET), Found::Request(Access::Public, ..)));
        assert!(matches!(found(Method::HEAD), Found::Request(Access::Public, ..)));
        assert!(matches!(found(Method::POST), Found::Request(Access::Admin, ..)));
        let Found::WrongMethod(access, methods) = found(Method::DELETE) else { panic!("not refused") };
        assert_eq!((access, methods.as_str()), (Access::Admin, "GET, POST"));
        routes.add("n1", "/ws", upgrade()).unwrap();
        assert!(matches!(routes.find_request(&Method::GET, "/ws"), Found::Nothing));
    }

    /// What a path leads to: the owner by its parameters' names, and their values.
    fn found(routes: &Routes, path: &str) -> Option<Params> {
        routes.find_upgrade(path).map(|route| route.params)
    }

    fn pairs(params: &[(&str, &str)]) -> Params {
        params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_parameter_stands_for_one_segment_and_its_value_is_decoded() {
        let routes = Routes::new();
        routes.add("n1", "ws/:room", upgrade()).unwrap();
        routes.add("n2", "/ws/:room/users/:user", upgrade()).unwrap();
        for (path, expected) in [
            ("/ws/kitchen", Some(&[("room", "kitchen")][..])),
            ("/ws/a%20b%2Fc", Some(&[("room", "a b/c")])),
            ("/ws/%C3%A4", Some(&[("room", "ä")])),
            ("/ws/100%", Some(&[("room", "100%")])),
            ("/ws/a+b", Some(&[("room", "a+b")])),
            ("/ws/:room", Some(&[("room", ":room")])),
            ("/ws/..", Some(&[("room", "..")])),
            ("/ws/kitchen/users/7", Some(&[("room", "kitchen"), ("user", "7")])),
            ("/ws/%FF", None),
            ("/ws/", None),
            ("/ws", None),
            ("/WS/kitchen", None),
            ("/ws/kitchen/", None),
            ("/ws//users/7", None),
            ("/x/ws/kitchen", None),
        ] {
            assert_eq!(found(&routes, path), expected.map(pairs), "{path}");
        }
    }

    #[test]
    fn a_literal_path_wins_and_then_the_one_with_more_literal_segments_in_front() {
        // Whatever the order in which they come.
        let all = ["/a/:x", "/:x/b", "/a/b", "/a/:y/c", "/:z/:y/c", "/a/b/:x"];
        for turn in 0..all.len() {
            let routes = Routes::new();
            for number in 0..all.len() {
                let path = all[(turn + number) % all.len()];
                routes.add(path, path, upgrade()).unwrap();
            }
            for (path, expected) in [
                ("/a/b", "/a/b"),
                ("/a/c", "/a/:x"),
                ("/b/b", "/:x/b"),
                ("/a/b/c", "/a/b/:x"),
                ("/a/z/c", "/a/:y/c"),
                ("/z/b/c", "/:z/:y/c"),
            ] {
                let (shape, names) = parsed(expected);
                let values = values_of(&shape, path).unwrap();
                let params: Params = names.into_iter().zip(values).collect();
                assert_eq!(found(&routes, path), Some(params), "{path} with {turn} first");
            }
        }
    }

    #[test]
    fn paths_that_differ_in_the_names_of_parameters_alone_are_the_same() {
        let routes = Routes::new();
        routes.add("n1", "/ws/:room", upgrade()).unwrap();
        let error = routes.add("n2", "ws/:name", upgrade()).unwrap_err();
        assert_eq!(error.to_string(), "the path /ws/:name is taken by node n1");
        assert_eq!(routes.upgrade_owner("ws/:other").as_deref(), Some("n1"));
        routes.add("n2", "/ws/kitchen", upgrade()).expect("a literal path is another");
        routes.add("n2", "/ws/:", upgrade()).expect("a colon alone is literal");
        routes.add("n2", "/ws/:id", request(Method::GET)).expect("requests are not upgrades");
        assert!(
            matches!(routes.find_request(&Method::GET, "/ws/7"), Found::Request(_, _, params) if params == pairs(&[("id", "7")]))
        );
        assert_eq!(found(&routes, "/ws/7"), Some(pairs(&[("room", "7")])));

        assert_eq!(routes.remove_owner("n1"), 1);
        assert_eq!(found(&routes, "/ws/7"), None);
        routes.add("n3", "/ws/:name", upgrade()).expect("the path is free again");
    }

    #[test]
    fn a_literal_path_without_a_route_of_the_kind_that_is_wanted_hides_no_parameter() {
        let routes = Routes::new();
        routes.add("n1", "/a/b", request(Method::POST)).unwrap();
        routes.add("n2", "/a/:x", request(Method::GET)).unwrap();
        routes.add("n2", "/a/:x", upgrade()).unwrap();
        assert!(matches!(routes.find_request(&Method::GET, "/a/b"), Found::Request(..)));
        assert_eq!(found(&routes, "/a/b"), Some(pairs(&[("x", "b")])));
        let Found::WrongMethod(_, methods) = routes.find_request(&Method::PUT, "/a/b") else {
            panic!("not refused")
        };
        assert_eq!(methods, "POST");
    }

    /// A bound far above what it takes, also for a build that is not optimised, on a machine that has other things to do.
    #[test]
    fn nodes_that_go_find_their_paths_at_once_however_many_others_there_are() {
        let routes = Routes::new();
        let nodes: Vec<String> = (0..30_000).map(|number| format!("node {number}")).collect();
        for node in &nodes {
            routes.add(node, &format!("/ws/{node}"), upgrade()).unwrap();
        }
        let one = routes.add("node 7", "/other", upgrade()).unwrap();
        assert!(routes.remove(&one));
        let begin = std::time::Instant::now();
        let removed: usize = nodes.iter().map(|node| routes.remove_owner(node)).sum();
        assert_eq!(removed, nodes.len());
        assert!(begin.elapsed() < std::time::Duration::from_secs(3), "{:?}", begin.elapsed());
        let table = routes.read();
        assert!(table.literal.is_empty() && table.owned.is_empty(), "nothing is left of them");
    }
}
