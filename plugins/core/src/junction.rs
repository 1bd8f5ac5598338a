//! `junction`: a point where wires meet.

use flowbay_sdk::prelude::*;

use crate::handover;

/// Passes messages on.
pub struct Junction;

#[node("junction", inputs = 1, outputs = 1, html = include_str!("../html/junction.html"))]
impl Node for Junction {
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
