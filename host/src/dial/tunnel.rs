//! The way through a proxy: `CONNECT` (RFC 9110 section 9.3.6), which RFC 6455 asks for with plain connections too, or
//! SOCKS 5.

use std::error::Error;
use std::fmt;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_socks::tcp::Socks5Stream;

use super::proxy::Speech;
use super::{DialFailure, Proxy, TlsOptions, authority, connect, tls};

/// The longest head of an answer that is read; a proxy has little to say.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Why there is no way through a proxy.
#[derive(Debug)]
pub enum TunnelFailure {
    /// The proxy itself cannot be connected to.
    Unreachable(Box<DialFailure>),
    /// What it answers is not its protocol, too long, or nothing.
    NoAnswer(String),
    /// It says no, in the words for SOCKS.
    Socks(tokio_socks::Error),
    /// It says no.
    Refused {
        /// What it answered.
        status: StatusCode,
        /// Whether it was told a user and a password.
        authorized: bool,
    },
    /// The destination cannot be asked for in HTTP.
    NoDestination,
    /// It sent more than its answer, before anybody at the other end can have spoken.
    Unasked,
}

impl fmt::Display for TunnelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(failure) => match &**failure {
                DialFailure::LookUp(error) => write!(f, "cannot look up the proxy: {error}"),
                DialFailure::Connect(address, error) => {
                    write!(f, "cannot connect to the proxy ({address}): {error}")
                }
                DialFailure::Tls(error) => write!(f, "TLS handshake with the proxy failed: {error}"),
                DialFailure::Roots(why) => write!(f, "no root certificates: {why}"),
                DialFailure::ServerName(name) => write!(f, "`{name}` is not a server name for TLS"),
                _ => f.write_str("cannot connect to the proxy"),
            },
            Self::NoAnswer(why) => write!(f, "the proxy did not answer as one: {why}"),
            Self::Refused { status: StatusCode::PROXY_AUTHENTICATION_REQUIRED, authorized: false } => {
                f.write_str("the proxy asks for a user and a password (407), as in http://user:password@host")
            }
            Self::Refused { status: StatusCode::PROXY_AUTHENTICATION_REQUIRED, authorized: true } => {
                f.write_str("the proxy does not accept the user and password (407)")
            }
            Self::Socks(error) => write!(f, "the proxy refused: {error}"),
            // With the reason that belongs to the code, not the proxy's text.
            Self::Refused { status, .. } => write!(f, "the proxy refused: {status}"),
            Self::NoDestination => f.write_str("the host's name is not one for a proxy"),
            Self::Unasked => f.write_str("the proxy sent data that nobody asked for"),
        }
    }
}

/// A way through a proxy: the stream leads to the peer.
pub(super) enum Way {
    /// The proxy is spoken with in the clear.
    Plain(TcpStream),
    /// The proxy is spoken with by TLS. The system's root certificates vouch for it.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens the way through `proxy` to `host`.
pub(super) async fn open(proxy: &Proxy, host: &str, port: u16) -> Result<Way, DialFailure> {
    let unreachable = |failure| DialFailure::Tunnel(TunnelFailure::Unreachable(Box::new(failure)));
    let stream = connect(&proxy.host, proxy.port).await.map_err(unreachable)?;
    let opened = match &proxy.speech {
        Speech::Http(authorization) => ask(stream, authorization.as_ref(), host, port).await.map(Way::Plain),
        Speech::Https(authorization) => {
            let secured = tls::secure(stream, &proxy.host, &TlsOptions::default()).await;
            let stream = secured.map_err(unreachable)?;
            ask(stream, authorization.as_ref(), host, port).await.map(Box::new).map(Way::Tls)
        }
        Speech::Socks5(user) => ask_socks(stream, user.as_ref(), host, port).await.map(Way::Plain),
    };
    opened.map_err(DialFailure::Tunnel)
}

/// Asks for the way to `host`; the stream is what then leads there.
async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    authorization: Option<&HeaderValue>,
    host: &str,
    port: u16,
) -> Result<S, TunnelFailure> {
    let destination = authority(host, port);
    let uri = Uri::builder().authority(&*destination).build().map_err(|_| TunnelFailure::NoDestination)?;
    let mut request = Request::connect(uri).header(HOST, destination);
    if let Some(authorization) = authorization {
        request = request.header(PROXY_AUTHORIZATION, authorization);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| TunnelFailure::NoDestination)?;

    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream)).await?;
    // A set, so that it ends with this attempt.
    let mut driver = JoinSet::new();
    driver.spawn(connection.with_upgrades());
    let response = sender.send_request(request).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(TunnelFailure::Refused { status, authorized: authorization.is_some() });
    }
    let upgraded = hyper::upgrade::on(response).await?;
    match upgraded.downcast::<TokioIo<S>>() {
        Ok(parts) if parts.read_buf.is_empty() => Ok(parts.io.into_inner()),
        Ok(_) => Err(TunnelFailure::Unasked),
        Err(_) => Err(TunnelFailure::NoAnswer("its connection was lost".to_owned())),
    }
}

async fn ask_socks(
    stream: TcpStream,
    user: Option<&(String, String)>,
    host: &str,
    port: u16,
) -> Result<TcpStream, TunnelFailure> {
    let to = (host, port);
    let opened = match user {
        None => Socks5Stream::connect_with_socket(stream, to).await,
        Some((user, password)) => {
            Socks5Stream::connect_with_password_and_socket(stream, to, user, password).await
        }
    };
    match opened {
        Ok(stream) => Ok(stream.into_inner()),
        Err(tokio_socks::Error::Io(error)) => Err(TunnelFailure::NoAnswer(error.to_string())),
        Err(error) => Err(TunnelFailure::Socks(error)),
    }
}

impl From<hyper::Error> for TunnelFailure {
    fn from(error: hyper::Error) -> Self {
        let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
        Self::NoAnswer(format!("{error}{cause}"))
    }
}
