//! Waiting for something that has no event of its own.

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: it is only ever used up by a failure, and machines
/// that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks. Short beside everything that is waited for, long beside the cost of a look.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `look` finds something, and returns it.
///
/// # Panics
/// When it was not found within [`PATIENCE`]; the message says `what`.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, look).unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"))
}

/// As [`eventually`], with another deadline; `None` when it passes.
pub fn eventually_within<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}
