//! From which web pages browsers may connect.
//!
//! A browser connects to whatever host a page names, with the cookies and passwords it has for that host. It says which
//! page that was in the `Origin` header, which the page cannot forge. Other clients can say what they like, and mostly
//! say nothing: to keep them out is the business of [`crate::auth`].

use flowbay_sdk::{Error, Value};

use crate::options::wrong;

/// The name of the property that has them.
pub const ORIGINS: &str = "origins";
/// In the list: the origin whose host and port are those that the request asks for.
const SAME: &str = "same";
/// In the list and in the header: a page without an origin, as a file or a sandboxed frame.
const NULL: &str = "null";

/// The origins that may connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    same: bool,
    /// As [`normal`] writes them. Empty, with `same` false, for any.
    allowed: Vec<String>,
}

impl Origins {
    /// The origins in a list: `https://example.com`, `http://localhost:8080`, `same`, `null`.
    ///
    /// # Errors
    /// One of them is none of these.
    pub fn read(list: &[String]) -> Result<Self, Error> {
        let mut origins = Self::default();
        for text in list {
            if text == SAME {
                origins.same = true;
            } else {
                let must = "must list origins as https://example.com, \"same\" or \"null\"";
                let origin = normal(text).ok_or_else(|| wrong(ORIGINS, &Value::from(text.as_str()), must))?;
                origins.allowed.push(origin);
            }
        }
        Ok(origins)
    }

    /// Whether a request with that `Origin` and that `Host` may connect. One without origin is no browser's.
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if !self.same && self.allowed.is_empty() {
            return true;
        }
        let Some(origin) = normal(origin) else { return false };
        self.allowed.contains(&origin) || self.same && host.is_some_and(|host| is_same(&origin, host))
    }
}

/// An origin in the one form that all spellings of it have: lower case, without the port that its scheme implies and
/// without a slash at its end. `None` when it is none.
fn normal(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    if text == NULL {
        return Some(text);
    }
    let (scheme, authority) = text.split_once("://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let is_authority = authority.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@*\\".contains(&byte));
    if scheme.is_empty() || authority.is_empty() || !is_scheme || !is_authority {
        return None;
    }
    Some(format!("{scheme}://{}", without_port_of(scheme, authority)))
}

/// A host without its port when that is the one that the scheme implies.
fn without_port_of<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = match scheme {
        "http" | "ws" => ":80",
        "https" | "wss" => ":443",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// Whether a normal origin is the host that the request asks for. A proxy in front may speak TLS where this server does
/// not, so the scheme does not count.
fn is_same(origin: &str, host: &str) -> bool {
    let host = host.trim().to_ascii_lowercase();
    origin.split_once("://").is_some_and(|(scheme, authority)| authority == without_port_of(scheme, &host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str]) -> Origins {
        Origins::read(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[track_caller]
    fn check(list: &[&str], origin: Option<&str>, host: &str, allowed: bool) {
        assert_eq!(origins(list).allow(origin, Some(host)), allowed, "{origin:?} at {host} with {list:?}");
    }

    #[test]
    fn without_a_list_any_page_may_connect_and_without_an_origin_it_is_no_page() {
        check(&[], Some("https://evil.example"), "here", true);
        check(&[], None, "here", true);
        check(&["https://a.example"], None, "here", true);
        check(&["same"], None, "here", true);
    }

    #[test]
    fn an_origin_is_matched_whole_whatever_its_spelling() {
        let list = ["https://a.example", "HTTP://B.example:80/", "http://c.example:8080"];
        for (origin, allowed) in [
            ("https://a.example", true),
            ("https://A.EXAMPLE:443", true),
            ("http://b.example", true),
            ("http://c.example:8080", true),
            ("http://a.example", false),
            ("https://a.example:444", false),
            ("https://a.example.evil.example", false),
            ("https://evil.example/https://a.example", false),
            ("https://evil-a.example", false),
            ("http://c.example", false),
            ("null", false),
            ("", false),
            ("https://", false),
            ("a.example", false),
        ] {
            check(&list, Some(origin), "a.example", allowed);
        }
    }

    #[test]
    fn the_same_origin_is_the_host_that_was_asked_for() {
        for (origin, host, allowed) in [
            ("http://here:1880", "here:1880", true),
            ("https://here", "here", true),
            ("https://here", "here:443", true),
            ("https://here:443", "HERE", true),
            ("http://[::1]:1880", "[::1]:1880", true),
            ("http://here:1880", "here:1881", false),
            ("http://here", "here:1880", false),
            ("http://elsewhere:1880", "here:1880", false),
            ("null", "null", false),
        ] {
            check(&["same"], Some(origin), host, allowed);
        }
        assert!(!origins(&["same"]).allow(Some("http://here"), None));
        check(&["same", "null"], Some("null"), "here", true);
    }

    #[test]
    fn what_is_no_origin_is_an_error_that_names_the_property() {
        for text in ["*", "example.com", "https://*.example.com", "https://a.example/path", "://x", "self"] {
            let error = Origins::read(&[text.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("\"origins\"") && error.contains(text), "{error}");
        }
    }
}
