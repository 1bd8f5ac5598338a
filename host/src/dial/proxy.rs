//! Which proxy, if any, the environment names for a connection.

use std::borrow::Cow;
use std::env::VarError;
use std::fmt;
use std::net::IpAddr;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;

use super::authority;

/// The environment's proxies, in the form in which curl and most programs read them.
///
/// `HTTP_PROXY` is for plain connections, `HTTPS_PROXY` for those by TLS, `ALL_PROXY` for those that have none of
/// their own; `NO_PROXY` lists the hosts that are reached directly. In lower case each of them wins over upper case; an
/// empty one counts as none. The loopback interface is always reached directly: the proxy's is another one.
///
/// They are read for each connection. Nothing changes them while the host runs, so there is nothing to keep.
#[derive(Clone, Default)]
pub struct Proxies {
    plain: Option<Variable>,
    tls: Option<Variable>,
    all: Option<Variable>,
    none: String,
}

/// A variable and its value, which may have a password in it.
#[derive(Clone)]
struct Variable {
    name: &'static str,
    value: String,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("none", &self.none).finish_non_exhaustive()
    }
}

/// A proxy. Shown as `scheme://host:port`, without user and password.
pub struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) speech: Speech,
}

/// How a proxy is spoken with, and what it is told about who asks.
pub(super) enum Speech {
    /// HTTP: `CONNECT`, with the value of `Proxy-Authorization`.
    Http(Option<HeaderValue>),
    /// The same by TLS.
    Https(Option<HeaderValue>),
    /// SOCKS 5 (RFC 1928), with user and password. Names are looked up by the proxy.
    Socks5(Option<(String, String)>),
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match &self.speech {
            Speech::Http(_) => "http",
            Speech::Https(_) => "https",
            Speech::Socks5(_) => "socks5",
        };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

/// Why a variable does not name a proxy. The line names the variable, never its value: there may be a password in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyError {
    /// It is not the URL of a proxy.
    NotAProxy(&'static str),
    /// It names a kind of proxy that the host does not speak with.
    Unsupported(&'static str, String),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAProxy(variable) => {
                write!(f, "{variable} in the environment is not the URL of a proxy, such as http://host:3128")
            }
            Self::Unsupported(variable, scheme) => {
                write!(
                    f,
                    "{variable} in the environment names a {scheme} proxy; http, https and socks5 are known"
                )
            }
        }
    }
}

impl std::error::Error for ProxyError {}

impl Proxies {
    /// Those of the process.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::read(|name| match std::env::var(name) {
            Ok(value) => Some(value),
            // Not to be taken for none, and so for a direct connection.
            Err(VarError::NotUnicode(value)) => Some(value.to_string_lossy().into_owned()),
            Err(VarError::NotPresent) => None,
        })
    }

    /// Those of an environment in which the variable `name` has the value `value(name)`.
    #[must_use]
    pub fn read(value: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&'static str; 2]| {
            let given = |name| Some(Variable { name, value: value(name).filter(|text| !text.is_empty())? });
            names.into_iter().find_map(given)
        };
        Self {
            plain: first(["http_proxy", "HTTP_PROXY"]),
            tls: first(["https_proxy", "HTTPS_PROXY"]),
            all: first(["all_proxy", "ALL_PROXY"]),
            none: first(["no_proxy", "NO_PROXY"]).map_or(String::new(), |variable| variable.value),
        }
    }

    /// The proxy by which `host`, without brackets, is reached, by TLS or not; `None` for directly.
    ///
    /// # Errors
    /// The variable for it does not name a proxy.
    pub fn choose(&self, tls: bool, host: &str, port: u16) -> Result<Option<Proxy>, ProxyError> {
        let own = if tls { &self.tls } else { &self.plain };
        let Some(variable) = own.as_ref().or(self.all.as_ref()) else { return Ok(None) };
        if is_loopback(host) {
            return Ok(None);
        }
        let Some(exceptions) = exceptions(&self.none, port) else { return Ok(None) };
        let not_a_proxy = || ProxyError::NotAProxy(variable.name);
        let url = with_one_at(&variable.value);
        let proxy = Matcher::builder().http(&*url).build();
        let proxy = proxy.intercept(&Uri::from_static("http://destination")).ok_or_else(not_a_proxy)?;
        // What cannot stand in a URL is no exception either: a resolver may know it all the same, and a direct connection
        // is what nobody asked for.
        let destination = Uri::builder().scheme("http").authority(authority(host, port)).path_and_query("/");
        let destination = destination.build().ok().filter(|uri| uri.host().map(bare) == Some(host));
        let matcher = Matcher::builder().http(&*url).no(exceptions).build();
        if destination.is_some_and(|destination| matcher.intercept(&destination).is_none()) {
            return Ok(None);
        }
        let authorization = || proxy.basic_auth().cloned();
        let user = || proxy.raw_auth().map(|(user, password)| (user.to_owned(), password.to_owned()));
        let (speech, default_port) = match proxy.uri().scheme_str() {
            Some("http") => (Speech::Http(authorization()), 80),
            Some("https") => (Speech::Https(authorization()), 443),
            Some("socks5" | "socks5h") => (Speech::Socks5(user()), 1080),
            Some(other) => return Err(ProxyError::Unsupported(variable.name, other.to_owned())),
            None => return Err(not_a_proxy()),
        };
        let host = proxy.uri().host().filter(|host| !host.is_empty()).ok_or_else(not_a_proxy)?;
        Ok(Some(Proxy {
            host: bare(host).to_owned(),
            port: proxy.uri().port_u16().unwrap_or(default_port),
            speech,
        }))
    }
}

/// A host as a URL has it, without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The URL with no more than the last `@` of what stands before its path: the others, which belong to a password that is
/// written as it is, in the form that a URL asks for.
fn with_one_at(url: &str) -> Cow<'_, str> {
    let begin = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[begin..].find(['/', '?', '#']).map_or(url.len(), |path| begin + path);
    match url[begin..end].rsplit_once('@') {
        Some((user, _)) if user.contains('@') => {
            let (head, rest) = url.split_at(begin + user.len());
            Cow::Owned(format!("{}{}{rest}", &head[..begin], user.replace('@', "%40")))
        }
        _ => Cow::Borrowed(url),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

/// The entries of `NO_PROXY` that count for a port, as the matcher has them; `None` when it excepts all hosts.
///
/// The matcher knows names with all that is below them, addresses and networks. Beyond that, programs are given
/// spaces between entries, entries with a port, `*.name` for `.name`, and `*` also for addresses.
fn exceptions(list: &str, port: u16) -> Option<String> {
    let mut kept = Vec::new();
    for entry in list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()) {
        let entry = match entry.rsplit_once(':') {
            // Of an IPv6 address, brackets tell the port from its last part.
            Some((host, digits)) if !host.contains(':') || host.ends_with(']') => {
                match digits.parse::<u16>() {
                    Ok(only) if only != port => continue,
                    Ok(_) => host,
                    // No port: no host is called like that.
                    Err(_) => entry,
                }
            }
            _ => entry,
        };
        match bare(entry).strip_prefix('*') {
            Some("") => return None,
            Some(below) if below.starts_with('.') => kept.push(below),
            _ => kept.push(bare(entry)),
        }
    }
    Some(kept.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let known = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Proxies::read(|name| known(name).map(|(_, value)| (*value).to_owned()))
    }

    fn chosen(variables: &[(&str, &str)], tls: bool, host: &str, port: u16) -> String {
        match proxies(variables).choose(tls, host, port) {
            Ok(None) => "direct".to_owned(),
            Ok(Some(proxy)) => proxy.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_kind_of_connection_decides_about_the_variable() {
        let all = [("HTTP_PROXY", "http://h"), ("HTTPS_PROXY", "http://s"), ("ALL_PROXY", "http://a")];
        for (variables, plain, tls) in [
            (&all[..], "http://h:80", "http://s:80"),
            (&all[..1], "http://h:80", "direct"),
            (&all[1..2], "direct", "http://s:80"),
            (&all[2..], "http://a:80", "http://a:80"),
            (&all[1..], "http://a:80", "http://s:80"),
            (&[("http_proxy", "http://l"), ("HTTP_PROXY", "http://u")], "http://l:80", "direct"),
            (&[("https_proxy", ""), ("HTTPS_PROXY", "http://u")], "direct", "http://u:80"),
            (&[("HTTP_PROXY", ""), ("all_proxy", "http://a")], "http://a:80", "http://a:80"),
            (&[], "direct", "direct"),
        ] {
            assert_eq!(chosen(variables, false, "example.com", 80), plain, "{variables:?}");
            assert_eq!(chosen(variables, true, "example.com", 443), tls, "{variables:?}");
        }
    }

    #[test]
    fn a_proxy_is_a_url_with_or_without_scheme_port_and_user() {
        for (value, expected, authorization) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("http://proxy:3128/", "http://proxy:3128", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("https://proxy", "https://proxy:443", None),
            ("http://[::1]:8080", "http://[::1]:8080", None),
            ("http://me:secret@proxy:1", "http://proxy:1", Some("Basic bWU6c2VjcmV0")),
            ("https://me:p%40ss@proxy:1", "https://proxy:1", Some("Basic bWU6cEBzcw==")),
            ("http://me:p@ss@proxy:1", "http://proxy:1", Some("Basic bWU6cEBzcw==")),
            ("socks5://proxy", "socks5://proxy:1080", None),
            ("socks5h://me:p%40ss@proxy:1", "socks5://proxy:1", Some("me p@ss")),
        ] {
            let proxies = proxies(&[("HTTP_PROXY", value)]);
            let proxy = proxies.choose(false, "example.com", 80).unwrap().unwrap();
            assert_eq!(proxy.to_string(), expected);
            let told = match &proxy.speech {
                Speech::Http(header) | Speech::Https(header) => {
                    header.as_ref().map(|value| value.to_str().unwrap().to_owned())
                }
                Speech::Socks5(user) => user.as_ref().map(|(user, password)| format!("{user} {password}")),
            };
            assert_eq!(told.as_deref(), authorization, "{value}");
        }
    }

    #[test]
    fn a_variable_that_names_no_proxy_is_an_error_without_its_value_and_never_a_direct_connection() {
        for value in ["http://", "://secret@proxy", "ftp://secret@proxy", "http://me:secret@ proxy"] {
            assert_eq!(
                chosen(&[("HTTPS_PROXY", value)], true, "example.com", 443),
                "HTTPS_PROXY in the environment is not the URL of a proxy, such as http://host:3128",
                "{value}"
            );
        }
        assert_eq!(
            chosen(&[("all_proxy", "socks4://me:secret@proxy")], true, "example.com", 443),
            "all_proxy in the environment names a socks4 proxy; http, https and socks5 are known"
        );
        let shown = format!("{:?}", proxies(&[("HTTP_PROXY", "http://me:secret@proxy")]));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_no_proxy_lists_is_reached_directly() {
        for (list, host, direct) in [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.com", true),
            ("example.com", "www.example.com", true),
            (".example.com", "www.example.com", true),
            (".example.com", "example.com", true),
            ("*.example.com", "www.example.com", true),
            ("example.com", "notexample.com", false),
            ("other.com, example.com", "example.com", true),
            ("other.com example.com", "example.com", true),
            ("example.com:443", "example.com", true),
            ("example.com:80", "example.com", false),
            ("example.com:80,example.com", "example.com", true),
            ("*", "example.com", true),
            ("*", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.0/24", "192.0.2.7", true),
            ("192.0.2.0/24", "192.0.3.7", false),
            ("2001:db8::/32", "2001:db8::7", true),
            ("2001:db8::7", "2001:db8::7", true),
            ("[2001:db8::7]:443", "2001:db8::7", true),
            ("[2001:db8::7]:80", "2001:db8::7", false),
            (", ,", "example.com", false),
            // What makes no sense excepts nothing.
            ("example.com:many", "example.com", false),
            ("example.com:99999", "example.com", false),
            (":443", "example.com", false),
            ("http://example.com", "example.com", false),
            (".", "example.com", false),
            ("[2001:db8::]/32", "2001:db8::7", false),
        ] {
            let variables = [("HTTPS_PROXY", "http://proxy"), ("NO_PROXY", list)];
            let expected = if direct { "direct" } else { "http://proxy:80" };
            assert_eq!(chosen(&variables, true, host, 443), expected, "{list:?} {host}");
        }
    }

    #[test]
    fn a_name_that_stands_in_no_url_is_no_reason_to_go_directly() {
        for host in ["bücher.example", "a b", "a/b", "a\u{0}b", "user@example.com"] {
            let variables = [("ALL_PROXY", "http://proxy"), ("NO_PROXY", "example.com")];
            assert_eq!(chosen(&variables, false, host, 80), "http://proxy:80", "{host:?}");
        }
    }

    #[test]
    fn the_loopback_interface_is_reached_directly() {
        for host in ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.1.2.3", "::1"] {
            assert_eq!(chosen(&[("ALL_PROXY", "http://proxy")], false, host, 80), "direct", "{host}");
        }
        assert_eq!(chosen(&[("ALL_PROXY", "http://proxy")], false, "notlocalhost", 80), "http://proxy:80");
    }
}
