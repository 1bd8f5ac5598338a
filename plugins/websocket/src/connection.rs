//! One live connection: frames in, frames out, and how it ends.
//!
//! It is one state machine, polled by hand: without tasks and channels of its own it costs little memory while
//! idle, and all that it knows is in one place ([`Live`]). From there it moves to a later generation of this library:
//! the codec delivers what it has and is taken apart ([`Live::rest`]), and the parts, as a [`State`], are what the
//! next [`Live`] begins with. A connection that has been quiet for a while is taken apart the same way, and put
//! together again when there is something to do.

mod codec;
mod ending;
mod limits;
mod pace;
mod patience;
mod state;
mod vigil;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use flowbay_sdk::{
    Blob, Object, Received, Str, Value,
    frames::{Fault, Parts},
};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{
    Error as SocketError, Message,
    error::ProtocolError,
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
pub use ending::{Ending, Traffic};
pub use limits::Limits;
use pace::{Advice, Pace};
use patience::Patience;
pub use state::{Beat, State};
use vigil::{Heartbeat, Silence};

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
/// Bytes of the reason in a close frame, with the code 125.
const MAX_REASON_BYTES: usize = 123;
/// The reason in the close frame of a connection that was idle for too long.
const IDLE: &str = "idle";
/// Why there was no close frame for a peer that takes nothing.
const DEAF: &str = "it does not read";

/// A timer of the host's.
pub type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a connection is connected to: its session's queue on one side, the flow on the other.
pub trait Surroundings {
    /// Appends what is to be sent: text and bytes as data frames, a [`close_request`] as the end.
    fn poll_outgoing(&self, cx: &mut Context<'_>, into: &mut Vec<Value>) -> Poll<Received>;
    /// Ready when the connection is wanted back, or its session is cut. Asked while the peer takes nothing, and so
    /// nothing outgoing is taken.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Received>;
    /// Whether it is to end by a [`close_request`] that may still be among what is outgoing.
    fn is_to_end(&self) -> bool {
        false
    }
    /// Bytes that wait to be sent.
    fn outgoing_bytes(&self) -> usize;
    /// Ready while the flow takes messages.
    fn poll_flow(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// A message arrived.
    fn deliver(&self, data: Data<'_>);
    /// The connection failed; its end follows.
    fn failed(&self, reason: &str);
    /// The peer broke the protocol; what follows is the failure, or the end.
    fn broke_protocol(&self) {}
    /// It is ended because of what the peer does not do.
    fn cut_off(&self, _reason: &str) {}
    /// What went through since this was told last; at most once a turn, and not when there was nothing.
    fn passed(&self, _traffic: &Traffic) {}
    /// How it ended: once, and not when it moves or is dropped.
    fn ended(&self, _ending: &Ending) {}
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
    let reason = request["reason"].as_str().unwrap_or_default();
    // A longer one would not be a close frame.
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    Some(CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from(reason) })
}

/// One connection, from its handshake or an earlier generation to its end or a later generation.
pub struct Live<'a, S, E> {
    codec: Codec<'a, S>,
    surroundings: E,
    stage: Stage,
    /// Taken from the queue and not yet given to the socket, the next one last.
    batch: Vec<Value>,
    /// Something was given to the socket since it was last flushed.
    unflushed: bool,
    /// The socket takes nothing at the moment.
    blocked: bool,
    /// tungstenite takes nothing before it has written what it has.
    stalled: bool,
    /// Messages and pings read since it is blocked.
    read_while_blocked: u32,
    /// With a peer that takes nothing, or took nothing a while ago.
    patience: Option<Box<Patience>>,
    /// The last turn did not read all there was, because the flow or the peer does not keep up.
    paused: bool,
    /// The peer was heard in this turn, or could not be.
    heard: bool,
    heartbeat: Option<Box<Heartbeat>>,
    silence: Option<Box<Silence>>,
    pace: Pace,
    /// Not yet told.
    traffic: Traffic,
    /// When the connection ends in any case; only set once it is ending.
    deadline: Option<Timer>,
    /// Why it is ending.
    ending: Option<Box<Ending>>,
    /// What the peer did wrong behind messages whose answers are to be sent first: the end of the next turn.
    doom: Option<Box<Leave>>,
    /// Kept for those who come later, see [`State::origin`].
    origin: Box<str>,
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
    PeerCloses(Option<CloseFrame>),
    /// The peer is gone.
    Gone,
    /// It failed.
    Failed(SocketError),
    /// What the peer sends would only become worse.
    Refused(Fault),
    /// The peer does not answer pings.
    Dead,
    /// It is to end, and the peer takes nothing.
    Deaf,
}

impl From<SocketError> for Leave {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Io(error) => Fault::of(&error).map_or(Self::Gone, Self::Refused),
            // As in Node-RED, a peer that leaves without a close frame is not an error.
            SocketError::ConnectionClosed
            | SocketError::AlreadyClosed
            | SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Gone,
            error => Self::Failed(error),
        }
    }
}

impl<'a, S, E> Live<'a, S, E>
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Surroundings + Unpin,
{
    /// A connection whose opening handshake is done, or one that an earlier generation gave away; `state` is what
    /// that or the handshake left.
    pub fn new(stream: S, state: State, role: Role, limits: &'a Limits, surroundings: E) -> Box<Self> {
        let State { moved: _, input, joined, output, beat, quiet_ms, origin } = state;
        // What is there to be read or sent wakes the codec; without it, the connection begins at rest.
        let unflushed = !input.is_empty() || !output.is_empty();
        let heartbeat = limits.heartbeat_ms.map(|ms| Box::new(Heartbeat::new(ms, beat, &surroundings)));
        let silence = limits.idle_ms.map(|ms| Box::new(Silence::new(ms, quiet_ms, &surroundings)));
        Box::new(Self {
            codec: Codec::new(Parts { stream, input, output, joined }, role, limits),
            surroundings,
            stage: Stage::Open,
            batch: Vec::new(),
            unflushed,
            blocked: false,
            stalled: false,
            read_while_blocked: 0,
            patience: None,
            paused: false,
            heard: false,
            heartbeat,
            silence,
            pace: Pace::default(),
            traffic: Traffic::default(),
            deadline: None,
            ending: None,
            doom: None,
            origin,
        })
    }

    /// Serves the connection to its end, or until it is wanted back: then the stream and what the next generation
    /// needs are returned.
    pub async fn serve(mut self: Box<Self>) -> Option<(S, State)> {
        let moves = std::future::poll_fn(|cx| self.poll_serve(cx)).await;
        let Self { codec, heartbeat, silence, surroundings, ending, origin, .. } = *self;
        let parts = codec.into_parts().filter(|_| moves);
        let Some(Parts { stream, input, output, joined }) = parts else {
            surroundings.ended(&ending.unwrap_or_default());
            return None;
        };
        let beat = heartbeat.map(|heartbeat| heartbeat.save(&surroundings));
        let quiet_ms = silence.map(|silence| silence.save(&surroundings));
        Some((stream, State { moved: true, input, joined, output, beat, quiet_ms, origin }))
    }

    /// Whether it moves, when it is done.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let polled = self.poll_stages(cx);
        if let Some(traffic) = self.traffic.take() {
            self.surroundings.passed(&traffic);
        }
        polled
    }

    fn poll_stages(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            if self.unflushed && self.stage == (Stage::Closing { by_peer: false }) {
                // Our close frame did not get through.
                self.cut_off(DEAF);
            }
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
        if let Some(leave) = self.doom.take() {
            // Nothing that could come of this is worse.
            let _ = self.send(cx);
            return Poll::Ready(self.leave(*leave, cx));
        }
        match self.turn(cx) {
            Ok(more) => {
                if more {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            // The flow gets the messages of this turn when it is over, and what it makes of them comes with the next.
            Err(leave @ (Leave::Failed(_) | Leave::Refused(_))) if self.traffic.messages_received > 0 => {
                self.doom = Some(Box::new(leave));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(leave) => Poll::Ready(self.leave(leave, cx)),
        }
    }

    /// Does what can be done now; whether there is more to do already.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Leave> {
        self.keep_watch(cx)?;
        let more_to_send = self.send(cx)?;
        self.flush(cx)?;
        let more_to_read = self.receive(cx)?;
        // Pongs; what the flow makes of the messages comes with the next turn.
        self.flush(cx)?;
        if std::mem::take(&mut self.heard)
            && let Some(silence) = &mut self.silence
        {
            silence.end(&self.surroundings);
        }
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
                    Poll::Ready(ready) => {
                        ready?;
                        self.unstall();
                    }
                    Poll::Pending => {
                        self.stalled = true;
                        return self.wait_to_send(cx);
                    }
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
        let patience = self.patience.get_or_insert_with(|| Box::new(Patience::new(&self.surroundings)));
        match self.surroundings.poll_end(cx) {
            Poll::Ready(Received::HandOver) => return Err(Leave::HandOver),
            Poll::Ready(_) => patience.come_to_an_end(&self.surroundings),
            Poll::Pending => {}
        }
        if patience.poll_over(cx, &self.surroundings).is_ready() { Err(Leave::Deaf) } else { Ok(false) }
    }

    /// Gives the next value of the batch to the socket.
    fn send_one(&mut self) -> Result<(), Leave> {
        match self.batch.pop() {
            Some(Value::Str(text)) => {
                self.traffic.send(text.len());
                self.write(Message::Frame(text_frame(text)))?;
            }
            Some(Value::Bytes(bytes)) => {
                self.traffic.send(bytes.len());
                self.write(Message::Frame(binary_frame(bytes)))?;
            }
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
                    self.read_while_blocked = 0;
                    self.stalled |= std::mem::take(&mut self.blocked);
                    self.unstall();
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
            if self.blocked && self.read_while_blocked >= READS_WHILE_BLOCKED {
                self.pause();
                return Ok(false);
            }
            if self.surroundings.poll_flow(cx).is_pending() {
                self.pause();
                // The answer to a ping may be among what is not read because of the flow.
                self.answered();
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
        self.heard = true;
        match message {
            Message::Ping(_) => {
                // tungstenite has the pong ready, to go out with the next flush.
                self.unflushed = true;
                self.answered();
            }
            Message::Pong(_) => self.answered(),
            Message::Close(frame) => return Err(Leave::PeerCloses(frame)),
            data => self.deliver(&data),
        }
        Ok(())
    }

    /// Gives a message to the flow.
    fn deliver(&mut self, message: &Message) {
        let data = match message {
            Message::Text(text) => Data::Text(text),
            Message::Binary(bytes) => Data::Binary(bytes),
            _ => return,
        };
        self.traffic.receive(message.len());
        self.surroundings.deliver(data);
    }

    /// Nobody listens to the peer for a moment; it cannot be told to be silent.
    fn pause(&mut self) {
        self.paused = true;
        self.heard = true;
    }

    /// The peer takes something again, and so is there: its answers may be among what is not read meanwhile.
    fn unstall(&mut self) {
        if std::mem::take(&mut self.stalled) {
            self.answered();
        }
    }

    /// The peer is alive, and needs not be asked.
    fn answered(&mut self) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.answered();
        }
    }

    /// Sends a ping when it is time, unless the one before was not answered. Ends what has been idle for too long.
    fn keep_watch(&mut self, cx: &mut Context<'_>) -> Result<(), Leave> {
        if let Some(heartbeat) = &mut self.heartbeat
            && heartbeat.poll_due(cx, &self.surroundings).is_ready()
        {
            if heartbeat.ask() {
                return Err(Leave::Dead);
            }
            self.write(Message::Ping(Bytes::new()))?;
            // tungstenite made room for it whether or not the peer took something.
            self.stalled = false;
        }
        if let Some(silence) = &mut self.silence {
            if self.paused {
                silence.end(&self.surroundings);
            }
            if silence.poll_too_long(cx, &self.surroundings).is_pending() {
                return Ok(());
            }
            self.surroundings.cut_off(IDLE);
            let frame = CloseFrame { code: CloseCode::Away, reason: Utf8Bytes::from_static(IDLE) };
            return Err(Leave::Close(Some(frame)));
        }
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
                    self.patience = None;
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
        // What the codec would have heard with its next read.
        self.codec.stream().fault().map_or(Ok(()), |fault| Err(Leave::Refused(fault)))
    }

    /// The first step of the end.
    fn leave(&mut self, leave: Leave, cx: &mut Context<'_>) -> Next {
        match leave {
            Leave::HandOver => match self.rest(cx) {
                Ok(()) => Next::Move,
                Err(leave) => self.leave(leave, cx),
            },
            Leave::Close(frame) => {
                self.ending.get_or_insert_with(|| Box::new(Ending::from_frame(frame.as_ref())));
                self.begin_end(frame, Stage::Closing { by_peer: false })
            }
            Leave::PeerCloses(frame) => {
                if Ending::is_violation(frame.as_ref()) {
                    self.surroundings.broke_protocol();
                }
                self.ending.get_or_insert_with(|| Box::new(Ending::from_frame(frame.as_ref())));
                // tungstenite has the answer ready.
                self.unflushed = true;
                Next::Enter(Stage::Closing { by_peer: true })
            }
            Leave::Gone => Next::End,
            Leave::Dead => {
                const REASON: &str = "no answer to a ping";
                self.surroundings.failed(REASON);
                self.ending = Some(Box::new(Ending { reason: REASON.into(), ..Ending::default() }));
                Next::End
            }
            Leave::Deaf => {
                self.cut_off(DEAF);
                Next::End
            }
            Leave::Failed(error) => {
                let code = match error {
                    SocketError::Protocol(_) => CloseCode::Protocol,
                    SocketError::Utf8(_) => CloseCode::Invalid,
                    SocketError::Capacity(_) => CloseCode::Size,
                    _ => CloseCode::Error,
                };
                self.fail(code, Utf8Bytes::default(), &error.to_string())
            }
            Leave::Refused(fault) => {
                let reason = match fault {
                    // Its code says little.
                    Fault::TooManyFragments => Utf8Bytes::from(fault.to_string()),
                    _ => Utf8Bytes::default(),
                };
                self.fail(CloseCode::from(fault.close_code()), reason, &fault.to_string())
            }
        }
    }

    /// It ends without a close frame, because of what the peer does not do.
    fn cut_off(&mut self, reason: &str) {
        self.surroundings.cut_off(reason);
        self.ending = Some(Box::new(Ending { reason: reason.into(), ..Ending::default() }));
    }

    /// Ends it because of what the peer sent.
    fn fail(&mut self, code: CloseCode, reason: Utf8Bytes, what: &str) -> Next {
        self.surroundings.broke_protocol();
        self.surroundings.failed(what);
        self.ending = Some(Box::new(Ending { code: code.into(), reason: what.into() }));
        self.begin_end(Some(CloseFrame { code, reason }), Stage::Failing)
    }

    /// Sends a close frame.
    fn begin_end(&mut self, frame: Option<CloseFrame>, stage: Stage) -> Next {
        match self.write(Message::Close(frame)) {
            Ok(()) => Next::Enter(stage),
            Err(_) => Next::End,
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
                Some(Ok(Message::Close(_))) => {
                    self.unflushed = true;
                    return Poll::Ready(Next::Enter(Stage::Closing { by_peer: true }));
                }
                Some(Ok(message)) => self.deliver(&message),
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
