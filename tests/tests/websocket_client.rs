//! `websocket-client` and the nodes on it: when it connects, what it says in its handshake, what happens when the
//! other side goes away. The facts are Node-RED's (`websocket-nodes.md`), except where it opens connections twice.

use std::time::{Duration, Instant};

use flowbay_tests::harness::{
    Client, Flow, Frame, Host, Way, WsServer, accept_tls, install, plugin, rebuilt, scratch_folder,
    test_root_file,
};
use serde_json::{Value, json};

/// Has newer code of the websocket plugin take over, the `number`th time for this host, and waits until it has.
pub fn swap(host: &Host, number: usize) {
    let built = plugin("websocket");
    let newer = rebuilt(&std::fs::read(&built).unwrap(), number as u64);
    let file = host.plugin_folder().join(built.file_name().unwrap());
    install(&newer, &file, host.folder(), Way::Renamed);
    assert_eq!(host.post("/plugins/reload").status, 200, "{}", host.logs());
    host.wait_log(&format!("websocket*→*(generation {})", number + 1));
}

/// The events of the next statuses.
pub fn statuses(io: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| io.recv_json()["status"]["event"].as_str().unwrap().to_owned()).collect()
}

/// A client of `url`; the statuses of its `in` node go to `/io`.
pub fn watched(url: &str, properties: Value) -> Flow {
    let mut config = json!({"path": url});
    config.as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
    Flow::new()
        .config("client", "websocket-client", config)
        .node("receive", "websocket in", "", json!({"client": "client"}))
        .node("watch", "status", "out", json!({"scope": ["receive"]}))
        .io("")
}

/// What the client sends comes from `/io`; the flow shows on standard output that it is connected.
fn sending(nodes: &[(&str, &str)], url: &str) -> Flow {
    let mut flow = Flow::new()
        .config("client", "websocket-client", json!({"path": url}))
        .forget("forget", "send")
        .node("watch", "status", "connected", json!({"scope": ["send"]}))
        .debug("connected", "status.event")
        .io("forget");
    for (id, node_type) in nodes {
        let wires = if *node_type == "websocket in" { "show" } else { "" };
        flow = flow.node(id, node_type, wires, json!({"client": "client"}));
    }
    flow.forget("show", "out")
}

#[test]
fn nodes_share_one_connection_whatever_their_order_in_the_file() {
    let orders: [&[(&str, &str)]; 4] = [
        &[("receive", "websocket in"), ("send", "websocket out")],
        // Node-RED opens two connections for these.
        &[("send", "websocket out"), ("receive", "websocket in")],
        &[("send", "websocket out"), ("send-2", "websocket out")],
        &[("send", "websocket out"), ("receive", "websocket in"), ("receive-2", "websocket in")],
    ];
    for nodes in orders {
        let server = WsServer::bind();
        let host = Host::run(&sending(nodes, &server.url("/")));
        let mut io = host.io();
        let mut peer = server.accept();
        assert_eq!(host.wait_debug("connected").1, "\"connect\"");
        io.send_json(&json!({"payload": "out"}));
        assert_eq!(peer.socket.recv_text(), "out", "{nodes:?}");
        peer.socket.send_text("in");
        for (_, node_type) in nodes {
            if *node_type == "websocket in" {
                assert_eq!(io.recv_json()["payload"], "in", "{nodes:?}");
            }
        }
        assert!(server.try_accept_tcp().is_none(), "a second connection for {nodes:?}");
    }
}

#[test]
fn a_client_that_no_node_uses_does_not_connect() {
    let (unused, used) = (WsServer::bind(), WsServer::bind());
    let flow = Flow::new()
        .config("unused", "websocket-client", json!({"path": unused.url("/")}))
        .config("used", "websocket-client", json!({"path": used.url("/")}))
        .node("off", "websocket in", "", json!({"client": "unused", "d": true}))
        .node("on", "websocket in", "", json!({"client": "used"}));
    let _host = Host::run(&flow);
    used.accept();
    assert!(unused.try_accept_tcp().is_none());
}

#[test]
fn a_client_wins_over_a_listener_on_the_same_node() {
    let server = WsServer::bind();
    let flow = Flow::new()
        .config("client", "websocket-client", json!({"path": server.url("/")}))
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("both", "websocket in", "show", json!({"client": "client", "server": "listener"}))
        .forget("show", "out")
        .io("");
    let host = Host::run(&flow);
    let mut io = host.io();
    let mut peer = server.accept();
    host.connect("/ws").send_text("to the listener");
    peer.socket.send_text("from the server");
    assert_eq!(io.recv_json()["payload"], "from the server");
}

#[test]
fn the_headers_of_the_configuration_are_sent() {
    let server = WsServer::bind();
    let header = |kind: &str, name: &str, value_kind: &str, value: &str| json!({"keyType": kind, "keyValue": name, "valueType": value_kind, "valueValue": value});
    let headers = json!([
        header("Authorization", "", "other", "Bearer abc"),
        header("User-Agent", "", "other", "flow"),
        header("other", "X-Own", "other", "mine"),
        header("other", "X-Env", "env", "TEST_VALUE"),
        header("other", "X-Env-Inside", "env", "a-${TEST_VALUE}-b"),
        header("other", "X-Literal", "application/json", ""),
        header("other", "X-Twice", "other", "first"),
        header("other", "X-Twice", "other", "second"),
        header("other", "", "other", "nameless"),
        header("other", "X-Empty", "other", ""),
    ]);
    let flow = watched(&server.url("/"), json!({"headers": headers}));
    let _host = Host::builder().flow(&flow).variable("TEST_VALUE", "from-env").start();
    let sent = server.accept().headers;
    for (name, value) in [
        ("authorization", "Bearer abc"),
        ("user-agent", "flow"),
        ("x-own", "mine"),
        ("x-env", "from-env"),
        ("x-env-inside", "a-from-env-b"),
        ("x-literal", "application/json"),
        ("x-twice", "second"),
    ] {
        assert_eq!(sent.get(name).map(String::as_str), Some(value), "{name} in {sent:?}");
    }
    assert!(!sent.contains_key("x-empty"), "{sent:?}");
    assert_eq!(sent["host"], server.address().to_string());
}

#[test]
fn the_path_and_query_of_the_url_are_asked_for() {
    for path in ["/", "/deep/er", "/with?query=1&more"] {
        let server = WsServer::bind();
        let _host = Host::run(&watched(&server.url(path), json!({})));
        assert_eq!(server.accept().path, path);
    }
}

#[test]
fn connecting_and_losing_the_connection_are_statuses() {
    let server = WsServer::bind();
    let host = Host::run(&watched(&server.url("/"), json!({})));
    // The handshake is answered when somebody is there to see what follows.
    let mut io = host.io();
    let mut peer = server.accept();
    let status = io.recv_json()["status"].clone();
    assert_eq!(status["event"], "connect");
    assert_eq!(status["text"], "connected ", "with Node-RED's trailing space");
    assert_eq!((&status["fill"], &status["shape"]), (&json!("green"), &json!("dot")));
    peer.socket.close(1000, "");
    assert_eq!(peer.socket.recv_close(), 1000);
    let status = io.recv_json()["status"].clone();
    assert_eq!(status["event"], "disconnect");
    // The key of a text that the editor translates.
    assert_eq!(status["text"], "common.status.disconnected");
    assert_eq!((&status["fill"], &status["shape"]), (&json!("red"), &json!("ring")));
}

#[test]
fn a_connection_that_fails_is_an_error_status_and_is_tried_again() {
    let server = WsServer::bind();
    let host = Host::run(&watched(&server.url("/"), json!({})));
    let mut io = host.io();
    // The first attempt ends before the handshake.
    drop(server.accept_tcp());
    let begin = Instant::now();
    let status = io.recv_json()["status"].clone();
    assert_eq!((&status["event"], &status["text"]), (&json!("error"), &json!("common.status.error")));
    assert_eq!((&status["fill"], &status["shape"]), (&json!("red"), &json!("ring")));
    server.accept();
    let waited = begin.elapsed();
    assert!(waited > Duration::from_millis(700), "after {waited:?}");
}

#[test]
fn a_client_reconnects_after_the_server_has_closed_the_connection() {
    let server = WsServer::bind();
    let host =
        Host::run(&sending(&[("receive", "websocket in"), ("send", "websocket out")], &server.url("/")));
    let mut io = host.io();
    let mut peer = server.accept();
    peer.socket.close(1001, "restart");
    assert_eq!(peer.socket.recv_close(), 1001);
    let mut peer = server.accept();
    peer.socket.send_text("again");
    assert_eq!(io.recv_json()["payload"], "again");
    io.send_json(&json!({"payload": "and out"}));
    assert_eq!(peer.socket.recv_text(), "and out");
}

#[test]
fn a_server_that_agrees_to_what_was_not_asked_for_is_not_connected_to() {
    for (asked, answered) in [("", Some("uninvited")), ("a, b", Some("c")), ("a, b", None)] {
        let server = WsServer::bind();
        let flow = watched(&server.url("/"), json!({"subprotocol": asked}));
        let host = Host::run(&flow);
        let mut io = host.io();
        let mut peer = server.accept_choosing(|_| answered.map(str::to_owned));
        assert!(matches!(peer.socket.recv(), Frame::Lost | Frame::Close(_)), "{asked:?} {answered:?}");
        assert_eq!(io.recv_json()["status"]["event"], "error", "{asked:?} {answered:?}");
    }
}

#[test]
fn a_heartbeat_pings_and_gives_up_on_a_server_that_is_silent() {
    let server = WsServer::bind();
    let _host = Host::run(&watched(&server.url("/"), json!({"hb": "1"})));
    let mut lively = server.accept();
    for _ in 0..2 {
        assert!(matches!(lively.socket.recv_or_ping(), Frame::Ping(_)));
    }
    drop(lively);

    // A server that shakes hands and then reads nothing, so answers nothing.
    let silent = server.accept();
    let begin = Instant::now();
    let next = server.accept();
    assert!(begin.elapsed() > Duration::from_secs(1), "given up after {:?}", begin.elapsed());
    drop((silent, next));
}

#[test]
fn without_a_heartbeat_there_are_no_pings() {
    for hb in [json!("0"), json!(""), json!("no number"), json!(null)] {
        let server = WsServer::bind();
        let _host = Host::run(&watched(&server.url("/"), json!({"hb": hb})));
        let mut peer = server.accept();
        assert_eq!(peer.socket.recv_within(Duration::from_millis(300)), None, "hb {hb}");
    }
}

#[test]
fn what_a_client_received_is_not_sent_back_by_it() {
    let server = WsServer::bind();
    let flow = sending(&[("receive", "websocket in"), ("send", "websocket out")], &server.url("/")).node(
        "echo",
        "websocket in",
        "send",
        json!({"client": "client"}),
    );
    let host = Host::run(&flow);
    let mut io = host.io();
    let mut peer = server.accept();
    assert_eq!(host.wait_debug("connected").1, "\"connect\"");
    peer.socket.send_text("bounce?");
    assert_eq!(io.recv_json()["payload"], "bounce?");
    io.send_json(&json!({"payload": "marker"}));
    assert_eq!(peer.socket.recv_text(), "marker");
}

#[test]
fn what_another_websocket_received_is_sent_by_a_client() {
    let server = WsServer::bind();
    let flow = Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/in"}))
        .config("client", "websocket-client", json!({"path": server.url("/")}))
        .node("in", "websocket in", "out", json!({"server": "listener"}))
        .node("out", "websocket out", "", json!({"client": "client"}));
    let host = Host::run(&flow);
    let mut peer = server.accept();
    let mut client = host.connect("/in");
    client.send_text("over the bridge");
    assert_eq!(peer.socket.recv_text(), "over the bridge");
}

#[test]
fn an_url_that_is_none_is_reported_and_the_rest_runs() {
    for path in ["ws://", "ws://:0", "ws://host:port/"] {
        let flow = Flow::new()
            .config("broken", "websocket-client", json!({"path": path}))
            .node("on-broken", "websocket in", "", json!({"client": "broken"}))
            .io("out");
        let host = Host::run(&flow);
        host.wait_log("on-broken*Invalid URL");
        let mut io = host.io();
        io.send_json(&json!({"payload": "the rest runs"}));
        assert_eq!(io.recv_json()["payload"], "the rest runs");
    }
}

#[test]
fn the_path_decides_about_the_role_of_a_configuration_not_its_type() {
    let server = WsServer::bind();
    let flow = Flow::new()
        .config(
            "listener-by-type",
            "websocket-listener",
            json!({"path": server.url("/up").replace("ws:", "WS:")}),
        )
        .node("dials", "websocket in", "", json!({"server": "listener-by-type"}))
        .config("client-by-type", "websocket-client", json!({"path": "/down"}))
        .node("serves", "websocket in", "reply", json!({"client": "client-by-type"}))
        .node("reply", "websocket out", "", json!({"client": "client-by-type"}));
    let host = Host::run(&flow);
    assert_eq!(server.accept().path, "/up");
    let mut client = host.connect("/down");
    client.send_text("hello");
    assert_eq!(client.recv_text(), "hello");
}

#[test]
fn many_messages_arrive_in_order() {
    const COUNT: usize = 1_000;
    let server = WsServer::bind();
    let host =
        Host::run(&sending(&[("receive", "websocket in"), ("send", "websocket out")], &server.url("/")));
    let mut io = host.io();
    let mut peer = server.accept();
    for number in 0..COUNT {
        peer.socket.queue_text(&number.to_string());
    }
    peer.socket.send_text("end");
    for number in 0..COUNT {
        assert_eq!(io.recv_json()["payload"], number.to_string());
    }
}

#[test]
fn a_flow_that_stops_while_its_client_is_connecting_stops_at_once() {
    let server = WsServer::bind();
    let host = Host::run(&watched(&server.url("/"), json!({})));
    let _unanswered = server.accept_tcp();
    let begin = Instant::now();
    assert_eq!(host.stop().code, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
}

// ---- TLS

/// A `wss://` URL for a server of this test.
fn wss_url(server: &WsServer) -> String {
    format!("wss://localhost:{}/secret", server.address().port())
}

#[test]
fn a_server_that_the_system_trusts_is_connected_to_by_tls() {
    let server = WsServer::bind();
    let folder = scratch_folder();
    let flow = sending(&[("receive", "websocket in"), ("send", "websocket out")], &wss_url(&server));
    let host = Host::builder().flow(&flow).variable("SSL_CERT_FILE", test_root_file(folder.path())).start();
    let mut io = host.io();
    let mut peer = accept_tls(&server).unwrap_or_else(|error| panic!("{error}\n{}", host.logs()));
    assert_eq!(host.wait_debug("connected").1, "\"connect\"");
    peer.send("in".into()).unwrap();
    assert_eq!(io.recv_json()["payload"], "in");
    io.send_json(&json!({"payload": "out"}));
    assert_eq!(peer.read().unwrap().into_text().unwrap().as_str(), "out");
}

#[test]
fn a_server_that_the_system_does_not_trust_is_not_connected_to() {
    let server = WsServer::bind();
    let host = Host::run(&watched(&wss_url(&server), json!({})));
    let mut io = host.io();
    accept_tls(&server).expect_err("the client refuses the certificate");
    assert_eq!(io.recv_json()["status"]["event"], "error");
    host.wait_log("client*could not connect*certificate");
}
