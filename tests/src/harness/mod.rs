//! The parts: files that were built, a host that runs, peers that talk to it.

mod artifacts;
mod builds;
mod client;
mod eventually;
mod flow;
mod host;
mod http;
mod https;
mod minors;
mod output;
mod proxy;
mod raw;
mod server;
mod tls;

pub use artifacts::{built, flows_folder, host_copy, link, plugin, scratch_folder, sdk_example, stage};
pub use builds::{Builds, Way, cargo, install, patched, rebuilt};
pub use client::{Client, Frame, Refusal};
pub use eventually::{PATIENCE, eventually, eventually_within};
pub use flow::Flow;
pub use host::{Finished, Host, HostBuilder, flowbay, flowbay_given, free_port};
pub use http::{Reply, request};
pub use https::{Certificate, TlsStream, connect_tls, connect_wss, https_request};
pub use minors::{NEWER, OLDER, newer_minor, older_minor};
pub use output::Output;
pub use proxy::{ConnectProxy, ProxyManner};
pub use raw::RawPeer;
pub use server::{Peer, Visitor, WsServer, reset};
pub use tls::{
    ServerTls, TlsWebSocket, accept_tls, accept_tls_as, certificate_file, certificate_in, server_config,
    test_root_file,
};
