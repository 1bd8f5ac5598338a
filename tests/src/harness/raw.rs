//! A peer that keeps no rules: bytes as they are written in the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::{PATIENCE, Reply};

/// A TCP connection to the host.
#[derive(Debug)]
pub struct RawPeer {
    stream: TcpStream,
    /// What was read beyond what was asked for.
    unread: Vec<u8>,
}

/// The key of RFC 6455's own example.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

impl RawPeer {
    /// Connects.
    ///
    /// # Panics
    /// When that fails.
    pub fn connect(to: SocketAddr) -> RawPeer {
        let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"));
        stream.set_nodelay(true).expect("an option can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        RawPeer { stream, unread: Vec::new() }
    }

    /// Connects and opens a WebSocket on `path`.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn websocket(to: SocketAddr, path: &str) -> RawPeer {
        let mut peer = Self::connect(to);
        let reply = peer.handshake("GET", path, &Self::usual_headers());
        assert_eq!(reply.status, 101, "{reply:?}");
        peer
    }

    /// The headers of an ordinary handshake, besides `Host`.
    pub fn usual_headers() -> Vec<String> {
        vec![
            "Upgrade: websocket".to_owned(),
            "Connection: Upgrade".to_owned(),
            format!("Sec-WebSocket-Key: {KEY}"),
            "Sec-WebSocket-Version: 13".to_owned(),
        ]
    }

    /// Sends a handshake with exactly these headers (and `Host`) and reads the head of the answer, and its body if
    /// it has a length.
    pub fn handshake(&mut self, method: &str, path: &str, headers: &[String]) -> Reply {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.write(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").as_bytes());
        let head = self.read_until(b"\r\n\r\n");
        let mut reply = Reply::parse(&String::from_utf8_lossy(&head));
        if let Some(length) = reply.headers.get("content-length").and_then(|text| text.parse().ok()) {
            reply.body = String::from_utf8_lossy(&self.read(length)).into_owned();
        }
        reply
    }

    /// Writes bytes.
    ///
    /// # Panics
    /// When the connection is closed.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_else(|error| panic!("cannot write: {error}"));
    }

    /// Writes one frame, masked as a client must.
    pub fn write_frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        self.write(&frame(fin, opcode, Some([1, 2, 3, 4]), payload));
    }

    /// Writes one whole masked frame; false when the connection is closed or takes no more.
    pub fn try_write_frame(&mut self, opcode: u8, payload: &[u8]) -> bool {
        self.stream.write_all(&frame(true, opcode, Some([1, 2, 3, 4]), payload)).is_ok()
    }

    /// The connection itself, for what is not here.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// How long writing may take from now on.
    pub fn set_write_timeout(&mut self, timeout: Duration) {
        self.stream.set_write_timeout(Some(timeout)).expect("a timeout can be set");
    }

    /// Writes one frame without a mask.
    pub fn write_unmasked_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.write(&frame(true, opcode, None, payload));
    }

    /// Reads one frame: its opcode and payload.
    ///
    /// # Panics
    /// When the connection ends before.
    pub fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(2);
        let length = match head[1] & 0x7f {
            126 => usize::from(u16::from_be_bytes(self.read(2).try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(self.read(8).try_into().expect("eight bytes")) as usize,
            short => usize::from(short),
        };
        (head[0] & 0x0f, self.read(length))
    }

    /// The code of the close frame that comes, whatever data comes before it; `None` when the connection ends
    /// without one.
    pub fn read_close_code(&mut self) -> Option<u16> {
        loop {
            if self.unread.is_empty() && !self.read_more() {
                return None;
            }
            let (opcode, payload) = self.read_frame();
            if opcode == 8 {
                return Some(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
            }
        }
    }

    /// Reads all that comes until the peer closes the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.unread)
    }

    /// Ends the writing half.
    pub fn finish_writing(&mut self) {
        // The peer may be gone already, which is as good.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads exactly so many bytes.
    ///
    /// # Panics
    /// When the connection ends before.
    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        self.read(count)
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.read_more(), "the connection ended; unread: {:?}", self.unread);
        }
        self.unread.drain(..count).collect()
    }

    fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            assert!(self.read_more(), "the connection ended; unread: {:?}", self.unread);
        }
    }

    /// Reads what there is; false at the end of the stream.
    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => false,
            Err(error) => panic!("cannot read: {error}; unread: {:?}", self.unread),
        }
    }
}

/// One frame as bytes.
fn frame(fin: bool, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    let masked = u8::from(mask.is_some()) << 7;
    match payload.len() {
        length @ 0..126 => bytes.push(masked | length as u8),
        length @ 126..=0xffff => {
            bytes.push(masked | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(masked | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(place, byte)| byte ^ mask[place % 4]));
    bytes
}
