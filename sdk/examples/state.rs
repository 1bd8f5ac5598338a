//! What a node remembers: in itself, handed over to newer code by `save`; in the context of node, flow or all flows.
//!
//! The node averages numbers. Try it: `sdk/examples/run state`.

use std::sync::{Mutex, PoisonError};

use flowbay_sdk::{ContextScope, prelude::*, value};
use serde::{Deserialize, Serialize};

struct Average {
    // Gone when the node is stopped, and with it when its configuration changes. It moves with a hot swap.
    seen: Mutex<Seen>,
}

/// What newer code gets. The version says in which form, to code that is older or newer than what saved it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Seen {
    count: u32,
    sum: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum Saved {
    /// The first form: the numbers themselves. Nothing writes it any more; it can still be read.
    #[serde(rename = "1")]
    Numbers { numbers: Vec<f64> },
    #[serde(rename = "2")]
    Sum(Seen),
}

#[node("average", category = "function", inputs = 1, outputs = 1)]
impl Node for Average {
    type Config = NoConfig;

    fn new(_config: NoConfig, ctx: &Ctx) -> Result<Self, Error> {
        let seen = match ctx.restored() {
            None => Seen::default(),
            // An error undoes the swap: the older code goes on, and keeps what it knows.
            Some(saved) => match value::from_value(saved)? {
                Saved::Sum(seen) => seen,
                Saved::Numbers { numbers } => Seen { count: numbers.len() as u32, sum: numbers.iter().sum() },
            },
        };
        Ok(Self { seen: Mutex::new(seen) })
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let number = msg.payload().as_f64().ok_or_else(|| Error::new("the payload is no number"))?;
        let seen = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = Seen { count: seen.count + 1, sum: seen.sum + number };
            *seen
        };
        let average = seen.sum / f64::from(seen.count);

        // Context outlives the node: it stays when the node is started anew, and is deleted with it. "" is the default
        // store, "file" the one that outlives the host too, where it has one (`--context-dir`). Keys are property paths.
        let highest = ctx.context_get(ContextScope::Node, "", "highest")?.and_then(|value| value.as_f64());
        if highest.is_none_or(|highest| average > highest) {
            ctx.context_set(ContextScope::Node, "", "highest", Some(average.into()))?;
        }
        // For other nodes of the tab, and for those everywhere.
        ctx.context_set(ContextScope::Flow, "", "averages.latest", Some(average.into()))?;
        ctx.context_set(ContextScope::Global, "", "lastNumber", Some(number.into()))?;
        // What should still be known when the host has been started anew.
        ctx.context_set(ContextScope::Node, "file", "seen", Some(seen.count.into()))?;

        msg.set("payload", average);
        ctx.send(msg);
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(value::to_value(&Saved::Sum(seen))?))
    }
}

export_plugin!(Average);

#[cfg(test)]
mod tests {
    use flowbay_sdk::{
        testing::{Setup, TestNode},
        value,
    };

    use super::*;

    fn average(node: &mut TestNode<Average>, number: i64) -> Value {
        node.input(Msg::with_payload(number));
        node.next_sent().payload().clone()
    }

    #[test]
    fn newer_code_goes_on_from_what_was_seen() {
        let mut node = TestNode::<Average>::new(value!({}));
        assert_eq!(average(&mut node, 10), 10);
        let Ok(mut newer) = node.hand_over::<Average>() else { panic!("it hands over") };
        assert_eq!(average(&mut newer, 20), 15);
        assert_eq!(newer.context(ContextScope::Node, "highest"), Some(15.into()));
        assert_eq!(newer.context(ContextScope::Flow, "averages"), Some(value!({ "latest": 15 })));
        assert_eq!(newer.context_in(ContextScope::Node, "file", "seen"), Some(2.into()));
        // Each store has keys of its own.
        assert_eq!(newer.context(ContextScope::Node, "seen"), None);
        assert_eq!(newer.context_in(ContextScope::Node, "file", "highest"), None);
    }

    #[test]
    fn what_an_older_version_saved_is_understood() {
        let saved = value!({ "version": "1", "numbers": [1, 2] });
        let mut node = Setup::new().restored(saved).create::<Average>().unwrap();
        assert_eq!(average(&mut node, 3), 2);
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        let saved = value!({ "version": "3", "median": 1 });
        assert!(Setup::new().restored(saved).create::<Average>().is_err());
    }
}
