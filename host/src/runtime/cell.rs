//! One node of the running flows, as the host keeps it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use abi_stable::std_types::RResult;
use arc_swap::{ArcSwap, ArcSwapOption};
use flowbay_abi::{
    FfiFuture, Msg, Str, Value,
    io::{Connection, ConnectionEnd, HostIo, HostSession},
    message,
    node::{AbiNode, NodeError, Outcome, Via},
};

use super::{
    Shared, drain, events,
    events::{EventTargets, InstanceStatus},
    mailbox::{Delivery, Mailbox, Refused},
    pressure::Gate,
    sessions::{Session, Sessions},
    tasks::{Polled, Tasks},
};
use crate::{flow::GraphNode, ids::new_id, plugin::Plugin};

/// A plugin's node and the generation it belongs to. The node goes before the reference on its library: field order
/// matters.
pub struct Instance {
    /// The node.
    pub node: AbiNode,
    /// The library behind it.
    pub plugin: Arc<Plugin>,
}

/// Where a node's messages go.
#[derive(Default)]
pub struct Wires {
    /// For each output the cells that it is wired to, in order.
    pub outputs: Vec<Vec<Arc<NodeCell>>>,
    /// Outputs that lead to the status output of a subflow instance.
    pub statuses: Vec<(u32, Arc<InstanceStatus>)>,
}

/// What the host keeps for a node, whatever generation of whatever plugin is behind it: its place in the flow, its
/// mailbox, its sessions, its tasks.
///
/// Cells refer to each other in circles through their wires; closing a cell cuts them.
pub struct NodeCell {
    /// The node as the flow graph has it.
    pub graph_node: GraphNode,
    /// Messages it may have in hand at a time, 0 for any number.
    concurrency: usize,
    /// Messages begin in it: it waits when what it feeds is congested.
    pub is_source: bool,
    shared: Arc<Shared>,
    mailbox: Mutex<Mailbox>,
    pub(super) wires: ArcSwap<Wires>,
    pub(super) targets: ArcSwap<EventTargets>,
    /// The sources that can reach this node.
    pub(super) upstream: ArcSwap<Vec<Arc<NodeCell>>>,
    instance: ArcSwapOption<Instance>,
    pub(super) gate: Gate,
    pub(super) sessions: Sessions,
    tasks: Arc<Tasks>,
}

impl NodeCell {
    /// A cell without a node behind it: messages to it vanish.
    pub fn new(graph_node: GraphNode, concurrency: u32, is_source: bool, shared: Arc<Shared>) -> Self {
        Self {
            graph_node,
            concurrency: concurrency as usize,
            is_source,
            shared,
            mailbox: Mutex::default(),
            wires: ArcSwap::default(),
            targets: ArcSwap::default(),
            upstream: ArcSwap::default(),
            instance: ArcSwapOption::empty(),
            gate: Gate::default(),
            sessions: Sessions::default(),
            tasks: Arc::default(),
        }
    }

    /// The node's id.
    pub fn id(&self) -> &str {
        &self.graph_node.id
    }

    /// The owner of the node's own context.
    pub fn context_owner(&self) -> String {
        format!("{}:{}", self.graph_node.stored_id(), self.graph_node.z.as_deref().unwrap_or("global"))
    }

    /// The runtime it is part of.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The node behind it; `None` when it could not be created or is closed.
    pub fn instance(&self) -> Option<Arc<Instance>> {
        self.instance.load_full()
    }

    /// Puts a node behind the cell and begins to accept messages.
    pub fn open(&self, instance: Instance) {
        self.instance.store(Some(Arc::new(instance)));
        self.lock().open();
    }

    /// Queues a message for the node.
    pub fn deliver(self: &Arc<Self>, msg: Msg, via: Via) {
        // A refused message is dropped by `push`; what its Catch nodes are told needs it.
        let copy = self.targets.load().wants_errors().then(|| msg.clone());
        let pushed = self.lock().push(Delivery { msg, via }, &self.shared.marks, self.concurrency);
        if pushed.congested {
            for source in self.upstream.load().iter() {
                source.gate.block();
            }
        }
        if pushed.schedule {
            drain::schedule(self.clone());
        }
        match pushed.refused {
            None | Some(Refused::Closed) => {}
            Some(why) => events::refused(self, why, copy),
        }
    }

    /// Sends what a node sent to what it is wired to; see `HostApi::send`.
    pub fn send(&self, batch: &mut [flowbay_abi::host::PortMsg]) {
        let wires = self.wires.load();
        let mut shared_id = None;
        for at in 0..batch.len() {
            for (_, instance) in wires.statuses.iter().filter(|(port, _)| *port == batch[at].port) {
                events::instance_status(instance, &batch[at].msg);
            }
            let targets = wires.outputs.get(batch[at].port as usize);
            let Some((last, others)) = targets.and_then(|targets| targets.split_last()) else { continue };
            if batch[at].msg.id().is_none() {
                let id: &Str = shared_id.get_or_insert_with(|| {
                    batch.iter().find_map(|item| item.msg.id()).map_or_else(new_id, Str::from)
                });
                batch[at].msg.set(message::MSGID, id.clone());
            }
            let msg = std::mem::take(&mut batch[at].msg);
            if shared_id.is_none() && batch.len() > 1 {
                shared_id = msg.id().map(Str::from);
            }
            for target in others {
                target.deliver(msg.clone(), Via::Wire);
            }
            last.deliver(msg, Via::Wire);
        }
    }

    /// Gives the node up to `turn` of its messages; how many, and whether it wants another turn.
    pub fn run(self: &Arc<Self>, turn: usize) -> (usize, bool) {
        let Some(instance) = self.instance() else {
            // Closed between being scheduled and its turn.
            drop(self.lock().close());
            return (0, false);
        };
        for ran in 0..turn {
            let (delivery, release) = self.lock().take(&self.shared.marks, self.concurrency);
            if release {
                self.release_sources();
            }
            match delivery {
                Some(delivery) => self.hand(&instance, delivery),
                None => return (ran, false),
            }
        }
        (turn, true)
    }

    fn hand(self: &Arc<Self>, instance: &Arc<Instance>, delivery: Delivery) {
        // A copy is a reference count, but makes the node copy what it changes: only for those who will want it.
        let copy = self.targets.load().wants_messages().then(|| delivery.msg.clone());
        match instance.node.on_input(delivery.msg, delivery.via) {
            Outcome::Done => self.done(copy),
            Outcome::Ignored => {}
            Outcome::Failed(error) => events::error(self, error, copy),
            Outcome::Pending(future) => self.hold(instance, future, copy),
        }
    }

    fn hold(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        future: FfiFuture<RResult<(), NodeError>>,
        copy: Option<Msg>,
    ) {
        self.lock().hold();
        let cell = self.clone();
        let future = Polled::new(future, instance.plugin.clone());
        self.tasks.spawn(&self.shared.tokio, async move {
            let result = future.await;
            drain::scope(|| {
                match result.into_result() {
                    Ok(()) => cell.done(copy),
                    Err(error) if error.is_ignored() => {}
                    Err(error) => events::error(&cell, error, copy),
                }
                if cell.lock().finish(cell.concurrency) {
                    drain::schedule(cell.clone());
                }
            });
        });
    }

    fn done(self: &Arc<Self>, copy: Option<Msg>) {
        if let Some(msg) = copy {
            events::complete(self, msg);
        }
    }

    /// Runs a task of the node's.
    pub fn spawn(&self, future: FfiFuture<()>, plugin: Arc<Plugin>) {
        self.tasks.spawn(&self.shared.tokio, Polled::new(future, plugin));
    }

    /// Gives a connection to the node, with a new session. Returns the session's id.
    ///
    /// # Errors
    /// The node is closed, or panicked.
    pub fn serve(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        io: HostIo,
        state: Value,
    ) -> Result<Str, NodeError> {
        let plugin = instance.plugin.clone();
        let session = self.sessions.open(self.shared.queue_limits, plugin.clone());
        let id = flowbay_abi::io::HostSessionApi::id(&*session);
        let open = OpenSession { cell: self.clone(), session: session.clone() };
        let connection = Connection { io, session: HostSession::new(session), state };
        let future = Polled::new(instance.node.on_connection(connection)?, plugin);
        let spawned = self.tasks.spawn(&self.shared.tokio, async move {
            let open = open;
            if let ConnectionEnd::HandOver { .. } = future.await {
                tracing::warn!(node = %open.cell.id(), "a connection was handed over that nobody asked for; closed");
            }
        });
        if spawned { Ok(id) } else { Err(NodeError::new("the node is closed")) }
    }

    /// Stops the node: tells it, waits for it up to `patience`, then ends its tasks and lets go of it.
    pub async fn close(self: Arc<Self>, removed: bool, patience: Duration) {
        self.shared.routes.remove_owner(self.id());
        if let Some(instance) = self.instance() {
            let closing = match instance.node.on_close(removed) {
                Ok(future) => {
                    tokio::time::timeout(patience, Polled::new(future, instance.plugin.clone())).await.is_ok()
                }
                Err(error) => {
                    events::log_error(&self, &error);
                    true
                }
            };
            if !closing {
                events::log_error(&self, &NodeError::new("Error stopping node: Close timed out"));
            }
        }
        let (left, held_sources) = self.lock().close();
        if held_sources {
            self.release_sources();
        }
        drop(left);
        self.sessions.close_all();
        if !self.tasks.end(TASKS_END_PATIENCE).await {
            tracing::warn!(node = %self.id(), r#type = %self.graph_node.node_type, "a task of the node does not end; left behind");
        }
        self.gate.clear();
        self.instance.store(None);
        self.wires.store(Arc::default());
        self.targets.store(Arc::default());
        self.upstream.store(Arc::default());
    }

    /// Lets the sources upstream go on.
    fn release_sources(&self) {
        for source in self.upstream.load().iter() {
            source.gate.unblock();
        }
    }

    /// What the watch compares: messages taken so far, when the mailbox is congested and the node not given up.
    pub fn congested_at(&self) -> Option<u64> {
        self.lock().congested_at()
    }

    /// No progress past the stall deadline: refuse beyond the mark, let the sources go on.
    pub fn give_up(self: &Arc<Self>) {
        let waiting = {
            let mut mailbox = self.lock();
            mailbox.give_up();
            mailbox.len()
        };
        self.release_sources();
        tracing::warn!(
            node = %self.id(), r#type = %self.graph_node.node_type, waiting,
            "the node is stuck: it has finished no message for {} ms; more are refused until it goes on",
            self.shared.settings.stall_deadline_ms
        );
    }

    /// Messages refused so far.
    pub fn refused(&self) -> u64 {
        self.lock().refused()
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an aborted task may take to be dropped: it only has to reach the end of its poll.
const TASKS_END_PATIENCE: Duration = Duration::from_secs(1);

/// Ends the session with its connection, however that ends.
struct OpenSession {
    cell: Arc<NodeCell>,
    session: Arc<Session>,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.cell.sessions.remove(&self.session);
    }
}
