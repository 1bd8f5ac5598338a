//! [`HostStream`]: a connection of the host, plain or TLS, inbound or outbound.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use super::places::Place;

/// One connection. The host owns it; a plugin sees it through its transport.
///
/// An inbound one also holds its place among the server's connections and gives it back when dropped, wherever it has
/// moved by then.
#[derive(Debug)]
pub struct HostStream {
    io: Io,
    _place: Option<Place>,
}

/// TLS states are some 1 KiB large, so they are boxed: most connections are plain.
#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    TlsClient(Box<client::TlsStream<TcpStream>>),
    TlsServer(Box<server::TlsStream<TcpStream>>),
    /// To a server by way of a proxy that is itself spoken with by TLS.
    TlsOverTls(Box<client::TlsStream<client::TlsStream<TcpStream>>>),
}

/// Calls a method of the stream inside.
macro_rules! inner {
    ($self:expr, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Io::TlsClient(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Io::TlsServer(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Io::TlsOverTls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl HostStream {
    /// Whether TLS is spoken on it.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        !matches!(self.io, Io::Tcp(_))
    }

    /// A plain connection.
    #[must_use]
    pub fn tcp(stream: TcpStream) -> Self {
        Self { io: Io::Tcp(stream), _place: None }
    }

    /// An outgoing TLS connection.
    #[must_use]
    pub fn tls_client(stream: client::TlsStream<TcpStream>) -> Self {
        Self { io: Io::TlsClient(Box::new(stream)), _place: None }
    }

    /// An outgoing TLS connection inside another one.
    #[must_use]
    pub fn tls_over_tls(stream: client::TlsStream<client::TlsStream<TcpStream>>) -> Self {
        Self { io: Io::TlsOverTls(Box::new(stream)), _place: None }
    }

    /// An incoming TLS connection.
    #[must_use]
    pub fn tls_server(stream: server::TlsStream<TcpStream>) -> Self {
        Self { io: Io::TlsServer(Box::new(stream)), _place: None }
    }

    /// This connection, holding a place in the count of open connections until it is dropped.
    #[must_use]
    pub(crate) fn holding(mut self, place: Place) -> Self {
        self._place = Some(place);
        self
    }

    /// The other end's address.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }

    /// This end's address.
    ///
    /// # Errors
    /// The system cannot say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// Keeps the text of a TLS error for the log, since a plugin gets no more of it than a number. Of outgoing
    /// connections it says what is wrong with the configuration: a server that wants another certificate, for one, says
    /// so only after the handshake.
    fn note(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::InvalidData {
            return;
        }
        let peer = self.peer_addr().map_or_else(|_| "gone".to_owned(), |peer| peer.to_string());
        match &self.io {
            Io::TlsClient(_) | Io::TlsOverTls(_) => tracing::warn!(%peer, "TLS: {error}"),
            Io::TlsServer(_) | Io::Tcp(_) => tracing::debug!(%peer, "TLS: {error}"),
        }
    }

    fn socket(&self) -> &TcpStream {
        match &self.io {
            Io::Tcp(stream) => stream,
            Io::TlsClient(stream) => stream.get_ref().0,
            Io::TlsServer(stream) => stream.get_ref().0,
            Io::TlsOverTls(stream) => stream.get_ref().0.get_ref().0,
        }
    }
}

impl AsyncRead for HostStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = inner!(self.as_mut(), stream => stream.poll_read(cx, buf));
        if let Poll::Ready(Err(error)) = &polled {
            self.note(error);
        }
        polled
    }
}

impl AsyncWrite for HostStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        inner!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inner!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(stream) => stream.is_write_vectored(),
            Io::TlsClient(stream) => stream.is_write_vectored(),
            Io::TlsServer(stream) => stream.is_write_vectored(),
            Io::TlsOverTls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, stream => stream.poll_shutdown(cx))
    }
}
