//! Nodes that panic or fail.

use flowbay_sdk::prelude::*;

/// Panics on every message.
pub struct PanicsOnInput;

#[node("panics-on-input", inputs = 1, outputs = 1)]
impl Node for PanicsOnInput {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(PanicsOnInput)
    }

    async fn on_input(&self, msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        panic!("panics-on-input was given {}", msg.payload().to_js_string());
    }
}

/// Panics instead of being created.
pub struct PanicsInConstructor;

#[node("panics-in-constructor", inputs = 1, outputs = 1)]
impl Node for PanicsInConstructor {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        panic!("panics-in-constructor was created");
    }
}

/// Panics in its own task, after its first wait.
pub struct PanicsInRun;

#[node("panics-in-run", outputs = 1)]
impl Node for PanicsInRun {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(PanicsInRun)
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        ctx.sleep_ms(1).await;
        panic!("panics-in-run ran");
    }
}

/// Fails on every message.
pub struct FailsOnInput {
    text: String,
}

#[derive(serde::Deserialize)]
pub struct FailsOnInputConfig {
    #[serde(default)]
    text: String,
}

#[node("fails-on-input", inputs = 1, outputs = 1)]
impl Node for FailsOnInput {
    type Config = FailsOnInputConfig;

    fn new(config: FailsOnInputConfig, _ctx: &Ctx) -> Result<Self, Error> {
        let text = if config.text.is_empty() {
            "fails-on-input was given a message".to_owned()
        } else {
            config.text
        };
        Ok(FailsOnInput { text })
    }

    async fn on_input(&self, _msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        Err(Error::new(&self.text))
    }
}
