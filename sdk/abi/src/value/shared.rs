//! [`Shared`]: the growable, reference-counted, copy-on-write block behind arrays and objects.

#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use super::{Entry, Value};

/// What stands before the items of a block, in the same memory from the C allocator.
///
/// Part of the ABI, although the layout checker does not see it: a change needs a new ABI major.
#[repr(C)]
struct Header {
    /// How many owners share the block. In a block that waits to be freed: its [`Item::KIND`].
    rc: AtomicUsize,
    /// Number of items.
    len: usize,
    /// Number of items for which there is room. In a block that waits to be freed: the next such block.
    cap: usize,
}

/// What a block may hold.
pub(super) trait Item: Clone {
    /// Tells blocks apart while they wait to be freed.
    const KIND: usize;
}

const VALUES: usize = 0;
const ENTRIES: usize = 1;

impl Item for Value {
    const KIND: usize = VALUES;
}

impl Item for Entry {
    const KIND: usize = ENTRIES;
}

// Items follow the header directly, and the next-block pointer of a dead block fits into `cap`.
const _: () = assert!(align_of::<Value>() <= align_of::<Header>());
const _: () = assert!(align_of::<Entry>() <= align_of::<Header>());
const _: () = assert!(size_of::<*mut Header>() == size_of::<usize>());

/// A vector whose clones share its memory until one of them is changed.
///
/// Dropping one is iterative, however deep the values in it are nested.
#[repr(transparent)]
pub(super) struct Shared<T: Item> {
    /// Null (empty) or a block that this owns a reference to.
    block: *mut Header,
    items: std::marker::PhantomData<T>,
}

// SAFETY: items are only written while there is one owner, and the count is atomic.
unsafe impl<T: Item + Send + Sync> Send for Shared<T> {}
// SAFETY: as above; `&Shared` only reads.
unsafe impl<T: Item + Send + Sync> Sync for Shared<T> {}

/// The memory of a block with room for `cap` items.
///
/// # Panics
/// When the size exceeds `isize::MAX`, like `Vec`.
fn block_layout<T>(cap: usize) -> Layout {
    cap.checked_mul(size_of::<T>())
        .and_then(|size| size.checked_add(size_of::<Header>()))
        .and_then(|size| Layout::from_size_align(size, align_of::<Header>()).ok())
        .expect("capacity overflow")
}

/// Where the items of a block begin.
///
/// # Safety
/// `block` is a live block of `T`s.
#[inline]
unsafe fn items_of<T>(block: *mut Header) -> *mut T {
    // SAFETY: one past the header is still inside the block (or at its end).
    unsafe { block.add(1).cast() }
}

impl<T: Item> Shared<T> {
    /// No items and no memory.
    #[inline]
    pub const fn new() -> Self {
        Shared { block: ptr::null_mut(), items: std::marker::PhantomData }
    }

    /// Empty, with room for `cap` items.
    pub fn with_capacity(cap: usize) -> Self {
        if cap == 0 {
            return Shared::new();
        }
        let layout = block_layout::<T>(cap);
        // SAFETY: malloc has no preconditions; the result is checked for null.
        let block = unsafe { libc::malloc(layout.size()) }.cast::<Header>();
        if block.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: the block is large and aligned enough for a header.
        unsafe { block.write(Header { rc: AtomicUsize::new(1), len: 0, cap }) };
        Shared { block, ..Shared::new() }
    }

    #[inline]
    pub fn len(&self) -> usize {
        // SAFETY: a block that is not null lives as long as `self`.
        if self.block.is_null() { 0 } else { unsafe { (*self.block).len } }
    }

    #[inline]
    pub fn capacity(&self) -> usize {
        // SAFETY: a block that is not null lives as long as `self`.
        if self.block.is_null() { 0 } else { unsafe { (*self.block).cap } }
    }

    /// Bytes of the block itself, without what its items hold.
    #[inline]
    pub fn block_size(&self) -> usize {
        if self.block.is_null() { 0 } else { size_of::<Header>() + self.capacity() * size_of::<T>() }
    }

    #[inline]
    pub fn as_slice(&self) -> &[T] {
        if self.block.is_null() {
            return &[];
        }
        // SAFETY: the block holds `len` initialised items that nobody writes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(items_of(self.block), (*self.block).len) }
    }

    /// The items, to be changed in place; copied first when they are shared.
    #[inline]
    pub fn make_mut(&mut self) -> &mut [T] {
        if self.block.is_null() {
            return &mut [];
        }
        if !self.is_unique() {
            self.copy_with_room(0);
        }
        // SAFETY: there is one owner, and it is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(items_of(self.block), (*self.block).len) }
    }

    #[inline]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        ptr::eq(self.block, other.block)
    }

    /// Whether nobody else shares the block. The block must not be null.
    #[inline]
    fn is_unique(&self) -> bool {
        // SAFETY: the block lives as long as `self`. Acquire: what former owners did happened before.
        unsafe { (*self.block).rc.load(Ordering::Acquire) == 1 }
    }

    /// Moves to a block of its own with the same items and room for `extra` more.
    #[cold]
    fn copy_with_room(&mut self, extra: usize) {
        let mut copy = Shared::with_capacity(self.len().saturating_add(extra).max(1));
        for item in self.as_slice() {
            // SAFETY: the new block has room for all items, and nobody else knows it.
            unsafe { copy.push_within_capacity(item.clone()) };
        }
        *self = copy;
    }

    /// # Safety
    /// The block is not null, not shared, and has room for one more item.
    #[inline]
    unsafe fn push_within_capacity(&mut self, item: T) {
        // SAFETY: the slot at `len` is inside the block, not initialised, and only ours.
        unsafe {
            items_of::<T>(self.block).add((*self.block).len).write(item);
            (*self.block).len += 1;
        }
    }

    /// Makes the block unshared, with room for `extra` more items.
    ///
    /// # Panics
    /// When the size would exceed `isize::MAX`, like `Vec`.
    pub fn reserve(&mut self, extra: usize) {
        if self.block.is_null() {
            *self = Shared::with_capacity(extra);
        } else if !self.is_unique() {
            self.copy_with_room(extra);
        } else if self.capacity() - self.len() < extra {
            self.grow_to(self.len().checked_add(extra).expect("capacity overflow"));
        }
    }

    /// Enlarges a block that is not shared to room for `cap` items.
    #[cold]
    fn grow_to(&mut self, cap: usize) {
        let layout = block_layout::<T>(cap);
        // SAFETY: the block came from malloc and has no other owner.
        let block = unsafe { libc::realloc(self.block.cast(), layout.size()) }.cast::<Header>();
        if block.is_null() {
            handle_alloc_error(layout);
        }
        self.block = block;
        // SAFETY: realloc kept the header; the block is ours alone.
        unsafe { (*block).cap = cap };
    }

    #[inline]
    pub fn push(&mut self, item: T) {
        self.make_room();
        // SAFETY: just made so.
        unsafe { self.push_within_capacity(item) };
    }

    /// Makes the block unshared with room for one item more; doubles, so pushes cost O(1) on average.
    #[inline]
    fn make_room(&mut self) {
        const FIRST: usize = 4;
        if self.block.is_null() {
            *self = Shared::with_capacity(FIRST);
        } else if !self.is_unique() {
            self.copy_with_room(FIRST);
        } else if self.len() == self.capacity() {
            self.grow_to(self.capacity().checked_mul(2).expect("capacity overflow"));
        }
    }

    pub fn pop(&mut self) -> Option<T> {
        let last = self.len().checked_sub(1)?;
        Some(self.remove(last))
    }

    /// # Panics
    /// When `index` is beyond the end.
    pub fn insert(&mut self, index: usize, item: T) {
        let len = self.len();
        assert!(index <= len, "insertion index (is {index}) should be <= len (is {len})");
        self.make_room();
        // SAFETY: there is room for `len + 1` items, the block is ours, and `index <= len`.
        unsafe {
            let slot = items_of::<T>(self.block).add(index);
            ptr::copy(slot, slot.add(1), len - index);
            slot.write(item);
            (*self.block).len = len + 1;
        }
    }

    /// # Panics
    /// When there is no such item.
    pub fn remove(&mut self, index: usize) -> T {
        let len = self.make_mut().len();
        assert!(index < len, "removal index (is {index}) should be < len (is {len})");
        // SAFETY: the block is ours alone after `make_mut`, and `index < len`.
        unsafe {
            let slot = items_of::<T>(self.block).add(index);
            let item = slot.read();
            ptr::copy(slot.add(1), slot, len - index - 1);
            (*self.block).len = len - 1;
            item
        }
    }

    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        if len == 0 && !self.is_unique() {
            *self = Shared::new();
            return;
        }
        let tail: *mut [T] = &raw mut self.make_mut()[len..];
        // SAFETY: the block is ours alone; the length is set first, so no item can be dropped twice.
        unsafe {
            (*self.block).len = len;
            tail.drop_in_place();
        }
    }

    /// The items as a vector; moved when there is one owner, cloned otherwise.
    pub fn into_vec(self) -> Vec<T> {
        if self.block.is_null() || !self.is_unique() {
            return self.as_slice().to_vec();
        }
        let len = self.len();
        let mut items = Vec::with_capacity(len);
        // SAFETY: both have room for `len` items and do not overlap. The items move: the block, ours
        // alone, is left with none, so that only its memory is freed when `self` goes.
        unsafe {
            ptr::copy_nonoverlapping(items_of::<T>(self.block), items.as_mut_ptr(), len);
            items.set_len(len);
            (*self.block).len = 0;
        }
        items
    }

    /// Gives up this owner's reference; whether it was the last one. The block must not be null.
    ///
    /// # Safety
    /// The reference is given up once only.
    #[inline]
    unsafe fn give_up(&self) -> bool {
        // SAFETY: the block lives at least until its last reference is given up.
        let last = unsafe { (*self.block).rc.fetch_sub(1, Ordering::Release) } == 1;
        if last {
            fence(Ordering::Acquire);
        }
        last
    }
}

impl<T: Item> Clone for Shared<T> {
    #[inline]
    fn clone(&self) -> Self {
        if !self.block.is_null() {
            // SAFETY: the block lives as long as `self`. Relaxed: a new reference is made from an old one.
            unsafe { (*self.block).rc.fetch_add(1, Ordering::Relaxed) };
        }
        Shared { block: self.block, ..Shared::new() }
    }
}

impl<T: Item> Drop for Shared<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this owner's reference is given up here, once.
        if !self.block.is_null() && unsafe { self.give_up() } {
            let mut dead = DeadBlocks { first: ptr::null_mut() };
            // SAFETY: the last reference to a block of `T`s is gone.
            unsafe { dead.push(self.block, T::KIND) };
            dead.free();
        }
    }
}

/// Blocks without owners, chained through their headers, so that freeing deeply nested values
/// needs neither recursion nor memory.
struct DeadBlocks {
    first: *mut Header,
}

impl DeadBlocks {
    /// # Safety
    /// Nobody owns `block` any more, its items are those of `kind`, and it is pushed once.
    unsafe fn push(&mut self, block: *mut Header, kind: usize) {
        // SAFETY: the block is ours; neither its count nor its capacity is needed any more.
        unsafe {
            (*block).rc = AtomicUsize::new(kind);
            (&raw mut (*block).cap).cast::<*mut Header>().write(self.first);
        }
        self.first = block;
    }

    fn free(mut self) {
        while !self.first.is_null() {
            let block = self.first;
            // SAFETY: `push` demanded a block that is ours, with items of the kind it noted there;
            // each item is dropped once and then its block is freed.
            unsafe {
                self.first = (&raw mut (*block).cap).cast::<*mut Header>().read();
                let len = (*block).len;
                if (*block).rc.load(Ordering::Relaxed) == VALUES {
                    let values = items_of::<Value>(block);
                    for index in 0..len {
                        self.drop_value(values.add(index));
                    }
                } else {
                    let entries = items_of::<Entry>(block);
                    for index in 0..len {
                        let entry = entries.add(index);
                        (&raw mut (*entry).key).drop_in_place();
                        self.drop_value(&raw mut (*entry).value);
                    }
                }
                libc::free(block.cast());
            }
        }
    }

    /// Drops a value; a container that dies with it is queued instead of being entered.
    ///
    /// # Safety
    /// `slot` holds a value that nobody uses or drops afterwards.
    #[inline]
    unsafe fn drop_value(&mut self, slot: *mut Value) {
        // SAFETY: promised by the caller; containers give up their reference here instead of in
        // their own `drop`, which is never reached.
        unsafe {
            match &*slot {
                Value::Array(array) => self.drop_shared(array.shared()),
                Value::Object(object) => self.drop_shared(object.shared()),
                _ => slot.drop_in_place(),
            }
        }
    }

    /// # Safety
    /// `shared` is not used or dropped afterwards.
    #[inline]
    unsafe fn drop_shared<T: Item>(&mut self, shared: &Shared<T>) {
        // SAFETY: promised by the caller.
        if !shared.block.is_null() && unsafe { shared.give_up() } {
            // SAFETY: the last reference is gone.
            unsafe { self.push(shared.block, T::KIND) };
        }
    }
}
