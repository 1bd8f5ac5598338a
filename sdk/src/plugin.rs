//! The library's root: what `export_plugin!` fills.

use std::sync::Arc;

use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{ROption, RResult, RStr},
};
use flowbay_abi::{
    host::HostNode,
    node::{AbiNode, NodeError},
    panics::{catch, install_hook},
    root::{PluginRoot, PluginRootRef},
    value::{self, Object, Value},
    version::ABI_VERSION,
};

use crate::{Ctx, Node, context, node::Adapter, tls_hook};

/// What `export_plugin!` knows of the crate it stands in.
pub trait Plugin: 'static {
    /// `CARGO_PKG_NAME`.
    const NAME: &'static str;
    /// `CARGO_PKG_VERSION`.
    const VERSION: &'static str;
    /// `CARGO_PKG_DESCRIPTION`.
    const DESCRIPTION: &'static str;
    /// `CARGO_PKG_LICENSE`.
    const LICENSE: &'static str;
    /// `CARGO_PKG_HOMEPAGE`, and `CARGO_PKG_REPOSITORY` for when that is empty.
    const HOMEPAGE: [&'static str; 2];
    /// The descriptions of the node types, in order.
    fn types() -> Vec<Value>;
    /// Creates a node of the named type; `None` when there is no such type.
    fn create(
        node_type: &str,
        host: HostNode,
        config: Value,
        state: Option<Value>,
    ) -> Option<Result<AbiNode, NodeError>>;
}

struct For<P>(P);
impl<P: Plugin> For<P> {
    abi_stable::staticref!(const ROOT: WithMetadata<PluginRoot> = WithMetadata::new(PluginRoot {
        describe: describe::<P>,
        create: create::<P>,
        run_tls_dtors: tls_hook::run_tls_dtors,
    }));
}

/// The root of plugin `P`.
pub fn root<P: Plugin>() -> PluginRootRef {
    tls_hook::keep();
    install_hook();
    PluginRootRef(For::<P>::ROOT.as_prefix())
}

/// The description of plugin `P` and its node types.
pub fn describe_plugin<P: Plugin>() -> Value {
    let mut object = Object::new();
    object.insert("name", P::NAME);
    object.insert("version", P::VERSION);
    object.insert("description", P::DESCRIPTION);
    object.insert("license", P::LICENSE);
    object.insert("homepage", P::HOMEPAGE.into_iter().find(|page| !page.is_empty()).unwrap_or_default());
    object.insert("sdk", env!("CARGO_PKG_VERSION"));
    object.insert("abi", ABI_VERSION);
    object.insert("rustc", env!("FLOWBAY_RUSTC"));
    object.insert("panic", if cfg!(panic = "abort") { "abort" } else { "unwind" });
    object.insert("types", P::types());
    Value::Object(object)
}

extern "C" fn describe<P: Plugin>() -> Value {
    catch(describe_plugin::<P>).unwrap_or(Value::Null)
}

extern "C" fn create<P: Plugin>(
    node_type: RStr<'_>,
    host: HostNode,
    config: Value,
    state: ROption<Value>,
) -> RResult<AbiNode, NodeError> {
    catch(|| {
        P::create(node_type.as_str(), host, config, state.into()).unwrap_or_else(|| {
            Err(NodeError::new(format!("plugin {} has no node type {}", P::NAME, node_type.as_str())))
        })
    })
    .unwrap_or_else(|text| Err(NodeError::from_panic(text)))
    .into()
}

/// Creates a node of type `N`.
///
/// # Errors
/// Its configuration does not fit, or its constructor refused.
pub fn create_node<N: Node>(
    host: HostNode,
    config: Value,
    state: Option<Value>,
) -> Result<AbiNode, NodeError> {
    let ctx = Ctx::new(host, state);
    let config = value::from_value(&config).map_err(|error| NodeError::new(error.to_string()))?;
    let node = N::new(config, &ctx).map_err(|error| {
        error.into_abi().unwrap_or_else(|| NodeError::new("the node declined to be created"))
    })?;
    let node = Arc::new(node);
    context::share(ctx.id(), &node);
    Ok(AbiNode::new(Arc::new(Adapter::new(node, ctx))))
}

/// Ends the compilation when two of the names are the same.
pub const fn assert_different(names: &[&str]) {
    let mut at = 0;
    while at < names.len() {
        let mut other = at + 1;
        while other < names.len() {
            assert!(!same(names[at], names[other]), "two node types of this plugin have the same name");
            other += 1;
        }
        at += 1;
    }
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Makes a library a plugin: exports its root with the node types listed. Once per library.
#[macro_export]
macro_rules! export_plugin {
    ($($node:ty),+ $(,)?) => {
        // A second one in the library is an error that says so.
        #[doc(hidden)]
        #[allow(non_camel_case_types, dead_code)]
        struct a_library_has_one_export_plugin;

        const _: () = {
            struct ThisPlugin;

            $crate::__private::assert_different(&[$(<$node as $crate::Described>::TYPE.name()),+]);

            impl $crate::__private::Plugin for ThisPlugin {
                const NAME: &'static str = env!("CARGO_PKG_NAME");
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
                const DESCRIPTION: &'static str = env!("CARGO_PKG_DESCRIPTION");
                const LICENSE: &'static str = env!("CARGO_PKG_LICENSE");
                const HOMEPAGE: [&'static str; 2] = [env!("CARGO_PKG_HOMEPAGE"), env!("CARGO_PKG_REPOSITORY")];

                fn types() -> ::std::vec::Vec<$crate::__private::Value> {
                    ::std::vec![$(<$node as $crate::Described>::TYPE.to_value()),+]
                }

                fn create(
                    node_type: &str,
                    host: $crate::__private::HostNode,
                    config: $crate::__private::Value,
                    state: ::core::option::Option<$crate::__private::Value>,
                ) -> ::core::option::Option<
                    ::core::result::Result<$crate::__private::AbiNode, $crate::__private::NodeError>,
                > {
                    $(
                        if node_type == <$node as $crate::Described>::TYPE.name() {
                            return ::core::option::Option::Some(
                                $crate::__private::create_node::<$node>(host, config, state),
                            );
                        }
                    )+
                    ::core::option::Option::None
                }
            }

            fn root() -> $crate::__private::PluginRootRef {
                $crate::__private::root::<ThisPlugin>()
            }

            extern "C" fn constructor() -> $crate::__private::RootModuleResult {
                $crate::__private::call_root_module_loader(root)
            }

            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals)]
            pub static flowbay_plugin_root: $crate::__private::LibHeader =
                // SAFETY: the constructor returns a `PluginRootRef`, the type that is named here.
                unsafe {
                    $crate::__private::LibHeader::from_constructor::<$crate::__private::PluginRootRef>(
                        constructor,
                        $crate::__private::CheckTypeLayout::Yes,
                    )
                };
        };
    };
}
