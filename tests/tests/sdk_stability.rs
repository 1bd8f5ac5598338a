//! What the boundary promises: panics stay where they are, older and newer plugins are loaded or refused readably, and
//! any file can be explained.

use std::path::Path;

use flowbay_tests::harness::{
    Client, Finished, Flow, Host, Way, built, flowbay, install, link, plugin, rebuilt, scratch_folder,
};
use serde_json::{Value, json};

// ---- Panics, in every callback of a node

/// A flow with a way through it, without the node that panics.
fn sound() -> Flow {
    Flow::new()
        .io("out")
        .node("press", "inject", "culprit", json!({"props": []}))
        .node("press-direct", "inject", "caller", json!({"props": []}))
        .node("caller", "delivers", "", json!({"to": "culprit"}))
}

/// The same with the node `culprit`, which panics at `place`.
fn flow(place: &str) -> Flow {
    sound().node("culprit", "panics", "", json!({"at": place}))
}

/// Runs the flow, does what leads to the panic, and checks that it is said under the node's id, that the rest of the
/// flow goes on, and that the host stops in order.
fn check(place: &str, lead: impl FnOnce(&Host)) {
    // A node that has not closed after so long is left behind.
    let host =
        Host::builder().plugin("panics-anywhere").setting("node_close_timeout_ms", 300).flow(&flow(place));
    let host = host.argument("-v").start();
    let mut io = host.io();
    let mut works = || {
        io.send_json(&json!({"payload": place}));
        assert_eq!(io.recv_json()["payload"], place);
    };
    works();
    lead(&host);
    let line = host.wait_log(&format!("culprit*panics at {place}"));
    assert!([" ERROR ", " WARN "].iter().any(|level| line.contains(level)), "{line}");
    assert!(line.contains("panics_anywhere/src/lib.rs:"), "{line}");
    works();
    let finished = host.stop();
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

fn nothing(_: &Host) {}

/// Takes the node out of the flow.
fn remove(host: &Host) {
    std::fs::write(host.folder().join("flows.json"), sound().to_json()).unwrap();
}

/// Has newer code take over.
fn swap(host: &Host) {
    let library = plugin("panics-anywhere");
    let newer = rebuilt(&std::fs::read(&library).unwrap(), 1);
    let file = host.plugin_folder().join(library.file_name().unwrap());
    install(&newer, &file, scratch_folder().path(), Way::Renamed);
    assert_eq!(host.post("/plugins/reload").status, 200);
}

/// Waits until the node answers requests, which its `run` brings about, and returns the status.
fn ask(host: &Host, path: &str) -> u16 {
    host.eventually("the node's route", || Some(host.get(path).status).filter(|status| *status != 404))
}

fn connect(host: &Host) -> Client {
    host.eventually("the node's path", || Client::connect_with(host.address(), "/panics-too", &[]).ok())
}

#[test]
fn a_panic_in_a_constructor_is_reported() {
    check("constructor", nothing);
}

#[test]
fn a_panic_in_the_drop_of_a_configuration_is_reported() {
    check("config", nothing);
}

#[test]
fn a_panic_in_a_constructor_that_restores_is_reported_and_the_old_code_goes_on() {
    check("restore", |host| {
        swap(host);
        assert!(host.wait_log("panics at restore").contains("the old code goes on"));
    });
}

#[test]
fn a_panic_in_save_is_reported_and_the_old_code_goes_on() {
    check("save", |host| {
        swap(host);
        assert!(host.wait_log("panics at save").contains("the old code goes on"));
    });
}

#[test]
fn a_panic_at_the_begin_of_run_is_reported() {
    check("start", nothing);
}

#[test]
fn a_panic_in_run_is_reported() {
    check("run", nothing);
}

#[test]
fn a_panic_in_a_spawned_task_is_reported() {
    check("task", nothing);
}

#[test]
fn a_panic_after_a_timer_is_reported() {
    check("timer", nothing);
}

#[test]
fn a_panic_in_the_drop_of_a_task_is_reported() {
    check("task-drop", |host| {
        assert_eq!(ask(host, "/panics"), 200);
        remove(host);
    });
}

#[test]
fn a_panic_over_a_message_is_reported() {
    check("input", |host| host.inject("press"));
}

#[test]
fn a_panic_over_a_message_that_took_time_is_reported() {
    check("later", |host| host.inject("press"));
}

#[test]
fn a_panic_over_a_message_that_was_delivered_is_reported() {
    check("direct", |host| host.inject("press-direct"));
}

#[test]
fn a_panic_in_the_drop_of_a_message_in_hand_is_reported() {
    check("input-drop", |host| {
        host.inject("press");
        host.wait_log("culprit * holds a message");
        remove(host);
    });
}

#[test]
fn a_panic_over_an_upgrade_is_reported_and_refuses_it() {
    check("upgrade", |host| {
        let status = host.eventually("a refusal", || {
            let refusal = Client::connect_with(host.address(), "/panics-too", &[]).err()?;
            Some(refusal.status).filter(|status| *status != 404)
        });
        assert_eq!(status, 500);
    });
}

#[test]
fn a_panic_over_a_request_is_reported_and_not_told_to_the_client() {
    for place in ["request", "request-later"] {
        check(place, |host| {
            assert_eq!(ask(host, "/panics"), 500);
            let reply = host.get("/panics");
            assert!(!reply.body.contains("panic"), "{reply:?}");
        });
    }
}

#[test]
fn a_panic_in_the_drop_of_a_request_is_reported() {
    check("request-drop", |host| {
        let address = host.address();
        let client = std::thread::spawn(move || {
            flowbay_tests::harness::eventually("the node's route", || {
                let reply = flowbay_tests::harness::request(address, "GET", "/panics", &[], "");
                (reply.status != 404).then_some(())
            });
        });
        host.wait_log("culprit * holds a request");
        remove(host);
        client.join().unwrap();
    });
}

#[test]
fn a_panic_over_a_connection_is_reported_and_closes_it() {
    check("connection", |host| drop(connect(host)));
}

#[test]
fn a_panic_over_a_lost_connection_is_reported() {
    check("lost", |host| {
        drop(connect(host));
        host.wait_log("culprit * panics at lost, again");
    });
}

#[test]
fn a_panic_in_the_drop_of_a_connection_is_reported() {
    check("connection-drop", |host| {
        let _client = connect(host);
        host.wait_log("culprit * holds a connection");
        remove(host);
        host.wait_log("culprit * panics at connection-drop");
    });
}

#[test]
fn a_panic_in_close_is_reported() {
    for place in ["close", "close-later"] {
        check(place, remove);
    }
}

#[test]
fn a_panic_in_the_drop_of_a_node_is_reported() {
    check("drop", remove);
}
