//! What a host says of itself: `GET /runtime` and `flowbay status`.

use flowbay_tests::harness::{
    Certificate, Flow, Host, Way, flowbay, free_port, install, plugin, rebuilt, request, scratch_folder,
};
use serde_json::{Value, json};

/// A way in and out, and a node that keeps what it gets.
fn flow() -> Flow {
    Flow::new()
        .node("keep", "never-completes", "", json!({"name": "Keeper"}))
        .junction("both", "keep, out")
        .io("both")
}

fn host() -> Host {
    Host::builder().plugin("bad-node").flow(&flow()).start()
}

fn runtime(host: &Host) -> Value {
    host.get("/runtime").json()
}

/// The entry of a list whose `key` is `value`.
fn entry<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let entries = list.as_array().unwrap();
    entries.iter().find(|entry| entry[key] == value).unwrap_or_else(|| panic!("no {value} in {list:#}"))
}

#[test]
fn runtime_says_what_nodes_and_connections_are_doing() {
    let host = host();
    let mut client = host.io();
    let _other = host.io();
    for number in 0..3 {
        client.send_json(&json!({"payload": number}));
        assert_eq!(client.recv_json()["payload"], number);
    }
    let all = runtime(&host);
    assert_eq!(all["state"], "running", "{all:#}");
    assert_eq!(all["pid"], host.pid());
    assert_eq!(all["totals"]["connections"], 2, "{all:#}");
    assert_eq!((&all["totals"]["waiting"], &all["totals"]["inHand"]), (&json!(2), &json!(1)), "{all:#}");
    let keep = entry(&all["nodes"], "id", "keep");
    let expected = json!({
        "id": "keep", "type": "never-completes", "name": "Keeper", "tab": "tab", "state": "running",
        "plugin": {"name": "bad-node", "generation": 1, "current": true},
        "waiting": 2, "waitingBytes": keep["waitingBytes"], "inHand": 1, "taken": 1, "refused": 0,
    });
    assert_eq!(*keep, expected);
    let listener = entry(&all["nodes"], "id", "io");
    assert_eq!(listener["sessions"]["count"], 2, "{listener}");
    let connection = entry(&all["connections"], "node", "io");
    assert!(connection["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{connection}");
    assert_eq!((&connection["queued"], &connection["queuedBytes"]), (&json!(0), &json!(0)), "{connection}");
    let websocket = entry(&all["plugins"], "name", "flowbay-websocket");
    assert_eq!((&websocket["generation"], &websocket["generationsInUse"]), (&json!(1), &json!([1])));
}

#[test]
fn no_more_is_listed_than_was_asked_for_and_all_is_counted() {
    let host = host();
    let clients: Vec<_> = (0..5).map(|_| host.io()).collect();
    let some = host.eventually("five connections", || {
        let some = host.get("/runtime?connections=2&nodes=3").json();
        (some["totals"]["connections"] == clients.len()).then_some(some)
    });
    assert_eq!(some["connections"].as_array().unwrap().len(), 2, "{some:#}");
    assert_eq!(some["nodes"].as_array().unwrap().len(), 3, "{some:#}");
    assert!(some["totals"]["nodes"].as_u64().unwrap() > 3, "{some:#}");
    let refused = host.get("/runtime?connections=many");
    assert_eq!(refused.status, 400, "{refused:?}");
}

#[test]
fn a_hot_swap_is_seen_in_plugins_nodes_and_connections() {
    let host = host();
    let mut client = host.io();
    let file = host.plugin_folder().join("libflowbay_websocket.so");
    let library = std::fs::read(plugin("websocket")).unwrap();
    install(&rebuilt(&library, 1), &file, host.folder(), Way::Renamed);
    host.wait_log("generation 2");
    client.send_json(&json!({"payload": 1}));
    client.recv_json();
    let all = runtime(&host);
    let websocket = entry(&all["plugins"], "name", "flowbay-websocket");
    assert_eq!((&websocket["generation"], &websocket["swaps"]), (&json!(2), &json!(1)), "{websocket:#}");
    assert!(websocket["lastSwap"]["tookMs"].as_f64().unwrap() > 0.0, "{websocket:#}");
    for found in [entry(&all["nodes"], "id", "io"), entry(&all["connections"], "node", "io")] {
        assert_eq!(found["plugin"], json!({"name": "flowbay-websocket", "generation": 2, "current": true}));
    }
    // A build that is none is an error of its plugin.
    install(b"no library", &file, host.folder(), Way::Renamed);
    host.eventually("the error", || {
        let all = runtime(&host);
        let error = entry(&all["plugins"], "name", "flowbay-websocket")["lastError"].as_str()?.to_owned();
        error.contains("libflowbay_websocket.so").then_some(())
    });
}

#[test]
fn status_shows_it_as_text_or_json_and_says_by_its_exit_code_whether_flows_run() {
    let host = host();
    let _client = host.io();
    let url = format!("http://{}", host.address());
    let finished = flowbay(host.folder(), &["status", "--url", &url]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    let says = [
        "running",
        "1 connections",
        "flowbay-websocket",
        "never-completes",
        "Keeper",
        "websocket-listener",
        "127.0.0.1:",
    ];
    for says in says {
        assert!(finished.stdout.contains(says), "{says} in\n{}", finished.stdout);
    }
    // Its settings say where the host is, too.
    let port = host.address().port().to_string();
    let finished = flowbay(host.folder(), &["status", "--json", "--port", &port]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((&answer["state"], &answer["pid"]), (&json!("running"), &json!(host.pid())));
}

#[test]
fn status_of_a_host_that_waits_or_is_not_there_is_no_success() {
    let flow = flow().node("new", "no-such-type", "", json!({}));
    let host = Host::builder().plugin("bad-node").flow(&flow).start_without_flows();
    host.wait_log(" - no-such-type");
    let url = format!("http://{}", host.address());
    let finished = flowbay(host.folder(), &["status", "--url", &url]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stdout.contains("waiting\nno plugin has the node types no-such-type"), "{finished:?}");

    let nobody = format!("http://127.0.0.1:{}", free_port());
    let finished = flowbay(host.folder(), &["status", "--url", &nobody]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
    assert!(finished.stderr.starts_with(&format!("flowbay: {nobody}: ")), "{finished:?}");
    let odd = flowbay(host.folder(), &["status", "--url", "nowhere"]);
    assert!(odd.stderr.contains("not an address such as http://127.0.0.1:1880"), "{odd:?}");
}

#[test]
fn status_of_a_host_with_tls_needs_no_trust_on_this_machine_and_elsewhere_does() {
    let folder = scratch_folder();
    let (certificate, key) = Certificate::First.put(folder.path());
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let host =
        Host::builder().flow(&Flow::new()).setting("tls_cert", &certificate).setting("tls_key", &key).start();
    let port = host.address().port().to_string();
    let finished =
        flowbay(folder.path(), &["status", "--port", &port, "--tls-cert", &certificate, "--tls-key", &key]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let finished = flowbay(folder.path(), &["status", "--url", &format!("https://127.0.0.1:{port}")]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
    assert!(finished.stderr.contains("certificate"), "{finished:?}");
}

#[test]
fn runtime_is_for_administrators() {
    let host =
        Host::builder().flow(&Flow::new()).file("token", "open").setting("admin_token_file", "token").start();
    assert_eq!(host.get("/runtime").status, 401);
    let reply = request(host.address(), "GET", "/runtime", &["Authorization: Bearer open"], "");
    assert_eq!(reply.status, 200, "{reply:?}");
    let url = format!("http://{}", host.address());
    let refused = flowbay(host.folder(), &["status", "--url", &url]);
    assert!(refused.code == Some(1) && refused.stderr.contains("401"), "{refused:?}");
    let finished = flowbay(host.folder(), &["status", "--url", &url, "--admin-token-file", "token"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
}
