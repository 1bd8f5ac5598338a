//! A WebSocket client.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::PATIENCE;

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A close frame with its code and reason; `None` when it had none.
    Close(Option<(u16, String)>),
    /// The connection ended without a close frame.
    Lost,
}

/// The answer of a server that refused a handshake.
#[derive(Debug)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// A connected WebSocket, of either side.
#[derive(Debug)]
pub struct Client {
    socket: WebSocket<TcpStream>,
    protocol: Option<String>,
}

impl Client {
    /// Connects to a path of the server at `to`.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn connect(to: SocketAddr, path: &str) -> Client {
        Self::connect_with(to, path, &[]).unwrap_or_else(|refusal| panic!("{path} refused: {refusal:?}"))
    }

    /// Connects with these headers besides the usual ones.
    ///
    /// # Errors
    /// The server's answer when it refuses.
    ///
    /// # Panics
    /// When there is no such answer.
    pub fn connect_with(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Client, Refusal> {
        let mut request = format!("ws://{to}{path}").into_client_request().expect("the URL is valid");
        for (name, value) in headers {
            let name: tungstenite::http::HeaderName = name.parse().expect("a header name");
            request.headers_mut().append(name, value.parse().expect("a header value"));
        }
        let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"));
        stream.set_nodelay(true).expect("an option can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((socket, response)) => {
                let protocol = response.headers().get("Sec-WebSocket-Protocol");
                let protocol = protocol.map(|value| value.to_str().expect("a protocol is ASCII").to_owned());
                Ok(Client { socket, protocol })
            }
            Err(HandshakeError::Failure(Error::Http(response))) => Err(Refusal {
                status: response.status().as_u16(),
                body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
            }),
            Err(error) => panic!("no answer to the handshake for {path}: {error}"),
        }
    }

    pub(super) fn accepted(socket: WebSocket<TcpStream>, protocol: Option<String>) -> Client {
        Client { socket, protocol }
    }

    /// The subprotocol that was agreed on.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Sends a text message.
    ///
    /// # Panics
    /// When the connection is closed; so do the other methods that send.
    pub fn send_text(&mut self, text: &str) {
        self.send(Message::text(text));
    }

    /// Sends a value as JSON text.
    pub fn send_json(&mut self, value: &Value) {
        self.send_text(&value.to_string());
    }

    /// Sends a binary message.
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send(Message::binary(bytes.to_vec()));
    }

    fn send(&mut self, message: Message) {
        self.socket.send(message).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Queues a text message without writing it to the socket yet; the next one that is sent carries it along.
    pub fn queue_text(&mut self, text: &str) {
        self.socket.write(Message::text(text)).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Begins to close the connection.
    pub fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        self.socket.close(Some(frame)).unwrap_or_else(|error| panic!("cannot close: {error}"));
    }

    /// The next message or the end of the connection. Pings are answered, and shown only by
    /// [`Client::recv_or_ping`].
    ///
    /// # Panics
    /// When nothing comes within [`PATIENCE`]; so do the other methods that receive.
    pub fn recv(&mut self) -> Frame {
        loop {
            match self.recv_or_ping() {
                Frame::Ping(_) => {}
                frame => return frame,
            }
        }
    }

    /// As [`Client::recv`], with pings.
    pub fn recv_or_ping(&mut self) -> Frame {
        self.recv_within(PATIENCE).unwrap_or_else(|| panic!("the peer sent nothing within {PATIENCE:?}"))
    }

    /// As [`Client::recv_or_ping`], with another deadline; `None` when it passes.
    pub fn recv_within(&mut self, deadline: Duration) -> Option<Frame> {
        let end = Instant::now() + deadline;
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            let left = left.max(Duration::from_millis(1));
            self.socket.get_mut().set_read_timeout(Some(left)).expect("a timeout can be set");
            return Some(match self.socket.read() {
                Ok(Message::Text(text)) => Frame::Text(text.as_str().to_owned()),
                Ok(Message::Binary(bytes)) => Frame::Binary(bytes.to_vec()),
                Ok(Message::Ping(bytes)) => {
                    // The pong was queued by the read; it may be too late for it.
                    let _ = self.socket.flush();
                    Frame::Ping(bytes.to_vec())
                }
                Ok(Message::Close(frame)) => {
                    let _ = self.socket.flush();
                    Frame::Close(frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned())))
                }
                Ok(Message::Pong(_) | Message::Frame(_)) => continue,
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    continue;
                }
                Err(_) => Frame::Lost,
            });
        }
    }

    /// The next message, which must be text.
    pub fn recv_text(&mut self) -> String {
        match self.recv() {
            Frame::Text(text) => text,
            other => panic!("expected a text message, got {other:?}"),
        }
    }

    /// The next message, which must be JSON text.
    pub fn recv_json(&mut self) -> Value {
        let text = self.recv_text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// The next message, which must be binary.
    pub fn recv_binary(&mut self) -> Vec<u8> {
        match self.recv() {
            Frame::Binary(bytes) => bytes,
            other => panic!("expected a binary message, got {other:?}"),
        }
    }

    /// The code of the close frame, which must come next; 1005 when it has none, 1006 when the connection ends
    /// without one.
    pub fn recv_close(&mut self) -> u16 {
        match self.recv() {
            Frame::Close(Some((code, _))) => code,
            Frame::Close(None) => 1005,
            Frame::Lost => 1006,
            other => panic!("expected the end of the connection, got {other:?}"),
        }
    }
}
