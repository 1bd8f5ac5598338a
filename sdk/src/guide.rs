#![doc = include_str!("../guide/index.md")]
// Nothing but text: each page is a file in the folder `guide`, whose blocks of Rust are tests of this crate.

#[doc = include_str!("../guide/concepts.md")]
pub mod concepts {}

#[doc = include_str!("../guide/first_node.md")]
pub mod first_node {}

#[doc = include_str!("../guide/config.md")]
pub mod config {}

#[doc = include_str!("../guide/messages.md")]
pub mod messages {}

#[doc = include_str!("../guide/asynchronous.md")]
pub mod asynchronous {}

#[doc = include_str!("../guide/hot_swap.md")]
pub mod hot_swap {}

#[doc = include_str!("../guide/connections.md")]
pub mod connections {}

#[doc = include_str!("../guide/testing.md")]
pub mod testing {}

#[doc = include_str!("../guide/publishing.md")]
pub mod publishing {}

#[doc = include_str!("../guide/cross_compiling.md")]
pub mod cross_compiling {}

#[doc = include_str!("../guide/limits.md")]
pub mod limits {}

#[doc = include_str!("../guide/node_red.md")]
pub mod node_red {}

/// The README's blocks are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
