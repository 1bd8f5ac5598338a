//! A proxy that opens tunnels (`CONNECT` or SOCKS 5), or behaves badly.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use super::PATIENCE;
use super::tls::{ServerTls, server_config};

/// How long one side of a tunnel is listened to before the other one is.
const TURN: Duration = Duration::from_millis(5);

/// What a [`ConnectProxy`] does when it is asked.
#[derive(Debug, Clone)]
pub enum ProxyManner {
    /// Opens a tunnel to this address, whatever it is asked for. The second is the answer's status line.
    Tunnel(SocketAddr, &'static str),
    /// As the above, when the request has this `Proxy-Authorization`; 407 otherwise.
    TunnelFor(SocketAddr, &'static str),
    /// Speaks SOCKS 5 and opens a tunnel to this address, for who says this user and password.
    Socks(SocketAddr, Option<(&'static str, &'static str)>),
    /// Writes this and keeps the connection.
    Say(Vec<u8>),
    /// Closes the connection.
    Close,
}

impl ProxyManner {
    /// A tunnel, as most proxies open it.
    pub fn tunnel(to: SocketAddr) -> ProxyManner {
        ProxyManner::Tunnel(to, "HTTP/1.1 200 Connection established")
    }
}

/// A proxy on a free port of the loopback interface, which serves until the test's process ends.
#[derive(Debug)]
pub struct ConnectProxy {
    address: SocketAddr,
    asked: Receiver<String>,
}

impl ConnectProxy {
    /// Starts a proxy, spoken with by TLS (with the certificate for `localhost`) or not.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start(tls: bool, manner: ProxyManner) -> ConnectProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (tell, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, manner, tell) = (stream.expect("a connection"), manner.clone(), tell.clone());
                std::thread::spawn(move || serve(stream, tls, &manner, &tell));
            }
        });
        ConnectProxy { address, asked }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The head of the next request to it; of a request by SOCKS, `host:port`.
    ///
    /// # Panics
    /// When none comes.
    pub fn asked(&self) -> String {
        self.asked.recv_timeout(PATIENCE).expect("the proxy is asked")
    }

    /// The head of a request to it that came already, if there is one.
    pub fn try_asked(&self) -> Option<String> {
        self.asked.try_recv().ok()
    }
}

fn serve(stream: TcpStream, tls: bool, manner: &ProxyManner, tell: &Sender<String>) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let socket = stream.try_clone().expect("a socket can be shared");
    if let ProxyManner::Socks(to, user) = manner {
        let _ = socks(stream, *to, *user, tell);
    } else if tls {
        let config = server_config(&ServerTls::localhost());
        let session = ServerConnection::new(config).expect("the configuration is complete");
        answer(StreamOwned::new(session, stream), &socket, manner, tell);
    } else {
        answer(stream, &socket, manner, tell);
    }
}

fn answer(mut client: impl Read + Write, socket: &TcpStream, manner: &ProxyManner, tell: &Sender<String>) {
    let Some(head) = read_head(&mut client) else { return };
    let refused = matches!(manner, ProxyManner::TunnelFor(_, wanted)
        if !head.to_lowercase().contains(&format!("proxy-authorization: {wanted}\r\n").to_lowercase()));
    // The test may have ended.
    let _ = tell.send(head);
    let said = match manner {
        _ if refused => client.write_all(
            b"HTTP/1.1 407 Give me a name\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        ),
        ProxyManner::Tunnel(to, status) => {
            return tunnel(client, socket, *to, format!("{status}\r\n\r\n").as_bytes());
        }
        ProxyManner::TunnelFor(to, _) => return tunnel(client, socket, *to, b"HTTP/1.1 200 OK\r\n\r\n"),
        ProxyManner::Say(bytes) => client.write_all(bytes),
        ProxyManner::Socks(..) | ProxyManner::Close => return,
    };
    // Until the client goes.
    if said.and_then(|()| client.flush()).is_ok() {
        let _ = client.read(&mut [0; 64]);
    }
}

/// RFC 1928, and RFC 1929 for the user.
fn socks(
    mut client: TcpStream,
    to: SocketAddr,
    user: Option<(&str, &str)>,
    tell: &Sender<String>,
) -> std::io::Result<()> {
    let count = read(&mut client, 2)?[1];
    let methods = read(&mut client, count.into())?;
    let method = if user.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return client.write_all(&[5, 0xFF]);
    }
    client.write_all(&[5, method])?;
    if let Some((user, password)) = user {
        let length = read(&mut client, 2)?[1];
        let name = read(&mut client, length.into())?;
        let length = read(&mut client, 1)?[0];
        let said = read(&mut client, length.into())?;
        let known = name == user.as_bytes() && said == password.as_bytes();
        client.write_all(&[1, u8::from(!known)])?;
        if !known {
            return Ok(());
        }
    }
    let head = read(&mut client, 5)?;
    assert_eq!(head[..4], [5, 1, 0, 3], "it connects to a name");
    let rest = read(&mut client, usize::from(head[4]) + 2)?;
    let (host, port) = rest.split_at(head[4].into());
    let port = u16::from_be_bytes([port[0], port[1]]);
    let _ = tell.send(format!("{}:{port}", String::from_utf8_lossy(host)));
    let socket = client.try_clone()?;
    tunnel(client, &socket, to, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    Ok(())
}

fn read(client: &mut impl Read, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).map(|()| bytes)
}

fn read_head(client: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn tunnel(mut client: impl Read + Write, socket: &TcpStream, to: SocketAddr, answer: &[u8]) {
    let Ok(mut server) = TcpStream::connect(to) else { return };
    for socket in [socket, &server] {
        socket.set_read_timeout(Some(TURN)).expect("a timeout can be set");
        socket.set_nodelay(true).expect("an option can be set");
    }
    let opened = client.write_all(answer).and_then(|()| client.flush());
    if opened.is_ok() {
        while pass(&mut client, &mut server) && pass(&mut server, &mut client) {}
    }
}

/// Passes on what has come; false at the end of either side.
fn pass(from: &mut impl Read, to: &mut impl Write) -> bool {
    let mut bytes = [0; 16 * 1024];
    match from.read(&mut bytes) {
        Ok(0) => false,
        Ok(length) => to.write_all(&bytes[..length]).and_then(|()| to.flush()).is_ok(),
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}
