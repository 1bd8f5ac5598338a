//! JSON: tables of texts against what JavaScript does with them.

use flowbay_abi::value::{Blob, JsonError};
use flowbay_abi::{Value, value};

/// Reading `text` and writing what was read gives `expected`.
fn check(text: &str, expected: &str) {
    let value = Value::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(value.to_json().unwrap(), expected, "{text}");
    let through_serde = serde_json::to_string(&value).unwrap();
    assert_eq!(Value::from_json(through_serde.as_bytes()).unwrap(), value, "{text} as {through_serde}");
}

#[test]
fn json_is_written_as_json_stringify_would_write_it() {
    let rows: &[(&str, &str)] = &[
        ("null", "null"),
        (" true ", "true"),
        ("0", "0"),
        ("-0", "0"),
        ("1.0", "1"),
        ("1.50", "1.5"),
        ("1e3", "1000"),
        ("1E21", "1e+21"),
        ("100000000000000000000", "100000000000000000000"),
        ("1e-7", "1e-7"),
        ("0.000001", "0.000001"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775808", "9223372036854776000"),
        ("[]", "[]"),
        ("{}", "{}"),
        ("[1, [2, {}], []]", "[1,[2,{}],[]]"),
        (r#"{"b":1, "a":2}"#, r#"{"b":1,"a":2}"#),
        (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
        (r#"{"":0}"#, r#"{"":0}"#),
        (r#""""#, r#""""#),
        (r#""\u00e9\ud83d\ude00""#, "\"é😀\""),
        (r#""\/\b\f\n\r\t\\\"""#, r#""/\b\f\n\r\t\\\"""#),
        (r#""\u0000\u001f\u007f""#, "\"\\u0000\\u001f\u{7f}\""),
        (r#"{"key with \" and \n": "\u2028"}"#, "{\"key with \\\" and \\n\":\"\u{2028}\"}"),
    ];
    for (text, expected) in rows {
        check(text, expected);
    }
    let long = format!("[\"{}\",{}]", "ü\\n".repeat(1000), vec!["1"; 1000].join(","));
    check(&long, &long);
}

#[test]
fn values_that_json_has_no_word_for_are_written_as_node_writes_them() {
    let rows: &[(Value, &str)] = &[
        (value!(f64::NAN), "null"),
        (value!([f64::INFINITY, f64::NEG_INFINITY]), "[null,null]"),
        (Blob::new().into(), r#"{"type":"Buffer","data":[]}"#),
        (value!([Blob::from(&[0, 9, 255])]), r#"[{"type":"Buffer","data":[0,9,255]}]"#),
    ];
    for (value, expected) in rows {
        assert_eq!(value.to_json().unwrap(), *expected);
        assert_eq!(serde_json::to_string(value).unwrap(), *expected);
    }
}

#[test]
fn pretty_json_is_indented_as_json_stringify_does() {
    let value = value!({ "a": [1, {}], "b": [], "c": Blob::from(b"\x01") });
    let expected = r#"{
  "a": [
    1,
    {}
  ],
  "b": [],
  "c": {
    "type": "Buffer",
    "data": [
      1
    ]
  }
}"#;
    assert_eq!(value.to_json_pretty(2).unwrap(), expected);
}

#[test]
fn whole_numbers_stay_exact_and_others_are_floats() {
    let read = |text: &str| Value::from_json(text.as_bytes()).unwrap();
    assert!(matches!(read("9007199254740993"), Value::Int(9_007_199_254_740_993)));
    assert!(matches!(read("1.0"), Value::Float(1.0)));
    assert!(matches!(read("18446744073709551616"), Value::Float(18_446_744_073_709_551_616.0)));
}

/// serde_json is exact only with its feature `float_roundtrip`; without it, one in a few long
/// numbers changes its last digit on the way through.
#[test]
fn floats_go_through_json_unchanged() {
    for text in ["123456789012345680000", "0.30000000000000004", "1.7976931348623157e+308", "5e-324"] {
        check(text, text);
    }
    let mut seed = 1_u64;
    for _ in 0..10_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let float = f64::from_bits(seed);
        if float.is_finite() {
            let json = value!(float).to_json().unwrap();
            // A float beyond 2^53 is read as an integer, which is the one that rounds to it.
            assert_eq!(Value::from_json(json.as_bytes()).unwrap().as_f64(), Some(float), "{json}");
        }
    }
}

#[test]
fn what_is_not_json_is_refused_with_the_place() {
    let rows: &[&[u8]] = &[
        b"",
        b" ",
        b"nul",
        b"[1,]",
        b"[1 2]",
        b"{\"a\"}",
        b"{a:1}",
        b"01",
        b"+1",
        b"NaN",
        b"1 2",
        b"\"\n\"",
        b"\"\xff\"",
        b"\"\\x\"",
        b"{\"a\":1",
        b"\xef\xbb\xbf1",
    ];
    for text in rows {
        match Value::from_json(text) {
            Err(JsonError::Syntax(message)) => {
                assert!(message.contains("line 1") || message.contains("line 2"), "{message}");
            }
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(text)),
        }
    }
}

#[test]
fn output_beyond_the_limit_is_refused_and_leaves_nothing_behind() {
    let value = value!(["0123456789", 1, { "a": null }]);
    let length = value.to_json().unwrap().len();
    for limit in 0..length {
        let mut out = b"before".to_vec();
        assert_eq!(value.write_json_within(&mut out, limit), Err(JsonError::TooLarge), "{limit}");
        assert_eq!(out, b"before");
    }
    let mut out = b"before".to_vec();
    value.write_json_within(&mut out, length).unwrap();
    assert_eq!(out, [b"before", value.to_json().unwrap().as_bytes()].concat());
}

#[test]
fn a_small_value_that_stands_for_an_endless_text_is_refused() {
    let mut doubling = value!("some text that fills the output");
    for _ in 0..100 {
        doubling = value!([doubling.clone(), doubling]);
    }
    assert_eq!(doubling.write_json_within(&mut Vec::new(), 1 << 20), Err(JsonError::TooLarge));
    let bytes = Value::from(Blob::with_len(1 << 20, |_| ()));
    assert_eq!(bytes.write_json_within(&mut Vec::new(), 1 << 20), Err(JsonError::TooLarge));
}
