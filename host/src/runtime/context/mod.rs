//! Context stores: what nodes keep between messages. One is in memory; another, when there is a folder for it, is in
//! files too, with the layout of Node-RED's `localfilesystem`.

mod files;
mod store;
mod writer;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flowbay_abi::{Str, Value, node::NodeError, path::PropertyPath};

use self::{files::Files, store::Store, writer::Writer};
use crate::settings::Settings;

/// The names of the store in memory: its own, and what Node-RED's documentation calls it.
const MEMORY: [&str; 2] = ["memory", "memoryOnly"];
/// Unknown stores that are warned of: their names may come from messages.
const MAX_WARNINGS: usize = 100;

/// Why there are no context stores.
#[derive(Debug)]
pub enum ContextError {
    /// The folder cannot be made or used.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another host uses the folder.
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// There is no store of the name that the settings give to the default one.
    NoSuchDefault {
        /// That name.
        name: String,
        /// The names that there are.
        known: String,
    },
}

impl std::fmt::Display for ContextError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder { folder, error } => {
                write!(f, "the context folder {} cannot be used: {error}", folder.display())
            }
            Self::InUse { folder } => {
                write!(f, "the context folder {} is in use by another host", folder.display())
            }
            Self::NoSuchDefault { name, known } => {
                write!(f, "context_default_store: there is no context store {name}, only {known}")
            }
        }
    }
}

impl std::error::Error for ContextError {}

/// All context, by owner: `global`, a tab's or subflow instance's id, `<node id>:<flow id>`.
pub struct ContextStores {
    memory: Arc<Store>,
    file: Option<FileStore>,
    default_is_file: bool,
    /// Stores that nodes asked for and that do not exist.
    unknown: Mutex<HashSet<String>>,
}

struct FileStore {
    name: String,
    store: Arc<Store>,
    writer: Writer,
}

impl ContextStores {
    /// The stores that the settings name; what is in the files is read when it is wanted.
    ///
    /// # Errors
    /// The folder for the files cannot be used, or there is no default store.
    pub fn open(settings: &Settings) -> Result<Self, ContextError> {
        let limit = settings.context_max_bytes;
        let file = match &settings.context_dir {
            None => None,
            Some(folder) => {
                let store = Arc::new(Store::in_files(limit, Files::open(folder, limit)?));
                let flush_after = Duration::from_millis(settings.context_flush_ms);
                let writer = Writer::start(store.clone(), flush_after)
                    .map_err(|error| ContextError::Folder { folder: folder.clone(), error })?;
                Some(FileStore { name: settings.context_file_store.clone(), store, writer })
            }
        };
        let default_is_file = match &settings.context_default_store {
            None => file.is_some(),
            Some(name) if file.as_ref().is_some_and(|file| file.name == *name) => true,
            Some(name) if MEMORY.contains(&name.as_str()) => false,
            Some(name) => {
                let known =
                    file.map_or(MEMORY[0].to_owned(), |file| format!("{} and {}", MEMORY[0], file.name));
                return Err(ContextError::NoSuchDefault { name: name.clone(), known });
            }
        };
        let memory = Arc::new(Store::in_memory(limit));
        Ok(Self { memory, file, default_is_file, unknown: Mutex::default() })
    }

    /// Reads a property path.
    ///
    /// # Errors
    /// The path is not valid.
    pub fn get(&self, owner: &str, store: &str, path: &str) -> Result<Option<Value>, NodeError> {
        let path = parse(path)?;
        Ok(Value::Object(self.named(store).0.get(owner)).get_path(&path))
    }

    /// Writes a property path; `None` deletes it.
    ///
    /// # Errors
    /// The path is not valid, or leads through something that has no properties; or the context is too large then.
    pub fn set(&self, owner: &str, store: &str, path: &str, value: Option<Value>) -> Result<(), NodeError> {
        let path = parse(path)?;
        let (store, writer) = self.named(store);
        store.set(owner, &path, value)?;
        if let Some(writer) = writer {
            writer.note(owner);
        }
        Ok(())
    }

    /// Names of the top-level keys.
    pub fn keys(&self, owner: &str, store: &str) -> Vec<Str> {
        self.named(store).0.get(owner).keys().cloned().collect()
    }

    /// Reads what is in the files of these owners, where that has not been done: so that no node waits for a disk.
    pub fn load<'o>(&self, owners: impl IntoIterator<Item = &'o str>) {
        if let Some(file) = &self.file {
            for owner in owners {
                file.store.load(owner);
            }
        }
    }

    /// Forgets what belongs to an owner that is gone.
    pub fn forget(&self, owner: &str) {
        self.memory.forget(owner);
        if let Some(file) = &self.file {
            file.store.forget(owner);
            file.writer.note(owner);
        }
    }

    /// Has all that has changed written, and waits for it; false when that took longer than `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        self.file.as_ref().is_none_or(|file| file.writer.flush(patience))
    }

    /// The store of that name; an unknown one is the default one, with one warning for each.
    fn named(&self, name: &str) -> (&Store, Option<&Writer>) {
        let file = self.file.as_ref();
        let wants_file = match name {
            "" | "default" => self.default_is_file,
            memory if MEMORY.contains(&memory) => false,
            name if file.is_some_and(|file| file.name == name) => true,
            unknown => {
                self.warn_of(unknown);
                self.default_is_file
            }
        };
        match file.filter(|_| wants_file) {
            Some(file) => (&file.store, Some(&file.writer)),
            None => (&self.memory, None),
        }
    }

    fn warn_of(&self, name: &str) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() < MAX_WARNINGS && unknown.insert(name.to_owned()) {
            let default = match &self.file {
                Some(file) if self.default_is_file => &file.name,
                _ => MEMORY[0],
            };
            tracing::warn!("there is no context store {name:.100}; {default} is used");
        }
    }
}

fn parse(path: &str) -> Result<PropertyPath, NodeError> {
    PropertyPath::parse(path).map_err(|error| NodeError::new(format!("Invalid context key {path}: {error}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Long enough that nothing is written by itself.
    const NEVER_MS: u64 = 3_600_000;
    const LONG: Duration = Duration::from_secs(30);

    fn settings(folder: &Path) -> Settings {
        Settings { context_dir: Some(folder.to_owned()), context_flush_ms: NEVER_MS, ..Settings::default() }
    }

    fn read(folder: &Path, file: &str) -> String {
        std::fs::read_to_string(folder.join(file)).unwrap()
    }

    fn value(json: &str) -> Option<Value> {
        Some(Value::from_json(json.as_bytes()).unwrap())
    }

    #[test]
    fn what_was_set_is_in_the_files_of_node_red_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let owners = [
            ("global", "global/global.json"),
            ("tab1", "tab1/flow.json"),
            ("n1:tab1", "tab1/n1.json"),
            ("config:global", "config/flow.json"),
            ("../n:../t", "%2E.%2Ft/%2E.%2Fn.json"),
            ("flow:tab1", "tab1/%66low.json"),
        ];
        let stores = ContextStores::open(&settings(folder.path())).unwrap();
        for (owner, _) in owners {
            stores.set(owner, "", "a.b[0]", value(r#"{"is":1.5}"#)).unwrap();
        }
        assert!(stores.flush(LONG));
        let expected = "{\n    \"a\": {\n        \"b\": [\n            {\n                \"is\": 1.5\n            }\n        ]\n    }\n}";
        for (_, file) in owners {
            assert_eq!(read(folder.path(), file), expected, "{file}");
        }
        drop(stores);

        let stores = ContextStores::open(&settings(folder.path())).unwrap();
        stores.load(["global"]);
        for (owner, _) in owners {
            assert_eq!(stores.get(owner, "file", "a.b[0].is").unwrap(), Some(Value::from(1.5)), "{owner}");
            assert_eq!(stores.keys(owner, ""), ["a"]);
        }
    }

    #[test]
    fn stores_are_told_apart_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let default = Settings { context_default_store: Some("memory".into()), ..settings(folder.path()) };
        let stores = ContextStores::open(&default).unwrap();
        for (store, number) in [("", 1), ("file", 2)] {
            stores.set("tab", store, "n", Some(Value::from(number))).unwrap();
        }
        for (store, number) in [("memory", 1), ("memoryOnly", 1), ("default", 1), ("unknown", 1), ("file", 2)]
        {
            assert_eq!(stores.get("tab", store, "n").unwrap(), Some(Value::from(number)), "{store}");
        }
        stores.set("tab", "file", "n", None).unwrap();
        assert_eq!(stores.keys("tab", "file"), Vec::<Str>::new());
        assert!(stores.flush(LONG));
        assert_eq!(read(folder.path(), "tab/flow.json"), "{}");
    }

    #[test]
    fn without_a_folder_there_is_only_memory() {
        let stores = ContextStores::open(&Settings::default()).unwrap();
        stores.set("tab", "file", "n", Some(Value::from(1))).unwrap();
        assert_eq!(stores.get("tab", "memory", "n").unwrap(), Some(Value::from(1)));
        assert!(stores.flush(Duration::ZERO));
        let unknown = Settings { context_default_store: Some("file".into()), ..Settings::default() };
        let error = ContextStores::open(&unknown).err().unwrap().to_string();
        assert_eq!(error, "context_default_store: there is no context store file, only memory");
    }

    #[test]
    fn what_belongs_to_nobody_any_more_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let stores = ContextStores::open(&settings(folder.path())).unwrap();
        for owner in ["n1:tab", "n2:tab", "tab"] {
            stores.set(owner, "", "n", Some(Value::from(1))).unwrap();
        }
        assert!(stores.flush(LONG));
        stores.forget("n1:tab");
        assert_eq!(stores.get("n1:tab", "", "n").unwrap(), None, "at once, whatever is still in its file");
        assert!(stores.flush(LONG));
        assert!(!folder.path().join("tab/n1.json").exists() && folder.path().join("tab/n2.json").exists());
        stores.forget("n2:tab");
        stores.forget("tab");
        // A node of the same id comes back at once.
        stores.set("n2:tab", "", "n", Some(Value::from(2))).unwrap();
        assert!(stores.flush(LONG));
        assert_eq!(read(folder.path(), "tab/n2.json"), "{\n    \"n\": 2\n}");
        stores.forget("n2:tab");
        assert!(stores.flush(LONG));
        assert!(!folder.path().join("tab").exists(), "the folder goes with the last of its files");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_kept_aside_and_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let tab = folder.path().join("tab");
        std::fs::create_dir(&tab).unwrap();
        std::fs::write(tab.join("flow.json"), "{\"n\": 1").unwrap();
        std::fs::write(tab.join("flow.json.corrupt"), "an earlier one").unwrap();
        std::fs::write(tab.join("list.json"), "[]").unwrap();
        std::fs::write(tab.join("empty.json"), "").unwrap();
        let stores = ContextStores::open(&settings(folder.path())).unwrap();
        stores.load(["tab", "list:tab", "empty:tab"]);
        assert_eq!(stores.get("tab", "", "n").unwrap(), None);
        stores.set("tab", "", "n", Some(Value::from(2))).unwrap();
        assert!(stores.flush(LONG));
        assert_eq!(read(&tab, "flow.json"), "{\n    \"n\": 2\n}");
        assert_eq!(read(&tab, "flow.json.corrupt"), "an earlier one");
        assert_eq!(read(&tab, "flow.json.corrupt-2"), "{\"n\": 1");
        assert_eq!(read(&tab, "list.json.corrupt"), "[]");
        assert!(tab.join("empty.json").exists() && !tab.join("empty.json.corrupt").exists());
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("tab/flow.json/inside")).unwrap();
        let stores = ContextStores::open(&settings(folder.path())).unwrap();
        stores.set("tab", "", "n", Some(Value::from(2))).unwrap();
        assert!(stores.flush(LONG));
        assert_eq!(stores.get("tab", "", "n").unwrap(), Some(Value::from(2)), "in memory");
        assert!(folder.path().join("tab/flow.json/inside").is_dir());
    }

    #[test]
    fn a_context_that_grows_without_end_is_bounded() {
        for folder in [None, Some(tempfile::tempdir().unwrap())] {
            let limited = Settings {
                context_max_bytes: 10_000,
                context_dir: folder.as_ref().map(|folder| folder.path().to_owned()),
                context_flush_ms: NEVER_MS,
                ..Settings::default()
            };
            let stores = ContextStores::open(&limited).unwrap();
            let text = "x".repeat(1_000);
            for _ in 0..1_000 {
                stores.set("tab", "", "same", Some(Value::from(text.as_str()))).unwrap();
            }
            let full = (0..1_000).find_map(|n| {
                stores.set("tab", "", &format!("key{n}"), Some(Value::from(text.as_str()))).err()
            });
            let full = full.unwrap().message;
            assert!(full.contains("tab") && full.contains("context_max_bytes"), "{full}");
            stores.set("tab", "", "same", None).unwrap();
            stores.set("tab", "", "other", Some(Value::from("there is room again"))).unwrap();
            stores.set("other", "", "key", Some(Value::from(text.as_str()))).unwrap();
        }
    }

    #[test]
    fn two_hosts_do_not_write_over_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let first = ContextStores::open(&settings(folder.path())).unwrap();
        let second = ContextStores::open(&settings(folder.path())).err().unwrap().to_string();
        assert!(second.ends_with("is in use by another host"), "{second}");
        drop(first);
        assert!(ContextStores::open(&settings(folder.path())).is_ok());
    }

    #[test]
    fn changes_are_written_by_themselves_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let soon = Settings { context_flush_ms: 1, ..settings(folder.path()) };
        let stores = ContextStores::open(&soon).unwrap();
        stores.set("tab", "", "n", Some(Value::from(1))).unwrap();
        let deadline = std::time::Instant::now() + LONG;
        while !folder.path().join("tab/flow.json").exists() {
            assert!(std::time::Instant::now() < deadline, "it is not written");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_killed_host_left_half_written_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tab")).unwrap();
        let left = folder.path().join("tab/.flowbay-context-abc123");
        std::fs::write(&left, "{").unwrap();
        std::fs::write(folder.path().join("tab/.other"), "{").unwrap();
        let _stores = ContextStores::open(&settings(folder.path())).unwrap();
        assert!(!left.exists() && folder.path().join("tab/.other").exists());
    }
}
