//! What becomes of messages for a `websocket-client` without a connection, and the actions that open and close one;
//! all of it also while newer code takes over.

use std::time::Duration;

use flowbay_tests::harness::{Client, Flow, Frame, Host, WsServer, eventually_within};
use serde_json::{Value, json};

use super::websocket_client::swap;

/// What comes from `/io` is sent; what goes wrong with it, and statuses, come back there.
fn sender(url: &str, properties: Value) -> Flow {
    let mut config = json!({"path": url, "reconnect": "fixed", "reconnectDelay": 0.05});
    config.as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
    Flow::new()
        .config("client", "websocket-client", config)
        .forget("forget", "send")
        .node("send", "websocket out", "", json!({"client": "client", "control": true}))
        .node("caught", "catch", "out", json!({"scope": ["send"]}))
        .node("watch", "status", "out", json!({"scope": ["send"]}))
        .io("forget")
}

fn run(flow: &Flow) -> Host {
    Host::builder().flow(flow).argument("--no-watch").start()
}

fn send(io: &mut Client, payload: impl Into<Value>) {
    io.send_json(&json!({"payload": payload.into()}));
}

/// Waits for a status with this event, past whatever else comes.
fn wait_event(io: &mut Client, event: &str) -> Value {
    loop {
        let msg = io.recv_json();
        if msg["status"]["event"] == event {
            return msg["status"].clone();
        }
    }
}

/// Waits for a message that failed, past statuses.
fn wait_error(io: &mut Client) -> Value {
    loop {
        let msg = io.recv_json();
        if msg.get("error").is_some() {
            return msg;
        }
    }
}

/// A metric of the client.
fn metric(host: &Host, name: &str) -> f64 {
    let reply = host.get("/metrics");
    let (name, node) = (format!("flowbay_{name}{{"), "node=\"client\"");
    let line = reply.body.lines().find(|line| line.starts_with(&name) && line.contains(node));
    let line = line.unwrap_or_else(|| panic!("no {name}:\n{}", reply.body));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// How many messages wait for a connection and with how many bytes, and how many were undelivered so far.
fn figures(host: &Host) -> [f64; 3] {
    ["websocket_waiting_messages", "websocket_waiting_bytes", "websocket_undelivered_total"]
        .map(|name| metric(host, name))
}

/// That nothing connects, which takes a moment to see.
fn assert_stays_away(server: &WsServer) {
    assert!(eventually_within(Duration::from_millis(300), || server.try_accept_tcp()).is_none());
}

// ---- Without a queue

#[test]
fn a_message_without_a_connection_is_an_error_that_catch_nodes_see() {
    // Never accepted: the handshake hangs.
    let server = WsServer::bind();
    let host = run(&sender(&server.url("/x?secret"), json!({})));
    let mut io = host.io();
    send(&mut io, "too early");
    let msg = wait_error(&mut io);
    let expected = format!("not connected to {} (connecting): the message is not sent", server.url("/x"));
    assert_eq!(msg["error"]["message"], expected);
    assert_eq!(msg["payload"], "too early");
    assert_eq!(msg["error"]["code"], "NOT_CONNECTED", "{msg}");
    assert_eq!(figures(&host), [0.0, 0.0, 1.0]);

    let peer = server.accept();
    wait_event(&mut io, "connect");
    drop(peer);
    wait_event(&mut io, "disconnect");
    // A flow that hears of the end can count on it: the message goes nowhere, and that is said.
    send(&mut io, "too late");
    loop {
        let msg = io.recv_json();
        if msg.get("error").is_some() {
            assert_eq!(msg["payload"], "too late");
            assert_eq!(figures(&host), [0.0, 0.0, 2.0]);
            return;
        }
    }
}

// ---- The queue

#[test]
fn messages_wait_for_the_connection_and_are_sent_in_order_before_newer_ones() {
    let server = WsServer::bind();
    let host = run(&sender(&server.url("/"), json!({"queueWhileDisconnected": "3"})));
    let mut io = host.io();
    for payload in ["1", "2", "3", "one too many"] {
        send(&mut io, payload);
    }
    let msg = wait_error(&mut io);
    assert_eq!(msg["payload"], "one too many");
    assert_eq!(msg["error"]["code"], "QUEUE_FULL", "{msg}");
    assert_eq!(figures(&host), [3.0, 3.0 * 65.0, 1.0]);
    let mut peer = server.accept();
    wait_event(&mut io, "connect");
    assert_eq!(figures(&host), [0.0, 0.0, 1.0]);
    send(&mut io, "4");
    for payload in ["1", "2", "3", "4"] {
        assert_eq!(peer.socket.recv_text(), payload);
    }

    drop(peer);
    wait_event(&mut io, "disconnect");
    send(&mut io, "5");
    assert_eq!(server.accept().socket.recv_text(), "5");
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let server = WsServer::bind();
    // Each is taken for 64 bytes more than it has.
    let properties = json!({"queueWhileDisconnected": 100, "queueWhileDisconnectedBytes": 10 + 2 * 64});
    let host = run(&sender(&server.url("/"), properties));
    let mut io = host.io();
    for payload in ["12345", "678901", "67890"] {
        send(&mut io, payload);
    }
    assert_eq!(wait_error(&mut io)["payload"], "678901");
    let mut peer = server.accept();
    assert_eq!(peer.socket.recv_text(), "12345");
    assert_eq!(peer.socket.recv_text(), "67890");
}

#[test]
fn what_waits_survives_a_swap() {
    let server = WsServer::bind();
    let host = run(&sender(&server.url("/"), json!({"queueWhileDisconnected": 3})));
    let mut io = host.io();
    send(&mut io, "1");
    send(&mut io, "2");
    swap(&host, 1);
    send(&mut io, "3");
    send(&mut io, "4");
    assert_eq!(wait_error(&mut io)["payload"], "4", "the limit is that of all");
    assert_eq!(figures(&host), [3.0, 3.0 * 65.0, 1.0]);
    // The first attempt went with the code that made it.
    drop(server.accept_tcp());
    let mut peer = server.accept();
    for payload in ["1", "2", "3"] {
        assert_eq!(peer.socket.recv_text(), payload);
    }
}

/// Numbered messages of 10 KB each.
fn send_many(io: &mut Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        send(io, format!("{number:x<10000}"));
    }
}

fn number_of(text: &str) -> usize {
    text.trim_end_matches('x').parse().unwrap()
}

#[test]
fn what_has_waited_and_is_being_sent_survives_a_swap() {
    const MANY: usize = 1_500;
    let server = WsServer::bind();
    let host = run(&sender(&server.url("/"), json!({"queueWhileDisconnected": 10_000})));
    let mut io = host.io();
    send_many(&mut io, 0..MANY);
    send(&mut io, Value::Null);
    // A server that reads nothing for now: 15 MB are more than any socket takes.
    let mut peer = server.accept();
    wait_event(&mut io, "connect");
    for generation in 1..4 {
        swap(&host, generation);
        send_many(&mut io, MANY + generation - 1..MANY + generation);
    }
    for number in 0..MANY {
        assert_eq!(number_of(&peer.socket.recv_text()), number);
    }
    assert_eq!(peer.socket.recv_text(), "null");
    for number in MANY..MANY + 3 {
        assert_eq!(number_of(&peer.socket.recv_text()), number);
    }
}

#[test]
fn what_a_lost_connection_did_not_take_is_sent_by_the_next_one() {
    const MANY: usize = 1_500;
    for swaps in [0, 1] {
        let server = WsServer::bind();
        let host = run(&sender(&server.url("/"), json!({"queueWhileDisconnected": 10_000})));
        let mut io = host.io();
        send_many(&mut io, 0..MANY);
        let mut peer = server.accept();
        wait_event(&mut io, "connect");
        // Newer ones, which wait in the queue of the connection.
        send_many(&mut io, MANY..MANY + 10);
        for generation in 0..swaps {
            swap(&host, generation + 1);
        }
        for number in 0..10 {
            assert_eq!(number_of(&peer.socket.recv_text()), number);
        }
        drop(peer);
        wait_event(&mut io, "disconnect");
        send_many(&mut io, MANY + 10..MANY + 11);
        let mut peer = server.accept();
        // What the sockets had taken is lost, as with every WebSocket.
        let first = number_of(&peer.socket.recv_text());
        assert!((10..MANY).contains(&first), "the first is {first}");
        for number in first + 1..MANY + 11 {
            assert_eq!(number_of(&peer.socket.recv_text()), number, "after {swaps} swaps, first {first}");
        }
    }
}

// ---- A server that reads nothing

#[test]
fn a_server_that_reads_nothing_is_cut_when_its_queue_is_full_and_connected_to_again() {
    let server = WsServer::bind();
    let properties = json!({"sendQueueBytes": 100_000, "queueWhileDisconnected": 100_000});
    let host = run(&sender(&server.url("/"), properties));
    let mut io = host.io();
    let mut deaf = server.accept_raw();
    deaf.agree();
    wait_event(&mut io, "connect");
    send_many(&mut io, 0..1_500);
    let status = wait_event(&mut io, "disconnect");
    assert_eq!(status["code"], 1008, "{status}");
    let mut peer = server.accept();
    // What did not fit any more comes now.
    let first = number_of(&peer.socket.recv_text());
    for number in first + 1..1_500 {
        assert_eq!(number_of(&peer.socket.recv_text()), number);
    }
}

#[test]
fn a_server_that_reads_nothing_is_left_when_the_flow_says_so() {
    let (deaf, other) = (WsServer::bind(), WsServer::bind());
    let host = run(&sender(&deaf.url("/"), json!({})));
    let mut io = host.io();
    let mut visitor = deaf.accept_raw();
    visitor.agree();
    wait_event(&mut io, "connect");
    // 12 MB are more than any socket takes.
    send_many(&mut io, 0..1_200);
    act(&mut io, "connect", json!({"url": other.url("/")}));
    other.accept();
}

// ---- Actions

fn act(io: &mut Client, action: &str, more: Value) {
    let mut msg = json!({"action": action});
    msg.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    io.send_json(&msg);
}

#[test]
fn disconnect_lasts_until_connect_also_over_a_swap() {
    let server = WsServer::bind();
    let host = run(&sender(&server.url("/"), json!({})));
    let mut io = host.io();
    let mut peer = server.accept();
    wait_event(&mut io, "connect");
    act(&mut io, "disconnect", json!({"code": 4001, "reason": "for now"}));
    assert_eq!(peer.socket.recv(), Frame::Close(Some((4001, "for now".to_owned()))));
    wait_event(&mut io, "disconnect");
    send(&mut io, "nobody there");
    let error = wait_error(&mut io)["error"]["message"].to_string();
    assert!(error.contains("disconnected until told to connect"), "{error}");
    assert_stays_away(&server);
    swap(&host, 1);
    assert_stays_away(&server);
    act(&mut io, "disconnect", json!({}));

    act(&mut io, "connect", json!({}));
    let mut peer = server.accept();
    wait_event(&mut io, "connect");
    // Connected already: nothing happens.
    act(&mut io, "connect", json!({}));
    send(&mut io, "here again");
    assert_eq!(peer.socket.recv_text(), "here again");
}

#[test]
fn connect_with_a_url_goes_there_until_connect_without_one() {
    let (home, away) = (WsServer::bind(), WsServer::bind());
    let host = run(&sender(&home.url("/"), json!({"queueWhileDisconnected": 10})));
    let mut io = host.io();
    let mut peer = home.accept();
    wait_event(&mut io, "connect");
    act(&mut io, "connect", json!({"url": away.url("/there")}));
    send(&mut io, "for the other");
    assert_eq!(peer.socket.recv_close(), 1000);
    drop(peer);
    let mut peer = away.accept();
    assert_eq!(peer.path, "/there");
    assert_eq!(peer.socket.recv_text(), "for the other");
    let mut wait_reconnected = || {
        wait_event(&mut io, "disconnect");
        wait_event(&mut io, "connect");
    };
    wait_reconnected();

    // It stays there when the connection is lost, and when the code is swapped.
    drop(peer);
    let peer = away.accept();
    wait_reconnected();
    swap(&host, 1);
    drop(peer);
    let mut peer = away.accept();
    wait_reconnected();

    act(&mut io, "connect", json!({}));
    assert_eq!(peer.socket.recv_close(), 1000);
    drop(peer);
    home.accept();
    assert_stays_away(&away);
}

#[test]
fn connect_does_not_wait_for_the_next_attempt() {
    let server = WsServer::bind();
    let host = run(&sender(&server.url("/"), json!({"reconnectDelay": 3_600})));
    let mut io = host.io();
    drop(server.accept_tcp());
    wait_event(&mut io, "disconnect");
    act(&mut io, "connect", json!({}));
    server.accept();
}

#[test]
fn disconnect_gives_up_a_connection_that_is_being_opened() {
    let server = WsServer::bind();
    let host = run(&sender(&server.url("/"), json!({})));
    let mut io = host.io();
    let mut hanging = server.accept_raw();
    act(&mut io, "disconnect", json!({}));
    hanging.read_to_end();
    wait_event(&mut io, "disconnect");
    assert_stays_away(&server);
}

#[test]
fn connect_to_what_is_no_url_is_an_error_and_changes_nothing() {
    let server = WsServer::bind();
    let host = run(&sender(&server.url("/"), json!({})));
    let mut io = host.io();
    let mut peer = server.accept();
    wait_event(&mut io, "connect");
    for url in ["http://localhost/", "nowhere", "ws://u:hunter2@host:x/"] {
        act(&mut io, "connect", json!({"url": url}));
        let error = wait_error(&mut io)["error"]["message"].to_string();
        assert!(error.contains("Invalid URL") && !error.contains("hunter2"), "{url}: {error}");
    }
    send(&mut io, "still here");
    assert_eq!(peer.socket.recv_text(), "still here");
}
