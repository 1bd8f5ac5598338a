//! [`Metric`]: a number that a node counts with and the host reads, without a call between them.

#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering, fence};

use abi_stable::StableAbi;

/// What a metric's number means to those who read it.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// It only rises: how often something has happened, how many bytes there were.
    Counter,
    /// It rises and falls: how many there are now.
    Gauge,
}

/// The block of a [`Metric`], from the C allocator.
///
/// Part of the ABI, although the layout checker does not see it: a change needs a new ABI major.
#[repr(C)]
struct Cell {
    /// How many `Metric`s share the block; the last one frees it.
    rc: AtomicUsize,
    /// The number.
    number: AtomicI64,
}

/// A number, shared by reference count. Changing it is one atomic instruction, from any thread.
///
/// The memory comes from the C allocator of the process, and the code that frees it is compiled into every library
/// that uses this crate, so a metric outlives the library that counts with it: newer code counts on.
#[repr(transparent)]
#[derive(StableAbi)]
#[sabi(unsafe_opaque_fields)]
pub struct Metric {
    /// A block that this metric owns a reference to.
    cell: NonNull<Cell>,
}

// SAFETY: the block holds atomics only, and the count of its owners is one of them.
unsafe impl Send for Metric {}
// SAFETY: as above.
unsafe impl Sync for Metric {}

impl Metric {
    /// A new one, at 0. When the allocator fails the process ends, as with `Vec`.
    pub fn new() -> Self {
        let layout = Layout::new::<Cell>();
        // SAFETY: malloc has no preconditions; the result is checked for null below.
        let cell = unsafe { libc::malloc(layout.size()) }.cast::<Cell>();
        let Some(cell) = NonNull::new(cell) else { handle_alloc_error(layout) };
        // SAFETY: the block is as large as a `Cell`, and malloc aligns for all basic types; nobody else knows it.
        unsafe { cell.write(Cell { rc: AtomicUsize::new(1), number: AtomicI64::new(0) }) };
        Metric { cell }
    }

    fn cell(&self) -> &Cell {
        // SAFETY: the block lives as long as `self`, which owns a reference to it.
        unsafe { self.cell.as_ref() }
    }

    /// Adds to the number; it wraps around at the ends of `i64`, which no count reaches.
    #[inline]
    pub fn add(&self, n: i64) {
        // Relaxed: nobody concludes anything about other memory from a metric.
        self.cell().number.fetch_add(n, Ordering::Relaxed);
    }

    /// Makes the number `n`.
    #[inline]
    pub fn set(&self, n: i64) {
        self.cell().number.store(n, Ordering::Relaxed);
    }

    /// The number.
    #[inline]
    pub fn get(&self) -> i64 {
        self.cell().number.load(Ordering::Relaxed)
    }

    /// Whether both are the same number in memory.
    #[inline]
    pub fn ptr_eq(&self, other: &Metric) -> bool {
        self.cell == other.cell
    }
}

impl Default for Metric {
    fn default() -> Self {
        Metric::new()
    }
}

impl Clone for Metric {
    #[inline]
    fn clone(&self) -> Self {
        // Relaxed: a new reference is made from an old one.
        self.cell().rc.fetch_add(1, Ordering::Relaxed);
        Metric { cell: self.cell }
    }
}

impl Drop for Metric {
    #[inline]
    fn drop(&mut self) {
        if self.cell().rc.fetch_sub(1, Ordering::Release) == 1 {
            // The other owners' changes happen before the memory goes.
            fence(Ordering::Acquire);
            // SAFETY: that was the last reference, and the block came from malloc.
            unsafe { libc::free(self.cell.as_ptr().cast()) };
        }
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metric").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_the_same_number() {
        let metric = Metric::new();
        let copy = metric.clone();
        metric.add(3);
        copy.add(-1);
        assert_eq!((metric.get(), copy.get()), (2, 2));
        copy.set(10);
        assert_eq!(metric.get(), 10);
        assert!(metric.ptr_eq(&copy) && !metric.ptr_eq(&Metric::new()));
    }

    #[test]
    fn the_last_of_several_owners_frees_it_whichever_that_is() {
        let metric = Metric::new();
        let copies: Vec<Metric> = (0..10).map(|_| metric.clone()).collect();
        assert_eq!(metric.cell().rc.load(Ordering::Relaxed), 11);
        drop(metric);
        let last = copies.into_iter().next_back().expect("there are ten");
        assert_eq!(last.cell().rc.load(Ordering::Relaxed), 1);
        last.add(1);
        assert_eq!(last.get(), 1);
    }

    #[test]
    fn no_addition_of_many_threads_is_lost() {
        let metric = Metric::new();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let metric = metric.clone();
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        // A clone and a drop each time: the count of owners is shared too.
                        metric.clone().add(1);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(metric.get(), 80_000);
        assert_eq!(metric.cell().rc.load(Ordering::Relaxed), 1);
    }
}
