//! A frame's way into a message and back, and JSON into values and back.

#![no_main]

// The plugin is a library to load, not one to link with; these files of it need nothing but the SDK.
#[path = "../../../plugins/websocket/src/payload.rs"]
#[allow(dead_code, unused_imports)]
mod payload;
#[path = "../../../plugins/websocket/src/session.rs"]
#[allow(dead_code, unused_imports)]
mod session;

use flowbay_sdk::{Value, message::SESSION};
use libfuzzer_sys::fuzz_target;
use payload::{Data, Mode, to_frame, to_message};

fn session() -> Value {
    let session = br#"{"type":"websocket","id":"0123456789abcdef"}"#;
    Value::from_json(session).expect("it is JSON")
}

/// A value that was read is written as JSON that reads as a value that is written the same. (It need not be the same: a
/// number beyond 2^53 that was read as a fraction is written as the whole number that it is.)
fn check_round_trip(value: &Value) -> String {
    let text = value.to_json().expect("what was read can be written");
    let again = Value::from_json(text.as_bytes()).expect("what was written can be read");
    assert_eq!(again.to_json().expect("as before"), text);
    text.to_string()
}

fn check_frame(data: Data<'_>, mode: Mode) {
    let msg = to_message(data, mode, &session());
    assert_eq!(msg.get(SESSION), Some(&session()), "a peer has named the session");
    for out in [Mode::Payload, Mode::Whole] {
        let Ok(Some(frame)) = to_frame(&msg, out) else {
            let deepest = matches!(mode, Mode::Whole) && matches!(out, Mode::Whole);
            let without_payload = matches!(out, Mode::Payload) && msg.get("payload").is_none();
            assert!(without_payload || deepest, "a message that came in cannot go out");
            continue;
        };
        if let (Mode::Whole, Value::Str(text)) = (out, &frame) {
            // An entire message comes back as it went.
            let mut back = to_message(Data::Text(text), Mode::Whole, &session());
            let mut sent = msg.clone();
            for msg in [&mut back, &mut sent] {
                msg.remove(SESSION);
            }
            // Bytes are an object in JSON; everything else is what it was.
            if !matches!(msg.get("payload"), Some(Value::Bytes(_))) {
                let texts =
                    [back, sent].map(|msg| Value::from(msg).to_json().expect("it was written before"));
                assert_eq!(texts[0], texts[1]);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    // serde_json is the judge of what is JSON. (It reads a name again that came before, as JavaScript does.)
    let judged = serde_json::from_slice::<serde_json::Value>(data);
    let value = Value::from_json(data);
    assert_eq!(value.is_ok(), judged.is_ok(), "{value:?} against {judged:?}");
    if let (Ok(value), Ok(judged)) = (value, judged) {
        let text = check_round_trip(&value);
        let text = serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON");
        assert!(same(&text, &judged), "{text} was {judged}");
    }

    for mode in [Mode::Payload, Mode::Whole] {
        check_frame(Data::Binary(data), mode);
        if let Ok(text) = std::str::from_utf8(data) {
            check_frame(Data::Text(text), mode);
        }
    }
});

/// Equal but for how numbers are written: 1.0 is 1 in JavaScript.
fn same(left: &serde_json::Value, right: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (left, right) {
        (Number(left), Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Array(left), Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Object(left), Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| same(left, right)))
        }
        (left, right) => left == right,
    }
}
