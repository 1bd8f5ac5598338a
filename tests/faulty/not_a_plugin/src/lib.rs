//! A shared library like any other: it exports something, but no plugin's root.
#![allow(unsafe_code, reason = "an exported symbol is what makes it a library")]

/// Something to export.
#[unsafe(no_mangle)]
pub extern "C" fn add(left: u32, right: u32) -> u32 {
    left.wrapping_add(right)
}
