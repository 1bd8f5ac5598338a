//! Plugins: shared libraries that the host loads, checks, runs and unloads while flows run.
//!
//! [`discover`] finds files, [`load`] makes a [`Plugin`] of one. Loading never touches anything that runs; its steps,
//! each of which may refuse the file with a readable reason ([`PluginError`]):
//!
//! 1. copy the file, unchanged meanwhile, under a private name never used before (`staging`);
//! 2. read its headers: all of it must be there, and it must be a plugin (`elf`);
//! 3. have a child process load it: a crash, an exit or a hang is the child's (`probe`);
//! 4. map it and compare the ABI's version and the layout of everything that crosses (`library`, `abi_check`);
//! 5. have it describe itself (`description`).
//!
//! A [`Plugin`] is one generation of a plugin and is shared by `Arc`. **Everything that can run plugin code holds
//! one**: nodes, futures, wakers, and whoever is in a call. When the last one is dropped, wherever that is, a thread
//! of its own destroys the thread-local values that are left and unmaps the library (`library`, `tls`).
//!
//! Host sockets, timers and futures reach plugin code through `transport`; its wakers stay in `slot`.

mod abi_check;
mod description;
mod discovery;
mod elf;
mod error;
mod kind;
mod library;
mod probe;
mod slot;
mod staging;
mod tls;
mod transport;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use abi_stable::std_types::ROption;
use flowbay_abi::{
    host::HostNode,
    node::{AbiNode, NodeError},
    root::PluginRootRef,
    value::Value,
};

use crate::settings::Settings;

pub use description::{CredentialKind, NodeTypeInfo};
pub use discovery::{Candidate, discover, is_library_name};
pub use error::{PluginError, Refusal};
pub use kind::{FileKind, file_kind};
pub use library::{live_generations, wait_for_unloads};
pub use probe::probe_main;
pub use slot::{TokioSlot, WakerList, WakerSlot, next_task_id, with_task};
pub use staging::remove_staging_folder;
pub use tls::thread_stops;
pub use transport::{PluginStream, host_future, timer};

/// One loaded generation of a plugin.
///
/// Its `Arc` is the reference on the library: see the module's documentation for who must hold one. It may be
/// dropped on any thread.
pub struct Plugin {
    info: PluginInfo,
    /// Points into the library.
    root: PluginRootRef,
    /// Last, so that nothing of the above is there any more when the unloader gets the library.
    _library: library::Library,
}

/// What is known of a loaded plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginInfo {
    /// The plugin's declared name: this, not the file's name, is its identity.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// What it is, in its author's words; perhaps empty, as the next two.
    pub description: String,
    /// Its licence, as an SPDX expression.
    pub license: String,
    /// Where more is to be found.
    pub homepage: String,
    /// Version of the SDK it was built with.
    pub sdk: String,
    /// Version of the ABI it was built for.
    pub abi: String,
    /// Version of the compiler.
    pub rustc: String,
    /// The file it was loaded from, as it was found; what is mapped is a private copy.
    pub file: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub hash: String,
    /// Number of this loading in the life of the process; a later one is greater.
    pub generation: u64,
    /// Whether it can be unmapped; one without the SDK's thread-local hook cannot.
    pub unloadable: bool,
    /// Its node types.
    pub types: Vec<NodeTypeInfo>,
}

impl PluginInfo {
    /// Whether it has a node type of that name.
    pub fn has_type(&self, node_type: &str) -> bool {
        self.types.iter().any(|info| info.name == node_type)
    }

    /// Its node type of that name.
    pub fn node_type(&self, node_type: &str) -> Option<&NodeTypeInfo> {
        self.types.iter().find(|info| info.name == node_type)
    }

    /// How many messages a node of a type may have in hand at a time, 0 for any number; 1 when it has no such type.
    pub fn concurrency(&self, node_type: &str) -> u32 {
        self.types.iter().find(|info| info.name == node_type).map_or(1, |info| info.concurrency)
    }
}

impl Plugin {
    /// What it is.
    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    /// Creates a node of one of its types. The caller keeps an `Arc` of this plugin for as long as it has the node,
    /// drops the node first, and does not run this on a thread that others wait for: a constructor may take long.
    ///
    /// # Errors
    /// The constructor refused the configuration, or panicked.
    pub fn create(
        &self,
        node_type: &str,
        host: HostNode,
        config: Value,
        state: Option<Value>,
    ) -> Result<AbiNode, NodeError> {
        tls::watch_thread();
        self.root.create()(node_type.into(), host, config, ROption::from(state)).into_result()
    }

    /// Runs the destructors of the plugin's thread-local values of one thread (its id as the system gives it), which
    /// must be the calling one. Returns how many ran. [`thread_stops`] does this for all plugins.
    pub fn run_tls_dtors(&self, thread: u32) -> usize {
        self.root.run_tls_dtors()(thread)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} (generation {})", self.info.name, self.info.version, self.info.generation)
    }
}

/// How plugins are loaded.
#[derive(Debug, Clone)]
pub struct LoadSettings {
    /// The executable that tries a plugin when run as `probe FILE`; this one when absent.
    pub probe_exe: Option<PathBuf>,
    /// How long trying it may take.
    pub probe_deadline: Duration,
}

impl Default for LoadSettings {
    fn default() -> Self {
        // Loading takes milliseconds; two seconds tell a plugin that hangs from a slow disk.
        Self { probe_exe: None, probe_deadline: Duration::from_secs(2) }
    }
}

impl From<&Settings> for LoadSettings {
    fn from(settings: &Settings) -> Self {
        Self { probe_exe: None, probe_deadline: Duration::from_millis(settings.probe_deadline_ms) }
    }
}

/// What became of a file that could be loaded, or need not.
#[derive(Debug)]
pub enum Loaded {
    /// A plugin.
    Plugin(Arc<Plugin>),
    /// A library that belongs in a build folder and is none of ours: a procedural macro. Not worth a word.
    PassedOver,
}

/// Loads the plugin in `file`: all steps in the module's documentation. Blocks for as long as they take, so it has a
/// thread to itself.
///
/// # Errors
/// The file is no plugin, or none for this host. Nothing of it is left in memory, unless it passed the child process
/// and failed here.
pub fn load(file: &Path, settings: &LoadSettings) -> Result<Loaded, PluginError> {
    let refused = |refusal| PluginError::new(file, refusal);

    let staged = staging::stage(file).map_err(refused)?;
    let facts = elf::inspect(&staged.path).map_err(refused)?;
    if facts.is_proc_macro {
        return Ok(Loaded::PassedOver);
    }
    if !facts.has_root {
        return Err(refused(Refusal::NotAPlugin));
    }
    let named = |refusal| refused(naming_the_original(refusal, &staged.path, file));
    let probe_exe = match &settings.probe_exe {
        Some(exe) => exe.clone(),
        // This very program, even if its file has been replaced since it was started.
        None if cfg!(target_os = "linux") => PathBuf::from("/proc/self/exe"),
        None => std::env::current_exe().map_err(|error| refused(Refusal::Probe(error.to_string())))?,
    };
    probe::try_in_child(&probe_exe, &staged.path, settings.probe_deadline).map_err(named)?;

    tls::watch_thread();
    let opened = library::open(&staged.path, facts).map_err(named)?;
    let root = opened.root;
    let (hash, generation) = (staged.hash.clone(), staged.generation);
    let library = library::Library::new(opened, staged).map_err(refused)?;
    // From here on a refusal unloads it again.
    let description = description::read(&root.describe()()).map_err(refused)?;
    let info = PluginInfo {
        name: description.name,
        version: description.version,
        description: description.description,
        license: description.license,
        homepage: description.homepage,
        sdk: description.sdk,
        abi: description.abi,
        rustc: description.rustc,
        file: file.to_owned(),
        hash,
        generation,
        unloadable: !facts.pins_itself,
        types: description.types,
    };
    Ok(Loaded::Plugin(Arc::new(Plugin { info, root, _library: library })))
}

/// The dynamic linker speaks of the private copy, which means nothing to the reader.
fn naming_the_original(refusal: Refusal, copy: &Path, original: &Path) -> Refusal {
    let (copy, original) = (copy.to_string_lossy(), original.to_string_lossy());
    match refusal {
        Refusal::Open(text) => Refusal::Open(text.replace(&*copy, &original)),
        Refusal::Root(text) => Refusal::Root(text.replace(&*copy, &original)),
        refusal => refusal,
    }
}

#[cfg(test)]
impl Plugin {
    /// A plugin that is part of this test: it has no node types and is never unloaded.
    pub(crate) fn for_test() -> Arc<Self> {
        use abi_stable::{prefix_type::WithMetadata, std_types::RResult, std_types::RStr};
        use flowbay_abi::root::PluginRoot;

        extern "C" fn describe() -> Value {
            Value::Null
        }
        extern "C" fn create(
            _: RStr<'_>,
            _: HostNode,
            _: Value,
            _: ROption<Value>,
        ) -> RResult<AbiNode, NodeError> {
            RResult::RErr(NodeError::new("a plugin without node types"))
        }
        extern "C" fn run_tls_dtors(_: u32) -> usize {
            0
        }
        struct Root;
        impl Root {
            abi_stable::staticref!(const ROOT: WithMetadata<PluginRoot> =
                WithMetadata::new(PluginRoot { describe, create, run_tls_dtors }));
        }
        let info = PluginInfo {
            name: "test".to_owned(),
            version: "0.0.0".to_owned(),
            description: String::new(),
            license: String::new(),
            homepage: String::new(),
            sdk: String::new(),
            abi: String::new(),
            rustc: String::new(),
            file: PathBuf::new(),
            hash: String::new(),
            generation: 0,
            unloadable: false,
            types: Vec::new(),
        };
        let library = library::Library::of_this_process();
        Arc::new(Self { info, root: PluginRootRef(Root::ROOT.as_prefix()), _library: library })
    }
}
