//! What waiting messages and values take of memory, for the limits on bytes.
//!
//! A hint would not do here: what is not counted is what a peer would send. So all of a message is counted, up to a
//! number of values that weigh much by themselves.

use flowbay_abi::{Msg, Object, Str, Value};

/// Values looked at in one message: so many take a fraction of a millisecond, and weigh half a megabyte or more, so that
/// few such messages reach the marks whatever hides behind those values.
const LOOKED_AT: usize = 32_768;
/// Steps down before what is deeper is put aside: messages may nest deeper than the stack allows.
const STEPS_DOWN: usize = 16;

/// Bytes of a message with all that is in it. What it shares with others counts in full.
pub fn of_message(msg: &Msg) -> usize {
    let mut scale = Scale { left: LOOKED_AT, bytes: size_of::<Msg>(), aside: Vec::new() };
    scale.add_object(msg, 0);
    scale.total()
}

/// Bytes of a value with all that is in it.
pub fn of_value(value: &Value) -> usize {
    let mut scale = Scale { left: LOOKED_AT, bytes: size_of::<Value>(), aside: Vec::new() };
    scale.add(value, 0);
    scale.total()
}

struct Scale<'v> {
    /// Values that may still be looked at.
    left: usize,
    bytes: usize,
    aside: Vec<&'v Value>,
}

impl<'v> Scale<'v> {
    fn total(mut self) -> usize {
        while let Some(value) = self.aside.pop() {
            self.add(value, 0);
        }
        self.bytes
    }

    /// Adds what is behind a value; the value itself is part of what it is in.
    fn add(&mut self, value: &'v Value, depth: usize) {
        self.left = self.left.saturating_sub(1);
        match value {
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Handle(_) => {}
            Value::Str(text) => self.bytes = self.bytes.saturating_add(text.len()),
            Value::Bytes(bytes) => self.bytes = self.bytes.saturating_add(bytes.len()),
            Value::Array(_) | Value::Object(_) if depth == STEPS_DOWN => self.aside.push(value),
            Value::Array(items) => {
                self.bytes = self.bytes.saturating_add(size_of_val(&items[..]));
                for item in items.iter() {
                    if self.left == 0 {
                        return;
                    }
                    self.add(item, depth + 1);
                }
            }
            Value::Object(object) => self.add_object(object, depth),
        }
    }

    fn add_object(&mut self, object: &'v Object, depth: usize) {
        let entries = object.len() * (size_of::<Str>() + size_of::<Value>());
        self.bytes = self.bytes.saturating_add(entries);
        for (key, value) in object.iter() {
            if self.left == 0 {
                return;
            }
            self.bytes = self.bytes.saturating_add(key.len());
            self.add(value, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> Msg {
        Msg::try_from(Value::from_json(json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn text_counts_however_deep_it_is() {
        let text = "x".repeat(1_000_000);
        for depth in [0, 1, 2, 3, 15, 16, 17, 40] {
            let (open, close) = (r#"{"a":["#.repeat(depth), "]}".repeat(depth));
            let weight = of_message(&message(&format!(r#"{{"payload":{open}"{text}"{close}}}"#)));
            assert!((1_000_000..1_100_000).contains(&weight), "{weight} at {depth}");
        }
        assert!(of_message(&message(r#"{"payload":"hi"}"#)) < 200);
    }

    #[test]
    fn a_message_of_many_values_is_heavy_whatever_hides_behind_them() {
        let many = vec!["0"; LOOKED_AT + 10].join(",");
        let text = "x".repeat(1_000_000);
        for json in [
            format!(r#"{{"payload":[[{many}],"{text}"]}}"#),
            format!(r#"{{"payload":[{}"{text}"]}}"#, "[],".repeat(LOOKED_AT)),
        ] {
            assert!(of_message(&message(&json)) > LOOKED_AT * size_of::<Value>());
        }
    }

    #[test]
    fn a_value_nested_deeper_than_the_stack_is_weighed() {
        let mut value = Value::from("end");
        for _ in 0..1_000_000 {
            value = Value::from(vec![value]);
        }
        assert!(of_value(&value) > 10_000);
    }
}
