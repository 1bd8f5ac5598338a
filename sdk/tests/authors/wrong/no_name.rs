use flowbay_sdk::prelude::*;

struct A;

#[node(category = "function")]
impl Node for A {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(A)
    }
}

fn main() {}
