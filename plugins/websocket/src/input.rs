//! `websocket in`: a message for each message that a WebSocket brings.

use flowbay_sdk::{Ctx, Error, Node, Role, Status, Value, node};

use crate::users::{Direction, Membership, References, missing_configuration};

/// The node. Its configuration's connections send through it; without configuration it does nothing.
pub struct WebSocketIn {
    membership: Option<Membership>,
}

#[node(
    "websocket in",
    role = Role::Source,
    category = "network",
    color = "rgb(215, 215, 160)",
    icon = "white-globe.svg",
    outputs = 1,
    html = include_str!("../html/websocket-in.html")
)]
impl Node for WebSocketIn {
    type Config = References;

    fn new(references: References, ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self { membership: Membership::join(&references, ctx, Direction::In)? })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        // Said once, not by every generation.
        let is_new = ctx.restored().is_none();
        if self.membership.is_none() && is_new { Err(missing_configuration()) } else { Ok(()) }
    }

    async fn on_close(&self, _removed: bool, ctx: &Ctx) {
        if let Some(membership) = &self.membership {
            membership.leave();
            ctx.status(Status::new());
        }
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        if let Some(membership) = &self.membership {
            membership.outlive_node();
        }
        Ok(Some(Value::Null))
    }
}
