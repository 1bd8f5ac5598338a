//! The host's services for one node, as its plugin calls them.

use std::{
    future::{Future as _, poll_fn},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use flowbay_abi::{
    FfiFuture, Metric, MetricKind, Msg, Object, Str, Value,
    host::{ContextScope, HostApi, HostFuture, HostReply, LogLevel, PortMsg, Queued, WorkPlace},
    io::HostIo,
    node::{NodeError, Via},
    waker::CallerWaker,
};
use hyper::Method;

use super::{
    Shared,
    blocking::Work,
    cell::NodeCell,
    drain, endpoints, events,
    sessions::{Overflow, Overrun},
    tasks::Freeze,
};
use crate::{
    dial::{self, DialOptions, Proxies, TlsOptions},
    flow::NodeKind,
    http::{Access, Handler, HostStream},
    plugin::{self, Plugin, PluginStream, with_task},
    tls_config::{TlsConfigError, TlsNode, TlsProblem},
};

/// One node's door to the host. Belongs to one generation of its plugin, while the cell outlives generations.
///
/// Until [`NodeHost::begin`] the node has no effects: what it asks for is kept, so that a node which is made beside
/// its predecessor, and perhaps never used, does nothing that its predecessor does too.
pub struct NodeHost {
    cell: Arc<NodeCell>,
    plugin: Arc<Plugin>,
    own_tasks: Arc<Freeze>,
    held_back: AtomicBool,
    effects: Mutex<Vec<Effect>>,
}

/// What a node asked for before its time.
enum Effect {
    Send(Vec<PortMsg>),
    Deliver(String, Msg),
    Error(NodeError, Option<Msg>),
    Status(Value),
    Debug(Value),
    Spawn(FfiFuture<()>),
    Route(Value),
    Work(Work, WorkPlace),
}

/// A constructor that asks for more than this is out of its mind; the rest is dropped.
const MAX_EFFECTS: usize = 10_000;

impl NodeHost {
    /// The door for a node of `cell` that code of `plugin` implements.
    pub fn new(cell: Arc<NodeCell>, plugin: Arc<Plugin>) -> Self {
        Self {
            cell,
            plugin,
            own_tasks: Arc::default(),
            held_back: AtomicBool::new(true),
            effects: Mutex::default(),
        }
    }

    /// Stops the node's own tasks.
    pub fn own_tasks(&self) -> &Arc<Freeze> {
        &self.own_tasks
    }

    /// The node is in use: what it asked for meanwhile is done, in order, and from now on all is done at once.
    pub fn begin(&self) {
        loop {
            let kept = {
                let mut effects = self.lock();
                if effects.is_empty() {
                    // Only now: what comes while the kept ones are being done is kept behind them.
                    self.held_back.store(false, Ordering::Release);
                    return;
                }
                std::mem::take(&mut *effects)
            };
            for effect in kept {
                self.perform(effect);
            }
        }
    }

    /// The node is never to be used: what it asked for is forgotten. It may hold the node's own handle on this, and
    /// would keep it and its library for ever.
    pub fn forget(&self) {
        let effects = std::mem::take(&mut *self.lock());
        with_task(drain::NO_TASK, || {
            for effect in effects {
                match effect {
                    Effect::Work(work, WorkPlace::OwnThread) => self.cell.shared().blocking.discard(work),
                    effect => drop(effect),
                }
            }
        });
    }

    fn perform(&self, effect: Effect) {
        match effect {
            Effect::Send(mut batch) => self.cell.send(&mut batch),
            Effect::Deliver(target, msg) => {
                self.deliver_now(&target, msg);
            }
            Effect::Error(error, msg) => events::error(&self.cell, error, msg),
            Effect::Status(status) => events::status(&self.cell, status),
            Effect::Debug(event) => self.cell.shared().console.print(self.cell.id(), &event),
            Effect::Spawn(task) => self.cell.spawn(task, self.plugin.clone(), &self.own_tasks),
            Effect::Work(work, place) => {
                if let Err(error) = self.cell.shared().blocking.run(work, place) {
                    events::error(&self.cell, error, None);
                }
            }
            Effect::Route(route) => {
                if let Err(error) = self.register_now(&route) {
                    events::error(&self.cell, error, None);
                }
            }
        }
    }

    fn register_now(&self, route: &Value) -> Result<(), NodeError> {
        let text = |key| {
            route
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(|| NodeError::new(format!("a route without {key}")))
        };
        let path = text("path")?;
        let request = |access| -> Result<Handler, NodeError> {
            let method = text("method")?;
            let method = Method::from_bytes(method.as_bytes())
                .map_err(|_| NodeError::new(format!("{method} is no HTTP method")))?;
            Ok(Handler::Request(access, method, endpoints::requests(&self.cell)))
        };
        let kind = text("kind")?;
        let handler = match kind {
            "upgrade" => Handler::Upgrade(endpoints::upgrades(&self.cell)),
            "public" => request(Access::Public)?,
            "admin" => request(Access::Admin)?,
            other => return Err(NodeError::new(format!("there is no kind of route called {other}"))),
        };
        let routes = &self.cell.shared().routes;
        let route = match routes.add(self.cell.id(), path, handler) {
            Ok(route) => route,
            // The successor of a node asks for what its predecessor had: the handler leads to the cell of both.
            Err(taken) if taken.owner == self.cell.id() => return Ok(()),
            Err(taken) => return Err(NodeError::new(taken.to_string()).with_code("ROUTE_TAKEN")),
        };
        // Code that was left behind when the node was closed must not get a route that nobody takes away.
        if self.cell.is_closed() {
            routes.remove(&route);
            return Err(NodeError::new("the node is closed"));
        }
        if kind == "upgrade" {
            self.cell.sessions.expect_some();
        }
        Ok(())
    }

    fn deliver_now(&self, target: &str, msg: Msg) -> bool {
        match self.cell.shared().node(target).filter(|_| !self.cell.is_closed()) {
            Some(target) => {
                target.deliver(msg, Via::Direct);
                true
            }
            None => false,
        }
    }

    /// Does something, or keeps it until it is time.
    fn act(&self, effect: Effect) {
        if self.is_held_back() {
            let mut effects = self.lock();
            if self.held_back.load(Ordering::Acquire) {
                if effects.len() < MAX_EFFECTS {
                    effects.push(effect);
                } else if effects.len() == MAX_EFFECTS {
                    tracing::warn!(node = %self.cell.id(), "asks for too much before it has begun; the rest is dropped");
                }
                return;
            }
        }
        self.perform(effect);
    }

    /// Whether the node has closed: it was told, and nobody waits for it any more.
    fn has_ended(&self) -> bool {
        self.cell.is_closed() && self.cell.instance().is_none()
    }

    fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Acquire)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Effect>> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn context_owner(&self, scope: ContextScope) -> String {
        match scope {
            ContextScope::Node => self.cell.context_owner(),
            ContextScope::Flow => self.cell.graph_node.z.as_deref().unwrap_or("global").to_owned(),
            ContextScope::Global => "global".to_owned(),
        }
    }

    /// `$parent.` leads from a subflow's context to the one of the flow around it.
    fn context_place<'a>(&self, scope: ContextScope, path: &'a str) -> (String, &'a str) {
        let (mut owner, mut path) = (self.context_owner(scope), path);
        if scope == ContextScope::Flow {
            let graph = self.cell.shared().graph.load();
            let mut around = self.cell.graph_node.instance_id().and_then(|id| graph.instance(id));
            while let Some(rest) = path.strip_prefix("$parent.") {
                path = rest;
                let Some(instance) = around else { continue };
                owner = instance.z.clone().unwrap_or_else(|| "global".to_owned());
                around = instance.parent.as_deref().and_then(|id| graph.instance(id));
            }
        }
        (owner, path)
    }
}

impl HostApi for NodeHost {
    fn send(&self, batch: &mut [PortMsg]) {
        if !self.is_held_back() {
            self.cell.send(batch);
            return;
        }
        let batch =
            batch.iter_mut().map(|item| PortMsg { port: item.port, msg: std::mem::take(&mut item.msg) });
        self.act(Effect::Send(batch.collect()));
    }

    fn poll_ready(&self, waker: CallerWaker<'_, '_>) -> Poll<()> {
        self.cell.gate.poll_ready(waker, &self.plugin)
    }

    fn deliver(&self, target: &str, msg: Msg) -> bool {
        if !self.is_held_back() {
            return self.deliver_now(target, msg);
        }
        self.act(Effect::Deliver(target.to_owned(), msg));
        true
    }

    fn error(&self, error: NodeError, msg: Option<Msg>) {
        self.act(Effect::Error(error, msg));
    }

    fn status(&self, status: Value) {
        self.act(Effect::Status(status));
    }

    fn debug(&self, event: Value) {
        self.act(Effect::Debug(event));
    }

    fn log(&self, level: LogLevel, text: &str) {
        let (node, node_type) = (self.cell.id(), &self.cell.graph_node.node_type);
        match level {
            LogLevel::Error => tracing::error!(%node, r#type = %node_type, "{text}"),
            LogLevel::Warn => tracing::warn!(%node, r#type = %node_type, "{text}"),
            LogLevel::Info => tracing::info!(%node, r#type = %node_type, "{text}"),
            LogLevel::Debug => tracing::debug!(%node, r#type = %node_type, "{text}"),
            LogLevel::Trace => tracing::trace!(%node, r#type = %node_type, "{text}"),
        }
    }

    fn info(&self) -> Value {
        let node = &self.cell.graph_node;
        let optional = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
        let wires: Vec<Value> = node.wires.iter().map(|targets| Value::from(targets.len() as i64)).collect();
        Value::Object(Object::from_iter([
            ("id", Value::from(node.id.as_str())),
            ("type", Value::from(node.node_type.as_str())),
            ("name", Value::from(node.name.as_str())),
            ("z", optional(&node.z)),
            ("alias", optional(&node.alias)),
            ("path", Value::from(node.path.as_str())),
            ("wires", Value::from(wires)),
        ]))
    }

    fn env(&self, name: &str) -> Option<Value> {
        self.cell.shared().graph.load().env(self.cell.id(), name).map(Value::from)
    }

    fn config(&self, id: &str) -> Option<Value> {
        let graph = self.cell.shared().graph.load();
        let node = graph.node(id).filter(|node| node.kind == NodeKind::Config)?;
        Some(Value::from(serde_json::Value::Object(node.config.clone())))
    }

    fn credentials(&self) -> Value {
        let node_type = self.plugin.info().node_type(&self.cell.graph_node.node_type);
        let mut fields = self.cell.shared().graph.load().credentials_of(self.cell.id());
        fields.retain(|field, _| node_type.is_some_and(|declared| declared.credentials.contains_key(field)));
        Value::from(serde_json::Value::Object(fields))
    }

    fn context_get(&self, scope: ContextScope, store: &str, path: &str) -> Result<Option<Value>, NodeError> {
        let (owner, path) = self.context_place(scope, path);
        self.cell.shared().context.get(&owner, store, path)
    }

    fn context_set(
        &self,
        scope: ContextScope,
        store: &str,
        path: &str,
        value: Option<Value>,
    ) -> Result<(), NodeError> {
        // Code that was left behind must not bring back what was forgotten; a node that is closing may keep something.
        if self.has_ended() {
            return Err(NodeError::new("the node is closed"));
        }
        let (owner, path) = self.context_place(scope, path);
        self.cell.shared().context.set(&owner, store, path, value)
    }

    fn context_keys(&self, scope: ContextScope, store: &str) -> Vec<Str> {
        self.cell.shared().context.keys(&self.context_owner(scope), store)
    }

    fn spawn(&self, task: FfiFuture<()>) {
        self.act(Effect::Spawn(task));
    }

    fn sleep(&self, ms: u64) -> HostFuture {
        // Plugins call this from threads that are not tokio's too, at the start.
        let _entered = self.cell.shared().tokio.enter();
        plugin::timer(ms, self.plugin.clone())
    }

    fn dial(&self, options: Value) -> HostFuture {
        let (shared, plugin) = (self.cell.shared().clone(), self.plugin.clone());
        let future = async move {
            let stream = dial_for(&shared, &options).await?;
            let io = HostIo::new(PluginStream::new(stream, plugin));
            Ok(HostReply { value: Value::Null, io: Some(io).into() })
        };
        let (tokio, mut future) = (self.cell.shared().tokio.clone(), Box::pin(future));
        // A plugin may await it on a thread of its own, which is none of this tokio's.
        let entered = poll_fn(move |cx| {
            let _entered = tokio.enter();
            future.as_mut().poll(cx)
        });
        plugin::host_future(entered, self.plugin.clone())
    }

    fn attach(&self, io: HostIo, state: Value) -> Result<Str, NodeError> {
        let instance = self.cell.instance().ok_or_else(|| NodeError::new("the node is closed"))?;
        // Perhaps from the code of an earlier generation: the stream must not keep that one loaded.
        let stream =
            io.into_stream::<PluginStream>().map_err(|_| NodeError::new("not a stream of the host's"))?;
        let io = HostIo::new(PluginStream::new(stream.detach(), instance.plugin.clone()));
        let known = io.info();
        let peer = known.get("remote").and_then(Value::as_str).unwrap_or_default();
        let open = self.cell.open_session(peer, state.get("queue"));
        self.cell.serve(&instance, open, io, state)
    }

    fn session_send(&self, id: &str, value: Value) -> Queued {
        let (queued, overrun) = self.cell.sessions.send(id, value);
        log_overrun(&self.cell, overrun);
        queued
    }

    fn session_broadcast(&self, value: Value) -> u64 {
        self.session_broadcast_except(value, &[])
    }

    fn session_count(&self) -> u64 {
        self.cell.sessions.count() as u64
    }

    fn register_route(&self, route: Value) -> Result<(), NodeError> {
        if !self.is_held_back() {
            return self.register_now(&route);
        }
        self.act(Effect::Route(route));
        Ok(())
    }

    fn answer_upgrade(&self, ticket: u64, answer: Value) {
        self.cell.shared().tickets.answer(self.cell.id(), ticket, answer);
    }

    fn session_broadcast_except(&self, value: Value, except: &[&str]) -> u64 {
        let (queued, overrun) = self.cell.sessions.broadcast(&value, except);
        log_overrun(&self.cell, overrun);
        queued
    }

    fn metric(&self, kind: MetricKind, name: &str, help: &str) -> Metric {
        let families = &self.cell.shared().families;
        self.cell.metrics.get(families, kind, name, help).unwrap_or_else(|reason| {
            let (node, node_type) = (self.cell.id(), &self.cell.graph_node.node_type);
            tracing::warn!(%node, r#type = %node_type, "the metric {name:.100?} is not shown: {reason}");
            Metric::new()
        })
    }

    fn run_blocking(&self, work: FfiFuture<()>, place: WorkPlace) -> Result<(), NodeError> {
        let work = Work::new(work, self.plugin.clone(), self.cell.id());
        if self.is_held_back() {
            self.act(Effect::Work(work, place));
            return Ok(());
        }
        // A node may still block while it closes, to write what it has; afterwards nobody would get the result.
        if self.has_ended() {
            return Err(NodeError::new("the node is closed"));
        }
        self.cell.shared().blocking.run(work, place)
    }
}

/// Says that a peer does not keep up, and what was done about it.
fn log_overrun(cell: &NodeCell, overrun: Option<Overrun>) {
    let Some(Overrun { session, peer, overflow, left_out }) = overrun else { return };
    let done = match overflow {
        Overflow::Close => "the connection is cut",
        Overflow::DropNewest => "a message to it is dropped",
        Overflow::DropOldest => "the oldest messages to it are dropped",
    };
    let (node, node_type) = (cell.id(), &cell.graph_node.node_type);
    tracing::warn!(%node, r#type = %node_type, %session, %peer, "the peer does not keep up, its queue is full: {done}{left_out}");
}

/// Opens the connection that a node asks for.
async fn dial_for(shared: &Shared, options: &Value) -> Result<HostStream, NodeError> {
    let text = |key| options.get(key).and_then(Value::as_str).map(str::to_owned);
    let flag = |key| options.get(key).and_then(Value::as_bool).unwrap_or(false);
    let number = |key| options.get(key).and_then(Value::as_i64);
    let host = text("host").ok_or_else(|| NodeError::new("dial without a host"))?;
    let port = number("port").and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| NodeError::new("dial without a port"))?;
    let ms = number("timeout_ms").and_then(|ms| u64::try_from(ms).ok());
    let timeout = Duration::from_millis(ms.unwrap_or(shared.settings.dial_timeout_ms));

    let configured = match text("tls_config") {
        Some(id) if flag("tls") => {
            // A disk may hang as well as a network.
            let resolving = tokio::time::timeout(timeout, configured_tls(shared, &id)).await;
            let error = |text: String| {
                NodeError::new(format!("cannot connect to {}: {text}", dial::authority(&host, port)))
            };
            resolving
                .map_err(|_| error(format!("tls-config {id}: its files could not be read in time")))?
                .map_err(|problem| error(problem.to_string()))?
        }
        _ => TlsOptions::default(),
    };
    let tls = flag("tls")
        .then(|| TlsOptions { server_name: text("server_name").or(configured.server_name), ..configured });
    let proxies = flag("proxy").then(Proxies::from_environment);
    let options = DialOptions { host, port, tls, proxies, timeout };
    dial::dial(&options).await.map_err(|error| NodeError::new(error.to_string()))
}

/// The TLS of the `tls-config` node with that id.
async fn configured_tls(shared: &Shared, id: &str) -> Result<TlsOptions, TlsConfigError> {
    let graph = shared.graph.load_full();
    let node = match graph.node(id) {
        None => Err(TlsProblem::NoSuchNode),
        Some(node) => TlsNode::new(id, &node.config, &graph.credentials_of(id), |name| {
            graph.env_property(id, name).as_str().unwrap_or_default().to_owned()
        }),
    };
    drop(graph);
    let node = node.map_err(|problem| TlsConfigError { node: id.to_owned(), problem })?;
    shared.tls_configs.resolve(node).await
}
