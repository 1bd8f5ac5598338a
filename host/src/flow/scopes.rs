//! Who hears of a node: which catch nodes get its errors, which status nodes its status, which complete nodes learn
//! that it is done with a message.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::graph::{FlowGraph, GraphNode, Instance};
use super::limits::Limits;
use super::problems::Problems;
use super::roles::Role;

/// The catch, status and complete nodes that hear of one node, each list in the order in which they are told. The ids
/// are nodes of the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventRoutes {
    /// Catch nodes that get its errors. Empty: the error is only logged.
    pub catch: Vec<String>,
    /// Status nodes that get its status.
    pub status: Vec<String>,
    /// Complete nodes that are told when it is done.
    pub complete: Vec<String>,
}

/// What a listening node listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Listed,
    Group,
    Flow,
}

/// One catch, status or complete node.
#[derive(Debug, Clone)]
struct Listener {
    node: usize,
    reach: Reach,
    uncaught: bool,
}

/// The listeners of one role in one tab or subflow instance.
#[derive(Debug, Clone, Default)]
struct Listeners {
    all: Vec<Listener>,
    /// Those (by place in `all`) that list an id, by that id.
    listing: HashMap<String, Vec<usize>>,
    /// The others.
    broad: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
struct Here {
    catch: Listeners,
    status: Listeners,
    complete: Listeners,
}

/// All listeners of a graph, by the tab or instance that contains them.
#[derive(Debug, Clone, Default)]
pub(super) struct EventIndex {
    tabs: HashMap<Option<String>, Here>,
    /// Apart from tabs: a file may use the id of an instance as the `z` of nodes that are on no tab.
    instances: HashMap<String, Here>,
}

/// The node that an event comes from, as seen in the tab or instance that contains it: in the parents of a subflow
/// this is the instance.
#[derive(Clone, Copy)]
struct Reporter<'g> {
    id: &'g str,
    z: &'g Option<String>,
    /// The instance that it is inside of.
    inside: Option<&'g str>,
    groups: &'g [String],
}

impl EventIndex {
    pub(super) fn new(nodes: &[GraphNode], limits: &Limits, problems: &mut Problems) -> EventIndex {
        let mut index = EventIndex::default();
        for (place, node) in nodes.iter().enumerate() {
            if matches!(node.role, Role::Catch | Role::Status | Role::Complete) {
                index.add(place, node, limits, problems);
            }
        }
        index
    }

    fn add(&mut self, place: usize, node: &GraphNode, limits: &Limits, problems: &mut Problems) {
        let here = match node.instance_id() {
            Some(instance) => self.instances.entry(instance.to_owned()).or_default(),
            None => self.tabs.entry(node.z.clone()).or_default(),
        };
        let listeners = match node.role {
            Role::Catch => &mut here.catch,
            Role::Status => &mut here.status,
            _ => &mut here.complete,
        };
        let (reach, ids) = match node.config.get("scope") {
            Some(Value::Array(ids)) => (Reach::Listed, ids.as_slice()),
            // A complete node hears only of nodes that it lists.
            _ if node.role == Role::Complete => (Reach::Listed, &[][..]),
            Some(Value::String(scope)) if scope == "group" => (Reach::Group, &[][..]),
            None | Some(Value::Null) => (Reach::Flow, &[][..]),
            Some(Value::String(scope)) if scope.is_empty() => (Reach::Flow, &[][..]),
            Some(_) => {
                let text = "its scope is neither a list of nodes nor group; it hears of nothing";
                problems.warning(node.stored_id(), &node.node_type, text);
                (Reach::Listed, &[][..])
            }
        };
        let wired = if node.role == Role::Status { wired_to(node) } else { HashSet::new() };
        let listener = listeners.all.len();
        if reach == Reach::Listed {
            let mut listed = HashSet::new();
            for id in ids.iter().filter_map(Value::as_str) {
                // A status node that heard of the node it sends to could answer itself for ever.
                if !wired.contains(id) && listed.insert(id) {
                    listeners.listing.entry(id.to_owned()).or_default().push(listener);
                }
            }
        } else if listeners.broad.len() < limits.listeners {
            listeners.broad.push(listener);
        } else {
            let text = format!(
                "its tab has {} others that hear of all nodes; it hears of nothing",
                limits.listeners
            );
            problems.error(node.stored_id(), &node.node_type, text);
        }
        let uncaught = node.role == Role::Catch && node.config.get("uncaught") == Some(&Value::Bool(true));
        listeners.all.push(Listener { node: place, reach, uncaught });
    }

    /// The listeners in the tab or instance that contains the reporter.
    fn here(&self, reporter: Reporter<'_>) -> Option<&Here> {
        match reporter.inside {
            Some(instance) => self.instances.get(instance),
            None => self.tabs.get(reporter.z),
        }
    }

    /// Routes for the node or instance `id`, counting only listeners that are `alive`. Takes time by the number of
    /// listeners that it finds and of group-scoped ones in the same tab.
    pub(super) fn routes(&self, graph: &FlowGraph, id: &str, alive: &dyn Fn(&str) -> bool) -> EventRoutes {
        let Some(reporter) = reporter(graph, id) else { return EventRoutes::default() };
        let names = |nodes: Vec<usize>| nodes.into_iter().map(|node| graph.nodes[node].id.clone()).collect();
        let complete = match self.here(reporter) {
            Some(here) => matching(graph, &here.complete, reporter, alive),
            None => Vec::new(),
        };
        EventRoutes {
            catch: names(self.catch(graph, reporter, alive)),
            status: names(self.status(graph, reporter, alive)),
            complete: names(complete.into_iter().map(|listener| listener.node).collect()),
        }
    }

    /// All that match and are not for uncaught errors; without any, those for uncaught errors; in a subflow, without
    /// any, the same around the instance.
    fn catch<'g>(
        &self,
        graph: &'g FlowGraph,
        mut reporter: Reporter<'g>,
        alive: &dyn Fn(&str) -> bool,
    ) -> Vec<usize> {
        loop {
            if let Some(here) = self.here(reporter) {
                let found = matching(graph, &here.catch, reporter, alive);
                let (last, first): (Vec<_>, Vec<_>) =
                    found.into_iter().partition(|listener| listener.uncaught);
                let takers = if first.is_empty() { last } else { first };
                if !takers.is_empty() {
                    return takers.into_iter().map(|listener| listener.node).collect();
                }
            }
            let Some(outer) = outer(graph, reporter) else { return Vec::new() };
            reporter = outer;
        }
    }

    /// All that match; in a subflow without a status output, without any, the same around the instance.
    fn status<'g>(
        &self,
        graph: &'g FlowGraph,
        mut reporter: Reporter<'g>,
        alive: &dyn Fn(&str) -> bool,
    ) -> Vec<usize> {
        loop {
            if let Some(here) = self.here(reporter) {
                let found = matching(graph, &here.status, reporter, alive);
                if !found.is_empty() {
                    return found.into_iter().map(|listener| listener.node).collect();
                }
            }
            let around = reporter.inside.and_then(|id| graph.instance(id));
            if around.is_none_or(|instance| instance.has_status_output) {
                return Vec::new();
            }
            let Some(outer) = outer(graph, reporter) else { return Vec::new() };
            reporter = outer;
        }
    }
}

impl<'g> Reporter<'g> {
    fn instance(instance: &'g Instance) -> Reporter<'g> {
        let inside = instance.parent.as_deref();
        Reporter { id: &instance.id, z: &instance.z, inside, groups: &instance.groups }
    }
}

fn reporter<'g>(graph: &'g FlowGraph, id: &str) -> Option<Reporter<'g>> {
    if let Some(instance) = graph.instance(id) {
        return Some(Reporter::instance(instance));
    }
    let node = graph.node(id)?;
    // Errors of global config nodes belong to no flow. Nodes written without coordinates are another matter.
    if node.z.is_none() && !node.config.contains_key("wires") {
        return None;
    }
    Some(Reporter { id: &node.id, z: &node.z, inside: node.instance_id(), groups: &node.groups })
}

/// The reporter as the parent of its subflow sees it; `None` outside subflows. Every step leads to an instance that was
/// unfolded earlier, so stepping outwards ends.
fn outer<'g>(graph: &'g FlowGraph, inner: Reporter<'g>) -> Option<Reporter<'g>> {
    Some(Reporter::instance(graph.instance(inner.inside?)?))
}

/// The listeners that hear of the reporter: those with a scope first, those for uncaught errors last, and within that
/// those in nearer groups first.
fn matching<'l>(
    graph: &FlowGraph,
    listeners: &'l Listeners,
    reporter: Reporter<'_>,
    alive: &dyn Fn(&str) -> bool,
) -> Vec<&'l Listener> {
    let listing = listeners.listing.get(reporter.id).map_or(&[][..], Vec::as_slice);
    let mut found: Vec<(u8, usize, usize)> = Vec::new();
    for &place in listing.iter().chain(&listeners.broad) {
        let listener = &listeners.all[place];
        let node = &graph.nodes[listener.node];
        let own_group = node.groups.first();
        let distance = reporter.groups.iter().position(|group| Some(group) == own_group);
        if listener.reach == Reach::Group && distance.is_none() || !alive(&node.id) {
            continue;
        }
        let class = match (listener.uncaught, listener.reach) {
            (true, _) => 2,
            (false, Reach::Flow) => 1,
            (false, Reach::Listed | Reach::Group) => 0,
        };
        found.push((class, distance.unwrap_or(reporter.groups.len()), place));
    }
    found.sort_unstable();
    found.into_iter().map(|(_, _, place)| &listeners.all[place]).collect()
}

/// The ids that a node is wired to in the file, subflow instances included.
fn wired_to(node: &GraphNode) -> HashSet<&str> {
    let ports = node.config.get("wires").and_then(Value::as_array).into_iter().flatten();
    ports.filter_map(Value::as_array).flatten().filter_map(Value::as_str).collect()
}
