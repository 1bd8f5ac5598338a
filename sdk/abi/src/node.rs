//! The host's view of one node of a plugin, and the safe trait behind it.

use std::sync::Arc;

use abi_stable::{StableAbi, std_types::*};
use async_ffi::FfiFuture;

use crate::{
    io::{Connection, ConnectionEnd},
    message::Msg,
    panics::catch,
    value::{Object, Str, Value},
};

/// How a message reached a node.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// Through a wire, or from the host to a catch, status or complete node.
    Wire,
    /// Addressed to the node by another one with [`crate::host::HostApi::deliver`] (a link call's return).
    Direct,
}

/// What became of a message that a node was given.
///
/// Owned by the receiver. A `Pending` future belongs to the node: the host polls it on one of its own threads
/// until it is ready, and drops it when the node closes past its deadline.
#[repr(u8)]
#[derive(StableAbi)]
pub enum Outcome {
    /// Handled; Complete nodes are told.
    Done,
    /// Taken, and never to be reported (a node without configuration); Complete nodes are not told.
    Ignored,
    /// Failed; Catch nodes are told.
    Failed(NodeError),
    /// Still at work. The future has been polled once with a waker that does nothing: poll it again.
    Pending(FfiFuture<RResult<(), NodeError>>),
}

/// An error as a node reports it: what Catch nodes put into `msg.error`.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct NodeError {
    /// The text, as Node-RED's `error.message` shows it.
    pub message: Str,
    /// More of it: an object with any of `code`, `cause`, `stack`, `name`; or null.
    pub details: Value,
}

const IGNORED: &str = "FLOWBAY_IGNORED";

impl NodeError {
    /// An error that has only a text.
    pub fn new(message: impl AsRef<str>) -> Self {
        Self { message: Str::from(message.as_ref()), details: Value::Null }
    }

    /// The same error with a `code`, as Node-RED's system errors have (`ECONNREFUSED`, …).
    #[must_use]
    pub fn with_code(mut self, code: &str) -> Self {
        let mut details = match self.details {
            Value::Object(details) => details,
            _ => Object::new(),
        };
        details.insert("code", code);
        self.details = Value::Object(details);
        self
    }

    /// What the future of an [`Outcome::Pending`] resolves to for what would have been [`Outcome::Ignored`].
    pub fn ignored() -> Self {
        Self::new("").with_code(IGNORED)
    }

    /// Whether this is [`Self::ignored`].
    pub fn is_ignored(&self) -> bool {
        self.message.is_empty() && self.details.get("code").and_then(Value::as_str) == Some(IGNORED)
    }

    /// What a panic in plugin code becomes.
    pub fn from_panic(text: String) -> Self {
        Self::new(text).with_code("PANIC")
    }
}

impl std::fmt::Display for NodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for NodeError {}

impl From<String> for NodeError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for NodeError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

/// A node of a plugin, as the plugin implements it and the host calls it.
///
/// Calls come on the host's threads, several at a time: `on_input` serially unless the node type declares a
/// concurrency, the others beside it. None may block its thread. A panic is caught here and reported.
pub trait PluginNode: Send + Sync + 'static {
    /// All nodes of the deployment exist and are wired: begin. Called once.
    fn on_start(&self);
    /// A message for the node; it now belongs to the node.
    fn on_input(&self, msg: Msg, via: Via) -> Outcome;
    /// The node is being stopped; `removed` when it is gone from the configuration. It is finished when the future
    /// is ready or the close deadline has passed; its tasks and connections are dropped then.
    fn on_close(&self, removed: bool) -> FfiFuture<()>;
    /// A WebSocket upgrade asks for a path that the node registered. `request` and the answer are objects, see
    /// `crate::shapes`. The answer may be deferred: then [`crate::host::HostApi::answer_upgrade`] gives it later.
    fn on_upgrade(&self, request: Value, ticket: u64) -> Value;
    /// An HTTP request for a route that the node registered. `request` and the answer: see `crate::shapes`.
    fn on_request(&self, request: Value) -> FfiFuture<Value>;
    /// A connection is the node's now: an accepted upgrade, a client connection given to
    /// [`crate::host::HostApi::attach`], or one that an earlier generation handed over. The future serves it.
    fn on_connection(&self, connection: Connection) -> FfiFuture<ConnectionEnd>;
    /// The state to give to the node's successor in a newer generation; `None` when the type does not support it.
    /// Changes nothing: the node may have to go on.
    fn save(&self) -> Result<Option<Value>, NodeError>;
    /// A connection that an earlier generation handed over could not be given to this node: its session has ended.
    fn on_connection_lost(&self, session: &str) {
        let _ = session;
    }
}

/// The calls of [`PluginNode`] as they cross.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = NodeVTableRef, prefix_fields = NodeVTablePrefix)))]
#[sabi(missing_field(panic))]
pub struct NodeVTable {
    on_start: unsafe extern "C" fn(*const ()) -> RResult<(), NodeError>,
    on_input: unsafe extern "C" fn(*const (), Msg, Via) -> Outcome,
    on_close: unsafe extern "C" fn(*const (), bool) -> RResult<FfiFuture<()>, NodeError>,
    on_upgrade: unsafe extern "C" fn(*const (), Value, u64) -> RResult<Value, NodeError>,
    on_request: unsafe extern "C" fn(*const (), Value) -> RResult<FfiFuture<Value>, NodeError>,
    on_connection:
        unsafe extern "C" fn(*const (), Connection) -> RResult<FfiFuture<ConnectionEnd>, NodeError>,
    save: unsafe extern "C" fn(*const ()) -> RResult<ROption<Value>, NodeError>,
    drop: unsafe extern "C" fn(*const ()),
    #[sabi(last_prefix_field)]
    on_connection_lost: unsafe extern "C" fn(*const (), RStr<'_>) -> RResult<(), NodeError>,
}

/// A node as the host holds it: an owning pointer into the plugin and the calls for it.
///
/// The host keeps the plugin's library loaded for as long as it holds one of these. Dropping it drops the node.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiNode {
    ptr: *const (),
    vtable: NodeVTableRef,
}

// SAFETY: the pointer is an `Arc<N>` with `N: PluginNode`, which is Send + Sync; all calls take `&N`.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Send for AbiNode {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Sync for AbiNode {}

impl AbiNode {
    /// Wraps a node of this library for the host.
    pub fn new<N: PluginNode>(node: Arc<N>) -> Self {
        Self { ptr: Arc::into_raw(node).cast(), vtable: shims::vtable::<N>() }
    }
}

/// The host's side: each call is safe because `self` owns the node and the vtable is that of its type.
#[allow(unsafe_code, reason = "a home of the boundary")]
impl AbiNode {
    /// See [`PluginNode::on_start`].
    ///
    /// # Errors
    /// The node panicked.
    pub fn on_start(&self) -> Result<(), NodeError> {
        // SAFETY: `ptr` is the `Arc` that `new` made for this vtable's type and is alive while `self` is.
        unsafe { self.vtable.on_start()(self.ptr) }.into_result()
    }

    /// See [`PluginNode::on_input`].
    #[inline]
    pub fn on_input(&self, msg: Msg, via: Via) -> Outcome {
        // SAFETY: as in `on_start`.
        unsafe { self.vtable.on_input()(self.ptr, msg, via) }
    }

    /// See [`PluginNode::on_close`].
    ///
    /// # Errors
    /// The node panicked.
    pub fn on_close(&self, removed: bool) -> Result<FfiFuture<()>, NodeError> {
        // SAFETY: as in `on_start`.
        unsafe { self.vtable.on_close()(self.ptr, removed) }.into_result()
    }

    /// See [`PluginNode::on_upgrade`].
    ///
    /// # Errors
    /// The node panicked.
    pub fn on_upgrade(&self, request: Value, ticket: u64) -> Result<Value, NodeError> {
        // SAFETY: as in `on_start`.
        unsafe { self.vtable.on_upgrade()(self.ptr, request, ticket) }.into_result()
    }

    /// See [`PluginNode::on_request`].
    ///
    /// # Errors
    /// The node panicked.
    pub fn on_request(&self, request: Value) -> Result<FfiFuture<Value>, NodeError> {
        // SAFETY: as in `on_start`.
        unsafe { self.vtable.on_request()(self.ptr, request) }.into_result()
    }

    /// See [`PluginNode::on_connection`].
    ///
    /// # Errors
    /// The node panicked.
    pub fn on_connection(&self, connection: Connection) -> Result<FfiFuture<ConnectionEnd>, NodeError> {
        // SAFETY: as in `on_start`.
        unsafe { self.vtable.on_connection()(self.ptr, connection) }.into_result()
    }

    /// See [`PluginNode::save`].
    ///
    /// # Errors
    /// The node could not save, or panicked.
    pub fn save(&self) -> Result<Option<Value>, NodeError> {
        // SAFETY: as in `on_start`.
        unsafe { self.vtable.save()(self.ptr) }.into_result().map(ROption::into_option)
    }

    /// See [`PluginNode::on_connection_lost`].
    ///
    /// # Errors
    /// The node panicked.
    pub fn on_connection_lost(&self, session: &str) -> Result<(), NodeError> {
        // SAFETY: as in `on_start`.
        unsafe { self.vtable.on_connection_lost()(self.ptr, session.into()) }.into_result()
    }
}

#[allow(unsafe_code, reason = "a home of the boundary")]
impl Drop for AbiNode {
    fn drop(&mut self) {
        // SAFETY: `self` owns one count of the `Arc` behind `ptr`, given up here and nowhere else.
        unsafe { self.vtable.drop()(self.ptr) }
    }
}

/// The plugin's side: from a raw pointer back to `&N`, with panics caught.
#[allow(unsafe_code, reason = "a home of the boundary")]
mod shims {
    use super::*;
    use abi_stable::prefix_type::WithMetadata;

    struct For<N>(N);

    impl<N: PluginNode> For<N> {
        abi_stable::staticref!(const VTABLE: WithMetadata<NodeVTable> = WithMetadata::new(NodeVTable {
            on_start: on_start::<N>,
            on_input: on_input::<N>,
            on_close: on_close::<N>,
            on_upgrade: on_upgrade::<N>,
            on_request: on_request::<N>,
            on_connection: on_connection::<N>,
            save: save::<N>,
            drop: drop_node::<N>,
            on_connection_lost: on_connection_lost::<N>,
        }));
    }

    pub(super) fn vtable<N: PluginNode>() -> NodeVTableRef {
        NodeVTableRef(For::<N>::VTABLE.as_prefix())
    }

    fn caught<T>(call: impl FnOnce() -> T) -> RResult<T, NodeError> {
        catch(call).map_err(NodeError::from_panic).into()
    }

    unsafe extern "C" fn on_start<N: PluginNode>(ptr: *const ()) -> RResult<(), NodeError> {
        // SAFETY: the host passes the pointer of the `AbiNode` whose vtable this is; it is alive during the call.
        let node = unsafe { &*ptr.cast::<N>() };
        caught(|| node.on_start())
    }

    unsafe extern "C" fn on_input<N: PluginNode>(ptr: *const (), msg: Msg, via: Via) -> Outcome {
        // SAFETY: as in `on_start`.
        let node = unsafe { &*ptr.cast::<N>() };
        catch(|| node.on_input(msg, via)).unwrap_or_else(|text| Outcome::Failed(NodeError::from_panic(text)))
    }

    unsafe extern "C" fn on_close<N: PluginNode>(
        ptr: *const (),
        removed: bool,
    ) -> RResult<FfiFuture<()>, NodeError> {
        // SAFETY: as in `on_start`.
        let node = unsafe { &*ptr.cast::<N>() };
        caught(|| node.on_close(removed))
    }

    unsafe extern "C" fn on_upgrade<N: PluginNode>(
        ptr: *const (),
        request: Value,
        ticket: u64,
    ) -> RResult<Value, NodeError> {
        // SAFETY: as in `on_start`.
        let node = unsafe { &*ptr.cast::<N>() };
        caught(|| node.on_upgrade(request, ticket))
    }

    unsafe extern "C" fn on_request<N: PluginNode>(
        ptr: *const (),
        request: Value,
    ) -> RResult<FfiFuture<Value>, NodeError> {
        // SAFETY: as in `on_start`.
        let node = unsafe { &*ptr.cast::<N>() };
        caught(|| node.on_request(request))
    }

    unsafe extern "C" fn on_connection<N: PluginNode>(
        ptr: *const (),
        connection: Connection,
    ) -> RResult<FfiFuture<ConnectionEnd>, NodeError> {
        // SAFETY: as in `on_start`.
        let node = unsafe { &*ptr.cast::<N>() };
        caught(|| node.on_connection(connection))
    }

    unsafe extern "C" fn save<N: PluginNode>(ptr: *const ()) -> RResult<ROption<Value>, NodeError> {
        // SAFETY: as in `on_start`.
        let node = unsafe { &*ptr.cast::<N>() };
        match catch(|| node.save()) {
            Ok(saved) => saved.map(ROption::from).into(),
            Err(text) => RErr(NodeError::from_panic(text)),
        }
    }

    unsafe extern "C" fn on_connection_lost<N: PluginNode>(
        ptr: *const (),
        session: RStr<'_>,
    ) -> RResult<(), NodeError> {
        // SAFETY: as in `on_start`.
        let node = unsafe { &*ptr.cast::<N>() };
        caught(|| node.on_connection_lost(session.as_str()))
    }

    unsafe extern "C" fn drop_node<N: PluginNode>(ptr: *const ()) {
        // SAFETY: the host gives up the count that `AbiNode::new` made, once.
        let node = unsafe { Arc::from_raw(ptr.cast::<N>()) };
        let _ = catch(move || drop(node));
    }
}
