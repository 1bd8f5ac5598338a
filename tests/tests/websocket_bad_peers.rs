//! Peers that break the protocol, or keep to it in bad faith. Each of them meets the host beside a client that does
//! nothing wrong and must not notice.

use std::io::{Read, Write};
use std::time::Duration;

use flowbay_tests::harness::{Client, Flow, Frame, Host, HostBuilder, RawPeer, reset};
use serde_json::{Value, json};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The host with an echo on `/ws`, and a client there that behaves.
struct Scene {
    host: Host,
    bystander: Client,
    /// File descriptors that the host has without any bad peer.
    descriptors: usize,
}

/// An echo on `/ws`; `listener` are the properties of the listener, besides its path.
fn echo(listener: Value) -> Flow {
    let mut properties = json!({"path": "/ws"});
    for (name, value) in listener.as_object().unwrap() {
        properties[name] = value.clone();
    }
    Flow::new()
        .config("listener", "websocket-listener", properties)
        .node("receive", "websocket in", "reply", json!({"server": "listener"}))
        .node("reply", "websocket out", "", json!({"server": "listener"}))
}

impl Scene {
    fn new(listener: Value) -> Self {
        Self::start(Host::builder().flow(&echo(listener)))
    }

    fn start(host: HostBuilder) -> Self {
        let host = host.start();
        let mut scene = Self { bystander: host.connect("/ws"), host, descriptors: 0 };
        scene.check_bystander();
        scene.descriptors = scene.open_descriptors();
        scene
    }

    fn peer(&self) -> RawPeer {
        RawPeer::websocket(self.host.address(), "/ws")
    }

    fn check_bystander(&mut self) {
        self.bystander.send_text(r#"{"payload":"still here"}"#);
        let answer = self.bystander.recv_text();
        assert!(answer.contains("still here"), "{answer}");
    }

    fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.host.pid())).unwrap().count()
    }

    fn resident_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.host.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// After the bad peer has gone: nothing is left of it, and nobody else noticed.
    fn unharmed(mut self) {
        self.check_bystander();
        self.host.eventually("nothing is left of the peer", || {
            (self.open_descriptors() <= self.descriptors).then_some(())
        });
        assert_eq!(self.host.count_log("panicked"), 0, "{}", self.host.log());
    }
}

/// A masked frame, but for what its header says of the length.
fn header(first: u8, declared: u64) -> Vec<u8> {
    [&[first, 0xff][..], &declared.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

/// The key of the frames here changes nothing, so that a payload can be cut and repeated.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        long => {
            bytes.push(0x80 | 126);
            bytes.extend((long as u16).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

const FIN: u8 = 0x80;

/// The code with which the host ends the connection after these bytes.
fn code_after(scene: &Scene, bytes: &[u8]) -> Option<u16> {
    let mut peer = scene.peer();
    // The host may be done with it before it has read everything.
    let _ = peer.stream().write_all(bytes);
    peer.read_close_code()
}

#[test]
fn frames_that_break_the_protocol_end_the_connection_with_the_code_for_it() {
    let mut scene = Scene::new(json!({}));
    for (what, bytes, code) in [
        ("an unmasked frame", vec![FIN | TEXT, 1, b'x'], 1002),
        ("the first reserved bit", frame(FIN | 0x40 | TEXT, b"x"), 1002),
        ("the second reserved bit", frame(FIN | 0x20 | BINARY, b"x"), 1002),
        ("the third reserved bit", frame(FIN | 0x10 | PING, b"x"), 1002),
        ("a reserved opcode", frame(FIN | 3, b"x"), 1002),
        ("a reserved opcode for fragments", frame(7, b"x"), 1002),
        ("a reserved opcode for control", frame(FIN | 11, b"x"), 1002),
        ("a ping that is too long", frame(FIN | PING, &[b'x'; 126]), 1002),
        ("a pong that says it is too long", header(FIN | PONG, 1 << 62), 1002),
        ("a close frame that is too long", frame(FIN | CLOSE, &[b'x'; 126]), 1002),
        ("a ping in fragments", frame(PING, b"x"), 1002),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"x"), 1002),
        ("a message within another", [frame(TEXT, b"x"), frame(FIN | TEXT, b"y")].concat(), 1002),
        ("a close frame with half a code", frame(FIN | CLOSE, &[3]), 1002),
        ("a close frame with a reason that is not UTF-8", frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007),
        ("text that is not UTF-8", frame(FIN | TEXT, b"a\xffb"), 1007),
        (
            "text that is not UTF-8 in fragments",
            [frame(TEXT, b"a\xe2\x82"), frame(FIN | CONTINUATION, b"x")].concat(),
            1007,
        ),
        ("text that ends within a character", frame(FIN | TEXT, b"a\xe2\x82"), 1007),
    ] {
        assert_eq!(code_after(&scene, &bytes), Some(code), "{what}\n{}", scene.host.log());
        scene.check_bystander();
    }
    scene.unharmed();
}

#[test]
fn text_that_is_not_utf_8_is_refused_before_it_is_complete() {
    let scene = Scene::new(json!({}));
    for (what, bytes) in [
        ("in a frame", [&header(FIN | TEXT, 1 << 20)[..10], &[0; 4], b"abc\xf4\x90"].concat()),
        ("in a fragment", frame(TEXT, b"abc\xed\xa0")),
        (
            "across fragments",
            [frame(TEXT, b"\xf0\x9d"), frame(CONTINUATION, b"\x84"), frame(0, b"x")].concat(),
        ),
    ] {
        assert_eq!(code_after(&scene, &bytes), Some(1007), "{what}");
    }
    scene.unharmed();
}

#[test]
fn a_close_frame_with_a_code_that_must_not_be_sent_is_answered_with_1002() {
    let scene = Scene::new(json!({}));
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        assert_eq!(code_after(&scene, &frame(FIN | CLOSE, &code.to_be_bytes())), Some(1002), "{code}");
    }
    for code in [1000u16, 1001, 1011, 3000, 4999] {
        assert_eq!(code_after(&scene, &frame(FIN | CLOSE, &code.to_be_bytes())), Some(code), "{code}");
    }
    scene.unharmed();
}

#[test]
fn a_frame_that_says_it_is_huge_is_refused_by_its_header() {
    let scene = Scene::new(json!({}));
    for declared in [(16 << 20) + 1, 1 << 40, i64::MAX as u64, u64::MAX] {
        for first in [FIN | TEXT, FIN | BINARY, BINARY] {
            assert_eq!(
                code_after(&scene, &header(first, declared)),
                Some(1009),
                "{declared} bytes, {first:#x}"
            );
        }
    }
    scene.unharmed();
}

#[test]
fn frames_that_say_they_are_large_take_no_memory_before_they_come() {
    let scene = Scene::new(json!({}));
    let before = scene.resident_mb();
    let peers: Vec<_> = (0..100)
        .map(|_| {
            let mut peer = scene.peer();
            peer.write(
                &[&frame(FIN | PING, b"")[..], &header(FIN | BINARY, 16 << 20), b"the beginning"].concat(),
            );
            // Answered, so the rest has been read too.
            assert_eq!(peer.read_frame(), (PONG, vec![]));
            peer
        })
        .collect();
    let after = scene.resident_mb();
    assert!(after < before + 30, "from {before} to {after} MB for {} frames of 16 MiB", peers.len());
    drop(peers);
    scene.unharmed();
}

#[test]
fn fragments_without_end_are_cut_off() {
    let mut scene = Scene::new(json!({}));
    for (what, fragment) in [
        ("of one byte", frame(CONTINUATION, b"x")),
        ("of nothing", frame(CONTINUATION, b"")),
        ("with pings between them", [frame(CONTINUATION, b""), frame(FIN | PING, b"")].concat()),
    ] {
        let mut peer = scene.peer();
        peer.write(&frame(TEXT, b""));
        let many = fragment.repeat(100);
        // At most 1,024 are taken; the rest is thrown away until the host does not listen any more.
        for _ in 0..100 {
            if peer.stream().write_all(&many).is_err() {
                break;
            }
        }
        assert_eq!(peer.read_close_code(), Some(1008), "fragments {what}\n{}", scene.host.log());
        scene.check_bystander();
    }
    scene.unharmed();
}

#[test]
fn a_message_over_the_limit_of_its_listener_is_refused_however_it_comes() {
    let scene = Scene::new(json!({"maxMessageSize": "1000", "maxFrameSize": 400, "maxFragments": 5}));
    for (what, bytes, code) in [
        ("a frame", frame(FIN | TEXT, &[b'x'; 401]), Some(1009)),
        (
            "fragments",
            [frame(TEXT, &[b'x'; 400]), frame(0, &[b'x'; 400]), frame(0, &[b'x'; 201])].concat(),
            Some(1009),
        ),
        ("many fragments", [frame(TEXT, b"x"), frame(0, b"x").repeat(5)].concat(), Some(1008)),
    ] {
        assert_eq!(code_after(&scene, &bytes), code, "{what}");
    }
    let mut peer = scene.peer();
    peer.write(&[frame(TEXT, &[b'x'; 400]), frame(0, &[b'x'; 400]), frame(FIN, &[b'x'; 200])].concat());
    assert_eq!(peer.read_frame(), (TEXT, vec![b'x'; 1000]), "a message of exactly the limit");
    drop(peer);
    scene.unharmed();
}

#[test]
fn a_million_pings_are_answered_and_take_no_memory() {
    const PINGS: u32 = 1_000_000;
    let scene = Scene::new(json!({}));
    let before = scene.resident_mb();
    let mut peer = scene.peer();
    let mut writer = peer.stream().try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for thousand in 0..PINGS / 1000 {
            let pings: Vec<u8> =
                (0..1000).flat_map(|one| frame(FIN | PING, &(thousand * 1000 + one).to_be_bytes())).collect();
            writer.write_all(&pings).unwrap();
        }
    });
    let (mut pongs, mut last) = (0, None);
    while last != Some(PINGS - 1) {
        let (opcode, payload) = peer.read_frame();
        let number = u32::from_be_bytes(payload.try_into().unwrap());
        assert!(opcode == PONG && Some(number) > last, "{opcode} {number} after {last:?}");
        (pongs, last) = (pongs + 1, Some(number));
    }
    sending.join().unwrap();
    // Of pings that wait together, answering the last is enough; it is not one answer for all of them.
    assert!(pongs > PINGS / 100, "{pongs} answers");
    let after = scene.resident_mb();
    assert!(after < before + 20, "from {before} to {after} MB");
    drop(peer);
    scene.unharmed();
}

#[test]
fn pings_whose_answers_nobody_reads_are_not_taken_without_end() {
    let mut scene = Scene::new(json!({}));
    let before = scene.resident_mb();
    let mut peer = scene.peer();
    peer.set_write_timeout(Duration::from_millis(1000));
    let pings = frame(FIN | PING, &[b'x'; 125]).repeat(1000);
    let mut sent = 0;
    // The kernel's buffers on both sides take some megabytes.
    while peer.stream().write_all(&pings).is_ok() {
        sent += pings.len();
        assert!(sent < 200 << 20, "pings are taken without end");
    }
    let after = scene.resident_mb();
    assert!(after < before + 20, "from {before} to {after} MB");
    scene.check_bystander();
    drop(peer);
    scene.unharmed();
}

/// What comes from `/io` goes to all on `/ws`; the disconnect events of `/ws` are shown on `/events`.
fn broadcasting(listener: Value) -> Flow {
    echo(listener)
        .node("events", "status", "tell", json!({"scope": ["receive"]}))
        .config("event-listener", "websocket-listener", json!({"path": "/events", "wholemsg": "true"}))
        .node("tell", "websocket out", "", json!({"server": "event-listener"}))
        .forget("forget", "all")
        .node("all", "websocket out", "", json!({"server": "listener"}))
        .io("forget")
}

#[test]
fn a_reader_that_never_reads_what_all_get_is_cut_and_the_others_get_everything() {
    const MESSAGES: usize = 400;
    let flow = broadcasting(json!({"sendQueueBytes": 2_000_000}));
    let mut scene = Scene::start(Host::builder().flow(&flow));
    let mut events = scene.host.connect("/events");
    let mut io = scene.host.io();
    scene.descriptors = scene.open_descriptors();
    let before = scene.resident_mb();
    let mut idle = scene.peer();
    let connected = events.recv_json();
    assert_eq!(connected["status"]["event"], "connect", "{connected}");

    let payload = "x".repeat(100_000);
    let mut most = 0;
    for number in 0..MESSAGES {
        io.send_json(&json!({"payload": format!("{number} {payload}")}));
        let text = scene.bystander.recv_text();
        assert!(text.starts_with(&format!("{number} ")), "message {number}: {}", &text[..20]);
        most = most.max(scene.resident_mb());
    }
    // 40 MB were sent. One queue, and what was on its way to the other.
    assert!(most < before + 30, "from {before} to {most} MB");

    // It hears why, when it reads after all.
    assert_eq!(idle.read_close_code(), Some(1008), "{}", scene.host.log());
    drop(idle);
    let left = events.recv_json();
    let status = &left["status"];
    assert_eq!((&status["event"], &status["code"]), (&json!("disconnect"), &json!(1008)), "{left}");
    scene.unharmed();
}

#[test]
fn a_peer_that_sends_faster_than_it_reads_is_read_more_slowly_and_loses_nothing() {
    const MESSAGES: usize = 3_000;
    let scene = Scene::new(json!({"sendQueueBytes": 2_000_000}));
    let before = scene.resident_mb();
    let mut peer = scene.peer();
    let mut writer = peer.stream().try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            let text = format!("{number:0>10000}");
            writer.write_all(&frame(FIN | TEXT, text.as_bytes())).unwrap();
        }
    });
    // Everything that can be under way is: the sender is stuck, for longer than any of this takes.
    let stuck = |sending: &std::thread::JoinHandle<()>| !sending.is_finished();
    scene.host.eventually("the host reads no more", || {
        let before = received_bytes(&scene);
        std::thread::sleep(Duration::from_millis(300));
        (received_bytes(&scene) == before).then_some(())
    });
    assert!(stuck(&sending), "30 MB went into a host that could not pass them on");
    for number in 0..MESSAGES {
        let (opcode, payload) = peer.read_frame();
        assert_eq!(opcode, TEXT, "{:?}", String::from_utf8_lossy(&payload));
        assert!(payload == format!("{number:0>10000}").as_bytes(), "message {number}");
    }
    sending.join().unwrap();
    let after = scene.resident_mb();
    assert!(after < before + 30, "from {before} to {after} MB");
    drop(peer);
    scene.unharmed();
}

/// Bytes that the host's process has read from anywhere.
fn received_bytes(scene: &Scene) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", scene.host.pid())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_connection_that_is_reset_in_any_state_is_gone_and_nothing_else() {
    let flow = broadcasting(json!({}));
    let mut scene = Scene::start(Host::builder().flow(&flow));
    let mut io = scene.host.io();
    scene.descriptors = scene.open_descriptors();
    let large = vec![b'x'; 60_000];
    type Reach<'a> = &'a dyn Fn(&mut RawPeer);
    let states: [(&str, Reach<'_>); 12] = [
        ("just opened", &|_| {}),
        ("within a header", &|peer| peer.write(&[FIN | TEXT])),
        ("within a long header", &|peer| peer.write(&header(FIN | BINARY, 70_000)[..7])),
        ("within a payload", &|peer| peer.write(&frame(FIN | BINARY, &large)[..30_000])),
        ("between fragments", &|peer| peer.write(&frame(TEXT, b"begun"))),
        ("with an answer unread", &|peer| peer.write(&frame(FIN | TEXT, b"echo"))),
        ("with many answers unread", &|peer| peer.write(&frame(FIN | BINARY, &large).repeat(20))),
        ("with pings unanswered", &|peer| peer.write(&frame(FIN | PING, b"?").repeat(1000))),
        ("after its close frame", &|peer| peer.write(&frame(FIN | CLOSE, b"\x03\xe8"))),
        ("after an error", &|peer| peer.write(&frame(FIN | 3, b""))),
        ("when it was told of an error", &|peer| {
            peer.write(&frame(FIN | 3, b""));
            assert_eq!(peer.read_close_code(), Some(1002));
        }),
        ("when its close frame was answered", &|peer| {
            peer.write(&frame(FIN | CLOSE, b"\x03\xe8"));
            assert_eq!(peer.read_close_code(), Some(1000));
        }),
    ];
    for (state, reach) in states {
        let mut peer = scene.peer();
        reach(&mut peer);
        reset(peer.stream().try_clone().unwrap());
        drop(peer);
        scene.check_bystander();
        scene.host.eventually(state, || (scene.open_descriptors() <= scene.descriptors).then_some(()));
    }
    // Also with much on its way to it.
    let peer = scene.peer();
    let payload = "x".repeat(100_000);
    for number in 0..100 {
        if number == 50 {
            reset(peer.stream().try_clone().unwrap());
        }
        io.send_json(&json!({"payload": payload}));
        assert_eq!(scene.bystander.recv_text().len(), payload.len());
    }
    drop(peer);
    assert_eq!(scene.host.count_log("ERROR"), 0, "{}", scene.host.log());
    scene.unharmed();
}

#[test]
fn entire_messages_may_be_any_json_and_anything_else() {
    let mut scene = Scene::new(json!({"wholemsg": "true"}));
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for (what, text) in [
        ("null", "null".to_owned()),
        ("a number", "1e999".to_owned()),
        ("an empty array", "[]".to_owned()),
        ("an array", r#"[null,{"payload":1},[2]]"#.to_owned()),
        ("no JSON", r#"{"payload":"#.to_owned()),
        ("nothing", String::new()),
        ("an array as deep as allowed", deep(100)),
        ("an array that is too deep", deep(1000)),
        ("an array that is far too deep", deep(1_000_000)),
        ("objects that are far too deep", r#"{"a":"#.repeat(100_000)),
        ("a message without anything", "{}".to_owned()),
        ("a session of its own", r#"{"_session":{"type":"websocket","id":"0"},"payload":"mine"}"#.to_owned()),
        ("properties with bad names", r#"{"__proto__":1,"constructor":{},"":2,"payload":3}"#.to_owned()),
        ("lone surrogates", r#"{"payload":"\ud800"}"#.to_owned()),
    ] {
        let mut peer = scene.host.connect("/ws");
        peer.send_text(&text);
        // Whatever it is, it comes back as a message.
        let Frame::Text(answer) = peer.recv() else {
            panic!("{what} ends the connection\n{}", scene.host.log())
        };
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(answer.is_object(), "{what}: {answer}");
        drop(peer);
        scene.check_bystander();
    }
    scene.unharmed();
}

#[test]
fn a_hundred_megabytes_of_json_are_refused_by_their_header_unless_the_listener_takes_them() {
    const BYTES: usize = 100 << 20;
    let scene = Scene::new(json!({"wholemsg": "true"}));
    assert_eq!(code_after(&scene, &header(FIN | TEXT, BYTES as u64)), Some(1009));
    scene.unharmed();

    // Only the length comes back: the answer is another listener's business.
    let listener = json!({"path": "/ws", "wholemsg": "true", "maxMessageSize": 128 << 20});
    let flow = Flow::new()
        .config("listener", "websocket-listener", listener)
        .node("receive", "websocket in", "short", json!({"server": "listener"}))
        .set("short", "reply", "large", "", "str")
        .node("reply", "websocket out", "", json!({"server": "listener"}));
    let scene = Scene::start(Host::builder().flow(&flow));
    let mut peer = scene.peer();
    let text = format!(r#"{{"payload":"it was there","large":"{}"}}"#, "x".repeat(BYTES));
    peer.stream().write_all(&[&header(FIN | TEXT, text.len() as u64)[..10], &[0; 4]].concat()).unwrap();
    peer.stream().write_all(text.as_bytes()).unwrap();
    let (_, answer) = peer.read_frame();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((&answer["payload"], &answer["large"]), (&json!("it was there"), &json!("")));
    drop(peer);
    scene.unharmed();
}

#[test]
fn bytes_behind_a_close_frame_are_thrown_away() {
    let scene = Scene::new(json!({}));
    let mut peer = scene.peer();
    let bytes = [frame(FIN | CLOSE, b"\x03\xe8"), frame(FIN | TEXT, b"too late").repeat(10_000)].concat();
    let _ = peer.stream().write_all(&bytes);
    assert_eq!(peer.read_frame(), (CLOSE, b"\x03\xe8".to_vec()));
    let mut rest = Vec::new();
    // The end, or a reset because of what was not read.
    let _ = peer.stream().read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
    drop(peer);
    scene.unharmed();
}
