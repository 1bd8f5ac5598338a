use flowbay_sdk::prelude::*;

struct Config {
    name: String,
}

struct A(Config);

#[node("a")]
impl Node for A {
    type Config = Config;

    fn new(config: Config, _: &Ctx) -> Result<Self, Error> {
        Ok(A(config))
    }
}

fn main() {}
