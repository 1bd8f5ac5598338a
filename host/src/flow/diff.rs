//! What a deploy restarts: the difference between two graphs.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Map, Value};

use super::graph::{FlowGraph, GraphNode};

/// Properties that may change without a restart.
const NODE_LAYOUT: [&str; 3] = ["x", "y", "wires"];
const GROUP_LAYOUT: [&str; 6] = ["x", "y", "w", "h", "nodes", "style"];
/// The ports of a subflow are wires of the nodes around and inside its instances, which are compared themselves.
const SUBFLOW_LAYOUT: [&str; 5] = ["x", "y", "in", "out", "status"];

/// How much a deploy restarts: Node-RED's deployment types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeployType {
    /// Everything, changed or not.
    #[default]
    Full,
    /// What changed, and every node that wires connect with it, in either direction and over any distance.
    Flows,
    /// What changed.
    Nodes,
}

/// What is to be done to get from one running graph to another. Every node is in exactly one list; the lists are in
/// start order, `removed` in the old graph's, the others in the new one's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphDiff {
    /// Nodes to create.
    pub added: Vec<String>,
    /// Nodes to close for good.
    pub removed: Vec<String>,
    /// Nodes to close and create again.
    pub changed: Vec<String>,
    /// Nodes that keep running and send to other nodes from now on.
    pub rewired: Vec<String>,
    /// Nodes that nothing happens to.
    pub unchanged: Vec<String>,
}

impl GraphDiff {
    /// The difference for a deploy of type [`Nodes`](DeployType::Nodes): the smallest number of restarts.
    ///
    /// Restarted are nodes with any other property changed than position and wires, with other or new credentials, or with
    /// other values filled in for their variables; nodes that refer to one that is changed, added or removed, and so
    /// on; the members of a changed group; everything on a tab whose variables changed; all nodes of a subflow
    /// instance when anything in it or in its definition changed. A change of `global-config` restarts everything.
    pub fn between(old: &FlowGraph, new: &FlowGraph) -> GraphDiff {
        if global_config(old) != global_config(new) {
            return Self::full(old, new);
        }
        let changed = Comparison::new(old, new).changed();
        Self::with_changed(old, new, &changed)
    }

    /// The difference for a deploy of type [`Full`](DeployType::Full): everything that stays is restarted.
    pub fn full(old: &FlowGraph, new: &FlowGraph) -> GraphDiff {
        Self::with_changed(old, new, &vec![true; new.nodes.len()])
    }

    /// The difference for a deploy of the given type.
    pub fn of_type(deploy: DeployType, old: &FlowGraph, new: &FlowGraph) -> GraphDiff {
        match deploy {
            DeployType::Full => Self::full(old, new),
            DeployType::Nodes => Self::between(old, new),
            DeployType::Flows => Self::between(old, new).with_connected(old, new),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.rewired.is_empty()
    }

    /// Sorts nodes into the lists; `changed` says for every node of `new` whether it is to be restarted if it exists.
    fn with_changed(old: &FlowGraph, new: &FlowGraph, changed: &[bool]) -> GraphDiff {
        let mut diff = GraphDiff::default();
        for (node, &changed) in new.nodes.iter().zip(changed) {
            let list = match old.node(&node.id) {
                None => &mut diff.added,
                Some(_) if changed => &mut diff.changed,
                Some(before) if !same_wires(&before.wires, &node.wires) => &mut diff.rewired,
                Some(_) => &mut diff.unchanged,
            };
            list.push(node.id.clone());
        }
        let gone = old.nodes.iter().filter(|node| new.node(&node.id).is_none());
        diff.removed = gone.map(|node| node.id.clone()).collect();
        diff
    }

    /// Adds to `changed` whatever wires, old or new, connect with something that is not unchanged.
    fn with_connected(self, old: &FlowGraph, new: &FlowGraph) -> GraphDiff {
        let mut neighbours: HashMap<&str, Vec<&str>> = HashMap::new();
        for node in old.nodes.iter().chain(&new.nodes) {
            for target in node.wires.iter().flatten() {
                neighbours.entry(&node.id).or_default().push(target);
                neighbours.entry(target).or_default().push(&node.id);
            }
        }
        let seeds = [&self.added, &self.removed, &self.changed, &self.rewired];
        let mut queue: Vec<&str> = seeds.into_iter().flatten().map(String::as_str).collect();
        let mut reached: HashSet<&str> = queue.iter().copied().collect();
        while let Some(id) = queue.pop() {
            for &other in neighbours.get(id).map_or(&[][..], Vec::as_slice) {
                if reached.insert(other) {
                    queue.push(other);
                }
            }
        }
        let changed: Vec<bool> = new.nodes.iter().map(|node| reached.contains(node.id.as_str())).collect();
        Self::with_changed(old, new, &changed)
    }
}

/// Whether two nodes send to the same nodes: outputs at the end that are wired to nothing make no difference.
fn same_wires(old: &[Vec<String>], new: &[Vec<String>]) -> bool {
    let outputs = old.len().max(new.len());
    (0..outputs).all(|output| old.get(output).into_iter().flatten().eq(new.get(output).into_iter().flatten()))
}

fn same(old: &Map<String, Value>, new: &Map<String, Value>, ignored: &[&str]) -> bool {
    let counts = |key: &String| !ignored.contains(&key.as_str());
    let kept = |map: &Map<String, Value>| map.keys().filter(|key| counts(key)).count();
    kept(old) == kept(new) && new.iter().all(|(key, value)| !counts(key) || old.get(key) == Some(value))
}

/// The ids in `new_sources` (id to place in the file) whose entry is new or differs by more than `layout`.
fn differing<'g>(
    old: &FlowGraph,
    old_sources: &HashMap<String, usize>,
    new: &FlowGraph,
    new_sources: &'g HashMap<String, usize>,
    layout: &[&str],
) -> HashSet<&'g str> {
    let mut found = HashSet::new();
    for (id, &source) in new_sources {
        let before = old_sources.get(id).and_then(|&source| old.raw(source));
        let now = new.raw(source);
        let unchanged = before.zip(now).is_some_and(|(before, now)| {
            same(before, now, layout) && same_credentials(old, new, now.get("id"))
        });
        if !unchanged {
            found.insert(id.as_str());
        }
    }
    found
}

/// Whether an entry of the file has the same credentials in both.
fn same_credentials(old: &FlowGraph, new: &FlowGraph, id: Option<&Value>) -> bool {
    id.and_then(Value::as_str).is_none_or(|id| old.credentials.of(id) == new.credentials.of(id))
}

/// What a `global-config` node defines: its properties, by name, and its credentials.
type GlobalConfig<'g> = (Vec<(&'g String, &'g Value)>, Option<&'g Map<String, Value>>);

/// All enabled `global-config` nodes, without their position.
fn global_config(graph: &FlowGraph) -> Vec<GlobalConfig<'_>> {
    let nodes = graph.nodes.iter().filter(|node| node.node_type == "global-config");
    nodes
        .filter_map(|node| {
            let entry = graph.raw(node.source)?;
            let mut properties: Vec<_> =
                entry.iter().filter(|(key, _)| !NODE_LAYOUT.contains(&key.as_str())).collect();
            properties.sort_by_key(|(key, _)| *key);
            Some((properties, graph.credentials.of(node.stored_id())))
        })
        .collect()
}

/// Which nodes of `new` differ from those of `old`.
struct Comparison<'g> {
    old: &'g FlowGraph,
    new: &'g FlowGraph,
    /// Tabs, groups and subflow definitions that changed so that their contents restart.
    tabs: HashSet<&'g str>,
    groups: HashSet<&'g str>,
    definitions: HashSet<&'g str>,
    /// Nodes of `new` that are part of an outermost instance, by that instance.
    inside: HashMap<usize, Vec<usize>>,
}

impl<'g> Comparison<'g> {
    fn new(old: &'g FlowGraph, new: &'g FlowGraph) -> Comparison<'g> {
        let env = |graph: &'g FlowGraph, source: Option<usize>| {
            let env = source.and_then(|source| graph.raw(source)).and_then(|entry| entry.get("env"));
            // No variables and an empty list are the same; the editor writes either.
            env.filter(|env| env.as_array().is_none_or(|list| !list.is_empty()))
        };
        let old_tabs: HashMap<&str, Option<usize>> =
            old.tabs.iter().map(|tab| (tab.id.as_str(), tab.source)).collect();
        let tabs = new.tabs.iter().filter(|tab| match old_tabs.get(tab.id.as_str()) {
            Some(&before) => {
                env(old, before) != env(new, tab.source)
                    || old.credentials.of(&tab.id) != new.credentials.of(&tab.id)
            }
            None => false,
        });
        let mut inside: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, node) in new.nodes.iter().enumerate() {
            if let Some(instance) = node.outermost {
                inside.entry(instance).or_default().push(index);
            }
        }
        Comparison {
            old,
            new,
            tabs: tabs.map(|tab| tab.id.as_str()).collect(),
            groups: differing(old, &old.groups, new, &new.groups, &GROUP_LAYOUT),
            definitions: differing(old, &old.definitions, new, &new.definitions, &SUBFLOW_LAYOUT),
            inside,
        }
    }

    /// For every node of `new` whether it is to be restarted.
    fn changed(&self) -> Vec<bool> {
        let mut changed = vec![false; self.new.nodes.len()];
        let mut restarted_instances = vec![false; self.new.instances.len()];
        let mut queue: VecDeque<&str> = VecDeque::new();

        // Nodes that are gone or new touch those that refer to them, and the instance that they are part of.
        let mut instances: Vec<usize> = Vec::new();
        for node in &self.old.nodes {
            if self.new.node(&node.id).is_none() {
                queue.push_back(&node.id);
                let outermost = node.outermost.map(|instance| self.old.instances[instance].id.as_str());
                instances.extend(outermost.and_then(|id| self.new.instances_by_id.get(id)));
            }
        }
        for (index, node) in self.new.nodes.iter().enumerate() {
            match self.old.node(&node.id) {
                None => {
                    queue.push_back(&node.id);
                    instances.extend(node.outermost);
                }
                Some(before) => {
                    if self.differs(before, node) {
                        changed[index] = true;
                        queue.push_back(&node.id);
                        instances.extend(node.outermost);
                    }
                }
            }
        }
        let differing = (0..self.new.instances.len()).filter(|&index| self.instance_differs(index));
        instances.extend(differing.map(|index| self.new.instances[index].outermost));

        let users = self.users();
        loop {
            for instance in instances.drain(..) {
                if std::mem::replace(&mut restarted_instances[instance], true) {
                    continue;
                }
                for &node in self.inside.get(&instance).map_or(&[][..], Vec::as_slice) {
                    if !std::mem::replace(&mut changed[node], true) {
                        queue.push_back(&self.new.nodes[node].id);
                    }
                }
            }
            let Some(id) = queue.pop_front() else { return changed };
            for &user in users.get(id).map_or(&[][..], Vec::as_slice) {
                if !std::mem::replace(&mut changed[user], true) {
                    queue.push_back(&self.new.nodes[user].id);
                    instances.extend(self.new.nodes[user].outermost);
                }
            }
        }
    }

    fn differs(&self, old: &GraphNode, new: &GraphNode) -> bool {
        let tab = new.flow_id.as_deref();
        let raw_differs = match (self.old.raw(old.source), self.new.raw(new.source)) {
            (Some(before), Some(now)) => !same(before, now, &NODE_LAYOUT),
            _ => true,
        };
        new.credentials_given
            || raw_differs
            || self.old.credentials.of(new.stored_id()) != self.new.credentials.of(new.stored_id())
            || old.kind != new.kind
            || old.role != new.role
            || old.path != new.path
            || old.groups != new.groups
            || tab.is_some_and(|tab| self.tabs.contains(tab))
            || new.groups.iter().any(|group| self.groups.contains(group.as_str()))
            // The same properties with other values for their variables.
            || !same(&old.config, &new.config, &NODE_LAYOUT)
    }

    /// Whether an instance changed in itself, so that the nodes inside it restart.
    fn instance_differs(&self, index: usize) -> bool {
        let new = &self.new.instances[index];
        let Some(old) = self.old.instance(&new.id) else { return true };
        let raw_differs = match (self.old.raw(old.source), self.new.raw(new.source)) {
            (Some(before), Some(now)) => !same(before, now, &NODE_LAYOUT),
            _ => true,
        };
        raw_differs
            || old.env != new.env
            || old.groups != new.groups
            || self.definitions.contains(new.subflow_id.as_str())
            || new.groups.iter().any(|group| self.groups.contains(group.as_str()))
    }

    /// For ids, the nodes of `new` with a property that names them.
    fn users(&self) -> HashMap<&'g str, Vec<usize>> {
        let mut users: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in self.new.nodes.iter().enumerate() {
            for id in super::config_order::references(&node.config) {
                if self.new.nodes_by_id.contains_key(id) || self.old.nodes_by_id.contains_key(id) {
                    users.entry(id).or_default().push(index);
                }
            }
        }
        users
    }
}
