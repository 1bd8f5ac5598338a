//! `link in`: where what link outs and link calls send comes in.

use flowbay_sdk::{Role, prelude::*};

use crate::{
    handover,
    link_targets::{Target, running},
};

/// Passes on what comes in.
pub struct LinkIn {
    target: Target,
}

#[node(
    "link in",
    role = Role::LinkIn,
    category = "common",
    color = "#ddd",
    icon = "link-out.svg",
    outputs = 1,
    html = concat!(include_str!("../html/links.html"), include_str!("../html/link in.html"))
)]
impl Node for LinkIn {
    type Config = NoConfig;

    fn new(_: NoConfig, ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self { target: Target::of(ctx) })
    }

    async fn run(&self, _: &Ctx) -> Result<(), Error> {
        running().add(self.target.clone());
        Ok(())
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.send(msg);
        Ok(())
    }

    async fn on_close(&self, _removed: bool, _: &Ctx) {
        running().remove(&self.target);
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(handover::stateless())
    }
}

/// A node may also end without being closed, when a newer generation takes over.
impl Drop for LinkIn {
    fn drop(&mut self) {
        running().remove(&self.target);
    }
}
