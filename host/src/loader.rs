//! Bringing plugin files into the host: at the start, and when files change.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::{
    plugin::{self, LoadSettings, Loaded, Plugin, Refusal},
    registry::{Conflict, Registry},
    settings::Settings,
    watcher::QUIET,
};

/// How often a file that changes while it is read is read again, each time after a quiet moment. At the start nothing
/// else would bring it back: its last change may come before the folder is watched.
const CHANGING_ATTEMPTS: u32 = 10;

/// What is known of the files in the plugin folders: for `flowbay plugins` and `GET /plugins`.
///
/// Shared: the control thread writes it, requests read it.
#[derive(Clone, Default)]
pub struct PluginFiles {
    files: Arc<Mutex<BTreeMap<PathBuf, FileState>>>,
}

/// What became of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileState {
    /// The name of the plugin that was last loaded from it, if any.
    pub plugin: Option<String>,
    /// Why its present content is not in use, in a paragraph.
    pub refused: Option<String>,
    /// The file in a folder given, whose plugin of the same name is in use instead of this one that comes with the host.
    pub overridden: Option<PathBuf>,
}

impl PluginFiles {
    /// All files that were looked at, by path.
    pub fn all(&self) -> BTreeMap<PathBuf, FileState> {
        self.lock().clone()
    }

    /// The present content of a file is not used, and why. The first time it is said in the log.
    pub fn refuse(&self, file: &Path, reason: String) {
        let mut files = self.lock();
        let state = files.entry(file.to_owned()).or_default();
        if state.refused.as_ref() != Some(&reason) {
            tracing::warn!("{reason}");
        }
        state.refused = Some(reason);
    }

    /// A file's content is in use.
    pub fn accept(&self, file: &Path, plugin: &str) {
        self.lock()
            .insert(file.to_owned(), FileState { plugin: Some(plugin.to_owned()), ..FileState::default() });
    }

    /// A file that comes with the host is not used, because `by` has a plugin of the same name. Said once.
    fn override_by(&self, file: &Path, by: &Path, plugin: &str) {
        let state = FileState { overridden: Some(by.to_owned()), ..FileState::default() };
        if self.lock().insert(file.to_owned(), state.clone()) != Some(state) {
            tracing::info!("plugin {plugin} is used from {}, not from {}", by.display(), file.display());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, FileState>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads plugin files.
pub struct Loader {
    settings: LoadSettings,
    folders: Vec<PathBuf>,
    /// The one of them with what comes with the host.
    shipped: Option<PathBuf>,
    files: PluginFiles,
}

/// Which place a plugin that was loaded takes.
pub enum Place {
    /// A place of its own: no other has its name.
    Free,
    /// The place of this one, of which it is newer code, or which only came with the host.
    Of(Arc<Plugin>),
    /// None. Why has been said.
    None,
}

impl Loader {
    /// A loader for the plugin folders of `settings`.
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: LoadSettings {
                probe_exe: None,
                probe_deadline: Duration::from_millis(settings.probe_deadline_ms),
            },
            folders: settings.plugin_dirs(),
            shipped: settings.shipped_plugin_dir(),
            files: PluginFiles::default(),
        }
    }

    /// The folders that it looks in.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// What is known of the files.
    pub fn files(&self) -> &PluginFiles {
        &self.files
    }

    /// Loads every plugin in the folders into the registry; what is refused is reported and passed over.
    pub fn load_all(&self, registry: &Registry) {
        for folder in
            self.folders.iter().filter(|folder| self.shipped.as_ref() != Some(folder) && !folder.exists())
        {
            tracing::warn!("plugin folder {} does not exist yet", folder.display());
        }
        let (shipped, given): (Vec<_>, Vec<_>) =
            self.examine(None, registry).into_iter().partition(|plugin| self.is_shipped(&plugin.info().file));
        let is_given = |name: &str| given.iter().any(|plugin| plugin.info().name == name);
        let (overridden, shipped): (Vec<_>, Vec<_>) =
            shipped.into_iter().partition(|plugin| is_given(&plugin.info().name));
        // What comes with the host first: a plugin with one of its types is refused, not the other way round.
        for plugin in shipped.into_iter().chain(given) {
            self.add(plugin, registry);
        }
        for plugin in overridden {
            match registry.plugin(&plugin.info().name) {
                Some(by) => self.files.override_by(&plugin.info().file, &by.info().file, &by.info().name),
                // The one that was given has been refused.
                None => drop(self.add(plugin, registry)),
            }
        }
    }

    /// Whether a file is one of those that come with the host.
    fn is_shipped(&self, file: &Path) -> bool {
        self.shipped.is_some() && file.parent() == self.shipped.as_deref()
    }

    /// Puts a plugin that replaces none into the registry; whether it could be.
    pub fn add(&self, plugin: Arc<Plugin>, registry: &Registry) -> bool {
        let file = plugin.info().file.clone();
        match registry.add(plugin) {
            Ok(plugin) => {
                let info = plugin.info();
                let types: Vec<&str> = info.types.iter().map(|node_type| node_type.name.as_str()).collect();
                tracing::info!(
                    "plugin {} {} from {}: {}",
                    info.name,
                    info.version,
                    file.display(),
                    types.join(", ")
                );
                self.files.accept(&file, &info.name);
                true
            }
            Err(conflict) => {
                self.files.refuse(&file, conflict.to_string());
                false
            }
        }
    }

    /// Loads what is new in the folders, of `only` those files when given. What is refused is reported and passed
    /// over.
    pub fn examine(&self, only: Option<&[PathBuf]>, registry: &Registry) -> Vec<Arc<Plugin>> {
        // Whoever watches names files from the root, whatever the folders were called.
        let absolute = |file: &Path| std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let only: Option<Vec<PathBuf>> = only.map(|only| only.iter().map(|path| absolute(path)).collect());
        let wanted = |file: &Path| only.as_ref().is_none_or(|only| only.contains(&absolute(file)));
        for (file, state) in self.files.all() {
            if wanted(&file) && state.plugin.is_some() && !file.exists() {
                tracing::info!(
                    "{} is gone; its plugin {} stays in use until the host is started again",
                    file.display(),
                    state.plugin.unwrap_or_default()
                );
            }
        }
        let candidates = plugin::discover(&self.folders);
        candidates
            .into_iter()
            .filter(|candidate| wanted(&candidate.file))
            .filter_map(|candidate| self.load(&candidate.file, registry))
            .collect()
    }

    fn load(&self, file: &Path, registry: &Registry) -> Option<Arc<Plugin>> {
        let in_use = registry.plugins().into_iter().find(|plugin| plugin.info().file == file);
        if let Some(plugin) = &in_use
            && sha256(file).as_ref() == Some(&plugin.info().hash)
        {
            // Touched, or back to what it was.
            self.files.accept(file, &plugin.info().name);
            return None;
        }
        let mut loaded = plugin::load(file, &self.settings);
        for _ in 0..CHANGING_ATTEMPTS {
            if !loaded.as_ref().is_err_and(|error| error.refusal == Refusal::Changing) {
                break;
            }
            std::thread::sleep(QUIET);
            loaded = plugin::load(file, &self.settings);
        }
        match loaded {
            Ok(Loaded::Plugin(plugin)) => Some(plugin),
            Ok(Loaded::PassedOver) => None,
            Err(error) => {
                self.files.refuse(file, error.to_string());
                None
            }
        }
    }

    /// Which place `plugin` takes. To be asked when it is about to be taken into use: another of the files that were
    /// examined with it may have a plugin of the same name.
    pub fn place(&self, plugin: &Plugin, registry: &Registry) -> Place {
        let info = plugin.info();
        let Some(first) = registry.plugin(&info.name) else { return Place::Free };
        if first.info().file == info.file || !first.info().file.exists() {
            return Place::Of(first);
        }
        match (self.is_shipped(&first.info().file), self.is_shipped(&info.file)) {
            (true, false) => return Place::Of(first),
            (false, true) => self.files.override_by(&info.file, &first.info().file, &info.name),
            _ => {
                let (name, file, first) = (info.name.clone(), info.file.clone(), first.info().file.clone());
                self.files.refuse(&info.file, Conflict::Name { name, file, first }.to_string());
            }
        }
        Place::None
    }

    /// `plugin` has taken the place of the one from the file `old`.
    pub fn replaced(&self, old: &Path, plugin: &Plugin) {
        let info = plugin.info();
        self.files.accept(&info.file, &info.name);
        if old != info.file && self.is_shipped(old) && old.exists() {
            self.files.override_by(old, &info.file, &info.name);
        }
    }
}

/// Through a small buffer: a library read whole would leave the heap as large as it is.
fn sha256(file: &Path) -> Option<String> {
    let mut file = std::fs::File::open(file).ok()?;
    let mut buffer = vec![0; 64 * 1024];
    let mut hash = Sha256::new();
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(data_encoding::HEXLOWER.encode(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}
