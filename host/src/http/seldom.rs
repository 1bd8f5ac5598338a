//! [`Seldom`]: keeps what peers can cause from filling the log.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two lines about the same.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets one log line through every ten seconds, and counts the others. One for each kind of line.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

/// How many lines were left out since the last. Shown behind a line, nothing when there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut(pub(crate) u64);

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
    pub(crate) fn again(&self) -> Option<LeftOut> {
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
    fn there_is_one_line_in_ten_seconds_and_it_says_how_many_there_would_have_been() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let mut said = Vec::new();
        for second in [0, 3, 9, 10, 12, 25, 60] {
            if let Some(left_out) = seldom.again_at(start + Duration::from_secs(second)) {
                said.push((second, left_out.to_string()));
            }
        }
        let expected =
            [(0, ""), (10, " (2 more like it left out)"), (25, " (1 more like it left out)"), (60, "")];
        assert_eq!(said, expected.map(|(second, text)| (second, text.to_owned())));
    }
}
