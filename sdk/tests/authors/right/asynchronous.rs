//! Waiting, errors by `?`, several types in one plugin.

use flowbay_sdk::{Role, prelude::*};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    delay_ms: u64,
}

struct Later(Config);

#[node("later", category = "function", inputs = 1, outputs = 2)]
impl Node for Later {
    type Config = Config;

    fn new(config: Config, _: &Ctx) -> Result<Self, Error> {
        Ok(Later(config))
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.sleep_ms(self.0.delay_ms).await;
        let number: i64 = msg.payload().as_str().unwrap_or_default().parse()?;
        ctx.send_all([(0, Msg::with_payload(number)), (1, msg)]);
        Ok(())
    }
}

struct Shared;

#[node("shared", role = Role::Config, category = "config")]
impl Node for Shared {
    type Config = AnyConfig;

    fn new(_: AnyConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(Shared)
    }
}

export_plugin!(Later, Shared);

fn main() {}
