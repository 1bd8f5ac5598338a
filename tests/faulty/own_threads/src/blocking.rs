//! Nodes that block.

use std::{path::PathBuf, time::Duration};

use flowbay_sdk::prelude::*;

use crate::{MsConfig, touch_thread_locals};

/// Blocks on a thread that is there for it.
pub struct Blocks {
    time: Duration,
    file: Option<PathBuf>,
}

#[node("blocks", inputs = 1, outputs = 1, concurrency = 0)]
impl Node for Blocks {
    type Config = MsConfig;

    fn new(config: MsConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Blocks { time: config.time(), file: config.file })
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let (time, file) = (self.time, self.file.clone());
        let panics = msg.payload() == &Value::from("panic");
        let (thread, text) = ctx
            .blocking(move || {
                assert!(!panics, "blocks was told to");
                std::thread::sleep(time);
                let text = file.map(std::fs::read_to_string).transpose()?;
                Ok::<_, std::io::Error>((touch_thread_locals(), text))
            })
            .await??;
        if let Some(text) = text {
            msg.set("payload", text);
        }
        msg.set("thread", thread);
        ctx.send(msg);
        Ok(())
    }
}

/// Blocks in its own task.
pub struct BlocksInRun {
    time: Duration,
}

#[node("blocks-in-run")]
impl Node for BlocksInRun {
    type Config = MsConfig;

    fn new(config: MsConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(BlocksInRun { time: config.time() })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        let (time, log) = (self.time, ctx.clone());
        ctx.blocking(move || {
            log.warn("blocks");
            touch_thread_locals();
            std::thread::sleep(time);
        })
        .await
    }
}

/// Blocks where it must not.
pub struct KeepsItsThread {
    time: Duration,
}

#[node("keeps-its-thread", inputs = 1, outputs = 1)]
impl Node for KeepsItsThread {
    type Config = MsConfig;

    fn new(config: MsConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(KeepsItsThread { time: config.time() })
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        std::thread::sleep(self.time);
        ctx.send(msg);
        Ok(())
    }
}
