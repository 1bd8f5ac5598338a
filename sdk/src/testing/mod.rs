//! Tests of nodes without a host: no library is loaded, no socket opened, no time waited for.
//!
//! A [`TestNode`] is one node as the host would run it: created from a configuration, begun, given messages one after
//! the other, called through the same boundary. What it does is written down; the test asks for it. Its tasks run
//! when the test calls something, on the test's own thread, and time passes only by [`TestNode::advance`]. Blocking work
//! is done at once, on that thread too. Only what runs on a tokio runtime of the node's own has a thread of its own and
//! real time; [`TestNode::wait_for`] waits for it.
//!
//! ```
//! use flowbay_sdk::{prelude::*, testing::TestNode, value};
//!
//! struct LowerCase;
//!
//! #[node("lower-case", category = "function", inputs = 1, outputs = 1)]
//! impl Node for LowerCase {
//!     type Config = NoConfig;
//!
//!     fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
//!         Ok(LowerCase)
//!     }
//!
//!     async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
//!         let text = msg.payload().as_str().ok_or_else(|| Error::new("payload is no text"))?.to_lowercase();
//!         msg.set("payload", text);
//!         ctx.send(msg);
//!         Ok(())
//!     }
//! }
//!
//! let mut node = TestNode::<LowerCase>::new(value!({}));
//! node.input(Msg::with_payload("HELLO"));
//! assert_eq!(node.next_sent().payload(), &Value::from("hello"));
//!
//! node.input(Msg::with_payload(7));
//! assert_eq!(node.failures()[0].text, "payload is no text");
//! ```
//!
//! [`HostProcess`] is the second level: the built plugin in the real host, with a flow.

mod executor;
mod host;
mod peer;
mod process;

use std::{
    collections::VecDeque,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use abi_stable::std_types::RResult;
use flowbay_abi::{
    FfiFuture, Metric, Msg,
    host::{ContextScope, HostNode},
    io as abi_io,
    io::HostSession,
    node::{AbiNode, NodeError, Outcome, Via},
    value::{self, Object, Str, Value},
};

pub use host::{Dialled, Failure, LogLine, Sent};
pub use peer::TestPeer;
pub use process::{Ended, HostProcess, HostSetup, Reply, Shown};

use executor::{Clock, Executor, lock};
use host::{Attached, Record, TestHost};
use peer::ServedSession;

use crate::{Error, Node, plugin::create_node};

/// One node under test. See the [module](self).
pub struct TestNode<N> {
    node: Option<AbiNode>,
    host: Arc<TestHost>,
    executor: Executor,
    config: Value,
    /// Messages that wait until those before them are finished.
    waiting: VecDeque<(Msg, Via)>,
    in_hand: Arc<Mutex<Vec<Finished>>>,
    pending: usize,
    serving: Vec<Serving>,
    tickets: u64,
    /// Since the node is being closed: whether it is done with that.
    closing: Option<Arc<Mutex<bool>>>,
    of: PhantomData<fn() -> N>,
}

/// A message that the node took some time for.
struct Finished {
    msg: Msg,
    result: Result<(), NodeError>,
}

/// A connection of the node's.
struct Serving {
    id: Str,
    session: Arc<peer::TestSession>,
    ended: Arc<Mutex<Option<abi_io::ConnectionEnd>>>,
}

/// How long [`TestNode::wait_for`] waits, and how often it looks at what wakes nobody.
const WAIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// What a node under test finds around it. Everything may be left out.
///
/// ```
/// # use flowbay_sdk::{prelude::*, testing::Setup, value, ContextScope};
/// # struct Greeter(String);
/// # #[node("greeter", inputs = 1, outputs = 1)]
/// # impl Node for Greeter {
/// #     type Config = NoConfig;
/// #     fn new(_: NoConfig, ctx: &Ctx) -> Result<Self, Error> {
/// #         Ok(Greeter(ctx.env("GREETING").unwrap_or_default().to_js_string()))
/// #     }
/// #     async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
/// #         msg.set("payload", self.0.as_str());
/// #         ctx.send(msg);
/// #         Ok(())
/// #     }
/// # }
/// let mut node = Setup::new().name("first").env("GREETING", "Ahoi").create::<Greeter>().unwrap();
/// node.input(Msg::new());
/// assert_eq!(node.next_sent().payload(), &Value::from("Ahoi"));
/// ```
pub struct Setup {
    config: Value,
    restored: Option<Value>,
    record: Record,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// A node with the id `node-under-test`, without a name, on the tab `flow-under-test`, with a wire at each output.
    pub fn new() -> Self {
        let record = Record {
            info: Object::from([
                ("id", Value::from("node-under-test")),
                ("type", Value::from("")),
                ("name", Value::from("")),
                ("z", Value::from("flow-under-test")),
                ("alias", Value::Null),
                ("path", Value::from("flow-under-test")),
            ]),
            ..Record::default()
        };
        Self { config: Value::Object(Object::new()), restored: None, record }
    }

    /// The node's properties in the flow file.
    #[must_use]
    pub fn config(mut self, config: impl Into<Value>) -> Self {
        self.config = config.into();
        self
    }

    /// The node's id.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.record.info.insert("id", id);
        self
    }

    /// The node's name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.record.info.insert("name", name);
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.record.env.insert(name.to_owned(), value.into());
        self
    }

    /// A field of the node's credentials.
    #[must_use]
    pub fn credential(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.record.credentials.insert(field, value);
        self
    }

    /// A top-level entry of the default context store.
    #[must_use]
    pub fn context(self, scope: ContextScope, key: &str, value: impl Into<Value>) -> Self {
        self.context_in(scope, "", key, value)
    }

    /// A top-level entry of a context store: `file` for instance. `memory` is the default one, as is the empty name;
    /// every other name is a store of its own here, while the host takes the default one for a name that it does not
    /// know.
    #[must_use]
    pub fn context_in(self, scope: ContextScope, store: &str, key: &str, value: impl Into<Value>) -> Self {
        self.record.context.with(scope, store, |store| store.insert(key, value));
        self
    }

    /// A path that another node has: a route there is refused with the code `ROUTE_TAKEN`.
    #[must_use]
    pub fn taken_path(mut self, path: &str) -> Self {
        self.record.taken_paths.push(path.to_owned());
        self
    }

    /// So many values may wait for a session of the node's, one at least; with one more the session is cut
    /// ([`crate::Queued::Overflow`]). Without this any number may wait.
    #[must_use]
    pub fn session_queue(mut self, values: usize) -> Self {
        self.record.session_queue = Some(values);
        self
    }

    /// The properties of a config node of another plugin.
    #[must_use]
    pub fn config_node(mut self, id: &str, properties: impl Into<Value>) -> Self {
        self.record.configs.insert(id.to_owned(), properties.into());
        self
    }

    /// A node to which [`crate::Ctx::deliver`] can deliver.
    #[must_use]
    pub fn other_node(mut self, id: &str) -> Self {
        self.record.others.push(id.to_owned());
        self
    }

    /// What a predecessor saved: the node takes over in a hot swap.
    #[must_use]
    pub fn restored(mut self, state: impl Into<Value>) -> Self {
        self.restored = Some(state.into());
        self
    }

    /// Creates the node and lets it begin.
    ///
    /// # Errors
    /// What the host would report: its configuration does not fit, or its constructor refused or panicked.
    pub fn create<N: Node>(self) -> Result<TestNode<N>, Error> {
        let Self { config, restored, mut record } = self;
        record.info.insert("type", N::TYPE.name());
        let outputs = N::TYPE.to_value()["outputs"].as_i64().unwrap_or(0);
        record.info.insert("wires", value::Array::from_iter((0..outputs).map(|_| Value::from(1))));
        let executor = Executor::default();
        let host = Arc::new(TestHost {
            record: Mutex::new(record),
            clock: Arc::new(Clock::default()),
            begun: executor.begun(),
            threads: Mutex::default(),
        });
        let node = create::<N>(&host, &config, restored)?;
        let mut test = TestNode {
            node: Some(node),
            host,
            executor,
            config,
            waiting: VecDeque::new(),
            in_hand: Arc::default(),
            pending: 0,
            serving: Vec::new(),
            tickets: 0,
            closing: None,
            of: PhantomData,
        };
        test.begin();
        Ok(test)
    }
}

fn create<N: Node>(host: &Arc<TestHost>, config: &Value, restored: Option<Value>) -> Result<AbiNode, Error> {
    flowbay_abi::panics::catch(|| create_node::<N>(HostNode::new(host.clone()), config.clone(), restored))
        .unwrap_or_else(|panicked| Err(NodeError::from_panic(panicked)))
        .map_err(Error::from_abi)
}

impl<N: Node> TestNode<N> {
    /// A node with that configuration and nothing else around it, begun.
    ///
    /// # Panics
    /// It cannot be created; [`Setup::create`] says why in a result.
    pub fn new(config: impl Into<Value>) -> Self {
        match Setup::new().config(config).create() {
            Ok(node) => node,
            Err(error) => panic!("the node cannot be created: {error}"),
        }
    }

    fn begin(&mut self) {
        if let Some(Err(error)) = self.node.as_ref().map(AbiNode::on_start) {
            self.host.failed(error, None);
        }
        self.run();
    }

    // ---- Messages

    /// Gives the node a message, as by a wire, and lets it run. It waits its turn when the node is busy.
    pub fn input(&mut self, msg: impl Into<Msg>) {
        self.waiting.push_back((msg.into(), Via::Wire));
        self.run();
    }

    /// Gives the node a message that another node addressed to it ([`crate::Ctx::deliver`]).
    pub fn direct(&mut self, msg: impl Into<Msg>) {
        self.waiting.push_back((msg.into(), Via::Direct));
        self.run();
    }

    /// Takes the messages that the node has sent since the last call, in order.
    pub fn sent(&mut self) -> Vec<Sent> {
        self.record().sent.drain(..).collect()
    }

    /// Takes the first message that the node has sent and that was not taken.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn next_sent(&mut self) -> Msg {
        let sent = self.record().sent.pop_front();
        match sent {
            Some(sent) => sent.msg,
            None => panic!("the node has sent no message{}", self.what_happened()),
        }
    }

    /// Takes the messages that the node delivered to others by their ids.
    pub fn delivered(&mut self) -> Vec<(String, Msg)> {
        std::mem::take(&mut self.record().delivered)
    }

    /// Takes the messages that the node has completed, as they arrived: what Complete nodes get.
    pub fn completed(&mut self) -> Vec<Msg> {
        std::mem::take(&mut self.record().completed)
    }

    /// Messages that wait for the node or that it has in hand.
    pub fn unfinished(&self) -> usize {
        self.waiting.len() + self.pending
    }

    // ---- What it reports

    /// Takes the errors that the node has reported, in whatever way, panics among them.
    pub fn failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.record().failures)
    }

    /// Takes the statuses that the node has published.
    pub fn statuses(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.record().statuses)
    }

    /// Takes what the node wrote to the log.
    pub fn log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.record().log)
    }

    /// Takes what the node showed as a debug node does.
    pub fn debug_events(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.record().debug)
    }

    /// The value of one of the node's metrics; `None` when it has none of that name.
    pub fn metric(&self, name: &str) -> Option<i64> {
        self.record().metrics.get(name).map(Metric::get)
    }

    /// A top-level entry of the default context store.
    pub fn context(&self, scope: ContextScope, key: &str) -> Option<Value> {
        self.context_in(scope, "", key)
    }

    /// A top-level entry of a context store; see [`Setup::context_in`].
    pub fn context_in(&self, scope: ContextScope, store: &str, key: &str) -> Option<Value> {
        self.record().context.with(scope, store, |store| store.get(key).cloned())
    }

    // ---- Time and pressure

    /// Lets the node's tasks go on until all of them wait for something.
    ///
    /// # Panics
    /// They never do.
    pub fn run(&mut self) {
        loop {
            self.executor.run_until_idle();
            let mut went_on = self.settle();
            let attached = std::mem::take(&mut self.record().attached);
            for attached in attached {
                self.serve(attached);
                went_on = true;
            }
            while let Some((msg, via)) = self.next_waiting() {
                self.give(msg, via);
                went_on = true;
            }
            if !went_on {
                if self.is_closed() {
                    self.end();
                }
                return;
            }
        }
    }

    /// Lets so much time pass: timers that are due meanwhile fire one after the other, each at its time.
    pub fn advance(&mut self, time: Duration) {
        let until = self.host.clock.now() + time;
        self.run();
        while let Some(due) = self.host.clock.next_due().filter(|due| *due <= until) {
            self.host.clock.set(due);
            self.run();
        }
        self.host.clock.set(until);
        self.run();
    }

    /// Lets the node's tasks go on until `there` finds what it looks for, in real time: for what happens on a thread of
    /// the node's own, and only for that.
    ///
    /// # Panics
    /// It does not come within ten seconds.
    #[track_caller]
    pub fn wait_for<T>(&mut self, mut there: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT;
        loop {
            self.run();
            if let Some(found) = there(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "it does not come{}", self.what_happened());
            // A task that is woken ends this at once; not all that is waited for wakes one.
            std::thread::park_timeout(LOOK);
        }
    }

    /// Whether what the node sends piles up downstream, so that [`crate::Ctx::ready`] waits.
    pub fn set_congested(&mut self, congested: bool) {
        let waiting = {
            let mut record = self.record();
            record.congested = congested;
            std::mem::take(&mut record.waiting)
        };
        waiting.into_iter().for_each(std::task::Waker::wake);
        self.run();
    }

    // ---- Its end, and its successor

    /// What the node would leave to its successor in a hot swap.
    ///
    /// # Errors
    /// It cannot say; the host would undo the swap.
    pub fn save(&self) -> Result<Option<Value>, Error> {
        self.node.as_ref().map_or(Ok(None), AbiNode::save).map_err(Error::from_abi)
    }

    /// Swaps the node for a new one of type `M`, as the host does when newer code comes: the new one is created with
    /// what this one saved, this one's tasks end, connections move, and messages that waited go to the new one. So does
    /// what this one has sent and reported, till its end, and the test has not taken yet.
    ///
    /// The host waits for messages that the node has in hand; here the test lets the node finish them first, by
    /// [`Self::advance`] for instance. A type that takes any number (`concurrency = 0`) saves what it has in hand, and is
    /// not waited for: its handlers end.
    ///
    /// # Errors
    /// The node has messages in hand, declines (it saved nothing), could not save, or the new one could not be created
    /// from it: the host would wait, stop and start it, or go on with the old one. This one is as it was.
    pub fn hand_over<M: Node>(mut self) -> Result<TestNode<M>, (Box<Self>, Error)> {
        self.run();
        if self.pending > 0 && N::TYPE.messages_in_hand() != 0 {
            let text = format!("{} messages are in hand", self.pending);
            return Err((Box::new(self), Error::new(text)));
        }
        let state = match self.save() {
            Ok(Some(state)) => state,
            Ok(None) => return Err((Box::new(self), Error::new("the node saves no state"))),
            Err(error) => return Err((Box::new(self), error)),
        };
        let executor = Executor::default();
        let host = Arc::new(TestHost {
            record: Mutex::default(),
            clock: self.host.clock.clone(),
            begun: executor.begun(),
            threads: Mutex::default(),
        });
        *lock(&host.record) = self.record().for_successor();
        let node = match create::<M>(&host, &self.config, Some(state)) {
            Ok(node) => node,
            Err(error) => return Err((Box::new(self), error)),
        };
        for serving in &self.serving {
            serving.session.ask_for(true);
        }
        self.executor.run_until_idle();
        self.settle();
        lock(&host.record).succeed(&mut self.record());
        let mut successor = TestNode {
            node: Some(node),
            host,
            executor,
            config: std::mem::take(&mut self.config),
            waiting: std::mem::take(&mut self.waiting),
            in_hand: Arc::default(),
            pending: 0,
            serving: Vec::new(),
            tickets: self.tickets,
            closing: None,
            of: PhantomData,
        };
        for Serving { id, session, ended } in std::mem::take(&mut self.serving) {
            let end = lock(&ended).take();
            session.ask_for(false);
            match end {
                Some(abi_io::ConnectionEnd::HandOver { io, state }) => {
                    successor.record().sessions.insert(id.clone(), session.clone());
                    successor.serve(Attached { io, state, id, session });
                }
                _ => session.close(),
            }
        }
        successor.begin();
        Ok(successor)
    }

    /// Stops the node; `removed` when it is gone from the configuration. True when it was done with that by itself;
    /// false when it still waits for something: it goes on when time passes ([`Self::advance`]) or the test lets it
    /// ([`Self::run`]), and [`Self::is_closed`] says when it is done. The host would stop waiting after the close timeout.
    ///
    /// What it sends and reports meanwhile can be asked for as ever. When it is done its connections are cut and its
    /// tasks end; what it gets after that is lost.
    pub fn close(&mut self, removed: bool) -> bool {
        if self.closing.is_none() {
            let done = Arc::new(Mutex::new(false));
            self.closing = Some(done.clone());
            self.record().routes.clear();
            match self.node.as_ref().map(|node| node.on_close(removed)) {
                Some(Ok(closing)) => self.host.begun.spawn(async move {
                    closing.await;
                    *lock(&done) = true;
                }),
                Some(Err(error)) => {
                    self.host.failed(error, None);
                    *lock(&done) = true;
                }
                None => *lock(&done) = true,
            }
        }
        self.run();
        self.is_closed()
    }

    /// Whether the node was told to close and is done with it.
    pub fn is_closed(&self) -> bool {
        self.closing.as_ref().is_some_and(|done| *lock(done))
    }

    /// The node is done with closing: what is left of it goes, as in the host.
    fn end(&mut self) {
        self.waiting.clear();
        let sessions = std::mem::take(&mut self.record().sessions);
        sessions.values().for_each(|session| session.close());
        self.executor.run_until_idle();
        self.settle();
        self.executor.clear();
        lock(&self.in_hand).clear();
        self.pending = 0;
        self.serving.clear();
        self.node = None;
    }

    // ---- HTTP and connections

    /// Asks the node for a WebSocket upgrade: its answer, and the connection when it accepted. `request` has the
    /// properties of an upgrade request that the node looks at.
    pub fn upgrade(&mut self, request: impl Into<Value>) -> (Value, Option<(Str, TestPeer)>) {
        let request = request.into();
        self.tickets += 1;
        let Some(node) = &self.node else { return (Value::Null, None) };
        let mut answer = match node.on_upgrade(request.clone(), self.tickets) {
            Ok(answer) => answer,
            Err(error) => {
                self.host.failed(error, None);
                return (Value::Null, None);
            }
        };
        self.run();
        if answer["defer"] == Value::Bool(true) {
            let deferred = {
                let mut record = self.record();
                let at = record.answered.iter().position(|(ticket, _)| *ticket == self.tickets);
                at.map(|at| record.answered.remove(at).1)
            };
            let Some(deferred) = deferred else { return (answer, None) };
            answer = deferred;
        }
        if answer["accept"] != Value::Bool(true) {
            return (answer, None);
        }
        let state = Object::from([
            ("request", request),
            ("protocol", answer["protocol"].clone()),
            ("extra", answer["extra"].clone()),
            ("input", Value::Bytes(value::Blob::default())),
        ]);
        let (peer, io) = TestPeer::pair();
        let (id, session) = self.record().open_session();
        self.serve(Attached { io, state: state.into(), id: id.clone(), session });
        self.run();
        (answer, Some((id, peer)))
    }

    /// Sends the node an HTTP request for one of its routes; `None` when it has no answer yet.
    pub fn request(&mut self, request: impl Into<Value>) -> Option<Value> {
        let answer = Arc::<Mutex<Option<Value>>>::default();
        match self.node.as_ref()?.on_request(request.into()) {
            Ok(answering) => {
                let answer = answer.clone();
                self.host.begun.spawn(async move {
                    let value = answering.await;
                    *lock(&answer) = Some(value);
                });
            }
            Err(error) => self.host.failed(error, None),
        }
        self.run();
        lock(&answer).take()
    }

    /// The routes that the node registered: objects with `kind`, `method`, `path`.
    pub fn routes(&self) -> Vec<Value> {
        self.record().routes.clone()
    }

    /// What the node wants to connect to and has no answer for, the oldest first.
    pub fn dialled(&mut self) -> Option<Dialled> {
        self.record().dialled.pop_front()
    }

    /// Connects what the node dialled.
    pub fn connect(&mut self, dialled: Dialled) -> TestPeer {
        let (peer, io) = TestPeer::pair();
        dialled.answer(Ok(io));
        self.run();
        peer
    }

    /// Lets what the node dialled fail.
    pub fn refuse(&mut self, dialled: Dialled, why: &str) {
        dialled.answer(Err(NodeError::new(why)));
        self.run();
    }

    /// Ids of the node's open sessions, in no order.
    pub fn sessions(&self) -> Vec<Str> {
        self.record().sessions.keys().cloned().collect()
    }

    // ---- Inside

    fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.host.record)
    }

    fn next_waiting(&mut self) -> Option<(Msg, Via)> {
        let limit = match N::TYPE.messages_in_hand() {
            0 => usize::MAX,
            some => some as usize,
        };
        if self.pending < limit { self.waiting.pop_front() } else { None }
    }

    fn give(&mut self, msg: Msg, via: Via) {
        let Some(node) = &self.node else { return };
        match node.on_input(msg.clone(), via) {
            Outcome::Done => self.record().completed.push(msg),
            Outcome::Ignored => {}
            Outcome::Failed(error) => self.host.failed(error, Some(msg)),
            Outcome::Pending(future) => self.hold(msg, future),
        }
    }

    fn hold(&mut self, msg: Msg, future: FfiFuture<RResult<(), NodeError>>) {
        self.pending += 1;
        let finished = self.in_hand.clone();
        self.host.begun.spawn(async move {
            let result = future.await.into_result();
            lock(&finished).push(Finished { msg, result });
        });
    }

    /// Sees to what has finished; whether there was something.
    fn settle(&mut self) -> bool {
        let finished = std::mem::take(&mut *lock(&self.in_hand));
        let went_on = !finished.is_empty();
        for Finished { msg, result } in finished {
            self.pending -= 1;
            match result {
                Ok(()) => self.record().completed.push(msg),
                Err(error) if error.is_ignored() => {}
                Err(error) => self.host.failed(error, Some(msg)),
            }
        }
        let host = self.host.clone();
        self.serving.retain(|serving| {
            let closed = matches!(*lock(&serving.ended), Some(abi_io::ConnectionEnd::Closed));
            if closed {
                lock(&host.record).sessions.remove(&serving.id);
            }
            !closed
        });
        went_on
    }

    fn serve(&mut self, Attached { io, state, id, session }: Attached) {
        let Some(node) = &self.node else { return };
        let served = HostSession::new(Arc::new(ServedSession(session.clone())));
        match node.on_connection(abi_io::Connection { io, session: served, state }) {
            Ok(serving) => {
                let ended = Arc::<Mutex<Option<abi_io::ConnectionEnd>>>::default();
                self.serving.push(Serving { id, session, ended: ended.clone() });
                self.host.begun.spawn(async move {
                    let end = serving.await;
                    *lock(&ended) = Some(end);
                });
            }
            Err(error) => {
                self.record().sessions.remove(&id);
                self.host.failed(error, None);
            }
        }
    }

    /// For the message of a test that failed.
    fn what_happened(&self) -> String {
        let record = self.record();
        match record.failures.last() {
            Some(failure) => format!("; its last error: {}", failure.text),
            None if self.unfinished() > 0 => format!("; {} messages are unfinished", self.unfinished()),
            None => String::new(),
        }
    }
}

impl<N> Drop for TestNode<N> {
    fn drop(&mut self) {
        // Its tasks first: they may hold what belongs to the node.
        self.executor = Executor::default();
        self.host.begun.clear();
        self.node = None;
        for thread in std::mem::take(&mut *lock(&self.host.threads)) {
            let _ = thread.join();
        }
    }
}
