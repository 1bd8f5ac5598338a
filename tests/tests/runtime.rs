//! How messages travel: order, copies, errors and who hears of them, pressure, and the end.

use std::time::{Duration, Instant};

use flowbay_tests::harness::{Client, Flow, Host};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The next messages on `/io`, in the order of a property.
fn next_sorted(io: &mut Client, count: usize, property: &str) -> Vec<Value> {
    let mut messages: Vec<Value> = (0..count).map(|_| io.recv_json()).collect();
    messages.sort_by_key(|msg| msg[property].to_string());
    messages
}

/// Values of one property.
fn column(messages: &[Value], property: &str) -> Vec<Value> {
    messages.iter().map(|msg| msg[property].clone()).collect()
}

// ---- Order and copies

#[test]
fn messages_keep_their_order_through_a_long_chain() {
    const COUNT: usize = 2_000;
    let mut flow = Flow::new();
    for number in 0..10 {
        let next = if number == 9 { "out".to_owned() } else { format!("n{}", number + 1) };
        flow = flow.set(&format!("n{number}"), &next, &format!("seen-by-{number}"), "true", "bool");
    }
    let host = Host::run(&flow.io("n0"));
    let mut io = host.io();
    for number in 0..COUNT {
        io.queue_text(&json!({"payload": number}).to_string());
    }
    io.send_json(&json!({"payload": "end"}));
    for number in 0..COUNT {
        let msg = io.recv_json();
        assert_eq!(msg["payload"], number);
        assert_eq!(msg["seen-by-9"], true);
    }
}

#[test]
fn siblings_get_copies_that_no_one_else_can_change() {
    let mut flow = Flow::new();
    for branch in ["a", "b", "c"] {
        flow = flow.change(
            branch,
            "out",
            json!([
                {"t": "set", "p": "branch", "pt": "msg", "to": branch, "tot": "str"},
                {"t": "set", "p": format!("deep.er.{branch}"), "pt": "msg", "to": "1", "tot": "num"},
            ]),
        );
    }
    let host = Host::run(&flow.io("a, b, c"));
    let mut io = host.io();
    io.send_json(&json!({"_msgid": "m", "deep": {"er": {}}}));
    for (msg, branch) in next_sorted(&mut io, 3, "branch").iter().zip(["a", "b", "c"]) {
        assert_eq!(msg["branch"], branch);
        assert_eq!(msg["deep"], json!({"er": {branch: 1}}));
        assert_eq!(msg["_msgid"], "m", "copies keep the id");
    }
}

#[test]
fn a_message_keeps_its_id_and_gets_one_when_it_has_none() {
    let host = Host::run(&Flow::new().junction("j", "out").io("j"));
    let mut io = host.io();
    io.send_json(&json!({"_msgid": "mine"}));
    assert_eq!(io.recv_json()["_msgid"], "mine");
    let mut new_id = || {
        io.send_json(&json!({}));
        io.recv_json()["_msgid"].as_str().unwrap().to_owned()
    };
    let (first, second) = (new_id(), new_id());
    assert_ne!(first, second);
    for id in [first, second] {
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
}

// ---- Errors and Catch

/// Adds a node whose every message is an error: a link call to nobody.
fn failing(flow: Flow, id: &str, properties: Value) -> Flow {
    let mut own = json!({"linkType": "dynamic", "links": [], "timeout": "30"});
    own.as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
    flow.node(id, "link call", "", own)
}

/// Adds a catch node that marks what it catches with its own id and sends it to `/io`.
fn catching(flow: Flow, id: &str, properties: Value) -> Flow {
    let mark = format!("mark-{id}");
    flow.node(id, "catch", &mark, properties).set(&mark, "out", "caught-by", id, "str")
}

#[test]
fn a_catch_node_gets_the_message_with_the_error_and_its_source() {
    let flow = failing(Flow::new().io("fails"), "fails", json!({"name": "the culprit"}));
    let host = Host::run(&catching(flow, "catch", json!({"scope": null, "uncaught": false})));
    let mut io = host.io();
    io.send_json(&json!({"_msgid": "m", "payload": "precious", "target": "nobody"}));
    let msg = io.recv_json();
    assert_eq!((&msg["payload"], &msg["_msgid"]), (&json!("precious"), &json!("m")));
    assert!(msg["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{msg}");
    assert_eq!(
        msg["error"]["source"],
        json!({"id": "fails", "type": "link call", "name": "the culprit", "count": 1})
    );
    assert_eq!(host.count_log("ERROR"), 0, "a caught error is not logged: {}", host.log());
}

#[test]
fn an_error_that_nobody_catches_is_logged_under_the_node() {
    let flow = failing(Flow::new().io("fails, out"), "fails", json!({}));
    // A catch node on another tab, one for other nodes and one in a group that the node is not in.
    let flow = catching(flow, "other-nodes", json!({"scope": ["someone-else"]}))
        .entry(json!({"id": "g", "type": "group", "z": "tab", "nodes": [], "x": 1, "y": 1}));
    let flow = catching(flow, "other-group", json!({"scope": "group", "g": "g"})).tab("other", json!({}));
    let host = Host::run(&catching(flow, "other-tab", json!({"scope": null})));
    let mut io = host.io();
    io.send_json(&json!({"payload": 1, "target": "nobody"}));
    host.wait_log("ERROR*fails");
    let msg = io.recv_json();
    assert!(msg.get("caught-by").is_none(), "{msg}");
}

#[test]
fn every_catch_node_whose_scope_has_the_node_gets_the_error() {
    let group = |id: &str, outer: Option<&str>| {
        let mut group = json!({"id": id, "type": "group", "z": "tab", "nodes": [], "x": 1, "y": 1});
        if let Some(outer) = outer {
            group["g"] = json!(outer);
        }
        group
    };
    let flow = Flow::new()
        .io("fails")
        .entry(group("outer", None))
        .entry(group("inner", Some("outer")))
        .entry(group("aside", None));
    let mut flow = failing(flow, "fails", json!({"g": "inner"}));
    for (id, properties) in [
        ("whole-flow", json!({"scope": null})),
        ("listed", json!({"scope": ["fails", "another"]})),
        ("own-group", json!({"scope": "group", "g": "inner"})),
        ("outer-group", json!({"scope": "group", "g": "outer"})),
        ("whole-flow-in-a-group", json!({"scope": null, "g": "aside"})),
        ("other-group", json!({"scope": "group", "g": "aside"})),
        ("not-listed", json!({"scope": ["another"]})),
        ("the-rest", json!({"scope": null, "uncaught": true})),
    ] {
        flow = catching(flow, id, properties);
    }
    let host = Host::run(&flow);
    let mut io = host.io();
    for _ in 0..2 {
        io.send_json(&json!({"target": "nobody"}));
        let caught = next_sorted(&mut io, 5, "caught-by");
        assert_eq!(
            column(&caught, "caught-by"),
            ["listed", "outer-group", "own-group", "whole-flow", "whole-flow-in-a-group"]
        );
    }
}

#[test]
fn a_catch_node_for_the_uncaught_gets_what_no_other_takes() {
    let flow = failing(Flow::new().io("taken, left"), "taken", json!({}));
    let flow = failing(flow, "left", json!({}));
    let flow = catching(flow, "taker", json!({"scope": ["taken"]}));
    let flow = catching(flow, "rest-1", json!({"scope": null, "uncaught": true}));
    let host = Host::run(&catching(flow, "rest-2", json!({"scope": null, "uncaught": true})));
    let mut io = host.io();
    io.send_json(&json!({"target": "nobody"}));
    let caught = next_sorted(&mut io, 3, "caught-by");
    let pairs: Vec<String> =
        caught.iter().map(|msg| format!("{} {}", msg["caught-by"], msg["error"]["source"]["id"])).collect();
    assert_eq!(pairs, ["\"rest-1\" \"left\"", "\"rest-2\" \"left\"", "\"taker\" \"taken\""]);
}

#[test]
fn an_earlier_error_on_the_message_moves_aside() {
    let flow = failing(Flow::new().io("fails"), "fails", json!({}));
    let host = Host::run(&catching(flow, "catch", json!({"scope": null})));
    let mut io = host.io();
    io.send_json(&json!({"error": "an old one", "target": "nobody"}));
    let msg = io.recv_json();
    assert_eq!(msg["_error"], "an old one");
    assert_eq!(msg["error"]["source"]["id"], "fails");
}

#[test]
fn an_error_that_its_own_catch_node_causes_again_ends_after_ten_times() {
    let flow = failing(Flow::new().io("fails, out"), "fails", json!({})).node(
        "catch",
        "catch",
        "fails",
        json!({"scope": null}),
    );
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({"payload": 1, "target": "nobody"}));
    host.wait_log("Message exceeded maximum number of catches");
    assert_eq!(io.recv_json()["payload"], 1);
    assert_eq!(host.count_log("Message exceeded"), 1, "{}", host.log());
}

#[test]
fn an_error_in_a_subflow_goes_to_the_flow_around_it_when_nothing_inside_takes_it() {
    let flow = failing(
        Flow::new().subflow("sub", json!({"in": [{"x": 1, "y": 1, "wires": [{"id": "inner"}]}], "out": []})),
        "inner",
        json!({}),
    );
    let flow = flow.within("tab").node("instance", "subflow:sub", "", json!({})).io("instance");
    let host = Host::run(&catching(flow, "catch", json!({"scope": ["instance"]})));
    let mut io = host.io();
    io.send_json(&json!({"payload": 1, "target": "nobody"}));
    let msg = io.recv_json();
    assert_eq!(
        (&msg["caught-by"], &msg["error"]["source"]["id"]),
        (&json!("catch"), &json!("instance-inner"))
    );
}

// ---- Status and Complete

#[test]
fn status_nodes_hear_of_the_nodes_in_their_scope() {
    let spy = json!({"active": true, "complete": "payload", "tostatus": true, "statusVal": "", "statusType": "auto"});
    let mut grouped = spy.clone();
    grouped["g"] = json!("g");
    let hearing = |flow: Flow, id: &str, properties: Value| {
        let mark = format!("mark-{id}");
        flow.node(id, "status", &mark, properties).set(&mark, "out", "heard-by", id, "str")
    };
    let flow = Flow::new()
        .io("spy")
        .entry(json!({"id": "g", "type": "group", "z": "tab", "nodes": ["spy"], "x": 1, "y": 1}))
        .entry(json!({"id": "h", "type": "group", "z": "tab", "nodes": [], "x": 1, "y": 1}))
        .node("spy", "debug", "", grouped);
    let flow = hearing(flow, "whole-flow", json!({"scope": null}));
    let flow = hearing(flow, "listed", json!({"scope": ["spy"]}));
    let flow = hearing(flow, "own-group", json!({"scope": "group", "g": "g"}));
    let flow = hearing(flow, "other-group", json!({"scope": "group", "g": "h"}));
    let flow = hearing(flow, "not-listed", json!({"scope": ["whole-flow"]})).tab("elsewhere", json!({}));
    let host = Host::run(&hearing(flow, "other-tab", json!({"scope": null})));
    let mut io = host.io();
    for text in ["one", "two"] {
        io.send_json(&json!({"payload": text}));
        let heard = next_sorted(&mut io, 3, "heard-by");
        assert_eq!(column(&heard, "heard-by"), ["listed", "own-group", "whole-flow"]);
        for msg in heard {
            assert_eq!(msg["status"]["text"], text);
            assert_eq!(msg["status"]["source"], json!({"id": "spy", "type": "debug", "name": ""}));
        }
    }
}

#[test]
fn complete_nodes_are_told_of_messages_that_were_handled_and_not_of_errors() {
    let flow = failing(Flow::new().io("fails, handles, unlisted"), "fails", json!({}))
        .node("handles", "change", "", json!({"name": "n", "rules": []}))
        .node("unlisted", "change", "", json!({"rules": []}))
        .node("done", "complete", "out", json!({"scope": ["fails", "handles"]}))
        .node("never", "complete", "out", json!({"scope": []}));
    let host = Host::run(&flow);
    let mut io = host.io();
    for number in 0..3 {
        io.send_json(&json!({"payload": number, "target": "nobody"}));
        let msg = io.recv_json();
        assert_eq!(msg["payload"], number);
        assert_eq!(msg["complete"]["source"], json!({"id": "handles", "type": "change", "name": "n"}));
    }
}

// ---- Pressure and loops

#[test]
fn a_loop_does_not_stop_the_rest_of_the_flow() {
    let flow = Flow::new()
        .io("enter, out")
        .change("enter", "round", json!([]))
        .change("round", "trip", json!([]))
        .change("trip", "round", json!([]));
    let host = Host::run(&flow);
    let mut io = host.io();
    for number in 0..50 {
        io.send_json(&json!({"payload": number}));
        assert_eq!(io.recv_json()["payload"], number, "while {number} messages go round");
    }
    let begin = Instant::now();
    assert_eq!(host.stop().code, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
}

#[test]
fn a_loop_that_is_full_of_messages_does_not_hold_up_what_feeds_it_for_ever() {
    const COUNT: usize = 300;
    let flow = Flow::new()
        .io("enter, out")
        .change("enter", "round", json!([]))
        .change("round", "trip", json!([]))
        .change("trip", "round", json!([]));
    // More go round than the mark: some mailbox of the loop is always beyond it.
    let host =
        Host::builder().flow(&flow).setting("mailbox_mark", 50).setting("stall_deadline_ms", 300).start();
    let mut io = host.io();
    for number in 0..COUNT {
        io.queue_text(&json!({"payload": number}).to_string());
    }
    io.send_json(&json!({"payload": "end"}));
    for number in 0..COUNT {
        assert_eq!(io.recv_json()["payload"], number);
    }
}

#[test]
fn a_loop_that_multiplies_messages_is_bounded_and_told_to_catch() {
    let flow = Flow::new()
        .io("enter, out")
        .change("enter", "round, round", json!([]))
        .change("round", "trip, trip", json!([]))
        .change("trip", "round, round", json!([]))
        .node("catch", "catch", "once", json!({"scope": ["round", "trip"]}))
        .debug("once", "error.message");
    let host = Host::builder().flow(&flow).setting("mailbox_cap", 2_000).start();
    let mut io = host.io();
    io.send_json(&json!({"payload": "start"}));
    assert_eq!(io.recv_json()["payload"], "start");
    let (_, shown) = host.wait_debug("once");
    assert!(shown.contains("refused"), "{shown}");
    io.send_json(&json!({"payload": "the rest runs"}));
    assert_eq!(io.recv_json()["payload"], "the rest runs");
}

#[test]
fn a_client_that_sends_faster_than_the_flow_works_waits_and_loses_nothing() {
    const COUNT: usize = 5_000;
    // Small marks, so that the source is held again and again.
    let flow = Flow::new().set("a", "b", "a", "1", "num").set("b", "out", "b", "2", "num").io("a");
    let host = Host::builder().flow(&flow).setting("mailbox_mark", 10).setting("drain_budget", 3).start();
    let mut io = host.io();
    for number in 0..COUNT {
        io.queue_text(&json!({"payload": number}).to_string());
    }
    io.send_json(&json!({"payload": "end"}));
    for number in 0..COUNT {
        assert_eq!(io.recv_json()["payload"], number);
    }
}

#[test]
fn a_peer_that_never_reads_neither_stops_the_flow_nor_fills_the_memory() {
    let flow = Flow::new().io("forget").forget("forget", "everyone").node(
        "everyone",
        "websocket out",
        "",
        json!({"server": "feed"}),
    );
    let flow = flow.config("feed", "websocket-listener", json!({"path": "/feed"}));
    let host = Host::builder().flow(&flow).setting("session_queue_bytes", 1_000_000).start();
    let _silent = host.connect("/feed");
    let mut reader = host.connect("/feed");
    let mut io = host.io();
    let large = "x".repeat(100_000);
    // 40 MB: more than the system's socket buffers take, forty times the queue.
    for _ in 0..400 {
        io.send_json(&json!({"payload": large}));
        assert_eq!(reader.recv_text().len(), large.len());
    }
    host.wait_log("does not keep up");
}

#[test]
fn the_host_stops_while_messages_are_on_their_way() {
    let flow =
        Flow::new().io("round").change("round", "trip, out", json!([])).change("trip", "round", json!([]));
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({"payload": 1}));
    for _ in 0..100 {
        io.recv_json();
    }
    host.signal(Signal::INT);
    assert_eq!(host.wait_exit().code, Some(0));
}

// ---- Nodes that misbehave (`tests/faulty/bad_node`)

fn with_bad_nodes(flow: &Flow) -> flowbay_tests::harness::HostBuilder {
    Host::builder().plugin("bad-node").flow(flow)
}

/// Waits until the collector `id` has got `count` messages, and returns all payloads that it has got.
fn collected(host: &Host, id: &str, count: usize) -> Vec<Value> {
    host.eventually(&format!("{count} messages at {id}"), || {
        let reply = host.get(&format!("/collector/{id}"));
        // Cheaper than parsing each time: a hundred thousand numbers have as many commas but one.
        let enough = reply.body.matches(',').count() + 1 >= count && reply.body != "[]";
        enough.then(|| reply.json().as_array().unwrap().clone())
    })
}

#[test]
fn a_hundred_thousand_messages_through_ten_nodes_keep_their_order() {
    const COUNT: usize = 100_000;
    let mut flow = Flow::new().node("burst", "burst", "n0", json!({"count": COUNT}));
    for number in 0..10 {
        let next = if number == 9 { "end".to_owned() } else { format!("n{}", number + 1) };
        flow = flow.node(&format!("n{number}"), "passes", &next, json!({}));
    }
    let host = with_bad_nodes(&flow.node("end", "collector", "", json!({}))).start();
    let payloads = collected(&host, "end", COUNT);
    assert_eq!(payloads.len(), COUNT);
    for (place, payload) in payloads.iter().enumerate() {
        assert_eq!(payload, place, "at place {place}");
    }
}

#[test]
fn a_branch_that_never_completes_does_not_stop_its_siblings_and_its_messages_are_bounded() {
    const COUNT: usize = 2_000;
    const MARK: usize = 100;
    let flow = Flow::new()
        .io("stuck, out")
        .node("stuck", "never-completes", "", json!({}))
        .node("catch", "catch", "refused, shown", json!({"scope": ["stuck"]}))
        .node("refused", "collector", "", json!({}))
        .debug("shown", "error");
    let host = with_bad_nodes(&flow).setting("mailbox_mark", MARK).setting("stall_deadline_ms", 300).start();
    let mut io = host.io();
    for number in 0..COUNT {
        io.queue_text(&json!({"payload": number}).to_string());
    }
    io.send_json(&json!({"payload": "end"}));
    for number in 0..COUNT {
        assert_eq!(io.recv_json()["payload"], number, "the sibling gets every message");
    }
    // One is in hand, about as many as the mark wait, the rest is refused.
    let refused = collected(&host, "refused", COUNT - 2 * MARK);
    assert!(refused.len() <= COUNT - MARK, "{} of {COUNT} are refused", refused.len());
    assert!(refused.is_sorted_by_key(|payload| payload.as_u64().unwrap_or(u64::MAX)), "in order");
    let (_, error) = host.wait_debug("shown");
    assert!(error.contains("refused") && error.contains("\"id\":\"stuck\""), "{error}");
}

#[test]
fn a_burst_that_asks_nobody_is_bounded_too() {
    let flow = Flow::new().io("out").node("burst", "blind-burst", "stuck", json!({"count": 50_000})).node(
        "stuck",
        "never-completes",
        "",
        json!({}),
    );
    let host = with_bad_nodes(&flow).setting("mailbox_cap", 1_000).start();
    host.wait_log("stuck*refused");
    let mut io = host.io();
    io.send_json(&json!({"payload": "works"}));
    assert_eq!(io.recv_json()["payload"], "works");
    assert!(host.count_log("stuck*refused") < 10, "refusals are counted, not listed: {}", host.log());
}

#[test]
fn a_node_that_panics_is_reported_to_catch_and_the_others_run_on() {
    let flow =
        Flow::new().io("panics, out").node("panics", "panics-on-input", "", json!({"name": "nervous"}));
    let host = with_bad_nodes(&catching(flow, "catch", json!({"scope": null}))).start();
    let mut io = host.io();
    for number in 0..3 {
        io.send_json(&json!({"payload": number}));
        let answers = next_sorted(&mut io, 2, "caught-by");
        let (caught, passed) = (&answers[0], &answers[1]);
        assert_eq!((&caught["caught-by"], &caught["payload"]), (&json!("catch"), &json!(number)));
        let message = caught["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("panics-on-input was given {number}")), "{message}");
        assert_eq!(caught["error"]["source"]["id"], "panics");
        assert_eq!(passed["payload"], number);
    }
}

#[test]
fn a_node_that_panics_in_its_constructor_or_its_own_task_is_reported_and_the_rest_runs() {
    let flow = Flow::new().io("unborn, out").node("unborn", "panics-in-constructor", "", json!({})).node(
        "runs",
        "panics-in-run",
        "",
        json!({}),
    );
    let host = with_bad_nodes(&flow).start();
    let line = host.wait_log("unborn*panics-in-constructor was created");
    assert!(line.contains("panics-in-constructor"), "{line}");
    host.wait_log("runs*panics-in-run ran");
    let mut io = host.io();
    io.send_json(&json!({"payload": "works"}));
    assert_eq!(io.recv_json()["payload"], "works");
    assert_eq!(host.stop().code, Some(0));
}

#[test]
fn an_error_has_its_text_and_the_message_as_it_arrived() {
    let flow = Flow::new().io("change").set("change", "fails", "payload", "changed", "str").node(
        "fails",
        "fails-on-input",
        "out",
        json!({"text": "out of order"}),
    );
    let host = with_bad_nodes(&catching(flow, "catch", json!({"scope": null}))).start();
    let mut io = host.io();
    io.send_json(&json!({"payload": "original", "kept": true}));
    let msg = io.recv_json();
    assert_eq!(msg["error"]["message"], "out of order");
    assert_eq!((&msg["payload"], &msg["kept"]), (&json!("changed"), &json!(true)));
}

#[test]
fn a_node_that_waits_holds_up_its_own_messages_only_and_keeps_their_order() {
    let flow = Flow::new()
        .io("slow, fast")
        .node("slow", "sleeps", "mark-slow", json!({"ms": 100}))
        .set("mark-slow", "out", "by", "slow", "str")
        .set("fast", "out", "by", "fast", "str");
    let host = with_bad_nodes(&flow).start();
    let mut io = host.io();
    for number in 0..3 {
        io.send_json(&json!({"payload": number}));
    }
    let seen: Vec<(Value, Value)> =
        (0..6).map(|_| io.recv_json()).map(|msg| (msg["by"].clone(), msg["payload"].clone())).collect();
    for by in ["fast", "slow"] {
        let payloads: Vec<&Value> =
            seen.iter().filter(|(of, _)| of == by).map(|(_, payload)| payload).collect();
        assert_eq!(payloads, [0, 1, 2], "{by} in {seen:?}");
    }
    assert_eq!(seen[5], (json!("slow"), json!(2)), "the fast one did not wait: {seen:?}");
}

#[test]
fn a_node_with_several_outputs_sends_to_each() {
    let flow = Flow::new()
        .io("many")
        .node("many", "multi-output", "first, also-first | | third", json!({"outputs": 4}))
        .set("first", "out", "at", "first", "str")
        .set("also-first", "out", "at", "also-first", "str")
        .set("third", "out", "at", "third", "str");
    let host = with_bad_nodes(&flow).start();
    let mut io = host.io();
    for id in ["a", "b"] {
        io.send_json(&json!({"_msgid": id}));
        let messages = next_sorted(&mut io, 3, "at");
        assert_eq!(column(&messages, "at"), ["also-first", "first", "third"]);
        assert_eq!(column(&messages, "output"), [0, 0, 2]);
        assert_eq!(column(&messages, "_msgid"), [id, id, id]);
    }
}

#[test]
fn messages_to_a_node_that_is_not_there_vanish_and_hold_nobody_up() {
    const COUNT: usize = 5_000;
    let flow = Flow::new()
        .node("burst", "burst", "off, unborn, missing, end", json!({"count": COUNT}))
        .node("off", "never-completes", "", json!({"d": true}))
        .node("unborn", "panics-in-constructor", "", json!({}))
        .node("end", "collector", "", json!({}));
    let host = with_bad_nodes(&flow).setting("mailbox_mark", 10).start();
    let payloads = collected(&host, "end", COUNT);
    assert!(payloads.iter().enumerate().all(|(place, payload)| payload == place));
}

#[test]
fn a_node_that_never_closes_is_left_behind_after_the_close_timeout() {
    let flow = Flow::new().io("stays").node("stays", "never-closes", "out", json!({}));
    let host = with_bad_nodes(&flow).setting("node_close_timeout_ms", 300).start();
    let mut io = host.io();
    io.send_json(&json!({"payload": 1}));
    assert_eq!(io.recv_json()["payload"], 1);
    let begin = Instant::now();
    let finished = host.stop();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(begin.elapsed() >= Duration::from_millis(290), "after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(8), "after {:?}", begin.elapsed());
    let line = finished.stderr.lines().find(|line| line.contains("Close timed out"));
    assert!(line.is_some_and(|line| line.contains("stays")), "{finished:?}");
}

#[test]
fn a_host_stops_without_waiting_for_nodes_that_are_still_at_work() {
    let flow = Flow::new().io("busy, stuck, out").node("busy", "sleeps", "", json!({"ms": 3_600_000})).node(
        "stuck",
        "never-completes",
        "",
        json!({}),
    );
    let host = with_bad_nodes(&flow).start();
    let mut io = host.io();
    io.send_json(&json!({"payload": 1}));
    assert_eq!(io.recv_json()["payload"], 1);
    let begin = Instant::now();
    assert_eq!(host.stop().code, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(8), "after {:?}", begin.elapsed());
}

#[test]
fn a_constructor_that_blocks_is_given_up_and_the_rest_runs() {
    let flow = Flow::new().io("slow, out").node("slow", "slow-constructor", "", json!({"ms": 20_000}));
    let begin = Instant::now();
    let host = with_bad_nodes(&flow).setting("call_deadline_ms", 300).start();
    assert!(begin.elapsed() < Duration::from_secs(15), "started after {:?}", begin.elapsed());
    host.wait_log("slow*slow-constructor*300 ms");
    let mut io = host.io();
    io.send_json(&json!({"payload": 1}));
    assert_eq!(io.recv_json()["payload"], 1);
    let begin = Instant::now();
    assert_eq!(host.stop().code, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(15), "stopped after {:?}", begin.elapsed());
}
