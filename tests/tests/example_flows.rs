//! Every flow in `flows/`, run as a user would run it.

use std::time::Instant;

use flowbay_tests::harness::{Frame, Host, flows_folder};
use serde_json::json;

fn run(file: &str) -> Host {
    Host::builder().example(file).start()
}

#[test]
fn every_flow_has_a_line_in_the_readme_and_a_test_here() {
    let tested = [
        "bridge.json",
        "chat.json",
        "entire-messages.json",
        "heartbeat.json",
        "named-chat.json",
        "websocket-echo.json",
    ];
    let readme = std::fs::read_to_string(flows_folder().join("README.md")).unwrap();
    let mut files: Vec<String> = std::fs::read_dir(flows_folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    files.sort();
    assert_eq!(files, tested);
    for file in files {
        assert_eq!(
            readme.lines().filter(|line| line.starts_with(&format!("| [{file}]"))).count(),
            1,
            "{file}"
        );
    }
}

#[test]
fn websocket_echo_gives_back_text_as_text_and_binary_as_binary() {
    let host = run("websocket-echo.json");
    let mut client = host.connect("/ws/echo");
    client.send_text("hello");
    assert_eq!(client.recv(), Frame::Text("hello".to_owned()));
    client.send_binary(&[0, 1, 255]);
    assert_eq!(client.recv(), Frame::Binary(vec![0, 1, 255]));
}

#[test]
fn websocket_echo_sends_its_inject_through_its_own_client_and_shows_what_comes_back() {
    let host = run("websocket-echo.json");
    let line = host.eventually("the flow's client is connected to the flow's listener", || {
        // Until it is, what inject sends is lost, as in Node-RED.
        host.inject("dda81a976ccf2a2b");
        (host.count_stdout("debug 5") > 0).then(|| host.wait_debug("debug 5"))
    });
    let (head, value) = line;
    assert_eq!(head, "msg.payload : string[13]", "a timestamp that went through a socket is text");
    assert!(value.trim_matches('"').parse::<u64>().unwrap() > 1_700_000_000_000, "{value}");
}

#[test]
fn named_chat_says_who_said_what() {
    let host = run("named-chat.json");
    let mut people = ["anna", "bert"].map(|name| host.connect(&format!("/ws/as/{name}")));
    people[0].send_text("hello all");
    for person in &mut people {
        assert_eq!(person.recv_json(), json!({"from": "anna", "text": "hello all"}));
    }
}

#[test]
fn chat_sends_what_anyone_says_to_everyone() {
    let host = run("chat.json");
    let mut people: Vec<_> = (0..3).map(|_| host.connect("/ws/chat")).collect();
    people[1].send_text("hello all");
    for person in &mut people {
        assert_eq!(person.recv_text(), "hello all");
    }
    people[0].send_text("hello you");
    for person in &mut people {
        assert_eq!(person.recv_text(), "hello you");
    }
}

#[test]
fn bridge_passes_messages_both_ways() {
    let host = run("bridge.json");
    let mut client = host.connect("/ws/bridge");
    let mut other = host.connect("/ws/bridge");
    let answer = host.eventually("the bridge is connected to the other server", || {
        client.send_text("across");
        client.recv_within(std::time::Duration::from_millis(100))
    });
    assert_eq!(answer, Frame::Text("across".to_owned()));
    assert_eq!(other.recv_text(), "across", "what the other server says goes to all clients");
}

#[test]
fn entire_messages_are_answered_property_by_property() {
    let host = run("entire-messages.json");
    let mut client = host.connect("/ws/messages");
    client.send_json(&json!({"payload": "hello", "from": "me", "extra": [1]}));
    let msg = client.recv_json();
    for (property, value) in
        [("payload", json!("hello")), ("to", json!("me")), ("from", json!("flowbay")), ("extra", json!([1]))]
    {
        assert_eq!(msg[property], value, "{msg}");
    }
    assert!(msg["received"].is_u64(), "{msg}");
    host.wait_stdout("hello");
}

#[test]
fn heartbeat_reaches_every_client_by_itself() {
    let host = run("heartbeat.json");
    let (mut first, mut second) = (host.connect("/ws/heartbeat"), host.connect("/ws/heartbeat"));
    let begin = Instant::now();
    for client in [&mut first, &mut second] {
        let msg = client.recv_json();
        assert_eq!(msg["topic"], "heartbeat");
        assert!(msg["payload"].is_u64(), "{msg}");
    }
    assert!(begin.elapsed().as_secs() < 10);
}
