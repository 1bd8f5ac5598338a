//! Values shared between owners and threads.

use std::sync::{Arc, Barrier};
use std::thread;

use flowbay_abi::value::{Blob, Str};
use flowbay_abi::{Msg, Value, object, value};

fn message() -> Msg {
    let text = "text that is longer than fifteen bytes";
    Msg::from(object!({
        "payload": { "text": text, "list": [1, text, [null, Blob::from(vec![7; 100])]] },
        "a property name that is not stored in place": 1,
    }))
}

#[test]
fn a_change_to_one_clone_is_seen_by_no_other() {
    let original = message();
    let mut changed = original.clone();
    let payload = changed.get_mut("payload").unwrap().as_object_mut().unwrap();
    payload.get_mut("list").unwrap().as_array_mut().unwrap()[2].as_array_mut().unwrap().push("new");
    payload.remove("text");
    assert_eq!(original, message());
    assert_eq!(changed.payload()["list"][2][2], "new");
    assert!(changed.payload()["text"].is_null());
}

#[test]
fn a_clone_shares_everything_and_a_change_copies_only_the_way_to_it() {
    let original = value!({ "a": [1, 2], "b": ["untouched"] });
    let mut changed = original.clone();
    assert!(original.as_object().unwrap().ptr_eq(changed.as_object().unwrap()));
    changed.set_path(&"a[0]".parse().unwrap(), 5).unwrap();
    let array = |value: &Value, key: &str| value[key].as_array().unwrap().clone();
    assert!(!array(&original, "a").ptr_eq(&array(&changed, "a")));
    assert!(array(&original, "b").ptr_eq(&array(&changed, "b")));
}

#[test]
fn a_value_with_one_owner_is_changed_in_place() {
    let mut array = flowbay_abi::Array::from([1, 2, 3]);
    let before = array.as_slice().as_ptr();
    array[1] = value!("b");
    array.remove(0);
    assert_eq!(array.as_slice().as_ptr(), before);
}

#[test]
fn threads_read_clone_change_and_drop_the_same_value() {
    const THREADS: usize = 4;
    let original = Arc::new(message());
    let start = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (original, start) = (original.clone(), start.clone());
            thread::spawn(move || {
                start.wait();
                for round in 0..500 {
                    let mut mine = Msg::clone(&original);
                    let witness = mine.clone();
                    mine.set_path(&"payload.list[2][0]".parse().unwrap(), (number * round) as i64).unwrap();
                    mine.set("payload.text", mine.payload()["text"].clone());
                    assert_eq!(mine.payload()["list"][2][0], (number * round) as i64);
                    assert_eq!(witness, *original);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*original, message());
}

#[test]
fn the_last_owner_may_be_on_another_thread() {
    let msg = message();
    let (text, bytes) = (Str::from("a text of more than fifteen bytes"), Blob::from(b"bytes"));
    let moved = (msg.clone(), text.clone(), bytes.clone());
    drop((msg, text));
    thread::spawn(move || {
        assert_eq!((&moved.0, moved.1.len(), moved.2.len()), (&message(), 33, 5));
        drop(moved);
    })
    .join()
    .unwrap();
    assert_eq!(bytes.as_slice(), b"bytes");
}

#[test]
fn iterating_by_value_leaves_other_owners_what_they_had() {
    let original = value!({ "list": ["a text of more than fifteen bytes", [1]], "other": 2 });
    let object = original.as_object().unwrap().clone();
    assert_eq!(object.clone().into_iter().count(), 2);
    let list = object.get("list").unwrap().as_array().unwrap().clone();
    assert_eq!(list.into_iter().next().unwrap(), "a text of more than fifteen bytes");
    assert_eq!(Value::from(object), original);
}

#[test]
fn abi_stable_can_check_the_layout_of_a_message() {
    use abi_stable::StableAbi;
    use abi_stable::abi_stability::abi_checking::check_layout_compatibility;

    check_layout_compatibility(Msg::LAYOUT, Msg::LAYOUT).unwrap();
    check_layout_compatibility(Value::LAYOUT, Value::LAYOUT).unwrap();
    assert!(check_layout_compatibility(Value::LAYOUT, Blob::LAYOUT).is_err());
}
