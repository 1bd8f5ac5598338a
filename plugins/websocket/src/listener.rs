//! `websocket-listener`, and what an endpoint does that listens.

use std::sync::Arc;

use flowbay_sdk::{
    Connection, ConnectionEnd, Ctx, Error, Msg, Node, Role, UpgradeAnswer, UpgradeRequest, Value, node,
};

use crate::{endpoint::Endpoint, settings::Settings};

/// The configuration node. With a `ws://` or `wss://` URL as its path it is a client.
pub struct WebSocketListener(Arc<Endpoint>);

impl WebSocketListener {
    /// What it shares with the nodes that refer to it.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

#[node(
    "websocket-listener",
    role = Role::Config,
    category = "config",
    html = include_str!("../html/websocket-listener.html")
)]
impl Node for WebSocketListener {
    type Config = Settings;

    fn new(settings: Settings, ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self(Arc::new(Endpoint::new(settings, ctx))))
    }

    async fn run(&self, _ctx: &Ctx) -> Result<(), Error> {
        self.0.run().await
    }

    fn on_upgrade(&self, request: UpgradeRequest, _ctx: &Ctx) -> UpgradeAnswer {
        self.0.answer(&request)
    }

    async fn on_connection(&self, connection: Connection, _ctx: &Ctx) -> ConnectionEnd {
        self.0.serve(connection).await
    }

    async fn on_direct(&self, msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        self.0.on_direct(&msg);
        // Not a message of the flow.
        Err(Error::ignored())
    }

    async fn on_close(&self, _removed: bool, _ctx: &Ctx) {
        self.0.close().await;
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(self.0.save()))
    }
}

/// The path that a listener is registered with: `x` and `/x` are the same.
pub fn full_path(path: &str) -> String {
    format!("/{}", path.strip_prefix('/').unwrap_or(path))
}

/// Accepts, with the first subprotocol offered, whatever it is, as Node-RED does.
pub fn accept(request: &UpgradeRequest) -> UpgradeAnswer {
    match request.protocols().next() {
        Some(protocol) => UpgradeAnswer::accept().protocol(protocol),
        None => UpgradeAnswer::accept(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_with_one_slash() {
        for (path, full) in [("x", "/x"), ("/x", "/x"), ("", "/"), ("/", "/"), ("//x", "//x"), ("x/", "/x/")]
        {
            assert_eq!(full_path(path), full, "{path}");
        }
    }
}
