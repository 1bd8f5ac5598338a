//! Numbers that look random and come again with the same seed.

use std::time::Duration;

/// A generator (SplitMix64). Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator; different seeds give unrelated numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A generator for one thing among many.
    pub fn of(seed: u64, which: u64, number: u64) -> Random {
        let mut random = Random(seed ^ which.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let mixed = random.next() ^ number.wrapping_mul(0xa076_1d64_78bd_642f);
        Random(mixed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to `end`, which is more than 0 and not reached.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A number between two others, both included, small ones as often as large ones: each doubling is as likely as
    /// any other.
    pub fn any_magnitude(&mut self, least: usize, most: usize) -> usize {
        let fraction = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let ratio = most as f64 / least as f64;
        ((least as f64 * ratio.powf(fraction)).round() as usize).clamp(least, most)
    }

    /// A duration of this mean.
    pub fn about(&mut self, mean: Duration) -> Duration {
        mean * (self.below(2001) as u32) / 1000
    }
}
