//! What a connection is, as a value: what it begins with, and what one generation of this library leaves to the next.

use flowbay_sdk::{Blob, Object, Value};

/// Version of the state that is written here. A later one adds properties and keeps the meaning of these; so
/// whatever the version, what is there is used, and what is not is as in a new connection.
const VERSION: i64 = 1;

/// A connection beside its stream and its session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// An earlier generation of this library served it.
    pub moved: bool,
    /// What was read and led to no message yet.
    pub input: Vec<u8>,
    /// Fragments that `input` has fewer than were read, see [`flowbay_sdk::frames::Parts::joined`].
    pub joined: u32,
    /// What is to be sent before anything else.
    pub output: Vec<u8>,
    /// For a connection with a heartbeat.
    pub beat: Option<Beat>,
    /// For how many milliseconds nothing was heard of the peer; known where it matters.
    pub quiet_ms: Option<u64>,
    /// The role, the request and the subprotocol, which are only kept for those who come later; as JSON, which is one
    /// piece of memory instead of one for each header.
    pub origin: Box<str>,
}

/// How far the asking is whether the peer is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Milliseconds until it is time to ask.
    pub due_ms: u64,
    /// Nothing was heard of the peer since it was last asked.
    pub silent: bool,
}

impl State {
    /// The state of a connection that was accepted, opened, or handed over.
    pub fn from_value(value: &Value) -> Self {
        let bytes = |key: &str| value[key].as_bytes().unwrap_or_default().to_vec();
        let heartbeat = &value["heartbeat"];
        let beat = heartbeat["due_ms"].as_i64().map(|due_ms| Beat {
            due_ms: u64::try_from(due_ms).unwrap_or(0),
            silent: heartbeat["silent"].as_bool().unwrap_or(false),
        });
        let joined = value["joined"].as_i64().and_then(|joined| u32::try_from(joined).ok());
        let quiet_ms = value["quiet_ms"].as_i64().and_then(|quiet_ms| u64::try_from(quiet_ms).ok());
        let origin = ["role", "request", "protocol", "url", "extra"].map(|key| (key, value[key].clone()));
        Self {
            moved: value["moved"].as_bool().unwrap_or(false),
            input: bytes("input"),
            joined: joined.unwrap_or(0),
            output: bytes("output"),
            beat,
            quiet_ms,
            // What cannot be written as JSON did not come from a request.
            origin: Value::Object(Object::from(origin)).to_json().unwrap_or_default().into(),
        }
    }

    /// The state to hand over.
    pub fn to_value(&self) -> Value {
        let mut state = match Value::from_json(self.origin.as_bytes()) {
            Ok(Value::Object(origin)) => origin,
            _ => Object::new(),
        };
        state.insert("v", VERSION);
        state.insert("moved", self.moved);
        state.insert("input", Value::Bytes(Blob::from(&self.input[..])));
        state.insert("joined", i64::from(self.joined));
        state.insert("output", Value::Bytes(Blob::from(&self.output[..])));
        if let Some(quiet_ms) = self.quiet_ms {
            state.insert("quiet_ms", quiet_ms);
        }
        if let Some(Beat { due_ms, silent }) = self.beat {
            let heartbeat = Object::from([("due_ms", Value::from(due_ms)), ("silent", Value::from(silent))]);
            state.insert("heartbeat", Value::Object(heartbeat));
        }
        Value::Object(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_state_that_is_handed_over_is_the_same_on_the_other_side() {
        let begun =
            json(r#"{"request":{"path":"/x","headers":{"a":["1","2"]}},"protocol":"chat","role":"client"}"#);
        for (beat, quiet_ms) in [(None, None), (Some(Beat { due_ms: 1234, silent: true }), Some(77))] {
            let state = State {
                moved: true,
                input: vec![0x81, 0, 255],
                joined: 3,
                output: vec![1],
                beat,
                quiet_ms,
                ..State::from_value(&begun)
            };
            let value = state.to_value();
            assert_eq!(State::from_value(&value), state);
            for key in ["request", "protocol", "role"] {
                assert_eq!(value[key], begun[key]);
            }
            assert_eq!(value["v"], 1);
        }
    }

    #[test]
    fn what_a_state_does_not_say_is_as_in_a_new_connection() {
        let new = State::from_value(&Value::Null);
        assert_eq!(State { origin: Box::default(), ..new.clone() }, State::default());
        let later = json(r#"{"v":99,"moved":true,"input":"?","heartbeat":{"silent":1},"more":{}}"#);
        assert_eq!(State { moved: false, ..State::from_value(&later) }, new);
        let odd = State::from_value(&json(
            r#"{"heartbeat":{"due_ms":-5,"silent":"x"},"joined":-1,"quiet_ms":"1"}"#,
        ));
        assert_eq!(odd.beat, Some(Beat { due_ms: 0, silent: false }));
        assert_eq!((odd.joined, odd.quiet_ms), (0, None));
    }
}
