//! [`Handle`]: a reference to something that only the host understands.

#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use abi_stable::StableAbi;

/// The beginning of every object that a [`Handle`] points to.
///
/// The host puts it first in a `#[repr(C)]` structure of its own. Part of the ABI, although the
/// layout checker does not see it: a change needs a new ABI major.
#[repr(C)]
pub struct HandleHeader {
    rc: AtomicUsize,
    kind: u32,
    release: unsafe extern "C" fn(*mut HandleHeader),
}

impl HandleHeader {
    /// A header for a new object with one reference.
    ///
    /// `kind` tells the host what the object is. `release` frees the object; it is called once,
    /// on whatever thread gives up the last reference, and must be code of the host, which is never
    /// unloaded.
    pub const fn new(kind: u32, release: unsafe extern "C" fn(*mut HandleHeader)) -> Self {
        HandleHeader { rc: AtomicUsize::new(1), kind, release }
    }
}

/// An opaque reference to an object of the host, such as the `req` and `res` of an HTTP request.
///
/// Plugins can pass it on, keep it and drop it. Two handles are equal when they are the same
/// object. In JSON and in other serialised forms it is `null`.
#[repr(transparent)]
#[derive(StableAbi)]
#[sabi(unsafe_opaque_fields)]
pub struct Handle {
    object: NonNull<HandleHeader>,
}

// SAFETY: `Handle::from_raw` demands an object that any thread may use and release.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Makes a handle of an object; for the host only.
    ///
    /// # Safety
    /// 1. `object` points to a live object that begins with a [`HandleHeader`] and is not moved.
    /// 2. The caller owns one of its references and passes it on.
    /// 3. The object may be reached and released on any thread.
    /// 4. The release function stays loaded as long as the process runs.
    pub unsafe fn from_raw(object: NonNull<HandleHeader>) -> Self {
        Handle { object }
    }

    /// The object, without a reference of its own: valid as long as this handle.
    #[inline]
    pub fn as_ptr(&self) -> NonNull<HandleHeader> {
        self.object
    }

    /// What the host says the object is.
    #[inline]
    pub fn kind(&self) -> u32 {
        self.header().kind
    }

    #[inline]
    fn header(&self) -> &HandleHeader {
        // SAFETY: the object lives at least until this handle gives up its reference.
        unsafe { self.object.as_ref() }
    }
}

impl Clone for Handle {
    #[inline]
    fn clone(&self) -> Self {
        self.header().rc.fetch_add(1, Ordering::Relaxed);
        Handle { object: self.object }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.header().rc.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let release = self.header().release;
            // SAFETY: that was the last reference; the function belongs to the object's maker.
            unsafe { release(self.object.as_ptr()) };
        }
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.object == other.object
    }
}

impl Eq for Handle {}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Array, Value};
    use std::sync::Arc;

    #[repr(C)]
    struct Request {
        header: HandleHeader,
        released: Arc<AtomicUsize>,
    }

    unsafe extern "C" fn release(header: *mut HandleHeader) {
        // SAFETY: the tests make every handle from a boxed `Request`, which begins with its header.
        let request = unsafe { Box::from_raw(header.cast::<Request>()) };
        request.released.fetch_add(1, Ordering::SeqCst);
    }

    fn handle(released: &Arc<AtomicUsize>) -> Handle {
        let request = Request { header: HandleHeader::new(7, release), released: released.clone() };
        let object = NonNull::from(Box::leak(Box::new(request))).cast();
        // SAFETY: a leaked box that begins with its header; the one reference goes into the handle.
        unsafe { Handle::from_raw(object) }
    }

    #[test]
    fn the_object_is_released_once_when_its_last_handle_goes_on_whatever_thread() {
        let released = Arc::new(AtomicUsize::new(0));
        let first = handle(&released);
        let second = first.clone();
        assert_eq!((first.kind(), &first), (7, &second));
        drop(first);
        assert_eq!(released.load(Ordering::SeqCst), 0);
        std::thread::spawn(move || drop(second)).join().unwrap();
        assert_eq!(released.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn different_objects_are_different() {
        let released = Arc::default();
        assert_ne!(handle(&released), handle(&released));
    }

    #[test]
    fn a_handle_inside_a_value_is_shared_with_it_and_is_null_in_json() {
        let released = Arc::new(AtomicUsize::new(0));
        let value = Value::from(handle(&released));
        let list = Value::from(Array::from([Value::from(vec![value.clone()])]));
        assert_eq!((value.type_name(), list.to_json().as_deref()), ("object", Ok("[[null]]")));
        assert_eq!(list[0][0], value);
        assert_eq!(value.as_handle().map(Handle::kind), Some(7));
        drop(value);
        assert_eq!(released.load(Ordering::SeqCst), 0);
        drop(list);
        assert_eq!(released.load(Ordering::SeqCst), 1);
    }
}
