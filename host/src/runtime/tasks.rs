//! Plugin futures on the host's threads.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
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
    _plugin: Arc<Plugin>,
}

impl<T> Polled<T> {
    pub fn new(future: FfiFuture<T>, plugin: Arc<Plugin>) -> Self {
        Self { future: Some(future), task: next_task_id(), _plugin: plugin }
    }
}

impl<T> Future for Polled<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let task = self.task;
        let Some(future) = &mut self.future else { return Poll::Pending };
        drain::scope(|| with_task(task, || Pin::new(future).poll(cx)))
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
    handles: HashMap<u64, Option<AbortHandle>>,
    next: u64,
    closed: bool,
}

impl Tasks {
    /// Starts a task; false, and the future dropped, when the node is closed.
    pub fn spawn(
        self: &Arc<Self>,
        tokio: &Handle,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let key = {
            let mut running = self.lock();
            if running.closed {
                return false;
            }
            running.next += 1;
            let key = running.next;
            running.handles.insert(key, None);
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
        } else if let Some(listed) = running.handles.get_mut(&key) {
            *listed = Some(handle);
        }
        true
    }

    /// Ends all tasks and waits until they are gone; false when `patience` ran out first.
    pub async fn end(&self, patience: Duration) -> bool {
        {
            let mut running = self.lock();
            running.closed = true;
            for handle in running.handles.values().flatten() {
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
