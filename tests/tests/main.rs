//! Flowbay from outside: every test starts the real host with real plugins and talks to it over real sockets.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected fails")]

mod admin;
mod advisories;
mod cli;
mod context_files;
mod core_nodes;
mod credentials;
mod example_flows;
mod flow_files;
mod hot_swap;
mod limits;
mod metrics;
mod nodered_issues;
mod nodered_websocket_spec;
mod own_threads;
mod plugins;
mod proxies;
mod runtime;
mod sdk_examples;
mod sdk_newcomer;
mod sdk_stability;
mod server;
mod status;
mod tls_config;
mod websocket_auth;
mod websocket_bad_peers;
mod websocket_client;
mod websocket_client_queue;
mod websocket_control;
mod websocket_deaf_peers;
mod websocket_listener;
mod websocket_reconnect;
