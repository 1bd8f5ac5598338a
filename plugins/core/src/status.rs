//! `status`: begins a flow with the status changes of other nodes.

use flowbay_sdk::{Role, prelude::*};

use crate::handover;

/// Sends on what the host puts into its input: a message with `status`. The host knows the scope.
pub struct StatusNode;

#[node(
    "status",
    role = Role::Status,
    category = "common",
    color = "#94c1d0",
    icon = "status.svg",
    outputs = 1,
    html = concat!(include_str!("../html/scope.html"), include_str!("../html/status.html"))
)]
impl Node for StatusNode {
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
