//! Nodes with a tokio runtime of their own.

use std::time::Duration;

use flowbay_sdk::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{MsConfig, touch_thread_locals};

/// Uses what there is of tokio.
pub struct OnTokio;

#[node("on-tokio", inputs = 1, outputs = 1)]
impl Node for OnTokio {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(OnTokio)
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        ctx.spawn_on_tokio(async {
            let mut interval = tokio::time::interval(Duration::from_millis(1));
            loop {
                interval.tick().await;
                touch_thread_locals();
            }
        })
        .await
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let text = msg.payload().to_js_string();
        let (echoed, thread) = ctx.spawn_on_tokio(echo(text)).await??;
        msg.set("payload", echoed);
        msg.set("thread", thread);
        // On its runtime, the node can do what it can elsewhere.
        let own = ctx.clone();
        ctx.spawn_on_tokio(async move {
            own.sleep_ms(1).await;
            own.send(msg);
        })
        .await
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

async fn echo(text: String) -> std::io::Result<(String, String)> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        if let Ok((mut peer, _)) = listener.accept().await {
            let (mut read, mut write) = peer.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    // Looked up on a thread of tokio's, which then stays for a while.
    let mut stream = TcpStream::connect(("localhost", port)).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut echoed = String::new();
    stream.read_to_string(&mut echoed).await?;
    tokio::task::spawn_blocking(touch_thread_locals).await?;
    Ok((echoed, touch_thread_locals()))
}

/// Has a task that blocks its runtime.
pub struct StuckOnTokio {
    time: Duration,
}

#[node("stuck-on-tokio", inputs = 1, outputs = 1)]
impl Node for StuckOnTokio {
    type Config = MsConfig;

    fn new(config: MsConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(StuckOnTokio { time: config.time() })
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let time = self.time;
        let own = ctx.clone();
        drop(ctx.spawn_on_tokio(async move {
            own.send(msg);
            std::thread::sleep(time);
        }));
        Ok(())
    }
}
