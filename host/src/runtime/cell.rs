//! One node of the running flows, as the host keeps it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
    mailbox::{Delivery, Mailbox, Refused, Standing},
    pressure::{Gate, Sources, Upstream},
    sessions::{Session, Sessions},
    tasks::{Polled, Tasks},
};
use crate::{
    flow::{GraphNode, Role},
    ids::new_id,
    plugin::{Plugin, with_task},
};

/// A plugin's node and the generation it belongs to. The node goes before the reference on its library: field order
/// matters.
pub struct Instance {
    /// The node.
    pub node: AbiNode,
    /// The library behind it.
    pub plugin: Arc<Plugin>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The node's own drop follows, on whatever thread this is: its thread-local values must be seen to.
        with_task(drain::NO_TASK, || ());
    }
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
    /// Messages it may have in hand at a time.
    concurrency: usize,
    /// Messages begin in it: it waits when what it feeds is congested.
    pub is_source: bool,
    shared: Arc<Shared>,
    mailbox: Mutex<Mailbox>,
    pub(super) wires: ArcSwap<Wires>,
    pub(super) targets: ArcSwap<EventTargets>,
    upstream: Upstream,
    /// Wires lead from it back to it.
    in_loop: AtomicBool,
    instance: ArcSwapOption<Instance>,
    /// It is being closed, or is.
    closed: AtomicBool,
    pub(super) gate: Gate,
    pub(super) sessions: Sessions,
    tasks: Arc<Tasks>,
}

impl NodeCell {
    /// A cell without a node behind it: messages to it vanish.
    pub fn new(graph_node: GraphNode, concurrency: u32, is_source: bool, shared: Arc<Shared>) -> Self {
        Self {
            graph_node,
            concurrency: match concurrency {
                0 => shared.settings.mailbox_cap.max(ANY_NUMBER),
                some => some as usize,
            },
            is_source,
            shared,
            mailbox: Mutex::default(),
            wires: ArcSwap::default(),
            targets: ArcSwap::default(),
            upstream: Upstream::default(),
            in_loop: AtomicBool::new(false),
            instance: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
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

    /// Whether it is closed or about to be.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Puts a node behind the cell and begins to accept messages.
    pub fn open(&self, instance: Instance) {
        self.instance.store(Some(Arc::new(instance)));
        self.lock().open();
    }

    /// Queues a message for the node.
    pub fn deliver(self: &Arc<Self>, msg: Msg, via: Via) {
        // A refused message is dropped by `push`; what its Catch nodes are told needs it. What a Catch node refuses is
        // told to nobody: two that are full would tell each other for ever.
        let told = self.graph_node.role != Role::Catch && self.targets.load().wants_errors();
        let copy = told.then(|| msg.clone());
        let delivery = Delivery::new(msg, via);
        let pushed = self.lock().push(delivery, &self.shared.marks, self.concurrency);
        if pushed.congested || pushed.release {
            self.hold_sources();
        }
        if pushed.schedule {
            drain::schedule(self.clone());
        }
        match pushed.refused {
            None | Some(Refused::Closed) => {}
            Some(why) => events::refused(self, why, pushed.first_refused, copy),
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
            // Closed between being scheduled and its turn; `close` has emptied the mailbox.
            return (0, false);
        };
        for ran in 0..turn {
            let (delivery, release) = self.lock().take(&self.shared.marks, self.concurrency);
            if release {
                self.hold_sources();
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

    /// Opens a session for a connection that code of `instance` is to serve.
    ///
    /// From now on what is sent to the session waits in its queue; it ends with what is returned.
    pub fn open_session(self: &Arc<Self>, instance: &Instance) -> OpenSession {
        let session = self.sessions.open(self.shared.queue_limits, instance.plugin.clone());
        OpenSession { cell: self.clone(), session }
    }

    /// Gives a connection to the node, with its session. Returns the session's id.
    ///
    /// # Errors
    /// The node is closed, or panicked.
    pub fn serve(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        open: OpenSession,
        io: HostIo,
        state: Value,
    ) -> Result<Str, NodeError> {
        let plugin = instance.plugin.clone();
        let session = open.session.clone();
        let id = flowbay_abi::io::HostSessionApi::id(&*session);
        let connection = Connection { io, session: HostSession::new(session), state };
        let future = with_task(drain::NO_TASK, || instance.node.on_connection(connection))?;
        let future = Polled::new(future, plugin);
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
        self.closed.store(true, Ordering::SeqCst);
        self.shared.routes.remove_owner(self.id());
        if let Some(instance) = self.instance() {
            let called = drain::scope(|| with_task(drain::NO_TASK, || instance.node.on_close(removed)));
            let closing = match called {
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
        let left = self.lock().close();
        drop(left);
        self.hold_sources();
        self.sessions.close_all();
        if !self.tasks.end(TASKS_END_PATIENCE).await {
            tracing::warn!(node = %self.id(), r#type = %self.graph_node.node_type, "a task of the node does not end; left behind");
        }
        self.gate.close();
        self.instance.store(None);
        self.wires.store(Arc::default());
        self.targets.store(Arc::default());
        self.set_upstream(Arc::default());
    }

    /// These are the sources that can reach this node from now on.
    pub fn set_upstream(&self, sources: Sources) {
        self.upstream.replace(sources, || self.lock().holds_sources());
    }

    /// Holds the sources upstream, or lets them go, as the mailbox wants it now.
    fn hold_sources(&self) {
        self.upstream.hold_while(|| self.lock().holds_sources());
    }

    /// Where the node stands, when its mailbox holds the sources: what the watch compares.
    pub fn congested_at(&self) -> Option<Standing> {
        self.lock().congested_at()
    }

    /// Whether wires lead from this node back to it.
    pub fn is_in_loop(&self) -> bool {
        self.in_loop.load(Ordering::Relaxed)
    }

    /// Says whether they do.
    pub fn set_in_loop(&self, in_loop: bool) {
        self.in_loop.store(in_loop, Ordering::Relaxed);
    }

    /// No progress past the stall deadline: refuse beyond the mark, let the sources go on. Nothing when the node has
    /// come on since it was at `standing`.
    pub fn give_up(&self, standing: Standing) {
        let in_loop = self.is_in_loop();
        let given_up = self.lock().give_up((!in_loop).then_some(standing.taken));
        if !given_up {
            return;
        }
        self.hold_sources();
        let waiting = standing.waiting;
        if in_loop {
            tracing::warn!(
                node = %self.id(), r#type = %self.graph_node.node_type, waiting,
                "messages go round in a loop and do not become fewer; more are refused until they do"
            );
            return;
        }
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

/// A node that takes "any number" of messages in hand is given at least so many, or as many as fit a mailbox if those
/// are more. Each costs a task: without a limit, a node that finishes none would take all memory.
const ANY_NUMBER: usize = 10_000;

/// How long an aborted task may take to be dropped: it only has to reach the end of its poll.
const TASKS_END_PATIENCE: Duration = Duration::from_secs(1);

/// A session that lasts as long as this: it ends with its connection, however that ends.
pub struct OpenSession {
    cell: Arc<NodeCell>,
    session: Arc<Session>,
}

impl OpenSession {
    /// Whether it was opened for the code of `instance`.
    pub fn is_for(&self, instance: &Instance) -> bool {
        self.session.is_served_by(&instance.plugin)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.cell.sessions.remove(&self.session);
    }
}
