//! [`Object`]: values by name, in the order in which the names were added.

use std::collections::HashMap;
use std::fmt;

use abi_stable::StableAbi;

use super::shared::Shared;
use super::{Str, Value};

/// One property of an object.
///
/// Part of the ABI, although the layout checker does not see it: a change needs a new ABI major.
#[repr(C)]
#[derive(Clone)]
pub(super) struct Entry {
    pub key: Str,
    pub value: Value,
}

/// Values by name, in the order in which the names were added.
///
/// Clones share memory until one of them is changed (copy-on-write). Look-ups are linear, which is
/// fastest for the few properties that messages have; building an object from an iterator, from
/// JSON or through serde takes time proportional to its size, however many properties it has.
#[repr(transparent)]
#[derive(StableAbi, Clone)]
#[sabi(unsafe_opaque_fields)]
pub struct Object {
    entries: Shared<Entry>,
}

impl Object {
    /// The empty object; allocates nothing.
    #[inline]
    pub const fn new() -> Self {
        Object { entries: Shared::new() }
    }

    /// Empty, with room for `capacity` properties.
    pub fn with_capacity(capacity: usize) -> Self {
        Object { entries: Shared::with_capacity(capacity) }
    }

    /// Number of properties.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no properties.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn position(&self, key: &str) -> Option<usize> {
        let is_key = Str::matcher(key);
        self.entries.as_slice().iter().position(|entry| is_key(&entry.key))
    }

    /// The value named `key`.
    #[inline]
    pub fn get(&self, key: &str) -> Option<&Value> {
        let is_key = Str::matcher(key);
        self.entries.as_slice().iter().find(|entry| is_key(&entry.key)).map(|entry| &entry.value)
    }

    /// The value named `key`, to be changed in place; the object is copied first when it is shared.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        let position = self.position(key)?;
        Some(&mut self.entries.make_mut()[position].value)
    }

    /// The value named `key`, added by `make` if there is none.
    pub fn get_or_insert_with(&mut self, key: &str, make: impl FnOnce() -> Value) -> &mut Value {
        let position = self.position(key).unwrap_or_else(|| {
            self.entries.push(Entry { key: key.into(), value: make() });
            self.len() - 1
        });
        &mut self.entries.make_mut()[position].value
    }

    /// Whether there is a property named `key`, `null` or not.
    #[inline]
    pub fn contains_key(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// Sets a property. One that exists keeps its place, and its former value is returned.
    pub fn insert(&mut self, key: impl Into<Str>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        let position = self.entries.as_slice().iter().position(|entry| entry.key == key);
        match position {
            Some(position) => Some(std::mem::replace(&mut self.entries.make_mut()[position].value, value)),
            None => {
                self.entries.push(Entry { key, value });
                None
            }
        }
    }

    /// Removes a property; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let position = self.position(key)?;
        Some(self.entries.remove(position).value)
    }

    /// Removes all properties.
    pub fn clear(&mut self) {
        self.entries.truncate(0);
    }

    /// Names and values in order.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.entries.as_slice().iter())
    }

    /// Names and values in order, the values to be changed in place; copied first when shared.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&Str, &mut Value)> {
        self.entries.make_mut().iter_mut().map(|entry| (&entry.key, &mut entry.value))
    }

    /// Names in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Str> + DoubleEndedIterator {
        self.iter().map(|(key, _)| key)
    }

    /// Values in the order of their names.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> + DoubleEndedIterator {
        self.iter().map(|(_, value)| value)
    }

    /// Whether both are the same memory (so equal without a look at the properties).
    #[inline]
    pub fn ptr_eq(&self, other: &Object) -> bool {
        self.entries.ptr_eq(&other.entries)
    }

    /// The property at `index`.
    #[inline]
    pub(super) fn entry_at(&self, index: usize) -> Option<(&Str, &Value)> {
        self.entries.as_slice().get(index).map(|entry| (&entry.key, &entry.value))
    }

    /// Bytes of the list of properties itself, without what keys and values hold.
    #[inline]
    pub(crate) fn block_size(&self) -> usize {
        self.entries.block_size()
    }

    #[inline]
    pub(super) fn shared(&self) -> &Shared<Entry> {
        &self.entries
    }
}

/// Builds an object from many properties in linear time; a repeated name replaces the value.
pub(super) struct ObjectBuilder {
    object: Object,
    /// Where each name stands, once there are too many for a linear search. Randomly seeded, so
    /// that nobody can choose names that collide.
    positions: Option<HashMap<Str, usize>>,
}

impl ObjectBuilder {
    /// Up to here a linear search over 40-byte entries is not slower than hashing.
    const LINEAR: usize = 32;

    pub fn new(object: Object) -> Self {
        ObjectBuilder { object, positions: None }
    }

    pub fn insert(&mut self, key: Str, value: Value) {
        if self.object.len() < Self::LINEAR {
            self.object.insert(key, value);
            return;
        }
        let entries = &mut self.object.entries;
        let positions = self.positions.get_or_insert_with(|| {
            entries.as_slice().iter().map(|entry| entry.key.clone()).zip(0..).collect()
        });
        match positions.get(&key) {
            Some(position) => entries.make_mut()[*position].value = value,
            None => {
                positions.insert(key.clone(), entries.len());
                entries.push(Entry { key, value });
            }
        }
    }

    pub fn finish(self) -> Object {
        self.object
    }
}

impl Default for Object {
    fn default() -> Self {
        Object::new()
    }
}

/// Equal properties in any order.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        super::compare::objects_equal(self, other)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Value::Object(self.clone()), f)
    }
}

impl<K: Into<Str>, V: Into<Value>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(properties: I) -> Self {
        let mut object = Object::new();
        object.extend(properties);
        object
    }
}

impl<K: Into<Str>, V: Into<Value>> Extend<(K, V)> for Object {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, properties: I) {
        let mut builder = ObjectBuilder::new(std::mem::take(self));
        properties.into_iter().for_each(|(key, value)| builder.insert(key.into(), value.into()));
        *self = builder.finish();
    }
}

impl<K: Into<Str>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Object {
    fn from(properties: [(K, V); N]) -> Self {
        properties.into_iter().collect()
    }
}

/// Names and values of an [`Object`] in order.
#[derive(Clone)]
pub struct Iter<'a>(std::slice::Iter<'a, Entry>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Str, &'a Value);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|entry| (&entry.key, &entry.value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|entry| (&entry.key, &entry.value))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Object {
    type Item = (&'a Str, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Names and values of an [`Object`] in order, by value.
pub struct IntoIter(std::vec::IntoIter<Entry>);

impl Iterator for IntoIter {
    type Item = (Str, Value);

    fn next(&mut self) -> Option<(Str, Value)> {
        self.0.next().map(|entry| (entry.key, entry.value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for IntoIter {}

impl IntoIterator for Object {
    type Item = (Str, Value);
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter(self.entries.into_vec().into_iter())
    }
}
