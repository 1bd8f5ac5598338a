//! Who may use the admin endpoints, and what they answer.

use flowbay_tests::harness::{Client, Flow, Host, HostBuilder, Reply, request};
use serde_json::json;

fn flow() -> Flow {
    Flow::new()
        .node(
            "inject",
            "inject",
            "show",
            json!({"props": [{"p": "payload"}], "payload": "hi", "payloadType": "str"}),
        )
        .debug("show", "payload")
        .node("off", "inject", "show", json!({"d": true, "props": []}))
        .io("out")
}

fn press(host: &Host, headers: &[&str]) -> Reply {
    request(host.address(), "POST", "/inject/inject", headers, "")
}

/// A host with a token file that holds `token`.
fn with_token(token: &str) -> (tempfile::TempDir, HostBuilder) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let builder = Host::builder().flow(&flow()).setting("admin_token_file", file.display());
    (folder, builder)
}

#[test]
fn inject_can_be_pressed_from_this_machine() {
    let host = Host::run(&flow());
    assert_eq!(press(&host, &[]).status, 200);
    assert_eq!(host.wait_debug("show").1, "\"hi\"");
    let port = host.address().port();
    for name in ["localhost", "127.0.0.1", "[::1]"] {
        assert_eq!(press(&host, &[&format!("Host: {name}:{port}")]).status, 200, "{name}");
    }
}

#[test]
fn inject_answers_404_for_what_is_no_enabled_inject_node() {
    let host = Host::run(&flow());
    for id in ["nobody", "show", "off", "", "inject/more"] {
        assert_eq!(host.post(&format!("/inject/{id}")).status, 404, "{id:?}");
    }
}

#[test]
fn inject_is_no_get() {
    let host = Host::run(&flow());
    let status = host.get("/inject/inject").status;
    assert!([404, 405].contains(&status), "{status}");
    host.inject("inject");
    host.wait_debug("show");
    assert_eq!(host.count_stdout("[debug:show]"), 1, "{}", host.stdout());
}

#[test]
fn a_web_page_on_another_site_cannot_press_inject() {
    let host = Host::run(&flow());
    let own = host.address();
    for (headers, allowed) in [
        (vec!["Host: evil.example".to_owned()], false),
        (vec!["Host: localhost.evil.example".to_owned()], false),
        (vec!["Origin: http://evil.example".to_owned()], false),
        (vec!["Origin: null".to_owned()], false),
        (vec![format!("Origin: http://localhost:{}", own.port().wrapping_add(1))], false),
        (vec![format!("Origin: http://{own}")], true),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let reply = press(&host, &headers);
        assert_eq!(reply.status, if allowed { 200 } else { 403 }, "{headers:?}: {reply:?}");
    }
}

#[test]
fn a_request_that_a_proxy_passed_on_is_refused_without_a_token() {
    let host = Host::run(&flow());
    for header in [
        "X-Forwarded-For: 203.0.113.9",
        "Forwarded: for=203.0.113.9",
        "X-Real-IP: 203.0.113.9",
        "Via: 1.1 proxy",
    ] {
        assert_eq!(press(&host, &[header]).status, 403, "{header}");
    }
}

#[test]
fn with_a_token_set_only_the_token_counts() {
    let (_folder, builder) = with_token("s3cret");
    let host = builder.start();
    for (headers, status) in [
        (&[][..], 401),
        (&["Authorization: Bearer wrong"][..], 401),
        (&["Authorization: Bearer s3cret2"][..], 401),
        (&["Authorization: Basic s3cret"][..], 401),
        (&["Authorization: Bearer s3cret"][..], 200),
        (&["Authorization: Bearer s3cret", "Host: flows.example", "X-Forwarded-For: 203.0.113.9"][..], 200),
    ] {
        let reply = press(&host, headers);
        assert_eq!(reply.status, status, "{headers:?}: {reply:?}");
        assert!(!reply.body.contains("s3cret"), "{reply:?}");
    }
    assert_eq!(host.count_log("s3cret"), 0, "the token is never logged: {}", host.log());
}

#[test]
fn websocket_listeners_are_open_to_all_even_with_a_token() {
    let (_folder, builder) = with_token("s3cret");
    let host = builder.start();
    let mut client =
        Client::connect_with(host.address(), "/io", &[("Origin", "http://elsewhere.example")]).unwrap();
    client.send_json(&json!({"payload": 1}));
    assert_eq!(client.recv_json()["payload"], 1);
}
