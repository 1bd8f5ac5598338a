//! One configuration and what goes through it: its users, its connections, its state.

use std::{
    hash::BuildHasher,
    hash::RandomState,
    pin::pin,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use flowbay_sdk::{
    Connection, ConnectionEnd, Ctx, Error, LogLevel, Msg, Received, Session, Status, Str, UpgradeAnswer,
    UpgradeRequest, Value, message::MSGID,
};
use futures_util::future::{Either, select};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::{
    address::{Address, InvalidUrl},
    client::{self, RECONNECT_MS, UNUSED_MS},
    connection::{Live, Surroundings, Timer, close_request},
    listener,
    payload::{self, Data, Mode},
    settings::Settings,
    users::Users,
};

/// How long a stopping listener waits for its clients to answer its close frames.
const LISTENER_CLOSE_MS: u64 = 1_500;
/// How long a stopping client waits for the server to answer its close frame; Node-RED's.
const CLIENT_CLOSE_MS: u64 = 1_000;
/// Close code of a listener that stops: "going away".
const GOING_AWAY: u16 = 1001;
/// Close code for a peer whose queue overflowed because it did not read: "policy violation".
const TOO_SLOW: u16 = 1008;

/// A `websocket-listener` or `websocket-client`. Both types can play both roles; the path decides.
pub struct Endpoint {
    ctx: Ctx,
    settings: Settings,
    mode: Mode,
    role: EndpointRole,
    users: Users,
    /// Open connections. The lock is held while their number is published, so that statuses come in order.
    connections: Mutex<u64>,
    /// The last connection has ended.
    all_gone: Notify,
    /// A client's connection has ended.
    ended: Notify,
    /// A client has a connection on its way.
    connecting: AtomicBool,
    /// The node is being closed.
    stopping: AtomicBool,
}

enum EndpointRole {
    Listener,
    Client(Result<Address, InvalidUrl>),
}

impl Endpoint {
    /// The endpoint of the configuration node whose context this is.
    pub fn new(settings: Settings, ctx: &Ctx) -> Self {
        let role = if Address::is_url(&settings.path) {
            EndpointRole::Client(Address::parse(&settings.path))
        } else {
            EndpointRole::Listener
        };
        Self {
            ctx: ctx.clone(),
            mode: settings.mode(),
            settings,
            role,
            users: Users::default(),
            connections: Mutex::new(0),
            all_gone: Notify::new(),
            ended: Notify::new(),
            connecting: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether it can be used at all.
    ///
    /// # Errors
    /// It is a client whose URL is not valid.
    pub fn check(&self) -> Result<(), Error> {
        match &self.role {
            EndpointRole::Client(Err(invalid)) => Err(Error::new(invalid.to_string())),
            _ => Ok(()),
        }
    }

    /// The nodes that use it.
    pub fn users(&self) -> &Users {
        &self.users
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    // ---- Sending ----

    /// Sends a message: a listener to the client that the message names or to all, a client to its server unless
    /// the message is a reply, which a client has nobody for. (As in Node-RED; it keeps a client that is wired to
    /// itself from echoing for ever.) Never waits; for whom there is no connection, there is nothing to do.
    ///
    /// # Errors
    /// The message cannot be written as JSON.
    pub fn send(&self, msg: &Msg) -> Result<(), Error> {
        let Some(frame) = payload::to_frame(msg, self.mode)? else { return Ok(()) };
        if matches!(self.role, EndpointRole::Listener) {
            match payload::reply_session(msg) {
                Some(Value::Str(id)) => {
                    self.ctx.session_send(id, frame);
                }
                // Named, but not one that exists.
                Some(_) => {}
                None => {
                    self.ctx.session_broadcast(frame);
                }
            }
        } else if payload::reply_session(msg).is_none()
            && self.ctx.session_broadcast(frame) == 0
            && self.connecting.load(Ordering::SeqCst)
        {
            self.ctx.warn(
                "An error occurred while sending:  Error: WebSocket is not open: readyState 0 (CONNECTING)",
            );
        }
        Ok(())
    }

    // ---- Starting and stopping ----

    /// The node's own task: registers the path, or keeps a connection to the server.
    ///
    /// # Errors
    /// Another listener has the path.
    pub async fn run(&self) -> Result<(), Error> {
        match &self.role {
            EndpointRole::Listener => {
                self.ctx.register_upgrade(&listener::full_path(&self.settings.path)).map_err(|error| {
                    self.ctx.log(LogLevel::Debug, error.text());
                    let path = &self.settings.path;
                    Error::new(format!("Cannot have two WebSocket listeners on the same path: {path}"))
                })
            }
            EndpointRole::Client(Ok(address)) => {
                self.keep_connected(address).await;
                Ok(())
            }
            // Reported by the nodes that use it.
            EndpointRole::Client(Err(_)) => Ok(()),
        }
    }

    /// Closes all connections and waits for a short time until they are gone.
    pub async fn close(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let wait_ms = match &self.role {
            EndpointRole::Listener => LISTENER_CLOSE_MS,
            EndpointRole::Client(_) => CLIENT_CLOSE_MS,
        };
        if self.connecting.load(Ordering::SeqCst) {
            self.publish_error(&payload::session_value(&new_id()));
        }
        self.ctx.session_broadcast(self.farewell());
        let gone = async {
            loop {
                let gone = self.all_gone.notified();
                if *self.connections.lock().unwrap_or_else(PoisonError::into_inner) == 0 {
                    break;
                }
                gone.await;
            }
        };
        select(pin!(gone), pin!(self.ctx.sleep_ms(wait_ms))).await;
    }

    /// What ends a connection when the node is closed.
    fn farewell(&self) -> Value {
        match &self.role {
            EndpointRole::Listener => close_request(Some(GOING_AWAY), ""),
            EndpointRole::Client(_) => close_request(None, ""),
        }
    }

    // ---- Listener ----

    /// Decides about an upgrade.
    pub fn answer(&self, request: &UpgradeRequest) -> UpgradeAnswer {
        if self.is_stopping() { UpgradeAnswer::refuse(503) } else { listener::accept(request) }
    }

    // ---- Client ----

    /// Keeps one connection open while some node uses the configuration.
    async fn keep_connected(&self, address: &Address) {
        let mut known_failure = false;
        loop {
            while self.users.is_empty() {
                self.users.changed().await;
            }
            if self.is_stopping() {
                return;
            }
            self.connecting.store(true, Ordering::SeqCst);
            let attempt = client::connect(address, &self.settings, &self.ctx).await;
            if self.is_stopping() {
                return;
            }
            let attached = attempt.and_then(|(stream, state)| self.ctx.attach(stream, state));
            self.connecting.store(false, Ordering::SeqCst);
            match attached {
                Ok(_) => {
                    known_failure = false;
                    self.until_ended().await;
                }
                Err(error) => {
                    let session = payload::session_value(&new_id());
                    self.publish_error(&session);
                    self.publish_disconnected(&session);
                    // Said once, not every three seconds.
                    let level = if known_failure { LogLevel::Debug } else { LogLevel::Warn };
                    self.ctx.log(level, format!("could not connect to {address}: {error}"));
                    known_failure = true;
                }
            }
            self.ctx.sleep_ms(RECONNECT_MS).await;
        }
    }

    /// Waits for the end of the connection; ends it when nobody has used it for a while.
    async fn until_ended(&self) {
        let mut ended = pin!(self.ended.notified());
        loop {
            if self.users.is_empty() {
                if let Either::Left(_) = select(ended.as_mut(), pin!(self.ctx.sleep_ms(UNUSED_MS))).await {
                    return;
                }
                if self.users.is_empty() {
                    self.ctx.session_broadcast(self.farewell());
                    return ended.await;
                }
            }
            if let Either::Left(_) = select(ended.as_mut(), pin!(self.users.changed())).await {
                return;
            }
        }
    }

    // ---- Connections ----

    /// Serves a connection of either role to its end.
    pub async fn serve(&self, connection: Connection) -> ConnectionEnd {
        let Connection { stream, session, state } = connection;
        let input = state["input"].as_bytes().unwrap_or_default().to_vec();
        drop(state);
        let (role, heartbeat_ms) = match self.role {
            EndpointRole::Listener => (Role::Server, None),
            EndpointRole::Client(_) => (Role::Client, self.settings.heartbeat_ms()),
        };
        let id = session.id().clone();
        let present = Present::enter(self, payload::session_value(&id));
        if self.is_stopping() {
            // Opened too late to hear the call that went to all.
            self.ctx.session_send(&id, self.farewell());
        }
        let mut live =
            Live::new(stream, role, input, heartbeat_ms, Hosted { endpoint: self, session, present }).await;
        live.serve().await;
        ConnectionEnd::Closed
    }

    fn publish_error(&self, session: &Value) {
        self.publish("red", "ring", "common.status.error", "error", session);
    }

    fn publish_disconnected(&self, session: &Value) {
        self.publish("red", "ring", "common.status.disconnected", "disconnect", session);
    }

    fn publish(&self, fill: &str, shape: &str, text: &str, event: &str, session: &Value) {
        let status =
            Status::new().fill(fill).shape(shape).text(text).with("event", event).with("_session", session);
        self.users.status(&status);
    }

    /// The status while there are connections: a listener says how many.
    fn publish_connected(&self, connections: u64, event: &str, session: &Value) {
        let text = match self.role {
            EndpointRole::Listener => format!("connected {connections}"),
            EndpointRole::Client(_) => "connected ".to_owned(),
        };
        self.publish("green", "dot", &text, event, session);
    }
}

/// A connection's presence: counted and published from its beginning to its end, however it ends.
struct Present<'a> {
    endpoint: &'a Endpoint,
    /// The `_session` of its messages.
    session: Value,
}

impl<'a> Present<'a> {
    fn enter(endpoint: &'a Endpoint, session: Value) -> Self {
        let mut connections = endpoint.connections.lock().unwrap_or_else(PoisonError::into_inner);
        *connections += 1;
        endpoint.publish_connected(*connections, "connect", &session);
        Self { endpoint, session }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let endpoint = self.endpoint;
        let mut connections = endpoint.connections.lock().unwrap_or_else(PoisonError::into_inner);
        *connections -= 1;
        match (*connections, &endpoint.role) {
            (0, _) | (_, EndpointRole::Client(_)) => endpoint.publish_disconnected(&self.session),
            (left, EndpointRole::Listener) => endpoint.publish_connected(left, "disconnect", &self.session),
        }
        if *connections == 0 {
            endpoint.all_gone.notify_waiters();
        }
        endpoint.ended.notify_one();
    }
}

/// The surroundings of a connection in the host.
struct Hosted<'a> {
    endpoint: &'a Endpoint,
    session: Session,
    present: Present<'a>,
}

impl Surroundings for Hosted<'_> {
    fn poll_outgoing(&self, cx: &mut Context<'_>, into: &mut Vec<Value>) -> Poll<Received> {
        self.session.poll_recv(cx, into)
    }

    fn outgoing_bytes(&self) -> usize {
        self.session.queued_bytes()
    }

    fn poll_flow(&self, cx: &mut Context<'_>) -> Poll<()> {
        let all_ready = self.endpoint.users.inputs().all(|ctx| ctx.poll_ready(cx).is_ready());
        if all_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    fn deliver(&self, data: Data<'_>) {
        let inputs = self.endpoint.users.inputs();
        if inputs.len() == 0 {
            return;
        }
        let mut msg = payload::to_message(data, self.endpoint.mode, &self.present.session);
        if inputs.len() > 1 && msg.id().is_none() {
            // All nodes send the same message, so with the same id.
            msg.set(MSGID, new_id());
        }
        inputs.send(msg);
    }

    fn failed(&self, reason: &str) {
        self.endpoint.ctx.log(LogLevel::Debug, format!("session {}: {reason}", self.session.id()));
        self.endpoint.publish_error(&self.present.session);
    }

    fn on_cut(&self) -> Value {
        if self.endpoint.is_stopping() {
            self.endpoint.farewell()
        } else {
            close_request(Some(TOO_SLOW), "the send queue is full")
        }
    }

    fn timer(&self, ms: u64) -> Timer {
        let ctx = self.endpoint.ctx.clone();
        Box::pin(async move { ctx.sleep_ms(ms).await })
    }
}

/// A new id: 16 hexadecimal digits. Ids only have to differ, so a keyed hash of a counter will do.
fn new_id() -> Str {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let hash = KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
    Str::from(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_16_hexadecimal_digits_and_differ() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| new_id().to_string()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
