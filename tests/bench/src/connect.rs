//! The opening handshake by hand, and single exchanges, both blocking.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::Error;
use crate::frames::{Incoming, TEXT, encode_masked};

/// The path of every echo that is measured.
pub const ECHO_PATH: &str = "/ws/echo";

/// The key and its answer from RFC 6455, section 1.3: nothing here needs an unguessable one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// An honest answer to an upgrade is a few hundred bytes.
const MAX_RESPONSE: usize = 8 * 1024;
/// A server that takes longer over one step has failed, however busy the machine is.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects and upgrades; the stream is blocking, without delay, and nothing has been read past the handshake.
///
/// # Errors
/// The server cannot be reached, does not answer in time, or answers anything but a correct 101.
pub fn connect(addr: SocketAddr, path: &str) -> Result<TcpStream, Error> {
    let doing = || Error::io(format!("connecting to ws://{addr}{path}"));
    let mut stream = TcpStream::connect_timeout(&addr, STEP_TIMEOUT).map_err(doing())?;
    stream.set_nodelay(true).map_err(doing())?;
    stream.set_read_timeout(Some(STEP_TIMEOUT)).map_err(doing())?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(doing())?;
    let mut response = Vec::new();
    let mut chunk = [0; 1024];
    while !response.ends_with(b"\r\n\r\n") {
        let len = stream.read(&mut chunk).map_err(doing())?;
        if len == 0 || response.len() > MAX_RESPONSE {
            return Err(refused(addr, path, &response));
        }
        response.extend_from_slice(&chunk[..len]);
    }
    if is_accepted(&response) { Ok(stream) } else { Err(refused(addr, path, &response)) }
}

/// Whether `response` is a 101 with the right answer to our key.
fn is_accepted(response: &[u8]) -> bool {
    let text = String::from_utf8_lossy(response);
    let mut lines = text.split("\r\n");
    lines.next().is_some_and(|status| status.starts_with("HTTP/1.1 101"))
        && lines
            .filter_map(|line| line.split_once(':'))
            .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT)
}

fn refused(addr: SocketAddr, path: &str, response: &[u8]) -> Error {
    let text = String::from_utf8_lossy(response);
    let status = text.lines().next().unwrap_or("nothing");
    Error::Peer(format!("ws://{addr}{path} answered the upgrade with: {status}"))
}

/// Sends `payload` as text and waits for its echo.
///
/// # Errors
/// The connection fails, or anything but the echo comes back.
pub fn exchange(stream: &mut TcpStream, payload: &[u8]) -> Result<(), Error> {
    let mut frame = Vec::new();
    encode_masked(TEXT, [0x5a, 0x13, 0xc7, 0x88], payload, &mut frame);
    stream.write_all(&frame).map_err(Error::io("sending a message"))?;
    let mut incoming = Incoming::default();
    let mut echo = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let len = stream.read(&mut chunk).map_err(Error::io("waiting for an echo"))?;
        if len == 0 {
            return Err(Error::Peer("the server closed the connection instead of answering".into()));
        }
        let mut bytes = &chunk[..len];
        let invalid = |error| Error::Peer(format!("the server sent {error}"));
        while let Some(piece) = incoming.next(&mut bytes).map_err(invalid)? {
            echo.extend_from_slice(piece.data);
            if piece.opcode != TEXT || echo.len() > payload.len() {
                return Err(Error::Peer(format!("frame of type {} instead of the echo", piece.opcode)));
            }
            if piece.is_last() {
                let right = echo == payload && bytes.is_empty();
                return right.then_some(()).ok_or_else(|| Error::Peer("the echo differs".into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_101_with_the_right_accept_key_is_accepted() {
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-ACCEPT: {ACCEPT}\r\n\r\n");
        assert!(is_accepted(good.as_bytes()));
        for bad in [
            good.replace("101", "200"),
            good.replace("s3p", "s3q"),
            "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
            String::new(),
        ] {
            assert!(!is_accepted(bad.as_bytes()), "{bad:?}");
        }
    }
}
