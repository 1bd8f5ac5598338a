//! `link call`: calls a flow that begins with a link in, and sends on what it returns.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use flowbay_sdk::{Role, Str, lenient, prelude::*};
use serde::Deserialize;

use crate::{
    link_stack::{self, Caller},
    link_targets,
};

/// Calls that one node may wait for at a time.
const MAX_CALLS: usize = 10_000;

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

    fn new(config: Config, _: &Ctx) -> Result<Self, Error> {
        Ok(Self { target: config.target(), timeout: config.timeout(), calls: Calls::new() })
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let target = match &self.target {
            Target::Fixed(id) => link_targets::by_id(ctx, id)?.to_owned(),
            Target::Dynamic => link_targets::by_id_or_name(
                ctx,
                msg.get("target").and_then(Value::as_str).unwrap_or_default(),
            )?,
        };
        let call = self.calls.begin()?;
        link_stack::push(&mut msg, Caller { node: ctx.id().into(), id: call.id.clone() })?;
        if !ctx.deliver(&target, msg) {
            return Err(Error::new(format!("Error: target link-in node '{target}' not found")));
        }
        call.returned_within(ctx.sleep(self.timeout)).await
    }

    async fn on_direct(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        match link_stack::pop(&mut msg) {
            Some(caller) if self.calls.finish(&caller.id) => ctx.send(msg),
            _ => ctx.warn("a message returned for a call that is over; it is dropped"),
        }
        // What completes is the message that was sent, not the one that returned.
        Err(Error::ignored())
    }
}

/// The calls that have not returned.
struct Calls {
    waiting: Mutex<HashMap<Str, Option<Waker>>>,
    next: AtomicU64,
}

impl Calls {
    fn new() -> Self {
        // Starts anywhere, so that a return for a node of this id that ran earlier is not taken for one of this.
        Self { waiting: Mutex::default(), next: AtomicU64::new(RandomState::new().hash_one(0)) }
    }

    fn begin(&self) -> Result<Call<'_>, Error> {
        let id: Str = format!("{:016x}", self.next.fetch_add(1, Ordering::Relaxed)).into();
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_CALLS {
            return Err(Error::new(format!("more than {MAX_CALLS} calls wait for their return")));
        }
        waiting.insert(id.clone(), None);
        Ok(Call { calls: self, id })
    }

    /// Ends a call; false when it is not waited for.
    fn finish(&self, id: &Str) -> bool {
        // The waker is called when the lock is free again.
        let Some(waker) = self.waiting().remove(id) else { return false };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<Str, Option<Waker>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is waited for until this is dropped.
struct Call<'a> {
    calls: &'a Calls,
    id: Str,
}

impl Call<'_> {
    async fn returned_within(&self, timeout: impl Future<Output = ()>) -> Result<(), Error> {
        let mut timeout = pin!(timeout);
        poll_fn(|cx| {
            match self.calls.waiting().get_mut(&self.id) {
                None => return Poll::Ready(Ok(())),
                Some(waker) => *waker = Some(cx.waker().clone()),
            }
            timeout.as_mut().poll(cx).map(|()| Err(Error::new("timeout")))
        })
        .await
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.calls.waiting().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::{Arc, atomic::AtomicUsize},
        task::{Context, Wake},
    };

    use super::*;
    use crate::surroundings::fake::json;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_call_waits_until_it_is_finished() {
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let mut cx = Context::from_waker(&waker);
        let calls = Calls::new();
        let call = calls.begin().unwrap();
        let id = call.id.clone();
        let mut returned = pin!(call.returned_within(pending()));
        assert!(returned.as_mut().poll(&mut cx).is_pending());
        assert!(calls.finish(&id));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(matches!(returned.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
        assert!(!calls.finish(&id), "a call returns once");
    }

    #[test]
    fn a_call_that_takes_too_long_is_over() {
        let calls = Calls::new();
        let call = calls.begin().unwrap();
        let id = call.id.clone();
        let error = {
            let mut returned = pin!(call.returned_within(ready(())));
            match returned.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Err(error)) => error,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(error.text(), "timeout");
        drop(call);
        assert!(!calls.finish(&id));
    }

    #[test]
    fn there_is_a_limit_to_calls_that_wait() {
        let calls = Calls::new();
        let waiting: Vec<_> = (0..MAX_CALLS).map(|_| calls.begin().unwrap()).collect();
        assert!(calls.begin().is_err());
        drop(waiting);
        assert!(calls.begin().is_ok());
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
