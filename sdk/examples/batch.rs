//! Asynchronous input: handlers that wait, and a task of the node's that says later whether a message is done or failed.
//!
//! The node collects messages for a moment and sends them on together. A message is done, or failed, when its batch is;
//! till then the node has it in hand. Try it: `sdk/examples/run batch`.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use flowbay_sdk::{Finish, later, lenient, prelude::*, value::Array};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    #[serde(default, rename = "windowMs", deserialize_with = "lenient::number")]
    window_ms: Option<f64>,
}

struct Batch {
    window_ms: u64,
    /// Shared with the task that sends the batch: tasks own what they work with.
    waiting: Arc<Mutex<Vec<Waiting>>>,
}

/// A message in hand, and the means to say what became of it.
struct Waiting {
    payload: Value,
    finish: Finish,
}

// Up to 100 messages in hand. With one, which is the default, the second would wait for the end of the first batch.
#[node("collect", category = "sequence", inputs = 1, outputs = 1, concurrency = 100)]
impl Node for Batch {
    type Config = Config;

    fn new(config: Config, _ctx: &Ctx) -> Result<Self, Error> {
        // To the nearest millisecond. There is no negative time: `as` makes 0 of it.
        Ok(Self { window_ms: config.window_ms.unwrap_or(100.0).round() as u64, waiting: Arc::default() })
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let (finish, finished) = later();
        let is_first = {
            // Never held across an `await`.
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(Waiting { payload: msg.payload().clone(), finish });
            waiting.len() == 1
        };
        if is_first {
            // Runs on the host's threads beside the handlers, and ends with the node at the latest.
            let (ctx_of_task, waiting, window_ms) = (ctx.clone(), self.waiting.clone(), self.window_ms);
            ctx.spawn(async move {
                ctx_of_task.sleep_ms(window_ms).await;
                let batch = mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
                send(batch, &ctx_of_task);
            });
        }
        // The message is done when the other task says so; its error is this message's error.
        finished.await
    }

    // The host waits for messages in hand before newer code takes over, so there is nothing left to give to it.
    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

fn send(batch: Vec<Waiting>, ctx: &Ctx) {
    let (good, bad): (Vec<_>, Vec<_>) = batch.into_iter().partition(|waiting| !waiting.payload.is_null());
    let mut payloads = Array::with_capacity(good.len());
    payloads.extend(good.iter().map(|waiting| waiting.payload.clone()));
    ctx.send(Msg::with_payload(payloads));
    for waiting in good {
        waiting.finish.ok();
    }
    for waiting in bad {
        waiting.finish.fail(Error::new("a message without a payload is no part of a batch"));
    }
}

export_plugin!(Batch);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flowbay_sdk::{object, testing::TestNode, value};

    use super::*;

    #[test]
    fn messages_are_done_when_their_batch_is_sent() {
        let mut node = TestNode::<Batch>::new(value!({ "windowMs": 50 }));
        node.input(Msg::with_payload("a"));
        node.advance(Duration::from_millis(40));
        node.input(Msg::with_payload("b"));
        node.input(object!({ "topic": "without a payload" }));
        assert_eq!((node.unfinished(), node.completed().len()), (3, 0));
        node.advance(Duration::from_millis(10));
        assert_eq!(node.next_sent().payload(), &value!(["a", "b"]));
        assert_eq!((node.unfinished(), node.completed().len()), (0, 2));
        let failure = &node.failures()[0];
        assert!(failure.text.contains("without a payload") && failure.msg.is_some());
    }

    #[test]
    fn the_next_batch_begins_anew() {
        let mut node = TestNode::<Batch>::new(value!({}));
        for payload in ["a", "b"] {
            node.input(Msg::with_payload(payload));
            node.advance(Duration::from_millis(100));
            assert_eq!(node.next_sent().payload(), &value!([payload]));
        }
    }
}
