//! The server itself: bind, accept, serve HTTP/1.1, hand upgraded connections over, stop gracefully.
//!
//! hyper parses and writes; the accept loop is our own, because a server must survive what accepting can bring
//! (too many files, too many clients) and because every connection must have a deadline for its header. A
//! connection is one task. When a handshake is accepted that task ends: what it and hyper held is freed, and
//! the bare stream belongs to the node.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{debug, info, warn};

use super::guard::AdminGuard;
use super::routes::{Access, Found, Routes, UpgradeHandler};
use super::stream::HostStream;
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

/// The least time between two log lines about the same trouble with accepting.
const SAME_TROUBLE: Duration = Duration::from_secs(10);

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
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken { host, port } => {
                write!(f, "port {port} on {host} is already in use; --port chooses another")
            }
            Self::Bind { host, port, error } => write!(f, "cannot listen on port {port} of {host}: {error}"),
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
    places: Arc<Semaphore>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the port. Also raises this process's limit of open files towards `max_connections`.
    ///
    /// # Errors
    /// The port is taken or cannot be had.
    pub async fn bind(
        settings: &Settings,
        routes: Arc<Routes>,
        guard: AdminGuard,
    ) -> Result<Server, ServerError> {
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
        let places = Arc::new(Semaphore::new(settings.max_connections));
        let shared = Arc::new(Shared { settings: settings.clone(), routes, guard, http, places });
        Ok(Server { listener, local_addr, shared })
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
        tokio::spawn(accept(self.listener, self.shared, phases, alive));
        RunningServer { local_addr: self.local_addr, phase, ended, grace }
    }
}

impl RunningServer {
    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
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
    if setrlimit(Resource::Nofile, limit).is_err() || possible < wanted {
        debug!("the limit of open files allows fewer than max_connections = {max_connections} connections");
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
    let mut full = Seldom::default();
    let mut failing = Seldom::default();
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
                let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
                    // Closed rather than left waiting: the client learns at once and can go elsewhere.
                    if let Some(times) = full.again() {
                        let limit = shared.settings.max_connections;
                        warn!("{remote} closed: all {limit} connections are in use ({times} refused so far)");
                    }
                    continue;
                };
                // Small messages must not wait for the acknowledgement of the last one.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!("{remote}: {error}");
                }
                let stream = HostStream::tcp(stream).holding(place);
                tokio::spawn(serve(Arc::clone(&shared), stream, remote, connection_phases, alive.clone()));
            }
            Err(error) if is_clients_trouble(&error) => {
                debug!("a client went away while connecting: {error}")
            }
            Err(error) => {
                if let Some(times) = failing.again() {
                    warn!("cannot accept connections for now: {error} ({times} times so far)");
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
    stream: HostStream,
    remote: SocketAddr,
    mut phases: watch::Receiver<Phase>,
    alive: mpsc::Sender<Infallible>,
) {
    // Where the request that is accepted leaves what to do with the stream once its answer is written.
    let accepted: Arc<Mutex<Option<OnStream>>> = Arc::default();
    let service = {
        let (shared, accepted) = (Arc::clone(&shared), Arc::clone(&accepted));
        service_fn(move |request| -> BoxFuture<Result<_, Infallible>> {
            let (shared, accepted) = (Arc::clone(&shared), Arc::clone(&accepted));
            Box::pin(async move {
                let (response, on_stream) = shared.answer(request, remote).await;
                *accepted.lock().unwrap_or_else(PoisonError::into_inner) = on_stream;
                Ok(response)
            })
        })
    };
    let mut connection = shared.http.serve_connection(TokioIo::new(stream), service);
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
    let stream = parts.io.into_inner();
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
            debug!("{remote}: {error}");
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

impl Shared {
    /// Answers one request; with what to do with the connection if it was upgraded.
    async fn answer(
        &self,
        request: Request<Incoming>,
        remote: SocketAddr,
    ) -> (Response<Full<Bytes>>, Option<OnStream>) {
        let (head, body) = request.into_parts();
        if upgrade::is_attempted(&head)
            && let Some(handler) = self.routes.find_upgrade(head.uri.path())
        {
            return match self.upgrade(head, handler.as_ref(), remote).await {
                Ok((response, on_stream)) => (response, Some(on_stream)),
                Err(response) => (closing(response), None),
            };
        }
        let is_upgrade = upgrade::is_attempted(&head);
        let response = match self.routes.find_request(&head.method, head.uri.path()) {
            Found::Request(access, handler) => {
                let allowed = self.allowed(access, &head, remote);
                match allowed.map(|()| self.read(head, body, remote)) {
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
        handler: &dyn UpgradeHandler,
        remote: SocketAddr,
    ) -> Result<(Response<Full<Bytes>>, OnStream), HttpResponse> {
        let path = head.uri.path().to_owned();
        let handshake = Handshake::check(&head).map_err(|reason| {
            debug!("{remote}: bad WebSocket handshake to {path}: {reason}");
            upgrade::bad_request()
        })?;
        let answer = handler.upgrade(UpgradeRequest {
            path: path.clone(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            protocols: handshake.protocols.clone(),
            remote,
        });
        let timeout = Duration::from_millis(self.settings.upgrade_timeout_ms);
        let answer = tokio::time::timeout(timeout, answer).await.map_err(|_| {
            warn!("{remote}: nobody decided about the WebSocket handshake to {path} in time");
            HttpResponse::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
        })?;
        match answer {
            UpgradeAnswer::Accept { protocol, headers, on_stream } => {
                let (status, headers) = handshake.answer(protocol.as_deref(), headers).map_err(|reason| {
                    warn!("{remote}: WebSocket handshake to {path} failed: {reason}");
                    HttpResponse::text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
                })?;
                let mut response = Response::new(Full::default());
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                Ok((response, on_stream))
            }
            UpgradeAnswer::Refuse(response) => Err(response),
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
            Access::Admin => self.guard.check(remote, &head.uri, &head.headers),
        }
    }

    /// Reads a request's body, within its limits.
    async fn read(
        &self,
        head: hyper::http::request::Parts,
        body: Incoming,
        remote: SocketAddr,
    ) -> Result<HttpRequest, HttpResponse> {
        let limit = self.settings.http_max_body_bytes;
        let too_large = || {
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
            Err(_) => return Err(HttpResponse::text(StatusCode::REQUEST_TIMEOUT, "Request Timeout")),
        };
        Ok(HttpRequest {
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
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

/// Counts a trouble and says when to log it: at first, then not again for [`SAME_TROUBLE`].
#[derive(Default)]
struct Seldom {
    times: u64,
    last_logged: Option<Instant>,
}

impl Seldom {
    /// Once more. The number of times so far, if it is time to log.
    fn again(&mut self) -> Option<u64> {
        self.times += 1;
        if self.last_logged.is_some_and(|last| last.elapsed() < SAME_TROUBLE) {
            return None;
        }
        self.last_logged = Some(Instant::now());
        Some(self.times)
    }
}

#[cfg(test)]
mod tests;
