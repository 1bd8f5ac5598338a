//! What became of each plugin's hot swaps.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The hot swaps since the start, by plugin.
#[derive(Debug, Default)]
pub struct Swaps {
    by_plugin: Mutex<BTreeMap<String, PluginSwaps>>,
}

/// The hot swaps of one plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginSwaps {
    /// Which build since the start is in use: 1 for the first.
    pub generation: u64,
    /// Swaps that were done.
    pub done: u64,
    /// Swaps that were undone: the old code went on.
    pub undone: u64,
    /// What those that were done took together.
    pub took: Duration,
    /// What the last of those took.
    pub last_took: Duration,
    /// How long the last of those held messages back.
    pub last_held: Duration,
    /// When that was.
    pub last_at: Option<Instant>,
}

impl Default for PluginSwaps {
    fn default() -> Self {
        let none = Duration::ZERO;
        Self {
            generation: 1,
            done: 0,
            undone: 0,
            took: none,
            last_took: none,
            last_held: none,
            last_at: None,
        }
    }
}

impl Swaps {
    /// Newer code of a plugin took over. Returns its generation.
    pub fn done(&self, plugin: &str, took: Duration, held: Duration) -> u64 {
        self.with(plugin, |swaps| {
            swaps.generation += 1;
            swaps.done += 1;
            swaps.took += took;
            (swaps.last_took, swaps.last_held, swaps.last_at) = (took, held, Some(Instant::now()));
            swaps.generation
        })
    }

    /// Newer code of a plugin did not work, and the old code went on.
    pub fn undone(&self, plugin: &str) {
        self.with(plugin, |swaps| swaps.undone += 1);
    }

    /// Those of one plugin.
    pub fn of(&self, plugin: &str) -> PluginSwaps {
        let by_plugin = self.by_plugin.lock().unwrap_or_else(PoisonError::into_inner);
        by_plugin.get(plugin).copied().unwrap_or_default()
    }

    fn with<T>(&self, plugin: &str, change: impl FnOnce(&mut PluginSwaps) -> T) -> T {
        let mut by_plugin = self.by_plugin.lock().unwrap_or_else(PoisonError::into_inner);
        change(by_plugin.entry(plugin.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_that_was_undone_makes_no_generation() {
        let swaps = Swaps::default();
        assert_eq!(swaps.of("a"), PluginSwaps::default());
        assert_eq!(swaps.done("a", Duration::from_millis(3), Duration::from_millis(1)), 2);
        swaps.undone("a");
        assert_eq!(swaps.done("a", Duration::from_millis(5), Duration::from_millis(2)), 3);
        let expected = PluginSwaps {
            generation: 3,
            done: 2,
            undone: 1,
            took: Duration::from_millis(8),
            last_took: Duration::from_millis(5),
            last_held: Duration::from_millis(2),
            last_at: swaps.of("a").last_at,
        };
        assert_eq!(swaps.of("a"), expected);
        assert_eq!(swaps.of("b"), PluginSwaps::default());
    }
}
