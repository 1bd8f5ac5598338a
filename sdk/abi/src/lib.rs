//! The boundary between the Flowbay host and its plugins.
//!
//! Both sides compile this crate. It holds what crosses and nothing else: the [value tree](mod@value) that messages are
//! made of, the [node] as the host calls it, the [host] as a node calls it, the [streams and
//! sessions](io), the exported [root], and the [version] with its promise. Every call is a C function in a table
//! that only grows at the end; a panic never crosses. `unsafe` is here so that neither side needs it: each table
//! comes with a safe trait for the side that implements it and a safe handle for the side that calls it.
//!
//! Node authors use `flowbay-sdk`, not this crate.
#![deny(missing_docs)]
#![allow(non_local_definitions, non_camel_case_types, reason = "abi_stable's derives expand to both")]

pub mod host;
pub mod io;
pub mod message;
pub mod metric;
pub mod node;
pub mod panics;
pub mod path;
pub mod root;
pub mod shapes;
pub mod value;
pub mod version;
pub mod waker;

pub use async_ffi::{FfiFuture, FutureExt};
pub use message::Msg;
pub use metric::{Metric, MetricKind};
pub use value::{Array, Blob, Object, Str, Value};
