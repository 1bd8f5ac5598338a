//! [`Str`]: UTF-8 text, short strings in place, longer ones shared by reference count.

#![allow(unsafe_code)]

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr;
use std::str::Utf8Error;

use abi_stable::StableAbi;

use super::Blob;

/// The longest string, in bytes, that needs no memory of its own.
const INLINE_MAX: usize = 15;

/// The highest byte of `tail` when `head` is a pointer; otherwise that byte is the inline length.
const SHARED: u64 = 0xFF << 56;

/// Immutable UTF-8 text of 16 bytes plus, beyond 15 bytes of text, a shared block.
///
/// Clones never copy text: short strings are plain data, longer ones share their memory by
/// reference count (see [`Blob`] for where it comes from). A string of at most 15 bytes is always
/// stored in place and padded with zeros, so two short strings are equal exactly when their two
/// words are.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(unsafe_opaque_fields)]
pub struct Str {
    /// Bytes 0 to 7 of a short string, or the raw form of a [`Blob`].
    head: *mut (),
    /// Bytes 8 to 14 of a short string and, in the highest byte, its length; or `SHARED | length`.
    tail: u64,
}

// SAFETY: short strings are plain data; long ones own a reference to a `Blob`, which is `Send + Sync`.
unsafe impl Send for Str {}
// SAFETY: as above.
unsafe impl Sync for Str {}

/// Why bytes did not become a [`Str`]; the bytes come back with the reason.
#[derive(Debug)]
pub struct NotUtf8 {
    /// The bytes that were offered.
    pub bytes: Blob,
    /// Where they stop being UTF-8.
    pub error: Utf8Error,
}

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for NotUtf8 {}

impl Str {
    /// The empty string; allocates nothing.
    #[inline]
    pub const fn new() -> Self {
        Str { head: ptr::null_mut(), tail: 0 }
    }

    /// Checks that `bytes` are UTF-8 and makes them a string, without a copy when they are more
    /// than 15.
    ///
    /// # Errors
    /// When they are not UTF-8; the error holds the bytes.
    pub fn from_utf8(bytes: Blob) -> Result<Self, NotUtf8> {
        match std::str::from_utf8(&bytes) {
            Ok(text) if text.len() <= INLINE_MAX => Ok(Str::inline(text)),
            Ok(_) => Ok(Str::shared(bytes)),
            Err(error) => Err(NotUtf8 { bytes, error }),
        }
    }

    /// Stores a short string in place.
    #[inline]
    fn inline(text: &str) -> Self {
        debug_assert!(text.len() <= INLINE_MAX);
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes[15] = text.len() as u8;
        let word = |range: std::ops::Range<usize>| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[range]);
            u64::from_ne_bytes(word)
        };
        Str { head: ptr::without_provenance_mut(word(0..8) as usize), tail: word(8..16) }
    }

    /// Makes a long string of bytes that are known to be UTF-8.
    fn shared(bytes: Blob) -> Self {
        debug_assert!(bytes.len() > INLINE_MAX);
        let tail = SHARED | bytes.len() as u64;
        Str { head: bytes.into_raw(), tail }
    }

    #[inline]
    fn is_shared(&self) -> bool {
        self.tail >= SHARED
    }

    /// The blob behind a long string, without its reference.
    #[inline]
    fn borrow_blob(&self) -> Option<ManuallyDrop<Blob>> {
        // SAFETY: `head` of a long string is a blob's raw form; `ManuallyDrop` leaves the reference with us.
        self.is_shared().then(|| ManuallyDrop::new(unsafe { Blob::from_raw(self.head) }))
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        if self.is_shared() { (self.tail & !SHARED) as usize } else { (self.tail >> 56) as usize }
    }

    /// Whether there is no text.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.tail == 0
    }

    /// The text as bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        let start = if self.is_shared() {
            // SAFETY: `head` of a long string is a blob that is not empty and whose reference we hold.
            unsafe { Blob::raw_bytes(self.head) }
        } else {
            // The machine is little-endian, so the 15 bytes of the two words stand in order.
            ptr::from_ref(self).cast::<u8>()
        };
        // SAFETY: `start` is followed by `len` initialised bytes, inside `self` or in the block it owns.
        unsafe { std::slice::from_raw_parts(start, self.len()) }
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor takes a `str` or has checked the bytes.
        unsafe { std::str::from_utf8_unchecked(self.as_bytes()) }
    }

    /// The same bytes as a [`Blob`], without a copy when they are more than 15.
    pub fn into_blob(self) -> Blob {
        if self.is_shared() {
            let text = ManuallyDrop::new(self);
            // SAFETY: `head` is a blob's raw form, and its reference moves into the result.
            unsafe { Blob::from_raw(text.head) }
        } else {
            Blob::from(self.as_bytes())
        }
    }

    /// Bytes of heap that this string holds, shared or not.
    #[inline]
    pub(crate) fn heap_size(&self) -> usize {
        self.borrow_blob().map_or(0, |blob| blob.heap_size())
    }

    /// Whether both are the same two words: equal short strings, or one shared block.
    #[inline]
    fn same_words(&self, other: &Str) -> bool {
        self.tail == other.tail && self.head.addr() == other.head.addr()
    }

    /// The test "is this string `text`?", prepared once for many strings.
    #[inline]
    pub(crate) fn matcher(text: &str) -> impl Fn(&Str) -> bool + '_ {
        let short = (text.len() <= INLINE_MAX).then(|| Str::inline(text));
        move |candidate| match &short {
            Some(short) => short.same_words(candidate),
            None => candidate.as_str() == text,
        }
    }
}

impl Clone for Str {
    #[inline]
    fn clone(&self) -> Self {
        // Counts the new reference, which the copied words then stand for.
        if let Some(blob) = self.borrow_blob() {
            std::mem::forget(Blob::clone(&blob));
        }
        Str { head: self.head, tail: self.tail }
    }
}

impl Drop for Str {
    #[inline]
    fn drop(&mut self) {
        if let Some(blob) = self.borrow_blob() {
            drop(ManuallyDrop::into_inner(blob));
        }
    }
}

impl From<&str> for Str {
    #[inline]
    fn from(text: &str) -> Self {
        if text.len() <= INLINE_MAX { Str::inline(text) } else { Str::shared(Blob::from(text.as_bytes())) }
    }
}

impl From<String> for Str {
    #[inline]
    fn from(text: String) -> Self {
        Str::from(text.as_str())
    }
}

impl From<&String> for Str {
    fn from(text: &String) -> Self {
        Str::from(text.as_str())
    }
}

impl From<&Str> for Str {
    fn from(text: &Str) -> Self {
        text.clone()
    }
}

impl From<std::borrow::Cow<'_, str>> for Str {
    fn from(text: std::borrow::Cow<'_, str>) -> Self {
        Str::from(&*text)
    }
}

impl From<char> for Str {
    fn from(character: char) -> Self {
        Str::from(&*character.encode_utf8(&mut [0; 4]))
    }
}

impl From<Str> for String {
    fn from(text: Str) -> Self {
        text.as_str().to_owned()
    }
}

impl Default for Str {
    #[inline]
    fn default() -> Self {
        Str::new()
    }
}

impl Deref for Str {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Str {
    #[inline]
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<[u8]> for Str {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<str> for Str {
    #[inline]
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Str {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // Equal tails of long strings mean equal lengths, of short ones equal last seven bytes too.
        self.tail == other.tail
            && (self.head.addr() == other.head.addr()
                || self.is_shared() && self.as_bytes() == other.as_bytes())
    }
}

impl Eq for Str {}

impl PartialEq<str> for Str {
    #[inline]
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    #[inline]
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Str {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl PartialOrd for Str {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Str {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Str {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Strings around every boundary of the two forms, with characters of one to four bytes.
    fn samples() -> Vec<String> {
        let mut samples: Vec<String> = (0..40).map(|len| "x".repeat(len)).collect();
        samples
            .extend(["\0", "\0\0", "é", "日本語", "😀", "14 bytes + é", "13 bytes++ é日"].map(String::from));
        samples.push("語".repeat(5));
        samples.push("語".repeat(6));
        samples.push("z".repeat(100_000));
        samples
    }

    #[test]
    fn text_comes_back_as_it_went_in() {
        for text in samples() {
            let value = Str::from(text.as_str());
            assert_eq!(value.as_str(), text);
            assert_eq!(value.len(), text.len());
            assert_eq!(value.is_empty(), text.is_empty());
            assert_eq!(value.clone().as_str(), text);
            assert_eq!(value.clone().into_blob().as_slice(), text.as_bytes());
            assert_eq!(Str::from_utf8(value.clone().into_blob()).unwrap(), value);
            assert_eq!(value.is_shared(), text.len() > INLINE_MAX, "{} bytes", text.len());
        }
    }

    #[test]
    fn equality_order_and_hash_are_those_of_the_text() {
        let samples = samples();
        for a in &samples {
            for b in &samples {
                let (left, right) = (Str::from(a.as_str()), Str::from(b.as_str()));
                assert_eq!(left == right, a == b, "{a:?} == {b:?}");
                assert_eq!(left.cmp(&right), a.cmp(b), "{a:?} cmp {b:?}");
                assert_eq!(Str::matcher(a)(&right), a == b, "{a:?} matches {b:?}");
            }
        }
        let map: HashMap<Str, usize> = samples.iter().map(Str::from).zip(0..).collect();
        assert!(samples.iter().enumerate().all(|(i, text)| map.get(text.as_str()) == Some(&i)));
    }

    #[test]
    fn long_text_is_neither_copied_from_a_blob_nor_into_one() {
        let blob = Blob::from(vec![b'a'; 16]);
        let text = Str::from_utf8(blob.clone()).unwrap();
        assert!(blob.ptr_eq(&text.clone().into_blob()));
        assert_eq!(text.clone().as_bytes().as_ptr(), text.as_bytes().as_ptr());
    }

    #[test]
    fn bytes_that_are_not_utf8_come_back_with_the_reason() {
        for bytes in [vec![0xff], [b"a".repeat(20), vec![0xc3]].concat()] {
            let refused = Str::from_utf8(Blob::from(bytes.clone())).unwrap_err();
            assert_eq!(refused.bytes, bytes[..]);
            assert!(refused.to_string().contains("utf-8"), "{refused}");
        }
    }
}
