//! The host's face for a node under test: it answers from what the test set up, and writes down what the node does.

use std::{
    collections::{HashMap, VecDeque},
    future::Future as _,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    thread::JoinHandle,
};

use flowbay_abi::{
    FfiFuture, Msg,
    host::{
        ContextScope, HostApi, HostFuture, HostFutureApi, HostReply, LogLevel, PortMsg, Queued, WorkPlace,
    },
    io::HostIo,
    metric::{Metric, MetricKind},
    node::NodeError,
    path::PropertyPath,
    value::{Object, Str, Value},
    waker::CallerWaker,
};

use super::{
    executor::{Begun, Clock, lock},
    peer::TestSession,
};

/// A message that the node sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// By which output, counted from 0.
    pub port: u32,
    /// What.
    pub msg: Msg,
}

/// An error that the node reported, from whatever place.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Its text.
    pub text: String,
    /// Its `code`, empty for none; a panic has `PANIC`.
    pub code: String,
    /// The message that it is about: what Catch nodes would get. Without one it only goes to the log.
    pub msg: Option<Msg>,
}

/// A line that the node wrote to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its level.
    pub level: LogLevel,
    /// Its text.
    pub text: String,
}

/// What the node asked the host to connect to, until the test answers.
pub struct Dialled {
    /// The options: `host`, `port`, `tls` and so on.
    pub options: Value,
    answer: Arc<Mutex<DialAnswer>>,
}

#[derive(Default)]
struct DialAnswer {
    result: Option<Result<HostIo, NodeError>>,
    waker: Option<Waker>,
}

impl Dialled {
    pub(super) fn answer(self, result: Result<HostIo, NodeError>) {
        let mut answer = lock(&self.answer);
        answer.result = Some(result);
        let waker = answer.waker.take();
        drop(answer);
        waker.into_iter().for_each(Waker::wake);
    }
}

struct Dialling(Arc<Mutex<DialAnswer>>);

impl HostFutureApi for Dialling {
    fn poll(&mut self, mut caller: CallerWaker<'_, '_>) -> Poll<Result<HostReply, NodeError>> {
        let mut answer = lock(&self.0);
        match answer.result.take() {
            Some(result) => {
                Poll::Ready(result.map(|io| HostReply { value: Value::Null, io: Some(io).into() }))
            }
            None => {
                answer.waker = Some(caller.to_waker());
                Poll::Pending
            }
        }
    }
}

/// A connection that the node gave to the host, on its way back to it.
pub struct Attached {
    pub io: HostIo,
    pub state: Value,
    pub id: Str,
    pub session: Arc<TestSession>,
}

/// The context of the node, of its flow, of all; each has its stores by their names. A node and its successor share it.
#[derive(Default, Clone)]
pub struct Contexts(Arc<Mutex<[HashMap<String, Object>; 3]>>);

impl Contexts {
    /// Looks at one store, or changes it. Without a name it is the default one, which is `memory`.
    pub fn with<T>(&self, scope: ContextScope, store: &str, act: impl FnOnce(&mut Object) -> T) -> T {
        let store = if store == "memory" { "" } else { store };
        let place = match scope {
            ContextScope::Node => 0,
            ContextScope::Flow => 1,
            ContextScope::Global => 2,
        };
        act(lock(&self.0)[place].entry(store.to_owned()).or_default())
    }
}

/// What the test set up, and what the node did.
#[derive(Default)]
pub struct Record {
    pub info: Object,
    pub env: HashMap<String, Value>,
    pub configs: HashMap<String, Value>,
    pub credentials: Object,
    pub context: Contexts,
    pub sent: VecDeque<Sent>,
    pub delivered: Vec<(String, Msg)>,
    /// Ids of nodes that messages can be delivered to.
    pub others: Vec<String>,
    pub failures: Vec<Failure>,
    pub completed: Vec<Msg>,
    pub statuses: Vec<Value>,
    pub debug: Vec<Value>,
    pub log: Vec<LogLine>,
    pub congested: bool,
    pub waiting: Vec<Waker>,
    pub sessions: HashMap<Str, Arc<TestSession>>,
    /// Values that may wait for a session; `None` for any number.
    pub session_queue: Option<usize>,
    pub attached: Vec<Attached>,
    pub dialled: VecDeque<Dialled>,
    pub routes: Vec<Value>,
    /// Paths that are another node's.
    pub taken_paths: Vec<String>,
    pub answered: Vec<(u64, Value)>,
    pub metrics: HashMap<String, Metric>,
    pub next_id: u64,
}

impl Record {
    /// A new id: 16 hexadecimal digits.
    pub fn new_id(&mut self) -> Str {
        self.next_id += 1;
        format!("{:016x}", self.next_id).into()
    }

    /// The same surroundings, for a successor.
    pub fn for_successor(&self) -> Self {
        Self {
            info: self.info.clone(),
            env: self.env.clone(),
            configs: self.configs.clone(),
            credentials: self.credentials.clone(),
            others: self.others.clone(),
            routes: self.routes.clone(),
            taken_paths: self.taken_paths.clone(),
            metrics: self.metrics.clone(),
            context: self.context.clone(),
            session_queue: self.session_queue,
            congested: self.congested,
            next_id: self.next_id,
            ..Self::default()
        }
    }

    /// Takes over what the predecessor has written down till its end, before what is there, and what it attached last.
    pub fn succeed(&mut self, old: &mut Self) {
        fn before<T>(old: &mut Vec<T>, new: &mut Vec<T>) {
            old.append(new);
            std::mem::swap(old, new);
        }
        old.sent.append(&mut self.sent);
        std::mem::swap(&mut old.sent, &mut self.sent);
        before(&mut old.delivered, &mut self.delivered);
        before(&mut old.failures, &mut self.failures);
        before(&mut old.completed, &mut self.completed);
        before(&mut old.statuses, &mut self.statuses);
        before(&mut old.debug, &mut self.debug);
        before(&mut old.log, &mut self.log);
        for attached in old.attached.drain(..) {
            self.sessions.insert(attached.id.clone(), attached.session.clone());
            self.attached.push(attached);
        }
        self.next_id = self.next_id.max(old.next_id);
    }

    /// A new session of the node's.
    pub fn open_session(&mut self) -> (Str, Arc<TestSession>) {
        let id = self.new_id();
        let session = Arc::new(TestSession::new(id.clone(), self.session_queue));
        self.sessions.insert(id.clone(), session.clone());
        (id, session)
    }
}

/// The face.
pub struct TestHost {
    pub record: Mutex<Record>,
    pub clock: Arc<Clock>,
    pub begun: Arc<Begun>,
    /// Threads that the node has for itself.
    pub threads: Mutex<Vec<JoinHandle<()>>>,
}

impl TestHost {
    /// The node reported an error.
    pub fn failed(&self, error: NodeError, msg: Option<Msg>) {
        let failure = Failure {
            text: error.message.to_string(),
            code: error.details["code"].as_str().unwrap_or_default().to_owned(),
            msg,
        };
        lock(&self.record).failures.push(failure);
    }

    /// Queues a value for a session; one whose queue is full is gone.
    fn push(&self, session: &TestSession, value: Value) -> Queued {
        let queued = session.push(value);
        if queued == Queued::Overflow {
            lock(&self.record).sessions.remove(session.id());
        }
        queued
    }
}

impl HostApi for TestHost {
    fn send(&self, batch: &mut [PortMsg]) {
        let mut record = lock(&self.record);
        let mut shared_id = None;
        for item in batch {
            let mut msg = std::mem::take(&mut item.msg);
            if msg.id().is_none() {
                let id: &Str = shared_id.get_or_insert_with(|| record.new_id());
                msg.set(flowbay_abi::message::MSGID, id.clone());
            }
            record.sent.push_back(Sent { port: item.port, msg });
        }
    }

    fn poll_ready(&self, mut caller: CallerWaker<'_, '_>) -> Poll<()> {
        let mut record = lock(&self.record);
        if record.congested {
            record.waiting.push(caller.to_waker());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn deliver(&self, target: &str, msg: Msg) -> bool {
        let mut record = lock(&self.record);
        let there = record.others.iter().any(|id| id == target)
            || record.info.get("id").and_then(Value::as_str) == Some(target);
        if there {
            record.delivered.push((target.to_owned(), msg));
        }
        there
    }

    fn error(&self, error: NodeError, msg: Option<Msg>) {
        self.failed(error, msg);
    }

    fn status(&self, status: Value) {
        lock(&self.record).statuses.push(status);
    }

    fn debug(&self, event: Value) {
        lock(&self.record).debug.push(event);
    }

    fn log(&self, level: LogLevel, text: &str) {
        lock(&self.record).log.push(LogLine { level, text: text.to_owned() });
    }

    fn info(&self) -> Value {
        Value::Object(lock(&self.record).info.clone())
    }

    fn env(&self, name: &str) -> Option<Value> {
        lock(&self.record).env.get(name).cloned()
    }

    fn config(&self, id: &str) -> Option<Value> {
        lock(&self.record).configs.get(id).cloned()
    }

    fn credentials(&self) -> Value {
        Value::Object(lock(&self.record).credentials.clone())
    }

    fn context_get(&self, scope: ContextScope, store: &str, path: &str) -> Result<Option<Value>, NodeError> {
        let path = parse(path)?;
        let root = Value::Object(lock(&self.record).context.with(scope, store, |store| store.clone()));
        Ok(root.get_path(&path))
    }

    fn context_set(
        &self,
        scope: ContextScope,
        store: &str,
        path: &str,
        value: Option<Value>,
    ) -> Result<(), NodeError> {
        let path = parse(path)?;
        lock(&self.record).context.with(scope, store, |store| {
            let mut root = Value::Object(std::mem::take(store));
            let result = match value {
                Some(value) => root.set_path(&path, value).map_err(|error| NodeError::new(error.to_string())),
                None => {
                    root.delete_path(&path);
                    Ok(())
                }
            };
            if let Value::Object(object) = root {
                *store = object;
            }
            result
        })
    }

    fn context_keys(&self, scope: ContextScope, store: &str) -> Vec<Str> {
        lock(&self.record).context.with(scope, store, |store| store.keys().cloned().collect())
    }

    fn spawn(&self, task: FfiFuture<()>) {
        self.begun.spawn(task);
    }

    fn sleep(&self, ms: u64) -> HostFuture {
        HostFuture::new(self.clock.timer(ms))
    }

    fn dial(&self, options: Value) -> HostFuture {
        let answer = Arc::<Mutex<DialAnswer>>::default();
        lock(&self.record).dialled.push_back(Dialled { options, answer: answer.clone() });
        HostFuture::new(Dialling(answer))
    }

    fn attach(&self, io: HostIo, state: Value) -> Result<Str, NodeError> {
        let mut record = lock(&self.record);
        let (id, session) = record.open_session();
        record.attached.push(Attached { io, state, id: id.clone(), session });
        Ok(id)
    }

    fn session_send(&self, id: &str, value: Value) -> Queued {
        let session = lock(&self.record).sessions.get(id).cloned();
        session.map_or(Queued::NoSession, |session| self.push(&session, value))
    }

    fn session_broadcast(&self, value: Value) -> u64 {
        self.session_broadcast_except(value, &[])
    }

    fn session_count(&self) -> u64 {
        lock(&self.record).sessions.len() as u64
    }

    fn register_route(&self, route: Value) -> Result<(), NodeError> {
        let mut record = lock(&self.record);
        let path = route["path"].as_str().unwrap_or_default();
        if record.taken_paths.iter().any(|taken| taken == path) {
            let text = format!("the path {path} is taken by node another-node");
            return Err(NodeError::new(text).with_code("ROUTE_TAKEN"));
        }
        // Its own it may ask for again, as a successor does.
        if !record.routes.contains(&route) {
            record.routes.push(route);
        }
        Ok(())
    }

    fn answer_upgrade(&self, ticket: u64, answer: Value) {
        lock(&self.record).answered.push((ticket, answer));
    }

    fn session_broadcast_except(&self, value: Value, except: &[&str]) -> u64 {
        let sessions: Vec<_> = lock(&self.record)
            .sessions
            .iter()
            .filter(|(id, _)| !except.contains(&&***id))
            .map(|(_, session)| session.clone())
            .collect();
        sessions.iter().filter(|session| self.push(session, value.clone()) == Queued::Yes).count() as u64
    }

    fn metric(&self, _: MetricKind, name: &str, _: &str) -> Metric {
        lock(&self.record).metrics.entry(name.to_owned()).or_default().clone()
    }

    fn run_blocking(&self, work: FfiFuture<()>, place: WorkPlace) -> Result<(), NodeError> {
        match place {
            // At once, so that the test need not wait for it.
            WorkPlace::Pool => done(work),
            WorkPlace::OwnThread => {
                let thread = std::thread::Builder::new()
                    .name("own-thread".into())
                    .spawn(move || done(work))
                    .map_err(|error| NodeError::new(error.to_string()))?;
                lock(&self.threads).push(thread);
            }
        }
        Ok(())
    }
}

/// Does blocking work, on this thread.
fn done(mut work: FfiFuture<()>) {
    let _ = Pin::new(&mut work).poll(&mut Context::from_waker(Waker::noop()));
}

fn parse(path: &str) -> Result<PropertyPath, NodeError> {
    PropertyPath::parse(path).map_err(|error| NodeError::new(format!("Invalid context key {path}: {error}")))
}
