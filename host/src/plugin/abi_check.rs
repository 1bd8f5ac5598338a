//! Whether a plugin and this host speak the same ABI: pure, on what both declare.

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals},
    library::AbiHeader,
    type_layout::TypeLayout,
};
use flowbay_abi::{root::PluginRootRef, version::ABI_VERSION};

use super::error::Refusal;

/// Checks the header that every library made with `abi_stable` begins with.
///
/// # Errors
/// [`Refusal::AbiStable`] when nothing behind the header may be looked at.
pub(super) fn check_header(found: &AbiHeader) -> Result<(), Refusal> {
    if found.is_valid() {
        return Ok(());
    }
    let ours = AbiHeader::VALUE;
    let plugin = if found.magic_string == ours.magic_string {
        format!("{}.{}", found.abi_major, found.abi_minor)
    } else {
        "(none)".to_owned()
    };
    Err(Refusal::AbiStable { plugin, host: format!("{}.{}", ours.abi_major, ours.abi_minor) })
}

/// Checks the version of the ABI that a plugin was built for: the majors must be equal.
///
/// # Errors
/// [`Refusal::AbiVersion`].
pub(super) fn check_version(plugin: &str) -> Result<(), Refusal> {
    if major(plugin).is_some() && major(plugin) == major(ABI_VERSION) {
        Ok(())
    } else {
        Err(Refusal::AbiVersion { plugin: plugin.to_owned(), host: ABI_VERSION.to_owned() })
    }
}

fn major(version: &str) -> Option<u64> {
    version.split('.').next()?.parse().ok()
}

/// Compares the layout of everything that crosses, as the plugin has it, with the host's.
///
/// # Errors
/// [`Refusal::Layout`] with the first difference.
pub(super) fn check_layout(found: Option<&'static TypeLayout>, plugin_abi: &str) -> Result<(), Refusal> {
    let refusal = |detail: String| Refusal::Layout {
        plugin: plugin_abi.to_owned(),
        host: ABI_VERSION.to_owned(),
        detail,
    };
    let found = found.ok_or_else(|| refusal("the plugin does not tell its layout".to_owned()))?;
    let ours = <PluginRootRef as StableAbi>::LAYOUT;
    // Of two minors the newer one has all that the older one has, and perhaps more at the end of its tables. The
    // checker wants the one with less to be the first.
    compare(ours, found).or_else(|newer| {
        compare(found, ours).map_err(|older| refusal(if is_older(plugin_abi) { older } else { newer }))
    })
}

/// Whether a version has a smaller minor than the host's.
fn is_older(plugin: &str) -> bool {
    minor(plugin) < minor(ABI_VERSION)
}

fn minor(version: &str) -> Option<u64> {
    version.split('.').nth(1)?.parse().ok()
}

/// Whether `other` has all that `least` has, as it has it; the first difference if not.
fn compare(least: &'static TypeLayout, other: &'static TypeLayout) -> Result<(), String> {
    // Fresh every time: the process-wide ones would keep pointers into libraries that are unloaded later.
    let globals = CheckingGlobals::new();
    check_layout_compatibility_with_globals(least, other, &globals)
        // The error points into the plugin: it must be text before the plugin can go.
        .map_err(|errors| first_difference(&errors.to_string()))
}

/// One line of the pages that the layout checker prints: the first `Error:` with what was expected and found.
fn first_difference(report: &str) -> String {
    const MAX_CHARS: usize = 300;
    let lines: Vec<&str> = report.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let from = lines.iter().position(|line| line.starts_with("Error:")).unwrap_or(0);
    let until = lines[from..]
        .iter()
        .skip(1)
        .position(|line| line.starts_with("Error:") || line.contains("error(s)"))
        .map_or(lines.len(), |at| from + 1 + at);
    let mut text = lines[from..until].join(" ").replacen("Error:", "", 1);
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_major_counts() {
        let host_major = ABI_VERSION.split('.').next().unwrap();
        for (plugin, fits) in [
            (ABI_VERSION.to_owned(), true),
            (format!("{host_major}.0.0"), true),
            (format!("{host_major}.99.3"), true),
            ("0.9.0".to_owned(), false),
            ("2.0.0".to_owned(), false),
            (String::new(), false),
            ("one".to_owned(), false),
        ] {
            assert_eq!(check_version(&plugin).is_ok(), fits, "{plugin}");
        }
    }

    #[test]
    fn the_host_s_own_layout_fits_and_another_type_s_does_not() {
        let own = <PluginRootRef as StableAbi>::LAYOUT;
        assert_eq!(check_layout(Some(own), ABI_VERSION), Ok(()));
        let other = <abi_stable::std_types::RString as StableAbi>::LAYOUT;
        let Err(Refusal::Layout { detail, .. }) = check_layout(Some(other), ABI_VERSION) else {
            panic!("a string is no root");
        };
        assert!(!detail.is_empty() && detail.len() < 1_000, "{detail}");
        assert!(check_layout(None, ABI_VERSION).is_err());
    }

    #[test]
    fn a_foreign_header_is_refused_with_both_versions() {
        assert_eq!(check_header(&AbiHeader::VALUE), Ok(()));
        let mut other = AbiHeader::VALUE;
        other.abi_minor += 1;
        assert!(matches!(check_header(&other), Err(Refusal::AbiStable { plugin, host }) if plugin != host));
        other.magic_string = [0; 32];
        assert!(matches!(check_header(&other), Err(Refusal::AbiStable { plugin, .. }) if plugin == "(none)"));
    }
}
