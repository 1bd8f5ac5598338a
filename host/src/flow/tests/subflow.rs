//! Subflow instances become the nodes inside them.

use super::*;

/// Tab `t` with a → instance i of s → z; inside s: in → p → q → out 1.
fn simple() -> Value {
    json!([
        tab("t"),
        {"id": "s", "type": "subflow", "name": "Sub",
         "in": [{"x": 0, "y": 0, "wires": [{"id": "p"}]}],
         "out": [{"x": 0, "y": 0, "wires": [{"id": "q", "port": 0}]}]},
        node("p", "change", json!({"z": "s", "wires": [["q"]]})),
        node("q", "change", json!({"z": "s", "wires": [[]]})),
        node("a", "inject", json!({"wires": [["i"]]})),
        node("i", "subflow:s", json!({"name": "Inst", "wires": [["z"]]})),
        node("z", "debug", json!({})),
    ])
}

fn definition(id: &str, more: Value) -> Value {
    with(json!({"id": id, "type": "subflow", "name": id, "in": [], "out": []}), more)
}

#[test]
fn an_instance_becomes_its_inner_nodes_in_its_place() {
    let graph = graph(&simple());
    assert_eq!(ids(&graph), ["a", "i-p", "i-q", "z"]);
    let inner = graph.node("i-p").unwrap();
    assert_eq!(inner.z.as_deref(), Some("i"));
    assert_eq!(inner.flow_id.as_deref(), Some("t"));
    assert_eq!(inner.alias.as_deref(), Some("p"));
    assert_eq!(inner.stored_id(), "p");
    assert_eq!(inner.path, "t/i/p");
    assert_eq!(inner.config["id"], json!("i-p"));
    assert_eq!(inner.config["z"], json!("i"));
    assert_eq!(inner.config["wires"], json!([["i-q"]]));
    let instance = graph.instance("i").unwrap();
    assert_eq!(instance.subflow_id, "s");
    assert_eq!(instance.name, "Inst");
    assert_eq!(instance.z.as_deref(), Some("t"));
    assert_eq!(instance.parent, None);
    assert_eq!(instance.path, "t/i");
    assert!(graph.node("i").is_none());
}

#[test]
fn wires_lead_straight_through_the_ports_of_an_instance() {
    let graph = graph(&simple());
    assert_eq!(wires(&graph, "a"), json!([["i-p"]]));
    assert_eq!(wires(&graph, "i-p"), json!([["i-q"]]));
    assert_eq!(wires(&graph, "i-q"), json!([["z"]]));
    assert_eq!(graph.instance("i").unwrap().inputs, ["i-p"]);
}

#[test]
fn two_instances_of_one_definition_share_nothing() {
    let mut flow = simple();
    let list = flow.as_array_mut().unwrap();
    list.push(node("j", "subflow:s", json!({"wires": [["a", "i"]]})));
    let graph = graph(&flow);
    assert_eq!(ids(&graph), ["a", "i-p", "i-q", "z", "j-p", "j-q"]);
    assert_eq!(wires(&graph, "j-q"), json!([["a", "i-p"]]));
    assert_eq!(wires(&graph, "i-q"), json!([["z"]]));
}

#[test]
fn an_output_port_goes_to_the_output_of_the_inner_node_that_it_names_after_the_nodes_own_wires() {
    let flow = json!([
        tab("t"),
        definition(
            "s",
            json!({"out": [
                {"wires": [{"id": "p", "port": 1}]},
                {"wires": [{"id": "p", "port": 0}, {"id": "q", "port": 0}]},
            ]})
        ),
        node("p", "switch", json!({"z": "s", "wires": [["q"]]})),
        node("q", "change", json!({"z": "s"})),
        node("i", "subflow:s", json!({"wires": [["x"], ["y"], ["x"]]})),
        node("x", "debug", json!({})),
        node("y", "debug", json!({})),
    ]);
    let graph = graph(&flow);
    assert_eq!(wires(&graph, "i-p"), json!([["i-q", "y"], ["x"]]));
    assert_eq!(wires(&graph, "i-q"), json!([["y"]]));
}

#[test]
fn properties_scopes_and_links_that_name_inner_nodes_are_rewritten_and_others_are_not() {
    let flow = json!([
        tab("t"),
        definition("s", json!({})),
        config("c", "server", json!({"z": "s", "peer": "outside"})),
        node("p", "websocket in", json!({"z": "s", "server": "c", "other": "outside", "deep": {"id": "p"}})),
        node("catch", "catch", json!({"z": "s", "scope": ["p", "outside"]})),
        node("out", "link out", json!({"z": "s", "links": ["in"]})),
        node("in", "link in", json!({"z": "s", "links": ["out"], "g": "grp"})),
        node("grp", "group", json!({"z": "s", "nodes": ["in"]})),
        config("outside", "server", json!({})),
        node("i", "subflow:s", json!({})),
    ]);
    let graph = graph(&flow);
    assert_eq!(ids(&graph), ["outside", "i-c", "i-p", "i-catch", "i-out", "i-in"]);
    let p = &graph.node("i-p").unwrap().config;
    assert_eq!(
        (&p["server"], &p["other"], &p["deep"]),
        (&json!("i-c"), &json!("outside"), &json!({"id": "p"}))
    );
    assert_eq!(graph.node("i-c").unwrap().users, ["i-p"]);
    assert_eq!(graph.node("i-catch").unwrap().config["scope"], json!(["i-p", "outside"]));
    assert_eq!(wires(&graph, "i-out"), json!([["i-in"]]));
    assert_eq!(graph.node("i-in").unwrap().groups, ["i-grp"]);
}

#[test]
fn nested_instances_repeat_the_scheme() {
    let flow = json!([
        tab("t"),
        definition(
            "outer",
            json!({"in": [{"wires": [{"id": "j"}]}], "out": [{"wires": [{"id": "j", "port": 0}]}]})
        ),
        definition(
            "inner",
            json!({"in": [{"wires": [{"id": "k"}]}], "out": [{"wires": [{"id": "k", "port": 0}]}]})
        ),
        node("k", "change", json!({"z": "inner"})),
        node("j", "subflow:inner", json!({"z": "outer", "wires": [[]]})),
        node("a", "inject", json!({"wires": [["i"]]})),
        node("i", "subflow:outer", json!({"wires": [["b"]]})),
        node("b", "debug", json!({})),
    ]);
    let graph = graph(&flow);
    assert_eq!(ids(&graph), ["a", "i-j-k", "b"]);
    let node = graph.node("i-j-k").unwrap();
    assert_eq!(
        (node.path.as_str(), node.z.as_deref(), node.alias.as_deref()),
        ("t/i/j/k", Some("i-j"), Some("k"))
    );
    assert_eq!(wires(&graph, "a"), json!([["i-j-k"]]));
    assert_eq!(wires(&graph, "i-j-k"), json!([["b"]]));
    let nested = graph.instance("i-j").unwrap();
    assert_eq!((nested.parent.as_deref(), nested.path.as_str()), (Some("i"), "t/i/j"));
    assert_eq!(nested.alias.as_deref(), Some("j"));
}

#[test]
fn an_input_wired_straight_to_an_output_passes_through() {
    let flow = json!([
        tab("t"),
        definition(
            "s",
            json!({
                "in": [{"wires": [{"id": "p"}]}],
                "out": [{"wires": [{"id": "s", "port": 0}]}],
            })
        ),
        node("p", "debug", json!({"z": "s"})),
        node("a", "inject", json!({"wires": [["i"]]})),
        node("i", "subflow:s", json!({"wires": [["b", "j"]]})),
        node("j", "subflow:s", json!({"wires": [["b"]]})),
        node("b", "debug", json!({})),
    ]);
    assert_eq!(wires(&graph(&flow), "a"), json!([["i-p", "b", "j-p", "b"]]));
}

#[test]
fn a_loop_of_instances_without_a_node_in_it_is_reported_and_cut() {
    let flow = json!([
        tab("t"),
        definition("s", json!({"in": [{"wires": []}], "out": [{"wires": [{"id": "s", "port": 0}]}]})),
        node("a", "inject", json!({"wires": [["i"]]})),
        node("i", "subflow:s", json!({"wires": [["j", "b"]]})),
        node("j", "subflow:s", json!({"wires": [["i", "i"]]})),
        node("b", "debug", json!({})),
    ]);
    assert_eq!(wires(&build(&flow).0, "a"), json!([["b"]]));
    let lines = problems(&flow);
    assert_eq!(
        lines[0],
        "warning: subflow:s i: its output leads back to its input without a node on the way; ignored"
    );
    assert!(lines.len() <= 2, "{lines:?}");
}

#[test]
fn the_status_output_lists_the_outputs_that_feed_it() {
    let flow = json!([
        tab("t"),
        definition(
            "s",
            json!({
                "in": [{"wires": []}],
                "status": {"wires": [{"id": "p", "port": 1}, {"id": "q", "port": 0}, {"id": "s", "port": 0}]},
            })
        ),
        node("p", "switch", json!({"z": "s"})),
        node("q", "change", json!({"z": "s"})),
        node("a", "inject", json!({"wires": [["i", "i"]]})),
        node("i", "subflow:s", json!({})),
        definition("plain", json!({})),
        node("j", "subflow:plain", json!({})),
    ]);
    let graph = graph(&flow);
    let instance = graph.instance("i").unwrap();
    assert!(instance.has_status_output);
    let sources: Vec<_> = instance.status_sources.iter().map(|(id, port)| (id.as_str(), *port)).collect();
    assert_eq!(sources, [("a", 0), ("i-p", 1), ("i-q", 0)]);
    assert!(!graph.instance("j").unwrap().has_status_output);
}

#[test]
fn disabled_nodes_inside_and_disabled_instances_are_absent() {
    let mut flow = simple();
    let list = flow.as_array_mut().unwrap();
    list[3]["d"] = json!(true);
    list.push(node("off", "subflow:s", json!({"d": true})));
    list.push(node("b", "inject", json!({"wires": [["off"]]})));
    let graph = graph(&flow);
    assert_eq!(ids(&graph), ["a", "i-p", "z", "b"]);
    assert_eq!(wires(&graph, "i-p"), json!([[]]));
    assert_eq!(wires(&graph, "b"), json!([[]]));
    assert_eq!(graph.absence("i-q"), Some(Absence::Disabled));
    assert_eq!(graph.absence("off"), Some(Absence::Disabled));
}

#[test]
fn an_instance_of_a_missing_subflow_is_reported_and_wires_to_it_drain() {
    let flow = json!([
        tab("t"),
        node("a", "inject", json!({"wires": [["i", "b"]]})),
        node("i", "subflow:gone", json!({"wires": [["b"]]})),
        node("b", "debug", json!({})),
    ]);
    let (graph, _) = build(&flow);
    assert_eq!(wires(&graph, "a"), json!([["b"]]));
    assert_eq!(graph.absence("i"), Some(Absence::Refused));
    assert_eq!(problems(&flow), ["error: subflow:gone i: the subflow gone is not in the flow file"]);
}

#[test]
fn a_subflow_that_contains_itself_is_reported_and_the_rest_of_it_runs() {
    let flow = json!([
        tab("t"),
        definition("s", json!({})),
        definition("r", json!({})),
        node("p", "change", json!({"z": "s"})),
        node("deeper", "subflow:r", json!({"z": "s"})),
        node("again", "subflow:s", json!({"z": "r"})),
        node("i", "subflow:s", json!({})),
    ]);
    assert_eq!(ids(&build(&flow).0), ["i-p"]);
    assert_eq!(
        problems(&flow),
        ["error: subflow:s again: the subflow s contains itself; this instance is left out"]
    );
}

#[test]
fn a_port_wired_to_something_that_is_not_in_the_subflow_is_reported_once() {
    let flow = json!([
        tab("t"),
        definition(
            "s",
            json!({
                "in": [{"wires": [{"id": "i"}, {"no": "id"}]}],
                "out": [{"wires": [{"id": "gone", "port": 0}]}],
            })
        ),
        node("i", "subflow:s", json!({})),
        node("j", "subflow:s", json!({})),
    ]);
    assert_eq!(
        problems(&flow),
        [
            "warning: subflow s: its in has a wire without an id, which is ignored",
            "warning: subflow s: its in is wired to i, which is not in the subflow; ignored",
            "warning: subflow s: its out is wired to gone, which is not in the subflow; ignored",
        ]
    );
}

#[test]
fn an_inner_id_that_is_taken_is_reported() {
    let mut flow = simple();
    flow.as_array_mut().unwrap().push(node("i-p", "debug", json!({})));
    let (graph, _) = build(&flow);
    assert_eq!(ids(&graph), ["a", "i-q", "z", "i-p"]);
    assert_eq!(graph.node("i-p").unwrap().node_type, "debug");
    assert_eq!(
        problems(&flow),
        ["error: change p: its id inside the subflow instance, i-p, is taken by another node"]
    );
}
