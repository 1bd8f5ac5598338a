//! Values through serde, outwards ([`Serialize`]) and as a target ([`to_value`]).

use std::fmt;

use serde::ser::{self, Serialize, SerializeMap, SerializeSeq};

use super::object::ObjectBuilder;
use super::{Array, Blob, MAX_DEPTH, Object, Str, Value, float_as_i64};

/// The name under which bytes are offered to a serializer, so that ours can keep them as bytes.
const BYTES: &str = "$flowbay_abi::Blob";

/// Why a value was not converted to or from a Rust type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertError {
    path: String,
    message: String,
}

impl ConvertError {
    /// Where in the value: a property path such as `headers[0].name`; empty for the value itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn too_deep() -> Self {
        ser::Error::custom(format_args!("nested more than {MAX_DEPTH} levels deep"))
    }

    /// The same error, seen from the object that has the value as `key`.
    pub(super) fn in_property(self, key: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        ConvertError { path: format!("{key}{dot}{}", self.path), ..self }
    }

    /// The same error, seen from the array that has the value at `index`.
    pub(super) fn in_item(self, index: usize) -> Self {
        self.in_property(&format!("[{index}]"))
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConvertError {}

impl ser::Error for ConvertError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        ConvertError { path: String::new(), message: message.to_string() }
    }
}

/// A value inside `depth` containers; recursion ends at [`MAX_DEPTH`].
struct Nested<'a> {
    value: &'a Value,
    depth: usize,
}

impl Serialize for Nested<'_> {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Null | Value::Handle(_) => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Float(value) => match float_as_i64(*value) {
                // JSON.stringify(1.0) is 1; other writers of JSON would say 1.0.
                Some(integer) if serializer.is_human_readable() => serializer.serialize_i64(integer),
                _ => serializer.serialize_f64(*value),
            },
            Value::Str(value) => serializer.serialize_str(value),
            Value::Bytes(value) => value.serialize(serializer),
            Value::Array(array) => serialize_array(array, self.depth, serializer),
            Value::Object(object) => serialize_object(object, self.depth, serializer),
        }
    }
}

fn check_depth<E: ser::Error>(depth: usize) -> Result<(), E> {
    if depth >= MAX_DEPTH { Err(E::custom(ConvertError::too_deep())) } else { Ok(()) }
}

fn serialize_array<S: ser::Serializer>(
    array: &Array,
    depth: usize,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    check_depth(depth)?;
    let mut list = serializer.serialize_seq(Some(array.len()))?;
    for value in array {
        list.serialize_element(&Nested { value, depth: depth + 1 })?;
    }
    list.end()
}

fn serialize_object<S: ser::Serializer>(
    object: &Object,
    depth: usize,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    check_depth(depth)?;
    let mut map = serializer.serialize_map(Some(object.len()))?;
    for (key, value) in object {
        map.serialize_entry(key.as_str(), &Nested { value, depth: depth + 1 })?;
    }
    map.end()
}

impl Serialize for Value {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Nested { value: self, depth: 0 }.serialize(serializer)
    }
}

impl Serialize for Array {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_array(self, 0, serializer)
    }
}

impl Serialize for Object {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_object(self, 0, serializer)
    }
}

impl Serialize for Str {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

/// In text formats the JSON form of a Node.js `Buffer`; bytes in binary formats and in [`to_value`].
impl Serialize for Blob {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(BYTES, &BlobBody(self))
    }
}

struct BlobBody<'a>(&'a Blob);

impl Serialize for BlobBody<'_> {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(self.0);
        }
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", "Buffer")?;
        map.serialize_entry("data", self.0.as_slice())?;
        map.end()
    }
}

/// Converts anything serializable into a value, in the shape that serde_json would give it, except
/// that bytes stay bytes.
///
/// # Errors
/// When `T`'s `Serialize` fails, a map key is not text, number or boolean, or the value is nested
/// more than [`MAX_DEPTH`] deep.
pub fn to_value<T: Serialize + ?Sized>(source: &T) -> Result<Value, ConvertError> {
    source.serialize(Serializer { depth: 0, text: true })
}

/// The target of [`to_value`].
#[derive(Clone, Copy)]
struct Serializer {
    /// Containers that are open already.
    depth: usize,
    /// What `is_human_readable` answers: yes, except while bytes are asked for their bytes.
    text: bool,
}

impl Serializer {
    /// The serializer for what is inside a container.
    fn inner(self) -> Result<Self, ConvertError> {
        check_depth(self.depth)?;
        Ok(Serializer { depth: self.depth + 1, text: true })
    }
}

macro_rules! serialize_as_value {
    ($($method:ident($source:ty))*) => {$(
        fn $method(self, value: $source) -> Result<Value, ConvertError> {
            Ok(Value::from(value))
        }
    )*};
}

impl ser::Serializer for Serializer {
    type Ok = Value;
    type Error = ConvertError;
    type SerializeSeq = ListTarget;
    type SerializeTuple = ListTarget;
    type SerializeTupleStruct = ListTarget;
    type SerializeTupleVariant = ListTarget;
    type SerializeMap = MapTarget;
    type SerializeStruct = MapTarget;
    type SerializeStructVariant = MapTarget;

    serialize_as_value! {
        serialize_bool(bool)
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
        serialize_f32(f32) serialize_f64(f64)
        serialize_char(char) serialize_str(&str)
    }

    fn is_human_readable(&self) -> bool {
        self.text
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, ConvertError> {
        Ok(Value::Bytes(bytes.into()))
    }

    fn serialize_none(self) -> Result<Value, ConvertError> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, ConvertError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, ConvertError> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, ConvertError> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Value, ConvertError> {
        Ok(Value::from(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, ConvertError> {
        value.serialize(Serializer { text: self.text && name != BYTES, ..self })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, ConvertError> {
        let value = value.serialize(self.inner()?).map_err(|error| error.in_property(variant))?;
        Ok(Object::from([(variant, value)]).into())
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<ListTarget, ConvertError> {
        let items = Array::with_capacity(len.unwrap_or(0));
        Ok(ListTarget { items, inner: self.inner()?, variant: None })
    }

    fn serialize_tuple(self, len: usize) -> Result<ListTarget, ConvertError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<ListTarget, ConvertError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<ListTarget, ConvertError> {
        Ok(ListTarget { variant: Some(variant), ..self.inner()?.serialize_seq(Some(len))? })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<MapTarget, ConvertError> {
        let properties = ObjectBuilder::new(Object::with_capacity(len.unwrap_or(0)));
        Ok(MapTarget { properties, key: Str::new(), inner: self.inner()?, variant: None })
    }

    fn serialize_struct(self, _name: &'static str, len: usize) -> Result<MapTarget, ConvertError> {
        self.serialize_map(Some(len))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<MapTarget, ConvertError> {
        Ok(MapTarget { variant: Some(variant), ..self.inner()?.serialize_map(Some(len))? })
    }
}

/// Wraps the content of an enum variant as `{variant: content}`.
fn in_variant(variant: Option<&'static str>, content: Value) -> Value {
    match variant {
        Some(variant) => Object::from([(variant, content)]).into(),
        None => content,
    }
}

/// An array that is being filled.
struct ListTarget {
    items: Array,
    inner: Serializer,
    variant: Option<&'static str>,
}

impl ListTarget {
    fn add<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), ConvertError> {
        let value = item.serialize(self.inner).map_err(|error| error.in_item(self.items.len()))?;
        self.items.push(value);
        Ok(())
    }

    fn finish(self) -> Result<Value, ConvertError> {
        Ok(in_variant(self.variant, self.items.into()))
    }
}

/// An object that is being filled.
struct MapTarget {
    properties: ObjectBuilder,
    /// The key whose value comes next.
    key: Str,
    inner: Serializer,
    variant: Option<&'static str>,
}

impl MapTarget {
    fn add<T: Serialize + ?Sized>(&mut self, key: Str, value: &T) -> Result<(), ConvertError> {
        let value = value.serialize(self.inner).map_err(|error| error.in_property(&key))?;
        self.properties.insert(key, value);
        Ok(())
    }

    fn finish(self) -> Result<Value, ConvertError> {
        Ok(in_variant(self.variant, self.properties.finish().into()))
    }
}

impl ser::SerializeMap for MapTarget {
    type Ok = Value;
    type Error = ConvertError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ConvertError> {
        self.key = match key.serialize(self.inner)? {
            Value::Str(key) => key,
            key @ (Value::Bool(_) | Value::Int(_) | Value::Float(_)) => key.to_js_string().into(),
            other => {
                let message = format!("an object's key must be a string, not {}", other.type_name());
                return Err(ser::Error::custom(message));
            }
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        let key = std::mem::take(&mut self.key);
        self.add(key, value)
    }

    fn end(self) -> Result<Value, ConvertError> {
        self.finish()
    }
}

macro_rules! list_target {
    ($($kind:ident $method:ident)*) => {$(
        impl ser::$kind for ListTarget {
            type Ok = Value;
            type Error = ConvertError;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), ConvertError> {
                self.add(item)
            }

            fn end(self) -> Result<Value, ConvertError> {
                self.finish()
            }
        }
    )*};
}

list_target! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! struct_target {
    ($($kind:ident)*) => {$(
        impl ser::$kind for MapTarget {
            type Ok = Value;
            type Error = ConvertError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), ConvertError> {
                self.add(key.into(), value)
            }

            fn end(self) -> Result<Value, ConvertError> {
                self.finish()
            }
        }
    )*};
}

struct_target! { SerializeStruct SerializeStructVariant }

/// Loses nothing but bytes, which become the JSON form of a Node.js `Buffer`, and handles.
///
/// # Errors
/// When the value is nested more than [`MAX_DEPTH`] deep.
impl TryFrom<&Value> for serde_json::Value {
    type Error = ConvertError;

    fn try_from(value: &Value) -> Result<Self, ConvertError> {
        serde_json::to_value(value).map_err(ser::Error::custom)
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(integer) => Value::Int(integer),
                None => number.as_f64().map_or(Value::Null, Value::Float),
            },
            serde_json::Value::String(text) => Value::from(text),
            serde_json::Value::Array(items) => Value::from(items),
            serde_json::Value::Object(properties) => Object::from_iter(properties).into(),
        }
    }
}
