//! Node types by name: the only place where a type's plugin is looked up.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    flow::Role,
    plugin::{NodeTypeInfo, Plugin, PluginInfo},
};

/// A node type and the plugin generation that has it.
#[derive(Clone)]
pub struct Registered {
    /// The library.
    pub plugin: Arc<Plugin>,
    /// The type's description.
    pub info: Arc<NodeTypeInfo>,
}

/// Why a plugin was not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Another file has a plugin of this name.
    Name {
        /// The name.
        name: String,
        /// The file that is refused.
        file: PathBuf,
        /// The file that was there first.
        first: PathBuf,
    },
    /// Another plugin has one of its node types.
    Type {
        /// The node type.
        node_type: String,
        /// The plugin that is refused.
        name: String,
        /// Its file.
        file: PathBuf,
        /// The plugin that was there first.
        first: String,
    },
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Conflict::Name { name, file, first } => write!(
                f,
                "{}: refused: its plugin is called {name}, as the one in {} is; remove one of the two files",
                file.display(),
                first.display()
            ),
            Conflict::Type { node_type, name, file, first } => write!(
                f,
                "{}: plugin {name} refused: its node type {node_type} is already provided by plugin {first}; \
                 remove one of the two, or rename the type",
                file.display()
            ),
        }
    }
}

impl std::error::Error for Conflict {}

/// All node types.
#[derive(Default)]
pub struct Registry {
    types: RwLock<HashMap<String, Registered>>,
    plugins: RwLock<Vec<Arc<Plugin>>>,
}

impl Registry {
    /// Adds a plugin with all its types, or none of it.
    ///
    /// # Errors
    /// Its name, or one of its types, is taken.
    pub fn add(&self, plugin: Arc<Plugin>) -> Result<Arc<Plugin>, Conflict> {
        let info = plugin.info();
        let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        let mut types = self.types.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = plugins.iter().find(|first| first.info().name == info.name) {
            return Err(Conflict::Name {
                name: info.name.clone(),
                file: info.file.clone(),
                first: first.info().file.clone(),
            });
        }
        if let Some(conflict) = taken(&types, info, &info.name) {
            return Err(conflict);
        }
        for node_type in &info.types {
            let registered = Registered { plugin: plugin.clone(), info: Arc::new(node_type.clone()) };
            types.insert(node_type.name.clone(), registered);
        }
        plugins.push(plugin.clone());
        Ok(plugin)
    }

    /// Whether `new` can take the place of `old`: its types are its own.
    ///
    /// # Errors
    /// One of its types belongs to a third plugin.
    pub fn check_successor(&self, old: &Plugin, new: &Plugin) -> Result<(), Conflict> {
        let types = self.types.read().unwrap_or_else(PoisonError::into_inner);
        taken(&types, new.info(), &old.info().name).map_or(Ok(()), Err)
    }

    /// The type of a plugin that another one, of another name, has already.
    pub fn taken_type(&self, plugin: &PluginInfo) -> Option<Conflict> {
        let types = self.types.read().unwrap_or_else(PoisonError::into_inner);
        taken(&types, plugin, &plugin.name)
    }

    /// Puts `new` in the place of `old`, with its types.
    pub fn replace(&self, old: &Arc<Plugin>, new: Arc<Plugin>) {
        let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        let mut types = self.types.write().unwrap_or_else(PoisonError::into_inner);
        types.retain(|_, registered| !Arc::ptr_eq(&registered.plugin, old));
        for node_type in &new.info().types {
            let registered = Registered { plugin: new.clone(), info: Arc::new(node_type.clone()) };
            types.insert(node_type.name.clone(), registered);
        }
        plugins.retain(|plugin| !Arc::ptr_eq(plugin, old));
        plugins.push(new);
    }

    /// The plugin of that name.
    pub fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        plugins.iter().find(|plugin| plugin.info().name == name).cloned()
    }

    /// The type of that name.
    pub fn get(&self, node_type: &str) -> Option<Registered> {
        self.types.read().unwrap_or_else(PoisonError::into_inner).get(node_type).cloned()
    }

    /// What nodes of a type do for their flow; plain when the type is not known.
    pub fn role(&self, node_type: &str) -> Role {
        let types = self.types.read().unwrap_or_else(PoisonError::into_inner);
        types.get(node_type).map_or(Role::Plain, |registered| registered.info.role)
    }

    /// All plugins, in the order they were added.
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The first type of `plugin` that belongs to another plugin than the one called `own`.
fn taken(types: &HashMap<String, Registered>, plugin: &PluginInfo, own: &str) -> Option<Conflict> {
    plugin.types.iter().find_map(|node_type| {
        let first = types.get(&node_type.name).filter(|first| first.plugin.info().name != own)?;
        Some(Conflict::Type {
            node_type: node_type.name.clone(),
            name: plugin.name.clone(),
            file: plugin.file.clone(),
            first: first.plugin.info().name.clone(),
        })
    })
}
