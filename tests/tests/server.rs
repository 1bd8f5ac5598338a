//! The HTTP server: paths with parameters, TLS of its own, limits, stopping, and peers that mean no good before there
//! is a WebSocket.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flowbay_tests::harness::{
    Certificate, Finished, Flow, Host, HostBuilder, PATIENCE, RawPeer, Way, connect_tls, connect_wss,
    flowbay, host_copy, https_request, install, plugin, rebuilt, request, reset, scratch_folder,
};
use flowbay_tests::load::{Load, Mode, Plan};
use rustix::process::Signal;
use serde_json::json;
use tungstenite::Message;

/// A listener on `/ws` that sends back what it gets.
fn echo() -> Flow {
    Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("in", "websocket in", "out", json!({"server": "listener"}))
        .node("out", "websocket out", "", json!({"server": "listener"}))
}

fn assert_echoes(host: &Host) {
    let mut client = host.connect("/ws");
    client.send_text("still here");
    assert_eq!(client.recv_text(), "still here");
}

/// A flow that may decide about handshakes to `/door` and does not, besides [`echo`].
fn undecided() -> Flow {
    echo()
        .config(
            "door",
            "websocket-listener",
            json!({"path": "/door", "auth": "message", "handshakeTimeout": 600}),
        )
        .node("ask", "websocket in", "asked", json!({"server": "door", "events": "upgrade"}))
        .debug("asked", "payload.path")
}

/// Begins a handshake to a path and leaves it at that.
fn knock(host: &Host, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers = RawPeer::usual_headers().join("\r\n");
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n").as_bytes())
        .unwrap();
    stream
}

/// Waits until so many handshakes have been asked about in [`undecided`].
fn wait_for_questions(host: &Host, count: usize) {
    host.eventually("the flow is asked", || (host.count_stdout("[debug:asked]") >= count).then_some(()));
}

fn ticks_of_cpu(host: &Host) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

// ---- Paths

#[test]
fn a_path_may_have_parameters_which_messages_bring_along_and_a_literal_path_wins() {
    let listener = |flow: Flow, id: &str, path: &str| {
        let (input, shown, out) = (format!("{id}-in"), format!("{id}-params"), format!("{id}-out"));
        let rule = json!([{"t": "set", "p": "payload", "pt": "msg", "to": "_session.params", "tot": "msg"}]);
        flow.config(id, "websocket-listener", json!({"path": path}))
            .node(&input, "websocket in", &shown, json!({"server": id}))
            .change(&shown, &out, rule)
            .node(&out, "websocket out", "", json!({"server": id}))
    };
    let flow = listener(Flow::new(), "rooms", "/ws/:room");
    let flow = listener(flow, "lobby", "/ws/lobby");
    let host = Host::run(&listener(flow, "seats", "/ws/:room/seats/:seat"));
    for (path, params) in [
        ("/ws/kitchen", json!({"room": "kitchen"})),
        ("/ws/a%20b%2Fc?room=other", json!({"room": "a b/c"})),
        ("/ws/lobby", json!({})),
        ("/ws/lobby/seats/7", json!({"room": "lobby", "seat": "7"})),
    ] {
        let mut client = host.connect(path);
        client.send_text("who am I");
        assert_eq!(client.recv_json(), params, "{path}");
    }
    for path in ["/ws", "/ws/", "/ws/a/seats", "/ws/%FF"] {
        assert_eq!(host.connect_refused(path), 404, "{path}");
    }
}

#[test]
fn two_listeners_whose_paths_differ_in_the_name_of_a_parameter_are_on_the_same_path() {
    let flow = Flow::new()
        .config("one", "websocket-listener", json!({"path": "/ws/:room"}))
        .node("one-in", "websocket in", "", json!({"server": "one"}))
        .config("other", "websocket-listener", json!({"path": "/ws/:name"}))
        .node("other-in", "websocket in", "", json!({"server": "other"}));
    let host = Host::run(&flow);
    host.wait_log("/ws/:*same path");
    host.connect("/ws/kitchen");
}

// ---- Refusals

#[test]
fn refused_handshakes_are_one_line_of_the_log_with_peer_path_status_and_reason() {
    let host = Host::run(&echo());
    for _ in 0..50 {
        let mut headers = RawPeer::usual_headers();
        headers.retain(|line| !line.starts_with("Sec-WebSocket-Key"));
        let reply = RawPeer::connect(host.address()).handshake("GET", "/ws?token=s3cret", &headers);
        assert_eq!(reply.status, 400, "{reply:?}");
        assert_eq!(host.connect_refused("/nowhere"), 404);
    }
    host.wait_log("INFO*127.0.0.1:*/ws*400*Sec-WebSocket-Key*node=listener");
    host.wait_log("INFO*127.0.0.1:*/nowhere*404");
    assert_eq!(host.count_log("refused with"), 2, "{}", host.log());
    assert_eq!(host.count_log("s3cret"), 0, "a query may hold a secret\n{}", host.log());
}

#[test]
fn a_refused_admin_request_of_another_web_page_is_in_the_log() {
    let flow = Flow::new().node("press", "inject", "", json!({"props": []}));
    let host = Host::run(&flow);
    for _ in 0..5 {
        let headers = ["Origin: http://evil.example"];
        assert_eq!(request(host.address(), "POST", "/inject/press", &headers, "").status, 403);
    }
    host.wait_log("127.0.0.1:*/inject/press*403*web pages");
    assert_eq!(host.count_log("admin request of"), 1, "{}", host.log());
    host.inject("press");
}

// ---- Handshakes that wait

#[test]
fn handshakes_that_wait_are_limited_and_one_whose_client_goes_away_makes_room() {
    let host = Host::builder().flow(&undecided()).setting("max_waiting_upgrades", 2).start();
    let first = knock(&host, "/door");
    let second = knock(&host, "/door");
    wait_for_questions(&host, 2);
    assert_eq!(host.connect_refused("/door"), 503);
    host.wait_log("/door*503*too many handshakes wait");
    assert_echoes(&host);

    // One leaves in order, the other with a reset.
    drop(first);
    reset(second);
    let mut waiting = Vec::new();
    host.eventually("both places are free", || {
        let asked = host.count_stdout("[debug:asked]");
        let mut client = knock(&host, "/door");
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // Refused at once, or left waiting.
        let answered = client.read(&mut [0; 1]);
        if answered.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)) {
            wait_for_questions(&host, asked + 1);
            waiting.push(client);
        }
        (waiting.len() == 2).then_some(())
    });
}

#[test]
fn a_handshake_that_waits_is_refused_as_soon_as_its_listener_goes() {
    let host = Host::run(&undecided());
    let mut client = knock(&host, "/door");
    wait_for_questions(&host, 1);
    std::fs::write(host.folder().join("flows.json"), echo().to_json()).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    assert_echoes(&host);
}

// ---- TLS

/// A host with the first certificate, copied into a folder of the test's.
fn with_tls(flow: &Flow) -> (tempfile::TempDir, HostBuilder) {
    let folder = scratch_folder();
    let (certificate, key) = Certificate::First.put(folder.path());
    let host = Host::builder().flow(flow);
    (folder, host.setting("tls_cert", certificate.display()).setting("tls_key", key.display()))
}

/// Sends a text and waits for its echo.
fn echoed(socket: &mut tungstenite::WebSocket<flowbay_tests::harness::TlsStream>, text: &str) {
    socket.send(Message::text(text)).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text(text));
}

#[test]
fn https_and_wss_are_served_on_the_hosts_own_port() {
    let flow = echo()
        .node(
            "press",
            "inject",
            "show",
            json!({"props": [{"p": "payload"}], "payload": "by TLS", "payloadType": "str"}),
        )
        .debug("show", "payload");
    let (_folder, host) = with_tls(&flow);
    let host = host.start();
    host.wait_log(&format!("listening on https://{}", host.address()));
    let config = Certificate::First.trusted();
    let mut socket = connect_wss(host.address(), "/ws", &config);
    echoed(&mut socket, "hello");
    assert_eq!(https_request(host.address(), &config, "POST", "/inject/press", &[]).status, 200);
    assert_eq!(host.wait_debug("show").1, "\"by TLS\"");
    let own = format!("Origin: https://localhost:{}", host.address().port());
    for (header, status) in [
        (own.as_str(), 200),
        ("Origin: https://evil.example", 403),
        ("Host: evil.example", 403),
        ("X-Forwarded-Proto: https", 403),
    ] {
        let reply = https_request(host.address(), &config, "POST", "/inject/press", &[header]);
        assert_eq!(reply.status, status, "{header}");
    }
    assert!(connect_tls(host.address(), &Certificate::Second.trusted()).is_err(), "another root");
    echoed(&mut socket, "still there");
    assert_eq!(host.stop().code, Some(0));
}

#[test]
fn a_certificate_that_changes_is_taken_over_and_connections_stay() {
    let (folder, host) = with_tls(&echo());
    let host = host.start();
    let mut early = connect_wss(host.address(), "/ws", &Certificate::First.trusted());
    std::fs::write(folder.path().join("cert.pem"), "not a certificate").unwrap();
    host.wait_log("WARN*stays as it was*cert.pem");
    echoed(&mut connect_wss(host.address(), "/ws", &Certificate::First.trusted()), "as before");

    Certificate::Second.put(folder.path());
    host.wait_log("new TLS certificate from*cert.pem");
    host.eventually("the second certificate holds", || {
        connect_tls(host.address(), &Certificate::Second.trusted()).ok()
    });
    assert!(connect_tls(host.address(), &Certificate::First.trusted()).is_err());
    echoed(&mut early, "by the first one");
}

#[test]
fn without_watching_a_hangup_signal_has_the_certificate_read_again() {
    let (folder, host) = with_tls(&echo());
    let host = host.argument("--no-watch").start();
    Certificate::Second.put(folder.path());
    connect_tls(host.address(), &Certificate::First.trusted()).expect("nobody said anything");
    host.signal(Signal::HUP);
    host.wait_log("new TLS certificate");
    connect_tls(host.address(), &Certificate::Second.trusted()).expect("the second one holds");
}

#[test]
fn certificate_files_that_cannot_be_used_are_one_clear_line() {
    let folder = scratch_folder();
    std::fs::write(folder.path().join("flows.json"), "[]").unwrap();
    std::fs::create_dir(folder.path().join("plugins")).unwrap();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let text = |file: &Path| file.display().to_string();
    let (certificate, key) = Certificate::First.files();
    let (_, other_key) = Certificate::Second.files();
    let (certificate, key, other_key) = (text(&certificate), text(&key), text(&other_key));
    for (arguments, says) in [
        (vec!["--tls-cert", "no.pem", "--tls-key", &key], "cannot read the TLS file no.pem"),
        (vec!["--tls-cert", "empty.pem", "--tls-key", &key], "empty.pem has no certificate"),
        (vec!["--tls-cert", &certificate, "--tls-key", "empty.pem"], "empty.pem has no private key"),
        (vec!["--tls-cert", &certificate, "--tls-key", &other_key], "does not belong to the certificate"),
        (vec!["--tls-cert", &certificate], "--tls-cert needs --tls-key too"),
    ] {
        let mut all = vec!["run", "flows.json", "-p", "0", "--plugins", "plugins"];
        all.extend(&arguments);
        let Finished { code, stderr, .. } = flowbay(folder.path(), &all);
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        let lines: Vec<&str> = stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].contains(says), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_key_that_everybody_may_read_is_warned_about() {
    for (mode, warnings) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
        let (folder, host) = with_tls(&echo());
        let key = folder.path().join("key.pem");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let host = host.start();
        assert_eq!(host.count_log("WARN*may read the TLS key*key.pem"), warnings, "{mode:o}\n{}", host.log());
    }
}

#[test]
fn clients_of_a_listener_with_tls_notice_nothing_of_swaps() {
    let (_folder, host) = with_tls(&echo());
    let host = host.start();
    let mut plan = Plan::clients(host.address(), &[("/ws", Mode::Payload)], 12);
    plan.client_tls = Some(Certificate::First.trusted());
    plan.come_and_go = 2;
    let load = Load::start(plan).unwrap();
    host.eventually("all connections are open", || (load.open() == 12).then_some(()));
    let library = std::fs::read(plugin("websocket")).unwrap();
    let aside = scratch_folder();
    let file = host.plugin_folder().join(plugin("websocket").file_name().unwrap());
    for number in 0..6 {
        install(&rebuilt(&library, number), &file, aside.path(), Way::Renamed);
        host.wait_log(&format!("websocket*(generation {})*old code unloaded", number + 2));
        load.swapped();
        let enough = load.echoed() + 100;
        host.eventually("echoes come", || (load.echoed() >= enough).then_some(()));
    }
    let tally = load.stop();
    assert!(tally.is_perfect() && tally.echoed > 0, "{tally}\n{}", host.logs());
    assert_eq!(host.count_log("stay with the old code"), 0, "{}", host.logs());
}

#[test]
fn what_is_no_tls_on_a_tls_port_is_cut_and_seldom_logged() {
    let (_folder, host) = with_tls(&echo());
    let host = host.setting("tls_handshake_timeout_ms", 300).start();
    let config = Certificate::First.trusted();
    let mut client = connect_wss(host.address(), "/ws", &config);
    for number in 0..20 {
        let reply = request(host.address(), "GET", "/ws", &[], "");
        assert_eq!(reply.status, 400, "{reply:?}");
        let garbage: &[u8] = match number % 3 {
            0 => b"\x16\x03\x01\x00\x05hello, and more",
            1 => &[0; 300],
            _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        };
        let mut peer = RawPeer::connect(host.address());
        peer.write(garbage);
        peer.finish_writing();
        let answer = peer.read_to_end();
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    // Neither anything, nor all of it.
    for beginning in [&b""[..], b"\x16\x03\x01\x02"] {
        let mut peer = RawPeer::connect(host.address());
        peer.write(beginning);
        let begin = Instant::now();
        assert_eq!(peer.read_to_end(), b"");
        assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
    }
    echoed(&mut client, "undisturbed");
    echoed(&mut connect_wss(host.address(), "/ws", &config), "still here");
    assert!((1..=3).contains(&host.count_log("no TLS with 127.0.0.1:")), "{}", host.log());
    assert_eq!(host.count_log("panicked"), 0, "{}", host.log());
}

// ---- Limits

#[test]
fn a_path_or_query_that_is_too_long_is_414() {
    let host = Host::builder().flow(&echo()).setting("http_max_target_bytes", 300).start();
    let long = "x".repeat(400);
    for target in [format!("/{long}"), format!("/ws?{long}")] {
        assert_eq!(host.get(&target).status, 414);
        assert_eq!(host.connect_refused(&target), 414);
    }
    host.wait_log("127.0.0.1:*414");
    assert_echoes(&host);
}

#[test]
fn one_address_gets_so_many_connections_and_no_more() {
    let host = Host::builder().flow(&echo()).setting("max_connections_per_address", 3).start();
    let mut clients: Vec<_> = (0..3).map(|_| host.connect("/ws")).collect();
    assert!(RawPeer::connect(host.address()).read_to_end().is_empty());
    host.wait_log("127.0.0.1:*its address has 3 connections already");
    for client in &mut clients {
        client.send_text("undisturbed");
        assert_eq!(client.recv_text(), "undisturbed");
    }
    drop(clients);
    host.eventually("there is room again", || {
        let mut peer = RawPeer::connect(host.address());
        // Refused, it may be closed before this is written.
        peer.try_write_frame(1, b"no HTTP at all").then_some(())?;
        peer.read_to_end().starts_with(b"HTTP/1.1 400").then_some(())
    });
}

/// A program that runs the host after a command of the shell, in a folder of its own.
fn after(command: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = scratch_folder();
    let wrapper = folder.path().join("wrapper");
    let script = format!("#!/bin/sh\n{command}\nexec '{}' \"$@\"\n", host_copy().display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    (folder, wrapper)
}

#[test]
fn the_limit_of_open_files_is_raised_at_the_start() {
    let (_folder, wrapper) = after("ulimit -S -n 64");
    let host = Host::builder().flow(&echo()).setting("max_connections", 300).program(&wrapper).start();
    let mut clients: Vec<_> = (0..150).map(|_| host.connect("/ws")).collect();
    for client in &mut clients {
        client.send_text("one of many");
        assert_eq!(client.recv_text(), "one of many");
    }
    assert_eq!(host.count_log("files open"), 0, "{}", host.log());
}

#[test]
fn running_out_of_files_is_survived() {
    // The host may open 64 files, and would serve a thousand clients.
    let (_folder, wrapper) = after("ulimit -n 64");
    let host = Host::builder().flow(&echo()).setting("max_connections", 1_000).program(&wrapper).start();
    host.wait_log("may have 64 files open*max_connections = 1000");

    let mut early = host.connect("/ws");
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(host.address()).unwrap()).collect();
    host.wait_log("WARN*cannot accept connections for now");
    early.send_text("undisturbed");
    assert_eq!(early.recv_text(), "undisturbed");

    // Those who wait cost nothing: nobody tries as fast as he can.
    let before = ticks_of_cpu(&host);
    assert_eq!(early.recv_within(Duration::from_secs(1)), None);
    let ticks = ticks_of_cpu(&host) - before;
    assert!(ticks < 50, "{ticks} ticks of a hundredth of a second in one second");
    assert!(host.count_log("cannot accept connections") <= 2, "{}", host.log());

    drop(crowd);
    for _ in 0..5 {
        assert_echoes(&host);
    }
    early.send_text("still there");
    assert_eq!(early.recv_text(), "still there");
    assert_eq!(host.stop().code, Some(0));
}

// ---- Bad peers

#[test]
fn a_header_that_trickles_in_is_cut_however_lively_it_is() {
    let host = Host::builder().flow(&echo()).setting("http_header_timeout_ms", 400).start();
    let mut client = host.connect("/ws");
    let mut slow = TcpStream::connect(host.address()).unwrap();
    // The pace of the peer, and the way in which it notices its end.
    slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let begin = Instant::now();
    let mut header = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".iter().chain(b"x".iter().cycle());
    loop {
        if slow.write_all(&[*header.next().unwrap()]).is_err() {
            break;
        }
        match slow.read(&mut [0; 64]) {
            Ok(0) => break,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
            Ok(_) => panic!("there is nothing to answer"),
        }
        assert!(begin.elapsed() < PATIENCE, "it may go on for ever\n{}", host.logs());
    }
    assert!(begin.elapsed() >= Duration::from_millis(300), "after {:?}", begin.elapsed());
    host.wait_log("INFO*127.0.0.1:*the whole header did not come in time");
    client.send_text("undisturbed");
    assert_eq!(client.recv_text(), "undisturbed");
}

#[test]
fn headers_without_end_are_refused() {
    let host = Host::run(&echo());
    let lines: [fn(u32) -> String; 3] = [
        |number| format!("X-{number}: y\r\n"),
        |_| "X: y\r\n".to_owned(),
        |number| if number == 0 { "X: ".to_owned() } else { "y".repeat(100) },
    ];
    for line in lines {
        let mut peer = TcpStream::connect(host.address()).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.set_write_timeout(Some(PATIENCE)).unwrap();
        peer.write_all(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n").unwrap();
        let mut sent = 0;
        while peer.write_all(line(sent).as_bytes()).is_ok() {
            sent += 1;
            assert!(sent < 10_000_000, "the host takes whatever comes");
        }
        // What it answered may be lost with the connection; what it must not do is go on.
        let mut answer = Vec::new();
        let _ = peer.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    host.wait_log("127.0.0.1:*431");
    assert_echoes(&host);
}

#[test]
fn a_flood_of_connections_disturbs_nobody_who_is_there() {
    let host = Host::builder()
        .flow(&echo())
        .setting("max_connections", 50)
        .setting("http_header_timeout_ms", 1_000)
        .start();
    let mut client = host.connect("/ws");
    let mut idle = Vec::new();
    for number in 0..1_500 {
        let mut peer = TcpStream::connect(host.address()).unwrap();
        match number % 3 {
            0 => idle.push(peer),
            1 => drop(peer),
            _ => {
                // It may be closed already.
                let _ = peer.write_all(b"GET /ws HTTP/1.1\r\nHo");
                reset(peer);
            }
        }
        if number % 100 == 0 {
            client.send_text("undisturbed");
            assert_eq!(client.recv_text(), "undisturbed");
        }
    }
    assert!(host.count_log("all 50 connections are in use") >= 1, "{}", host.log());
    assert!(host.count_log("all 50 connections are in use") <= 3, "{}", host.log());
    // Nobody leaves of his own accord.
    let headers = RawPeer::usual_headers().join("\r\n");
    host.eventually("those who said nothing are gone", || {
        let mut peer = TcpStream::connect(host.address()).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ =
            peer.write_all(format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n").as_bytes());
        let mut answer = [0; 12];
        peer.read_exact(&mut answer).ok()?;
        (&answer == b"HTTP/1.1 101").then_some(())
    });
    client.send_text("undisturbed");
    assert_eq!(client.recv_text(), "undisturbed");
    drop(idle);
}

#[test]
fn resets_in_every_state_before_there_is_a_websocket_are_survived() {
    let flow = undecided().node("press", "inject", "", json!({"props": []}));
    let host = Host::builder().flow(&flow).setting("max_connections", 40).start();
    let headers = RawPeer::usual_headers().join("\r\n");
    let whole = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n");
    let body = "POST /inject/press HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf of it";
    let mut asked = 0;
    // More often than there are places: each must be free again.
    for _ in 0..15 {
        for sent in
            ["", "GET /ws HT", &whole("/ws")[..60], &whole("/nowhere"), &whole("/ws"), &whole("/door"), body]
        {
            let mut peer = host.eventually("there is a place", || {
                let mut peer = TcpStream::connect(host.address()).ok()?;
                peer.write_all(sent.as_bytes()).ok()?;
                Some(peer)
            });
            if sent == whole("/door") {
                asked += 1;
                wait_for_questions(&host, asked);
            } else if sent == whole("/ws") {
                // In the moment in which it becomes a WebSocket.
                let _ = peer.read(&mut [0; 1]);
            }
            reset(peer);
        }
    }
    assert_echoes(&host);
    assert_eq!(host.count_log("panicked"), 0, "{}", host.log());
    host.eventually("nothing is left of them", || {
        let scrape = host.get("/metrics").body;
        let of = |name: &str| scrape.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
        let sessions = of("flowbay_sessions{");
        assert_eq!(sessions.len(), 2, "{scrape}");
        // The one that asks.
        let alone = of("flowbay_http_connections ") == ["flowbay_http_connections 1"];
        (alone && sessions.iter().all(|line| line.ends_with(" 0"))).then_some(())
    });
}

// ---- Stopping

#[test]
fn stopping_waits_for_nobody_longer_than_it_says() {
    let (_folder, tls) = with_tls(&echo());
    for (host, is_tls) in
        [(Host::builder().flow(&undecided()).setting("http_body_timeout_ms", 600_000), false), (tls, true)]
    {
        let host = host.setting("shutdown_grace_ms", 700).setting("http_header_timeout_ms", 600_000).start();
        let mut held: Vec<TcpStream> = Vec::new();
        if is_tls {
            for beginning in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
                let mut peer = TcpStream::connect(host.address()).unwrap();
                peer.write_all(beginning).unwrap();
                held.push(peer);
            }
            let mut reads_nothing = connect_wss(host.address(), "/ws", &Certificate::First.trusted());
            echoed(&mut reads_nothing, "then silence");
            held.push(reads_nothing.get_ref().sock.try_clone().unwrap());
            std::mem::forget(reads_nothing);
        } else {
            // A slow request's header and body, a handshake that nobody decides about, and a client that will not
            // answer the close frame.
            for beginning in [
                "",
                "GET /ws HTTP/1.1\r\nHost: local",
                "POST /inject/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab",
            ] {
                let mut peer = TcpStream::connect(host.address()).unwrap();
                peer.write_all(beginning.as_bytes()).unwrap();
                held.push(peer);
            }
            held.push(knock(&host, "/door"));
            wait_for_questions(&host, 1);
            let mut silent = knock(&host, "/ws");
            let _ = silent.read(&mut [0; 1]).unwrap();
            held.push(silent);
        }
        let begin = Instant::now();
        let finished = host.stop();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(begin.elapsed() < Duration::from_secs(8), "after {:?}: {finished:?}", begin.elapsed());
        drop(held);
    }
}

#[test]
fn a_request_that_is_being_answered_when_the_host_stops_gets_its_answer() {
    let host = Host::run(&undecided());
    let mut waiting = knock(&host, "/door");
    wait_for_questions(&host, 1);
    host.signal(Signal::TERM);
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(host.wait_exit().code, Some(0));
}
