//! Claims the host's ABI version, but somebody changed a type: `create` has one more argument.
#![allow(non_local_definitions, non_camel_case_types, reason = "abi_stable's derives expand to both")]

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    sabi_types::VersionStrings,
    std_types::{ROption, RResult, RStr},
};
use flowbay_abi::{
    host::HostNode,
    node::{AbiNode, NodeError},
    value::Value,
    version::ABI_VERSION,
};

/// The real root with a change.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRootRef)))]
#[sabi(missing_field(panic))]
pub struct PluginRoot {
    /// As it is.
    pub describe: extern "C" fn() -> Value,
    /// With one more argument.
    pub create: extern "C" fn(
        node_type: RStr<'_>,
        host: HostNode,
        config: Value,
        state: ROption<Value>,
        more: u64,
    ) -> RResult<AbiNode, NodeError>,
    /// As it is.
    #[sabi(last_prefix_field)]
    pub run_tls_dtors: extern "C" fn(thread: u32) -> usize,
}

impl RootModule for PluginRootRef {
    declare_root_module_statics! {PluginRootRef}
    const BASE_NAME: &'static str = "flowbay-plugin";
    const NAME: &'static str = "flowbay-plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new(ABI_VERSION);
}

fn never_made() -> PluginRootRef {
    panic!("a root of another layout was entered")
}

raw_root::export_root!(PluginRootRef, never_made);
