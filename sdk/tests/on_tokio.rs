//! A tokio runtime of the node's own.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected fails")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use flowbay_sdk::{prelude::*, testing::TestNode, value};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Sends each payload through a socket of tokio's and back.
struct Echoes;

#[node("echoes", inputs = 1, outputs = 1)]
impl Node for Echoes {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Echoes)
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let text = msg.payload().to_js_string();
        let echoed = ctx.spawn_on_tokio(echo(text)).await??;
        msg.set("payload", echoed);
        ctx.send(msg);
        Ok(())
    }
}

async fn echo(text: String) -> std::io::Result<String> {
    assert_ne!(text, "panic");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        if let Ok((mut peer, _)) = listener.accept().await {
            let (mut read, mut write) = peer.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut echoed = String::new();
    stream.read_to_string(&mut echoed).await?;
    Ok(echoed)
}

#[test]
fn timers_and_sockets_of_tokio_work_in_a_node() {
    let mut node = TestNode::<Echoes>::new(value!({}));
    for payload in ["one", "two"] {
        node.input(Msg::with_payload(payload));
        let sent = node.wait_for(|node| node.sent().pop());
        assert_eq!(sent.msg.payload(), &Value::from(payload));
    }
    node.input(Msg::with_payload("panic"));
    let failures = node.wait_for(|node| Some(node.failures()).filter(|failures| !failures.is_empty()));
    assert_eq!((failures[0].code.as_str(), failures.len()), ("PANIC", 1));
}

/// Has a task that never ends, and one that panics unseen.
struct Leaves;

struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

static GONE: std::sync::OnceLock<Arc<AtomicBool>> = std::sync::OnceLock::new();

#[node("leaves")]
impl Node for Leaves {
    type Config = NoConfig;

    fn new(_config: NoConfig, ctx: &Ctx) -> Result<Self, Error> {
        // Begins to run when the node does.
        let gone = Gone(GONE.get_or_init(Arc::default).clone());
        let log = ctx.clone();
        ctx.tokio()?.spawn(async move {
            log.warn("runs");
            std::future::pending::<()>().await;
            drop(gone);
        });
        drop(ctx.spawn_on_tokio(async { panic!("unseen") }));
        Ok(Leaves)
    }
}

#[test]
fn the_runtime_and_its_tasks_end_with_the_node() {
    let mut node = TestNode::<Leaves>::new(value!({}));
    node.wait_for(|node| node.log().pop());
    let failure = node.wait_for(|node| node.failures().pop());
    assert!(failure.text.contains("unseen") && failure.code == "PANIC", "{failure:?}");
    let gone = GONE.get().unwrap().clone();
    assert!(!gone.load(Ordering::SeqCst));
    // Joins the runtime's thread.
    drop(node);
    assert!(gone.load(Ordering::SeqCst));
}
