//! Nodes that pass messages on.

use std::sync::atomic::{AtomicI64, Ordering};

use flowbay_sdk::{lenient, prelude::*};

/// Passes messages on.
pub struct Passes;

#[node("passes", inputs = 1, outputs = 1)]
impl Node for Passes {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Passes)
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.send(msg);
        Ok(())
    }
}

/// Numbers messages from 1, as `count`.
pub struct Counter {
    count: AtomicI64,
}

#[node("counter", inputs = 1, outputs = 1)]
impl Node for Counter {
    type Config = NoConfig;

    fn new(_config: NoConfig, ctx: &Ctx) -> Result<Self, Error> {
        let count = ctx.restored().and_then(Value::as_i64).unwrap_or(0);
        Ok(Counter { count: AtomicI64::new(count) })
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        msg.set("count", self.count.fetch_add(1, Ordering::Relaxed) + 1);
        ctx.send(msg);
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(self.count.load(Ordering::Relaxed).into()))
    }
}

/// Sends each message to every output.
pub struct MultiOutput {
    outputs: u32,
}

#[derive(serde::Deserialize)]
pub struct MultiOutputConfig {
    #[serde(default, deserialize_with = "lenient::number")]
    outputs: Option<f64>,
}

#[node("multi-output", inputs = 1, outputs = 2)]
impl Node for MultiOutput {
    type Config = MultiOutputConfig;

    fn new(config: MultiOutputConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(MultiOutput { outputs: config.outputs.map_or(2, |outputs| outputs as u32) })
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.send_all((0..self.outputs).map(|output| {
            let mut msg = msg.clone();
            msg.set("output", i64::from(output));
            (output, msg)
        }));
        Ok(())
    }
}
