use flowbay_sdk::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    topic: String,
}

struct A(Config);

#[node("a", inputs = 1, outputs = 1)]
impl Node for A {
    type Config = Config;

    fn new(config: Config, _: &Ctx) -> Result<Self, Error> {
        Ok(A(config))
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        msg.set("topic", self.0.topik.as_str());
        ctx.send(msg);
        Ok(())
    }
}

fn main() {}
