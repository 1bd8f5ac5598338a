//! Sessions: the addresses of connections, with the bounded queues of what is to be sent to them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use flowbay_abi::{
    Str, Value,
    host::Queued,
    io::{HostSessionApi, Received},
    waker::CallerWaker,
};

use super::weight;
use crate::{
    ids::new_id,
    plugin::{Plugin, WakerSlot},
};

/// Limits of one session's queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Values that may wait.
    pub values: usize,
    /// Bytes that may wait.
    pub bytes: usize,
}

/// One session. The connection's future holds it too, through the boundary.
pub struct Session {
    id: Str,
    limits: QueueLimits,
    queue: Mutex<Queue>,
    bytes: AtomicUsize,
    slot: WakerSlot,
    plugin: Arc<Plugin>,
}

#[derive(Default)]
struct Queue {
    values: VecDeque<Value>,
    closed: bool,
}

impl Session {
    /// Puts a value into the queue; true when the connection must be woken, which is for the caller to do once it
    /// holds no lock: waking runs plugin code.
    fn push(&self, value: Value) -> (Queued, bool) {
        let size = weight::of_value(&value);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return (Queued::NoSession, false);
        }
        // One value always fits, however large: the largest message must be sendable.
        let full = !queue.values.is_empty()
            && (queue.values.len() >= self.limits.values
                || self.bytes.load(Ordering::Relaxed) + size > self.limits.bytes);
        if full {
            queue.closed = true;
            let left = std::mem::take(&mut queue.values);
            self.bytes.store(0, Ordering::Relaxed);
            drop(queue);
            drop(left);
            return (Queued::Overflow, true);
        }
        let was_empty = queue.values.is_empty();
        queue.values.push_back(value);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        (Queued::Yes, was_empty)
    }

    /// Whether code of `plugin` serves its connection.
    pub fn is_served_by(&self, plugin: &Arc<Plugin>) -> bool {
        Arc::ptr_eq(&self.plugin, plugin)
    }

    /// Ends the session: its connection is told, once it has taken what waits.
    fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.slot.wake();
    }
}

impl HostSessionApi for Session {
    fn id(&self) -> Str {
        self.id.clone()
    }

    fn poll_recv(
        &self,
        mut caller: CallerWaker<'_, '_>,
        max: usize,
        push: &mut dyn FnMut(Value),
    ) -> Poll<Received> {
        let mut taken = self.take(max, push);
        if taken.is_none() {
            self.slot.register(&mut caller, &self.plugin);
            // Something may have come before the waker was in its place.
            taken = self.take(max, push);
        }
        match taken {
            None => Poll::Pending,
            Some(0) => Poll::Ready(Received::Closed),
            Some(n) => Poll::Ready(Received::Values(n)),
        }
    }

    fn queued_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Session {
    /// Takes values: how many, 0 when the session is closed and empty, `None` when there is nothing yet.
    fn take(&self, max: usize, push: &mut dyn FnMut(Value)) -> Option<usize> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let n = queue.values.len().min(max);
        let mut bytes = 0;
        for value in queue.values.drain(..n) {
            bytes += weight::of_value(&value);
            push(value);
        }
        if n > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            if queue.values.is_empty() && queue.values.capacity() > 64 {
                queue.values = VecDeque::new();
            }
            return Some(n);
        }
        queue.closed.then_some(0)
    }
}

/// The sessions of one node.
#[derive(Default)]
pub struct Sessions {
    by_id: RwLock<HashMap<Str, Arc<Session>>>,
}

impl Sessions {
    /// Opens a session for a connection that code of `plugin` is to serve.
    pub fn open(&self, limits: QueueLimits, plugin: Arc<Plugin>) -> Arc<Session> {
        let session = Arc::new(Session {
            id: new_id(),
            limits,
            queue: Mutex::default(),
            bytes: AtomicUsize::new(0),
            slot: WakerSlot::default(),
            plugin,
        });
        self.write().insert(session.id.clone(), session.clone());
        session
    }

    /// Forgets a session whose connection is gone.
    pub fn remove(&self, session: &Session) {
        self.write().remove(&session.id);
        session.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        session.slot.clear();
    }

    /// Queues a value for one session.
    pub fn send(&self, id: &str, value: Value) -> Queued {
        let Some(session) = self.read().get(id).cloned() else { return Queued::NoSession };
        let (queued, wake) = session.push(value);
        if queued == Queued::Overflow {
            self.write().remove(id);
        }
        if wake {
            session.slot.wake();
        }
        queued
    }

    /// Queues a value for all sessions: for how many, and the ids of those that overflowed.
    pub fn broadcast(&self, value: &Value) -> (u64, Vec<Str>) {
        let mut queued = 0;
        let mut overflowed = Vec::new();
        let mut waiting = Vec::new();
        for session in self.read().values() {
            let (what, wake) = session.push(value.clone());
            match what {
                Queued::Yes => queued += 1,
                Queued::NoSession => {}
                Queued::Overflow => overflowed.push(session.id.clone()),
            }
            if wake {
                waiting.push(session.clone());
            }
        }
        for session in waiting {
            session.slot.wake();
        }
        if !overflowed.is_empty() {
            let mut by_id = self.write();
            for id in &overflowed {
                by_id.remove(id);
            }
        }
        (queued, overflowed)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.read().len()
    }

    /// Ends all sessions.
    pub fn close_all(&self) {
        let all = std::mem::take(&mut *self.write());
        for session in all.values() {
            session.close();
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Str, Arc<Session>>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Str, Arc<Session>>> {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner)
    }
}
