use std::rc::Rc;

use flowbay_sdk::prelude::*;

struct A;

#[node("a", inputs = 1)]
impl Node for A {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(A)
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let shared = Rc::new(msg);
        ctx.sleep_ms(1).await;
        drop(shared);
        Ok(())
    }
}

export_plugin!(A);

fn main() {}
