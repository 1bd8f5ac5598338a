//! Whether the peer is still there: asking it, and waiting for it.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{Beat, Surroundings, Timer};

/// Asks the peer again and again.
pub struct Heartbeat {
    interval_ms: u64,
    timer: Timer,
    due: Instant,
    /// Nothing was heard of the peer since the last ping.
    silent: bool,
}

impl Heartbeat {
    /// One that asks every `interval_ms` milliseconds, and is as far as `beat` says.
    pub fn new(interval_ms: u64, beat: Option<Beat>, surroundings: &impl Surroundings) -> Self {
        let due_ms = beat.map_or(interval_ms, |beat| beat.due_ms.min(interval_ms));
        let silent = beat.is_some_and(|beat| beat.silent);
        let due = surroundings.now() + Duration::from_millis(due_ms);
        Self { interval_ms, timer: surroundings.timer(due_ms), due, silent }
    }

    /// Ready when it is time to [`ask`](Heartbeat::ask). Then the time until the next one begins.
    pub fn poll_due(&mut self, cx: &mut Context<'_>, surroundings: &impl Surroundings) -> Poll<()> {
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.timer = surroundings.timer(self.interval_ms);
        self.due = surroundings.now() + Duration::from_millis(self.interval_ms);
        // For its waker.
        let _ = self.timer.as_mut().poll(cx);
        Poll::Ready(())
    }

    /// The peer is being asked now. Whether it did not answer before.
    pub fn ask(&mut self) -> bool {
        std::mem::replace(&mut self.silent, true)
    }

    /// The peer is there.
    pub fn answered(&mut self) {
        self.silent = false;
    }

    /// How far it is.
    pub fn save(&self, surroundings: &impl Surroundings) -> Beat {
        let due = self.due.saturating_duration_since(surroundings.now());
        Beat { due_ms: milliseconds(due), silent: self.silent }
    }
}

/// Waits for the peer to have been silent for too long. The timer is not set anew with each message: when it rings, it
/// is looked how long it was silent in fact.
pub struct Silence {
    too_long: Duration,
    timer: Timer,
    since: Instant,
}

impl Silence {
    /// One that ends after so many milliseconds, of which some may have passed.
    pub fn new(idle_ms: u64, quiet_ms: Option<u64>, surroundings: &impl Surroundings) -> Self {
        let quiet_ms = quiet_ms.unwrap_or(0).min(idle_ms);
        let now = surroundings.now();
        let since = now.checked_sub(Duration::from_millis(quiet_ms)).unwrap_or(now);
        let timer = surroundings.timer(idle_ms - quiet_ms);
        Self { too_long: Duration::from_millis(idle_ms), timer, since }
    }

    /// Ready when it was too long.
    pub fn poll_too_long(&mut self, cx: &mut Context<'_>, surroundings: &impl Surroundings) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let quiet = surroundings.now().saturating_duration_since(self.since);
            let Some(left) = self.too_long.checked_sub(quiet).filter(|left| !left.is_zero()) else {
                return Poll::Ready(());
            };
            // At least one: a timer that rings a little early must not be asked again and again.
            self.timer = surroundings.timer(milliseconds(left).saturating_add(1));
        }
        Poll::Pending
    }

    /// The peer said something.
    pub fn end(&mut self, surroundings: &impl Surroundings) {
        self.since = surroundings.now();
    }

    /// For how many milliseconds the peer has been silent.
    pub fn save(&self, surroundings: &impl Surroundings) -> u64 {
        milliseconds(surroundings.now().saturating_duration_since(self.since))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
