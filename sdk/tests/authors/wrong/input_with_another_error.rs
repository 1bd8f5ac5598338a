use flowbay_sdk::prelude::*;

struct A;

#[node("a", inputs = 1)]
impl Node for A {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(A)
    }

    async fn on_input(&self, _: Msg, _: &Ctx) -> Result<(), String> {
        Err("no".to_owned())
    }
}

fn main() {}
