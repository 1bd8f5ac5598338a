//! Property paths: tables of Node-RED's expressions.

use flowbay_abi::path::{MAX_ARRAY_LEN, Part, PathError, PropertyPath};
use flowbay_abi::value::Blob;
use flowbay_abi::{Msg, Value, object, value};

fn path(expression: &str) -> PropertyPath {
    expression.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn key(name: &str) -> Part {
    Part::Key(name.into())
}

#[test]
fn expressions_have_the_parts_that_node_red_finds() {
    use Part::{Index, Reference};
    let rows: &[(&str, Vec<Part>)] = &[
        ("a", vec![key("a")]),
        ("a.b.c", vec![key("a"), key("b"), key("c")]),
        ("a[0]", vec![key("a"), Index(0)]),
        ("a.0", vec![key("a"), key("0")]),
        ("a.0.c", vec![key("a"), Index(0), key("c")]),
        ("a['b']", vec![key("a"), key("b")]),
        (r#"a["b c"].d"#, vec![key("a"), key("b c"), key("d")]),
        ("a['b.c[0]']", vec![key("a"), key("b.c[0]")]),
        (r#"a['"']["'"]"#, vec![key("a"), key("\""), key("'")]),
        ("a['a'][0].c", vec![key("a"), key("a"), Index(0), key("c")]),
        ("a[0][1][2]", vec![key("a"), Index(0), Index(1), Index(2)]),
        (r#""a b".c"#, vec![key("a b"), key("c")]),
        ("'a'[1]", vec![key("a"), Index(1)]),
        ("a[0]b", vec![key("a"), Index(0), key("b")]),
        ("a.$b._c", vec![key("a"), key("$b"), key("_c")]),
        ("a-b.c-d", vec![key("a-b"), key("c-d")]),
        ("größe.x", vec![key("größe"), key("x")]),
        ("msg.a", vec![key("msg"), key("a")]),
        ("a[msg.b]", vec![key("a"), Reference(path("b"))]),
        ("a[msg.b.c[0]].d", vec![key("a"), Reference(path("b.c[0]")), key("d")]),
        ("a[msg['b]']]", vec![key("a"), Reference(path("'b]'"))]),
        ("a[msg.b[msg.c]][0]", vec![key("a"), Reference(path("b[msg.c]")), Index(0)]),
        ("a['msg.b']", vec![key("a"), key("msg.b")]),
    ];
    for (expression, parts) in rows {
        assert_eq!(path(expression).parts(), parts, "{expression}");
        let shown = path(expression).to_string();
        assert_eq!(path(&shown), path(expression), "{expression} shown as {shown}");
    }
    assert_eq!(PropertyPath::parse_msg("msg.a.b").unwrap(), path("a.b"));
    assert_eq!(PropertyPath::key("a.b").parts(), [key("a.b")]);
}

#[test]
fn malformed_expressions_are_refused_with_the_place() {
    let rows: &[(&str, &str)] = &[
        ("", "it is empty"),
        (".", "unexpected '.' at position 0"),
        (".a", "unexpected '.' at position 0"),
        ("[0]", "unexpected '[' at position 0"),
        ("a.", "it ends with a dot"),
        ("a..b", "unexpected '.' at position 2"),
        ("a.[0]", "unexpected '[' at position 2"),
        ("a.'b'", "unexpected '\\'' at position 2"),
        ("a.-b", "unexpected '-' at position 2"),
        ("a b", "unexpected ' ' at position 1"),
        (" a", "unexpected ' ' at position 0"),
        ("a. b", "unexpected ' ' at position 2"),
        ("é b", "unexpected ' ' at position 1"),
        ("a[", "the [ at position 1 is never closed"),
        ("a[0", "the [ at position 1 is never closed"),
        ("a[]", "unexpected ']' at position 2"),
        ("a]", "unexpected ']' at position 1"),
        ("a[0]]", "unexpected ']' at position 4"),
        ("a[b]", "unexpected 'b' at position 2"),
        ("a[0b]", "unexpected 'b' at position 3"),
        ("a[0.5]", "unexpected '.' at position 3"),
        ("a[-1]", "unexpected '-' at position 2"),
        ("a[0 ]", "unexpected ' ' at position 3"),
        ("a['b]", "the string at position 2 has no end"),
        ("a['']", "the string at position 2 is empty"),
        ("a['b'", "the [ at position 1 is never closed"),
        ("a['b'c]", "unexpected 'c' at position 5"),
        ("a'b'", "unexpected '\\'' at position 1"),
        ("'a'b", "unexpected 'b' at position 3"),
        ("'a", "the string at position 0 has no end"),
        ("a[99999999999999999999]", "the index at position 2 is too large"),
        ("a[msg.b", "the [ at position 1 is never closed"),
        ("a[msg.]", "in the reference at position 2: it is empty"),
        ("a[msg.b..c]", "in the reference at position 2: unexpected '.' at position 2"),
    ];
    for (expression, reason) in rows {
        let expected = PathError::Syntax { expression: (*expression).into(), reason: (*reason).into() };
        assert_eq!(PropertyPath::parse(expression), Err(expected), "{expression}");
    }
    let nested = format!("a{}{}", "[msg.a".repeat(100_000), "]".repeat(100_000));
    assert!(PropertyPath::parse(&nested).unwrap_err().to_string().ends_with("nested more than 16 deep"));
}

#[test]
fn a_value_is_found_at_its_path() {
    let msg = object!({
        "payload": { "list": [10, [20], null], "text": "a😀", "0": "zero" },
        "topic": "text", "index": 1, "bytes": Blob::from(b"\x05\x06"), "length": 3,
        "where": { "name": "list" },
    });
    let rows: &[(&str, Option<Value>)] = &[
        ("topic", Some(value!("text"))),
        ("payload.list[0]", Some(value!(10))),
        ("payload.list.0", Some(value!(10))),
        ("payload.list['0']", Some(value!(10))),
        ("payload.list['00']", None),
        ("payload.list[1][0]", Some(value!(20))),
        ("payload.list[2]", Some(value!(null))),
        ("payload.list[3]", None),
        ("payload[0]", Some(value!("zero"))),
        ("payload.none.deeper", None),
        ("none", None),
        ("payload.list.length", Some(value!(3))),
        ("payload.text.length", Some(value!(3))),
        ("payload.text[0]", Some(value!("a"))),
        ("payload.text[1]", Some(value!("\u{fffd}"))),
        ("payload.text[3]", None),
        ("bytes.length", Some(value!(2))),
        ("bytes[1]", Some(value!(6))),
        ("bytes[2]", None),
        ("length", Some(value!(3))),
        ("payload.length", None),
        ("index.length", None),
        ("payload[msg.topic]", Some(value!("a😀"))),
        ("payload.list[msg.index][0]", Some(value!(20))),
        ("payload[msg.where.name][msg.index]", Some(value!([20]))),
        ("payload[msg['topic']].length", Some(value!(3))),
        ("payload[msg.none]", None),
        ("payload[msg.where]", None),
    ];
    for (expression, expected) in rows {
        assert_eq!(msg.get_path(&path(expression)), *expected, "{expression}");
        assert_eq!(Value::from(msg.clone()).get_path(&path(expression)), *expected, "{expression}");
    }
    assert_eq!(value!([1]).get_path(&path("length")), Some(value!(1)));
}

#[test]
fn references_are_resolved_against_the_message_and_followed_elsewhere() {
    let msg = object!({ "topic": "b", "flag": true, "half": 0.5, "minus": -1 });
    let elsewhere = value!({ "a": { "b": 1, "true": 2, "0.5": 3, "-1": 4 } });
    for (expression, expected) in
        [("a[msg.topic]", 1), ("a[msg.flag]", 2), ("a[msg.half]", 3), ("a[msg.minus]", 4)]
    {
        let path = path(expression);
        assert!(path.has_references());
        let resolved = path.resolve(&msg).unwrap();
        assert!(!resolved.has_references());
        assert_eq!(elsewhere.get_path(&resolved), Some(value!(expected)), "{expression}");
    }
    let error = path("a[msg.b.c]").resolve(&msg).unwrap_err();
    assert_eq!(error.to_string(), "msg.b.c is not a name or an index");
}

#[test]
fn setting_creates_what_is_missing() {
    let rows: &[(Value, &str, Value)] = &[
        (value!({}), "a", value!({ "a": 9 })),
        (value!({ "a": 1 }), "a", value!({ "a": 9 })),
        (value!({}), "a.b.c", value!({ "a": { "b": { "c": 9 } } })),
        (value!({}), "a[2]", value!({ "a": [null, null, 9] })),
        (value!({}), "a[1].b[0]", value!({ "a": [null, { "b": [9] }] })),
        (value!({}), "a.0", value!({ "a": { "0": 9 } })),
        (value!({}), "a.0.b", value!({ "a": [{ "b": 9 }] })),
        (value!({ "a": [1] }), "a.0", value!({ "a": [9] })),
        (value!({ "a": [1] }), "a[1]", value!({ "a": [1, 9] })),
        (value!({ "a": [null] }), "a[0].b", value!({ "a": [{ "b": 9 }] })),
        (value!({ "a": {} }), "a[0]", value!({ "a": { "0": 9 } })),
        (value!({ "t": "k" }), "a[msg.t]", value!({ "t": "k", "a": { "k": 9 } })),
        (value!({ "t": 1 }), "a[msg.t]", value!({ "t": 1, "a": [null, 9] })),
    ];
    for (before, expression, after) in rows {
        let mut value = before.clone();
        assert_eq!(value.set_path(&path(expression), 9), Ok(()), "{expression}");
        assert_eq!(value, *after, "{expression}");
        let mut msg = Msg::try_from(before.clone()).unwrap();
        msg.set_path(&path(expression), 9).unwrap();
        assert_eq!(Value::from(msg), *after, "{expression}");
    }
}

#[test]
fn what_cannot_be_set_is_refused_and_nothing_changes() {
    let before = object!({ "n": null, "s": "text", "list": [1], "obj": {} });
    let rows: &[(&str, &str)] = &[
        ("n.a", r#"cannot set n.a: a value of type null has no property "a""#),
        ("s.a.b", r#"cannot set s.a.b: a value of type string has no property "a""#),
        ("s[0]", "cannot set s[0]: a value of type string has no item 0"),
        ("list.name", r#"cannot set list.name: a value of type array has no property "name""#),
        ("list.name.x", r#"cannot set list.name.x: a value of type array has no property "name""#),
        ("obj.x[1000000]", "cannot set obj.x[1000000]: index 1000000 is beyond the limit of 1000000 items"),
        ("obj.x[msg.none]", "msg.none is not a name or an index"),
        (
            "new[0][99999999999]",
            "cannot set new[0][99999999999]: index 99999999999 is beyond the limit of 1000000 items",
        ),
    ];
    for (expression, error) in rows {
        let mut msg = Msg::from(before.clone());
        assert_eq!(msg.set_path(&path(expression), 9).unwrap_err().to_string(), *error, "{expression}");
        assert_eq!(*msg, before, "{expression}");
    }
}

#[test]
fn an_array_grows_by_appending_beyond_the_limit_for_gaps() {
    let mut value = value!({ "a": Value::from(vec![0; MAX_ARRAY_LEN]) });
    value.set_path(&path("a[1000000]"), 1).unwrap();
    assert_eq!(value.get_path(&path("a.length")), Some(value!(1_000_001)));
    assert!(value.set_path(&path("a[1000002]"), 1).is_err());
}

#[test]
fn deleting_removes_and_returns_the_value() {
    let before = value!({ "a": { "b": 1, "c": 2 }, "list": [1, 2, 3], "t": "c" });
    let rows: &[(&str, Option<Value>, Value)] = &[
        ("a.b", Some(value!(1)), value!({ "a": { "c": 2 }, "list": [1, 2, 3], "t": "c" })),
        ("list[1]", Some(value!(2)), value!({ "a": { "b": 1, "c": 2 }, "list": [1, 3], "t": "c" })),
        ("a[msg.t]", Some(value!(2)), value!({ "a": { "b": 1 }, "list": [1, 2, 3], "t": "c" })),
        ("t", Some(value!("c")), value!({ "a": { "b": 1, "c": 2 }, "list": [1, 2, 3] })),
        ("a.none", None, before.clone()),
        ("none.deeper", None, before.clone()),
        ("list[3]", None, before.clone()),
        ("t.length", None, before.clone()),
        ("list.length", None, before.clone()),
    ];
    for (expression, removed, after) in rows {
        let mut value = before.clone();
        assert_eq!(value.delete_path(&path(expression)), *removed, "{expression}");
        assert_eq!(value, *after, "{expression}");
    }
}
