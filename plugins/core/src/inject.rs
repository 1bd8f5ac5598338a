//! `inject`: sends messages by itself, when asked to, once after the start, in intervals or at set times.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use croner::Cron;
use flowbay_sdk::{Request, Response, Role, lenient, prelude::*, value};
use serde::Deserialize;

use crate::{
    handover,
    moment::unix_ms,
    pause::pause,
    props::Props,
    schedule::{Repeat, is_too_long, next_local},
};

/// Properties to use instead of the node's own, in a message that asks to inject.
const USER_PROPS: &str = "__user_inject_props__";

/// The local clock may be set while a time is waited for; it is looked at this often.
const MAX_WAIT_MS: u64 = 30_000;

/// When the clock goes back by less, a time that was there already does not come again.
const CLOCK_STEP_MS: i64 = 60_000;

/// Of the state: `{version, once: ms}`, `{version, next: ms}` or, when nothing is waited for, `{version}`; in
/// milliseconds since 1970.
const VERSION: i64 = 1;

/// The node's properties that say when; [`Props`] reads those that say what.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct When {
    /// Seconds.
    #[serde(deserialize_with = "lenient::number")]
    repeat: Option<f64>,
    #[serde(deserialize_with = "lenient::string")]
    crontab: String,
    #[serde(deserialize_with = "lenient::boolean")]
    once: bool,
    /// Seconds.
    #[serde(rename = "onceDelay", deserialize_with = "lenient::number")]
    once_delay: Option<f64>,
}

impl When {
    fn once_delay(&self) -> Duration {
        let seconds = self.once_delay.filter(|seconds| *seconds > 0.0).unwrap_or(0.1);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Where messages begin.
pub struct Inject {
    props: Props,
    when: When,
    repeat: Repeat,
    /// What the node waits for; what a successor goes on with.
    next: Mutex<Option<Next>>,
}

/// A time at which the node sends.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Next {
    /// Whether it is the one after the start, with which repeating begins.
    once: bool,
    due: Due,
}

/// Intervals are not to follow the clock when it is set, times of day are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Due {
    /// `None` is beyond what a clock can tell.
    At(Option<Instant>),
    /// Milliseconds since 1970.
    Clock(i64),
}

impl Due {
    fn after(delay: Duration) -> Self {
        Due::At(Instant::now().checked_add(delay))
    }

    /// Milliseconds to wait, rounded up; 0 when it is time.
    fn remaining_ms(self) -> u64 {
        match self {
            Due::At(None) => u64::MAX,
            Due::At(Some(due)) => {
                let left = due.saturating_duration_since(Instant::now());
                u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
            }
            Due::Clock(due) => u64::try_from(due.saturating_sub(unix_ms())).unwrap_or(0),
        }
    }

    /// Milliseconds since 1970. A set time is kept as it is: a millisecond earlier it would come twice.
    fn to_unix_ms(self) -> i64 {
        match self {
            Due::At(None) => i64::MAX,
            Due::At(Some(due)) => {
                // To the nearest: always rounded to one side, an interval would move with every swap.
                let left = due.saturating_duration_since(Instant::now()) + Duration::from_micros(500);
                unix_ms().saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX))
            }
            Due::Clock(due) => due,
        }
    }
}

#[node(
    "inject",
    role = Role::Source,
    category = "common",
    color = "#a6bbcf",
    icon = "inject.svg",
    outputs = 1,
    html = include_str!("../html/inject.html")
)]
impl Node for Inject {
    type Config = AnyConfig;

    fn new(AnyConfig(config): AnyConfig, ctx: &Ctx) -> Result<Self, Error> {
        let when: When = value::from_value(&config)?;
        let repeat = Repeat::new(when.repeat, &when.crontab)?;
        // Known from the beginning: a node may be saved before its task has run.
        let next = Mutex::new(first(&when, ctx.restored())?);
        Ok(Self { props: Props::of_node(&config)?, when, repeat, next })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        if let Err(error) = ctx.register_admin("POST", &format!("/inject/{}", ctx.id())) {
            ctx.report_error(error, None);
        }
        if is_too_long(self.when.repeat) && ctx.restored().is_none() {
            ctx.report_error(Error::new("Interval too large"), None);
        }
        // Asked anew, because the delay after the start begins now.
        self.keep_time(first(&self.when, ctx.restored())?, ctx).await;
        self.wait_for(None);
        Ok(())
    }

    /// The message that an injection begins with: what the node sends to itself, so that Catch and Complete nodes
    /// hear of it as of any other.
    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        match msg.remove(USER_PROPS) {
            Some(Value::Array(props)) => Props::of_request(&props)?.apply(&mut msg, ctx)?,
            _ => self.props.apply(&mut msg, ctx)?,
        }
        ctx.send(msg);
        Ok(())
    }

    async fn on_request(&self, request: Request, ctx: &Ctx) -> Response {
        let Ok(msg) = asked_for(request.body()) else {
            return Response::status(400).body("Bad Request");
        };
        match ctx.deliver(ctx.id(), msg) {
            true => Response::status(200).body("OK"),
            false => Response::status(404).body("Not Found"),
        }
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(saved(next)))
    }
}

/// What a node waits for in the beginning: what its predecessor waited for, if it has one.
fn first(when: &When, restored: Option<&Value>) -> Result<Option<Next>, Error> {
    match restored {
        Some(state) => restore(state),
        None => Ok(when.once.then(|| Next { once: true, due: Due::after(when.once_delay()) })),
    }
}

/// The state that a successor starts from.
fn saved(next: Option<Next>) -> Value {
    let mut state = handover::state(VERSION);
    if let Some(next) = next {
        state.insert(if next.once { "once" } else { "next" }, next.due.to_unix_ms());
    }
    state.into()
}

fn restore(state: &Value) -> Result<Option<Next>, Error> {
    handover::check(state, VERSION)?;
    let due = |name: &str| state.get(name).and_then(Value::as_i64).map(Due::Clock);
    let once = due("once").map(|due| Next { once: true, due });
    Ok(once.or_else(|| due("next").map(|due| Next { once: false, due })))
}

/// The message for a request's body: what it says if it brings properties of its own, else an empty one.
fn asked_for(body: &[u8]) -> Result<Msg, ()> {
    if body.trim_ascii().is_empty() {
        return Ok(Msg::new());
    }
    match Value::from_json(body) {
        Ok(Value::Object(body)) if !body[USER_PROPS].is_null() => Ok(body.into()),
        Ok(_) => Ok(Msg::new()),
        Err(_) => Err(()),
    }
}

impl Inject {
    /// Sends at all times to come, beginning with `first` if it is known.
    async fn keep_time(&self, mut first: Option<Next>, ctx: &Ctx) {
        if let Some(Next { once: true, due }) = first.take_if(|next| next.once) {
            self.wait_for(Some(Next { once: true, due }));
            sleep_until(due.steady(), ctx).await;
            self.fire(ctx).await;
        }
        match &self.repeat {
            Repeat::Never => {}
            Repeat::Every(interval) => self.keep_interval(*interval, first, ctx).await,
            Repeat::Cron(cron) => self.keep_cron(cron, first, ctx).await,
        }
    }

    async fn keep_interval(&self, interval: Duration, first: Option<Next>, ctx: &Ctx) {
        let mut due = match first {
            // Never later than an interval from now, whatever the clock was when it was saved.
            Some(next) => Instant::now() + Duration::from_millis(next.due.remaining_ms()).min(interval),
            None => Instant::now() + interval,
        };
        loop {
            let next = Due::At(Some(due));
            self.wait_for(Some(Next { once: false, due: next }));
            sleep_until(next, ctx).await;
            self.fire(ctx).await;
            let now = Instant::now();
            due += interval;
            // What was missed is not made up for.
            if due <= now {
                due = now + interval;
            }
        }
    }

    async fn keep_cron(&self, cron: &Cron, first: Option<Next>, ctx: &Ctx) {
        let mut fired = i64::MIN;
        let mut due = match first {
            Some(Next { due: Due::Clock(due), .. }) => Some(due),
            _ => next_local(cron, unix_ms()),
        };
        while let Some(time) = due {
            let next = Due::Clock(time);
            self.wait_for(Some(Next { once: false, due: next }));
            let remaining = next.remaining_ms();
            if remaining == 0 {
                self.fire(ctx).await;
                fired = time.max(unix_ms());
                due = next_local(cron, fired);
            } else {
                pause(ctx, Duration::from_millis(remaining.min(MAX_WAIT_MS))).await;
                // Sooner than before when the clock has been set back.
                let from = search_from(unix_ms(), fired);
                due = next_local(cron, from).map(|sooner| sooner.min(time)).or(due);
            }
        }
        // The entry names a year, or a day that no month has.
        ctx.warn(format!("crontab {:?} fits no time to come", self.when.crontab));
    }

    /// Begins an injection, as soon as what was sent before does not pile up.
    ///
    /// A swap comes between two polls. In the last one here the message goes to the host, and what is waited for is
    /// taken back: until then the successor fires, after it nobody does. So the callers must not wait for anything
    /// before they say what comes next.
    async fn fire(&self, ctx: &Ctx) {
        ctx.ready().await;
        ctx.deliver(ctx.id(), Msg::new());
        self.wait_for(None);
    }

    fn wait_for(&self, next: Option<Next>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

/// From when to look for the next time, in milliseconds since 1970: from now, but after the last time if the clock
/// has only been corrected a little.
fn search_from(now: i64, fired: i64) -> i64 {
    if fired.saturating_sub(now) < CLOCK_STEP_MS { now.max(fired) } else { now }
}

impl Due {
    /// The same, but not moved when the clock is set.
    fn steady(self) -> Self {
        match self {
            Due::At(_) => self,
            Due::Clock(_) => Due::after(Duration::from_millis(self.remaining_ms())),
        }
    }
}

async fn sleep_until(due: Due, ctx: &Ctx) {
    loop {
        match due.remaining_ms() {
            0 => return,
            remaining => pause(ctx, Duration::from_millis(remaining)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::fake::json;

    fn when(text: &str) -> When {
        value::from_value(&json(text)).unwrap()
    }

    #[test]
    fn the_delay_of_the_first_injection_is_a_tenth_of_a_second_unless_said() {
        for (config, expected) in [
            ("{}", 100),
            (r#"{"onceDelay":""}"#, 100),
            (r#"{"onceDelay":"0.5"}"#, 500),
            (r#"{"onceDelay":2}"#, 2000),
            (r#"{"onceDelay":"x"}"#, 100),
            (r#"{"onceDelay":-3}"#, 100),
        ] {
            assert_eq!(when(config).once_delay().as_millis(), expected, "{config}");
        }
        assert_eq!(when(r#"{"onceDelay":1e300}"#).once_delay(), Duration::MAX);
        assert_eq!(Due::after(Duration::MAX).remaining_ms(), u64::MAX);
    }

    #[test]
    fn the_schedule_survives_saving_and_restoring() {
        let due = unix_ms() + 60_000;
        for once in [true, false] {
            let next = Next { once, due: Due::Clock(due) };
            let restored = restore(&saved(Some(next))).unwrap().unwrap();
            assert_eq!(restored, next, "to the millisecond");
        }
        let next = Next { once: false, due: Due::after(Duration::from_secs(60)) };
        let restored = restore(&saved(Some(next))).unwrap().unwrap();
        assert!((58_000..=60_000).contains(&restored.due.remaining_ms()), "{restored:?}");
        assert_eq!(restore(&saved(None)).unwrap(), None);
        assert_eq!(restore(&json(r#"{"version":1,"next":"soon"}"#)).unwrap(), None);
        assert!(restore(&json(r#"{"version":2,"next":1}"#)).is_err());
    }

    #[test]
    fn a_time_that_comes_during_the_swap_is_still_to_come() {
        let next = Next { once: true, due: Due::At(Some(Instant::now())) };
        let restored = restore(&saved(Some(next))).unwrap().unwrap();
        assert!(restored.once && restored.due.remaining_ms() <= 2, "{restored:?}");
    }

    #[test]
    fn what_is_injected_once_is_not_injected_again_by_a_successor() {
        let when = when(r#"{"once":true}"#);
        let begins = first(&when, None).unwrap();
        assert!(begins.is_some_and(|next| next.once));
        assert_eq!(first(&when, Some(&saved(None))).unwrap(), None, "it was");
        assert!(first(&when, Some(&saved(begins))).unwrap().is_some_and(|next| next.once), "it was not yet");
    }

    #[test]
    fn a_due_time_that_is_past_needs_no_waiting() {
        assert_eq!(Due::Clock(0).remaining_ms(), 0);
        assert_eq!(Due::Clock(i64::MIN).remaining_ms(), 0);
        assert_eq!(Due::At(Some(Instant::now())).remaining_ms(), 0);
    }

    #[test]
    fn a_small_correction_of_the_clock_does_not_repeat_a_time() {
        assert_eq!(search_from(1_000_000, 1_000_050), 1_000_050);
        assert_eq!(search_from(1_000_000, 5_000_000), 1_000_000, "set back by more than an hour");
        assert_eq!(search_from(1_000_000, i64::MIN), 1_000_000);
    }

    #[test]
    fn a_request_may_bring_its_own_properties() {
        assert_eq!(asked_for(b""), Ok(Msg::new()));
        assert_eq!(asked_for(b"{}"), Ok(Msg::new()));
        assert_eq!(asked_for(br#"{"payload":1}"#), Ok(Msg::new()), "as in Node-RED, only with properties");
        let msg = asked_for(br#"{"__user_inject_props__":[{"p":"a","v":"1","vt":"num"}],"b":2}"#).unwrap();
        assert!(msg.contains_key(USER_PROPS) && msg["b"] == 2);
        assert_eq!(asked_for(b"{"), Err(()));
    }
}
