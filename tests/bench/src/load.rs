//! The load generator: one thread, one epoll loop, frames encoded beforehand.
//!
//! Every connection keeps a constant number of messages in flight. All replies of one read are answered with
//! one write, so a server that batches is given batches. Count, type and length of every reply are checked,
//! and the content of every [`CHECK_EVERY`]th; one wrong or missing reply makes the whole run an error.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::connect;
use crate::error::Error;
use crate::frames::{BINARY, CLOSE, FrameRing, Incoming, Piece, TEXT, encode_masked};
use crate::histogram::Histogram;

/// Comparing costs about as much as the rest of a small reply. Since neighbouring messages differ and every
/// one is counted, a connection that lost one fails the next check.
const CHECK_EVERY: u64 = 16;
/// No reply on any connection for this long means that they are lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to send, how much of it and for how long.
#[derive(Clone)]
pub struct Load {
    /// The server.
    pub addr: SocketAddr,
    /// Path of the upgrade.
    pub path: String,
    /// How many connections.
    pub connections: usize,
    /// Payload bytes of each message.
    pub size: usize,
    /// Binary rather than text messages.
    pub binary: bool,
    /// Messages each connection keeps in flight.
    pub in_flight: usize,
    /// Time under load before measuring begins.
    pub warm_up: Duration,
    /// Time measured.
    pub measured: Duration,
}

/// What came of it.
pub struct Outcome {
    /// Replies within the measured time.
    pub messages: u64,
    /// The time measured, as it really was.
    pub elapsed: Duration,
    /// From the write of a message to the read of its reply.
    pub latency: Histogram,
}

/// Puts `load` on the server. `at_edge` is called when the measured time begins and when it ends.
///
/// # Errors
/// A connection fails; a reply is wrong, lost or one too many; `at_edge` fails.
pub fn run(load: &Load, mut at_edge: impl FnMut() -> Result<(), Error>) -> Result<Outcome, Error> {
    let mut generator = Generator::connect(load)?;
    generator.fill_windows()?;
    generator.serve_for(load.warm_up)?;
    generator.messages = 0;
    generator.latency.clear();
    at_edge()?;
    let begin = Instant::now();
    generator.serve_for(load.measured)?;
    let (messages, elapsed) = (generator.messages, begin.elapsed());
    at_edge()?;
    generator.refill = false;
    while generator.in_flight() > 0 {
        generator.turn()?;
    }
    generator.close();
    Ok(Outcome { messages, elapsed, latency: generator.latency })
}

struct Generator {
    ring: FrameRing,
    opcode: u8,
    size: usize,
    connections: Vec<Connection>,
    poll: Poll,
    events: Events,
    /// Every read goes here; nothing is kept in it between two reads.
    buffer: Vec<u8>,
    clock: Instant,
    last_reply: Instant,
    messages: u64,
    latency: Histogram,
    /// Whether a reply makes room for another message.
    refill: bool,
}

struct Connection {
    stream: TcpStream,
    incoming: Incoming,
    /// The ring's number of this connection's first message: connections differ, so a reply to another's
    /// message shows.
    first: u64,
    sent: u64,
    received: u64,
    /// When each message in flight was written, by its number modulo the window.
    sent_at: Vec<u64>,
    /// Where in the ring the next byte to write is, and how many are due.
    at: usize,
    due: usize,
}

impl Generator {
    fn connect(load: &Load) -> Result<Generator, Error> {
        let setting_up = |what: &str| Error::io(format!("{what} for {} connections", load.connections));
        let opcode = if load.binary { BINARY } else { TEXT };
        let ring = FrameRing::new(opcode, load.size, load.in_flight);
        let poll = Poll::new().map_err(setting_up("creating an epoll instance"))?;
        let mut connections = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let stream = connect::connect(load.addr, &load.path)?;
            stream.set_nonblocking(true).map_err(setting_up("switching to non-blocking"))?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
                .map_err(setting_up("registering with epoll"))?;
            connections.push(Connection {
                stream,
                incoming: Incoming::default(),
                first: index as u64,
                sent: 0,
                received: 0,
                sent_at: vec![0; load.in_flight],
                at: index * ring.frame_len() % ring.period(),
                due: 0,
            });
        }
        let now = Instant::now();
        Ok(Generator {
            ring,
            opcode,
            size: load.size,
            connections,
            poll,
            events: Events::with_capacity(1024),
            buffer: vec![0; 256 * 1024],
            clock: now,
            last_reply: now,
            messages: 0,
            latency: Histogram::default(),
            refill: true,
        })
    }

    fn fill_windows(&mut self) -> Result<(), Error> {
        self.last_reply = Instant::now();
        for connection in &mut self.connections {
            let now = nanos(self.clock);
            connection.send(connection.sent_at.len(), now, &self.ring)?;
        }
        Ok(())
    }

    fn serve_for(&mut self, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// One round of the loop: wait for events, but not for long, and serve them.
    fn turn(&mut self) -> Result<(), Error> {
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(10))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(Error::Io("waiting for replies".into(), error));
            }
            _ => {}
        }
        let before = self.messages;
        for event in &self.events {
            let connection = &mut self.connections[event.token().0];
            if connection.due > 0 {
                connection.flush(&self.ring)?;
            }
            loop {
                let len = match connection.stream.read(&mut self.buffer) {
                    Ok(0) => return Err(connection.failed("the server closed the connection")),
                    Ok(len) => len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(connection.failed(&error.to_string())),
                };
                let now = nanos(self.clock);
                let replies = connection.take(
                    &self.buffer[..len],
                    &self.ring,
                    (self.opcode, self.size),
                    |sent_at| self.latency.add(now - sent_at),
                )?;
                self.messages += replies as u64;
                if self.refill && replies > 0 {
                    connection.send(replies, now, &self.ring)?;
                }
                // A short read has emptied the socket, unless the end of the stream follows.
                if len < self.buffer.len() && !event.is_read_closed() {
                    break;
                }
            }
        }
        if self.messages > before {
            self.last_reply = Instant::now();
        } else if self.last_reply.elapsed() > PATIENCE {
            return Err(Error::Peer(format!(
                "{} replies are missing: none came for {} s",
                self.in_flight(),
                PATIENCE.as_secs()
            )));
        }
        Ok(())
    }

    fn in_flight(&self) -> u64 {
        self.connections.iter().map(|connection| connection.sent - connection.received).sum()
    }

    /// Says goodbye; the answers are not waited for.
    fn close(&mut self) {
        let mut frame = Vec::new();
        encode_masked(CLOSE, [1, 2, 3, 4], &1000_u16.to_be_bytes(), &mut frame);
        for connection in &mut self.connections {
            // A peer that is gone already needs no goodbye.
            let _ = connection.stream.write(&frame);
        }
    }
}

impl Connection {
    /// Writes the next `count` messages, or as much as the socket takes; the rest when it has room.
    fn send(&mut self, count: usize, now: u64, ring: &FrameRing) -> Result<(), Error> {
        for _ in 0..count {
            let slot = (self.sent % self.sent_at.len() as u64) as usize;
            self.sent_at[slot] = now;
            self.sent += 1;
        }
        self.due += count * ring.frame_len();
        self.flush(ring)
    }

    fn flush(&mut self, ring: &FrameRing) -> Result<(), Error> {
        while self.due > 0 {
            match self.stream.write(ring.slice(self.at, self.due)) {
                Ok(len) => {
                    self.due -= len;
                    self.at = (self.at + len) % ring.period();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error.to_string())),
            }
        }
        Ok(())
    }

    /// Checks what was read and returns how many replies it completed.
    fn take(
        &mut self,
        mut bytes: &[u8],
        ring: &FrameRing,
        expected: (u8, usize),
        mut replied: impl FnMut(u64),
    ) -> Result<usize, Error> {
        let mut replies = 0;
        loop {
            let piece = match self.incoming.next(&mut bytes) {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(replies),
                Err(error) => return Err(self.failed(&format!("the server sent {error}"))),
            };
            if (piece.opcode, piece.frame_len) != expected {
                return Err(self.failed(&unexpected(&piece)));
            }
            if self.received == self.sent {
                return Err(self.failed("a reply to nothing"));
            }
            if self.received.is_multiple_of(CHECK_EVERY) {
                let payload = ring.payload(self.first + self.received);
                if payload[piece.offset..piece.offset + piece.data.len()] != *piece.data {
                    return Err(self.failed("a reply has the wrong content"));
                }
            }
            if piece.is_last() {
                replied(self.sent_at[(self.received % self.sent_at.len() as u64) as usize]);
                self.received += 1;
                replies += 1;
            }
        }
    }

    fn failed(&self, what: &str) -> Error {
        Error::Peer(format!(
            "connection {}, after {} messages and {} replies: {what}",
            self.first, self.sent, self.received
        ))
    }
}

fn unexpected(piece: &Piece<'_>) -> String {
    match (piece.opcode, piece.data) {
        (CLOSE, [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("the server closed it with {code} {}", String::from_utf8_lossy(reason))
        }
        (opcode, _) => {
            format!("a frame of type {opcode} with {} bytes came instead of a reply", piece.frame_len)
        }
    }
}

fn nanos(clock: Instant) -> u64 {
    clock.elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    const SIZE: usize = 20;

    /// Loads one connection to a server that passes each echo through `reply`, with the message's number;
    /// what that returns is sent, and `None` ends the connection.
    fn run_against(
        reply: impl Fn(u64, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Outcome, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let accept = "HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            stream.write_all(accept.as_bytes()).unwrap();
            for number in 0.. {
                let mut frame = [0; 6 + SIZE];
                if stream.read_exact(&mut frame).is_err() || frame[0] != 0x81 {
                    return;
                }
                let key = [frame[2], frame[3], frame[4], frame[5]];
                let mut echo = vec![0x81, SIZE as u8];
                echo.extend(frame[6..].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
                let Some(echo) = reply(number, echo) else { return };
                if stream.write_all(&echo).is_err() {
                    return;
                }
            }
        });
        let load = Load {
            addr,
            path: "/".into(),
            connections: 1,
            size: SIZE,
            binary: false,
            in_flight: 3,
            warm_up: Duration::from_millis(20),
            measured: Duration::from_millis(80),
        };
        let mut edges = 0;
        let result = run(&load, || {
            edges += 1;
            Ok(())
        });
        assert!(result.is_err() || edges == 2, "{edges} edges");
        let result = result.map_err(|error| error.to_string());
        server.join().unwrap();
        result
    }

    #[test]
    fn an_honest_echo_is_counted_and_timed() {
        let outcome = run_against(|_, echo| Some(echo)).unwrap();
        assert!(outcome.messages > 10, "{} messages", outcome.messages);
        assert!(outcome.elapsed >= Duration::from_millis(80));
        assert!(outcome.latency.percentile(50.0) > Duration::ZERO);
        assert!(outcome.latency.percentile(50.0) <= outcome.latency.percentile(99.0));
    }

    #[test]
    fn a_server_that_does_not_echo_is_found_out() {
        let at = 50;
        let lost = run_against(move |n, echo| Some(if n == at { vec![] } else { echo }));
        assert!(lost.err().unwrap().contains("wrong content"));
        let doubled = run_against(move |n, echo| Some(if n == at { echo.repeat(2) } else { echo }));
        assert!(doubled.err().unwrap().contains("wrong content"));
        let other_type = run_against(move |n, mut echo| {
            echo[0] += u8::from(n == at);
            Some(echo)
        });
        assert!(other_type.err().unwrap().contains("a frame of type 2 with 20 bytes"));
        let shorter = run_against(move |n, echo| Some(if n == at { vec![0x81, 1, b'x'] } else { echo }));
        assert!(shorter.err().unwrap().contains("a frame of type 1 with 1 bytes"));
        let surplus = run_against(move |_, echo| Some(echo.repeat(9)));
        assert!(surplus.err().unwrap().contains("a reply to nothing"));
        let closed = run_against(move |n, echo| (n < at).then_some(echo));
        assert!(closed.err().is_some());
        let close_frame = run_against(|_, _| Some(b"\x88\x06\x03\xe9bye!".to_vec()));
        assert!(close_frame.err().unwrap().contains("closed it with 1001 bye!"));
    }
}
