//! The least that a plugin is.

use flowbay_sdk::prelude::*;

struct Nothing;

#[node("nothing")]
impl Node for Nothing {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(Nothing)
    }
}

export_plugin!(Nothing);

fn main() {}
