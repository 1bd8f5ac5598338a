//! What users of Node-RED have reported about its WebSocket nodes, by the number of the issue at node-red/node-red: what
//! they saw, and a test that they would get what they wanted here.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use flowbay_tests::harness::{Client, Flow, Frame, Host, RawPeer, Reply, WsServer, reset};
use serde_json::{Value, json};

/// A listener on `/ws` with these properties, whose clients get their messages back; the statuses of its `in` node go to
/// `/io`.
fn echo(mut properties: Value) -> Flow {
    properties["path"] = json!("/ws");
    Flow::new()
        .config("listener", "websocket-listener", properties)
        .node("receive", "websocket in", "reply", json!({"server": "listener"}))
        .node("reply", "websocket out", "", json!({"server": "listener"}))
        .node("watch", "status", "out", json!({"scope": ["receive"]}))
        .io("")
}

fn assert_echoes(client: &mut Client, text: &str) {
    client.send_text(text);
    assert_eq!(client.recv_text(), text);
}

/// The next status at `/io`.
fn status(io: &mut Client) -> Value {
    io.recv_json()["status"].clone()
}

/// The next status of that event.
fn event(io: &mut Client, event: &str) -> Value {
    loop {
        let status = status(io);
        if status["event"] == event {
            return status;
        }
    }
}

/// Has the host run another flow and waits until it has started.
fn deploy(host: &Host, flow: &Flow) {
    let before = host.count_log("started flows");
    std::fs::write(host.folder().join("flows.json"), flow.to_json()).unwrap();
    host.eventually("the flows have started again", || {
        (host.count_log("started flows") > before).then_some(())
    });
}

/// The answer to a handshake with one more header.
fn handshake(host: &Host, path: &str, header: &str) -> Reply {
    let headers = [RawPeer::usual_headers(), vec![header.to_owned()]].concat();
    RawPeer::connect(host.address()).handshake("GET", path, &headers)
}

/// Asked for Basic authentication, as the server and as the client: there was none, so anybody could connect.
#[test]
fn issue_967_a_listener_asks_for_user_and_password_and_a_client_gives_them() {
    let host = Host::builder()
        .flow(&echo(json!({"auth": "basic"})))
        .file("flows_cred.json", json!({"listener": {"users": "ada:correct horse"}}).to_string())
        .start();
    for (credentials, status) in
        [("ada:correct horse", 101), ("ada:wrong", 401), ("eve:correct horse", 401), (":", 401)]
    {
        let header = format!("Authorization: Basic {}", BASE64.encode(credentials.as_bytes()));
        assert_eq!(handshake(&host, "/ws", &header).status, status, "{credentials}");
    }
    let refusal = handshake(&host, "/ws", "X-Nothing: 1");
    assert_eq!(refusal.status, 401);
    assert!(refusal.headers["www-authenticate"].starts_with("Basic "), "{refusal:?}");

    // The way that users of proxies in front of a server wished for.
    let url = format!("ws://ada:correct%20horse@{}/ws", host.address());
    let flow = Flow::new()
        .config("client", "websocket-client", json!({"path": url}))
        .node("send", "websocket out", "", json!({"client": "client"}))
        .node("receive", "websocket in", "forget-too", json!({"client": "client"}))
        .forget("forget", "send")
        .forget("forget-too", "out")
        .io("forget");
    let other = Host::run(&flow);
    let mut io = other.io();
    // What is sent before the client is connected does not arrive.
    other.eventually("the client is let in", || {
        io.send_json(&json!({"payload": "let me in"}));
        io.recv_within(Duration::from_millis(100))
    });
    assert!(!other.log().contains("correct"), "{}", other.log());
}

/// Asked for a way to authenticate who connects; a browser cannot set headers, so a flow had to see the request.
#[test]
fn issue_1127_inbound_connections_are_authenticated_by_token_or_by_the_flow() {
    // The flow does here what the request says; a real one would look the token up.
    let decide = json!([
        {"t": "set", "p": "action", "pt": "msg", "to": "payload.query.do", "tot": "msg"},
        {"t": "set", "p": "identity", "pt": "msg", "to": "payload.query.who", "tot": "msg"},
    ]);
    let who = json!([{"t": "set", "p": "payload", "pt": "msg", "to": "_session.identity", "tot": "msg"}]);
    let flow = Flow::new()
        .config("tokens", "websocket-listener", json!({"path": "/tokens", "auth": "bearer"}))
        .node("tokens-in", "websocket in", "", json!({"server": "tokens"}))
        .config("asked", "websocket-listener", json!({"path": "/asked", "auth": "message"}))
        .node("asks", "websocket in", "decide", json!({"server": "asked", "events": "upgrade"}))
        .change("decide", "answer", decide)
        .node("answer", "websocket out", "", json!({"server": "asked", "control": true}))
        .node("in", "websocket in", "who", json!({"server": "asked"}))
        .change("who", "reply", who)
        .node("reply", "websocket out", "", json!({"server": "asked"}));
    let host = Host::builder()
        .flow(&flow)
        .file("flows_cred.json", json!({"tokens": {"tokens": "robot:0123456789abcdef"}}).to_string())
        .start();
    assert_eq!(handshake(&host, "/tokens", "Authorization: Bearer 0123456789abcdef").status, 101);
    assert_eq!(handshake(&host, "/tokens", "Authorization: Bearer fedcba9876543210").status, 401);
    assert_eq!(handshake(&host, "/tokens", "X-Token: 0123456789abcdef").status, 401);

    assert_eq!(host.connect_refused("/asked?do=refuse"), 401);
    let mut client = host.connect("/asked?do=accept&who=ada");
    client.send_text("who am I?");
    assert_eq!(client.recv_text(), "ada");
}

/// Clients of a listener that had lost their network stayed connected for ever: only clients had a heartbeat.
#[test]
fn issue_3165_a_listener_has_a_heartbeat_too() {
    let host = Host::run(&echo(json!({"hb": "1"})));
    let mut io = host.io();
    let mut dead = RawPeer::websocket(host.address(), "/ws");
    assert_eq!(status(&mut io)["text"], "connected 1");
    // It gets a ping and, because it does not answer, is cut.
    assert_eq!(dead.read_frame().0, 9);
    dead.read_to_end();
    assert_eq!(event(&mut io, "disconnect")["_session"]["type"], "websocket");
}

/// A device that accepted the connection and did not answer the handshake left the client connecting for ever.
#[test]
fn issue_4432_a_client_does_not_get_stuck_while_it_connects() {
    let server = WsServer::bind();
    let properties = json!({"path": server.url("/"), "connectTimeout": "0.3", "reconnectDelay": "0.1"});
    let flow = Flow::new()
        .config("client", "websocket-client", properties)
        .node("send", "websocket out", "", json!({"client": "client"}))
        .node("failed", "catch", "out", json!({"scope": ["send"]}))
        .forget("forget", "send")
        .io("forget");
    let host = Host::run(&flow);
    let mut io = host.io();
    let silent = server.accept_tcp();
    // What cannot be sent is nothing that only the log would know of.
    io.send_json(&json!({"payload": "too early"}));
    let caught = io.recv_json();
    assert_eq!((&caught["payload"], &caught["error"]["source"]["id"]), (&json!("too early"), &json!("send")));
    // The device is back; nobody has pressed anything.
    let mut peer = server.accept();
    drop(silent);
    host.eventually("a message arrives", || {
        io.send_json(&json!({"payload": "in time"}));
        peer.socket.recv_within(Duration::from_millis(100)).map(|frame| {
            assert_eq!(frame, Frame::Text("in time".to_owned()));
        })
    });
}

/// The Status node said that a client had left, and not which.
#[test]
fn issue_1366_a_disconnect_says_whose_it_was() {
    let show = json!([{"t": "set", "p": "payload", "pt": "msg", "to": "_session.id", "tot": "msg"}]);
    let flow = Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("receive", "websocket in", "show", json!({"server": "listener"}))
        .change("show", "reply", show)
        .node("reply", "websocket out", "", json!({"server": "listener"}))
        .node("watch", "status", "out", json!({"scope": ["receive"]}))
        .io("");
    let host = Host::run(&flow);
    let mut io = host.io();
    let mut clients: Vec<(Client, String)> = (0..3)
        .map(|_| {
            let mut client = host.connect("/ws");
            client.send_text("who am I?");
            let id = client.recv_text();
            assert_eq!(event(&mut io, "connect")["_session"]["id"], json!(id));
            (client, id)
        })
        .collect();
    // Not in the order in which they came.
    for place in [1, 0, 0] {
        let (mut client, id) = clients.remove(place);
        client.close(4000 + place as u16, "bye");
        let status = event(&mut io, "disconnect");
        assert_eq!(status["_session"]["id"], json!(id));
        assert_eq!((&status["code"], &status["reason"]), (&json!(4000 + place), &json!("bye")));
    }
}

/// In entire-message mode, the answer to one client went to all of them.
#[test]
fn issue_1886_in_entire_message_mode_only_the_sender_gets_the_answer() {
    let host = Host::run(&echo(json!({"wholemsg": "true"})));
    let (mut first, mut second) = (host.connect("/ws"), host.connect("/ws"));
    first.send_json(&json!({"payload": "of the first"}));
    assert_eq!(first.recv_json()["payload"], "of the first");
    second.send_json(&json!({"payload": "of the second"}));
    assert_eq!(second.recv_json()["payload"], "of the second", "and nothing before it");
    assert_eq!(first.recv_within(Duration::from_millis(100)), None);
}

/// What had come in at one path and was wired to another went nowhere, and nothing said so.
///
/// It is still no message to everybody (a late answer to one client, who has left, would be one too), but it is counted;
/// without its `_session` it goes to all clients of the other path; and through a client it goes out as it is.
#[test]
fn issue_1290_a_message_from_one_path_to_another_is_not_lost_without_a_trace() {
    let server = WsServer::bind();
    let flow = Flow::new()
        .config("from", "websocket-listener", json!({"path": "/from"}))
        .config("to", "websocket-listener", json!({"path": "/to"}))
        .config("client", "websocket-client", json!({"path": server.url("/")}))
        .node("in", "websocket in", "as-it-is, forget, bridge", json!({"server": "from"}))
        .node("as-it-is", "websocket out", "", json!({"server": "to"}))
        .forget("forget", "to-all")
        .node("to-all", "websocket out", "", json!({"server": "to"}))
        .node("bridge", "websocket out", "", json!({"client": "client"}));
    let host = Host::run(&flow);
    let mut peer = server.accept();
    let mut listeners = [host.connect("/to"), host.connect("/to")];
    host.connect("/from").send_text("from elsewhere");
    for client in &mut listeners {
        assert_eq!(client.recv_text(), "from elsewhere");
        assert_eq!(client.recv_within(Duration::from_millis(100)), None, "it comes once");
    }
    assert_eq!(peer.socket.recv_text(), "from elsewhere");
    let metrics = host.get("/metrics").body;
    let counted = metrics.lines().any(|line| {
        line.starts_with("flowbay_websocket_undelivered_total{")
            && line.contains("node=\"to\"")
            && line.ends_with(" 1")
    });
    assert!(counted, "{metrics}");
}

/// With two clients connected, the node said "disconnected" when one of them left.
#[test]
fn issue_1577_the_status_counts_the_clients_that_are_left() {
    let host = Host::run(&echo(json!({})));
    let mut io = host.io();
    let first = host.connect("/ws");
    assert_eq!(status(&mut io)["text"], "connected 1");
    let mut second = host.connect("/ws");
    assert_eq!(status(&mut io)["text"], "connected 2");
    drop(first);
    let left = status(&mut io);
    assert_eq!((&left["text"], &left["fill"]), (&json!("connected 1"), &json!("green")));
    assert_echoes(&mut second, "still connected");
    drop(second);
    let nobody = status(&mut io);
    assert_eq!((&nobody["fill"], &nobody["shape"]), (&json!("red"), &json!("ring")));
}

/// After a deploy a client said "disconnected" while it was connected: the old connection's end came after the new
/// one's beginning.
#[test]
fn issue_3527_after_a_deploy_the_status_is_that_of_the_new_connection() {
    let server = WsServer::bind();
    let flow = |name: &str| {
        Flow::new()
            .config("client", "websocket-client", json!({"path": server.url("/"), "name": name}))
            .node("receive", "websocket in", "", json!({"client": "client"}))
            .node("send", "websocket out", "", json!({"client": "client"}))
            .node("watch", "status", "out", json!({"scope": ["receive", "send"]}))
            .io("out")
    };
    let host = Host::run(&flow("before"));
    let mut io = host.io();
    // It does not answer the close frame before its successor is there.
    let mut old = server.accept();
    for _ in 0..2 {
        event(&mut io, "connect");
    }
    std::fs::write(host.folder().join("flows.json"), flow("after").to_json()).unwrap();
    let mut new = server.accept();
    while !matches!(old.socket.recv(), Frame::Close(_) | Frame::Lost) {}
    drop(old);
    new.socket.send_text("to the new one");
    host.eventually("the flows have started again", || (host.count_log("started flows") == 2).then_some(()));
    let mut last = Vec::new();
    while last.len() < 2 {
        last.push(event(&mut io, "connect"));
    }
    // Whatever was to come of the old connection has come before this.
    assert_eq!(io.recv_within(Duration::from_millis(500)), None, "nothing after {last:?}");
}

/// A connection to a path that nobody has, and reset before it was answered, ended the whole process.
#[test]
fn issue_2956_connections_that_are_reset_end_nothing_but_themselves() {
    let host = Host::run(&echo(json!({})));
    let mut witness = host.connect("/ws");
    let handshake = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n", RawPeer::usual_headers().join("\r\n"))
    };
    for round in 0..20 {
        for beginning in [
            String::new(),
            "GET /ws HTT".to_owned(),
            handshake("/nobody"),
            handshake("/ws"),
            // And part of a frame behind it.
            handshake("/ws") + "\u{1}",
        ] {
            let mut stream = TcpStream::connect(host.address()).unwrap();
            stream.write_all(beginning.as_bytes()).unwrap();
            if round % 2 == 0 {
                // By then it may have been answered.
                assert_echoes(&mut witness, "and nobody else");
            }
            reset(stream);
        }
    }
    assert_echoes(&mut witness, "still here");
    assert_echoes(&mut host.connect("/ws"), "and open to others");
    assert_eq!(host.count_log("panicked") + host.count_log("ERROR"), 0, "{}", host.log());
}

/// A client that was used only on a disabled tab connected all the same, every three seconds.
#[test]
fn issue_5506_a_client_that_only_disabled_flows_use_does_not_connect() {
    let (unused, used) = (WsServer::bind(), WsServer::bind());
    let flow = |disabled: bool| {
        Flow::new()
            .config("unused", "websocket-client", json!({"path": unused.url("/"), "reconnectDelay": "0.1"}))
            .config("used", "websocket-client", json!({"path": used.url("/")}))
            .node("on", "websocket in", "", json!({"client": "used"}))
            .tab("off", json!({"disabled": disabled}))
            .node("in-off", "websocket in", "", json!({"client": "unused"}))
            .node("out-off", "websocket out", "", json!({"client": "unused"}))
    };
    let host = Host::run(&flow(true));
    let _used = used.accept();
    assert!(unused.try_accept_tcp().is_none(), "{}", host.logs());

    deploy(&host, &flow(false));
    let mut peer = unused.accept();
    deploy(&host, &flow(true));
    assert!(matches!(peer.socket.recv(), Frame::Close(_)));
    drop(peer);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(500) {
        assert!(unused.try_accept_tcp().is_none(), "{}", host.logs());
        std::thread::yield_now();
    }
}

/// The complaint about two listeners on one path came again and again after the nodes had been deleted.
#[test]
fn issue_1374_a_path_is_free_again_when_its_listener_is_deleted() {
    const COMPLAINT: &str = "Cannot have two WebSocket listeners on the same path";
    let flow = |ids: &[&str]| {
        let mut flow = Flow::new().io("out");
        for id in ids {
            let (receive, reply) = (format!("{id}-in"), format!("{id}-reply"));
            flow = flow
                .config(id, "websocket-listener", json!({"path": "/ws"}))
                .node(&receive, "websocket in", &format!("{id}-name"), json!({"server": id}))
                .set(&format!("{id}-name"), &reply, "payload", id, "str")
                .node(&reply, "websocket out", "", json!({"server": id}));
        }
        flow
    };
    let who_serves = |host: &Host| {
        let mut client = host.connect("/ws");
        client.send_text("who are you?");
        client.recv_text()
    };
    let host = Host::run(&flow(&["first", "second"]));
    host.wait_log(COMPLAINT);
    assert_eq!(who_serves(&host), "first");

    // Without the second one there is nothing to complain about, nor without either, nor with one of another id.
    deploy(&host, &flow(&["first"]));
    assert_eq!(who_serves(&host), "first");
    deploy(&host, &flow(&[]));
    assert_eq!(host.connect_refused("/ws"), 404);
    deploy(&host, &flow(&["third"]));
    assert_eq!(who_serves(&host), "third");
    assert_eq!(host.count_log(COMPLAINT), 1, "{}", host.log());
}
