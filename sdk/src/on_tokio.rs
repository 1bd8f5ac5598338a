//! A tokio runtime of the node's own, for libraries that insist on one.
//!
//! The runtime is driven by a thread of the host, which keeps the plugin's library loaded until the runtime is gone with
//! all its tasks and threads: an unloaded library leaves none behind. It ends with the last [`Life`] of its node.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flowbay_abi::{
    host::WorkPlace,
    panics::{catch, guarded},
};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::{Ctx, Error};

/// The runtime of one node.
#[derive(Default)]
pub(crate) struct OwnRuntime(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    NotAskedFor,
    /// `_stop` ends it by being dropped.
    Runs { handle: Handle, _stop: oneshot::Sender<()> },
    /// The node is closed.
    Over,
}

impl OwnRuntime {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node's life: of the node itself, and of everything that it still does for the host. The runtime ends with it.
///
/// A [`Ctx`] would not do, since tasks of the runtime have one.
#[derive(Clone)]
pub(crate) struct Life(#[allow(dead_code, reason = "held for its drop")] Arc<End>);

struct End(Ctx);

impl Life {
    pub(crate) fn new(ctx: &Ctx) -> Self {
        Self(Arc::new(End(ctx.clone())))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *self.0.own_runtime().lock(), State::Over);
        // Outside of the lock: what it wakes may ask for the runtime.
        drop(before);
    }
}

impl Ctx {
    /// The tokio runtime of this node (feature `tokio`): for libraries that want to run inside one, an MQTT client for
    /// instance. It is started when it is first asked for, and has one thread, with timers and sockets. Its tasks may
    /// use this context as all code of the node may.
    ///
    /// ```no_run
    /// # use flowbay_sdk::prelude::*;
    /// # async fn example(ctx: &Ctx) -> Result<(), Error> {
    /// let handle = ctx.tokio()?;
    /// // For libraries that call `tokio::spawn` by themselves:
    /// let _inside = handle.enter();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It ends with the node, also in a hot swap, when newer code has taken over: its tasks are dropped, and its threads
    /// joined. What must come to an orderly end is ended in [`Node::on_close`](crate::Node::on_close). Two things to know
    /// of hot swaps: the tasks of the runtime do not stand still while the node is [saved](crate::Node::save), and the
    /// successor begins a moment before they end. A task that keeps its thread (it blocks, or
    /// [`tokio::task::spawn_blocking`] does not return) keeps the old code in memory, which the host reports.
    ///
    /// Not to be used in a plugin: `tokio::signal` and `tokio::process`, whose signal handlers would outlive its
    /// library.
    ///
    /// # Errors
    /// The node is closed, or the host or the system has no thread for it.
    pub fn tokio(&self) -> Result<Handle, Error> {
        let mut state = self.own_runtime().lock();
        match &*state {
            State::Runs { handle, .. } => return Ok(handle.clone()),
            State::Over => return Err(over()),
            State::NotAskedFor => {}
        }
        let runtime = Builder::new_current_thread().enable_all().thread_name("plugin-tokio").build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = async move {
            runtime.block_on(async move {
                // Never sent: it ends when the other half is dropped.
                let _ = stopped.await;
            });
            // Waits for the threads of `spawn_blocking`: they are code of this library.
            drop(runtime);
        };
        self.host().run_blocking(guarded(work, |_| ()), WorkPlace::OwnThread).map_err(Error::from_abi)?;
        *state = State::Runs { handle: handle.clone(), _stop: stop };
        Ok(handle)
    }

    /// Runs a future on the node's [tokio runtime](Ctx::tokio), and returns one that has its result, to be awaited
    /// anywhere. It begins at once, and goes on when that is dropped; then a panic in it is reported under the node's id.
    ///
    /// # Errors
    /// It panicked (code `PANIC`), or the runtime has ended or could not be started.
    pub fn spawn_on_tokio<T, F>(&self, future: F) -> impl Future<Output = Result<T, Error>> + Send + use<T, F>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let log = self.clone();
        let started = self.tokio().map(|handle| {
            handle.spawn(async move {
                let result = caught(future).await;
                if let Err(Err(panicked)) = answer.send(result) {
                    log.report_error(panicked, None);
                }
            });
        });
        async move {
            started?;
            result.await.unwrap_or_else(|_| Err(over()))
        }
    }
}

async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch(|| future.as_mut().poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(text) => std::task::Poll::Ready(Err(Error::new(text).with_code("PANIC"))),
    })
    .await
}

fn over() -> Error {
    Error::new("the node's tokio runtime has ended")
}
