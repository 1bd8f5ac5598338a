//! Sessions: the addresses of connections, with the bounded queues of what is to be sent to them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
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
    http::seldom::{LeftOut, Seldom},
    ids::new_id,
    plugin::{Plugin, WakerSlot},
};

/// Limits of one session's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Values that may wait.
    pub values: usize,
    /// Bytes that may wait.
    pub bytes: usize,
    /// What happens with more.
    pub overflow: Overflow,
}

/// What happens with a value for a session whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The session is cut.
    #[default]
    Close,
    /// The value is dropped.
    DropNewest,
    /// Those that wait longest are dropped until it fits.
    DropOldest,
}

impl QueueLimits {
    /// These, with what a node wants otherwise: an object, see `flowbay_abi::shapes`. What it has that is no limit
    /// changes nothing.
    pub fn with(mut self, options: Option<&Value>) -> Self {
        let limit = |key| -> Option<usize> {
            usize::try_from(options?.get(key)?.as_i64()?).ok().filter(|limit| *limit > 0)
        };
        self.values = limit("messages").unwrap_or(self.values);
        self.bytes = limit("bytes").unwrap_or(self.bytes);
        self.overflow = match options.and_then(|options| options.get("overflow")).and_then(Value::as_str) {
            Some("close") => Overflow::Close,
            Some("drop-newest") => Overflow::DropNewest,
            Some("drop-oldest") => Overflow::DropOldest,
            _ => self.overflow,
        };
        self
    }
}

/// One session. It belongs to the host: generations of code serve it one after the other.
pub struct Session {
    id: Str,
    /// Who it is with, for the log: an address, or nothing when it is not known.
    peer: Str,
    limits: QueueLimits,
    queue: Mutex<Queue>,
    bytes: AtomicUsize,
    slot: WakerSlot,
    /// The generation whose code serves it.
    served_by: AtomicU64,
    opened: Instant,
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

/// What a push did.
struct Pushed {
    queued: Queued,
    /// The connection must be woken, which is for the caller to do once it holds no lock: waking runs plugin code.
    wake: bool,
    /// Values that were dropped, that one perhaps among them.
    dropped: usize,
}

impl Session {
    /// Puts a value into the queue.
    fn push(&self, value: Value) -> Pushed {
        let size = weight::of_value(&value);
        // Dropped when the lock is free again.
        let mut dropped = VecDeque::new();
        let mut queue = self.lock();
        if queue.closed {
            return Pushed { queued: Queued::NoSession, wake: false, dropped: 0 };
        }
        let was_empty = queue.values.is_empty();
        // One value always fits, however large: the largest message must be sendable.
        while !queue.values.is_empty() && self.is_full(&queue, size) {
            match self.limits.overflow {
                Overflow::Close => {
                    queue.closed = true;
                    let dropped = std::mem::take(&mut queue.values);
                    self.bytes.store(0, Ordering::Relaxed);
                    drop(queue);
                    return Pushed { queued: Queued::Overflow, wake: true, dropped: dropped.len() + 1 };
                }
                Overflow::DropNewest => {
                    return Pushed { queued: Queued::Dropped, wake: false, dropped: 1 };
                }
                Overflow::DropOldest => {
                    let Some(oldest) = queue.values.pop_front() else { break };
                    self.bytes.fetch_sub(weight::of_value(&oldest), Ordering::Relaxed);
                    dropped.push_back(oldest);
                }
            }
        }
        queue.values.push_back(value);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        queue.came_in_poll |= was_empty && queue.in_poll;
        Pushed { queued: Queued::Yes, wake: was_empty && !queue.in_poll, dropped: dropped.len() }
    }

    /// Whether a value of that size is too much for the queue.
    fn is_full(&self, queue: &Queue, size: usize) -> bool {
        queue.values.len() >= self.limits.values
            || self.bytes.load(Ordering::Relaxed).saturating_add(size) > self.limits.bytes
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

    /// Who it is with; empty when that is not known.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// When it was opened.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// The generation whose code serves it; 0 when none does yet.
    pub fn served_by(&self) -> u64 {
        self.served_by.load(Ordering::Relaxed)
    }

    /// How many values wait.
    pub fn queued(&self) -> usize {
        self.lock().values.len()
    }

    /// How many bytes wait.
    pub fn queued_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
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

    fn take_left(&self, max: usize, push: &mut dyn FnMut(Value)) -> usize {
        self.session.take_values(&mut self.session.lock(), max, push)
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
        match self.take_values(&mut queue, max, push) {
            0 => queue.closed.then_some(Received::Closed),
            n => Some(Received::Values(n)),
        }
    }

    fn take_values(&self, queue: &mut Queue, max: usize, push: &mut dyn FnMut(Value)) -> usize {
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
        }
        n
    }
}

/// The sessions of one node.
#[derive(Default)]
pub struct Sessions {
    by_id: RwLock<HashMap<Str, Arc<Session>>>,
    /// How long each connection that moved was between two generations.
    away: Mutex<Vec<Duration>>,
    /// It had one once, or waits for the first: its sessions are worth showing, even if there are none.
    used: AtomicBool,
    /// Values that were dropped because a queue was full.
    dropped: AtomicU64,
    /// Sessions that were cut because of that.
    cut: AtomicU64,
    dropping: Seldom,
    cutting: Seldom,
}

/// How the sessions of a node stand, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionFigures {
    /// How many there are.
    pub count: usize,
    /// Values that wait.
    pub messages: usize,
    /// Bytes that wait.
    pub bytes: usize,
    /// Values that were dropped because a session's queue was full, those of a session that was cut among them.
    pub dropped: u64,
    /// Sessions that were cut because their queue was full.
    pub cut: u64,
}

/// Something that is worth a line in the log: a peer does not keep up.
#[derive(Debug, PartialEq, Eq)]
pub struct Overrun {
    /// The session.
    pub session: Str,
    /// Who it is with.
    pub peer: Str,
    /// What was done about it.
    pub overflow: Overflow,
    /// Lines that were left out before this one.
    pub left_out: LeftOut,
}

impl Sessions {
    /// There will be sessions: they are shown from now on.
    pub fn expect_some(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Opens a session with `peer`.
    pub fn open(&self, peer: Str, limits: QueueLimits) -> Arc<Session> {
        let session = Arc::new(Session {
            id: new_id(),
            peer,
            limits,
            queue: Mutex::default(),
            bytes: AtomicUsize::new(0),
            slot: WakerSlot::default(),
            served_by: AtomicU64::new(0),
            opened: Instant::now(),
        });
        self.expect_some();
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
    pub fn send(&self, id: &str, value: Value) -> (Queued, Option<Overrun>) {
        let Some(session) = self.read().get(id).cloned() else { return (Queued::NoSession, None) };
        let pushed = session.push(value);
        let overrun = self.note(&session, &pushed);
        if pushed.queued == Queued::Overflow {
            self.write().remove(id);
        }
        if pushed.wake {
            session.slot.wake();
        }
        (pushed.queued, overrun)
    }

    /// Queues a value for all sessions but those with the ids in `except`: for how many. Of several that do not keep
    /// up, one is worth a line.
    pub fn broadcast(&self, value: &Value, except: &[&str]) -> (u64, Option<Overrun>) {
        let except: HashSet<&str> = except.iter().copied().collect();
        let mut queued = 0;
        let mut overrun = None;
        let (mut cut, mut waiting) = (Vec::new(), Vec::new());
        for session in self.read().values() {
            if !except.is_empty() && except.contains(session.id.as_str()) {
                continue;
            }
            let pushed = session.push(value.clone());
            overrun = overrun.or(self.note(session, &pushed));
            match pushed.queued {
                Queued::Yes => queued += 1,
                Queued::NoSession | Queued::Dropped => {}
                Queued::Overflow => cut.push(session.clone()),
            }
            if pushed.wake {
                waiting.push(session.clone());
            }
        }
        for session in waiting {
            session.slot.wake();
        }
        if !cut.is_empty() {
            let mut by_id = self.write();
            for session in &cut {
                by_id.remove(&session.id);
            }
        }
        (queued, overrun)
    }

    /// Counts what a push has cost; it is worth a line now and then.
    fn note(&self, session: &Session, pushed: &Pushed) -> Option<Overrun> {
        if pushed.dropped == 0 {
            return None;
        }
        self.dropped.fetch_add(pushed.dropped as u64, Ordering::Relaxed);
        let left_out = if pushed.queued == Queued::Overflow {
            self.cut.fetch_add(1, Ordering::Relaxed);
            self.cutting.again()
        } else {
            self.dropping.again()
        };
        Some(Overrun {
            session: session.id.clone(),
            peer: session.peer.clone(),
            overflow: session.limits.overflow,
            left_out: left_out?,
        })
    }

    /// How they stand; `None` when the node never had one, nor waits for one.
    pub fn figures(&self) -> Option<SessionFigures> {
        if !self.used.load(Ordering::Relaxed) {
            return None;
        }
        let mut figures = SessionFigures {
            dropped: self.dropped.load(Ordering::Relaxed),
            cut: self.cut.load(Ordering::Relaxed),
            ..SessionFigures::default()
        };
        let by_id = self.read();
        figures.count = by_id.len();
        for session in by_id.values() {
            let bytes = session.bytes.load(Ordering::Relaxed);
            // Every value weighs something: most sessions have nothing that waits, and need no lock.
            if bytes > 0 {
                figures.bytes += bytes;
                figures.messages += session.lock().values.len();
            }
        }
        Some(figures)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.read().len()
    }

    /// All that there are.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.read().values().cloned().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits { values: 3, bytes: 1_000, overflow: Overflow::Close };

    fn open(sessions: &Sessions, overflow: Overflow) -> Arc<Session> {
        sessions.open(Str::from("10.0.0.1:5"), QueueLimits { overflow, ..LIMITS })
    }

    fn taken(session: &Session) -> Vec<i64> {
        let mut taken = Vec::new();
        session.take(usize::MAX, &mut |value| taken.push(value.as_i64().unwrap_or(-1)));
        taken
    }

    fn send_numbers(sessions: &Sessions, session: &Session, numbers: std::ops::Range<i64>) -> Vec<Queued> {
        numbers.map(|n| sessions.send(&session.id, Value::from(n)).0).collect()
    }

    #[test]
    fn options_are_taken_where_they_say_something() {
        let with = |json: &str| LIMITS.with(Some(&Value::from_json(json.as_bytes()).unwrap()));
        assert_eq!(LIMITS.with(None), LIMITS);
        assert_eq!(with(r#"{"messages":7}"#), QueueLimits { values: 7, ..LIMITS });
        assert_eq!(
            with(r#"{"messages":7,"bytes":8,"overflow":"drop-oldest"}"#),
            QueueLimits { values: 7, bytes: 8, overflow: Overflow::DropOldest }
        );
        for nonsense in [
            "null",
            "[]",
            r#"{"messages":0,"bytes":-1,"overflow":"never"}"#,
            r#"{"messages":"many","bytes":1e300,"overflow":3}"#,
        ] {
            assert_eq!(with(nonsense), LIMITS, "{nonsense}");
        }
    }

    #[test]
    fn a_session_that_does_not_keep_up_is_cut_with_all_that_waits() {
        let sessions = Sessions::default();
        let (slow, other) = (open(&sessions, Overflow::Close), open(&sessions, Overflow::Close));
        assert_eq!(send_numbers(&sessions, &slow, 0..3), [Queued::Yes; 3]);
        let (queued, overrun) = sessions.send(&slow.id, Value::from(3));
        assert_eq!(queued, Queued::Overflow);
        let overrun = overrun.unwrap();
        assert_eq!((&overrun.session, &*overrun.peer), (&slow.id, "10.0.0.1:5"));
        assert_eq!(sessions.send(&slow.id, Value::from(4)).0, Queued::NoSession);
        assert_eq!(slow.take(1, &mut |_| ()), Some(Received::Closed));
        assert_eq!(sessions.send(&other.id, Value::from(5)).0, Queued::Yes);
        let figures = sessions.figures().unwrap();
        assert_eq!((figures.count, figures.messages, figures.dropped, figures.cut), (1, 1, 4, 1));
    }

    #[test]
    fn what_an_ended_connection_leaves_can_be_taken_even_while_it_is_asked_for() {
        let sessions = Sessions::default();
        let session = open(&sessions, Overflow::Close);
        send_numbers(&sessions, &session, 0..3);
        session.ask_for();
        assert_eq!(session.take(10, &mut |_| ()), Some(Received::HandOver));
        let mut left = Vec::new();
        assert_eq!(session.take_values(&mut session.lock(), 2, &mut |value| left.push(value)), 2);
        assert_eq!(session.take_values(&mut session.lock(), 2, &mut |value| left.push(value)), 1);
        assert_eq!((left, session.queued_bytes()), ((0..3).map(Value::from).collect(), 0));
    }

    #[test]
    fn the_newest_is_dropped_when_that_is_wanted() {
        let sessions = Sessions::default();
        let session = open(&sessions, Overflow::DropNewest);
        let queued = send_numbers(&sessions, &session, 0..5);
        assert_eq!(queued, [Queued::Yes, Queued::Yes, Queued::Yes, Queued::Dropped, Queued::Dropped]);
        assert_eq!(taken(&session), [0, 1, 2]);
        assert_eq!(send_numbers(&sessions, &session, 5..6), [Queued::Yes], "there is room again");
        let figures = sessions.figures().unwrap();
        assert_eq!((figures.count, figures.messages, figures.dropped, figures.cut), (1, 1, 2, 0));
    }

    #[test]
    fn the_oldest_make_room_when_that_is_wanted() {
        let sessions = Sessions::default();
        let session = open(&sessions, Overflow::DropOldest);
        assert_eq!(send_numbers(&sessions, &session, 0..5), [Queued::Yes; 5]);
        assert_eq!(sessions.send(&session.id, Value::from("x".repeat(900))).0, Queued::Yes);
        assert_eq!(send_numbers(&sessions, &session, 5..6), [Queued::Yes]);
        assert_eq!(taken(&session), [4, -1, 5]);
        assert_eq!(
            sessions.send(&session.id, Value::from("x".repeat(5_000))).0,
            Queued::Yes,
            "one always fits"
        );
        assert_eq!(send_numbers(&sessions, &session, 6..7), [Queued::Yes]);
        assert_eq!(taken(&session), [6]);
        let figures = sessions.figures().unwrap();
        assert_eq!((figures.messages, figures.bytes, figures.dropped, figures.cut), (0, 0, 5, 0));
    }

    #[test]
    fn a_broadcast_passes_over_those_that_are_excepted_and_those_that_are_full() {
        let sessions = Sessions::default();
        let full = open(&sessions, Overflow::DropNewest);
        send_numbers(&sessions, &full, 0..3);
        let cut = open(&sessions, Overflow::Close);
        send_numbers(&sessions, &cut, 0..3);
        let (excepted, one, two) = (
            open(&sessions, Overflow::Close),
            open(&sessions, Overflow::Close),
            open(&sessions, Overflow::DropOldest),
        );
        let (queued, overrun) = sessions.broadcast(&Value::from(9), &[&excepted.id, "nobody"]);
        assert_eq!(queued, 2);
        assert!(overrun.is_some());
        assert_eq!((taken(&one), taken(&two)), (vec![9], vec![9]));
        assert_eq!(taken(&excepted), [0; 0]);
        assert_eq!(taken(&full), [0, 1, 2]);
        assert_eq!(sessions.count(), 4);
    }

    #[test]
    fn a_log_line_is_asked_for_once_in_a_while() {
        let sessions = Sessions::default();
        let session = open(&sessions, Overflow::DropNewest);
        send_numbers(&sessions, &session, 0..3);
        let overruns: Vec<bool> =
            (0..10).map(|n| sessions.send(&session.id, Value::from(n)).1.is_some()).collect();
        assert_eq!(overruns.iter().filter(|said| **said).count(), 1);
        assert!(overruns[0]);
    }

    #[test]
    fn a_node_that_never_had_a_session_shows_none() {
        let sessions = Sessions::default();
        assert_eq!(sessions.figures(), None);
        let waiting = Sessions::default();
        waiting.expect_some();
        assert_eq!(waiting.figures(), Some(SessionFigures::default()));
        let session = open(&sessions, Overflow::Close);
        sessions.remove(&session);
        assert_eq!(sessions.figures(), Some(SessionFigures::default()));
    }
}
