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

/// A timer for code of `plugin`: resolves to null after so many milliseconds from now. Polled on tokio's threads.
pub fn timer(ms: u64, plugin: Arc<Plugin>) -> HostFuture {
    let end = Instant::now().checked_add(Duration::from_millis(ms));
    let elapse = async move {
        match end {
            Some(end) => tokio::time::sleep_until(end).await,
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
