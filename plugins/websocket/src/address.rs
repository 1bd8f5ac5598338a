//! The address of a WebSocket server.

use std::fmt;

/// Where a client connects to: a `ws://` or `wss://` URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Name or IP address, in lower case, an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, as they go into the request.
    pub target: String,
    /// User and password, when the URL has them.
    pub user: Option<(String, String)>,
}

/// A URL that does not say where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidUrl(String);

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invalid URL: {}", self.0)
    }
}

impl std::error::Error for InvalidUrl {}

/// What follows the scheme, and whether that is the one with TLS.
fn split_scheme(url: &str) -> Option<(bool, &str)> {
    let has = |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if has("ws://") {
        Some((false, &url["ws://".len()..]))
    } else if has("wss://") {
        Some((true, &url["wss://".len()..]))
    } else {
        None
    }
}

impl Address {
    /// Whether a configuration's path makes it a client: it begins with `ws://` or `wss://`.
    pub fn is_url(path: &str) -> bool {
        split_scheme(path).is_some()
    }

    /// Takes a URL apart. Fragments are left out; what may not stand in a request is percent-encoded. Names with
    /// letters outside of ASCII must be given in their `xn--` form.
    ///
    /// # Errors
    /// There is no valid host or port in it.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        Self::take_apart(url.trim()).ok_or_else(|| InvalidUrl(without_secrets(url)))
    }

    fn take_apart(url: &str) -> Option<Self> {
        let (tls, rest) = split_scheme(url)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?', '\\']).unwrap_or(rest.len()));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user.split_once(':').unwrap_or((user, ""))), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if port.is_empty() { port } else { port.strip_prefix(':')? })
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        let is_bracketed = place.starts_with('[');
        if host.is_empty() || !(is_bracketed || host.bytes().all(is_host_byte)) {
            return None;
        }
        let port = match port {
            "" if tls => 443,
            "" => 80,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            _ => return None,
        };
        Some(Self {
            tls,
            host: host.to_ascii_lowercase(),
            port,
            target: encode_target(target),
            user: user
                .filter(|(name, password)| !(name.is_empty() && password.is_empty()))
                .map(|(name, password)| (percent_decode(name), percent_decode(password))),
        })
    }

    /// The value of the `Host` header: the port only where it is not the scheme's own.
    pub fn host_header(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default_port = if self.tls { 443 } else { 80 };
        if self.port == default_port { host } else { format!("{host}:{}", self.port) }
    }

    /// The URL without user and password, for messages.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.host_header(), self.target)
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "wss" } else { "ws" }
    }
}

/// For the log: without user, password and query, which may hold secrets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", self.scheme(), self.host_header())
    }
}

/// A URL that could not be taken apart, perhaps one with another scheme, fit for the log: without what may be a user, a
/// password or a query.
fn without_secrets(url: &str) -> String {
    let end = url.find(['?', '#']).filter(|end| !url[*end..].contains('@')).unwrap_or(url.len());
    let url = &url[..end];
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        (_, Some(at)) => format!("***{}", &url[at..]),
        (_, None) => url.to_owned(),
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'')
}

/// The request target: begins with a slash, holds only what a request line may.
fn encode_target(target: &str) -> String {
    let mut encoded = String::with_capacity(target.len() + 1);
    if !target.starts_with(['/', '\\']) {
        encoded.push('/');
    }
    let mut in_query = false;
    for byte in target.bytes() {
        match byte {
            b'\\' if !in_query => encoded.push('/'),
            b'!' | b'#'..=b';' | b'=' | b'?'..=b'_' | b'a'..=b'z' | b'|' | b'~' => {
                in_query |= byte == b'?';
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok()))
            .flatten();
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_decides_the_role() {
        for url in ["ws://h", "wss://h", "WS://h", "WsS://h", "ws://"] {
            assert!(Address::is_url(url), "{url}");
        }
        for path in ["", "/ws", "ws", "ws:/h", "wsss://h", "http://h", "/ws://h", "ẅs://h"] {
            assert!(!Address::is_url(path), "{path}");
        }
    }

    fn check(url: &str, tls: bool, host: &str, port: u16, target: &str, host_header: &str) {
        let address = Address::parse(url).unwrap_or_else(|error| panic!("{error}"));
        let found = (address.tls, address.host.as_str(), address.port, address.target.as_str());
        assert_eq!(found, (tls, host, port, target), "{url}");
        assert_eq!(address.host_header(), host_header, "{url}");
    }

    #[test]
    fn a_url_is_taken_apart() {
        check("ws://localhost:1880/ws/echo", false, "localhost", 1880, "/ws/echo", "localhost:1880");
        check("ws://localhost", false, "localhost", 80, "/", "localhost");
        check("wss://localhost", true, "localhost", 443, "/", "localhost");
        check("WSS://Example.COM:443/A?b=C#d", true, "example.com", 443, "/A?b=C", "example.com");
        check("ws://h:443", false, "h", 443, "/", "h:443");
        check("ws://h:/x", false, "h", 80, "/x", "h");
        check("ws://h?q=1", false, "h", 80, "/?q=1", "h");
        check("ws://h/a b/ü?ü \"", false, "h", 80, "/a%20b/%C3%BC?%C3%BC%20%22", "h");
        check("ws://h/%20", false, "h", 80, "/%20", "h");
        check(" ws://h/x ", false, "h", 80, "/x", "h");
        check("ws://127.0.0.1:8080", false, "127.0.0.1", 8080, "/", "127.0.0.1:8080");
        check("ws://[::1]:8080/x", false, "::1", 8080, "/x", "[::1]:8080");
        check("ws://[::1]", false, "::1", 80, "/", "[::1]");
        check("ws://h/a\r\nX: y", false, "h", 80, "/a%0D%0AX:%20y", "h");
    }

    #[test]
    fn a_url_without_a_valid_host_or_port_is_invalid() {
        for url in [
            "ws://",
            "wss://",
            "ws:///x",
            "ws://:80",
            "ws://h:x",
            "ws://h:99999",
            "ws://h:-1",
            "ws://h:+1",
            "ws://a b",
            "ws://h\r\nX: y",
            "ws://[::1",
            "ws://[x]",
            "ws://[::1]x",
            "ws://u@",
            "ws://ü",
            "ws://?q",
            "/x",
        ] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
        assert_eq!(Address::parse("ws://").unwrap_err().to_string(), "Invalid URL: ws://");
    }

    #[test]
    fn user_and_password_are_decoded() {
        let user = |url: &str| Address::parse(url).unwrap().user;
        assert_eq!(user("ws://u:p@h"), Some(("u".to_owned(), "p".to_owned())));
        assert_eq!(user("ws://u@h"), Some(("u".to_owned(), String::new())));
        assert_eq!(user("ws://u%40x:p%3Aq%@h"), Some(("u@x".to_owned(), "p:q%".to_owned())));
        assert_eq!(user("ws://@h"), None);
        assert_eq!(user("ws://h"), None);
    }

    #[test]
    fn the_log_shows_no_secrets() {
        assert_eq!(Address::parse("wss://u:p@h:1/x?token=t").unwrap().to_string(), "wss://h:1/x");
        let url = Address::parse("wss://u:p@h:1/x?token=t#f").unwrap().url();
        assert_eq!(url, "wss://h:1/x?token=t", "messages show the query, which is the flow's own");
        for (url, shown) in [
            ("ws://u:p@h:x", "ws://***@h:x"),
            ("ws://u:p/q?r#s@h:x", "ws://***@h:x"),
            ("ws://h:x/y?token=t", "ws://h:x/y"),
            ("ws://u:p@h:x/y?token=t", "ws://***@h:x/y"),
            ("http://u:p@h/?token=t", "http://***@h/"),
            ("u:p@h", "***@h"),
        ] {
            assert_eq!(Address::parse(url).unwrap_err().to_string(), format!("Invalid URL: {shown}"));
        }
    }
}
