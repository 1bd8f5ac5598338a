//! Making the running flows be those of a graph: the difference is stopped, created, wired and started.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use flowbay_abi::{Object, Value, host::HostNode, node::NodeError};

use super::{
    Shared,
    api::NodeHost,
    cell::{Instance, NodeCell, Wires},
    events::{self, EventTargets, InstanceStatus},
    patience::PatientCaller,
};
use crate::{
    flow::{FlowGraph, GraphDiff, GraphNode, HOST_TYPES, NodeKind, Role},
    plugin::{NodeTypeInfo, Plugin},
};

/// What a deploy came to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Deployed {
    /// Nodes that run now.
    pub running: usize,
    /// Nodes that could not be created.
    pub failed: usize,
}

/// Applies `diff`, which leads from the running flows to `graph`. Bad nodes are reported and left out.
pub fn apply(
    shared: &Arc<Shared>,
    caller: &mut PatientCaller,
    graph: Arc<FlowGraph>,
    diff: &GraphDiff,
) -> Deployed {
    let close_timeout = Duration::from_millis(shared.settings.node_close_timeout_ms);
    let gone: Vec<(Arc<NodeCell>, bool)> = {
        let mut nodes = shared.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let removed = diff.removed.iter().map(|id| (id, true));
        let changed = diff.changed.iter().map(|id| (id, false));
        removed.chain(changed).filter_map(|(id, removed)| Some((nodes.remove(id)?, removed))).collect()
    };
    let forgotten = forgotten(&gone, &shared.graph.load(), &graph);
    close(shared, gone, close_timeout);
    for owner in forgotten {
        shared.context.forget(&owner);
    }

    load_context(shared, &graph);
    shared.graph.store(graph.clone());
    let fresh: Vec<&GraphNode> = graph.nodes.iter().filter(|node| shared.node(&node.id).is_none()).collect();
    let mut created = Vec::new();
    let mut deployed = Deployed::default();
    // Types with a constructor that did not return: it would not for their other nodes, at seconds each.
    let mut hopeless = HashSet::new();
    for node in fresh {
        match create(shared, caller, node, &mut hopeless) {
            Ok(Some(cell)) => created.push(cell),
            Ok(None) => {}
            Err(Failed { cell, error }) => {
                deployed.failed += 1;
                events::log_error(&cell, &error);
            }
        }
    }
    wire(shared, &graph);
    start(shared, caller, &created);
    deployed.running = shared.nodes.read().unwrap_or_else(PoisonError::into_inner).len();
    deployed
}

/// The owners whose context goes: nodes, tabs and subflow instances that are no longer in the file. What is only
/// disabled keeps its own.
fn forgotten(gone: &[(Arc<NodeCell>, bool)], old: &FlowGraph, new: &FlowGraph) -> Vec<String> {
    let nodes = gone
        .iter()
        .filter(|(cell, removed)| *removed && new.absence(cell.id()).is_none())
        .map(|(cell, _)| cell.context_owner());
    let kept: HashSet<&str> = new.tabs.iter().map(|tab| tab.id.as_str()).collect();
    let tabs = old.tabs.iter().filter(|tab| !kept.contains(tab.id.as_str())).map(|tab| tab.id.clone());
    let instances = old
        .instances
        .iter()
        .filter(|instance| new.instance(&instance.id).is_none() && new.absence(&instance.id).is_none())
        .map(|instance| instance.id.clone());
    nodes.chain(tabs).chain(instances).collect()
}

/// Reads the context that the nodes of a graph may ask for.
fn load_context(shared: &Shared, graph: &FlowGraph) {
    shared.context.load(["global"]);
    shared.context.load(graph.tabs.iter().map(|tab| tab.id.as_str()));
    shared.context.load(graph.instances.iter().map(|instance| instance.id.as_str()));
    let owners: Vec<String> = graph.nodes.iter().map(GraphNode::context_owner).collect();
    shared.context.load(owners.iter().map(String::as_str));
}

/// Takes nodes out of the running flows; what is left is wired anew.
pub fn remove(shared: &Arc<Shared>, cells: &[Arc<NodeCell>]) {
    if cells.is_empty() {
        return;
    }
    {
        let mut nodes = shared.nodes.write().unwrap_or_else(PoisonError::into_inner);
        for cell in cells {
            nodes.remove(cell.id());
        }
    }
    let patience = Duration::from_millis(shared.settings.node_close_timeout_ms);
    close(shared, cells.iter().map(|cell| (cell.clone(), false)).collect(), patience);
    wire(shared, &shared.graph.load_full());
}

/// Stops everything.
pub fn stop(shared: &Arc<Shared>) {
    let all: Vec<Arc<NodeCell>> = {
        let mut nodes = shared.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.drain().map(|(_, cell)| cell).collect()
    };
    let patience = Duration::from_millis(shared.settings.node_close_timeout_ms);
    close(shared, all.into_iter().map(|cell| (cell, false)).collect(), patience);
}

/// Closes nodes, all at once but flow nodes before the config nodes that they use.
fn close(shared: &Shared, cells: Vec<(Arc<NodeCell>, bool)>, patience: Duration) {
    let deadline = Instant::now() + patience;
    let (config, flow): (Vec<_>, Vec<_>) =
        cells.into_iter().partition(|(cell, _)| cell.graph_node.kind == NodeKind::Config);
    for batch in [flow, config] {
        // Even when flow nodes have used up the time, a listener gets the moment that a close frame takes.
        let patience =
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(500).min(patience));
        let closing: Vec<_> = batch
            .into_iter()
            .map(|(cell, removed)| (cell.clone(), shared.tokio.spawn(cell.close(removed, patience))))
            .collect();
        // Each has its own deadline, which holds unless plugins block the threads that they all run on.
        let (cells, tasks): (Vec<_>, Vec<_>) = closing.into_iter().unzip();
        for late in wait_for(tasks, patience + Duration::from_secs(2)) {
            let text = "Error stopping node: it, or another one, keeps the thread; left behind";
            events::log_error(&cells[late], &NodeError::new(text));
        }
    }
}

/// Waits until tasks of tokio's are done; those that are not in time are ended, and returned by their place.
///
/// With a timer of this thread's own: plugins may block the threads that the others run on.
pub fn wait_for(tasks: Vec<tokio::task::JoinHandle<()>>, patience: Duration) -> Vec<usize> {
    let wait = async {
        let over = tokio::time::Instant::now() + patience;
        let mut late = Vec::new();
        for (place, task) in tasks.into_iter().enumerate() {
            let abort = task.abort_handle();
            if tokio::time::timeout_at(over, task).await.is_err() {
                abort.abort();
                late.push(place);
            }
        }
        late
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map(|own| own.block_on(wait))
        .unwrap_or_default()
}

struct Failed {
    cell: Arc<NodeCell>,
    error: NodeError,
}

/// Creates a node and lists it. `None` for a type that is data to the host.
fn create(
    shared: &Arc<Shared>,
    caller: &mut PatientCaller,
    node: &GraphNode,
    hopeless: &mut HashSet<String>,
) -> Result<Option<Arc<NodeCell>>, Failed> {
    let Some(registered) = shared.registry.get(&node.node_type) else {
        if HOST_TYPES.contains(&node.node_type.as_str()) {
            return Ok(None);
        }
        let cell = Arc::new(NodeCell::new(node.clone(), 1, false, shared.clone()));
        return Err(Failed { cell, error: NodeError::new("no plugin has this node type") });
    };
    let info = &registered.info;
    let cell = Arc::new(NodeCell::new(node.clone(), info.concurrency, is_source(info), shared.clone()));
    if hopeless.contains(&node.node_type) {
        let error = NodeError::new("left out: the constructor of this node type does not return");
        return Err(Failed { cell, error });
    }
    match make(shared, caller, &cell, &registered.plugin, None) {
        Ok(instance) => {
            // No message before all nodes exist and are wired.
            cell.hold_mailbox();
            cell.open(instance);
            let mut nodes = shared.nodes.write().unwrap_or_else(PoisonError::into_inner);
            nodes.insert(cell.id().to_owned(), cell.clone());
            Ok(Some(cell))
        }
        Err(error) => {
            if error.details.get("code").and_then(Value::as_str) == Some(NO_RETURN) {
                hopeless.insert(node.node_type.clone());
            }
            Err(Failed { cell, error })
        }
    }
}

/// Error code of a constructor that did not return in time.
const NO_RETURN: &str = "NO_RETURN";

/// Has `plugin` make a node for a cell, from what its predecessor saved if it had one. The node has no effects yet.
///
/// # Errors
/// Its constructor refused, panicked or did not return in time.
pub fn make(
    shared: &Shared,
    caller: &mut PatientCaller,
    cell: &Arc<NodeCell>,
    plugin: &Arc<Plugin>,
    state: Option<Value>,
) -> Result<Instance, NodeError> {
    let door = Arc::new(NodeHost::new(cell.clone(), plugin.clone()));
    let host = HostNode::new(door.clone());
    let config = Value::from(serde_json::Value::Object(cell.graph_node.config.clone()));
    let (called, node_type) = (plugin.clone(), cell.graph_node.node_type.clone());
    let patience = Duration::from_millis(shared.settings.call_deadline_ms);
    let result = caller.call(patience, move || {
        // The library's last reference must not go while its code is on the stack.
        let result = called.create(&node_type, host, config, state);
        (result, called)
    });
    match result {
        Ok((Ok(node), _)) => Ok(Instance::new(node, door, plugin.clone())),
        Ok((Err(error), _)) => {
            door.forget();
            Err(error)
        }
        Err(_) => Err(NodeError::new(format!(
            "the constructor did not return within {} ms; the node is left out",
            patience.as_millis()
        ))
        .with_code(NO_RETURN)),
    }
}

/// Messages begin in nodes that declare it, and in those that nothing can be wired to.
fn is_source(info: &NodeTypeInfo) -> bool {
    info.role == Role::Source || (info.role == Role::Plain && info.inputs == 0)
}

/// Gives every cell its wires, the listeners of its events, and the sources it can hold back.
pub(super) fn wire(shared: &Shared, graph: &FlowGraph) {
    let nodes = shared.nodes.read().unwrap_or_else(PoisonError::into_inner).clone();
    let cells = |ids: &[String]| -> Vec<Arc<NodeCell>> {
        ids.iter().filter_map(|id| nodes.get(id).cloned()).collect()
    };
    let mut statuses = instance_statuses(graph, &cells, &|id| nodes.contains_key(id));
    let (mut wired, mut edges) = (Edges::new(), Edges::new());
    for node in &graph.nodes {
        let Some(cell) = nodes.get(&node.id) else { continue };
        let wires = Wires {
            outputs: node.wires.iter().map(|targets| cells(targets)).collect(),
            statuses: statuses.remove(&node.id).unwrap_or_default(),
        };
        let routes = graph.event_routes_among(&node.id, &|id| nodes.contains_key(id));
        let targets = EventTargets {
            catch: cells(&routes.catch),
            status: cells(&routes.status),
            complete: cells(&routes.complete),
        };
        let mut reached: Vec<Arc<NodeCell>> = wires.outputs.iter().flatten().cloned().collect();
        if node.role == Role::LinkCall {
            let links = node.config.get("links").and_then(serde_json::Value::as_array);
            let links: Vec<String> =
                links.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect();
            reached.extend(cells(&links));
        }
        wired.insert(&node.id, reached.clone());
        reached.extend(targets.catch.iter().chain(&targets.status).chain(&targets.complete).cloned());
        reached.extend(wires.statuses.iter().flat_map(|(_, instance)| &instance.listeners).cloned());
        edges.insert(&node.id, reached);
        cell.wires.store(Arc::new(wires));
        cell.targets.store(Arc::new(targets));
    }
    let loops = in_loops(&wired);
    for (id, cell) in &nodes {
        cell.set_in_loop(loops.get(id.as_str()).copied());
    }
    hold_back(&nodes, &edges);
}

/// What messages of each node lead to, by its id.
type Edges<'g> = HashMap<&'g str, Vec<Arc<NodeCell>>>;

/// The nodes in loops, with a number for each loop that no other has had: nodes that lead to each other, or one that
/// leads to itself. (The strongly connected components, by Kosaraju's two walks.)
fn in_loops<'g>(edges: &Edges<'g>) -> HashMap<&'g str, NonZeroUsize> {
    let ids: Vec<&str> = edges.keys().copied().collect();
    let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let mut onwards: Vec<Vec<usize>> = vec![Vec::new(); ids.len()];
    let mut back = onwards.clone();
    for (from, id) in ids.iter().enumerate() {
        for to in edges[id].iter().filter_map(|target| places.get(target.id())) {
            onwards[from].push(*to);
            back[*to].push(from);
        }
    }
    let mut seen = vec![false; ids.len()];
    let mut finished = Vec::with_capacity(ids.len());
    for start in 0..ids.len() {
        walk(&onwards, start, &mut seen, &mut finished);
    }
    seen.fill(false);
    let mut loops = HashMap::new();
    static LOOPS: AtomicUsize = AtomicUsize::new(1);
    for &start in finished.iter().rev() {
        let mut component = Vec::new();
        walk(&back, start, &mut seen, &mut component);
        if component.len() > 1 || component.iter().any(|place| onwards[*place].contains(place)) {
            let Some(number) = NonZeroUsize::new(LOOPS.fetch_add(1, Ordering::Relaxed)) else { continue };
            loops.extend(component.into_iter().map(|place| (ids[place], number)));
        }
    }
    loops
}

/// Goes depth first from `start` to all that was not seen; each place is added when all behind it has been.
fn walk(onwards: &[Vec<usize>], start: usize, seen: &mut [bool], finished: &mut Vec<usize>) {
    let mut path = Vec::new();
    if !std::mem::replace(&mut seen[start], true) {
        path.push((start, onwards[start].iter()));
    }
    while let Some((place, rest)) = path.last_mut() {
        match rest.find(|&&next| !seen[next]) {
            Some(&next) => {
                seen[next] = true;
                path.push((next, onwards[next].iter()));
            }
            None => {
                finished.push(*place);
                path.pop();
            }
        }
    }
}

/// The outputs that lead to a subflow's status output, by node id.
fn instance_statuses(
    graph: &FlowGraph,
    cells: &dyn Fn(&[String]) -> Vec<Arc<NodeCell>>,
    alive: &dyn Fn(&str) -> bool,
) -> HashMap<String, Vec<(u32, Arc<InstanceStatus>)>> {
    let mut statuses: HashMap<String, Vec<(u32, Arc<InstanceStatus>)>> = HashMap::new();
    for instance in graph.instances.iter().filter(|instance| instance.has_status_output) {
        let status = Arc::new(InstanceStatus {
            source: Object::from_iter([
                ("id", Value::from(instance.id.as_str())),
                ("type", Value::from(format!("subflow:{}", instance.subflow_id))),
                ("name", Value::from(instance.name.as_str())),
            ]),
            listeners: cells(&graph.event_routes_among(&instance.id, alive).status),
        });
        for (id, port) in &instance.status_sources {
            statuses.entry(id.clone()).or_default().push((*port as u32, status.clone()));
        }
    }
    statuses
}

/// Steps beyond which it is not worked out which source reaches which node: a second's work.
const MAX_REACH_STEPS: usize = 20_000_000;

/// Works out which sources each node holds back when it is congested: those that can reach it. In flows so large that
/// this would take long, all of them.
fn hold_back(nodes: &HashMap<String, Arc<NodeCell>>, edges: &Edges<'_>) {
    let sources: Vec<Arc<NodeCell>> = nodes.values().filter(|cell| cell.is_source).cloned().collect();
    let all_edges: usize = edges.values().map(Vec::len).sum();
    if sources.len().saturating_mul(all_edges) > MAX_REACH_STEPS {
        let sources = Arc::new(sources);
        for cell in nodes.values() {
            cell.set_upstream(sources.clone());
        }
        return;
    }
    let mut upstream: HashMap<&str, Vec<Arc<NodeCell>>> = HashMap::new();
    for source in &sources {
        let mut reached: HashSet<&str> = HashSet::new();
        let mut frontier = vec![source.id()];
        while let Some(id) = frontier.pop() {
            for next in edges.get(id).into_iter().flatten() {
                // The id must be borrowed from what outlives this loop.
                if let Some((id, _)) = nodes.get_key_value(next.id())
                    && reached.insert(id)
                {
                    frontier.push(id);
                }
            }
        }
        for id in reached {
            upstream.entry(id).or_default().push(source.clone());
        }
    }
    for (id, cell) in nodes {
        cell.set_upstream(Arc::new(upstream.remove(id.as_str()).unwrap_or_default()));
    }
}

/// Tells new nodes to begin.
pub fn start(shared: &Shared, caller: &mut PatientCaller, created: &[Arc<NodeCell>]) {
    let patience = Duration::from_millis(shared.settings.call_deadline_ms);
    for instance in created.iter().filter_map(|cell| cell.instance()) {
        instance.host.begin();
    }
    for cell in created {
        cell.release_mailbox();
    }
    for cell in created {
        let Some(instance) = cell.instance() else { continue };
        match caller.call(patience, move || instance.node.on_start()) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => events::log_error(cell, &error),
            Err(_) => {
                let text = format!("starting the node did not return within {} ms", patience.as_millis());
                events::log_error(cell, &NodeError::new(text));
            }
        }
    }
}
