//! What a node may call back: the host's services, given to every node when it is created.
#![allow(
    unsafe_code,
    reason = "a home of the boundary; the table's optional entries are read by unsafe code of a derive"
)]

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use abi_stable::{StableAbi, std_types::*};
use async_ffi::{FfiContext, FfiFuture};

use crate::{
    io::HostIo,
    message::Msg,
    metric::{Metric, MetricKind},
    node::NodeError,
    panics::catch,
    value::{Str, Value},
    waker::{CallerWaker, WakerKey, with_caller},
};

/// A message and the output it leaves by.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct PortMsg {
    /// Output, counted from 0.
    pub port: u32,
    /// The message.
    pub msg: Msg,
}

/// Whose context store is meant.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextScope {
    /// The node's own.
    Node,
    /// That of the tab or subflow instance the node is in.
    Flow,
    /// That of the whole runtime.
    Global,
}

/// Severity of a node's log line; the numbers are Node-RED's.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error = 20,
    Warn = 30,
    Info = 40,
    Debug = 50,
    Trace = 60,
}

/// Which thread work runs on that may block it.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkPlace {
    /// One of the host's pool: for work that ends by itself.
    Pool,
    /// One of its own, which ends with the work: for work that goes on until the node says that it is over.
    OwnThread,
}

/// What became of a value for one session.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queued {
    /// It is in the session's queue.
    Yes,
    /// There is no such session (any more).
    NoSession,
    /// The session's queue was full; the host cuts the session.
    Overflow,
    /// The session's queue was full, and its options say that the value is dropped then.
    Dropped,
}

/// The host's services for one node. Implemented by the host.
///
/// All calls are quick and may come from any of the host's threads; none waits for another node.
pub trait HostApi: Send + Sync + 'static {
    /// Queues messages for what is wired to the outputs; takes them out of the slice. Messages of one call that
    /// have no `_msgid` get the same one. Never waits, delivers after the caller's poll has returned.
    fn send(&self, batch: &mut [PortMsg]);
    /// Ready while what this node (as a source) sent is not piling up downstream.
    fn poll_ready(&self, waker: CallerWaker<'_, '_>) -> Poll<()>;
    /// Delivers a message to the node with that id, not through a wire; false when there is none.
    fn deliver(&self, target: &str, msg: Msg) -> bool;
    /// Reports an error: with a message to Catch nodes, without one only to the log.
    fn error(&self, error: NodeError, msg: Option<Msg>);
    /// Publishes the node's status: an object with `fill`, `shape`, `text`, or more; a string is its text.
    fn status(&self, status: Value);
    /// Publishes what a debug node shows: an object, see `crate::shapes`.
    fn debug(&self, event: Value);
    /// Writes to the log under the node's id.
    fn log(&self, level: LogLevel, text: &str);
    /// What the node is: an object with `id`, `type`, `name`, `z`, `alias`, `path`, `wires` (number per output).
    fn info(&self) -> Value;
    /// An environment variable as the node sees it (groups, tab, subflow, global, process).
    fn env(&self, name: &str) -> Option<Value>;
    /// The configuration of the config node with that id, when it exists and is enabled.
    fn config(&self, id: &str) -> Option<Value>;
    /// The node's credentials: an object.
    fn credentials(&self) -> Value;
    /// Reads a property path from a context store.
    fn context_get(&self, scope: ContextScope, store: &str, path: &str) -> Result<Option<Value>, NodeError>;
    /// Writes a property path in a context store; `None` deletes it.
    fn context_set(
        &self,
        scope: ContextScope,
        store: &str,
        path: &str,
        value: Option<Value>,
    ) -> Result<(), NodeError>;
    /// Names of the top-level keys in a context store.
    fn context_keys(&self, scope: ContextScope, store: &str) -> Vec<Str>;
    /// Runs a task of the node's; it is dropped when the node has closed.
    fn spawn(&self, task: FfiFuture<()>);
    /// A timer that resolves after so many milliseconds.
    fn sleep(&self, ms: u64) -> HostFuture;
    /// Opens an outgoing connection; `options`: see `crate::shapes`.
    fn dial(&self, options: Value) -> HostFuture;
    /// Makes a connection of the node's from a stream: the host opens a session for it and calls the node's
    /// `on_connection` with `state`. Returns the session's id.
    fn attach(&self, io: HostIo, state: Value) -> Result<Str, NodeError>;
    /// Queues a value for one of the node's sessions.
    fn session_send(&self, id: &str, value: Value) -> Queued;
    /// Queues a value for all of the node's sessions; returns for how many.
    fn session_broadcast(&self, value: Value) -> u64;
    /// How many sessions the node has.
    fn session_count(&self) -> u64;
    /// Registers a route that leads to this node and leaves with it; `route`: see `crate::shapes`.
    fn register_route(&self, route: Value) -> Result<(), NodeError>;
    /// Answers an upgrade that was deferred.
    fn answer_upgrade(&self, ticket: u64, answer: Value);
    /// Queues a value for all of the node's sessions but those with these ids; returns for how many.
    fn session_broadcast_except(&self, value: Value, except: &[&str]) -> u64;
    /// The node's metric of that name, made when it has none: newer code of the node gets the same. It is shown with
    /// those of the host as `flowbay_<name>`, and leaves with the node. A name that cannot be shown (see
    /// `crate::shapes`) is reported in the log, and the metric counts for nobody.
    fn metric(&self, kind: MetricKind, name: &str, help: &str) -> Metric;
    /// Runs work that may block its thread, apart from the threads that run nodes. `work` is polled once, and is
    /// expected to be ready then; it is dropped where it ran, or unpolled when it cannot be run. The library is kept
    /// loaded until it has returned. A node that has not begun has its work run when it begins.
    ///
    /// # Errors
    /// As many wait, or as many threads run, as the host's settings allow; or the node is closed. The work is dropped.
    fn run_blocking(&self, work: FfiFuture<()>, place: WorkPlace) -> Result<(), NodeError>;
}

/// The calls of [`HostApi`] as they cross.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostVTableRef, prefix_fields = HostVTablePrefix)))]
#[sabi(missing_field(panic))]
pub struct HostVTable {
    retain: unsafe extern "C" fn(*const ()),
    release: unsafe extern "C" fn(*const ()),
    send: unsafe extern "C" fn(*const (), RSliceMut<'_, PortMsg>),
    poll_ready: unsafe extern "C" fn(*const (), &mut FfiContext<'_>, WakerKey) -> bool,
    deliver: unsafe extern "C" fn(*const (), RStr<'_>, Msg) -> bool,
    error: unsafe extern "C" fn(*const (), NodeError, ROption<Msg>),
    status: unsafe extern "C" fn(*const (), Value),
    debug: unsafe extern "C" fn(*const (), Value),
    log: unsafe extern "C" fn(*const (), LogLevel, RStr<'_>),
    info: unsafe extern "C" fn(*const ()) -> Value,
    env: unsafe extern "C" fn(*const (), RStr<'_>) -> ROption<Value>,
    config: unsafe extern "C" fn(*const (), RStr<'_>) -> ROption<Value>,
    credentials: unsafe extern "C" fn(*const ()) -> Value,
    context_get: unsafe extern "C" fn(
        *const (),
        ContextScope,
        RStr<'_>,
        RStr<'_>,
    ) -> RResult<ROption<Value>, NodeError>,
    context_set: unsafe extern "C" fn(
        *const (),
        ContextScope,
        RStr<'_>,
        RStr<'_>,
        ROption<Value>,
    ) -> RResult<(), NodeError>,
    context_keys: unsafe extern "C" fn(*const (), ContextScope, RStr<'_>) -> Value,
    spawn: unsafe extern "C" fn(*const (), FfiFuture<()>),
    sleep: unsafe extern "C" fn(*const (), u64) -> HostFuture,
    dial: unsafe extern "C" fn(*const (), Value) -> HostFuture,
    attach: unsafe extern "C" fn(*const (), HostIo, Value) -> RResult<Str, NodeError>,
    session_send: unsafe extern "C" fn(*const (), RStr<'_>, Value) -> Queued,
    session_broadcast: unsafe extern "C" fn(*const (), Value) -> u64,
    session_count: unsafe extern "C" fn(*const ()) -> u64,
    register_route: unsafe extern "C" fn(*const (), Value) -> RResult<(), NodeError>,
    answer_upgrade: unsafe extern "C" fn(*const (), u64, Value),
    session_broadcast_except: unsafe extern "C" fn(*const (), Value, RSlice<'_, RStr<'_>>) -> u64,
    #[sabi(last_prefix_field)]
    metric: unsafe extern "C" fn(*const (), MetricKind, RStr<'_>, RStr<'_>) -> Metric,
    // From here on a host may be too old to have it; the plugin's side says what then.
    #[sabi(missing_field(option))]
    run_blocking: unsafe extern "C" fn(*const (), FfiFuture<()>, WorkPlace) -> RResult<(), NodeError>,
}

/// The host as a node holds it. Cloning is a reference count; it stays valid as long as it is held, and does
/// nothing once the node is closed.
#[repr(C)]
#[derive(StableAbi)]
pub struct HostNode {
    ptr: *const (),
    vtable: HostVTableRef,
}

// SAFETY: the pointer is an `Arc<H>` with `H: HostApi`, which is Send + Sync.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Send for HostNode {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Sync for HostNode {}

#[allow(unsafe_code, reason = "a home of the boundary")]
impl Clone for HostNode {
    fn clone(&self) -> Self {
        // SAFETY: `ptr` belongs to this vtable and `self` holds a count.
        unsafe { self.vtable.retain()(self.ptr) };
        Self { ptr: self.ptr, vtable: self.vtable }
    }
}

#[allow(unsafe_code, reason = "a home of the boundary")]
impl Drop for HostNode {
    fn drop(&mut self) {
        // SAFETY: gives up the count that `self` holds, once.
        unsafe { self.vtable.release()(self.ptr) }
    }
}

impl std::fmt::Debug for HostNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostNode").field(&self.ptr).finish()
    }
}

/// The plugin's side; see [`HostApi`] for what each call does.
#[allow(unsafe_code, reason = "a home of the boundary")]
#[allow(missing_docs, reason = "documented at the trait of the same name")]
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all: `ptr` belongs to this vtable and `self` holds a count"
)]
impl HostNode {
    /// Wraps the host's services for one node.
    pub fn new<H: HostApi>(host: Arc<H>) -> Self {
        Self { ptr: Arc::into_raw(host).cast(), vtable: shims::vtable::<H>() }
    }

    #[inline]
    pub fn send(&self, batch: &mut [PortMsg]) {
        unsafe { self.vtable.send()(self.ptr, RSliceMut::from(batch)) }
    }

    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match with_caller(cx, |context, key| unsafe { self.vtable.poll_ready()(self.ptr, context, key) }) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    pub fn deliver(&self, target: &str, msg: Msg) -> bool {
        unsafe { self.vtable.deliver()(self.ptr, target.into(), msg) }
    }

    pub fn error(&self, error: NodeError, msg: Option<Msg>) {
        unsafe { self.vtable.error()(self.ptr, error, msg.into()) }
    }

    pub fn status(&self, status: Value) {
        unsafe { self.vtable.status()(self.ptr, status) }
    }

    pub fn debug(&self, event: Value) {
        unsafe { self.vtable.debug()(self.ptr, event) }
    }

    pub fn log(&self, level: LogLevel, text: &str) {
        unsafe { self.vtable.log()(self.ptr, level, text.into()) }
    }

    pub fn info(&self) -> Value {
        unsafe { self.vtable.info()(self.ptr) }
    }

    pub fn env(&self, name: &str) -> Option<Value> {
        unsafe { self.vtable.env()(self.ptr, name.into()) }.into()
    }

    pub fn config(&self, id: &str) -> Option<Value> {
        unsafe { self.vtable.config()(self.ptr, id.into()) }.into()
    }

    pub fn credentials(&self) -> Value {
        unsafe { self.vtable.credentials()(self.ptr) }
    }

    /// # Errors
    /// The path or the store is not valid.
    pub fn context_get(
        &self,
        scope: ContextScope,
        store: &str,
        path: &str,
    ) -> Result<Option<Value>, NodeError> {
        unsafe { self.vtable.context_get()(self.ptr, scope, store.into(), path.into()) }
            .into_result()
            .map(ROption::into_option)
    }

    /// # Errors
    /// The path or the store is not valid.
    pub fn context_set(
        &self,
        scope: ContextScope,
        store: &str,
        path: &str,
        value: Option<Value>,
    ) -> Result<(), NodeError> {
        unsafe { self.vtable.context_set()(self.ptr, scope, store.into(), path.into(), value.into()) }
            .into_result()
    }

    /// An array of strings.
    pub fn context_keys(&self, scope: ContextScope, store: &str) -> Value {
        unsafe { self.vtable.context_keys()(self.ptr, scope, store.into()) }
    }

    pub fn spawn(&self, task: FfiFuture<()>) {
        unsafe { self.vtable.spawn()(self.ptr, task) }
    }

    pub fn sleep(&self, ms: u64) -> HostFuture {
        unsafe { self.vtable.sleep()(self.ptr, ms) }
    }

    pub fn dial(&self, options: Value) -> HostFuture {
        unsafe { self.vtable.dial()(self.ptr, options) }
    }

    /// # Errors
    /// The node is closing.
    pub fn attach(&self, io: HostIo, state: Value) -> Result<Str, NodeError> {
        unsafe { self.vtable.attach()(self.ptr, io, state) }.into_result()
    }

    pub fn session_send(&self, id: &str, value: Value) -> Queued {
        unsafe { self.vtable.session_send()(self.ptr, id.into(), value) }
    }

    pub fn session_broadcast(&self, value: Value) -> u64 {
        unsafe { self.vtable.session_broadcast()(self.ptr, value) }
    }

    pub fn session_count(&self) -> u64 {
        unsafe { self.vtable.session_count()(self.ptr) }
    }

    /// # Errors
    /// The path is taken; the text names the node that has it.
    pub fn register_route(&self, route: Value) -> Result<(), NodeError> {
        unsafe { self.vtable.register_route()(self.ptr, route) }.into_result()
    }

    pub fn answer_upgrade(&self, ticket: u64, answer: Value) {
        unsafe { self.vtable.answer_upgrade()(self.ptr, ticket, answer) }
    }

    pub fn session_broadcast_except(&self, value: Value, except: &[&str]) -> u64 {
        let except: Vec<RStr<'_>> = except.iter().map(|id| RStr::from(*id)).collect();
        unsafe { self.vtable.session_broadcast_except()(self.ptr, value, RSlice::from(&except[..])) }
    }

    pub fn metric(&self, kind: MetricKind, name: &str, help: &str) -> Metric {
        unsafe { self.vtable.metric()(self.ptr, kind, name.into(), help.into()) }
    }

    /// # Errors
    /// The work cannot be run, see [`HostApi::run_blocking`]; or the host is too old to run any (`HOST_TOO_OLD`).
    pub fn run_blocking(&self, work: FfiFuture<()>, place: WorkPlace) -> Result<(), NodeError> {
        let Some(run_blocking) = self.vtable.run_blocking() else {
            return Err(NodeError::new("this host is older than the plugin and runs no blocking work")
                .with_code("HOST_TOO_OLD"));
        };
        unsafe { run_blocking(self.ptr, work, place) }.into_result()
    }
}

/// What a [`HostFuture`] resolves to.
#[repr(C)]
#[derive(StableAbi)]
pub struct HostReply {
    /// A value, null where there is nothing to say.
    pub value: Value,
    /// A stream, from `dial`.
    pub io: ROption<HostIo>,
}

/// A future of the host. Implemented by the host for its timers and its dialling.
pub trait HostFutureApi: Send + 'static {
    /// As [`Future::poll`]. Not polled again after it was ready.
    fn poll(&mut self, waker: CallerWaker<'_, '_>) -> Poll<Result<HostReply, NodeError>>;
}

/// The calls of [`HostFutureApi`] as they cross.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = FutureVTableRef, prefix_fields = FutureVTablePrefix)))]
#[sabi(missing_field(panic))]
pub struct FutureVTable {
    poll: unsafe extern "C" fn(
        *mut (),
        &mut FfiContext<'_>,
        WakerKey,
    ) -> ROption<RResult<HostReply, NodeError>>,
    #[sabi(last_prefix_field)]
    drop: unsafe extern "C" fn(*mut ()),
}

/// A future of the host as a plugin awaits it. May be dropped at any time, which cancels it.
#[repr(C)]
#[derive(StableAbi)]
pub struct HostFuture {
    ptr: *mut (),
    vtable: FutureVTableRef,
}

// SAFETY: the pointer is a `Box<F>` with `F: HostFutureApi`, which is Send.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Send for HostFuture {}
// SAFETY: nothing can be done with a `&HostFuture`.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Sync for HostFuture {}

impl HostFuture {
    /// Wraps a future of the host.
    pub fn new<F: HostFutureApi>(future: F) -> Self {
        Self { ptr: Box::into_raw(Box::new(future)).cast(), vtable: future_shims::vtable::<F>() }
    }
}

#[allow(unsafe_code, reason = "a home of the boundary")]
impl Future for HostFuture {
    type Output = Result<HostReply, NodeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // SAFETY: `ptr` belongs to this vtable, and `&mut self` makes this the only call on it.
        let polled = with_caller(cx, |context, key| unsafe { this.vtable.poll()(this.ptr, context, key) });
        match polled {
            RSome(result) => Poll::Ready(result.into_result()),
            RNone => Poll::Pending,
        }
    }
}

#[allow(unsafe_code, reason = "a home of the boundary")]
impl Drop for HostFuture {
    fn drop(&mut self) {
        // SAFETY: gives up the box that `self` owns, once.
        unsafe { self.vtable.drop()(self.ptr) }
    }
}

#[allow(unsafe_code, reason = "a home of the boundary")]
mod future_shims {
    use super::*;
    use abi_stable::prefix_type::WithMetadata;

    struct For<F>(F);
    impl<F: HostFutureApi> For<F> {
        abi_stable::staticref!(const VTABLE: WithMetadata<FutureVTable> =
            WithMetadata::new(FutureVTable { poll: poll::<F>, drop: drop_future::<F> }));
    }

    pub(super) fn vtable<F: HostFutureApi>() -> FutureVTableRef {
        FutureVTableRef(For::<F>::VTABLE.as_prefix())
    }

    unsafe extern "C" fn poll<F: HostFutureApi>(
        ptr: *mut (),
        context: &mut FfiContext<'_>,
        key: WakerKey,
    ) -> ROption<RResult<HostReply, NodeError>> {
        // SAFETY: `HostFuture` passes the pointer that belongs to this vtable, from `&mut self`.
        let future = unsafe { &mut *ptr.cast::<F>() };
        match catch(|| future.poll(CallerWaker::new(key, context))) {
            Ok(Poll::Pending) => RNone,
            Ok(Poll::Ready(result)) => RSome(result.into()),
            Err(text) => RSome(RErr(NodeError::from_panic(text))),
        }
    }

    unsafe extern "C" fn drop_future<F: HostFutureApi>(ptr: *mut ()) {
        // SAFETY: `HostFuture` gives up its box, once.
        let future = unsafe { Box::from_raw(ptr.cast::<F>()) };
        let _ = catch(move || drop(future));
    }
}

/// The host's side: from a raw pointer back to `&H`, with panics caught (a panic in the host during a plugin's call
/// loses that call, and nothing else).
#[allow(unsafe_code, reason = "a home of the boundary")]
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all, at `host`")]
mod shims {
    use super::*;
    use abi_stable::prefix_type::WithMetadata;

    struct For<H>(H);
    impl<H: HostApi> For<H> {
        abi_stable::staticref!(const VTABLE: WithMetadata<HostVTable> = WithMetadata::new(HostVTable {
            retain: retain::<H>,
            release: release::<H>,
            send: send::<H>,
            poll_ready: poll_ready::<H>,
            deliver: deliver::<H>,
            error: error::<H>,
            status: status::<H>,
            debug: debug::<H>,
            log: log::<H>,
            info: info::<H>,
            env: env::<H>,
            config: config::<H>,
            credentials: credentials::<H>,
            context_get: context_get::<H>,
            context_set: context_set::<H>,
            context_keys: context_keys::<H>,
            spawn: spawn::<H>,
            sleep: sleep::<H>,
            dial: dial::<H>,
            attach: attach::<H>,
            session_send: session_send::<H>,
            session_broadcast: session_broadcast::<H>,
            session_count: session_count::<H>,
            register_route: register_route::<H>,
            answer_upgrade: answer_upgrade::<H>,
            session_broadcast_except: session_broadcast_except::<H>,
            metric: metric::<H>,
            run_blocking: run_blocking::<H>,
        }));
    }

    pub(super) fn vtable<H: HostApi>() -> HostVTableRef {
        HostVTableRef(For::<H>::VTABLE.as_prefix())
    }

    /// # Safety
    /// `ptr` is the pointer of a live `HostNode` that was made from an `Arc<H>`.
    unsafe fn host<'a, H: HostApi>(ptr: *const ()) -> &'a H {
        // SAFETY: the caller's promise; `HostNode` keeps a count during each of its calls.
        unsafe { &*ptr.cast::<H>() }
    }

    unsafe extern "C" fn retain<H: HostApi>(ptr: *const ()) {
        unsafe { Arc::increment_strong_count(ptr.cast::<H>()) }
    }

    unsafe extern "C" fn release<H: HostApi>(ptr: *const ()) {
        let host = unsafe { Arc::from_raw(ptr.cast::<H>()) };
        let _ = catch(move || drop(host));
    }

    unsafe extern "C" fn send<H: HostApi>(ptr: *const (), batch: RSliceMut<'_, PortMsg>) {
        let host = unsafe { host::<H>(ptr) };
        let _ = catch(|| host.send(batch.into_mut_slice()));
    }

    unsafe extern "C" fn poll_ready<H: HostApi>(
        ptr: *const (),
        context: &mut FfiContext<'_>,
        key: WakerKey,
    ) -> bool {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.poll_ready(CallerWaker::new(key, context)).is_ready()).unwrap_or(true)
    }

    unsafe extern "C" fn deliver<H: HostApi>(ptr: *const (), target: RStr<'_>, msg: Msg) -> bool {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.deliver(target.as_str(), msg)).unwrap_or(false)
    }

    unsafe extern "C" fn error<H: HostApi>(ptr: *const (), error: NodeError, msg: ROption<Msg>) {
        let host = unsafe { host::<H>(ptr) };
        let _ = catch(|| host.error(error, msg.into()));
    }

    unsafe extern "C" fn status<H: HostApi>(ptr: *const (), status: Value) {
        let host = unsafe { host::<H>(ptr) };
        let _ = catch(|| host.status(status));
    }

    unsafe extern "C" fn debug<H: HostApi>(ptr: *const (), event: Value) {
        let host = unsafe { host::<H>(ptr) };
        let _ = catch(|| host.debug(event));
    }

    unsafe extern "C" fn log<H: HostApi>(ptr: *const (), level: LogLevel, text: RStr<'_>) {
        let host = unsafe { host::<H>(ptr) };
        let _ = catch(|| host.log(level, text.as_str()));
    }

    unsafe extern "C" fn info<H: HostApi>(ptr: *const ()) -> Value {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.info()).unwrap_or(Value::Null)
    }

    unsafe extern "C" fn env<H: HostApi>(ptr: *const (), name: RStr<'_>) -> ROption<Value> {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.env(name.as_str())).unwrap_or(None).into()
    }

    unsafe extern "C" fn config<H: HostApi>(ptr: *const (), id: RStr<'_>) -> ROption<Value> {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.config(id.as_str())).unwrap_or(None).into()
    }

    unsafe extern "C" fn credentials<H: HostApi>(ptr: *const ()) -> Value {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.credentials()).unwrap_or(Value::Null)
    }

    unsafe extern "C" fn context_get<H: HostApi>(
        ptr: *const (),
        scope: ContextScope,
        store: RStr<'_>,
        path: RStr<'_>,
    ) -> RResult<ROption<Value>, NodeError> {
        let host = unsafe { host::<H>(ptr) };
        match catch(|| host.context_get(scope, store.as_str(), path.as_str())) {
            Ok(result) => result.map(ROption::from).into(),
            Err(text) => RErr(NodeError::from_panic(text)),
        }
    }

    unsafe extern "C" fn context_set<H: HostApi>(
        ptr: *const (),
        scope: ContextScope,
        store: RStr<'_>,
        path: RStr<'_>,
        value: ROption<Value>,
    ) -> RResult<(), NodeError> {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.context_set(scope, store.as_str(), path.as_str(), value.into()))
            .unwrap_or_else(|text| Err(NodeError::from_panic(text)))
            .into()
    }

    unsafe extern "C" fn context_keys<H: HostApi>(
        ptr: *const (),
        scope: ContextScope,
        store: RStr<'_>,
    ) -> Value {
        let host = unsafe { host::<H>(ptr) };
        catch(|| {
            Value::from(
                host.context_keys(scope, store.as_str()).into_iter().map(Value::Str).collect::<Vec<_>>(),
            )
        })
        .unwrap_or(Value::Null)
    }

    unsafe extern "C" fn spawn<H: HostApi>(ptr: *const (), task: FfiFuture<()>) {
        let host = unsafe { host::<H>(ptr) };
        let _ = catch(|| host.spawn(task));
    }

    unsafe extern "C" fn sleep<H: HostApi>(ptr: *const (), ms: u64) -> HostFuture {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.sleep(ms)).unwrap_or_else(failed)
    }

    unsafe extern "C" fn dial<H: HostApi>(ptr: *const (), options: Value) -> HostFuture {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.dial(options)).unwrap_or_else(failed)
    }

    fn failed(text: String) -> HostFuture {
        struct Failed(Option<NodeError>);
        impl HostFutureApi for Failed {
            fn poll(&mut self, _: CallerWaker<'_, '_>) -> Poll<Result<HostReply, NodeError>> {
                self.0.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
            }
        }
        HostFuture::new(Failed(Some(NodeError::from_panic(text))))
    }

    unsafe extern "C" fn attach<H: HostApi>(
        ptr: *const (),
        io: HostIo,
        state: Value,
    ) -> RResult<Str, NodeError> {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.attach(io, state)).unwrap_or_else(|text| Err(NodeError::from_panic(text))).into()
    }

    unsafe extern "C" fn session_send<H: HostApi>(ptr: *const (), id: RStr<'_>, value: Value) -> Queued {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.session_send(id.as_str(), value)).unwrap_or(Queued::NoSession)
    }

    unsafe extern "C" fn session_broadcast<H: HostApi>(ptr: *const (), value: Value) -> u64 {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.session_broadcast(value)).unwrap_or(0)
    }

    unsafe extern "C" fn session_count<H: HostApi>(ptr: *const ()) -> u64 {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.session_count()).unwrap_or(0)
    }

    unsafe extern "C" fn register_route<H: HostApi>(ptr: *const (), route: Value) -> RResult<(), NodeError> {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.register_route(route)).unwrap_or_else(|text| Err(NodeError::from_panic(text))).into()
    }

    unsafe extern "C" fn answer_upgrade<H: HostApi>(ptr: *const (), ticket: u64, answer: Value) {
        let host = unsafe { host::<H>(ptr) };
        let _ = catch(|| host.answer_upgrade(ticket, answer));
    }

    unsafe extern "C" fn session_broadcast_except<H: HostApi>(
        ptr: *const (),
        value: Value,
        except: RSlice<'_, RStr<'_>>,
    ) -> u64 {
        let host = unsafe { host::<H>(ptr) };
        catch(|| {
            let except: Vec<&str> = except.iter().map(RStr::as_str).collect();
            host.session_broadcast_except(value, &except)
        })
        .unwrap_or(0)
    }

    unsafe extern "C" fn metric<H: HostApi>(
        ptr: *const (),
        kind: MetricKind,
        name: RStr<'_>,
        help: RStr<'_>,
    ) -> Metric {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.metric(kind, name.as_str(), help.as_str())).unwrap_or_default()
    }
    unsafe extern "C" fn run_blocking<H: HostApi>(
        ptr: *const (),
        work: FfiFuture<()>,
        place: WorkPlace,
    ) -> RResult<(), NodeError> {
        let host = unsafe { host::<H>(ptr) };
        catch(|| host.run_blocking(work, place))
            .unwrap_or_else(|text| Err(NodeError::from_panic(text)))
            .into()
    }
}
