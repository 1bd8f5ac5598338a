//! [`HostStream`]: a connection of the host, plain or TLS, inbound or outbound.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::{client, server};

/// One connection. The host owns it; a plugin sees it through its transport.
///
/// An inbound one also holds its place among the server's `max_connections` and gives it back when dropped,
/// wherever it has moved by then.
#[derive(Debug)]
pub struct HostStream {
    io: Io,
    _place: Option<OwnedSemaphorePermit>,
}

/// TLS states are some 1 KiB large, so they are boxed: most connections are plain.
#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    TlsClient(Box<client::TlsStream<TcpStream>>),
    TlsServer(Box<server::TlsStream<TcpStream>>),
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

    /// An incoming TLS connection. Nothing makes one yet: the server speaks plain HTTP so far.
    #[must_use]
    pub fn tls_server(stream: server::TlsStream<TcpStream>) -> Self {
        Self { io: Io::TlsServer(Box::new(stream)), _place: None }
    }

    /// This connection, holding a place in the count of open connections until it is dropped.
    #[must_use]
    pub(crate) fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
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

    fn socket(&self) -> &TcpStream {
        match &self.io {
            Io::Tcp(stream) => stream,
            Io::TlsClient(stream) => stream.get_ref().0,
            Io::TlsServer(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for HostStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        inner!(self, stream => stream.poll_read(cx, buf))
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
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, stream => stream.poll_shutdown(cx))
    }
}
