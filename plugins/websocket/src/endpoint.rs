//! One configuration and what goes through it: its users, its connections, its state.

use std::{
    collections::HashSet,
    hash::BuildHasher,
    hash::RandomState,
    pin::pin,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use flowbay_sdk::{
    Connection, ConnectionEnd, Ctx, Error, LogLevel, Msg, Object, Received, Session, Status, Str,
    UpgradeAnswer, UpgradeRequest, Value, frames::Parts, message::MSGID,
};
use futures_util::future::{Either, select};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::{
    address::{Address, InvalidUrl},
    client::{self, RECONNECT_MS, UNUSED_MS},
    connection::{Live, Moved, State, Surroundings, Timer, close_request},
    listener,
    payload::{self, Data, Mode},
    settings::Settings,
    users::Users,
};

/// How long a stopping listener waits for its clients to answer its close frames.
const LISTENER_CLOSE_MS: u64 = 1_500;
/// How long a stopping client waits for the server to answer its close frame; Node-RED's.
const CLIENT_CLOSE_MS: u64 = 1_000;
/// Version of the state that an endpoint saves. A later one adds properties and keeps the meaning of these.
const STATE_VERSION: i64 = 1;
/// In a message of an endpoint to its successor: the session whose connection has ended.
const LEFT: &str = "left";
/// Close code of a listener that stops: "going away".
const GOING_AWAY: u16 = 1001;
/// Close code for a peer whose queue overflowed because it did not read: "policy violation".
const TOO_SLOW: u16 = 1008;

/// A `websocket-listener` or `websocket-client`. Both types can play both roles; the path decides.
///
/// In a hot swap there are two of them for a while, one of each generation. The new one knows from the beginning what
/// the old one [saved](Endpoint::save): which connections there are, and how far a client is. Connections come to it
/// one by one; those that end before they come are announced to it by the old one ([`Endpoint::on_direct`]).
pub struct Endpoint {
    ctx: Ctx,
    settings: Settings,
    mode: Mode,
    role: EndpointRole,
    users: Users,
    /// The sessions of all open connections, also of those that the generation before still serves. The lock is held
    /// while their number is published, so that statuses come in order.
    open: Mutex<HashSet<Str>>,
    /// The last connection has ended.
    all_gone: Notify,
    /// How far a client is.
    link: Mutex<Link>,
    /// A client's connection has ended.
    ended: Notify,
    /// The node is being closed.
    stopping: AtomicBool,
    /// There may be a successor.
    saved: AtomicBool,
}

/// How far a client is with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// There is none, and none is on its way.
    Down,
    /// One is being opened.
    Opening,
    /// There is one.
    Up,
    /// The next one is to be opened at that time.
    Waiting(Instant),
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
        let saved = ctx.restored().unwrap_or(&Value::Null);
        Self {
            ctx: ctx.clone(),
            mode: settings.mode(),
            settings,
            role,
            users: Users::default(),
            open: Mutex::new(saved_sessions(saved)),
            all_gone: Notify::new(),
            link: Mutex::new(Link::restore(&saved["link"])),
            ended: Notify::new(),
            stopping: AtomicBool::new(false),
            saved: AtomicBool::new(false),
        }
    }

    /// What a successor has to know. It, or this one if there is none after all, is told what happens from now on.
    pub fn save(&self) -> Value {
        // Under the lock under which connections leave: one that ends now is either not in what is saved, or told to
        // whoever took over.
        let open = self.open();
        self.saved.store(true, Ordering::SeqCst);
        let sessions: Vec<Value> = open.iter().map(Value::from).collect();
        let link = self.link().save();
        drop(open);
        Value::Object(Object::from([
            ("v", Value::from(STATE_VERSION)),
            ("sessions", Value::from(sessions)),
            ("link", link),
        ]))
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

    fn open(&self) -> MutexGuard<'_, HashSet<Str>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> Link {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_link(&self, link: Link) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    // ---- Sending ----

    /// Sends a message: a listener to the client that the message names or to all, a client to its server unless
    /// it came from there. (That keeps a client that is wired to itself from echoing for ever. Node-RED drops what
    /// came from any other WebSocket too.) Never waits; for whom there is no connection, there is nothing to do.
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
        } else if !self.came_from_here(msg)
            && self.ctx.session_broadcast(frame) == 0
            && self.link() == Link::Opening
        {
            self.ctx.warn(
                "An error occurred while sending:  Error: WebSocket is not open: readyState 0 (CONNECTING)",
            );
        }
        Ok(())
    }

    /// Whether the message was received by one of this endpoint's connections.
    fn came_from_here(&self, msg: &Msg) -> bool {
        match payload::reply_session(msg) {
            Some(Value::Str(id)) => self.open().contains(id),
            _ => false,
        }
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
        if self.link() == Link::Opening {
            self.publish_error(&payload::session_value(&new_id()));
        }
        self.ctx.session_broadcast(self.farewell());
        let gone = async {
            loop {
                let gone = self.all_gone.notified();
                if self.open().is_empty() {
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

    /// Keeps one connection open while some node uses the configuration. It begins where the generation before was:
    /// with its connection, with the rest of its wait, or anew when it was just opening one.
    async fn keep_connected(&self, address: &Address) {
        let mut known_failure = false;
        loop {
            match self.link() {
                Link::Down | Link::Opening => {
                    while self.users.is_empty() {
                        self.users.changed().await;
                    }
                    if self.is_stopping() {
                        return;
                    }
                    let opened = self.open_link(address).await;
                    if self.is_stopping() {
                        return;
                    }
                    if let Err(error) = &opened {
                        let session = payload::session_value(&new_id());
                        self.publish_error(&session);
                        self.publish_disconnected(&session);
                        // Said once, not every three seconds.
                        let level = if known_failure { LogLevel::Debug } else { LogLevel::Warn };
                        self.ctx.log(level, format!("could not connect to {address}: {error}"));
                        self.wait_to_reconnect();
                    }
                    known_failure = opened.is_err();
                }
                Link::Up => self.until_ended().await,
                Link::Waiting(until) => {
                    self.ctx.sleep(until.saturating_duration_since(Instant::now())).await;
                    self.set_link(Link::Down);
                }
            }
        }
    }

    /// Opens a connection, which is served from then on.
    async fn open_link(&self, address: &Address) -> Result<(), Error> {
        self.set_link(Link::Opening);
        let (stream, state) = client::connect(address, &self.settings, &self.ctx).await?;
        if self.is_stopping() {
            return Err(Error::new("the node is closed"));
        }
        // Before it begins: it may well end before this task goes on.
        self.set_link(Link::Up);
        self.ctx.attach(stream, state).map(drop)
    }

    fn wait_to_reconnect(&self) {
        self.set_link(Link::Waiting(Instant::now() + Duration::from_millis(RECONNECT_MS)));
    }

    /// Waits for the end of the connection; ends it when nobody has used it for a while.
    async fn until_ended(&self) {
        while self.link() == Link::Up {
            let ended = pin!(self.ended.notified());
            if !self.users.is_empty() {
                select(ended, pin!(self.users.changed())).await;
                continue;
            }
            if let Either::Left(_) = select(ended, pin!(self.ctx.sleep_ms(UNUSED_MS))).await {
                continue;
            }
            if self.users.is_empty() {
                self.ctx.session_broadcast(self.farewell());
                while self.link() == Link::Up {
                    self.ended.notified().await;
                }
            }
        }
    }

    // ---- Connections ----

    /// Serves a connection of either role to its end, or until a later generation goes on with it.
    pub async fn serve(&self, connection: Connection) -> ConnectionEnd {
        let Connection { stream, session, state } = connection;
        let State { moved, input, output, beat, origin } = State::from_value(&state);
        drop(state);
        let (role, heartbeat_ms) = match self.role {
            EndpointRole::Listener => (Role::Server, None),
            EndpointRole::Client(_) => (Role::Client, self.settings.heartbeat_ms()),
        };
        let present = Present::enter(self, session.id().clone(), moved);
        if self.is_stopping() {
            // Opened too late to hear the call that went to all.
            self.ctx.session_send(session.id(), self.farewell());
        }
        let parts = Parts { stream, input, output };
        let hosted = Hosted { endpoint: self, session, session_value: &present.session };
        match Live::new(parts, role, heartbeat_ms, beat, hosted).serve().await {
            None => ConnectionEnd::Closed,
            Some(Moved { parts: Parts { stream, input, output }, beat }) => {
                present.moves_on();
                let state = State { moved: true, input, output, beat, origin };
                ConnectionEnd::HandOver { stream, state: state.to_value() }
            }
        }
    }

    /// Another generation of this endpoint says something.
    pub fn on_direct(&self, msg: &Msg) {
        if let Some(Value::Str(session)) = msg.payload().get(LEFT) {
            self.forget(self.open(), session);
        }
    }

    /// A connection of this generation has ended.
    fn has_left(&self, session: &Str) {
        let open = self.open();
        if !self.saved.load(Ordering::SeqCst) {
            self.forget(open, session);
            return;
        }
        drop(open);
        // There may be another endpoint in the place of this one, which then has to know. While it is being put there,
        // the message waits in the node's mailbox.
        let left = Object::from([(LEFT, Value::from(session))]);
        if !self.ctx.deliver(self.ctx.id(), Msg::with_payload(left)) {
            self.forget(self.open(), session);
        }
    }

    /// A connection has ended, of this generation or of the one before.
    fn forget(&self, mut open: MutexGuard<'_, HashSet<Str>>, session: &Str) {
        open.remove(session);
        let value = payload::session_value(session);
        match (open.len(), &self.role) {
            (0, _) | (_, EndpointRole::Client(_)) => self.publish_disconnected(&value),
            (left, EndpointRole::Listener) => self.publish_connected(left, "disconnect", &value),
        }
        if open.is_empty() {
            self.all_gone.notify_waiters();
        }
        if self.link() == Link::Up {
            self.wait_to_reconnect();
        }
        drop(open);
        self.ended.notify_one();
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
    fn publish_connected(&self, connections: usize, event: &str, session: &Value) {
        let text = match self.role {
            EndpointRole::Listener => format!("connected {connections}"),
            EndpointRole::Client(_) => "connected ".to_owned(),
        };
        self.publish("green", "dot", &text, event, session);
    }
}

impl Link {
    fn save(self) -> Value {
        let (is, retry_ms) = match self {
            Link::Down => ("down", None),
            Link::Opening => ("opening", None),
            Link::Up => ("up", None),
            Link::Waiting(until) => {
                let left = until.saturating_duration_since(Instant::now());
                ("waiting", Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)))
            }
        };
        Value::Object(Object::from([("is", Value::from(is)), ("retry_ms", Value::from(retry_ms))]))
    }

    /// What is not known is begun anew, as is a connection that was on its way.
    fn restore(saved: &Value) -> Self {
        match saved["is"].as_str() {
            Some("up") => Link::Up,
            Some("waiting") => {
                let left = saved["retry_ms"].as_i64().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
                Link::Waiting(Instant::now() + Duration::from_millis(left.min(RECONNECT_MS)))
            }
            _ => Link::Down,
        }
    }
}

fn saved_sessions(saved: &Value) -> HashSet<Str> {
    let sessions = saved["sessions"].as_array().into_iter().flatten();
    sessions.filter_map(Value::as_str).map(Str::from).collect()
}

/// A connection's presence: counted and published from its beginning to its end, however it ends.
struct Present<'a> {
    endpoint: &'a Endpoint,
    id: Str,
    /// The `_session` of its messages.
    session: Value,
    moves: bool,
}

impl<'a> Present<'a> {
    /// One that moved here was here all the time: it is not published.
    fn enter(endpoint: &'a Endpoint, id: Str, moved: bool) -> Self {
        let session = payload::session_value(&id);
        let mut open = endpoint.open();
        open.insert(id.clone());
        if !moved {
            endpoint.publish_connected(open.len(), "connect", &session);
        }
        drop(open);
        Self { endpoint, id, session, moves: false }
    }

    /// It does not end, it goes on elsewhere.
    fn moves_on(mut self) {
        self.moves = true;
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        if !self.moves {
            self.endpoint.has_left(&self.id);
        }
    }
}

/// The surroundings of a connection in the host.
struct Hosted<'a> {
    endpoint: &'a Endpoint,
    session: Session,
    /// The `_session` of its messages.
    session_value: &'a Value,
}

impl Surroundings for Hosted<'_> {
    fn poll_outgoing(&self, cx: &mut Context<'_>, into: &mut Vec<Value>) -> Poll<Received> {
        self.session.poll_recv(cx, into)
    }

    fn poll_hand_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.session.poll_hand_over(cx)
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
        let mut msg = payload::to_message(data, self.endpoint.mode, self.session_value);
        if inputs.len() > 1 && msg.id().is_none() {
            // All nodes send the same message, so with the same id.
            msg.set(MSGID, new_id());
        }
        inputs.send(msg);
    }

    fn failed(&self, reason: &str) {
        self.endpoint.ctx.log(LogLevel::Debug, format!("session {}: {reason}", self.session.id()));
        self.endpoint.publish_error(self.session_value);
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

    fn now(&self) -> Instant {
        Instant::now()
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
    fn a_successor_begins_where_a_client_was() {
        for (link, restored) in [
            (Link::Up, Link::Up),
            (Link::Down, Link::Down),
            // Dropped with the code that was at it, and begun anew.
            (Link::Opening, Link::Down),
        ] {
            assert_eq!(Link::restore(&link.save()), restored);
        }
        let until = Instant::now() + Duration::from_millis(1500);
        let Link::Waiting(restored) = Link::restore(&Link::Waiting(until).save()) else { panic!("it waits") };
        assert!(until.duration_since(restored) < Duration::from_millis(500));
        assert!(restored.duration_since(until) < Duration::from_millis(500));
    }

    #[test]
    fn what_a_predecessor_did_not_say_is_as_at_a_start() {
        let json = |text: &str| Value::from_json(text.as_bytes()).unwrap();
        for saved in ["null", "{}", r#"{"is":"dancing"}"#, r#"{"is":7}"#] {
            assert_eq!(Link::restore(&json(saved)), Link::Down, "{saved}");
        }
        for saved in [r#"{"is":"waiting"}"#, r#"{"is":"waiting","retry_ms":9e15}"#] {
            let Link::Waiting(until) = Link::restore(&json(saved)) else { panic!("it waits: {saved}") };
            assert!(until <= Instant::now() + Duration::from_millis(RECONNECT_MS), "{saved}");
        }
        assert!(saved_sessions(&json(r#"{"sessions":7}"#)).is_empty());
        assert_eq!(saved_sessions(&json(r#"{"sessions":["a",1,"b"]}"#)).len(), 2);
    }

    #[test]
    fn ids_are_16_hexadecimal_digits_and_differ() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| new_id().to_string()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
