//! Who writes a context store's files: one thread, some time after something has changed.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::store::Store;

/// How soon at most a file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The thread. Dropping this has it write what is left, and waits for it.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Owners whose file is not up to date.
    changed: BTreeSet<String>,
    /// When that was first so.
    since: Option<Instant>,
    /// How often all was asked to be written, and how often it has been.
    asked: u64,
    done: u64,
    /// Files that could not be written are still to be.
    failing: bool,
    closed: bool,
}

impl Writer {
    /// Starts the thread: what has changed is written `after` so long, many changes at once.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(store: Arc<Store>, after: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let own = shared.clone();
        let thread =
            std::thread::Builder::new().name("context".into()).spawn(move || own.serve(&store, after))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// An owner's file is not up to date any more.
    pub fn note(&self, owner: &str) {
        let mut state = self.shared.lock();
        if !state.changed.contains(owner) {
            state.changed.insert(owner.to_owned());
        }
        if state.since.is_none() {
            state.since = Some(Instant::now());
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// Has everything written now; whether it was, within `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        state.asked += 1;
        let ticket = state.asked;
        self.shared.changed.notify_all();
        while state.done < ticket {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.wait(state, left);
        }
        !state.failing
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, store: &Store, after: Duration) {
        // Files whose fault was said already.
        let mut told: BTreeSet<String> = BTreeSet::new();
        let mut state = self.lock();
        loop {
            let after = if state.failing { after.max(RETRY) } else { after };
            let due = state.since.map(|since| after.saturating_sub(since.elapsed()));
            let wanted = state.asked > state.done || state.closed || due == Some(Duration::ZERO);
            if !wanted {
                state = match due {
                    Some(due) => self.wait(state, due),
                    None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
                continue;
            }
            let (owners, asked, closed) = (std::mem::take(&mut state.changed), state.asked, state.closed);
            state.since = None;
            drop(state);
            let mut left = BTreeSet::new();
            for owner in owners {
                match store.write(&owner) {
                    Ok(()) => drop(told.remove(&owner)),
                    Err(error) => {
                        if told.insert(owner.clone()) {
                            tracing::error!("{error}");
                        }
                        left.insert(owner);
                    }
                }
            }
            state = self.lock();
            state.done = asked;
            state.failing = !left.is_empty();
            if !left.is_empty() {
                // Another time: a full disk may have room again.
                state.changed.append(&mut left);
                state.since.get_or_insert_with(Instant::now);
            }
            self.changed.notify_all();
            if closed {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, at_most: Duration) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
    }
}
