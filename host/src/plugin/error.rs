//! Why a file in a plugin folder was not loaded, in words for the one who put it there.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A file that was not loaded, and why. Its text is one paragraph: the file, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// The file, as it was found.
    pub file: PathBuf,
    /// What is wrong with it.
    pub refusal: Refusal,
}

impl PluginError {
    pub(super) fn new(file: &Path, refusal: Refusal) -> Self {
        Self { file: file.to_owned(), refusal }
    }
}

impl std::error::Error for PluginError {}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.refusal)
    }
}

/// What is wrong with a file.
///
/// It crosses from the process that tries a plugin to the host as JSON, so it holds text, not errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It could not be read, or its private copy could not be written.
    Io(String),
    /// It changed while it was read: somebody is still writing it. Worth another try when it is quiet.
    Changing,
    /// It has no bytes. Somebody may be about to write it.
    Empty,
    /// It has more bytes than any plugin: so many.
    TooLarge(u64),
    /// It has not even the beginning of a library: some text, an archive, a program.
    NotALibrary(String),
    /// Parts are missing: it was cut off, or is still being written. What exactly.
    Incomplete(String),
    /// It is a library, but for another kind of processor.
    OtherMachine,
    /// It is a library, but no plugin: it exports no root.
    NotAPlugin,
    /// The system could not load it; what the dynamic linker said.
    Open(String),
    /// It was built with another `abi_stable`; which, and which one the host has.
    AbiStable {
        /// The plugin's.
        plugin: String,
        /// The host's.
        host: String,
    },
    /// It was built for another major of the ABI.
    AbiVersion {
        /// Version of the ABI that the plugin was built for.
        plugin: String,
        /// The host's.
        host: String,
    },
    /// It claims the right ABI, but its types are laid out differently.
    Layout {
        /// Version of the ABI that the plugin claims.
        plugin: String,
        /// The host's.
        host: String,
        /// The first difference.
        detail: String,
    },
    /// Its root could not be made: it panicked or returned an error; which.
    Root(String),
    /// What it says of itself makes no sense; what exactly.
    Description(String),
    /// It was built with `panic = "abort"`, so that one panic in it would end the host.
    AbortsOnPanic {
        /// The plugin's name.
        name: String,
        /// The plugin's version.
        version: String,
    },
    /// It ended the process that tried it.
    Crashed {
        /// Exit code or signal, in words.
        how: String,
        /// The last line it wrote, perhaps empty.
        said: String,
    },
    /// It had not finished loading after so many milliseconds.
    Hung(u64),
    /// The process that tries plugins could not be run; why.
    Probe(String),
}

impl Refusal {
    /// Whether the file may be good when whoever writes it has finished.
    pub fn may_be_unfinished(&self) -> bool {
        matches!(self, Self::Changing | Self::Empty | Self::Incomplete(_) | Self::NotALibrary(_))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remedy() {
            Some(remedy) => write!(f, "{}; {remedy}", self.problem()),
            None => f.write_str(&self.problem()),
        }
    }
}

impl Refusal {
    /// What is wrong, to be read after the file's name.
    pub fn problem(&self) -> String {
        match self {
            Self::Io(error) => format!("cannot be read: {error}"),
            Self::Changing => "is being written at this moment".to_owned(),
            Self::Empty => "is empty, not a plugin".to_owned(),
            Self::TooLarge(bytes) => {
                let most = super::staging::MAX_PLUGIN_BYTES;
                format!("has {bytes} bytes, more than a plugin may have ({most})")
            }
            Self::NotALibrary(detail) => format!("is not a shared library ({detail})"),
            Self::Incomplete(detail) => format!("is an incomplete shared library ({detail})"),
            Self::OtherMachine => format!(
                "is a shared library for another kind of processor than this host's ({})",
                std::env::consts::ARCH
            ),
            Self::NotAPlugin => {
                "is a shared library but not a Flowbay plugin: it does not export flowbay_plugin_root"
                    .to_owned()
            }
            Self::Open(error) => format!("could not be loaded by the system: {error}"),
            Self::AbiStable { plugin, host } => {
                format!("was built with abi_stable {plugin}, this host with abi_stable {host}")
            }
            Self::AbiVersion { plugin, host } => {
                format!("was built for Flowbay ABI {plugin}, this host speaks ABI {host}")
            }
            Self::Layout { plugin, host, detail } => format!(
                "was built for Flowbay ABI {plugin} and this host speaks ABI {host}, but their types differ ({detail})"
            ),
            Self::Root(text) => format!("failed while it was loaded: {text}"),
            Self::Description(text) => format!("describes itself wrongly: {text}"),
            Self::AbortsOnPanic { name, version } => format!(
                "plugin {name} {version} was built with panic = \"abort\", so that one panic in it would end the host"
            ),
            Self::Crashed { how, said } if said.is_empty() => {
                format!("ended the process that tried to load it ({how}), as it would end this host")
            }
            Self::Crashed { how, said } => format!(
                "ended the process that tried to load it ({how}), as it would end this host; it said: {said}"
            ),
            Self::Hung(ms) => format!("had not finished loading after {ms} ms"),
            Self::Probe(text) => format!("could not be tried in a process of its own: {text}"),
        }
    }

    /// What to do about it, where the problem does not say it all.
    pub fn remedy(&self) -> Option<String> {
        let fixed = |text: &str| Some(text.to_owned());
        match self {
            Self::Changing => fixed("it can be loaded once nothing changes it any more"),
            Self::Empty => fixed("build the plugin again or remove the file"),
            Self::TooLarge(_) => fixed("strip its debug information or remove it from the plugin folder"),
            Self::NotALibrary(_) => fixed("remove it from the plugin folder"),
            Self::Incomplete(_) => fixed("copy or build it again"),
            Self::OtherMachine => fixed("build it for this one"),
            Self::NotAPlugin => fixed(
                "remove it from the plugin folder, or, if it should be a plugin, list its node types in export_plugin!",
            ),
            Self::AbiStable { .. } => fixed("build the plugin with the flowbay-sdk of this host"),
            Self::AbiVersion { plugin, host } => Some(format!(
                "build the plugin with a flowbay-sdk whose flowbay-abi is {}.x, or run it in a host with ABI {}.x",
                major(host),
                major(plugin)
            )),
            Self::Layout { .. } => fixed("build the plugin with the released flowbay-sdk, unchanged"),
            Self::Description(_) => fixed("build it with the flowbay-sdk"),
            Self::AbortsOnPanic { .. } => fixed("build it with panic = \"unwind\", which is cargo's default"),
            Self::Hung(_) => fixed("a fault of the plugin: it must not wait for anything while it is loaded"),
            Self::Io(_) => {
                fixed("see that it is there, that the host may read it, and that the disk has room")
            }
            Self::Open(_) => fixed(
                "install what it says is missing, or build the plugin for this system, which may be older than the one \
                 that it was built on",
            ),
            Self::Root(_) => fixed(
                "a fault of the plugin: it has to be mended and built again, or removed from the plugin folder",
            ),
            Self::Crashed { .. } => fixed(
                "a fault of the plugin or of a library in it: nothing of it may end the process while it is loaded",
            ),
            Self::Probe(_) => fixed(
                "see that the host's own program can still be started, and that there are memory and processes for it",
            ),
        }
    }
}

fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_file_both_versions_and_what_to_do() {
        let refusal = Refusal::AbiVersion { plugin: "2.1.0".into(), host: "1.0.0".into() };
        let text = PluginError::new(Path::new("/bay/libold.so"), refusal).to_string();
        for part in ["/bay/libold.so", "ABI 2.1.0", "ABI 1.0.0", "flowbay-abi is 1.x", "host with ABI 2.x"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
    }
}
