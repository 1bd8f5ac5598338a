//! `websocket out`: sends messages to WebSockets, and tells them what to do.

use flowbay_sdk::{Ctx, Error, Msg, Node, Status, Value, node};
use serde::Deserialize;

use crate::{
    control::Action,
    options::Options,
    users::{Direction, Membership, References, missing_configuration},
};

/// The node's properties.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    references: References,
    #[serde(default)]
    control: Value,
}

/// The node. It never waits for a socket: the host queues what a connection has not sent yet.
pub struct WebSocketOut {
    membership: Option<Membership>,
    /// Whether `msg.action` is obeyed. Unless it is asked for, no property of an ordinary message means anything.
    control: bool,
}

#[node(
    "websocket out",
    category = "network",
    color = "rgb(215, 215, 160)",
    icon = "white-globe.svg",
    align = "right",
    inputs = 1,
    html = include_str!("../html/websocket-out.html")
)]
impl Node for WebSocketOut {
    type Config = Config;

    fn new(config: Config, ctx: &Ctx) -> Result<Self, Error> {
        let control = Value::Object([("control", config.control)].into());
        let control = Options(&control).flag("control")?.unwrap_or(false);
        Ok(Self { membership: Membership::join(&config.references, ctx, Direction::Out)?, control })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        // Said once, not by every generation.
        let is_new = ctx.restored().is_none();
        if self.membership.is_none() && is_new { Err(missing_configuration()) } else { Ok(()) }
    }

    async fn on_input(&self, msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        // As in Node-RED, a node without configuration never completes a message.
        let Some(membership) = &self.membership else { return Err(Error::ignored()) };
        if self.control
            && let Some(action) = Action::read(&msg)?
        {
            return membership.endpoint().obey(&msg, action);
        }
        membership.endpoint().send(&msg)
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
