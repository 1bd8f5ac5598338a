//! A source: start and stop, timers, back-pressure, environment variables, the log.
//!
//! The node sends a number every so often. Try it: `sdk/examples/run ticker`.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use flowbay_sdk::{LogLevel, Role, lenient, prelude::*};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    #[serde(default, rename = "everyMs", deserialize_with = "lenient::number")]
    every_ms: Option<f64>,
}

struct Ticker {
    every: Duration,
    sent: AtomicI64,
}

#[node("ticker", role = Role::Source, category = "common", outputs = 1)]
impl Node for Ticker {
    type Config = Config;

    // Only to get ready: other nodes may not exist yet, and before a hot swap the node's predecessor is still at work.
    fn new(config: Config, ctx: &Ctx) -> Result<Self, Error> {
        let every_ms =
            config.every_ms.filter(|ms| *ms >= 1.0).ok_or_else(|| Error::new("everyMs is no time"))?;
        let sent = ctx.restored().and_then(Value::as_i64).unwrap_or(0);
        Ok(Self { every: Duration::from_secs_f64(every_ms / 1000.0), sent: AtomicI64::new(sent) })
    }

    // The node's own task. It begins when all nodes are there, and is dropped, at an `await`, when the node has closed.
    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        // Looked up in the node's groups, its tab or subflow, and outwards. It has the type that it was given there.
        let unit = ctx.env("TICKER_UNIT").unwrap_or("tick".into());
        // In the log with the node's id. `Debug` and `Trace` are only shown on request (`-v`).
        ctx.log(LogLevel::Info, format!("every {} ms", self.every.as_millis()));
        loop {
            ctx.sleep(self.every).await;
            // A source waits while what it sent piles up downstream. Other nodes need not.
            ctx.ready().await;
            let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
            let mut msg = Msg::with_payload(number);
            msg.set("topic", &unit);
            ctx.send(msg);
        }
    }

    // `removed` is false when the node is only started anew, with another configuration for instance. A node may take
    // its time here (15 s by default); what it sends still arrives.
    async fn on_close(&self, removed: bool, ctx: &Ctx) {
        let why = if removed { "removed" } else { "stopped" };
        ctx.warn(format!("{why} after {} messages", self.sent.load(Ordering::Relaxed)));
        ctx.status(Status::new());
    }

    // In a hot swap `run` is stopped between two polls, and the successor's `run` begins from its start. So the number
    // goes on, and the time till the next message begins anew.
    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(self.sent.load(Ordering::Relaxed).into()))
    }
}

export_plugin!(Ticker);

#[cfg(test)]
mod tests {
    use flowbay_sdk::{
        testing::{Setup, TestNode},
        value,
    };

    use super::*;

    fn ticker() -> TestNode<Ticker> {
        Setup::new().config(value!({ "everyMs": 100 })).env("TICKER_UNIT", "beat").create().unwrap()
    }

    fn numbers(node: &mut TestNode<Ticker>) -> Vec<i64> {
        node.sent().iter().map(|sent| sent.msg.payload().as_i64().unwrap()).collect()
    }

    #[test]
    fn it_ticks() {
        let mut node = ticker();
        assert_eq!(node.log()[0].text, "every 100 ms");
        node.advance(Duration::from_millis(350));
        let sent = node.sent();
        assert_eq!((sent.len(), sent[2].msg.topic()), (3, &"beat".into()));
    }

    #[test]
    fn it_waits_for_a_flow_that_does_not_keep_up() {
        let mut node = ticker();
        node.set_congested(true);
        node.advance(Duration::from_secs(10));
        assert!(numbers(&mut node).is_empty());
        node.set_congested(false);
        assert_eq!(numbers(&mut node), [1]);
    }

    #[test]
    fn newer_code_counts_on() {
        let mut node = ticker();
        node.advance(Duration::from_millis(250));
        let Ok(mut newer) = node.hand_over::<Ticker>() else { panic!("it hands over") };
        newer.advance(Duration::from_millis(100));
        assert_eq!(numbers(&mut newer), [1, 2, 3]);
    }

    #[test]
    fn it_says_how_far_it_came_when_it_closes() {
        for (removed, said) in [(true, "removed after 2 messages"), (false, "stopped after 2 messages")] {
            let mut node = ticker();
            node.advance(Duration::from_millis(200));
            node.log();
            assert!(node.close(removed), "it closes by itself");
            let log = node.log();
            assert_eq!((log.len(), log[0].level, log[0].text.as_str()), (1, LogLevel::Warn, said));
            assert_eq!(node.statuses(), [value!({})]);
            node.advance(Duration::from_secs(1));
            assert_eq!(numbers(&mut node), [1, 2], "nothing comes after that");
        }
    }
}
