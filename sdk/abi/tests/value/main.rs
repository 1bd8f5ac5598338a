//! What values promise: sharing, equality, JSON, serde, property paths.
//!
//! One binary, so that one run of valgrind sees it all:
//! `RUST_BACKTRACE=0 valgrind --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite,indirect
//! target/debug/deps/value-<hash>` (the test harness itself has one block that is "possibly lost").

#![allow(clippy::unwrap_used, reason = "also in the helpers of tests")]

mod containers;
mod json;
mod nesting;
mod paths;
mod scalars;
mod serde;
mod sharing;
