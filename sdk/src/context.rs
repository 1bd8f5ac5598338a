//! What a node can ask of the host.

use std::{
    any::Any,
    collections::HashMap,
    future::{Future, poll_fn},
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use flowbay_abi::{
    host::{ContextScope, HostNode, LogLevel, PortMsg, Queued},
    message::Msg,
    metric::MetricKind,
    panics::{catch, guarded},
    value::{Object, Str, Value},
};

use crate::{Counter, Error, Gauge, HostStream, Node, Status, let_go::Reporting};

/// A node's surroundings: its outputs, its sessions, its part of the host. Cloning is cheap; a clone held by
/// something that outlives the node does nothing any more once the node is closed.
#[derive(Clone)]
pub struct Ctx {
    inner: Arc<Inner>,
}

struct Inner {
    host: HostNode,
    id: Str,
    info: Value,
    restored: Option<Value>,
    #[cfg(feature = "tokio")]
    own_runtime: crate::on_tokio::OwnRuntime,
}

impl Ctx {
    pub(crate) fn new(host: HostNode, restored: Option<Value>) -> Self {
        let info = host.info();
        let id = info.get("id").and_then(Value::as_str).unwrap_or_default().into();
        let inner = Inner {
            host,
            id,
            info,
            restored,
            #[cfg(feature = "tokio")]
            own_runtime: Default::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn host(&self) -> &HostNode {
        &self.inner.host
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn own_runtime(&self) -> &crate::on_tokio::OwnRuntime {
        &self.inner.own_runtime
    }

    /// The node's id. Inside a subflow instance it is unique to the instance.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// What the node is: an object with `id`, `type`, `name`, `z`, `alias`, `path`, `wires` (number per output).
    pub fn info(&self) -> &Value {
        &self.inner.info
    }

    /// The node's name in the flow file, empty when it has none.
    pub fn name(&self) -> &str {
        self.inner.info.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// What this node's predecessor saved, when it takes over from one in a hot swap.
    pub fn restored(&self) -> Option<&Value> {
        self.inner.restored.as_ref()
    }

    /// Sends a message to all that is wired to the first output.
    ///
    /// Never waits: the message is delivered after the caller's turn. A source of many messages awaits
    /// [`Ctx::ready`] before each.
    #[inline]
    pub fn send(&self, msg: Msg) {
        self.inner.host.send(&mut [PortMsg { port: 0, msg }]);
    }

    /// Sends a message by the output with that number, counted from 0.
    pub fn send_to(&self, port: u32, msg: Msg) {
        self.inner.host.send(&mut [PortMsg { port, msg }]);
    }

    /// Sends several messages in order, as one call of Node-RED's `send`: those without a `_msgid` share a new one.
    pub fn send_all(&self, batch: impl IntoIterator<Item = (u32, Msg)>) {
        let mut batch: Vec<PortMsg> = batch.into_iter().map(|(port, msg)| PortMsg { port, msg }).collect();
        self.inner.host.send(&mut batch);
    }

    /// Waits while what this node sent piles up downstream.
    pub async fn ready(&self) {
        poll_fn(|cx| self.inner.host.poll_ready(cx)).await;
    }

    /// As [`Ctx::ready`], for code that polls by hand.
    pub fn poll_ready(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.inner.host.poll_ready(cx)
    }

    /// Delivers a message to the node with that id, not through a wire; false when there is none.
    pub fn deliver(&self, target: &str, msg: Msg) -> bool {
        self.inner.host.deliver(target, msg)
    }

    /// Reports an error outside of `on_input`: with a message to Catch nodes, without one to the log.
    pub fn report_error(&self, error: Error, msg: Option<Msg>) {
        if let Some(error) = error.into_abi() {
            self.inner.host.error(error, msg);
        }
    }

    /// Publishes the node's status, for the editor and Status nodes.
    pub fn status(&self, status: Status) {
        self.inner.host.status(status.into_value());
    }

    /// Publishes what a debug node shows: an object with `name`, `topic`, `property`, `value`, `absent`.
    pub fn debug_event(&self, event: Value) {
        self.inner.host.debug(event);
    }

    /// Writes to the log under the node's id.
    pub fn log(&self, level: LogLevel, text: impl AsRef<str>) {
        self.inner.host.log(level, text.as_ref());
    }

    /// Writes a warning to the log under the node's id.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.log(LogLevel::Warn, text);
    }

    /// An environment variable as the node sees it: groups, tab or subflow, global, process.
    pub fn env(&self, name: &str) -> Option<Value> {
        self.inner.host.env(name)
    }

    /// The config node with that id as an object, when it is of type `N`, of this plugin, and exists.
    pub fn config_node<N: Node>(&self, id: &str) -> Option<Arc<N>> {
        // The lock is free again when a node may be dropped here: its drop is the author's code.
        let node = SHARED.lock().unwrap_or_else(PoisonError::into_inner).get(id)?.upgrade();
        node?.downcast().ok()
    }

    /// The properties of the config node with that id, of whatever plugin.
    pub fn config_value(&self, id: &str) -> Option<Value> {
        self.inner.host.config(id)
    }

    /// The node's credentials: an object.
    pub fn credentials(&self) -> Value {
        self.inner.host.credentials()
    }

    /// Reads a property path from a context store: `memory`, `file` where the host keeps context in files, or what the
    /// host's settings call it; an empty `store` is the default one, and so is one that the host does not have.
    ///
    /// # Errors
    /// The path is not valid.
    pub fn context_get(&self, scope: ContextScope, store: &str, path: &str) -> Result<Option<Value>, Error> {
        self.inner.host.context_get(scope, store, path).map_err(Error::from_abi)
    }

    /// Writes a property path in a context store; `None` deletes it. What is in files is written some time later; only
    /// what JSON can say is read from there again.
    ///
    /// # Errors
    /// The path is not valid, or the context would be larger than the host's settings allow (`CONTEXT_FULL`).
    pub fn context_set(
        &self,
        scope: ContextScope,
        store: &str,
        path: &str,
        value: Option<Value>,
    ) -> Result<(), Error> {
        self.inner.host.context_set(scope, store, path, value).map_err(Error::from_abi)
    }

    /// Names of the top-level keys in a context store: an array of strings.
    pub fn context_keys(&self, scope: ContextScope, store: &str) -> Value {
        self.inner.host.context_keys(scope, store)
    }

    /// Runs a task on the host's threads. It is dropped when the node has closed; a panic in it is reported.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ctx = self.clone();
        let mut task = Box::pin(Reporting::new(Box::pin(task), self));
        let reporting = poll_fn(move |cx| match catch(|| task.as_mut().poll(cx)) {
            Ok(polled) => polled,
            Err(text) => {
                ctx.report_error(Error::new(text).with_code("PANIC"), None);
                std::task::Poll::Ready(())
            }
        });
        self.inner.host.spawn(guarded(reporting, |_| ()));
    }

    /// Waits for so many milliseconds.
    pub async fn sleep_ms(&self, ms: u64) {
        if self.inner.host.sleep(ms).await.is_err() {
            // The host has no timer to give, which a loop around this must not turn into a busy one.
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a time.
    pub async fn sleep(&self, time: std::time::Duration) {
        self.sleep_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).await;
    }

    /// Opens an outgoing TCP or TLS connection.
    ///
    /// # Errors
    /// It could not be opened; the text names the peer.
    pub async fn dial(&self, options: DialOptions) -> Result<HostStream, Error> {
        let reply = self.inner.host.dial(options.into_value()).await.map_err(Error::from_abi)?;
        reply
            .io
            .into_option()
            .map(HostStream::new)
            .ok_or_else(|| Error::new("the host opened a connection and returned none"))
    }

    /// Makes a connection of this node's from a stream: the host opens a session for it and calls
    /// [`Node::on_connection`] with `state`, an object. Its property `queue`, if it has one, says what becomes of values
    /// that wait to be sent ([`crate::QueueOptions`]). Returns the session's id.
    ///
    /// # Errors
    /// The node is closing.
    pub fn attach(&self, stream: HostStream, state: Value) -> Result<Str, Error> {
        self.inner.host.attach(stream.into_io(), state).map_err(Error::from_abi)
    }

    /// Queues a value for one of the node's sessions.
    pub fn session_send(&self, id: &str, value: Value) -> Queued {
        self.inner.host.session_send(id, value)
    }

    /// Queues a value for all of the node's sessions; returns for how many.
    pub fn session_broadcast(&self, value: Value) -> u64 {
        self.inner.host.session_broadcast(value)
    }

    /// Queues a value for all of the node's sessions but those with these ids; returns for how many.
    pub fn session_broadcast_except(&self, value: Value, except: &[&str]) -> u64 {
        self.inner.host.session_broadcast_except(value, except)
    }

    /// How many sessions the node has.
    pub fn session_count(&self) -> u64 {
        self.inner.host.session_count()
    }

    /// Registers a path for WebSocket upgrades; they come to [`Node::on_upgrade`]. It leaves with the node.
    ///
    /// # Errors
    /// The path is taken; the text names the node that has it.
    pub fn register_upgrade(&self, path: &str) -> Result<(), Error> {
        self.register("upgrade", "GET", path)
    }

    /// Registers an HTTP route; its requests come to [`Node::on_request`]. It leaves with the node.
    ///
    /// # Errors
    /// As [`Ctx::register_upgrade`].
    pub fn register_public(&self, method: &str, path: &str) -> Result<(), Error> {
        self.register("public", method, path)
    }

    /// Registers an HTTP route for administrators: the host answers only those it lets in.
    ///
    /// # Errors
    /// As [`Ctx::register_upgrade`].
    pub fn register_admin(&self, method: &str, path: &str) -> Result<(), Error> {
        self.register("admin", method, path)
    }

    fn register(&self, kind: &str, method: &str, path: &str) -> Result<(), Error> {
        let mut route = Object::new();
        route.insert("kind", kind);
        route.insert("method", method);
        route.insert("path", path);
        self.inner.host.register_route(Value::Object(route)).map_err(Error::from_abi)
    }

    /// Answers an upgrade that [`crate::UpgradeAnswer::defer`] put off.
    pub fn answer_upgrade(&self, ticket: u64, answer: crate::UpgradeAnswer) {
        self.inner.host.answer_upgrade(ticket, answer.into_value());
    }

    /// The node's counter of that name, for `GET /metrics`: shown as `flowbay_<name>` with the node's id, type and name.
    /// The name has letters from a to z, digits and `_`, and ends with `_total`. It goes on over hot swaps, and leaves
    /// with the node.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        Counter::new(self.inner.host.metric(MetricKind::Counter, name, help))
    }

    /// The node's gauge of that name, as [`Ctx::counter`]; its name does not end with `_total`.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        Gauge::new(self.inner.host.metric(MetricKind::Gauge, name, help))
    }
}

/// Where [`Ctx::dial`] connects to, and how.
#[derive(Debug, Clone, Default)]
pub struct DialOptions {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// How long connecting may take, with a proxy and with TLS, in milliseconds; the host's default when absent.
    pub timeout_ms: Option<u64>,
    /// The name that the server's certificate must have; when absent, the one that the TLS configuration has, or the
    /// host.
    pub server_name: Option<String>,
    /// The id of a `tls-config` node: which certificates are trusted and which one is shown. The host reads it, with
    /// its credentials, which plugins never see. The system's root certificates when absent; an id of no such node
    /// is an error. Without `tls` it has no effect.
    pub tls_config: Option<String>,
    /// Whether the connection goes by way of the proxy, if any, that the host's environment names for it.
    pub proxy: bool,
}

impl DialOptions {
    fn into_value(self) -> Value {
        let mut options = Object::new();
        options.insert("host", self.host);
        options.insert("port", i64::from(self.port));
        options.insert("tls", self.tls);
        if let Some(ms) = self.timeout_ms {
            options.insert("timeout_ms", ms);
        }
        if let Some(name) = self.server_name {
            options.insert("server_name", name);
        }
        if let Some(id) = self.tls_config {
            options.insert("tls_config", id);
        }
        if self.proxy {
            options.insert("proxy", true);
        }
        Value::Object(options)
    }
}

/// The nodes of this plugin by id, for those that refer to each other (config nodes). It is the library's own: a
/// node of another plugin, or of another generation of this one, is not in it.
static SHARED: LazyLock<Mutex<HashMap<String, Weak<dyn Any + Send + Sync>>>> = LazyLock::new(Mutex::default);

pub(crate) fn share<N: Any + Send + Sync>(id: &str, node: &Arc<N>) {
    let node: Arc<dyn Any + Send + Sync> = node.clone();
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.insert(id.to_owned(), Arc::downgrade(&node));
}

/// Takes a node off the table, unless its successor is there already. With the last one the table's memory goes too:
/// a library that is unloaded leaves nothing behind.
pub(crate) fn unshare<N>(id: &str, node: &Arc<N>) {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.get(id).is_some_and(|listed| std::ptr::addr_eq(listed.as_ptr(), Arc::as_ptr(node))) {
        shared.remove(id);
        if shared.is_empty() {
            *shared = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str) -> Option<u32> {
        let node = SHARED.lock().unwrap().get(id)?.upgrade();
        node?.downcast().ok().map(|number: Arc<u32>| *number)
    }

    #[test]
    fn a_node_leaves_the_table_and_its_successor_stays() {
        let (first, second) = (Arc::new(1_u32), Arc::new(2_u32));
        share("a_node_leaves", &first);
        assert_eq!(listed("a_node_leaves"), Some(1));
        share("a_node_leaves", &second);
        unshare("a_node_leaves", &first);
        assert_eq!(listed("a_node_leaves"), Some(2));
        unshare("a_node_leaves", &second);
        assert_eq!(listed("a_node_leaves"), None);
        assert_eq!(Arc::weak_count(&second), 0, "the table holds nothing of it");
    }
}
