//! `websocket in`: a message for each message that a WebSocket brings, or for each that asks to be let in.

use flowbay_sdk::{Ctx, Error, Node, Role, Status, Value, node};
use serde::Deserialize;

use crate::{
    options::Options,
    users::{Direction, Membership, References, missing_configuration},
};

/// The node's properties.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    references: References,
    #[serde(default)]
    events: Value,
}

/// The node. Its configuration's connections send through it; without configuration it does nothing.
pub struct WebSocketIn {
    membership: Option<Membership>,
    direction: Direction,
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
    type Config = Config;

    fn new(config: Config, ctx: &Ctx) -> Result<Self, Error> {
        let events = Value::Object([("events", config.events)].into());
        let kinds = [("messages", Direction::In), ("upgrade", Direction::Decide)];
        let direction = Options(&events).choice("events", &kinds)?.unwrap_or(Direction::In);
        Ok(Self { membership: Membership::join(&config.references, ctx, direction)?, direction })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        // Said once, not by every generation.
        let is_new = ctx.restored().is_none();
        if !is_new {
            return Ok(());
        }
        let Some(membership) = &self.membership else { return Err(missing_configuration()) };
        if self.direction == Direction::Decide && !membership.endpoint().leaves_decisions() {
            ctx.warn(
                "this node will get nothing: its configuration does not let flows decide about upgrades",
            );
        }
        Ok(())
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
