//! What the running flows are doing, as plain numbers: for those who watch the host.

use std::sync::Arc;

use super::{Shared, cell::NodeCell, mailbox::MailboxFigures, sessions::SessionFigures};
use crate::{
    flow::NodeKind,
    metrics::{Family, PluginSwaps},
};

/// The runtime at one moment. (Not of one moment: the nodes are looked at one after the other.)
#[derive(Debug, Default)]
pub struct Figures {
    /// The nodes, config nodes before those that use them.
    pub nodes: Vec<NodeFigures>,
    /// What the nodes' metrics are, by name without `_total`.
    pub families: Vec<(Arc<str>, Family)>,
    /// The plugins in use.
    pub plugins: Vec<PluginFigures>,
}

/// One node.
#[derive(Debug, Default)]
pub struct NodeFigures {
    /// Its id.
    pub id: String,
    /// Its type.
    pub node_type: String,
    /// Its name, perhaps empty.
    pub name: String,
    /// Its mailbox; config nodes have none to speak of.
    pub mailbox: Option<MailboxFigures>,
    /// Its sessions; `None` when it never had one, nor waits for one.
    pub sessions: Option<SessionFigures>,
    /// What it counts itself, by name without `_total`.
    pub metrics: Vec<(Arc<str>, i64)>,
}

/// One plugin.
#[derive(Debug)]
pub struct PluginFigures {
    /// Its name.
    pub name: String,
    /// The version in use.
    pub version: String,
    /// Its hot swaps.
    pub swaps: PluginSwaps,
}

pub(super) fn figures(shared: &Shared) -> Figures {
    let plugins = shared.registry.plugins();
    Figures {
        nodes: shared.cells_in_order().iter().map(|cell| node(cell)).collect(),
        families: shared.families.all(),
        plugins: plugins
            .iter()
            .map(|plugin| PluginFigures {
                name: plugin.info().name.clone(),
                version: plugin.info().version.clone(),
                swaps: shared.swaps.of(&plugin.info().name),
            })
            .collect(),
    }
}

fn node(cell: &NodeCell) -> NodeFigures {
    let node = &cell.graph_node;
    NodeFigures {
        id: node.id.clone(),
        node_type: node.node_type.clone(),
        name: node.name.clone(),
        mailbox: (node.kind != NodeKind::Config).then(|| cell.mailbox_figures()),
        sessions: cell.sessions.figures(),
        metrics: cell.metrics.read(),
    }
}
