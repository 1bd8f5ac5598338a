//! The server itself: bind, accept, serve HTTP/1.1, hand upgraded connections over, stop gracefully.
//!
//! hyper parses and writes; the accept loop is our own, because a server must survive what accepting can bring
//! (too many files, too many clients) and because every connection must have a deadline for its header. A
//! connection is one task, its TLS handshake included. When a WebSocket handshake is accepted that task ends: what it
//! and hyper held is freed, and the bare stream belongs to the node.
//!
//! Whom it refuses or cuts, it says in the log: who, what, and why, one line in a while for each kind.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::guard::{AdminGuard, Denied};
use super::patient::Patient;
use super::places::{Place, Places};
use super::routes::{Access, Found, Params, Routes, UpgradeRoute};
use super::seldom::Seldom;
use super::stream::HostStream;
use super::tls::{HandshakeFailure, ServerTls, TlsError, shake_hands};
use super::upgrade::{self, Handshake, OnStream, UpgradeAnswer, UpgradeRequest};
use super::{BoxFuture, HttpRequest, HttpResponse};
use crate::admin;
use crate::settings::Settings;

/// Connections that the system may hold ready for us: a burst of clients, all at once. Linux's own limit.
const BACKLOG: u32 = 4096;

/// How long to leave the socket alone when the system cannot give us a connection (no files, no memory left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long to wait for a client to take the last answer in. Closing while its bytes are still arriving would
/// reset the connection and could destroy that answer on its way.
const LINGER: Duration = Duration::from_secs(1);

/// What a client gets that speaks plain HTTP where HTTPS is spoken.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 27\r\nConnection: close\r\n\r\nThis port speaks HTTPS only";

/// The longest text of others that is put into a log line.
const MOST_LOGGED: usize = 200;

/// Why the server cannot listen, as one line.
#[derive(Debug)]
pub enum ServerError {
    /// Another program listens there.
    PortTaken {
        /// The host, as it was given.
        host: String,
        /// The port.
        port: u16,
    },
    /// Anything else: the name is unknown, the address is not ours, the port needs privileges.
    Bind {
        /// The host, as it was given.
        host: String,
        /// The port.
        port: u16,
        /// What the system said.
        error: io::Error,
    },
    /// Its certificate or key cannot be used.
    Tls(TlsError),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken { host, port } => {
                write!(f, "port {port} on {host} is already in use; --port chooses another")
            }
            Self::Bind { host, port, error } => write!(f, "cannot listen on port {port} of {host}: {error}"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServerError {}

/// A server that has its port but does not answer yet: clients that connect wait.
///
/// So a taken port is known before any node starts, and no client is told 404 while nodes still register
/// their paths.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
}

/// A server at work. Dropping it closes it at once: requests in flight are cut.
#[derive(Debug)]
pub struct RunningServer {
    local_addr: SocketAddr,
    phase: watch::Sender<Phase>,
    /// Ends when the accept loop and every connection's task have ended.
    ended: mpsc::Receiver<Infallible>,
    grace: Duration,
    places: Arc<Places>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Serving,
    /// No new connections, no further requests on those there are.
    Draining,
    /// Over, whatever is in flight.
    Cut,
}

/// What every connection needs.
struct Shared {
    settings: Settings,
    routes: Arc<Routes>,
    guard: AdminGuard,
    http: http1::Builder,
    tls: Option<Arc<ServerTls>>,
    places: Arc<Places>,
    troubles: Troubles,
}

/// When the log was last told of what peers cause.
#[derive(Default)]
struct Troubles {
    no_place: Seldom,
    accepting: Seldom,
    tls: Seldom,
    /// Requests that were no good, too large, too slow.
    bad_requests: Seldom,
    /// Admin requests that were refused.
    denied: Seldom,
    /// WebSocket handshakes to paths that nobody has. (Those that a node refuses are counted at its route.)
    no_listener: Seldom,
}

/// Who is at the other end.
#[derive(Clone, Copy)]
struct Peer {
    remote: SocketAddr,
    tls: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the port. Also reads the TLS files, and raises this process's limit of open files towards
    /// `max_connections`.
    ///
    /// # Errors
    /// The port is taken or cannot be had, or the TLS files are no good.
    pub async fn bind(
        settings: &Settings,
        routes: Arc<Routes>,
        guard: AdminGuard,
    ) -> Result<Server, ServerError> {
        let tls = ServerTls::from_files(settings.tls_cert.as_deref(), settings.tls_key.as_deref());
        let tls = tls.map_err(ServerError::Tls)?;
        let listener = listen(&settings.host, settings.port).await;
        let listener = listener.map_err(|error| bind_error(settings, error))?;
        let local_addr = listener.local_addr().map_err(|error| bind_error(settings, error))?;
        raise_file_limit(settings.max_connections);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(settings.http_header_timeout_ms))
            .max_buf_size(settings.http_max_header_bytes)
            // A handshake's answer has the fields of the handshake and no others.
            .auto_date_header(false);
        if settings.http_max_headers != Settings::default().http_max_headers {
            // hyper parses its default number on the stack, any other on the heap.
            http.max_headers(settings.http_max_headers);
        }
        let places = Places::new(settings.max_connections, settings.max_connections_per_address);
        let (settings, troubles) = (settings.clone(), Troubles::default());
        let shared = Arc::new(Shared { settings, routes, guard, http, tls, places, troubles });
        Ok(Server { listener, local_addr, shared })
    }

    /// Where to find it: scheme, address and port.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.local_addr)
    }

    /// Its certificate, if it speaks TLS.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<ServerTls>> {
        self.shared.tls.clone()
    }

    /// Who is connected.
    #[must_use]
    pub fn places(&self) -> Arc<Places> {
        Arc::clone(&self.shared.places)
    }

    /// The address it listens on, with the port that was picked for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Begins to answer, on the current tokio runtime.
    #[must_use]
    pub fn start(self) -> RunningServer {
        let (phase, phases) = watch::channel(Phase::Serving);
        let (alive, ended) = mpsc::channel(1);
        let grace = Duration::from_millis(self.shared.settings.shutdown_grace_ms);
        let places = self.places();
        tokio::spawn(accept(self.listener, self.shared, phases, alive));
        RunningServer { local_addr: self.local_addr, phase, ended, grace, places }
    }
}

impl RunningServer {
    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Who is connected.
    #[must_use]
    pub fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places)
    }

    /// Stops: no new connections from now on; requests in flight have `shutdown_grace_ms` to finish, then they
    /// are cut. Connections that were upgraded are not the server's any more and go on.
    pub async fn stop(mut self) {
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(self.grace, self.ended.recv()).await.is_err() {
            info!("cutting HTTP requests that are still in flight");
            self.phase.send_replace(Phase::Cut);
            self.ended.recv().await;
        }
    }
}

async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match listen_at(address) {
            Ok(listener) => return Ok(listener),
            // A port that is taken on one address of the name is not to be served half on the other.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted host gets its port back although connections of the former one still linger in the system.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_error(settings: &Settings, error: io::Error) -> ServerError {
    let (host, port) = (settings.host.clone(), settings.port);
    match error.kind() {
        io::ErrorKind::AddrInUse => ServerError::PortTaken { host, port },
        _ => ServerError::Bind { host, port, error },
    }
}

/// Raises the soft limit of open files so that `max_connections` fit, as far as the hard limit allows. Many
/// systems start programs with 1,024.
#[cfg(unix)]
fn raise_file_limit(max_connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Each connection is one file; the rest is for plugins, the log, outgoing connections.
    let wanted = max_connections as u64 + 256;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let possible = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let limit = Rlimit { current: Some(possible), maximum };
    let holds = if setrlimit(Resource::Nofile, limit).is_ok() { Some(possible) } else { current };
    if let Some(holds) = holds.filter(|holds| *holds < wanted) {
        info!(
            "this process may have {holds} files open, which is fewer than max_connections = {max_connections} needs; \
             further clients will wait (ulimit -Hn, or LimitNOFILE of systemd, allows more)"
        );
    }
}

#[cfg(not(unix))]
fn raise_file_limit(_max_connections: usize) {}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut phases: watch::Receiver<Phase>,
    alive: mpsc::Sender<Infallible>,
) {
    let troubles = &shared.troubles;
    loop {
        // Cloned before the wait: a connection must also see a change that comes while it is accepted.
        let connection_phases = phases.clone();
        let accepted = tokio::select! {
            biased;
            _ = phases.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let place = match shared.places.take(remote.ip()) {
                    Ok(place) => place,
                    // Closed rather than left waiting: the client learns at once and can go elsewhere.
                    Err(reason) => {
                        if let Some(left_out) = troubles.no_place.again() {
                            warn!("{remote} closed: {reason}{left_out}");
                        }
                        continue;
                    }
                };
                // Small messages must not wait for the acknowledgement of the last one.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!("{remote}: {error}");
                }
                let serving =
                    serve(Arc::clone(&shared), stream, place, remote, connection_phases, alive.clone());
                tokio::spawn(serving);
            }
            Err(error) if is_clients_trouble(&error) => {
                debug!("a client went away while connecting: {error}")
            }
            Err(error) => {
                if let Some(left_out) = troubles.accepting.again() {
                    warn!("cannot accept connections for now: {error}{left_out}");
                }
                // The connection stays in the backlog and would make this a busy loop.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors of one connection, not of accepting.
fn is_clients_trouble(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | WouldBlock)
}

/// Serves one connection until it ends or is upgraded. `alive` is what a stopping server waits for.
async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    place: Place,
    remote: SocketAddr,
    mut phases: watch::Receiver<Phase>,
    alive: mpsc::Sender<Infallible>,
) {
    let Some(stream) = shared.secure(stream, place, remote, &mut phases).await else { return };
    let peer = Peer { remote, tls: stream.is_tls() };
    // Where the request that is accepted leaves what to do with the stream once its answer is written.
    let accepted: Arc<Mutex<Option<OnStream>>> = Arc::default();
    let service = {
        let (shared, accepted) = (Arc::clone(&shared), Arc::clone(&accepted));
        service_fn(move |request| -> BoxFuture<Result<_, Infallible>> {
            let (shared, accepted) = (Arc::clone(&shared), Arc::clone(&accepted));
            Box::pin(async move {
                let (response, on_stream) = shared.answer(request, peer).await;
                *accepted.lock().unwrap_or_else(PoisonError::into_inner) = on_stream;
                Ok(response)
            })
        })
    };
    let patience = Duration::from_millis(shared.settings.http_write_timeout_ms);
    let stream = TokioIo::new(Patient::new(stream, patience));
    let mut connection = shared.http.serve_connection(stream, service);
    let ended = loop {
        tokio::select! {
            biased;
            ended = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            changed = phases.changed() => match changed.map(|()| *phases.borrow_and_update()) {
                Ok(Phase::Serving) => {}
                Ok(Phase::Draining) => Pin::new(&mut connection).graceful_shutdown(),
                Ok(Phase::Cut) | Err(_) => return,
            },
        }
    };
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner();
    // The last answer is out: what follows is courtesy that no stop should wait for.
    drop(alive);
    let on_stream = accepted.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (ended, on_stream) {
        (Ok(()), Some(on_stream)) => {
            // Copied, because the slice would keep hyper's whole buffer alive.
            on_stream(stream, Bytes::copy_from_slice(&parts.read_buf));
        }
        (Ok(()), None) => close(stream, &mut phases).await,
        (Err(error), _) => {
            let idle = parts.read_buf.is_empty();
            match trouble_of(&error) {
                // Browsers open connections to have them, and keep those that they have used.
                Some(_) if error.is_timeout() && idle => debug!("{remote}: idle connection closed"),
                Some(reason) => shared.troubles.bad_request(remote, reason),
                None => debug!("{remote}: {error}"),
            }
            // After these an answer was written that the client should see.
            if error.is_parse() || error.is_parse_too_large() {
                close(stream, &mut phases).await;
            }
        }
    }
}

/// Ends a connection so that the last answer arrives: says that no more will come, then waits a little for
/// the client to close.
async fn close(mut stream: HostStream, phases: &mut watch::Receiver<Phase>) {
    let linger = async {
        stream.shutdown().await?;
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::select! {
        _ = tokio::time::timeout(LINGER, linger) => {}
        _ = phases.wait_for(|phase| *phase == Phase::Cut) => {}
    }
}

/// Why hyper ended a connection, if the client is to blame for more than going away.
fn trouble_of(error: &hyper::Error) -> Option<&'static str> {
    use std::error::Error as _;
    if error.is_parse_too_large() {
        Some("431: the header is too large")
    } else if error.is_parse() {
        Some("400: not a valid HTTP/1 request")
    } else if error.is_timeout() {
        Some("cut: the whole header did not come in time")
    } else {
        let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        io.filter(|error| error.kind() == io::ErrorKind::TimedOut)
            .map(|_| "cut: it does not take in what it asked for")
    }
}

/// A text of others as it may stand in a log line.
fn for_log(text: &str) -> String {
    let mut short: String =
        text.chars().take(MOST_LOGGED).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

impl Troubles {
    /// A request that a client could not get an answer to, or not the one it wanted.
    fn bad_request(&self, remote: SocketAddr, reason: &str) {
        if let Some(left_out) = self.bad_requests.again() {
            info!("request of {remote}: {reason}{left_out}");
        }
    }

    /// A client that did not get through the TLS handshake.
    fn no_tls(&self, remote: SocketAddr, reason: &dyn fmt::Display) {
        if let Some(left_out) = self.tls.again() {
            info!("no TLS with {remote}: {reason}{left_out}");
        }
    }
}

impl Shared {
    /// Speaks TLS on a new connection if the server does. `None` when that failed.
    async fn secure(
        &self,
        stream: TcpStream,
        place: Place,
        remote: SocketAddr,
        phases: &mut watch::Receiver<Phase>,
    ) -> Option<HostStream> {
        let Some(tls) = &self.tls else { return Some(HostStream::tcp(stream).holding(place)) };
        let timeout = Duration::from_millis(self.settings.tls_handshake_timeout_ms);
        // Boxed, because it is large, and the task that this is part of lives on.
        let shaking = Box::pin(tokio::time::timeout(timeout, shake_hands(tls.config(), stream)));
        let shaken = tokio::select! {
            biased;
            // Nothing was asked for yet: a server that stops owes this client nothing.
            _ = phases.wait_for(|phase| *phase != Phase::Serving) => return None,
            shaken = shaking => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => return Some(HostStream::tls_server(stream).holding(place)),
            Ok(Err(HandshakeFailure::Gone(error))) => debug!("no TLS with {remote}: {error}"),
            Ok(Err(HandshakeFailure::Failed(error, stream))) => {
                self.troubles.no_tls(remote, &error);
                close(HostStream::tcp(stream).holding(place), phases).await;
            }
            Ok(Err(HandshakeFailure::PlainHttp(stream))) => {
                self.troubles.no_tls(remote, &"it speaks plain HTTP");
                let mut stream = HostStream::tcp(stream).holding(place);
                // A new connection has room for so little.
                if stream.write_all(NOT_TLS).await.is_ok() {
                    close(stream, phases).await;
                }
            }
            Err(_) => {
                let ms = timeout.as_millis();
                self.troubles.no_tls(remote, &format_args!("the handshake took longer than {ms} ms"));
            }
        }
        None
    }

    /// Answers one request; with what to do with the connection if it was upgraded.
    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> (Response<Full<Bytes>>, Option<OnStream>) {
        let (head, body) = request.into_parts();
        let remote = peer.remote;
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        if target.len() > self.settings.http_max_target_bytes {
            self.troubles.bad_request(remote, "414: path and query are too long");
            return (closing(HttpResponse::text(StatusCode::URI_TOO_LONG, "URI Too Long")), None);
        }
        let is_upgrade = upgrade::is_attempted(&head);
        if is_upgrade && let Some(route) = self.routes.find_upgrade(head.uri.path()) {
            return match self.upgrade(head, route, peer).await {
                Ok((response, on_stream)) => (response, Some(on_stream)),
                Err(response) => (closing(response), None),
            };
        }
        let response = match self.routes.find_request(&head.method, head.uri.path()) {
            Found::Request(access, handler, params) => {
                let allowed = self.allowed(access, &head, remote);
                match allowed.map(|()| self.read(head, body, params, remote)) {
                    Ok(request) => match request.await {
                        Ok(request) => handler.handle(request).await,
                        Err(response) => return (closing(response), None),
                    },
                    Err(response) => *response,
                }
            }
            Found::WrongMethod(access, methods) => match self.allowed(access, &head, remote) {
                Ok(()) => {
                    let mut response =
                        HttpResponse::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
                    response.headers.extend(HeaderValue::from_str(&methods).ok().map(|value| (ALLOW, value)));
                    response
                }
                Err(response) => *response,
            },
            Found::Nothing => {
                if is_upgrade && let Some(left_out) = self.troubles.no_listener.again() {
                    let path = for_log(head.uri.path());
                    info!(
                        "WebSocket handshake of {remote} to {path} refused with 404: nobody has that path{left_out}"
                    );
                }
                let response = HttpResponse::text(StatusCode::NOT_FOUND, "Not Found");
                // A client that wanted a WebSocket has no use for the connection now.
                return (if is_upgrade { closing(response) } else { finish(response) }, None);
            }
        };
        (finish(response), None)
    }

    /// Lets the node decide about a handshake.
    async fn upgrade(
        &self,
        head: hyper::http::request::Parts,
        route: UpgradeRoute,
        peer: Peer,
    ) -> Result<(Response<Full<Bytes>>, OnStream), HttpResponse> {
        let path = head.uri.path().to_owned();
        let refused = |response: HttpResponse, reason: &str| {
            if let Some(left_out) = route.refusals.again() {
                let (remote, status) = (peer.remote, response.status.as_u16());
                let (path, reason) = (for_log(&path), for_log(reason));
                let node = &route.owner;
                info!(%node, "WebSocket handshake of {remote} to {path} refused with {status}: {reason}{left_out}");
            }
            response
        };
        let too_late = || {
            let response = HttpResponse::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
            refused(response, "nobody decided about it in time")
        };
        let handshake = Handshake::check(&head).map_err(|reason| refused(upgrade::bad_request(), reason))?;
        let answer = route.handler.upgrade(UpgradeRequest {
            path: path.clone(),
            query: head.uri.query().map(str::to_owned),
            params: route.params,
            headers: head.headers,
            protocols: handshake.protocols.clone(),
            remote: peer.remote,
            tls: peer.tls,
        });
        let patience = Duration::from_millis(self.settings.upgrade_timeout_ms);
        let mut answer = tokio::time::timeout(patience, answer).await.map_err(|_| too_late())?;
        if let UpgradeAnswer::Deferred { timeout, answer: later } = answer {
            answer =
                tokio::time::timeout(timeout.unwrap_or(patience), later).await.map_err(|_| too_late())?;
        }
        let failed = |reason| {
            let response = HttpResponse::text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
            refused(response, reason)
        };
        match answer {
            UpgradeAnswer::Accept { protocol, headers, on_stream } => {
                let (status, headers) = handshake.answer(protocol.as_deref(), headers).map_err(failed)?;
                let mut response = Response::new(Full::default());
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                Ok((response, on_stream))
            }
            UpgradeAnswer::Refuse { response, reason } => Err(refused(response, &reason)),
            UpgradeAnswer::Deferred { .. } => Err(failed("its decision was put off twice")),
        }
    }

    fn allowed(
        &self,
        access: Access,
        head: &hyper::http::request::Parts,
        remote: SocketAddr,
    ) -> Result<(), Box<HttpResponse>> {
        match access {
            Access::Public => Ok(()),
            Access::Admin => self.guard.check(remote, head).map_err(|denied| {
                let Denied { response, reason } = denied;
                if let Some(left_out) = self.troubles.denied.again() {
                    let (path, status) = (for_log(head.uri.path()), response.status.as_u16());
                    info!("admin request of {remote} to {path} refused with {status}: {reason}{left_out}");
                }
                response
            }),
        }
    }

    /// Reads a request's body, within its limits.
    async fn read(
        &self,
        head: hyper::http::request::Parts,
        body: Incoming,
        params: Params,
        remote: SocketAddr,
    ) -> Result<HttpRequest, HttpResponse> {
        let limit = self.settings.http_max_body_bytes;
        let too_large = || {
            self.troubles.bad_request(remote, "413: the body is too large");
            let message = format!("the body is larger than {limit} bytes");
            admin::error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message)
        };
        // What announces too much is refused before it is sent.
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let timeout = Duration::from_millis(self.settings.http_body_timeout_ms);
        let body = match tokio::time::timeout(timeout, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(error)) => {
                debug!("{remote}: {error}");
                return Err(HttpResponse::text(StatusCode::BAD_REQUEST, "Bad Request"));
            }
            Err(_) => {
                self.troubles.bad_request(remote, "408: the whole body did not come in time");
                return Err(HttpResponse::text(StatusCode::REQUEST_TIMEOUT, "Request Timeout"));
            }
        };
        Ok(HttpRequest {
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            params,
            method: head.method,
            headers: head.headers,
            body,
            remote,
        })
    }
}

/// A handler's response as hyper sends it.
fn finish(mut response: HttpResponse) -> Response<Full<Bytes>> {
    if response.status.is_informational() {
        warn!("a handler answered with status {}, which is none to end with", response.status);
        response = HttpResponse::text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
    }
    for framing in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE] {
        response.headers.remove(framing);
    }
    let mut finished = Response::new(Full::new(response.body));
    *finished.status_mut() = response.status;
    *finished.headers_mut() = response.headers;
    finished
}

/// The same, as the last response on its connection.
fn closing(response: HttpResponse) -> Response<Full<Bytes>> {
    let mut response = finish(response);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests;
