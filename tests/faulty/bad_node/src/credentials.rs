//! A node with credentials that shows them, which no real one does.

use flowbay_sdk::{Credential, prelude::*};

/// Sends each message on with its own credentials as the payload.
pub struct ShowsCredentials;

#[node(
    "shows-credentials",
    inputs = 1,
    outputs = 1,
    credentials = &[("user", Credential::Text), ("password", Credential::Password)]
)]
impl Node for ShowsCredentials {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(ShowsCredentials)
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        msg.set("payload", ctx.credentials());
        ctx.send(msg);
        Ok(())
    }
}
