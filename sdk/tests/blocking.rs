//! Work on other threads, as authors test it.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected fails")]

use std::sync::{Arc, Mutex};

use flowbay_sdk::{Finish, later, object, prelude::*, testing::TestNode, value};

/// Doubles on a thread for blocking work.
struct Doubles;

#[node("doubles", inputs = 1, outputs = 1)]
impl Node for Doubles {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Doubles)
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let number = msg.payload().as_i64();
        let doubled = ctx.blocking(move || number.expect("a number") * 2).await?;
        msg.set("payload", doubled);
        ctx.send(msg);
        Ok(())
    }
}

#[test]
fn blocking_work_is_done_at_once_under_test() {
    let mut node = TestNode::<Doubles>::new(value!({}));
    node.input(Msg::with_payload(21));
    assert_eq!(node.next_sent().payload(), &Value::from(42));
}

#[test]
fn a_panic_in_blocking_work_is_an_error() {
    let mut node = TestNode::<Doubles>::new(value!({}));
    node.input(Msg::with_payload("x"));
    let failures = node.failures();
    assert_eq!((failures.len(), failures[0].code.as_str()), (1, "PANIC"));
    assert!(failures[0].text.contains("a number") && failures[0].msg.is_some(), "{failures:?}");
}

#[test]
fn work_whose_future_is_not_polled_is_never_done() {
    struct Forgets;
    #[node("forgets", inputs = 1)]
    impl Node for Forgets {
        type Config = NoConfig;

        fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
            Ok(Forgets)
        }

        async fn on_input(&self, _msg: Msg, ctx: &Ctx) -> Result<(), Error> {
            let log = ctx.clone();
            drop(ctx.blocking(move || log.warn("done")));
            Ok(())
        }
    }
    let mut node = TestNode::<Forgets>::new(value!({}));
    node.input(Msg::new());
    assert_eq!(node.log(), []);
}

/// Gives the end of each message to the test.
struct Lends(Lent);

type Lent = Arc<Mutex<Vec<Finish>>>;

static LENT: Mutex<Option<Lent>> = Mutex::new(None);

#[node("lends", inputs = 1, concurrency = 0)]
impl Node for Lends {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Lends(LENT.lock().unwrap().clone().unwrap_or_default()))
    }

    async fn on_input(&self, _msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        let (finish, finished) = later();
        self.0.lock().unwrap().push(finish);
        finished.await
    }
}

#[test]
fn a_message_is_finished_from_somewhere_else() {
    let lent = Lent::default();
    *LENT.lock().unwrap() = Some(lent.clone());
    let mut node = TestNode::<Lends>::new(value!({}));
    for topic in ["done", "failed", "lost", "left"] {
        node.input(object!({ "topic": topic }));
    }
    assert_eq!(node.unfinished(), 4);
    let mut finish: Vec<Finish> = lent.lock().unwrap().drain(..).collect();
    let left = finish.remove(3);
    drop(finish.remove(2));
    finish.remove(1).fail(Error::new("no answer"));
    finish.remove(0).ok();
    node.run();
    let topics: Vec<String> = node.completed().iter().map(|msg| msg.topic().to_js_string()).collect();
    assert_eq!(topics, ["done"]);
    let texts: Vec<String> = node.failures().into_iter().map(|failure| failure.text).collect();
    assert_eq!(texts, ["no answer", "the node lost sight of the message"]);
    assert!(!left.is_over());
    drop(node);
    assert!(left.is_over());
    left.ok();
}
