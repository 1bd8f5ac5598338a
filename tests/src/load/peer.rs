//! One connection under load, as a state machine that never waits.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use tungstenite::handshake::derive_accept_key;

use super::frames::{self, Incoming, Reader};
use super::message::{Message, Mode, Received, recognise};
use super::random::Random;
use super::stream::Stream;
use super::tally::Tally;

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As most do.
    Plain,
    /// Stands still in the middle of frames for longer than a swap takes.
    Stalls,
    /// Leaves what it is sent lying about, while it sends on.
    ReadsSlowly,
    /// Connects, exchanges a few messages and closes, again and again.
    ComesAndGoes,
}

/// What all peers of a load have in common.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Least and most bytes of a message.
    pub sizes: (usize, usize),
    /// Mean pause between two writes.
    pub pause: Duration,
    /// Messages that a peer has in flight at most.
    pub in_flight: u64,
}

/// What a peer is told at each turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The time.
    pub now: Instant,
    /// Swaps so far.
    pub swaps: u64,
    /// No new messages: what is in flight is awaited.
    pub draining: bool,
}

/// Longest time to stand still when no swap comes.
const LONGEST_STALL: Duration = Duration::from_secs(4);
/// A slow reader's pause between two reads.
const SLOW_READ: Duration = Duration::from_millis(60);
/// Messages that a slow reader sends without having read their echoes: some megabytes, so that the other side's socket
/// buffer is full and what is to be sent waits in the host.
const SLOW_IN_FLIGHT: u64 = 600;
/// A handshake of either kind that takes longer is not answered.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// Most bytes of one write.
const MOST_AT_ONCE: usize = 32 << 10;
/// Any key will do.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The opening handshake, since then.
    Opening(Instant),
    Open,
    /// The closing handshake, since then; whether the answer has come.
    Closing(Instant, bool),
    /// It ended; it did not for lack of care when it is over.
    Over,
}

/// One connection.
#[derive(Debug)]
pub struct Peer {
    /// Stands in every message.
    pub number: u32,
    /// The socket.
    pub stream: Stream,
    /// How it behaves.
    pub manner: Manner,
    mode: Mode,
    is_client: bool,
    stage: Stage,
    random: Random,
    /// The socket may have something to read, or room to write.
    pub readable: bool,
    /// See `readable`.
    pub writable: bool,
    /// Encoded and not yet written, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
    write_at: Instant,
    read_at: Instant,
    /// In `outgoing`: where each message ends, and where to stand still.
    ends: VecDeque<(usize, u64)>,
    stall_at: Option<usize>,
    /// Standing still: since when, after how many swaps to go on.
    stalled: Option<(Instant, u64)>,
    /// Messages until the next time.
    until_stall: usize,
    reader: Reader,
    handshake: Vec<u8>,
    /// Messages encoded; echoes that came.
    sent: u64,
    /// Bytes written whose echo was not read, roughly: the other side's headers are shorter.
    unread: i64,
    /// The number of the next echo.
    expected: u64,
    missing: BTreeSet<u64>,
    /// When messages in flight were written.
    sent_at: VecDeque<(u64, Instant)>,
    pings: VecDeque<u64>,
    next_ping: u64,
    next_tick: Option<u64>,
    /// Messages after which one that comes and goes goes.
    lifetime: u64,
}

impl Peer {
    /// A client of the server at `address`, whose connection is being made.
    pub fn client(number: u32, stream: Stream, manner: Manner, mode: Mode, host: &str, path: &str) -> Peer {
        let mut peer = Peer::new(number, stream, manner, mode);
        peer.is_client = true;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        peer.outgoing = request.into_bytes();
        peer
    }

    /// The server's side of a connection that was accepted.
    pub fn server(number: u32, stream: Stream, manner: Manner, mode: Mode) -> Peer {
        let mut peer = Peer::new(number, stream, manner, mode);
        peer.reader.from_client = true;
        peer
    }

    fn new(number: u32, stream: Stream, manner: Manner, mode: Mode) -> Peer {
        let now = Instant::now();
        let mut random = Random::of(2, u64::from(number), 0);
        Peer {
            number,
            stream,
            manner,
            mode,
            is_client: false,
            stage: Stage::Opening(now),
            readable: true,
            writable: true,
            outgoing: Vec::new(),
            written: 0,
            write_at: now,
            read_at: now,
            ends: VecDeque::new(),
            stall_at: None,
            stalled: None,
            until_stall: random.below(4),
            reader: Reader::default(),
            handshake: Vec::new(),
            sent: 0,
            unread: 0,
            expected: 0,
            missing: BTreeSet::new(),
            sent_at: VecDeque::new(),
            pings: VecDeque::new(),
            next_ping: 0,
            next_tick: None,
            lifetime: random.below(4) as u64,
            random,
        }
    }

    /// Whether messages can go to and fro.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the connection has ended, as it should or not.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether nothing is awaited from the other side.
    pub fn is_idle(&self) -> bool {
        match self.stage {
            Stage::Open => self.in_flight() == 0 && self.pings.is_empty() && self.outgoing.is_empty(),
            Stage::Over => true,
            Stage::Opening(_) | Stage::Closing(..) => false,
        }
    }

    /// Messages sent whose echo has not come.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.expected + self.missing.len() as u64
    }

    /// What it waits for, in words.
    pub fn awaits(&self) -> String {
        format!(
            "connection {} ({:?}, {:?}) sent {} messages and got {}; {} pings wait, {} bytes not written, {:?}",
            self.number,
            self.manner,
            self.mode,
            self.sent,
            self.expected - self.missing.len() as u64,
            self.pings.len(),
            self.outgoing.len() - self.written,
            self.stage
        )
    }

    /// When there is something to do, if no event comes before.
    pub fn wakes(&self, turn: &Turn, habits: &Habits) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let has_something =
            !self.outgoing.is_empty() || self.wants_to_send(turn, habits) || self.wants_to_go(turn);
        let writes = (self.writable && self.stalled.is_none() && has_something).then_some(self.write_at);
        let reads = self.readable.then_some(self.read_at);
        writes.into_iter().chain(reads).min()
    }

    /// Does what can be done now; echo times go to `times`, in microseconds.
    pub fn turn(&mut self, turn: &Turn, habits: &Habits, tally: &mut Tally, times: &mut Vec<u32>) {
        if let Stage::Opening(since) | Stage::Closing(since, _) = self.stage
            && turn.now.duration_since(since) > HANDSHAKE
        {
            self.fail(tally, &format!("no answer within {HANDSHAKE:?}"));
        }
        self.write(turn, habits, tally);
        self.read(turn, habits, tally, times);
        // Echoes make room for more.
        if !self.is_over() && self.outgoing.is_empty() {
            self.write(turn, habits, tally);
        }
    }

    // ---- Writing

    fn wants_to_send(&self, turn: &Turn, habits: &Habits) -> bool {
        let most = match self.manner {
            Manner::ReadsSlowly => SLOW_IN_FLIGHT,
            Manner::ComesAndGoes => self.lifetime.saturating_sub(self.expected).min(habits.in_flight),
            Manner::Plain | Manner::Stalls => habits.in_flight,
        };
        self.stage == Stage::Open && !turn.draining && self.in_flight() < most
    }

    fn wants_to_go(&self, turn: &Turn) -> bool {
        self.stage == Stage::Open
            && self.manner == Manner::ComesAndGoes
            && self.is_idle()
            && (self.expected >= self.lifetime || turn.draining)
    }

    fn write(&mut self, turn: &Turn, habits: &Habits, tally: &mut Tally) {
        if let Some((since, swaps)) = self.stalled {
            if turn.swaps < swaps && turn.now.duration_since(since) < LONGEST_STALL && !turn.draining {
                return;
            }
            self.stalled = None;
        }
        while self.writable && !self.is_over() && turn.now >= self.write_at {
            if self.outgoing.is_empty() && !self.encode_next(turn, habits, tally) {
                return;
            }
            let stop = self.stall_at.unwrap_or(self.outgoing.len());
            let most = self.random.any_magnitude(1, MOST_AT_ONCE).min(stop - self.written);
            match self.stream.write(&self.outgoing[self.written..self.written + most]) {
                Ok(count) => self.has_written(count, turn, habits, tally),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                // A connection that is still being made.
                Err(error) if error.kind() == ErrorKind::NotConnected => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.fail(tally, &format!("writing: {error}")),
            }
            if self.stalled.is_some() {
                return;
            }
        }
    }

    fn has_written(&mut self, count: usize, turn: &Turn, habits: &Habits, tally: &mut Tally) {
        self.written += count;
        self.unread += count as i64;
        tally.largest_backlog = tally.largest_backlog.max(self.unread.unsigned_abs());
        while let Some((end, number)) = self.ends.front().copied().filter(|(end, _)| *end <= self.written) {
            debug_assert!(end <= self.outgoing.len());
            self.sent_at.push_back((number, turn.now));
            self.ends.pop_front();
        }
        if self.stall_at == Some(self.written) {
            self.stall_at = None;
            // One swap may be under way; the one after it begins and ends while this client stands still.
            self.stalled = Some((turn.now, turn.swaps + 2));
            tally.stalls += 1;
        }
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.written = 0;
        }
        let hurries = self.manner == Manner::ReadsSlowly;
        if self.stage == Stage::Open && !hurries && self.random.percent(60) {
            self.write_at = turn.now + self.random.about(habits.pause);
        }
    }

    /// Encodes what is sent next; false when there is nothing.
    fn encode_next(&mut self, turn: &Turn, habits: &Habits, tally: &mut Tally) -> bool {
        if self.wants_to_go(turn) {
            tally.closes += 1;
            self.stage = Stage::Closing(turn.now, false);
            self.frame(true, frames::CLOSE, &1000_u16.to_be_bytes());
            return true;
        }
        if !self.wants_to_send(turn, habits) {
            return false;
        }
        let number = self.sent;
        self.sent += 1;
        tally.sent += 1;
        let message = Message::of(self.number, number, self.mode, habits.sizes);
        let wire = message.to_wire(number, self.mode);
        let opcode = if message.text { frames::TEXT } else { frames::BINARY };
        let parts = if self.random.percent(25) { 2 + self.random.below(4) } else { 1 };
        let mut cuts: Vec<usize> = (1..parts).map(|_| self.random.below(wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        if self.random.percent(5) {
            self.ping(tally);
        }
        for (index, part) in cuts.windows(2).enumerate() {
            if index > 0 && self.random.percent(50) {
                self.ping(tally);
            }
            let opcode = if index == 0 { opcode } else { frames::CONTINUATION };
            self.frame(index + 2 == cuts.len(), opcode, &wire[part[0]..part[1]]);
        }
        self.ends.push_back((self.outgoing.len(), number));
        if self.manner == Manner::Stalls {
            match self.until_stall.checked_sub(1) {
                Some(left) => self.until_stall = left,
                None => {
                    self.until_stall = self.random.below(4);
                    // Anywhere but at the end: mostly in a frame, sometimes between two of a message.
                    self.stall_at = Some(1 + self.random.below(self.outgoing.len() - 1));
                }
            }
        }
        true
    }

    fn ping(&mut self, tally: &mut Tally) {
        let number = self.next_ping;
        self.next_ping += 1;
        self.pings.push_back(number);
        tally.pings += 1;
        self.frame(true, frames::PING, &number.to_be_bytes());
    }

    fn frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        let mask = self.is_client.then(|| (self.random.next() as u32).to_be_bytes());
        frames::encode(fin, opcode, mask, payload, &mut self.outgoing);
    }

    // ---- Reading

    fn read(&mut self, turn: &Turn, habits: &Habits, tally: &mut Tally, times: &mut Vec<u32>) {
        let mut buffer = [0; 32 << 10];
        while self.readable && !self.is_over() && turn.now >= self.read_at {
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.ended(tally),
                Ok(count) => self.has_read(&buffer[..count], turn, habits, tally, times),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::NotConnected => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.fail(tally, &format!("reading: {error}")),
            }
            if self.manner == Manner::ReadsSlowly && !turn.draining {
                self.read_at = turn.now + SLOW_READ;
            }
        }
    }

    fn has_read(
        &mut self,
        bytes: &[u8],
        turn: &Turn,
        habits: &Habits,
        tally: &mut Tally,
        times: &mut Vec<u32>,
    ) {
        let mut bytes = bytes;
        let rest;
        if let Stage::Opening(_) = self.stage {
            self.handshake.extend_from_slice(bytes);
            let Some(end) = self.handshake.windows(4).position(|window| window == b"\r\n\r\n") else {
                return;
            };
            rest = self.handshake.split_off(end + 4);
            bytes = &rest;
            if !self.shake_hands(tally) {
                return;
            }
        }
        self.unread = (self.unread - bytes.len() as i64).max(0);
        self.reader.push(bytes);
        loop {
            match self.reader.next() {
                Ok(Some(incoming)) => self.receive(incoming, turn, habits, tally, times),
                Ok(None) => return,
                Err(error) => return self.fail(tally, &format!("the peer sent {error}")),
            }
        }
    }

    fn shake_hands(&mut self, tally: &mut Tally) -> bool {
        let head = String::from_utf8_lossy(&self.handshake).into_owned();
        let header = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        if self.is_client {
            let right = header("sec-websocket-accept") == Some(derive_accept_key(KEY.as_bytes()));
            if !head.starts_with("HTTP/1.1 101") || !right {
                self.fail(tally, &format!("the handshake was answered with {head:?}"));
                return false;
            }
        } else {
            let Some(key) = header("sec-websocket-key") else {
                self.fail(tally, &format!("the handshake has no key: {head:?}"));
                return false;
            };
            let accept = derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            self.outgoing.extend_from_slice(answer.as_bytes());
        }
        self.handshake = Vec::new();
        self.stage = Stage::Open;
        true
    }

    fn receive(
        &mut self,
        incoming: Incoming,
        turn: &Turn,
        habits: &Habits,
        tally: &mut Tally,
        times: &mut Vec<u32>,
    ) {
        match incoming {
            Incoming::Message(text, bytes) => {
                match recognise(self.number, self.mode, habits.sizes, text, &bytes) {
                    Received::Echo(number) => {
                        self.echoed(number, turn, tally, times);
                        tally.bytes += bytes.len() as u64;
                    }
                    Received::Tick(number) => self.ticked(number, tally),
                    Received::Corrupt(what) => {
                        tally.corrupt += 1;
                        tally.problem(format!("connection {} received {what}", self.number));
                    }
                }
            }
            Incoming::Control(frames::PONG, bytes) => {
                let expected = self.pings.pop_front();
                if expected.map(u64::to_be_bytes).as_ref().map(|bytes| &bytes[..]) == Some(&bytes[..]) {
                    tally.pongs += 1;
                } else {
                    tally.problem(format!(
                        "connection {}: pong {bytes:?} instead of {expected:?}",
                        self.number
                    ));
                }
            }
            // Answered when the next message has gone: never within a frame.
            Incoming::Control(frames::PING, bytes) if self.outgoing.is_empty() => {
                self.frame(true, frames::PONG, &bytes);
            }
            Incoming::Control(frames::CLOSE, bytes) => {
                let code = bytes.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                match self.stage {
                    Stage::Closing(since, false) if code == 1000 => self.stage = Stage::Closing(since, true),
                    _ => {
                        let reason = String::from_utf8_lossy(bytes.get(2..).unwrap_or_default()).into_owned();
                        self.fail(tally, &format!("the peer closed it with {code} {reason}"));
                    }
                }
            }
            Incoming::Control(..) => {}
        }
    }

    fn echoed(&mut self, number: u64, turn: &Turn, tally: &mut Tally, times: &mut Vec<u32>) {
        if number >= self.sent {
            tally.corrupt += 1;
            tally.problem(format!("connection {} received message {number} before it sent it", self.number));
            return;
        }
        if number < self.expected {
            let what = if self.missing.remove(&number) {
                tally.reordered += 1;
                tally.echoed += 1;
                "late"
            } else {
                tally.duplicated += 1;
                "again"
            };
            tally.problem(format!("connection {} received message {number} {what}", self.number));
            return;
        }
        self.missing.extend(self.expected..number);
        self.expected = number + 1;
        tally.echoed += 1;
        while let Some((sent, at)) = self.sent_at.front().copied().filter(|(sent, _)| *sent <= number) {
            self.sent_at.pop_front();
            if sent == number && self.manner == Manner::Plain {
                times.push(u32::try_from(turn.now.duration_since(at).as_micros()).unwrap_or(u32::MAX));
            }
        }
    }

    fn ticked(&mut self, number: u64, tally: &mut Tally) {
        match self.next_tick {
            Some(next) if next < number => {
                tally.lost += number - next;
                tally.problem(format!("connection {} received tick {number} instead of {next}", self.number));
            }
            Some(next) if next > number => {
                tally.duplicated += 1;
                tally.problem(format!("connection {} received tick {number} again", self.number));
                return;
            }
            _ => tally.ticks += 1,
        }
        self.next_tick = Some(number + 1);
    }

    /// The other side ended the stream.
    fn ended(&mut self, tally: &mut Tally) {
        match self.stage {
            Stage::Closing(_, true) => {
                tally.closes_answered += 1;
                self.stage = Stage::Over;
            }
            _ => self.fail(tally, "the stream ended"),
        }
    }

    fn fail(&mut self, tally: &mut Tally, what: &str) {
        match self.stage {
            Stage::Opening(_) => tally.refused += 1,
            Stage::Open => tally.disconnects += 1,
            // Shows as a close without an answer.
            Stage::Closing(..) => {}
            Stage::Over => return,
        }
        tally.lost += self.in_flight();
        tally.problem(format!("{what}: {}", self.awaits()));
        self.stage = Stage::Over;
    }
}
