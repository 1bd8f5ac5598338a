//! Values through serde, inwards ([`Deserialize`]) and as a source ([`from_value`]).

use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::object::ObjectBuilder;
use super::{Array, Blob, ConvertError, MAX_DEPTH, Object, Str, Value, float_as_i64};

impl de::Error for ConvertError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        <ConvertError as serde::ser::Error>::custom(message)
    }
}

/// How much room a source may ask for in advance: what it says about its length is only a claim.
fn room(claimed: Option<usize>) -> usize {
    claimed.unwrap_or(0).min(1024)
}

/// Reads a value inside `depth` containers; recursion ends at [`MAX_DEPTH`].
#[derive(Clone, Copy)]
struct ValueSeed {
    depth: usize,
}

impl ValueSeed {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(ConvertError::too_deep()));
        }
        Ok(ValueSeed { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

macro_rules! visit_as_value {
    ($($method:ident($source:ty))*) => {$(
        fn $method<E>(self, value: $source) -> Result<Value, E> {
            Ok(Value::from(value))
        }
    )*};
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    visit_as_value! {
        visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.into()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        self.deserialize(source)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        self.deserialize(source)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut items = Array::with_capacity(room(source.size_hint()));
        while let Some(item) = source.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut properties = ObjectBuilder::new(Object::with_capacity(room(source.size_hint())));
        while let Some(key) = source.next_key::<Str>()? {
            properties.insert(key, source.next_value_seed(inner)?);
        }
        Ok(properties.finish().into())
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        ValueSeed { depth: 0 }.deserialize(source)
    }
}

impl<'de> Deserialize<'de> for Array {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        match Value::deserialize(source)? {
            Value::Array(array) => Ok(array),
            other => Err(wrong_type(&other, "an array")),
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        match Value::deserialize(source)? {
            Value::Object(object) => Ok(object),
            other => Err(wrong_type(&other, "an object")),
        }
    }
}

fn wrong_type<E: de::Error>(value: &Value, expected: &str) -> E {
    E::custom(format_args!("invalid type: {}, expected {expected}", value.type_name()))
}

impl<'de> Deserialize<'de> for Str {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Str;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Str, E> {
                Ok(text.into())
            }
        }

        source.deserialize_str(Text)
    }
}

/// Bytes, a list of bytes, or the JSON form of a Node.js `Buffer`.
impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(bytes.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Blob, A::Error> {
                let mut bytes = Vec::with_capacity(room(source.size_hint()));
                while let Some(byte) = source.next_element::<u8>()? {
                    bytes.push(byte);
                }
                Ok(bytes.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Blob, A::Error> {
                let (mut is_buffer, mut data) = (false, None);
                while let Some(key) = source.next_key::<Str>()? {
                    match key.as_str() {
                        "type" => is_buffer = source.next_value::<Str>()? == "Buffer",
                        "data" => data = Some(source.next_value::<Vec<u8>>()?),
                        _ => drop(source.next_value::<de::IgnoredAny>()?),
                    }
                }
                match data {
                    Some(data) if is_buffer => Ok(data.into()),
                    _ => Err(de::Error::custom("expected bytes, or an object with type \"Buffer\" and data")),
                }
            }
        }

        // Text formats hold the map, binary ones the bytes, and our own source both.
        if source.is_human_readable() {
            source.deserialize_any(Bytes)
        } else {
            source.deserialize_bytes(Bytes)
        }
    }
}

/// Converts a value into any deserializable type; text and bytes can be borrowed from it.
///
/// Whole numbers convert to integer types also when they are floats, handles read as `null`.
///
/// # Errors
/// When the value has not the shape of `T`; the error says where. Also when it is nested more than
/// [`MAX_DEPTH`] deep and `T` looks that far.
pub fn from_value<'de, T: Deserialize<'de>>(value: &'de Value) -> Result<T, ConvertError> {
    T::deserialize(Source { value, depth: 0 })
}

/// What [`from_value`] reads from: a value inside `depth` containers.
#[derive(Clone, Copy)]
struct Source<'de> {
    value: &'de Value,
    depth: usize,
}

impl<'de> Source<'de> {
    fn inner(self, value: &'de Value) -> Source<'de> {
        Source { value, depth: self.depth + 1 }
    }

    fn check_depth(self) -> Result<(), ConvertError> {
        if self.depth >= MAX_DEPTH { Err(ConvertError::too_deep()) } else { Ok(()) }
    }

    fn visit_array<V: Visitor<'de>>(self, array: &'de Array, visitor: V) -> Result<V::Value, ConvertError> {
        self.check_depth()?;
        let mut items = Items { source: self, items: array.iter(), index: 0 };
        let made = visitor.visit_seq(&mut items)?;
        match items.items.len() {
            0 => Ok(made),
            _ => Err(de::Error::invalid_length(array.len(), &"fewer items in the array")),
        }
    }

    fn visit_object<V: Visitor<'de>>(
        self,
        object: &'de Object,
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        self.check_depth()?;
        visitor.visit_map(Properties { source: self, properties: object.iter(), current: None })
    }
}

/// Integer types also take floats that are whole numbers, as JavaScript does not tell them apart.
macro_rules! deserialize_integer {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
            match self.value {
                Value::Float(float) if let Some(integer) = float_as_i64(*float) => visitor.visit_i64(integer),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Source<'de> {
    type Error = ConvertError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        match self.value {
            Value::Null | Value::Handle(_) => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Str(value) => visitor.visit_borrowed_str(value),
            Value::Bytes(value) => visitor.visit_borrowed_bytes(value),
            Value::Array(array) => self.visit_array(array, visitor),
            Value::Object(object) => self.visit_object(object, visitor),
        }
    }

    deserialize_integer! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        match self.value {
            Value::Null | Value::Handle(_) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        let choice = match self.value {
            Value::Str(variant) => Choice { variant, content: None },
            Value::Object(object) if object.len() == 1 => {
                self.check_depth()?;
                let (variant, content) = object.entry_at(0).expect("an object of length 1 has an entry");
                Choice { variant, content: Some(self.inner(content)) }
            }
            other => {
                let message = format_args!(
                    "invalid type: {}, expected a variant's name or an object with it as only key",
                    other.type_name()
                );
                return Err(de::Error::custom(message));
            }
        };
        visitor.visit_enum(choice)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier
    }
}

/// The rest of an array.
struct Items<'de> {
    source: Source<'de>,
    items: std::slice::Iter<'de, Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ConvertError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ConvertError> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let made = seed.deserialize(self.source.inner(item)).map_err(|error| error.in_item(self.index))?;
        self.index += 1;
        Ok(Some(made))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The rest of an object.
struct Properties<'de> {
    source: Source<'de>,
    properties: super::ObjectIter<'de>,
    /// The property whose key was read and whose value was not.
    current: Option<(&'de Str, &'de Value)>,
}

impl<'de> MapAccess<'de> for Properties<'de> {
    type Error = ConvertError;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ConvertError> {
        self.current = self.properties.next();
        let Some((key, _)) = self.current else { return Ok(None) };
        seed.deserialize(Key(key)).map(Some).map_err(|error| error.in_property(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, ConvertError> {
        let Some((key, value)) = self.current.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(self.source.inner(value)).map_err(|error| error.in_property(key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.properties.len())
    }
}

/// An object's key; maps with number or boolean keys can be read too.
struct Key<'de>(&'de str);

macro_rules! deserialize_parsed_key {
    ($($method:ident $visit:ident $kind:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
            match self.0.parse::<$kind>() {
                Ok(key) => visitor.$visit(key),
                Err(_) => visitor.visit_borrowed_str(self.0),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = ConvertError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        visitor.visit_borrowed_str(self.0)
    }

    deserialize_parsed_key! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        BorrowedStrDeserializer::new(self.0).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// An enum: the variant's name and, unless it has none, its content.
struct Choice<'de> {
    variant: &'de str,
    content: Option<Source<'de>>,
}

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = ConvertError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), ConvertError> {
        let variant = seed.deserialize(BorrowedStrDeserializer::<ConvertError>::new(self.variant))?;
        Ok((variant, self))
    }
}

impl<'de> Choice<'de> {
    fn content(&self) -> Result<Source<'de>, ConvertError> {
        self.content.ok_or_else(|| {
            de::Error::custom(format_args!("variant {} has content, which is missing", self.variant))
        })
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = ConvertError;

    fn unit_variant(self) -> Result<(), ConvertError> {
        match self.content {
            None => Ok(()),
            Some(content) => <()>::deserialize(content).map_err(|error| error.in_property(self.variant)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ConvertError> {
        seed.deserialize(self.content()?).map_err(|error| error.in_property(self.variant))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, ConvertError> {
        self.content()?.deserialize_seq(visitor).map_err(|error| error.in_property(self.variant))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        self.content()?.deserialize_map(visitor).map_err(|error| error.in_property(self.variant))
    }
}
