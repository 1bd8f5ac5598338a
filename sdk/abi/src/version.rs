//! The version of the boundary, and what it promises.
//!
//! `flowbay-abi` has a version of its own; the SDK and the host each depend on one. Its **major** is the ABI's
//! major: a plugin loads only into a host with the same major, and the loader says both versions when they differ.
//!
//! Within one major:
//! - the vtables ([`crate::node::NodeVTable`], [`crate::host::HostVTable`], [`crate::io::IoVTable`],
//!   [`crate::io::SessionVTable`], [`crate::host::FutureVTable`], [`crate::root::PluginRoot`]) only grow, at the
//!   end: an older plugin keeps working on a newer host. What a minor adds to the host's table is optional to plugins:
//!   on an older host its use is an error, and the rest works;
//! - the value tree ([`crate::value::Value`] and everything below it) keeps its layout, byte for byte;
//! - structured data that is not on a hot path (descriptors, upgrade requests, routes, dial options) crosses as a
//!   `Value` object with named properties, so that it can grow without a change of layout;
//! - a type that crosses gets no new field and an enum no new variant: there the checker that compares both sides when
//!   a library is loaded sees a difference, and the plugin is refused with it.
//!
//! `flowbay plugins FILE` says for which version a plugin was built, and whether a host would load it. A change of
//! layout shows in `tests/layout.txt`, which a test compares; plugins of a minor with shorter tables and of one with
//! longer ones are built and run by the project's tests.

/// Version of this crate, and so of the ABI, as `major.minor.patch`.
pub const ABI_VERSION: &str = env!("CARGO_PKG_VERSION");
