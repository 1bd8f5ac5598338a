//! Exports a root as `export_plugin!` does, but of any type and made by any function.

#[doc(hidden)]
pub use abi_stable;

/// `export_root!(RootRef, make)`: `make` is a `fn() -> RootRef`.
#[macro_export]
macro_rules! export_root {
    ($root:ty, $make:path) => {
        extern "C" fn constructor() -> $crate::abi_stable::library::RootModuleResult {
            $crate::abi_stable::library::__call_root_module_loader($make)
        }

        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals, unsafe_code, reason = "the symbol that the host looks for")]
        pub static flowbay_plugin_root: $crate::abi_stable::library::LibHeader =
            // SAFETY: the constructor returns a root of the type that is named here.
            unsafe {
                $crate::abi_stable::library::LibHeader::from_constructor::<$root>(
                    constructor,
                    $crate::abi_stable::library::CheckTypeLayout::Yes,
                )
            };
    };
}

/// `foreign_root!(version, { fields })`: a root type `ForeignRoot` that claims that version of the ABI.
#[macro_export]
macro_rules! foreign_root {
    ($version:literal, { $($fields:tt)* }) => {
        #[repr(C)]
        #[derive(abi_stable::StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = ForeignRootRef)))]
        #[sabi(missing_field(panic))]
        pub struct ForeignRoot {
            $($fields)*
        }

        impl abi_stable::library::RootModule for ForeignRootRef {
            abi_stable::declare_root_module_statics! {ForeignRootRef}
            const BASE_NAME: &'static str = "flowbay-plugin";
            const NAME: &'static str = "flowbay-plugin";
            const VERSION_STRINGS: abi_stable::sabi_types::VersionStrings =
                abi_stable::sabi_types::VersionStrings::new($version);
        }

        fn never_made() -> ForeignRootRef {
            panic!("a root of another ABI was entered")
        }

        $crate::export_root!(ForeignRootRef, never_made);
    };
}
