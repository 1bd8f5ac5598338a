//! Wakers at the boundary.
//!
//! A host object that a plugin polls (a socket, a timer, a session's queue) must keep the plugin's waker until it
//! is ready. Cloning a waker across the boundary allocates, so the caller passes the waker's identity too and the
//! host clones only when it changed. Such a clone has its code in the plugin: the host keeps it in a slot that it
//! can clear, never inside tokio, or it would outlive the library.

use std::task::{Context, Waker};

use abi_stable::StableAbi;
use async_ffi::{ContextExt, FfiContext};

/// Identity of a waker within one task: equal keys of one task wake the same thing.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WakerKey {
    data: usize,
    vtable: usize,
}

impl WakerKey {
    fn of(waker: &Waker) -> Self {
        Self { data: waker.data() as usize, vtable: std::ptr::from_ref(waker.vtable()) as usize }
    }
}

/// The caller's waker as the host sees it during one poll: its key, and the means to clone it.
pub struct CallerWaker<'a, 'b> {
    key: WakerKey,
    context: &'a mut FfiContext<'b>,
}

impl<'a, 'b> CallerWaker<'a, 'b> {
    pub(crate) fn new(key: WakerKey, context: &'a mut FfiContext<'b>) -> Self {
        Self { key, context }
    }

    /// Identity of the waker, to compare with that of the one already held.
    pub fn key(&self) -> WakerKey {
        self.key
    }

    /// A waker of the host's own kind that wakes the caller. Its code is the caller's: drop it before the
    /// caller's library goes.
    pub fn to_waker(&mut self) -> Waker {
        self.context.with_context(|cx| cx.waker().clone())
    }
}

/// Calls `call` with the boundary form of `cx`.
pub(crate) fn with_caller<T>(
    cx: &mut Context<'_>,
    call: impl FnOnce(&mut FfiContext<'_>, WakerKey) -> T,
) -> T {
    let key = WakerKey::of(cx.waker());
    cx.with_ffi_context(|context| call(context, key))
}
