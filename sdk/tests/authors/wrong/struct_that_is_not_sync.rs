use std::cell::Cell;

use flowbay_sdk::prelude::*;

struct Counter(Cell<u64>);

#[node("counter", inputs = 1)]
impl Node for Counter {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(Counter(Cell::new(0)))
    }
}

fn main() {}
