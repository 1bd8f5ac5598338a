//! Plugin futures on the host's threads.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use flowbay_abi::FfiFuture;
use tokio::{runtime::Handle, sync::Notify, task::AbortHandle};

use super::drain;
use crate::plugin::{Plugin, next_task_id, with_task};

/// A future of a plugin, polled so that what it sends is delivered when the poll has returned.
///
/// The future is dropped before the reference on its library: field order matters.
pub struct Polled<T> {
    /// `None` once dropped.
    future: Option<FfiFuture<T>>,
    task: u64,
    freeze: Option<Arc<Freeze>>,
    /// `None` once the future is dropped for good.
    plugin: Option<Arc<Plugin>>,
}

/// Stops a node's own tasks between two polls, so that its state stands still while its successor is made of it.
#[derive(Default)]
pub struct Freeze {
    state: Mutex<FreezeState>,
    /// Polls under way.
    polling: AtomicUsize,
    /// Polls begun so far.
    begun: AtomicU64,
}

#[derive(Default)]
enum FreezeState {
    /// Polls go on.
    #[default]
    Thawed,
    /// No poll begins; the wakers of tasks that wanted to be polled meanwhile.
    Frozen(Vec<Waker>),
    /// No poll begins any more: a successor has taken over.
    Over,
}

impl Freeze {
    /// From now on no poll begins; one that is under way is finished by its thread, see [`Self::is_still`].
    pub fn freeze(&self) {
        let mut state = self.lock();
        if matches!(*state, FreezeState::Thawed) {
            *state = FreezeState::Frozen(Vec::new());
        }
    }

    /// Whether no poll is under way any more.
    pub fn is_still(&self) -> bool {
        self.polling.load(Ordering::SeqCst) == 0
    }

    /// How many polls have begun, when one of them has not returned. While the number is the same, so is that one.
    pub fn under_way(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::Relaxed);
        (!self.is_still()).then_some(begun)
    }

    /// Polls go on, unless they are over.
    pub fn thaw(&self) {
        let waiting = {
            let mut state = self.lock();
            match std::mem::take(&mut *state) {
                FreezeState::Frozen(waiting) => waiting,
                FreezeState::Thawed => Vec::new(),
                FreezeState::Over => {
                    *state = FreezeState::Over;
                    Vec::new()
                }
            }
        };
        for waker in waiting {
            waker.wake();
        }
    }

    /// No poll begins any more, for good. The tasks are for the caller to end.
    pub fn end(&self) {
        let before = std::mem::replace(&mut *self.lock(), FreezeState::Over);
        // They find that it is over, and let go of their library.
        if let FreezeState::Frozen(waiting) = before {
            for waker in waiting {
                waker.wake();
            }
        }
    }

    /// Whether [`Self::end`] was called.
    pub fn is_over(&self) -> bool {
        matches!(*self.lock(), FreezeState::Over)
    }

    /// Begins a poll; false, and `waker` kept, when frozen.
    fn enter(&self, waker: &Waker) -> bool {
        match &mut *self.lock() {
            FreezeState::Frozen(waiting) => {
                waiting.push(waker.clone());
                false
            }
            FreezeState::Over => false,
            FreezeState::Thawed => {
                // Under the lock: `freeze` then sees it in `polling`, or this sees the freeze.
                self.polling.fetch_add(1, Ordering::SeqCst);
                self.begun.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    fn leave(&self) {
        self.polling.fetch_sub(1, Ordering::SeqCst);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FreezeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Polled<T> {
    pub fn new(future: FfiFuture<T>, plugin: Arc<Plugin>) -> Self {
        Self { future: Some(future), task: next_task_id(), freeze: None, plugin: Some(plugin) }
    }

    /// As [`Self::new`], for a task of the node's own that `freeze` can stop.
    pub fn freezable(future: FfiFuture<T>, plugin: Arc<Plugin>, freeze: Arc<Freeze>) -> Self {
        let mut polled = Self::new(future, plugin);
        polled.freeze = Some(freeze);
        polled
    }
}

impl<T> Future for Polled<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let task = self.task;
        let this = &mut *self;
        let Some(future) = &mut this.future else { return Poll::Pending };
        if let Some(freeze) = &this.freeze
            && !freeze.enter(cx.waker())
        {
            if freeze.is_over() {
                with_task(drain::NO_TASK, || this.future = None);
                this.plugin = None;
            }
            return Poll::Pending;
        }
        drain::scope(|| {
            let polled = with_task(task, || Pin::new(future).poll(cx));
            // Before what it sent is delivered, which is no part of its state.
            if let Some(freeze) = &this.freeze {
                freeze.leave();
            }
            polled
        })
    }
}

impl<T> Drop for Polled<T> {
    fn drop(&mut self) {
        // Plugin code runs here too, and on a thread that has perhaps run none before.
        with_task(drain::NO_TASK, || self.future = None);
    }
}

/// The tasks of one node: its own, its pending inputs, its connections. They end with the node.
#[derive(Default)]
pub struct Tasks {
    running: Mutex<Running>,
    ended: Notify,
}

#[derive(Default)]
struct Running {
    /// `None` for the moment between listing a task and starting it.
    handles: HashMap<u64, (Kind, Option<AbortHandle>)>,
    next: u64,
    closed: bool,
}

/// What a task is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The node's own: it ends with the generation of its plugin.
    Own,
    /// A message in hand: it may outlive its generation until it is done.
    Input,
    /// An HTTP request: it is answered by the generation that has it.
    Request,
    /// A connection: it goes from generation to generation.
    Connection,
}

impl Tasks {
    /// Starts a task; false, and the future dropped, when the node is closed.
    pub fn spawn(
        self: &Arc<Self>,
        tokio: &Handle,
        kind: Kind,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let key = {
            let mut running = self.lock();
            if running.closed {
                return false;
            }
            running.next += 1;
            let key = running.next;
            running.handles.insert(key, (kind, None));
            key
        };
        let ended = Ended { tasks: self.clone(), key };
        // Not under the lock: a runtime that shuts down drops the task here, and with it `ended`.
        let handle = tokio
            .spawn(async move {
                // Dropped after the future, however the task ends.
                let _ended = ended;
                future.await;
            })
            .abort_handle();
        let mut running = self.lock();
        if running.closed {
            handle.abort();
        } else {
            match running.handles.get_mut(&key) {
                Some(listed) => listed.1 = Some(handle),
                // It has ended already, or it was ended before it was known.
                None => handle.abort(),
            }
        }
        true
    }

    /// Ends the tasks of one kind that there are now.
    pub fn end_all(&self, ended: Kind) {
        self.lock().handles.retain(|_, (kind, handle)| match handle {
            Some(handle) if *kind == ended => {
                handle.abort();
                true
            }
            // About to be started by another thread, which finds it gone from the list.
            None => *kind != ended,
            Some(_) => true,
        });
    }

    /// Ends all tasks and waits until they are gone; false when `patience` ran out first.
    pub async fn end(&self, patience: Duration) -> bool {
        {
            let mut running = self.lock();
            running.closed = true;
            for handle in running.handles.values().filter_map(|(_, handle)| handle.as_ref()) {
                handle.abort();
            }
        }
        tokio::time::timeout(patience, async {
            loop {
                let ended = self.ended.notified();
                if self.lock().handles.is_empty() {
                    return;
                }
                ended.await;
            }
        })
        .await
        .is_ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a task off the list when it has ended.
struct Ended {
    tasks: Arc<Tasks>,
    key: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let mut running = self.tasks.lock();
        running.handles.remove(&self.key);
        if running.handles.is_empty() {
            // A listener that had thousands of connections gives the table back.
            running.handles.shrink_to(0);
            drop(running);
            self.tasks.ended.notify_waiters();
        }
    }
}
