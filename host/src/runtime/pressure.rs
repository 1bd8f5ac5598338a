//! Back-pressure: sources wait while what they feed is congested.
//!
//! Each source knows how many of the nodes that it can reach are congested. Passing a mark costs one increment per
//! source upstream; sending a message costs nothing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicIsize, Ordering},
    },
    task::Poll,
};

use arc_swap::ArcSwap;
use flowbay_abi::waker::CallerWaker;

use super::cell::NodeCell;
use crate::plugin::{Plugin, WakerList};

/// The gate of one source.
#[derive(Default)]
pub struct Gate {
    /// Congested nodes downstream.
    blocked: AtomicIsize,
    /// The source is closed: nobody waits for it any more.
    closed: AtomicBool,
    /// Those who wait: more than one when connections of another node send through it (a `websocket in`).
    waiting: WakerList,
}

impl Gate {
    fn block(&self) {
        self.blocked.fetch_add(1, Ordering::SeqCst);
    }

    fn unblock(&self) {
        if self.blocked.fetch_sub(1, Ordering::SeqCst) <= 1 {
            self.waiting.wake_all();
        }
    }

    /// Ready when nothing downstream is congested.
    pub fn poll_ready(&self, mut caller: CallerWaker<'_, '_>, plugin: &Arc<Plugin>) -> Poll<()> {
        if self.is_open() {
            return Poll::Ready(());
        }
        self.waiting.register(&mut caller, plugin);
        // The last congested node may have recovered in between.
        if self.is_open() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Holds nobody any more: the source is gone, and those who sent through it must find that out.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.waiting.wake_all();
    }

    /// Wakes all who wait, to look again; with that it has nobody's waker any more.
    pub fn wake(&self) {
        self.waiting.wake_all();
    }

    fn is_open(&self) -> bool {
        self.blocked.load(Ordering::SeqCst) <= 0 || self.closed.load(Ordering::SeqCst)
    }

    /// How many nodes downstream hold this source.
    #[cfg(test)]
    pub fn blocked(&self) -> isize {
        self.blocked.load(Ordering::SeqCst)
    }
}

/// Sources, shared by all nodes that they reach.
pub type Sources = Arc<Vec<Arc<NodeCell>>>;

/// The sources that can reach one node, and which of them it holds.
#[derive(Default)]
pub struct Upstream {
    sources: ArcSwap<Vec<Arc<NodeCell>>>,
    /// Exactly those whose gates count this node: each is let go once, whatever happens to the wires meanwhile.
    held: Mutex<Option<Sources>>,
}

impl Upstream {
    /// Holds the sources, or lets them go, as `congested` says. It is asked here, under the lock, so that the last of
    /// several threads that come with news sees the last news.
    pub fn hold_while(&self, congested: impl FnOnce() -> bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let released = match (congested(), held.is_some()) {
            (true, false) => {
                *held = Some(block(self.sources.load_full()));
                None
            }
            (false, true) => held.take(),
            _ => None,
        };
        // Waking them runs plugin code.
        drop(held);
        unblock(released);
    }

    /// Makes these the sources; those before are let go, and these held if the node is congested.
    pub fn replace(&self, sources: Sources, congested: impl FnOnce() -> bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.sources.swap(sources.clone());
        let released = held.take();
        if congested() {
            *held = Some(block(sources));
        }
        drop(held);
        drop(before);
        unblock(released);
    }
}

fn block(sources: Sources) -> Sources {
    for source in sources.iter() {
        source.gate.block();
    }
    sources
}

fn unblock(released: Option<Sources>) {
    for source in released.iter().flat_map(|sources| sources.iter()) {
        source.gate.unblock();
    }
}
