//! `websocket-client`, and what an endpoint does that connects.

use std::{pin::pin, sync::Arc, time::Duration};

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
        Ok(Self(Arc::new(Endpoint::new(settings, ctx)?)))
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

    fn on_connection_lost(&self, session: &str, _ctx: &Ctx) {
        self.0.lost(session);
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

/// Opens a connection: the stream with its handshake done, and the state that its session begins with. TCP, TLS and a
/// proxy may take `time`, and again the handshake.
///
/// # Errors
/// The server cannot be reached, does not answer in time, or does not agree.
pub async fn connect(
    address: &Address,
    settings: &Settings,
    time: Duration,
    ctx: &Ctx,
) -> Result<(HostStream, Object), Error> {
    let dial = DialOptions {
        host: address.host.clone(),
        port: address.port,
        tls: address.tls,
        timeout_ms: u64::try_from(time.as_millis()).ok(),
        tls_config: (!settings.tls.is_empty()).then(|| settings.tls.clone()),
        proxy: true,
        ..DialOptions::default()
    };
    let stream = ctx.dial(dial).await?;
    let protocols = settings.protocols();
    let headers = headers::resolve(&settings.headers, |name| ctx.env(name));
    let request = Request { address, protocols: &protocols, headers: &headers };
    // One that a peer keeps alive byte by byte is given up too.
    let opening = pin!(handshake::open(stream, &request));
    let Opened { stream, protocol, input } = match select(opening, pin!(ctx.sleep(time))).await {
        Either::Left((opened, _)) => opened?,
        Either::Right(_) => {
            return Err(Error::new(format!("the server did not answer the handshake within {time:?}")));
        }
    };
    let state = Object::from([
        ("role", Value::from("client")),
        ("url", Value::from(address.url())),
        ("protocol", Value::from(protocol)),
        ("input", Value::from(Blob::from(input))),
    ]);
    Ok((stream, state))
}
