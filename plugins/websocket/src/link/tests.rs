//! What a client does over hours, in no time: the host is one of the SDK's, with a clock of its own.

use flowbay_sdk::{
    testing::{Setup, TestNode, TestPeer},
    value,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::*;
use crate::{client::WebSocketClient, output::WebSocketOut, waiting::Limits};

const FIXED: Reconnect = Reconnect::Fixed(Duration::from_secs(3));

fn link(stage: Stage) -> Link {
    Link {
        stage,
        session: None,
        wanted: true,
        elsewhere: None,
        failures: 0,
        failure: String::new(),
        waiting: queue(&Value::Null),
    }
}

fn queue(saved: &Value) -> Waiting {
    Waiting::new(Limits { messages: 10, bytes: 1000 }, saved)
}

fn restored(saved: &Value) -> Link {
    Link::restore(saved, queue(&saved["waiting"]), FIXED)
}

fn near(one: Instant, other: Instant) -> bool {
    let half = Duration::from_millis(500);
    one.saturating_duration_since(other) < half && other.saturating_duration_since(one) < half
}

#[test]
fn a_successor_begins_where_a_client_was() {
    for (stage, expected) in [
        (Stage::Down, Stage::Down),
        (Stage::Leaving, Stage::Leaving),
        // Dropped with the code that was at it, and begun anew.
        (Stage::Opening, Stage::Down),
    ] {
        assert_eq!(restored(&link(stage).save()).stage, expected);
    }
    let until = Instant::now() + Duration::from_millis(1500);
    let Stage::Pausing(rest) = restored(&link(Stage::Pausing(until)).save()).stage else {
        panic!("it waits")
    };
    assert!(near(rest, until));
    let begin = Instant::now();
    let Stage::Up(since) = restored(&link(Stage::Up(begin)).save()).stage else { panic!("it is up") };
    assert!(near(since, begin));
    // What is sent must not go to a session that nobody serves any more.
    let Stage::Ended(since) = restored(&link(Stage::Ended(begin)).save()).stage else {
        panic!("it has ended")
    };
    assert!(near(since, begin));
}

#[test]
fn a_successor_knows_what_happened_before() {
    let mut old = link(Stage::Down);
    old.wanted = false;
    old.failures = 7;
    old.failure = "refused".to_owned();
    let url = "ws://u:p@h/x";
    old.elsewhere = Some((url.to_owned(), Address::parse(url).unwrap()));
    old.waiting.push("a".into()).unwrap();
    let mut new = restored(&old.save());
    assert_eq!((new.wanted, new.failures, new.failure.as_str()), (false, 7, "refused"));
    assert_eq!(new.elsewhere, old.elsewhere);
    assert_eq!(new.waiting.take(), old.waiting.take());
}

#[test]
fn what_a_predecessor_did_not_say_is_as_at_a_start() {
    let json = |text: &str| Value::from_json(text.as_bytes()).unwrap();
    for saved in [
        "null",
        "{}",
        r#"{"is":"dancing"}"#,
        r#"{"is":7,"unwanted":1,"elsewhere":"nowhere","failures":-3,"failure":4,"waiting":"x"}"#,
    ] {
        let new = restored(&json(saved));
        assert_eq!((new.stage, new.wanted, new.failures), (Stage::Down, true, 0), "{saved}");
        assert_eq!((new.elsewhere, new.waiting.len()), (None, 0), "{saved}");
    }
    for saved in [r#"{"is":"waiting"}"#, r#"{"is":"waiting","retry_ms":9e15}"#] {
        let Stage::Pausing(until) = restored(&json(saved)).stage else { panic!("it waits: {saved}") };
        assert!(until <= Instant::now() + FIXED.longest(), "{saved}");
    }
    let Stage::Up(_) = restored(&json(r#"{"is":"up","up_ms":9e17}"#)).stage else { panic!("it is up") };
}

#[test]
fn each_failure_makes_the_next_attempt_later() {
    let backoff = Reconnect::Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
    let mut link = link(Stage::Opening);
    for (failures, at_least, at_most) in [(1, 800, 1200), (2, 1600, 2400), (3, 3200, 4800)] {
        let begin = Instant::now();
        link.pause(backoff);
        assert_eq!(link.failures, failures);
        let Stage::Pausing(until) = link.stage else { panic!("it waits") };
        let delay = until - begin;
        let range = Duration::from_millis(at_least)..Duration::from_millis(at_most + 500);
        assert!(range.contains(&delay), "{failures}: {delay:?}");
    }
}

// ---- With a clock

/// A client and a node that uses it.
struct Pair {
    client: TestNode<WebSocketClient>,
    out: TestNode<WebSocketOut>,
}

impl Pair {
    /// With these properties; the id is for the two to find each other, among those of other tests.
    fn new(id: &str, properties: Value) -> Self {
        let client = Setup::new().id(id).config(properties).create().unwrap();
        let mut pair = Self { client, out: user(id) };
        pair.client.run();
        pair
    }

    /// Lets a message go out.
    fn send(&mut self, msg: Value) {
        self.out.input(Msg::try_from(msg).unwrap());
        self.client.run();
    }

    /// The time that passes until it dials, and what it dials; at most a minute.
    fn wait_dial(&mut self) -> (Duration, flowbay_sdk::testing::Dialled) {
        let step = Duration::from_millis(10);
        for steps in 0..6_000 {
            if let Some(dialled) = self.client.dialled() {
                return (step * steps, dialled);
            }
            self.client.advance(step);
        }
        panic!("it does not dial")
    }

    /// Answers the next dial and its handshake.
    fn connect(&mut self) -> TestPeer {
        let (_, dialled) = self.wait_dial();
        let peer = self.client.connect(dialled);
        let request = String::from_utf8(peer.read()).unwrap();
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        peer.write(format!(
            "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        ));
        self.client.run();
        assert_eq!(self.client.sessions().len(), 1);
        peer
    }

    /// What everybody sees of the log.
    fn said(&mut self) -> Vec<String> {
        let lines = self.client.log().into_iter();
        lines.filter(|line| !matches!(line.level, LogLevel::Debug)).map(|line| line.text).collect()
    }
}

fn user(id: &str) -> TestNode<WebSocketOut> {
    TestNode::new(value!({"client": id, "control": true}))
}

#[track_caller]
fn assert_about(time: Duration, planned_ms: u64) {
    let planned = Duration::from_millis(planned_ms);
    assert!(time >= planned.mul_f64(0.79) && time <= planned.mul_f64(1.21), "{time:?}, not {planned:?}");
}

#[test]
fn attempts_are_one_two_four_seconds_apart_and_never_much_more_than_thirty() {
    let mut pair = Pair::new("back-off", value!({"path": "ws://h"}));
    let (_, first) = pair.wait_dial();
    pair.client.refuse(first, "no");
    for planned_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        let (time, dialled) = pair.wait_dial();
        assert_about(time, planned_ms);
        pair.client.refuse(dialled, "no");
    }
    assert_eq!(pair.said(), ["could not connect to ws://h/: no"], "said once");
    assert_eq!(pair.client.metric("websocket_reconnects_total"), Some(7));
}

#[test]
fn a_successor_waits_as_long_as_its_predecessor_would_have() {
    let mut pair = Pair::new("successor", value!({"path": "ws://h", "reconnectDelay": 8}));
    let (_, first) = pair.wait_dial();
    pair.client.refuse(first, "no");
    assert_eq!(pair.said().len(), 1);
    let Ok(client) = pair.client.hand_over() else { panic!("it hands over") };
    let mut pair = Pair { client, out: user("successor") };
    let (time, dialled) = pair.wait_dial();
    assert_about(time, 8_000);
    pair.client.refuse(dialled, "no");
    assert_about(pair.wait_dial().0, 16_000);
    assert_eq!(pair.said(), [""; 0], "said by the predecessor");
}

#[test]
fn another_cause_is_said_when_it_lasts() {
    let mut pair = Pair::new("cause", value!({"path": "ws://u:secret@h/x?token=t", "reconnectDelay": 0}));
    for why in ["this", "this", "that"] {
        let (_, dialled) = pair.wait_dial();
        pair.client.refuse(dialled, why);
    }
    // The second cause came within ten seconds, and is said if it still is one then.
    assert_eq!(pair.said()[0], "could not connect to ws://h/x: this");
    let link = pair.client.save().unwrap().unwrap()["link"].clone();
    assert_eq!(link["failure"], "could not connect to ws://h/x: this");
}

#[test]
fn a_handshake_that_hangs_is_given_up_after_ten_seconds() {
    let mut pair = Pair::new("hanging", value!({"path": "ws://h"}));
    let (_, dialled) = pair.wait_dial();
    let peer = pair.client.connect(dialled);
    pair.client.advance(Duration::from_millis(9_900));
    assert!(!peer.is_closed());
    pair.client.advance(Duration::from_millis(200));
    assert!(peer.is_closed());
    assert_eq!(
        pair.said(),
        ["could not connect to ws://h/: the server did not answer the handshake within 10s"]
    );
}

#[test]
fn the_host_is_told_how_to_connect() {
    let mut pair = Pair::new("told", value!({"path": "wss://h/x", "tls": "t", "connectTimeout": "2.5"}));
    let (_, dialled) = pair.wait_dial();
    let expected = value!({
        "host": "h", "port": 443, "tls": true, "timeout_ms": 2500, "tls_config": "t", "proxy": true
    });
    assert_eq!(dialled.options, expected);
}

#[test]
fn a_connection_that_nobody_uses_ends_after_five_seconds() {
    let mut pair = Pair::new("unused", value!({"path": "ws://h"}));
    let peer = pair.connect();
    let done = std::mem::replace(&mut pair.out, user("nobody")).close(true);
    assert!(done);
    pair.client.advance(Duration::from_millis(4_900));
    assert_eq!(peer.read(), b"");
    pair.client.advance(Duration::from_millis(200));
    assert_eq!(peer.read()[..2], [0x88, 0x80], "a close frame without a code");
    peer.close();
    pair.client.advance(Duration::from_secs(60));
    assert!(pair.client.dialled().is_none());
    // Until somebody comes.
    pair.out = user("unused");
    pair.wait_dial();
}

#[test]
fn a_server_that_reads_nothing_is_left_soon_after_the_flow_has_said_so() {
    let mut pair = Pair::new("deaf", value!({"path": "ws://h"}));
    let peer = pair.connect();
    peer.set_room(Some(10));
    pair.send(value!({"payload": "x".repeat(100_000)}));
    pair.send(value!({"action": "disconnect"}));
    pair.client.advance(Duration::from_millis(9_900));
    assert!(!peer.is_closed());
    pair.client.advance(Duration::from_millis(5_200));
    assert!(peer.is_closed());
    assert_eq!(pair.client.sessions(), [""; 0].map(Str::from));
    assert!(pair.said()[0].ends_with("with ws://h/ is ended: it does not read"), "{:?}", pair.said());
}

#[test]
fn what_is_sent_after_a_close_is_for_the_next_connection() {
    let mut pair = Pair::new("next", value!({"path": "ws://h", "queueWhileDisconnected": 10}));
    let peer = pair.connect();
    let session = pair.client.sessions()[0].clone();
    pair.send(value!({"action": "close", "_session": {"type": "websocket", "id": "another"}}));
    pair.send(value!({"payload": "first"}));
    pair.send(value!({"action": "close", "code": 4000, "_session": {"type": "websocket", "id": session}}));
    pair.send(value!({"payload": "second"}));
    let read = peer.read();
    // A header of six bytes before each payload.
    assert_eq!((read.len(), read[0], read[11]), (6 + 5 + 6 + 2, 0x81, 0x88), "{read:?}");
    peer.write([0x88, 0]);
    peer.close();
    let peer = pair.connect();
    assert_eq!(peer.read().len(), 6 + 6);
    assert!(pair.out.failures().is_empty());
}

#[test]
fn what_a_connection_gives_back_and_does_not_fit_is_counted_as_undelivered() {
    let mut pair = Pair::new("no-fit", value!({"path": "ws://h", "queueWhileDisconnected": 2}));
    let peer = pair.connect();
    peer.set_room(Some(0));
    for number in 0..100 {
        pair.send(value!({"payload": number.to_string().repeat(10_000)}));
    }
    peer.close();
    pair.client.run();
    assert_eq!(pair.client.metric("websocket_waiting_messages"), Some(2));
    assert!(pair.client.metric("websocket_waiting_bytes") > Some(20_000));
    let undelivered = pair.client.metric("websocket_undelivered_total").unwrap();
    let said = pair.said();
    let expected = format!("{undelivered} messages that a connection did not send do not fit");
    assert!(
        undelivered > 10 && said.iter().any(|line| line.starts_with(&expected)),
        "{undelivered}: {said:?}"
    );
}

#[test]
fn an_id_that_a_client_has_no_connection_of_is_counted_when_it_is_to_be_closed() {
    let mut pair = Pair::new("unknown", value!({"path": "ws://h"}));
    let _peer = pair.connect();
    let session = pair.client.sessions()[0].clone();
    let mut close = |id: Value| {
        pair.send(value!({"action": "close", "_session": {"type": "websocket", "id": id}}));
        pair.client.metric("websocket_undelivered_total")
    };
    assert_eq!(close("another".into()), Some(1));
    assert_eq!(close(value!(["x", session.clone(), 7])), Some(3));
    assert_eq!(close(session.into()), Some(4), "it is closing already");
}

#[test]
fn a_message_is_an_error_in_whatever_stage_there_is_no_connection() {
    let mut pair = Pair::new("stages", value!({"path": "ws://h"}));
    let error = |pair: &mut Pair, stage: &str| {
        pair.send(value!({"payload": "x"}));
        let failures = pair.out.failures();
        assert_eq!(failures.len(), 1, "{stage}");
        let expected = format!("not connected to ws://h/ ({stage}): the message is not sent");
        assert_eq!(failures[0].text, expected);
    };
    error(&mut pair, "connecting");
    let (_, dialled) = pair.wait_dial();
    pair.client.refuse(dialled, "no");
    error(&mut pair, "waiting for the next attempt");
    pair.send(value!({"action": "disconnect"}));
    error(&mut pair, "disconnected until told to connect");
    pair.send(value!({"action": "connect"}));
    let _peer = pair.connect();
    pair.send(value!({"payload": "x"}));
    assert!(pair.out.failures().is_empty());
    pair.send(value!({"action": "disconnect"}));
    error(&mut pair, "the connection is closing");
}
