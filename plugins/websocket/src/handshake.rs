//! The opening handshake of a client.
//!
//! It is done here, and not by tungstenite, so that not a byte behind the server's answer ends up in a buffer that
//! nobody else can see: the stream is given to the host right after, with what was read too far beside it.

use std::{fmt, io};

use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use crate::address::Address;

/// The most bytes that a server's answer may have; hyper's and Node.js's limits are of this size.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// The most header lines in it.
const MAX_ANSWER_HEADERS: usize = 100;
/// The headers that make a request a WebSocket handshake; configured headers do not replace them.
const OWN_HEADERS: [&str; 5] =
    ["Sec-WebSocket-Version", "Sec-WebSocket-Key", "Connection", "Upgrade", "Sec-WebSocket-Protocol"];

/// What a client asks for.
pub struct Request<'a> {
    /// The server.
    pub address: &'a Address,
    /// The subprotocols offered.
    pub protocols: &'a [String],
    /// Further headers.
    pub headers: &'a [(String, String)],
}

/// What a successful handshake leaves.
#[derive(Debug)]
pub struct Opened<S> {
    /// The stream, on which WebSocket frames follow.
    pub stream: S,
    /// The subprotocol that the server chose.
    pub protocol: Option<String>,
    /// Bytes that came behind the server's answer and were read with it.
    pub input: Vec<u8>,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// A configured header or subprotocol cannot stand in a request.
    Header(String),
    /// The stream failed, or ended too early.
    Io(io::Error),
    /// The server's answer is not HTTP, or too long.
    Answer(String),
    /// The server refused, with this status.
    Refused(u16),
    /// The server's answer does not fit the request.
    Mismatch(&'static str),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "the header {name:?} cannot be sent"),
            Self::Io(error) => error.fmt(f),
            Self::Answer(reason) => write!(f, "the server's answer is not valid HTTP: {reason}"),
            Self::Refused(status @ 300..400) => {
                write!(f, "Unexpected server response: {status} (redirects are not followed)")
            }
            Self::Refused(status) => write!(f, "Unexpected server response: {status}"),
            Self::Mismatch(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Asks a server to speak WebSocket. The caller limits the time.
///
/// # Errors
/// The request could not be made, sent or answered, or the server did not agree.
pub async fn open<S>(mut stream: S, request: &Request<'_>) -> Result<Opened<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let key = generate_key();
    stream.write_all(request.to_http(&key)?.as_bytes()).await?;
    stream.flush().await?;
    let (answer, input) = read_answer(&mut stream).await?;
    let protocol = check_answer(&answer, &key, request.protocols)?;
    Ok(Opened { stream, protocol, input })
}

impl Request<'_> {
    /// The request as it is sent.
    fn to_http(&self, key: &str) -> Result<String, HandshakeError> {
        let mut http = format!("GET {} HTTP/1.1\r\n", self.address.target);
        let mut add = |name: &str, value: &str| -> Result<(), HandshakeError> {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let is_text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            if name.is_empty() || !name.bytes().all(is_token) || !value.bytes().all(is_text) {
                return Err(HandshakeError::Header(name.to_owned()));
            }
            http.push_str(&format!("{name}: {value}\r\n"));
            Ok(())
        };
        let given = |name: &str| self.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
        if !given("Host") {
            add("Host", &self.address.host_header())?;
        }
        add("Connection", "Upgrade")?;
        add("Upgrade", "websocket")?;
        add("Sec-WebSocket-Version", "13")?;
        add("Sec-WebSocket-Key", key)?;
        if let Some((user, password)) = self.address.user.as_ref().filter(|_| !given("Authorization")) {
            let basic = BASE64.encode(format!("{user}:{password}").as_bytes());
            add("Authorization", &format!("Basic {basic}"))?;
        }
        for (name, value) in self.headers {
            if !OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                add(name, value)?;
            }
        }
        if !self.protocols.is_empty() {
            add("Sec-WebSocket-Protocol", &self.protocols.join(", "))?;
        }
        http.push_str("\r\n");
        Ok(http)
    }
}

/// Reads up to the empty line; returns what is before and what came behind it.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Vec<u8>, Vec<u8>), HandshakeError> {
    let mut answer = Vec::with_capacity(1024);
    loop {
        let searched = answer.len().saturating_sub(3);
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(
                io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into()
            );
        }
        if let Some(at) = answer[searched..].windows(4).position(|window| window == b"\r\n\r\n") {
            let input = answer.split_off(searched + at + 4);
            return Ok((answer, input));
        }
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(HandshakeError::Answer(format!("it has more than {MAX_ANSWER_BYTES} bytes")));
        }
    }
}

/// Checks the answer; returns the subprotocol chosen.
fn check_answer(answer: &[u8], key: &str, offered: &[String]) -> Result<Option<String>, HandshakeError> {
    use HandshakeError::Mismatch;

    let mut headers = [httparse::EMPTY_HEADER; MAX_ANSWER_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(answer).map_err(|error| HandshakeError::Answer(error.to_string()))?;
    match response.code {
        Some(101) => {}
        Some(status) => return Err(HandshakeError::Refused(status)),
        None => return Err(HandshakeError::Answer("it has no status".to_owned())),
    }
    let values = |name: &str| {
        response
            .headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
            .collect::<Vec<_>>()
    };
    let has_token = |name: &str, token: &str| {
        values(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if !has_token("Upgrade", "websocket") {
        return Err(Mismatch("Invalid Upgrade header"));
    }
    if !has_token("Connection", "Upgrade") {
        return Err(Mismatch("Invalid Connection header"));
    }
    if values("Sec-WebSocket-Accept") != [derive_accept_key(key.as_bytes())] {
        return Err(Mismatch("Invalid Sec-WebSocket-Accept header"));
    }
    if values("Sec-WebSocket-Extensions").iter().any(|value| !value.is_empty()) {
        return Err(Mismatch("Server chose an extension but none was offered"));
    }
    match (values("Sec-WebSocket-Protocol").as_slice(), offered.is_empty()) {
        ([], true) => Ok(None),
        ([], false) => Err(Mismatch("Server sent no subprotocol")),
        (_, true) => Err(Mismatch("Server sent a subprotocol but none was requested")),
        ([chosen], false) if offered.contains(chosen) => Ok(Some(chosen.clone())),
        _ => Err(Mismatch("Server sent an invalid subprotocol")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address::parse(url).unwrap()
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn http(url: &str, protocols: &[&str], headers: &[(&str, &str)]) -> Result<String, String> {
        let (address, protocols, headers) = (address(url), strings(protocols), pairs(headers));
        let request = Request { address: &address, protocols: &protocols, headers: &headers };
        request.to_http("KEY").map_err(|error| error.to_string())
    }

    #[test]
    fn the_request_carries_headers_and_subprotocols() {
        assert_eq!(
            http("ws://h:81/x?y=1", &["a", "b"], &[("X-Y", "1"), ("user-agent", "me")]).unwrap(),
            "GET /x?y=1 HTTP/1.1\r\nHost: h:81\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\nX-Y: 1\r\nuser-agent: me\r\n\
             Sec-WebSocket-Protocol: a, b\r\n\r\n"
        );
    }

    #[test]
    fn a_user_in_the_url_is_sent_unless_a_header_says_otherwise() {
        assert!(http("ws://u:p@h", &[], &[]).unwrap().contains("\r\nAuthorization: Basic dTpw\r\n"));
        let own = http("ws://u:p@h", &[], &[("authorization", "Bearer t")]).unwrap();
        assert!(own.contains("\r\nauthorization: Bearer t\r\n") && !own.contains("Basic"), "{own}");
    }

    #[test]
    fn configured_headers_replace_the_host_but_not_the_handshake() {
        let request =
            http("ws://h", &[], &[("Host", "other"), ("Upgrade", "h2c"), ("connection", "close")]).unwrap();
        assert!(request.contains("\r\nHost: other\r\n") && !request.contains("Host: h\r\n"), "{request}");
        assert!(!request.contains("h2c") && !request.contains("close"), "{request}");
    }

    #[test]
    fn headers_that_would_break_the_request_are_refused() {
        for (name, value) in [("a b", "x"), ("a:", "x"), ("ä", "x"), ("a", "x\r\nb: y"), ("a", "x\0")] {
            assert_eq!(
                http("ws://h", &[], &[(name, value)]),
                Err(format!("the header {name:?} cannot be sent"))
            );
        }
        assert!(http("ws://h", &["a\r\nb: c"], &[]).is_err());
    }

    /// A server that reads the request and answers with `answer`, in which `ACCEPT` stands for the right key.
    async fn serve(mut socket: tokio::io::DuplexStream, answer: &str) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            socket.read_buf(&mut request).await.unwrap();
        }
        let request = String::from_utf8(request).unwrap();
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let answer = answer.replace("ACCEPT", &derive_accept_key(key.as_bytes()));
        // The client may be gone before all is written.
        let _ = socket.write_all(answer.as_bytes()).await;
    }

    async fn handshake(protocols: &[&str], answer: &str) -> Result<(Option<String>, Vec<u8>), String> {
        // A small pipe, so that the answer arrives in pieces.
        let (client, server) = tokio::io::duplex(64);
        let (address, protocols) = (address("ws://h"), strings(protocols));
        let request = Request { address: &address, protocols: &protocols, headers: &[] };
        let client = async {
            let opened = open(client, &request).await.map_err(|error| error.to_string())?;
            // What was read too far, and what is still in the stream: together all that the server sent.
            let (mut stream, mut input) = (opened.stream, opened.input);
            stream.read_to_end(&mut input).await.unwrap();
            Ok((opened.protocol, input))
        };
        tokio::join!(client, serve(server, answer)).0
    }

    const OK: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                      Sec-WebSocket-Accept: ACCEPT\r\n";

    #[tokio::test]
    async fn bytes_behind_the_answer_are_kept() {
        let frames = "\u{1}frame".repeat(50);
        let (protocol, input) = handshake(&[], &format!("{OK}\r\n{frames}")).await.unwrap();
        assert_eq!((protocol, String::from_utf8(input).unwrap()), (None, frames));
    }

    #[tokio::test]
    async fn the_subprotocol_must_be_one_of_those_offered() {
        let answer = |protocol: &str| format!("{OK}Sec-WebSocket-Protocol: {protocol}\r\n\r\n");
        assert_eq!(handshake(&["a", "b"], &answer("b")).await.unwrap().0.as_deref(), Some("b"));
        assert!(handshake(&["a"], &answer("c")).await.unwrap_err().contains("invalid subprotocol"));
        assert!(handshake(&["a"], &answer("a, a")).await.unwrap_err().contains("invalid subprotocol"));
        assert!(handshake(&["a"], &format!("{OK}\r\n")).await.unwrap_err().contains("no subprotocol"));
        assert!(handshake(&[], &answer("a")).await.unwrap_err().contains("none was requested"));
    }

    #[tokio::test]
    async fn answers_that_do_not_agree_are_failures() {
        let long = format!("HTTP/1.1 101 x\r\nA: {}\r\n\r\n", "x".repeat(20_000));
        for (answer, reason) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!", "Unexpected server response: 404"),
            ("HTTP/1.1 301 Moved\r\nLocation: ws://x\r\n\r\n", "response: 301 (redirects are not followed)"),
            ("HTTP/1.1 101 x\r\nConnection: upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n", "Upgrade"),
            ("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n", "Connection"),
            ("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "Sec-WebSocket-Accept"),
            (&format!("{}\r\n", OK.replace("ACCEPT", "x==")), "Sec-WebSocket-Accept"),
            (&format!("{OK}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "extension"),
            ("HTTP/1.1 101 x\r\n", "closed the connection"),
            ("", "closed the connection"),
            ("hello\r\n\r\n", "not valid HTTP"),
            (&long, "more than 16384 bytes"),
        ] {
            let error = handshake(&[], answer).await.unwrap_err();
            assert!(error.contains(reason), "{answer:?}: {error}");
        }
    }
}
