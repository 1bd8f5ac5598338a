//! Back-pressure: sources wait while what they feed is congested.
//!
//! Each source knows how many of the nodes that it can reach are congested. Passing a mark costs one increment per
//! source upstream; sending a message costs nothing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicIsize, Ordering},
    },
    task::Poll,
};

use flowbay_abi::waker::CallerWaker;

use crate::plugin::{Plugin, WakerSlot};

/// The gate of one source.
#[derive(Default)]
pub struct Gate {
    /// Congested nodes downstream.
    blocked: AtomicIsize,
    /// Those who wait for none: one slot per waiting task (each connection of a `websocket in`, for instance).
    waiting: Mutex<Vec<Arc<WakerSlot>>>,
}

impl Gate {
    /// A node downstream became congested.
    pub fn block(&self) {
        self.blocked.fetch_add(1, Ordering::SeqCst);
    }

    /// A node downstream is congested no more, or no longer counts.
    pub fn unblock(&self) {
        if self.blocked.fetch_sub(1, Ordering::SeqCst) <= 1 {
            self.wake();
        }
    }

    /// Sets the count anew, after the wires have changed.
    pub fn reset(&self, congested: usize) {
        self.blocked.store(congested as isize, Ordering::SeqCst);
        if congested == 0 {
            self.wake();
        }
    }

    /// Nothing downstream is congested: a count that says otherwise is wrong.
    pub fn settle(&self) {
        if self.blocked.load(Ordering::SeqCst) != 0 {
            self.reset(0);
        }
    }

    /// Ready when nothing downstream is congested.
    pub fn poll_ready(&self, mut caller: CallerWaker<'_, '_>, plugin: &Arc<Plugin>) -> Poll<()> {
        if self.blocked.load(Ordering::SeqCst) <= 0 {
            return Poll::Ready(());
        }
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiting.iter().any(|slot| slot.is_for(&caller)) {
                let slot = Arc::new(WakerSlot::default());
                slot.register(&mut caller, plugin);
                waiting.push(slot);
            }
        }
        // The last congested node may have recovered in between.
        if self.blocked.load(Ordering::SeqCst) <= 0 {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Lets go of all wakers without waking: their code is about to go.
    pub fn clear(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for slot in waiting {
            slot.wake();
        }
    }
}
