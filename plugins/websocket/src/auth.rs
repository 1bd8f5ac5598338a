//! Who may connect to a listener.
//!
//! Secrets come from the node's credentials, never from the flow file, and go nowhere from here: not into an error, a
//! log line, a status or a message. They are compared in a time that does not depend on where they differ (their length
//! is not hidden), with all that are known, so that the time does not tell which one came close.

use data_encoding::BASE64;
use flowbay_sdk::{Error, Str, UpgradeRequest, Value};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::options::{Options, wrong};

/// How a listener knows its clients.
pub enum Auth {
    /// It does not.
    None,
    /// By user and password.
    Basic(Vec<User>),
    /// By a token.
    Bearer(Vec<Token>),
    /// A flow decides about each request.
    Message,
}

/// One who may connect.
pub struct User {
    name: Str,
    password: Box<str>,
}

/// A token that lets in.
pub struct Token {
    /// What a client is called that has it.
    name: Str,
    secret: Box<str>,
}

/// Why a request has not the right credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It has none.
    Missing,
    /// It has a header that cannot be read.
    Malformed,
    /// It has others.
    Wrong,
}

impl Denied {
    /// For the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "no credentials",
            Self::Malformed => "malformed credentials",
            Self::Wrong => "wrong credentials",
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    None,
    Basic,
    Bearer,
    Message,
}

impl Auth {
    /// The way that the property `auth` names, with the secrets in the node's credentials.
    ///
    /// # Errors
    /// There is no such way, or a line of the credentials is not as it must be, or there is none: a listener that
    /// nobody can get into is a mistake, and one that lets everybody in instead would be a worse one. The error names
    /// the field and the line, not what is in it.
    pub fn read(options: Options<'_>, credentials: &Value) -> Result<Self, Error> {
        let ways =
            [("none", Way::None), ("basic", Way::Basic), ("bearer", Way::Bearer), ("message", Way::Message)];
        Ok(match options.choice("auth", &ways)?.unwrap_or(Way::None) {
            Way::None => Self::None,
            Way::Basic => Self::Basic(users(lines("users", "basic", credentials)?)?),
            Way::Bearer => Self::Bearer(tokens(lines("tokens", "bearer", credentials)?)?),
            Way::Message => Self::Message,
        })
    }

    /// What a refused client is told to come with: the value of `WWW-Authenticate`.
    pub fn challenge(&self, denied: Denied) -> &'static str {
        match (self, denied) {
            (Self::Basic(_), _) => r#"Basic realm="flowbay", charset="UTF-8""#,
            (_, Denied::Missing) => r#"Bearer realm="flowbay""#,
            (_, Denied::Malformed) => r#"Bearer realm="flowbay", error="invalid_request""#,
            (_, Denied::Wrong) => r#"Bearer realm="flowbay", error="invalid_token""#,
        }
    }

    /// Who sends a request; `None` when the listener does not ask, or a flow has to.
    ///
    /// # Errors
    /// It has not the right credentials.
    pub fn identify(&self, request: &UpgradeRequest) -> Result<Option<Str>, Denied> {
        match self {
            Self::None | Self::Message => Ok(None),
            Self::Basic(users) => {
                let given = given(request, "basic")?;
                let decoded = BASE64.decode(given.as_bytes()).map_err(|_| Denied::Malformed)?;
                let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Denied::Malformed)?;
                let (name, password) = (&decoded[..colon], &decoded[colon + 1..]);
                let is =
                    |user: &User| user.name.as_bytes().ct_eq(name) & user.password.as_bytes().ct_eq(password);
                find(users, is).map(|user| Some(user.name.clone()))
            }
            Self::Bearer(tokens) => {
                let given = given(request, "bearer")?;
                let is = |token: &Token| token.secret.as_bytes().ct_eq(given.as_bytes());
                find(tokens, is).map(|token| Some(token.name.clone()))
            }
        }
    }
}

/// What a request's `Authorization` says in that scheme, whose name may be in any case.
fn given<'a>(request: &'a UpgradeRequest, scheme: &str) -> Result<&'a str, Denied> {
    let header = request.header("authorization").ok_or(Denied::Missing)?;
    let (name, given) = header.trim().split_once(' ').ok_or(Denied::Malformed)?;
    if name.eq_ignore_ascii_case(scheme) { Ok(given.trim()) } else { Err(Denied::Malformed) }
}

/// The last of them that it is. Looks at all.
fn find<T>(all: &[T], is: impl Fn(&T) -> Choice) -> Result<&T, Denied> {
    let mut found = u32::MAX;
    for (number, one) in (0_u32..).zip(all) {
        found.conditional_assign(&number, is(one));
    }
    all.get(found as usize).ok_or(Denied::Wrong)
}

/// The lines of a credential field that have something in them, with their numbers.
fn lines<'a>(field: &str, way: &str, credentials: &'a Value) -> Result<Vec<(usize, &'a str)>, Error> {
    let text = credentials[field].as_str().unwrap_or_default();
    let lines: Vec<_> = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty()).collect();
    if lines.is_empty() {
        let must = format!("needs lines in the node's credential \"{field}\", which has none");
        return Err(wrong("auth", &Value::from(way), &must));
    }
    Ok(lines)
}

fn users(lines: Vec<(usize, &str)>) -> Result<Vec<User>, Error> {
    let user = |(number, line): (usize, &str)| match line.split_once(':') {
        Some((name, password)) if !name.is_empty() && !password.is_empty() => {
            Ok(User { name: name.into(), password: password.into() })
        }
        _ => Err(Error::new(format!("credential \"users\" must be lines user:password: line {number}"))),
    };
    lines.into_iter().map(user).collect()
}

/// Tokens have no colon as a rule; one that does needs a name before it.
fn tokens(lines: Vec<(usize, &str)>) -> Result<Vec<Token>, Error> {
    let token = |(place, (number, line)): (usize, (usize, &str))| {
        let (name, secret) = match line.split_once(':') {
            Some((name, secret)) => (name.trim().into(), secret.trim()),
            None => (Str::from(format!("token {place}")), line),
        };
        if name.is_empty() || secret.is_empty() {
            let error = format!("credential \"tokens\" must be lines token or name:token: line {number}");
            return Err(Error::new(error));
        }
        Ok(Token { name, secret: secret.into() })
    };
    (1..).zip(lines).map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::from_json(text.as_bytes()).unwrap()
    }

    fn read(auth: &str, credentials: &str) -> Result<Auth, String> {
        let properties = json(&format!(r#"{{"auth":"{auth}"}}"#));
        Auth::read(Options(&properties), &json(credentials)).map_err(|error| error.to_string())
    }

    const USERS: &str = r#"{"users":"anna:secret\n\n  bert:with:colon \nümit:gèheim\n"}"#;
    const TOKENS: &str = r#"{"tokens":"t-one\nsensor 7: t-two\n\nt-three"}"#;

    /// Names by which a listener may call its clients; the request is built by the integration tests' host, so
    /// here the parts below it are looked at.
    fn user(name: &[u8], password: &[u8]) -> Option<String> {
        let Ok(Auth::Basic(users)) = read("basic", USERS) else { panic!("not basic") };
        let is = |user: &User| user.name.as_bytes().ct_eq(name) & user.password.as_bytes().ct_eq(password);
        find(&users, is).ok().map(|user| user.name.to_string())
    }

    #[test]
    fn a_user_is_known_by_name_and_password_together() {
        for (name, password, known) in [
            ("anna", "secret", true),
            ("bert", "with:colon", true),
            ("ümit", "gèheim", true),
            ("anna", "with:colon", false),
            ("anna", "Secret", false),
            ("anna", "", false),
            ("", "", false),
            ("", "secret", false),
            ("anna:secret", "", false),
        ] {
            let expected = known.then(|| name.to_owned());
            assert_eq!(user(name.as_bytes(), password.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn a_token_has_the_name_before_it_or_its_number() {
        let Ok(Auth::Bearer(tokens)) = read("bearer", TOKENS) else { panic!("not bearer") };
        let named: Vec<_> = tokens.iter().map(|token| (&*token.name, &*token.secret)).collect();
        assert_eq!(named, [("token 1", "t-one"), ("sensor 7", "t-two"), ("token 3", "t-three")]);
    }

    #[test]
    fn without_a_way_nobody_is_asked() {
        assert!(matches!(read("none", USERS), Ok(Auth::None)));
        assert!(matches!(read("", USERS), Ok(Auth::None)));
        assert!(matches!(read("message", "{}"), Ok(Auth::Message)));
    }

    #[test]
    fn a_way_without_its_secrets_is_an_error_and_never_an_open_door() {
        for (auth, credentials, names) in [
            ("basic", "{}", "users"),
            ("basic", TOKENS, "users"),
            ("basic", r#"{"users":" \n "}"#, "users"),
            ("basic", r#"{"users":7}"#, "users"),
            ("bearer", USERS, "tokens"),
            ("bearer", "null", "tokens"),
            ("digest", USERS, "auth"),
        ] {
            let error = read(auth, credentials).err().unwrap();
            assert!(error.contains(names), "{error}");
        }
    }

    #[test]
    fn an_error_in_credentials_names_the_line_and_shows_no_secret() {
        for (auth, credentials) in [
            ("basic", r#"{"users":"anna:secret\n\nhunter2"}"#),
            ("basic", r#"{"users":"a:b\n\n:hunter2"}"#),
            ("bearer", r#"{"tokens":"a\n\n:hunter2"}"#),
        ] {
            let error = read(auth, credentials).err().unwrap();
            assert!(error.contains("line 3") && !error.contains("hunter2"), "{error}");
        }
    }
}
