//! What is noticed of a connection besides its messages: silence, traffic, how it ends.

use super::*;

const IDLE: Limits = Limits { idle_ms: Some(1000), ..LIMITS };

fn served_within(limits: Limits, flow: &Flow) -> (DuplexStream, JoinHandle<()>) {
    let (peer, ours) = duplex(1 << 20);
    let flow = flow.clone();
    let served = tokio::spawn(async move {
        Live::new(ours, State::default(), Role::Server, &limits, flow).serve().await;
    });
    (peer, served)
}

fn ending(code: u16, reason: &str) -> Ending {
    Ending { code, reason: reason.into() }
}

impl Flow {
    fn endings(&self) -> Vec<Ending> {
        self.with(|state| state.endings.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_for_too_long_is_sent_away() {
    let flow = Flow::default();
    let (mut peer, served) = served_within(IDLE, &flow);
    let began = tokio::time::Instant::now();
    // Any frame counts, however late it is.
    for first in [TEXT, PING, PONG, BINARY] {
        tokio::time::sleep(Duration::from_millis(900)).await;
        peer.write_all(&frame(first, b"")).await.unwrap();
    }
    // What it is sent does not.
    tokio::time::sleep(Duration::from_millis(900)).await;
    flow.send("still there?");
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"\x88\x06\x03\xe9idle"), "{answer:?}");
    // Four times 900 ms, then 1000; the closing handshake, which it does not answer, is the rest.
    let ended = began.elapsed().as_millis() - u128::from(CLOSE_MS);
    assert!((4600..4700).contains(&ended), "after {ended} ms");
    served.await.unwrap();
    assert_eq!(flow.endings(), [ending(1001, "idle")]);
    assert!(flow.with(|state| state.failures.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_nobody_listens_to_is_not_idle() {
    let flow = Flow::default();
    flow.with(|state| state.congested = true);
    let (mut peer, served) = served_within(IDLE, &flow);
    peer.write_all(&frame(TEXT, b"x")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!served.is_finished() && flow.delivered().is_empty());
    flow.with(|state| state.congested = false);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(flow.delivered(), [Value::from("x")]);
    assert!(flow.endings().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_listener_asks_its_clients_too() {
    let flow = Flow::default();
    let limits = Limits { heartbeat_ms: Some(1000), idle_ms: Some(1500), ..LIMITS };
    let (mut peer, served) = served_within(limits, &flow);
    let mut ping = [0; 2];
    for _ in 0..5 {
        peer.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [PING, 0]);
        // An answer counts for both.
        peer.write_all(&frame(PONG, b"")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(flow.endings().is_empty());
    drop(peer);
    served.await.unwrap();
    assert_eq!(flow.endings(), [ending(1006, "")]);
}

#[tokio::test]
async fn too_many_fragments_are_refused_with_a_reason() {
    let endless = [&frame(0x01, b"")[..], &frame(0x00, b"").repeat(LIMITS.max_fragments as usize)].concat();
    let (answer, delivered, failures) = answer_to(&endless).await;
    assert_eq!(answer, b"\x88\x14\x03\xf0too many fragments");
    assert_eq!((delivered, failures), (vec![], vec!["too many fragments".to_owned()]));
}

#[tokio::test]
async fn other_limits_are_kept_too() {
    let limits = Limits { max_message: 100, max_frame: 10, max_fragments: 12, ..LIMITS };
    for (what, bytes, code) in [
        ("a frame", frame(TEXT, &[b'x'; 11]), 1009u16),
        (
            "a message",
            [frame(0x01, &[b'x'; 10]), frame(0, &[b'x'; 10]).repeat(9), frame(0x80, b"x")].concat(),
            1009,
        ),
        ("fragments", [frame(0x01, b""), frame(0, b"x").repeat(12)].concat(), 1008),
    ] {
        let flow = Flow::default();
        let (mut peer, served) = served_within(limits, &flow);
        peer.write_all(&bytes).await.unwrap();
        let mut answer = [0; 4];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer[0], u16::from_be_bytes([answer[2], answer[3]])), (CLOSE, code), "{what}");
        drop(peer);
        served.await.unwrap();
        assert!(flow.delivered().is_empty(), "{what}");
        assert_eq!(flow.endings()[0].code, code, "{what}");
    }
}

#[tokio::test]
async fn every_message_is_counted_with_its_bytes() {
    let flow = Flow::default();
    flow.with(|state| state.echoes = true);
    let (mut peer, served) = served_within(LIMITS, &flow);
    for number in 0..100_u8 {
        let bytes = [frame(0x02, &[number; 20]), frame(PING, b"no message"), frame(0x80, b"12345")].concat();
        peer.write_all(&bytes).await.unwrap();
    }
    // The pipe has room for all of the echoes.
    while flow.with(|state| state.traffic.messages_sent) < 100 {
        tokio::task::yield_now().await;
    }
    drop(peer);
    served.await.unwrap();
    let expected =
        Traffic { messages_received: 100, bytes_received: 2500, messages_sent: 100, bytes_sent: 2500 };
    flow.with(|state| assert_eq!((&state.traffic, state.violations), (&expected, 0)));
}

#[tokio::test(start_paused = true)]
async fn how_it_ended_is_told_once() {
    for (what, input, request, expected, violations) in [
        ("the peer left", &b""[..], None, ending(1006, ""), 0),
        ("the peer closed", &frame(CLOSE, b"\x0b\xb8bye"), None, ending(3000, "bye"), 0),
        ("the peer closed without a code", &frame(CLOSE, b""), None, ending(1005, ""), 0),
        ("we closed", b"", Some(close_request(Some(1001), "away")), ending(1001, "away"), 0),
        ("we closed without a code", b"", Some(close_request(None, "")), ending(1005, ""), 0),
        (
            "we closed and the peer said something else",
            &frame(CLOSE, b"\x0b\xb8bye"),
            Some(close_request(Some(4000), "first")),
            ending(4000, "first"),
            0,
        ),
        (
            "bad UTF-8",
            &frame(TEXT, &[0xff]),
            None,
            ending(1007, "UTF-8 encoding error: invalid utf-8 sequence of 1 bytes from index 0"),
            1,
        ),
        ("bad UTF-8, early", &frame(0x01, &[0xff]), None, ending(1007, "text that is not UTF-8"), 1),
        ("a bad close code", &frame(CLOSE, b"\x03\xed"), None, ending(1002, "Protocol violation"), 1),
    ] {
        let flow = Flow::default();
        if let Some(request) = request {
            flow.send(request);
        }
        let (mut peer, served) = serve(Role::Server, &flow, input, None);
        peer.shutdown().await.unwrap();
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).await.unwrap();
        served.await.unwrap();
        assert_eq!(flow.endings(), [expected], "{what}");
        assert_eq!(flow.with(|state| state.violations), violations, "{what}");
    }
}

#[tokio::test]
async fn a_reason_that_is_too_long_is_cut_at_a_character() {
    let flow = Flow::default();
    let (peer, _served) = server(&flow);
    let mut client = socket(peer, Role::Client).await;
    flow.send(close_request(Some(4001), &"€".repeat(100)));
    let Message::Close(Some(frame)) = client.next().await.unwrap().unwrap() else { panic!("no close frame") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4001, &*"€".repeat(41)));
}

#[tokio::test]
async fn what_came_before_a_violation_is_answered_before_the_connection_ends() {
    for (bad, code) in
        [(frame(0x83, b""), 1002u16), (frame(0x01, &[0xff]), 1007), (frame(TEXT, &[0xff]), 1007)]
    {
        let flow = Flow::default();
        flow.with(|state| state.echoes = true);
        let (mut peer, served) = server(&flow);
        peer.write_all(&[frame(TEXT, b"one"), frame(TEXT, b"two"), bad, frame(TEXT, b"three")].concat())
            .await
            .unwrap();
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [&b"\x81\x03one\x81\x03two\x88\x02"[..], &code.to_be_bytes()].concat());
        drop(peer);
        served.await.unwrap();
        assert_eq!(flow.delivered(), [Value::from("one"), Value::from("two")]);
    }
}

#[tokio::test]
async fn a_violation_that_waits_for_answers_is_not_forgotten_when_the_connection_is_wanted_back() {
    let flow = Flow::default();
    let (mut peer, ours) = duplex(4096);
    peer.write_all(&[frame(TEXT, b"one"), frame(0x83, b"")].concat()).await.unwrap();
    let mut live = Live::new(ours, State::default(), Role::Server, &LIMITS, flow.clone());
    let over = std::future::poll_fn(|cx| Poll::Ready(live.poll_serve(cx).is_ready())).await;
    assert!(!over);
    assert_eq!(flow.delivered().len(), 1);
    flow.with(|state| state.hand_over = true);
    let served = tokio::spawn(async move { live.serve().await.is_none() });
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"\x88\x02\x03\xea");
    drop(peer);
    assert!(served.await.unwrap(), "it ends here");
}
