//! Arrays and objects against the standard library's containers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use flowbay_abi::{Array, Object, Value, object, value};

#[test]
fn an_array_does_what_a_vec_does() {
    let mut array = Array::new();
    let mut vec: Vec<i64> = Vec::new();
    // A fixed sequence of operations from a small generator, so that a failure can be repeated.
    let mut seed = 1_u64;
    for step in 0..3000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (seed >> 33) as usize % (vec.len() + 1);
        // Some steps work on a shared block, whose other owner must not notice.
        let witness = (step % 5 == 0).then(|| (array.clone(), vec.clone()));
        match (seed >> 20) % 8 {
            0..=2 => (array.push(step), vec.push(step)).1,
            3 => (array.insert(at, step), vec.insert(at, step)).1,
            4 if at < vec.len() => assert_eq!(array.remove(at), vec.remove(at)),
            5 => assert_eq!(array.pop().and_then(|value| value.as_i64()), vec.pop()),
            6 if step % 50 == 0 => (array.truncate(at), vec.truncate(at)).1,
            7 if at < vec.len() => {
                array[at] = Value::from(-step);
                vec[at] = -step;
            }
            _ => {
                array.extend([step, step + 1]);
                vec.extend([step, step + 1]);
            }
        }
        assert_eq!(array, Array::from(vec.clone()), "after step {step}");
        if let Some((array, vec)) = witness {
            assert_eq!(array, Array::from(vec), "the clone made before step {step}");
        }
    }
    assert!(vec.len() > 100);
    let values: Vec<i64> = array.into_iter().filter_map(|value| value.as_i64()).collect();
    assert_eq!(values, vec);
}

#[test]
fn an_empty_container_works_like_any_other() {
    let mut array = Array::default();
    array.truncate(0);
    array.clear();
    array.reserve(0);
    assert_eq!((array.pop(), array.len(), array.make_mut().len()), (None, 0, 0));
    assert_eq!(Array::with_capacity(10), array);
    assert_eq!(array.clone().into_iter().count(), 0);
    let mut object = Object::default();
    object.clear();
    assert_eq!((object.remove("a"), object.get("a")), (None, None));
    assert_eq!(object.get_mut("a"), None);
    assert_eq!(Object::with_capacity(10), object);
    assert_eq!(object.into_iter().count(), 0);
}

#[test]
#[should_panic(expected = "removal index (is 1) should be < len (is 1)")]
fn removing_beyond_the_end_panics() {
    Array::from([1]).remove(1);
}

#[test]
#[should_panic(expected = "insertion index (is 2) should be <= len (is 1)")]
fn inserting_beyond_the_end_panics() {
    Array::from([1]).insert(2, 0);
}

#[test]
#[should_panic(expected = "capacity overflow")]
fn an_impossible_capacity_is_refused() {
    Array::with_capacity(usize::MAX / 16);
}

#[test]
fn an_object_keeps_the_order_in_which_names_came() {
    let mut object = object!({ "b": 1, "a": 2, "a name of more than fifteen bytes": 3 });
    assert_eq!(object.insert("b", 9), Some(Value::Int(1)));
    assert_eq!(object.insert("c", 4), None);
    assert_eq!(object.remove("a"), Some(Value::Int(2)));
    assert_eq!(object.remove("a"), None);
    *object.get_mut("c").unwrap() = value!("C");
    *object.get_or_insert_with("d", || value!(5)) = value!(6);
    *object.get_or_insert_with("d", || unreachable!()) = value!(7);
    for (_, value) in object.iter_mut().filter(|(key, _)| key.len() > 15) {
        *value = value!(33);
    }
    let expected = r#"{"b":9,"a name of more than fifteen bytes":33,"c":"C","d":7}"#;
    assert_eq!(Value::from(object.clone()).to_json().unwrap(), expected);
    assert_eq!(object.len(), 4);
    assert!(object.contains_key("a name of more than fifteen bytes") && !object.contains_key("a"));
    assert_eq!(object.keys().map(|key| key.len()).collect::<Vec<_>>(), [1, 33, 1, 1]);
    let pairs: Vec<(String, Value)> = object.into_iter().map(|(key, value)| (key.into(), value)).collect();
    assert_eq!(pairs[3], ("d".to_owned(), value!(7)));
}

#[test]
fn objects_are_equal_in_any_order() {
    for size in [2, 31, 32, 33, 1000] {
        let forwards: Object = (0..size).map(|i| (format!("key {i}"), i)).collect();
        let backwards: Object = (0..size).rev().map(|i| (format!("key {i}"), i)).collect();
        let mut other = backwards.clone();
        other.insert("key 1", "else");
        let mut renamed = backwards.clone();
        renamed.remove("key 0");
        renamed.insert("another", 0);
        assert_eq!(forwards, backwards, "{size}");
        assert_ne!(forwards, other, "{size}");
        assert_ne!(forwards, renamed, "{size}");
    }
}

#[test]
fn a_repeated_name_replaces_the_value_in_its_place_however_many_there_are() {
    let names = |count: usize| (0..count).map(|i| format!("n{}", i % 70));
    for count in [10, 32, 33, 69, 70, 71, 500] {
        let object: Object = names(count).zip(0..).collect();
        let last: HashMap<String, i32> = names(count).zip(0..).collect();
        assert_eq!(object.len(), last.len());
        assert!(object.iter().enumerate().all(|(i, (key, value))| {
            *key == format!("n{i}") && value.as_i64() == Some(i64::from(last[key.as_str()]))
        }));
    }
}

/// Quadratic time would be hours here, so the bound is far from both.
#[test]
fn an_object_of_a_hundred_thousand_names_is_built_and_compared_in_linear_time() {
    let started = Instant::now();
    let json = |order: &mut dyn Iterator<Item = u32>| {
        let properties: Vec<String> = order.map(|i| format!("\"name {i}\":{i}")).collect();
        format!("{{{}}}", properties.join(","))
    };
    let forwards = Value::from_json(json(&mut (0..100_000)).as_bytes()).unwrap();
    let backwards = Value::from_json(json(&mut (0..100_000).rev()).as_bytes()).unwrap();
    assert_eq!(forwards.as_object().unwrap().len(), 100_000);
    assert_eq!(forwards, backwards);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn the_macros_write_json() {
    let name = "n";
    let made = value!({
        "a": null, "b": [null, [], {}, [1], { "x": -1 }, 1 + 1, name],
        "c": { "d": name.len(), },
        name: Some(2.5),
        (format!("{name}{name}")): "t".repeat(2),
    });
    let expected = r#"{"a":null,"b":[null,[],{},[1],{"x":-1},2,"n"],"c":{"d":1},"n":2.5,"nn":"tt"}"#;
    assert_eq!(made.to_json().unwrap(), expected);
    assert_eq!(value!([1, 2,]).to_json().unwrap(), "[1,2]");
    assert_eq!(object!({}), Object::new());
}
