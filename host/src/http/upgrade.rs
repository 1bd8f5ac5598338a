//! WebSocket handshakes: is it one, what is the answer, and to whom does the connection go.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use sha1::{Digest, Sha1};

use super::{BoxFuture, HostStream, HttpResponse, Params};

/// Takes over an accepted connection: the stream, and the bytes the client sent after its handshake that were
/// already read. Called once, on a task of the server that ends with it, so it must not block; it is dropped
/// uncalled if the client goes away before the answer is out.
pub type OnStream = Box<dyn FnOnce(HostStream, Bytes) + Send>;

/// A valid WebSocket handshake, for the node that registered the path to decide about.
#[derive(Clone, Debug)]
pub struct UpgradeRequest {
    /// The path as it was sent.
    pub path: String,
    /// What stood after the `?`, if there was one.
    pub query: Option<String>,
    /// What the path has in place of the route's parameters.
    pub params: Params,
    /// The header fields.
    pub headers: HeaderMap,
    /// The subprotocols that the client offers, in its order.
    pub protocols: Vec<String>,
    /// Who sent it.
    pub remote: SocketAddr,
    /// Whether it came by TLS.
    pub tls: bool,
}

/// What a node decides about a handshake.
pub enum UpgradeAnswer {
    /// Take the connection.
    Accept {
        /// The subprotocol, one of those offered.
        protocol: Option<String>,
        /// Further header fields for the answer. Those of the handshake itself are not the node's to set.
        headers: HeaderMap,
        /// Takes the connection over.
        on_stream: OnStream,
    },
    /// Answer with this and close the connection.
    Refuse {
        /// The answer.
        response: HttpResponse,
        /// Why, for the log alone.
        reason: String,
    },
    /// It will be decided later.
    Deferred {
        /// How long to wait, if `upgrade_timeout_ms` is not to hold.
        timeout: Option<Duration>,
        /// The decision: not deferred again. Dropped when the time is over or the client goes away.
        answer: BoxFuture<UpgradeAnswer>,
    },
}

/// A handshake that passed [`Handshake::check`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handshake {
    /// `Sec-WebSocket-Accept` for this client's key.
    accept: String,
    pub(super) protocols: Vec<String>,
}

/// RFC 6455's constant, which proves that the answer was made by a WebSocket server.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Fields of the answer that the server alone sets.
const RESERVED: [HeaderName; 7] = [
    CONNECTION,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    UPGRADE,
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_PROTOCOL,
];

/// Whether a request asks for another protocol, be it this one or not.
pub(super) fn is_attempted(request: &Parts) -> bool {
    request.headers.contains_key(UPGRADE)
}

impl Handshake {
    /// Checks a request that asks for an upgrade.
    ///
    /// # Errors
    /// What is wrong with it, for the log: the client only gets [`bad_request`], like Node-RED's.
    pub(super) fn check(request: &Parts) -> Result<Handshake, &'static str> {
        let headers = &request.headers;
        if request.method != Method::GET {
            return Err("the method is not GET");
        }
        if request.version != Version::HTTP_11 {
            return Err("the version is not HTTP/1.1");
        }
        if !only(headers, &UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
            return Err("Upgrade is not websocket");
        }
        if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
            return Err("Connection does not say Upgrade");
        }
        if !only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|value| value == b"13" || value == b"8") {
            return Err("Sec-WebSocket-Version is neither 13 nor 8");
        }
        let Some(key) = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key)) else {
            return Err("Sec-WebSocket-Key is not 16 bytes in base64");
        };
        // A body would be taken for WebSocket frames.
        if headers.contains_key(TRANSFER_ENCODING)
            || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
        {
            return Err("the handshake has a body");
        }
        let protocols = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect();
        Ok(Handshake { accept: accept_for(key), protocols })
    }

    /// The answer that accepts: with just the fields of the handshake, and those the node adds.
    ///
    /// # Errors
    /// The node chose a subprotocol that the client did not offer.
    pub(super) fn answer(
        &self,
        protocol: Option<&str>,
        more: HeaderMap,
    ) -> Result<(StatusCode, HeaderMap), &'static str> {
        let mut headers = HeaderMap::with_capacity(4 + more.len());
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let accept = HeaderValue::from_str(&self.accept).expect("base64 is visible ASCII");
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = protocol {
            let offered = self.protocols.iter().any(|offered| offered == protocol);
            let value = HeaderValue::from_str(protocol).ok().filter(|_| offered);
            headers.insert(
                SEC_WEBSOCKET_PROTOCOL,
                value.ok_or("the node chose a subprotocol that the client did not offer")?,
            );
        }
        let mut name = None;
        for (next, value) in more {
            // The map names a field once and gives its further values without a name.
            name = next.or(name);
            if let Some(name) = name.as_ref().filter(|name| !RESERVED.contains(name)) {
                headers.append(name, value);
            }
        }
        Ok((StatusCode::SWITCHING_PROTOCOLS, headers))
    }
}

/// The answer to a handshake that is none.
pub(super) fn bad_request() -> HttpResponse {
    HttpResponse::typed(StatusCode::BAD_REQUEST, "text/html", "Bad Request")
}

fn accept_for(key: &[u8]) -> String {
    BASE64.encode(&Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize())
}

/// 16 bytes are 22 characters and two of padding. The last character's unused bits may be anything, as for
/// the `ws` library: some clients do not care.
fn is_key(key: &[u8]) -> bool {
    let Some(digits) = key.strip_suffix(b"==") else { return false };
    digits.len() == 22 && digits.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/'))
}

/// The value of a field that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes())
}

/// The parts of a field that is a list, over all its lines. What is not text is no token.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET 1.1 | Upgrade: websocket | Connection: Upgrade | Sec-WebSocket-Version: 13 | \
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

    /// A request from `METHOD version | Name: value | …`.
    fn request(text: &str) -> Parts {
        let mut lines = text.split(" | ").map(str::trim);
        let (method, version) = lines.next().unwrap().split_once(' ').unwrap();
        let version = if version == "1.1" { Version::HTTP_11 } else { Version::HTTP_10 };
        let mut builder = hyper::Request::builder().method(method).version(version).uri("/ws");
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            builder = builder.header(name, value.trim());
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_accept_key_is_the_one_of_rfc_6455() {
        let handshake = Handshake::check(&request(GOOD)).unwrap();
        assert_eq!(handshake.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn handshakes_are_told_from_what_only_resembles_one() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        for (from, to, ok) in [
            ("", "", true),
            ("websocket", "WebSocket", true),
            ("Connection: Upgrade", "Connection: keep-alive, upgrade", true),
            ("Connection: Upgrade", "Connection: keep-alive | Connection: UPGRADE", true),
            ("Version: 13", "Version: 8", true),
            (key, "AAAAAAAAAAAAAAAAAAAAAB==", true),
            ("GET 1.1", "GET 1.1 | Content-Length: 0", true),
            ("GET 1.1", "POST 1.1", false),
            ("GET 1.1", "HEAD 1.1", false),
            ("GET 1.1", "GET 1.0", false),
            ("websocket", "h2c", false),
            ("websocket", "websocket, h2c", false),
            ("Upgrade: websocket", "Upgrade: websocket | Upgrade: websocket", false),
            ("Connection: Upgrade", "Connection: keep-alive", false),
            ("Connection: Upgrade", "X: y", false),
            ("Version: 13", "Version: 7", false),
            ("Version: 13", "Version: 13, 8", false),
            ("Version: 13", "Other: 13", false),
            (key, "", false),
            (key, "dGhlIHNhbXBsZSBub25jZQ=", false),
            (key, "dGhlIHNhbXBsZSBub25jZQAA", false),
            (key, "dGhlIHNhbXBsZSBub25j-Q==", false),
            (key, "dGhlIHNhbXBsZSBub25jZQ== | Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", false),
            ("GET 1.1", "GET 1.1 | Content-Length: 5", false),
            ("GET 1.1", "GET 1.1 | Transfer-Encoding: chunked", false),
        ] {
            let text = if from.is_empty() { GOOD.to_owned() } else { GOOD.replacen(from, to, 1) };
            assert_eq!(Handshake::check(&request(&text)).is_ok(), ok, "{text}");
        }
    }

    #[test]
    fn offered_subprotocols_are_listed_in_order_over_all_lines() {
        for (fields, expected) in [
            ("", &[][..]),
            ("Sec-WebSocket-Protocol: ", &[]),
            ("Sec-WebSocket-Protocol: foo, bar,baz", &["foo", "bar", "baz"]),
            ("Sec-WebSocket-Protocol: foo | Sec-WebSocket-Protocol: bar", &["foo", "bar"]),
        ] {
            let text = if fields.is_empty() { GOOD.to_owned() } else { format!("{GOOD} | {fields}") };
            assert_eq!(Handshake::check(&request(&text)).unwrap().protocols, expected, "{fields}");
        }
    }

    #[test]
    fn the_answer_has_the_fields_of_the_handshake_and_the_nodes_own_but_not_in_their_place() {
        let handshake = Handshake::check(&request(&format!("{GOOD} | Sec-WebSocket-Protocol: foo"))).unwrap();
        let names = |headers: &HeaderMap| headers.keys().map(|name| name.to_string()).collect::<Vec<_>>();

        let (status, headers) = handshake.answer(None, HeaderMap::new()).unwrap();
        assert_eq!(status, 101);
        assert_eq!(names(&headers), ["upgrade", "connection", "sec-websocket-accept"]);

        let mut more = HeaderMap::new();
        more.append("set-cookie", HeaderValue::from_static("a"));
        more.append("set-cookie", HeaderValue::from_static("b"));
        more.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("permessage-deflate"));
        more.append(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("x"));
        more.append(CONTENT_LENGTH, HeaderValue::from_static("5"));
        let (_, headers) = handshake.answer(Some("foo"), more).unwrap();
        let all = ["upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol", "set-cookie"];
        assert_eq!(names(&headers), all);
        assert_eq!(headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);

        assert!(handshake.answer(Some("bar"), HeaderMap::new()).is_err(), "bar was not offered");
    }
}
