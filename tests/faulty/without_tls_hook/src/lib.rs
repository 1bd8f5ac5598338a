//! A plugin made without the SDK: it has no thread-local hook, so a thread-local value that it makes on a host thread
//! keeps the library in memory until that thread ends. It makes one when it describes itself.

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

thread_local! {
    static VALUE: String = String::from("has a destructor");
}

extern "C" fn describe() -> Value {
    VALUE.with(|_| ());
    let mut node_type = Object::new();
    node_type.insert("type", "nothing-of-without-tls-hook");
    let mut description = Object::new();
    description.insert("name", env!("CARGO_PKG_NAME"));
    description.insert("version", env!("CARGO_PKG_VERSION"));
    description.insert("sdk", "0.1.0");
    description.insert("abi", ABI_VERSION);
    description.insert("rustc", "1.95.0");
    description.insert("panic", "unwind");
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
