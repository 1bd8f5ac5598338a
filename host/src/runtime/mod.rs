//! The running flows.
//!
//! A flow graph becomes cells, one per node; a cell has a mailbox and, behind it, the plugin's node. Messages
//! go from cell to cell on the thread whose poll sent them (`drain`); futures of plugins are tasks of the host's
//! tokio. One control thread starts, changes and stops flows, one thing at a time.

mod api;
mod blocking;
mod cell;
mod console;
mod context;
mod control;
mod deploy;
mod drain;
mod endpoints;
mod events;
mod figures;
mod inspect;
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

pub use context::ContextError;
pub use control::{Phase, Runtime, State};
pub use figures::{Figures, NodeFigures, PluginFigures};
pub use inspect::{Inspection, Limits, PluginInUse};
pub use mailbox::MailboxFigures;
pub use sessions::SessionFigures;

use self::{
    blocking::BlockingPool,
    cell::NodeCell,
    console::Console,
    context::ContextStores,
    control::PhaseCell,
    endpoints::Tickets,
    mailbox::Marks,
    sessions::{Overflow, QueueLimits},
};
use crate::{
    flow::FlowGraph,
    http::Routes,
    metrics::{Families, Swaps, exposition},
    registry::Registry,
    settings::Settings,
    tls_config::TlsConfigs,
};

/// Why the flows cannot be started.
#[derive(Debug)]
pub enum StartError {
    /// The system has no thread to give.
    Thread(std::io::Error),
    /// Context cannot be kept as the settings want it.
    Context(context::ContextError),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Thread(error) => write!(f, "no thread to run on: {error}"),
            Self::Context(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        Self::Thread(error)
    }
}

impl From<context::ContextError> for StartError {
    fn from(error: context::ContextError) -> Self {
        Self::Context(error)
    }
}

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
    /// Where nodes block.
    blocking: BlockingPool,
    /// The names of the nodes' metrics.
    families: Families,
    /// What became of hot swaps.
    swaps: Swaps,
    phase: PhaseCell,
    /// Node types that flows need and no plugin has.
    missing_types: ArcSwap<Vec<String>>,
    /// Which build of its plugin each loaded library is.
    numbers: inspect::Numbers,
    /// The flows as they are deployed, or being deployed.
    graph: ArcSwap<FlowGraph>,
    tls_configs: TlsConfigs,
    nodes: RwLock<HashMap<String, Arc<NodeCell>>>,
}

impl Shared {
    fn new(
        settings: Settings,
        tokio: Handle,
        routes: Arc<Routes>,
        registry: Arc<Registry>,
    ) -> Result<Self, StartError> {
        Ok(Self {
            context: ContextStores::open(&settings)?,
            marks: Marks {
                mark: settings.mailbox_mark,
                mark_bytes: settings.mailbox_mark_bytes,
                cap: settings.mailbox_cap,
                cap_bytes: settings.mailbox_cap_bytes,
            },
            queue_limits: QueueLimits {
                values: settings.session_queue_messages,
                bytes: settings.session_queue_bytes,
                overflow: Overflow::Close,
            },
            blocking: BlockingPool::new(&settings),
            settings,
            tokio,
            routes,
            registry,
            console: Console::start()?,
            tickets: Arc::default(),
            families: Families::new(exposition::OWN.iter().copied()),
            swaps: Swaps::default(),
            phase: PhaseCell::default(),
            missing_types: ArcSwap::default(),
            numbers: inspect::Numbers::default(),
            graph: ArcSwap::from_pointee(FlowGraph::empty()),
            tls_configs: TlsConfigs::default(),
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
