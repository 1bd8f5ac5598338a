//! Counts durations in buckets: constant memory and time for any number of messages.

use std::time::Duration;

/// Each power of two is cut into this many buckets (as a power of two), so a bucket is off by at most 0.8 %.
const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;

/// A histogram of durations with nanosecond resolution.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; bucket(u64::MAX) + 1], total: 0 }
    }
}

impl Histogram {
    /// Adds one duration, in nanoseconds.
    pub fn add(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// The duration that `percent` of all are not above; zero when there are none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = ((percent / 100.0 * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(middle(index));
            }
        }
        Duration::ZERO
    }
}

/// Below `SUB` every value has a bucket; above, the leading one and the `SUB_BITS` bits after it choose it.
fn bucket(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    match bits.checked_sub(SUB_BITS + 1) {
        None | Some(0) => value as usize,
        Some(shift) => shift as usize * SUB + (value >> shift) as usize,
    }
}

/// The middle of a bucket.
fn middle(index: usize) -> u64 {
    if index < 2 * SUB {
        return index as u64;
    }
    let shift = index / SUB - 1;
    let low = ((index - shift * SUB) as u64) << shift;
    low + ((1_u64 << shift) - 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_near_the_middle_of_its_bucket() {
        for shift in 0..64 {
            for value in
                [1_u64 << shift, (1 << shift) | ((1 << shift) >> 1), ((1_u128 << (shift + 1)) - 1) as u64]
            {
                let found = middle(bucket(value));
                assert!(found.abs_diff(value) as f64 <= value as f64 * 0.008, "{value} became {found}");
            }
        }
        for value in 1..100_000 {
            assert!(bucket(value) == bucket(value - 1) || bucket(value) == bucket(value - 1) + 1, "{value}");
        }
    }

    #[test]
    fn percentiles_are_ranks() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50.0), Duration::ZERO);
        (1..=100).for_each(|nanos| histogram.add(nanos));
        for (percent, nanos) in [(1.0, 1), (50.0, 50), (99.0, 99), (100.0, 100)] {
            assert_eq!(histogram.percentile(percent), Duration::from_nanos(nanos), "{percent} %");
        }
        histogram.clear();
        histogram.add(7);
        assert_eq!(histogram.percentile(99.0), Duration::from_nanos(7));
    }
}
