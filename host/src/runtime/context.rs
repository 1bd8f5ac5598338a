//! Context stores: what nodes keep between messages. One store, in memory.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use flowbay_abi::{Object, Str, Value, node::NodeError, path::PropertyPath};

/// The name of the store that there is.
const MEMORY: &str = "memory";
/// Unknown stores that are warned of: their names may come from messages.
const MAX_WARNINGS: usize = 100;

/// All context, by owner: `global`, a tab's or subflow instance's id, `<node id>:<flow id>`.
#[derive(Default)]
pub struct ContextStores {
    memory: Mutex<HashMap<String, Object>>,
    /// Stores that nodes asked for and that do not exist.
    unknown: Mutex<HashSet<String>>,
}

impl ContextStores {
    /// Reads a property path.
    ///
    /// # Errors
    /// The path is not valid.
    pub fn get(&self, owner: &str, store: &str, path: &str) -> Result<Option<Value>, NodeError> {
        let path = self.parse(store, path)?;
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(object) = memory.get(owner) else { return Ok(None) };
        // A reference count, so that the path is followed outside of the lock.
        let root = Value::Object(object.clone());
        drop(memory);
        Ok(root.get_path(&path))
    }

    /// Writes a property path; `None` deletes it.
    ///
    /// # Errors
    /// The path is not valid, or leads through something that has no properties.
    pub fn set(&self, owner: &str, store: &str, path: &str, value: Option<Value>) -> Result<(), NodeError> {
        let path = self.parse(store, path)?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut root = Value::Object(memory.remove(owner).unwrap_or_default());
        let result = match value {
            Some(value) => root.set_path(&path, value).map_err(|error| NodeError::new(error.to_string())),
            None => {
                root.delete_path(&path);
                Ok(())
            }
        };
        if let Value::Object(object) = root {
            memory.insert(owner.to_owned(), object);
        }
        result
    }

    /// Names of the top-level keys.
    pub fn keys(&self, owner: &str) -> Vec<Str> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.get(owner).map(|object| object.keys().cloned().collect()).unwrap_or_default()
    }

    /// An unknown store is the default one, with one warning for each.
    fn parse(&self, store: &str, path: &str) -> Result<PropertyPath, NodeError> {
        if !store.is_empty() && store != MEMORY && store != "default" {
            let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
            if unknown.len() < MAX_WARNINGS && unknown.insert(store.to_owned()) {
                tracing::warn!("there is no context store {store}; {MEMORY} is used");
            }
        }
        PropertyPath::parse(path)
            .map_err(|error| NodeError::new(format!("Invalid context key {path}: {error}")))
    }

    /// Forgets what belongs to an owner that is gone.
    pub fn forget(&self, owner: &str) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }
}
