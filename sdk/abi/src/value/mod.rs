//! The values that messages consist of.
//!
//! A [`Value`] belongs to nobody's library: its memory comes from the C allocator of the process,
//! the code that drops it is compiled into every library that uses this crate, and no part of it
//! points into a library ([`Handle`] points into the host, which stays). So a value may be queued,
//! cloned and dropped anywhere, on any thread, after the plugin that made it is gone.
//!
//! A clone is a reference count; a change copies what is shared, one level at a time.

mod array;
mod blob;
mod compare;
mod de;
mod debug;
mod handle;
mod json;
mod macros;
mod number;
mod object;
mod ser;
mod shared;
mod text;

use abi_stable::StableAbi;

pub use self::array::Array;
pub use self::blob::Blob;
pub use self::de::from_value;
pub use self::handle::{Handle, HandleHeader};
pub use self::json::{JsonError, MAX_DEPTH, MAX_JSON_BYTES};
pub use self::number::number_to_js_string;
pub use self::object::{IntoIter as ObjectIntoIter, Iter as ObjectIter, Object};
pub use self::ser::{ConvertError, to_value};
pub use self::text::{NotUtf8, Str};

pub(crate) use self::number::float_as_i64;
use self::object::Entry;

/// One value: what JavaScript calls null, boolean, number, string, Buffer, array or object.
///
/// Whole numbers that fit are kept as [`Value::Int`]; `Int(1)` and `Float(1.0)` are equal. Dropping
/// and comparing are not recursive, so nesting has no limit except in JSON ([`MAX_DEPTH`]).
#[repr(u8)]
#[derive(StableAbi, Clone, Default)]
pub enum Value {
    /// `null`; also stands for JavaScript's `undefined`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, exact.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Str(Str),
    /// Bytes; a Node.js `Buffer`.
    Bytes(Blob),
    /// A list of values.
    Array(Array),
    /// Values by name.
    Object(Object),
    /// Something that only the host understands.
    Handle(Handle),
}

const _: () = assert!(size_of::<Value>() == 24 && align_of::<Value>() == 8);
const _: () = assert!(size_of::<Str>() == 16 && size_of::<Blob>() == 8);
const _: () = assert!(size_of::<Array>() == 8 && size_of::<Object>() == 8 && size_of::<Handle>() == 8);
const _: () = {
    const fn any_thread<T: Send + Sync>() {}
    any_thread::<Value>();
};

/// What a missing property reads as.
static NULL: Value = Value::Null;

impl Value {
    /// Whether this is `null`.
    #[inline]
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The boolean, if it is one.
    #[inline]
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = self { Some(*value) } else { None }
    }

    /// The number, if it is one that `i64` holds exactly.
    #[inline]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Float(value) => float_as_i64(*value),
            _ => None,
        }
    }

    /// The number, if it is one; rounded when it is an integer beyond 2^53.
    #[inline]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, if it is text.
    #[inline]
    pub fn as_str(&self) -> Option<&str> {
        if let Value::Str(value) = self { Some(value) } else { None }
    }

    /// The bytes, if it is a buffer (not of text).
    #[inline]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Value::Bytes(value) = self { Some(value) } else { None }
    }

    /// The array, if it is one.
    #[inline]
    pub fn as_array(&self) -> Option<&Array> {
        if let Value::Array(value) = self { Some(value) } else { None }
    }

    /// The array, if it is one, to be changed.
    #[inline]
    pub fn as_array_mut(&mut self) -> Option<&mut Array> {
        if let Value::Array(value) = self { Some(value) } else { None }
    }

    /// The object, if it is one.
    #[inline]
    pub fn as_object(&self) -> Option<&Object> {
        if let Value::Object(value) = self { Some(value) } else { None }
    }

    /// The object, if it is one, to be changed.
    #[inline]
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        if let Value::Object(value) = self { Some(value) } else { None }
    }

    /// The handle, if it is one.
    #[inline]
    pub fn as_handle(&self) -> Option<&Handle> {
        if let Value::Handle(value) = self { Some(value) } else { None }
    }

    /// The property named `key`, if this is an object that has it.
    #[inline]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }

    /// Moves the value out and leaves `null`.
    #[inline]
    pub fn take(&mut self) -> Value {
        std::mem::take(self)
    }

    /// What a JavaScript programmer would call the type: `null`, `boolean`, `number`, `string`,
    /// `Buffer`, `array` or `object`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) | Value::Float(_) => "number",
            Value::Str(_) => "string",
            Value::Bytes(_) => "Buffer",
            Value::Array(_) => "array",
            Value::Object(_) | Value::Handle(_) => "object",
        }
    }

    /// The value as text: what JavaScript's `String(x)` prints, except that arrays and objects
    /// become JSON. Bytes are read as UTF-8, with replacement characters where they are not.
    ///
    /// A container that JSON cannot express (see [`Value::to_json`]) is `[array]` or `[object]`.
    pub fn to_js_string(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => number_to_js_string(*value),
            Value::Str(value) => value.as_str().to_owned(),
            Value::Bytes(value) => String::from_utf8_lossy(value).into_owned(),
            Value::Array(_) | Value::Object(_) | Value::Handle(_) => {
                self.to_json().unwrap_or_else(|_| format!("[{}]", self.type_name()))
            }
        }
    }

    /// Roughly how many bytes of heap the value holds: its own text or bytes, or a container with
    /// the text and bytes directly in it. What is nested more deeply is not looked at, of long
    /// containers only a sample, and shared memory counts in full.
    pub fn heap_size_hint(&self) -> usize {
        match self {
            Value::Array(array) => {
                array.block_size() + sampled(array.len(), |index| array[index].own_heap_size())
            }
            Value::Object(object) => {
                let entry = |index| {
                    object.entry_at(index).map_or(0, |(key, value)| key.heap_size() + value.own_heap_size())
                };
                object.block_size() + sampled(object.len(), entry)
            }
            _ => self.own_heap_size(),
        }
    }

    /// Bytes of the one block that this value points to.
    #[inline]
    fn own_heap_size(&self) -> usize {
        match self {
            Value::Str(text) => text.heap_size(),
            Value::Bytes(blob) => blob.heap_size(),
            Value::Array(array) => array.block_size(),
            Value::Object(object) => object.block_size(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Handle(_) => 0,
        }
    }
}

/// The sum of `size` over `len` items, estimated from evenly spaced ones when there are many.
fn sampled(len: usize, size: impl Fn(usize) -> usize) -> usize {
    /// Keeps an estimate in the range of a microsecond.
    const SAMPLE: usize = 256;
    let step = len.div_ceil(SAMPLE).max(1);
    let sum = (0..len).step_by(step).map(size).fold(0, usize::saturating_add);
    sum.saturating_mul(step)
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        compare::values_equal(self, other)
    }
}

impl PartialEq<str> for Value {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Some(other)
    }
}

impl PartialEq<&str> for Value {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == Some(other)
    }
}

impl PartialEq<bool> for Value {
    fn eq(&self, other: &bool) -> bool {
        self.as_bool() == Some(*other)
    }
}

impl PartialEq<i64> for Value {
    fn eq(&self, other: &i64) -> bool {
        self.as_i64() == Some(*other)
    }
}

impl PartialEq<f64> for Value {
    fn eq(&self, other: &f64) -> bool {
        *self == Value::Float(*other)
    }
}

/// `value["key"]`: the property, or `null` when there is none.
impl std::ops::Index<&str> for Value {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }
}

/// `value[0]`: the array item, or `null` when there is none.
impl std::ops::Index<usize> for Value {
    type Output = Value;

    fn index(&self, index: usize) -> &Value {
        self.as_array().and_then(|array| array.as_slice().get(index)).unwrap_or(&NULL)
    }
}

/// `object["key"]`: the property, or `null` when there is none.
impl std::ops::Index<&str> for Object {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }
}

macro_rules! from {
    ($($source:ty => |$value:ident| $made:expr;)*) => {$(
        impl From<$source> for Value {
            #[inline]
            fn from($value: $source) -> Self {
                $made
            }
        }
    )*};
}

from! {
    () => |_unit| Value::Null;
    bool => |value| Value::Bool(value);
    i8 => |value| Value::Int(value.into());
    i16 => |value| Value::Int(value.into());
    i32 => |value| Value::Int(value.into());
    i64 => |value| Value::Int(value);
    u8 => |value| Value::Int(value.into());
    u16 => |value| Value::Int(value.into());
    u32 => |value| Value::Int(value.into());
    // Beyond i64, JavaScript's kind of number is the next best.
    u64 => |value| i64::try_from(value).map_or(Value::Float(value as f64), Value::Int);
    usize => |value| Value::from(value as u64);
    isize => |value| Value::Int(value as i64);
    f32 => |value| Value::Float(value.into());
    f64 => |value| Value::Float(value);
    char => |value| Value::Str(value.into());
    &str => |value| Value::Str(value.into());
    &String => |value| Value::Str(value.into());
    String => |value| Value::Str(value.into());
    std::borrow::Cow<'_, str> => |value| Value::Str(value.into());
    Str => |value| Value::Str(value);
    &Str => |value| Value::Str(value.clone());
    Blob => |value| Value::Bytes(value);
    Array => |value| Value::Array(value);
    Object => |value| Value::Object(value);
    Handle => |value| Value::Handle(value);
    &Value => |value| value.clone();
}

/// A list of values; bytes are made by `Blob::from`, not from a `Vec<u8>`.
impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Value::Array(values.into())
    }
}

/// `None` is `null`.
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Value::Array(values.into_iter().collect())
    }
}
