//! Numbers as JavaScript's `Number(x)` makes them.

use flowbay_sdk::Value;

/// `Number(value)`: NaN for what is no number.
pub fn number(value: &Value) -> f64 {
    match value {
        Value::Null => 0.0,
        Value::Bool(flag) => f64::from(u8::from(*flag)),
        Value::Int(_) | Value::Float(_) => value.as_f64().unwrap_or(f64::NAN),
        Value::Str(text) => parse(text),
        _ => f64::NAN,
    }
}

/// The number as a message value; whole ones as integers, so that nothing prints them as fractions.
pub fn to_value(number: f64) -> Value {
    let float = Value::Float(number);
    float.as_i64().map_or(float, Value::Int)
}

fn parse(text: &str) -> f64 {
    let text = text.trim();
    let digits = |prefix: [&str; 2]| prefix.iter().find_map(|prefix| text.strip_prefix(prefix));
    for (prefix, radix) in [(["0x", "0X"], 16), (["0o", "0O"], 8), (["0b", "0B"], 2)] {
        if let Some(digits) = digits(prefix) {
            return whole(digits, radix);
        }
    }
    match text {
        "" => 0.0,
        "Infinity" | "+Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        // Rust also reads "inf" and "nan", which JavaScript does not.
        _ if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) => {
            text.parse().unwrap_or(f64::NAN)
        }
        _ => f64::NAN,
    }
}

/// Digits without a sign; beyond 64 bits the lower digits are lost, as they are in a float.
fn whole(digits: &str, radix: u32) -> f64 {
    if digits.is_empty() {
        return f64::NAN;
    }
    digits
        .chars()
        .try_fold(0.0, |sum, digit| Some(sum * f64::from(radix) + f64::from(digit.to_digit(radix)?)))
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_javascript_reads_it() {
        for (text, expected) in [
            ("", 0.0),
            ("  12 ", 12.0),
            ("-1.5e3", -1500.0),
            (".5", 0.5),
            ("0x1F", 31.0),
            ("0b101", 5.0),
            ("Infinity", f64::INFINITY),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        for text in ["abc", "inf", "nan", "1,5", "0x", "0xg", "-0x1", "1 2", "--1"] {
            assert!(parse(text).is_nan(), "{text:?}");
        }
    }

    #[test]
    fn other_values_count_as_in_javascript() {
        assert_eq!(number(&Value::Null), 0.0);
        assert_eq!(number(&Value::Bool(true)), 1.0);
        assert_eq!(number(&Value::Float(2.5)), 2.5);
        assert!(number(&Value::from(vec![1])).is_nan());
    }

    #[test]
    fn whole_numbers_become_integers() {
        assert!(matches!(to_value(5.0), Value::Int(5)));
        assert!(matches!(to_value(5.5), Value::Float(_)));
        assert!(matches!(to_value(f64::NAN), Value::Float(_)));
    }
}
