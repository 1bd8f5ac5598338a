//! Nodes that take their time, or all of it.

use std::time::Duration;

use flowbay_sdk::{lenient, prelude::*};

#[derive(serde::Deserialize)]
pub struct MsConfig {
    #[serde(default, deserialize_with = "lenient::number")]
    ms: Option<f64>,
}

impl MsConfig {
    fn ms(&self) -> u64 {
        // As a cast: a negative time is none, an endless one is the longest.
        self.ms.unwrap_or_default() as u64
    }
}

/// Never finishes with a message.
pub struct NeverCompletes;

#[node("never-completes", inputs = 1, outputs = 1)]
impl Node for NeverCompletes {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(NeverCompletes)
    }

    async fn on_input(&self, _msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        std::future::pending().await
    }
}

/// Passes messages on; its close never finishes.
pub struct NeverCloses;

#[node("never-closes", inputs = 1, outputs = 1)]
impl Node for NeverCloses {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(NeverCloses)
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.send(msg);
        Ok(())
    }

    async fn on_close(&self, _removed: bool, _ctx: &Ctx) {
        std::future::pending().await
    }
}

/// Blocks its thread while it is created, then passes messages on.
pub struct SlowConstructor;

#[node("slow-constructor", inputs = 1, outputs = 1)]
impl Node for SlowConstructor {
    type Config = MsConfig;

    fn new(config: MsConfig, _ctx: &Ctx) -> Result<Self, Error> {
        std::thread::sleep(Duration::from_millis(config.ms()));
        Ok(SlowConstructor)
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.send(msg);
        Ok(())
    }
}

/// Passes each message on after a while, one at a time.
pub struct Sleeps {
    ms: u64,
}

#[node("sleeps", inputs = 1, outputs = 1)]
impl Node for Sleeps {
    type Config = MsConfig;

    fn new(config: MsConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Sleeps { ms: config.ms() })
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.sleep_ms(self.ms).await;
        ctx.send(msg);
        Ok(())
    }
}
