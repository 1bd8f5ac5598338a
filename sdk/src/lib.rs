//! Write Flowbay node types in Rust.
//!
//! A node type is a struct that implements [`Node`]; a plugin is a `cdylib` that lists its node types in
//! [`export_plugin!`]. That is all the host needs to load it, and to swap it for a newer build while flows run.
//!
//! ```
//! use flowbay_sdk::prelude::*;
//!
//! /// Turns `msg.payload` into lower case.
//! struct LowerCase;
//!
//! #[node("lower-case", category = "function", inputs = 1, outputs = 1)]
//! impl Node for LowerCase {
//!     type Config = NoConfig;
//!
//!     fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
//!         Ok(LowerCase)
//!     }
//!
//!     async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
//!         let text = msg.payload().as_str().unwrap_or_default().to_lowercase();
//!         msg.set("payload", text);
//!         ctx.send(msg);
//!         Ok(())
//!     }
//! }
//!
//! export_plugin!(LowerCase);
//! ```
//!
//! **Threads.** A plugin has none. All its code runs on the host's threads, several at a time, and must not block
//! them; [`Ctx::spawn`] and [`Ctx::sleep`] are the ways to do something later, and [`Ctx::blocking`] does what blocks on
//! threads that are there for it. For a library that needs a tokio runtime around it, the feature `tokio` gives the node
//! one (`Ctx::tokio`). Sockets belong to the host too
//! ([`HostStream`], [`Ctx::dial`]): that is what lets a connection outlive the code behind it.

#![deny(missing_docs)]

mod blocking;
mod config;
mod connection;
mod context;
mod error;
pub mod frames;
pub mod guide;
mod http;
mod later;
mod let_go;
mod metric;
mod node;
mod node_type;
#[cfg(feature = "tokio")]
mod on_tokio;
mod plugin;
pub mod prelude;
mod seldom;
mod status;
pub mod testing;
mod tls_hook;

pub use config::{AnyConfig, NoConfig, lenient};
pub use connection::{Connection, ConnectionEnd, HostStream, Session};
pub use context::{Ctx, DialOptions};
pub use error::Error;
pub use flowbay_abi::{
    host::{ContextScope, LogLevel, Queued},
    io::Received,
    message::{self, Msg},
    object,
    path::{self, PropertyPath},
    value,
    value::{Array, Blob, Object, Str, Value},
};
pub use flowbay_sdk_macros::node;
pub use http::{Overflow, QueueOptions, Request, Response, UpgradeAnswer, UpgradeRequest};
pub use later::{Finish, Finished, later};
pub use metric::{Counter, Gauge};
pub use node::{Described, Node};
pub use node_type::{Credential, NodeType, Role};
pub use seldom::{LeftOut, Seldom};
pub use status::Status;

/// What the macros of this crate expand to. Not for use by hand, and without any promise.
#[doc(hidden)]
pub mod __private {
    pub use crate::plugin::{Plugin, assert_different, create_node, describe_plugin, root};
    pub use abi_stable::library::{
        __call_root_module_loader as call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult,
    };
    pub use flowbay_abi::{
        host::HostNode, node::AbiNode, node::NodeError, root::PluginRootRef, value::Value,
    };
}
