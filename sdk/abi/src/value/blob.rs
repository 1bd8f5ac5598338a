//! [`Blob`]: immutable bytes, shared by reference count.

#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use abi_stable::StableAbi;

// The values of this ABI are laid out for 64-bit little-endian machines, and reference counts are
// not checked for overflow because 2^63 clones cannot be made.
const _: () = assert!(size_of::<usize>() == 8 && cfg!(target_endian = "little"));

/// What stands before the bytes of a [`Blob`], in the same block from the C allocator.
///
/// Part of the ABI, although the layout checker does not see it: a change needs a new ABI major.
#[repr(C)]
struct Header {
    /// How many `Blob`s and long [`Str`](super::Str)s share the block; the last one frees it.
    rc: AtomicUsize,
    /// Number of bytes that follow.
    len: usize,
}

/// Immutable bytes, shared by reference count; a clone costs one atomic increment.
///
/// The memory comes from the C allocator of the process, and the code that frees it is compiled
/// into every library that uses this crate, so a blob outlives the library that made it. An empty
/// blob holds no memory.
#[repr(transparent)]
#[derive(StableAbi)]
#[sabi(unsafe_opaque_fields)]
pub struct Blob {
    /// Null (empty) or a block that this blob owns a reference to.
    block: *mut Header,
}

// SAFETY: the bytes are never written once a second owner can exist, and the count is atomic.
unsafe impl Send for Blob {}
// SAFETY: as above; `&Blob` only reads.
unsafe impl Sync for Blob {}

/// Bytes for a block of `len` payload bytes, as the C allocator is asked for them.
///
/// # Panics
/// When the size exceeds `isize::MAX`, like `Vec`.
fn block_layout(len: usize) -> Layout {
    len.checked_add(size_of::<Header>())
        .and_then(|size| Layout::from_size_align(size, align_of::<Header>()).ok())
        .expect("capacity overflow")
}

impl Blob {
    /// The empty blob; allocates nothing.
    #[inline]
    pub const fn new() -> Self {
        Blob { block: ptr::null_mut() }
    }

    /// Makes a blob of `len` zero bytes and lets `fill` overwrite them before anyone else sees them.
    ///
    /// # Panics
    /// When `len` is near `isize::MAX`. When the allocator fails the process ends, as with `Vec`.
    pub fn with_len(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        if len == 0 {
            fill(&mut []);
            return Blob::new();
        }
        let layout = block_layout(len);
        // SAFETY: calloc has no preconditions; the result is checked for null below.
        let block = unsafe { libc::calloc(1, layout.size()) }.cast::<Header>();
        let blob = Blob::adopt(block, layout, len);
        // SAFETY: `blob` is the only owner and the block holds `len` bytes, all zero, after its header.
        fill(unsafe { std::slice::from_raw_parts_mut(bytes_of(block), len) });
        blob
    }

    /// Writes the header into a fresh block of `layout`, or ends the process if there is none.
    fn adopt(block: *mut Header, layout: Layout, len: usize) -> Self {
        if block.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: the allocator returned a block of `layout`, which is large and aligned enough.
        unsafe { block.write(Header { rc: AtomicUsize::new(1), len }) };
        Blob { block }
    }

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        // SAFETY: a block that is not null lives as long as `self` does.
        if self.block.is_null() { 0 } else { unsafe { (*self.block).len } }
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.block.is_null()
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        if self.block.is_null() {
            return &[];
        }
        // SAFETY: the block holds `len` initialised bytes that nobody writes while `self` is shared.
        unsafe { std::slice::from_raw_parts(bytes_of(self.block), (*self.block).len) }
    }

    /// The bytes, to be changed in place; copied first when they are shared.
    pub fn make_mut(&mut self) -> &mut [u8] {
        if self.block.is_null() {
            return &mut [];
        }
        // SAFETY: the block lives as long as `self`.
        if unsafe { (*self.block).rc.load(Ordering::Acquire) } != 1 {
            *self = Blob::from(self.as_slice());
        }
        // SAFETY: the count is one and `self` is borrowed exclusively, so nobody else can reach it.
        unsafe { std::slice::from_raw_parts_mut(bytes_of(self.block), (*self.block).len) }
    }

    /// Whether both are the same memory (so equal without a look at the bytes).
    #[inline]
    pub fn ptr_eq(&self, other: &Blob) -> bool {
        ptr::eq(self.block, other.block)
    }

    /// Bytes of heap that this blob holds, shared or not.
    #[inline]
    pub(crate) fn heap_size(&self) -> usize {
        if self.block.is_null() { 0 } else { size_of::<Header>() + self.len() }
    }

    /// Gives up the block (null when empty) with its reference.
    #[inline]
    pub(super) fn into_raw(self) -> *mut () {
        std::mem::ManuallyDrop::new(self).block.cast()
    }

    /// Takes back what [`Blob::into_raw`] gave up.
    ///
    /// # Safety
    /// `block` comes from [`Blob::into_raw`], and the caller passes on its reference.
    #[inline]
    pub(super) unsafe fn from_raw(block: *mut ()) -> Self {
        Blob { block: block.cast() }
    }

    /// The start of the bytes of a block from [`Blob::into_raw`].
    ///
    /// # Safety
    /// `block` is such a block, not null, and its reference is still held.
    #[inline]
    pub(super) unsafe fn raw_bytes(block: *mut ()) -> *const u8 {
        // SAFETY: promised by the caller.
        unsafe { bytes_of(block.cast()) }
    }
}

/// Where the bytes of a block begin.
///
/// # Safety
/// `block` is a live block with its header.
#[inline]
unsafe fn bytes_of(block: *mut Header) -> *mut u8 {
    // SAFETY: one past the header is still inside the block (or at its end).
    unsafe { block.add(1).cast() }
}

impl Clone for Blob {
    #[inline]
    fn clone(&self) -> Self {
        if let Some(block) = NonNull::new(self.block) {
            // SAFETY: the block lives as long as `self`. Relaxed: a new reference is made from an old one.
            unsafe { block.as_ref() }.rc.fetch_add(1, Ordering::Relaxed);
        }
        Blob { block: self.block }
    }
}

impl Drop for Blob {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the block lives until its last reference, at the earliest this one, is given up.
        if !self.block.is_null() && unsafe { (*self.block).rc.fetch_sub(1, Ordering::Release) } == 1 {
            // The other owners' reads happen before the memory goes.
            fence(Ordering::Acquire);
            // SAFETY: that was the last reference, and the block came from malloc or calloc.
            unsafe { libc::free(self.block.cast()) };
        }
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Blob::new();
        }
        let layout = block_layout(bytes.len());
        // SAFETY: malloc has no preconditions; `adopt` checks the result for null.
        let blob = Blob::adopt(unsafe { libc::malloc(layout.size()) }.cast(), layout, bytes.len());
        // SAFETY: the new block has room for `bytes.len()` bytes, and nobody else knows it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), bytes_of(blob.block), bytes.len()) };
        blob
    }
}

impl<const N: usize> From<&[u8; N]> for Blob {
    fn from(bytes: &[u8; N]) -> Self {
        Blob::from(&bytes[..])
    }
}

/// Copies: the vector's memory belongs to Rust's allocator.
impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Blob::from(&bytes[..])
    }
}

impl Default for Blob {
    fn default() -> Self {
        Blob::new()
    }
}

impl Deref for Blob {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Blob {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.ptr_eq(other) || self.as_slice() == other.as_slice()
    }
}

impl Eq for Blob {}

impl PartialEq<[u8]> for Blob {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_slice() == other
    }
}

impl PartialEq<&[u8]> for Blob {
    fn eq(&self, other: &&[u8]) -> bool {
        self.as_slice() == *other
    }
}

/// The length and the first bytes.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        write!(f, "<{} bytes:", self.len())?;
        for byte in self.iter().take(SHOWN) {
            write!(f, " {byte:02x}")?;
        }
        f.write_str(if self.len() > SHOWN { " …>" } else { ">" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_blob_holds_no_memory() {
        assert!(Blob::new().block.is_null());
        assert!(Blob::from(&[][..]).block.is_null());
        assert!(Blob::with_len(0, |bytes| assert!(bytes.is_empty())).block.is_null());
        assert_eq!(Blob::default().as_slice(), b"");
    }

    #[test]
    fn bytes_come_back_as_they_went_in() {
        for len in [1, 15, 16, 17, 4096, 65_537] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let blob = Blob::from(bytes.clone());
            assert_eq!(blob.len(), len);
            assert_eq!(blob, bytes[..]);
            assert_eq!(Blob::with_len(len, |target| target.copy_from_slice(&bytes)), blob);
        }
    }

    #[test]
    fn with_len_shows_zeros_and_frees_the_block_when_the_filler_panics() {
        let blob = Blob::with_len(100, |bytes| assert!(bytes.iter().all(|byte| *byte == 0)));
        assert_eq!(blob, [0; 100][..]);
        let outcome = std::panic::catch_unwind(|| Blob::with_len(100, |_| panic!("on purpose")));
        assert!(outcome.is_err());
    }

    #[test]
    fn a_clone_is_the_same_memory_until_one_is_changed() {
        let mut blob = Blob::from(b"abc");
        let copy = blob.clone();
        assert!(blob.ptr_eq(&copy));
        blob.make_mut()[0] = b'x';
        assert_eq!((&*blob, &*copy), (&b"xbc"[..], &b"abc"[..]));
        let before = blob.block;
        blob.make_mut()[1] = b'y';
        assert_eq!(before, blob.block, "an unshared blob changes in place");
    }

    #[test]
    #[should_panic(expected = "capacity overflow")]
    fn an_impossible_length_is_refused() {
        Blob::with_len(usize::MAX, |_| ());
    }

    #[test]
    fn debug_shows_the_length_and_the_first_bytes() {
        assert_eq!(format!("{:?}", Blob::from(b"\x01\xff")), "<2 bytes: 01 ff>");
        assert!(format!("{:?}", Blob::from(vec![0; 33])).ends_with(" …>"));
    }
}
