//! What the integration tests stand on: the real host binary and the real plugin files, started as a user would
//! start them and driven through their sockets, signals and output.
//!
//! Everything here panics when something is not as a test needs it, with the host's log in the message. Waiting is
//! always for an event, with a deadline ([`harness::PATIENCE`]); nothing sleeps for a fixed time.

#![forbid(unsafe_code)]

pub mod harness;
pub mod load;
