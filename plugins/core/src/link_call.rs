//! `link call`: calls a flow that begins with a link in, and sends on what it returns.

use std::time::{Duration, Instant};

use flowbay_sdk::{Role, lenient, prelude::*};
use serde::Deserialize;

use crate::{
    link_calls::{By, Calls, timed_out},
    link_stack::{self, Caller},
    link_targets,
    pause::pause,
};

/// Longest time to wait for a return; longer ones, in Node-RED, end at once.
const MAX_TIMEOUT_SECONDS: f64 = 2_147_483.0;

/// The node's properties.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The target: an array with its id, or only the id.
    links: Value,
    #[serde(rename = "linkType", deserialize_with = "lenient::string")]
    link_type: String,
    /// Seconds.
    #[serde(deserialize_with = "lenient::number")]
    timeout: Option<f64>,
}

/// Calls one link in, or the one that each message names.
pub struct LinkCall {
    target: Target,
    timeout: Duration,
    calls: Calls,
}

/// What is called.
#[derive(Debug, PartialEq)]
enum Target {
    /// The link in with this id.
    Fixed(String),
    /// The one that `msg.target` names, by id or name.
    Dynamic,
}

impl Config {
    fn target(&self) -> Target {
        if self.link_type == "dynamic" {
            return Target::Dynamic;
        }
        let first = match &self.links {
            Value::Array(links) => links.first(),
            link => Some(link),
        };
        Target::Fixed(first.and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout.unwrap_or(30.0).clamp(0.0, MAX_TIMEOUT_SECONDS))
    }
}

#[node(
    "link call",
    role = Role::LinkCall,
    category = "common",
    color = "#ddd",
    icon = "link-call.svg",
    inputs = 1,
    outputs = 1,
    concurrency = 0,
    html = concat!(include_str!("../html/links.html"), include_str!("../html/link call.html"))
)]
impl Node for LinkCall {
    type Config = Config;

    fn new(config: Config, ctx: &Ctx) -> Result<Self, Error> {
        let calls = ctx.restored().map_or_else(|| Ok(Calls::new()), Calls::restore)?;
        Ok(Self { target: config.target(), timeout: config.timeout(), calls })
    }

    /// Ends the calls of a predecessor whose time is up. Those of this node end themselves.
    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        for (due, id) in self.calls.of_predecessor() {
            if !self.calls.has(&id) {
                continue;
            }
            pause(ctx, due.saturating_duration_since(Instant::now())).await;
            if let Some(msg) = self.calls.give_up(&id) {
                ctx.report_error(timed_out(), Some(msg));
            }
        }
        Ok(())
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let target = match &self.target {
            Target::Fixed(id) => link_targets::by_id(ctx, id)?.to_owned(),
            Target::Dynamic => link_targets::by_id_or_name(
                ctx,
                msg.get("target").and_then(Value::as_str).unwrap_or_default(),
            )?,
        };
        let call = self.calls.begin(&msg, self.timeout)?;
        link_stack::push(&mut msg, Caller { node: ctx.id().into(), id: call.id().clone() })?;
        if !ctx.deliver(&target, msg) {
            return Err(Error::new(format!("Error: target link-in node '{target}' not found")));
        }
        call.returned_within(pause(ctx, self.timeout)).await
    }

    /// A message returned. One for a call that is over is sent on too, as in Node-RED: what returns late, or more than
    /// once, is not lost. Each return takes an entry off the message's stack, so there is an end to it.
    async fn on_direct(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let Some(caller) = link_stack::pop(&mut msg) else {
            ctx.warn("a message returned that no link call sent; it is dropped");
            return Err(Error::ignored());
        };
        ctx.send(msg);
        completes_return(self.calls.finish(&caller.id).as_ref())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(self.calls.save()))
    }
}

/// Whether the message that returned is what completes, by who waited for it. When the handler is there that took the
/// message of the call, it completes that one. Otherwise the code that took it is gone, and Complete nodes hear of
/// the one that returned.
fn completes_return(waited: Option<&By>) -> Result<(), Error> {
    match waited {
        Some(By::Predecessor) => Ok(()),
        Some(By::Handler(_)) | None => Err(Error::ignored()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::fake::json;

    #[test]
    fn every_call_completes_one_message() {
        assert!(completes_return(Some(&By::Predecessor)).is_ok());
        assert!(completes_return(Some(&By::Handler(None))).is_err(), "its handler does");
        assert!(completes_return(None).is_err(), "it has completed or failed");
    }

    #[test]
    fn the_configuration_is_read_leniently() {
        for (config, target, seconds) in [
            (r#"{"links":["a","b"],"timeout":"5"}"#, Target::Fixed("a".to_owned()), 5),
            (r#"{"links":"a","timeout":"x"}"#, Target::Fixed("a".to_owned()), 30),
            (r#"{"links":[],"linkType":"dynamic","timeout":-1}"#, Target::Dynamic, 0),
            (r#"{"links":{"a":1},"timeout":1e300}"#, Target::Fixed(String::new()), 2_147_483),
            ("{}", Target::Fixed(String::new()), 30),
        ] {
            let config: Config = flowbay_sdk::value::from_value(&json(config)).unwrap();
            assert_eq!((config.target(), config.timeout().as_secs()), (target, seconds), "{config:?}");
        }
    }
}
