//! Where a flow ends, for tests that want to see what arrived.

use std::sync::{Mutex, PoisonError};

use flowbay_sdk::{Request, Response, prelude::*};

/// Keeps the payloads of all messages and shows them, in order, as a JSON array at `/collector/<id>`.
pub struct Collector {
    payloads: Mutex<Vec<Value>>,
}

#[node("collector", inputs = 1)]
impl Node for Collector {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Collector { payloads: Mutex::default() })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        ctx.register_public("GET", &format!("/collector/{}", ctx.id()))
    }

    async fn on_input(&self, msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        self.payloads.lock().unwrap_or_else(PoisonError::into_inner).push(msg.payload().clone());
        Ok(())
    }

    async fn on_request(&self, _request: Request, _ctx: &Ctx) -> Response {
        let payloads = self.payloads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Response::status(200).body(payloads)
    }
}
