//! Sockets and sessions: what the host owns and a plugin's connection code works on.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use abi_stable::{StableAbi, std_types::*};
use async_ffi::FfiContext;

use crate::{
    panics::catch,
    value::{Str, Value},
    waker::{CallerWaker, WakerKey, with_caller},
};

/// Result of a poll on a [`HostIo`]: bytes moved when `>= 0`, pending when -1, `-(errno + 2)` when less.
pub type IoCode = i64;
const PENDING: IoCode = -1;

fn encode(result: Poll<io::Result<usize>>) -> IoCode {
    match result {
        Poll::Pending => PENDING,
        Poll::Ready(Ok(n)) => n as IoCode,
        Poll::Ready(Err(error)) => {
            -2 - IoCode::from(error.raw_os_error().unwrap_or_else(|| errno(error.kind())))
        }
    }
}

fn decode(code: IoCode) -> Poll<io::Result<usize>> {
    match code {
        PENDING => Poll::Pending,
        n if n >= 0 => Poll::Ready(Ok(n as usize)),
        error => Poll::Ready(Err(io::Error::from_raw_os_error((-2 - error) as i32))),
    }
}

/// The closest errno for an error that has none (TLS alerts, for instance; the host logs their text).
fn errno(kind: io::ErrorKind) -> i32 {
    match kind {
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => libc::ECONNRESET,
        io::ErrorKind::ConnectionAborted => libc::ECONNABORTED,
        io::ErrorKind::NotConnected => libc::ENOTCONN,
        io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero => libc::EPIPE,
        io::ErrorKind::TimedOut => libc::ETIMEDOUT,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => libc::EPROTO,
        _ => libc::EIO,
    }
}

/// A byte stream of the host: a TCP socket or a TLS connection on one. Implemented by the host.
///
/// One task uses it at a time. Polls follow tokio's `AsyncRead` and `AsyncWrite`.
pub trait HostStreamApi: Send + 'static {
    /// Reads into `buf`; 0 is the end of the stream.
    fn poll_read(&mut self, waker: CallerWaker<'_, '_>, buf: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Writes from the buffers in order; returns how many bytes were taken.
    fn poll_write(&mut self, waker: CallerWaker<'_, '_>, bufs: &[RSlice<'_, u8>]) -> Poll<io::Result<usize>>;
    /// Pushes out what is buffered (TLS).
    fn poll_flush(&mut self, waker: CallerWaker<'_, '_>) -> Poll<io::Result<()>>;
    /// Closes the writing half.
    fn poll_shutdown(&mut self, waker: CallerWaker<'_, '_>) -> Poll<io::Result<()>>;
    /// What is known of the stream: an object with `remote`, `local` (address:port) and `tls` (bool).
    fn info(&self) -> Value;
}

/// The calls of [`HostStreamApi`] as they cross.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = IoVTableRef, prefix_fields = IoVTablePrefix)))]
#[sabi(missing_field(panic))]
pub struct IoVTable {
    poll_read: unsafe extern "C" fn(*mut (), &mut FfiContext<'_>, WakerKey, RSliceMut<'_, u8>) -> IoCode,
    poll_write:
        unsafe extern "C" fn(*mut (), &mut FfiContext<'_>, WakerKey, RSlice<'_, RSlice<'_, u8>>) -> IoCode,
    poll_flush: unsafe extern "C" fn(*mut (), &mut FfiContext<'_>, WakerKey) -> IoCode,
    poll_shutdown: unsafe extern "C" fn(*mut (), &mut FfiContext<'_>, WakerKey) -> IoCode,
    info: unsafe extern "C" fn(*mut ()) -> Value,
    /// Tells the types of one library apart; means nothing to another.
    type_tag: extern "C" fn() -> u64,
    #[sabi(last_prefix_field)]
    drop: unsafe extern "C" fn(*mut ()),
}

/// A byte stream that the host owns and lends to a plugin: `AsyncRead + AsyncWrite` in the SDK.
///
/// Given back to the host in [`ConnectionEnd`] it can be served by another generation; dropped, it is closed.
#[repr(C)]
#[derive(StableAbi)]
pub struct HostIo {
    ptr: *mut (),
    vtable: IoVTableRef,
}

// SAFETY: the pointer is a `Box<S>` with `S: HostStreamApi`, which is Send.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Send for HostIo {}
// SAFETY: every method that touches the stream takes `&mut self`, but `info`, which only reads.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Sync for HostIo {}

#[allow(unsafe_code, reason = "a home of the boundary")]
impl HostIo {
    /// Wraps a stream of the host.
    pub fn new<S: HostStreamApi + Sync>(stream: S) -> Self {
        Self { ptr: Box::into_raw(Box::new(stream)).cast(), vtable: io_shims::vtable::<S>() }
    }

    /// Gives back the stream when it is an `S` of this very library; the host uses it on what a plugin returns.
    ///
    /// # Errors
    /// `self` again when it was made by another library or from another type.
    pub fn into_stream<S: HostStreamApi + Sync>(self) -> Result<S, Self> {
        if self.vtable.type_tag()() != io_shims::type_tag::<S>() {
            return Err(self);
        }
        let ptr = self.ptr;
        std::mem::forget(self);
        // SAFETY: the tag is that of `S`, a type of this library that no other one has a stream of (streams are the
        // host's), so `ptr` came from `Box<S>` in `new`; `self` is forgotten, so the box has one owner.
        Ok(*unsafe { Box::from_raw(ptr.cast::<S>()) })
    }

    /// Reads into `buf`; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let limit = buf.len();
        decode(with_caller(cx, |context, key| {
            // SAFETY: `ptr` belongs to this vtable and `&mut self` makes this the only call on it.
            unsafe { self.vtable.poll_read()(self.ptr, context, key, RSliceMut::from(buf)) }
        }))
        .map_ok(|n| n.min(limit))
    }

    /// Writes from `bufs` in order; returns how many bytes were taken.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[RSlice<'_, u8>]) -> Poll<io::Result<usize>> {
        decode(with_caller(cx, |context, key| {
            // SAFETY: as in `poll_read`.
            unsafe { self.vtable.poll_write()(self.ptr, context, key, RSlice::from(bufs)) }
        }))
    }

    /// Pushes out what is buffered.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        decode(with_caller(cx, |context, key| {
            // SAFETY: as in `poll_read`.
            unsafe { self.vtable.poll_flush()(self.ptr, context, key) }
        }))
        .map_ok(drop)
    }

    /// Closes the writing half.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        decode(with_caller(cx, |context, key| {
            // SAFETY: as in `poll_read`.
            unsafe { self.vtable.poll_shutdown()(self.ptr, context, key) }
        }))
        .map_ok(drop)
    }

    /// What is known of the stream: an object with `remote`, `local` (address:port) and `tls` (bool).
    pub fn info(&self) -> Value {
        // SAFETY: `ptr` belongs to this vtable; the implementation only reads (`&S`, and `S: Sync`).
        unsafe { self.vtable.info()(self.ptr) }
    }
}

#[allow(unsafe_code, reason = "a home of the boundary")]
impl Drop for HostIo {
    fn drop(&mut self) {
        // SAFETY: `self` owns the box behind `ptr`, given up here or in `into_stream`.
        unsafe { self.vtable.drop()(self.ptr) }
    }
}

#[allow(unsafe_code, reason = "a home of the boundary")]
mod io_shims {
    use super::*;
    use abi_stable::prefix_type::WithMetadata;

    struct For<S>(S);
    impl<S: HostStreamApi + Sync> For<S> {
        abi_stable::staticref!(const VTABLE: WithMetadata<IoVTable> = WithMetadata::new(IoVTable {
            poll_read: poll_read::<S>,
            poll_write: poll_write::<S>,
            poll_flush: poll_flush::<S>,
            poll_shutdown: poll_shutdown::<S>,
            info: info::<S>,
            type_tag: type_tag::<S>,
            drop: drop_stream::<S>,
        }));
    }

    pub(super) fn vtable<S: HostStreamApi + Sync>() -> IoVTableRef {
        IoVTableRef(For::<S>::VTABLE.as_prefix())
    }

    fn caught(call: impl FnOnce() -> IoCode) -> IoCode {
        catch(call).unwrap_or(-2 - libc::EIO as IoCode)
    }

    unsafe extern "C" fn poll_read<S: HostStreamApi>(
        ptr: *mut (),
        context: &mut FfiContext<'_>,
        key: WakerKey,
        buf: RSliceMut<'_, u8>,
    ) -> IoCode {
        // SAFETY: `HostIo` passes the pointer that belongs to this vtable, from `&mut self`.
        let stream = unsafe { &mut *ptr.cast::<S>() };
        caught(|| encode(stream.poll_read(CallerWaker::new(key, context), buf.into_mut_slice())))
    }

    unsafe extern "C" fn poll_write<S: HostStreamApi>(
        ptr: *mut (),
        context: &mut FfiContext<'_>,
        key: WakerKey,
        bufs: RSlice<'_, RSlice<'_, u8>>,
    ) -> IoCode {
        // SAFETY: as in `poll_read`.
        let stream = unsafe { &mut *ptr.cast::<S>() };
        caught(|| encode(stream.poll_write(CallerWaker::new(key, context), bufs.as_slice())))
    }

    unsafe extern "C" fn poll_flush<S: HostStreamApi>(
        ptr: *mut (),
        context: &mut FfiContext<'_>,
        key: WakerKey,
    ) -> IoCode {
        // SAFETY: as in `poll_read`.
        let stream = unsafe { &mut *ptr.cast::<S>() };
        caught(|| encode(stream.poll_flush(CallerWaker::new(key, context)).map_ok(|()| 0)))
    }

    unsafe extern "C" fn poll_shutdown<S: HostStreamApi>(
        ptr: *mut (),
        context: &mut FfiContext<'_>,
        key: WakerKey,
    ) -> IoCode {
        // SAFETY: as in `poll_read`.
        let stream = unsafe { &mut *ptr.cast::<S>() };
        caught(|| encode(stream.poll_shutdown(CallerWaker::new(key, context)).map_ok(|()| 0)))
    }

    unsafe extern "C" fn info<S: HostStreamApi>(ptr: *mut ()) -> Value {
        // SAFETY: as in `poll_read`, from `&self`; only a shared reference is made.
        let stream = unsafe { &*ptr.cast::<S>() };
        catch(|| stream.info()).unwrap_or(Value::Null)
    }

    pub(super) extern "C" fn type_tag<S: 'static>() -> u64 {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        BuildHasherDefault::<DefaultHasher>::default().hash_one(std::any::TypeId::of::<S>())
    }

    unsafe extern "C" fn drop_stream<S: HostStreamApi>(ptr: *mut ()) {
        // SAFETY: `HostIo` gives up its box, once.
        let stream = unsafe { Box::from_raw(ptr.cast::<S>()) };
        let _ = catch(move || drop(stream));
    }
}

/// What [`HostSession::poll_recv`] has for the connection.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Received {
    /// So many values were appended to the caller's buffer.
    Values(usize),
    /// The host wants the connection back: stop at the next boundary and return [`ConnectionEnd::HandOver`].
    HandOver,
    /// The session was cut by the host (its queue overflowed, its node is gone): end the connection.
    Closed,
}

/// The host's side of one session. Implemented by the host.
pub trait HostSessionApi: Send + Sync + 'static {
    /// The session's id, 16 hexadecimal digits.
    fn id(&self) -> Str;
    /// Takes up to `max` values off the queue, oldest first. With a `max` of 0 only an end is an answer.
    fn poll_recv(
        &self,
        waker: CallerWaker<'_, '_>,
        max: usize,
        push: &mut dyn FnMut(Value),
    ) -> Poll<Received>;
    /// Values waiting in the queue, in bytes.
    fn queued_bytes(&self) -> usize;
    /// Takes up to `max` values off the queue, oldest first, whatever else there is to say; how many.
    fn take_left(&self, max: usize, push: &mut dyn FnMut(Value)) -> usize;
}

/// The calls of [`HostSessionApi`] as they cross.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = SessionVTableRef, prefix_fields = SessionVTablePrefix)))]
#[sabi(missing_field(panic))]
pub struct SessionVTable {
    id: unsafe extern "C" fn(*const ()) -> Str,
    /// Fills the slots from the front; returns how many, or one of the codes below.
    poll_recv: unsafe extern "C" fn(*const (), &mut FfiContext<'_>, WakerKey, RSliceMut<'_, Value>) -> i32,
    queued_bytes: unsafe extern "C" fn(*const ()) -> usize,
    /// Fills the slots from the front; returns how many.
    take_left: unsafe extern "C" fn(*const (), RSliceMut<'_, Value>) -> usize,
    #[sabi(last_prefix_field)]
    drop: unsafe extern "C" fn(*const ()),
}

const RECV_PENDING: i32 = -1;
const RECV_HAND_OVER: i32 = -2;
const RECV_CLOSED: i32 = -3;
/// Values taken off a session's queue in one call.
const RECV_BATCH: usize = 16;

/// A session as the plugin's connection code holds it: an address in the flow (`msg._session.id`) with a bounded
/// queue of values to send, which the host owns. Any node may fill the queue through
/// [`crate::host::HostApi::session_send`]; the connection empties it. Dropping this ends the session, unless the
/// connection was handed over.
#[repr(C)]
#[derive(StableAbi)]
pub struct HostSession {
    ptr: *const (),
    vtable: SessionVTableRef,
}

// SAFETY: the pointer is an `Arc<S>` with `S: HostSessionApi`, which is Send + Sync.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Send for HostSession {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "a home of the boundary")]
unsafe impl Sync for HostSession {}

#[allow(unsafe_code, reason = "a home of the boundary")]
impl HostSession {
    /// Wraps a session of the host.
    pub fn new<S: HostSessionApi>(session: std::sync::Arc<S>) -> Self {
        Self { ptr: std::sync::Arc::into_raw(session).cast(), vtable: session_shims::vtable::<S>() }
    }

    /// The session's id, 16 hexadecimal digits.
    pub fn id(&self) -> Str {
        // SAFETY: `ptr` belongs to this vtable and is alive while `self` is.
        unsafe { self.vtable.id()(self.ptr) }
    }

    /// Appends values that wait to be sent to `into`, oldest first, at most a batch.
    pub fn poll_recv(&self, cx: &mut Context<'_>, into: &mut Vec<Value>) -> Poll<Received> {
        let mut slots = [const { Value::Null }; RECV_BATCH];
        let code = with_caller(cx, |context, key| {
            // SAFETY: as in `id`.
            unsafe { self.vtable.poll_recv()(self.ptr, context, key, RSliceMut::from(&mut slots[..])) }
        });
        match code {
            RECV_PENDING => Poll::Pending,
            RECV_HAND_OVER => Poll::Ready(Received::HandOver),
            n if n > 0 => {
                let n = (n as usize).min(RECV_BATCH);
                into.extend(slots.into_iter().take(n));
                Poll::Ready(Received::Values(n))
            }
            _ => Poll::Ready(Received::Closed),
        }
    }

    /// Ready when the host wants the connection back ([`Received::HandOver`]) or has cut the session
    /// ([`Received::Closed`]); takes no values. For a connection whose peer takes nothing at the moment, and which
    /// therefore does not call [`Self::poll_recv`].
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Received> {
        // With no room for values, only an end can be the answer.
        let code = with_caller(cx, |context, key| {
            // SAFETY: as in `id`.
            unsafe { self.vtable.poll_recv()(self.ptr, context, key, RSliceMut::from(&mut [][..])) }
        });
        match code {
            RECV_PENDING => Poll::Pending,
            RECV_HAND_OVER => Poll::Ready(Received::HandOver),
            _ => Poll::Ready(Received::Closed),
        }
    }

    /// As [`Self::poll_end`], ready only when the host wants the connection back.
    pub fn poll_hand_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll_end(cx) {
            Poll::Ready(Received::HandOver) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Appends all that still waits to be sent to `into`, oldest first, even while the host wants the connection back.
    /// For one that has ended and is not given back: what it leaves in the queue is gone with the session.
    pub fn take_left(&self, into: &mut Vec<Value>) {
        loop {
            let mut slots = [const { Value::Null }; RECV_BATCH];
            // SAFETY: as in `id`.
            let n = unsafe { self.vtable.take_left()(self.ptr, RSliceMut::from(&mut slots[..])) };
            if n == 0 {
                return;
            }
            into.extend(slots.into_iter().take(n));
        }
    }

    /// As [`Self::poll_recv`], as a future. Safe to drop at any time: what it took is in `into`.
    pub async fn recv(&self, into: &mut Vec<Value>) -> Received {
        poll_fn(|cx| self.poll_recv(cx, into)).await
    }

    /// Bytes waiting in the queue: a connection whose peer does not read stops reading from it.
    pub fn queued_bytes(&self) -> usize {
        // SAFETY: as in `id`.
        unsafe { self.vtable.queued_bytes()(self.ptr) }
    }
}

#[allow(unsafe_code, reason = "a home of the boundary")]
impl Drop for HostSession {
    fn drop(&mut self) {
        // SAFETY: `self` owns one count of the `Arc`, given up here and nowhere else.
        unsafe { self.vtable.drop()(self.ptr) }
    }
}

#[allow(unsafe_code, reason = "a home of the boundary")]
mod session_shims {
    use super::*;
    use abi_stable::prefix_type::WithMetadata;
    use std::sync::Arc;

    struct For<S>(S);
    impl<S: HostSessionApi> For<S> {
        abi_stable::staticref!(const VTABLE: WithMetadata<SessionVTable> = WithMetadata::new(SessionVTable {
            id: id::<S>,
            poll_recv: poll_recv::<S>,
            queued_bytes: queued_bytes::<S>,
            take_left: take_left::<S>,
            drop: drop_session::<S>,
        }));
    }

    pub(super) fn vtable<S: HostSessionApi>() -> SessionVTableRef {
        SessionVTableRef(For::<S>::VTABLE.as_prefix())
    }

    unsafe extern "C" fn id<S: HostSessionApi>(ptr: *const ()) -> Str {
        // SAFETY: `HostSession` passes the pointer that belongs to this vtable, alive during the call.
        let session = unsafe { &*ptr.cast::<S>() };
        catch(|| session.id()).unwrap_or_default()
    }

    unsafe extern "C" fn poll_recv<S: HostSessionApi>(
        ptr: *const (),
        context: &mut FfiContext<'_>,
        key: WakerKey,
        slots: RSliceMut<'_, Value>,
    ) -> i32 {
        // SAFETY: as in `id`.
        let session = unsafe { &*ptr.cast::<S>() };
        let slots = slots.into_mut_slice();
        catch(|| {
            let max = slots.len();
            match session.poll_recv(CallerWaker::new(key, context), max, &mut filling(slots)) {
                Poll::Pending => RECV_PENDING,
                Poll::Ready(Received::Values(n)) => n as i32,
                Poll::Ready(Received::HandOver) => RECV_HAND_OVER,
                Poll::Ready(Received::Closed) => RECV_CLOSED,
            }
        })
        .unwrap_or(RECV_CLOSED)
    }

    unsafe extern "C" fn queued_bytes<S: HostSessionApi>(ptr: *const ()) -> usize {
        // SAFETY: as in `id`.
        let session = unsafe { &*ptr.cast::<S>() };
        catch(|| session.queued_bytes()).unwrap_or(0)
    }

    unsafe extern "C" fn take_left<S: HostSessionApi>(ptr: *const (), slots: RSliceMut<'_, Value>) -> usize {
        // SAFETY: as in `id`.
        let session = unsafe { &*ptr.cast::<S>() };
        let slots = slots.into_mut_slice();
        catch(|| {
            let max = slots.len();
            session.take_left(max, &mut filling(slots))
        })
        .unwrap_or(0)
    }

    /// Fills slots from the front.
    fn filling(slots: &mut [Value]) -> impl FnMut(Value) {
        let mut slots = slots.iter_mut();
        move |value| {
            if let Some(slot) = slots.next() {
                *slot = value;
            }
        }
    }

    unsafe extern "C" fn drop_session<S: HostSessionApi>(ptr: *const ()) {
        // SAFETY: `HostSession` gives up its count, once.
        let session = unsafe { Arc::from_raw(ptr.cast::<S>()) };
        let _ = catch(move || drop(session));
    }
}

/// A connection that is handed to a node.
#[repr(C)]
#[derive(StableAbi)]
pub struct Connection {
    /// The byte stream.
    pub io: HostIo,
    /// The session in whose name it speaks.
    pub session: HostSession,
    /// What the connection knows of itself: an object. From an upgrade: `request` (see `crate::shapes`),
    /// `protocol`, `input` (bytes that were read behind the handshake). From `attach`: what the node gave.
    /// From an earlier generation: what that one returned in [`ConnectionEnd`].
    pub state: Value,
}

/// How a connection's future ends.
#[repr(u8)]
#[derive(StableAbi)]
pub enum ConnectionEnd {
    /// The connection is closed; its session is gone with it.
    Closed,
    /// The host asked for it: everything the next generation needs to go on as if nothing had happened.
    HandOver {
        /// The byte stream, at a boundary.
        io: HostIo,
        /// The state for the next [`Connection`]; unread input and unsent output are part of it.
        state: Value,
    },
}
