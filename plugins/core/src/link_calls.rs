//! The calls of a link call that have not returned, and how they go from one generation of the code to the next.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use flowbay_sdk::{Array, Error, Msg, Object, Str, Value};

use crate::handover;

/// Calls that one node may wait for at a time.
pub const MAX_CALLS: usize = 10_000;

/// Of the state: `{version, calls: [{id, msg, left_ms}, …]}`.
const VERSION: i64 = 1;

/// What the error of a call that takes too long says, in Node-RED's word.
pub fn timed_out() -> Error {
    Error::new("timeout")
}

/// The calls of one node.
pub struct Calls {
    waiting: Mutex<HashMap<Str, Waiting>>,
    next: AtomicU64,
}

/// A call that has not returned.
struct Waiting {
    /// The message as it arrived.
    msg: Msg,
    due: Instant,
    by: By,
}

/// Who waits for a call.
#[derive(Debug)]
pub enum By {
    /// The input handler that began it, and how to wake it.
    Handler(Option<Waker>),
    /// None any more: a predecessor's did.
    Predecessor,
}

impl Calls {
    /// No calls.
    pub fn new() -> Self {
        // Starts anywhere, so that a return for a node of this id that ran earlier is not taken for one of this.
        Self { waiting: Mutex::default(), next: AtomicU64::new(RandomState::new().hash_one(0)) }
    }

    /// The calls that a predecessor waited for.
    ///
    /// # Errors
    /// They are in no known form.
    pub fn restore(state: &Value) -> Result<Self, Error> {
        handover::check(state, VERSION)?;
        let malformed = || Error::new("the calls handed over are malformed");
        let now = Instant::now();
        let calls = Self::new();
        for call in state.get("calls").and_then(Value::as_array).ok_or_else(malformed)? {
            let (Some(Value::Str(id)), Some(Value::Object(msg)), Some(left)) =
                (call.get("id"), call.get("msg"), call.get("left_ms").and_then(Value::as_i64))
            else {
                return Err(malformed());
            };
            let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
            let due = now.checked_add(left).ok_or_else(malformed)?;
            let waiting = Waiting { msg: msg.clone().into(), due, by: By::Predecessor };
            calls.waiting().insert(id.clone(), waiting);
        }
        Ok(calls)
    }

    /// All calls in hand, for a successor.
    pub fn save(&self) -> Value {
        let now = Instant::now();
        let mut calls = Array::new();
        for (id, waiting) in &*self.waiting() {
            let left = waiting.due.saturating_duration_since(now).as_nanos().div_ceil(1_000_000);
            let mut call = Object::with_capacity(3);
            call.insert("id", id.clone());
            call.insert("msg", waiting.msg.clone());
            call.insert("left_ms", i64::try_from(left).unwrap_or(i64::MAX));
            calls.push(call);
        }
        let mut state = handover::state(VERSION);
        state.insert("calls", calls);
        state.into()
    }

    /// Begins a call with a message, which is to return within `timeout`.
    ///
    /// # Errors
    /// There are too many.
    pub fn begin(&self, msg: &Msg, timeout: Duration) -> Result<Call<'_>, Error> {
        let id: Str = format!("{:016x}", self.next.fetch_add(1, Ordering::Relaxed)).into();
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_CALLS {
            return Err(Error::new(format!("more than {MAX_CALLS} calls wait for their return")));
        }
        let due = Instant::now() + timeout;
        waiting.insert(id.clone(), Waiting { msg: msg.clone(), due, by: By::Handler(None) });
        Ok(Call { calls: self, id })
    }

    /// Ends a call that returned; `None` when it is not waited for.
    pub fn finish(&self, id: &Str) -> Option<By> {
        // The waker is called, and the message dropped, when the lock is free again.
        let waiting = self.waiting().remove(id)?;
        if let By::Handler(Some(waker)) = &waiting.by {
            waker.wake_by_ref();
        }
        Some(waiting.by)
    }

    /// The calls that nobody here waits for, in the order of their ends.
    pub fn of_predecessor(&self) -> Vec<(Instant, Str)> {
        let is_of_predecessor = |waiting: &Waiting| matches!(waiting.by, By::Predecessor);
        let mut calls: Vec<_> = self
            .waiting()
            .iter()
            .filter(|(_, waiting)| is_of_predecessor(waiting))
            .map(|(id, waiting)| (waiting.due, id.clone()))
            .collect();
        calls.sort_unstable_by_key(|(due, _)| *due);
        calls
    }

    /// Whether a call is waited for.
    pub fn has(&self, id: &Str) -> bool {
        self.waiting().contains_key(id)
    }

    /// Ends a call that took too long, and returns the message that it began with; `None` when it is over.
    pub fn give_up(&self, id: &Str) -> Option<Msg> {
        self.waiting().remove(id).map(|waiting| waiting.msg)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Str, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is waited for until this is dropped.
pub struct Call<'a> {
    calls: &'a Calls,
    id: Str,
}

impl Call<'_> {
    /// What a return names it by.
    pub fn id(&self) -> &Str {
        &self.id
    }

    /// Waits until it is finished.
    ///
    /// # Errors
    /// `timeout` came first.
    pub async fn returned_within(&self, timeout: impl Future<Output = ()>) -> Result<(), Error> {
        let mut timeout = pin!(timeout);
        poll_fn(|cx| {
            match self.calls.waiting().get_mut(&self.id) {
                None => return Poll::Ready(Ok(())),
                Some(waiting) => waiting.by = By::Handler(Some(cx.waker().clone())),
            }
            timeout.as_mut().poll(cx).map(|()| match self.calls.give_up(&self.id) {
                Some(_) => Err(timed_out()),
                // It returned in this moment, on another thread.
                None => Ok(()),
            })
        })
        .await
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        drop(self.calls.give_up(&self.id));
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
    use crate::surroundings::fake::{json, msg};

    const LONG: Duration = Duration::from_secs(60);

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_call_waits_until_it_is_finished() {
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let mut cx = Context::from_waker(&waker);
        let calls = Calls::new();
        let call = calls.begin(&Msg::new(), LONG).unwrap();
        let id = call.id().clone();
        let mut returned = pin!(call.returned_within(pending()));
        assert!(returned.as_mut().poll(&mut cx).is_pending());
        assert!(matches!(calls.finish(&id), Some(By::Handler(_))));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(matches!(returned.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
        assert!(calls.finish(&id).is_none(), "a call returns once");
    }

    #[test]
    fn a_call_that_takes_too_long_is_over() {
        let calls = Calls::new();
        let call = calls.begin(&Msg::new(), LONG).unwrap();
        match poll(call.returned_within(ready(()))) {
            Poll::Ready(Err(error)) => assert_eq!(error.text(), "timeout"),
            other => panic!("{other:?}"),
        }
        assert!(calls.finish(call.id()).is_none());
    }

    #[test]
    fn a_call_that_returns_while_its_time_ends_has_returned() {
        let calls = Calls::new();
        let call = calls.begin(&Msg::new(), LONG).unwrap();
        let time_ends = async { assert!(calls.finish(call.id()).is_some()) };
        assert!(matches!(poll(call.returned_within(time_ends)), Poll::Ready(Ok(()))));
    }

    #[test]
    fn a_handler_that_is_dropped_waits_no_more() {
        let calls = Calls::new();
        let id = calls.begin(&Msg::new(), LONG).unwrap().id().clone();
        assert!(!calls.has(&id));
    }

    #[test]
    fn there_is_a_limit_to_calls_that_wait() {
        let calls = Calls::new();
        let begin = || calls.begin(&Msg::new(), LONG);
        let waiting: Vec<_> = (0..MAX_CALLS).map(|_| begin().unwrap()).collect();
        assert!(begin().is_err());
        drop(waiting);
        assert!(begin().is_ok());
    }

    #[test]
    fn a_successor_waits_for_what_its_predecessor_waited_for() {
        let old = Calls::new();
        let later = old.begin(&msg(r#"{"payload":"later"}"#), LONG).unwrap();
        let sooner = old.begin(&msg(r#"{"payload":"sooner"}"#), LONG / 2).unwrap();
        let over = old.begin(&Msg::new(), LONG).unwrap();
        old.finish(over.id());
        let saved = old.save();
        assert!(
            old.has(later.id()) && old.has(sooner.id()),
            "saving changes nothing: the swap may be undone"
        );

        let new = Calls::restore(&saved).unwrap();
        let ids: Vec<Str> = new.of_predecessor().into_iter().map(|(_, id)| id).collect();
        assert_eq!(ids, [sooner.id().clone(), later.id().clone()]);
        let left = new.of_predecessor()[0].0 - Instant::now();
        assert!(
            left > LONG / 2 - Duration::from_secs(5) && left <= LONG / 2 + Duration::from_millis(2),
            "{left:?}"
        );
        assert!(matches!(new.finish(later.id()), Some(By::Predecessor)));
        assert!(new.finish(later.id()).is_none(), "a call returns once");
        assert_eq!(new.give_up(sooner.id()), Some(msg(r#"{"payload":"sooner"}"#)));
        assert_eq!(new.give_up(sooner.id()), None, "and ends once");
        assert!(new.finish(over.id()).is_none());
    }

    #[test]
    fn calls_go_on_through_many_generations() {
        let first = Calls::new();
        let call = first.begin(&msg(r#"{"payload":1}"#), LONG).unwrap();
        let mut saved = first.save();
        for _ in 0..3 {
            let next = Calls::restore(&saved).unwrap();
            // One of its own does not disturb.
            let _own = next.begin(&Msg::new(), LONG).unwrap();
            assert_eq!(next.of_predecessor().len(), 1);
            drop(_own);
            saved = next.save();
        }
        let last = Calls::restore(&saved).unwrap();
        assert_eq!(last.give_up(call.id()), Some(msg(r#"{"payload":1}"#)));
    }

    #[test]
    fn a_call_whose_time_ended_during_the_swap_is_due_at_once() {
        let state = json(r#"{"version":1,"calls":[{"id":"a","msg":{},"left_ms":0}]}"#);
        let calls = Calls::restore(&state).unwrap();
        assert!(calls.of_predecessor()[0].0 <= Instant::now());
    }

    #[test]
    fn calls_in_another_form_are_not_taken_over() {
        for state in [
            "null",
            r#"{"version":2,"calls":[]}"#,
            r#"{"version":1}"#,
            r#"{"version":1,"calls":[{"id":"a","msg":{}}]}"#,
            r#"{"version":1,"calls":[{"id":"a","msg":5,"left_ms":1}]}"#,
            r#"{"version":1,"calls":[{"id":1,"msg":{},"left_ms":1}]}"#,
        ] {
            assert!(Calls::restore(&json(state)).is_err(), "{state}");
        }
    }
}
