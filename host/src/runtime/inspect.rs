//! What each node, mailbox and connection is doing, for `GET /runtime`: worked out when somebody asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Phase, Shared,
    cell::NodeCell,
    mailbox::MailboxFigures,
    sessions::{Session, SessionFigures},
};
use crate::{
    flow::{GraphNode, HOST_TYPES},
    plugin::Plugin,
};

/// How much is listed; the totals are of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nodes, in the order in which they start.
    pub nodes: usize,
    /// Connections, those with the most bytes waiting first.
    pub connections: usize,
}

/// The running flows. (Not of one moment: one thing is looked at after the other.)
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// `starting`, `waiting` (for node types that no plugin has), `running` or `stopping`.
    pub state: &'static str,
    /// The node types that the flows wait for, or that nodes were left out for.
    pub missing_types: Vec<String>,
    /// Sums over everything, listed or not.
    pub totals: Totals,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The connections.
    pub connections: Vec<Connection>,
    /// The plugins in use.
    pub plugins: Vec<PluginInUse>,
}

/// One plugin.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginInUse {
    /// Its name.
    pub name: String,
    /// The version in use.
    pub version: String,
    /// Which build since the start is in use: 1 for the first.
    pub generation: u64,
    /// The builds that nodes and connections are in.
    pub generations_in_use: BTreeSet<u64>,
    /// Hot swaps that were done.
    pub swaps: u64,
    /// Hot swaps that were undone: the old code went on.
    pub undone: u64,
    /// The last that was done.
    pub last_swap: Option<LastSwap>,
    /// Why the present content of its file is not in use.
    pub last_error: Option<String>,
    /// The file that it was loaded from.
    #[serde(skip)]
    pub file: PathBuf,
}

/// A hot swap.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastSwap {
    seconds_ago: u64,
    took_ms: f64,
    held_ms: f64,
}

/// Sums.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Nodes of the flows.
    pub nodes: usize,
    /// Those of them that do not run.
    pub failed: usize,
    /// Messages that wait in mailboxes.
    pub waiting: usize,
    /// Messages that nodes are working on.
    pub in_hand: usize,
    /// Messages that mailboxes have refused so far.
    pub refused: u64,
    /// Nodes whose sources wait for them.
    pub congested: usize,
    /// Nodes that were given up.
    pub stuck: usize,
    /// Connections.
    pub connections: usize,
    /// Messages that wait to be sent to peers.
    pub queued: usize,
    /// Bytes that wait to be sent to peers.
    pub queued_bytes: usize,
}

/// One node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    id: String,
    r#type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// The tab it is on; absent for global config nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    tab: Option<String>,
    /// `running`, `held` (it is being exchanged), `congested` (its sources wait for it), `stuck` (it was given up), or
    /// `failed` (it could not be created).
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<Code>,
    /// Messages in its mailbox.
    waiting: usize,
    waiting_bytes: usize,
    /// Messages that it is working on.
    in_hand: usize,
    /// Messages that it has taken so far.
    taken: u64,
    /// Messages refused so far.
    refused: u64,
    /// Its connections; absent when it never had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<NodeSessions>,
}

/// The connections of one node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeSessions {
    count: usize,
    /// Messages that wait to be sent.
    queued: usize,
    queued_bytes: usize,
    /// Messages dropped so far because a queue was full.
    dropped: u64,
    /// Connections cut so far for it.
    cut: u64,
}

/// Whose code something is in.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Code {
    /// The plugin.
    name: String,
    /// Which build of it since the start.
    generation: u64,
    /// It is the one in use for new nodes and connections.
    current: bool,
}

/// One connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The session's id.
    session: String,
    /// The node that has it.
    node: String,
    /// Who is at the other end.
    peer: String,
    /// Messages that wait to be sent.
    queued: usize,
    queued_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<Code>,
    /// Since it was opened.
    seconds: u64,
}

pub(super) fn inspect(shared: &Shared, limits: Limits) -> Inspection {
    let missing_types = shared.missing_types.load();
    let state = match shared.phase.get() {
        Phase::Starting if !missing_types.is_empty() => "waiting",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
    };
    let mut all = Inspection {
        state,
        missing_types: missing_types.to_vec(),
        totals: Totals::default(),
        nodes: Vec::new(),
        connections: Vec::new(),
        plugins: plugins(shared),
    };
    let mut sessions: Vec<(usize, Arc<Session>, Arc<NodeCell>)> = Vec::new();
    for node in &shared.graph.load().nodes {
        let cell = shared.node(&node.id);
        if cell.is_none() && is_data(shared, node) {
            continue;
        }
        all.totals.nodes += 1;
        let listed = all.look_at(shared, node, cell.as_deref());
        if all.nodes.len() < limits.nodes {
            all.nodes.push(listed);
        }
        if let Some(cell) = cell {
            for session in cell.sessions.all() {
                all.note(code(shared, node, Some(session.served_by())).as_ref());
                sessions.push((session.queued_bytes(), session, cell.clone()));
            }
        }
    }
    all.totals.connections = sessions.len();
    // Whoever does not keep up is what one looks for.
    sessions.sort_by(|(one, a, _), (two, b, _)| two.cmp(one).then(a.opened().cmp(&b.opened())));
    let now = Instant::now();
    sessions.truncate(limits.connections);
    all.connections =
        sessions.iter().map(|(_, session, cell)| connection(shared, session, cell, now)).collect();
    all
}

/// A type that the host knows without a plugin: the node is there for others to refer to, and does not run.
fn is_data(shared: &Shared, node: &GraphNode) -> bool {
    HOST_TYPES.contains(&node.node_type.as_str()) && shared.registry.get(&node.node_type).is_none()
}

fn plugins(shared: &Shared) -> Vec<PluginInUse> {
    let in_use = |plugin: &Arc<Plugin>| {
        let info = plugin.info();
        let swaps = shared.swaps.of(&info.name);
        let ms = |took: Duration| took.as_micros() as f64 / 1000.0;
        PluginInUse {
            name: info.name.clone(),
            version: info.version.clone(),
            generation: swaps.generation,
            generations_in_use: BTreeSet::new(),
            swaps: swaps.done,
            undone: swaps.undone,
            last_swap: swaps.last_at.map(|at| LastSwap {
                seconds_ago: at.elapsed().as_secs(),
                took_ms: ms(swaps.last_took),
                held_ms: ms(swaps.last_held),
            }),
            last_error: None,
            file: info.file.clone(),
        }
    };
    shared.registry.plugins().iter().map(in_use).collect()
}

impl Inspection {
    /// Something is in that code.
    fn note(&mut self, code: Option<&Code>) {
        let plugin = code.and_then(|code| self.plugins.iter_mut().find(|plugin| plugin.name == code.name));
        if let (Some(plugin), Some(code)) = (plugin, code) {
            plugin.generations_in_use.insert(code.generation);
        }
    }

    /// Adds a node to the sums, and returns how it is listed.
    fn look_at(&mut self, shared: &Shared, node: &GraphNode, cell: Option<&NodeCell>) -> Node {
        let instance = cell.and_then(NodeCell::instance);
        let mailbox = cell.map(NodeCell::mailbox_figures).unwrap_or_default();
        let sessions = cell.and_then(|cell| cell.sessions.figures());
        let code = code(shared, node, instance.map(|instance| instance.plugin.info().generation));
        let totals = &mut self.totals;
        totals.failed += usize::from(code.is_none());
        totals.waiting += mailbox.waiting;
        totals.in_hand += mailbox.in_hand;
        totals.refused += mailbox.refused;
        totals.congested += usize::from(mailbox.holds_sources);
        totals.stuck += usize::from(mailbox.given_up);
        if let Some(sessions) = &sessions {
            totals.queued += sessions.messages;
            totals.queued_bytes += sessions.bytes;
        }
        self.note(code.as_ref());
        Node {
            id: node.id.clone(),
            r#type: node.node_type.clone(),
            name: node.name.clone(),
            tab: node.flow_id.clone(),
            state: state_of(&mailbox, code.is_some()),
            plugin: code,
            waiting: mailbox.waiting,
            waiting_bytes: mailbox.waiting_bytes,
            in_hand: mailbox.in_hand,
            taken: mailbox.taken,
            refused: mailbox.refused,
            sessions: sessions.map(NodeSessions::from),
        }
    }
}

fn state_of(mailbox: &MailboxFigures, runs: bool) -> &'static str {
    match mailbox {
        _ if !runs => "failed",
        MailboxFigures { given_up: true, .. } => "stuck",
        MailboxFigures { held: true, .. } => "held",
        MailboxFigures { holds_sources: true, .. } => "congested",
        _ => "running",
    }
}

impl From<SessionFigures> for NodeSessions {
    fn from(figures: SessionFigures) -> Self {
        let SessionFigures { count, messages, bytes, dropped, cut } = figures;
        Self { count, queued: messages, queued_bytes: bytes, dropped, cut }
    }
}

/// The code of a node's type that was loaded with that number.
fn code(shared: &Shared, node: &GraphNode, generation: Option<u64>) -> Option<Code> {
    // 0 is none yet: numbers begin at 1.
    let loading = generation.filter(|number| *number > 0)?;
    let registered = shared.registry.get(&node.node_type);
    let info = registered.as_ref().map(|registered| registered.plugin.info());
    Some(Code {
        name: info.map_or_else(String::new, |info| info.name.clone()),
        generation: shared.numbers.of(loading),
        current: info.is_some_and(|info| info.generation == loading),
    })
}

fn connection(shared: &Shared, session: &Session, cell: &NodeCell, now: Instant) -> Connection {
    Connection {
        session: session.id().to_string(),
        node: cell.id().to_owned(),
        peer: session.peer().to_owned(),
        queued: session.queued(),
        queued_bytes: session.queued_bytes(),
        plugin: code(shared, &cell.graph_node, Some(session.served_by())),
        seconds: now.saturating_duration_since(session.opened()).as_secs(),
    }
}

/// Which build of its plugin each loaded library is. Libraries are numbered in the life of the process; people count
/// from 1 for each plugin.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Those that are not the first of their plugin.
    later: Mutex<BTreeMap<u64, u64>>,
}

/// How many are remembered; of older ones nothing can be in use any more, or there are more urgent problems.
const MAX_NUMBERS: usize = 1_000;

impl Numbers {
    /// The library that was loaded with that number is the so-and-so many-th of its plugin.
    pub fn note(&self, loading: u64, generation: u64) {
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        later.insert(loading, generation);
        if later.len() > MAX_NUMBERS {
            later.pop_first();
        }
    }

    fn of(&self, loading: u64) -> u64 {
        self.later.lock().unwrap_or_else(PoisonError::into_inner).get(&loading).copied().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_counted_from_one_and_not_remembered_without_end() {
        let numbers = Numbers::default();
        for loading in 1..=2_000 {
            numbers.note(loading, loading + 1);
        }
        assert_eq!((numbers.of(2_000), numbers.of(5_000)), (2_001, 1));
        assert_eq!(numbers.later.lock().unwrap().len(), MAX_NUMBERS);
    }

    #[test]
    fn the_worst_is_a_nodes_state() {
        let figures = |holds_sources, held, given_up| MailboxFigures {
            holds_sources,
            held,
            given_up,
            ..MailboxFigures::default()
        };
        for (mailbox, runs, expected) in [
            (figures(false, false, false), true, "running"),
            (figures(true, false, false), true, "congested"),
            (figures(true, true, false), true, "held"),
            (figures(true, true, true), true, "stuck"),
            (figures(true, true, true), false, "failed"),
        ] {
            assert_eq!(state_of(&mailbox, runs), expected);
        }
    }
}
