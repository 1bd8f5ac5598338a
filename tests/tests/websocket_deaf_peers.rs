//! Peers that read nothing of what they are sent, and connections to them that are to end.

use std::time::Duration;

use flowbay_tests::harness::{Client, Flow, Frame, Host, RawPeer, WsServer};
use serde_json::{Value, json};

use super::websocket_client::swap;

/// What comes from `/io` goes to the sessions in `to`, or is done with them; statuses come back there.
fn controlled(config: &str, properties: Value) -> Flow {
    let address = json!([
        {"t": "delete", "p": "_session", "pt": "msg"},
        {"t": "move", "p": "to", "pt": "msg", "to": "_session", "tot": "msg"},
    ]);
    Flow::new()
        .config("config", config, properties)
        .change("address", "send", address)
        .node("send", "websocket out", "", json!({"server": "config", "control": true}))
        .node("watch", "status", "out", json!({"scope": ["send"]}))
        .io("address")
}

fn listening(mut properties: Value) -> Host {
    properties["path"] = json!("/ws");
    start(&controlled("websocket-listener", properties))
}

fn connecting(server: &WsServer, mut properties: Value) -> Host {
    properties["path"] = json!(server.url("/"));
    properties["reconnect"] = json!("fixed");
    properties["reconnectDelay"] = json!(0.05);
    start(&controlled("websocket-client", properties))
}

fn start(flow: &Flow) -> Host {
    Host::builder().flow(flow).argument("--no-watch").start()
}

/// Numbered messages of so many bytes.
fn send_many(io: &mut Client, numbers: std::ops::Range<usize>, bytes: usize) {
    let rest = "x".repeat(bytes);
    for number in numbers {
        io.send_json(&json!({"payload": format!("{number}{rest}")}));
    }
}

fn number_of(text: &str) -> usize {
    text.trim_end_matches('x').parse().unwrap()
}

/// Waits for the status of a connection that ended.
fn wait_disconnect(io: &mut Client) -> Value {
    loop {
        let status = io.recv_json()["status"].clone();
        if status["event"] == "disconnect" {
            return status;
        }
    }
}

fn metric(host: &Host, name: &str) -> f64 {
    let reply = host.get("/metrics");
    assert_eq!(reply.status, 200, "{reply:?}");
    let start = format!("flowbay_{name}{{");
    let line = reply.body.lines().find(|line| line.starts_with(&start) && line.contains("node=\"config\""));
    let line = line.unwrap_or_else(|| panic!("no {name}:\n{}", reply.body));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn descriptors(host: &Host) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap().count()
}

fn resident_mb(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn peers_that_read_nothing_are_gone_soon_after_they_are_cut() {
    const DEAF: usize = 20;
    let host = listening(json!({"sendQueueBytes": 1_000_000}));
    let mut io = host.io();
    let before = (descriptors(&host), resident_mb(&host));
    let _peers: Vec<RawPeer> = (0..DEAF).map(|_| RawPeer::websocket(host.address(), "/ws")).collect();
    // Statuses are read meanwhile, or `/io` itself would be deaf.
    for _ in 0..DEAF {
        assert_eq!(io.recv_json()["status"]["event"], "connect");
    }
    send_many(&mut io, 0..100, 100_000);
    for left in (0..DEAF).rev() {
        let status = wait_disconnect(&mut io);
        // One whose socket made room for the close frame has got it, even if nobody reads it.
        let how = (status["code"].as_u64().unwrap(), status["reason"].as_str().unwrap());
        assert!([(1006, "it does not read"), (1008, "the send queue is full")].contains(&how), "{status}");
        let expected =
            if left == 0 { "common.status.disconnected".to_owned() } else { format!("connected {left}") };
        assert_eq!(status["text"], expected);
    }
    assert_eq!(metric(&host, "websocket_connections"), 0.0);
    assert_eq!(metric(&host, "session_cut_total"), DEAF as f64);
    host.eventually("all is given back", || (descriptors(&host) <= before.0).then_some(()));
    let after = resident_mb(&host);
    assert!(after < before.1 + 20, "from {} to {after} MB", before.1);
    let lines = host.count_log("is ended: it does not read");
    assert!(lines <= 3, "one now and then: {}", host.log());
}

#[test]
fn a_peer_that_reads_nothing_is_gone_soon_after_a_flow_has_closed_it() {
    check_closed_by_a_flow(0);
}

#[test]
fn a_peer_that_reads_nothing_and_was_closed_by_a_flow_is_gone_soon_after_a_swap() {
    check_closed_by_a_flow(1);
}

fn check_closed_by_a_flow(swaps: usize) {
    let host = listening(json!({}));
    let mut io = host.io();
    let mut peer = RawPeer::websocket(host.address(), "/ws");
    let id = io.recv_json()["status"]["_session"]["id"].clone();
    // More than any socket takes, and less than the queue does.
    send_many(&mut io, 0..120, 100_000);
    host.eventually("it is blocked", || (metric(&host, "session_queue_messages") > 0.0).then_some(()));
    let to = json!({"type": "websocket", "id": id});
    io.send_json(&json!({"action": "close", "code": 4000, "to": to}));
    for number in 0..swaps {
        swap(&host, number + 1);
    }
    // It gets nothing more, and is not cut because of that.
    io.send_json(&json!({"payload": "to all"}));
    let status = wait_disconnect(&mut io);
    assert_eq!((&status["code"], &status["reason"]), (&json!(1006), &json!("it does not read")), "{status}");
    assert_eq!((metric(&host, "websocket_connections"), metric(&host, "session_cut_total")), (0.0, 0.0));
    // It is not there any more.
    while peer.try_write_frame(1, b"x") {}
}

#[test]
fn a_close_request_gets_through_a_queue_that_is_full_whatever_becomes_of_messages() {
    for overflow in ["close", "drop-newest", "drop-oldest"] {
        let host = listening(json!({"sendQueueMessages": 20, "sendQueueOverflow": overflow}));
        let mut io = host.io();
        let mut peer = RawPeer::websocket(host.address(), "/ws");
        let id = io.recv_json()["status"]["_session"]["id"].clone();
        let mut sent = 0;
        host.eventually("it is full", || {
            send_many(&mut io, sent..sent + 1, 100_000);
            sent += 1;
            (metric(&host, "session_queue_messages") >= 19.0).then_some(())
        });
        if overflow != "close" {
            send_many(&mut io, sent..sent + 20, 100_000);
        }
        let to = json!({"type": "websocket", "id": id});
        io.send_json(&json!({"action": "close", "code": 4000, "reason": "full", "to": to}));
        send_many(&mut io, sent + 20..sent + 60, 100_000);
        assert_eq!(peer.read_close_code(), Some(4000), "{overflow}: {}", host.log());
        drop(peer);
        assert_eq!(wait_disconnect(&mut io)["code"], 4000, "{overflow}");
    }
}

#[test]
fn a_client_leaves_a_server_whose_queue_is_full_whatever_becomes_of_messages() {
    for overflow in ["drop-newest", "drop-oldest"] {
        let (slow, other) = (WsServer::bind(), WsServer::bind());
        let host = connecting(&slow, json!({"sendQueueMessages": 20, "sendQueueOverflow": overflow}));
        let mut io = host.io();
        let mut peer = slow.accept();
        assert_eq!(io.recv_json()["status"]["event"], "connect");
        host.eventually("messages are dropped", || {
            send_many(&mut io, 0..10, 100_000);
            (metric(&host, "session_dropped_total") > 0.0).then_some(())
        });
        io.send_json(&json!({"action": "connect", "url": other.url("/")}));
        while !matches!(peer.socket.recv(), Frame::Close(Some((1000, _)))) {}
        drop(peer);
        other.accept();
    }
}

#[test]
fn what_waits_while_a_connection_closes_during_a_swap_is_sent_by_the_next_one() {
    let server = WsServer::bind();
    let host = connecting(&server, json!({"queueWhileDisconnected": 1_000}));
    let mut io = host.io();
    let mut peer = server.accept();
    assert_eq!(io.recv_json()["status"]["event"], "connect");
    let mut sent = 0;
    let waiting = host.eventually("it is blocked", || {
        send_many(&mut io, sent..sent + 5, 10_000);
        sent += 5;
        // Those are taken from the queue together, or not.
        let waiting = metric(&host, "session_queue_messages") as usize;
        (waiting > 4).then_some(waiting)
    });
    assert!(waiting < 25, "so few that it still reads: {waiting}");
    // It cannot answer this, as nothing is read here; and it cannot move any more.
    peer.socket.close(1000, "");
    swap(&host, 1);
    let mut next = server.accept();
    let first = number_of(&next.socket.recv_text());
    assert!(first <= sent - waiting, "of {sent}, {waiting} waited, and the first to come is {first}");
    for number in first + 1..sent {
        assert_eq!(number_of(&next.socket.recv_text()), number);
    }
    drop(peer);
    assert!(next.socket.recv_within(Duration::from_millis(100)).is_none(), "and nothing more");
}
