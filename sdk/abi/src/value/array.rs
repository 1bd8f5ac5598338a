//! [`Array`]: a list of values.

use std::fmt;
use std::ops::{Deref, DerefMut};

use abi_stable::StableAbi;

use super::Value;
use super::shared::Shared;

/// A list of values. Clones share memory until one of them is changed (copy-on-write).
#[repr(transparent)]
#[derive(StableAbi, Clone)]
#[sabi(unsafe_opaque_fields)]
pub struct Array {
    items: Shared<Value>,
}

impl Array {
    /// The empty array; allocates nothing.
    #[inline]
    pub const fn new() -> Self {
        Array { items: Shared::new() }
    }

    /// Empty, with room for `capacity` values.
    pub fn with_capacity(capacity: usize) -> Self {
        Array { items: Shared::with_capacity(capacity) }
    }

    /// The values.
    #[inline]
    pub fn as_slice(&self) -> &[Value] {
        self.items.as_slice()
    }

    /// The values, to be changed in place; the list is copied first when it is shared.
    #[inline]
    pub fn make_mut(&mut self) -> &mut [Value] {
        self.items.make_mut()
    }

    /// Adds a value at the end.
    #[inline]
    pub fn push(&mut self, value: impl Into<Value>) {
        self.items.push(value.into());
    }

    /// Takes the last value away.
    pub fn pop(&mut self) -> Option<Value> {
        self.items.pop()
    }

    /// Puts a value before the one at `index`.
    ///
    /// # Panics
    /// When `index` is beyond the end.
    pub fn insert(&mut self, index: usize, value: impl Into<Value>) {
        self.items.insert(index, value.into());
    }

    /// Takes the value at `index` away and closes the gap.
    ///
    /// # Panics
    /// When there is no such value.
    pub fn remove(&mut self, index: usize) -> Value {
        self.items.remove(index)
    }

    /// Drops all values from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.items.truncate(len);
    }

    /// Drops all values.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Makes room for `additional` more values.
    pub fn reserve(&mut self, additional: usize) {
        self.items.reserve(additional);
    }

    /// Whether both are the same memory (so equal without a look at the values).
    #[inline]
    pub fn ptr_eq(&self, other: &Array) -> bool {
        self.items.ptr_eq(&other.items)
    }

    /// Bytes of the list itself, without what its values hold.
    #[inline]
    pub(super) fn block_size(&self) -> usize {
        self.items.block_size()
    }

    #[inline]
    pub(super) fn shared(&self) -> &Shared<Value> {
        &self.items
    }
}

impl Default for Array {
    fn default() -> Self {
        Array::new()
    }
}

impl Deref for Array {
    type Target = [Value];

    #[inline]
    fn deref(&self) -> &[Value] {
        self.as_slice()
    }
}

/// Copies the list first when it is shared, as [`Array::make_mut`] does.
impl DerefMut for Array {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Value] {
        self.make_mut()
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        super::compare::arrays_equal(self, other)
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Value::Array(self.clone()), f)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Array {
    fn from(values: Vec<T>) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Array {
    fn from(values: [T; N]) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Into<Value>> FromIterator<T> for Array {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut array = Array::new();
        array.extend(values);
        array
    }
}

impl<T: Into<Value>> Extend<T> for Array {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        let values = values.into_iter();
        let at_least = values.size_hint().0;
        if at_least > 0 {
            self.reserve(at_least);
        }
        values.for_each(|value| self.push(value));
    }
}

impl IntoIterator for Array {
    type Item = Value;
    type IntoIter = std::vec::IntoIter<Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_vec().into_iter()
    }
}

impl<'a> IntoIterator for &'a Array {
    type Item = &'a Value;
    type IntoIter = std::slice::Iter<'a, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
