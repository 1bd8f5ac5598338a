//! What a `websocket-client` does about servers that are not there, do not answer, answer nonsense, or go away: when it
//! tries again, and what it says.

use std::time::{Duration, Instant};

use flowbay_tests::harness::{
    Client, Flow, Frame, Host, Visitor, WsServer, eventually, eventually_within, free_port, reset,
};
use serde_json::{Value, json};

use super::websocket_client::{statuses, swap, watched};

/// Pauses as short as they can be.
fn at_once() -> Value {
    json!({"reconnect": "fixed", "reconnectDelay": 0})
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

// ---- When

#[test]
fn with_a_fixed_delay_it_is_tried_again_after_three_seconds_as_in_node_red() {
    let server = WsServer::bind();
    let host = Host::run(&watched(&server.url("/"), json!({"reconnect": "fixed"})));
    let mut io = host.io();
    drop(server.accept_tcp());
    let begin = Instant::now();
    assert_eq!(statuses(&mut io, 2), ["error", "disconnect"]);
    server.accept();
    assert!(begin.elapsed() > millis(2_900), "after {:?}", begin.elapsed());
}

#[test]
fn attempts_come_ever_more_slowly_until_a_connection_lasts() {
    let server = WsServer::bind();
    let properties = json!({"reconnectDelay": "0.1", "reconnectMaxDelay": 3.2});
    let _host = Host::run(&watched(&server.url("/"), properties));
    let mut last = Instant::now();
    let mut wait = |server: &WsServer| {
        let stream = server.accept_tcp();
        let waited = last.elapsed();
        last = Instant::now();
        (stream, waited)
    };
    drop(wait(&server));
    for planned in [100, 200, 400, 800, 1_600] {
        let (stream, waited) = wait(&server);
        drop(stream);
        assert!(waited > millis(planned * 7 / 10), "{waited:?} instead of {planned} ms");
    }
    // A handshake is no success yet: the server may be about to drop everybody.
    let (stream, _) = wait(&server);
    drop(server.shake_hands(stream));
    let (stream, waited) = wait(&server);
    assert!(waited > millis(3_200 * 7 / 10), "{waited:?}");

    // One that outlasts the longest delay is: the next attempt is a first one.
    let mut peer = server.shake_hands(stream);
    assert_eq!(peer.socket.recv_within(millis(3_500)), None);
    let lost = Instant::now();
    drop(peer);
    server.accept_tcp();
    assert!(lost.elapsed() < millis(2_200), "after {:?}", lost.elapsed());
}

#[test]
fn a_swap_changes_nothing_about_when_it_is_tried_again() {
    let server = WsServer::bind();
    let properties = json!({"reconnectDelay": 0.1, "reconnectMaxDelay": 60});
    let flow = watched(&server.url("/"), properties);
    let host = Host::builder().flow(&flow).argument("--no-watch").start();
    for _ in 0..4 {
        drop(server.accept_tcp());
    }
    let mut last = Instant::now();
    for (generation, planned) in [(1, 800), (2, 1_600)] {
        swap(&host, generation);
        let stream = server.accept_tcp();
        let waited = last.elapsed();
        last = Instant::now();
        drop(stream);
        assert!(waited > millis(planned * 7 / 10), "{waited:?} instead of {planned} ms");
    }
}

#[test]
fn a_connection_that_is_being_opened_while_code_is_swapped_is_opened_anew() {
    let server = WsServer::bind();
    let flow = watched(&server.url("/"), json!({}));
    let host = Host::builder().flow(&flow).argument("--no-watch").start();
    let mut io = host.io();
    let mut hanging = server.accept_raw();
    swap(&host, 1);
    assert_eq!(hanging.read_to_end(), b"");
    let _peer = server.accept();
    assert_eq!(statuses(&mut io, 1), ["connect"]);
}

#[test]
fn a_server_that_closes_at_once_a_thousand_times_costs_nothing() {
    const TIMES: usize = 1_000;
    let server = WsServer::bind();
    let host = Host::run(&watched(&server.url("/"), at_once()));
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap().count();
    let resident_kb = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let mut before = (0, 0);
    let mut begin = Instant::now();
    for number in 0..TIMES {
        if number == TIMES / 5 {
            before = (fds(), resident_kb());
            begin = Instant::now();
        }
        // By turns before and after the handshake.
        if number % 2 == 0 {
            drop(server.accept_tcp());
        } else {
            server.accept_raw().agree();
        }
    }
    let longest = millis(TIMES as u64 * 4 / 5 * 10);
    assert!(begin.elapsed() >= longest, "10 ms lie between two attempts: {:?}", begin.elapsed());
    let after = (fds(), resident_kb());
    assert!(after.0 <= before.0 + 2, "{} file descriptors, {} before", after.0, before.0);
    assert!(after.1 <= before.1 + 4_096, "{} KiB, {} before", after.1, before.1);
    assert!(host.log().lines().count() < 100, "the log has few lines of it:\n{}", host.log());
    let _peer = server.accept();
}

// ---- Servers that cannot be connected to

/// Runs a client of `url`, lets the server do its part, and returns what the log says of the attempt.
fn failure(url: &str, properties: Value, serve: impl FnOnce()) -> String {
    let host = Host::run(&watched(url, properties));
    let mut io = host.io();
    serve();
    assert_eq!(statuses(&mut io, 2), ["error", "disconnect"]);
    let line = host.wait_log("could not connect to");
    io.send_json(&json!({}));
    line
}

#[test]
fn an_answer_that_is_none_is_said_in_the_log() {
    let ok = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    let rows = [
        (format!("{ok}Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n"), "Invalid Sec-WebSocket-Accept header"),
        (format!("{ok}\r\n"), "Invalid Sec-WebSocket-Accept header"),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".into(), "Unexpected server response: 401"),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n".into(), "Unexpected server response: 503"),
        ("HTTP/1.1 200 OK\r\n\r\n<html>".into(), "Unexpected server response: 200"),
        (
            "HTTP/1.1 302 Found\r\nLocation: ws://localhost/other\r\n\r\n".into(),
            "302 (redirects are not followed)",
        ),
        ("\u{0}\u{1}\u{2}SSH-2.0-nonsense\r\n\r\n".into(), "not valid HTTP"),
        ("HTTP/1.1 101 Switching".into(), "closed the connection"),
    ];
    for (answer, reason) in rows {
        let server = WsServer::bind();
        let line = failure(&server.url("/"), json!({}), || {
            server.accept_raw().answer(&answer);
        });
        assert!(line.contains(reason), "{answer:?}: {line}");
    }
}

#[test]
fn a_server_that_is_not_there_is_said_in_the_log() {
    let url = format!("ws://127.0.0.1:{}/", free_port());
    let line = failure(&url, json!({}), || {});
    assert!(line.contains("refused"), "{line}");
}

#[test]
fn a_server_that_does_not_answer_the_handshake_is_given_up() {
    let server = WsServer::bind();
    let begin = Instant::now();
    let line = failure(&server.url("/"), json!({"connectTimeout": 0.3}), || {
        server.accept_raw().read_to_end();
    });
    assert!(begin.elapsed() >= millis(300));
    assert!(line.contains("did not answer the handshake within 300ms"), "{line}");
}

#[test]
fn a_server_that_answers_byte_by_byte_is_given_up() {
    let server = WsServer::bind();
    let line = failure(&server.url("/"), json!({"connectTimeout": "0.3"}), || {
        let mut visitor = server.accept_raw();
        eventually("the client gives up", || (!visitor.write(b"H")).then_some(()));
    });
    assert!(line.contains("did not answer the handshake within 300ms"), "{line}");
}

#[test]
fn a_server_that_does_not_speak_tls_is_given_up_when_it_is_silent() {
    let server = WsServer::bind();
    let url = server.url("/").replace("ws:", "wss:");
    let line = failure(&url, json!({"connectTimeout": 0.3}), || {
        let mut stream = server.accept_tcp();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    });
    assert!(line.contains("300"), "{line}");
}

#[test]
fn headers_without_end_are_given_up() {
    let server = WsServer::bind();
    let line = failure(&server.url("/"), json!({}), || {
        let mut visitor = server.accept_raw();
        visitor.answer("HTTP/1.1 101 Switching Protocols\r\n");
        let header = format!("X-More: {}\r\n", "x".repeat(1_000));
        eventually("the client gives up", || (!visitor.write(header.as_bytes())).then_some(()));
    });
    assert!(line.contains("more than 16384 bytes"), "{line}");
}

#[test]
fn a_failure_that_repeats_is_said_once() {
    let server = WsServer::bind();
    let host = Host::run(&watched(&server.url("/"), at_once()));
    for _ in 0..20 {
        server.accept_raw().answer("HTTP/1.1 418 I'm a teapot\r\n\r\n");
    }
    let mut peer = server.accept();
    host.wait_log("connected to*again");
    peer.socket.send_text("");
    assert_eq!(host.count_log("418"), 1, "{}", host.log());
}

#[test]
fn no_log_line_and_no_message_shows_the_password_of_the_url() {
    let server = WsServer::bind();
    let url = server.url("/path?token=abc").replace("ws://", "ws://anna:hunter2@");
    let host = Host::run(&watched(&url, at_once()));
    let mut io = host.io();
    let mut visitor = server.accept_raw();
    assert!(visitor.request().contains("\r\nAuthorization: Basic YW5uYTpodW50ZXIy\r\n"));
    visitor.answer("HTTP/1.1 401 Unauthorized\r\n\r\n");
    let mut peer = server.accept();
    for event in ["error", "disconnect", "connect"] {
        let status = io.recv_json()["status"].clone();
        assert_eq!(status["event"], event);
        assert_eq!(status["_session"]["url"], server.url("/path?token=abc"), "{status}");
        assert_eq!(status["_session"]["type"], "websocket", "{status}");
    }
    peer.socket.close(1000, "");
    let status = io.recv_json()["status"].to_string();
    assert!(status.contains("disconnect") && !status.contains("hunter2"), "{status}");
    host.wait_log("401");
    assert!(!host.log().contains("hunter2") && !host.log().contains("token=abc"), "{}", host.log());
}

// ---- Servers that break the connection

#[test]
fn a_reset_in_whatever_state_is_followed_by_another_attempt() {
    const HALF_A_FRAME: &[u8] = &[0x81, 100, b'x', b'x'];
    const A_FRAGMENT: &[u8] = &[0x01, 1, b'x'];
    const A_CLOSE_FRAME: &[u8] = &[0x88, 2, 3, 0xe8];
    /// What the server does before it goes.
    type ComeTo = fn(&mut Visitor);
    let states: [ComeTo; 7] = [
        // The request was read.
        |_| {},
        // Half an answer.
        |visitor| {
            visitor.answer("HTTP/1.1 101 Switching Protocols\r\nUpgr");
        },
        Visitor::agree,
        |visitor| {
            visitor.agree();
            visitor.write(&HALF_A_FRAME[..1]);
        },
        |visitor| {
            visitor.agree();
            visitor.write(HALF_A_FRAME);
        },
        |visitor| {
            visitor.agree();
            visitor.write(A_FRAGMENT);
        },
        |visitor| {
            visitor.agree();
            visitor.write(A_CLOSE_FRAME);
        },
    ];
    let server = WsServer::bind();
    let host = Host::run(&watched(&server.url("/"), at_once()));
    let mut io = host.io();
    for _ in 0..10 {
        reset(server.accept_tcp());
        for come_to in &states {
            let mut visitor = server.accept_raw();
            come_to(&mut visitor);
            visitor.reset();
        }
    }
    let _peer = server.accept();
    eventually("it is connected", || (statuses(&mut io, 1) == ["connect"]).then_some(()));
    host.io();
}

#[test]
fn frames_that_a_server_must_not_send_end_the_connection_with_a_code() {
    let long = |length: u64| [&[0x82, 127][..], &length.to_be_bytes()].concat();
    let rows = [
        ("masked", vec![0x81, 0x81, 1, 2, 3, 4, b'x'], 1002),
        ("a reserved bit", vec![0xc1, 1, b'x'], 1002),
        ("a reserved opcode", vec![0x83, 1, b'x'], 1002),
        ("a long ping", [&[0x89, 126, 0, 126][..], &[0; 126]].concat(), 1002),
        ("a continuation of nothing", vec![0x80, 1, b'x'], 1002),
        ("invalid UTF-8", vec![0x81, 1, 0xff], 1007),
        ("more than the limit", [&[0x82, 126, 4, 1][..], &[0; 1025]].concat(), 1009),
        ("a huge frame", long(1 << 40), 1009),
        ("the largest frame there is", long(i64::MAX as u64), 1009),
    ];
    let server = WsServer::bind();
    let mut properties = at_once();
    properties["maxMessageSize"] = json!("1024");
    let host = Host::run(&watched(&server.url("/"), properties));
    for (what, bytes, code) in rows {
        let mut visitor = server.accept_raw();
        visitor.agree();
        visitor.write(&bytes);
        assert_eq!(read_close_code(&mut visitor), code, "{what}\n{}", host.log());
        visitor.read_to_end();
    }
    let _peer = server.accept();
    host.io();
}

/// The code of the close frame that must come next, masked as a client's frames are.
fn read_close_code(visitor: &mut Visitor) -> u16 {
    let head = visitor.read(6);
    assert_eq!((head[0], head[1] & 0x80), (0x88, 0x80), "a masked close frame: {head:?}");
    let payload = visitor.read(usize::from(head[1] & 0x7f));
    let code: Vec<u8> = payload.iter().zip(&head[2..]).map(|(byte, mask)| byte ^ mask).take(2).collect();
    u16::from_be_bytes(code.try_into().unwrap())
}

#[test]
fn a_client_counts_its_attempts() {
    let server = WsServer::bind();
    let host = Host::run(&watched(&server.url("/"), at_once()));
    for _ in 0..3 {
        drop(server.accept_tcp());
    }
    let _peer = server.accept();
    let shown = host.eventually("the attempts are counted", || {
        let text = host.get("/metrics").body;
        let line = text.lines().find(|line| {
            line.starts_with("flowbay_websocket_reconnects_total{") && line.contains("node=\"client\"")
        });
        line.map(str::to_owned)
    });
    assert!(shown.ends_with(" 3"), "{shown}");
}

// ---- Configuration

#[test]
fn an_option_that_makes_no_sense_is_reported_by_name_and_the_rest_runs() {
    for (name, value) in [
        ("reconnect", json!("sometimes")),
        ("reconnectDelay", json!("-1")),
        ("connectTimeout", json!("soon")),
        ("queueWhileDisconnected", json!(1.5)),
    ] {
        let server = WsServer::bind();
        let flow = Flow::new()
            .config("broken", "websocket-client", json!({"path": server.url("/"), name: value}))
            .node("on-broken", "websocket in", "", json!({"client": "broken"}))
            .io("out");
        let host = Host::run(&flow);
        host.wait_log(&format!("broken*{name}"));
        let mut io: Client = host.io();
        io.send_json(&json!({"payload": "the rest runs"}));
        assert_eq!(io.recv_json()["payload"], "the rest runs");
        assert!(eventually_within(millis(100), || server.try_accept_tcp()).is_none(), "{name}");
    }
}

#[test]
fn a_client_that_is_closed_by_a_heartbeat_says_so_and_connects_again() {
    let server = WsServer::bind();
    let mut properties = at_once();
    properties["hb"] = json!(1);
    let host = Host::run(&watched(&server.url("/"), properties));
    let mut io = host.io();
    // It shakes hands, and is silent from then on.
    let mut silent = server.accept_raw();
    silent.agree();
    assert_eq!(statuses(&mut io, 3), ["connect", "error", "disconnect"]);
    let mut peer = server.accept();
    assert!(matches!(peer.socket.recv_or_ping(), Frame::Ping(_)));
}
