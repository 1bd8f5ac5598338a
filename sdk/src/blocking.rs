//! Work that blocks its thread, done on threads of the host that are there for it.

use std::future::Future;

use flowbay_abi::{
    host::WorkPlace,
    panics::{catch, guarded},
};
use tokio::sync::oneshot;

use crate::{Ctx, Error};

impl Ctx {
    /// Does work that blocks its thread, or computes for long, on a thread of the host that is there for it. Nothing
    /// happens until the future is polled.
    ///
    /// ```
    /// # use flowbay_sdk::prelude::*;
    /// # struct Reads;
    /// # #[node("reads")]
    /// # impl Node for Reads {
    /// #     type Config = NoConfig;
    /// #     fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> { Ok(Reads) }
    /// async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
    ///     let path = msg.payload().to_js_string();
    ///     // The first `?` is for the work as such, the second for what it returned.
    ///     let text = ctx.blocking(move || std::fs::read_to_string(path)).await??;
    ///     msg.set("payload", text);
    ///     ctx.send(msg);
    ///     Ok(())
    /// }
    /// # }
    /// ```
    ///
    /// The host has a few such threads for all nodes (its setting `blocking_threads`), so the work is to end by itself;
    /// what goes on for ever belongs into [`Node::run`](crate::Node::run), or onto a runtime of its own (the feature
    /// `tokio`). Work that waits for a thread when its future is dropped is never begun. Work that has begun cannot be
    /// stopped: it goes on to its end, and its result is dropped; after a hot swap the old code stays in memory until
    /// then.
    ///
    /// # Errors
    /// The work panicked (code `PANIC`), or too much waits for a thread already (`BLOCKING_QUEUE_FULL`).
    pub fn blocking<T, F>(&self, work: F) -> impl Future<Output = Result<T, Error>> + Send + use<T, F>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let ctx = self.clone();
        async move {
            let (answer, result) = oneshot::channel();
            let log = ctx.clone();
            let work = async move {
                if answer.is_closed() {
                    return;
                }
                let result = catch(work).map_err(|text| Error::new(text).with_code("PANIC"));
                // With nobody to return it to, a panic is at least in the log.
                if let Err(Err(panicked)) = answer.send(result) {
                    log.report_error(panicked, None);
                }
            };
            let work = guarded(work, |_| ());
            ctx.host().run_blocking(work, WorkPlace::Pool).map_err(Error::from_abi)?;
            result.await.unwrap_or_else(|_| Err(Error::new("the host did not do the blocking work")))
        }
    }
}
