//! Sources that send many messages at once.

use flowbay_sdk::{Role, lenient, prelude::*};

#[derive(serde::Deserialize)]
pub struct BurstConfig {
    #[serde(default, deserialize_with = "lenient::number")]
    count: Option<f64>,
}

impl BurstConfig {
    fn count(&self) -> i64 {
        self.count.unwrap_or_default() as i64
    }
}

/// Sends payloads 0, 1, …, each when the flow can take it.
pub struct Burst {
    count: i64,
}

#[node("burst", role = Role::Source, outputs = 1)]
impl Node for Burst {
    type Config = BurstConfig;

    fn new(config: BurstConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Burst { count: config.count() })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        for payload in 0..self.count {
            ctx.ready().await;
            ctx.send(Msg::with_payload(payload));
        }
        Ok(())
    }
}

/// Sends payloads 0, 1, … without looking.
pub struct BlindBurst {
    count: i64,
}

#[node("blind-burst", role = Role::Source, outputs = 1)]
impl Node for BlindBurst {
    type Config = BurstConfig;

    fn new(config: BurstConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(BlindBurst { count: config.count() })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        for payload in 0..self.count {
            ctx.send(Msg::with_payload(payload));
        }
        Ok(())
    }
}
