//! The running flows.
//!
//! A flow graph becomes cells, one per node; a cell has a mailbox and, behind it, the plugin's node. Messages
//! go from cell to cell on the thread whose poll sent them (`drain`); futures of plugins are tasks of the host's
//! tokio. One control thread starts, changes and stops flows, one thing at a time.

mod api;
mod cell;
mod console;
mod context;
mod control;
mod deploy;
mod drain;
mod endpoints;
mod events;
mod mailbox;
mod patience;
mod pressure;
mod sessions;
mod swap;
mod tasks;
#[cfg(test)]
mod tests;
mod watch;
mod weight;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

pub use control::{Runtime, State};

use self::{
    cell::NodeCell, console::Console, context::ContextStores, endpoints::Tickets, mailbox::Marks,
    sessions::QueueLimits,
};
use crate::{
    flow::{FlowFile, FlowGraph},
    http::Routes,
    registry::Registry,
    settings::Settings,
};

/// What all cells of a runtime have in common.
pub struct Shared {
    /// The settings.
    pub settings: Settings,
    /// Where tasks run.
    pub tokio: Handle,
    /// The server's routes.
    pub routes: Arc<Routes>,
    /// The node types.
    pub registry: Arc<Registry>,
    marks: Marks,
    queue_limits: QueueLimits,
    console: Console,
    context: ContextStores,
    tickets: Arc<Tickets>,
    /// The flows as they are deployed, or being deployed.
    graph: ArcSwap<FlowGraph>,
    file: ArcSwap<FlowFile>,
    nodes: RwLock<HashMap<String, Arc<NodeCell>>>,
}

impl Shared {
    fn new(
        settings: Settings,
        tokio: Handle,
        routes: Arc<Routes>,
        registry: Arc<Registry>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            marks: Marks {
                mark: settings.mailbox_mark,
                mark_bytes: settings.mailbox_mark_bytes,
                cap: settings.mailbox_cap,
                cap_bytes: settings.mailbox_cap_bytes,
            },
            queue_limits: QueueLimits {
                values: settings.session_queue_messages,
                bytes: settings.session_queue_bytes,
            },
            settings,
            tokio,
            routes,
            registry,
            console: Console::start()?,
            context: ContextStores::default(),
            tickets: Arc::default(),
            graph: ArcSwap::from_pointee(FlowGraph::empty()),
            file: ArcSwap::from_pointee(FlowFile::default()),
            nodes: RwLock::default(),
        })
    }

    /// The cell of the node with that id.
    pub fn node(&self, id: &str) -> Option<Arc<NodeCell>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// All cells in the order in which nodes are started: config nodes before those that use them.
    fn cells_in_order(&self) -> Vec<Arc<NodeCell>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        self.graph.load().nodes.iter().filter_map(|node| nodes.get(&node.id).cloned()).collect()
    }

    fn cells(&self) -> Vec<Arc<NodeCell>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
