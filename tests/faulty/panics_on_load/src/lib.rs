//! Panics when the host asks for its root.

use flowbay_abi::root::PluginRootRef;

fn root() -> PluginRootRef {
    panic!("no root today")
}

raw_root::export_root!(PluginRootRef, root);
