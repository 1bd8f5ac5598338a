//! A connection moves from one generation to the next, at any moment, and neither side can tell.

use std::collections::VecDeque;

use tokio::io::{ReadHalf, WriteHalf};

use super::*;

/// Serves one end of a pipe by one generation after the other, as the host does in a hot swap: nothing goes from one
/// to the next but the stream and a value.
struct Generations {
    peer: DuplexStream,
    /// How often it moved.
    served: JoinHandle<usize>,
}

fn generations(role: Role, flow: &Flow, limits: Limits) -> Generations {
    let (peer, ours) = duplex(4096);
    let flow = flow.clone();
    let served = tokio::spawn(async move {
        let (mut stream, mut value, mut moves) = (ours, Value::Null, 0);
        loop {
            let state = State::from_value(&value);
            assert_eq!(state.moved, moves > 0);
            let live = Live::new(stream, state, role, &limits, flow.clone());
            let Some((back, state)) = live.serve().await else { return moves };
            flow.with(|flow| {
                assert!(flow.hand_over, "it moved and nobody had asked for it");
                flow.hand_over = false;
                flow.moved.push((state.input.clone(), state.output.clone()));
            });
            value = state.to_value();
            (stream, moves) = (back, moves + 1);
        }
    });
    Generations { peer, served }
}

impl Flow {
    /// Asks for the connection and waits until it has moved; what it took along, read and not sent.
    async fn swap(&self) -> (Vec<u8>, Vec<u8>) {
        let before = self.with(|state| {
            state.hand_over = true;
            state.moved.len()
        });
        while self.with(|state| state.moved.len()) == before {
            tokio::task::yield_now().await;
        }
        self.with(|state| state.moved[before].clone())
    }
}

/// A frame as a peer of a connection with that role sends it.
fn frame_for(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let masked = frame(first, payload);
    match role {
        Role::Server => masked,
        Role::Client => {
            let header_len = masked.len() - payload.len() - 4;
            [&[first, masked[1] & 0x7f], &masked[2..header_len], payload].concat()
        }
    }
}

/// Reads frames, of either role.
struct Frames {
    stream: ReadHalf<DuplexStream>,
}

impl Frames {
    async fn next(&mut self) -> (u8, Vec<u8>) {
        let first = self.stream.read_u8().await.unwrap();
        let second = self.stream.read_u8().await.unwrap();
        let len = match second & 0x7f {
            126 => usize::from(self.stream.read_u16().await.unwrap()),
            127 => self.stream.read_u64().await.unwrap() as usize,
            short => usize::from(short),
        };
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            self.stream.read_exact(&mut key).await.unwrap();
        }
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).await.unwrap();
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        (first, payload)
    }

    /// The next frame that is a message.
    async fn next_message(&mut self) -> Vec<u8> {
        loop {
            let (first, payload) = self.next().await;
            if first == TEXT {
                return payload;
            }
        }
    }
}

fn split(peer: DuplexStream) -> (Frames, WriteHalf<DuplexStream>) {
    let (stream, writer) = tokio::io::split(peer);
    (Frames { stream }, writer)
}

/// A number from a sequence that is always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Sends numbered messages of many sizes, many of them in fragments with pings between them, cut anywhere.
async fn send_load(role: Role, writer: &mut WriteHalf<DuplexStream>, count: usize, mut random: Random) {
    let mut pings = 0;
    for number in 0..count {
        let text = format!("{number} {}", "x".repeat([5, 200, 3000, 40_000][random.below(4)]));
        let (first, rest) = text.as_bytes().split_at(random.below(text.len()));
        let mut bytes = Vec::new();
        if random.below(3) == 0 {
            bytes.extend(frame_for(role, 0x01, first));
            bytes.extend(frame_for(role, PING, format!("{pings}").as_bytes()));
            bytes.extend(frame_for(role, 0x80, rest));
            pings += 1;
        } else {
            bytes.extend(frame_for(role, TEXT, text.as_bytes()));
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            let (piece, behind) = bytes.split_at((1 + random.below(6000)).min(bytes.len()));
            writer.write_all(piece).await.unwrap();
            bytes = behind;
            for _ in 0..random.below(4) {
                tokio::task::yield_now().await;
            }
        }
    }
    writer.write_all(&frame_for(role, PING, b"last")).await.unwrap();
}

/// Reads the echoes of [`send_load`], and the pongs, until the last one.
async fn check_load(reader: &mut Frames, count: usize) {
    let (mut echoes, mut pongs, mut last) = (0, 0, false);
    while echoes < count || !last {
        let (first, payload) = reader.next().await;
        let payload = String::from_utf8(payload).unwrap();
        if first == TEXT {
            assert_eq!(payload.split(' ').next(), Some(echoes.to_string().as_str()), "an echo out of order");
            assert!(payload.split(' ').nth(1).unwrap().bytes().all(|byte| byte == b'x'));
            echoes += 1;
        } else {
            assert_eq!(first, PONG);
            last = payload == "last";
            assert!(last || payload == pongs.to_string(), "pong {payload} instead of {pongs}");
            pongs += usize::from(!last);
        }
    }
}

#[tokio::test]
async fn under_load_in_both_directions_nothing_is_lost_repeated_or_reordered() {
    const COUNT: usize = 300;
    for role in [Role::Server, Role::Client] {
        for seed in 1..=5 {
            let flow = Flow::default();
            flow.with(|state| state.echoes = true);
            let Generations { peer, served } = generations(role, &flow, LIMITS);
            let (mut reader, mut writer) = split(peer);
            let swapping = tokio::spawn({
                let (flow, mut random) = (flow.clone(), Random(seed * 77));
                async move {
                    loop {
                        for _ in 0..random.below(40) {
                            tokio::task::yield_now().await;
                        }
                        flow.swap().await;
                    }
                }
            });
            let sending = send_load(role, &mut writer, COUNT, Random(seed * 0x9e37_79b9));
            tokio::join!(sending, check_load(&mut reader, COUNT));
            swapping.abort();
            assert_eq!(flow.delivered().len(), COUNT, "{role:?}, seed {seed}");
            flow.with(|state| {
                assert!(state.moved.len() > 50, "it moved {} times", state.moved.len());
                assert!(state.moved.iter().any(|(input, _)| !input.is_empty()), "never with input");
                assert!(state.moved.iter().any(|(_, output)| !output.is_empty()), "never with output");
                state.hand_over = false;
            });
            drop((reader, writer));
            served.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_peer_that_stalls_within_a_frame_moves_with_what_it_sent() {
    for role in [Role::Server, Role::Client] {
        let flow = Flow::default();
        let Generations { mut peer, .. } = generations(role, &flow, LIMITS);
        let bytes = [frame_for(role, TEXT, b"whole"), frame_for(role, TEXT, &[b'x'; 1000])].concat();
        let begun = frame_for(role, TEXT, b"whole").len();
        let mut sent = 0;
        for stop in [begun, begun + 1, begun + 3, begun + 500, begun + 501, bytes.len() - 1, bytes.len()] {
            peer.write_all(&bytes[sent..stop]).await.unwrap();
            sent = stop;
            // A round trip, so that it has been read.
            flow.send("ping");
            let mut echo = vec![0; frame_for(role, TEXT, b"ping").len()];
            if role == Role::Client {
                echo.resize(echo.len() + 4, 0);
            } else {
                echo.truncate(echo.len() - 4);
            }
            peer.read_exact(&mut echo).await.unwrap();
            let (input, output) = flow.swap().await;
            let unfinished = if stop == bytes.len() { &[][..] } else { &bytes[begun..stop] };
            assert_eq!((&input[..], &output[..]), (unfinished, &[][..]), "{role:?}, stalled at {stop}");
        }
        assert_eq!(flow.delivered_are(2).await, [Value::from("whole"), Value::from("x".repeat(1000))]);
    }
}

#[tokio::test]
async fn between_fragments_it_moves_and_a_ping_there_is_answered_once() {
    let flow = Flow::default();
    let Generations { mut peer, .. } = generations(Role::Server, &flow, LIMITS);
    peer.write_all(&[frame(0x01, b"one "), frame(PING, b"p"), frame(0x00, b"two ")].concat()).await.unwrap();
    let mut pong = [0; 3];
    peer.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [PONG, 1, b'p']);
    for _ in 0..3 {
        flow.swap().await;
    }
    peer.write_all(&[frame(0x80, b"three"), frame(PING, b"q")].concat()).await.unwrap();
    peer.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [PONG, 1, b'q']);
    assert_eq!(flow.delivered(), [Value::from("one two three")]);
}

/// Fills the pipe to a peer that does not read, until nothing more goes into it.
async fn block(flow: &Flow, values: usize) {
    for number in 0..values {
        flow.send(format!("{number:0>1000}"));
    }
    // The clock jumps when nothing else can go on.
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(flow.with(|state| state.queue.len()) > 0, "nothing is left to wait");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_moves_with_what_it_was_sent() {
    for role in [Role::Server, Role::Client] {
        let flow = Flow::default();
        let Generations { peer, served } = generations(role, &flow, LIMITS);
        let (mut reader, writer) = split(peer);
        block(&flow, 200).await;
        let left = flow.with(|state| state.queue.len());
        let (_, output) = flow.swap().await;
        assert!(!output.is_empty(), "{role:?}");
        let (_, again) = flow.swap().await;
        assert!(again.len() >= output.len(), "{role:?}: what nobody took is still there");
        assert!(flow.with(|state| state.queue.len()) <= left);
        for number in 0..200 {
            assert_eq!(reader.next_message().await, format!("{number:0>1000}").into_bytes());
        }
        drop((reader, writer));
        served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_sent_does_not_grow_by_moving() {
    let flow = Flow::default();
    let Generations { peer, .. } = generations(Role::Server, &flow, LIMITS);
    block(&flow, 3000).await;
    let mut sizes = VecDeque::new();
    for _ in 0..50 {
        let (_, output) = flow.swap().await;
        sizes.push_back(output.len());
        // Time for whatever it would take from the queue.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (first, last) = (sizes[1], sizes[sizes.len() - 1]);
    assert!(last <= first + (64 << 10), "from {first} to {last} bytes in 50 moves");
    drop(peer);
}

#[tokio::test]
async fn a_closing_handshake_ends_where_it_began() {
    // Ours.
    let flow = Flow::default();
    let Generations { peer, served } = generations(Role::Server, &flow, LIMITS);
    let (mut reader, mut writer) = split(peer);
    flow.send(close_request(Some(1001), "bye"));
    assert_eq!(reader.next().await, (CLOSE, b"\x03\xe9bye".to_vec()));
    flow.with(|state| state.hand_over = true);
    writer.write_all(&[frame(TEXT, b"late"), frame(CLOSE, b"\x03\xe9bye")].concat()).await.unwrap();
    assert_eq!(served.await.unwrap(), 0);
    assert_eq!(flow.delivered(), [Value::from("late")]);

    // The peer's, which does not read the answer for a while.
    let flow = Flow::default();
    let Generations { peer, served } = generations(Role::Server, &flow, LIMITS);
    let (mut reader, mut writer) = split(peer);
    flow.send("x".repeat(10_000));
    writer.write_all(&frame(CLOSE, b"\x03\xe8")).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    flow.with(|state| state.hand_over = true);
    assert_eq!(reader.next().await, (TEXT, vec![b'x'; 10_000]));
    assert_eq!(reader.next().await, (CLOSE, b"\x03\xe8".to_vec()));
    assert_eq!(served.await.unwrap(), 0);
}

#[tokio::test]
async fn what_ends_a_connection_while_it_is_taken_apart_is_answered_to_its_end() {
    let close = frame(CLOSE, b"\x03\xe8");
    for (what, bytes, code) in [
        ("a close frame", close.clone(), 1000u16),
        ("a close frame behind a ping", [frame(PING, b""), close].concat(), 1000),
        ("an unmasked frame", vec![TEXT, 1, b'x'], 1002),
        ("invalid UTF-8", frame(TEXT, &[0xff]), 1007),
        (
            "a message that will be too long",
            {
                let header =
                    [&[0x80, 0xff][..], &(LIMITS.max_message as u64).to_be_bytes(), &[0; 4]].concat();
                [frame(0x01, b"x"), header].concat()
            },
            1009,
        ),
    ] {
        let flow = Flow::default();
        // With the first message the flow is congested: what is behind it stays in the codec.
        flow.with(|state| state.congests = true);
        let Generations { mut peer, served } = generations(Role::Server, &flow, LIMITS);
        peer.write_all(&[frame(TEXT, b"first"), frame(TEXT, b"second"), bytes].concat()).await.unwrap();
        assert_eq!(flow.delivered_are(1).await, [Value::from("first")]);
        flow.with(|state| state.hand_over = true);
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).await.unwrap();
        let answer = answer.strip_prefix(&[PONG, 0]).unwrap_or(&answer);
        assert_eq!(answer, [&[CLOSE, 2][..], &code.to_be_bytes()].concat(), "{what}");
        assert_eq!(flow.delivered(), [Value::from("first"), Value::from("second")], "{what}");
        drop(peer);
        assert_eq!(served.await.unwrap(), 0, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_request_that_waits_behind_a_full_pipe_is_not_lost() {
    let flow = Flow::default();
    let Generations { peer, served } = generations(Role::Server, &flow, LIMITS);
    let (mut reader, mut writer) = split(peer);
    // Enough for the codec and the pipe, so that the end of it is in the connection's hands and not in the queue.
    let texts = vec!["x".repeat(10_000); 9];
    for text in &texts {
        flow.send(text);
    }
    flow.send(close_request(Some(1001), ""));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(flow.with(|state| state.queue.is_empty()));
    flow.with(|state| state.hand_over = true);
    for text in &texts {
        assert_eq!(reader.next().await, (TEXT, text.clone().into_bytes()));
    }
    assert_eq!(reader.next().await, (CLOSE, b"\x03\xe9".to_vec()));
    writer.write_all(&frame(CLOSE, b"\x03\xe9")).await.unwrap();
    assert_eq!(served.await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_heartbeat_goes_on_at_its_time_and_remembers_what_was_not_answered() {
    let flow = Flow::default();
    let Generations { mut peer, served } =
        generations(Role::Client, &flow, Limits { heartbeat_ms: Some(1000), ..LIMITS });
    let began = tokio::time::Instant::now();
    for beat in 1..=3 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        flow.swap().await;
        let mut ping = [0; 6];
        peer.read_exact(&mut ping).await.unwrap();
        assert_eq!((ping[0], began.elapsed().as_millis() / 10), (PING, beat * 100), "beat {beat}");
        if beat < 3 {
            peer.write_all(&[PONG, 0]).await.unwrap();
        }
    }
    flow.swap().await;
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).await.unwrap();
    assert_eq!((rest.len(), began.elapsed().as_secs()), (0, 4));
    assert_eq!(served.await.unwrap(), 4);
    assert_eq!(flow.with(|state| state.failures.clone()), ["no answer to a ping"]);
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_is_congested_does_not_keep_a_connection_from_moving() {
    let flow = Flow::default();
    flow.with(|state| state.congests = true);
    let Generations { peer, .. } = generations(Role::Server, &flow, LIMITS);
    let (_reader, mut writer) = split(peer);
    let sending = tokio::spawn(async move {
        for number in 0..1000 {
            writer.write_all(&frame(TEXT, format!("{number:0>100}").as_bytes())).await.unwrap();
        }
        writer
    });
    flow.delivered_are(1).await;
    let mut delivered = 0;
    for _ in 0..10 {
        flow.swap().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = flow.delivered().len();
        assert!(
            now - delivered <= 4096 / 100,
            "{} messages went into a congested flow at once",
            now - delivered
        );
        delivered = now;
    }
    flow.with(|state| (state.congested, state.congests) = (false, false));
    let expected: Vec<Value> = (0..1000).map(|number| Value::from(format!("{number:0>100}"))).collect();
    assert!(flow.delivered_are(1000).await == expected);
    drop(sending);
}

#[tokio::test(start_paused = true)]
async fn silence_goes_on_when_it_moves() {
    let flow = Flow::default();
    let limits = Limits { idle_ms: Some(1000), ..LIMITS };
    let Generations { mut peer, served } = generations(Role::Server, &flow, limits);
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        flow.swap().await;
    }
    let mut close = [0; 8];
    peer.read_exact(&mut close).await.unwrap();
    assert_eq!(close, *b"\x88\x06\x03\xe9idle");
    let after = began.elapsed().as_millis();
    assert!((1000..1100).contains(&after), "after {after} ms");
    drop(peer);
    assert_eq!(served.await.unwrap(), 3);
}

#[tokio::test]
async fn fragments_are_counted_on_when_it_moves_or_rests() {
    let flow = Flow::default();
    let limits = Limits { max_fragments: 20, ..LIMITS };
    let Generations { mut peer, served } = generations(Role::Server, &flow, limits);
    peer.write_all(&frame(0x01, b"")).await.unwrap();
    for number in 0..19 {
        // A round trip, so that each of them is a turn, after which the codec rests.
        peer.write_all(&[frame(0x00, b"x"), frame(PING, b"")].concat()).await.unwrap();
        let mut pong = [0; 2];
        peer.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [PONG, 0]);
        if number % 3 == 0 {
            flow.swap().await;
        }
    }
    peer.write_all(&frame(0x00, b"x")).await.unwrap();
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"\x88\x14\x03\xf0too many fragments");
    drop(peer);
    assert_eq!(served.await.unwrap(), 7);
}

#[tokio::test]
async fn text_that_moves_in_the_middle_of_a_character_is_still_judged() {
    for (last, code) in [(&b"\x84\x9e"[..], None), (b"\x84x", Some(1007u16))] {
        let flow = Flow::default();
        let Generations { mut peer, served } = generations(Role::Server, &flow, LIMITS);
        let text = [b"abc\xf0\x9d", last, b"and so on"].concat();
        let bytes = frame(TEXT, &text);
        let (first, rest) = bytes.split_at(6 + 5);
        peer.write_all(&[&frame(PING, b"")[..], first].concat()).await.unwrap();
        let mut pong = [0; 2];
        peer.read_exact(&mut pong).await.unwrap();
        flow.swap().await;
        // All but the end of the frame.
        peer.write_all(&rest[..3]).await.unwrap();
        match code {
            None => {
                flow.swap().await;
                peer.write_all(&rest[3..]).await.unwrap();
                assert_eq!(flow.delivered_are(1).await, [Value::from(std::str::from_utf8(&text).unwrap())]);
            }
            Some(code) => {
                let mut answer = Vec::new();
                peer.read_to_end(&mut answer).await.unwrap();
                assert_eq!(answer, [&[CLOSE, 2][..], &code.to_be_bytes()].concat());
                drop(peer);
                assert_eq!(served.await.unwrap(), 1);
            }
        }
    }
}
