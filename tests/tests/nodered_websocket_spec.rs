//! The 31 behaviours of Node-RED's own WebSocket spec (`22-websocket_spec.js`), each as a test of the same meaning.
//!
//! Their spec looks into the node objects; here each behaviour is seen from a socket. "Delete" there is a stop here.

use flowbay_tests::harness::{Flow, Frame, Host, Peer, WsServer};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A listener on `/ws` whose input is wired to `first` and whose output is `reply`; and `/io` to look in and out.
fn listener(whole: &str, first: &str) -> Flow {
    Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws", "wholemsg": whole}))
        .node("receive", "websocket in", first, json!({"server": "listener"}))
        .node("reply", "websocket out", "", json!({"server": "listener"}))
        .forget("forget", "out")
        .forget("forget-io", "reply")
        .io("forget-io")
}

/// A client of `url`; what it receives goes to `/io`, and what comes from there is sent. See [`accepted`].
fn client(url: &str, whole: &str) -> Flow {
    Flow::new()
        .node("watch", "status", "connected", json!({"scope": ["send"]}))
        .debug("connected", "status.event")
        .config("client", "websocket-client", json!({"path": url, "wholemsg": whole}))
        .node("receive", "websocket in", "forget", json!({"client": "client"}))
        .node("send", "websocket out", "", json!({"client": "client"}))
        .forget("forget", "out")
        .forget("forget-io", "send")
        .io("forget-io")
}

/// Accepts the connection of a flow made by [`client`] and waits until the flow knows that it is connected.
fn accepted(host: &Host, server: &WsServer) -> Peer {
    let peer = server.accept();
    assert_eq!(host.wait_debug("connected").1, "\"connect\"");
    peer
}

/// `value` without the `_msgid` that every message has.
fn without_id(mut value: Value) -> Value {
    let id = value.as_object_mut().unwrap().shift_remove("_msgid").unwrap();
    assert_eq!(id.as_str().map(str::len), Some(16), "{id}");
    value
}

// ---- websocket-listener

#[test]
fn listener_loads() {
    let host = Host::run(&listener("false", "forget"));
    assert_eq!(host.count_log("error"), 0, "{}", host.log());
}

#[test]
fn listener_is_a_server() {
    let host = Host::run(&listener("false", "reply"));
    let mut client = host.connect("/ws");
    client.send_text("anyone there?");
    assert_eq!(client.recv_text(), "anyone there?");
}

#[test]
fn listener_whole_message_flag_is_the_text_true() {
    for (flag, received) in [
        (json!("true"), json!({"a": 1})),
        (json!("false"), json!({"payload": "{\"a\":1}"})),
        (json!(true), json!({"payload": "{\"a\":1}"})),
        (json!(""), json!({"payload": "{\"a\":1}"})),
    ] {
        let flow = listener("false", "forget").to_json();
        let flow = flow.replacen("\"wholemsg\": \"false\"", &format!("\"wholemsg\": {flag}"), 1);
        let host = Host::builder().flow_text(flow).start();
        let mut io = host.io();
        host.connect("/ws").send_text("{\"a\":1}");
        assert_eq!(without_id(io.recv_json()), received, "wholemsg {flag}");
    }
}

#[test]
fn listener_accepts_a_socket() {
    let host = Host::run(&listener("false", "forget"));
    host.connect("/ws");
}

#[test]
fn listener_closes_its_sockets_when_it_is_stopped() {
    let host = Host::run(&listener("false", "reply"));
    let mut clients = [host.connect("/ws"), host.connect("/ws")];
    for client in &mut clients {
        client.send_text("here");
        assert_eq!(client.recv_text(), "here");
    }
    host.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.recv_close(), 1001);
    }
}

#[test]
fn listener_receives_data() {
    let host = Host::run(&listener("false", "forget"));
    let mut io = host.io();
    host.connect("/ws").send_text("hello");
    assert_eq!(without_id(io.recv_json()), json!({"payload": "hello"}));
}

#[test]
fn listener_receives_a_whole_message() {
    let host = Host::run(&listener("true", "forget"));
    let mut io = host.io();
    host.connect("/ws").send_text(r#"{"text":"hello"}"#);
    assert_eq!(without_id(io.recv_json()), json!({"text": "hello"}));
}

#[test]
fn listener_receives_a_whole_message_when_data_is_not_json() {
    let host = Host::run(&listener("true", "forget"));
    let mut io = host.io();
    host.connect("/ws").send_text("hello");
    assert_eq!(without_id(io.recv_json()), json!({"payload": "hello"}));
}

#[test]
fn listener_receives_a_whole_message_when_data_is_not_an_object() {
    let host = Host::run(&listener("true", "forget"));
    let mut io = host.io();
    host.connect("/ws").send_text("12345");
    assert_eq!(without_id(io.recv_json()), json!({"payload": 12345}));
}

#[test]
fn listener_sends() {
    let host = Host::run(&listener("false", "forget"));
    let mut client = host.connect("/ws");
    host.io().send_json(&json!({"payload": "hello"}));
    assert_eq!(client.recv_text(), "hello");
}

#[test]
fn listener_sends_a_whole_message() {
    let host = Host::run(&listener("true", "forget"));
    let mut client = host.connect("/ws");
    host.io().send_json(&json!({"_msgid": "m", "text": "hello"}));
    assert_eq!(client.recv_json(), json!({"_msgid": "m", "text": "hello"}));
}

#[test]
fn listener_does_nothing_without_a_payload() {
    let host = Host::run(&listener("false", "forget"));
    let mut client = host.connect("/ws");
    let mut io = host.io();
    io.send_json(&json!({"topic": "hello"}));
    io.send_json(&json!({"payload": "next"}));
    assert_eq!(client.recv_text(), "next");
}

#[test]
fn listener_echoes() {
    let host = Host::run(&listener("false", "reply"));
    let mut client = host.connect("/ws");
    client.send_text("hello");
    assert_eq!(client.recv_text(), "hello");
}

#[test]
fn listener_echoes_a_whole_message() {
    let host = Host::run(&listener("true", "reply"));
    let mut client = host.connect("/ws");
    client.send_text(r#"{"text":"hello"}"#);
    assert_eq!(without_id(client.recv_json()), json!({"text": "hello"}));
}

#[test]
fn listener_broadcasts() {
    let host = Host::run(&listener("false", "forget"));
    let mut first = host.connect("/ws");
    let mut second = host.connect("/ws");
    host.io().send_json(&json!({"payload": "hello"}));
    assert_eq!(first.recv_text(), "hello");
    assert_eq!(second.recv_text(), "hello");
}

// ---- websocket-client

#[test]
fn client_loads() {
    let server = WsServer::bind();
    let host = Host::run(&client(&server.url("/"), "false"));
    server.accept();
    assert_eq!(host.count_log("error"), 0, "{}", host.log());
}

#[test]
fn client_is_not_a_server() {
    let server = WsServer::bind();
    let host = Host::run(&client(&server.url("/ws"), "false"));
    server.accept();
    assert_eq!(host.get("/ws").status, 404);
}

#[test]
fn client_whole_message_flag_is_the_text_true() {
    for (flag, received) in [
        ("true", json!({"a": 1})),
        ("false", json!({"payload": "{\"a\":1}"})),
        ("", json!({"payload": "{\"a\":1}"})),
    ] {
        let server = WsServer::bind();
        let host = Host::run(&client(&server.url("/"), flag));
        let mut io = host.io();
        server.accept().socket.send_text("{\"a\":1}");
        assert_eq!(without_id(io.recv_json()), received, "wholemsg {flag:?}");
    }
}

#[test]
fn client_parses_its_list_of_subprotocols() {
    let server = WsServer::bind();
    let flow = Flow::new()
        .config(
            "client",
            "websocket-client",
            json!({"path": server.url("/"), "subprotocol": "testprotocol1, testprotocol2"}),
        )
        .node("receive", "websocket in", "", json!({"client": "client"}));
    let _host = Host::run(&flow);
    let peer = server.accept();
    assert_eq!(peer.headers["sec-websocket-protocol"].replace(' ', ""), "testprotocol1,testprotocol2");
}

#[test]
fn client_connects_to_a_server() {
    let server = WsServer::bind();
    let _host = Host::run(&client(&server.url("/some/path?and=query"), "false"));
    assert_eq!(server.accept().path, "/some/path?and=query");
}

#[test]
fn client_connects_with_a_subprotocol() {
    let server = WsServer::bind();
    let flow = client(&server.url("/"), "false").to_json();
    let flow = flow.replacen("\"wholemsg\"", "\"subprotocol\": \"first, second\", \"wholemsg\"", 1);
    let host = Host::builder().flow_text(flow).start();
    let mut peer = server.accept_choosing(|_| Some("second".to_owned()));
    assert_eq!(host.wait_debug("connected").1, "\"connect\"");
    host.io().send_json(&json!({"payload": "agreed"}));
    assert_eq!(peer.socket.recv_text(), "agreed");
}

#[test]
fn client_closes_its_connection_when_it_is_stopped() {
    let server = WsServer::bind();
    let host = Host::run(&client(&server.url("/"), "false"));
    let mut io = host.io();
    let mut peer = server.accept();
    // The handshake is done on this side a moment before the client has its connection.
    peer.socket.send_text("hello");
    assert_eq!(without_id(io.recv_json()), json!({"payload": "hello"}));
    host.signal(Signal::TERM);
    assert_ne!(peer.socket.recv_close(), 1006, "a close frame comes first");
    assert_eq!(host.wait_exit().code, Some(0));
}

#[test]
fn client_receives_data() {
    let server = WsServer::bind();
    let host = Host::run(&client(&server.url("/"), "false"));
    let mut io = host.io();
    server.accept().socket.send_text("hello");
    assert_eq!(without_id(io.recv_json()), json!({"payload": "hello"}));
}

#[test]
fn client_receives_a_whole_message() {
    let server = WsServer::bind();
    let host = Host::run(&client(&server.url("/"), "true"));
    let mut io = host.io();
    server.accept().socket.send_text(r#"{"text":"hello"}"#);
    assert_eq!(without_id(io.recv_json()), json!({"text": "hello"}));
}

#[test]
fn client_receives_a_whole_message_when_data_is_not_json() {
    let server = WsServer::bind();
    let host = Host::run(&client(&server.url("/"), "true"));
    let mut io = host.io();
    server.accept().socket.send_text("hello");
    assert_eq!(without_id(io.recv_json()), json!({"payload": "hello"}));
}

#[test]
fn client_sends() {
    let server = WsServer::bind();
    let host = Host::run(&client(&server.url("/"), "false"));
    let mut peer = accepted(&host, &server);
    host.io().send_json(&json!({"payload": "hello"}));
    assert_eq!(peer.socket.recv_text(), "hello");
}

#[test]
fn client_sends_a_buffer() {
    let server = WsServer::bind();
    let flow = client(&server.url("/"), "false")
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("bytes", "websocket in", "forget-io", json!({"server": "listener"}));
    let host = Host::run(&flow);
    let mut peer = accepted(&host, &server);
    host.connect("/ws").send_binary(b"hello");
    assert_eq!(peer.socket.recv(), Frame::Binary(b"hello".to_vec()));
}

#[test]
fn client_sends_a_whole_message() {
    let server = WsServer::bind();
    let host = Host::run(&client(&server.url("/"), "true"));
    let mut peer = accepted(&host, &server);
    host.io().send_json(&json!({"_msgid": "m", "text": "hello"}));
    assert_eq!(peer.socket.recv_json(), json!({"_msgid": "m", "text": "hello"}));
}

#[test]
fn client_does_not_echo_more_than_once() {
    // The flow's client is connected to the flow's own listener, and what it receives is given to the listener:
    // there its session means nobody, so it does not come round again.
    let flow = client("ws://localhost:{{PORT}}/ws", "false")
        .node("back", "websocket in", "reply", json!({"client": "client"}))
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("echo", "websocket in", "reply", json!({"server": "listener"}))
        .node("reply", "websocket out", "", json!({"server": "listener"}));
    let host = Host::run(&flow);
    assert_eq!(host.wait_debug("connected").1, "\"connect\"");
    let mut io = host.io();
    for payload in ["one", "two", "three"] {
        io.send_json(&json!({"payload": payload}));
        assert_eq!(
            without_id(io.recv_json()),
            json!({"payload": payload}),
            "and nothing of what came before"
        );
    }
}

// ---- websocket in, websocket out

#[test]
fn in_node_reports_an_error_when_it_has_no_configuration() {
    let host =
        Host::run(&Flow::new().node("lonely", "websocket in", "", json!({"server": "", "client": ""})));
    host.wait_log("lonely*Missing server configuration");
}

#[test]
fn out_node_reports_an_error_when_it_has_no_configuration() {
    let host =
        Host::run(&Flow::new().node("lonely", "websocket out", "", json!({"server": "", "client": ""})));
    host.wait_log("lonely*Missing server configuration");
}
