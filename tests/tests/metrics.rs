//! What the host says of itself to those who keep it running.

use std::collections::BTreeMap;

use flowbay_tests::harness::{
    Flow, Host, RawPeer, Reply, Way, install, plugin, rebuilt, request, scratch_folder, stage,
};
use rustix::process::Signal;
use serde_json::json;

fn echo() -> Flow {
    Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws", "name": "the \"door\""}))
        .node("in", "websocket in", "out", json!({"server": "listener"}))
        .node("out", "websocket out", "", json!({"server": "listener"}))
}

/// The samples of a scrape, by name and labels.
fn samples(reply: &Reply) -> BTreeMap<String, f64> {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.body.ends_with("# EOF\n"), "{reply:?}");
    let lines = reply.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line:?}")))
        })
        .collect()
}

fn scrape(host: &Host) -> BTreeMap<String, f64> {
    samples(&host.get("/metrics"))
}

/// A sample of the node `listener`.
fn of_listener(name: &str) -> String {
    format!(r#"flowbay_{name}{{node="listener",type="websocket-listener",name="the \"door\""}}"#)
}

#[test]
fn messages_and_connections_are_counted_and_the_count_survives_a_swap() {
    let plugins = scratch_folder();
    let folder = plugins.path().join("plugins");
    std::fs::create_dir(&folder).unwrap();
    let library = std::fs::read(plugin("websocket")).unwrap();
    let file = folder.join(plugin("websocket").file_name().unwrap());
    install(&library, &file, plugins.path(), Way::CopiedOver);
    let host = Host::builder().no_plugins().plugin_folder_from_environment().argument("--no-watch");
    let host = host.argument("--plugins").argument(&folder).flow(&echo()).start();
    let mut clients = [host.connect("/ws"), host.connect("/ws")];
    let mut send = |count: usize| {
        for _ in 0..count {
            for client in &mut clients {
                client.send_text("twelve bytes");
                assert_eq!(client.recv_text(), "twelve bytes");
            }
        }
    };
    let name = "flowbay-websocket";
    send(5);
    let before = scrape(&host);
    assert_eq!(before[&of_listener("sessions")], 2.0);
    assert_eq!(before[&of_listener("session_cut_total")], 0.0);
    assert_eq!(before[&of_listener("websocket_connections")], 2.0);
    assert_eq!(before[&of_listener("websocket_connects_total")], 2.0);
    assert_eq!(before[&of_listener("websocket_messages_received_total")], 10.0);
    assert_eq!(before[&of_listener("websocket_bytes_received_total")], 120.0);
    assert_eq!(before[&of_listener("websocket_messages_sent_total")], 10.0);
    assert!(before["flowbay_http_connections"] >= 3.0, "two clients and the one that asks");
    assert_eq!(before[&format!(r#"flowbay_plugin_generation{{plugin="{name}"}}"#)], 1.0);
    assert_eq!(before[&format!(r#"flowbay_swaps_total{{plugin="{name}",result="done"}}"#)], 0.0);
    assert!(before[r#"flowbay_mailbox_messages{node="out",type="websocket out",name=""}"#] >= 0.0);
    assert!(before["process_resident_memory_bytes"] > 1_000_000.0);
    assert!(before["process_open_fds"] > 5.0);

    install(&rebuilt(&library, 1), &file, plugins.path(), Way::Renamed);
    assert_eq!(host.post("/plugins/reload").status, 200);
    send(5);
    let after = scrape(&host);
    assert_eq!(after[&format!(r#"flowbay_plugin_generation{{plugin="{name}"}}"#)], 2.0);
    assert_eq!(after[&format!(r#"flowbay_swaps_total{{plugin="{name}",result="done"}}"#)], 1.0);
    assert!(after[&format!(r#"flowbay_swap_last_seconds{{plugin="{name}"}}"#)] > 0.0);
    assert_eq!(after[&of_listener("websocket_connections")], 2.0);
    assert_eq!(after[&of_listener("websocket_connects_total")], 2.0, "nobody has come anew");
    assert_eq!(after[&of_listener("websocket_messages_received_total")], 20.0);
    assert_eq!(after[&of_listener("websocket_bytes_received_total")], 240.0);
}

#[test]
fn a_nodes_metrics_leave_with_it() {
    let host = Host::run(&echo());
    let mut client = host.connect("/ws");
    client.send_text("x");
    client.recv_text();
    let of_nodes = |host: &Host| scrape(host).into_keys().filter(|name| name.contains("node=")).count();
    assert!(of_nodes(&host) > 5);
    std::fs::write(host.folder().join("flows.json"), Flow::new().to_json()).unwrap();
    host.eventually("the metrics are gone", || (of_nodes(&host) == 0).then_some(()));
    assert!(scrape(&host).contains_key("flowbay_uptime_seconds"));
}

#[test]
fn a_connection_that_does_not_keep_up_is_counted_and_named_in_the_log() {
    // Whatever one client sends goes to all.
    let flow = Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws", "name": "the \"door\""}))
        .node("in", "websocket in", "all", json!({"server": "listener"}))
        .node("all", "change", "out", json!({"rules": [{"t": "delete", "p": "_session", "pt": "msg"}]}))
        .node("out", "websocket out", "", json!({"server": "listener"}));
    let host = Host::builder().flow(&flow).setting("session_queue_bytes", 200_000).start();
    let never_reads = RawPeer::websocket(host.address(), "/ws");
    let mut reads = host.connect("/ws");
    let payload = "x".repeat(100_000);
    // What the system takes in for the one that does not read is megabytes.
    let mut cut = 0.0;
    for _ in 0..1_000 {
        reads.send_text(&payload);
        assert_eq!(reads.recv_text().len(), payload.len(), "the other is undisturbed");
        cut = scrape(&host)[&of_listener("session_cut_total")];
        if cut > 0.0 {
            break;
        }
    }
    assert_eq!(cut, 1.0);
    let samples = scrape(&host);
    assert!(samples[&of_listener("session_dropped_total")] >= 1.0);
    assert_eq!(samples[&of_listener("sessions")], 1.0);
    host.wait_log("does not keep up*listener*peer=127.0.0.1");
    drop(never_reads);
}

#[test]
fn metrics_are_for_administrators_and_tell_prometheus_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret").unwrap();
    let host = Host::builder().flow(&echo()).setting("admin_token_file", file.display()).start();
    let get = |path, headers: &[&str]| request(host.address(), "GET", path, headers, "");
    assert_eq!(get("/metrics", &[]).status, 401);
    assert_eq!(get("/healthz", &[]).status, 200, "that is for everybody");
    let token = "Authorization: Bearer s3cret";
    let plain = get("/metrics", &[token]);
    samples(&plain);
    let open = get("/metrics", &[token, "Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1"]);
    samples(&open);
    for (reply, media_type) in
        [(plain, "text/plain; version=0.0.4"), (open, "application/openmetrics-text; version=1.0.0")]
    {
        let content_type = reply.headers["content-type"].clone();
        assert!(content_type.starts_with(media_type), "{content_type}");
    }
}

#[test]
fn a_host_is_well_when_its_flows_run() {
    let host = Host::run(&echo());
    let reply = host.get("/healthz");
    assert_eq!((reply.status, reply.body.trim()), (200, "ok"));
}

#[test]
fn a_host_that_waits_for_node_types_is_not_well_yet() {
    let flow = Flow::new().node("n", "keeps", "", json!({}));
    let host = Host::builder().flow(&flow).start_without_flows();
    host.wait_log("Waiting for missing types");
    let reply = host.get("/healthz");
    assert_eq!((reply.status, reply.body.trim()), (503, "starting"));
    stage(&plugin("swap-faults"), &host.plugin_folder());
    host.signal(Signal::HUP);
    host.eventually("it is well", || (host.get("/healthz").status == 200).then_some(()));
}
