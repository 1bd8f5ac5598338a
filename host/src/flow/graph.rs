//! What a flow file means: the nodes that run, in start order, with everything about them worked out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::credentials::Credentials;
use super::env::{EnvSource, NodeFacts, ScopeId, Scopes, env_text};
use super::file::FlowFile;
use super::limits::{Budget, Limits};
use super::problems::Problem;
use super::roles::{Role, Roles};
use super::scopes::{EventIndex, EventRoutes};

/// Types that need no plugin: flows start without one.
///
/// `tab`, `group` and `subflow` are never nodes of a graph. Nodes of the others are; a registry that has a plugin for
/// the type (`comment` usually) may create them, and otherwise they are data that other nodes can refer to.
pub const HOST_TYPES: [&str; 7] =
    ["comment", "tab", "group", "subflow", "global-config", "unknown", "tls-config"];

/// Whether a node is drawn on a canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Has coordinates.
    Flow,
    /// Has none: configuration for other nodes, or, with `wires`, a node like any other that was written without them.
    Config,
}

/// One node that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphNode {
    /// Id at run time. Inside subflows `<instance id>-<id in the definition>`.
    pub id: String,
    /// Its `type`.
    pub node_type: String,
    /// Its `name`; empty when it has none.
    pub name: String,
    /// What its type does for the flow.
    pub role: Role,
    /// Whether it is drawn on a canvas.
    pub kind: NodeKind,
    /// The tab or, inside a subflow, the id of the instance that contains it; `None` in the global scope.
    pub z: Option<String>,
    /// The tab that it runs in, through all subflows; `None` in the global scope.
    pub flow_id: Option<String>,
    /// Id in the subflow's definition: the key of its credentials and of its context.
    pub alias: Option<String>,
    /// `tab/instance/…/node` with the ids of the definitions; `global/node` in the global scope.
    pub path: String,
    /// Ids of the groups that it is in, within its tab or subflow instance, innermost first.
    pub groups: Vec<String>,
    /// All its properties, as the node is to see them: references `${NAME}` filled in and, inside subflows, ids
    /// rewritten. Without `credentials`. `wires` is as in the file: use [`wires`](Self::wires).
    pub config: Map<String, Value>,
    /// For every output the nodes that it sends to, in order. Every id is a node of the graph: subflow ports and link
    /// nodes are followed, targets that are disabled or missing are left out.
    pub wires: Vec<Vec<String>>,
    /// For a node without coordinates, the nodes with a property that names it, in start order.
    pub users: Vec<String>,
    /// Whether it is deployed with new credentials, which always restarts it.
    pub credentials_given: bool,
    /// Where its variables are looked up.
    pub(super) scope: ScopeId,
    /// Its place in the file.
    pub(super) source: usize,
    /// The outermost subflow instance that it is part of.
    pub(super) outermost: Option<usize>,
}

impl GraphNode {
    /// The id under which its credentials and its context are kept: the alias inside subflows, otherwise the id.
    pub fn stored_id(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.id)
    }

    /// Whose context its own is: the id under which that is kept, and the flow it is on, `global` for none.
    pub fn context_owner(&self) -> String {
        format!("{}:{}", self.stored_id(), self.z.as_deref().unwrap_or("global"))
    }

    /// The subflow instance that it is directly inside of. Ask this rather than [`z`](Self::z): a file may give a tab and
    /// an instance the same id.
    pub fn instance_id(&self) -> Option<&str> {
        self.alias.as_ref().and(self.z.as_deref())
    }

    pub(super) fn facts(&self) -> NodeFacts<'_> {
        NodeFacts { id: &self.id, name: &self.name, path: &self.path }
    }
}

/// One instance of a subflow. It is no node at run time: wires lead through its ports.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Id at run time, composed as for nodes.
    pub id: String,
    /// Id of the definition.
    pub subflow_id: String,
    /// Its `name`; empty when it has none.
    pub name: String,
    /// The tab or instance that contains it; `None` in the global scope.
    pub z: Option<String>,
    /// The tab that it runs in; `None` in the global scope.
    pub flow_id: Option<String>,
    /// The instance that it is part of, if any.
    pub parent: Option<String>,
    /// Id in the definition that contains it.
    pub alias: Option<String>,
    /// As [`GraphNode::path`].
    pub path: String,
    /// As [`GraphNode::groups`]: the groups around the instance, in its tab or instance.
    pub groups: Vec<String>,
    /// Its variables: the definition's, overridden by its own.
    pub env: Arc<Map<String, Value>>,
    /// The nodes that a message to the instance reaches, in order.
    pub inputs: Vec<String>,
    /// Whether the definition has a status output. Status events inside then stay inside, and what reaches the output
    /// sets the status of the instance.
    pub has_status_output: bool,
    /// The outputs that are wired to the status output: node id and output number from 0, in start order.
    pub status_sources: Vec<(String, usize)>,
    /// Its place in the file.
    pub(super) source: usize,
    /// The outermost instance that it is part of, itself if it is part of none.
    pub(super) outermost: usize,
}

impl Instance {
    /// As [`GraphNode::stored_id`].
    pub fn stored_id(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.id)
    }

    /// Its `type` in the file: `subflow:<definition id>`.
    pub fn node_type(&self) -> String {
        format!("subflow:{}", self.subflow_id)
    }
}

/// A tab, started or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Tab {
    /// Its id.
    pub id: String,
    /// Its `label`; empty when it has none.
    pub label: String,
    /// Nothing on it is created.
    pub disabled: bool,
    /// It is not in the file: nodes name it as their `z`.
    pub implicit: bool,
    pub(super) source: Option<usize>,
}

/// Why something that is in the file is no node of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Absence {
    /// It is disabled (`d`).
    Disabled,
    /// Its tab is disabled.
    TabDisabled,
    /// It is drawn on no tab.
    NoTab,
    /// It is a config node that refers to itself, directly or in a circle.
    Circular,
    /// It is an instance of a subflow that is missing or contains itself, its id is taken, or a limit is reached.
    Refused,
}

/// What the runtime deploys. Built once from a [`FlowFile`], never changed, compared by
/// [`GraphDiff`](super::GraphDiff).
#[derive(Debug, Clone)]
pub struct FlowGraph {
    /// The nodes that run, in start order: global config nodes; then for each enabled tab its config nodes and its
    /// flow nodes, with the nodes of a subflow instance in its place.
    pub nodes: Vec<GraphNode>,
    /// The subflow instances that run, each before those inside it.
    pub instances: Vec<Instance>,
    /// All tabs, in file order; implicit ones last.
    pub tabs: Vec<Tab>,
    pub(super) nodes_by_id: HashMap<String, usize>,
    pub(super) instances_by_id: HashMap<String, usize>,
    pub(super) absent: HashMap<String, Absence>,
    /// Places in the file of groups, by their id at run time.
    pub(super) groups: HashMap<String, usize>,
    /// Places in the file of subflow definitions.
    pub(super) definitions: HashMap<String, usize>,
    pub(super) required_types: BTreeSet<String>,
    pub(super) scopes: Scopes,
    pub(super) events: EventIndex,
    pub(super) entries: Arc<Vec<Value>>,
    pub(super) credentials: Credentials,
}

impl FlowGraph {
    /// The graph of no flows.
    pub fn empty() -> FlowGraph {
        FlowGraph {
            nodes: Vec::new(),
            instances: Vec::new(),
            tabs: Vec::new(),
            nodes_by_id: HashMap::new(),
            instances_by_id: HashMap::new(),
            absent: HashMap::new(),
            groups: HashMap::new(),
            definitions: HashMap::new(),
            required_types: BTreeSet::new(),
            scopes: Scopes::new(Arc::new(|_: &str| None)),
            events: EventIndex::default(),
            entries: Arc::default(),
            credentials: Credentials::default(),
        }
    }

    /// Works out what `file` means, within the default [`Limits`]. `env` answers for variables that no flow defines,
    /// now and for as long as the graph lives; `roles` says what node types do.
    ///
    /// Never fails: what is wrong is listed, in the order of the file, and the rest is built.
    pub fn build(file: &FlowFile, env: Arc<dyn EnvSource>, roles: &dyn Roles) -> (FlowGraph, Vec<Problem>) {
        Self::build_within(file, env, roles, &Limits::default())
    }

    /// As [`build`](Self::build), within other limits.
    pub fn build_within(
        file: &FlowFile,
        env: Arc<dyn EnvSource>,
        roles: &dyn Roles,
        limits: &Limits,
    ) -> (FlowGraph, Vec<Problem>) {
        super::build::build(file, env, roles, limits)
    }

    /// The node with this id at run time.
    pub fn node(&self, id: &str) -> Option<&GraphNode> {
        self.nodes_by_id.get(id).map(|&index| &self.nodes[index])
    }

    /// The subflow instance with this id at run time.
    pub fn instance(&self, id: &str) -> Option<&Instance> {
        self.instances_by_id.get(id).map(|&index| &self.instances[index])
    }

    /// Why the file's node `id` is not in the graph; `None` when it is, or when the file has no such node either.
    pub fn absence(&self, id: &str) -> Option<Absence> {
        self.absent.get(id).copied()
    }

    /// The node types that must be known before any flow starts: those of every entry, disabled or not, without
    /// [`HOST_TYPES`]. An instance of a missing subflow counts as the type `subflow:<id>`, which no plugin can have.
    pub fn required_types(&self) -> &BTreeSet<String> {
        &self.required_types
    }

    /// The variable `name` as the node `node_id` sees it, with its type. `None` when nothing defines it or there is no
    /// such node.
    pub fn env(&self, node_id: &str, name: &str) -> Option<Value> {
        let node = self.node(node_id)?;
        self.scopes.node_var(node.scope, node.facts(), name).map(|value| value.into_owned())
    }

    /// Value of a typed property of type `env` of the node `node_id`: `NAME` and `${NAME}` give the variable with its
    /// type, `pre${NAME}post` gives text. What is not defined is empty, and so is a text that would grow beyond
    /// [`MAX_ENV_TEXT_BYTES`](super::MAX_ENV_TEXT_BYTES).
    pub fn env_property(&self, node_id: &str, text: &str) -> Value {
        let Some(node) = self.node(node_id) else { return Value::from("") };
        let value = env_text(text, |name| self.scopes.node_var(node.scope, node.facts(), name));
        value.unwrap_or_else(|_| Value::from(""))
    }

    /// Copies `value` with its references `${NAME}` filled in as for a property of the node `node_id`: what its
    /// credentials need before the node gets them.
    pub fn substituted(&self, node_id: &str, value: &Value) -> Value {
        let Some(node) = self.node(node_id) else { return value.clone() };
        let mut budget = Budget::new(Limits::default().config_bytes);
        self.scopes.substituted(value, node.scope, node.facts(), &mut budget)
    }

    /// The credentials of the node `node_id`, with references `${NAME}` filled in: what the node, or whoever acts in its
    /// place, is to get. Empty when it has none. Secret.
    pub fn credentials_of(&self, node_id: &str) -> Map<String, Value> {
        let fields = self.node(node_id).and_then(|node| self.credentials.of(node.stored_id()));
        let fields = fields.cloned().unwrap_or_default();
        match self.substituted(node_id, &Value::Object(fields)) {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// The names of a node's credential fields.
    pub fn credential_fields(&self, node: &GraphNode) -> impl Iterator<Item = &str> {
        self.credentials.of(node.stored_id()).into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// Which catch, status and complete nodes hear of the node, or of the subflow instance, `id`.
    pub fn event_routes(&self, id: &str) -> EventRoutes {
        self.events.routes(self, id, &|_| true)
    }

    /// As [`event_routes`](Self::event_routes), counting only catch, status and complete nodes that are `alive`: one
    /// whose constructor failed does not take an error from those behind it.
    pub fn event_routes_among(&self, id: &str, alive: &dyn Fn(&str) -> bool) -> EventRoutes {
        self.events.routes(self, id, alive)
    }

    /// The properties of an entry as they stand in the file.
    pub(super) fn raw(&self, source: usize) -> Option<&Map<String, Value>> {
        self.entries.get(source).and_then(Value::as_object)
    }
}
