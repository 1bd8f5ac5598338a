//! Outgoing connections, opened by the host so that they outlive the plugin that asked for them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::http::HostStream;

/// How long one address may stay silent before the next is tried beside it (RFC 8305 recommends this delay).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Where to connect to, and how.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// A name or an address; IPv6 with or without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// TLS, unless the connection is plain.
    pub tls: Option<TlsOptions>,
    /// The time for everything: looking the name up, connecting, the TLS handshake.
    pub timeout: Duration,
}

/// How to speak TLS. No application protocol (ALPN) is offered: HTTP/1.1 is what WebSockets need.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// The name that the server's certificate must have; the host's own by default.
    pub server_name: Option<String>,
    /// Trust and client certificates; the system's root certificates by default.
    pub config: Option<Arc<ClientConfig>>,
}

/// Why a connection could not be made. The line names host and port.
#[derive(Debug)]
pub struct DialError {
    /// `host:port`.
    pub peer: String,
    /// Which step failed, and why.
    pub failure: DialFailure,
}

/// The step of dialling that failed.
#[derive(Debug)]
pub enum DialFailure {
    /// The name could not be looked up.
    LookUp(io::Error),
    /// No address of the name could be connected to; the last one's error.
    Connect(SocketAddr, io::Error),
    /// The name for the certificate is none.
    ServerName(String),
    /// There are no root certificates to trust.
    Roots(String),
    /// The TLS handshake failed.
    Tls(io::Error),
    /// It took longer than this.
    TimedOut(Duration),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = &self.peer;
        match &self.failure {
            DialFailure::LookUp(error) => write!(f, "cannot look up {peer}: {error}"),
            DialFailure::Connect(address, error) if address.to_string() == *peer => {
                write!(f, "cannot connect to {peer}: {error}")
            }
            DialFailure::Connect(address, error) => {
                write!(f, "cannot connect to {peer} ({address}): {error}")
            }
            DialFailure::ServerName(name) => {
                write!(f, "cannot connect to {peer}: `{name}` is not a server name for TLS")
            }
            DialFailure::Roots(why) => write!(f, "cannot connect to {peer}: no root certificates: {why}"),
            DialFailure::Tls(error) => write!(f, "TLS handshake with {peer} failed: {error}"),
            DialFailure::TimedOut(timeout) => {
                write!(f, "cannot connect to {peer}: no answer within {} ms", timeout.as_millis())
            }
        }
    }
}

impl std::error::Error for DialError {}

/// Opens a connection. Dropping the future abandons the attempt.
///
/// # Errors
/// See [`DialFailure`].
pub async fn dial(options: &DialOptions) -> Result<HostStream, DialError> {
    let host = options.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = host.unwrap_or(&options.host);
    let connected = tokio::time::timeout(options.timeout, async {
        let stream = connect(host, options.port).await?;
        // Small messages must not wait for the acknowledgement of the last one. Failing, it is only slower.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("{host}: {error}");
        }
        match &options.tls {
            None => Ok(HostStream::tcp(stream)),
            Some(tls) => secure(stream, host, tls).await,
        }
    });
    let failure = match connected.await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(failure)) => failure,
        Err(_) => DialFailure::TimedOut(options.timeout),
    };
    let peer = if host.contains(':') {
        format!("[{host}]:{}", options.port)
    } else {
        format!("{host}:{}", options.port)
    };
    Err(DialError { peer, failure })
}

/// Connects to the first address of the name that answers. Addresses are tried in the system's order, the next
/// one as soon as one fails or stays silent for a moment: `localhost` may be ::1 while the server listens
/// on 127.0.0.1, and a host may have an IPv6 address without being reachable by it.
async fn connect(host: &str, port: u16) -> Result<TcpStream, DialFailure> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(DialFailure::LookUp)?;
    // Copied out, because the look-up's own iterator cannot say whether it has more.
    let mut addresses = addresses.collect::<Vec<_>>().into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = DialFailure::LookUp(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    loop {
        match addresses.next() {
            Some(address) => {
                let attempt =
                    async move { TcpStream::connect(address).await.map_err(|error| (address, error)) };
                attempts.spawn(attempt);
            }
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let finished = if addresses.len() == 0 {
            attempts.join_next().await
        } else {
            tokio::time::timeout(NEXT_ADDRESS_AFTER, attempts.join_next()).await.ok().flatten()
        };
        match finished {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err((address, error)))) => failure = DialFailure::Connect(address, error),
            // Still silent, or its task was torn down with the runtime.
            None | Some(Err(_)) => {}
        }
    }
}

async fn secure(stream: TcpStream, host: &str, tls: &TlsOptions) -> Result<HostStream, DialFailure> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    let server_name =
        ServerName::try_from(name.to_owned()).map_err(|_| DialFailure::ServerName(name.to_owned()))?;
    let config = match &tls.config {
        Some(config) => Arc::clone(config),
        None => system_config().await.map_err(DialFailure::Roots)?,
    };
    let stream = TlsConnector::from(config).connect(server_name, stream).await.map_err(DialFailure::Tls)?;
    Ok(HostStream::tls_client(stream))
}

/// TLS with the system's root certificates.
///
/// They are read when the first connection needs them, not at the start: parsed, they take about a megabyte,
/// and most flows dial nothing by TLS. A failure is not kept, so that certificates installed later are found.
async fn system_config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: Mutex<Option<Arc<ClientConfig>>> = Mutex::new(None);
    let known = || CONFIG.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(config) = known() {
        return Ok(config);
    }
    let loading = tokio::task::spawn_blocking(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A system's store may hold a few certificates that rustls cannot use; the others do.
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(found.errors.first().map_or("the system has none".to_owned(), ToString::to_string));
        }
        client_config(roots)
    });
    let config = loading.await.map_err(|error| error.to_string())??;
    *CONFIG.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&config));
    Ok(config)
}

/// A TLS client that trusts these roots.
///
/// # Errors
/// rustls and its cryptography do not fit together; not expected.
pub fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests;
