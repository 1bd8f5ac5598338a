//! Plain HTTP requests, written by hand so that a test can send exactly the headers it means.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// An answer to [`request`].
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers; names in lower case, the last of a repeated name.
    pub headers: HashMap<String, String>,
    /// The body as text.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// Reads a whole answer from its text.
    ///
    /// # Panics
    /// When it is no HTTP answer.
    pub fn parse(text: &str) -> Reply {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let body = if chunked { joined(body) } else { body.to_owned() };
        Reply { status, headers, body }
    }
}

/// Sends one request on a connection of its own and reads the whole answer. `headers` are lines without their ends;
/// `Host` is added unless it is among them.
///
/// # Panics
/// When the server does not answer.
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
    let mut stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|line| line.to_lowercase().starts_with("host:")) {
        text.push_str(&format!("Host: {to}\r\n"));
    }
    for line in headers {
        text.push_str(&format!("{line}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    stream.write_all(text.as_bytes()).expect("the server reads the request");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .unwrap_or_else(|error| panic!("no whole answer to {method} {path}: {error}; so far {answer:?}"));
    Reply::parse(&String::from_utf8_lossy(&answer))
}

fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let Ok(length @ 1..) = usize::from_str_radix(length.trim(), 16) else { break };
        body.push_str(&rest[..length]);
        chunks = &rest[length + 2..];
    }
    body
}
