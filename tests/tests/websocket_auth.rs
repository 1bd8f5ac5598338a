//! Who may connect to a listener: origins, Basic, Bearer, and what a flow decides.

use data_encoding::BASE64;
use flowbay_tests::harness::{
    Client, Flow, Host, HostBuilder, PATIENCE, RawPeer, Reply, Way, install, plugin, rebuilt, scratch_folder,
};
use serde_json::{Value, json};

/// Must never be seen outside of credentials and requests.
const SECRET: &str = "sesame-opens-the-cave";

/// A listener on `/ws` with these properties that shows each message, with its session as `session`, to its sender.
fn shown(properties: Value) -> Flow {
    let copy = json!([{"t": "set", "p": "payload", "pt": "msg", "to": "_session", "tot": "msg"}]);
    let listener = Flow::new().config("listener", "websocket-listener", with_path(properties));
    listener
        .node("in", "websocket in", "copy", json!({"server": "listener"}))
        .change("copy", "out", copy)
        .node("out", "websocket out", "", json!({"server": "listener"}))
}

fn with_path(mut properties: Value) -> Value {
    properties["path"] = json!("/ws");
    properties
}

/// A host with the flow and these credentials of the listener.
fn host_with(flow: &Flow, credentials: Value) -> HostBuilder {
    Host::builder().flow(flow).file("flows_cred.json", json!({"listener": credentials}).to_string())
}

/// The session that a new client is known as.
fn session(client: &mut Client) -> Value {
    client.send_text("who am I");
    client.recv_json()
}

/// A handshake with these headers besides the usual ones.
fn handshake(host: &Host, headers: &[&str]) -> Reply {
    let all: Vec<String> =
        RawPeer::usual_headers().into_iter().chain(headers.iter().map(|line| (*line).into())).collect();
    RawPeer::connect(host.address()).handshake("GET", "/ws", &all)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))
}

fn assert_no_secret(host: &Host) {
    for text in [host.log(), host.stdout()] {
        assert!(!text.contains(SECRET), "{text}");
        assert!(!text.contains(&BASE64.encode(format!("anna:{SECRET}").as_bytes())), "{text}");
    }
}

// ---- Origins

#[test]
fn only_pages_of_the_listed_origins_may_connect_and_programs_may() {
    let host = Host::run(&shown(json!({"origins": "https://a.example, http://b.example:8080"})));
    for (origin, status) in [
        ("Origin: https://a.example", 101),
        ("Origin: HTTPS://A.example:443", 101),
        ("Origin: http://b.example:8080", 101),
        ("X-Not: an-origin", 101),
        ("Origin: http://a.example", 403),
        ("Origin: https://a.example.evil.example", 403),
        ("Origin: http://localhost", 403),
        ("Origin: null", 403),
        ("Origin: ", 403),
    ] {
        assert_eq!(handshake(&host, &[origin]).status, status, "{origin}\n{}", host.logs());
    }
    host.wait_log("127.0.0.1*/ws*403*origin*not allowed");
}

#[test]
fn pages_of_the_server_itself_are_the_same_origin() {
    // The harness asks for `Host: localhost`.
    let host = Host::run(&shown(json!({"origins": ["same"]})));
    for (origin, status) in [
        ("Origin: http://localhost", 101),
        ("Origin: https://localhost", 101),
        ("Origin: http://localhost:1880", 403),
        ("Origin: http://elsewhere", 403),
    ] {
        assert_eq!(handshake(&host, &[origin]).status, status, "{origin}");
    }
}

#[test]
fn without_a_list_any_page_may_connect() {
    let host = Host::run(&shown(json!({"origins": ""})));
    assert_eq!(handshake(&host, &["Origin: https://anywhere.example"]).status, 101);
}

// ---- Basic

#[test]
fn with_basic_a_user_is_let_in_by_password_and_named_in_each_message() {
    let users = format!("anna:{SECRET}\nümit:with:colon");
    let host = host_with(&shown(json!({"auth": "basic"})), json!({"users": users})).start();
    for (user, password) in [("anna", SECRET), ("ümit", "with:colon")] {
        let header = basic(user, password);
        for header in [header.clone(), header.replacen("Basic", "bAsIc", 1)] {
            let mut client =
                Client::connect_with(host.address(), "/ws", &[("Authorization", &header)]).unwrap();
            assert_eq!(session(&mut client)["identity"], user);
        }
    }
    assert_eq!(host.count_log("WARN"), 0, "a password from this machine crosses no wire: {}", host.log());
    assert_no_secret(&host);
}

#[test]
fn with_basic_everybody_else_gets_401_and_what_to_come_with() {
    let users = json!({"users": format!("anna:{SECRET}\nbert:other")});
    let host = host_with(&shown(json!({"auth": "basic"})), users).start();
    let huge = format!("Authorization: Basic {}", BASE64.encode(&[b'x'; 4000]));
    let mut rows: Vec<String> = [
        basic("anna", "other"),
        basic("anna", ""),
        basic("", SECRET),
        basic("Anna", SECRET),
        basic("anna", &format!("{SECRET} ")),
        basic("carl", SECRET),
        "Basic".to_owned(),
        "Basic ".to_owned(),
        "Basic !!!".to_owned(),
        format!("Basic {}", BASE64.encode(b"no colon")),
        format!("Basic {}", BASE64.encode(&[0xff, b':', 0xfe])),
        format!("Bearer {SECRET}"),
        format!("anna:{SECRET}"),
        String::new(),
    ]
    .map(|value| format!("Authorization: {value}"))
    .into();
    rows.push("X-Authorization: none".to_owned());
    rows.push(huge);
    for row in rows {
        let reply = handshake(&host, &[&row]);
        assert_eq!(reply.status, 401, "{row}");
        assert_eq!(reply.headers["www-authenticate"], r#"Basic realm="flowbay", charset="UTF-8""#, "{row}");
    }
    host.wait_log("127.0.0.1*/ws*401*credentials");
    assert_no_secret(&host);
}

// ---- Bearer

#[test]
fn with_bearer_a_token_lets_in_and_names_its_holder() {
    let tokens = json!({"tokens": format!("{SECRET}\nsensor 7: t-two\nt-three\n")});
    let host = host_with(&shown(json!({"auth": "bearer"})), tokens).start();
    for (token, identity) in [(SECRET, "token 1"), ("t-two", "sensor 7"), ("t-three", "token 3")] {
        let header = format!("Bearer {token}");
        let mut client = Client::connect_with(host.address(), "/ws", &[("Authorization", &header)]).unwrap();
        assert_eq!(session(&mut client)["identity"], identity);
    }
    for (header, challenge) in [
        ("X: y", r#"Bearer realm="flowbay""#),
        ("Authorization: Bearer nothing-known", r#"Bearer realm="flowbay", error="invalid_token""#),
        ("Authorization: Bearer sensor 7: t-two", r#"Bearer realm="flowbay", error="invalid_token""#),
        ("Authorization: Basic eA==", r#"Bearer realm="flowbay", error="invalid_request""#),
        ("Authorization: Bearer", r#"Bearer realm="flowbay", error="invalid_request""#),
    ] {
        let reply = handshake(&host, &[header]);
        assert_eq!((reply.status, reply.headers["www-authenticate"].as_str()), (401, challenge), "{header}");
    }
    assert_no_secret(&host);
}

#[test]
fn a_listener_without_the_credentials_it_needs_lets_nobody_in_and_says_so() {
    for (auth, credentials, names) in [
        ("basic", json!({}), "users"),
        ("basic", json!({"tokens": SECRET}), "users"),
        ("basic", json!({"users": format!("anna:x\n{SECRET}")}), "line 2"),
        ("bearer", json!({"tokens": format!(":{SECRET}")}), "line 1"),
        ("digest", json!({}), "digest"),
    ] {
        let host = host_with(&shown(json!({"auth": auth})), credentials).start();
        host.wait_log(&format!("listener*websocket-listener*{names}"));
        assert_eq!(handshake(&host, &[]).status, 404, "{auth}");
        assert_no_secret(&host);
    }
}

// ---- What a flow decides

/// A listener on `/ws/:room` whose upgrades are shown on `/io`, and which does what comes from `/io`. Messages go back
/// to their sender, with the session in them.
fn decided() -> Flow {
    let copy = json!([{"t": "set", "p": "payload", "pt": "msg", "to": "_session", "tot": "msg"}]);
    let listener = json!({"path": "/ws/:room", "auth": "message", "subprotocol": "b, a"});
    Flow::new()
        .config("listener", "websocket-listener", listener)
        .node("asks", "websocket in", "out", json!({"server": "listener", "events": "upgrade"}))
        .node("obeys", "websocket out", "", json!({"server": "listener", "control": true}))
        .node("failed", "catch", "out", json!({"scope": ["obeys"]}))
        .node("hears", "websocket in", "copy", json!({"server": "listener"}))
        .change("copy", "answers", copy)
        .node("answers", "websocket out", "", json!({"server": "listener"}))
        .io("unsigned")
        .forget("unsigned", "obeys")
}

/// Begins to connect, in a thread of its own: the answer comes when a flow has decided.
fn begin(host: &Host, path: &str, headers: &[&str]) -> std::thread::JoinHandle<Reply> {
    let (to, path) = (host.address(), path.to_owned());
    let headers: Vec<String> =
        RawPeer::usual_headers().into_iter().chain(headers.iter().map(|line| (*line).into())).collect();
    std::thread::spawn(move || RawPeer::connect(to).handshake("GET", &path, &headers))
}

fn connect_in_thread(host: &Host, path: &str) -> std::thread::JoinHandle<Client> {
    let (to, path) = (host.address(), path.to_owned());
    std::thread::spawn(move || Client::connect(to, &path))
}

#[test]
fn a_flow_sees_the_whole_request_and_lets_in_whom_it_knows() {
    let host = Host::run(&decided());
    let mut io = host.io();
    let (to, headers) = (host.address(), [("Cookie", "id=7"), ("Sec-WebSocket-Protocol", "a, b, c")]);
    let client = std::thread::spawn(move || Client::connect_with(to, "/ws/tea?k=1&k=2&x=%20y", &headers));
    let asked = io.recv_json();
    let request = &asked["payload"];
    assert_eq!(
        (&request["path"], &request["params"], &request["query"]),
        (&json!("/ws/tea"), &json!({"room": "tea"}), &json!({"k": ["1", "2"], "x": " y"}))
    );
    assert_eq!(
        (&request["headers"]["cookie"], &request["protocols"]),
        (&json!("id=7"), &json!(["a", "b", "c"]))
    );
    assert_eq!(request["remoteAddress"], "127.0.0.1");
    assert!(request["remotePort"].as_u64().is_some(), "{request}");

    io.send_json(&json!({"action": "accept", "identity": {"name": "anna"}, "_upgrade": asked["_upgrade"]}));
    let mut client = client.join().unwrap().unwrap();
    assert_eq!(client.protocol(), Some("b"), "the listener wants b more than a");
    let session = session(&mut client);
    assert_eq!((&session["identity"], &session["protocol"]), (&json!({"name": "anna"}), &json!("b")));
    assert_eq!(session["params"], json!({"room": "tea"}));
}

#[test]
fn a_flow_chooses_the_subprotocol_among_those_offered() {
    let host = Host::run(&decided());
    let mut io = host.io();
    let (to, headers) = (host.address(), [("Sec-WebSocket-Protocol", "a, b, c")]);
    let client = std::thread::spawn(move || Client::connect_with(to, "/ws/x", &headers));
    let upgrade = io.recv_json()["_upgrade"].clone();
    io.send_json(&json!({"action": "accept", "protocol": "d", "_upgrade": upgrade}));
    let error = io.recv_json();
    assert!(error["error"]["message"].as_str().unwrap().contains("\"d\""), "{error}");
    // Not answered by that.
    io.send_json(&json!({"action": "accept", "protocol": "c", "_upgrade": upgrade}));
    assert_eq!(client.join().unwrap().unwrap().protocol(), Some("c"));
}

#[test]
fn a_flow_turns_clients_away_with_the_status_it_wants() {
    let host = Host::run(&decided());
    let mut io = host.io();
    for (properties, status) in [
        (json!({}), 401),
        (json!({"statusCode": 403, "reason": "not\non the list"}), 403),
        (json!({"statusCode": "429"}), 429),
    ] {
        let reply = begin(&host, "/ws/x", &[]);
        let mut answer = properties;
        answer["action"] = json!("refuse");
        answer["_upgrade"] = io.recv_json()["_upgrade"].clone();
        io.send_json(&answer);
        let reply = reply.join().unwrap();
        assert_eq!(reply.status, status, "{answer}");
        assert!(!reply.body.contains("the list"), "{reply:?}");
    }
    host.wait_log("127.0.0.1*/ws/x*401*a flow decided so");
}

#[test]
fn what_is_no_answer_is_an_error_and_the_client_waits_on() {
    let host = Host::run(&decided());
    let mut io = host.io();
    let client = connect_in_thread(&host, "/ws/x");
    let upgrade = io.recv_json()["_upgrade"].clone();
    let other = json!({"id": upgrade["id"], "listener": "io", "protocols": []});
    for (answer, names) in [
        (json!({"action": "accept"}), "_upgrade"),
        (json!({"action": "accept", "_upgrade": {"id": 7}}), "_upgrade"),
        (json!({"action": "accept", "_upgrade": other}), "another listener"),
        (json!({"action": "refuse", "_upgrade": upgrade, "statusCode": 200}), "statusCode"),
        (json!({"action": "let in", "_upgrade": upgrade}), "let in"),
        (json!({"action": "connect", "_upgrade": upgrade}), "connect"),
    ] {
        io.send_json(&answer);
        let error = io.recv_json();
        assert!(error["error"]["message"].as_str().unwrap().contains(names), "{answer}: {error}");
    }
    io.send_json(&json!({"action": "accept", "_upgrade": upgrade}));
    let mut client = client.join().unwrap();
    assert_eq!(session(&mut client).get("identity"), None);
    // Answered, so nothing happens any more.
    io.send_json(&json!({"action": "refuse", "_upgrade": upgrade}));
    session(&mut client);
}

#[test]
fn a_client_that_no_flow_answers_gets_503_in_time() {
    let listener = json!({"path": "/ws", "auth": "message", "handshakeTimeout": "0.3"});
    let flow = Flow::new().config("listener", "websocket-listener", listener).node(
        "asks",
        "websocket in",
        "",
        json!({"server": "listener", "events": "upgrade"}),
    );
    let host = Host::run(&flow);
    let begin = std::time::Instant::now();
    assert_eq!(handshake(&host, &[]).status, 503);
    assert!(begin.elapsed() < PATIENCE / 3, "{:?}", begin.elapsed());
}

#[test]
fn a_listener_that_has_nobody_to_ask_refuses_and_says_why() {
    let host = Host::run(&shown(json!({"auth": "message"})));
    assert_eq!(handshake(&host, &[]).status, 503);
    host.wait_log("127.0.0.1*/ws*503*no websocket in node");
}

#[test]
fn a_node_that_waits_for_upgrades_of_a_listener_that_asks_nobody_is_warned_of() {
    let flow =
        shown(json!({})).node("asks", "websocket in", "", json!({"server": "listener", "events": "upgrade"}));
    let host = Host::run(&flow);
    host.wait_log("asks*will get nothing");
    let mut client = host.connect("/ws");
    session(&mut client);
}

#[test]
fn a_client_that_leaves_before_it_is_let_in_is_no_trouble() {
    let host = Host::run(&decided());
    let mut io = host.io();
    let mut leaving = RawPeer::connect(host.address());
    leaving.write(
        format!("GET /ws/x HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n", RawPeer::usual_headers().join("\r\n"))
            .as_bytes(),
    );
    let upgrade = io.recv_json()["_upgrade"].clone();
    drop(leaving);
    io.send_json(&json!({"action": "accept", "_upgrade": upgrade}));
    // And again for the next one.
    let client = connect_in_thread(&host, "/ws/y");
    let next = io.recv_json()["_upgrade"].clone();
    assert_ne!(next["id"], upgrade["id"]);
    io.send_json(&json!({"action": "accept", "_upgrade": next}));
    session(&mut client.join().unwrap());
    assert_eq!(host.count_log("ERROR"), 0, "{}", host.log());
}

#[test]
fn an_upgrade_that_waits_is_answered_by_newer_code() {
    let host = Host::builder().flow(&decided()).argument("--no-watch").start();
    let mut io = host.io();
    let client = connect_in_thread(&host, "/ws/x");
    let upgrade = io.recv_json()["_upgrade"].clone();
    swap(&host, 1);
    io.send_json(&json!({"action": "accept", "identity": "anna", "_upgrade": upgrade}));
    let mut client = client.join().unwrap();
    assert_eq!(session(&mut client)["identity"], "anna");
    // What is known of a client stays known.
    let before = session(&mut client);
    swap(&host, 2);
    assert_eq!(session(&mut client), before);
    assert_eq!(before["params"], json!({"room": "x"}));
}

/// Has the host run another build of the WebSocket nodes.
fn swap(host: &Host, number: u64) {
    let library = plugin("websocket");
    let aside = scratch_folder();
    let bytes = rebuilt(&std::fs::read(&library).unwrap(), number);
    let file = host.plugin_folder().join(library.file_name().unwrap());
    install(&bytes, &file, aside.path(), Way::Renamed);
    let reply = host.post("/plugins/reload");
    assert_eq!(reply.status, 200, "{reply:?}\n{}", host.logs());
    let generation = format!("(generation {})", number + 1);
    host.wait_log(&generation);
}
