//! One live connection: frames in, frames out, and how it ends.
//!
//! It is one state machine, polled by hand: without tasks and channels of its own it costs little memory while
//! idle, and all that it knows is in one place ([`Live`]). From there it moves to a later generation of this library:
//! the codec delivers what it has and is taken apart ([`Live::rest`]), and the parts, as a [`State`], are what the
//! next [`Live`] begins with. A connection that has been quiet for a while is taken apart the same way, and put
//! together again when there is something to do.

mod codec;
mod pace;
mod state;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use flowbay_sdk::{Blob, Object, Received, Str, Value, frames::Parts};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{
    Error as SocketError, Message,
    error::{CapacityError, ProtocolError},
    protocol::{
        CloseFrame, Role,
        frame::{
            Frame, Utf8Bytes,
            coding::{CloseCode, Data as DataCode, OpCode},
        },
    },
};

use crate::payload::Data;

use codec::{Codec, Socket};
use pace::{Advice, Pace};
pub use state::{Beat, State};

/// The largest message, and the largest frame, that a peer may send. Node-RED allows 100 MiB, which a few peers can
/// turn into all of a small machine's memory; 16 MiB is far beyond what flows exchange.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Messages read in one turn, so that a peer that never stops sending does not keep others from their turn.
const READS_PER_TURN: usize = 64;
/// Batches taken from the session's queue in one turn.
const BATCHES_PER_TURN: usize = 16;
/// While the socket takes nothing, reading goes on until so many bytes wait in the queue: a peer may well send a
/// few messages before it reads the answers to the first.
const READ_PAUSE_BYTES: usize = 256 << 10;
/// … and at most so many messages, which bounds the pongs that are owed.
const READS_WHILE_BLOCKED: u32 = 256;
/// So many bytes of messages in one turn are much to read: a larger read buffer pays then.
const MUCH_BYTES: usize = 8 << 10;
/// What a connection at rest reads to begin with.
const FIRST_READ_BYTES: usize = 2 << 10;
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
    /// Ready when the connection is wanted back. Asked while the peer takes nothing, and so nothing outgoing is taken.
    fn poll_hand_over(&self, cx: &mut Context<'_>) -> Poll<()>;
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
    /// The clock that goes with the timers.
    fn now(&self) -> Instant;
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

/// One connection, from its handshake or an earlier generation to its end or a later generation.
pub struct Live<S, E> {
    codec: Codec<S>,
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
    /// The last turn did not read all there was, because the flow or the peer does not keep up.
    paused: bool,
    heartbeat: Option<Box<Heartbeat>>,
    pace: Pace,
    /// When the connection ends in any case; only set once it is ending.
    deadline: Option<Timer>,
}

/// What is left of a connection that was wanted back.
#[derive(Debug)]
pub struct Moved<S> {
    /// Its stream, unread input and unsent output.
    pub parts: Parts<S>,
    /// How far its heartbeat is, when it has one.
    pub beat: Option<Beat>,
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

/// What follows a stage.
enum Next {
    Enter(Stage),
    End,
    /// A later generation goes on.
    Move,
}

/// Why a turn of an open connection was the last one.
enum Leave {
    /// The host wants it back.
    HandOver,
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
    due: Instant,
    /// Nothing was heard of the peer since the last ping.
    silent: bool,
}

impl<S, E> Live<S, E>
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Surroundings + Unpin,
{
    /// A connection whose opening handshake is done, or one that an earlier generation gave away. `heartbeat_ms` is
    /// how often the peer is asked whether it is there, and `beat` how far that was.
    pub fn new(
        parts: Parts<S>,
        role: Role,
        heartbeat_ms: Option<u64>,
        beat: Option<Beat>,
        surroundings: E,
    ) -> Box<Self> {
        // What is there to be read or sent wakes the codec; without it, the connection begins at rest.
        let unflushed = !parts.input.is_empty() || !parts.output.is_empty();
        let heartbeat = heartbeat_ms.map(|interval_ms| {
            let due_ms = beat.map_or(interval_ms, |beat| beat.due_ms.min(interval_ms));
            let silent = beat.is_some_and(|beat| beat.silent);
            let timer = surroundings.timer(due_ms);
            let due = surroundings.now() + Duration::from_millis(due_ms);
            Box::new(Heartbeat { interval_ms, timer, due, silent })
        });
        Box::new(Self {
            codec: Codec::new(parts, role),
            surroundings,
            stage: Stage::Open,
            batch: Vec::new(),
            unflushed,
            blocked: false,
            read_while_blocked: 0,
            paused: false,
            heartbeat,
            pace: Pace::default(),
            deadline: None,
        })
    }

    /// Serves the connection to its end, or until it is wanted back: then what the next generation needs is returned.
    pub async fn serve(mut self: Box<Self>) -> Option<Moved<S>> {
        let moves = std::future::poll_fn(|cx| self.poll_serve(cx)).await;
        let Self { codec, heartbeat, surroundings, .. } = *self;
        let parts = codec.into_parts().filter(|_| moves)?;
        let beat = heartbeat.map(|heartbeat| {
            let due = heartbeat.due.saturating_duration_since(surroundings.now());
            Beat { due_ms: u64::try_from(due.as_millis()).unwrap_or(u64::MAX), silent: heartbeat.silent }
        });
        Some(Moved { parts, beat })
    }

    /// Whether it moves, when it is done.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(false);
        }
        loop {
            let next = match self.stage {
                Stage::Open => ready!(self.poll_open(cx)),
                Stage::Closing { by_peer } => ready!(self.poll_closing(cx, by_peer)),
                Stage::Failing => {
                    let _ = ready!(self.socket().poll_flush(cx));
                    Next::Enter(Stage::Shutdown { linger: true })
                }
                Stage::Shutdown { linger } => {
                    let shut = ready!(Pin::new(self.codec.stream()).poll_shutdown(cx));
                    if linger && shut.is_ok() { Next::Enter(Stage::Linger) } else { Next::End }
                }
                Stage::Linger => ready!(self.poll_linger(cx)),
            };
            match next {
                Next::Enter(stage) => self.enter(stage, cx),
                Next::End => return Poll::Ready(false),
                Next::Move => return Poll::Ready(true),
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
            self.pace = Pace::default();
            // A connection that is ending ends here: nothing is kept of what it reads any more.
            self.codec.stream().stay();
        }
    }

    /// tungstenite, which is put together when it is at rest.
    fn socket(&mut self) -> Pin<&mut Socket<S>> {
        Pin::new(self.codec.socket())
    }

    // ---- Open ----

    /// One turn; what follows when it was the last one.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        match self.turn(cx) {
            Ok(more) => {
                if more {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Err(leave) => Poll::Ready(self.leave(leave, cx)),
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
        Ok(self.keep_pace(cx)? || more_to_send || more_to_read || room_again)
    }

    /// Gives queued values to the socket while it takes them. Not flushed: many go in one system call.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, Leave> {
        if self.codec.has_output() {
            // What the codec before this one left goes first. Until it is sent, nothing is taken from the queue, or a
            // connection that moves again and again would collect what its peer does not read.
            self.unflushed = true;
            self.flush(cx)?;
            if self.blocked {
                return self.wait_to_send(cx);
            }
        }
        for _ in 0..BATCHES_PER_TURN {
            while !self.batch.is_empty() {
                match self.socket().poll_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => return self.wait_to_send(cx),
                }
                self.send_one()?;
            }
            match self.surroundings.poll_outgoing(cx, &mut self.batch) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Received::Values(_)) => self.batch.reverse(),
                Poll::Ready(Received::Closed) => {
                    return Err(Leave::Close(close_frame(&self.surroundings.on_cut())));
                }
                Poll::Ready(Received::HandOver) => return Err(Leave::HandOver),
            }
        }
        Ok(true)
    }

    /// The socket takes nothing, which may last, and nothing is taken from the queue meanwhile.
    fn wait_to_send(&mut self, cx: &mut Context<'_>) -> Result<bool, Leave> {
        self.blocked = true;
        let wanted = self.surroundings.poll_hand_over(cx).is_ready();
        if wanted { Err(Leave::HandOver) } else { Ok(false) }
    }

    /// Gives the next value of the batch to the socket.
    fn send_one(&mut self) -> Result<(), Leave> {
        match self.batch.pop() {
            Some(Value::Str(text)) => self.write(Message::Frame(text_frame(text)))?,
            Some(Value::Bytes(bytes)) => self.write(Message::Frame(binary_frame(bytes)))?,
            Some(request @ Value::Object(_)) => return Err(Leave::Close(close_frame(&request))),
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self, message: Message) -> Result<(), SocketError> {
        self.unflushed = true;
        self.pace.be_active();
        self.socket().start_send(message)
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), SocketError> {
        if self.unflushed {
            match self.socket().poll_flush(cx) {
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
        let mut read_bytes = 0;
        let more = self.read(cx, &mut read_bytes)?;
        if read_bytes >= MUCH_BYTES {
            self.pace.read_much();
        }
        Ok(more)
    }

    fn read(&mut self, cx: &mut Context<'_>, read_bytes: &mut usize) -> Result<bool, Leave> {
        self.paused = false;
        if self.blocked && self.surroundings.outgoing_bytes() >= READ_PAUSE_BYTES {
            // Resumed when the socket takes something, for which it was polled.
            self.pause();
            return Ok(false);
        }
        for _ in 0..READS_PER_TURN {
            let full = self.blocked && self.read_while_blocked >= READS_WHILE_BLOCKED;
            if full || self.surroundings.poll_flow(cx).is_pending() {
                self.pause();
                return Ok(false);
            }
            if self.codec.parts().is_some() && self.poll_first_bytes(cx)?.is_pending() {
                return Ok(false);
            }
            let message = match self.socket().poll_next(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => return Err(Leave::Gone),
                Poll::Ready(Some(message)) => message?,
            };
            self.read_while_blocked += u32::from(self.blocked);
            *read_bytes += message.len();
            self.accept(message)?;
        }
        Ok(true)
    }

    /// Reads for a codec at rest, which is put together for what there is.
    fn poll_first_bytes(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Leave> {
        let Some(parts) = self.codec.parts() else { return Ok(Poll::Ready(())) };
        let mut bytes = [0; FIRST_READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut parts.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                parts.input.extend_from_slice(buffer.filled());
                self.codec.socket();
                Ok(Poll::Ready(()))
            }
            Poll::Ready(_) => Err(Leave::Gone),
        }
    }

    /// Takes what the socket read.
    fn accept(&mut self, message: Message) -> Result<(), Leave> {
        self.pace.be_active();
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
        Ok(())
    }

    /// Nobody listens to the peer for a moment; it cannot be told to be silent.
    fn pause(&mut self) {
        self.paused = true;
        self.heard();
    }

    /// The peer is alive.
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
        heartbeat.due = self.surroundings.now() + Duration::from_millis(heartbeat.interval_ms);
        let _ = heartbeat.timer.as_mut().poll(cx);
        self.write(Message::Ping(Bytes::new()))?;
        Ok(())
    }

    /// Lays a codec that is not needed to rest, or gives it the buffer that is right. Whether there is more to do.
    fn keep_pace(&mut self, cx: &mut Context<'_>) -> Result<bool, Leave> {
        if self.codec.parts().is_some() {
            return Ok(false);
        }
        match self.pace.end_turn(cx, &self.surroundings) {
            Advice::Stay => {}
            Advice::ReadMuch(much) => {
                if self.codec.reads_much() != much && !self.paused && self.rests_lightly() {
                    self.rest(cx)?;
                    self.codec.set_reads_much(much);
                    return self.begin_rest(cx);
                }
            }
            Advice::Rest => {
                if !self.unflushed && !self.paused && self.batch.is_empty() && self.rests_lightly() {
                    self.rest(cx)?;
                    self.codec.set_reads_much(false);
                    self.batch = Vec::new();
                    return self.begin_rest(cx);
                }
            }
        }
        Ok(false)
    }

    /// Polls the stream of a codec that has just come to rest, so that it wakes the connection from now on.
    fn begin_rest(&mut self, cx: &mut Context<'_>) -> Result<bool, Leave> {
        Ok(self.unflushed || self.poll_first_bytes(cx)?.is_ready())
    }

    /// Whether the codec can be taken apart and put together at little cost: what it has of an unfinished message is
    /// copied twice then.
    fn rests_lightly(&mut self) -> bool {
        let stream = self.codec.stream();
        stream.is_movable() && stream.unfinished_bytes() <= MUCH_BYTES
    }

    /// Lays the codec to rest. What it has read is delivered, even to a flow that is congested: there is no more of it
    /// than one buffer. What it has gathered, and all of the batch, is output of the parts then.
    fn rest(&mut self, cx: &mut Context<'_>) -> Result<(), Leave> {
        if self.codec.parts().is_some() {
            return Ok(());
        }
        self.codec.stream().absorb();
        if let Err(leave) = self.empty(cx) {
            // It goes on, if only to its end. What it answered was absorbed too, and is not lost.
            self.codec.stream().release();
            self.unflushed = true;
            return Err(leave);
        }
        let parts = self.codec.take_apart();
        self.unflushed = !parts.output.is_empty();
        self.blocked = false;
        Ok(())
    }

    /// Takes everything out of a codec that absorbs.
    fn empty(&mut self, cx: &mut Context<'_>) -> Result<(), Leave> {
        while !self.batch.is_empty() {
            self.send_one()?;
        }
        while let Poll::Ready(message) = self.socket().poll_next(cx) {
            self.accept(message.ok_or(Leave::Gone)??)?;
        }
        self.flush(cx)?;
        if self.codec.stream().is_movable() {
            Ok(())
        } else {
            // A message that it would only refuse when there is all of it.
            let too_long =
                CapacityError::MessageTooLong { size: MAX_MESSAGE_BYTES + 1, max_size: MAX_MESSAGE_BYTES };
            Err(Leave::Failed(SocketError::Capacity(too_long)))
        }
    }

    /// The first step of the end.
    fn leave(&mut self, leave: Leave, cx: &mut Context<'_>) -> Next {
        let closing = |written: Result<(), SocketError>, stage| {
            if written.is_ok() { Next::Enter(stage) } else { Next::End }
        };
        match leave {
            Leave::HandOver => match self.rest(cx) {
                Ok(()) => Next::Move,
                Err(leave) => self.leave(leave, cx),
            },
            Leave::Close(frame) => {
                closing(self.write(Message::Close(frame)), Stage::Closing { by_peer: false })
            }
            Leave::PeerCloses => {
                // tungstenite has the answer ready.
                self.unflushed = true;
                Next::Enter(Stage::Closing { by_peer: true })
            }
            Leave::Gone => Next::End,
            Leave::Dead => {
                self.surroundings.failed("no answer to a ping");
                Next::End
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
                closing(self.write(Message::Close(Some(frame))), Stage::Failing)
            }
        }
    }

    // ---- Closing ----

    /// The closing handshake. What the peer sent before it saw our close frame still counts.
    fn poll_closing(&mut self, cx: &mut Context<'_>, by_peer: bool) -> Poll<Next> {
        for _ in 0..READS_PER_TURN {
            if self.flush(cx).is_err() {
                return Poll::Ready(Next::End);
            }
            if !by_peer {
                ready!(self.surroundings.poll_flow(cx));
            } else if self.unflushed {
                // tungstenite calls the connection closed when it is read from now, and forgets what it has not sent.
                return Poll::Pending;
            }
            match ready!(self.socket().poll_next(cx)) {
                Some(Ok(Message::Text(text))) => self.surroundings.deliver(Data::Text(&text)),
                Some(Ok(Message::Binary(bytes))) => self.surroundings.deliver(Data::Binary(&bytes)),
                Some(Ok(Message::Close(_))) => {
                    self.unflushed = true;
                    return Poll::Ready(Next::Enter(Stage::Closing { by_peer: true }));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) => return Poll::Ready(Next::End),
                None => return Poll::Ready(Next::Enter(Stage::Shutdown { linger: false })),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    // ---- Linger ----

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut bytes = [0; 2048];
        for _ in 0..READS_PER_TURN {
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(self.codec.stream()).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(Next::End),
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
