//! A plugin for other minors of the ABI than the host's: `harness/minors.rs` builds it with an SDK of such a minor.
//!
//! | type | configuration | what it does |
//! |---|---|---|
//! | `minor` | | passes messages on with `abi`, `count` (kept over hot swaps), and `future`: what came of the call that only a newer minor has |

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicI64, Ordering};

use flowbay_sdk::prelude::*;

/// Counts messages.
struct Minor(AtomicI64);

#[node("minor", inputs = 1, outputs = 1)]
impl Node for Minor {
    type Config = NoConfig;

    fn new(_config: NoConfig, ctx: &Ctx) -> Result<Self, Error> {
        Ok(Minor(AtomicI64::new(ctx.restored().and_then(Value::as_i64).unwrap_or(0))))
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        // Through the host and back, by calls of several tables.
        ctx.sleep_ms(1).await;
        let _ = ctx.counter("minor_messages_total", "Messages").add(1);
        #[cfg(newer)]
        msg.set("future", ctx.from_the_future().map_or(Value::from("not there"), |answer| Value::from(answer as i64)));
        msg.set("abi", env!("MINOR"));
        msg.set("count", self.0.fetch_add(1, Ordering::Relaxed) + 1);
        ctx.send(msg);
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(self.0.load(Ordering::Relaxed).into()))
    }
}

export_plugin!(Minor);
