//! Wires and link nodes.

use super::*;

#[test]
fn wires_may_lead_to_another_tab_and_more_than_once_to_the_same_node() {
    let flow = json!([
        tab("t"),
        tab("u"),
        node("a", "inject", json!({"wires": [["b", "b"], [], ["a"]]})),
        node("b", "debug", json!({"z": "u"})),
    ]);
    assert_eq!(wires(&graph(&flow), "a"), json!([["b", "b"], [], ["a"]]));
}

#[test]
fn a_wire_to_nowhere_is_reported_and_dropped() {
    let flow = json!([
        tab("t"),
        node("a", "inject", json!({"wires": [["b"], ["gone", "b"]]})),
        node("b", "debug", json!({})),
    ]);
    assert_eq!(wires(&build(&flow).0, "a"), json!([["b"], ["b"]]));
    assert_eq!(
        problems(&flow),
        ["warning: inject a: output 2 is wired to gone, which does not exist; ignored"]
    );
}

#[test]
fn wires_of_another_shape_are_reported_and_the_usable_part_is_used() {
    let flow = json!([
        tab("t"),
        node("a", "inject", json!({"wires": 5})),
        node("b", "inject", json!({"wires": ["a", [1, "a", {"id": "a"}], null, {"0": ["a"]}]})),
        node("c", "inject", json!({"wires": null})),
    ]);
    let (graph, _) = build(&flow);
    assert_eq!(wires(&graph, "a"), json!([]));
    assert_eq!(wires(&graph, "b"), json!([[], ["a"], [], []]));
    assert_eq!(
        problems(&flow),
        [
            "warning: inject a: wires is not a list and is ignored",
            "warning: inject b: wires of output 1 is not a list and is ignored",
            "warning: inject b: output 2 has a wire that is no id, which is ignored",
            "warning: inject b: wires of output 4 is not a list and is ignored",
        ]
    );
}

#[test]
fn a_link_out_node_is_wired_to_the_link_in_nodes_it_lists_and_to_those_that_list_it() {
    let flow = json!([
        tab("t"),
        tab("u"),
        node("out", "link out", json!({"mode": "link", "links": ["in1", "in1"]})),
        node("in1", "link in", json!({"links": ["out"]})),
        node("in2", "link in", json!({"z": "u", "links": ["out", "someone else"]})),
        node("in3", "link in", json!({"links": []})),
        node("old", "link out", json!({"links": ["in3"], "wires": null})),
    ]);
    let graph = graph(&flow);
    assert_eq!(wires(&graph, "out"), json!([["in1", "in2"]]));
    assert_eq!(wires(&graph, "old"), json!([["in3"]]));
}

#[test]
fn a_link_out_node_in_return_mode_has_no_wires() {
    let flow = json!([
        tab("t"),
        node("out", "link out", json!({"mode": "return", "links": ["in"]})),
        node("in", "link in", json!({"links": ["out"]})),
    ]);
    assert_eq!(wires(&graph(&flow), "out"), json!([]));
}

#[test]
fn links_to_disabled_nodes_drain_and_links_to_anything_but_link_in_are_reported() {
    let flow = json!([
        tab("t"),
        node("out", "link out", json!({"links": ["off", "gone", "debug", "in"]})),
        node("off", "link in", json!({"d": true, "links": []})),
        node("in", "link in", json!({"links": []})),
        node("debug", "debug", json!({})),
    ]);
    assert_eq!(wires(&build(&flow).0, "out"), json!([["in"]]));
    assert_eq!(
        problems(&flow),
        [
            "warning: link out out: is linked to gone, which is no link-in node; ignored",
            "warning: link out out: is linked to debug, which is no link-in node; ignored",
        ]
    );
}

#[test]
fn links_go_by_the_role_of_a_type_and_not_by_its_name() {
    let flow = json!([
        tab("t"),
        node("a", "teleport", json!({"links": ["b"]})),
        node("b", "arrival", json!({})),
        node("c", "link out", json!({"links": ["b"]})),
    ]);
    let roles = |node_type: &str| match node_type {
        "teleport" => Role::LinkOut,
        "arrival" => Role::LinkIn,
        _ => Role::Plain,
    };
    let (graph, _) = FlowGraph::build(&file(&flow), Arc::new(process_env), &roles);
    assert_eq!(wires(&graph, "a"), json!([["b"]]));
    assert_eq!(wires(&graph, "c"), json!([]));
}
