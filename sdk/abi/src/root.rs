//! What a plugin library exports.

use abi_stable::{
    StableAbi,
    library::RootModule,
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::{ROption, RResult, RStr},
};

use crate::{
    host::HostNode,
    node::{AbiNode, NodeError},
    value::Value,
};

/// The exported root: found by abi_stable's loader symbol, filled by the SDK's `export_plugin!`.
///
/// Its package version is that of `flowbay-abi`: a library built with another major is refused before any of its
/// functions is called.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRootRef, prefix_fields = PluginRootPrefix)))]
#[sabi(missing_field(panic))]
pub struct PluginRoot {
    /// What the plugin is: an object, see [`crate::shapes`] ("Plugin").
    pub describe: extern "C" fn() -> Value,
    /// Creates a node of one of the described types. `config` is the node's object from the flow file, with
    /// environment variables put in; `state` what its predecessor in an older generation saved. Has no effects
    /// but on the new node: those wait for `on_start`.
    pub create: extern "C" fn(
        node_type: RStr<'_>,
        host: HostNode,
        config: Value,
        state: ROption<Value>,
    ) -> RResult<AbiNode, NodeError>,
    /// Runs the destructors of this library's thread-local values: those of one thread (its id as `gettid` gives
    /// it), called when a host thread that ran plugin code ends; or all that are left (0), called before the
    /// library is unloaded, when nothing of it runs any more. Returns how many ran.
    #[sabi(last_prefix_field)]
    pub run_tls_dtors: extern "C" fn(thread: u32) -> usize,
}

impl RootModule for PluginRootRef {
    abi_stable::declare_root_module_statics! {PluginRootRef}
    const BASE_NAME: &'static str = "flowbay-plugin";
    const NAME: &'static str = "flowbay-plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
