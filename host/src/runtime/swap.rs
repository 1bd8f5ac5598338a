//! Hot swap: newer code of a plugin takes over from the code that is running, with nothing lost.
//!
//! The steps, in [`swap`]: *hold* the mailboxes of the plugin's nodes until none has a message in hand; *freeze* the
//! nodes' own tasks, so that their state stands still; have every node *saved*; have the new code *make* each of them
//! anew, without effects; and only when all of that has worked *commit*: the new nodes are put behind their cells and
//! begin, all together. Then the connections *move*, each in its own task at its next boundary, and the old code is
//! *retired* when nothing of it is in use any more. A failure before the commit *undoes* it: the tasks are thawed, the
//! mailboxes released, and the old nodes go on as if nothing had happened.
//!
//! Everything that must survive is the host's from the start: mailboxes, wires, routes, sessions with their queues,
//! context, sockets. A node hands over only what it alone knows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flowbay_abi::{Value, node::NodeError};

use super::{
    Shared,
    cell::{Instance, NodeCell},
    deploy,
    patience::PatientCaller,
};
use crate::{
    plugin::{self, Plugin},
    registry::Conflict,
};

/// What a swap did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Swapped {
    /// Nodes that the new code took over.
    pub nodes: usize,
    /// Connections that moved to it.
    pub connections: usize,
    /// Connections that the old code still serves: they were closing, or did not come to a boundary in time.
    pub left_behind: usize,
    /// Nodes whose type the new code does not have.
    pub missing: usize,
    /// The new code has node types that the old one had not.
    pub new_types: bool,
    /// From the first held mailbox to the last moved connection.
    pub took: Duration,
    /// From the first held mailbox until messages flowed again.
    pub held: Duration,
    /// From a connection's being told to until the newer code had it: what 99 of 100 do not exceed, and the longest.
    pub away: (Duration, Duration),
    /// The old code is out of memory.
    pub unloaded: bool,
}

/// Why the old code goes on.
#[derive(Debug)]
pub enum Undone {
    /// The new code claims something that another plugin has.
    Conflict(Conflict),
    /// Something was done with a node, and failed.
    Node {
        /// What was being done with it.
        step: &'static str,
        /// Its id.
        id: String,
        /// Its type.
        node_type: String,
        /// What went wrong.
        error: NodeError,
    },
}

impl std::fmt::Display for Undone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Undone::Conflict(conflict) => conflict.fmt(f),
            Undone::Node { step, id, node_type, error } => write!(f, "{step} {node_type} {id}: {error}"),
        }
    }
}

impl std::error::Error for Undone {}

/// How long a call into a node, or a poll of one of its tasks, may take that has begun when all are to stand still.
const STILL_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked whether something that takes microseconds has happened.
const LOOK: Duration = Duration::from_micros(200);

/// Lets `new` take over from `old`.
///
/// # Errors
/// Something of the new code did not work; the old code goes on, and nothing has changed.
pub fn swap(
    shared: &Arc<Shared>,
    caller: &mut PatientCaller,
    old: Arc<Plugin>,
    new: &Arc<Plugin>,
) -> Result<Swapped, Undone> {
    let deadline = Duration::from_millis(shared.settings.swap_deadline_ms);
    shared.registry.check_successor(&old, new).map_err(Undone::Conflict)?;
    let of_old =
        |cell: &Arc<NodeCell>| cell.instance().is_some_and(|instance| Arc::ptr_eq(&instance.plugin, &old));
    let has_type = |cell: &Arc<NodeCell>| new.info().has_type(&cell.graph_node.node_type);
    let (staying, dropped): (Vec<_>, Vec<_>) =
        shared.cells_in_order().into_iter().filter(of_old).partition(has_type);

    let started = Instant::now();
    let held = Held::hold(&staying, deadline)?;
    let successors = match make_successors(shared, caller, &staying, new) {
        Ok(successors) => successors,
        Err(undone) => {
            held.undo();
            return Err(undone);
        }
    };
    commit(shared, caller, &staying, successors, new);
    shared.registry.replace(&old, new.clone());
    held.release();
    let mut swapped = Swapped {
        nodes: staying.len(),
        held: started.elapsed(),
        missing: dropped.len(),
        new_types: new.info().types.iter().any(|node_type| !old.info().has_type(&node_type.name)),
        ..Swapped::default()
    };
    move_connections(&staying, &old, deadline, &mut swapped);
    swapped.took = started.elapsed();
    deploy::remove(shared, &dropped);
    let generation = old.info().generation;
    swapped.unloaded = retire(old, deadline);
    if !swapped.unloaded {
        let nodes = shared.blocking.at_work_in(generation);
        if !nodes.is_empty() {
            tracing::warn!(
                nodes = nodes.join(", "),
                "blocking work of these nodes keeps the old code of {} in memory until it ends",
                new.info().name
            );
        }
    }
    Ok(swapped)
}

/// The nodes, standing still.
struct Held<'a>(&'a [Arc<NodeCell>]);

impl<'a> Held<'a> {
    /// Waits until no node has a message in hand, or the deadline has passed: then those that still have one finish it
    /// in the old code. A node is held as soon as it has nothing in hand, and runs on until all others have.
    ///
    /// # Errors
    /// A node is in the middle of a call that does not return; all go on.
    fn hold(cells: &'a [Arc<NodeCell>], patience: Duration) -> Result<Self, Undone> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && cells.iter().any(|cell| cell.is_busy()) {
            for cell in cells.iter().filter(|cell| cell.is_busy()) {
                cell.hold_mailbox();
            }
            std::thread::sleep(LOOK);
        }
        let held = Self(cells);
        for cell in cells {
            cell.hold_mailbox();
        }
        // Whatever the busy ones have left of the time, the calls of the others are waited for: what a node does while
        // it is saved would be lost.
        let deadline = deadline.max(Instant::now() + STILL_PATIENCE);
        held.wait(deadline, |cell| !cell.is_running())?;
        // One that was given a message in the last moment may have become busy with it.
        while Instant::now() < deadline && cells.iter().any(|cell| cell.is_busy()) {
            std::thread::sleep(LOOK);
        }
        for instance in cells.iter().filter_map(|cell| cell.instance()) {
            instance.host.own_tasks().freeze();
            instance.inputs.freeze();
        }
        held.wait(deadline.max(Instant::now() + STILL_PATIENCE), |cell| {
            cell.instance()
                .is_none_or(|instance| instance.host.own_tasks().is_still() && instance.inputs.is_still())
        })?;
        Ok(held)
    }

    /// Waits until all nodes stand still.
    fn wait(&self, deadline: Instant, is_still: impl Fn(&NodeCell) -> bool) -> Result<(), Undone> {
        loop {
            let Some(moving) = self.0.iter().find(|cell| !is_still(cell)) else { return Ok(()) };
            if Instant::now() >= deadline {
                let error = NodeError::new("it keeps its thread and does not return");
                let undone = undone("waiting for", moving, error);
                Self(self.0).undo();
                return Err(undone);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Messages flow again.
    fn release(self) {
        for cell in self.0 {
            cell.release_mailbox();
        }
    }

    /// The old nodes go on.
    fn undo(self) {
        for instance in self.0.iter().filter_map(|cell| cell.instance()) {
            instance.host.own_tasks().thaw();
            instance.inputs.thaw();
        }
        self.release();
    }
}

fn undone(step: &'static str, cell: &NodeCell, error: NodeError) -> Undone {
    Undone::Node { step, id: cell.id().to_owned(), node_type: cell.graph_node.node_type.clone(), error }
}

/// A new node, and whether it took over what the old one knew. One whose type does not hand over is started afresh,
/// when its predecessor has been stopped.
struct Successor {
    instance: Instance,
    takes_over: bool,
}

fn make_successors(
    shared: &Shared,
    caller: &mut PatientCaller,
    cells: &[Arc<NodeCell>],
    new: &Arc<Plugin>,
) -> Result<Vec<Successor>, Undone> {
    let patience = Duration::from_millis(shared.settings.call_deadline_ms);
    let mut successors = Vec::with_capacity(cells.len());
    for cell in cells {
        let failed = |step, error| undone(step, cell, error);
        let Some(instance) = cell.instance() else { continue };
        let saved: Option<Value> = caller
            .call(patience, move || instance.node.save())
            .unwrap_or_else(|_| Err(NodeError::new(format!("not done within {} ms", patience.as_millis()))))
            .map_err(|error| failed("saving", error))?;
        let takes_over = saved.is_some();
        let instance =
            deploy::make(shared, caller, cell, new, saved).map_err(|error| failed("restoring", error))?;
        successors.push(Successor { instance, takes_over });
    }
    Ok(successors)
}

/// Puts the new nodes behind the cells and lets them begin.
fn commit(
    shared: &Shared,
    caller: &mut PatientCaller,
    cells: &[Arc<NodeCell>],
    successors: Vec<Successor>,
    new: &Plugin,
) {
    let patience = Duration::from_millis(shared.settings.node_close_timeout_ms);
    let stopping: Vec<_> = cells
        .iter()
        .zip(&successors)
        .filter(|(_, successor)| !successor.takes_over)
        .filter_map(|(cell, _)| {
            let cell = cell.clone();
            let instance = cell.instance()?;
            // It cannot finish while it is frozen.
            instance.host.own_tasks().thaw();
            instance.inputs.thaw();
            Some(shared.tokio.spawn(async move { cell.tell_to_close(instance, false, patience).await }))
        })
        .collect();
    deploy::wait_for(stopping, patience + Duration::from_secs(1));
    for (cell, successor) in cells.iter().zip(successors) {
        let concurrency = new.info().concurrency(&cell.graph_node.node_type);
        cell.exchange(successor.instance, successor.takes_over, concurrency);
    }
    deploy::start(shared, caller, cells);
}

/// Asks for the old connections until they have all moved.
fn move_connections(cells: &[Arc<NodeCell>], old: &Plugin, patience: Duration, swapped: &mut Swapped) {
    let generation = old.info().generation;
    let deadline = Instant::now() + patience;
    let ask = || -> usize { cells.iter().map(|cell| cell.sessions.ask_for(generation)).sum() };
    let mut left = ask();
    let mut most = left;
    while left > 0 && Instant::now() < deadline {
        std::thread::sleep(LOOK);
        // Asked anew: an upgrade may have been answered by the old node a moment before the commit.
        left = ask();
        most = most.max(left);
    }
    if left > 0 {
        for cell in cells {
            cell.sessions.leave_with(generation);
        }
    }
    for cell in cells {
        // Those who wait for the flow hold wakers of the old code.
        cell.gate.wake();
    }
    let mut away: Vec<Duration> = cells.iter().flat_map(|cell| cell.sessions.take_away_times()).collect();
    away.sort_unstable();
    if let (Some(most), Some(longest)) =
        (away.get((away.len() * 99).div_ceil(100).saturating_sub(1)), away.last())
    {
        swapped.away = (*most, *longest);
    }
    swapped.connections = most.saturating_sub(left);
    swapped.left_behind = left;
}

/// Lets go of the old code and waits a moment for the last of its users; whether it is out of memory.
fn retire(old: Arc<Plugin>, patience: Duration) -> bool {
    let still_used = Arc::downgrade(&old);
    drop(old);
    let deadline = Instant::now() + patience.min(RETIRE_PATIENCE);
    while still_used.strong_count() > 0 {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    plugin::wait_for_unloads(patience)
}

/// Nothing waits for this: what is left of the old code is counted, and unloaded whenever it is done.
const RETIRE_PATIENCE: Duration = Duration::from_secs(1);
