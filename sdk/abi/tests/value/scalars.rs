//! Single values: conversions, accessors, equality, text.

use flowbay_abi::value::{Blob, Str, number_to_js_string};
use flowbay_abi::{Value, value};

#[test]
fn rust_values_become_the_value_one_expects() {
    let rows: &[(Value, Value)] = &[
        (Value::from(()), Value::Null),
        (Value::from(None::<bool>), Value::Null),
        (Value::from(Some(1)), Value::Int(1)),
        (Value::from(true), Value::Bool(true)),
        (Value::from(-1_i32), Value::Int(-1)),
        (Value::from(u32::MAX), Value::Int(4_294_967_295)),
        (Value::from(i64::MIN), Value::Int(i64::MIN)),
        (Value::from(i64::MAX as u64), Value::Int(i64::MAX)),
        (Value::from(7_usize), Value::Int(7)),
        (Value::from("text"), Value::Str("text".into())),
        (Value::from('é'), Value::Str("é".into())),
        (Value::from(vec![1, 2]), value!([1, 2])),
        (Value::from(vec![Value::Null]), value!([null])),
        (Value::from(Blob::from(b"ab")), Value::Bytes(b"ab".into())),
    ];
    for (made, expected) in rows {
        assert_eq!(made, expected);
        assert_eq!(std::mem::discriminant(made), std::mem::discriminant(expected), "{made:?}");
    }
    let beyond = Value::from(u64::MAX);
    assert!(matches!(beyond, Value::Float(float) if float == u64::MAX as f64));
}

#[test]
fn accessors_answer_for_their_own_type_only() {
    let samples = [
        value!(null),
        value!(true),
        value!(1),
        value!(1.5),
        value!("s"),
        Blob::from(b"b").into(),
        value!([]),
        value!({}),
    ];
    let types = ["null", "boolean", "number", "number", "string", "Buffer", "array", "object"];
    for (sample, type_name) in samples.iter().zip(types) {
        assert_eq!(sample.type_name(), type_name);
        assert_eq!(sample.is_null(), type_name == "null");
        assert_eq!(sample.as_bool().is_some(), type_name == "boolean");
        assert_eq!(sample.as_f64().is_some(), type_name == "number");
        assert_eq!(sample.as_str().is_some(), type_name == "string");
        assert_eq!(sample.as_bytes().is_some(), type_name == "Buffer");
        assert_eq!(sample.as_array().is_some(), type_name == "array");
        assert_eq!(sample.as_object().is_some(), type_name == "object");
        assert_eq!(sample.as_handle(), None);
    }
    assert_eq!((value!(1).as_i64(), value!(2.0).as_i64(), value!(2.5).as_i64()), (Some(1), Some(2), None));
    assert_eq!(value!({ "a": [5] })["a"][0], 5);
    assert!(value!({ "a": 1 })["b"].is_null() && value!(1)["a"].is_null() && value!([])[0].is_null());
}

#[test]
fn numbers_are_equal_when_they_are_numerically() {
    let limit = 9_223_372_036_854_775_808.0;
    let rows: &[(Value, Value, bool)] = &[
        (value!(1), value!(1.0), true),
        (value!(0), value!(-0.0), true),
        (value!(1), value!(1.5), false),
        (value!(i64::MAX), value!(limit), false),
        (value!(i64::MIN), value!(-limit), true),
        (value!(9_007_199_254_740_993_i64), value!(9_007_199_254_740_992.0), false),
        (value!(f64::NAN), value!(f64::NAN), false),
        (value!(1), value!("1"), false),
        (value!(0), value!(false), false),
        (value!(null), value!(false), false),
        (value!("a"), Blob::from(b"a").into(), false),
    ];
    for (a, b, equal) in rows {
        assert_eq!(a == b, *equal, "{a:?} == {b:?}");
        assert_eq!(b == a, *equal, "{b:?} == {a:?}");
    }
}

#[test]
fn text_of_a_value_is_what_javascript_prints() {
    let rows: &[(Value, &str)] = &[
        (value!(null), "null"),
        (value!(true), "true"),
        (value!(-12), "-12"),
        (value!(1.0), "1"),
        (value!(1e21), "1e+21"),
        (value!(f64::NAN), "NaN"),
        (value!("a\"b"), "a\"b"),
        (Blob::from("é".as_bytes()).into(), "é"),
        (Blob::from(b"a\xff").into(), "a\u{fffd}"),
        (value!([1, "a"]), "[1,\"a\"]"),
        (value!({ "a": null }), "{\"a\":null}"),
    ];
    for (value, expected) in rows {
        assert_eq!(value.to_js_string(), *expected);
    }
    assert_eq!(number_to_js_string(0.5), "0.5");
}

#[test]
fn the_size_hint_counts_blocks_text_and_bytes() {
    assert_eq!(value!(1).heap_size_hint(), 0);
    assert_eq!(value!("fifteen bytes..").heap_size_hint(), 0);
    assert!((1016..1100).contains(&value!("x".repeat(1000)).heap_size_hint()));
    assert!((1016..1100).contains(&Value::from(Blob::from(vec![0; 1000])).heap_size_hint()));
    let list = Value::from(vec!["y".repeat(1000); 50]);
    assert!((50_000..60_000).contains(&list.heap_size_hint()), "{}", list.heap_size_hint());
    let many = Value::from(vec!["y".repeat(100); 10_000]);
    let estimate = many.heap_size_hint();
    assert!((1_200_000..2_000_000).contains(&estimate), "{estimate}");
    assert!(value!({ "a long property name": 1 }).heap_size_hint() >= 24 + 40 + 36);
}

#[test]
fn debug_is_readable_and_never_long() {
    let small = value!({ "a": [1, 1.5, "x", null, true] });
    assert_eq!(format!("{small:?}"), r#"{"a": [1, 1.5, "x", null, true]}"#);
    let mut doubling = value!([]);
    for _ in 0..100 {
        doubling = value!([doubling.clone(), doubling]);
    }
    assert!(format!("{doubling:?}").len() < 20_000);
    let wide = Value::from(vec![0; 1_000_000]);
    assert!(format!("{wide:?}").len() < 20_000);
    assert_eq!(format!("{:?}", Str::from("a\n")), r#""a\n""#);
}
