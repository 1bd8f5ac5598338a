//! Bringing plugin files into the registry: at the start, and when a new file appears.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use crate::{
    plugin::{self, LoadSettings, Loaded, Refusal},
    registry::Registry,
    settings::Settings,
    watcher::QUIET,
};

/// How often a file that changes while it is read is read again, each time after a quiet moment. At the start nothing
/// else would bring it back: its last change may come before the folder is watched.
const CHANGING_ATTEMPTS: u32 = 10;

/// One file that was looked at, for `flowbay plugins`.
pub struct Examined {
    /// The file.
    pub file: PathBuf,
    /// The plugin's name when it was loaded, else why it was refused.
    pub outcome: Result<String, String>,
}

/// Loads plugin files.
pub struct Loader {
    settings: LoadSettings,
    folders: Vec<PathBuf>,
    /// Files whose plugin is registered.
    loaded: HashSet<PathBuf>,
}

impl Loader {
    /// A loader for the plugin folders of `settings`.
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: LoadSettings {
                probe_exe: None,
                probe_deadline: std::time::Duration::from_millis(settings.probe_deadline_ms),
            },
            folders: settings.plugin_dirs(),
            loaded: HashSet::new(),
        }
    }

    /// The folders that it looks in.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Loads every plugin in the folders; what is refused is reported and passed over.
    pub fn load_all(&mut self, registry: &Registry) -> Vec<Examined> {
        let candidates = plugin::discover(&self.folders);
        candidates.into_iter().filter_map(|candidate| self.load(&candidate.file, registry)).collect()
    }

    /// Loads those of the files that are new plugins; true when there was one.
    pub fn load_new(&mut self, files: &[PathBuf], registry: &Registry) -> bool {
        let mut any = false;
        for candidate in plugin::discover(&self.folders) {
            if !files.contains(&candidate.file) {
                continue;
            }
            if self.loaded.contains(&candidate.file) {
                tracing::info!(
                    file = %candidate.file.display(),
                    "the plugin's file has changed; the code that is loaded stays until the host is started again"
                );
                continue;
            }
            any |= self.load(&candidate.file, registry).is_some_and(|examined| examined.outcome.is_ok());
        }
        any
    }

    /// `None` for a file that is no plugin and belongs in a build folder.
    fn load(&mut self, file: &Path, registry: &Registry) -> Option<Examined> {
        let refused = |text: String| {
            tracing::warn!("{text}");
            Some(Examined { file: file.to_owned(), outcome: Err(text) })
        };
        let mut loaded = plugin::load(file, &self.settings);
        for _ in 0..CHANGING_ATTEMPTS {
            if !loaded.as_ref().is_err_and(|error| error.refusal == Refusal::Changing) {
                break;
            }
            std::thread::sleep(QUIET);
            loaded = plugin::load(file, &self.settings);
        }
        let plugin = match loaded {
            Ok(Loaded::Plugin(plugin)) => plugin,
            Ok(Loaded::PassedOver) => return None,
            Err(error) => return refused(error.to_string()),
        };
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
                self.loaded.insert(file.to_owned());
                Some(Examined { file: file.to_owned(), outcome: Ok(info.name.clone()) })
            }
            Err(conflict) => refused(conflict.to_string()),
        }
    }
}
