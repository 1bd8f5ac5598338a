//! What the host and its nodes count, for `GET /metrics`.
//!
//! Nodes count in numbers that they share with the host ([`node`]); everything else is looked up when somebody asks
//! ([`exposition`]): the running flows are not slowed down by being watched.

pub mod exposition;
pub mod node;
pub mod process;
pub mod swaps;

pub use node::{Families, Family, NodeMetrics};
pub use swaps::{PluginSwaps, Swaps};
