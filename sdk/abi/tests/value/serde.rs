//! Values as a serde data format.

use std::collections::BTreeMap;

use flowbay_abi::value::{Array, Blob, Object, Str, from_value, to_value};
use flowbay_abi::{Value, value};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    port: u16,
    path: String,
    ratio: f32,
    #[serde(default)]
    names: Vec<String>,
    parent: Option<Box<Config>>,
    mode: Mode,
    headers: BTreeMap<u32, Str>,
    pair: (i8, char),
    raw: Value,
    body: Blob,
    unit: (),
    wrapped: Wrapped,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(u64);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Plain,
    Retry(u32),
    Pair(u8, u8),
    Full { count: i64 },
}

fn config(mode: Mode) -> Config {
    Config {
        port: 80,
        path: "/a path that is long".into(),
        ratio: 0.5,
        names: vec!["n".into()],
        parent: None,
        mode,
        headers: [(1, "one".into())].into(),
        pair: (-1, 'x'),
        raw: value!({ "deep": [1, null] }),
        body: Blob::from(b"\x00\xff"),
        unit: (),
        wrapped: Wrapped(7),
    }
}

#[test]
fn a_rust_type_goes_to_a_value_and_back() {
    for mode in [Mode::Plain, Mode::Retry(3), Mode::Pair(1, 2), Mode::Full { count: -5 }] {
        let original = Config { parent: Some(Box::new(config(Mode::Plain))), ..config(mode) };
        let value = to_value(&original).unwrap();
        assert!(matches!(&value["body"], Value::Bytes(body) if **body == *b"\x00\xff"), "bytes stay bytes");
        assert_eq!(from_value::<Config>(&value).unwrap(), original);
        let json = value.to_json().unwrap();
        assert_eq!(json, serde_json::to_string(&original).unwrap(), "the same shape as serde_json's");
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), original);
    }
}

#[test]
fn values_go_through_serde_unchanged() {
    let original = value!({
        "null": null, "bool": true, "int": i64::MIN, "float": 0.1, "whole": 2.0, "text": "é",
        "bytes": Blob::from(b"\xff"), "list": [[], {}], "object": { "a": { "b": 1 } },
    });
    assert_eq!(to_value(&original).unwrap(), original);
    assert_eq!(from_value::<Value>(&original).unwrap(), original);
    assert_eq!(from_value::<Object>(&original).unwrap(), *original.as_object().unwrap());
    assert_eq!(from_value::<Array>(&original["list"]).unwrap(), *original["list"].as_array().unwrap());
    assert!(from_value::<Array>(&original).is_err() && from_value::<Object>(&original["list"]).is_err());
}

#[test]
fn text_and_bytes_are_borrowed() {
    #[derive(Deserialize)]
    struct Borrowed<'a> {
        text: &'a str,
        bytes: &'a [u8],
    }

    let value = value!({ "text": "text that is longer than fifteen", "bytes": Blob::from(b"abc") });
    let borrowed: Borrowed<'_> = from_value(&value).unwrap();
    assert_eq!(borrowed.text.as_ptr(), value["text"].as_str().unwrap().as_ptr());
    assert_eq!(borrowed.bytes.as_ptr(), value["bytes"].as_bytes().unwrap().as_ptr());
}

#[test]
fn an_error_says_where_it_is() {
    type Items = BTreeMap<String, Vec<(u8, String)>>;
    let rows: &[(Value, &str)] = &[
        (value!(1), "invalid type: integer `1`, expected a map"),
        (value!({ "a": 1 }), "a: invalid type: integer `1`, expected a sequence"),
        (value!({ "a": [[1, "x"], [1, 2]] }), "a[1][1]: invalid type: integer `2`, expected a string"),
        (value!({ "a": [], "b": [[300, "x"]] }), "b[0][0]: invalid value: integer `300`, expected u8"),
        (value!({ "a": [[1, "x", 2]] }), "a[0]: invalid length 3, expected fewer items in the array"),
    ];
    for (value, expected) in rows {
        assert_eq!(from_value::<Items>(value).unwrap_err().to_string(), *expected);
    }
    let error = from_value::<Items>(&rows[2].0).unwrap_err();
    assert_eq!((error.path(), error.message()), ("a[1][1]", "invalid type: integer `2`, expected a string"));
    let mode = from_value::<Mode>(&value!({ "retry": "x" })).unwrap_err();
    assert_eq!(mode.path(), "retry");
    assert!(from_value::<Mode>(&value!({ "a": 1, "b": 2 })).is_err());
    assert!(from_value::<Mode>(&value!("retry")).unwrap_err().to_string().contains("missing"));
}

#[test]
fn whole_floats_are_integers_where_integers_are_wanted() {
    assert_eq!(from_value::<u16>(&value!(80.0)), Ok(80));
    assert!(from_value::<u16>(&value!(80.5)).is_err());
    assert!(from_value::<u16>(&value!(-1)).is_err());
    assert_eq!(from_value::<f64>(&value!(80)), Ok(80.0));
}

#[test]
fn a_buffer_is_read_from_every_form_it_may_have() {
    let blob = Blob::from(&[1, 2]);
    assert_eq!(from_value::<Blob>(&value!({ "type": "Buffer", "data": [1, 2] })).unwrap(), blob);
    assert_eq!(from_value::<Blob>(&value!([1, 2])).unwrap(), blob);
    assert_eq!(from_value::<Blob>(&Value::Bytes(blob.clone())).unwrap(), blob);
    assert!(from_value::<Blob>(&value!({ "type": "Other", "data": [1] })).is_err());
    assert!(from_value::<Blob>(&value!([256])).is_err());
}

#[test]
fn keys_that_are_not_text_become_text_or_are_refused() {
    assert_eq!(to_value(&BTreeMap::from([(true, 1)])).unwrap(), value!({ "true": 1 }));
    assert_eq!(to_value(&BTreeMap::from([(5, 1)])).unwrap(), value!({ "5": 1 }));
    assert!(to_value(&BTreeMap::from([((1, 2), 1)])).is_err());
    assert_eq!(from_value::<BTreeMap<bool, u8>>(&value!({ "true": 1 })).unwrap(), [(true, 1)].into());
    assert!(from_value::<BTreeMap<u8, u8>>(&value!({ "x": 1 })).is_err());
}

#[test]
fn values_convert_to_and_from_those_of_serde_json() {
    let text = r#"{"a":[1,2.5,"x",null,true,18446744073709551615],"b":{}}"#;
    let theirs: serde_json::Value = serde_json::from_str(text).unwrap();
    let ours = Value::from(theirs);
    assert_eq!(ours, Value::from_json(text.as_bytes()).unwrap());
    let back = serde_json::Value::try_from(&ours).unwrap();
    assert_eq!(back["a"][1], serde_json::json!(2.5));
    assert_eq!(Value::from(back), ours);
}
