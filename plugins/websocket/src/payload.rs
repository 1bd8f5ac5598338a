//! Frames into messages and messages into frames, in both modes.

use flowbay_sdk::{
    Blob, Msg, Object, Str, Value,
    message::{PAYLOAD, SESSION},
    value::JsonError,
};

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
    /// turns a Buffer into a string.
    fn parse(self) -> Option<Value> {
        match self {
            Data::Text(text) => Value::from_json(text.as_bytes()).ok(),
            Data::Binary(bytes) => Value::from_json(String::from_utf8_lossy(bytes).as_bytes()).ok(),
        }
    }
}

/// The `_session` of messages that a session brings.
pub fn session_value(id: &Str) -> Value {
    Value::Object(Object::from([("type", Value::from("websocket")), ("id", Value::from(id))]))
}

/// The message for received data. It always names the session, whatever the data says.
///
/// As an entire message, a JSON object is the message itself. All other JSON values become the payload, also `null`
/// (which ends Node-RED's process) and arrays (which Node-RED takes apart). Data that is not JSON is the payload
/// unchanged.
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

/// The session that a message is a reply to; `None` when it is for all.
pub fn reply_session(msg: &Msg) -> Option<&Value> {
    let session = msg.get(SESSION)?;
    (session["type"] == "websocket").then(|| &session["id"])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef";

    fn session() -> Value {
        session_value(&Str::from(ID))
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
    fn only_a_websocket_session_makes_a_reply() {
        let rows = [
            (r#"{"_session":{"type":"websocket","id":"a"}}"#, Some(Value::from("a"))),
            (r#"{"_session":{"type":"websocket"}}"#, Some(Value::Null)),
            (r#"{"_session":{"type":"tcp","id":"a"}}"#, None),
            (r#"{"_session":{}}"#, None),
            (r#"{"_session":"websocket"}"#, None),
            ("{}", None),
        ];
        for (text, expected) in rows {
            assert_eq!(reply_session(&msg(json(text))).cloned(), expected, "{text}");
        }
    }
}
