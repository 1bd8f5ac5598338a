//! `websocket-listener`, and what an endpoint does that listens.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use flowbay_sdk::{
    Connection, ConnectionEnd, Credential, Ctx, Error, LogLevel, Msg, Node, QueueOptions, Role, Str,
    UpgradeAnswer, UpgradeRequest, Value, node,
};

use crate::{
    auth::Auth,
    connection::close_request,
    control::{UPGRADE, Upgrade},
    endpoint::Endpoint,
    options::Options,
    origin::{ORIGINS, Origins},
    session,
    settings::Settings,
};

/// Close code of a listener that stops: "going away".
const GOING_AWAY: u16 = 1001;
/// How long a flow may take to decide about an upgrade, in milliseconds. A client waits that long for its answer.
const DECISION_MS: u64 = 10_000;
/// The largest number of clients or queued messages, or bytes of them, that may be asked for.
const MOST: u64 = 1 << 40;
/// How much of a refused origin, or of a flow's reason, is logged, in characters.
const SHOWN_CHARS: usize = 100;

/// The configuration node. With a `ws://` or `wss://` URL as its path it is a client.
pub struct WebSocketListener(Arc<Endpoint>);

impl WebSocketListener {
    /// What it shares with the nodes that refer to it.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

#[node(
    "websocket-listener",
    role = Role::Config,
    category = "config",
    credentials = &[("users", Credential::Password), ("tokens", Credential::Password)],
    html = include_str!("../html/websocket-listener.html")
)]
impl Node for WebSocketListener {
    type Config = Settings;

    fn new(settings: Settings, ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self(Arc::new(Endpoint::new(settings, ctx)?)))
    }

    async fn run(&self, _ctx: &Ctx) -> Result<(), Error> {
        self.0.run().await
    }

    fn on_upgrade(&self, request: UpgradeRequest, _ctx: &Ctx) -> UpgradeAnswer {
        self.0.answer(&request)
    }

    async fn on_connection(&self, connection: Connection, _ctx: &Ctx) -> ConnectionEnd {
        self.0.serve(connection).await
    }

    fn on_connection_lost(&self, session: &str, _ctx: &Ctx) {
        self.0.lost(session);
    }

    async fn on_direct(&self, msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        self.0.on_direct(&msg);
        // Not a message of the flow.
        Err(Error::ignored())
    }

    async fn on_close(&self, _removed: bool, _ctx: &Ctx) {
        self.0.close().await;
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(self.0.save()))
    }
}

/// The path that a listener is registered with: `x` and `/x` are the same.
pub fn full_path(path: &str) -> String {
    format!("/{}", path.strip_prefix('/').unwrap_or(path))
}

/// What an endpoint needs to be a listener.
pub struct Listener {
    auth: Auth,
    origins: Origins,
    /// Those that it agrees to, most wanted first; empty for whatever is offered first.
    protocols: Vec<String>,
    max_clients: Option<u64>,
    /// How long a flow may take to decide about an upgrade.
    decision_ms: u64,
    queue: QueueOptions,
    /// It was said that secrets can be read on their way.
    warned: AtomicBool,
    /// Another node has the path.
    path_taken: AtomicBool,
}

/// In the state of an endpoint: whether it was said that another has its path.
pub const PATH_TAKEN: &str = "path_taken";

/// Why an upgrade is refused.
struct Refusal {
    status: u16,
    /// For the log.
    reason: String,
    /// What the client is told to come with.
    challenge: Option<&'static str>,
}

impl Refusal {
    fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), challenge: None }
    }
}

impl Listener {
    /// How long a stopping listener waits for its clients to answer its close frames.
    pub const CLOSE_MS: u64 = 1_500;

    /// A listener.
    ///
    /// # Errors
    /// A property has a value that makes no sense, or the credentials are not what `auth` needs.
    pub fn new(settings: &Settings, credentials: &Value) -> Result<Self, Error> {
        let options = Options(&settings.options);
        Ok(Self {
            auth: Auth::read(options, credentials)?,
            origins: Origins::read(&options.list(ORIGINS)?)?,
            protocols: settings.protocols(),
            max_clients: options.whole("maxClients", 0..=MOST)?.filter(|clients| *clients > 0),
            decision_ms: options.seconds_ms("handshakeTimeout")?.filter(|ms| *ms > 0).unwrap_or(DECISION_MS),
            queue: settings.send_queue()?,
            warned: AtomicBool::new(false),
            path_taken: AtomicBool::new(false),
        })
    }

    /// What ends its connections when the node is closed.
    pub fn farewell() -> Value {
        close_request(Some(GOING_AWAY), "")
    }

    /// How many clients it takes.
    pub fn max_clients(&self) -> u64 {
        self.max_clients.unwrap_or(u64::MAX)
    }

    /// Whether flows decide about its upgrades.
    pub fn leaves_decisions(&self) -> bool {
        matches!(self.auth, Auth::Message)
    }

    /// Registers the path.
    ///
    /// # Errors
    /// Another listener has it.
    pub fn run(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let (path, ctx) = (&endpoint.settings().path, endpoint.ctx());
        let Err(taken) = ctx.register_upgrade(&full_path(path)) else { return Ok(()) };
        ctx.log(LogLevel::Debug, taken.text());
        self.path_taken.store(true, Ordering::Relaxed);
        let is_known = ctx.restored().is_some_and(|state| state[PATH_TAKEN] == Value::Bool(true));
        if is_known {
            // Said by the generation before.
            return Ok(());
        }
        Err(Error::new(format!("Cannot have two WebSocket listeners on the same path: {path}")))
    }

    /// Whether another node has its path.
    pub fn path_taken(&self) -> bool {
        self.path_taken.load(Ordering::Relaxed)
    }

    // ---- Upgrades ----

    /// Decides about an upgrade, or leaves it to a flow.
    pub fn answer(&self, endpoint: &Endpoint, request: &UpgradeRequest) -> UpgradeAnswer {
        match self.admit(endpoint, request) {
            Ok(answer) => answer,
            Err(Refusal { status, reason, challenge }) => {
                endpoint.metrics().refused.inc();
                let answer = UpgradeAnswer::refuse(status).reason(&reason);
                match challenge {
                    Some(challenge) => answer.header("WWW-Authenticate", challenge),
                    None => answer,
                }
            }
        }
    }

    fn admit(&self, endpoint: &Endpoint, request: &UpgradeRequest) -> Result<UpgradeAnswer, Refusal> {
        self.check_room(endpoint)?;
        let origin = request.header("origin");
        if !self.origins.allow(origin, request.header("host")) {
            let origin: String = origin.unwrap_or_default().chars().take(SHOWN_CHARS).collect();
            return Err(Refusal::new(403, format!("origin {origin:?} is not allowed")));
        }
        if let Auth::Message = self.auth {
            return self.ask(endpoint, request);
        }
        self.warn_of_readable_secrets(endpoint, request);
        let identity = self.auth.identify(request).map_err(|denied| Refusal {
            challenge: Some(self.auth.challenge(denied)),
            ..Refusal::new(401, denied.reason())
        })?;
        Ok(self.accept(self.choose(request.protocols()), Value::from(identity)))
    }

    fn check_room(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        if endpoint.is_stopping() {
            return Err(Refusal::new(503, "the listener is being stopped"));
        }
        if endpoint.connections() as u64 >= self.max_clients() {
            return Err(Refusal::new(503, format!("there are {} clients already", self.max_clients())));
        }
        Ok(())
    }

    /// The first subprotocol of ours that the client offers; when none are configured, the first that it offers,
    /// whatever it is, as in Node-RED. Without one in common there is none, and the client decides whether it stays.
    fn choose<'a>(&self, offered: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let offered: Vec<&str> = offered.collect();
        if self.protocols.is_empty() {
            return offered.first().copied();
        }
        self.protocols.iter().find_map(|ours| offered.iter().find(|offered| *offered == ours).copied())
    }

    fn accept(&self, protocol: Option<&str>, identity: Value) -> UpgradeAnswer {
        let mut answer = UpgradeAnswer::accept().queue(self.queue);
        if let Some(protocol) = protocol {
            answer = answer.protocol(protocol);
        }
        if identity.is_null() {
            return answer;
        }
        answer.extra(Value::Object([("identity", identity)].into()))
    }

    fn warn_of_readable_secrets(&self, endpoint: &Endpoint, request: &UpgradeRequest) {
        let secrets = match self.auth {
            Auth::Basic(_) => "passwords",
            Auth::Bearer(_) => "tokens",
            Auth::None | Auth::Message => return,
        };
        if can_be_read(request.remote(), request.tls()) && !self.warned.swap(true, Ordering::Relaxed) {
            endpoint.ctx().warn(format!(
                "{secrets} come without TLS from other machines: anybody on the way can read them"
            ));
        }
    }

    // ---- Decisions of flows ----

    /// Asks the flow.
    fn ask(&self, endpoint: &Endpoint, request: &UpgradeRequest) -> Result<UpgradeAnswer, Refusal> {
        let deciders = endpoint.users().deciders();
        if deciders.len() == 0 {
            return Err(Refusal::new(503, "there is no websocket in node for upgrades that could decide"));
        }
        // Nobody is woken: who is refused asks again.
        let mut cx = Context::from_waker(Waker::noop());
        if !deciders.all(|ctx| ctx.poll_ready(&mut cx).is_ready()) {
            return Err(Refusal::new(503, "the flow that decides does not keep up"));
        }
        let upgrade = Upgrade {
            ticket: request.ticket(),
            listener: endpoint.ctx().id().into(),
            offered: request.protocols().map(Str::from).collect(),
        };
        let mut msg = Msg::with_payload(session::request_payload(request));
        msg.set(UPGRADE, upgrade.to_value());
        deciders.send(msg);
        Ok(UpgradeAnswer::defer().timeout_ms(self.decision_ms))
    }

    /// The flow lets a client in. When it has gone meanwhile, or was answered already, nothing happens.
    ///
    /// # Errors
    /// It was not this listener that asked, or the client does not offer that subprotocol.
    pub fn let_in(
        &self,
        endpoint: &Endpoint,
        upgrade: &Upgrade,
        identity: Value,
        protocol: Option<Str>,
    ) -> Result<(), Error> {
        check_listener(endpoint, upgrade)?;
        if let Some(protocol) = &protocol
            && !upgrade.offered.contains(protocol)
        {
            return Err(Error::new(format!("the client does not offer msg.protocol: {:?}", &**protocol)));
        }
        // The last place may have gone to another meanwhile.
        let answer = match self.check_room(endpoint) {
            Ok(()) => {
                let usual = || self.choose(upgrade.offered.iter().map(|name| &**name));
                self.accept(protocol.as_deref().or_else(usual), identity)
            }
            Err(Refusal { status, reason, .. }) => {
                endpoint.metrics().refused.inc();
                UpgradeAnswer::refuse(status).reason(&reason)
            }
        };
        endpoint.ctx().answer_upgrade(upgrade.ticket, answer);
        Ok(())
    }

    /// The flow turns a client away. When it has gone meanwhile, or was answered already, nothing happens.
    ///
    /// # Errors
    /// It was not this listener that asked.
    pub fn turn_away(
        &self,
        endpoint: &Endpoint,
        upgrade: &Upgrade,
        status: u16,
        reason: &str,
    ) -> Result<(), Error> {
        check_listener(endpoint, upgrade)?;
        endpoint.metrics().refused.inc();
        let reason = if reason.is_empty() { "a flow decided so" } else { reason };
        // One short line of the log, whatever a client may have had a part in.
        let reason: String =
            reason.chars().filter(|character| !character.is_control()).take(SHOWN_CHARS).collect();
        endpoint.ctx().answer_upgrade(upgrade.ticket, UpgradeAnswer::refuse(status).reason(&reason));
        Ok(())
    }
}

/// Whether a secret from that peer can be read on its way.
fn can_be_read(remote: &str, tls: bool) -> bool {
    let peer = remote.parse().map(|peer: SocketAddr| peer.ip().to_canonical());
    !tls && peer.is_ok_and(|address| !address.is_loopback())
}

fn check_listener(endpoint: &Endpoint, upgrade: &Upgrade) -> Result<(), Error> {
    if &*upgrade.listener == endpoint.ctx().id() {
        return Ok(());
    }
    Err(Error::new("msg._upgrade is of another listener than this node's"))
}

#[cfg(test)]
mod tests {
    use flowbay_sdk::{
        testing::{Setup, TestNode},
        value,
    };

    use super::*;

    #[test]
    fn it_is_said_once_that_secrets_can_be_read_on_their_way() {
        for (auth, field, header, line) in [
            ("basic", "users", "Basic YTpi", "passwords come without TLS"),
            ("bearer", "tokens", "bearer a:b", "tokens come without TLS"),
        ] {
            let setup =
                Setup::new().config(value!({"path": "/x", "auth": auth})).credential(field, "a:b\nt:a:b");
            let mut listener: TestNode<WebSocketListener> = setup.create().unwrap();
            listener.run();
            for (remote, lines) in [("127.0.0.1:1", 0), ("10.0.0.7:1", 1), ("10.0.0.7:2", 0)] {
                let request = value!({
                    "path": "/x", "headers": {"authorization": header}, "protocols": [], "remote": remote, "tls": false
                });
                let (answer, _) = listener.upgrade(request);
                assert_eq!(answer["accept"], true, "{auth}: {answer:?}");
                let log = listener.log();
                assert_eq!(
                    log.iter().filter(|said| said.text.starts_with(line)).count(),
                    lines,
                    "{auth} {remote}"
                );
            }
        }
    }

    #[test]
    fn a_secret_can_be_read_when_it_comes_from_elsewhere_without_tls() {
        for (remote, tls, readable) in [
            ("10.0.0.7:1", false, true),
            ("[2001:db8::1]:1", false, true),
            ("[::ffff:10.0.0.7]:1", false, true),
            ("10.0.0.7:1", true, false),
            ("127.0.0.1:1", false, false),
            ("[::1]:1", false, false),
            ("[::ffff:127.0.0.1]:1", false, false),
            ("", false, false),
        ] {
            assert_eq!(can_be_read(remote, tls), readable, "{remote} {tls}");
        }
    }

    #[test]
    fn a_path_begins_with_one_slash() {
        for (path, full) in [("x", "/x"), ("/x", "/x"), ("", "/"), ("/", "/"), ("//x", "//x"), ("x/", "/x/")]
        {
            assert_eq!(full_path(path), full, "{path}");
        }
    }
}
