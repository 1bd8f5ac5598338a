//! Frames into messages and messages into frames, in both modes.

use std::{borrow::Cow, collections::HashSet};

use flowbay_sdk::{
    Blob, Msg, Object, Str, Value,
    message::{PAYLOAD, SESSION},
    value::JsonError,
};

use crate::session;

/// What a frame stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The message's payload.
    Payload,
    /// The entire message, as JSON.
    Whole,
}

/// A data frame, or the joined fragments of one.
#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// Of a text frame.
    Text(&'a str),
    /// Of a binary frame.
    Binary(&'a [u8]),
}

impl Data<'_> {
    fn to_value(self) -> Value {
        match self {
            Data::Text(text) => Value::Str(Str::from(text)),
            Data::Binary(bytes) => Value::Bytes(Blob::from(bytes)),
        }
    }

    /// The value that the data is as JSON. Binary data is read as UTF-8 with replacement characters, as Node.js
    /// turns a Buffer into a string. `None` when it is not JSON, or more of it than a peer may have made of a message.
    fn parse(self) -> Option<Value> {
        let text = match self {
            Data::Text(text) => Cow::Borrowed(text),
            Data::Binary(bytes) => String::from_utf8_lossy(bytes),
        };
        if has_more_values(text.as_bytes(), MAX_VALUES) {
            return None;
        }
        Value::from_json(text.as_bytes()).ok()
    }
}

/// Values in the JSON of one entire message. A text of `[{"":0},…]` takes many times its size as values, and any
/// peer may send it: this bounds what becomes of one message.
const MAX_VALUES: usize = 1_000_000;

/// Whether JSON has more values than `most`, by what separates them. Short texts, which cannot, are not even looked at.
fn has_more_values(json: &[u8], most: usize) -> bool {
    if json.len() / 2 <= most {
        return false;
    }
    let (mut values, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b',' | b'[' | b'{') => values += 1,
            _ => {}
        }
    }
    values > most
}

/// The message for received data. It always names the session, whatever the data says.
///
/// As an entire message, a JSON object is the message itself. All other JSON values become the payload, also `null`
/// (which ends Node-RED's process) and arrays (which Node-RED takes apart). Data that is not JSON is the payload
/// unchanged, as is JSON of more than a million values.
pub fn to_message(data: Data<'_>, mode: Mode, session: &Value) -> Msg {
    let mut msg = match mode {
        Mode::Payload => Msg::with_payload(data.to_value()),
        Mode::Whole => match data.parse() {
            Some(Value::Object(whole)) => Msg::from(whole),
            Some(value) => Msg::with_payload(value),
            None => Msg::with_payload(data.to_value()),
        },
    };
    msg.set(SESSION, session.clone());
    msg
}

/// What a message is sent as: text for a text frame, bytes for a binary frame, `None` when there is nothing to send
/// because the message has no payload.
///
/// # Errors
/// The message cannot be written as JSON.
pub fn to_frame(msg: &Msg, mode: Mode) -> Result<Option<Value>, JsonError> {
    match mode {
        Mode::Payload => msg.get(PAYLOAD).map(payload_frame).transpose(),
        Mode::Whole => {
            // The session is the way back, not part of what is said. Only the copy loses it.
            let mut whole = Object::clone(msg);
            whole.remove(SESSION);
            Ok(Some(Value::from(Value::Object(whole).to_json()?)))
        }
    }
}

fn payload_frame(payload: &Value) -> Result<Value, JsonError> {
    Ok(match payload {
        Value::Str(_) | Value::Bytes(_) => payload.clone(),
        Value::Array(_) | Value::Object(_) => Value::from(payload.to_json()?),
        other => Value::from(other.to_js_string()),
    })
}

/// For which sessions a message is.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// It names none: for all.
    All,
    /// For those with these ids, each once.
    These {
        /// The ids.
        ids: Vec<&'a str>,
        /// How many further ids it names that cannot be any session's, being no texts.
        impossible: u64,
    },
    /// For all but these.
    AllBut(Vec<&'a str>),
}

impl Target<'_> {
    /// Whether the message is for the session with that id.
    pub fn has(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::These { ids, .. } => ids.contains(&id),
            Self::AllBut(ids) => !ids.contains(&id),
        }
    }
}

/// For which sessions a message is: those of its `_session.id`, which is one or an array of several; all but those of
/// `_session.except` when it has no `id`; all when it has no `_session`, or that of something else. An `except` needs no
/// `type`: a flow writes it by hand, and what it forgot must not send a message to those whom it excepts.
pub fn target(msg: &Msg) -> Target<'_> {
    let is_ours = |session: &&Value| {
        session["type"] == session::TYPE || session["type"].is_null() && !session["except"].is_null()
    };
    let Some(session) = msg.get(SESSION).filter(is_ours) else {
        return Target::All;
    };
    match (&session["id"], &session["except"]) {
        (Value::Null, Value::Null) => Target::These { ids: Vec::new(), impossible: 1 },
        (Value::Null, except) => Target::AllBut(texts(except).0),
        (id, _) => {
            let (mut ids, impossible) = texts(id);
            if ids.len() > 1 {
                let mut seen = HashSet::new();
                ids.retain(|id| seen.insert(*id));
            }
            Target::These { ids, impossible }
        }
    }
}

/// The texts in a value that is one or an array of them, and how much in it is none.
fn texts(value: &Value) -> (Vec<&str>, u64) {
    let values = match value {
        Value::Array(values) => &values[..],
        one => std::slice::from_ref(one),
    };
    let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
    let others = values.len() - texts.len();
    (texts, others as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef";

    fn session() -> Value {
        session::minimal(&Str::from(ID))
    }

    fn json(text: &str) -> Value {
        Value::from_json(text.as_bytes()).unwrap()
    }

    fn bytes(bytes: &[u8]) -> Value {
        Value::Bytes(Blob::from(bytes))
    }

    /// The expected message, without the `_session` that each must have.
    fn check_received(data: Data<'_>, mode: Mode, expected: Value) {
        let mut msg = to_message(data, mode, &session());
        assert_eq!(msg.remove(SESSION), Some(session()), "session of {data:?}");
        assert_eq!(Value::from(msg), expected, "{data:?} in mode {mode:?}");
    }

    fn with_payload(payload: impl Into<Value>) -> Value {
        Value::Object(Object::from([("payload", payload.into())]))
    }

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (json, values) in [
            (r#"[1,2,3]"#, 3),
            (r#"{"a":[],"b":{}}"#, 4),
            (r#"["a,b,[{","\",,","\\",1]"#, 4),
            (r#"{"a,b":",,,,,,,,"}"#, 1),
        ] {
            assert!(has_more_values(json.as_bytes(), values - 1), "{json} has {values}");
            assert!(!has_more_values(json.as_bytes(), values), "{json} has {values}");
        }
    }

    #[test]
    fn json_of_too_many_values_is_text_and_long_strings_are_no_matter() {
        let many = format!("[{}0]", r#"{"":0},"#.repeat(MAX_VALUES));
        check_received(Data::Text(&many), Mode::Whole, with_payload(many.as_str()));
        let long = format!(r#"{{"payload":"{}"}}"#, ",".repeat(3 * MAX_VALUES));
        check_received(Data::Text(&long), Mode::Whole, json(&long));
    }

    #[test]
    fn in_payload_mode_a_frame_is_the_payload() {
        let rows = [
            (Data::Text("hello"), Value::from("hello")),
            (Data::Text(""), Value::from("")),
            (Data::Text(r#"{"a":1}"#), Value::from(r#"{"a":1}"#)),
            (Data::Text("null"), Value::from("null")),
            (Data::Binary(&[1, 2, 255]), bytes(&[1, 2, 255])),
            (Data::Binary(&[]), bytes(&[])),
        ];
        for (data, payload) in rows {
            check_received(data, Mode::Payload, with_payload(payload));
        }
    }

    #[test]
    fn in_whole_mode_an_object_is_the_message() {
        let rows = [
            r#"{"payload":"x","topic":"t","_msgid":"fixed"}"#,
            r#"{"a":1}"#,
            "{}",
            r#"{"payload":{"type":"Buffer","data":[1,2]}}"#,
        ];
        for text in rows {
            check_received(Data::Text(text), Mode::Whole, json(text));
            check_received(Data::Binary(text.as_bytes()), Mode::Whole, json(text));
        }
    }

    #[test]
    fn in_whole_mode_any_other_json_is_the_payload() {
        for text in
            ["42", "1.5", r#""str""#, "true", "null", "[]", "[1,2]", r#"[{"payload":1},{"payload":2}]"#]
        {
            check_received(Data::Text(text), Mode::Whole, with_payload(json(text)));
        }
        let text = "[[{\"payload\":\"i\"}]]";
        check_received(Data::Binary(text.as_bytes()), Mode::Whole, with_payload(json(text)));
    }

    #[test]
    fn in_whole_mode_what_is_not_json_is_the_payload_unchanged() {
        check_received(Data::Text("{bad"), Mode::Whole, with_payload("{bad"));
        check_received(Data::Text(""), Mode::Whole, with_payload(""));
        check_received(Data::Binary(&[255, 1]), Mode::Whole, with_payload(bytes(&[255, 1])));
        check_received(Data::Binary(&[]), Mode::Whole, with_payload(bytes(&[])));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        check_received(Data::Text(&deep), Mode::Whole, with_payload(deep.as_str()));
    }

    #[test]
    fn binary_json_is_read_as_utf_8_with_replacement_characters() {
        check_received(Data::Binary(b"\"a\xff\""), Mode::Whole, with_payload("a\u{fffd}"));
    }

    #[test]
    fn the_session_in_the_data_is_replaced_by_the_real_one() {
        let text = r#"{"payload":1,"_session":{"type":"websocket","id":"evil"}}"#;
        check_received(Data::Text(text), Mode::Whole, with_payload(1));
    }

    fn msg(object: Value) -> Msg {
        Msg::try_from(object).unwrap()
    }

    fn check_sent(message: Value, mode: Mode, expected: Option<Value>) {
        assert_eq!(to_frame(&msg(message.clone()), mode), Ok(expected), "{message:?} in mode {mode:?}");
    }

    #[test]
    fn in_payload_mode_the_payload_is_sent_as_node_red_prints_it() {
        let rows = [
            (Value::from("hi"), "hi"),
            (Value::from(""), ""),
            (Value::from(0), "0"),
            (Value::from(1.5), "1.5"),
            (Value::from(1.0), "1"),
            (Value::from(f64::NAN), "NaN"),
            (Value::from(true), "true"),
            (Value::from(false), "false"),
            (Value::Null, "null"),
            (json("[1,2]"), "[1,2]"),
            (
                Value::Object(Object::from([("a", Value::from(1)), ("c", bytes(b"x"))])),
                r#"{"a":1,"c":{"type":"Buffer","data":[120]}}"#,
            ),
        ];
        for (payload, text) in rows {
            check_sent(with_payload(payload), Mode::Payload, Some(Value::from(text)));
        }
        check_sent(with_payload(bytes(&[1, 2])), Mode::Payload, Some(bytes(&[1, 2])));
        check_sent(with_payload(bytes(&[])), Mode::Payload, Some(bytes(&[])));
    }

    #[test]
    fn in_payload_mode_a_message_without_payload_sends_nothing() {
        check_sent(json(r#"{"topic":"t"}"#), Mode::Payload, None);
    }

    #[test]
    fn in_whole_mode_the_message_is_sent_as_json() {
        for text in [r#"{"_msgid":"m","payload":"x","topic":"t"}"#, r#"{"_msgid":"m","a":null}"#, "{}"] {
            check_sent(json(text), Mode::Whole, Some(Value::from(text)));
        }
        check_sent(
            Value::Object(Object::from([("_msgid", Value::from("m")), ("payload", bytes(&[1, 2]))])),
            Mode::Whole,
            Some(Value::from(r#"{"_msgid":"m","payload":{"type":"Buffer","data":[1,2]}}"#)),
        );
    }

    #[test]
    fn in_whole_mode_the_session_is_not_sent_and_stays_on_the_message() {
        let message = msg(json(r#"{"payload":1,"_session":{"type":"websocket","id":"i"},"topic":"t"}"#));
        assert_eq!(to_frame(&message, Mode::Whole), Ok(Some(Value::from(r#"{"payload":1,"topic":"t"}"#))));
        assert_eq!(message[SESSION]["id"], "i");
    }

    #[test]
    fn a_message_too_deep_for_json_is_an_error() {
        let mut payload = Value::Null;
        for _ in 0..1000 {
            payload = Value::Array([payload].into());
        }
        for mode in [Mode::Payload, Mode::Whole] {
            assert_eq!(to_frame(&Msg::with_payload(payload.clone()), mode), Err(JsonError::TooDeep));
        }
    }

    #[test]
    fn the_session_says_for_whom_a_message_is() {
        let these = |ids: &[&'static str], impossible| Target::These { ids: ids.to_vec(), impossible };
        for (session, expected) in [
            (r#"{"type":"websocket","id":"a"}"#, these(&["a"], 0)),
            (r#"{"type":"websocket","id":["a","b","a"]}"#, these(&["a", "b"], 0)),
            (r#"{"type":"websocket","id":["a",7,null]}"#, these(&["a"], 2)),
            (r#"{"type":"websocket","id":[]}"#, these(&[], 0)),
            (r#"{"type":"websocket","id":7}"#, these(&[], 1)),
            (r#"{"type":"websocket","id":""}"#, these(&[""], 0)),
            // Names a session, but none that exists.
            (r#"{"type":"websocket"}"#, these(&[], 1)),
            (r#"{"type":"websocket","except":"a"}"#, Target::AllBut(vec!["a"])),
            (r#"{"type":"websocket","id":null,"except":["a",7,"b"]}"#, Target::AllBut(vec!["a", "b"])),
            (r#"{"type":"websocket","except":[]}"#, Target::AllBut(vec![])),
            (r#"{"type":"websocket","id":"a","except":"a"}"#, these(&["a"], 0)),
            (r#"{"except":"a"}"#, Target::AllBut(vec!["a"])),
            (r#"{"type":null,"id":null,"except":["a","b"]}"#, Target::AllBut(vec!["a", "b"])),
            (r#"{"id":"a","except":"b"}"#, these(&["a"], 0)),
            (r#"{"type":"tcp","id":"a","except":"b"}"#, Target::All),
            (r#"{"type":"tcp","except":"b"}"#, Target::All),
            (r#"{"id":"a"}"#, Target::All),
            ("{}", Target::All),
            (r#""websocket""#, Target::All),
            ("null", Target::All),
        ] {
            let msg = msg(json(&format!(r#"{{"_session":{session}}}"#)));
            assert_eq!(target(&msg), expected, "{session}");
        }
        assert_eq!(target(&msg(json("{}"))), Target::All);
    }
}
