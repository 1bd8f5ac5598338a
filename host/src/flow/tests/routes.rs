//! Which catch, status and complete nodes hear of a node.

use super::*;

/// Tab `t` with group `inner` in group `outer`, n in the inner one, m in the outer one, o in none.
fn tab_with(listeners: &[Value]) -> FlowGraph {
    let mut flow = vec![
        tab("t"),
        node("outer", "group", json!({})),
        node("inner", "group", json!({"g": "outer"})),
        node("n", "x", json!({"g": "inner"})),
        node("m", "x", json!({"g": "outer"})),
        node("o", "x", json!({})),
        tab("u"),
        node("far", "x", json!({"z": "u"})),
    ];
    flow.extend_from_slice(listeners);
    graph(&json!(flow))
}

#[track_caller]
fn check_catch(graph: &FlowGraph, expected: &[(&str, &[&str])]) {
    for (id, catchers) in expected {
        assert_eq!(graph.event_routes(id).catch, *catchers, "catch nodes of {id}");
    }
}

#[test]
fn a_catch_node_takes_the_errors_of_its_whole_tab_or_of_the_nodes_it_lists() {
    let graph =
        tab_with(&[node("all", "catch", json!({})), node("some", "catch", json!({"scope": ["n", "far"]}))]);
    check_catch(&graph, &[("n", &["some", "all"]), ("m", &["all"]), ("far", &[]), ("nobody", &[])]);
}

#[test]
fn a_group_scoped_catch_node_takes_errors_from_its_group_and_groups_inside_it_only() {
    let graph = tab_with(&[
        node("c", "catch", json!({"g": "outer", "scope": "group"})),
        node("d", "catch", json!({"g": "inner", "scope": "group"})),
        node("e", "catch", json!({"scope": "group"})),
    ]);
    check_catch(&graph, &[("n", &["d", "c"]), ("m", &["c"]), ("o", &[])]);
}

#[test]
fn scoped_catch_nodes_come_first_then_plain_ones_and_nearer_groups_before_farther_ones() {
    let graph = tab_with(&[
        node("plain outside", "catch", json!({})),
        node("plain outer", "catch", json!({"g": "outer"})),
        node("plain inner", "catch", json!({"g": "inner"})),
        node("listed", "catch", json!({"scope": ["n"]})),
        node("uncaught", "catch", json!({"uncaught": true})),
    ]);
    check_catch(
        &graph,
        &[
            ("n", &["listed", "plain inner", "plain outer", "plain outside"]),
            ("m", &["plain outer", "plain outside", "plain inner"]),
            ("o", &["plain outside", "plain outer", "plain inner"]),
        ],
    );
}

#[test]
fn catch_nodes_for_uncaught_errors_get_them_all_when_no_other_does() {
    let graph = tab_with(&[
        node("u1", "catch", json!({"uncaught": true})),
        node("u2", "catch", json!({"g": "inner", "uncaught": true})),
        node("c", "catch", json!({"scope": ["m"]})),
    ]);
    check_catch(&graph, &[("n", &["u2", "u1"]), ("m", &["c"])]);
}

#[test]
fn a_catch_node_that_did_not_start_takes_nothing_from_those_behind_it() {
    let graph = tab_with(&[node("c", "catch", json!({})), node("last", "catch", json!({"uncaught": true}))]);
    let routes = graph.event_routes_among("n", &|id| id != "c");
    assert_eq!(graph.event_routes("n").catch, ["c"]);
    assert_eq!(routes.catch, ["last"]);
}

/// Instance i of s, holding p and instance j of r, holding k; listeners are added to tab and definitions.
fn subflows(listeners: &[Value], status: bool) -> FlowGraph {
    let mut definition = json!({"id": "s", "type": "subflow"});
    if status {
        definition["status"] = json!({"wires": []});
    }
    let mut flow = vec![
        tab("t"),
        definition,
        json!({"id": "r", "type": "subflow"}),
        node("p", "x", json!({"z": "s"})),
        node("j", "subflow:r", json!({"z": "s"})),
        node("k", "x", json!({"z": "r"})),
        node("grp", "group", json!({})),
        node("i", "subflow:s", json!({"g": "grp"})),
    ];
    flow.extend_from_slice(listeners);
    graph(&json!(flow))
}

#[test]
fn an_error_that_nothing_takes_inside_a_subflow_is_the_instances_in_the_parent() {
    let graph = subflows(
        &[
            node("listed", "catch", json!({"scope": ["i"]})),
            node("grouped", "catch", json!({"g": "grp", "scope": "group"})),
            node("other", "catch", json!({"scope": ["nothing"]})),
        ],
        false,
    );
    let both: &[&str] = &["grouped", "listed"];
    check_catch(&graph, &[("i-p", both), ("i-j-k", both), ("i", both), ("i-j", both)]);
}

#[test]
fn an_error_taken_inside_a_subflow_stays_there() {
    let graph = subflows(
        &[
            node("outside", "catch", json!({})),
            node("inside", "catch", json!({"z": "s", "uncaught": true})),
            node("deep", "catch", json!({"z": "r", "scope": ["other"]})),
        ],
        false,
    );
    check_catch(&graph, &[("i-p", &["i-inside"]), ("i-j-k", &["i-inside"]), ("i", &["outside"])]);
}

#[test]
fn status_nodes_hear_by_the_same_scopes_and_inner_ones_come_before_the_parents() {
    let listeners =
        [node("outside", "status", json!({"scope": ["i"]})), node("inside", "status", json!({"z": "r"}))];
    let graph = subflows(&listeners, false);
    assert_eq!(graph.event_routes("i-p").status, ["outside"]);
    assert_eq!(graph.event_routes("i-j-k").status, ["i-j-inside"]);
    assert_eq!(graph.event_routes("i").status, ["outside"]);
}

#[test]
fn a_status_output_keeps_the_status_of_inner_nodes_inside() {
    let graph = subflows(&[node("outside", "status", json!({}))], true);
    assert_eq!(graph.event_routes("i-p").status, Vec::<String>::new());
    assert_eq!(graph.event_routes("i-j-k").status, Vec::<String>::new());
    assert_eq!(graph.event_routes("i").status, ["outside"]);
}

#[test]
fn a_status_node_does_not_hear_of_a_listed_node_that_it_is_wired_to() {
    let graph = tab_with(&[
        node("a", "status", json!({"scope": ["n", "m"], "wires": [["n"]]})),
        node("b", "status", json!({"wires": [["n"]]})),
    ]);
    assert_eq!(graph.event_routes("n").status, ["b"]);
    assert_eq!(graph.event_routes("m").status, ["a", "b"]);
}

#[test]
fn complete_nodes_hear_only_of_nodes_they_list_on_their_tab() {
    let graph = tab_with(&[
        node("a", "complete", json!({"scope": ["n", "far"]})),
        node("b", "complete", json!({"scope": []})),
        node("c", "complete", json!({})),
        node("d", "complete", json!({"scope": ["n"], "uncaught": true})),
    ]);
    assert_eq!(graph.event_routes("n").complete, ["a", "d"]);
    assert_eq!(graph.event_routes("m").complete, Vec::<String>::new());
    assert_eq!(graph.event_routes("far").complete, Vec::<String>::new());
}

#[test]
fn events_of_global_config_nodes_go_nowhere_and_those_of_wired_nodes_without_coordinates_do() {
    let flow = json!([
        config("c", "server", json!({})),
        config("n", "x", json!({"wires": [[]]})),
        config("catch", "catch", json!({"wires": [[]]})),
        config("tabbed", "server", json!({"z": "t"})),
        tab("t"),
        node("all", "catch", json!({})),
    ]);
    check_catch(&graph(&flow), &[("c", &[]), ("n", &["catch"]), ("tabbed", &["all"])]);
}

#[test]
fn a_scope_of_another_shape_is_reported_and_hears_of_nothing() {
    let flow =
        json!([tab("t"), node("n", "x", json!({})), node("c", "catch", json!({"scope": {"n": true}}))]);
    assert_eq!(build(&flow).0.event_routes("n"), EventRoutes::default());
    assert_eq!(
        problems(&flow),
        ["warning: catch c: its scope is neither a list of nodes nor group; it hears of nothing"]
    );
}
