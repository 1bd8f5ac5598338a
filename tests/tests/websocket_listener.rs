//! `websocket-listener` and the nodes on it: handshakes, what is received and sent, who gets it, and statuses.
//! The facts are Node-RED's (`websocket-nodes.md`), except where it crashes or loses data.

use flowbay_tests::harness::{Client, Flow, Frame, Host, RawPeer};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A listener on `/ws` whose messages are shown on `/io`, with the session moved to `session`: it would decide who
/// gets the message there.
fn shown(whole: &str) -> Flow {
    let aside =
        json!({"rules": [{"t": "move", "p": "_session", "pt": "msg", "to": "session", "tot": "msg"}]});
    Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws", "wholemsg": whole}))
        .node("receive", "websocket in", "aside", json!({"server": "listener"}))
        .node("aside", "change", "out", aside)
        .io("")
}

/// A listener on `/ws` that sends what comes from `/io`, to all.
fn sending(whole: &str) -> Flow {
    let forget = json!({"rules": [{"t": "delete", "p": "_session", "pt": "msg"}]});
    Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws", "wholemsg": whole}))
        .node("forget", "change", "send", forget)
        .node("send", "websocket out", "", json!({"server": "listener"}))
        .io("forget")
}

/// An echo on `/ws`, for payloads.
fn echo() -> Flow {
    Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws", "wholemsg": "false"}))
        .node("receive", "websocket in", "reply", json!({"server": "listener"}))
        .node("reply", "websocket out", "", json!({"server": "listener"}))
}

/// Checks the session that every received message has, and the id; returns the rest.
fn unwrapped(mut msg: Value) -> Value {
    let object = msg.as_object_mut().unwrap();
    let session = object.shift_remove("session").unwrap_or_else(|| panic!("no session: {object:?}"));
    assert_eq!(session["type"], "websocket");
    assert!(is_id(&session["id"]), "{session}");
    let id = object.shift_remove("_msgid").unwrap();
    assert!(is_id(&id) || id == "fixed", "{id}");
    msg
}

fn is_id(value: &Value) -> bool {
    value.as_str().is_some_and(|id| {
        id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn buffer(bytes: &[u8]) -> Value {
    json!({"type": "Buffer", "data": bytes})
}

// ---- Handshake

#[test]
fn a_handshake_answers_with_what_the_protocol_asks_for_and_no_more() {
    let host = Host::run(&echo());
    let reply = RawPeer::connect(host.address()).handshake("GET", "/ws", &RawPeer::usual_headers());
    assert_eq!(reply.status, 101);
    assert_eq!(reply.headers["upgrade"].to_lowercase(), "websocket");
    assert_eq!(reply.headers["connection"].to_lowercase(), "upgrade");
    assert_eq!(reply.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(!reply.headers.contains_key("sec-websocket-protocol"), "{reply:?}");
}

#[test]
fn a_handshake_that_is_not_one_gets_400() {
    let host = Host::run(&echo());
    let usual = RawPeer::usual_headers();
    let with = |name: &str, line: &str| -> Vec<String> {
        let others = usual.iter().filter(|header| !header.starts_with(name)).cloned();
        others.chain((!line.is_empty()).then(|| line.to_owned())).collect()
    };
    for (method, headers, status) in [
        ("GET", with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 13"), 101),
        ("GET", with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"), 101),
        ("GET", with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 7"), 400),
        ("GET", with("Sec-WebSocket-Version", ""), 400),
        ("GET", with("Sec-WebSocket-Key", ""), 400),
        ("GET", with("Sec-WebSocket-Key", "Sec-WebSocket-Key: short"), 400),
        ("POST", usual.clone(), 400),
    ] {
        let reply = RawPeer::connect(host.address()).handshake(method, "/ws", &headers);
        assert_eq!(reply.status, status, "{method} {headers:?}: {reply:?}\n{}", host.logs());
    }
}

#[test]
fn the_first_subprotocol_that_a_client_offers_is_agreed_to() {
    let host = Host::run(&echo());
    for (offered, chosen) in [("foo, bar", Some("foo")), ("anything", Some("anything")), ("", None)] {
        let mut headers = RawPeer::usual_headers();
        headers.push(format!("Sec-WebSocket-Protocol: {offered}"));
        let reply = RawPeer::connect(host.address()).handshake("GET", "/ws", &headers);
        assert_eq!(reply.status, 101);
        assert_eq!(reply.headers.get("sec-websocket-protocol").map(String::as_str), chosen, "{offered:?}");
    }
    let client = Client::connect_with(host.address(), "/ws", &[("Sec-WebSocket-Protocol", "mqtt")]).unwrap();
    assert_eq!(client.protocol(), Some("mqtt"));
}

#[test]
fn compression_is_not_negotiated() {
    let host = Host::run(&echo());
    let mut headers = RawPeer::usual_headers();
    headers.push("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits".to_owned());
    let reply = RawPeer::connect(host.address()).handshake("GET", "/ws", &headers);
    assert_eq!(reply.status, 101);
    assert!(!reply.headers.contains_key("sec-websocket-extensions"), "{reply:?}");
}

#[test]
fn paths_match_exactly_and_the_query_does_not_matter() {
    let flow = echo().config("no-slash", "websocket-listener", json!({"path": "ws/two"})).node(
        "two",
        "websocket in",
        "",
        json!({"server": "no-slash"}),
    );
    let host = Host::run(&flow);
    for (path, status) in [
        ("/ws", 101),
        ("/ws?token=1", 101),
        ("/ws/two", 101),
        ("/WS", 404),
        ("/ws/", 404),
        ("/w", 404),
        ("/", 404),
        ("/ws/three", 404),
    ] {
        let reply = RawPeer::connect(host.address()).handshake("GET", path, &RawPeer::usual_headers());
        assert_eq!(reply.status, status, "{path}");
    }
}

#[test]
fn a_plain_request_to_a_listener_gets_no_page() {
    let host = Host::run(&echo());
    let reply = host.get("/ws");
    assert!([404, 426].contains(&reply.status), "{reply:?}");
}

#[test]
fn a_handshake_that_comes_in_pieces_and_with_data_behind_it_is_served() {
    let host = Host::run(&echo());
    let mut peer = RawPeer::connect(host.address());
    let head =
        format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n", RawPeer::usual_headers().join("\r\n"));
    let (first, second) = head.split_at(30);
    peer.write(first.as_bytes());
    let mut rest = second.as_bytes().to_vec();
    // "hi" in a masked text frame, in the same segment as the end of the handshake.
    rest.extend([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    peer.write(&rest);
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.extend(peer.read_exactly(1));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(peer.read_frame(), (1, b"hi".to_vec()));
}

// ---- Receiving

#[test]
fn in_payload_mode_text_is_a_string_and_binary_a_buffer() {
    let host = Host::run(&shown("false"));
    let mut io = host.io();
    let mut client = host.connect("/ws");
    for text in ["hello", "", "{\"a\":1}", "null", "höher 🎈"] {
        client.send_text(text);
        assert_eq!(unwrapped(io.recv_json()), json!({"payload": text}));
    }
    for bytes in [&[1, 2, 255][..], &[]] {
        client.send_binary(bytes);
        assert_eq!(unwrapped(io.recv_json()), json!({"payload": buffer(bytes)}));
    }
}

#[test]
fn fragments_are_joined_even_with_a_ping_between_them() {
    let host = Host::run(&echo());
    let mut peer = RawPeer::websocket(host.address(), "/ws");
    peer.write_frame(false, 1, b"frag1");
    peer.write_frame(true, 9, b"ping");
    peer.write_frame(true, 0, b"frag2");
    assert_eq!(peer.read_frame(), (10, b"ping".to_vec()));
    assert_eq!(peer.read_frame(), (1, b"frag1frag2".to_vec()));
}

#[test]
fn in_whole_message_mode_json_is_the_message_and_what_is_no_object_its_payload() {
    let host = Host::run(&shown("true"));
    let mut io = host.io();
    let mut client = host.connect("/ws");
    for (text, msg) in [
        (r#"{"payload":"x","topic":"t","_msgid":"fixed"}"#, json!({"payload": "x", "topic": "t"})),
        (r#"{"a":1}"#, json!({"a": 1})),
        ("{}", json!({})),
        ("42", json!({"payload": 42})),
        ("1.5", json!({"payload": 1.5})),
        (r#""str""#, json!({"payload": "str"})),
        ("true", json!({"payload": true})),
        ("{bad", json!({"payload": "{bad"})),
        ("", json!({"payload": ""})),
        // Node-RED does not bring a buffer back to life either.
        (
            r#"{"payload":{"type":"Buffer","data":[1,2]}}"#,
            json!({"payload": {"type": "Buffer", "data": [1, 2]}}),
        ),
        // Node-RED ends with an uncaught exception on `null`, and takes an array apart and loses most of it.
        ("null", json!({"payload": null})),
        ("[1,2]", json!({"payload": [1, 2]})),
        (r#"[{"payload":1},{"payload":2}]"#, json!({"payload": [{"payload": 1}, {"payload": 2}]})),
        ("[]", json!({"payload": []})),
    ] {
        client.send_text(text);
        assert_eq!(unwrapped(io.recv_json()), msg, "from {text}");
    }
    for (bytes, msg) in [
        (&br#"{"payload":"b"}"#[..], json!({"payload": "b"})),
        (&[255, 1], json!({"payload": buffer(&[255, 1])})),
    ] {
        client.send_binary(bytes);
        assert_eq!(unwrapped(io.recv_json()), msg, "from {bytes:?}");
    }
}

#[test]
fn a_message_cannot_bring_a_session_of_its_own() {
    let host = Host::run(&shown("true"));
    let mut io = host.io();
    let mut client = host.connect("/ws");
    client.send_text(r#"{"payload":1,"_session":{"type":"websocket","id":"evil"}}"#);
    let msg = io.recv_json();
    assert_ne!(msg["session"]["id"], "evil");
    assert_eq!(unwrapped(msg), json!({"payload": 1}));
}

#[test]
fn all_messages_of_a_client_have_its_session_and_no_other_client_has_it() {
    let host = Host::run(&shown("false"));
    let mut io = host.io();
    let (mut first, mut second) = (host.connect("/ws"), host.connect("/ws"));
    let mut session_of = |client: &mut Client| {
        client.send_text("x");
        io.recv_json()["session"]["id"].clone()
    };
    let sessions = [session_of(&mut first), session_of(&mut second), session_of(&mut first)];
    assert_eq!(sessions[0], sessions[2]);
    assert_ne!(sessions[0], sessions[1]);
}

#[test]
fn each_message_has_an_id_of_its_own_and_all_in_nodes_get_the_same_message() {
    let aside =
        json!({"rules": [{"t": "move", "p": "_session", "pt": "msg", "to": "session", "tot": "msg"}]});
    let flow = shown("false")
        .node("receive-2", "websocket in", "aside-2", json!({"server": "listener"}))
        .node("aside-2", "change", "out", aside);
    let host = Host::run(&flow);
    let mut io = host.io();
    let mut client = host.connect("/ws");
    let mut ids = Vec::new();
    for payload in ["a", "a", "b", "b"] {
        if ids.len() % 2 == 0 {
            client.send_text(payload);
        }
        let msg = io.recv_json();
        assert_eq!(msg["payload"], payload);
        ids.push(msg["_msgid"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[2], ids[3]);
    assert_ne!(ids[0], ids[2]);
}

#[test]
fn messages_of_one_client_keep_their_order() {
    const COUNT: usize = 2_000;
    let host = Host::run(&echo());
    let mut client = host.connect("/ws");
    for number in 0..COUNT {
        client.queue_text(&number.to_string());
    }
    client.send_text("end");
    for number in 0..COUNT {
        assert_eq!(client.recv_text(), number.to_string());
    }
    assert_eq!(client.recv_text(), "end");
}

#[test]
fn a_large_message_passes_whole() {
    let host = Host::run(&echo());
    let mut client = host.connect("/ws");
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    client.send_binary(&large);
    assert!(client.recv_binary() == large, "three million bytes come back as they were");
}

// ---- A peer that keeps no rules

#[test]
fn a_peer_that_breaks_the_protocol_is_closed_with_the_right_code() {
    type Misdeed = fn(&mut RawPeer);
    let misdeeds: [(&str, u16, Misdeed); 7] = [
        ("text that is no UTF-8", 1007, |peer| peer.write_frame(true, 1, &[0xff, 0xfe])),
        ("a frame without a mask", 1002, |peer| peer.write_unmasked_frame(1, b"hi")),
        ("an unknown opcode", 1002, |peer| peer.write_frame(true, 3, b"hi")),
        ("a fragmented ping", 1002, |peer| peer.write_frame(false, 9, b"hi")),
        ("a continuation of nothing", 1002, |peer| peer.write_frame(true, 0, b"hi")),
        ("reserved bits", 1002, |peer| peer.write(&[0xf1, 0x80, 0, 0, 0, 0])),
        // Only the head of the frame: nobody has to send a hundred megabytes to be refused.
        ("a message longer than 100 MiB", 1009, |peer| {
            let mut head = vec![0x82, 0xff];
            head.extend((100 * 1024 * 1024 + 1_u64).to_be_bytes());
            head.extend([0; 4]);
            peer.write(&head);
        }),
    ];
    let host = Host::run(&echo());
    for (what, code, misdeed) in misdeeds {
        let mut peer = RawPeer::websocket(host.address(), "/ws");
        misdeed(&mut peer);
        assert_eq!(peer.read_close_code(), Some(code), "{what}\n{}", host.logs());
    }
    let mut client = host.connect("/ws");
    client.send_text("still here");
    assert_eq!(client.recv_text(), "still here");
}

#[test]
fn a_peer_that_vanishes_does_not_disturb_the_others() {
    let host = Host::run(&echo());
    let mut steady = host.connect("/ws");
    for _ in 0..20 {
        let mut peer = RawPeer::websocket(host.address(), "/ws");
        // In the middle of a frame.
        peer.write(&[0x81, 0xfe, 0x10]);
    }
    steady.send_text("still here");
    assert_eq!(steady.recv_text(), "still here");
}

#[test]
fn a_close_from_the_client_is_answered_with_its_own_code() {
    let host = Host::run(&echo());
    for (code, reason) in [(1000, "done"), (3000, "app")] {
        let mut client = host.connect("/ws");
        client.close(code, reason);
        assert_eq!(client.recv(), Frame::Close(Some((code, reason.to_owned()))));
    }
}

#[test]
fn pings_of_a_client_are_answered() {
    let host = Host::run(&echo());
    let mut peer = RawPeer::websocket(host.address(), "/ws");
    peer.write_frame(true, 9, b"are you there");
    assert_eq!(peer.read_frame(), (10, b"are you there".to_vec()));
}

// ---- Sending

#[test]
fn in_payload_mode_the_payload_is_sent_as_javascript_prints_it() {
    let host = Host::run(&sending("false"));
    let mut client = host.connect("/ws");
    let mut io = host.io();
    for (payload, text) in [
        (json!("hi"), "hi"),
        // Node-RED sends nothing here; an empty text is a message too.
        (json!(""), ""),
        (json!(0), "0"),
        (json!(1.5), "1.5"),
        (json!(1e21), "1e+21"),
        (json!(true), "true"),
        (json!(false), "false"),
        (json!(null), "null"),
        (json!({"a": 1, "c": [1, "x"]}), r#"{"a":1,"c":[1,"x"]}"#),
        (json!([1, 2]), "[1,2]"),
    ] {
        io.send_json(&json!({"payload": payload}));
        assert_eq!(client.recv(), Frame::Text(text.to_owned()), "payload {payload}");
    }
}

#[test]
fn a_client_gets_what_is_sent_to_all_from_the_moment_it_is_connected() {
    let host = Host::run(&sending("false"));
    let mut io = host.io();
    for number in 0..200 {
        let mut client = host.connect("/ws");
        io.send_json(&json!({"payload": number}));
        assert_eq!(client.recv_text(), number.to_string());
    }
}

#[test]
fn a_buffer_is_sent_as_binary_even_when_it_is_empty() {
    let host = Host::run(&echo());
    let mut client = host.connect("/ws");
    for bytes in [&[1, 2][..], &[]] {
        client.send_binary(bytes);
        assert_eq!(client.recv(), Frame::Binary(bytes.to_vec()));
    }
}

#[test]
fn in_whole_message_mode_the_message_is_sent_as_json_without_its_session() {
    let flow = Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws", "wholemsg": "true"}))
        .node("receive", "websocket in", "reply", json!({"server": "listener"}))
        .node("reply", "websocket out", "", json!({"server": "listener"}));
    let host = Host::run(&flow);
    let mut client = host.connect("/ws");
    for msg in [
        json!({"_msgid": "m", "payload": "x", "topic": "t"}),
        json!({"_msgid": "m", "a": null, "deep": {"b": [1, {"c": 1.5}]}}),
    ] {
        client.send_json(&msg);
        assert_eq!(client.recv_text(), msg.to_string(), "in the same order, too");
    }
    client.send_binary(&[255]);
    let msg = client.recv_json();
    assert_eq!(msg["payload"], buffer(&[255]));
    assert!(msg.get("_session").is_none(), "{msg}");
}

#[test]
fn a_session_on_the_message_decides_who_gets_it() {
    // `/ws` collects sessions, `/io` says to whom a message goes.
    let flow = Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws", "wholemsg": "false"}))
        .node("receive", "websocket in", "aside", json!({"server": "listener"}))
        .node(
            "aside",
            "change",
            "out",
            json!({"rules": [{"t": "move", "p": "_session", "pt": "msg", "to": "session", "tot": "msg"}]}),
        )
        .node(
            "address",
            "change",
            "send",
            json!({"rules": [
                {"t": "delete", "p": "_session", "pt": "msg"},
                {"t": "move", "p": "to", "pt": "msg", "to": "_session", "tot": "msg"},
            ]}),
        )
        .node("send", "websocket out", "", json!({"server": "listener"}))
        .io("address");
    let host = Host::run(&flow);
    let mut io = host.io();
    let (mut first, mut second) = (host.connect("/ws"), host.connect("/ws"));
    first.send_text("who am I");
    let session = io.recv_json()["session"].clone();

    io.send_json(&json!({"payload": "to the first", "to": session}));
    io.send_json(&json!({"payload": "to nobody", "to": {"type": "websocket", "id": "0123456789abcdef"}}));
    io.send_json(&json!({"payload": "other type", "to": {"type": "tcp", "id": session["id"]}}));
    io.send_json(&json!({"payload": "no type", "to": {}}));
    io.send_json(&json!({"payload": "no session"}));
    for text in ["to the first", "other type", "no type", "no session"] {
        assert_eq!(first.recv_text(), text);
    }
    for text in ["other type", "no type", "no session"] {
        assert_eq!(second.recv_text(), text);
    }
    assert_eq!(host.count_log("error"), 0, "{}", host.log());
}

#[test]
fn a_reply_to_a_client_that_has_left_is_dropped_in_silence() {
    // The reply is held back until the client is gone: it goes out when `/io` releases it.
    let flow = shown("false")
        .node(
            "back",
            "change",
            "send",
            json!({"rules": [{"t": "move", "p": "to", "pt": "msg", "to": "_session", "tot": "msg"}]}),
        )
        .node("send", "websocket out", "", json!({"server": "listener"}))
        .config("control", "websocket-listener", json!({"path": "/control", "wholemsg": "true"}))
        .node("from-control", "websocket in", "back", json!({"server": "control"}))
        .node("watch", "status", "out", json!({"scope": ["receive"]}));
    let host = Host::run(&flow);
    let mut io = host.io();
    let mut leaving = host.connect("/ws");
    assert_eq!(io.recv_json()["status"]["event"], "connect");
    leaving.send_text("x");
    let session = io.recv_json()["session"].clone();
    leaving.close(1000, "");
    assert_eq!(io.recv_json()["status"]["event"], "disconnect");

    let mut control = host.connect("/control");
    control.send_json(&json!({"payload": "late", "to": session}));
    let mut staying = host.connect("/ws");
    assert_eq!(io.recv_json()["status"]["event"], "connect");
    control.send_json(&json!({"payload": "all", "to": {}}));
    assert_eq!(staying.recv_text(), "all");
    assert_eq!(host.count_log("error"), 0, "{}", host.log());
    assert_eq!(host.count_log("warn"), 0, "{}", host.log());
}

#[test]
fn a_broadcast_without_clients_completes_in_silence() {
    let flow = sending("false").node("done", "complete", "out", json!({"scope": ["send"]}));
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({"payload": "to nobody"}));
    let msg = io.recv_json();
    assert_eq!(msg["payload"], "to nobody");
    assert_eq!(msg["complete"]["source"], json!({"id": "send", "type": "websocket out", "name": ""}));
    assert_eq!(host.count_log("warn"), 0, "{}", host.log());
}

#[test]
fn a_message_with_nothing_to_send_completes_too() {
    let flow = sending("false").node("done", "complete", "out", json!({"scope": ["send"]}));
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({"topic": "no payload"}));
    assert_eq!(io.recv_json()["topic"], "no payload");
}

// ---- Several listeners and nodes

#[test]
fn several_listeners_with_many_nodes_each_keep_to_themselves() {
    let mut flow = Flow::new();
    for listener in ["a", "b", "c"] {
        flow = flow.config(listener, "websocket-listener", json!({"path": format!("/{listener}")}));
        for node in 1..=3 {
            let (receive, reply) = (format!("in-{listener}{node}"), format!("out-{listener}{node}"));
            flow = flow.node(&receive, "websocket in", &reply, json!({"server": listener})).node(
                &reply,
                "websocket out",
                "",
                json!({"server": listener}),
            );
        }
    }
    let host = Host::run(&flow);
    let mut clients: Vec<Client> = ["/a", "/b", "/c"].map(|path| host.connect(path)).into();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_text(&number.to_string());
    }
    for (number, client) in clients.iter_mut().enumerate() {
        for _ in 0..3 {
            assert_eq!(client.recv_text(), number.to_string());
        }
        client.send_text("end");
        assert_eq!(client.recv_text(), "end", "three pairs of nodes make three replies, no more");
    }
}

#[test]
fn two_listeners_on_one_path_are_reported_and_the_first_has_it() {
    let flow = echo()
        .config("second", "websocket-listener", json!({"path": "ws"}))
        .node("silent", "websocket in", "wrong", json!({"server": "second"}))
        .node("wrong", "websocket out", "", json!({"server": "second"}));
    let host = Host::run(&flow);
    let line = host.wait_log("Cannot have two WebSocket listeners on the same path: ");
    assert!(line.contains("second"), "the line names the node: {line}");
    let mut client = host.connect("/ws");
    client.send_text("one");
    client.send_text("two");
    assert_eq!(client.recv_text(), "one");
    assert_eq!(client.recv_text(), "two");
}

#[test]
fn a_listener_that_is_disabled_or_missing_leaves_its_nodes_without_configuration() {
    let flow = echo()
        .config("off", "websocket-listener", json!({"path": "/off", "d": true}))
        .node("on-disabled", "websocket in", "", json!({"server": "off"}))
        .node("on-missing", "websocket out", "", json!({"server": "nowhere"}));
    let host = Host::run(&flow);
    host.wait_log("on-disabled*Missing server configuration");
    host.wait_log("on-missing*Missing server configuration");
    assert_eq!(host.get("/off").status, 404);
    host.connect("/ws");
}

#[test]
fn a_listener_without_a_path_is_reported_and_the_rest_runs() {
    let flow = echo().config("pathless", "websocket-listener", json!({"wholemsg": "false"})).node(
        "on-pathless",
        "websocket in",
        "",
        json!({"server": "pathless"}),
    );
    let host = Host::run(&flow);
    let line = host.wait_log("pathless*path");
    assert!(line.contains("websocket-listener"), "the line names the type: {line}");
    host.wait_log("on-pathless*Missing server configuration");
    host.connect("/ws");
}

#[test]
fn an_upgrade_to_a_path_that_nobody_has_is_refused_at_once() {
    let host = Host::run(&echo());
    let begin = std::time::Instant::now();
    let refusal = Client::connect_with(host.address(), "/nowhere", &[]).unwrap_err();
    assert_eq!(refusal.status, 404);
    assert!(begin.elapsed().as_secs() < 4, "Node-RED lets the client wait for five seconds");
}

// ---- Options

/// An echo on `/ws` with these properties of the listener.
fn echo_with(mut properties: Value) -> Flow {
    properties["path"] = json!("/ws");
    Flow::new()
        .config("listener", "websocket-listener", properties)
        .node("receive", "websocket in", "reply", json!({"server": "listener"}))
        .node("reply", "websocket out", "", json!({"server": "listener"}))
}

/// A metric of a node.
fn metric(host: &Host, name: &str, node: &str) -> f64 {
    let reply = host.get("/metrics");
    assert_eq!(reply.status, 200, "{reply:?}");
    let (start, node) = (format!("flowbay_{name}{{"), format!("node=\"{node}\""));
    let line = reply.body.lines().find(|line| line.starts_with(&start) && line.contains(&node));
    let line = line.unwrap_or_else(|| panic!("no {name} of {node}:\n{}", reply.body));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_session_says_who_the_client_is_and_what_it_asked_for() {
    let copy = json!([{"t": "set", "p": "payload", "pt": "msg", "to": "_session", "tot": "msg"}]);
    let flow = Flow::new()
        .config("rooms", "websocket-listener", json!({"path": "/ws/:room/:seat"}))
        .node("receive", "websocket in", "copy", json!({"server": "rooms"}))
        .change("copy", "reply", copy)
        .node("reply", "websocket out", "", json!({"server": "rooms"}))
        .config("literal", "websocket-listener", json!({"path": "/ws/tea/house"}))
        .node("other", "websocket in", "say-other", json!({"server": "literal"}))
        .set("say-other", "reply-other", "payload", "literal", "str")
        .node("reply-other", "websocket out", "", json!({"server": "literal"}));
    let host = Host::run(&flow);
    let headers = [("Sec-WebSocket-Protocol", "chat, other")];
    let mut client = Client::connect_with(host.address(), "/ws/tea/7?a=1&b=x%20y&a=2", &headers).unwrap();
    client.send_text("x");
    let mut session = client.recv_json();
    assert!(is_id(&session["id"]));
    assert!(session["remotePort"].as_u64().is_some_and(|port| port > 0), "{session}");
    let fields = session.as_object_mut().unwrap();
    fields.retain(|name, _| name != "id" && name != "remotePort");
    assert_eq!(
        session,
        json!({
            "type": "websocket",
            "remoteAddress": "127.0.0.1",
            "path": "/ws/tea/7",
            "query": {"a": ["1", "2"], "b": "x y"},
            "params": {"room": "tea", "seat": "7"},
            "protocol": "chat",
        })
    );
    // Nothing in a message says otherwise, and other rooms are other rooms.
    let mut other = host.connect("/ws/coffee/8");
    other.send_text("x");
    let session = other.recv_json();
    assert_eq!((&session["params"]["room"], &session["query"]), (&json!("coffee"), &json!({})));
    assert_eq!(session.get("protocol"), None);

    let mut literal = host.connect("/ws/tea/house");
    literal.send_text("x");
    assert_eq!(literal.recv_text(), "literal", "a path that is written out wins");
    assert_eq!(host.connect_refused("/ws/tea"), 404);
    assert_eq!(host.connect_refused("/ws/tea/7/8"), 404);
}

#[test]
fn of_the_subprotocols_offered_the_one_that_is_wanted_most_is_agreed_to() {
    let host = Host::run(&echo_with(json!({"subprotocol": "v2, v1"})));
    for (offered, chosen) in [("v1, v2", Some("v2")), ("x, v1", Some("v1")), ("x, V2", None), ("", None)] {
        let mut headers = RawPeer::usual_headers();
        headers.push(format!("Sec-WebSocket-Protocol: {offered}"));
        let reply = RawPeer::connect(host.address()).handshake("GET", "/ws", &headers);
        assert_eq!(reply.status, 101, "{offered:?}");
        assert_eq!(reply.headers.get("sec-websocket-protocol").map(String::as_str), chosen, "{offered:?}");
    }
}

#[test]
fn clients_beyond_the_limit_get_503_and_one_that_leaves_makes_room() {
    let flow =
        echo_with(json!({"maxClients": "2"})).node("watch", "status", "out", json!({"scope": ["receive"]}));
    let host = Host::run(&flow.io(""));
    let mut io = host.io();
    let mut clients = [host.connect("/ws"), host.connect("/ws")];
    for client in &mut clients {
        client.send_text("here");
        assert_eq!(client.recv_text(), "here");
    }
    assert_eq!(host.connect_refused("/ws"), 503);
    host.wait_log("127.0.0.1*/ws*503*2 clients");
    assert_eq!(metric(&host, "websocket_refused_total", "listener"), 1.0);
    let [mut leaving, mut staying] = clients;
    leaving.close(1000, "");
    while io.recv_json()["status"]["event"] != "disconnect" {}
    host.connect("/ws");
    staying.send_text("undisturbed");
    assert_eq!(staying.recv_text(), "undisturbed");
}

#[test]
fn however_many_come_at_once_no_more_than_the_limit_stay() {
    let host = Host::run(&echo_with(json!({"maxClients": 3})));
    let to = host.address();
    let all: Vec<_> =
        (0..20).map(|_| std::thread::spawn(move || Client::connect_with(to, "/ws", &[]))).collect();
    let (mut staying, mut cut) = (0, 0);
    let mut held = Vec::new();
    for client in all {
        match client.join().unwrap() {
            Err(refusal) => assert_eq!(refusal.status, 503),
            Ok(mut client) => {
                client.send_text("here");
                match client.recv() {
                    Frame::Text(_) => staying += 1,
                    other => {
                        assert_eq!(other, Frame::Close(Some((1013, "too many clients".to_owned()))));
                        cut += 1;
                    }
                }
                held.push(client);
            }
        }
    }
    assert_eq!(staying, 3, "{}", host.logs());
    assert_eq!(metric(&host, "websocket_refused_total", "listener"), 17.0, "{cut} of them by 1013");
    if cut > 0 {
        host.wait_log("session * with 127.0.0.1:* is ended: too many clients");
    }
}

#[test]
fn a_message_or_frame_beyond_its_limit_is_1009_and_one_within_passes() {
    let limits = json!({"maxMessageSize": "1000", "maxFrameSize": 400, "maxFragments": "5"});
    let host = Host::run(&echo_with(limits));
    let mut peer = RawPeer::websocket(host.address(), "/ws");
    peer.write_frame(false, 2, &[1; 400]);
    peer.write_frame(false, 0, &[2; 400]);
    peer.write_frame(true, 0, &[3; 200]);
    assert_eq!(peer.read_frame().1.len(), 1000);
    for number in 0..5_u8 {
        peer.write_frame(number == 4, if number == 0 { 1 } else { 0 }, b"x");
    }
    assert_eq!(peer.read_frame(), (1, b"xxxxx".to_vec()));

    type Misdeed = fn(&mut RawPeer);
    let misdeeds: [(&str, u16, Misdeed); 3] = [
        ("a frame too long", 1009, |peer| peer.write_frame(true, 2, &[1; 401])),
        ("a message too long", 1009, |peer| {
            for number in 0..3 {
                peer.write_frame(false, if number == 0 { 2 } else { 0 }, &[1; 400]);
            }
        }),
        ("too many fragments", 1008, |peer| {
            for number in 0..6 {
                peer.write_frame(false, if number == 0 { 1 } else { 0 }, b"x");
            }
        }),
    ];
    for (what, code, misdeed) in misdeeds {
        let mut peer = RawPeer::websocket(host.address(), "/ws");
        misdeed(&mut peer);
        assert_eq!(peer.read_close_code(), Some(code), "{what}\n{}", host.logs());
    }
    host.wait_log("listener*127.0.0.1");
    assert_eq!(metric(&host, "websocket_protocol_errors_total", "listener"), 3.0);
}

#[test]
fn a_listener_with_a_heartbeat_cuts_clients_that_do_not_answer_and_keeps_those_that_do() {
    let flow =
        echo_with(json!({"hb": "1"})).node("watch", "status", "out", json!({"scope": ["receive"]})).io("");
    let host = Host::run(&flow);
    let mut io = host.io();
    let mut silent = RawPeer::websocket(host.address(), "/ws");
    let mut answering = host.connect("/ws");
    for _ in 0..3 {
        assert_eq!(answering.recv_or_ping(), Frame::Ping(vec![]));
    }
    assert_eq!(silent.read_frame(), (9, vec![]));
    silent.read_to_end();
    let cut = loop {
        let status = io.recv_json()["status"].clone();
        if status["event"] == "disconnect" {
            break status;
        }
    };
    assert_eq!(cut["code"], 1006, "{cut}");
    assert_eq!(cut["text"], "connected 1");
}

#[test]
fn a_client_that_is_idle_for_too_long_is_told_to_go() {
    let host = Host::run(&echo_with(json!({"idleTimeout": 0.5})));
    let mut client = host.connect("/ws");
    assert_eq!(client.recv(), Frame::Close(Some((1001, "idle".to_owned()))));
    host.wait_log("session*127.0.0.1*idle*node=listener");
}

#[test]
fn an_option_that_makes_no_sense_is_reported_with_node_and_property_and_nothing_listens() {
    let mut flow = echo();
    let rows = [
        ("maxMessageSize", json!("16 MiB")),
        ("maxFrameSize", json!(0)),
        ("maxFragments", json!(-1)),
        ("maxClients", json!("many")),
        ("idleTimeout", json!(true)),
        ("handshakeTimeout", json!("soon")),
        ("origins", json!("example.com")),
        ("sendQueueMessages", json!(0)),
        ("sendQueueBytes", json!(1.5)),
        ("sendQueueOverflow", json!("wait")),
        ("auth", json!("maybe")),
    ];
    for (name, value) in &rows {
        let id = format!("bad-{name}");
        let mut properties = json!({"path": format!("/{name}")});
        properties[*name] = value.clone();
        flow = flow.config(&id, "websocket-listener", properties);
    }
    let host = Host::run(&flow);
    for (name, _) in &rows {
        host.wait_log(&format!("bad-{name}*websocket-listener*\"{name}\""));
        assert_eq!(host.connect_refused(&format!("/{name}")), 404, "{name}");
    }
    host.connect("/ws");
}

/// A listener on `/ws` with these properties that sends what comes from `/io`, to all.
fn sending_with(properties: Value) -> Flow {
    echo_with(properties).forget("forget", "reply").io("forget")
}

/// Messages of a flood: 20 MB, more than any socket takes.
const FLOOD: usize = 200;

/// Sends messages of 100 KB, numbered, and then `end`, to all, among them a peer that does not read them.
fn flood(host: &Host) -> RawPeer {
    let mut io = host.io();
    let peer = RawPeer::websocket(host.address(), "/ws");
    let rest = "x".repeat(100_000);
    for number in 0..FLOOD {
        io.send_json(&json!({"payload": format!("{number}:{rest}")}));
    }
    // All of it has been queued, or not. (Another client must not come into the flood: it might not keep up either.)
    host.eventually("the flood is over", || {
        let received = metric(host, "websocket_messages_received_total", "io");
        let waiting = ["forget", "reply"].map(|node| metric(host, "mailbox_messages", node));
        (received == FLOOD as f64 && waiting == [0.0, 0.0]).then_some(())
    });
    let mut other = host.connect("/ws");
    io.send_json(&json!({"payload": "end"}));
    while other.recv_text() != "end" {}
    peer
}

/// The numbers of the messages that a flooded peer gets when it reads at last, up to `end` or a close frame.
fn numbers(peer: &mut RawPeer) -> (Vec<usize>, Option<u16>) {
    let mut numbers = Vec::new();
    loop {
        match peer.read_frame() {
            (1, payload) if payload == b"end" => return (numbers, None),
            (1, payload) => {
                let text = String::from_utf8(payload).unwrap();
                numbers.push(text.split(':').next().unwrap().parse().unwrap());
            }
            (8, payload) => return (numbers, Some(u16::from_be_bytes([payload[0], payload[1]]))),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_with_1008_when_its_queue_is_full() {
    let host = Host::run(&sending_with(json!({"sendQueueMessages": "10"})));
    let (numbers, code) = numbers(&mut flood(&host));
    assert_eq!(code, Some(1008), "{}", host.logs());
    assert!(numbers.iter().copied().eq(0..numbers.len()), "in order and whole up to the end: {numbers:?}");
    assert!(numbers.len() < FLOOD, "{numbers:?}");
    host.wait_log("listener*127.0.0.1*queue");
}

#[test]
fn when_it_is_asked_for_new_messages_for_a_full_queue_are_dropped_instead() {
    let host =
        Host::run(&sending_with(json!({"sendQueueBytes": 500_000, "sendQueueOverflow": "drop-newest"})));
    // The last message of the flood is so short that there is room for it.
    let (numbers, code) = numbers(&mut flood(&host));
    assert_eq!(code, None, "{}", host.logs());
    // Later ones may fit again, as the sockets take more now and then.
    assert!(numbers.is_sorted() && numbers.starts_with(&[0, 1, 2, 3]), "the beginning is kept: {numbers:?}");
    assert!(numbers.len() < FLOOD && numbers.last() != Some(&(FLOOD - 1)), "{numbers:?}");
    assert!(metric(&host, "session_dropped_total", "listener") > 0.0);
}

#[test]
fn when_it_is_asked_for_the_oldest_messages_of_a_full_queue_are_dropped_instead() {
    let host = Host::run(&sending_with(json!({"sendQueueMessages": 10, "sendQueueOverflow": "drop-oldest"})));
    let (numbers, code) = numbers(&mut flood(&host));
    assert_eq!(code, None);
    assert_eq!(numbers.last(), Some(&(FLOOD - 1)), "{numbers:?}");
    assert!(numbers.is_sorted() && numbers.len() < FLOOD, "{numbers:?}");
    assert!(metric(&host, "session_dropped_total", "listener") > 0.0);
}

#[test]
fn a_listener_counts_its_connections_and_what_goes_through_them() {
    let host = Host::run(&echo());
    let mut clients = [host.connect("/ws"), host.connect("/ws"), host.connect("/ws")];
    for client in &mut clients {
        client.send_text("four");
        assert_eq!(client.recv_text(), "four");
        client.send_binary(&[0; 10]);
        client.recv_binary();
    }
    let [mut leaving, _first, _second] = clients;
    leaving.close(1000, "");
    host.eventually("two connections", || {
        (metric(&host, "websocket_connections", "listener") == 2.0).then_some(())
    });
    for (name, value) in [
        ("websocket_connects_total", 3.0),
        ("websocket_messages_received_total", 6.0),
        ("websocket_messages_sent_total", 6.0),
        ("websocket_bytes_received_total", 42.0),
        ("websocket_bytes_sent_total", 42.0),
        ("websocket_undelivered_total", 0.0),
        ("websocket_protocol_errors_total", 0.0),
    ] {
        host.eventually(name, || (metric(&host, name, "listener") == value).then_some(()));
    }
}

// ---- Status

#[test]
fn in_and_out_nodes_say_how_many_clients_are_connected() {
    let flow = echo().node("watch", "status", "out", json!({"scope": null})).io("");
    let host = Host::run(&flow);
    let mut io = host.io();
    let mut next = |expected: [(&str, &str, &str, &str); 2]| -> Value {
        // Both nodes tell; which of them first is not promised.
        let mut statuses = [io.recv_json()["status"].clone(), io.recv_json()["status"].clone()];
        statuses.sort_by_key(|status| status["source"]["id"].as_str().unwrap().to_owned());
        for (status, (id, node_type, text, event)) in statuses.iter().zip(expected) {
            let (fill, shape) = if text.contains("dis") { ("red", "ring") } else { ("green", "dot") };
            assert_eq!(status["source"], json!({"id": id, "type": node_type, "name": ""}));
            assert_eq!((&status["fill"], &status["shape"]), (&json!(fill), &json!(shape)), "{status}");
            assert_eq!((&status["text"], &status["event"]), (&json!(text), &json!(event)), "{status}");
            assert_eq!(status["_session"]["type"], "websocket", "{status}");
            assert!(is_id(&status["_session"]["id"]), "{status}");
        }
        assert_eq!(statuses[0]["_session"], statuses[1]["_session"]);
        statuses[0]["_session"]["id"].clone()
    };
    let both =
        |text, event| [("receive", "websocket in", text, event), ("reply", "websocket out", text, event)];

    let mut first = host.connect("/ws");
    let session = next(both("connected 1", "connect"));
    let mut second = host.connect("/ws");
    assert_ne!(next(both("connected 2", "connect")), session);
    first.close(1000, "");
    assert_eq!(next(both("connected 1", "disconnect")), session);
    second.close(1000, "");
    // The key of a text that the editor translates.
    next(both("common.status.disconnected", "disconnect"));
}

#[test]
fn connect_and_disconnect_say_which_client_and_how_it_ended() {
    let flow = Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws/:room"}))
        .node("receive", "websocket in", "reply", json!({"server": "listener"}))
        .node("reply", "websocket out", "", json!({"server": "listener"}))
        .node("watch", "status", "out", json!({"scope": ["receive"]}))
        .io("");
    let host = Host::run(&flow);
    let mut io = host.io();
    let mut check = |end: fn(RawPeer), code: u16, reason: &str| {
        let peer = RawPeer::websocket(host.address(), "/ws/tea?a=1");
        let connect = io.recv_json()["status"].clone();
        assert_eq!(connect["event"], "connect");
        let session = &connect["_session"];
        assert_eq!((&session["params"]["room"], &session["query"]["a"]), (&json!("tea"), &json!("1")));
        assert_eq!(connect.get("code"), None, "{connect}");
        end(peer);
        let disconnect = loop {
            let status = io.recv_json()["status"].clone();
            if status["event"] == "disconnect" {
                break status;
            }
        };
        assert_eq!(&disconnect["_session"], session);
        assert_eq!(
            (&disconnect["code"], &disconnect["reason"]),
            (&json!(code), &json!(reason)),
            "{disconnect}"
        );
    };
    check(|mut peer| peer.write_frame(true, 8, b"\x0f\xa1bye"), 4001, "bye");
    check(|mut peer| peer.write_frame(true, 8, b""), 1005, "");
    check(drop, 1006, "");
}

#[test]
fn a_protocol_error_is_a_status_followed_by_a_disconnect() {
    let flow = echo().node("watch", "status", "out", json!({"scope": ["receive"]})).io("");
    let host = Host::run(&flow);
    let mut io = host.io();
    let mut peer = RawPeer::websocket(host.address(), "/ws");
    assert_eq!(io.recv_json()["status"]["event"], "connect");
    peer.write_unmasked_frame(1, b"hi");
    let error = io.recv_json()["status"].clone();
    assert_eq!(
        (&error["event"], &error["fill"], &error["shape"]),
        (&json!("error"), &json!("red"), &json!("ring"))
    );
    assert_eq!(io.recv_json()["status"]["event"], "disconnect");
}

// ---- The end

#[test]
fn every_client_gets_1001_when_the_host_stops_even_one_that_never_reads() {
    let host = Host::run(&echo());
    let mut clients: Vec<Client> = (0..10).map(|_| host.connect("/ws")).collect();
    let _silent = RawPeer::websocket(host.address(), "/ws");
    for client in &mut clients {
        client.send_text("here");
        assert_eq!(client.recv_text(), "here");
    }
    host.signal(Signal::INT);
    for client in &mut clients {
        assert_eq!(client.recv_close(), 1001);
    }
    drop(clients);
    assert_eq!(host.wait_exit().code, Some(0));
}
