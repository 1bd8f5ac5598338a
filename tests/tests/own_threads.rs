//! Nodes whose work is on other threads than those that run nodes: blocking work, runtimes of their own; and those that
//! block where they must not.

use std::collections::BTreeSet;

use flowbay_tests::harness::{Client, Flow, Host, Way, rebuilt, scratch_folder};
use serde_json::json;

use super::hot_swap::{Bay, count_in, library, mapped, reload, wait_for_one_generation};

const PLUGIN: &str = "own-threads";

/// Puts the same code in place as a newer build, and has the host swap it in.
fn swap(bay: &Bay, host: &Host, number: u64) {
    bay.put(PLUGIN, &rebuilt(&library(PLUGIN, ""), number), Way::Renamed);
    reload(host);
    host.wait_log(&format!("own-threads 0.1.0 → 0.1.0 (generation {})", number + 1));
}

/// The names of the host's threads.
fn threads(host: &Host) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    let name = |task: std::path::PathBuf| std::fs::read_to_string(task.join("comm")).ok();
    tasks.filter_map(|task| name(task.ok()?.path())).map(|name| name.trim().to_owned()).collect()
}

fn echo(io: &mut Client, payload: &str) -> serde_json::Value {
    io.send_json(&json!({ "payload": payload }));
    io.recv_json()
}

#[test]
fn a_node_that_reads_a_file_for_long_does_not_hold_up_its_siblings() {
    let folder = scratch_folder();
    let file = folder.path().join("text");
    std::fs::write(&file, "of the file").unwrap();
    let flow = Flow::new()
        .node("b", "blocks", "out", json!({"ms": 300, "file": file}))
        .junction("j", "out")
        .io("b, j");
    // One thread for all nodes: whoever blocks it holds up the others.
    let host = Host::builder().plugin(PLUGIN).flow(&flow).setting("worker_threads", 1).start();
    let mut io = host.io();
    for _ in 0..3 {
        io.send_json(&json!({"payload": "quick"}));
    }
    for _ in 0..3 {
        assert_eq!(io.recv_json()["payload"], "quick", "before any that blocks");
    }
    for _ in 0..3 {
        let msg = io.recv_json();
        let thread = msg["thread"].as_str().unwrap();
        assert!(thread.starts_with("blocking-"), "{msg}");
        assert_eq!(msg["payload"], "of the file");
    }
}

#[test]
fn errors_and_panics_of_blocking_work_reach_catch_nodes() {
    let flow = Flow::new()
        .node("b", "blocks", "out", json!({"file": "/no/such/file"}))
        .node("c", "catch", "out", json!({"scope": null}))
        .io("b");
    let host = Host::builder().plugin(PLUGIN).flow(&flow).start();
    let mut io = host.io();
    let error = echo(&mut io, "x")["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("No such file"), "{error}");
    let error = echo(&mut io, "panic")["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("blocks was told to"), "{error}");
    assert_eq!((&error["code"], &error["source"]["id"]), (&json!("PANIC"), &json!("b")));
}

#[test]
fn a_thousand_pieces_of_blocking_work_share_a_few_threads_and_none_is_lost() {
    let flow = Flow::new().node("b", "blocks", "out", json!({"ms": 1})).io("b");
    let host = Host::builder().plugin(PLUGIN).flow(&flow).setting("blocking_threads", 3).start();
    let mut io = host.io();
    for number in 0..1_000 {
        io.queue_text(&json!({ "payload": number }).to_string());
    }
    io.send_json(&json!({"payload": 1_000}));
    let payloads: BTreeSet<i64> = (0..=1_000).map(|_| io.recv_json()["payload"].as_i64().unwrap()).collect();
    assert_eq!(payloads.len(), 1_001);
    let pool = threads(&host).iter().filter(|name| name.starts_with("blocking-")).count();
    assert_eq!(pool, 3);
}

#[test]
fn more_blocking_work_than_may_wait_is_an_error() {
    let flow = Flow::new()
        .node("b", "blocks", "out", json!({"ms": 200}))
        .node("c", "catch", "out", json!({"scope": null}))
        .io("b");
    let host = Host::builder().plugin(PLUGIN).flow(&flow);
    let host = host.setting("blocking_threads", 1).setting("blocking_queue", 1).start();
    let mut io = host.io();
    for _ in 0..5 {
        io.queue_text("{}");
    }
    io.send_text("{}");
    let codes: Vec<serde_json::Value> = (0..6).map(|_| io.recv_json()["error"]["code"].clone()).collect();
    let refused = codes.iter().filter(|code| *code == "BLOCKING_QUEUE_FULL").count();
    assert!((3..=5).contains(&refused), "{codes:?}");
}

#[test]
fn threads_of_the_pool_keep_no_library_in_memory() {
    let bay = Bay::with(&[PLUGIN]);
    let flow = Flow::new().junction("j", "").node("b", "blocks", "out", json!({})).io("b");
    let host = bay.deaf_host(&flow).start();
    let mut io = host.io();
    for number in 1..=10 {
        for _ in 0..20 {
            io.queue_text("{}");
        }
        io.send_text("{}");
        for _ in 0..=20 {
            assert!(io.recv_json()["thread"].as_str().unwrap().starts_with("blocking-"));
        }
        swap(&bay, &host, number);
        wait_for_one_generation(&host);
    }
}

#[test]
fn blocking_work_that_outlives_its_node_keeps_its_library_and_is_told_of() {
    let bay = Bay::with(&[PLUGIN]);
    let flow = Flow::new().node("r", "blocks-in-run", "", json!({"ms": 3_000})).node(
        "b",
        "blocks",
        "out",
        json!({}),
    );
    let host = bay.deaf_host(&flow.io("b")).start();
    let mut io = host.io();
    host.wait_log("r*blocks");
    swap(&bay, &host, 1);
    host.wait_log(
        "blocking work of these nodes keeps the old code of own-threads in memory until it ends*nodes=\"r\"",
    );
    host.wait_log("(generation 2)*old code still in use");
    assert_eq!(mapped(&host)["libown_threads.so"], 2);
    // The new code is at work all the same, and the old goes when it can.
    assert_eq!(echo(&mut io, "x")["payload"], "x");
    wait_for_one_generation(&host);
}

#[test]
fn a_host_that_is_stopped_waits_for_no_blocking_work_and_no_runtime() {
    let flow = Flow::new()
        .node("r", "blocks-in-run", "", json!({"ms": 600_000}))
        .node("s", "stuck-on-tokio", "out", json!({"ms": 600_000}))
        .io("s");
    let host = Host::builder().plugin(PLUGIN).flow(&flow).start();
    host.wait_log("r*blocks");
    assert_eq!(echo(&mut host.io(), "x")["payload"], "x");
    let finished = host.stop();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("stopped flows"), "{}", finished.stderr);
}

#[test]
fn a_runtime_of_a_nodes_own_leaves_nothing_behind() {
    let bay = Bay::with(&[PLUGIN]);
    let flow = Flow::new().node("t", "on-tokio", "out", json!({})).io("t");
    let host = bay.deaf_host(&flow).start();
    let mut io = host.io();
    let assert_echoes = |io: &mut Client, payload: &str| {
        let msg = echo(io, payload);
        assert_eq!((&msg["payload"], &msg["thread"]), (&json!(payload), &json!("own-t")), "{}", host.logs());
    };
    assert_echoes(&mut io, "before");
    swap(&bay, &host, 1);
    assert_echoes(&mut io, "once");
    wait_for_one_generation(&host);
    let (before, files) = (threads(&host), count_in(&host, "fd"));
    for number in 2..=20 {
        swap(&bay, &host, number);
        assert_echoes(&mut io, &number.to_string());
    }
    wait_for_one_generation(&host);
    let own = |names: &[String]| names.iter().filter(|name| name.starts_with("own-")).count();
    host.eventually("one thread for the node's runtime", || (own(&threads(&host)) == 1).then_some(()));
    // Timers of tokio's own threads end some time later than their work.
    host.eventually("as many threads as before", || (threads(&host).len() <= before.len()).then_some(()));
    host.eventually("as many files as before", || (count_in(&host, "fd") <= files).then_some(()));
    assert_eq!(host.count_log("old code still in use"), 0, "{}", host.logs());
}

#[test]
fn a_runtime_ends_with_its_node_when_that_is_removed() {
    let flow = |nodes: &[&str]| {
        let mut flow = Flow::new().junction("j", "out");
        for id in nodes {
            flow = flow.node(id, "on-tokio", "out", json!({}));
        }
        flow.io("j")
    };
    let host = Host::builder().plugin(PLUGIN).flow(&flow(&["t1", "t2"])).start();
    let own = || {
        let mut own = threads(&host);
        own.retain(|name| name.starts_with("own-"));
        own.sort_unstable();
        own
    };
    host.eventually("two runtimes", || (own() == ["own-t1", "own-t2"]).then_some(()));
    std::fs::write(host.folder().join("flows.json"), flow(&["t2"]).to_json()).unwrap();
    host.eventually("one runtime", || (own() == ["own-t2"]).then_some(()));
    assert_eq!(host.stop().code, Some(0));
}

#[test]
fn a_runtime_that_does_not_end_keeps_its_library_and_is_told_of() {
    let bay = Bay::with(&[PLUGIN]);
    let flow = Flow::new().node("s", "stuck-on-tokio", "out", json!({"ms": 3_000})).junction("j", "").io("s");
    let host = bay.deaf_host(&flow).start();
    let mut io = host.io();
    assert_eq!(echo(&mut io, "x")["payload"], "x");
    swap(&bay, &host, 1);
    host.wait_log("blocking work of these nodes keeps the old code of own-threads in memory*nodes=\"s\"");
    assert_eq!(mapped(&host)["libown_threads.so"], 2);
    assert_eq!(echo(&mut io, "y")["payload"], "y");
    wait_for_one_generation(&host);
}

#[test]
fn no_more_runtimes_are_started_than_there_may_be_threads() {
    let mut flow = Flow::new();
    for id in ["t1", "t2", "t3"] {
        flow = flow.node(id, "on-tokio", "", json!({}));
    }
    let host = Host::builder().plugin(PLUGIN).flow(&flow.junction("j", "out").io("j"));
    let host = host.setting("plugin_threads", 2).start();
    host.wait_log("plugins have 2 threads of their own already*plugin_threads");
    assert_eq!(threads(&host).iter().filter(|name| name.starts_with("own-")).count(), 2);
}

#[test]
fn a_node_that_keeps_its_thread_is_named_once() {
    let flow = Flow::new().node("k", "keeps-its-thread", "out", json!({"ms": 900})).io("k");
    let host = Host::builder().plugin(PLUGIN).flow(&flow);
    // One thread, which the node keeps: who watches needs another.
    let host = host.setting("worker_threads", 1).setting("stall_deadline_ms", 100).start();
    let mut io = host.io();
    io.send_json(&json!({"payload": 1}));
    host.wait_log("the node keeps a thread: its code has not returned for 100 ms*node=k");
    assert_eq!(io.recv_json()["payload"], 1);
    assert_eq!(host.count_log("the node keeps a thread"), 1, "{}", host.logs());
    io.send_json(&json!({"payload": 2}));
    assert_eq!(io.recv_json()["payload"], 2);
    assert_eq!(host.count_log("the node keeps a thread"), 2, "{}", host.logs());
}
