//! Tasks and timers of a node under test: one thread, a clock that moves when the test says so.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use flowbay_abi::{
    Value,
    host::{HostFutureApi, HostReply},
    node::NodeError,
    waker::CallerWaker,
};

type Future_ = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls after which tasks that keep waking themselves are taken for a busy loop.
const MAX_POLLS: usize = 1_000_000;

/// The tasks of one node.
#[derive(Default)]
pub struct Executor {
    /// Begun, and not polled yet. Shared with the host's face, through which tasks are begun.
    begun: Arc<Begun>,
    tasks: Vec<Task>,
}

/// Tasks that were begun since the executor last looked.
#[derive(Default)]
pub struct Begun(Mutex<Vec<Future_>>);

struct Task {
    future: Future_,
    woken: Arc<Woken>,
}

struct Woken {
    woken: AtomicBool,
    /// The test's thread, which may be waiting for what happens on a thread of the node's.
    test: Thread,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.test.unpark();
    }
}

impl Begun {
    /// Begins a task; it is polled when the test lets the node run.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.0).push(Box::pin(task));
    }

    /// Drops those that were begun and not polled.
    pub fn clear(&self) {
        let tasks = std::mem::take(&mut *lock(&self.0));
        drop(tasks);
    }
}

impl Executor {
    /// Where tasks are begun.
    pub fn begun(&self) -> Arc<Begun> {
        self.begun.clone()
    }

    /// Drops all tasks, those that were begun and not polled too.
    pub fn clear(&mut self) {
        self.tasks.clear();
        self.begun.clear();
    }

    /// Polls all tasks that can go on, until none can.
    ///
    /// # Panics
    /// They never come to rest.
    pub fn run_until_idle(&mut self) {
        let mut polls = 0;
        loop {
            for future in std::mem::take(&mut *lock(&self.begun.0)) {
                self.tasks.push(Task {
                    future,
                    woken: Arc::new(Woken { woken: AtomicBool::new(true), test: thread::current() }),
                });
            }
            let mut idle = true;
            self.tasks.retain_mut(|task| {
                if !task.woken.woken.swap(false, Ordering::SeqCst) {
                    return true;
                }
                idle = false;
                polls += 1;
                let waker = Waker::from(task.woken.clone());
                task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            });
            if idle && lock(&self.begun.0).is_empty() {
                return;
            }
            assert!(polls < MAX_POLLS, "the node's tasks never come to rest");
        }
    }
}

/// The time of one node: it stands still but for [`Clock::set`].
#[derive(Default)]
pub struct Clock(Mutex<Time>);

#[derive(Default)]
struct Time {
    now: Duration,
    next_id: u64,
    /// Timers by when they are due and, for those due together, in the order in which they were set.
    timers: BTreeMap<(Duration, u64), Option<Waker>>,
}

impl Clock {
    /// A timer that is due `ms` milliseconds from now.
    pub fn timer(self: &Arc<Self>, ms: u64) -> Timer {
        let mut time = lock(&self.0);
        time.next_id += 1;
        let key = (time.now.saturating_add(Duration::from_millis(ms)), time.next_id);
        time.timers.insert(key, None);
        Timer { clock: self.clone(), key }
    }

    /// The time since the node was created.
    pub fn now(&self) -> Duration {
        lock(&self.0).now
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Option<Duration> {
        lock(&self.0).timers.keys().next().map(|(due, _)| *due)
    }

    /// Moves to `now`, never back, and wakes whom it is time for.
    pub fn set(&self, now: Duration) {
        let mut time = lock(&self.0);
        time.now = time.now.max(now);
        let now = time.now;
        let mut due = Vec::new();
        for (_, waker) in time.timers.range_mut(..=(now, u64::MAX)) {
            due.extend(waker.take());
        }
        drop(time);
        due.into_iter().for_each(Waker::wake);
    }
}

/// A timer, as the plugin awaits it.
pub struct Timer {
    clock: Arc<Clock>,
    key: (Duration, u64),
}

impl HostFutureApi for Timer {
    fn poll(&mut self, mut caller: CallerWaker<'_, '_>) -> Poll<Result<HostReply, NodeError>> {
        let mut time = lock(&self.clock.0);
        if self.key.0 <= time.now {
            time.timers.remove(&self.key);
            return Poll::Ready(Ok(HostReply { value: Value::Null, io: None.into() }));
        }
        time.timers.insert(self.key, Some(caller.to_waker()));
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        lock(&self.clock.0).timers.remove(&self.key);
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
