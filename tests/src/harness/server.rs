//! A WebSocket server, for flows that connect somewhere.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::{Client, PATIENCE, eventually_within};

/// A server that accepts connections one by one, when the test says so.
pub struct WsServer {
    listener: TcpListener,
    address: SocketAddr,
}

/// A connection that a [`WsServer`] accepted.
#[derive(Debug)]
pub struct Peer {
    /// The connection.
    pub socket: Client,
    /// The headers of its handshake, names in lower case.
    pub headers: HashMap<String, String>,
    /// The path that it asked for.
    pub path: String,
}

/// A connection whose handshake the test answers itself, as no server should.
#[derive(Debug)]
pub struct Visitor {
    stream: TcpStream,
    request: String,
}

impl WsServer {
    /// A server on a free port of the loopback interface.
    ///
    /// # Panics
    /// When there is none.
    pub fn bind() -> WsServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        listener.set_nonblocking(true).expect("an option can be set");
        let address = listener.local_addr().expect("a bound socket has an address");
        WsServer { listener, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The `ws://` URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// Waits for a connection and agrees to the first subprotocol that it offers.
    ///
    /// # Panics
    /// When none comes or its handshake fails.
    pub fn accept(&self) -> Peer {
        self.accept_choosing(|offered| offered.first().cloned())
    }

    /// Waits for a connection and answers with the subprotocol that `choose` returns.
    ///
    /// # Panics
    /// As [`WsServer::accept`].
    pub fn accept_choosing(&self, choose: impl FnOnce(&[String]) -> Option<String>) -> Peer {
        let stream = self.accept_tcp();
        self.shake_hands_choosing(stream, choose)
    }

    /// Answers the handshake on a connection, as [`WsServer::accept`] does.
    ///
    /// # Panics
    /// When it fails.
    pub fn shake_hands(&self, stream: TcpStream) -> Peer {
        self.shake_hands_choosing(stream, |offered| offered.first().cloned())
    }

    /// Waits for a connection, without a handshake.
    ///
    /// # Panics
    /// When none comes.
    pub fn accept_tcp(&self) -> TcpStream {
        eventually_within(PATIENCE, || self.try_accept_tcp())
            .unwrap_or_else(|| panic!("nobody connected to {}", self.address))
    }

    /// Waits for a connection and reads its request, which the test then answers.
    ///
    /// # Panics
    /// When none comes, or no request.
    pub fn accept_raw(&self) -> Visitor {
        let mut stream = self.accept_tcp();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => request.extend(byte),
                other => panic!("no request: {other:?} after {:?}", String::from_utf8_lossy(&request)),
            }
        }
        Visitor { stream, request: String::from_utf8(request).expect("a request is text") }
    }

    /// A connection that is waiting to be accepted, if there is one.
    pub fn try_accept_tcp(&self) -> Option<TcpStream> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("an option can be set");
                stream.set_nodelay(true).expect("an option can be set");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
                Some(stream)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("cannot accept: {error}"),
        }
    }

    fn shake_hands_choosing(
        &self,
        stream: TcpStream,
        choose: impl FnOnce(&[String]) -> Option<String>,
    ) -> Peer {
        let mut headers = HashMap::new();
        let mut path = String::new();
        let mut chosen = None;
        #[allow(clippy::result_large_err, reason = "tungstenite decides about the type")]
        let look = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            path = request.uri().to_string();
            for (name, value) in request.headers() {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                headers.insert(name.as_str().to_owned(), value);
            }
            let offered = headers.get("sec-websocket-protocol").map_or("", String::as_str);
            let offered: Vec<String> = offered
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect();
            chosen = choose(&offered);
            if let Some(protocol) = &chosen {
                response
                    .headers_mut()
                    .insert("Sec-WebSocket-Protocol", protocol.parse().expect("a header value"));
            }
            Ok(response)
        };
        let socket = tungstenite::accept_hdr(stream, look)
            .unwrap_or_else(|error| panic!("a handshake with {} failed: {error}", self.address));
        Peer { socket: Client::accepted(socket, chosen), headers, path }
    }
}

impl Visitor {
    /// The request's head.
    pub fn request(&self) -> &str {
        &self.request
    }

    /// Writes an answer, in which `ACCEPT` becomes the key that the client expects; false when it is gone.
    ///
    /// # Panics
    /// When the request has no key.
    pub fn answer(&mut self, text: &str) -> bool {
        let lines = self.request.lines();
        let key = lines.filter_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).next();
        let accept = derive_accept_key(key.expect("a handshake has a key").as_bytes());
        self.write(text.replace("ACCEPT", &accept).as_bytes())
    }

    /// Agrees, as a server should.
    ///
    /// # Panics
    /// When the client is gone.
    pub fn agree(&mut self) {
        let agreed = self.answer(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: ACCEPT\r\n\r\n",
        );
        assert!(agreed, "the client is gone");
    }

    /// Writes bytes; false when the client is gone.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads so many bytes.
    ///
    /// # Panics
    /// When the connection ends before.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("cannot read: {error}"));
        bytes
    }

    /// Reads all that comes until the client ends the connection.
    ///
    /// # Panics
    /// When it does not.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the client stays: {error}"),
        }
        bytes
    }

    /// Ends the connection without a word: the client gets a reset.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn reset(self) {
        reset(self.stream);
    }
}

/// Ends a connection with a reset.
///
/// # Panics
/// When the system refuses.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option can be set");
    drop(stream);
}
