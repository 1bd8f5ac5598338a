//! What every node imports: `use flowbay_sdk::prelude::*;`

pub use crate::{AnyConfig, Ctx, Error, Msg, NoConfig, Node, Status, Value, export_plugin, node};
