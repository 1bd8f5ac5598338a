//! WebSocket connections that can move: to a newer generation of the code that serves them, or into almost no memory
//! while they are idle.
//!
//! A codec such as tungstenite reads ahead, joins fragments and gathers output, and gives none of it back. So the
//! bytes must be owned *under* it. [`MovableStream`] goes between the stream and the codec. Reads go straight into
//! the codec's buffer; behind each of them the adapter follows the frames, headers only, and keeps a copy of nothing
//! but what cannot be had again: the unfinished frame and the fragments of an unfinished message.
//!
//! To take a connection apart:
//! 1. [`MovableStream::absorb`]: from now on nothing new is read, and all that the codec writes is taken in.
//! 2. Read from the codec until it is pending, and deal with the messages; it now holds an unfinished one at most.
//! 3. Flush the codec, which brings out what it gathered and the pongs that it owes.
//! 4. Take the adapter out of the codec (`into_inner`): [`MovableStream::into_parts`].
//!
//! A codec that fails or closes in step 2 or 3 goes on where it is, after [`MovableStream::release`]: its answer is
//! among the output taken in, and is written first.
//!
//! To put it together again, give the codec a [`MovableStream::from_parts`].
//!
//! Because it sees the bytes of what is unfinished, it also ends what need not be waited for: text that is not UTF-8
//! whatever follows, messages of too many fragments or bytes. The codec sees all that was read before, and then a read
//! that fails with the [`Fault`].
//!
//! ```
//! use flowbay_sdk::frames::{MovableStream, Parts};
//! use futures_util::{FutureExt, SinkExt, StreamExt};
//! use tokio::io::{AsyncRead, AsyncWrite};
//! use tokio_tungstenite::{WebSocketStream, tungstenite::{Error, Message}};
//!
//! /// What the next generation begins with, or what ends the connection here.
//! async fn take_apart<S: AsyncRead + AsyncWrite + Unpin>(
//!     mut socket: WebSocketStream<MovableStream<S>>,
//!     mut deliver: impl FnMut(Message),
//! ) -> Result<Parts<S>, Error> {
//!     socket.get_mut().absorb();
//!     while let Some(message) = socket.next().now_or_never() {
//!         deliver(message.ok_or(Error::ConnectionClosed)??);
//!     }
//!     socket.flush().await?;
//!     socket.into_inner().into_parts().map_err(|_| Error::ConnectionClosed)
//! }
//! ```

mod fault;
mod tracker;

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use fault::{Fault, Limits};
use tracker::Tracker;

/// A stream of WebSocket frames under a codec, of which nothing is lost when the codec is dropped. See the
/// [module](self).
///
/// The codec is one that joins the fragments of a message, answers control frames at once, refuses messages over
/// a limit, and text that is not UTF-8. What is kept here is never more than that limit and one control frame, whatever the peer sends.
pub struct MovableStream<S> {
    stream: S,
    tracker: Tracker,
    /// Bytes on their way from one codec to the next; `None` in all the time between.
    carried: Option<Box<Carried>>,
}

#[derive(Default)]
struct Carried {
    /// Nothing is read, and what is written is taken in.
    absorbing: bool,
    input: Bytes,
    output: Bytes,
}

/// Bytes, used up from the front.
#[derive(Default)]
struct Bytes {
    bytes: Vec<u8>,
    used: usize,
}

impl Bytes {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, used: 0 }
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// So many bytes were used.
    fn advance(&mut self, count: usize) {
        self.used += count;
        if self.used == self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// A connection taken apart: its stream and what is to be done on it first.
#[derive(Debug)]
pub struct Parts<S> {
    /// The stream.
    pub stream: S,
    /// What was read from it and led to no message yet. It begins with a frame.
    pub input: Vec<u8>,
    /// What is to be written to it before anything else. It may begin in the middle of a frame.
    pub output: Vec<u8>,
    /// Fragments of the unfinished message in `input` that were joined with those before them and are no frames of
    /// their own any more. [`Limits::fragments`] counts them nevertheless.
    pub joined: u32,
}

impl<S> Parts<S> {
    /// A connection on whose stream nothing was read or written but its handshake.
    pub fn new(stream: S) -> Self {
        Self { stream, input: Vec::new(), output: Vec::new(), joined: 0 }
    }
}

impl<S> MovableStream<S> {
    /// A stream on which frames begin. The limits are the codec's, as far as it has such.
    pub fn new(stream: S, limits: Limits) -> Self {
        Self { stream, tracker: Tracker::new(limits), carried: None }
    }

    /// A stream that was taken apart, or whose `input` was read with the handshake. The input is read first, and
    /// the output written first.
    pub fn from_parts(parts: Parts<S>, limits: Limits) -> Self {
        let Parts { stream, input, output, joined } = parts;
        let carried = (!input.is_empty() || !output.is_empty()).then(|| {
            Box::new(Carried { absorbing: false, input: Bytes::new(input), output: Bytes::new(output) })
        });
        let mut me = Self { carried, ..Self::new(stream, limits) };
        me.tracker.begin_with_joined(joined);
        me
    }

    /// The first step of taking it apart: reads are pending from now on (their wakers are not kept), writes and
    /// flushes are done at once, in memory.
    pub fn absorb(&mut self) {
        self.carried.get_or_insert_default().absorbing = true;
    }

    /// Undoes [`MovableStream::absorb`]. What was taken in is written before anything else, by the next flush,
    /// write or shutdown.
    pub fn release(&mut self) {
        if let Some(carried) = &mut self.carried {
            carried.absorbing = false;
        }
        self.forget_empty();
    }

    /// Whether it can be taken apart without loss. It cannot after a [fault](MovableStream::fault), and after
    /// [`MovableStream::stay`].
    pub fn is_movable(&self) -> bool {
        !self.tracker.is_lost()
    }

    /// What is wrong with what was read. The codec hears of it when it has read everything before, with an error whose
    /// [inner one](io::Error::get_ref) this is; never while it [absorbs](MovableStream::absorb).
    pub fn fault(&self) -> Option<Fault> {
        self.tracker.fault()
    }

    /// It will never be taken apart: from now on nothing is kept, and nothing is a fault.
    pub fn stay(&mut self) {
        self.tracker.give_up();
    }

    /// Bytes of an unfinished message that are kept: what taking it apart and putting it together will copy.
    pub fn unfinished_bytes(&self) -> usize {
        self.tracker.kept_bytes()
    }

    /// Whether output that was taken in, or came with [`MovableStream::from_parts`], still waits to be written.
    pub fn has_output(&self) -> bool {
        self.carried.as_ref().is_some_and(|carried| !carried.output.left().is_empty())
    }

    /// Takes it apart. Only right between [`MovableStream::absorb`], with the further steps of the
    /// [module](self), and the next use.
    ///
    /// # Errors
    /// It is not movable; here it is again.
    pub fn into_parts(self) -> Result<Parts<S>, Self> {
        if !self.is_movable() {
            return Err(self);
        }
        let (mut input, joined) = self.tracker.into_input();
        let mut output = Vec::new();
        if let Some(carried) = self.carried {
            input.extend_from_slice(carried.input.left());
            output.extend_from_slice(carried.output.left());
        }
        Ok(Parts { stream: self.stream, input, output, joined })
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    fn forget_empty(&mut self) {
        if let Some(carried) = &self.carried
            && !carried.absorbing
            && carried.input.left().is_empty()
            && carried.output.left().is_empty()
        {
            self.carried = None;
        }
    }
}

impl<S> fmt::Debug for MovableStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MovableStream")
            .field("movable", &self.is_movable())
            .field("has_output", &self.has_output())
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MovableStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let begin = buf.filled().len();
        match &mut me.carried {
            Some(carried) if carried.absorbing => return Poll::Pending,
            _ if let Some(fault) = me.tracker.fault() => return Poll::Ready(Err(fault.into())),
            Some(carried) if !carried.input.left().is_empty() => {
                let input = carried.input.left();
                let count = input.len().min(buf.remaining());
                buf.put_slice(&input[..count]);
                carried.input.advance(count);
                me.forget_empty();
            }
            _ => ready!(Pin::new(&mut me.stream).poll_read(cx, buf))?,
        }
        let passed = begin + me.tracker.pass(&buf.filled()[begin..]);
        if passed < buf.filled().len() {
            // The codec has nothing of what is behind a fault. Without anything before it, the fault is due already:
            // to read nothing would be the end of the stream.
            buf.set_filled(passed);
            if passed == begin
                && let Some(fault) = me.tracker.fault()
            {
                return Poll::Ready(Err(fault.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> MovableStream<S> {
    /// Writes the output that was carried here.
    fn poll_write_carried(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(carried) = &mut self.carried else { return Poll::Ready(Ok(())) };
        while !carried.output.left().is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, carried.output.left()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            carried.output.advance(count);
        }
        self.forget_empty();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MovableStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        match &mut me.carried {
            None => {}
            Some(carried) if carried.absorbing => {
                carried.output.bytes.extend_from_slice(buf);
                return Poll::Ready(Ok(buf.len()));
            }
            Some(_) => ready!(me.poll_write_carried(cx))?,
        }
        Pin::new(&mut me.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        if me.carried.is_some() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return Pin::new(me).poll_write(cx, first);
        }
        Pin::new(&mut me.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.carried.as_ref().is_some_and(|carried| carried.absorbing) {
            return Poll::Ready(Ok(()));
        }
        ready!(me.poll_write_carried(cx))?;
        Pin::new(&mut me.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        ready!(me.poll_write_carried(cx))?;
        Pin::new(&mut me.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
