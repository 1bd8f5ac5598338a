//! Host sockets and futures as plugin code sees them: polled in the plugin's name, with wakers that can be let go.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use abi_stable::std_types::{ROption, RSlice};
use flowbay_abi::{
    host::{HostFuture, HostFutureApi, HostReply},
    io::{HostIo, HostStreamApi},
    node::NodeError,
    value::{Object, Value},
    waker::CallerWaker,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{Plugin, slot::TokioSlot};
use crate::http::stream::HostStream;

/// Buffers that one write takes at most; what is left is written next time. Codecs have two or three.
const MAX_BUFFERS: usize = 16;

/// A connection of the host's in the hands of a plugin.
///
/// The stream comes back with [`PluginStream::detach`], and is closed when this is dropped.
pub struct PluginStream {
    stream: HostStream,
    read: TokioSlot,
    write: TokioSlot,
    plugin: Arc<Plugin>,
}

impl PluginStream {
    /// Lends a stream to code of `plugin`.
    pub fn new(stream: HostStream, plugin: Arc<Plugin>) -> Self {
        Self { stream, read: TokioSlot::new(), write: TokioSlot::new(), plugin }
    }

    /// As it crosses to the plugin. `HostIo::into_stream::<PluginStream>` is the way back.
    pub fn into_io(self) -> HostIo {
        HostIo::new(self)
    }

    /// The stream again, without a trace of the plugin on it.
    pub fn detach(self) -> HostStream {
        // The slots clear themselves when they are dropped.
        self.stream
    }
}

impl HostStreamApi for PluginStream {
    #[inline]
    fn poll_read(&mut self, mut waker: CallerWaker<'_, '_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let stream = Pin::new(&mut self.stream);
        self.read
            .poll(&mut waker, &self.plugin, |cx| stream.poll_read(cx, &mut buf))
            .map_ok(|()| buf.filled().len())
    }

    #[inline]
    fn poll_write(
        &mut self,
        mut waker: CallerWaker<'_, '_>,
        bufs: &[RSlice<'_, u8>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        self.write.poll(&mut waker, &self.plugin, |cx| match bufs {
            [] => Poll::Ready(Ok(0)),
            [one] => stream.poll_write(cx, one.as_slice()),
            several => {
                let mut slices = [IoSlice::new(&[]); MAX_BUFFERS];
                let count = several.len().min(MAX_BUFFERS);
                for (slice, buf) in slices.iter_mut().zip(several) {
                    *slice = IoSlice::new(buf.as_slice());
                }
                stream.poll_write_vectored(cx, &slices[..count])
            }
        })
    }

    #[inline]
    fn poll_flush(&mut self, mut waker: CallerWaker<'_, '_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        self.write.poll(&mut waker, &self.plugin, |cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(&mut self, mut waker: CallerWaker<'_, '_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        self.write.poll(&mut waker, &self.plugin, |cx| stream.poll_shutdown(cx))
    }

    fn info(&self) -> Value {
        let address =
            |address: io::Result<std::net::SocketAddr>| address.map_or(String::new(), |it| it.to_string());
        let mut info = Object::new();
        info.insert("remote", address(self.stream.peer_addr()));
        info.insert("local", address(self.stream.local_addr()));
        info.insert("tls", self.stream.is_tls());
        Value::Object(info)
    }
}

/// A future of the host's for code of `plugin` to await; it may use tokio. Polled on the host's threads, and dropped
/// when the plugin drops it.
pub fn host_future(
    future: impl Future<Output = Result<HostReply, NodeError>> + Send + 'static,
    plugin: Arc<Plugin>,
) -> HostFuture {
    HostFuture::new(Lent { slot: TokioSlot::new(), future: Box::pin(future), plugin })
}

/// A timer for code of `plugin`: resolves to null after so many milliseconds from now. Made where tokio is, and polled on
/// any thread.
pub fn timer(ms: u64, plugin: Arc<Plugin>) -> HostFuture {
    let end = Instant::now().checked_add(Duration::from_millis(ms));
    let sleep = end.map(tokio::time::sleep_until);
    let elapse = async move {
        match sleep {
            Some(sleep) => sleep.await,
            // Beyond what the clock can count.
            None => std::future::pending().await,
        }
        Ok(HostReply { value: Value::Null, io: ROption::RNone })
    };
    host_future(elapse, plugin)
}

struct Lent<F> {
    slot: TokioSlot,
    future: Pin<Box<F>>,
    plugin: Arc<Plugin>,
}

impl<F> HostFutureApi for Lent<F>
where
    F: Future<Output = Result<HostReply, NodeError>> + Send + 'static,
{
    fn poll(&mut self, mut waker: CallerWaker<'_, '_>) -> Poll<Result<HostReply, NodeError>> {
        let future = self.future.as_mut();
        self.slot.poll(&mut waker, &self.plugin, |cx| future.poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::plugin::{next_task_id, with_task};

    /// A stream of the host's as it crosses to a plugin, the plugin, and the other end of the connection.
    async fn connected() -> (HostIo, Arc<Plugin>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let plugin = Plugin::for_test();
        (PluginStream::new(HostStream::tcp(stream), plugin.clone()).into_io(), plugin, peer)
    }

    async fn read(io: &mut HostIo, task: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut buf = vec![0; len];
        let read = poll_fn(|cx| with_task(task, || io.poll_read(cx, &mut buf))).await?;
        buf.truncate(read);
        Ok(buf)
    }

    async fn write(io: &mut HostIo, task: u64, bufs: &[&[u8]]) -> io::Result<usize> {
        let bufs: Vec<RSlice<'_, u8>> = bufs.iter().map(|buf| RSlice::from_slice(buf)).collect();
        poll_fn(|cx| with_task(task, || io.poll_write(cx, &bufs))).await
    }

    /// Polls once; true when pending.
    async fn would_wait(io: &mut HostIo, task: u64) -> bool {
        poll_fn(|cx| Poll::Ready(with_task(task, || io.poll_read(cx, &mut [0; 16])).is_pending())).await
    }

    #[tokio::test]
    async fn bytes_go_both_ways() {
        let (mut io, _plugin, mut peer) = connected().await;
        let task = next_task_id();
        peer.write_all(b"to the plugin").await.unwrap();
        assert_eq!(read(&mut io, task, 64).await.unwrap(), b"to the plugin");
        assert_eq!(write(&mut io, task, &[b"to the peer"]).await.unwrap(), 11);
        poll_fn(|cx| with_task(task, || io.poll_flush(cx))).await.unwrap();
        poll_fn(|cx| with_task(task, || io.poll_shutdown(cx))).await.unwrap();
        let mut got = String::new();
        peer.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "to the peer");
    }

    #[tokio::test]
    async fn several_buffers_leave_in_order_and_no_more_than_fit_one_write() {
        let (mut io, _plugin, mut peer) = connected().await;
        let task = next_task_id();
        assert_eq!(write(&mut io, task, &[b"one ", b"", b"two ", b"three"]).await.unwrap(), 13);
        assert_eq!(write(&mut io, task, &[&b"x"[..]; MAX_BUFFERS + 5]).await.unwrap(), MAX_BUFFERS);
        assert_eq!(write(&mut io, task, &[]).await.unwrap(), 0);
        drop(io);
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [&b"one two three"[..], &[b'x'; MAX_BUFFERS]].concat());
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_bytes_and_by_the_end() {
        let (mut io, _plugin, mut peer) = connected().await;
        let task = next_task_id();
        assert!(would_wait(&mut io, task).await);
        let reader = tokio::spawn(async move {
            let first = read(&mut io, task, 64).await.unwrap();
            let end = read(&mut io, task, 64).await.unwrap();
            (first, end)
        });
        peer.write_all(b"late").await.unwrap();
        drop(peer);
        assert_eq!(reader.await.unwrap(), (b"late".to_vec(), Vec::new()));
    }

    #[tokio::test]
    async fn a_writer_that_waits_is_woken_when_the_peer_reads() {
        let (mut io, _plugin, mut peer) = connected().await;
        let total = 8 << 20;
        let writer = tokio::spawn(async move {
            let task = next_task_id();
            let chunk = vec![7; 64 * 1024];
            let mut written = 0;
            while written < total {
                written += write(&mut io, task, &[&chunk[..chunk.len().min(total - written)]]).await.unwrap();
            }
        });
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert_eq!(got.len(), total);
    }

    #[tokio::test]
    async fn a_task_that_has_used_up_its_share_of_the_thread_goes_on_later() {
        let (mut io, _plugin, mut peer) = connected().await;
        let task = next_task_id();
        peer.write_all(&[1; 5_000]).await.unwrap();
        drop(peer);
        let mut total = 0;
        while !read(&mut io, task, 1).await.unwrap().is_empty() {
            total += 1;
        }
        assert_eq!(total, 5_000);
    }

    #[tokio::test]
    async fn a_stream_that_is_detached_holds_nothing_of_the_plugin() {
        let (mut io, plugin, mut peer) = connected().await;
        assert!(would_wait(&mut io, next_task_id()).await);
        assert!(Arc::strong_count(&plugin) > 2, "the slot keeps the library loaded");
        let Ok(stream) = io.into_stream::<PluginStream>() else { panic!("not the stream that was lent") };
        let mut stream = stream.detach();
        // Tokio still has the waker that it was given.
        assert_eq!(Arc::strong_count(&plugin), 1);
        peer.write_all(b"for the next generation").await.unwrap();
        let mut got = [0; 23];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"for the next generation");
    }

    #[tokio::test]
    async fn a_stream_that_is_dropped_is_closed() {
        let (mut io, plugin, mut peer) = connected().await;
        assert!(would_wait(&mut io, next_task_id()).await);
        drop(io);
        assert_eq!(Arc::strong_count(&plugin), 1);
        assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn errors_keep_their_kind() {
        let (mut io, _plugin, peer) = connected().await;
        let task = next_task_id();
        assert!(would_wait(&mut io, task).await);
        // With bytes unread at the peer, its close resets the connection.
        write(&mut io, task, &[b"never read"]).await.unwrap();
        peer.readable().await.unwrap();
        drop(peer);
        let error = read(&mut io, task, 8).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_stream_says_who_is_at_its_ends() {
        let (io, _plugin, peer) = connected().await;
        let info = io.info();
        assert_eq!(info.get("remote").unwrap().as_str().unwrap(), peer.local_addr().unwrap().to_string());
        assert_eq!(info.get("local").unwrap().as_str().unwrap(), peer.peer_addr().unwrap().to_string());
        assert_eq!(info.get("tls").unwrap().as_bool(), Some(false));
    }

    #[tokio::test]
    async fn a_timer_elapses_and_lets_go_of_the_plugin_when_it_is_dropped() {
        let plugin = Plugin::for_test();
        let task = next_task_id();
        let started = Instant::now();
        let mut elapses = timer(20, plugin.clone());
        assert!(poll_fn(|cx| with_task(task, || Pin::new(&mut elapses).poll(cx))).await.is_ok());
        assert!(started.elapsed() >= Duration::from_millis(20));
        drop(elapses);

        let mut waits = timer(u64::MAX, plugin.clone());
        let pending =
            poll_fn(|cx| Poll::Ready(with_task(task, || Pin::new(&mut waits).poll(cx)).is_pending())).await;
        assert!(pending);
        drop(waits);
        assert_eq!(Arc::strong_count(&plugin), 1);
    }

    #[tokio::test]
    async fn a_future_of_the_host_s_wakes_who_awaits_it_and_a_panic_in_it_is_an_error() {
        let plugin = Plugin::for_test();
        let (answer, question) = tokio::sync::oneshot::channel::<i64>();
        let asks = host_future(
            async move {
                let value = Value::from(question.await.map_err(|_| NodeError::new("nobody answers"))?);
                Ok(HostReply { value, io: ROption::RNone })
            },
            plugin.clone(),
        );
        let asked = tokio::spawn(asks);
        tokio::task::yield_now().await;
        answer.send(42).unwrap();
        assert_eq!(asked.await.unwrap().unwrap().value.as_i64(), Some(42));

        let panics = host_future(async { panic!("in the host") }, plugin);
        let error = panics.await.err().unwrap();
        assert!(error.message.contains("in the host"), "{error}");
    }
}
