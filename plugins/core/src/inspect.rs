//! Values as Node.js's `util.inspect` shows them, on one line and cut short: for statuses.

use std::fmt::Write;

use flowbay_sdk::Value;

/// Containers in this many others are only named.
const MAX_DEPTH: usize = 2;

/// The beginning of the value's text: at least `limit` characters of it, if it has so many, and not much more.
pub fn inspect(value: Option<&Value>, limit: usize) -> String {
    let mut out = String::new();
    match value {
        None => out.push_str("undefined"),
        Some(value) => write_value(&mut out, value, 0, limit),
    }
    out
}

fn write_value(out: &mut String, value: &Value, depth: usize, limit: usize) {
    match value {
        Value::Str(text) => write_quoted(out, text, limit),
        Value::Bytes(bytes) => {
            out.push_str("<Buffer");
            for byte in bytes.iter().take(limit.min(50)) {
                // Writing to a String cannot fail.
                let _ = write!(out, " {byte:02x}");
            }
            if bytes.len() > 50 {
                let _ = write!(out, " ... {} more bytes", bytes.len() - 50);
            }
            out.push('>');
        }
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Array(_) if depth > MAX_DEPTH => out.push_str("[Array]"),
        Value::Array(items) => {
            out.push_str("[ ");
            for (index, item) in items.iter().enumerate() {
                if out.len() > limit * 4 {
                    return;
                }
                if index > 0 {
                    out.push_str(", ");
                }
                write_value(out, item, depth + 1, limit);
            }
            out.push_str(" ]");
        }
        Value::Object(object) if object.is_empty() => out.push_str("{}"),
        Value::Object(_) if depth > MAX_DEPTH => out.push_str("[Object]"),
        Value::Object(object) => {
            out.push_str("{ ");
            for (index, (key, value)) in object.iter().enumerate() {
                if out.len() > limit * 4 {
                    return;
                }
                if index > 0 {
                    out.push_str(", ");
                }
                if is_identifier(key) {
                    out.extend(key.chars().take(limit));
                } else {
                    write_quoted(out, key, limit);
                }
                out.push_str(": ");
                write_value(out, value, depth + 1, limit);
            }
            out.push_str(" }");
        }
        other => out.push_str(&other.to_js_string()),
    }
}

fn write_quoted(out: &mut String, text: &str, limit: usize) {
    out.push('\'');
    for character in text.chars().take(limit) {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' | '\'' => out.extend(['\\', character]),
            _ => out.push(character),
        }
    }
    out.push('\'');
}

fn is_identifier(key: &str) -> bool {
    !key.is_empty()
        && !key.starts_with(|first: char| first.is_ascii_digit())
        && key.chars().all(|character| character.is_alphanumeric() || matches!(character, '_' | '$'))
}

#[cfg(test)]
mod tests {
    use flowbay_sdk::Blob;

    use super::*;
    use crate::surroundings::fake::json;

    #[test]
    fn values_look_as_in_node_js() {
        for (value, expected) in [
            (json("5.5"), "5.5"),
            (json("null"), "null"),
            (json(r#"{"a":1,"b c":"it's","_$":[true,[]]}"#), r"{ a: 1, 'b c': 'it\'s', _$: [ true, [] ] }"),
            (json(r#"[[[[1]]],{"a":{"b":{"c":{}}}}]"#), "[ [ [ [Array] ] ], { a: { b: [Object] } } ]"),
            (Value::Bytes(Blob::from(b"hi")), "<Buffer 68 69>"),
        ] {
            assert_eq!(inspect(Some(&value), 100), expected);
        }
        assert_eq!(inspect(None, 100), "undefined");
    }

    #[test]
    fn a_large_value_costs_no_more_than_its_beginning() {
        let value = Value::from(vec![Value::from("x".repeat(100_000)); 10_000]);
        let text = inspect(Some(&value), 32);
        assert!((32..400).contains(&text.len()), "{}", text.len());
    }
}
