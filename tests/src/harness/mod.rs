//! The parts: files that were built, a host that runs, peers that talk to it.

mod artifacts;
mod builds;
mod client;
mod eventually;
mod flow;
mod host;
mod http;
mod output;
mod raw;
mod server;
mod tls;

pub use artifacts::{built, flows_folder, host_copy, link, plugin, scratch_folder, stage};
pub use builds::{Builds, Way, cargo, install, patched, rebuilt};
pub use client::{Client, Frame, Refusal};
pub use eventually::{PATIENCE, eventually, eventually_within};
pub use flow::Flow;
pub use host::{Finished, Host, HostBuilder, flowbay, free_port};
pub use http::{Reply, request};
pub use output::Output;
pub use raw::RawPeer;
pub use server::{Peer, WsServer};
pub use tls::{TlsWebSocket, accept_tls, test_root_file};
