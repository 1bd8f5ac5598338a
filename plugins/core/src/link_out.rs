//! `link out`: sends to link ins, or back to the link call that the message came from.

use flowbay_sdk::{Role, Str, lenient, prelude::*};
use serde::Deserialize;

use crate::{handover, link_stack};

/// The node's properties that are read here; the host reads `links`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    #[serde(deserialize_with = "lenient::string")]
    mode: String,
}

/// Sends to the link ins that the host has wired it to, or returns a message.
pub struct LinkOut {
    returns: bool,
    event: Str,
}

#[node(
    "link out",
    role = Role::LinkOut,
    category = "common",
    color = "#ddd",
    icon = "link-out.svg",
    align = "right",
    inputs = 1,
    html = concat!(include_str!("../html/links.html"), include_str!("../html/link out.html"))
)]
impl Node for LinkOut {
    type Config = Config;

    fn new(config: Config, ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self { returns: config.mode == "return", event: format!("node:{}", ctx.id()).into() })
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        msg.set("_event", &self.event);
        if !self.returns {
            ctx.send(msg);
            return Ok(());
        }
        // The link call takes its entry off the stack: it tells it which of its calls returns.
        let delivered = link_stack::last(&msg).is_some_and(|caller| ctx.deliver(&caller.node, msg));
        if !delivered {
            ctx.warn("Missing return node information");
        }
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(handover::stateless())
    }
}
