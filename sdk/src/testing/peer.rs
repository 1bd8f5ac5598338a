//! The other end of a node's connection, in memory.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
};

use abi_stable::std_types::RSlice;
use flowbay_abi::{
    host::Queued,
    io::{HostIo, HostSessionApi, HostStreamApi, Received},
    value::{Object, Str, Value},
    waker::CallerWaker,
};

use super::executor::lock;

/// The peer of a connection of the node under test: what it writes the node reads, and the other way round.
///
/// Dropping it is what the node sees as the end of the stream.
pub struct TestPeer {
    pipe: Arc<Mutex<Pipe>>,
}

/// What the peer and the node's stream share.
#[derive(Default)]
struct Pipe {
    to_node: VecDeque<u8>,
    from_node: Vec<u8>,
    peer_closed: bool,
    node_closed: bool,
    /// Bytes that the node may still write before it has to wait.
    room: Option<usize>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl TestPeer {
    /// A peer, and the stream that the node gets.
    pub(super) fn pair() -> (Self, HostIo) {
        let pipe = Arc::<Mutex<Pipe>>::default();
        (Self { pipe: pipe.clone() }, HostIo::new(TestStream(pipe)))
    }

    /// Sends bytes to the node, which reads them when it runs next ([`super::TestNode::run`]).
    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        let mut pipe = lock(&self.pipe);
        pipe.to_node.extend(bytes.as_ref());
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
    }

    /// Takes what the node has written so far.
    pub fn read(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.pipe).from_node)
    }

    /// Takes so many bytes at most from now on, and then makes the node wait; `None` for any number.
    pub fn set_room(&self, room: Option<usize>) {
        let mut pipe = lock(&self.pipe);
        pipe.room = room;
        let writer = pipe.writer.take();
        drop(pipe);
        wake(writer);
    }

    /// Sends nothing more: the node reads the end of the stream.
    pub fn close(&self) {
        let mut pipe = lock(&self.pipe);
        pipe.peer_closed = true;
        let wakers = [pipe.reader.take(), pipe.writer.take()];
        drop(pipe);
        wakers.into_iter().for_each(wake);
    }

    /// Whether the node has closed its end.
    pub fn is_closed(&self) -> bool {
        lock(&self.pipe).node_closed
    }
}

impl Drop for TestPeer {
    fn drop(&mut self) {
        self.close();
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The node's end.
struct TestStream(Arc<Mutex<Pipe>>);

impl HostStreamApi for TestStream {
    fn poll_read(&mut self, mut caller: CallerWaker<'_, '_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.0);
        if pipe.to_node.is_empty() && !pipe.peer_closed {
            pipe.reader = Some(caller.to_waker());
            return Poll::Pending;
        }
        let n = pipe.to_node.len().min(buf.len());
        for (slot, byte) in buf.iter_mut().zip(pipe.to_node.drain(..n)) {
            *slot = byte;
        }
        Poll::Ready(Ok(n))
    }

    fn poll_write(
        &mut self,
        mut caller: CallerWaker<'_, '_>,
        bufs: &[RSlice<'_, u8>],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.0);
        if pipe.peer_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut room = pipe.room.unwrap_or(usize::MAX);
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        if room == 0 && offered > 0 {
            pipe.writer = Some(caller.to_waker());
            return Poll::Pending;
        }
        let mut written = 0;
        for buf in bufs {
            let n = buf.len().min(room);
            pipe.from_node.extend_from_slice(&buf.as_slice()[..n]);
            written += n;
            room -= n;
        }
        if let Some(left) = &mut pipe.room {
            *left -= written;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(&mut self, _: CallerWaker<'_, '_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, _: CallerWaker<'_, '_>) -> Poll<io::Result<()>> {
        lock(&self.0).node_closed = true;
        Poll::Ready(Ok(()))
    }

    fn info(&self) -> Value {
        Value::Object(Object::from([
            ("remote", Value::from("192.0.2.1:50000")),
            ("local", Value::from("192.0.2.2:1880")),
            ("tls", Value::from(false)),
        ]))
    }
}

impl Drop for TestStream {
    fn drop(&mut self) {
        lock(&self.0).node_closed = true;
    }
}

/// A session of the node under test.
pub struct TestSession {
    id: Str,
    /// Values that may wait; `None` for any number.
    limit: Option<usize>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    values: VecDeque<Value>,
    closed: bool,
    hand_over: bool,
    waker: Option<Waker>,
}

impl TestSession {
    /// An open session.
    pub fn new(id: Str, limit: Option<usize>) -> Self {
        Self { id, limit, queue: Mutex::default() }
    }

    /// Its id.
    pub fn id(&self) -> &Str {
        &self.id
    }

    /// Queues a value for the connection. One always fits; what is more than the limit cuts the session, and what waits
    /// is dropped, as in the host.
    pub fn push(&self, value: Value) -> Queued {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Queued::NoSession;
        }
        let full = !queue.values.is_empty() && self.limit.is_some_and(|limit| queue.values.len() >= limit);
        if full {
            queue.closed = true;
            queue.values.clear();
        } else {
            queue.values.push_back(value);
        }
        let waker = queue.waker.take();
        drop(queue);
        wake(waker);
        if full { Queued::Overflow } else { Queued::Yes }
    }

    /// Asks for the connection, or takes that back.
    pub fn ask_for(&self, wanted: bool) {
        let mut queue = lock(&self.queue);
        queue.hand_over = wanted;
        let waker = queue.waker.take();
        drop(queue);
        wake(waker);
    }

    /// Cuts the session.
    pub fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let waker = queue.waker.take();
        drop(queue);
        wake(waker);
    }
}

/// A session as the node's code holds it.
pub struct ServedSession(pub Arc<TestSession>);

impl HostSessionApi for ServedSession {
    fn id(&self) -> Str {
        self.0.id.clone()
    }

    fn poll_recv(
        &self,
        mut caller: CallerWaker<'_, '_>,
        max: usize,
        push: &mut dyn FnMut(Value),
    ) -> Poll<Received> {
        let mut queue = lock(&self.0.queue);
        if queue.hand_over {
            return Poll::Ready(Received::HandOver);
        }
        let n = queue.values.len().min(max);
        if n > 0 {
            queue.values.drain(..n).for_each(push);
            return Poll::Ready(Received::Values(n));
        }
        if queue.closed {
            return Poll::Ready(Received::Closed);
        }
        queue.waker = Some(caller.to_waker());
        Poll::Pending
    }

    fn take_left(&self, max: usize, push: &mut dyn FnMut(Value)) -> usize {
        let mut queue = lock(&self.0.queue);
        let n = queue.values.len().min(max);
        queue.values.drain(..n).for_each(push);
        n
    }

    fn queued_bytes(&self) -> usize {
        let bytes = |value: &Value| match value {
            Value::Str(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        lock(&self.0.queue).values.iter().map(bytes).sum()
    }
}
