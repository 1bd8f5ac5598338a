//! `catch`: begins a flow with the errors of other nodes.

use flowbay_sdk::{Role, prelude::*};

use crate::handover;

/// Sends on what the host puts into its input: a message with `error`. The host knows the scope.
pub struct Catch;

#[node(
    "catch",
    role = Role::Catch,
    category = "common",
    color = "#e49191",
    icon = "alert.svg",
    outputs = 1,
    html = concat!(include_str!("../html/scope.html"), include_str!("../html/catch.html"))
)]
impl Node for Catch {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(Self)
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.send(msg);
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(handover::stateless())
    }
}
