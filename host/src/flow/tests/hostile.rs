//! Files that are wrong on purpose. Whatever they hold, building and comparing ends, soon, without a panic.

use std::time::{Duration, Instant};

use super::*;

/// Far more than any of these take (a debug build on a busy machine included), far less than quadratic work would.
const SOON: Duration = Duration::from_secs(20);

/// Everything that can be done with a file.
fn exercise(flow: &Value) -> (FlowGraph, Vec<Problem>) {
    let start = Instant::now();
    let (graph, problems) = build(flow);
    for node in graph.nodes.iter().take(1_000) {
        graph.event_routes(&node.id);
        graph.env(&node.id, "A");
        graph.env_property(&node.id, "${A}${B}");
    }
    for node in &graph.nodes {
        for target in node.wires.iter().flatten() {
            assert!(graph.node(target).is_some(), "{} is wired to {target}, which is no node", node.id);
        }
    }
    let first = GraphDiff::between(&FlowGraph::empty(), &graph);
    assert_eq!(first.added.len(), graph.nodes.len());
    GraphDiff::of_type(DeployType::Flows, &graph, &FlowGraph::empty());
    for problem in &problems {
        assert!(!problem.to_string().contains('\n'), "{problem:?}");
    }
    assert!(start.elapsed() < SOON, "took {:?} for {} nodes", start.elapsed(), graph.nodes.len());
    (graph, problems)
}

fn text_of(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn any_property_may_hold_anything() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("t"),
        json!("s"),
        json!("n0"),
        json!("${A}"),
        json!("group"),
        json!([]),
        json!({}),
        json!([[]]),
        json!([[["n0"]]]),
        json!([{"wires": [{"id": "n0", "port": 1e18}, {"id": "s"}, {"id": 5}, 7]}]),
        json!({"wires": [{"id": "s", "port": -5}, {"id": "n0", "port": 18446744073709551615u64}]}),
        json!([{"name": "A", "type": "env", "value": "A"}, {"name": 5}, {"name": "B", "type": {}, "value": []}]),
    ];
    let keys = [
        "id",
        "type",
        "z",
        "x",
        "y",
        "g",
        "d",
        "wires",
        "env",
        "name",
        "scope",
        "links",
        "mode",
        "in",
        "out",
        "status",
        "disabled",
        "label",
        "nodes",
        "credentials",
        "uncaught",
    ];
    let types =
        ["tab", "subflow", "subflow:s", "group", "catch", "status", "complete", "link in", "link out", "x"];
    for key in keys {
        for value in &odd {
            let mut flow = vec![tab("t"), json!({"id": "s", "type": "subflow"})];
            for (number, node_type) in types.iter().enumerate() {
                for z in ["t", "s"] {
                    let id = format!("{}{number}", if z == "t" { "n" } else { "m" });
                    let mut entry = node(&id, node_type, json!({"z": z, "wires": [["n0", "m1"]]}));
                    entry[key] = value.clone();
                    flow.push(entry);
                }
            }
            flow[0][key] = value.clone();
            flow[1][key] = value.clone();
            exercise(&json!(flow));
        }
    }
}

#[test]
fn groups_in_a_circle_are_reported_and_their_members_run() {
    let flow = json!([
        tab("t"),
        node("a", "group", json!({"g": "b", "env": [{"name": "A", "type": "str", "value": "a"}]})),
        node("b", "group", json!({"g": "c"})),
        node("c", "group", json!({"g": "b"})),
        node("self", "group", json!({"g": "self"})),
        node("n", "x", json!({"g": "a", "v": "${A}"})),
        node("m", "x", json!({"g": "self"})),
    ]);
    let (graph, problems) = exercise(&flow);
    assert_eq!(graph.node("n").unwrap().groups, ["a", "b", "c"]);
    assert_eq!(graph.node("n").unwrap().config["v"], json!("a"));
    assert_eq!(graph.node("m").unwrap().groups, ["self"]);
    assert_eq!(
        text_of(&problems),
        "group c: is inside itself, through the group b; taken as outermost\n\
         group self: is inside itself, through the group self; taken as outermost"
    );
}

#[test]
fn a_tower_of_groups_is_cut_at_the_limit() {
    let mut flow = vec![tab("t")];
    for level in 0..5_000 {
        flow.push(node(&format!("g{level}"), "group", json!({"g": format!("g{}", level + 1)})));
    }
    flow.push(node("g5000", "group", json!({})));
    flow.push(node("n", "x", json!({"g": "g0"})));
    let (graph, problems) = exercise(&json!(flow));
    assert!(graph.node("n").unwrap().groups.len() <= Limits::default().group_depth);
    assert!(text_of(&problems).contains("groups deep"), "{}", text_of(&problems));
}

#[test]
fn subflows_that_double_at_every_level_stop_at_the_limit() {
    let mut flow = vec![tab("t"), node("i", "subflow:s0", json!({}))];
    for level in 0..30 {
        flow.push(json!({"id": format!("s{level}"), "type": "subflow"}));
        for side in ["l", "r"] {
            let inner = format!("subflow:s{}", level + 1);
            flow.push(node(&format!("{side}{level}"), &inner, json!({"z": format!("s{level}")})));
        }
    }
    flow.push(json!({"id": "s30", "type": "subflow"}));
    flow.push(node("n", "x", json!({"z": "s30"})));
    let (graph, problems) = exercise(&json!(flow));
    assert!(graph.nodes.len() + graph.instances.len() <= Limits::default().expanded_entries);
    assert!(text_of(&problems).contains("unfold into more than"), "{}", text_of(&problems));
}

#[test]
fn subflows_deeper_than_the_limit_are_reported() {
    let mut flow = vec![tab("t"), node("i", "subflow:s0", json!({}))];
    for level in 0..200 {
        flow.push(json!({"id": format!("s{level}"), "type": "subflow"}));
        let z = json!({"z": format!("s{level}")});
        flow.push(node(&format!("j{level}"), &format!("subflow:s{}", level + 1), z.clone()));
        flow.push(node(&format!("n{level}"), "x", z));
    }
    flow.push(json!({"id": "s200", "type": "subflow"}));
    let (graph, problems) = exercise(&json!(flow));
    assert_eq!(graph.nodes.len(), Limits::default().subflow_depth);
    assert!(text_of(&problems).contains("is more than 32 subflows deep"), "{}", text_of(&problems));
}

#[test]
fn wires_that_double_through_empty_subflows_stop_at_the_limit() {
    let through =
        json!({"id": "s", "type": "subflow", "in": [], "out": [{"wires": [{"id": "s", "port": 0}]}]});
    let mut flow = vec![tab("t"), through, node("a", "x", json!({"wires": [["i0"]]}))];
    for step in 0..60 {
        let next = format!("i{}", step + 1);
        flow.push(node(&format!("i{step}"), "subflow:s", json!({"wires": [[next, next]]})));
    }
    flow.push(node("i60", "x", json!({})));
    let (graph, problems) = exercise(&json!(flow));
    assert!(graph.node("a").unwrap().wires[0].len() <= Limits::default().wires);
    assert!(text_of(&problems).contains("more than 1000000 wires"), "{}", text_of(&problems));
}

#[test]
fn variables_that_multiply_stop_at_the_limit() {
    let mut env = vec![json!({"name": "V0", "type": "str", "value": "x".repeat(100)})];
    for level in 1..50 {
        let before = format!("${{V{}}}", level - 1).repeat(10);
        env.push(json!({"name": format!("V{level}"), "type": "env", "value": before}));
    }
    let flow = json!([with(tab("t"), json!({"env": env})), node("n", "x", json!({"v": "${V3}"}))]);
    let (graph, problems) = exercise(&flow);
    assert_eq!(graph.node("n").unwrap().config["v"].as_str().map(str::len), Some(100_000));
    assert!(text_of(&problems).contains("grows too long"), "{}", text_of(&problems));
    assert_eq!(graph.env_property("n", &"${V3}".repeat(1_000)), json!(""));
}

#[test]
fn a_large_value_that_many_nodes_refer_to_stops_at_the_limit() {
    let mut flow = vec![with(
        tab("t"),
        json!({"env": [{"name": "BIG", "type": "str", "value": "x".repeat(1_000_000)}]}),
    )];
    for number in 0..200 {
        flow.push(node(&number.to_string(), "x", json!({"v": ["${BIG}", "${BIG}"]})));
    }
    let limits = Limits { config_bytes: 20_000_000, ..Limits::default() };
    let (graph, problems) =
        FlowGraph::build_within(&file(&json!(flow)), Arc::new(process_env), &roles, &limits);
    assert_eq!(graph.nodes.len(), 9);
    assert_eq!(graph.absence("199"), Some(Absence::Refused));
    assert!(text_of(&problems).contains("more than 20000000 bytes"), "{}", text_of(&problems));
}

#[test]
fn a_circle_of_variables_of_any_length_ends() {
    let env: Vec<Value> = (0..20_000)
        .map(|n| json!({"name": format!("V{n}"), "type": "env", "value": format!("V{}", (n + 1) % 20_000)}))
        .collect();
    let flow = json!([with(tab("t"), json!({"env": env})), node("n", "x", json!({}))]);
    let (graph, _) = exercise(&flow);
    assert_eq!(graph.env("n", "V77"), Some(json!("")));
}

#[test]
fn ten_thousand_nodes_that_all_refer_to_each_other_are_built_quickly() {
    let count = 10_000;
    let mut flow = vec![tab("t"), config("c0", "server", json!({}))];
    for number in 0..count {
        let more = json!({
            "wires": [[format!("n{}", (number + 1) % count)], ["n0"]],
            "server": format!("c{}", number % 100),
            "rules": [{"t": "set", "p": "payload", "to": "${A}"}],
        });
        flow.push(node(&format!("n{number}"), "x", more));
        flow.push(config(&format!("c{}", number + 1), "server", json!({"next": format!("c{}", number + 2)})));
        flow.push(node(&format!("k{number}"), "catch", json!({"scope": [format!("n{number}")]})));
    }
    let flow = json!(flow);
    let (old, problems) = exercise(&flow);
    assert_eq!(problems, []);
    assert_eq!(old.nodes.len(), 3 * count + 1);
    let (new, _) = build(&flow);
    let start = Instant::now();
    assert!(GraphDiff::between(&old, &new).is_empty());
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_node_whose_z_is_itself_or_an_instance_is_on_an_implicit_tab() {
    let flow = json!([
        {"id": "s", "type": "subflow"},
        node("p", "x", json!({"z": "s"})),
        node("i", "subflow:s", json!({"z": "i"})),
        node("catch", "catch", json!({"z": "i", "scope": ["i"]})),
        node("status", "status", json!({"z": "i"})),
    ]);
    let (graph, problems) = exercise(&flow);
    assert_eq!(problems, []);
    assert_eq!(graph.event_routes("i-p").catch, ["catch"]);
    assert_eq!(graph.event_routes("i-p").status, ["status"]);
    assert_eq!(graph.event_routes("status").catch, Vec::<String>::new());
}

#[test]
fn catch_nodes_without_number_do_not_multiply_with_the_nodes() {
    let mut flow = vec![tab("t")];
    for number in 0..5_000 {
        flow.push(node(&format!("c{number}"), "catch", json!({})));
        flow.push(node(&format!("n{number}"), "x", json!({})));
    }
    let (graph, problems) = exercise(&json!(flow));
    assert_eq!(graph.event_routes("n1").catch.len(), Limits::default().listeners);
    assert!(text_of(&problems).contains("hears of nothing"), "{}", text_of(&problems));
}
