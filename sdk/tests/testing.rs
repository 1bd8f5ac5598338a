//! The testing kit itself: what it says a node did, that node did.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use flowbay_sdk::{
    Connection, ConnectionEnd, ContextScope, DialOptions, Queued, Received, Request, Response, UpgradeAnswer,
    UpgradeRequest,
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

/// Wants a property, and nothing else.
#[derive(Deserialize)]
struct Wants {
    topic: String,
}

struct Topic(Wants);

#[node("topic", inputs = 1, outputs = 3)]
impl Node for Topic {
    type Config = Wants;

    fn new(config: Wants, ctx: &Ctx) -> Result<Self, Error> {
        if ctx.restored().is_some() {
            ctx.warn("this is written down by nobody");
            return Err(Error::new("what was saved is unknown"));
        }
        Ok(Topic(config))
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        msg.set("topic", self.0.topic.as_str());
        ctx.send(msg);
        Ok(())
    }
}

#[test]
fn a_required_property_that_is_missing_is_named() {
    let refused = Setup::new().config(value!({"topik": "x"})).create::<Topic>();
    let error = refused.err().unwrap();
    assert!(error.text().contains("topic"), "{error}");
    let mut node = TestNode::<Topic>::new(value!({"topic": "x"}));
    node.input(Msg::new());
    assert_eq!(node.next_sent().topic(), &Value::from("x"));
}

#[test]
fn a_node_that_cannot_hand_over_is_as_it_was() {
    let mut node = Setup::new()
        .config(value!({"step": 5, "topic": "x"}))
        .context(ContextScope::Flow, "k", 1)
        .create::<Counter>()
        .unwrap();
    node.input(Msg::with_payload("bad"));
    node.input(Msg::with_payload("good"));
    node.advance(Duration::from_millis(100));
    let Err((mut node, error)) = node.hand_over::<Topic>() else { panic!("the new one refuses") };
    assert_eq!(error.text(), "what was saved is unknown");
    assert_eq!(payloads(&mut node), [Value::from(5)]);
    assert_eq!((node.failures().len(), node.completed().len(), node.log()), (1, 1, vec![]));
    assert_eq!(node.context(ContextScope::Flow, "k"), Some(1.into()));
    node.input(Msg::new());
    node.advance(Duration::from_millis(100));
    assert_eq!(payloads(&mut node), [Value::from(10)]);
    assert!(node.hand_over::<Counter>().is_ok(), "another one may still take over");
}

#[test]
fn a_node_with_messages_in_hand_does_not_hand_over() {
    let mut node = TestNode::<Counter>::new(value!({"step": 1}));
    node.input(Msg::new());
    node.input(Msg::new());
    let Err((mut node, error)) = node.hand_over::<Counter>() else { panic!("it is busy") };
    assert_eq!((error.text(), node.unfinished()), ("1 messages are in hand", 2));
    node.advance(Duration::from_millis(200));
    assert_eq!(node.completed().len(), 2);
    assert!(node.hand_over::<Counter>().is_ok());
}

/// Answers what its peers write with what they wrote, and is told to write by messages.
#[derive(Default)]
struct Echo {
    dialled: AtomicBool,
}

#[node("echo", inputs = 1, outputs = 1)]
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

    async fn on_connection(&self, connection: Connection, ctx: &Ctx) -> ConnectionEnd {
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
                    Received::HandOver => {
                        ctx.send(Msg::with_payload("it moves"));
                        ctx.status(Status::new().text("moving"));
                        ctx.warn("it moves");
                        return ConnectionEnd::HandOver { stream, state };
                    }
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
fn what_a_node_does_while_its_connections_move_is_not_lost() {
    let mut node = TestNode::<Echo>::new(value!({}));
    let (_, _peer) = node.upgrade(value!({"path": "/yes"})).1.unwrap();
    let Ok(mut newer) = node.hand_over::<Echo>() else { panic!("it moves") };
    assert_eq!(newer.next_sent().payload(), &Value::from("it moves"));
    assert_eq!((newer.statuses().len(), newer.log().len()), (1, 1));
}

/// Sends values to the sessions, three at a time.
struct Talker;

#[node("talker", inputs = 1, outputs = 2)]
impl Node for Talker {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(Talker)
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let id = msg.payload().as_str().unwrap_or_default().to_owned();
        for value in ["a", "b", "c"] {
            if ctx.session_send(&id, Value::from(value)) != Queued::Yes {
                return Err(Error::new(format!("{value} is too much")));
            }
        }
        Ok(())
    }

    fn on_upgrade(&self, _: UpgradeRequest, _: &Ctx) -> UpgradeAnswer {
        UpgradeAnswer::accept()
    }

    async fn on_connection(&self, connection: Connection, _: &Ctx) -> ConnectionEnd {
        let mut values = Vec::new();
        while let Received::Values(_) = connection.session.recv(&mut values).await {}
        ConnectionEnd::Closed
    }
}

#[test]
fn a_session_whose_queue_is_full_is_cut() {
    for (room, sessions) in [(2, 0), (3, 1)] {
        let mut node = Setup::new().session_queue(room).create::<Talker>().unwrap();
        let (id, peer) = node.upgrade(value!({"path": "/"})).1.unwrap();
        node.input(Msg::with_payload(&*id));
        assert_eq!((node.sessions().len(), peer.is_closed()), (sessions, sessions == 0));
        let failures: Vec<_> = node.failures().into_iter().map(|failure| failure.text).collect();
        assert_eq!(failures, ["c is too much"][sessions..]);
    }
}

/// Takes half a second to close, and says so.
struct Slow;

#[node("slow", inputs = 1, outputs = 3)]
impl Node for Slow {
    type Config = NoConfig;

    fn new(_: NoConfig, ctx: &Ctx) -> Result<Self, Error> {
        let outputs = ctx.info()["wires"].as_array().map_or(0, |wires| wires.len());
        ctx.status(Status::new().text(&format!("{outputs} outputs")));
        Ok(Slow)
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        ctx.register_public("GET", "/slow")
    }

    async fn on_request(&self, _: Request, _: &Ctx) -> Response {
        Response::status(204)
    }

    async fn on_close(&self, removed: bool, ctx: &Ctx) {
        let closed = ctx.counter("slow_closed_total", "Closed");
        ctx.status(Status::new().text("closing"));
        ctx.sleep_ms(500).await;
        closed.add(1);
        ctx.send(Msg::with_payload(removed));
        ctx.report_error(Error::new("closed"), None);
    }
}

#[test]
fn a_node_closes_by_itself_or_when_its_time_has_come() {
    assert!(TestNode::<Counter>::new(value!({})).close(true));

    let mut node = TestNode::<Slow>::new(value!({}));
    node.statuses();
    assert!(!node.is_closed() && !node.close(false));
    assert_eq!(node.statuses()[0]["text"], "closing");
    node.advance(Duration::from_millis(499));
    assert!(!node.is_closed() && node.sent().is_empty());
    node.advance(Duration::from_millis(1));
    assert!(node.is_closed() && node.close(false));
    assert_eq!(node.next_sent().payload(), &Value::from(false));
    assert_eq!((node.failures()[0].text.as_str(), node.metric("slow_closed_total")), ("closed", Some(1)));
    node.input(Msg::new());
    assert_eq!((node.unfinished(), node.completed()), (0, vec![]));
}

#[test]
fn a_node_that_closes_lets_go_of_its_connections() {
    let mut node = TestNode::<Echo>::new(value!({}));
    let (_, peer) = node.upgrade(value!({"path": "/yes"})).1.unwrap();
    assert!(node.close(true));
    assert!(peer.is_closed() && node.sessions().is_empty());
}

#[test]
fn a_node_has_as_many_outputs_as_its_type_says() {
    let mut node = TestNode::<Slow>::new(value!({}));
    assert_eq!(node.statuses()[0]["text"], "3 outputs");
}

#[test]
fn a_path_that_another_node_has_is_refused() {
    let mut node = Setup::new().taken_path("/slow").create::<Slow>().unwrap();
    assert_eq!((node.failures()[0].code.as_str(), node.routes().len()), ("ROUTE_TAKEN", 0));
    let mut node = TestNode::<Slow>::new(value!({}));
    assert_eq!((node.failures().len(), node.routes().len()), (0, 1));
}

#[test]
fn each_context_store_has_keys_of_its_own() {
    let node = Setup::new()
        .context(ContextScope::Node, "k", 1)
        .context_in(ContextScope::Node, "file", "k", 2)
        .create::<Talker>()
        .unwrap();
    assert_eq!(node.context_in(ContextScope::Node, "memory", "k"), Some(1.into()));
    assert_eq!(node.context_in(ContextScope::Node, "file", "k"), Some(2.into()));
    assert_eq!(node.context_in(ContextScope::Flow, "file", "k"), None);
}
