//! tungstenite on a connection's stream, as something that can be taken apart and put together again.

use flowbay_sdk::frames::{MovableStream, Parts};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

use super::Limits;

/// tungstenite's read buffer for a connection with little to read; much smaller ones cost a system call more per
/// message of a few KiB.
const SMALL_BUFFER_BYTES: usize = 4 << 10;
/// … and for one with much to read. What there is room for is cleared before each read, so such a buffer is a loss
/// where little comes.
const LARGE_BUFFER_BYTES: usize = 32 << 10;
/// What is gathered before it is written without being flushed: one system call for many messages. The buffer has no
/// such size before there is so much to send.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// tungstenite on a stream that can be got back from it.
pub type Socket<S> = WebSocketStream<MovableStream<S>>;

/// A connection's codec. It exists while there is something to do for it; at rest there are only its parts.
pub struct Codec<'a, S> {
    role: Role,
    limits: &'a Limits,
    reads_much: bool,
    /// One of the two. Boxed, so that a connection at rest has no room for it.
    socket: Option<Box<Socket<S>>>,
    parts: Option<Parts<S>>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Codec<'a, S> {
    /// The codec for a stream behind its opening handshake, at rest.
    pub fn new(parts: Parts<S>, role: Role, limits: &'a Limits) -> Self {
        Self { role, limits, reads_much: false, socket: None, parts: Some(parts) }
    }

    /// tungstenite; put together when it is at rest.
    pub fn socket(&mut self) -> &mut Socket<S> {
        if let Some(parts) = self.parts.take() {
            let read_buffer = if self.reads_much { LARGE_BUFFER_BYTES } else { SMALL_BUFFER_BYTES };
            let limits = self.limits.frames();
            let config = WebSocketConfig::default()
                .read_buffer_size(read_buffer)
                .write_buffer_size(WRITE_BUFFER_BYTES)
                .max_message_size(Some(limits.message_bytes))
                .max_frame_size(Some(limits.frame_bytes));
            let stream = MovableStream::from_parts(parts, limits);
            let socket = WebSocketStream::from_raw_socket(stream, self.role, Some(config))
                .now_or_never()
                .expect("without a handshake there is nothing to wait for");
            self.socket = Some(Box::new(socket));
        }
        self.socket.as_mut().expect("a codec is whole or in parts")
    }

    /// The stream under tungstenite; that is put together when it is at rest.
    pub fn stream(&mut self) -> &mut MovableStream<S> {
        self.socket().get_mut()
    }

    /// The parts, when it is at rest.
    pub fn parts(&mut self) -> Option<&mut Parts<S>> {
        self.parts.as_mut()
    }

    /// Whether there is output that an earlier codec left.
    pub fn has_output(&self) -> bool {
        match (&self.socket, &self.parts) {
            (Some(socket), _) => socket.get_ref().has_output(),
            (None, Some(parts)) => !parts.output.is_empty(),
            (None, None) => false,
        }
    }

    /// Lays it to rest, when it has absorbed and given all it had ([`flowbay_sdk::frames`]) and is movable.
    pub fn take_apart(&mut self) -> &Parts<S> {
        if let Some(socket) = self.socket.take() {
            let parts = (*socket).into_inner().into_parts().expect("only asked for what is movable");
            self.parts = Some(parts);
        }
        self.parts.as_ref().expect("a codec is whole or in parts")
    }

    /// Whether the next codec that is put together is for much to read. It is for little at first.
    pub fn reads_much(&self) -> bool {
        self.reads_much
    }

    /// Sets [`Codec::reads_much`].
    pub fn set_reads_much(&mut self, reads_much: bool) {
        self.reads_much = reads_much;
    }

    /// The parts of a codec at rest.
    pub fn into_parts(self) -> Option<Parts<S>> {
        self.parts
    }
}
