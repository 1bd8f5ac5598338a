//! The flow host.
//!
//! A flow file ([`flow`]) names node types; plugins ([`plugin`]) bring them into the [`registry`]; the [`runtime`]
//! makes nodes of both and moves messages between them. The one HTTP server ([`http`]) leads requests and WebSocket
//! upgrades to the nodes that asked for their paths. [`run`] puts it together; `main.rs` only turns arguments into
//! [`settings`].
//!
//! The host names no node type of its own and no plugin: it knows what a type says of itself.

#[macro_use]
mod output;

pub mod cli;
pub mod settings;

pub mod logging;

pub mod credentials;
pub mod flow;

pub mod ids;
pub mod metrics;
pub mod new;
pub mod plugin;
pub mod registry;

pub mod explain;
pub mod loader;
pub mod runtime;
pub mod watcher;

pub mod dial;
pub mod http;
pub mod tls_config;

pub mod admin;

pub mod run;
