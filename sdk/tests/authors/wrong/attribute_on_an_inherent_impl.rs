use flowbay_sdk::prelude::*;

struct A;

#[node("a")]
impl A {
    fn new() -> Self {
        A
    }
}

fn main() {}
