//! `Debug` for values: JSON-like, for people, never long.

use std::cell::Cell;
use std::fmt;

use super::Value;

/// Containers below this depth are shown as `…`.
const DEPTH: usize = 12;

/// How many values are shown in all; shared containers can stand for exponentially many.
const VALUES: usize = 1000;

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown { value: self, depth: 0, left: &Cell::new(VALUES) }.fmt(f)
    }
}

struct Shown<'a> {
    value: &'a Value,
    depth: usize,
    left: &'a Cell<usize>,
}

impl<'a> Shown<'a> {
    fn inner(&self, value: &'a Value) -> Shown<'a> {
        Shown { value, depth: self.depth + 1, left: self.left }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.left.set(self.left.get().saturating_sub(1));
        match self.value {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Float(value) => value.fmt(f),
            Value::Str(value) => value.fmt(f),
            Value::Bytes(value) => value.fmt(f),
            Value::Handle(value) => value.fmt(f),
            Value::Array(_) | Value::Object(_) if self.depth >= DEPTH || self.left.get() == 0 => {
                f.write_str("…")
            }
            Value::Array(array) => {
                let mut list = f.debug_list();
                for (shown, item) in array.iter().enumerate() {
                    if self.left.get() == 0 {
                        list.entry(&format_args!("… {} more", array.len() - shown));
                        break;
                    }
                    list.entry(&self.inner(item));
                }
                list.finish()
            }
            Value::Object(object) => {
                let mut map = f.debug_map();
                for (shown, (key, value)) in object.iter().enumerate() {
                    if self.left.get() == 0 {
                        map.entry(&"…", &format_args!("{} more", object.len() - shown));
                        break;
                    }
                    map.entry(key, &self.inner(value));
                }
                map.finish()
            }
        }
    }
}
