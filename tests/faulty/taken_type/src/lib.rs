//! Has a node type of its own and one, `debug`, that the core plugin has. Otherwise a whole plugin.

#![forbid(unsafe_code)]

use flowbay_sdk::prelude::*;

/// Its own.
struct Own;

#[node("own-of-taken-type")]
impl Node for Own {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Own)
    }
}

/// Not its own.
struct Debug;

#[node("debug", inputs = 1)]
impl Node for Debug {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Debug)
    }
}

export_plugin!(Own, Debug);
