//! Equality of values, without recursion: values may be nested more deeply than any stack.

use std::collections::HashMap;

use super::{Array, Object, Value};

/// Pairs of containers that remain to be compared.
type Pending<'a> = Vec<(&'a Value, &'a Value)>;

pub(super) fn values_equal(a: &Value, b: &Value) -> bool {
    let mut pending = Pending::new();
    let mut equal = compare_or_defer(a, b, &mut pending);
    while equal && let Some((a, b)) = pending.pop() {
        equal = match (a, b) {
            (Value::Array(a), Value::Array(b)) => compare_arrays(a, b, &mut pending),
            (Value::Object(a), Value::Object(b)) => compare_objects(a, b, &mut pending),
            _ => false,
        };
    }
    equal
}

pub(super) fn arrays_equal(a: &Array, b: &Array) -> bool {
    let mut pending = Pending::new();
    compare_arrays(a, b, &mut pending) && pending.into_iter().all(|(a, b)| values_equal(a, b))
}

pub(super) fn objects_equal(a: &Object, b: &Object) -> bool {
    let mut pending = Pending::new();
    compare_objects(a, b, &mut pending) && pending.into_iter().all(|(a, b)| values_equal(a, b))
}

/// Compares what is flat at once; two containers of a kind are left for later and count as equal.
#[inline]
fn compare_or_defer<'a>(a: &'a Value, b: &'a Value, pending: &mut Pending<'a>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Int(int), Value::Float(float)) | (Value::Float(float), Value::Int(int)) => {
            super::number::float_as_i64(*float) == Some(*int)
        }
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Handle(a), Value::Handle(b)) => a == b,
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            pending.push((a, b));
            true
        }
        _ => false,
    }
}

fn compare_arrays<'a>(a: &'a Array, b: &'a Array, pending: &mut Pending<'a>) -> bool {
    a.ptr_eq(b) || a.len() == b.len() && a.iter().zip(b).all(|(a, b)| compare_or_defer(a, b, pending))
}

fn compare_objects<'a>(a: &'a Object, b: &'a Object, pending: &mut Pending<'a>) -> bool {
    /// From here on, objects whose properties differ in order are compared by hash.
    const LARGE: usize = 32;
    if a.ptr_eq(b) {
        return true;
    }
    if a.len() != b.len() {
        return false;
    }
    let mut by_name: Option<HashMap<&str, &'a Value>> = None;
    a.iter().enumerate().all(|(index, (key, value))| {
        let same_place = b.entry_at(index).filter(|(other_key, _)| *other_key == key);
        let other = match same_place {
            Some((_, other)) => Some(other),
            None if b.len() < LARGE => b.get(key),
            None => by_name
                .get_or_insert_with(|| b.iter().map(|(key, value)| (key.as_str(), value)).collect())
                .get(key.as_str())
                .copied(),
        };
        other.is_some_and(|other| compare_or_defer(value, other, pending))
    })
}
