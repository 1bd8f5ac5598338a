use flowbay_sdk::prelude::*;

struct A;

impl Node for A {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(A)
    }
}

export_plugin!(A);

fn main() {}
