//! What a `websocket out` node with `control: true` obeys: `msg.action`.

use flowbay_sdk::{Error, Msg, Str, Value};

use crate::options::Options;

/// The property that says what to do.
const ACTION: &str = "action";
/// The property of an upgrade that waits for an answer, on the message that asks for one and on the answer.
pub const UPGRADE: &str = "_upgrade";
/// The longest reason that a close frame has room for, in bytes.
const MAX_REASON: usize = 123;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Lets a client in that waits.
    Accept {
        /// Which.
        upgrade: Upgrade,
        /// What the client is known as.
        identity: Value,
        /// The subprotocol, instead of the one that the listener would choose.
        protocol: Option<Str>,
    },
    /// Turns a client away that waits.
    Refuse {
        /// Which.
        upgrade: Upgrade,
        /// The HTTP status.
        status: u16,
        /// Why, for the log.
        reason: Str,
    },
    /// Ends the sessions that the message is for.
    Close {
        /// The code of the close frame.
        code: u16,
        /// Its reason.
        reason: Str,
    },
    /// Connects a client, to another URL if there is one.
    Connect {
        /// The URL.
        url: Option<Str>,
    },
    /// Ends a client's connection, and keeps it from coming back.
    Disconnect {
        /// The code of the close frame; without one the frame has none.
        code: Option<u16>,
        /// Its reason.
        reason: Str,
    },
}

/// An upgrade whose answer was left to a flow. It is all in the message: another generation of this library can answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Upgrade {
    /// The host's number for it.
    pub ticket: u64,
    /// The id of the listener that was asked.
    pub listener: Str,
    /// The subprotocols that the client offers.
    pub offered: Vec<Str>,
}

impl Upgrade {
    /// As [`UPGRADE`] of a message.
    pub fn to_value(&self) -> Value {
        // Text, as all ids are; a flow may well write it down as JSON.
        let object = [
            ("id", Value::from(self.ticket.to_string())),
            ("listener", Value::from(&self.listener)),
            ("protocols", self.offered.iter().collect()),
        ];
        Value::Object(object.into())
    }

    fn from_value(value: &Value) -> Option<Self> {
        Some(Self {
            ticket: value["id"].as_str()?.parse().ok()?,
            listener: value["listener"].as_str()?.into(),
            offered: value["protocols"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(Str::from)
                .collect(),
        })
    }
}

impl Action {
    /// What a message asks for; `None` when it has no `action`, and is to be sent.
    ///
    /// # Errors
    /// There is no such action, or a property that goes with it makes no sense.
    pub fn read(msg: &Msg) -> Result<Option<Self>, Error> {
        let Some(action) = msg.get(ACTION) else { return Ok(None) };
        let properties = Value::Object(Clone::clone(msg));
        let options = Options(&properties);
        Ok(Some(match action.as_str() {
            Some("accept") => Self::Accept {
                upgrade: upgrade(msg)?,
                identity: identity(msg)?,
                protocol: text(msg, "protocol")?.filter(|name| !name.is_empty()),
            },
            Some("refuse") => Self::Refuse {
                upgrade: upgrade(msg)?,
                status: options.whole("statusCode", 400..=599)?.unwrap_or(401) as u16,
                reason: text(msg, "reason")?.unwrap_or_default(),
            },
            Some("close") => Self::Close { code: code(options)?.unwrap_or(1000), reason: close_reason(msg)? },
            Some("connect") => Self::Connect { url: text(msg, "url")?.filter(|url| !url.is_empty()) },
            Some("disconnect") => {
                let (code, reason) = (code(options)?, close_reason(msg)?);
                // A frame with a reason has a code.
                let code = code.or((!reason.is_empty()).then_some(1000));
                Self::Disconnect { code, reason }
            }
            _ => {
                let shown: String = action.to_js_string().chars().take(60).collect();
                return Err(Error::new(format!(
                    "unknown action {shown:?}: it must be accept, refuse, close, connect or disconnect"
                )));
            }
        }))
    }
}

fn upgrade(msg: &Msg) -> Result<Upgrade, Error> {
    let upgrade = msg.get(UPGRADE).and_then(Upgrade::from_value);
    upgrade.ok_or_else(|| Error::new("msg._upgrade is not that of an upgrade that was asked about"))
}

/// As JSON has it: the same for the connection's first generation of code and for those that get it written down.
fn identity(msg: &Msg) -> Result<Value, Error> {
    let Some(identity) = msg.get("identity") else { return Ok(Value::Null) };
    Ok(Value::from_json(identity.to_json()?.as_bytes())?)
}

fn text(msg: &Msg, name: &str) -> Result<Option<Str>, Error> {
    match msg.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Str(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::new(format!("msg.{name} is not a text"))),
    }
}

/// A code that may be in a close frame (RFC 6455, 7.4): 1005, 1006 and 1015 stand for frames that never were.
fn code(options: Options<'_>) -> Result<Option<u16>, Error> {
    let code = options.whole("code", 1000..=4999)?.map(|code| code as u16);
    match code {
        Some(1004..=1006 | 1015..=2999) => {
            Err(Error::new(format!("msg.code may not be {}: that is no code to send", code.unwrap_or(0))))
        }
        code => Ok(code),
    }
}

fn close_reason(msg: &Msg) -> Result<Str, Error> {
    let reason = text(msg, "reason")?.unwrap_or_default();
    if reason.len() > MAX_REASON {
        return Err(Error::new(format!("msg.reason is longer than {MAX_REASON} bytes: {}", reason.len())));
    }
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Option<Action>, String> {
        let msg = Msg::try_from(Value::from_json(json.as_bytes()).unwrap()).unwrap();
        Action::read(&msg).map_err(|error| error.to_string())
    }

    fn upgrade() -> Upgrade {
        Upgrade { ticket: 7, listener: Str::from("l"), offered: vec![Str::from("a"), Str::from("b")] }
    }

    #[test]
    fn a_message_without_action_is_to_be_sent() {
        assert_eq!(read(r#"{"payload":"close","code":1}"#), Ok(None));
    }

    #[test]
    fn an_upgrade_comes_back_as_it_went_out_even_as_json() {
        let json = upgrade().to_value().to_json().unwrap();
        assert_eq!(
            read(&format!(r#"{{"action":"accept","identity":{{"a":1}},"protocol":"b","_upgrade":{json}}}"#)),
            Ok(Some(Action::Accept {
                upgrade: upgrade(),
                identity: Value::from_json(br#"{"a":1}"#).unwrap(),
                protocol: Some(Str::from("b"))
            }))
        );
        let refuse =
            |status, reason| Action::Refuse { upgrade: upgrade(), status, reason: Str::from(reason) };
        for (properties, expected) in
            [("", refuse(401, "")), (r#","statusCode":"403","reason":"no""#, refuse(403, "no"))]
        {
            let json = format!(r#"{{"action":"refuse","_upgrade":{json}{properties}}}"#);
            assert_eq!(read(&json), Ok(Some(expected)));
        }
    }

    #[test]
    fn what_is_left_out_of_an_action_has_its_default() {
        let empty = Str::default();
        for (json, expected) in [
            (r#"{"action":"close"}"#, Action::Close { code: 1000, reason: empty.clone() }),
            (
                r#"{"action":"close","code":4999,"reason":"r"}"#,
                Action::Close { code: 4999, reason: Str::from("r") },
            ),
            (r#"{"action":"connect"}"#, Action::Connect { url: None }),
            (r#"{"action":"connect","url":"ws://h"}"#, Action::Connect { url: Some(Str::from("ws://h")) }),
            (r#"{"action":"disconnect"}"#, Action::Disconnect { code: None, reason: empty }),
            (
                r#"{"action":"disconnect","reason":"r"}"#,
                Action::Disconnect { code: Some(1000), reason: Str::from("r") },
            ),
        ] {
            assert_eq!(read(json), Ok(Some(expected)), "{json}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let long = format!(r#"{{"action":"close","reason":"{}"}}"#, "é".repeat(62));
        for (json, names) in [
            (r#"{"action":"dance"}"#, "dance"),
            (r#"{"action":null}"#, "null"),
            (r#"{"action":7}"#, "7"),
            (r#"{"action":"Close"}"#, "Close"),
            (r#"{"action":"accept"}"#, "_upgrade"),
            (r#"{"action":"accept","_upgrade":{"id":"x","listener":"l"}}"#, "_upgrade"),
            (r#"{"action":"refuse","_upgrade":7}"#, "_upgrade"),
            (r#"{"action":"refuse","_upgrade":{"id":"1","listener":"l"},"statusCode":200}"#, "statusCode"),
            (r#"{"action":"close","code":1005}"#, "1005"),
            (r#"{"action":"close","code":1006}"#, "1006"),
            (r#"{"action":"close","code":2999}"#, "2999"),
            (r#"{"action":"close","code":999}"#, "code"),
            (r#"{"action":"close","code":5000}"#, "code"),
            (r#"{"action":"close","code":"x"}"#, "code"),
            (r#"{"action":"close","reason":7}"#, "reason"),
            (&long, "124"),
            (r#"{"action":"connect","url":7}"#, "url"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(names), "{json}: {error}");
        }
    }
}
