//! `websocket in`: a message for each message that a WebSocket brings.

use flowbay_sdk::{Ctx, Error, Node, Role, Status, node};

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

    async fn run(&self, _ctx: &Ctx) -> Result<(), Error> {
        self.membership.as_ref().map(drop).ok_or_else(missing_configuration)
    }

    async fn on_close(&self, _removed: bool, ctx: &Ctx) {
        if let Some(membership) = &self.membership {
            membership.leave();
            ctx.status(Status::new());
        }
    }
}
