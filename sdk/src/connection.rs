//! Streams and sessions as node authors use them.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use abi_stable::std_types::RSlice;
use flowbay_abi::{
    io::{self as abi_io, HostIo, HostSession, Received},
    value::{Str, Value},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A TCP or TLS stream that the host owns; use it as any tokio stream.
///
/// Dropping it closes the socket. It may move between tasks, but only one polls it at a time.
pub struct HostStream(HostIo);

impl HostStream {
    pub(crate) fn new(io: HostIo) -> Self {
        Self(io)
    }

    pub(crate) fn into_io(self) -> HostIo {
        self.0
    }

    /// What is known of the stream: an object with `remote`, `local` (address:port) and `tls` (bool).
    pub fn info(&self) -> Value {
        self.0.info()
    }
}

impl std::fmt::Debug for HostStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostStream").field(&self.info()).finish()
    }
}

impl AsyncRead for HostStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n = ready!(self.get_mut().0.poll_read(cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// Buffers of one vectored write; more than this are left for the next.
const MAX_BUFFERS: usize = 16;

impl AsyncWrite for HostStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().0.poll_write(cx, &[RSlice::from(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut slices = [RSlice::EMPTY; MAX_BUFFERS];
        let count = bufs.len().min(MAX_BUFFERS);
        for (slice, buf) in slices.iter_mut().zip(bufs) {
            *slice = RSlice::from(&buf[..]);
        }
        self.get_mut().0.poll_write(cx, &slices[..count])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_shutdown(cx)
    }
}

/// A session: an address in the flow (`msg._session.id`) with a bounded queue of values to send. The host owns the
/// queue and any node fills it ([`crate::Ctx::session_send`]); the connection's future empties it.
pub struct Session {
    host: HostSession,
    id: Str,
}

impl Session {
    /// The session's id, 16 hexadecimal digits.
    pub fn id(&self) -> &Str {
        &self.id
    }

    /// Appends values that wait to be sent to `into`, oldest first, at most a batch.
    pub fn poll_recv(&self, cx: &mut Context<'_>, into: &mut Vec<Value>) -> Poll<Received> {
        self.host.poll_recv(cx, into)
    }

    /// Ready when the host wants the connection back ([`Received::HandOver`]) or has cut the session
    /// ([`Received::Closed`]); takes no values. For a connection whose peer takes nothing at the moment, and which
    /// therefore does not call [`Session::poll_recv`]. A cut connection should not wait for such a peer without end.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Received> {
        self.host.poll_end(cx)
    }

    /// As [`Session::poll_end`], ready only when the host wants the connection back.
    pub fn poll_hand_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.host.poll_hand_over(cx)
    }

    /// As [`Session::poll_recv`], as a future. Safe to drop at any time: what it took is in `into`.
    pub async fn recv(&self, into: &mut Vec<Value>) -> Received {
        self.host.recv(into).await
    }

    /// Appends all that still waits to be sent to `into`, oldest first, even while the host wants the connection back.
    /// For one that has ended and is not given back: what it leaves in the queue is gone with the session.
    pub fn take_left(&self, into: &mut Vec<Value>) {
        self.host.take_left(into);
    }

    /// Bytes waiting in the queue: a connection whose peer does not read should stop reading from it.
    pub fn queued_bytes(&self) -> usize {
        self.host.queued_bytes()
    }
}

/// A connection that is this node's to serve.
pub struct Connection {
    /// The byte stream.
    pub stream: HostStream,
    /// The session in whose name it speaks.
    pub session: Session,
    /// What the connection knows of itself: an object. After an upgrade it has `request`, `protocol` and `input`
    /// (bytes that arrived behind the handshake); after [`crate::Ctx::attach`] it is what was given there; after a
    /// hot swap what the earlier generation returned in [`ConnectionEnd::HandOver`].
    pub state: Value,
}

/// How serving a connection ends.
pub enum ConnectionEnd {
    /// The connection is closed, and its session gone.
    Closed,
    /// The host asked for it ([`Received::HandOver`]): all that the next generation needs to go on.
    HandOver {
        /// The byte stream.
        stream: HostStream,
        /// The state for the next [`Connection`], with unread input and unsent output in it.
        state: Value,
    },
}

pub(crate) fn from_abi(connection: abi_io::Connection) -> Connection {
    let abi_io::Connection { io, session, state } = connection;
    let id = session.id();
    Connection { stream: HostStream(io), session: Session { host: session, id }, state }
}

pub(crate) fn end_to_abi(end: ConnectionEnd) -> abi_io::ConnectionEnd {
    match end {
        ConnectionEnd::Closed => abi_io::ConnectionEnd::Closed,
        ConnectionEnd::HandOver { stream, state } => abi_io::ConnectionEnd::HandOver { io: stream.0, state },
    }
}
