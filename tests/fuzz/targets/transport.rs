//! A peer's bytes through a connection that is moved again and again, against a tungstenite that just gets them.

#![no_main]

use std::{
    cell::{RefCell, RefMut},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use flowbay_sdk::frames::{Fault, Limits, MovableStream, Parts};
use futures_util::{FutureExt, Sink, Stream};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{Role, WebSocketConfig},
    },
};

/// The peer's end, which the stream shares.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Peer>>);

/// What a peer sends, in the pieces in which it is read, and what it got.
#[derive(Default)]
struct Peer {
    input: VecDeque<Vec<u8>>,
    output: Vec<u8>,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut me = self.0.borrow_mut();
        let Some(piece) = me.input.front_mut() else { return Poll::Pending };
        let count = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..count]);
        piece.drain(..count);
        if piece.is_empty() {
            me.input.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().output.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a peer of a codec got to see.
#[derive(Debug, Default)]
struct Seen {
    messages: Vec<Message>,
    /// What ended it.
    error: Option<Error>,
}

impl Seen {
    fn is_over(&self) -> bool {
        self.error.is_some() || self.messages.last().is_some_and(Message::is_close)
    }

    /// Reads until there is nothing more, or it is over.
    fn read<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: &mut WebSocketStream<S>) {
        while !self.is_over() {
            match Pin::new(&mut *socket).poll_next(&mut cx()) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(message))) => self.messages.push(message),
                Poll::Ready(Some(Err(error))) => self.error = Some(error),
                Poll::Ready(None) => self.error = Some(Error::ConnectionClosed),
            }
        }
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn socket<S: AsyncRead + AsyncWrite + Unpin>(stream: S, role: Role, limits: Limits) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(256)
        .write_buffer_size(64)
        .max_message_size(Some(limits.message_bytes))
        .max_frame_size(Some(limits.frame_bytes));
    WebSocketStream::from_raw_socket(stream, role, Some(config)).now_or_never().expect("no handshake")
}

/// What of the input is not the peer's bytes: who is who, what is allowed, and where it is cut and moved.
struct Plan {
    role: Role,
    limits: Limits,
    steps: Vec<u8>,
}

impl Plan {
    /// Takes the plan off the front of the input: one byte of flags, one with the number of steps, the steps.
    fn split(data: &[u8]) -> Option<(Self, bool, &[u8])> {
        let (&[flags, count], rest) = data.split_first_chunk::<2>()?;
        let count = usize::from(count).min(rest.len());
        let (steps, bytes) = rest.split_at(count);
        let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
        let limits = Limits {
            message_bytes: if flags & 2 == 0 { 1000 } else { 100_000 },
            frame_bytes: if flags & 4 == 0 { 400 } else { 100_000 },
            fragments: if flags & 8 == 0 { 5 } else { 1000 },
        };
        Some((Self { role, limits, steps: steps.to_vec() }, flags & 16 != 0, bytes))
    }
}

/// Makes frames of bytes, so that whole messages are not left to chance: each begins with one byte for opcode and FIN,
/// and one for the length.
fn framed(role: Role, mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((&[first, len], rest)) = bytes.split_first_chunk::<2>() {
        // Long frames: what there is, again and again.
        let times = if first & 0x40 == 0 { 1 } else { 7 };
        let (payload, behind) = rest.split_at(usize::from(len).min(rest.len()));
        let payload = payload.repeat(times);
        let opcode = [0, 1, 2, 8, 9, 10, 0, 1][usize::from(first & 7)];
        let mask_bit = if role == Role::Server { 0x80 } else { 0 };
        out.push(first & 0x80 | opcode);
        match payload.len() {
            short @ 0..126 => out.push(mask_bit | short as u8),
            long => {
                out.push(mask_bit | 126);
                out.extend((long as u16).to_be_bytes());
            }
        }
        let key = if role == Role::Server { [first, len, 0x5a, 0xa5] } else { [0; 4] };
        if role == Role::Server {
            out.extend(key);
        }
        out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes = behind;
    }
    out
}

/// The payloads of the frames in `bytes`, which must end with one, by opcode.
fn payloads(mut bytes: &[u8], opcode: u8) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let masked = bytes[1] & 0x80 != 0;
        let (header, len) = match bytes[1] & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => panic!("nothing of that length was sent"),
            short => (2, usize::from(short)),
        };
        let (key, begin) =
            if masked { (&bytes[header..header + 4], header + 4) } else { (&[0; 4][..], header) };
        if bytes[0] & 0x0f == opcode {
            let payload = bytes[begin..begin + len].iter().zip(key.iter().cycle());
            found.push(payload.map(|(byte, key)| byte ^ key).collect());
        }
        bytes = &bytes[begin + len..];
    }
    found
}

/// All at once, by tungstenite alone.
fn straight(role: Role, limits: Limits, bytes: &[u8]) -> Seen {
    let wire = Wire::default();
    wire.0.borrow_mut().input.push_back(bytes.to_vec());
    let mut seen = Seen::default();
    if !bytes.is_empty() {
        seen.read(&mut socket(wire, role, limits));
    }
    seen
}

/// A connection that moves.
struct Moving {
    wire: Wire,
    socket: Option<WebSocketStream<MovableStream<Wire>>>,
    plan: Plan,
    seen: Seen,
    fault: Option<Fault>,
    sent: Vec<Vec<u8>>,
}

impl Moving {
    fn socket(&mut self) -> &mut WebSocketStream<MovableStream<Wire>> {
        self.socket.as_mut().expect("only away while it moves")
    }

    fn wire(&self) -> RefMut<'_, Peer> {
        self.wire.0.borrow_mut()
    }

    fn read(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        self.seen.read(socket);
        self.fault = socket.get_ref().fault();
    }

    /// Moves as a hot swap does; not when it is over.
    fn swap(&mut self) {
        if self.seen.is_over() {
            return;
        }
        self.socket().get_mut().absorb();
        self.read();
        let flushed = Pin::new(self.socket()).poll_flush(&mut cx());
        if self.seen.is_over() || self.fault.is_some() {
            self.socket().get_mut().release();
            self.read();
            return;
        }
        assert!(matches!(flushed, Poll::Ready(Ok(()))), "it absorbs");
        let stream = self.socket.take().expect("it is here").into_inner();
        let Parts { stream, input, output, joined } =
            stream.into_parts().expect("without a fault it is movable");
        // One unfinished message, with its headers, and one control frame.
        let most = self.plan.limits.message_bytes + 16 * (2 + self.plan.limits.fragments as usize) + 125;
        assert!(input.len() <= most, "{} bytes are kept", input.len());
        let parts = Parts { stream, input, output, joined };
        self.socket = Some(socket(
            MovableStream::from_parts(parts, self.plan.limits),
            self.plan.role,
            self.plan.limits,
        ));
    }

    fn send(&mut self, payload: Vec<u8>) {
        if !self.seen.is_over() {
            let message = Message::binary(payload.clone());
            if Pin::new(self.socket()).start_send(message).is_ok() {
                self.sent.push(payload);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((plan, makes_frames, bytes)) = Plan::split(data) else { return };
    let made;
    let bytes = if makes_frames {
        made = framed(plan.role, bytes);
        &made[..]
    } else {
        bytes
    };
    let expected = straight(plan.role, plan.limits, bytes);

    let steps = plan.steps.clone();
    let wire = Wire::default();
    let stream = MovableStream::new(wire.clone(), plan.limits);
    let socket = Some(socket(stream, plan.role, plan.limits));
    let mut moving = Moving { wire, socket, plan, seen: Seen::default(), fault: None, sent: Vec::new() };
    let mut rest = bytes;
    for step in &steps {
        let wanted = usize::from(step >> 3);
        let (piece, behind) = rest.split_at((wanted * wanted / 4).min(rest.len()));
        rest = behind;
        if !piece.is_empty() {
            moving.wire().input.push_back(piece.to_vec());
        }
        // Bit 0: it is read before anything else happens. Bit 1: it moves. Bit 2: something is sent.
        if step & 4 != 0 {
            moving.send(vec![*step; wanted]);
        }
        if step & 1 != 0 {
            moving.read();
        }
        if step & 2 != 0 {
            moving.swap();
        }
    }
    if !rest.is_empty() {
        moving.wire().input.push_back(rest.to_vec());
    }
    moving.read();

    // The same messages, and the same end.
    let seen = &moving.seen;
    let fault = match &seen.error {
        // Found, but behind something that the codec found itself.
        Some(Error::Io(error)) => Fault::of(error),
        _ => None,
    };
    match fault {
        None => {
            assert_eq!(seen.messages, expected.messages);
            let errors = [&seen.error, &expected.error].map(|error| error.as_ref().map(Error::to_string));
            assert_eq!(errors[0], errors[1]);
        }
        // tungstenite does not count fragments, and goes on.
        Some(Fault::TooManyFragments) => assert!(expected.messages.starts_with(&seen.messages)),
        // Found earlier, but nothing else.
        Some(fault) => {
            assert_eq!(seen.messages, expected.messages, "{fault}");
            let wrong = match (&expected.error, fault) {
                // It waits for the rest.
                (None, _) => false,
                (Some(Error::Utf8(_)), fault) => fault != Fault::Utf8,
                // A control frame may well be both.
                (Some(Error::Capacity(_)), fault) => !matches!(fault, Fault::TooLong | Fault::ControlTooLong),
                // It looks at other things first.
                (Some(_), _) => false,
            };
            assert!(!wrong, "{fault} instead of {:?}", expected.error);
        }
    }
    assert!(fault.is_none() || fault == moving.fault);

    // What was sent and what was asked for is on the wire, once and in order, if it had the time.
    if !seen.is_over() {
        assert!(moving.fault.is_none(), "a fault that the codec never heard of");
        assert!(matches!(Pin::new(moving.socket()).poll_flush(&mut cx()), Poll::Ready(Ok(()))));
        let output = std::mem::take(&mut moving.wire().output);
        assert_eq!(payloads(&output, 2), moving.sent);
        let pings = moving.seen.messages.iter().filter(|message| message.is_ping());
        let pings: Vec<_> = pings.map(|ping| ping.clone().into_data().to_vec()).collect();
        assert_eq!(payloads(&output, 10), pings);
    }
});
