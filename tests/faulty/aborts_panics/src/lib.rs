//! Says that it was built with `panic = "abort"`, which is a setting of a whole build: so it is only said, by a
//! description written by hand. The SDK writes the same word from `cfg!(panic = "abort")`.

use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{ROption, RResult, RStr},
};
use flowbay_abi::{
    host::HostNode,
    node::{AbiNode, NodeError},
    root::{PluginRoot, PluginRootRef},
    value::{Object, Value},
    version::ABI_VERSION,
};

extern "C" fn describe() -> Value {
    let mut node_type = Object::new();
    node_type.insert("type", "nothing-of-aborts-panics");
    let mut description = Object::new();
    description.insert("name", env!("CARGO_PKG_NAME"));
    description.insert("version", env!("CARGO_PKG_VERSION"));
    description.insert("sdk", "0.1.0");
    description.insert("abi", ABI_VERSION);
    description.insert("rustc", "1.95.0");
    description.insert("panic", "abort");
    description.insert("types", vec![Value::Object(node_type)]);
    Value::Object(description)
}

extern "C" fn create(
    _node_type: RStr<'_>,
    _host: HostNode,
    _config: Value,
    _state: ROption<Value>,
) -> RResult<AbiNode, NodeError> {
    RResult::RErr(NodeError::new("never asked"))
}

extern "C" fn run_tls_dtors(_thread: u32) -> usize {
    0
}

struct Root;

impl Root {
    abi_stable::staticref!(const ROOT: WithMetadata<PluginRoot> =
        WithMetadata::new(PluginRoot { describe, create, run_tls_dtors }));
}

fn root() -> PluginRootRef {
    PluginRootRef(Root::ROOT.as_prefix())
}

raw_root::export_root!(PluginRootRef, root);
