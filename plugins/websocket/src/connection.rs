//! One live connection: frames in, frames out, and how it ends.
//!
//! It is one state machine, polled by hand: without tasks and channels of its own it costs little memory while
//! idle, and all that it knows is in one place ([`Live`]), from where a later generation of this library can go on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use flowbay_sdk::{Blob, Object, Received, Str, Value};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message,
        error::ProtocolError,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame, Utf8Bytes,
                coding::{CloseCode, Data as DataCode, OpCode},
            },
        },
    },
};

use crate::payload::Data;

/// The largest message, and the largest frame, that a peer may send. Node-RED allows 100 MiB, which a few peers can
/// turn into all of a small machine's memory; 16 MiB is far beyond what flows exchange.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// tungstenite's read buffer, which each connection has from its start to its end. Much larger ones are no faster
/// for small messages; much smaller ones cost a system call more per message of a few KiB.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// What is gathered before it is written without being flushed: one system call for many small messages.
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// Messages read in one turn, so that a peer that never stops sending does not keep others from their turn.
const READS_PER_TURN: usize = 64;
/// Batches taken from the session's queue in one turn.
const BATCHES_PER_TURN: usize = 16;
/// While the socket takes nothing, reading goes on until so many bytes wait in the queue: a peer may well send a
/// few messages before it reads the answers to the first.
const READ_PAUSE_BYTES: usize = 256 << 10;
/// … and at most so many messages, which bounds the pongs that are owed.
const READS_WHILE_BLOCKED: u32 = 256;
/// How long a closing handshake may take.
const CLOSE_MS: u64 = 5_000;
/// How long a peer that broke the protocol is listened to, so that it gets to read the reason.
const LINGER_MS: u64 = 2_000;

/// A timer of the host's.
pub type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a connection is connected to: its session's queue on one side, the flow on the other.
pub trait Surroundings {
    /// Appends what is to be sent: text and bytes as data frames, a [`close_request`] as the end.
    fn poll_outgoing(&self, cx: &mut Context<'_>, into: &mut Vec<Value>) -> Poll<Received>;
    /// Bytes that wait to be sent.
    fn outgoing_bytes(&self) -> usize;
    /// Ready while the flow takes messages.
    fn poll_flow(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// A message arrived.
    fn deliver(&self, data: Data<'_>);
    /// The connection failed; its end follows.
    fn failed(&self, reason: &str);
    /// With which [`close_request`] to end when the session is closed by the host.
    fn on_cut(&self) -> Value;
    /// A timer.
    fn timer(&self, ms: u64) -> Timer;
}

/// A value for a session's queue that ends the connection, after what was queued before it. Without a code, the
/// close frame has none.
pub fn close_request(code: Option<u16>, reason: &str) -> Value {
    Value::Object(Object::from([("close", Value::from(code)), ("reason", Value::from(reason))]))
}

fn close_frame(request: &Value) -> Option<CloseFrame> {
    let code = u16::try_from(request["close"].as_i64()?).ok()?;
    let reason = Utf8Bytes::from(request["reason"].as_str().unwrap_or_default());
    Some(CloseFrame { code: CloseCode::from(code), reason })
}

/// One connection, from its handshake to its end.
pub struct Live<S, E> {
    socket: WebSocketStream<S>,
    surroundings: E,
    stage: Stage,
    /// Taken from the queue and not yet given to the socket, the next one last.
    batch: Vec<Value>,
    /// Something was given to the socket since it was last flushed.
    unflushed: bool,
    /// The socket takes nothing at the moment.
    blocked: bool,
    /// Messages and pings read since then.
    read_while_blocked: u32,
    heartbeat: Option<Box<Heartbeat>>,
    /// When the connection ends in any case; only set once it is ending.
    deadline: Option<Timer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Messages go both ways.
    Open,
    /// A close frame was sent or received; the other one is awaited or on its way.
    Closing { by_peer: bool },
    /// The peer broke the protocol; a close frame that says so is on its way.
    Failing,
    /// Our side is finished: the writing half is to be closed.
    Shutdown { linger: bool },
    /// What the peer still sends is thrown away, so that it is not told of a reset before it reads the close frame.
    Linger,
}

/// Why a turn of an open connection was the last one.
enum Leave {
    /// We end it.
    Close(Option<CloseFrame>),
    /// The peer ends it.
    PeerCloses,
    /// The peer is gone.
    Gone,
    /// It failed.
    Failed(SocketError),
    /// The peer does not answer pings.
    Dead,
}

impl From<SocketError> for Leave {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::ConnectionClosed
            | SocketError::AlreadyClosed
            // As in Node-RED, a peer that leaves without a close frame is not an error.
            | SocketError::Io(_)
            | SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Gone,
            error => Self::Failed(error),
        }
    }
}

struct Heartbeat {
    interval_ms: u64,
    timer: Timer,
    /// Nothing was heard of the peer since the last ping.
    silent: bool,
}

impl<S, E> Live<S, E>
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Surroundings + Unpin,
{
    /// A connection whose opening handshake is done; `input` is what was read behind it.
    pub async fn new(
        stream: S,
        role: Role,
        input: Vec<u8>,
        heartbeat_ms: Option<u64>,
        surroundings: E,
    ) -> Box<Self> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        // Boxed, so that the future of a connection does not have room for this one for ever.
        let socket = Box::pin(WebSocketStream::from_partially_read(stream, input, role, Some(config))).await;
        let heartbeat = heartbeat_ms.map(|interval_ms| {
            let timer = surroundings.timer(interval_ms);
            Box::new(Heartbeat { interval_ms, timer, silent: false })
        });
        Box::new(Self {
            socket,
            surroundings,
            stage: Stage::Open,
            batch: Vec::new(),
            unflushed: false,
            blocked: false,
            read_while_blocked: 0,
            heartbeat,
            deadline: None,
        })
    }

    /// Serves the connection to its end.
    pub async fn serve(&mut self) {
        std::future::poll_fn(|cx| self.poll_serve(cx)).await;
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        loop {
            let next = match self.stage {
                Stage::Open => ready!(self.poll_open(cx)),
                Stage::Closing { by_peer } => ready!(self.poll_closing(cx, by_peer)),
                Stage::Failing => {
                    let _ = ready!(Pin::new(&mut self.socket).poll_flush(cx));
                    Some(Stage::Shutdown { linger: true })
                }
                Stage::Shutdown { linger } => {
                    let shut = ready!(Pin::new(self.socket.get_mut()).poll_shutdown(cx));
                    (linger && shut.is_ok()).then_some(Stage::Linger)
                }
                Stage::Linger => ready!(self.poll_linger(cx)),
            };
            match next {
                Some(stage) => self.enter(stage, cx),
                None => return Poll::Ready(()),
            }
        }
    }

    /// Goes on to another stage; the first one of the end sets the deadline.
    fn enter(&mut self, stage: Stage, cx: &mut Context<'_>) {
        self.stage = stage;
        if self.deadline.is_none() {
            let ms = if stage == Stage::Failing { LINGER_MS } else { CLOSE_MS };
            let mut timer = self.surroundings.timer(ms);
            // Polled once for its waker; a time of seconds is not over yet.
            let _ = timer.as_mut().poll(cx);
            self.deadline = Some(timer);
        }
    }

    // ---- Open ----

    /// One turn; the stage that follows when it was the last one, or the end.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Stage>> {
        match self.turn(cx) {
            Ok(more) => {
                if more {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Err(leave) => Poll::Ready(self.leave(leave)),
        }
    }

    /// Does what can be done now; whether there is more to do already.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Leave> {
        self.beat(cx)?;
        let more_to_send = self.send(cx)?;
        self.flush(cx)?;
        let more_to_read = self.receive(cx)?;
        // Pongs; what the flow makes of the messages comes with the next turn.
        self.flush(cx)?;
        // What the socket had no room for a moment ago, when it has now.
        let room_again = !self.blocked && !self.batch.is_empty();
        Ok(more_to_send || more_to_read || room_again)
    }

    /// Gives queued values to the socket while it takes them. Not flushed: many go in one system call.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, Leave> {
        for _ in 0..BATCHES_PER_TURN {
            while !self.batch.is_empty() {
                match Pin::new(&mut self.socket).poll_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => {
                        self.blocked = true;
                        return Ok(false);
                    }
                }
                match self.batch.pop() {
                    Some(Value::Str(text)) => self.write(Message::Frame(text_frame(text)))?,
                    Some(Value::Bytes(bytes)) => self.write(Message::Frame(binary_frame(bytes)))?,
                    Some(request @ Value::Object(_)) => return Err(Leave::Close(close_frame(&request))),
                    _ => {}
                }
            }
            match self.surroundings.poll_outgoing(cx, &mut self.batch) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Received::Values(_)) => self.batch.reverse(),
                Poll::Ready(Received::Closed) => {
                    return Err(Leave::Close(close_frame(&self.surroundings.on_cut())));
                }
                // This version cannot give a connection away; "service restart" tells clients to come again.
                Poll::Ready(Received::HandOver) => {
                    return Err(Leave::Close(close_frame(&close_request(Some(1012), ""))));
                }
            }
        }
        Ok(true)
    }

    fn write(&mut self, message: Message) -> Result<(), SocketError> {
        self.unflushed = true;
        Pin::new(&mut self.socket).start_send(message)
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), SocketError> {
        if self.unflushed {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(flushed) => {
                    flushed?;
                    self.unflushed = false;
                    self.blocked = false;
                    self.read_while_blocked = 0;
                }
                Poll::Pending => self.blocked = true,
            }
        }
        Ok(())
    }

    /// Reads all that is there, as long as the flow takes it and the peer takes what it caused.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, Leave> {
        if self.blocked && self.surroundings.outgoing_bytes() >= READ_PAUSE_BYTES {
            // Resumed when the socket takes something, for which it was polled.
            self.heard();
            return Ok(false);
        }
        for _ in 0..READS_PER_TURN {
            let full = self.blocked && self.read_while_blocked >= READS_WHILE_BLOCKED;
            if full || self.surroundings.poll_flow(cx).is_pending() {
                self.heard();
                return Ok(false);
            }
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => return Err(Leave::Gone),
                Poll::Ready(Some(message)) => message?,
            };
            self.read_while_blocked += u32::from(self.blocked);
            match message {
                Message::Text(text) => self.surroundings.deliver(Data::Text(&text)),
                Message::Binary(bytes) => self.surroundings.deliver(Data::Binary(&bytes)),
                Message::Ping(_) => {
                    // tungstenite has the pong ready, to go out with the next flush.
                    self.unflushed = true;
                    self.heard();
                }
                Message::Pong(_) => self.heard(),
                Message::Close(_) => return Err(Leave::PeerCloses),
                Message::Frame(_) => {}
            }
        }
        Ok(true)
    }

    /// The peer is alive, or cannot be heard because nobody listens.
    fn heard(&mut self) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.silent = false;
        }
    }

    /// Sends a ping when it is time, unless the one before was not answered.
    fn beat(&mut self, cx: &mut Context<'_>) -> Result<(), Leave> {
        let Some(heartbeat) = &mut self.heartbeat else { return Ok(()) };
        if heartbeat.timer.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        if std::mem::replace(&mut heartbeat.silent, true) {
            return Err(Leave::Dead);
        }
        heartbeat.timer = self.surroundings.timer(heartbeat.interval_ms);
        let _ = heartbeat.timer.as_mut().poll(cx);
        self.write(Message::Ping(Bytes::new()))?;
        Ok(())
    }

    /// The first step of the end.
    fn leave(&mut self, leave: Leave) -> Option<Stage> {
        match leave {
            Leave::Close(frame) => {
                self.write(Message::Close(frame)).is_ok().then_some(Stage::Closing { by_peer: false })
            }
            Leave::PeerCloses => {
                // tungstenite has the answer ready.
                self.unflushed = true;
                Some(Stage::Closing { by_peer: true })
            }
            Leave::Gone => None,
            Leave::Dead => {
                self.surroundings.failed("no answer to a ping");
                None
            }
            Leave::Failed(error) => {
                self.surroundings.failed(&error.to_string());
                let code = match error {
                    SocketError::Protocol(_) => CloseCode::Protocol,
                    SocketError::Utf8(_) => CloseCode::Invalid,
                    SocketError::Capacity(_) => CloseCode::Size,
                    _ => CloseCode::Error,
                };
                let frame = CloseFrame { code, reason: Utf8Bytes::default() };
                self.write(Message::Close(Some(frame))).is_ok().then_some(Stage::Failing)
            }
        }
    }

    // ---- Closing ----

    /// The closing handshake. What the peer sent before it saw our close frame still counts.
    fn poll_closing(&mut self, cx: &mut Context<'_>, by_peer: bool) -> Poll<Option<Stage>> {
        for _ in 0..READS_PER_TURN {
            if self.flush(cx).is_err() {
                return Poll::Ready(None);
            }
            if !by_peer {
                ready!(self.surroundings.poll_flow(cx));
            }
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => self.surroundings.deliver(Data::Text(&text)),
                Some(Ok(Message::Binary(bytes))) => self.surroundings.deliver(Data::Binary(&bytes)),
                Some(Ok(_)) => {}
                Some(Err(_)) => return Poll::Ready(None),
                None => return Poll::Ready(Some(Stage::Shutdown { linger: false })),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    // ---- Linger ----

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<Option<Stage>> {
        let mut bytes = [0; 2048];
        for _ in 0..READS_PER_TURN {
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(self.socket.get_mut()).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(None),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Below this size a copy costs less than sharing the value's memory.
const SHARE_BYTES: usize = 256;

fn payload(blob: Blob) -> Bytes {
    if blob.len() < SHARE_BYTES { Bytes::copy_from_slice(&blob) } else { Bytes::from_owner(blob) }
}

/// A frame, not a text message: a `Str` is UTF-8, there is no need to check it again.
fn text_frame(text: Str) -> Frame {
    let payload = if text.len() < SHARE_BYTES {
        Bytes::copy_from_slice(text.as_bytes())
    } else {
        payload(text.into_blob())
    };
    Frame::message(payload, OpCode::Data(DataCode::Text), true)
}

fn binary_frame(bytes: Blob) -> Frame {
    Frame::message(payload(bytes), OpCode::Data(DataCode::Binary), true)
}

#[cfg(test)]
mod tests;
