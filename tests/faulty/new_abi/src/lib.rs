//! Built for an newer major of the ABI, whose root looked different.
#![allow(non_local_definitions, non_camel_case_types, reason = "abi_stable's derives expand to both")]

raw_root::foreign_root!("2.0.0", {
    /// As an newer ABI might have had it.
    #[sabi(last_prefix_field)]
    pub name: extern "C" fn() -> abi_stable::std_types::RString,
});
