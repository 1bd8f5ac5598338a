//! To whom messages go, and what `websocket out` does when it is told to.

use flowbay_tests::harness::{Client, Flow, Frame, Host, WsServer};
use serde_json::{Value, json};

/// A listener on `/ws`. What comes from `/io` goes out on it: to the sessions in `to`. Each client is shown its session.
fn addressed(out: Value) -> Flow {
    let copy = json!([{"t": "set", "p": "payload", "pt": "msg", "to": "_session", "tot": "msg"}]);
    let address = json!([
        {"t": "delete", "p": "_session", "pt": "msg"},
        {"t": "move", "p": "to", "pt": "msg", "to": "_session", "tot": "msg"},
    ]);
    let mut properties = out;
    properties["server"] = json!("listener");
    Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("hears", "websocket in", "copy", json!({"server": "listener"}))
        .change("copy", "answer", copy)
        .node("answer", "websocket out", "", json!({"server": "listener"}))
        .change("address", "send", address)
        .node("send", "websocket out", "", properties)
        .node("failed", "catch", "unsigned", json!({"scope": ["send"]}))
        .forget("unsigned", "out")
        .io("address")
}

/// So many clients of `/ws`, and their ids.
fn clients(host: &Host, count: usize) -> (Vec<Client>, Vec<Value>) {
    let mut clients: Vec<Client> = (0..count).map(|_| host.connect("/ws")).collect();
    let ids = clients.iter_mut().map(id_of).collect();
    (clients, ids)
}

fn id_of(client: &mut Client) -> Value {
    client.send_text("who am I");
    client.recv_json()["id"].clone()
}

fn session(properties: Value) -> Value {
    let mut session = properties;
    session["type"] = json!("websocket");
    session
}

/// A metric of a node; `None` when the host shows none of that name for it.
fn metric(host: &Host, name: &str, node: &str) -> Option<f64> {
    let reply = host.get("/metrics");
    assert_eq!(reply.status, 200, "{reply:?}");
    let (name, node) = (format!("flowbay_{name}{{"), format!("node=\"{node}\""));
    let line = reply.body.lines().find(|line| line.starts_with(&name) && line.contains(&node))?;
    line.rsplit(' ').next()?.parse().ok()
}

// ---- To whom

#[test]
fn a_message_goes_to_one_to_several_to_all_but_some_or_to_all() {
    let host = Host::run(&addressed(json!({})));
    let (mut clients, ids) = clients(&host, 4);
    let mut io = host.io();
    for (to, receivers) in [
        (json!({"id": ids[0]}), vec![0]),
        (json!({"id": [ids[0], ids[2]]}), vec![0, 2]),
        (json!({"id": [ids[1], ids[1]]}), vec![1]),
        (json!({"id": []}), vec![]),
        (json!({"except": ids[0]}), vec![1, 2, 3]),
        (json!({"except": [ids[0], ids[1], "0123456789abcdef"]}), vec![2, 3]),
        (json!({"id": null, "except": []}), vec![0, 1, 2, 3]),
        (json!({"id": ids[3], "except": ids[3]}), vec![3]),
    ] {
        io.send_json(&json!({"payload": to.to_string(), "to": session(to.clone())}));
        io.send_json(&json!({"payload": "end"}));
        for (number, client) in clients.iter_mut().enumerate() {
            if receivers.contains(&number) {
                assert_eq!(client.recv_text(), to.to_string(), "client {number}");
            }
            assert_eq!(client.recv_text(), "end", "client {number} gets {to}");
        }
    }
    assert_eq!(host.count_log("ERROR"), 0, "{}", host.log());
}

#[test]
fn whom_a_message_excepts_does_not_get_it_even_without_a_type_and_that_of_something_else_is_for_all() {
    let host = Host::run(&addressed(json!({})));
    let (mut clients, ids) = clients(&host, 2);
    let mut io = host.io();
    io.send_json(&json!({"payload": "for the second", "to": {"except": ids[0]}}));
    io.send_json(&json!({"payload": "for all", "to": {"type": "tcp", "except": ids[0]}}));
    assert_eq!(clients[1].recv_text(), "for the second");
    for client in &mut clients {
        assert_eq!(client.recv_text(), "for all");
    }
}

#[test]
fn a_broadcast_reaches_a_hundred_clients_but_the_one_it_came_from() {
    let host = Host::run(&addressed(json!({})));
    let (mut clients, ids) = clients(&host, 100);
    let mut io = host.io();
    let large = "x".repeat(50_000);
    for (number, id) in ids.iter().take(3).enumerate() {
        let to = session(json!({"except": id}));
        io.send_json(&json!({"payload": format!("{number}{large}"), "to": to}));
    }
    io.send_json(&json!({"payload": "end"}));
    for (place, client) in clients.iter_mut().enumerate() {
        for number in (0..3).filter(|number| *number != place) {
            assert_eq!(client.recv_text(), format!("{number}{large}"), "client {place}");
        }
        assert_eq!(client.recv_text(), "end", "client {place}");
    }
}

#[test]
fn what_is_for_nobody_is_counted() {
    let host = Host::run(&addressed(json!({})));
    let (mut clients, ids) = clients(&host, 1);
    let mut io = host.io();
    let count = || metric(&host, "websocket_undelivered_total", "listener");
    assert_eq!(count(), Some(0.0));
    for (to, expected) in [
        (json!({"id": "0123456789abcdef"}), 1.0),
        (json!({"id": [ids[0], "x", "y", 7]}), 4.0),
        (json!({}), 5.0),
        (json!({"id": ids[0]}), 5.0),
        (json!({"except": "0123456789abcdef"}), 5.0),
    ] {
        io.send_json(&json!({"payload": "p", "to": session(to.clone())}));
        // To be sure that it is through.
        io.send_json(&json!({"payload": "end"}));
        while clients[0].recv_text() != "end" {}
        assert_eq!(count(), Some(expected), "{to}");
    }
}

// ---- Actions

#[test]
fn a_node_that_is_told_to_closes_the_sessions_that_are_named() {
    let host = Host::run(&addressed(json!({"control": true})));
    let (mut clients, ids) = clients(&host, 5);
    let mut io = host.io();
    let closed = |client: &mut Client, code: u16, reason: &str| {
        assert_eq!(client.recv(), Frame::Close(Some((code, reason.to_owned()))));
    };
    io.send_json(&json!({"payload": "before", "to": session(json!({"id": ids[0]}))}));
    io.send_json(&json!({"action": "close", "to": session(json!({"id": ids[0]}))}));
    assert_eq!(clients[0].recv_text(), "before");
    closed(&mut clients[0], 1000, "");

    let several = session(json!({"id": [ids[1], ids[2]]}));
    io.send_json(&json!({"action": "close", "code": "4001", "reason": "höher", "to": several}));
    closed(&mut clients[1], 4001, "höher");
    closed(&mut clients[2], 4001, "höher");

    let others = session(json!({"except": ids[4]}));
    io.send_json(&json!({"action": "close", "code": 3000, "to": others}));
    closed(&mut clients[3], 3000, "");

    // Without an action it is an ordinary message.
    io.send_json(&json!({"payload": "to all"}));
    assert_eq!(clients[4].recv_text(), "to all");
    io.send_json(&json!({"action": "close"}));
    closed(&mut clients[4], 1000, "");
}

#[test]
fn an_action_that_cannot_be_done_is_an_error_for_catch_nodes() {
    let host = Host::run(&addressed(json!({"control": "true"})));
    let (mut clients, ids) = clients(&host, 1);
    let mut io = host.io();
    let to = session(json!({"id": ids[0]}));
    for (msg, names) in [
        (json!({"action": "dance"}), "dance"),
        (json!({"action": null}), "null"),
        (json!({"action": {"close": 1}}), "unknown action"),
        (json!({"action": "close", "code": 1005}), "1005"),
        (json!({"action": "close", "code": 1006}), "1006"),
        (json!({"action": "close", "code": 999}), "code"),
        (json!({"action": "close", "code": 5000}), "code"),
        (json!({"action": "close", "reason": "x".repeat(124)}), "123"),
        (json!({"action": "disconnect"}), "listener"),
        (json!({"action": "connect"}), "listener"),
        (json!({"action": "accept", "_upgrade": {"id": "1"}}), "_upgrade"),
    ] {
        let mut msg = msg;
        msg["to"] = to.clone();
        io.send_json(&msg);
        let error = io.recv_json();
        let text = error["error"]["message"].as_str().unwrap_or_else(|| panic!("{error}")).to_owned();
        assert!(text.contains(names), "{msg}: {text}");
        assert_eq!(error["error"]["source"]["id"], "send");
    }
    id_of(&mut clients[0]);
}

#[test]
fn without_control_an_action_is_a_property_like_any_other() {
    for control in [json!({}), json!({"control": false}), json!({"control": "false"}), json!({"control": ""})]
    {
        let flow = addressed(control);
        let host = Host::run(&flow);
        let (mut clients, _) = clients(&host, 1);
        let mut io = host.io();
        for action in ["close", "refuse", "anything"] {
            io.send_json(&json!({"action": action, "code": 1005, "payload": action}));
            assert_eq!(clients[0].recv_text(), action);
        }
        assert_eq!(host.count_log("ERROR"), 0, "{}", host.log());
    }
}

#[test]
fn a_property_that_makes_no_sense_is_reported_with_its_node() {
    let flow = addressed(json!({"control": "perhaps"})).node(
        "odd",
        "websocket in",
        "",
        json!({"server": "listener", "events": "all"}),
    );
    let host = Host::run(&flow);
    host.wait_log("send*websocket out*control*perhaps");
    host.wait_log("odd*websocket in*events*all");
}

#[test]
fn a_client_is_sent_away_and_told_to_come_back_and_elsewhere() {
    let (home, abroad) = (WsServer::bind(), WsServer::bind());
    let flow = Flow::new()
        .config("client", "websocket-client", json!({"path": home.url("/home"), "wholemsg": "false"}))
        .node("send", "websocket out", "", json!({"client": "client", "control": true}))
        .node("failed", "catch", "out", json!({"scope": ["send"]}))
        .node("hears", "websocket in", "heard", json!({"client": "client"}))
        .forget("heard", "out")
        .forget("anew", "send")
        .io("anew");
    let host = Host::run(&flow);
    let mut io = host.io();
    let accept = |server: &WsServer, io: &mut Client| {
        let mut peer = server.accept();
        // Until the client has the answer to its handshake it is not connected.
        peer.socket.send_text("welcome");
        assert_eq!(io.recv_json()["payload"], "welcome");
        peer
    };
    let mut peer = accept(&home, &mut io);
    io.send_json(&json!({"action": "disconnect", "code": 4000, "reason": "enough"}));
    assert_eq!(peer.socket.recv(), Frame::Close(Some((4000, "enough".to_owned()))));
    drop(peer);
    io.send_json(&json!({"action": "connect"}));
    let mut peer = accept(&home, &mut io);
    io.send_json(&json!({"action": "connect", "url": abroad.url("/abroad")}));
    assert!(matches!(peer.socket.recv(), Frame::Close(_)));
    drop(peer);
    let mut peer = accept(&abroad, &mut io);
    assert_eq!(peer.path, "/abroad");
    // Neither of these is a client's.
    for action in ["accept", "refuse"] {
        let upgrade = json!({"id": "1", "listener": "client", "protocols": []});
        io.send_json(&json!({"action": action, "_upgrade": upgrade}));
        let error = io.recv_json();
        assert!(error["error"]["message"].as_str().unwrap().contains("client"), "{error}");
    }
    io.send_json(&json!({"payload": "here"}));
    assert_eq!(peer.socket.recv_text(), "here");
}
