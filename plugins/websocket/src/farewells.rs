//! Sessions that are to end, and by what.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use flowbay_sdk::{Str, Value};

/// The sessions that are to end, each with the [`close_request`](crate::connection::close_request) that was queued for
/// it. That is behind all that waits, and a full queue may have dropped it; so the connection looks here too, when its
/// queue is empty or its peer takes nothing.
#[derive(Default)]
pub struct Farewells {
    /// Whether there are any: mostly there are none, and that is looked at for each message.
    some: AtomicBool,
    /// No other lock is taken under this one.
    by_session: Mutex<HashMap<Str, Value>>,
}

impl Farewells {
    fn lock(&self) -> MutexGuard<'_, HashMap<Str, Value>> {
        self.by_session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_none(&self) -> bool {
        !self.some.load(Ordering::Acquire)
    }

    /// A session is to end. What it is to end by stays the first that was said.
    pub fn say(&self, session: Str, request: Value) {
        let mut by_session = self.lock();
        by_session.entry(session).or_insert(request);
        self.some.store(true, Ordering::Release);
    }

    /// What a session is to end by, if it is.
    pub fn to(&self, session: &str) -> Option<Value> {
        if self.are_none() { None } else { self.lock().get(session).cloned() }
    }

    /// All sessions that are to end.
    pub fn all(&self) -> Vec<Str> {
        if self.are_none() { Vec::new() } else { self.lock().keys().cloned().collect() }
    }

    /// A session is not here any more.
    pub fn forget(&self, session: &str) {
        if self.are_none() {
            return;
        }
        let mut by_session = self.lock();
        by_session.remove(session);
        if by_session.is_empty() {
            *by_session = HashMap::new();
            self.some.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_what_was_said_first_until_it_is_forgotten() {
        let farewells = Farewells::default();
        assert_eq!((farewells.to("a"), farewells.all()), (None, vec![]));
        farewells.forget("a");
        farewells.say(Str::from("a"), Value::from(1));
        farewells.say(Str::from("a"), Value::from(2));
        farewells.say(Str::from("b"), Value::from(3));
        assert_eq!(
            (farewells.to("a"), farewells.to("b"), farewells.to("c")),
            (Some(1.into()), Some(3.into()), None)
        );
        farewells.forget("a");
        assert_eq!((farewells.to("a"), farewells.all()), (None, vec![Str::from("b")]));
        farewells.forget("b");
        assert!(farewells.are_none());
    }
}
