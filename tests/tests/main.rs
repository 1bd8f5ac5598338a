//! Flowbay from outside: every test starts the real host with real plugins and talks to it over real sockets.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected fails")]

mod admin;
mod cli;
mod core_nodes;
mod example_flows;
mod flow_files;
mod hot_swap;
mod limits;
mod nodered_websocket_spec;
mod plugins;
mod runtime;
mod websocket_client;
mod websocket_listener;
