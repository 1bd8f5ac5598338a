//! Flow files and what they mean: pure data, without I/O, without async, without knowledge of plugins.
//!
//! ```text
//! text ──FlowFile::parse──▶ FlowFile ──FlowGraph::build──▶ FlowGraph ──GraphDiff::between──▶ what a deploy restarts
//! ```
//!
//! * [`FlowFile`] is the array as it was given, entry by entry; it is written back unchanged.
//! * [`FlowGraph`] is what runs: enabled nodes in start order, with subflow instances unfolded, variables filled in
//!   and wires resolved. A bad entry becomes a [`Problem`] and the rest is built.
//! * [`EventRoutes`] says which catch, status and complete nodes hear of a node.
//! * [`GraphDiff`] compares two graphs; a first start is the difference from [`FlowGraph::empty`].
//!
//! Nothing in a flow file can make this module panic, recurse without bound or allocate without bound: [`Limits`].

mod build;
mod config_order;
mod credentials;
mod diff;
mod env;
mod file;
mod graph;
mod groups;
mod limits;
mod outline;
mod problems;
mod roles;
mod scopes;
mod subflow;
mod wiring;

#[cfg(test)]
mod tests;

pub use diff::{DeployType, GraphDiff};
pub use env::{EnvSource, MAX_ENV_TEXT_BYTES, ProcessEnv};
pub use file::{FlowFile, FlowFileError, Layout, MAX_FLOW_FILE_BYTES};
pub use graph::{Absence, FlowGraph, GraphNode, HOST_TYPES, Instance, NodeKind, Tab};
pub use limits::Limits;
pub use problems::{Level, Problem};
pub use roles::{Role, Roles};
pub use scopes::EventRoutes;
