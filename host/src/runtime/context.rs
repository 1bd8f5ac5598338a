//! Context stores: what nodes keep between messages. One store, in memory.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use flowbay_abi::{Object, Str, Value, node::NodeError, path::PropertyPath};

/// The name of the store that there is.
const MEMORY: &str = "memory";

/// All context, by owner: `global`, a tab's or subflow instance's id, `<node id>:<flow id>`.
#[derive(Default)]
pub struct ContextStores {
    memory: Mutex<HashMap<String, Object>>,
}

impl ContextStores {
    /// Reads a property path.
    ///
    /// # Errors
    /// The path is not valid.
    pub fn get(&self, owner: &str, store: &str, path: &str) -> Result<Option<Value>, NodeError> {
        let path = parse(store, path)?;
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
        let path = parse(store, path)?;
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

    /// Forgets what belongs to an owner that is gone.
    pub fn forget(&self, owner: &str) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }
}

fn parse(store: &str, path: &str) -> Result<PropertyPath, NodeError> {
    if !store.is_empty() && store != MEMORY && store != "default" {
        // Node-RED falls back to the default store with one warning; so do we, the caller logs it.
        tracing::debug!(store, "unknown context store, using memory");
    }
    PropertyPath::parse(path).map_err(|error| NodeError::new(format!("Invalid context key {path}: {error}")))
}
