//! Context that is kept in files: over restarts, over kills, and as Node-RED lays it out.

use std::path::{Path, PathBuf};

use flowbay_tests::harness::{Client, Flow, Host, HostBuilder, flowbay, scratch_folder};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Sets `count` of a scope to the payload, and sends it back from there.
fn through(scope: &str, key: &str) -> Flow {
    let rules = json!([
        {"t": "set", "p": key, "pt": scope, "to": "payload", "tot": "msg"},
        {"t": "set", "p": "payload", "pt": "msg", "to": key, "tot": scope},
    ]);
    Flow::new().change("c", "out", rules).set("r", "out", "payload", key, scope).io("c")
}

fn host(flow: &Flow, folder: &Path) -> HostBuilder {
    Host::builder().flow(flow).setting("context_dir", folder.display())
}

fn read(file: PathBuf) -> Value {
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", file.display()))
}

fn send(io: &mut Client, payload: &Value) -> Value {
    io.send_json(&json!({ "payload": payload }));
    io.recv_json()["payload"].clone()
}

/// A flow that only reads.
fn reads(scope: &str, key: &str) -> Flow {
    Flow::new().set("r", "out", "payload", key, scope).io("r")
}

#[test]
fn context_is_there_again_after_a_restart() {
    let folder = scratch_folder();
    let context = folder.path().join("context");
    for (scope, key, file) in
        [("flow", "deep.count", "tab/flow.json"), ("global", "#:(file)::deep.count", "global/global.json")]
    {
        let running = host(&through(scope, key), &context).start();
        assert_eq!(send(&mut running.io(), &json!({"n": [1, 2.5]})), json!({"n": [1, 2.5]}));
        assert!(!context.join(file).exists(), "not before its time");
        assert_eq!(running.stop().code, Some(0));
        assert_eq!(read(context.join(file)), json!({"deep": {"count": {"n": [1, 2.5]}}}));

        let running = host(&reads(scope, key), &context).start();
        assert_eq!(send(&mut running.io(), &json!(0)), json!({"n": [1, 2.5]}), "{scope}");
    }
}

#[test]
fn context_of_node_red_is_read_and_what_is_in_memory_is_not_kept() {
    let folder = scratch_folder();
    std::fs::create_dir_all(folder.path().join("tab")).unwrap();
    std::fs::write(
        folder.path().join("tab/flow.json"),
        "{\n    \"count\": 41,\n    \"other\": {\"a\": null}\n}",
    )
    .unwrap();
    let running = host(&reads("flow", "count"), folder.path()).start();
    assert_eq!(send(&mut running.io(), &json!(0)), 41);
    drop(running);

    let running = host(&through("flow", "#:(memoryOnly)::count"), folder.path()).start();
    assert_eq!(send(&mut running.io(), &json!(1)), 1);
    assert_eq!(running.stop().code, Some(0));
    assert_eq!(read(folder.path().join("tab/flow.json"))["count"], 41);
}

#[test]
fn a_host_that_is_killed_while_it_writes_leaves_whole_files() {
    let folder = scratch_folder();
    let mut last = 0;
    for round in 0..5 {
        let running = host(&through("flow", "count"), folder.path()).setting("context_flush_ms", 0).start();
        let mut io = running.io();
        let padding = "x".repeat(100_000);
        for number in 1..=40 {
            last = round * 100 + number;
            io.send_json(&json!({"payload": {"number": last, "padding": padding}}));
            io.recv_json();
        }
        running.signal(Signal::KILL);
        running.wait_exit();
        let file = folder.path().join("tab/flow.json");
        let count = read(file)["count"].clone();
        let number = count["number"].as_i64().unwrap();
        assert!((round * 100 + 1..=last).contains(&number), "{number} of {last}");
        assert_eq!(count["padding"].as_str().unwrap().len(), padding.len());
    }
    let running = host(&reads("flow", "count.number"), folder.path()).start();
    assert!(send(&mut running.io(), &json!(0)).as_i64().unwrap() <= last);
    let names: Vec<_> = std::fs::read_dir(folder.path().join("tab"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["flow.json"], "nothing half written is left");
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_kept_aside() {
    let folder = scratch_folder();
    std::fs::create_dir_all(folder.path().join("tab")).unwrap();
    let file = folder.path().join("tab/flow.json");
    std::fs::write(&file, "{\"count\": ").unwrap();
    let running = host(&through("flow", "count"), folder.path()).start();
    running.wait_log("tab/flow.json: it is no JSON*it is kept as*flow.json.corrupt");
    assert_eq!(send(&mut running.io(), &json!(1)), 1);
    assert_eq!(running.stop().code, Some(0));
    assert_eq!(read(file), json!({"count": 1}));
    let aside = std::fs::read_to_string(folder.path().join("tab/flow.json.corrupt")).unwrap();
    assert_eq!(aside, "{\"count\": ");
}

#[test]
fn the_files_of_removed_flows_go_with_them() {
    let folder = scratch_folder();
    let set = |tab: &str, flow: Flow| {
        let rules = json!([{"t": "set", "p": "n", "pt": "flow", "to": "payload", "tot": "msg"}]);
        flow.tab(tab, json!({})).change(&format!("{tab}-c"), "out", rules)
    };
    let both = set("two", set("one", Flow::new())).io("one-c, two-c");
    let running = host(&both, folder.path()).setting("context_flush_ms", 0).start();
    let mut io = running.io();
    send(&mut io, &json!(5));
    let file = |tab: &str| folder.path().join(tab).join("flow.json");
    running.eventually("both files", || (file("one").exists() && file("two").exists()).then_some(()));
    let left = set("one", Flow::new()).io("one-c");
    std::fs::write(running.folder().join("flows.json"), left.to_json()).unwrap();
    running.eventually("one file", || (!folder.path().join("two").exists()).then_some(()));
    assert_eq!(read(file("one")), json!({"n": 5}));
}

#[test]
fn a_context_folder_that_cannot_be_used_is_named() {
    let folder = scratch_folder();
    std::fs::write(folder.path().join("flows.json"), "[]").unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let refused =
        flowbay(folder.path(), &["run", "flows.json", "-p", "0", "--plugins", ".", "--context-dir", "file"]);
    assert_eq!(refused.code, Some(1));
    let said = "flowbay: the context folder file cannot be used: ";
    assert!(refused.stderr.lines().any(|line| line.starts_with(said)), "{}", refused.stderr);
}
