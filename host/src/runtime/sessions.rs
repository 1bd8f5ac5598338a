//! Sessions: the addresses of connections, with the bounded queues of what is to be sent to them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
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

/// One session. It belongs to the host: generations of code serve it one after the other.
pub struct Session {
    id: Str,
    limits: QueueLimits,
    queue: Mutex<Queue>,
    bytes: AtomicUsize,
    slot: WakerSlot,
    /// The generation whose code serves it.
    served_by: AtomicU64,
}

#[derive(Default)]
struct Queue {
    values: VecDeque<Value>,
    closed: bool,
    /// The connection is wanted back.
    hand_over: bool,
    /// When the connection was told so.
    told: Option<Instant>,
    /// The connection is being polled, and looks at the queue again before that ends: no need to wake it.
    in_poll: bool,
    /// A value came meanwhile that would have woken it.
    came_in_poll: bool,
}

/// A session as the code of one generation holds it, through the boundary.
pub struct ServedSession {
    session: Arc<Session>,
    plugin: Arc<Plugin>,
}

impl ServedSession {
    /// Lends `session` to code of `plugin`: from now on that generation serves it.
    pub fn new(session: Arc<Session>, plugin: Arc<Plugin>) -> Self {
        session.lock().hand_over = false;
        session.served_by.store(plugin.info().generation, Ordering::SeqCst);
        Self { session, plugin }
    }
}

impl Session {
    /// Puts a value into the queue; true when the connection must be woken, which is for the caller to do once it
    /// holds no lock: waking runs plugin code.
    fn push(&self, value: Value) -> (Queued, bool) {
        let size = weight::of_value(&value);
        let mut queue = self.lock();
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
        queue.came_in_poll |= was_empty && queue.in_poll;
        (Queued::Yes, was_empty && !queue.in_poll)
    }

    /// Asks for the connection.
    pub fn ask_for(&self) {
        let asked = std::mem::replace(&mut self.lock().hand_over, true);
        if !asked {
            self.slot.wake();
        }
    }

    /// A poll of the connection begins. Until [`Self::end_poll`] values that are queued wake nobody.
    pub fn begin_poll(&self) {
        self.lock().in_poll = true;
    }

    /// A poll of the connection has ended without anything more to do; false when values came meanwhile: poll again,
    /// or else [`Self::wake`].
    pub fn end_poll(&self) -> bool {
        let mut queue = self.lock();
        queue.in_poll = std::mem::take(&mut queue.came_in_poll);
        !queue.in_poll
    }

    /// Has the connection polled again, in its turn.
    pub fn wake(&self) {
        {
            let mut queue = self.lock();
            queue.in_poll = false;
            queue.came_in_poll = false;
        }
        self.slot.wake();
    }

    /// Ends the session: its connection is told, once it has taken what waits.
    fn close(&self) {
        self.lock().closed = true;
        self.slot.wake();
    }

    /// The session's id.
    pub fn id(&self) -> &Str {
        &self.id
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostSessionApi for ServedSession {
    fn id(&self) -> Str {
        self.session.id.clone()
    }

    fn poll_recv(
        &self,
        mut caller: CallerWaker<'_, '_>,
        max: usize,
        push: &mut dyn FnMut(Value),
    ) -> Poll<Received> {
        let mut taken = self.session.take(max, push);
        if taken.is_none() {
            self.session.slot.register(&mut caller, &self.plugin);
            // Something may have come before the waker was in its place.
            taken = self.session.take(max, push);
        }
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    fn queued_bytes(&self) -> usize {
        self.session.bytes.load(Ordering::Relaxed)
    }
}

impl Session {
    /// Takes values; `None` when there is nothing yet.
    fn take(&self, max: usize, push: &mut dyn FnMut(Value)) -> Option<Received> {
        let mut queue = self.lock();
        if queue.hand_over {
            // What waits stays for the next generation.
            queue.told.get_or_insert_with(Instant::now);
            return Some(Received::HandOver);
        }
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
            return Some(Received::Values(n));
        }
        queue.closed.then_some(Received::Closed)
    }
}

/// The sessions of one node.
#[derive(Default)]
pub struct Sessions {
    by_id: RwLock<HashMap<Str, Arc<Session>>>,
    /// How long each connection that moved was between two generations.
    away: Mutex<Vec<Duration>>,
}

impl Sessions {
    /// Opens a session.
    pub fn open(&self, limits: QueueLimits) -> Arc<Session> {
        let session = Arc::new(Session {
            id: new_id(),
            limits,
            queue: Mutex::default(),
            bytes: AtomicUsize::new(0),
            slot: WakerSlot::default(),
            served_by: AtomicU64::new(0),
        });
        self.write().insert(session.id.clone(), session.clone());
        session
    }

    /// Forgets a session whose connection is gone.
    pub fn remove(&self, session: &Session) {
        self.write().remove(&session.id);
        session.lock().closed = true;
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

    /// A session's connection is in the hands of newer code.
    pub fn has_moved(&self, session: &Session) {
        if let Some(told) = session.lock().told.take() {
            self.away.lock().unwrap_or_else(PoisonError::into_inner).push(told.elapsed());
        }
    }

    /// For each connection that has moved since the last call, how long it took from being told to until the newer
    /// code had it.
    pub fn take_away_times(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.away.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for the connections that code of `generation` serves; how many those are.
    pub fn ask_for(&self, generation: u64) -> usize {
        let served: Vec<Arc<Session>> = self
            .read()
            .values()
            .filter(|session| session.served_by.load(Ordering::SeqCst) == generation)
            .cloned()
            .collect();
        for session in &served {
            session.ask_for();
        }
        served.len()
    }

    /// Takes the question back: connections that code of `generation` still serves end there.
    pub fn leave_with(&self, generation: u64) {
        for session in self.read().values() {
            if session.served_by.load(Ordering::SeqCst) == generation {
                session.lock().hand_over = false;
                session.slot.wake();
            }
        }
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
