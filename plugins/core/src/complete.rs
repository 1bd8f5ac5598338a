//! `complete`: begins a flow when other nodes have finished with a message.

use flowbay_sdk::{Role, prelude::*};

use crate::handover;

/// Sends on what the host puts into its input: the message with `complete`. The host knows the scope.
pub struct Complete;

#[node(
    "complete",
    role = Role::Complete,
    category = "common",
    color = "#c0edc0",
    icon = "alert.svg",
    outputs = 1,
    html = concat!(include_str!("../html/scope.html"), include_str!("../html/complete.html"))
)]
impl Node for Complete {
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
