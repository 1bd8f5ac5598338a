//! The `websocket in` and `websocket out` nodes of a configuration.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use flowbay_sdk::{Ctx, Error, Msg, Status, lenient, message::MSGID};
use serde::Deserialize;
use tokio::sync::Notify;

use crate::{
    client::WebSocketClient,
    endpoint::{Endpoint, new_id},
    listener::WebSocketListener,
};

/// What a node does with its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `websocket in`: it gets messages.
    In,
    /// `websocket in`: it gets upgrades to decide about.
    Decide,
    /// `websocket out`.
    Out,
}

/// One node that uses a configuration. The node owns it, so that it leaves with the node in any case but one: when a
/// later generation takes over from the node, connections that have not moved yet still send through it.
pub struct User {
    ctx: Ctx,
    direction: Direction,
}

/// Some users of a configuration, in the order in which they joined.
type List = Arc<[Weak<User>]>;

/// All users of a configuration.
#[derive(Default)]
pub struct Users {
    lists: Mutex<Lists>,
    changed: Notify,
}

#[derive(Default)]
struct Lists {
    all: List,
    /// Those that receive: what every message needs.
    inputs: List,
    /// Those that are asked about upgrades.
    deciders: List,
    /// Those that stay when their node goes.
    kept: Vec<Arc<User>>,
}

impl Users {
    fn add(&self, user: &Arc<User>) {
        self.change(|all| all.push(Arc::downgrade(user)));
    }

    fn remove(&self, user: &Arc<User>) {
        self.lists
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .kept
            .retain(|kept| !Arc::ptr_eq(kept, user));
        let user = Arc::downgrade(user);
        self.change(|all| all.retain(|other| !other.ptr_eq(&user)));
    }

    fn keep(&self, user: &Arc<User>) {
        let kept = &mut self.lists.lock().unwrap_or_else(PoisonError::into_inner).kept;
        if !kept.iter().any(|kept| Arc::ptr_eq(kept, user)) {
            kept.push(user.clone());
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Weak<User>>)) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = lists.all.iter().filter(|user| user.strong_count() > 0).cloned().collect();
        change(&mut all);
        let with = |direction: Direction| {
            let is = |user: &&Weak<User>| user.upgrade().is_some_and(|user| user.direction == direction);
            all.iter().filter(is).cloned().collect()
        };
        lists.inputs = with(Direction::In);
        lists.deciders = with(Direction::Decide);
        lists.all = all.into();
        drop(lists);
        self.changed.notify_one();
    }

    /// Whether nobody uses the configuration.
    pub fn is_empty(&self) -> bool {
        !self.all().iter().any(|user| user.strong_count() > 0)
    }

    /// Waits for a node to join or leave. For one waiter; a change in between is not missed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The nodes that receive, as they are now.
    pub fn inputs(&self) -> Inputs {
        Inputs(self.lists.lock().unwrap_or_else(PoisonError::into_inner).inputs.clone())
    }

    /// The nodes that are asked about upgrades, as they are now.
    pub fn deciders(&self) -> Inputs {
        Inputs(self.lists.lock().unwrap_or_else(PoisonError::into_inner).deciders.clone())
    }

    fn all(&self) -> List {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
    }

    /// Gives all of them the same status.
    pub fn status(&self, status: &Status) {
        for user in self.all().iter().filter_map(Weak::upgrade) {
            user.ctx.status(status.clone());
        }
    }
}

/// The receiving nodes at one moment.
pub struct Inputs(List);

impl Inputs {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Sends a message from each of them, in the order in which they joined. The last one gets it unshared.
    pub fn send(&self, mut msg: Msg) {
        let Some((last, others)) = self.0.split_last() else { return };
        if !others.is_empty() && msg.id().is_none() {
            // All nodes send the same message, so with the same id.
            msg.set(MSGID, new_id());
        }
        for user in others.iter().filter_map(Weak::upgrade) {
            user.ctx.send(msg.clone());
        }
        if let Some(user) = last.upgrade() {
            user.ctx.send(msg);
        }
    }

    /// Whether `test` holds for all.
    pub fn all(&self, mut test: impl FnMut(&Ctx) -> bool) -> bool {
        self.0.iter().filter_map(Weak::upgrade).all(|user| test(&user.ctx))
    }
}

/// How `websocket in` and `websocket out` name their configuration.
#[derive(Debug, Deserialize)]
pub struct References {
    #[serde(default, deserialize_with = "lenient::string")]
    server: String,
    #[serde(default, deserialize_with = "lenient::string")]
    client: String,
}

/// A node's place among the users of its configuration.
pub struct Membership {
    endpoint: Arc<Endpoint>,
    user: Arc<User>,
    outlives_node: AtomicBool,
}

impl Membership {
    /// Looks up the configuration and joins it; `None` when there is none. A `client` wins over a `server`, and
    /// either may name either type.
    ///
    /// # Errors
    /// It is a client whose URL is not valid.
    pub fn join(references: &References, ctx: &Ctx, direction: Direction) -> Result<Option<Self>, Error> {
        let id = if references.client.is_empty() { &references.server } else { &references.client };
        let client = ctx.config_node::<WebSocketClient>(id).map(|node| node.endpoint().clone());
        let endpoint =
            client.or_else(|| ctx.config_node::<WebSocketListener>(id).map(|node| node.endpoint().clone()));
        let Some(endpoint) = endpoint else { return Ok(None) };
        endpoint.check()?;
        let user = Arc::new(User { ctx: ctx.clone(), direction });
        endpoint.users().add(&user);
        Ok(Some(Self { endpoint, user, outlives_node: AtomicBool::new(false) }))
    }

    /// The configuration.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Membership {
    /// Stops using the configuration: no messages and no statuses from it any more.
    pub fn leave(&self) {
        self.endpoint.users().remove(&self.user);
    }

    /// From now on only [`Membership::leave`] ends it, not the end of its node: that may have a successor, while the
    /// connections of its configuration still send through it.
    pub fn outlive_node(&self) {
        self.endpoint.users().keep(&self.user);
        self.outlives_node.store(true, Ordering::SeqCst);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if !*self.outlives_node.get_mut() {
            self.leave();
        }
    }
}

/// What a node without a configuration reports once.
pub fn missing_configuration() -> Error {
    Error::new("Missing server configuration")
}
