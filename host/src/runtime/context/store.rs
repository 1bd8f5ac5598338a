//! One context store: an object for each owner.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use flowbay_abi::{Object, Value, node::NodeError, path::PropertyPath};

use super::files::Files;
use crate::runtime::weight;

/// What a new key costs beside its name and its value, roughly.
const KEY_BYTES: usize = 64;

/// A store. Reading and writing is in memory; files are read once, and written by somebody else ([`Store::write`]).
pub(super) struct Store {
    /// A std mutex: what is done under it takes microseconds, once the files are read.
    owners: Mutex<HashMap<String, Context>>,
    /// Bytes that one owner's context may have.
    max_bytes: usize,
    files: Option<Files>,
}

/// The context of one owner.
#[derive(Default)]
struct Context {
    object: Object,
    /// Not less than what it weighs; weighed anew when that is too much.
    bytes: usize,
    /// Its owner is gone, and nothing was set since.
    gone: bool,
    /// Its file is not to be touched: it could not be read, and could not be put aside.
    unwritable: bool,
}

impl Store {
    /// A store that is lost with the process.
    pub fn in_memory(max_bytes: usize) -> Self {
        Self { owners: Mutex::default(), max_bytes, files: None }
    }

    /// A store that is also in files.
    pub fn in_files(max_bytes: usize, files: Files) -> Self {
        Self { owners: Mutex::default(), max_bytes, files: Some(files) }
    }

    /// What there is of an owner; a reference count.
    pub fn get(&self, owner: &str) -> Object {
        let mut owners = self.lock();
        match owners.get(owner) {
            Some(context) => context.object.clone(),
            None => self.read(&mut owners, owner).map(|context| context.object.clone()).unwrap_or_default(),
        }
    }

    /// Sets, or deletes, what is at a path.
    pub fn set(&self, owner: &str, path: &PropertyPath, value: Option<Value>) -> Result<(), NodeError> {
        let mut owners = self.lock();
        if !owners.contains_key(owner) {
            self.read(&mut owners, owner);
        }
        let context = owners.entry(owner.to_owned()).or_default();
        let added = value.as_ref().map_or(0, |value| {
            weight::of_value(value) + KEY_BYTES + path.parts().len() * KEY_BYTES + path.to_string().len()
        });
        if context.bytes.saturating_add(added) > self.max_bytes {
            let root = Value::Object(context.object.clone());
            context.bytes = weight::of_value(&root);
            let replaced = root.get_path(path).map_or(0, |replaced| weight::of_value(&replaced));
            if context.bytes.saturating_sub(replaced).saturating_add(added) > self.max_bytes && added > 0 {
                return Err(NodeError::new(format!(
                    "the context of {owner} may not have more than {} bytes (context_max_bytes)",
                    self.max_bytes
                ))
                .with_code("CONTEXT_FULL"));
            }
        }
        let mut root = Value::Object(std::mem::take(&mut context.object));
        let result = match value {
            Some(value) => root.set_path(path, value).map_err(|error| NodeError::new(error.to_string())),
            None => {
                root.delete_path(path);
                Ok(())
            }
        };
        if let Value::Object(object) = root {
            context.object = object;
        }
        context.bytes = context.bytes.saturating_add(added);
        context.gone = false;
        result
    }

    /// Reads an owner's file, if that has not been done.
    pub fn load(&self, owner: &str) {
        let mut owners = self.lock();
        if !owners.contains_key(owner) {
            self.read(&mut owners, owner);
        }
    }

    /// Forgets an owner.
    pub fn forget(&self, owner: &str) {
        let mut owners = self.lock();
        if self.files.is_some() {
            // Remembered as gone: its file is still there for a while, and must not be read again.
            let unwritable = owners.get(owner).is_some_and(|context| context.unwritable);
            owners.insert(owner.to_owned(), Context { gone: true, unwritable, ..Context::default() });
        } else {
            owners.remove(owner);
        }
    }

    /// Brings an owner's file up to date. Only one thread does this.
    ///
    /// # Errors
    /// One line that names the file, which is as it was.
    pub fn write(&self, owner: &str) -> Result<(), String> {
        let Some(files) = &self.files else { return Ok(()) };
        let object = {
            let owners = self.lock();
            match owners.get(owner) {
                None => return Ok(()),
                Some(context) if context.unwritable => return Ok(()),
                Some(context) => (!context.gone).then(|| context.object.clone()),
            }
        };
        match object {
            Some(object) => files.write(owner, &Value::Object(object)),
            None => {
                files.remove(owner)?;
                let mut owners = self.lock();
                // Unless it has come back meanwhile. There is no file to be read any more.
                if owners.get(owner).is_some_and(|context| context.gone) {
                    owners.remove(owner);
                }
                Ok(())
            }
        }
    }

    /// Reads an owner's file, and remembers when there is none; what is wrong with it is in the log.
    fn read<'c>(&self, owners: &'c mut HashMap<String, Context>, owner: &str) -> Option<&'c Context> {
        let read = self.files.as_ref()?.read(owner);
        let context = match read {
            Ok(None) => Context::default(),
            Ok(Some(object)) => {
                let root = Value::Object(object.clone());
                Context { bytes: weight::of_value(&root), object, ..Context::default() }
            }
            Err(bad) => {
                tracing::error!("{bad}");
                Context { unwritable: !bad.is_aside, ..Context::default() }
            }
        };
        owners.insert(owner.to_owned(), context);
        owners.get(owner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Context>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
