//! The testing kit itself: what it says a node did, that node did.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use flowbay_sdk::{
    Connection, ConnectionEnd, DialOptions, Received, UpgradeAnswer, UpgradeRequest,
    prelude::*,
    testing::{Setup, TestNode},
    value,
};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Deserialize)]
struct CounterConfig {
    #[serde(default)]
    step: i64,
}

/// Counts its messages, takes its time, keeps its count across a swap.
struct Counter {
    config: CounterConfig,
    count: AtomicI64,
}

#[node("counter", inputs = 1, outputs = 1)]
impl Node for Counter {
    type Config = CounterConfig;

    fn new(config: CounterConfig, ctx: &Ctx) -> Result<Self, Error> {
        if config.step < 0 {
            return Err(Error::new("step is negative"));
        }
        let count = ctx.restored().and_then(Value::as_i64).unwrap_or(0);
        Ok(Self { config, count: AtomicI64::new(count) })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        loop {
            ctx.sleep_ms(1_000).await;
            ctx.ready().await;
            ctx.send(Msg::with_payload("tick"));
        }
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        assert_ne!(msg.payload(), &Value::from("panic"));
        if msg.payload() == &Value::from("bad") {
            return Err(Error::new("bad message").with_code("EBAD"));
        }
        ctx.sleep_ms(100).await;
        let count = self.count.fetch_add(self.config.step, Ordering::Relaxed) + self.config.step;
        ctx.send(Msg::with_payload(count));
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(self.count.load(Ordering::Relaxed).into()))
    }
}

fn payloads(node: &mut TestNode<Counter>) -> Vec<Value> {
    node.sent().into_iter().map(|sent| sent.msg.payload().clone()).collect()
}

#[test]
fn time_passes_only_when_the_test_says_so() {
    let mut node = TestNode::<Counter>::new(value!({"step": 2}));
    node.input(Msg::with_payload("a"));
    assert_eq!((node.sent(), node.completed(), node.unfinished()), (vec![], vec![], 1));
    node.advance(Duration::from_millis(99));
    assert_eq!(node.unfinished(), 1);
    node.advance(Duration::from_millis(1));
    assert_eq!(node.next_sent().payload(), &Value::from(2));
    assert_eq!(node.completed()[0].payload(), &Value::from("a"));
    node.advance(Duration::from_millis(3_000));
    assert_eq!(payloads(&mut node), [Value::from("tick"), Value::from("tick"), Value::from("tick")]);
}

#[test]
fn messages_are_handled_one_after_the_other() {
    let mut node = TestNode::<Counter>::new(value!({"step": 1}));
    for _ in 0..3 {
        node.input(Msg::new());
    }
    node.advance(Duration::from_millis(250));
    assert_eq!((payloads(&mut node), node.unfinished()), (vec![Value::from(1), Value::from(2)], 1));
}

#[test]
fn errors_and_panics_come_with_their_message() {
    let mut node = TestNode::<Counter>::new(value!({}));
    node.input(Msg::with_payload("bad"));
    node.input(Msg::with_payload("panic"));
    let failures = node.failures();
    assert_eq!((failures[0].text.as_str(), failures[0].code.as_str()), ("bad message", "EBAD"));
    assert_eq!(failures[0].msg.as_ref().unwrap().payload(), &Value::from("bad"));
    assert!(failures[1].text.contains("panicked"), "{}", failures[1].text);
    assert!(node.completed().is_empty());
}

#[test]
fn a_node_that_cannot_be_created_says_why() {
    let refused = Setup::new().config(value!({"step": -1})).create::<Counter>();
    assert_eq!(refused.err().unwrap().text(), "step is negative");
    let ill_typed = Setup::new().config(value!({"step": "x"})).create::<Counter>();
    assert!(ill_typed.err().unwrap().text().contains("step"));
}

#[test]
fn a_source_waits_while_the_flow_is_congested() {
    let mut node = TestNode::<Counter>::new(value!({}));
    node.set_congested(true);
    node.advance(Duration::from_secs(5));
    assert_eq!(node.sent(), []);
    node.set_congested(false);
    assert_eq!(payloads(&mut node), [Value::from("tick")]);
}

#[test]
fn a_successor_goes_on_with_what_was_saved_and_what_waited() {
    let mut node = TestNode::<Counter>::new(value!({"step": 5}));
    node.input(Msg::new());
    node.advance(Duration::from_millis(100));
    let Ok(mut newer) = node.hand_over::<Counter>() else { panic!("it saves") };
    newer.input(Msg::new());
    newer.advance(Duration::from_millis(100));
    assert_eq!(payloads(&mut newer), [Value::from(5), Value::from(10)]);
}

/// Answers what its peers write with what they wrote, and is told to write by messages.
#[derive(Default)]
struct Echo {
    dialled: AtomicBool,
}

#[node("echo", inputs = 1)]
impl Node for Echo {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(Self::default())
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        if msg.payload() == &Value::from("dial") {
            let options = DialOptions { host: "peer.test".into(), port: 7, ..DialOptions::default() };
            let stream = ctx.dial(options).await?;
            self.dialled.store(true, Ordering::Relaxed);
            ctx.attach(stream, Value::Null)?;
        } else {
            ctx.session_broadcast(msg.payload().clone());
        }
        Ok(())
    }

    fn on_upgrade(&self, request: UpgradeRequest, _: &Ctx) -> UpgradeAnswer {
        if request.value()["path"] == "/no" { UpgradeAnswer::refuse(403) } else { UpgradeAnswer::accept() }
    }

    async fn on_connection(&self, connection: Connection, _: &Ctx) -> ConnectionEnd {
        let Connection { mut stream, session, state } = connection;
        let mut values = Vec::new();
        let mut bytes = [0; 16];
        loop {
            tokio::select! {
                biased;
                received = session.recv(&mut values) => match received {
                    Received::Values(_) => {
                        for value in values.drain(..) {
                            let text = value.as_str().unwrap_or_default().to_owned();
                            if stream.write_all(text.as_bytes()).await.is_err() {
                                return ConnectionEnd::Closed;
                            }
                        }
                    }
                    Received::HandOver => return ConnectionEnd::HandOver { stream, state },
                    Received::Closed => return ConnectionEnd::Closed,
                },
                read = stream.read(&mut bytes) => match read {
                    Ok(n @ 1..) if stream.write_all(&bytes[..n]).await.is_ok() => {}
                    _ => return ConnectionEnd::Closed,
                },
            }
        }
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

#[test]
fn connections_speak_with_their_peer_and_move_to_a_successor() {
    let mut node = TestNode::<Echo>::new(value!({}));
    assert_eq!(node.upgrade(value!({"path": "/no"})).0["refuse"], 403);
    let (_, connection) = node.upgrade(value!({"path": "/yes"}));
    let (id, peer) = connection.unwrap();
    assert_eq!(node.sessions(), std::slice::from_ref(&id));
    peer.write("hello");
    node.run();
    assert_eq!(peer.read(), b"hello");

    let Ok(mut newer) = node.hand_over::<Echo>() else { panic!("it moves") };
    assert_eq!(newer.sessions(), [id]);
    newer.input(Msg::with_payload("to all"));
    peer.write("again");
    newer.run();
    assert_eq!(peer.read(), b"to allagain");
    peer.close();
    newer.run();
    assert!(newer.sessions().is_empty() && peer.is_closed());
}

#[test]
fn what_a_node_dials_is_answered_by_the_test() {
    let mut node = TestNode::<Echo>::new(value!({}));
    node.input(Msg::with_payload("dial"));
    let dialled = node.dialled().unwrap();
    assert_eq!((&dialled.options["host"], &dialled.options["port"]), (&"peer.test".into(), &7.into()));
    let peer = node.connect(dialled);
    peer.write("x");
    node.run();
    assert_eq!(peer.read(), b"x");

    node.input(Msg::with_payload("dial"));
    let dialled = node.dialled().unwrap();
    node.refuse(dialled, "nobody there");
    assert_eq!(node.failures()[0].text, "nobody there");
}

#[test]
fn a_peer_that_takes_nothing_makes_the_node_wait() {
    let mut node = TestNode::<Echo>::new(value!({}));
    let (_, peer) = node.upgrade(value!({"path": "/yes"})).1.unwrap();
    peer.set_room(Some(3));
    peer.write("abcdef");
    node.run();
    assert_eq!(peer.read(), b"abc");
    peer.set_room(None);
    node.run();
    assert_eq!(peer.read(), b"def");
}

#[test]
fn a_node_closes_by_itself_or_is_given_up() {
    let node = TestNode::<Counter>::new(value!({}));
    assert!(node.close(true).0);
}
