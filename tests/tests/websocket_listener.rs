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
