//! Outgoing connections, opened by the host so that they outlive the plugin that asked for them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http::HostStream;

mod proxy;
mod tls;
mod tunnel;

pub use proxy::{Proxies, Proxy, ProxyError};
pub use tls::{TlsOptions, Trust, client_config};
pub use tunnel::TunnelFailure;

use tunnel::Way;

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
    /// The proxies to go by, where they are for this peer; otherwise the connection is direct.
    pub proxies: Option<Proxies>,
    /// The time for everything: looking the name up, connecting, the proxy's answer, the TLS handshake.
    pub timeout: Duration,
}

/// Why a connection could not be made. The line names host and port, and the proxy without its password.
#[derive(Debug)]
pub struct DialError {
    /// `host:port`.
    pub peer: String,
    /// The proxy that it was to go by.
    pub proxy: Option<String>,
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
    /// A variable of the environment does not name a proxy that can be used.
    Proxy(ProxyError),
    /// The proxy cannot be reached, or does not open the way.
    Tunnel(TunnelFailure),
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
            DialFailure::Tls(error) => {
                write!(f, "TLS handshake with {peer}")?;
                self.by_way(f)?;
                write!(f, " failed: {error}")
            }
            failure => {
                write!(f, "cannot connect to {peer}")?;
                self.by_way(f)?;
                match failure {
                    DialFailure::Connect(address, error) if address.to_string() == *peer => {
                        write!(f, ": {error}")
                    }
                    DialFailure::Connect(address, error) => write!(f, " ({address}): {error}"),
                    DialFailure::Proxy(error) => write!(f, ": {error}"),
                    DialFailure::Tunnel(failure) => write!(f, ": {failure}"),
                    DialFailure::ServerName(name) => write!(f, ": `{name}` is not a server name for TLS"),
                    DialFailure::Roots(why) => write!(f, ": no root certificates: {why}"),
                    DialFailure::TimedOut(timeout) => {
                        write!(f, ": no answer within {} ms", timeout.as_millis())
                    }
                    DialFailure::LookUp(error) | DialFailure::Tls(error) => write!(f, ": {error}"),
                }
            }
        }
    }
}

impl DialError {
    fn by_way(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proxy {
            Some(proxy) => write!(f, " by way of the proxy {proxy}"),
            None => Ok(()),
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
    let error = |proxy: Option<&Proxy>, failure| DialError {
        peer: authority(host, options.port),
        proxy: proxy.map(ToString::to_string),
        failure,
    };
    let proxy = match &options.proxies {
        Some(proxies) => proxies.choose(options.tls.is_some(), host, options.port),
        None => Ok(None),
    };
    let proxy = proxy.map_err(|why| error(None, DialFailure::Proxy(why)))?;
    let opened = tokio::time::timeout(options.timeout, open(options, host, proxy.as_ref())).await;
    let opened = opened.unwrap_or(Err(DialFailure::TimedOut(options.timeout)));
    opened.map_err(|failure| error(proxy.as_ref(), failure))
}

async fn open(options: &DialOptions, host: &str, proxy: Option<&Proxy>) -> Result<HostStream, DialFailure> {
    let way = match proxy {
        Some(proxy) => tunnel::open(proxy, host, options.port).await?,
        None => Way::Plain(connect(host, options.port).await?),
    };
    Ok(match (way, &options.tls) {
        (Way::Plain(stream), None) => HostStream::tcp(stream),
        (Way::Plain(stream), Some(tls)) => HostStream::tls_client(tls::secure(stream, host, tls).await?),
        (Way::Tls(stream), None) => HostStream::tls_client(*stream),
        (Way::Tls(stream), Some(tls)) => HostStream::tls_over_tls(tls::secure(*stream, host, tls).await?),
    })
}

/// `host:port`, with the brackets that an IPv6 address needs.
#[must_use]
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
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
            Some(Ok(Ok(stream))) => {
                // Small messages must not wait for the acknowledgement of the last one. Failing, it is only slower.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!("{host}: {error}");
                }
                return Ok(stream);
            }
            Some(Ok(Err((address, error)))) => failure = DialFailure::Connect(address, error),
            // Still silent, or its task was torn down with the runtime.
            None | Some(Err(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests;
