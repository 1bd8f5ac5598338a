//! A client's link to its server: when it is opened, how far it is, and when it is tried again.

use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use flowbay_sdk::{
    Counter, Ctx, Error, Gauge, HostStream, LogLevel, Msg, Object, QueueOptions, Seldom, Session, Str, Value,
};
use futures_util::future::{Either, select};
use tokio::sync::Notify;

use crate::{
    address::{Address, InvalidUrl},
    backlog::{BACKLOG, Backlog},
    backoff::{Reconnect, random},
    client,
    client_settings::ClientSettings,
    connection::close_request,
    endpoint::{Endpoint, new_id},
    options::Options,
    payload::Target,
    session,
    settings::Settings,
    waiting::Waiting,
};

/// How long a connection whose last user has left is kept: a redeploy may bring new ones.
const UNUSED_MS: u64 = 5_000;
/// Close code of a client that is told to go elsewhere: "normal closure".
const NORMAL: u16 = 1000;

/// What an endpoint needs to be a client.
pub struct Client {
    address: Result<Address, InvalidUrl>,
    settings: ClientSettings,
    /// How the host is to queue for a connection.
    queue: QueueOptions,
    link: Mutex<Link>,
    /// The link was changed by another than the client's own task.
    changed: Notify,
    reconnects: Counter,
    waiting_messages: Gauge,
    waiting_bytes: Gauge,
    failed: Seldom,
    ended: Seldom,
}

/// How far a client is with its connection, and what it knows of the ones before.
#[derive(Debug)]
struct Link {
    stage: Stage,
    /// The session of the last connection.
    session: Option<Str>,
    /// Whether there is to be a connection: not after a `disconnect`.
    wanted: bool,
    /// Where a `connect` has sent it instead of to the server that is configured, and that as a URL.
    elsewhere: Option<(String, Address)>,
    /// Attempts in a row that came to nothing, and connections that ended soon.
    failures: u32,
    /// What the last of them was; said once.
    failure: String,
    /// Messages for the next connection.
    waiting: Waiting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is no connection, and none is on its way.
    Down,
    /// One is being opened.
    Opening,
    /// There is one, since that time.
    Up(Instant),
    /// There is one, which was told to end; the next one may be opened at once then.
    Leaving,
    /// There was one since that time, which has ended or is about to: its queue leads nowhere any more, but that is
    /// not known to all yet.
    Ended(Instant),
    /// The next one is to be opened at that time.
    Pausing(Instant),
}

impl Client {
    /// How long a stopping client waits for the server to answer its close frame; Node-RED's.
    pub const CLOSE_MS: u64 = 1_000;

    /// A client, which goes on where its predecessor [was](Client::save).
    ///
    /// # Errors
    /// A property makes no sense; the text names it.
    pub fn new(settings: &Settings, saved: &Value, ctx: &Ctx) -> Result<Self, Error> {
        let queue = settings.send_queue()?;
        let address = Address::parse(&settings.path);
        let settings = ClientSettings::read(Options(&settings.options))?;
        let waiting = Waiting::new(settings.queue, &saved["waiting"]);
        let client = Self {
            address,
            settings,
            queue,
            link: Mutex::new(Link::restore(saved, waiting, settings.reconnect)),
            changed: Notify::new(),
            reconnects: ctx.counter("websocket_reconnects_total", "Attempts of a client to connect again"),
            waiting_messages: ctx
                .gauge("websocket_waiting_messages", "Messages that wait for a client's next connection"),
            waiting_bytes: ctx.gauge(
                "websocket_waiting_bytes",
                "Payload bytes of the messages that wait for a client's next connection, and 64 for each",
            ),
            failed: Seldom::default(),
            ended: Seldom::default(),
        };
        client.show_waiting(&client.link());
        Ok(client)
    }

    /// What a successor has to know.
    pub fn save(&self) -> Value {
        self.link().save()
    }

    /// Whether it can be used at all.
    ///
    /// # Errors
    /// Its URL is not valid.
    pub fn check(&self) -> Result<(), Error> {
        self.address.as_ref().map(drop).map_err(|invalid| Error::new(invalid.to_string()))
    }

    /// What ends its connection when the node is closed.
    pub fn farewell() -> Value {
        close_request(None, "")
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is to be connected to, for the log.
    fn server(&self, link: &Link) -> String {
        match (&link.elsewhere, &self.address) {
            (Some((_, address)), _) | (None, Ok(address)) => address.to_string(),
            // No node can use it.
            (None, Err(invalid)) => invalid.to_string(),
        }
    }

    fn stage(&self) -> Stage {
        self.link().stage
    }

    /// Publishes how much waits, after each change and under the same lock.
    fn show_waiting(&self, link: &Link) {
        self.waiting_messages.set(link.waiting.len() as i64);
        self.waiting_bytes.set(link.waiting.bytes() as i64);
    }

    // ---- Sending ----

    /// Sends a frame to the server, unless the message it was made from came from there. (That keeps a client that
    /// is wired to itself from echoing for ever. Node-RED drops what came from any other WebSocket too.) While there
    /// is no connection, the frame waits for the next one when the configuration says so.
    ///
    /// # Errors
    /// There is no connection, and it does not wait. It is counted as undelivered.
    pub fn send(&self, endpoint: &Endpoint, msg: &Msg, frame: Value) -> Result<(), Error> {
        if endpoint.came_from_here(msg) {
            return Ok(());
        }
        // The lock is held while the frame is queued, or it could overtake what is taken out of the queue of the time
        // without a connection.
        let mut link = self.link();
        if matches!(link.stage, Stage::Up(_)) {
            let ctx = endpoint.ctx();
            // A session with another policy than to cut is there still, and has dropped something: as configured.
            if ctx.session_broadcast(frame.clone()) > 0 || ctx.session_count() > 0 {
                return Ok(());
            }
            // It was cut, because the server does not keep up.
            link.has_ended();
        }
        if link.waiting.is_on() {
            let pushed = link.waiting.push(frame);
            self.show_waiting(&link);
            return pushed.map_err(|full| {
                endpoint.metrics().undelivered.inc();
                Error::from(full).with_code("QUEUE_FULL")
            });
        }
        endpoint.metrics().undelivered.inc();
        let (stage, server) = (link.stage_text(), self.server(&link));
        drop(link);
        Err(Error::new(format!("not connected to {server} ({stage}): the message is not sent"))
            .with_code("NOT_CONNECTED"))
    }

    // ---- The client's own task ----

    /// Keeps one connection open while some node uses the configuration. It begins where the generation before was:
    /// with its connection, with the rest of its wait, or anew when it was just opening one.
    pub async fn run(&self, endpoint: &Endpoint) {
        // An invalid URL is reported by the nodes that use it.
        let Ok(address) = &self.address else { return };
        while !endpoint.is_stopping() {
            // Whatever happens, what is to be done next is decided anew.
            match self.stage() {
                Stage::Down => self.when_down(endpoint, address).await,
                Stage::Up(_) => self.while_up(endpoint).await,
                Stage::Pausing(until) => self.pause(endpoint, until).await,
                Stage::Opening | Stage::Leaving | Stage::Ended(_) => self.changed.notified().await,
            }
        }
    }

    /// Opens a connection when somebody needs one.
    async fn when_down(&self, endpoint: &Endpoint, address: &Address) {
        if !self.link().wanted {
            self.changed.notified().await;
        } else if endpoint.users().is_empty() {
            select(pin!(endpoint.users().changed()), pin!(self.changed.notified())).await;
        } else {
            let (address, again) = {
                let mut link = self.link();
                if link.stage != Stage::Down || !link.wanted {
                    return;
                }
                link.stage = Stage::Opening;
                let elsewhere = link.elsewhere.as_ref().map(|(_, address)| address.clone());
                (elsewhere.unwrap_or_else(|| address.clone()), link.failures > 0)
            };
            if again {
                self.reconnects.inc();
            }
            self.open(endpoint, &address).await;
        }
    }

    /// Opens a connection, which is served from then on.
    async fn open(&self, endpoint: &Endpoint, address: &Address) {
        let time = self.settings.connect_timeout;
        let mut connecting = pin!(client::connect(address, endpoint.settings(), time, endpoint.ctx()));
        let opened = loop {
            match select(connecting.as_mut(), pin!(self.changed.notified())).await {
                Either::Left((opened, _)) => break opened,
                Either::Right(_) if self.stage() == Stage::Opening => {}
                // Something else was asked for.
                Either::Right(_) => return,
            }
        };
        if endpoint.is_stopping() {
            return;
        }
        let begun = opened.and_then(|(stream, state)| self.begin(endpoint, address, stream, state));
        if let Err(error) = begun {
            self.has_failed(endpoint, address, &error);
        }
    }

    /// A connection is there.
    fn begin(
        &self,
        endpoint: &Endpoint,
        address: &Address,
        stream: HostStream,
        mut state: Object,
    ) -> Result<(), Error> {
        let mut link = self.link();
        if link.stage != Stage::Opening {
            return Ok(());
        }
        state.insert("queue", self.queue);
        let backlog = link.waiting.take();
        if !backlog.is_empty() {
            state.insert(BACKLOG, Value::from(backlog.clone()));
        }
        // Under the lock: whoever finds the link up finds the session too. What the connection does as soon as it is
        // polled, by another thread, waits.
        link.stage = Stage::Up(Instant::now());
        match endpoint.ctx().attach(stream, Value::Object(state)) {
            Ok(session) => link.session = Some(session),
            Err(error) => {
                link.stage = Stage::Opening;
                link.waiting.put_back(backlog);
                return Err(error);
            }
        }
        self.show_waiting(&link);
        if !link.failure.is_empty() {
            link.failure.clear();
            drop(link);
            endpoint.ctx().log(LogLevel::Info, format!("connected to {address} again"));
        }
        Ok(())
    }

    /// No connection could be opened.
    fn has_failed(&self, endpoint: &Endpoint, address: &Address, error: &Error) {
        {
            let mut link = self.link();
            if link.stage != Stage::Opening {
                return;
            }
            link.pause(self.settings.reconnect);
            let text = format!("could not connect to {address}: {error}");
            // Said once, and not each time that it is tried again.
            if text == link.failure {
                endpoint.ctx().log(LogLevel::Debug, text);
            } else if let Some(left_out) = self.failed.again() {
                endpoint.ctx().warn(format!("{text}{left_out}"));
                link.failure = text;
            }
        }
        publish_not_connected(endpoint, address);
    }

    /// Waits until it is time for the next attempt, or something else happens.
    async fn pause(&self, endpoint: &Endpoint, until: Instant) {
        let rest = until.saturating_duration_since(Instant::now());
        let over = endpoint.ctx().sleep(rest);
        if let Either::Left(_) = select(pin!(over), pin!(self.changed.notified())).await {
            let mut link = self.link();
            if link.stage == Stage::Pausing(until) {
                link.stage = Stage::Down;
            }
        }
    }

    /// Waits until something happens to the connection; ends it when nobody has used it for a while.
    async fn while_up(&self, endpoint: &Endpoint) {
        let changed = pin!(self.changed.notified());
        if !endpoint.users().is_empty() {
            select(changed, pin!(endpoint.users().changed())).await;
            return;
        }
        if let Either::Right(_) = select(changed, pin!(endpoint.ctx().sleep_ms(UNUSED_MS))).await
            && endpoint.users().is_empty()
        {
            self.leave(endpoint, Self::farewell());
        }
    }

    /// Ends the connection, if there is one.
    fn leave(&self, endpoint: &Endpoint, farewell: Value) {
        let mut link = self.link();
        if matches!(link.stage, Stage::Up(_)) {
            link.stage = Stage::Leaving;
            link.end(endpoint, farewell);
        }
    }

    /// The node is being closed: says so of a connection that will not be opened any more.
    pub fn stop(&self, endpoint: &Endpoint) {
        if let (Stage::Opening, Ok(address)) = (self.stage(), &self.address) {
            endpoint.publish_error(&session_without_connection(address));
        }
    }

    /// The node is closed, and what waits will not be sent: also what the last connection has given back.
    pub fn stopped(&self, endpoint: &Endpoint) {
        let unsent = {
            let mut link = self.link();
            let unsent = link.waiting.take().len();
            self.show_waiting(&link);
            unsent
        };
        if unsent > 0 {
            endpoint.metrics().undelivered.add(unsent as u64);
            endpoint.ctx().warn(format!("stopped with {unsent} messages that waited for a connection"));
        }
    }

    // ---- The end of a connection ----

    /// What a connection that has just ended did not send, the oldest first. From now on its session gets nothing.
    pub fn take_back(&self, backlog: &Backlog, session: &Session) -> Vec<Value> {
        let mut link = self.link();
        link.has_ended();
        let mut unsent = backlog.take();
        if link.waiting.is_on() {
            // Also when the host has just asked for the connection, which it will not get.
            session.take_left(&mut unsent);
            unsent.retain(|value| matches!(value, Value::Str(_) | Value::Bytes(_)));
        }
        unsent
    }

    /// A connection has ended, of this generation or of the one before; `unsent` is what was
    /// [taken back](Client::take_back) from it.
    pub fn connection_ended(&self, endpoint: &Endpoint, unsent: Vec<Value>) {
        let mut link = self.link();
        let left_out = link.waiting.put_back(unsent);
        self.show_waiting(&link);
        match link.stage {
            Stage::Up(since) | Stage::Ended(since) => {
                if since.elapsed() >= self.settings.reconnect.steady() {
                    link.failures = 0;
                }
                link.pause(self.settings.reconnect);
            }
            Stage::Leaving => link.stage = Stage::Down,
            Stage::Down | Stage::Opening | Stage::Pausing(_) => {}
        }
        drop(link);
        self.changed.notify_one();
        if left_out == 0 {
            return;
        }
        endpoint.metrics().undelivered.add(left_out as u64);
        if let Some(more) = self.ended.again() {
            endpoint.ctx().warn(format!(
                "{left_out} messages that a connection did not send do not fit into the queue for the next one{more}"
            ));
        }
    }

    // ---- Actions ----

    /// Ends the connection, when it is among those meant. The next one comes as after any other end. Ids of which it
    /// has no connection are counted as undelivered, like a listener's.
    pub fn close(&self, endpoint: &Endpoint, target: &Target<'_>, request: Value) {
        let mut link = self.link();
        let open = link.session.as_ref().filter(|_| matches!(link.stage, Stage::Up(_)));
        let is_meant = open.is_some_and(|id| target.has(id));
        if let Target::These { ids, impossible } = target {
            let unknown = (ids.len() - usize::from(is_meant)) as u64 + impossible;
            endpoint.metrics().undelivered.add(unknown);
        }
        if is_meant {
            link.end(endpoint, request);
            // What is sent from now on is for the next one.
            link.has_ended();
        }
    }

    /// Opens the connection: at once if it waits for the next attempt, again after a
    /// [disconnect](Client::disconnect), and elsewhere with another URL, for which a connection that there is ends.
    /// That URL stays until the node is deployed anew or somebody connects without one.
    ///
    /// # Errors
    /// The URL is not valid; nothing has changed.
    pub fn connect(&self, endpoint: &Endpoint, url: Option<&str>) -> Result<(), Error> {
        let url = url.map(str::trim).filter(|url| !url.is_empty());
        let elsewhere = url
            .map(|url| Address::parse(url).map(|address| (url.to_owned(), address)))
            .transpose()?
            .filter(|(_, address)| self.address.as_ref() != Ok(address));
        let mut link = self.link();
        let same = link.elsewhere == elsewhere;
        link.wanted = true;
        link.elsewhere = elsewhere;
        match link.stage {
            Stage::Up(_) if same => return Ok(()),
            Stage::Up(_) => {
                link.stage = Stage::Leaving;
                link.end(endpoint, close_request(Some(NORMAL), ""));
            }
            Stage::Opening if same => {}
            // Not told of its end, or told already: it goes on when that has come.
            Stage::Ended(_) => link.stage = Stage::Leaving,
            Stage::Leaving => {}
            Stage::Down | Stage::Opening | Stage::Pausing(_) => link.stage = Stage::Down,
        }
        // Somebody believes that it works now.
        link.failures = 0;
        drop(link);
        self.changed.notify_one();
        Ok(())
    }

    /// Ends the connection, and opens none until somebody [connects](Client::connect) or the node is deployed anew.
    /// Without a code the close frame has none.
    pub fn disconnect(&self, endpoint: &Endpoint, code: Option<u16>, reason: &str) {
        let mut link = self.link();
        link.wanted = false;
        let before = link.stage;
        match before {
            Stage::Up(_) => {
                link.stage = Stage::Leaving;
                link.end(endpoint, close_request(code, reason));
            }
            Stage::Ended(_) => link.stage = Stage::Leaving,
            Stage::Leaving | Stage::Down => {}
            Stage::Opening | Stage::Pausing(_) => link.stage = Stage::Down,
        }
        let elsewhere = link.elsewhere.as_ref().map(|(_, address)| address.clone());
        drop(link);
        self.changed.notify_one();
        if before == Stage::Opening
            && let Some(address) = elsewhere.as_ref().or(self.address.as_ref().ok())
        {
            publish_not_connected(endpoint, address);
        }
    }
}

/// The `_session` of an attempt to connect: an id of its own, as connections have.
fn session_without_connection(address: &Address) -> Value {
    session::describe(&new_id(), &Value::Object(Object::from([("url", Value::from(address.url()))])))
}

fn publish_not_connected(endpoint: &Endpoint, address: &Address) {
    let session = session_without_connection(address);
    endpoint.publish_error(&session);
    endpoint.publish_disconnected(&session);
}

impl Link {
    /// Ends the connection, when it has sent what waits.
    fn end(&self, endpoint: &Endpoint, request: Value) {
        if let Some(session) = &self.session {
            endpoint.farewells().say(session.clone(), request.clone());
        }
        endpoint.ctx().session_broadcast(request);
    }

    /// The connection's queue leads nowhere any more.
    fn has_ended(&mut self) {
        if let Stage::Up(since) = self.stage {
            self.stage = Stage::Ended(since);
        }
    }

    /// One more failure; the next attempt comes later.
    fn pause(&mut self, reconnect: Reconnect) {
        self.failures = self.failures.saturating_add(1);
        self.stage = Stage::Pausing(Instant::now() + reconnect.delay(self.failures, random()));
    }

    fn stage_text(&self) -> &'static str {
        match self.stage {
            Stage::Down if !self.wanted => "disconnected until told to connect",
            Stage::Down | Stage::Opening => "connecting",
            Stage::Up(_) | Stage::Leaving => "the connection is closing",
            Stage::Ended(_) | Stage::Pausing(_) => "waiting for the next attempt",
        }
    }

    fn save(&self) -> Value {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (is, up_ms, retry_ms) = match self.stage {
            Stage::Down => ("down", None, None),
            Stage::Opening => ("opening", None, None),
            Stage::Up(since) | Stage::Ended(since) => ("up", Some(millis(since.elapsed())), None),
            Stage::Leaving => ("leaving", None, None),
            Stage::Pausing(until) => {
                ("waiting", None, Some(millis(until.saturating_duration_since(Instant::now()))))
            }
        };
        Value::Object(Object::from([
            ("is", Value::from(is)),
            ("session", self.session.as_ref().map_or(Value::Null, Value::from)),
            // Beside `is`, and not as one: code that does not know it must not open another connection.
            ("ended", Value::from(matches!(self.stage, Stage::Ended(_)))),
            ("up_ms", Value::from(up_ms)),
            ("retry_ms", Value::from(retry_ms)),
            ("unwanted", Value::from(!self.wanted)),
            ("elsewhere", Value::from(self.elsewhere.as_ref().map(|(url, _)| url.as_str()))),
            ("failures", Value::from(self.failures)),
            ("failure", Value::from(self.failure.as_str())),
            ("waiting", self.waiting.save()),
        ]))
    }

    /// What is not known is begun anew, as is a connection that was on its way.
    fn restore(saved: &Value, waiting: Waiting, reconnect: Reconnect) -> Self {
        let number = |key: &str| saved[key].as_i64().and_then(|number| u64::try_from(number).ok());
        let millis = |key: &str| Duration::from_millis(number(key).unwrap_or(0));
        let now = Instant::now();
        let stage = match saved["is"].as_str() {
            Some("up") => {
                let since = now.checked_sub(millis("up_ms")).unwrap_or(now);
                if saved["ended"] == true { Stage::Ended(since) } else { Stage::Up(since) }
            }
            Some("leaving") => Stage::Leaving,
            Some("waiting") => Stage::Pausing(now + millis("retry_ms").min(reconnect.longest())),
            _ => Stage::Down,
        };
        let elsewhere = saved["elsewhere"]
            .as_str()
            .and_then(|url| Address::parse(url).ok().map(|address| (url.to_owned(), address)));
        Self {
            stage,
            session: saved["session"].as_str().map(Str::from),
            wanted: saved["unwanted"] != true,
            elsewhere,
            failures: number("failures").and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
            failure: saved["failure"].as_str().unwrap_or_default().to_owned(),
            waiting,
        }
    }
}

#[cfg(test)]
mod tests;
