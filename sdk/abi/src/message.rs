//! [`Msg`]: what travels along the wires of a flow.

use std::fmt;
use std::ops::{Deref, DerefMut};

use abi_stable::StableAbi;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::path::{PathError, PropertyPath};
use crate::value::{Object, Str, Value};

/// The property that holds the message's id, 16 hexadecimal digits that copies share.
pub const MSGID: &str = "_msgid";
/// The property that nodes work on unless told otherwise.
pub const PAYLOAD: &str = "payload";
/// The property that says what the payload is about.
pub const TOPIC: &str = "topic";
/// The property that names the WebSocket connection a message came from.
pub const SESSION: &str = "_session";

/// A message: always an object, usually with a `payload` and a `_msgid`.
///
/// It dereferences to its [`Object`], so properties are read and changed as there. A clone shares
/// everything until it is changed.
#[repr(transparent)]
#[derive(StableAbi, Clone, Default, PartialEq)]
pub struct Msg(Object);

impl Msg {
    /// A message without properties.
    #[inline]
    pub const fn new() -> Self {
        Msg(Object::new())
    }

    /// A message with nothing but a payload.
    pub fn with_payload(payload: impl Into<Value>) -> Self {
        // Room for what most nodes add: an id, a topic and a session.
        let mut msg = Msg(Object::with_capacity(4));
        msg.set(PAYLOAD, payload);
        msg
    }

    /// The object that the message is.
    #[inline]
    pub fn into_object(self) -> Object {
        self.0
    }

    /// The payload; `null` when there is none.
    #[inline]
    pub fn payload(&self) -> &Value {
        &self.0[PAYLOAD]
    }

    /// The topic; `null` when there is none.
    #[inline]
    pub fn topic(&self) -> &Value {
        &self.0[TOPIC]
    }

    /// The id, if the message has one that is text.
    #[inline]
    pub fn id(&self) -> Option<&str> {
        self.0.get(MSGID)?.as_str()
    }

    /// Sets a property; one that exists keeps its place.
    #[inline]
    pub fn set(&mut self, key: impl Into<Str>, value: impl Into<Value>) {
        self.0.insert(key, value);
    }

    /// The value at `path`, as [`Value::get_path`]; references in the path are to this message.
    #[inline]
    pub fn get_path(&self, path: &PropertyPath) -> Option<Value> {
        self.0.get_path(path)
    }

    /// Sets the value at `path`, as [`Value::set_path`]; references in the path are to this message.
    ///
    /// # Errors
    /// As for [`Value::set_path`].
    pub fn set_path(&mut self, path: &PropertyPath, value: impl Into<Value>) -> Result<(), PathError> {
        self.0.set_path(path, value.into())
    }

    /// Removes the value at `path` and returns it, as [`Value::delete_path`].
    pub fn delete_path(&mut self, path: &PropertyPath) -> Option<Value> {
        self.0.delete_path(path)
    }

    /// Roughly how many bytes of heap the message holds, as [`Value::heap_size_hint`], but one level
    /// deeper, so that what is directly in an array or object payload counts.
    pub fn heap_size_hint(&self) -> usize {
        /// Messages with more properties than this are not looked at in full.
        const PROPERTIES: usize = 64;
        let inner = self.0.values().take(PROPERTIES).map(Value::heap_size_hint);
        inner.fold(self.0.block_size(), usize::saturating_add)
    }
}

impl Deref for Msg {
    type Target = Object;

    #[inline]
    fn deref(&self) -> &Object {
        &self.0
    }
}

impl DerefMut for Msg {
    #[inline]
    fn deref_mut(&mut self) -> &mut Object {
        &mut self.0
    }
}

impl From<Object> for Msg {
    #[inline]
    fn from(object: Object) -> Self {
        Msg(object)
    }
}

impl From<Msg> for Object {
    #[inline]
    fn from(msg: Msg) -> Self {
        msg.0
    }
}

impl From<Msg> for Value {
    #[inline]
    fn from(msg: Msg) -> Self {
        Value::Object(msg.0)
    }
}

/// Only an object is a message; anything else comes back as it is.
impl TryFrom<Value> for Msg {
    type Error = Value;

    fn try_from(value: Value) -> Result<Self, Value> {
        match value {
            Value::Object(object) => Ok(Msg(object)),
            other => Err(other),
        }
    }
}

impl fmt::Debug for Msg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Msg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Msg {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        Object::deserialize(source).map(Msg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object;

    #[test]
    fn what_is_missing_reads_as_null() {
        let msg = Msg::new();
        assert!(msg.payload().is_null() && msg.topic().is_null());
        assert_eq!(msg.id(), None);
    }

    #[test]
    fn properties_are_set_in_place_and_read_by_name() {
        let mut msg = Msg::with_payload("a");
        msg.set(MSGID, "00f1");
        msg.set(TOPIC, "t");
        msg.set(PAYLOAD, 5);
        assert_eq!(
            (msg.id(), msg.topic().as_str(), msg.payload().as_i64()),
            (Some("00f1"), Some("t"), Some(5))
        );
        assert_eq!(msg.keys().map(|key| key.as_str()).collect::<Vec<_>>(), [PAYLOAD, MSGID, TOPIC]);
        msg.set(MSGID, 7);
        assert_eq!(msg.id(), None, "an id that is not text is none");
    }

    #[test]
    fn a_changed_clone_leaves_the_original_alone() {
        let original = Msg::from(object!({ "payload": { "list": [1] } }));
        let mut copy = original.clone();
        copy.set_path(&"payload.list[0]".parse().unwrap(), 2).unwrap();
        assert_eq!(original, Msg::from(object!({ "payload": { "list": [1] } })));
        assert_eq!(copy.payload()["list"][0], 2);
    }

    #[test]
    fn only_an_object_is_a_message() {
        assert_eq!(Msg::try_from(Value::Object(object!({ "a": 1 }))).unwrap()["a"], 1);
        assert_eq!(Msg::try_from(Value::Null), Err(Value::Null));
    }

    #[test]
    fn the_size_hint_sees_text_directly_inside_the_payload() {
        let text = "x".repeat(10_000);
        assert!(Msg::with_payload(text.as_str()).heap_size_hint() >= 10_000);
        assert!(Msg::from(object!({ "payload": { "text": text } })).heap_size_hint() >= 10_000);
        assert!(Msg::with_payload("short").heap_size_hint() < 500);
    }

    #[test]
    fn serde_treats_a_message_as_its_object() {
        let msg: Msg = serde_json::from_str(r#"{"payload":1.0,"_msgid":"a"}"#).unwrap();
        assert_eq!(serde_json::to_string(&msg).unwrap(), r#"{"payload":1,"_msgid":"a"}"#);
        assert!(serde_json::from_str::<Msg>("[]").is_err());
    }
}
