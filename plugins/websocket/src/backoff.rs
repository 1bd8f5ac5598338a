//! How long a client waits before it tries again.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// By which share a delay of a back-off is longer or shorter than planned. A fifth keeps the least time between two
/// attempts near the one that was configured, which "full jitter" (anything from zero on) does not; and it is enough
/// to tell apart clients that lost a server at the same moment, as it grows with the delay.
const JITTER: f64 = 0.2;

/// How a client goes about connecting again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// A delay that doubles with each attempt that fails, until it is at its longest.
    Backoff {
        /// The delay before the first attempt.
        first: Duration,
        /// The longest delay, before [`JITTER`].
        longest: Duration,
    },
    /// Always the same delay, as Node-RED does.
    Fixed(Duration),
}

impl Reconnect {
    /// The delay after so many failures in a row. `random` is between 0 and 1.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        match *self {
            Self::Fixed(delay) => delay,
            Self::Backoff { first, longest } => {
                let times = 2_u32.saturating_pow(failures.saturating_sub(1));
                let delay = first.saturating_mul(times).min(longest.max(first));
                delay.mul_f64(1.0 + JITTER * (random * 2.0 - 1.0))
            }
        }
    }

    /// Nothing waits longer than this.
    pub fn longest(&self) -> Duration {
        match *self {
            Self::Fixed(delay) => delay,
            Self::Backoff { first, longest } => longest.max(first).mul_f64(1.0 + JITTER),
        }
    }

    /// How long a connection must last to count as a success. A server that accepts and drops at once is treated as
    /// one that refuses, or it would be tried at the shortest delay for ever.
    pub fn steady(&self) -> Duration {
        match *self {
            Self::Fixed(delay) => delay,
            Self::Backoff { first, longest } => longest.max(first),
        }
    }
}

/// A number between 0 and 1 that nobody foresees; good enough to spread clients, and for nothing secret.
pub fn random() -> f64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let hash = KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
    f64::from((hash >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const BACKOFF: Reconnect =
        Reconnect::Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };

    #[test]
    fn a_back_off_doubles_up_to_its_longest_delay() {
        for (failures, delay) in
            [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (33, 30), (u32::MAX, 30)]
        {
            assert_eq!(BACKOFF.delay(failures, 0.5), seconds(delay), "after {failures} failures");
        }
    }

    #[test]
    fn a_back_off_varies_by_a_fifth() {
        assert_eq!(BACKOFF.delay(1, 0.0), Duration::from_millis(800));
        assert_eq!(BACKOFF.delay(1, 1.0), Duration::from_millis(1200));
        assert_eq!(BACKOFF.delay(99, 1.0), BACKOFF.longest());
        let delays: std::collections::HashSet<_> = (0..100).map(|_| BACKOFF.delay(6, random())).collect();
        assert!(delays.len() > 50, "{delays:?}");
        assert!(delays.iter().all(|delay| (seconds(24)..=seconds(36)).contains(delay)), "{delays:?}");
    }

    #[test]
    fn a_fixed_delay_is_always_the_same() {
        let fixed = Reconnect::Fixed(seconds(3));
        for failures in [0, 1, 10, u32::MAX] {
            assert_eq!(fixed.delay(failures, random()), seconds(3));
        }
        assert_eq!(fixed.longest(), seconds(3));
    }

    #[test]
    fn a_first_delay_beyond_the_longest_is_kept() {
        let odd = Reconnect::Backoff { first: seconds(60), longest: seconds(30) };
        assert_eq!(odd.delay(1, 0.5), seconds(60));
        assert_eq!(odd.delay(5, 0.5), seconds(60));
    }
}
