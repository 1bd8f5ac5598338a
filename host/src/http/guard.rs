//! Who may use admin routes.
//!
//! Without a token, only programs on this machine may. Loopback alone does not say that: a web page that is
//! open on this machine reaches loopback through its browser (directly, or by a DNS name of its own that
//! points to 127.0.0.1), and a reverse proxy on this machine brings the whole world. So the request's `Host`
//! must be a loopback name, an `Origin` must be this very server, and anything that shows that a proxy has touched
//! it is refused. (One that shows nothing cannot be told from a program: who runs such a proxy here sets a token.) With a
//! token set, the token is all that counts, from wherever.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{StatusCode, Version};
use sha2::{Digest, Sha256};

use super::HttpResponse;
use crate::admin;

/// The gatekeeper of admin routes.
pub struct AdminGuard {
    /// The token's digest. Digests are compared, so that the comparison takes the same time for any two texts,
    /// whatever their lengths; and the token itself does not stay in memory.
    token: Option<[u8; 32]>,
}

/// A request that may not use admin routes.
#[derive(Debug)]
pub struct Denied {
    /// What to answer.
    pub response: Box<HttpResponse>,
    /// Why, in words that hold nothing of the request.
    pub reason: &'static str,
}

/// Why a token file cannot be used, naming the file.
#[derive(Debug)]
pub enum TokenError {
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It has nothing but blanks.
    Empty(PathBuf),
    /// It has blanks inside, or characters that no HTTP header can carry.
    Unusable(PathBuf),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(file, error) => {
                write!(f, "cannot read the admin token file {}: {error}", file.display())
            }
            Self::Empty(file) => write!(f, "the admin token file {} is empty", file.display()),
            Self::Unusable(file) => write!(
                f,
                "the admin token file {} must hold one word of visible ASCII characters",
                file.display()
            ),
        }
    }
}

impl std::error::Error for TokenError {}

/// The field in which a browser says whose page is behind a request, of this very server or not.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The fields by which proxies say that they stand between; `X-Forwarded-…` is matched by its beginning.
const PROXY_FIELDS: [&str; 3] = ["forwarded", "via", "x-real-ip"];

impl AdminGuard {
    /// Admits only programs on this machine.
    #[must_use]
    pub fn loopback_only() -> Self {
        Self { token: None }
    }

    /// Admits whoever has the token.
    #[must_use]
    pub fn with_token(token: &str) -> Self {
        Self { token: Some(Sha256::digest(token).into()) }
    }

    /// The guard for a setting: with a file, its text without surrounding blanks is the token.
    ///
    /// # Errors
    /// The file cannot be read or holds no usable token.
    pub fn from_file(file: Option<&Path>) -> Result<Self, TokenError> {
        let Some(file) = file else { return Ok(Self::loopback_only()) };
        let text =
            std::fs::read_to_string(file).map_err(|error| TokenError::Unreadable(file.to_owned(), error))?;
        match text.trim() {
            "" => Err(TokenError::Empty(file.to_owned())),
            token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Self::with_token(token)),
            _ => Err(TokenError::Unusable(file.to_owned())),
        }
    }

    /// Lets a request through, or says what to answer instead.
    ///
    /// # Errors
    /// The request is refused: with 401 if the token is missing or wrong, with 403 if there is none and the request
    /// does not come straight from this machine.
    pub fn check(&self, remote: SocketAddr, request: &Parts) -> Result<(), Denied> {
        match &self.token {
            Some(token) => check_token(token, &request.headers).map_err(|reason| {
                let response = admin::error(StatusCode::UNAUTHORIZED, "unauthorized", reason);
                Denied { response: Box::new(response.with(WWW_AUTHENTICATE, "Bearer")), reason }
            }),
            None => check_local(remote, request).map_err(|reason| {
                let response = admin::error(StatusCode::FORBIDDEN, "forbidden", reason);
                Denied { response: Box::new(response), reason }
            }),
        }
    }
}

fn check_token(token: &[u8; 32], headers: &HeaderMap) -> Result<(), &'static str> {
    let Some(given) = single(headers, &AUTHORIZATION) else {
        return Err("admin requests need the header Authorization: Bearer <token>");
    };
    let given = given.and_then(|value| {
        let (scheme, given) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
    });
    let Some(given) = given else { return Err("the header Authorization must say Bearer <token>") };
    let given: [u8; 32] = Sha256::digest(given).into();
    let difference = given.iter().zip(token).fold(0, |difference, (one, other)| difference | (one ^ other));
    if difference == 0 { Ok(()) } else { Err("the token is wrong") }
}

fn check_local(remote: SocketAddr, request: &Parts) -> Result<(), &'static str> {
    let headers = &request.headers;
    // An IPv4 client of a socket that listens on :: shows as ::ffff:127.0.0.1.
    if !remote.ip().to_canonical().is_loopback() {
        return Err("admin requests are only for this machine unless an admin token is set");
    }
    let forwarded = headers.keys().map(|name| name.as_str());
    if forwarded.into_iter().any(|name| PROXY_FIELDS.contains(&name) || name.starts_with("x-forwarded-")) {
        return Err("admin requests through a proxy need an admin token");
    }
    // What nginx speaks with a server unless it is told otherwise; programs here hardly do.
    if request.version == Version::HTTP_10 {
        return Err("admin requests by HTTP/1.0, as proxies make them, need an admin token");
    }
    let host = single(headers, &HOST).flatten().filter(|host| is_loopback(host));
    let Some(host) = host else {
        return Err("without an admin token, Host must be localhost or a loopback address");
    };
    // The target may bring a host of its own, which counts like `Host`.
    let authority = request.uri.authority();
    if authority.is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(host)) {
        return Err("the request's target and its Host differ");
    }
    let own_origin =
        single(headers, &ORIGIN).is_none_or(|origin| origin.is_some_and(|origin| is_origin_of(origin, host)));
    // For an image, a frame or a script that a page of another site includes, browsers send no `Origin`.
    let own_site =
        single(headers, &FETCH_SITE).is_none_or(|site| matches!(site, Some("same-origin" | "none")));
    if own_origin && own_site { Ok(()) } else { Err("requests from other web pages need an admin token") }
}

/// A field that may be there once: `None` if it is absent, `Some(None)` if it is repeated or no text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let first: &HeaderValue = values.next()?;
    Some(if values.next().is_some() { None } else { first.to_str().ok() })
}

/// Whether `origin` is a page of `host`, by http or https.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let origin = origin.to_ascii_lowercase();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// Whether the value of a `Host` field means this machine: localhost, a name under it, 127.0.0.0/8 or `[::1]`, with
/// any port. Only the usual spellings count.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, port)) => {
                return address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
                    && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let name = name.to_ascii_lowercase();
    let is_local_name = name == "localhost"
        || name.strip_suffix(".localhost").is_some_and(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        });
    port.is_none_or(is_port)
        && (is_local_name || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()))
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Asks with these header lines, `Name: value | Name: value`.
    fn ask(guard: &AdminGuard, remote: &str, fields: &str) -> u16 {
        ask_for(guard, remote, "/inject/1", fields)
    }

    fn ask_for(guard: &AdminGuard, remote: &str, target: &str, fields: &str) -> u16 {
        let version = if fields.starts_with("HTTP/1.0") { Version::HTTP_10 } else { Version::HTTP_11 };
        let mut request = hyper::Request::builder().version(version).uri(target);
        for (name, value) in fields.split(" | ").filter_map(|field| field.split_once(": ")) {
            request = request.header(name, value);
        }
        match guard.check(remote.parse().unwrap(), &request.body(()).unwrap().into_parts().0) {
            Ok(()) => 200,
            Err(denied) => denied.response.status.as_u16(),
        }
    }

    #[test]
    fn without_a_token_only_direct_requests_of_this_machine_pass() {
        let guard = AdminGuard::loopback_only();
        let local = "127.0.0.1:5000";
        for (remote, fields, expected) in [
            (local, "Host: localhost:1880", 200),
            (local, "Host: localhost", 200),
            (local, "Host: LOCALHOST:1", 200),
            (local, "Host: bay.localhost:1880", 200),
            (local, "Host: 127.0.0.1:1880", 200),
            (local, "Host: 127.3.2.1", 200),
            (local, "Host: [::1]:1880", 200),
            (local, "Host: [::1]", 200),
            ("[::1]:5000", "Host: localhost", 200),
            ("[::ffff:127.0.0.1]:5000", "Host: localhost", 200),
            // Not from this machine.
            ("192.168.0.7:5000", "Host: localhost", 403),
            ("[::ffff:192.168.0.7]:5000", "Host: localhost", 403),
            ("[fe80::1]:5000", "Host: localhost", 403),
            // Browsers say nothing of the origin when a page of another site has them GET something, an image say; but
            // those of today say that it is another site.
            (local, "Host: localhost | Sec-Fetch-Site: cross-site", 403),
            (local, "Host: localhost:1880 | Sec-Fetch-Site: same-site | Sec-Fetch-Mode: no-cors", 403),
            (local, "Host: localhost | Sec-Fetch-Site: none | Sec-Fetch-Site: cross-site", 403),
            (local, "Host: localhost | Sec-Fetch-Site: same-origin", 200),
            (local, "Host: localhost | Sec-Fetch-Site: none", 200),
            // DNS rebinding: the name is the attacker's, the address ours.
            (local, "Host: evil.example:1880", 403),
            (local, "Host: localhost.evil.example", 403),
            (local, "Host: evil-localhost", 403),
            (local, "Host: .localhost", 403),
            (local, "Host: evil.example/.localhost", 403),
            (local, "Host: 127.0.0.1.evil.example", 403),
            (local, "Host: 10.0.0.1", 403),
            (local, "Host: 0.0.0.0", 403),
            (local, "Host: [::2]", 403),
            (local, "Host: [::1", 403),
            (local, "Host: [::1]evil", 403),
            (local, "Host: localhost:port", 403),
            (local, "Host: localhost:+1", 403),
            (local, "Host: user@localhost", 403),
            (local, "Host: localhost | Host: localhost", 403),
            (local, "", 403),
            // Web pages.
            (local, "Host: localhost:1880 | Origin: http://localhost:1880", 200),
            (local, "Host: localhost:1880 | Origin: https://localhost:1880", 200),
            (local, "Host: [::1]:1880 | Origin: http://[::1]:1880", 200),
            (local, "Host: localhost:1880 | Origin: http://localhost:3000", 403),
            (local, "Host: localhost:1880 | Origin: http://127.0.0.1:1880", 403),
            (local, "Host: localhost:1880 | Origin: http://evil.example", 403),
            (local, "Host: localhost | Origin: http://localhost/", 403),
            (local, "Host: localhost | Origin: null", 403),
            (local, "Host: localhost | Origin: ftp://localhost", 403),
            (local, "Host: localhost | Origin: http://localhost | Origin: http://localhost", 403),
            (local, "Host: evil.example | Origin: http://evil.example", 403),
            // Proxies.
            (local, "Host: localhost | Forwarded: for=1.2.3.4", 403),
            (local, "Host: localhost | X-Forwarded-For: 127.0.0.1", 403),
            (local, "Host: localhost | X-Forwarded-Anything: 1", 403),
            (local, "Host: localhost | Via: 1.1 nginx", 403),
            (local, "Host: localhost | X-Real-IP: 1.2.3.4", 403),
            (local, "HTTP/1.0 | Host: localhost | Connection: close", 403),
        ] {
            assert_eq!(ask(&guard, remote, fields), expected, "{remote} {fields}");
        }
    }

    #[test]
    fn a_target_with_a_host_of_its_own_must_agree_with_the_host_field() {
        let guard = AdminGuard::loopback_only();
        for (target, expected) in [
            ("http://localhost:1880/inject/1", 200),
            ("http://evil.example/inject/1", 403),
            ("http://localhost:1881/inject/1", 403),
        ] {
            assert_eq!(ask_for(&guard, "127.0.0.1:5", target, "Host: localhost:1880"), expected, "{target}");
        }
    }

    #[test]
    fn with_a_token_only_the_token_counts() {
        let guard = AdminGuard::with_token("s3cret");
        for (remote, fields, expected) in [
            ("192.168.0.7:5000", "Authorization: Bearer s3cret", 200),
            ("127.0.0.1:5000", "Authorization: bearer s3cret", 200),
            (
                "127.0.0.1:5000",
                "Authorization: Bearer s3cret | X-Forwarded-For: 1.2.3.4 | Host: a.example",
                200,
            ),
            ("127.0.0.1:5000", "Host: localhost", 401),
            ("127.0.0.1:5000", "Host: localhost | Authorization: Bearer s3cre", 401),
            ("127.0.0.1:5000", "Host: localhost | Authorization: Bearer s3cret2", 401),
            ("127.0.0.1:5000", "Authorization: Bearer S3CRET", 401),
            ("127.0.0.1:5000", "Authorization: Bearer ", 401),
            ("127.0.0.1:5000", "Authorization: s3cret", 401),
            ("127.0.0.1:5000", "Authorization: Basic s3cret", 401),
            ("127.0.0.1:5000", "Authorization: Bearer s3cret | Authorization: Bearer s3cret", 401),
        ] {
            assert_eq!(ask(&guard, remote, fields), expected, "{remote} {fields}");
        }
    }

    #[test]
    fn a_token_file_is_trimmed_and_must_hold_one_word() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let guard = |text: &str| {
            std::fs::write(&file, text).unwrap();
            AdminGuard::from_file(Some(&file))
        };
        let good = guard("\n s3cret \r\n").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(ask(&good, "127.0.0.1:5", "Authorization: Bearer s3cret"), 200);

        for (text, end) in
            [(" \n", "token is empty"), ("a b", "one word of visible ASCII characters"), ("ä", "characters")]
        {
            let Err(error) = guard(text) else { panic!("{text:?} was taken") };
            let message = error.to_string();
            assert!(message.contains(file.to_str().unwrap()) && message.ends_with(end), "{message}");
        }
        let Err(error) = AdminGuard::from_file(Some(Path::new("/no/token"))) else {
            panic!("it is not there")
        };
        assert!(error.to_string().starts_with("cannot read the admin token file /no/token: "), "{error}");
        assert!(AdminGuard::from_file(None).is_ok());
    }
}
