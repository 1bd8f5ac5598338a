//! What a flow file means, entry by entry, seen from a host that runs it.

use flowbay_tests::harness::{Flow, Host, plugin, stage};
use serde_json::{Value, json};

/// A flow that goes on working whatever is wrong beside it: `/io` gives back what it gets.
fn healthy() -> Flow {
    Flow::new().io("out")
}

fn assert_works(host: &Host) {
    let mut io = host.io();
    io.send_json(&json!({"payload": "works"}));
    assert_eq!(io.recv_json()["payload"], "works", "{}", host.logs());
}

/// What `/io` answers to a message.
fn answer(host: &Host, msg: Value) -> Value {
    let mut io = host.io();
    io.send_json(&msg);
    io.recv_json()
}

// ---- Tabs and disabled entries

#[test]
fn nothing_on_a_disabled_tab_is_started_and_messages_to_it_vanish() {
    let flow = Flow::new()
        .junction("fork", "gone, out")
        .io("fork")
        .tab("off", json!({"disabled": true}))
        .config("scoped", "websocket-listener", json!({"path": "/off", "z": "off"}))
        .node("deaf", "websocket in", "", json!({"server": "scoped"}))
        .set("gone", "out", "payload", "from a disabled tab", "str");
    let host = Host::run(&flow);
    assert_eq!(host.connect_refused("/off"), 404);
    let mut io = host.io();
    for payload in [1, 2] {
        io.send_json(&json!({"payload": payload}));
        assert_eq!(io.recv_json()["payload"], payload);
    }
}

#[test]
fn a_disabled_node_is_not_started_and_messages_to_it_vanish() {
    let flow = Flow::new()
        .node("off", "change", "out", json!({"d": true, "rules": []}))
        .set("on", "out", "payload", "on", "str")
        .io("off, on");
    let host = Host::run(&flow);
    for _ in 0..2 {
        assert_eq!(answer(&host, json!({"payload": 1}))["payload"], "on");
    }
}

#[test]
fn wires_lead_to_other_tabs_too() {
    let flow = Flow::new()
        .io("first")
        .tab("one", json!({}))
        .set("first", "second", "first", "one", "str")
        .tab("two", json!({}))
        .set("second", "out", "second", "two", "str");
    let msg = answer(&Host::run(&flow), json!({}));
    assert_eq!((&msg["first"], &msg["second"]), (&json!("one"), &json!("two")));
}

#[test]
fn a_node_on_an_unknown_tab_runs_and_a_node_on_none_does_not() {
    let flow = Flow::new()
        .io("nowhere, somewhere")
        .within("never-declared")
        .set("somewhere", "out", "payload", "somewhere", "str")
        .entry(json!({
            "id": "nowhere", "type": "change", "x": 1, "y": 1, "wires": [["out"]],
            "rules": [{"t": "set", "p": "payload", "pt": "msg", "to": "nowhere", "tot": "str"}],
        }));
    let host = Host::run(&flow);
    for _ in 0..2 {
        assert_eq!(answer(&host, json!({}))["payload"], "somewhere");
    }
}

#[test]
fn a_wired_node_without_coordinates_runs() {
    // As Node-RED's own specs write their flows: no tab, no coordinates.
    let flow = r#"[
        {"id": "l", "type": "websocket-listener", "path": "/ws", "wholemsg": "false"},
        {"id": "n1", "type": "websocket in", "server": "l", "wires": [["n2"]]},
        {"id": "n2", "type": "websocket out", "server": "l", "wires": []}
    ]"#;
    let host = Host::builder().flow_text(flow).start();
    let mut client = host.connect("/ws");
    client.send_text("hello");
    assert_eq!(client.recv_text(), "hello");
}

#[test]
fn an_empty_flow_file_is_a_host_without_nodes() {
    let host = Host::builder().flow_text("[]").start();
    assert_eq!(host.get("/").status, 404);
}

#[test]
fn entries_that_do_nothing_are_no_trouble() {
    let flow = healthy()
        .node("note", "comment", "", json!({"name": "a note"}))
        .node("lost", "unknown", "", json!({}))
        .config("tls", "tls-config", json!({"cert": "", "key": ""}))
        .config("global", "global-config", json!({"env": [], "modules": {}}))
        .entry(json!({"id": "group", "type": "group", "z": "tab", "nodes": ["note"], "style": {}, "x": 1, "y": 1}))
        .entry(json!({"id": "extra", "type": "tab", "label": "x", "some": {"unknown": ["property"]}}));
    let host = Host::run(&flow);
    assert_works(&host);
    assert_eq!(host.count_log("error"), 0, "{}", host.log());
    assert_eq!(host.count_log("warn"), 0, "{}", host.log());
}

// ---- What is wrong is reported by id and type, and the rest runs

#[test]
fn whatever_is_wrong_is_reported_by_id_and_type_and_the_rest_runs() {
    let rows: [(&str, Flow, &str); 8] = [
        (
            "two nodes with one id",
            healthy().set("twice", "", "a", "b", "str").node("twice", "debug", "", json!({})),
            "debug*twice*duplicate id",
        ),
        (
            "a wire to nowhere",
            healthy().set("wired-wrong", "no-such-node", "a", "b", "str"),
            "wired-wrong*no-such-node",
        ),
        (
            "config nodes in a circle",
            healthy()
                .config("circle-a", "websocket-listener", json!({"path": "/a", "other": "circle-b"}))
                .config("circle-b", "websocket-listener", json!({"path": "/b", "other": "circle-a"})),
            "websocket-listener*circle-a*circle",
        ),
        (
            "a config node that refers to itself",
            healthy().config("selfish", "websocket-listener", json!({"path": "/a", "other": "selfish"})),
            "websocket-listener*selfish*itself",
        ),
        (
            "a node that cannot be made",
            healthy().config("pathless", "websocket-listener", json!({})),
            "pathless*path",
        ),
        ("an entry that is no object", healthy().entry(json!("text")), "entry 6*not an object"),
        ("an entry without an id", healthy().entry(json!({"type": "debug"})), "debug*no id"),
        ("an entry without a type", healthy().entry(json!({"id": "typeless"})), "typeless*no type"),
    ];
    for (what, flow, pattern) in rows {
        let host = Host::run(&flow);
        host.wait_log(pattern);
        assert_works(&host);
        assert_eq!(host.count_log("panicked"), 0, "{what}: {}", host.log());
    }
}

// ---- Unknown types

#[test]
fn flows_wait_for_missing_types_and_start_when_their_plugin_appears() {
    let flow = Flow::new()
        .node(
            "inject",
            "inject",
            "show",
            json!({"props": [{"p": "payload"}], "payload": "hi", "payloadType": "str"}),
        )
        .debug("show", "payload")
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("in", "websocket in", "out", json!({"server": "listener"}))
        .node("out", "websocket out", "", json!({"server": "listener"}));
    let host = Host::builder().no_plugins().plugin("websocket").flow(&flow).start_without_flows();
    host.wait_log("Waiting for missing types to be registered:");
    host.wait_log("- inject");
    host.wait_log("- debug");
    assert_eq!(host.count_log("- websocket"), 0, "{}", host.log());
    assert_eq!(host.connect_refused("/ws"), 404, "no flow is started at all");

    stage(&plugin("core"), &host.plugin_folder());
    host.wait_log("started flows");
    host.inject("inject");
    assert_eq!(host.wait_debug("show").1, "\"hi\"");
    let mut client = host.connect("/ws");
    client.send_text("hello");
    assert_eq!(client.recv_text(), "hello");
}

#[test]
fn flows_wait_until_the_last_missing_type_is_there() {
    let host = Host::builder().no_plugins().flow(&healthy().debug("d", "")).start_without_flows();
    host.wait_log("- debug");
    host.wait_log("- websocket in");
    host.wait_log("- websocket-listener");
    stage(&plugin("core"), &host.plugin_folder());
    host.wait_log("plugin flowbay-core");
    assert_eq!(host.connect_refused("/io"), 404);
    stage(&plugin("websocket"), &host.plugin_folder());
    host.wait_log("started flows");
    assert_works(&host);
}

#[test]
fn a_disabled_node_of_an_unknown_type_counts_as_missing_too() {
    let flow = healthy().node("off", "never-heard-of", "", json!({"d": true}));
    let host = Host::builder().flow(&flow).start_without_flows();
    host.wait_log("Waiting for missing types to be registered:");
    host.wait_log("- never-heard-of");
}

#[test]
fn an_instance_of_a_missing_subflow_counts_as_a_missing_type() {
    let flow = healthy().node("orphan", "subflow:gone", "", json!({}));
    let host = Host::builder().flow(&flow).start_without_flows();
    host.wait_log("- subflow:gone");
}

// ---- Environment variables

#[test]
fn a_property_that_is_exactly_a_reference_is_replaced_and_keeps_its_type() {
    let env = json!([
        {"name": "TEXT", "type": "str", "value": "text"},
        {"name": "NUMBER", "type": "num", "value": "5"},
        {"name": "YES", "type": "bool", "value": "true"},
        {"name": "PARSED", "type": "json", "value": "{\"a\":1}"},
    ]);
    let rows = [
        ("${TEXT}", "str", json!("text")),
        ("$(TEXT)", "str", json!("text")),
        ("x${TEXT}y", "str", json!("x${TEXT}y")),
        (" ${TEXT}", "str", json!(" ${TEXT}")),
        ("${NOT_DEFINED}", "str", json!("${NOT_DEFINED}")),
        ("TEXT", "env", json!("text")),
        ("NUMBER", "env", json!(5)),
        ("YES", "env", json!(true)),
        ("PARSED", "env", json!({"a": 1})),
        ("pre${NUMBER}post", "env", json!("pre5post")),
        ("NOT_DEFINED", "env", json!("")),
    ];
    let mut flow = Flow::new().tab("with-env", json!({"env": env}));
    let first = "set-0";
    for (number, (value, value_type, _)) in rows.iter().enumerate() {
        let next = if number + 1 == rows.len() { "out".to_owned() } else { format!("set-{}", number + 1) };
        flow = flow.set(&format!("set-{number}"), &next, &format!("r{number}"), value, value_type);
    }
    let msg = answer(&Host::run(&flow.io(first)), json!({}));
    for (number, (value, value_type, expected)) in rows.iter().enumerate() {
        assert_eq!(msg[format!("r{number}")], *expected, "{value:?} of type {value_type}");
    }
}

#[test]
fn references_in_config_nodes_are_replaced_too() {
    let flow = Flow::new()
        .config(
            "global",
            "global-config",
            json!({"env": [{"name": "WS_PATH", "type": "str", "value": "/from-env"}]}),
        )
        .config("listener", "websocket-listener", json!({"path": "${WS_PATH}"}))
        .node("in", "websocket in", "out", json!({"server": "listener"}))
        .node("out", "websocket out", "", json!({"server": "listener"}));
    let host = Host::run(&flow);
    let mut client = host.connect("/from-env");
    client.send_text("hello");
    assert_eq!(client.recv_text(), "hello");
}

#[test]
fn variables_are_looked_up_from_the_inside_out() {
    let var = |value: &str| json!([{"name": "WHO", "type": "str", "value": value}]);
    let group = |id: &str, outer: Option<&str>, env: Value| {
        let mut group = json!({"id": id, "type": "group", "name": id, "z": "tab-env", "nodes": [], "env": env, "x": 1, "y": 1});
        if let Some(outer) = outer {
            group["g"] = json!(outer);
        }
        group
    };
    let set = |g: &str| {
        json!({"g": g, "rules": [{"t": "set", "p": "who", "pt": "msg", "to": "${WHO}", "tot": "str"},
                                 {"t": "set", "p": "parent", "pt": "msg", "to": "$parent.WHO", "tot": "env"}]})
    };
    let flow = Flow::new()
        .config("global", "global-config", json!({"env": var("global")}))
        .tab("tab-env", json!({"env": var("tab")}))
        .entry(group("outer", None, var("outer")))
        .entry(group("inner", Some("outer"), json!([])))
        .entry(group("innermost", Some("inner"), var("innermost")))
        .node("in-innermost", "change", "out", set("innermost"))
        .node("in-inner", "change", "out", set("inner"))
        .node("in-outer", "change", "out", set("outer"))
        .node("in-tab", "change", "out", set(""))
        .tab("plain", json!({}))
        .node("in-plain", "change", "out", set(""))
        .io("in-innermost, in-inner, in-outer, in-tab, in-plain");
    let host = Host::builder().flow(&flow).variable("WHO", "process").start();
    let mut io = host.io();
    io.send_json(&json!({}));
    let mut seen: Vec<(String, String)> = (0..5)
        .map(|_| io.recv_json())
        .map(|msg| (msg["who"].as_str().unwrap().to_owned(), msg["parent"].as_str().unwrap().to_owned()))
        .collect();
    seen.sort();
    let expected = [
        ("global", "global"),
        ("innermost", "outer"),
        ("outer", "outer"),
        ("outer", "tab"),
        ("tab", "global"),
    ];
    assert_eq!(seen, expected.map(|(who, parent)| (who.to_owned(), parent.to_owned())));
}

#[test]
fn built_in_variables_say_where_a_node_is() {
    let names = [
        "NR_NODE_ID",
        "NR_NODE_NAME",
        "NR_NODE_PATH",
        "NR_GROUP_ID",
        "NR_GROUP_NAME",
        "NR_FLOW_ID",
        "NR_FLOW_NAME",
    ];
    let rules: Vec<Value> = names
        .iter()
        .map(|name| json!({"t": "set", "p": name, "pt": "msg", "to": name, "tot": "env"}))
        .collect();
    let flow = Flow::new()
        .tab("t1", json!({"label": "First tab"}))
        .entry(json!({"id": "g1", "type": "group", "name": "First group", "z": "t1", "nodes": ["n1"], "x": 1, "y": 1}))
        .node("n1", "change", "out", json!({"name": "First node", "g": "g1", "rules": rules}))
        .io("n1");
    let msg = answer(&Host::run(&flow), json!({}));
    let values = names.map(|name| msg[name].as_str().unwrap_or("(none)").to_owned());
    assert_eq!(values, ["n1", "First node", "t1/n1", "g1", "First group", "t1", "First tab"]);
}

// ---- Subflows

/// A subflow `sub` that sets `msg.<WHAT>` to the variable `VALUE`, and instances of it on the tab.
fn with_subflow() -> Flow {
    Flow::new()
        .subflow(
            "sub",
            json!({
                "in": [{"x": 1, "y": 1, "wires": [{"id": "inner"}]}],
                "out": [{"x": 2, "y": 1, "wires": [{"id": "inner", "port": 0}]}],
                "env": [{"name": "VALUE", "type": "str", "value": "default"}],
            }),
        )
        .set("inner", "", "payload", "VALUE", "env")
        .within("tab")
}

#[test]
fn an_instance_does_what_its_subflow_says_with_its_own_variables() {
    let flow = with_subflow()
        .node("plain", "subflow:sub", "mark-plain", json!({}))
        .node(
            "own",
            "subflow:sub",
            "mark-own",
            json!({"env": [{"name": "VALUE", "type": "str", "value": "own"}]}),
        )
        .set("mark-plain", "out", "by", "plain", "str")
        .set("mark-own", "out", "by", "own", "str")
        .io("plain, own");
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({"payload": 1}));
    let mut answers = [io.recv_json(), io.recv_json()].map(|msg| format!("{} {}", msg["by"], msg["payload"]));
    answers.sort();
    assert_eq!(answers, ["\"own\" \"own\"", "\"plain\" \"default\""]);
}

#[test]
fn subflows_nest_and_inner_variables_see_outer_ones() {
    let flow = with_subflow()
        .subflow(
            "around",
            json!({
                "in": [{"x": 1, "y": 1, "wires": [{"id": "nested"}]}],
                "out": [{"x": 2, "y": 1, "wires": [{"id": "nested", "port": 0}]}],
                "env": [{"name": "OUTER", "type": "str", "value": "from the outer"}],
            }),
        )
        .node(
            "nested",
            "subflow:sub",
            "",
            json!({"env": [{"name": "VALUE", "type": "env", "value": "OUTER"}]}),
        )
        .within("tab")
        .node("instance", "subflow:around", "out", json!({}))
        .io("instance");
    assert_eq!(answer(&Host::run(&flow), json!({}))["payload"], "from the outer");
}

#[test]
fn a_subflow_has_several_outputs_and_may_connect_its_input_straight_to_one() {
    let flow = Flow::new()
        .subflow(
            "split",
            json!({
                "in": [{"x": 1, "y": 1, "wires": [{"id": "inner"}]}],
                "out": [
                    {"x": 2, "y": 1, "wires": [{"id": "split", "port": 0}]},
                    {"x": 2, "y": 2, "wires": [{"id": "inner", "port": 0}]},
                ],
            }),
        )
        .set("inner", "", "changed", "true", "bool")
        .within("tab")
        .node("instance", "subflow:split", "first | second", json!({}))
        .set("first", "out", "output", "1", "num")
        .set("second", "out", "output", "2", "num")
        .io("instance");
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({}));
    let mut outputs =
        [io.recv_json(), io.recv_json()].map(|msg| (msg["output"].as_i64(), msg["changed"].clone()));
    outputs.sort_by_key(|(output, _)| *output);
    assert_eq!(outputs, [(Some(1), Value::Null), (Some(2), json!(true))]);
}

#[test]
fn nodes_inside_an_instance_are_named_by_instance_and_node() {
    let flow = Flow::new()
        .subflow(
            "sub",
            json!({
                "in": [{"x": 1, "y": 1, "wires": [{"id": "inner"}]}],
                "out": [{"x": 2, "y": 1, "wires": [{"id": "told", "port": 0}]}],
            }),
        )
        .set("inner", "", "payload", "x", "str")
        .node("told", "complete", "", json!({"scope": ["inner"]}))
        .within("tab")
        .node("instance", "subflow:sub", "out", json!({}))
        .io("instance");
    let source = answer(&Host::run(&flow), json!({}))["complete"]["source"].clone();
    assert_eq!(source["id"], "instance-inner", "{source}");
}

#[test]
fn a_subflow_that_contains_itself_is_reported_and_the_rest_runs() {
    let flow = healthy()
        .subflow("loop", json!({"in": [], "out": []}))
        .node("again", "subflow:loop", "", json!({}))
        .within("tab")
        .node("instance", "subflow:loop", "", json!({}));
    let host = Host::run(&flow);
    host.wait_log("subflow:loop");
    assert_works(&host);
}

#[test]
fn a_status_output_sets_the_status_of_the_instance() {
    let flow = Flow::new()
        .subflow(
            "speaks",
            json!({
                "in": [{"x": 1, "y": 1, "wires": [{"id": "say"}]}],
                "out": [],
                "status": {"x": 2, "y": 2, "wires": [{"id": "say", "port": 0}]},
            }),
        )
        .set("say", "", "payload", "I am here", "str")
        .within("tab")
        .node("instance", "subflow:speaks", "", json!({}))
        .node("watch", "status", "out", json!({"scope": ["instance"]}))
        .io("instance");
    let status = answer(&Host::run(&flow), json!({}))["status"].clone();
    assert_eq!(status["text"], "I am here", "{status}");
    assert_eq!(status["source"]["id"], "instance");
}
