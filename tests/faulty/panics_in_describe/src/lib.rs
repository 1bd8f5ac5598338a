//! Panics when the host asks what it is.

use flowbay_sdk::__private::{self as private, AbiNode, HostNode, NodeError, Plugin, PluginRootRef, Value};

struct ThisPlugin;

impl Plugin for ThisPlugin {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "";
    const LICENSE: &'static str = "";
    const HOMEPAGE: [&'static str; 2] = ["", ""];

    fn types() -> Vec<Value> {
        panic!("cannot remember")
    }

    fn create(_: &str, _: HostNode, _: Value, _: Option<Value>) -> Option<Result<AbiNode, NodeError>> {
        None
    }
}

fn root() -> PluginRootRef {
    private::root::<ThisPlugin>()
}

extern "C" fn constructor() -> private::RootModuleResult {
    private::call_root_module_loader(root)
}

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, unsafe_code, reason = "the symbol that the host looks for")]
pub static flowbay_plugin_root: private::LibHeader =
    // SAFETY: the constructor returns a `PluginRootRef`, the type that is named here.
    unsafe {
        private::LibHeader::from_constructor::<PluginRootRef>(constructor, private::CheckTypeLayout::Yes)
    };
