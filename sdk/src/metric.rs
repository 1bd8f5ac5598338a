//! What nodes count: shown by the host under `GET /metrics`.

use flowbay_abi::Metric;

/// A number that only rises, from [`crate::Ctx::counter`]. Cloning is cheap, and a clone is the same number; counting
/// is one atomic instruction.
#[derive(Debug, Clone)]
pub struct Counter(Metric);

impl Counter {
    pub(crate) fn new(metric: Metric) -> Self {
        Self(metric)
    }

    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// So many more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.add(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// The number so far, of this node and those that it took over from in hot swaps.
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.get()).unwrap_or(0)
    }
}

/// A number that rises and falls, from [`crate::Ctx::gauge`]. Cloning is cheap, and a clone is the same number;
/// changing it is one atomic instruction.
///
/// It goes on over a hot swap: what the earlier code added and did not take away is still in it.
#[derive(Debug, Clone)]
pub struct Gauge(Metric);

impl Gauge {
    pub(crate) fn new(metric: Metric) -> Self {
        Self(metric)
    }

    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// One less.
    #[inline]
    pub fn dec(&self) {
        self.0.add(-1);
    }

    /// So many more, or less.
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.add(n);
    }

    /// Makes the number `n`.
    #[inline]
    pub fn set(&self, n: i64) {
        self.0.set(n);
    }

    /// The number.
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}
