//! From the outline of a file to the nodes that run: scopes, config order, node configurations.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::config_order::{references, start_order};
use super::env::{
    EnvEntry, EnvSource, GLOBAL, NodeFacts, ScopeId, ScopeKind, Scopes, VALUE_BYTES, env_entries, overridden,
    size,
};
use super::file::FlowFile;
use super::graph::{Absence, FlowGraph, GraphNode, Instance, NodeKind, Tab};
use super::groups::GroupSpot;
use super::limits::{Budget, Limits};
use super::outline::{Entry, EntryId, Members, Outline};
use super::problems::{Problem, Problems, shown};
use super::roles::Roles;
use super::scopes::EventIndex;
use super::wiring::{Hop, InstancePorts, Slot};

/// Circles longer than this are not listed in full.
const LISTED_MEMBERS: usize = 10;

pub(super) fn build(
    file: &FlowFile,
    env: Arc<dyn EnvSource>,
    roles: &dyn Roles,
    limits: &Limits,
) -> (FlowGraph, Vec<Problem>) {
    let mut problems = Problems::default();
    problems.extend(file.problems());
    let outline = Outline::new(file.entries(), &mut problems);
    let mut builder = Builder {
        outline: &outline,
        file,
        roles,
        limits,
        scopes: Scopes::new(env),
        nodes: Vec::new(),
        hops: Vec::new(),
        instances: Vec::new(),
        ports: Vec::new(),
        slots: HashMap::new(),
        absent: HashMap::new(),
        group_sources: HashMap::new(),
        expanded: Budget::new(limits.expanded_entries),
        budget: Budget::new(limits.config_bytes),
        problems,
    };
    builder.global();
    let tabs = builder.tabs();
    builder.wire();
    builder.find_users();
    builder.report_limits();
    builder.into_graph(file, tabs)
}

/// The graph while it grows.
pub(super) struct Builder<'a> {
    pub(super) outline: &'a Outline<'a>,
    file: &'a FlowFile,
    roles: &'a dyn Roles,
    pub(super) limits: &'a Limits,
    pub(super) scopes: Scopes,
    pub(super) nodes: Vec<GraphNode>,
    /// For every node and output what the file wires it to; parallel to `nodes`.
    pub(super) hops: Vec<Vec<Vec<Hop>>>,
    pub(super) instances: Vec<Instance>,
    /// Parallel to `instances`.
    pub(super) ports: Vec<InstancePorts>,
    /// What an id at run time stands for.
    pub(super) slots: HashMap<String, Slot>,
    pub(super) absent: HashMap<String, Absence>,
    pub(super) group_sources: HashMap<String, usize>,
    /// Entries that instances may still unfold into.
    pub(super) expanded: Budget,
    /// Bytes of configuration that may still be copied.
    pub(super) budget: Budget,
    pub(super) problems: Problems,
}

/// Where entries are being turned into nodes: the global scope, a tab, or one instance of a subflow.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) z: Option<String>,
    pub(super) flow_id: Option<String>,
    pub(super) path: String,
    pub(super) scope: ScopeId,
    pub(super) inside: Option<Inside>,
    pub(super) spots: HashMap<&'a str, GroupSpot>,
}

/// The instance that entries are unfolded for.
#[derive(Debug, Clone)]
pub(super) struct Inside {
    /// Index of its definition in the outline.
    pub(super) definition: usize,
    /// Its id at run time.
    pub(super) id: String,
    /// Index of the outermost instance around it, or itself.
    pub(super) outermost: usize,
}

impl Context<'_> {
    /// The id at run time of an entry that stands here.
    pub(super) fn id_of(&self, id: &str) -> String {
        match &self.inside {
            Some(inside) => format!("{}-{id}", inside.id),
            None => id.to_owned(),
        }
    }

    pub(super) fn path_of(&self, id: &str) -> String {
        format!("{}/{id}", self.path)
    }

    pub(super) fn alias_of(&self, id: &str) -> Option<String> {
        self.inside.as_ref().map(|_| id.to_owned())
    }
}

/// A node and what its outputs are wired to in the file.
struct Built {
    node: GraphNode,
    hops: Vec<Vec<Hop>>,
}

impl<'a> Builder<'a> {
    fn global(&mut self) {
        let outline = self.outline;
        let mut variables = Vec::new();
        for &entry in &outline.global.configs {
            let entry = outline.entries[entry];
            if entry.node_type == "global-config" && !entry.disabled() {
                let own = env_entries(entry.id, entry.node_type, entry.properties, &mut self.problems);
                variables.extend(own);
            }
        }
        self.define(GLOBAL, &variables);
        for &entry in &outline.unplaced {
            self.absent.insert(outline.entries[entry].id.to_owned(), Absence::NoTab);
        }
        let mut context = Context {
            z: None,
            flow_id: None,
            path: "global".to_owned(),
            scope: GLOBAL,
            inside: None,
            spots: HashMap::new(),
        };
        self.fill(&outline.global, &mut context, &mut Vec::new());
    }

    fn tabs(&mut self) -> Vec<Tab> {
        let outline = self.outline;
        let mut tabs = Vec::with_capacity(outline.tabs.len());
        for tab in &outline.tabs {
            let entry = tab.entry.map(|entry| outline.entries[entry]);
            let label = entry.map_or("", |entry| entry.text("label")).to_owned();
            if tab.disabled {
                for &member in tab.members.configs.iter().chain(&tab.members.flow_nodes) {
                    self.absent.insert(outline.entries[member].id.to_owned(), Absence::TabDisabled);
                }
            } else {
                let kind = ScopeKind::Tab { id: tab.id.to_owned(), label: label.clone() };
                let scope = self.scopes.add(kind, GLOBAL);
                if let Some(entry) = entry {
                    let own = env_entries(entry.id, entry.node_type, entry.properties, &mut self.problems);
                    self.define(scope, &own);
                }
                let mut context = Context {
                    z: Some(tab.id.to_owned()),
                    flow_id: Some(tab.id.to_owned()),
                    path: tab.id.to_owned(),
                    scope,
                    inside: None,
                    spots: HashMap::new(),
                };
                self.fill(&tab.members, &mut context, &mut Vec::new());
            }
            tabs.push(Tab {
                id: tab.id.to_owned(),
                label,
                disabled: tab.disabled,
                implicit: entry.is_none(),
                source: entry.map(|entry| entry.source),
            });
        }
        tabs
    }

    /// Sets the variables of a scope; of entries with the same name the last one counts.
    pub(super) fn define(&mut self, scope: ScopeId, entries: &[EnvEntry<'a>]) {
        let entries = overridden(Vec::new(), entries.to_vec());
        // Also for entries without a value, which would otherwise cost nothing however many instances repeat them.
        self.budget.spend(entries.len() * VALUE_BYTES);
        self.scopes.define(scope, &entries, self.file.credentials(), &mut self.budget, &mut self.problems);
    }

    /// Creates the members of a tab, an instance or the global scope, in start order. `open` holds the definitions
    /// that are being unfolded, outermost first.
    pub(super) fn fill(&mut self, members: &Members, context: &mut Context<'a>, open: &mut Vec<usize>) {
        context.spots = self.groups(members, context);
        let mut configs = Vec::new();
        for &entry in &members.configs {
            if !self.counts(context) {
                break;
            }
            configs.extend(self.node(entry, NodeKind::Config, context));
        }
        for built in self.in_start_order(configs) {
            self.add(built);
        }
        for &entry in &members.flow_nodes {
            if !self.counts(context) {
                return;
            }
            if self.outline.entries[entry].subflow_id().is_some() {
                self.instance(entry, context, open);
            } else if let Some(built) = self.node(entry, NodeKind::Flow, context) {
                self.add(built);
            }
        }
    }

    /// Counts one entry unfolded inside an instance; false when there have been too many.
    pub(super) fn counts(&mut self, context: &Context<'a>) -> bool {
        context.inside.is_none() || self.expanded.spend(1)
    }

    /// Takes the id at run time of an entry that stands in `context`, unless the entry is not to be created.
    pub(super) fn claim(&mut self, entry: Entry<'a>, context: &Context<'a>) -> Option<String> {
        let id = context.id_of(entry.id);
        if entry.disabled() {
            self.absent.insert(id, Absence::Disabled);
            return None;
        }
        let taken = context.inside.is_some() && self.outline.by_id.contains_key(id.as_str());
        if taken || self.slots.contains_key(&id) {
            let text =
                format!("its id inside the subflow instance, {}, is taken by another node", shown(&id));
            self.problems.error(entry.id, entry.node_type, text);
            return None;
        }
        Some(id)
    }

    fn node(&mut self, entry_id: EntryId, kind: NodeKind, context: &Context<'a>) -> Option<Built> {
        let entry = self.outline.entries[entry_id];
        let id = self.claim(entry, context)?;
        if self.budget.exceeded() {
            self.absent.insert(id, Absence::Refused);
            return None;
        }
        let (groups, scope) = self.surroundings(entry_id, &context.spots, context);
        let path = context.path_of(entry.id);
        let lengths = groups.iter().map(String::len).sum::<usize>() + 2 * id.len() + path.len();
        // The graph's own bookkeeping for a node: about a dozen strings and lists, two maps.
        const NODE_BYTES: usize = 512;
        self.budget.spend(NODE_BYTES + lengths + context.z.as_ref().map_or(0, |z| 2 * z.len()));

        let facts = NodeFacts { id: &id, name: entry.text("name"), path: &path };
        let mut config = Map::with_capacity(entry.properties.len());
        for (key, value) in entry.properties {
            // What stands as it is in the file, or nearly.
            let structural = match key.as_str() {
                "id" => Some(Value::from(id.as_str())),
                "z" if context.inside.is_some() => Some(Value::from(context.z.as_deref())),
                "type" | "x" | "y" | "z" | "d" => Some(value.clone()),
                "g" => Some(self.renamed(value, context, 1).unwrap_or_else(|| value.clone())),
                // A list of outputs, each a list of ids.
                "wires" => Some(self.renamed(value, context, 3).unwrap_or_else(|| value.clone())),
                "scope" | "links" => None,
                _ => self.renamed(value, context, 1),
            };
            let value = match structural {
                Some(value) => {
                    self.budget.spend(size(&value));
                    value
                }
                None => {
                    let listed = matches!(key.as_str(), "scope" | "links");
                    let renamed = if listed { self.renamed(value, context, 2) } else { None };
                    self.scopes.substituted(renamed.as_ref().unwrap_or(value), scope, facts, &mut self.budget)
                }
            };
            config.insert(key.clone(), value);
        }
        if self.budget.exceeded() {
            self.absent.insert(id, Absence::Refused);
            return None;
        }
        let name = config.get("name").and_then(Value::as_str).unwrap_or("").to_owned();
        let hops = self.hops_of(entry, context);
        let node = GraphNode {
            role: self.roles.role(entry.node_type),
            kind,
            node_type: entry.node_type.to_owned(),
            name,
            z: context.z.clone(),
            flow_id: context.flow_id.clone(),
            alias: context.alias_of(entry.id),
            path,
            groups,
            config,
            wires: Vec::new(),
            users: Vec::new(),
            credentials_given: self.file.gives_credentials(entry.id),
            scope,
            source: entry.source,
            outermost: context.inside.as_ref().map(|inside| inside.outermost),
            id,
        };
        Some(Built { node, hops })
    }

    /// Inside an instance, the value of a property with the ids of other inner nodes rewritten, looking `levels` deep:
    /// 1 is the value itself, 2 its items. `None` when there is nothing to rewrite.
    fn renamed(&self, value: &Value, context: &Context<'a>, levels: usize) -> Option<Value> {
        let inside = context.inside.as_ref()?;
        match value {
            Value::String(id) if self.outline.is_inner(inside.definition, id) => {
                Some(Value::from(context.id_of(id)))
            }
            Value::Array(items) if levels > 1 => {
                let rename = |item| self.renamed(item, context, levels - 1).unwrap_or_else(|| item.clone());
                Some(items.iter().map(rename).collect())
            }
            _ => None,
        }
    }

    fn in_start_order(&mut self, built: Vec<Built>) -> Vec<Built> {
        let nodes: Vec<(&str, &Map<String, Value>)> =
            built.iter().map(|built| (built.node.id.as_str(), &built.node.config)).collect();
        let found = start_order(&nodes);
        for circle in &found.circles {
            let members = circle.iter().take(LISTED_MEMBERS).map(|&place| {
                let node = &built[place].node;
                format!("{} {}", shown(&node.node_type), shown(node.stored_id()))
            });
            let mut members = members.collect::<Vec<_>>().join(", ");
            if circle.len() > LISTED_MEMBERS {
                members.push_str(&format!(" and {} more", circle.len() - LISTED_MEMBERS));
            }
            let first = &built[circle[0]].node;
            let text = match circle.len() {
                1 => "refers to itself and is not started".to_owned(),
                _ => format!("config nodes refer to one another in a circle and are not started: {members}"),
            };
            self.problems.error(first.stored_id(), &first.node_type, text);
            for &place in circle {
                self.absent.insert(built[place].node.id.clone(), Absence::Circular);
            }
        }
        let mut places: Vec<Option<Built>> = built.into_iter().map(Some).collect();
        found.order.into_iter().filter_map(|place| places[place].take()).collect()
    }

    fn add(&mut self, built: Built) {
        self.slots.insert(built.node.id.clone(), Slot::Node(self.nodes.len()));
        self.nodes.push(built.node);
        self.hops.push(built.hops);
    }

    /// Fills in [`GraphNode::users`].
    fn find_users(&mut self) {
        let mut users: Vec<(usize, String)> = Vec::new();
        for node in &self.nodes {
            let mut named = HashSet::new();
            for id in references(&node.config) {
                let Some(&Slot::Node(used)) = self.slots.get(id) else { continue };
                if self.nodes[used].kind == NodeKind::Config && id != node.id && named.insert(used) {
                    users.push((used, node.id.clone()));
                }
            }
        }
        for (used, user) in users {
            self.nodes[used].users.push(user);
        }
    }

    fn report_limits(&mut self) {
        if self.expanded.exceeded() {
            let limit = self.limits.expanded_entries;
            let text =
                format!("its subflow instances unfold into more than {limit} nodes; the rest is left out");
            self.problems.error("flow file", "", text);
        }
        if self.budget.exceeded() {
            let limit = self.limits.config_bytes;
            let text = format!("its nodes and variables take more than {limit} bytes; the rest is left out");
            self.problems.error("flow file", "", text);
        }
    }

    fn into_graph(mut self, file: &FlowFile, tabs: Vec<Tab>) -> (FlowGraph, Vec<Problem>) {
        let events = EventIndex::new(&self.nodes, self.limits, &mut self.problems);
        let mut nodes_by_id = HashMap::with_capacity(self.nodes.len());
        let mut instances_by_id = HashMap::with_capacity(self.instances.len());
        for (id, slot) in self.slots {
            match slot {
                Slot::Node(index) => nodes_by_id.insert(id, index),
                Slot::Instance(index) => instances_by_id.insert(id, index),
            };
        }
        let definitions = self.outline.definitions.iter();
        let graph = FlowGraph {
            nodes: self.nodes,
            instances: self.instances,
            tabs,
            nodes_by_id,
            instances_by_id,
            absent: self.absent,
            groups: self.group_sources,
            definitions: definitions.map(|found| (found.entry.id.to_owned(), found.entry.source)).collect(),
            required_types: self.outline.required_types.clone(),
            scopes: self.scopes,
            events,
            entries: file.shared_entries(),
            credentials: file.shared_credentials(),
        };
        (graph, self.problems.into_list())
    }
}
