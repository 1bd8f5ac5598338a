//! `websocket-client`, and what an endpoint does that connects.

use std::{pin::pin, sync::Arc};

use flowbay_sdk::{
    Blob, Connection, ConnectionEnd, Ctx, DialOptions, Error, HostStream, Msg, Node, Object, Role,
    UpgradeAnswer, UpgradeRequest, Value, node,
};
use futures_util::future::{Either, select};

use crate::{
    address::Address,
    endpoint::Endpoint,
    handshake::{self, Opened, Request},
    headers,
    settings::Settings,
};

/// Time between the end of a connection, or of an attempt, and the next attempt; Node-RED's.
pub const RECONNECT_MS: u64 = 3_000;
/// How long a connection whose last user has left is kept: a redeploy may bring new ones.
pub const UNUSED_MS: u64 = 5_000;
/// How long a server may take for TCP and TLS, and then again for the WebSocket handshake.
const CONNECT_MS: u64 = 10_000;

/// The configuration node. With a path that is no URL it is a listener.
pub struct WebSocketClient(Arc<Endpoint>);

impl WebSocketClient {
    /// What it shares with the nodes that refer to it.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

#[node(
    "websocket-client",
    role = Role::Config,
    category = "config",
    html = include_str!("../html/websocket-client.html")
)]
impl Node for WebSocketClient {
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

/// Opens a connection: the stream with its handshake done, and the state that its session begins with.
///
/// # Errors
/// The server cannot be reached, does not answer in time, or does not agree.
pub async fn connect(
    address: &Address,
    settings: &Settings,
    ctx: &Ctx,
) -> Result<(HostStream, Value), Error> {
    let dial = DialOptions {
        host: address.host.clone(),
        port: address.port,
        tls: address.tls,
        timeout_ms: Some(CONNECT_MS),
    };
    let stream = ctx.dial(dial).await?;
    let protocols = settings.protocols();
    let headers = headers::resolve(&settings.headers, |name| ctx.env(name));
    let request = Request { address, protocols: &protocols, headers: &headers };
    let opening = pin!(handshake::open(stream, &request));
    let opened = match select(opening, pin!(ctx.sleep_ms(CONNECT_MS))).await {
        Either::Left((opened, _)) => opened?,
        Either::Right(_) => return Err(Error::new("the server did not answer the handshake in time")),
    };
    let Opened { stream, protocol, input } = opened;
    let state = Object::from([
        ("role", Value::from("client")),
        ("protocol", Value::from(protocol)),
        ("input", Value::from(Blob::from(input))),
    ]);
    Ok((stream, Value::Object(state)))
}
