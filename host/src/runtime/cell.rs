//! One node of the running flows, as the host keeps it.

use std::{
    future::{Future, poll_fn},
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
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
    Shared,
    api::NodeHost,
    drain, events,
    events::{EventTargets, InstanceStatus},
    mailbox::{Delivery, LoopStanding, Mailbox, MailboxFigures, Refused, Standing},
    pressure::{Gate, Sources, Upstream},
    sessions::{ServedSession, Session, Sessions},
    tasks::{Freeze, Kind, Polled, Tasks},
};
use crate::{
    flow::{GraphNode, Role},
    ids::new_id,
    metrics::NodeMetrics,
    plugin::{Plugin, PluginStream, with_task},
};

/// A plugin's node and the generation it belongs to. The node goes before the reference on its library: field order
/// matters.
pub struct Instance {
    /// The node.
    pub node: AbiNode,
    /// Its door to the host.
    pub host: Arc<NodeHost>,
    /// Stops the messages that it has in hand.
    pub inputs: Arc<Freeze>,
    /// The library behind it.
    pub plugin: Arc<Plugin>,
}

impl Instance {
    /// A node of `plugin` with its door.
    pub fn new(node: AbiNode, host: Arc<NodeHost>, plugin: Arc<Plugin>) -> Self {
        Self { node, host, inputs: Arc::default(), plugin }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The node's own drop follows, on whatever thread this is: its thread-local values must be seen to.
        with_task(drain::NO_TASK, || ());
        self.host.forget();
    }
}

/// See [`NodeCell::under_way`]: giving it a message, polling a message in hand, polling a task of its own.
pub type UnderWay = [Option<u64>; 3];

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
    /// Messages it may have in hand at a time. A newer build may say otherwise.
    concurrency: AtomicUsize,
    /// Its type declares no limit on them.
    any_number: AtomicBool,
    /// Messages begin in it: it waits when what it feeds is congested.
    pub is_source: bool,
    shared: Arc<Shared>,
    mailbox: Mutex<Mailbox>,
    pub(super) wires: ArcSwap<Wires>,
    pub(super) targets: ArcSwap<EventTargets>,
    upstream: Upstream,
    /// The loop that it is part of: nodes with the same number lead to each other. 0 for none.
    in_loop: AtomicUsize,
    instance: ArcSwapOption<Instance>,
    /// It is being closed, or is.
    closed: AtomicBool,
    pub(super) gate: Gate,
    pub(super) sessions: Sessions,
    pub(super) metrics: NodeMetrics,
    tasks: Arc<Tasks>,
}

impl NodeCell {
    /// A cell without a node behind it: messages to it vanish.
    pub fn new(graph_node: GraphNode, concurrency: u32, is_source: bool, shared: Arc<Shared>) -> Self {
        Self {
            graph_node,
            concurrency: AtomicUsize::new(limit(concurrency, &shared)),
            any_number: AtomicBool::new(concurrency == 0),
            is_source,
            shared,
            mailbox: Mutex::default(),
            wires: ArcSwap::default(),
            targets: ArcSwap::default(),
            upstream: Upstream::default(),
            in_loop: AtomicUsize::new(0),
            instance: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
            gate: Gate::default(),
            sessions: Sessions::default(),
            metrics: NodeMetrics::default(),
            tasks: Arc::default(),
        }
    }

    /// The node's id.
    pub fn id(&self) -> &str {
        &self.graph_node.id
    }

    /// The owner of the node's own context.
    pub fn context_owner(&self) -> String {
        self.graph_node.context_owner()
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
        let pushed = self.lock().push(delivery, &self.shared.marks, self.concurrency());
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
        for ran in 0..turn {
            let (delivery, release) = self.lock().take(&self.shared.marks, self.concurrency());
            if release {
                self.hold_sources();
            }
            let Some(delivery) = delivery else { return (ran, false) };
            // Looked up for each message: a swap may have put another node there.
            match &*self.instance.load() {
                Some(instance) => self.hand(instance, delivery),
                // Closed in this moment: the message vanishes, as those behind it do.
                None => return (ran, false),
            }
        }
        self.lock().pause();
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
        let term = self.lock().keep();
        let cell = self.clone();
        let future = Polled::freezable(future, instance.plugin.clone(), instance.inputs.clone());
        self.tasks.spawn(&self.shared.tokio, Kind::Input, async move {
            let result = future.await;
            drain::scope(|| {
                match result.into_result() {
                    Ok(()) => cell.done(copy),
                    Err(error) if error.is_ignored() => {}
                    Err(error) => events::error(&cell, error, copy),
                }
                if cell.lock().finish(term, cell.concurrency()) {
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
    pub fn spawn(&self, future: FfiFuture<()>, plugin: Arc<Plugin>, freeze: &Arc<Freeze>) {
        if freeze.is_over() {
            // Asked for by a connection that the old code still serves: it ends by itself.
            self.tasks.spawn(&self.shared.tokio, Kind::Connection, Polled::new(future, plugin));
        } else {
            let task = Polled::freezable(future, plugin, freeze.clone());
            self.tasks.spawn(&self.shared.tokio, Kind::Own, task);
        }
    }

    /// Answers an HTTP request.
    pub fn spawn_request(&self, answer: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(&self.shared.tokio, Kind::Request, answer);
    }

    /// Opens a session for a connection with `peer` that is about to come; `queue`: what the node wants of its queue,
    /// see `flowbay_abi::shapes`.
    ///
    /// From now on what is sent to the session waits in its queue; it ends with what is returned.
    pub fn open_session(self: &Arc<Self>, peer: &str, queue: Option<&Value>) -> OpenSession {
        let session = self.sessions.open(Str::from(peer), self.shared.queue_limits.with(queue));
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
        let id = open.session.id().clone();
        let first = open.begin(instance, io, state)?;
        if !self.instance().is_some_and(|now| Arc::ptr_eq(&now, instance)) {
            // Newer code took over in this moment, and may have asked for the connections already.
            open.session.ask_for();
        }
        if self.tasks.spawn(&self.shared.tokio, Kind::Connection, open.serve(first)) {
            Ok(id)
        } else {
            Err(NodeError::new("the node is closed"))
        }
    }

    /// Stops the node: tells it, waits for it up to `patience`, then ends its tasks and lets go of it.
    pub async fn close(self: Arc<Self>, removed: bool, patience: Duration) {
        self.closed.store(true, Ordering::SeqCst);
        self.shared.routes.remove_owner(self.id());
        if let Some(instance) = self.instance() {
            self.tell_to_close(instance, removed, patience).await;
        }
        let left = self.lock().close();
        drop(left);
        self.hold_sources();
        self.sessions.close_all();
        self.shared.tickets.give_up(self.id());
        if !self.tasks.end(TASKS_END_PATIENCE).await {
            tracing::warn!(node = %self.id(), r#type = %self.graph_node.node_type, "a task of the node does not end; left behind");
        }
        self.gate.close();
        self.instance.store(None);
        self.wires.store(Arc::default());
        self.targets.store(Arc::default());
        self.set_upstream(Arc::default());
    }

    /// Tells the node that it is being stopped, and waits for it.
    pub async fn tell_to_close(&self, instance: Arc<Instance>, removed: bool, patience: Duration) {
        let called = drain::scope(|| with_task(drain::NO_TASK, || instance.node.on_close(removed)));
        let closing = match called {
            Ok(future) => {
                tokio::time::timeout(patience, Polled::new(future, instance.plugin.clone())).await.is_ok()
            }
            Err(error) => {
                events::log_error(self, &error);
                true
            }
        };
        if !closing {
            events::log_error(self, &NodeError::new("Error stopping node: Close timed out"));
        }
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

    /// The calls and polls of the node's code that have not returned, by kind, each with a number that is another for
    /// another call: what the watch compares.
    pub fn under_way(&self) -> UnderWay {
        let call = self.lock().in_call();
        let instance = self.instance.load();
        let polls = |freeze: &dyn Fn(&Instance) -> Option<u64>| instance.as_ref().and_then(|it| freeze(it));
        [call, polls(&|it| it.inputs.under_way()), polls(&|it| it.host.own_tasks().under_way())]
    }

    /// The node's code has kept a thread past the stall deadline.
    pub fn keeps_a_thread(&self) {
        tracing::warn!(
            node = %self.id(), r#type = %self.graph_node.node_type,
            "the node keeps a thread: its code has not returned for {} ms, and others may have to wait; work that \
             blocks belongs on the threads for it",
            self.shared.settings.stall_deadline_ms
        );
    }

    /// The loop that it is part of: nodes with the same number lead to each other.
    pub fn in_loop(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.in_loop.load(Ordering::Relaxed))
    }

    /// Says which loop it is part of now. One that was given up is a new one then.
    pub fn set_in_loop(&self, in_loop: Option<NonZeroUsize>) {
        self.in_loop.store(in_loop.map_or(0, NonZeroUsize::get), Ordering::Relaxed);
        self.give_up_loop(false);
    }

    /// No progress past the stall deadline: refuse beyond the mark, let the sources go on. Nothing when the node has
    /// come on since it was at `standing`.
    pub fn give_up(&self, standing: Standing) {
        if !self.lock().give_up(standing.taken) {
            return;
        }
        self.hold_sources();
        tracing::warn!(
            node = %self.id(), r#type = %self.graph_node.node_type, waiting = standing.waiting,
            "the node is stuck: it has finished no message for {} ms; more are refused until it goes on",
            self.shared.settings.stall_deadline_ms
        );
    }

    /// How far the cells of a loop are, all at one moment: what is on its way from one to the other is not counted
    /// twice. (Nobody else holds two of these locks.)
    pub fn loop_standing(cells: &[Arc<Self>]) -> LoopStanding {
        let mailboxes: Vec<_> = cells.iter().map(|cell| cell.lock()).collect();
        let mut standing = LoopStanding::default();
        for mailbox in &mailboxes {
            standing += mailbox.loop_standing();
        }
        standing
    }

    /// The messages of its loop do not become fewer: refuse beyond the mark, let the sources go on. Or that is over.
    pub fn give_up_loop(&self, given_up: bool) {
        self.lock().give_up_loop(given_up);
        self.hold_sources();
    }

    /// Messages refused so far.
    pub fn refused(&self) -> u64 {
        self.lock().refused()
    }

    /// How its mailbox stands.
    pub fn mailbox_figures(&self) -> MailboxFigures {
        self.lock().figures()
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node that takes "any number" of messages in hand is given at least so many, or as many as fit a mailbox if those
/// are more. Each costs a task: without a limit, a node that finishes none would take all memory.
const ANY_NUMBER: usize = 10_000;

/// Polls of one connection before others have their turn: one that reads, one that writes, and once more for those that
/// do both at a time.
const POLLS_IN_A_ROW: usize = 3;

/// How many messages a node may have in hand, of what its type declares.
fn limit(concurrency: u32, shared: &Shared) -> usize {
    match concurrency {
        0 => shared.settings.mailbox_cap.max(ANY_NUMBER),
        some => some as usize,
    }
}

/// How long an aborted task may take to be dropped: it only has to reach the end of its poll.
const TASKS_END_PATIENCE: Duration = Duration::from_secs(1);

/// A session that lasts as long as this: it ends with its connection, however that ends.
pub struct OpenSession {
    cell: Arc<NodeCell>,
    session: Arc<Session>,
}

impl OpenSession {
    /// Gives the connection to a node.
    fn begin(
        &self,
        instance: &Instance,
        io: HostIo,
        state: Value,
    ) -> Result<Polled<ConnectionEnd>, NodeError> {
        let plugin = instance.plugin.clone();
        let session = HostSession::new(Arc::new(ServedSession::new(self.session.clone(), plugin.clone())));
        let connection = Connection { io, session, state };
        let future = with_task(drain::NO_TASK, || instance.node.on_connection(connection))?;
        Ok(Polled::new(future, plugin))
    }

    /// Serves the connection to its end, by one generation of the node's code after the other.
    async fn serve(self, first: Polled<ConnectionEnd>) {
        let mut serving = first;
        while let ConnectionEnd::HandOver { io, state } = self.served(&mut serving).await {
            match self.hand_on(io, state) {
                Ok(next) => serving = next,
                Err(error) => {
                    events::log_error(&self.cell, &error);
                    self.lost();
                    return;
                }
            }
        }
    }

    /// The node knows of the connection from its predecessor, and would wait for its end for ever.
    fn lost(&self) {
        let Some(instance) = self.cell.instance() else { return };
        let id = self.session.id();
        let told = drain::scope(|| with_task(drain::NO_TASK, || instance.node.on_connection_lost(id)));
        if let Err(error) = told {
            events::log_error(&self.cell, &error);
        }
    }

    /// Polls a connection, and polls it again at once when what it read led to something to write: most flows answer
    /// in the same turn, and a wake-up through the scheduler costs more than the poll.
    async fn served(&self, serving: &mut Polled<ConnectionEnd>) -> ConnectionEnd {
        poll_fn(|cx| {
            self.session.begin_poll();
            for _ in 0..POLLS_IN_A_ROW {
                match Pin::new(&mut *serving).poll(cx) {
                    Poll::Ready(end) => {
                        self.session.wake();
                        return Poll::Ready(end);
                    }
                    Poll::Pending if self.session.end_poll() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            self.session.wake();
            Poll::Pending
        })
        .await
    }

    fn hand_on(&self, io: HostIo, state: Value) -> Result<Polled<ConnectionEnd>, NodeError> {
        let lost =
            |why: &str| NodeError::new(format!("session {}: connection lost: {why}", self.session.id()));
        let stream = io
            .into_stream::<PluginStream>()
            .map_err(|_| lost("the plugin gave back another stream than it had"))?
            .detach();
        let instance = self.cell.instance().ok_or_else(|| lost("the node is closed"))?;
        let io = HostIo::new(PluginStream::new(stream, instance.plugin.clone()));
        let serving = self.begin(&instance, io, state)?;
        self.cell.sessions.has_moved(&self.session);
        Ok(serving)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.cell.sessions.remove(&self.session);
    }
}

/// What the swap does with a cell.
impl NodeCell {
    fn concurrency(&self) -> usize {
        self.concurrency.load(Ordering::Relaxed)
    }

    /// Stops handing out messages.
    pub fn hold_mailbox(&self) {
        self.lock().hold();
    }

    /// Hands out messages again.
    pub fn release_mailbox(self: &Arc<Self>) {
        if self.lock().release(self.concurrency()) {
            drain::schedule(self.clone());
        }
    }

    /// Whether a thread is in the node's input handler.
    pub fn is_running(&self) -> bool {
        self.lock().is_running()
    }

    /// Whether the node must finish a message before it can be exchanged. One that handles any number at a time may
    /// never be without; it saves what it has in hand.
    pub fn is_busy(&self) -> bool {
        !self.any_number.load(Ordering::Relaxed) && self.lock().in_hand() > 0
    }

    /// Puts a successor behind the cell. What the old node's own tasks would still do is done by the new one's; a
    /// message that it has in hand it finishes, unless its successor was given it.
    pub fn exchange(&self, successor: Instance, takes_over: bool, concurrency: u32) {
        let old = self.instance.swap(Some(Arc::new(successor)));
        self.lock().begin_term();
        let saved_inputs = self.any_number.swap(concurrency == 0, Ordering::Relaxed) && takes_over;
        self.concurrency.store(limit(concurrency, &self.shared), Ordering::Relaxed);
        if let Some(old) = old {
            // Before they are ended: a poll that a thread is about to begin must not slip in between.
            old.host.own_tasks().end();
            if saved_inputs {
                old.inputs.end();
            } else {
                old.inputs.thaw();
            }
        }
        self.tasks.end_all(Kind::Own);
        if saved_inputs {
            self.tasks.end_all(Kind::Input);
        }
        self.gate.wake();
    }
}
