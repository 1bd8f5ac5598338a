//! A WebSocket server, for flows that connect somewhere.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};

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
        self.shake_hands(stream, choose)
    }

    /// Waits for a connection, without a handshake.
    ///
    /// # Panics
    /// When none comes.
    pub fn accept_tcp(&self) -> TcpStream {
        eventually_within(PATIENCE, || self.try_accept_tcp())
            .unwrap_or_else(|| panic!("nobody connected to {}", self.address))
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

    fn shake_hands(&self, stream: TcpStream, choose: impl FnOnce(&[String]) -> Option<String>) -> Peer {
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
