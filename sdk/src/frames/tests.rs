use std::{collections::VecDeque, task::Waker};

use futures_util::{FutureExt, Sink, Stream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{Role, WebSocketConfig},
    },
};

use super::*;

const LIMIT: usize = 1 << 20;
const LIMITS: Limits = limits(LIMIT);

const fn limits(bytes: usize) -> Limits {
    Limits { message_bytes: bytes, frame_bytes: bytes, fragments: 10_000 }
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The peer: what it sends, in the pieces in which it is to be read, and what it got.
#[derive(Default)]
struct Wire {
    input: VecDeque<Vec<u8>>,
    output: Vec<u8>,
    /// Bytes that it takes at the moment.
    room: usize,
    shut: bool,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
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
        let me = self.get_mut();
        let count = buf.len().min(me.room);
        if count == 0 {
            return Poll::Pending;
        }
        me.room -= count;
        me.output.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().shut = true;
        Poll::Ready(Ok(()))
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// One generation of a connection after another.
struct Connection {
    /// `None` only while it is being moved.
    socket: Option<WebSocketStream<MovableStream<Wire>>>,
    role: Role,
    received: Vec<Message>,
}

fn codec(stream: MovableStream<Wire>, role: Role) -> WebSocketStream<MovableStream<Wire>> {
    let config = WebSocketConfig::default()
        .read_buffer_size(256)
        .write_buffer_size(64)
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    WebSocketStream::from_raw_socket(stream, role, Some(config)).now_or_never().unwrap()
}

impl Connection {
    fn new(role: Role) -> Self {
        let wire = Wire { room: usize::MAX, ..Wire::default() };
        let socket = codec(MovableStream::new(wire, LIMITS), role);
        Self { socket: Some(socket), role, received: Vec::new() }
    }

    fn socket(&mut self) -> &mut WebSocketStream<MovableStream<Wire>> {
        self.socket.as_mut().unwrap()
    }

    fn wire(&mut self) -> &mut Wire {
        &mut self.socket().get_mut().stream
    }

    /// Lets the codec read all there is.
    fn read(&mut self) -> Option<Error> {
        loop {
            match Pin::new(self.socket()).poll_next(&mut cx()) {
                Poll::Pending => return None,
                Poll::Ready(Some(Ok(message))) => self.received.push(message),
                Poll::Ready(Some(Err(error))) => return Some(error),
                Poll::Ready(None) => panic!("the connection ended"),
            }
        }
    }

    fn flush(&mut self) -> Poll<Result<(), Error>> {
        Pin::new(self.socket()).poll_flush(&mut cx())
    }

    fn send(&mut self, message: Message) {
        Pin::new(self.socket()).start_send(message).unwrap();
    }

    /// Moves it as a hot swap does, with nothing but the parts.
    fn swap(&mut self) {
        self.socket().get_mut().absorb();
        assert!(self.read().is_none());
        assert!(matches!(self.flush(), Poll::Ready(Ok(()))));
        let parts = self.socket.take().unwrap().into_inner().into_parts().unwrap();
        self.socket = Some(codec(MovableStream::from_parts(parts, LIMITS), self.role));
    }

    fn feed(&mut self, bytes: &[u8]) {
        // An empty read would be the end of the stream.
        if !bytes.is_empty() {
            self.wire().input.push_back(bytes.to_vec());
        }
        assert!(self.read().is_none());
    }
}

/// A number from a sequence that is always the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

/// Writes frames for a peer of a codec with that role.
fn frame(role: Role, fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let masked = role == Role::Server;
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut frame = vec![if fin { 0x80 | opcode } else { opcode }];
    match payload.len() {
        short @ 0..126 => frame.push(mask_bit | short as u8),
        middle @ 126..0x1_0000 => {
            frame.push(mask_bit | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(mask_bit | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mut payload = payload.to_vec();
    if masked {
        let key = [payload.len() as u8, 0xa5, 0x3c, 7];
        frame.extend(key);
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    frame.extend(payload);
    frame
}

/// Whole messages, their frames, and the payloads of the pings between them.
#[derive(Default)]
struct Script {
    bytes: Vec<u8>,
    messages: Vec<Message>,
    pings: Vec<Vec<u8>>,
}

impl Script {
    fn random(random: &mut Random, role: Role, messages: usize) -> Self {
        let mut script = Self::default();
        for number in 0..messages {
            let len = match random.below(20) {
                0 => 0,
                1 => 70_000,
                2..5 => 126 + random.below(3000),
                _ => random.below(130),
            };
            let text: String = format!("{number} ").chars().chain("aä€𝄞".chars().cycle()).take(len).collect();
            let payload = text.as_bytes();
            let (opcode, message) = if random.one_in(3) {
                (BINARY, Message::binary(payload.to_vec()))
            } else {
                (TEXT, Message::text(text.clone()))
            };
            let mut rest = payload;
            let mut opcode = opcode;
            while random.one_in(2) {
                // Cut anywhere, also within a character, also nothing at all.
                let (fragment, behind) = rest.split_at(random.below(rest.len() + 1));
                script.bytes.extend(frame(role, false, opcode, fragment));
                (rest, opcode) = (behind, CONTINUATION);
                while random.one_in(3) {
                    script.ping(random, role);
                }
            }
            script.bytes.extend(frame(role, true, opcode, rest));
            script.messages.push(message);
            if random.one_in(4) {
                script.ping(random, role);
            }
        }
        script
    }

    fn ping(&mut self, random: &mut Random, role: Role) {
        let payload = format!("ping {}{}", self.pings.len(), "!".repeat(random.below(100))).into_bytes();
        self.bytes.extend(frame(role, true, PING, &payload));
        self.pings.push(payload);
    }
}

/// The frames in `bytes`, which must end with one: opcode and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let masked = bytes[1] & 0x80 != 0;
        let (header, len) = match bytes[1] & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => (10, u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize),
            short => (2, usize::from(short)),
        };
        let (key, begin) =
            if masked { (&bytes[header..header + 4], header + 4) } else { (&[0; 4][..], header) };
        let payload = bytes[begin..begin + len].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        frames.push((bytes[0], payload.collect()));
        bytes = &bytes[begin + len..];
    }
    frames
}

/// Messages as they were sent, and exactly one pong for each ping, in order and in whole frames.
fn check(connection: &mut Connection, script: &Script, what: &str) {
    while !matches!(connection.flush(), Poll::Ready(Ok(()))) {
        connection.wire().room += 10;
    }
    let data: Vec<_> =
        connection.received.iter().filter(|message| message.is_text() || message.is_binary()).collect();
    assert!(data == script.messages.iter().collect::<Vec<_>>(), "{what}: other messages");
    let pongs: Vec<_> = script.pings.iter().map(|ping| (0x80 | PONG, ping.clone())).collect();
    assert!(frames(&connection.wire().output) == pongs, "{what}: other pongs");
    let kept = connection.socket().get_ref();
    assert!(kept.carried.is_none() && kept.is_movable(), "{what}: something is left");
}

#[test]
fn a_swap_at_any_byte_loses_and_repeats_nothing() {
    for role in [Role::Server, Role::Client] {
        let mut random = Random(7);
        let mut script = Script::default();
        for (fin, opcode, payload) in [
            (true, TEXT, &b"whole"[..]),
            (false, TEXT, "frägments".as_bytes()),
            (true, PING, b"between"),
            (false, CONTINUATION, b""),
            (false, CONTINUATION, &"€".repeat(50).as_bytes()[..100]),
            (true, CONTINUATION, &"€".repeat(50).as_bytes()[100..]),
            (true, BINARY, b""),
        ] {
            script.bytes.extend(frame(role, fin, opcode, payload));
        }
        script.pings.push(b"between".to_vec());
        script.messages = vec![
            Message::text("whole"),
            Message::text(format!("frägments{}", "€".repeat(50))),
            Message::binary(vec![]),
        ];
        script.ping(&mut random, role);
        for first in 0..=script.bytes.len() {
            for second in [first, first + 1, first + 7, script.bytes.len()] {
                let second = second.min(script.bytes.len());
                let mut connection = Connection::new(role);
                connection.feed(&script.bytes[..first]);
                connection.swap();
                connection.feed(&script.bytes[first..second]);
                connection.swap();
                connection.feed(&script.bytes[second..]);
                check(&mut connection, &script, &format!("{role:?}, swaps at {first} and {second}"));
            }
        }
    }
}

#[test]
fn random_frames_in_random_pieces_survive_a_swap_at_every_point() {
    for seed in 1..=100 {
        let mut random = Random(seed * 0x9e37_79b9);
        let role = if random.one_in(2) { Role::Server } else { Role::Client };
        let script = Script::random(&mut random, role, 12);
        let mut connection = Connection::new(role);
        let largest = [1, 10, 100, 5000][random.below(4)].max(script.bytes.len() / 500);
        let mut rest = &script.bytes[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at((1 + random.below(largest)).min(rest.len()));
            rest = behind;
            if random.one_in(3) {
                // Not read before it is moved.
                connection.wire().input.push_back(piece.to_vec());
            } else {
                connection.feed(piece);
            }
            if random.one_in(2) {
                connection.wire().room = random.below(50);
                connection.swap();
            }
        }
        assert!(connection.read().is_none());
        check(&mut connection, &script, &format!("seed {seed}, {role:?}"));
    }
}

#[test]
fn output_that_the_peer_does_not_take_moves_and_arrives_in_one_piece() {
    for role in [Role::Server, Role::Client] {
        for room in 0..200 {
            let mut connection = Connection::new(role);
            connection.wire().room = room;
            for number in 0..10 {
                connection.send(Message::text(format!("before {number}")));
            }
            assert_eq!(connection.flush().is_pending(), room < connection_bytes(role));
            connection.swap();
            connection.send(Message::text("between"));
            connection.swap();
            connection.send(Message::text("after"));
            while connection.flush().is_pending() {
                connection.wire().room += 7;
            }
            let expected = (0..10)
                .map(|number| format!("before {number}"))
                .chain(["between".to_owned(), "after".to_owned()])
                .map(|text| (0x80 | TEXT, text.into_bytes()))
                .collect::<Vec<_>>();
            assert_eq!(frames(&connection.wire().output), expected, "{role:?}, room for {room}");
        }
    }
}

/// What ten messages of eight bytes are on the wire.
fn connection_bytes(role: Role) -> usize {
    10 * if role == Role::Client { 6 + 8 } else { 2 + 8 }
}

#[test]
fn a_peer_that_closes_while_it_is_taken_apart_gets_its_answer() {
    let mut connection = Connection::new(Role::Server);
    connection.feed(&frame(Role::Server, true, PING, b"x")[..3]);
    // All of this is in the codec's buffer when it is told to take in what it writes.
    let rest = [&frame(Role::Server, true, PING, b"x")[3..], &frame(Role::Server, true, CLOSE, b"\x03\xe8")];
    connection.wire().input.push_back(rest.concat());
    let Poll::Ready(Some(Ok(Message::Ping(_)))) = Pin::new(connection.socket()).poll_next(&mut cx()) else {
        panic!("no ping")
    };
    connection.socket().get_mut().absorb();
    let Poll::Ready(Some(Ok(Message::Close(_)))) = Pin::new(connection.socket()).poll_next(&mut cx()) else {
        panic!("no close")
    };
    assert!(matches!(connection.flush(), Poll::Ready(Ok(()))));
    assert!(connection.wire().output.is_empty() && connection.socket().get_ref().has_output());

    connection.socket().get_mut().release();
    // The codec has nothing more to write: the end of the stream alone brings it out.
    assert!(Pin::new(connection.socket().get_mut()).poll_shutdown(&mut cx()).is_ready());
    let wire = connection.wire();
    assert_eq!(frames(&wire.output), [(0x80 | PONG, b"x".to_vec()), (0x80 | CLOSE, b"\x03\xe8".to_vec())]);
    assert!(wire.shut);
}

#[test]
fn a_stream_that_is_released_goes_on_where_it_was() {
    let mut connection = Connection::new(Role::Server);
    let bytes = frame(Role::Server, true, TEXT, b"one message");
    connection.feed(&bytes[..9]);
    connection.socket().get_mut().absorb();
    connection.wire().input.push_back(bytes[9..].to_vec());
    assert!(connection.read().is_none() && connection.received.is_empty());
    connection.socket().get_mut().release();
    assert!(connection.read().is_none());
    assert_eq!(connection.received, [Message::text("one message")]);
    assert!(connection.socket().get_ref().carried.is_none());
}

#[test]
fn a_stream_that_is_released_stays_movable_in_the_middle_of_a_message() {
    let mut connection = Connection::new(Role::Client);
    let bytes = frame(Role::Client, true, TEXT, b"one message");
    connection.feed(&bytes[..4]);
    connection.socket().get_mut().absorb();
    connection.socket().get_mut().release();
    connection.feed(&bytes[4..6]);
    connection.swap();
    connection.feed(&bytes[6..]);
    assert_eq!(connection.received, [Message::text("one message")]);
}

#[test]
fn any_number_of_small_fragments_is_kept_as_one() {
    let mut tracker = Tracker::new(LIMITS);
    tracker.pass(&frame(Role::Server, false, TEXT, b"begin"));
    for _ in 0..1000 {
        for payload in [&b""[..], b"x"] {
            tracker.pass(&frame(Role::Server, false, CONTINUATION, payload));
        }
        tracker.pass(&frame(Role::Server, true, PING, b"answered"));
    }
    assert!(tracker.heap_bytes() <= 4096, "{} bytes for 1005 bytes of payload", tracker.heap_bytes());
    let (input, _) = tracker.into_input();
    let payload = format!("begin{}", "x".repeat(1000));
    assert_eq!(frames(&input), [(TEXT, payload.into_bytes())]);
}

#[test]
fn at_a_message_boundary_nothing_is_kept_and_much_memory_is_given_back() {
    for len in [1000, 200_000] {
        let bytes = frame(Role::Server, true, BINARY, &vec![7; len]);
        let mut tracker = Tracker::new(LIMITS);
        for piece in bytes.chunks(100) {
            tracker.pass(piece);
        }
        assert!(tracker.heap_bytes() <= 64 << 10, "{} bytes are kept", tracker.heap_bytes());
        assert!(tracker.into_input().0.is_empty());
    }
}

#[test]
fn what_is_read_in_one_piece_is_not_copied() {
    let mut tracker = Tracker::new(LIMITS);
    let whole = frame(Role::Server, true, BINARY, &vec![7; 100_000]);
    tracker.pass(&[&whole[..], &frame(Role::Server, true, PING, b"x"), &whole].concat());
    assert_eq!(tracker.heap_bytes(), 0);
}

#[test]
fn no_more_is_kept_than_the_limit_whatever_the_headers_say() {
    let limit = 1000;
    let declares = |first: u8, len: u64| [&[first, 127][..], &len.to_be_bytes()].concat();
    for (what, header) in [
        ("a message of 2^64 - 1 bytes", declares(0x80 | BINARY, u64::MAX)),
        ("a fragment of 2^63 bytes", declares(BINARY, 1 << 63)),
        ("a message just over the limit", declares(0x80 | BINARY, 1001)),
        ("a long ping", declares(0x80 | PING, 126)),
        ("fragments over the limit", [declares(TEXT, 600), vec![b'x'; 600], declares(0, 401)].concat()),
    ] {
        let mut tracker = Tracker::new(limits(limit));
        tracker.pass(&header);
        for _ in 0..100 {
            tracker.pass(&[0; 1000]);
        }
        assert!(tracker.is_lost(), "{what}");
        assert_eq!(tracker.heap_bytes(), 0, "{what}");
    }
    let mut tracker = Tracker::new(limits(limit));
    tracker.pass(&[declares(TEXT, 600), vec![b'x'; 600], declares(0, 400), vec![b'x'; 399]].concat());
    assert!(!tracker.is_lost());
    assert!(tracker.heap_bytes() <= limit, "{} bytes are kept", tracker.heap_bytes());
}

#[test]
fn a_message_over_the_limit_cannot_be_moved() {
    let mut stream = MovableStream::new(Wire::default(), limits(100));
    stream.stream.input.push_back(frame(Role::Server, true, TEXT, &[b'x'; 101]));
    let mut bytes = [0; 50];
    let mut buf = ReadBuf::new(&mut bytes);
    assert!(Pin::new(&mut stream).poll_read(&mut cx(), &mut buf).is_ready());
    assert!(!stream.is_movable());
    assert!(stream.into_parts().is_err());
}

#[test]
fn no_input_makes_it_panic_or_grow() {
    for seed in 1..=500 {
        let mut random = Random(seed * 0x2545_f491);
        let mut tracker = Tracker::new(limits(10_000));
        for _ in 0..50 {
            // Small numbers make headers that are plausible for a while.
            let most = [4, 128, 256][random.below(3)];
            let len = random.below(600);
            let bytes: Vec<u8> = (0..len).map(|_| random.below(most) as u8).collect();
            for piece in bytes.chunks(1 + random.below(100)) {
                tracker.pass(piece);
                assert!(tracker.heap_bytes() <= 64 << 10);
            }
        }
        let (input, _) = tracker.into_input();
        assert!(input.len() <= 10_000 + 2 * 14 + 125, "seed {seed}: {} bytes", input.len());
    }
}

/// Feeds bytes in pieces of `piece` bytes, moving after each when `moves`, until the first error.
fn fault_of(
    role: Role,
    limits: Limits,
    bytes: &[u8],
    piece: usize,
    moves: bool,
) -> (Vec<Message>, Option<Fault>) {
    let wire = Wire { room: usize::MAX, ..Wire::default() };
    let mut connection = Connection {
        socket: Some(codec(MovableStream::new(wire, limits), role)),
        role,
        received: Vec::new(),
    };
    for piece in bytes.chunks(piece) {
        connection.wire().input.push_back(piece.to_vec());
        if let Some(error) = connection.read() {
            let Error::Io(error) = error else { panic!("another error: {error}") };
            assert_eq!(Fault::of(&error), connection.socket().get_ref().fault());
            return (connection.received, Fault::of(&error));
        }
        if moves {
            connection.socket().get_mut().absorb();
            let parts = connection.socket.take().unwrap().into_inner().into_parts().unwrap();
            connection.socket = Some(codec(MovableStream::from_parts(parts, limits), role));
        }
    }
    (connection.received, None)
}

#[test]
fn text_that_is_not_utf_8_is_a_fault_before_its_frame_ends() {
    // All of them unfinished.
    for (what, text, fault) in [
        ("no fault", &b"k\xc3\xb6"[..], None),
        ("an unfinished character", b"x\xf0\x9d\x84", None),
        ("a byte that is none", b"x\xff", Some(Fault::Utf8)),
        ("a character too short", b"x\xe2\x82y", Some(Fault::Utf8)),
        ("an overlong character", b"\xe0\x80", Some(Fault::Utf8)),
        ("a surrogate", b"\xed\xa0", Some(Fault::Utf8)),
        ("beyond the last character", b"\xf4\x90", Some(Fault::Utf8)),
    ] {
        for role in [Role::Server, Role::Client] {
            let before = frame(role, true, TEXT, b"before");
            let mut padded = text.to_vec();
            padded.extend(b"and much more that never comes");
            let in_frame = frame(role, true, TEXT, &padded);
            let header_len = in_frame.len() - padded.len();
            let in_frame = &in_frame[..header_len + text.len()];
            let in_second = frame(role, false, CONTINUATION, text);
            for (how, frames) in [
                ("in a frame", in_frame.to_vec()),
                ("in a fragment", frame(role, false, TEXT, text)),
                ("in the second fragment", [frame(role, false, TEXT, "ä".as_bytes()), in_second].concat()),
            ] {
                let bytes = [&before[..], &frames].concat();
                for (piece, moves) in [(1, false), (1, true), (3, true), (bytes.len(), false)] {
                    let (received, found) = fault_of(role, LIMITS, &bytes, piece, moves);
                    assert_eq!(
                        found, fault,
                        "{what} {how}, {role:?}, {piece} bytes at a time, moves: {moves}"
                    );
                    assert_eq!(received, [Message::text("before")]);
                }
            }
        }
    }
}

#[test]
fn a_character_may_be_cut_by_anything() {
    let text = "aäß€𝄞".repeat(10);
    for role in [Role::Server, Role::Client] {
        let mut bytes = Vec::new();
        for (number, byte) in text.as_bytes().iter().enumerate() {
            bytes.extend(frame(role, false, if number == 0 { TEXT } else { CONTINUATION }, &[*byte]));
            bytes.extend(frame(role, true, PONG, b"\xff"));
        }
        bytes.extend(frame(role, true, CONTINUATION, b""));
        for (piece, moves) in [(1, true), (5, true), (5, false), (bytes.len(), false)] {
            let (received, fault) = fault_of(role, LIMITS, &bytes, piece, moves);
            assert_eq!(
                (received.last(), fault),
                (Some(&Message::text(text.clone())), None),
                "{role:?}, {piece}"
            );
        }
    }
}

#[test]
fn bytes_need_not_be_utf_8() {
    let bytes = [
        frame(Role::Server, false, BINARY, b"\xff\xfe"),
        frame(Role::Server, false, CONTINUATION, b"\xc3"),
        frame(Role::Server, true, CONTINUATION, b"("),
        frame(Role::Server, true, BINARY, &[0xff; 300]),
    ]
    .concat();
    for piece in [1, 2, 300] {
        let (received, fault) = fault_of(Role::Server, LIMITS, &bytes, piece, true);
        assert_eq!((received.len(), fault), (2, None));
    }
}

#[test]
fn a_message_has_no_more_fragments_than_allowed_wherever_it_moves() {
    let limits = Limits { fragments: 4, ..LIMITS };
    let fragments = |count: usize| -> Vec<u8> {
        let mut bytes = frame(Role::Server, true, TEXT, b"whole");
        for number in 0..count {
            let opcode = if number == 0 { BINARY } else { CONTINUATION };
            bytes.extend(frame(
                Role::Server,
                number + 1 == count,
                opcode,
                if number == 1 { b"x" } else { b"" },
            ));
            bytes.extend(frame(Role::Server, true, PING, b""));
        }
        bytes.repeat(2)
    };
    for (piece, moves) in [(1, false), (1, true), (7, true), (1000, false)] {
        let (received, fault) = fault_of(Role::Server, limits, &fragments(4), piece, moves);
        assert_eq!((received.iter().filter(|message| message.is_binary()).count(), fault), (2, None));
        let (received, fault) = fault_of(Role::Server, limits, &fragments(5), piece, moves);
        assert_eq!(fault, Some(Fault::TooManyFragments), "{piece} bytes at a time, moves: {moves}");
        assert!(!received.iter().any(Message::is_binary));
    }
}

#[test]
fn a_message_may_be_longer_than_a_frame_and_moves_all_the_same() {
    let limits = Limits { message_bytes: 1000, frame_bytes: 10, fragments: 100 };
    let mut bytes = Vec::new();
    for number in 0..30 {
        let opcode = if number == 0 { TEXT } else { CONTINUATION };
        bytes.extend(frame(Role::Server, number == 29, opcode, "äöü€".as_bytes()[..9].as_ref()));
    }
    for (piece, moves) in [(1, true), (100, true), (1000, false)] {
        let (received, fault) = fault_of(Role::Server, limits, &bytes, piece, moves);
        assert_eq!((received, fault), (vec![Message::text("äöü€".repeat(30))], None), "{piece}");
    }
    let (_, fault) =
        fault_of(Role::Server, limits, &frame(Role::Server, true, TEXT, &[b'x'; 11])[..8], 1, true);
    assert_eq!(fault, Some(Fault::TooLong));
}

#[test]
fn what_is_too_long_is_a_fault_with_its_header() {
    let limits = limits(1000);
    let header = |first: u8, len: u16| [&[first, 0x80 | 126][..], &len.to_be_bytes(), &[0; 4]].concat();
    for (what, bytes, expected) in [
        ("a message", header(0x80 | TEXT, 1001), Fault::TooLong),
        ("a fragment", header(BINARY, 1001), Fault::TooLong),
        (
            "fragments together",
            [frame(Role::Server, false, TEXT, &[b'x'; 600]), header(0x80, 401)].concat(),
            Fault::TooLong,
        ),
        ("a ping", header(0x80 | PING, 126), Fault::ControlTooLong),
    ] {
        for piece in [1, 1000] {
            let (_, fault) = fault_of(Role::Server, limits, &bytes, piece, false);
            assert_eq!(fault, Some(expected), "{what}, {piece} bytes at a time");
        }
    }
}

#[test]
fn behind_a_fault_nothing_is_kept_and_whoever_stays_reads_on() {
    let mut stream = MovableStream::new(Wire::default(), LIMITS);
    stream.stream.input.push_back([&frame(Role::Server, false, TEXT, b"\xff")[..], b"behind"].concat());
    stream.stream.input.push_back(b"later".to_vec());
    let read = |stream: &mut MovableStream<Wire>| {
        let mut bytes = [0; 100];
        let mut buf = ReadBuf::new(&mut bytes);
        match Pin::new(stream).poll_read(&mut cx(), &mut buf) {
            Poll::Pending => panic!("there is something"),
            Poll::Ready(result) => result.map(|()| buf.filled().to_vec()),
        }
    };
    // The header, which is all before the fault.
    assert_eq!(read(&mut stream).unwrap().len(), 6);
    for _ in 0..2 {
        assert_eq!(Fault::of(&read(&mut stream).unwrap_err()), Some(Fault::Utf8));
    }
    assert!(!stream.is_movable());
    stream.stay();
    assert_eq!(read(&mut stream).unwrap(), b"later");
}
