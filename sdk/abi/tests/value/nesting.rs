//! Nesting deeper than any stack.

use std::thread;

use flowbay_abi::path::PropertyPath;
use flowbay_abi::value::{JsonError, MAX_DEPTH, from_value, to_value};
use flowbay_abi::{Array, Object, Value, value};

const DEEP: usize = 1_000_000;

/// Runs a test on a stack so small that recursion over [`DEEP`] levels must overflow it.
fn on_a_small_stack<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    thread::Builder::new().stack_size(256 * 1024).spawn(test).unwrap().join().unwrap()
}

/// Arrays and objects in turn, `depth` of them.
fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, level| match level % 2 {
        0 => Array::from([inner]).into(),
        _ => Object::from([("a key that is not stored in place", inner)]).into(),
    })
}

#[test]
fn a_value_nested_a_million_deep_is_dropped_on_a_small_stack() {
    on_a_small_stack(|| {
        let deep = nested(DEEP);
        let branch = value!([deep.clone(), deep.clone(), { "again": deep.clone() }]);
        drop(deep);
        drop(branch);
    });
}

#[test]
fn only_what_nobody_else_holds_is_dropped_with_a_deep_value() {
    on_a_small_stack(|| {
        let kept = nested(1000);
        let outer = (0..DEEP).fold(kept.clone(), |inner, _| Array::from([inner]).into());
        drop(outer);
        assert_eq!(kept, nested(1000));
    });
}

#[test]
fn deep_values_are_compared_printed_and_refused_as_json_on_a_small_stack() {
    on_a_small_stack(|| {
        let (a, b) = (nested(DEEP), nested(DEEP));
        assert!(a == b);
        assert!(a != nested(DEEP - 2));
        assert!(Array::from([a.clone()]) == Array::from([b.clone()]));
        assert!(Object::from([("x", a.clone())]) == Object::from([("x", b)]));
        assert!(format!("{a:?}").contains('…'));
        assert_eq!(a.to_json(), Err(JsonError::TooDeep));
        assert!(serde_json::to_string(&a).is_err());
        assert!(serde_json::Value::try_from(&a).is_err());
        assert!(to_value(&a).is_err());
        assert!(from_value::<Value>(&a).is_err());
        assert_eq!(a.to_js_string(), "[object]");
        assert!(from_value::<serde::de::IgnoredAny>(&a).is_ok());
    });
}

#[test]
fn a_type_that_contains_itself_does_not_overflow_the_stack() {
    #[derive(serde::Deserialize)]
    struct Link(#[expect(dead_code)] Vec<Link>);

    on_a_small_stack(|| {
        let deep = (0..DEEP).fold(Array::new(), |inner, _| Array::from([inner])).into();
        let refused = from_value::<Link>(&deep).err().unwrap();
        assert!(refused.to_string().contains("nested more than"), "{refused}");
    });
}

#[test]
fn json_is_read_and_written_up_to_the_same_depth() {
    let text = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    let deepest = Value::from_json(&text(MAX_DEPTH)).unwrap();
    assert_eq!(deepest.to_json().unwrap().as_bytes(), text(MAX_DEPTH));
    assert_eq!(Value::from_json(&text(MAX_DEPTH + 1)), Err(JsonError::TooDeep));
    assert_eq!(value!([deepest.clone()]).to_json(), Err(JsonError::TooDeep));
    assert_eq!(Value::from_json(&vec![b'['; 10_000_000]), Err(JsonError::TooDeep));
    assert!(to_value(&deepest).is_ok() && from_value::<Value>(&deepest).is_ok());
    assert!(serde_json::to_string(&deepest).is_ok());
}

#[test]
fn a_path_may_be_as_long_as_it_likes() {
    on_a_small_stack(|| {
        let path: PropertyPath = format!("a{}", "[0]".repeat(100_000)).parse().unwrap();
        let mut root = value!({});
        root.set_path(&path, 1).unwrap();
        assert_eq!(root.get_path(&path), Some(value!(1)));
        assert_eq!(root.delete_path(&path), Some(value!(1)));
        root.set_path(&PropertyPath::key("a"), "text").unwrap();
        assert_eq!(root.get_path(&path), Some(value!("t")), "a character of a character is itself");
    });
}
