use flowbay_sdk::prelude::*;

struct A;
struct B;

#[node("same")]
impl Node for A {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(A)
    }
}

#[node("same")]
impl Node for B {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(B)
    }
}

export_plugin!(A, B);

fn main() {}
