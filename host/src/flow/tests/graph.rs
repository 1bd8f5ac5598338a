//! Which nodes run, in which order, and what is reported.

use super::*;

const ECHO: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../flows/websocket-echo.json"));

#[test]
fn the_seed_flow_builds_without_a_problem() {
    let file = FlowFile::parse(ECHO).unwrap();
    let (graph, problems) = FlowGraph::build(&file, Arc::new(process_env), &roles);
    assert_eq!(problems, []);
    assert_eq!(
        ids(&graph),
        [
            "4db78eb653d6d50d",
            "542f751e15337c46",
            "e788dbc44428f6b7",
            "8c702971b0292f9b",
            "dda81a976ccf2a2b",
            "d86baf93795dbb2d",
            "d36a13e17814e375",
            "1660b4da46db22ad",
        ]
    );
    let listener = graph.node("542f751e15337c46").unwrap();
    assert_eq!(listener.kind, NodeKind::Config);
    assert_eq!((&listener.z, &listener.flow_id), (&None, &None));
    assert_eq!(listener.path, "global/542f751e15337c46");
    assert_eq!(listener.users, ["d36a13e17814e375", "1660b4da46db22ad"]);
    let input = graph.node("d36a13e17814e375").unwrap();
    assert_eq!(input.kind, NodeKind::Flow);
    assert_eq!(input.z.as_deref(), Some("43294be738b7699a"));
    assert_eq!(input.flow_id, input.z);
    assert_eq!(input.path, "43294be738b7699a/d36a13e17814e375");
    assert_eq!(input.wires, [["1660b4da46db22ad"]]);
    assert_eq!(graph.node("dda81a976ccf2a2b").unwrap().role, Role::Source);
    assert_eq!(graph.node("d86baf93795dbb2d").unwrap().name, "debug 5");
    assert_eq!(graph.tabs[0].label, "WebSockets");
    let required: Vec<&str> = graph.required_types().iter().map(String::as_str).collect();
    assert_eq!(
        required,
        ["debug", "inject", "websocket in", "websocket out", "websocket-client", "websocket-listener"]
    );
}

#[test]
fn global_config_nodes_come_first_then_each_tab_with_its_config_nodes_first() {
    let flow = json!([
        tab("t"),
        node("f1", "debug", json!({})),
        config("c1", "server", json!({"z": "t"})),
        tab("u"),
        node("f2", "debug", json!({"z": "u"})),
        config("c2", "server", json!({"z": "u"})),
        config("g", "server", json!({})),
        node("f3", "debug", json!({})),
    ]);
    assert_eq!(ids(&graph(&flow)), ["g", "c1", "f1", "f3", "c2", "f2"]);
}

#[test]
fn a_config_node_starts_after_the_one_in_its_scope_that_it_refers_to() {
    let flow = json!([
        tab("t"),
        config("a", "client", json!({"tls": "b"})),
        config("b", "tls-config", json!({})),
        config("c", "client", json!({"z": "t", "tls": "b", "name": "d"})),
        config("d", "server", json!({"z": "t"})),
    ]);
    assert_eq!(ids(&graph(&flow)), ["b", "a", "d", "c"]);
}

#[test]
fn config_nodes_in_a_circle_are_reported_by_id_and_type_and_the_rest_runs() {
    let flow = json!([
        tab("t"),
        config("a", "client", json!({"server": "b"})),
        config("b", "server", json!({"client": "a"})),
        config("c", "server", json!({"client": "a"})),
        config("self", "server", json!({"name": "self"})),
        node("f", "debug", json!({})),
    ]);
    assert_eq!(ids(&build(&flow).0), ["c", "f"]);
    assert_eq!(build(&flow).0.absence("a"), Some(Absence::Circular));
    assert_eq!(
        problems(&flow),
        [
            "error: client a: config nodes refer to one another in a circle and are not started: client a, server b",
            "error: server self: refers to itself and is not started",
        ]
    );
}

#[test]
fn a_node_with_wires_but_no_coordinates_is_wired_and_global() {
    let flow = json!([
        {"id": "n1", "type": "inject", "wires": [["n2"]]},
        {"id": "n2", "type": "helper"},
    ]);
    let graph = graph(&flow);
    assert_eq!(wires(&graph, "n1"), json!([["n2"]]));
    let n1 = graph.node("n1").unwrap();
    assert_eq!((n1.kind, &n1.z), (NodeKind::Config, &None));
}

#[test]
fn a_flow_node_without_z_is_kept_in_the_file_and_never_started() {
    let flow =
        json!([tab("t"), node("lost", "debug", json!({"z": null})), node("e", "debug", json!({"z": ""}))]);
    let (graph, _) = build(&flow);
    assert_eq!(ids(&graph), Vec::<&str>::new());
    assert_eq!(graph.absence("lost"), Some(Absence::NoTab));
    assert_eq!(
        problems(&flow)[0],
        "warning: debug lost: is on no tab (it has no z): it is kept in the file and never started"
    );
    assert_eq!(file(&flow).entries(), flow.as_array().unwrap());
}

#[test]
fn a_z_that_names_no_tab_makes_an_implicit_tab_after_the_others() {
    let flow = json!([
        config("c", "server", json!({"z": "ghost"})),
        config("g", "server", json!({"z": "nobody"})),
        node("a", "debug", json!({"z": "ghost"})),
        tab("t"),
        node("b", "debug", json!({})),
    ]);
    let graph = graph(&flow);
    assert_eq!(ids(&graph), ["g", "b", "c", "a"]);
    assert_eq!(graph.node("c").unwrap().flow_id.as_deref(), Some("ghost"));
    assert_eq!(graph.node("g").unwrap().flow_id, None);
    let tabs: Vec<_> = graph.tabs.iter().map(|tab| (tab.id.as_str(), tab.implicit)).collect();
    assert_eq!(tabs, [("t", false), ("ghost", true)]);
}

#[test]
fn disabled_nodes_and_everything_on_disabled_tabs_are_absent_and_wires_to_them_drain() {
    let flow = json!([
        tab("t"),
        with(tab("off"), json!({"disabled": true})),
        node("a", "inject", json!({"wires": [["b", "c", "e"], ["b"]]})),
        node("b", "debug", json!({"d": true})),
        node("c", "debug", json!({"z": "off"})),
        config("d", "server", json!({"z": "off"})),
        node("e", "debug", json!({})),
        config("f", "server", json!({"d": true})),
    ]);
    let graph = graph(&flow);
    assert_eq!(ids(&graph), ["a", "e"]);
    assert_eq!(wires(&graph, "a"), json!([["e"], []]));
    assert_eq!(graph.absence("b"), Some(Absence::Disabled));
    assert_eq!(graph.absence("c"), Some(Absence::TabDisabled));
    assert_eq!(graph.absence("d"), Some(Absence::TabDisabled));
    assert_eq!(graph.absence("f"), Some(Absence::Disabled));
    assert_eq!(graph.absence("e"), None);
    assert_eq!(graph.absence("nowhere"), None);
}

#[test]
fn of_entries_with_the_same_id_the_first_is_used_and_the_others_are_reported() {
    let flow = json!([
        tab("t"),
        node("a", "inject", json!({"name": "first"})),
        node("a", "debug", json!({"name": "second"})),
        config("t", "server", json!({})),
    ]);
    let (graph, _) = build(&flow);
    assert_eq!(ids(&graph), ["a"]);
    assert_eq!(graph.node("a").unwrap().name, "first");
    assert_eq!(
        problems(&flow),
        [
            "error: debug a: duplicate id: it is used before by a node of type inject, and this one is left out",
            "error: server t: duplicate id: it is used before by a node of type tab, and this one is left out",
        ]
    );
}

#[test]
fn required_types_count_disabled_nodes_and_missing_subflows_but_not_what_the_host_has() {
    let flow = json!([
        with(tab("off"), json!({"disabled": true})),
        tab("t"),
        node("a", "on a disabled tab", json!({"z": "off"})),
        node("b", "disabled", json!({"d": true})),
        node("c", "on no tab", json!({"z": null})),
        {"id": "s", "type": "subflow"},
        node("d", "inside a subflow", json!({"z": "s"})),
        node("e", "subflow:s", json!({})),
        node("f", "subflow:gone", json!({})),
        node("g", "junction", json!({})),
        node("h", "comment", json!({})),
        node("i", "group", json!({})),
        node("j", "unknown", json!({})),
        config("k", "global-config", json!({})),
        config("l", "tls-config", json!({})),
    ]);
    let (graph, _) = build(&flow);
    let required: Vec<&str> = graph.required_types().iter().map(String::as_str).collect();
    assert_eq!(
        required,
        ["disabled", "inside a subflow", "junction", "on a disabled tab", "on no tab", "subflow:gone"]
    );
}

#[test]
fn comments_junctions_and_unknown_nodes_are_nodes_and_groups_are_not() {
    let flow = json!([
        tab("t"),
        node("a", "junction", json!({"wires": [["b"]]})),
        node("b", "unknown", json!({})),
        node("c", "comment", json!({})),
        node("d", "group", json!({})),
    ]);
    assert_eq!(ids(&graph(&flow)), ["a", "b", "c"]);
}

#[test]
fn entries_that_cannot_be_used_are_reported_and_the_rest_runs() {
    let flow = json!([3, tab("t"), {"type": "debug", "x": 1, "y": 1}, node("a", "debug", json!({}))]);
    assert_eq!(ids(&build(&flow).0), ["a"]);
    assert_eq!(
        problems(&flow),
        [
            "error: entry 1: is not an object and is ignored",
            "error: debug entry 3: has no id that is a string and is ignored",
        ]
    );
}

#[test]
fn groups_are_listed_innermost_first_and_only_within_their_tab() {
    let flow = json!([
        tab("t"),
        node("outer", "group", json!({})),
        node("n", "debug", json!({"g": "inner"})),
        node("inner", "group", json!({"g": "outer"})),
        node("m", "debug", json!({"g": "outer"})),
        tab("u"),
        node("o", "debug", json!({"z": "u", "g": "outer"})),
    ]);
    let (graph, _) = build(&flow);
    assert_eq!(graph.node("n").unwrap().groups, ["inner", "outer"]);
    assert_eq!(graph.node("m").unwrap().groups, ["outer"]);
    assert_eq!(graph.node("o").unwrap().groups, Vec::<String>::new());
    assert_eq!(
        problems(&flow),
        ["warning: debug o: is in the group outer, which is not on its tab; taken as in none"]
    );
}

#[test]
fn credentials_never_reach_a_nodes_configuration() {
    let flow = json!([tab("t"), node("a", "debug", json!({"credentials": {"password": "secret"}}))]);
    let graph = graph(&flow);
    assert!(graph.node("a").unwrap().credentials_given);
    assert!(!format!("{graph:?}").contains("secret"));
}

#[test]
fn names_that_are_no_strings_count_as_none() {
    let flow =
        json!([tab("t"), node("a", "debug", json!({"name": 7})), node("b", "debug", json!({"name": {}}))]);
    let graph = graph(&flow);
    assert_eq!(graph.node("a").unwrap().name, "");
    assert_eq!(graph.node("a").unwrap().config["name"], json!(7));
}
