//! What peers cannot do: keep the host waiting, or make it hold what it should not.

use std::time::{Duration, Instant};

use flowbay_tests::harness::{Flow, Frame, Host, HostBuilder, PATIENCE, RawPeer, request};
use serde_json::json;

fn echo() -> HostBuilder {
    let flow = Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("in", "websocket in", "out", json!({"server": "listener"}))
        .node("out", "websocket out", "", json!({"server": "listener"}));
    Host::builder().flow(&flow)
}

fn assert_echoes(host: &Host) {
    let mut client = host.connect("/ws");
    client.send_text("still here");
    assert_eq!(client.recv_text(), "still here");
}

#[test]
fn a_client_that_does_not_finish_its_handshake_is_cut() {
    let host = echo().setting("http_header_timeout_ms", 300).start();
    for beginning in ["", "GET", "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso"] {
        let mut slow = RawPeer::connect(host.address());
        slow.write(beginning.as_bytes());
        let begin = Instant::now();
        slow.read_to_end();
        assert!(begin.elapsed() < Duration::from_secs(10), "{beginning:?}: after {:?}", begin.elapsed());
    }
    assert_echoes(&host);
}

#[test]
fn a_websocket_may_be_silent_for_longer_than_a_handshake() {
    let host = echo().setting("http_header_timeout_ms", 200).start();
    let mut client = host.connect("/ws");
    assert_eq!(client.recv_within(Duration::from_millis(800)), None);
    client.send_text("awake");
    assert_eq!(client.recv_text(), "awake");
}

#[test]
fn a_header_that_is_too_large_is_refused() {
    let host = echo().setting("http_max_header_bytes", 8_192).start();
    let large = format!("X-Large: {}", "x".repeat(20_000));
    let mut headers = RawPeer::usual_headers();
    headers.push(large);
    let reply = RawPeer::connect(host.address()).handshake("GET", "/ws", &headers);
    assert_eq!(reply.status, 431, "{reply:?}");
    assert_echoes(&host);
}

#[test]
fn a_request_body_that_is_too_large_is_refused() {
    let flow = Flow::new().node("press", "inject", "", json!({"props": []}));
    let host = Host::builder().flow(&flow).setting("http_max_body_bytes", 1_000).start();
    let reply = request(host.address(), "POST", "/inject/press", &[], &"x".repeat(5_000));
    assert_eq!(reply.status, 413, "{reply:?}");
    host.inject("press");
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once_and_one_that_ends_makes_room() {
    let host = echo().setting("max_connections", 3).start();
    let mut clients: Vec<_> = (0..3).map(|_| host.connect("/ws")).collect();
    let mut refused = RawPeer::connect(host.address());
    assert!(refused.read_to_end().is_empty());
    for client in &mut clients {
        client.send_text("undisturbed");
        assert_eq!(client.recv_text(), "undisturbed");
    }
    let mut leaving = clients.pop().unwrap();
    leaving.close(1000, "");
    assert!(matches!(leaving.recv(), Frame::Close(_)));
    drop(leaving);
    host.eventually("a place is free", || {
        let mut peer = RawPeer::connect(host.address());
        peer.write(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        peer.read_to_end().starts_with(b"HTTP/1.1 404").then_some(())
    });
}

#[test]
fn a_peer_that_sends_and_never_reads_is_not_held_in_memory() {
    // An echo to a client that reads nothing: when its queue is full, it is cut.
    let host = echo().setting("session_queue_bytes", 500_000).start();
    let mut flood = RawPeer::websocket(host.address(), "/ws");
    flood.set_write_timeout(Duration::from_millis(500));
    let payload = vec![b'x'; 50_000];
    let end = Instant::now() + PATIENCE;
    while flood.try_write_frame(2, &payload) {
        assert!(Instant::now() < end, "the host takes whatever comes for ever\n{}", host.logs());
    }
    let resident = resident_bytes(host.pid());
    assert!(resident < 150_000_000, "{resident} bytes are in use");
    assert_echoes(&host);
}

#[test]
fn garbage_instead_of_a_request_is_answered_or_cut_and_nothing_else_happens() {
    let host = echo().start();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut peer = RawPeer::connect(host.address());
        peer.write(garbage);
        peer.finish_writing();
        let answer = peer.read_to_end();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_echoes(&host);
    assert_eq!(host.count_log("panicked"), 0, "{}", host.log());
}

/// Memory of a process that is in use, in bytes.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}
