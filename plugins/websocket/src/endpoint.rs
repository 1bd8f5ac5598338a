//! One configuration and what goes through it: its users, its connections, its state.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher,
    hash::RandomState,
    pin::pin,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use flowbay_sdk::{
    Connection, ConnectionEnd, Ctx, Error, LogLevel, Msg, Object, Queued, Received, Seldom, Session, Status,
    Str, UpgradeAnswer, UpgradeRequest, Value,
};
use futures_util::future::select;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::{
    address::Address,
    backlog::Backlog,
    connection::{Ending, Limits, Live, State, Surroundings, Timer, Traffic, close_request},
    control::Action,
    farewells::Farewells,
    link::Client,
    listener::{Listener, PATH_TAKEN},
    metrics::Metrics,
    payload::{self, Data, Mode, Target},
    session,
    settings::Settings,
    users::Users,
};

/// Version of the state that an endpoint saves. A later one adds properties and keeps the meaning of these.
const STATE_VERSION: i64 = 1;
/// Close code for a peer whose queue overflowed because it did not read: "policy violation".
const TOO_SLOW: u16 = 1008;
/// Close code for a peer that came when all places were taken: "try again later".
const TRY_LATER: u16 = 1013;

/// A `websocket-listener` or `websocket-client`. Both types can play both roles; the path decides.
///
/// In a hot swap there are two of them for a while, one of each generation. The new one knows from the beginning what
/// the old one [saved](Endpoint::save): which connections there are, and how far a client is. Connections come to it
/// one by one; those that end before they come are announced to it by the old one ([`Endpoint::on_direct`]).
pub struct Endpoint {
    ctx: Ctx,
    settings: Settings,
    mode: Mode,
    limits: Limits,
    role: EndpointRole,
    users: Users,
    metrics: Metrics,
    /// Lines about connections that are ended because of what their peers do.
    cuts: Seldom,
    /// The sessions of all open connections, also of those that the generation before still serves, each with its
    /// `_session`, which the connection's messages share. The lock is held while their number is published, so that
    /// statuses come in order.
    open: Mutex<HashMap<Str, Value>>,
    /// Those of them that are to end.
    farewells: Farewells,
    /// The last connection has ended.
    all_gone: Notify,
    /// The node is being closed.
    stopping: AtomicBool,
    /// There may be a successor.
    saved: AtomicBool,
}

/// What an endpoint does with what both roles have.
enum EndpointRole {
    Listener(Listener),
    Client(Box<Client>),
}

impl Endpoint {
    /// The endpoint of the configuration node whose context this is.
    ///
    /// # Errors
    /// A property has a value that makes no sense; the text names it.
    pub fn new(settings: Settings, ctx: &Ctx) -> Result<Self, Error> {
        let saved = ctx.restored().unwrap_or(&Value::Null);
        let (role, usual) = if Address::is_url(&settings.path) {
            (EndpointRole::Client(Box::new(Client::new(&settings, &saved["link"], ctx)?)), Limits::CLIENT)
        } else {
            (EndpointRole::Listener(Listener::new(&settings, &ctx.credentials())?), Limits::LISTENER)
        };
        Ok(Self {
            ctx: ctx.clone(),
            mode: settings.mode(),
            limits: settings.limits(usual)?,
            settings,
            role,
            users: Users::default(),
            metrics: Metrics::new(ctx),
            cuts: Seldom::default(),
            open: Mutex::new(saved_sessions(saved)),
            farewells: Farewells::default(),
            all_gone: Notify::new(),
            stopping: AtomicBool::new(false),
            saved: AtomicBool::new(false),
        })
    }

    /// What a successor has to know. It, or this one if there is none after all, is told what happens from now on.
    pub fn save(&self) -> Value {
        // Under the lock under which connections leave: one that ends now is either not in what is saved, or told to
        // whoever took over.
        let open = self.open();
        self.saved.store(true, Ordering::SeqCst);
        let sessions: Vec<Value> = open.keys().map(Value::from).collect();
        // The values themselves: shared, not copied.
        let described: Vec<Value> = open.values().cloned().collect();
        let (link, path_taken) = match &self.role {
            EndpointRole::Listener(listener) => (Value::Null, listener.path_taken()),
            EndpointRole::Client(client) => (client.save(), false),
        };
        drop(open);
        Value::Object(Object::from([
            ("v", Value::from(STATE_VERSION)),
            ("sessions", Value::from(sessions)),
            (DESCRIBED, Value::from(described)),
            ("link", link),
            (PATH_TAKEN, Value::from(path_taken)),
        ]))
    }

    /// Whether it can be used at all.
    ///
    /// # Errors
    /// It is a client whose URL is not valid.
    pub fn check(&self) -> Result<(), Error> {
        match &self.role {
            EndpointRole::Listener(_) => Ok(()),
            EndpointRole::Client(client) => client.check(),
        }
    }

    /// The context of its node.
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Its properties.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The sessions that are to end.
    pub fn farewells(&self) -> &Farewells {
        &self.farewells
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.open().len()
    }

    /// The nodes that use it.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// Whether the node is being closed.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Str, Value>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- Sending ----

    /// Sends a message: a listener to the clients that the message is for, a client to its server unless it came from
    /// there. Never waits.
    ///
    /// # Errors
    /// The message cannot be written as JSON, or the client has no connection.
    pub fn send(&self, msg: &Msg) -> Result<(), Error> {
        let Some(frame) = payload::to_frame(msg, self.mode)? else { return Ok(()) };
        match &self.role {
            EndpointRole::Listener(_) => {
                self.queue(&payload::target(msg), frame);
                Ok(())
            }
            EndpointRole::Client(client) => client.send(self, msg, frame),
        }
    }

    /// Puts a value into the queues of the sessions that a message is for, but for those that are to end: what came
    /// behind their end would never be sent. It is one value, however many those are. For whom there is no session,
    /// there is nothing to do but to count.
    fn queue(&self, target: &Target<'_>, value: Value) {
        self.queue_but(&self.farewells.all(), target, value);
    }

    fn queue_but(&self, leaving: &[Str], target: &Target<'_>, value: Value) {
        let leaving = leaving.iter().map(|id| &**id);
        match target {
            Target::All => {
                self.ctx.session_broadcast_except(value, &leaving.collect::<Vec<_>>());
            }
            Target::AllBut(ids) => {
                let ids: Vec<&str> = ids.iter().copied().chain(leaving).collect();
                self.ctx.session_broadcast_except(value, &ids);
            }
            Target::These { ids, impossible } => {
                let leaving: HashSet<&str> = leaving.collect();
                let is_unknown = |id: &&&str| {
                    leaving.contains(**id) || self.ctx.session_send(id, value.clone()) == Queued::NoSession
                };
                let undelivered = ids.iter().filter(is_unknown).count() as u64 + impossible;
                if undelivered > 0 {
                    self.metrics.undelivered.add(undelivered);
                }
            }
        }
    }

    /// Ends the sessions that a message is for, when they have sent what waits.
    fn end(&self, target: &Target<'_>, request: &Value) {
        let earlier = self.farewells.all();
        let say = |id: &Str| self.farewells.say(id.clone(), request.clone());
        let open = self.open();
        match target {
            Target::All => open.keys().for_each(say),
            Target::AllBut(ids) => {
                let ids: HashSet<&str> = ids.iter().copied().collect();
                open.keys().filter(|id| !ids.contains(&***id)).for_each(say);
            }
            Target::These { ids, .. } => {
                ids.iter().filter_map(|id| open.get_key_value(*id)).for_each(|(id, _)| say(id));
            }
        }
        drop(open);
        // Said before: where it finds no room, the connection sees it when it has made some.
        self.queue_but(&earlier, target, request.clone());
    }

    /// Whether the message was received by one of this endpoint's connections.
    pub fn came_from_here(&self, msg: &Msg) -> bool {
        match payload::target(msg) {
            Target::These { ids, .. } => {
                let open = self.open();
                ids.iter().any(|id| open.contains_key(*id))
            }
            Target::All | Target::AllBut(_) => false,
        }
    }

    /// Does what a message asks for.
    ///
    /// # Errors
    /// It is nothing that this endpoint can do.
    pub fn obey(&self, msg: &Msg, action: Action) -> Result<(), Error> {
        match (&self.role, action) {
            (EndpointRole::Listener(_), Action::Close { code, reason }) => {
                self.end(&payload::target(msg), &close_request(Some(code), &reason));
                Ok(())
            }
            (EndpointRole::Client(client), Action::Close { code, reason }) => {
                client.close(self, &payload::target(msg), close_request(Some(code), &reason));
                Ok(())
            }
            (EndpointRole::Listener(listener), Action::Accept { upgrade, identity, protocol }) => {
                listener.let_in(self, &upgrade, identity, protocol)
            }
            (EndpointRole::Listener(listener), Action::Refuse { upgrade, status, reason }) => {
                listener.turn_away(self, &upgrade, status, &reason)
            }
            (EndpointRole::Client(client), Action::Connect { url }) => client.connect(self, url.as_deref()),
            (EndpointRole::Client(client), Action::Disconnect { code, reason }) => {
                client.disconnect(self, code, &reason);
                Ok(())
            }
            (EndpointRole::Listener(_), Action::Connect { .. } | Action::Disconnect { .. }) => {
                Err(Error::new(
                    "actions connect and disconnect are for clients: this configuration is a listener",
                ))
            }
            (EndpointRole::Client(_), Action::Accept { .. } | Action::Refuse { .. }) => {
                Err(Error::new("actions accept and refuse are for listeners: this configuration is a client"))
            }
        }
    }

    // ---- Starting and stopping ----

    /// The node's own task: registers the path, or keeps a connection to the server.
    ///
    /// # Errors
    /// Another listener has the path.
    pub async fn run(&self) -> Result<(), Error> {
        match &self.role {
            EndpointRole::Listener(listener) => listener.run(self),
            EndpointRole::Client(client) => {
                client.run(self).await;
                Ok(())
            }
        }
    }

    /// Closes all connections and waits for a short time until they are gone.
    pub async fn close(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let wait_ms = match &self.role {
            EndpointRole::Listener(_) => Listener::CLOSE_MS,
            EndpointRole::Client(client) => {
                client.stop(self);
                Client::CLOSE_MS
            }
        };
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
        if let EndpointRole::Client(client) = &self.role {
            client.stopped(self);
        }
    }

    /// What ends a connection when the node is closed.
    fn farewell(&self) -> Value {
        match &self.role {
            EndpointRole::Listener(_) => Listener::farewell(),
            EndpointRole::Client(_) => Client::farewell(),
        }
    }

    /// Decides about an upgrade. Only listeners register paths, so only they are asked.
    pub fn answer(&self, request: &UpgradeRequest) -> UpgradeAnswer {
        match &self.role {
            EndpointRole::Listener(listener) => listener.answer(self, request),
            EndpointRole::Client(_) => UpgradeAnswer::refuse(503),
        }
    }

    /// Whether flows decide about its upgrades.
    pub fn leaves_decisions(&self) -> bool {
        matches!(&self.role, EndpointRole::Listener(listener) if listener.leaves_decisions())
    }

    // ---- Connections ----

    /// Serves a connection of either role to its end, or until a later generation goes on with it.
    pub async fn serve(&self, connection: Connection) -> ConnectionEnd {
        let Connection { stream, session, state: mut value } = connection;
        forget_secrets(&mut value);
        let state = State::from_value(&value);
        let present = Present::enter(self, session, &value, state.moved);
        drop(value);
        let role = match self.role {
            EndpointRole::Listener(_) => Role::Server,
            EndpointRole::Client(_) => Role::Client,
        };
        if self.is_stopping() {
            // Opened too late to hear the call that went to all.
            self.ctx.session_send(present.session.id(), self.farewell());
        }
        match Live::new(stream, state, role, &self.limits, Hosted(&present)).serve().await {
            None => ConnectionEnd::Closed,
            Some((stream, state)) => {
                let mut state = state.to_value();
                present.moves_on(&mut state);
                ConnectionEnd::HandOver { stream, state }
            }
        }
    }

    /// Another generation of this endpoint says something.
    pub fn on_direct(&self, msg: &Msg) {
        if let Some(left) = Left::from_value(msg.payload()) {
            self.forget(self.open(), left);
        }
    }

    /// A connection could not be served any more, or not be taken over from the generation before. Nothing when its
    /// end was noticed already.
    pub fn lost(&self, session: &str) {
        let known = self.open().get_key_value(session).map(|(id, session)| (id.clone(), session.clone()));
        if let Some((id, session)) = known {
            self.has_left(Left { id, session, ending: Ending::default(), unsent: Vec::new() });
        }
    }

    /// A connection of this generation has ended.
    fn has_left(&self, left: Left) {
        let open = self.open();
        if !self.saved.load(Ordering::SeqCst) {
            self.forget(open, left);
            return;
        }
        drop(open);
        // There may be another endpoint in the place of this one, which then has to know. While it is being put there,
        // the message waits in the node's mailbox.
        if !self.ctx.deliver(self.ctx.id(), Msg::with_payload(left.to_value())) {
            self.forget(self.open(), left);
        }
    }

    /// A connection has ended, of this generation or of the one before.
    fn forget(&self, mut open: MutexGuard<'_, HashMap<Str, Value>>, left: Left) {
        let Left { id, session, ending, unsent } = left;
        open.remove(&id);
        self.metrics.connections.set(open.len() as i64);
        // Under the lock: see `save`. Before anybody hears of it: what a flow sends then waits for the next connection.
        if let EndpointRole::Client(client) = &self.role {
            client.connection_ended(self, unsent);
        }
        self.farewells.forget(&id);
        let status = match (open.len(), &self.role) {
            (0, _) | (_, EndpointRole::Client(_)) => disconnected(&session),
            (count, EndpointRole::Listener(_)) => self.connected(count, "disconnect", &session),
        };
        let status = status.with("code", i64::from(ending.code)).with("reason", &*ending.reason);
        self.users.status(&status);
        if open.is_empty() {
            self.all_gone.notify_waiters();
        }
    }

    /// Publishes the status of a connection that failed; `session` is its `_session`.
    pub fn publish_error(&self, session: &Value) {
        self.users.status(&status("red", "ring", "common.status.error", "error", session));
    }

    /// Publishes the status of an endpoint without connection; `session` is the `_session` of the last one.
    pub fn publish_disconnected(&self, session: &Value) {
        let Ending { code, reason } = Ending::default();
        self.users.status(&disconnected(session).with("code", i64::from(code)).with("reason", &*reason));
    }

    /// The status while there are connections: a listener says how many.
    fn connected(&self, connections: usize, event: &str, session: &Value) -> Status {
        let text = match self.role {
            EndpointRole::Listener(_) => format!("connected {connections}"),
            EndpointRole::Client(_) => "connected ".to_owned(),
        };
        status("green", "dot", &text, event, session)
    }
}

fn status(fill: &str, shape: &str, text: &str, event: &str, session: &Value) -> Status {
    Status::new().fill(fill).shape(shape).text(text).with("event", event).with("_session", session)
}

fn disconnected(session: &Value) -> Status {
    status("red", "ring", "common.status.disconnected", "disconnect", session)
}

/// Takes the password or token out of a connection's state, which nobody needs any more.
fn forget_secrets(state: &mut Value) {
    let request = state.as_object_mut().and_then(|state| state.get_mut("request")?.as_object_mut());
    if let Some(Value::Object(headers)) = request.and_then(|request| request.get_mut("headers")) {
        headers.remove("authorization");
    }
}

/// In the saved state: the `_session` of each session, in any order. An older version does not say them.
const DESCRIBED: &str = "described";

fn saved_sessions(saved: &Value) -> HashMap<Str, Value> {
    let values = |of: &'static str| saved[of].as_array().into_iter().flatten();
    let mut sessions: HashMap<Str, Value> = values("sessions")
        .filter_map(Value::as_str)
        .map(Str::from)
        .map(|id| (id.clone(), session::minimal(&id)))
        .collect();
    for session in values(DESCRIBED) {
        if let Some(known) = session["id"].as_str().and_then(|id| sessions.get_mut(id)) {
            *known = session.clone();
        }
    }
    sessions
}

/// In a connection's state: what it is to end by.
const FAREWELL: &str = "farewell";

/// What there is to say of a connection that has ended.
struct Left {
    id: Str,
    /// Its `_session`.
    session: Value,
    ending: Ending,
    /// What a client's connection was to send and did not.
    unsent: Vec<Value>,
}

impl Left {
    /// As an endpoint says it to its successor. A later version adds properties and keeps the meaning of these.
    fn to_value(&self) -> Value {
        Value::Object(Object::from([
            ("left", Value::from(&self.id)),
            ("session", self.session.clone()),
            ("code", Value::from(i64::from(self.ending.code))),
            ("reason", Value::from(&*self.ending.reason)),
            ("unsent", Value::from(self.unsent.clone())),
        ]))
    }

    /// What an endpoint's predecessor said; an older one said only who left.
    fn from_value(value: &Value) -> Option<Self> {
        let Value::Str(id) = &value["left"] else { return None };
        let session = &value["session"];
        let session = if session.is_null() { session::minimal(id) } else { session.clone() };
        let code = value["code"].as_i64().and_then(|code| u16::try_from(code).ok());
        let ending = match code {
            Some(code) => Ending { code, reason: value["reason"].as_str().unwrap_or_default().into() },
            None => Ending::default(),
        };
        let unsent = value["unsent"].as_array().into_iter().flatten().cloned().collect();
        Some(Self { id: id.clone(), session, ending, unsent })
    }
}

/// A connection's presence: counted and published from its beginning to its end, however it ends.
struct Present<'a> {
    endpoint: &'a Endpoint,
    session: Session,
    /// The `_session` of its messages: one value for all of them.
    value: Value,
    /// What a client's connection sends first.
    backlog: Option<Box<Backlog>>,
    /// A mutex, because the connection moves between threads with a reference to this.
    ending: Mutex<Ending>,
    moves: bool,
}

impl<'a> Present<'a> {
    /// One that moved here was here all the time: it is not published.
    fn enter(endpoint: &'a Endpoint, session: Session, state: &Value, moved: bool) -> Self {
        let value = session::describe(session.id(), state);
        let backlog = match endpoint.role {
            EndpointRole::Listener(_) => None,
            EndpointRole::Client(_) => Some(Box::new(Backlog::from_state(state))),
        };
        let mut open = endpoint.open();
        open.insert(session.id().clone(), value.clone());
        if let farewell @ Value::Object(_) = &state[FAREWELL] {
            endpoint.farewells.say(session.id().clone(), farewell.clone());
        }
        let count = open.len();
        endpoint.metrics.connections.set(count as i64);
        if !moved {
            endpoint.metrics.opened.inc();
            endpoint.users.status(&endpoint.connected(count, "connect", &value));
        }
        drop(open);
        let present = Self { endpoint, session, value, backlog, ending: Mutex::default(), moves: false };
        // Several that are let in at the same moment each see the last place.
        if let EndpointRole::Listener(listener) = &endpoint.role
            && !moved
            && count as u64 > listener.max_clients()
        {
            present.is_too_many();
        }
        present
    }

    /// There is no place for it: it is refused, as far as that is still possible.
    fn is_too_many(&self) {
        const WHY: &str = "too many clients";
        self.endpoint.metrics.refused.inc();
        self.log_cut(WHY);
        let this = Target::These { ids: vec![self.session.id()], impossible: 0 };
        self.endpoint.end(&this, &close_request(Some(TRY_LATER), WHY));
    }

    /// Says that it is ended by us; not for each of many.
    fn log_cut(&self, reason: &str) {
        if let Some(left_out) = self.endpoint.cuts.again() {
            let (id, peer) = (self.session.id(), session::peer(&self.value));
            self.endpoint
                .ctx
                .log(LogLevel::Info, format!("session {id} with {peer} is ended: {reason}{left_out}"));
        }
    }

    /// It does not end, it goes on elsewhere: with that state, to which this adds its part.
    fn moves_on(mut self, state: &mut Value) {
        if let Some(backlog) = &self.backlog {
            backlog.save(state);
        }
        let farewells = &self.endpoint.farewells;
        if let (Value::Object(state), Some(farewell)) = (state, farewells.to(self.session.id())) {
            state.insert(FAREWELL, farewell);
            farewells.forget(self.session.id());
        }
        self.moves = true;
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        if !self.moves {
            let (id, session) = (self.session.id().clone(), self.value.clone());
            let ending = std::mem::take(self.ending.get_mut().unwrap_or_else(PoisonError::into_inner));
            // What it did not send goes back to where it waited.
            let unsent = match (&self.endpoint.role, &self.backlog) {
                (EndpointRole::Client(client), Some(backlog)) => client.take_back(backlog, &self.session),
                _ => Vec::new(),
            };
            self.endpoint.has_left(Left { id, session, ending, unsent });
        }
    }
}

/// The surroundings of a connection in the host.
struct Hosted<'a>(&'a Present<'a>);

impl Surroundings for Hosted<'_> {
    fn poll_outgoing(&self, cx: &mut Context<'_>, into: &mut Vec<Value>) -> Poll<Received> {
        let Present { endpoint, session, backlog, .. } = self.0;
        let polled = match backlog {
            None => session.poll_recv(cx, into),
            Some(backlog) => backlog.poll_outgoing(session, cx, into),
        };
        if polled.is_pending()
            && let Some(farewell) = endpoint.farewells.to(session.id())
        {
            // There was no room in the queue for it.
            into.push(farewell);
            return Poll::Ready(Received::Values(1));
        }
        polled
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Received> {
        self.0.session.poll_end(cx)
    }

    fn is_to_end(&self) -> bool {
        self.0.endpoint.farewells.to(self.0.session.id()).is_some()
    }

    fn outgoing_bytes(&self) -> usize {
        self.0.session.queued_bytes()
    }

    fn poll_flow(&self, cx: &mut Context<'_>) -> Poll<()> {
        let all_ready = self.0.endpoint.users.inputs().all(|ctx| ctx.poll_ready(cx).is_ready());
        if all_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    fn deliver(&self, data: Data<'_>) {
        let inputs = self.0.endpoint.users.inputs();
        if inputs.len() > 0 {
            inputs.send(payload::to_message(data, self.0.endpoint.mode, &self.0.value));
        }
    }

    fn failed(&self, reason: &str) {
        self.0.log_cut(reason);
        self.0.endpoint.publish_error(&self.0.value);
    }

    fn broke_protocol(&self) {
        self.0.endpoint.metrics.protocol_errors.inc();
    }

    fn passed(&self, traffic: &Traffic) {
        let metrics = &self.0.endpoint.metrics;
        if traffic.messages_received > 0 {
            metrics.messages_received.add(u64::from(traffic.messages_received));
            metrics.bytes_received.add(traffic.bytes_received);
        }
        if traffic.messages_sent > 0 {
            metrics.messages_sent.add(u64::from(traffic.messages_sent));
            metrics.bytes_sent.add(traffic.bytes_sent);
        }
    }

    fn cut_off(&self, reason: &str) {
        self.0.log_cut(reason);
    }

    fn ended(&self, ending: &Ending) {
        self.0.ending.lock().unwrap_or_else(PoisonError::into_inner).clone_from(ending);
    }

    fn on_cut(&self) -> Value {
        if self.0.endpoint.is_stopping() {
            self.0.endpoint.farewell()
        } else {
            close_request(Some(TOO_SLOW), "the send queue is full")
        }
    }

    fn timer(&self, ms: u64) -> Timer {
        let ctx = self.0.endpoint.ctx.clone();
        Box::pin(async move { ctx.sleep_ms(ms).await })
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A new id: 16 hexadecimal digits. Ids only have to differ, so a keyed hash of a counter will do.
pub fn new_id() -> Str {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let hash = KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
    Str::from(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests;
