//! [`Seldom`]: keeps what a peer can cause from filling the log.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The least time between two lines.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets one log line through every ten seconds, and counts the others. One for each kind of line, kept by the node.
///
/// ```
/// # use flowbay_sdk::Seldom;
/// let seldom = Seldom::default();
/// if let Some(left_out) = seldom.again() {
///     println!("a peer was refused{left_out}");
/// }
/// assert!(seldom.again().is_none(), "not again at once");
/// ```
#[derive(Debug, Default)]
pub struct Seldom {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

/// How many lines were left out since the last. Shown behind a line, nothing when there were none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut(pub u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " ({n} more like it left out)"),
        }
    }
}

impl Seldom {
    /// It has happened again; `Some` when it is time for a line.
    pub fn again(&self) -> Option<LeftOut> {
        self.again_at(Instant::now())
    }

    fn again_at(&self, now: Instant) -> Option<LeftOut> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(LeftOut(std::mem::take(&mut state.left_out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_every_ten_seconds_says_how_many_were_left_out() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let said: Vec<Option<u64>> = [0, 1, 9, 10, 19, 21, 40]
            .iter()
            .map(|second| seldom.again_at(start + Duration::from_secs(*second)).map(|left| left.0))
            .collect();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }

    #[test]
    fn what_was_left_out_is_shown_only_when_there_was_something() {
        assert_eq!(LeftOut(0).to_string(), "");
        assert_eq!(LeftOut(3).to_string(), " (3 more like it left out)");
    }
}
