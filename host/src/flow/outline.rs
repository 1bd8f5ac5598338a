//! The first pass over a flow file: which entry stands where. Nothing is copied.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::graph::HOST_TYPES;
use super::problems::Problems;

const INSTANCE_PREFIX: &str = "subflow:";

/// One usable entry of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    /// Place in the file.
    pub(super) source: usize,
    pub(super) id: &'a str,
    pub(super) node_type: &'a str,
    pub(super) properties: &'a Map<String, Value>,
}

/// Index into [`Outline::entries`].
pub(super) type EntryId = usize;

/// What contains an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Global,
    /// Index into [`Outline::tabs`].
    Tab(usize),
    /// Index into [`Outline::definitions`].
    Definition(usize),
    /// Tabs and subflow definitions themselves, and nodes that are stored but never started.
    Nowhere,
}

/// What a tab, a subflow definition or the global scope contains, each list in file order.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Nodes without a place on a canvas.
    pub(super) configs: Vec<EntryId>,
    /// Nodes with one, and all subflow instances.
    pub(super) flow_nodes: Vec<EntryId>,
    pub(super) groups: Vec<EntryId>,
}

#[derive(Debug)]
pub(super) struct OutlineTab<'a> {
    pub(super) id: &'a str,
    /// `None` for a tab that nodes name but the file lacks.
    pub(super) entry: Option<EntryId>,
    pub(super) disabled: bool,
    pub(super) members: Members,
}

#[derive(Debug)]
pub(super) struct Definition<'a> {
    pub(super) entry: Entry<'a>,
    pub(super) members: Members,
}

#[derive(Debug, Default)]
pub(super) struct Outline<'a> {
    pub(super) entries: Vec<Entry<'a>>,
    /// Parallel to `entries`.
    pub(super) places: Vec<Place>,
    pub(super) by_id: HashMap<&'a str, EntryId>,
    pub(super) global: Members,
    /// In file order; implicit tabs last.
    pub(super) tabs: Vec<OutlineTab<'a>>,
    pub(super) definitions: Vec<Definition<'a>>,
    pub(super) definitions_by_id: HashMap<&'a str, usize>,
    /// Flow nodes that are on no tab.
    pub(super) unplaced: Vec<EntryId>,
    pub(super) required_types: BTreeSet<String>,
}

impl<'a> Entry<'a> {
    /// `d`, by JavaScript's idea of true.
    pub(super) fn disabled(&self) -> bool {
        self.properties.get("d").is_some_and(truthy)
    }

    /// A string property; empty when it is missing or no string.
    pub(super) fn text(&self, property: &str) -> &'a str {
        self.properties.get(property).and_then(Value::as_str).unwrap_or("")
    }

    /// For an instance of a subflow, the id of the definition.
    pub(super) fn subflow_id(&self) -> Option<&'a str> {
        self.node_type.strip_prefix(INSTANCE_PREFIX)
    }

    fn is_flow_node(&self) -> bool {
        self.properties.contains_key("x") && self.properties.contains_key("y")
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

impl<'a> Outline<'a> {
    pub(super) fn new(file: &'a [Value], problems: &mut Problems) -> Outline<'a> {
        let mut outline = Outline::default();
        outline.list_entries(file, problems);
        outline.list_tabs_and_definitions();
        outline.place_nodes(problems);
        outline
    }

    /// Whether `id` is the id of an entry inside the definition.
    pub(super) fn is_inner(&self, definition: usize, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|&entry| self.places[entry] == Place::Definition(definition))
    }

    fn list_entries(&mut self, file: &'a [Value], problems: &mut Problems) {
        for (source, value) in file.iter().enumerate() {
            let Some(properties) = value.as_object() else { continue };
            let id = properties.get("id").and_then(Value::as_str);
            let node_type = properties.get("type").and_then(Value::as_str);
            let (Some(id), Some(node_type)) = (id, node_type) else { continue };
            if !HOST_TYPES.contains(&node_type) && !node_type.starts_with(INSTANCE_PREFIX) {
                self.required_types.insert(node_type.to_owned());
            }
            if let Some(&first) = self.by_id.get(id) {
                let first = self.entries[first].node_type;
                let text = format!(
                    "duplicate id: it is used before by a node of type {first}, and this one is left out"
                );
                problems.error(id, node_type, text);
                continue;
            }
            self.by_id.insert(id, self.entries.len());
            self.entries.push(Entry { source, id, node_type, properties });
        }
    }

    fn list_tabs_and_definitions(&mut self) {
        for (entry_id, &entry) in self.entries.iter().enumerate() {
            match entry.node_type {
                "tab" => self.tabs.push(OutlineTab {
                    id: entry.id,
                    entry: Some(entry_id),
                    disabled: entry.properties.get("disabled").is_some_and(truthy),
                    members: Members::default(),
                }),
                "subflow" => {
                    self.definitions_by_id.insert(entry.id, self.definitions.len());
                    self.definitions.push(Definition { entry, members: Members::default() });
                }
                _ => {}
            }
        }
        // Types are required whether or not the file's instances of missing subflows are duplicates or disabled.
        for entry in &self.entries {
            if entry.subflow_id().is_some_and(|id| !self.definitions_by_id.contains_key(id)) {
                self.required_types.insert(entry.node_type.to_owned());
            }
        }
    }

    fn place_nodes(&mut self, problems: &mut Problems) {
        let mut tabs_by_id: HashMap<&str, usize> =
            self.tabs.iter().enumerate().map(|(index, tab)| (tab.id, index)).collect();
        self.places = vec![Place::Nowhere; self.entries.len()];
        let mut elsewhere = Vec::new();
        for (entry_id, &entry) in self.entries.iter().enumerate() {
            if matches!(entry.node_type, "tab" | "subflow") {
                continue;
            }
            let z = match entry.properties.get("z") {
                None | Some(Value::Null) => "",
                Some(Value::String(z)) => z.as_str(),
                Some(_) => {
                    problems.warning(entry.id, entry.node_type, "z is not a string and is ignored");
                    ""
                }
            };
            let is_flow_node = entry.is_flow_node();
            let known = match (tabs_by_id.get(z), self.definitions_by_id.get(z)) {
                (Some(&tab), _) => Some(Place::Tab(tab)),
                (None, Some(&definition)) => Some(Place::Definition(definition)),
                (None, None) => None,
            };
            self.places[entry_id] = match known {
                Some(place) => place,
                None if entry.node_type == "group" => Place::Nowhere,
                None if is_flow_node && z.is_empty() => {
                    let text = "is on no tab (it has no z): it is kept in the file and never started";
                    problems.warning(entry.id, entry.node_type, text);
                    self.unplaced.push(entry_id);
                    Place::Nowhere
                }
                None if is_flow_node => {
                    let tab = self.tabs.len();
                    tabs_by_id.insert(z, tab);
                    let implicit =
                        OutlineTab { id: z, entry: None, disabled: false, members: Members::default() };
                    self.tabs.push(implicit);
                    Place::Tab(tab)
                }
                None => {
                    elsewhere.push((entry_id, z));
                    Place::Global
                }
            };
        }
        // A config node may stand in the file before the flow node whose z makes the tab.
        for (entry_id, z) in elsewhere {
            if let Some(&tab) = tabs_by_id.get(z) {
                self.places[entry_id] = Place::Tab(tab);
            }
        }
        for (entry_id, entry) in self.entries.iter().enumerate() {
            let members = match self.places[entry_id] {
                Place::Global => &mut self.global,
                Place::Tab(tab) => &mut self.tabs[tab].members,
                Place::Definition(definition) => &mut self.definitions[definition].members,
                Place::Nowhere => continue,
            };
            if entry.node_type == "group" {
                members.groups.push(entry_id);
            } else if entry.is_flow_node() || entry.subflow_id().is_some() {
                members.flow_nodes.push(entry_id);
            } else {
                members.configs.push(entry_id);
            }
        }
    }
}
