//! What a deploy restarts.

use super::*;

/// Tab t: n1 → n2, n3 unconnected; tab t2: m1 → m2. The flow of the observed deploys.
fn base() -> Vec<Value> {
    vec![
        json!({"id": "t", "type": "tab", "label": "T"}),
        json!({"id": "t2", "type": "tab", "label": "T2"}),
        node("n1", "function", json!({"func": "return msg", "wires": [["n2"]]})),
        node("n2", "function", json!({})),
        node("n3", "function", json!({})),
        node("m1", "function", json!({"z": "t2", "wires": [["m2"]]})),
        node("m2", "function", json!({"z": "t2"})),
    ]
}

fn set(mut flow: Vec<Value>, id: &str, more: Value) -> Vec<Value> {
    let place = flow.iter().position(|entry| entry["id"] == id).unwrap_or_else(|| panic!("no entry {id}"));
    flow[place] = with(flow[place].clone(), more);
    flow
}

fn without(mut flow: Vec<Value>, id: &str) -> Vec<Value> {
    flow.retain(|entry| entry["id"] != id);
    flow
}

fn and(mut flow: Vec<Value>, entry: Value) -> Vec<Value> {
    flow.push(entry);
    flow
}

fn of(flow: &[Value]) -> FlowGraph {
    build(&json!(flow)).0
}

fn diff(old: &[Value], new: &[Value]) -> GraphDiff {
    GraphDiff::between(&of(old), &of(new))
}

/// `diff` as text: `+` added, `-` removed, `~` changed, `>` rewired.
fn summary(diff: &GraphDiff) -> String {
    let lists = [("+", &diff.added), ("-", &diff.removed), ("~", &diff.changed), (">", &diff.rewired)];
    let all = lists.into_iter().flat_map(|(mark, ids)| ids.iter().map(move |id| format!("{mark}{id}")));
    all.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(old: &[Value], new: &[Value], expected: &str) {
    assert_eq!(summary(&diff(old, new)), expected);
}

#[test]
fn the_first_start_is_the_difference_from_nothing() {
    let graph = of(&base());
    let diff = GraphDiff::between(&FlowGraph::empty(), &graph);
    assert_eq!(diff.added, ids(&graph));
    assert_eq!(summary(&GraphDiff::between(&graph, &FlowGraph::empty())), "-n1 -n2 -n3 -m1 -m2");
}

/// Rows observed on Node-RED: change, then what stops and starts for the types full, nodes and flows. A node that is
/// only wired anew does not appear in Node-RED's events; here it does, as `>`.
#[test]
fn deploys_restart_what_node_red_restarts() {
    let all = "~n1 ~n2 ~n3 ~m1 ~m2";
    let rows: Vec<(&str, Vec<Value>, &str, &str, &str)> = vec![
        ("no change", base(), all, "", ""),
        ("n1 moved x", set(base(), "n1", json!({"x": 99})), all, "", ""),
        ("n1 func changed", set(base(), "n1", json!({"func": "return null"})), all, "~n1", "~n1 ~n2"),
        ("n1 rewired to n3", set(base(), "n1", json!({"wires": [["n3"]]})), all, ">n1", "~n1 ~n2 ~n3"),
        ("n3 removed", without(base(), "n3"), "-n3 ~n1 ~n2 ~m1 ~m2", "-n3", "-n3"),
        ("n4 added", and(base(), node("n4", "function", json!({}))), "+n4 ~n1 ~n2 ~n3 ~m1 ~m2", "+n4", "+n4"),
        ("tab t label changed", set(base(), "t", json!({"label": "new", "info": "new"})), all, "", ""),
        (
            "tab t env added",
            set(base(), "t", json!({"env": [{"name": "A", "type": "str", "value": "1"}]})),
            all,
            "~n1 ~n2 ~n3",
            "~n1 ~n2 ~n3",
        ),
        (
            "tab t2 disabled",
            set(base(), "t2", json!({"disabled": true})),
            "-m1 -m2 ~n1 ~n2 ~n3",
            "-m1 -m2",
            "-m1 -m2",
        ),
        ("n1 disabled (d)", set(base(), "n1", json!({"d": true})), "-n1 ~n2 ~n3 ~m1 ~m2", "-n1", "-n1 ~n2"),
        ("n1 info", set(base(), "n1", json!({"info": "new"})), all, "~n1", "~n1 ~n2"),
        ("n1 name", set(base(), "n1", json!({"name": "new"})), all, "~n1", "~n1 ~n2"),
    ];
    let old = of(&base());
    for (change, new, full, nodes, flows) in rows {
        let new = of(&new);
        let found = |deploy| summary(&GraphDiff::of_type(deploy, &old, &new));
        assert_eq!(found(DeployType::Full), full, "full: {change}");
        assert_eq!(found(DeployType::Nodes), nodes, "nodes: {change}");
        assert_eq!(found(DeployType::Flows), flows, "flows: {change}");
    }
}

#[test]
fn every_node_is_in_exactly_one_list() {
    let new = without(set(base(), "n1", json!({"wires": []})), "m2");
    let found = diff(&base(), &and(new, node("n4", "function", json!({}))));
    assert_eq!(summary(&found), "+n4 -m2 >n1 >m1");
    assert_eq!(found.unchanged, ["n2", "n3"]);
}

#[test]
fn the_order_of_properties_and_an_empty_env_are_no_change() {
    let mut new = set(base(), "t", json!({"env": []}));
    let Value::Object(map) = &new[2] else { panic!("a node is an object") };
    new[2] = Value::Object(map.clone().into_iter().rev().collect());
    assert!(diff(&base(), &new).is_empty());
}

#[test]
fn credentials_in_a_deploy_restart_the_node_each_time() {
    let new = set(base(), "n2", json!({"credentials": {"user": "u"}}));
    check(&base(), &new, "~n2");
    check(&new, &new, "~n2");
    check(&new, &base(), "~n2");
}

/// A graph of `flow` with `stored` beside it.
fn beside(flow: &[Value], stored: Value) -> FlowGraph {
    let Value::Object(stored) = stored else { panic!("not an object: {stored}") };
    let file = file(&json!(flow)).with_stored_credentials(stored);
    FlowGraph::build(&file, Arc::new(process_env), &roles).0
}

#[test]
fn a_change_of_stored_credentials_restarts_what_they_are_for_and_what_refers_to_it() {
    let mut flow = configs();
    let group = json!({"id": "g", "type": "group", "z": "t2", "nodes": ["m1"]});
    flow.push(with(group, json!({"env": [{"name": "K", "type": "cred"}]})));
    let flow = set(flow, "m1", json!({"g": "g"}));
    let old = json!({"n2": {"user": "u"}, "a": {"key": "1"}, "gone": {"x": "y"}, "g": {"K": "1"}, "t2": {"K": "1"}});
    for (new, expected) in [
        (json!({}), ""),
        (json!({"gone": {"x": "z"}}), ""),
        (json!({"n2": {"user": "v"}}), "~n2"),
        (json!({"n2": {}}), "~n2"),
        (json!({"n3": {"user": "v"}}), "~n3"),
        (json!({"a": {"key": "2"}}), "~a ~b ~c ~n1"),
        (json!({"g": {"K": "2"}}), "~m1"),
        (json!({"t2": {"K": "2"}}), "~m1 ~m2"),
    ] {
        let new = with(old.clone(), new);
        let diff = GraphDiff::between(&beside(&flow, old.clone()), &beside(&flow, new.clone()));
        assert_eq!(summary(&diff), expected, "{new}");
    }
}

#[test]
fn what_entries_of_a_file_on_disk_carry_restarts_them_when_it_differs() {
    let with = |user: &str| beside(&set(base(), "n2", json!({"credentials": {"user": user}})), json!({}));
    assert_eq!(summary(&GraphDiff::between(&with("u"), &with("u"))), "");
    assert_eq!(summary(&GraphDiff::between(&with("u"), &with("v"))), "~n2");
    assert_eq!(summary(&GraphDiff::between(&with("u"), &beside(&base(), json!({"n2": {"user": "u"}})))), "");
}

/// n1 uses config c, which uses config b, which uses a; n2 uses nothing.
fn configs() -> Vec<Value> {
    let mut flow = set(base(), "n1", json!({"server": "c"}));
    flow.push(config("a", "tls-config", json!({})));
    flow.push(config("b", "server", json!({"tls": "a"})));
    flow.push(config("c", "server", json!({"other": "b"})));
    flow
}

#[test]
fn a_changed_config_node_restarts_its_users_transitively() {
    check(&configs(), &set(configs(), "a", json!({"name": "new"})), "~a ~b ~c ~n1");
    check(&configs(), &set(configs(), "c", json!({"name": "new"})), "~c ~n1");
}

#[test]
fn a_config_node_that_goes_or_comes_restarts_its_users() {
    let disabled = set(configs(), "b", json!({"d": true}));
    check(&configs(), &disabled, "-b ~c ~n1");
    check(&disabled, &configs(), "+b ~c ~n1");
    check(&configs(), &without(configs(), "c"), "-c ~n1");
}

/// n2 in group inner in group outer.
fn grouped() -> Vec<Value> {
    let mut flow = set(base(), "n2", json!({"g": "inner"}));
    flow.push(node("outer", "group", json!({"nodes": ["inner"], "wires": null})));
    flow.push(node("inner", "group", json!({"g": "outer", "nodes": ["n2"], "wires": null})));
    flow
}

#[test]
fn a_changed_group_restarts_its_members_but_its_looks_do_not() {
    let env = json!({"env": [{"name": "A", "type": "str", "value": "1"}]});
    check(&grouped(), &set(grouped(), "outer", env), "~n2");
    check(&grouped(), &set(grouped(), "inner", json!({"name": "new"})), "~n2");
    check(&grouped(), &set(grouped(), "inner", json!({"g": null})), "~n2");
    check(&grouped(), &set(grouped(), "n2", json!({"g": null})), "~n2");
    let looks = json!({"x": 9, "y": 9, "w": 9, "h": 9, "style": {"label": true}, "nodes": []});
    check(&grouped(), &set(grouped(), "outer", looks), "");
}

/// n1 → i of s → n2, j of s; inside s: p → q, and instance k of r, holding v.
fn with_subflow() -> Vec<Value> {
    let mut flow = set(base(), "n1", json!({"wires": [["i"]]}));
    flow.push(json!({"id": "s", "type": "subflow", "name": "S", "in": [{"wires": [{"id": "p"}]}],
        "out": [{"wires": [{"id": "q", "port": 0}]}]}));
    flow.push(json!({"id": "r", "type": "subflow", "name": "R"}));
    flow.push(node("p", "function", json!({"z": "s", "wires": [["q"]]})));
    flow.push(node("q", "function", json!({"z": "s"})));
    flow.push(node("k", "subflow:r", json!({"z": "s"})));
    flow.push(node("v", "function", json!({"z": "r"})));
    flow.push(node("i", "subflow:s", json!({"wires": [["n2"]]})));
    flow.push(node("j", "subflow:s", json!({"z": "t2"})));
    flow
}

const I: &str = "~i-p ~i-q ~i-k-v";
const J: &str = "~j-p ~j-q ~j-k-v";

#[test]
fn a_change_inside_a_subflow_restarts_all_its_instances() {
    let both = format!("{I} {J}");
    check(&with_subflow(), &with_subflow(), "");
    check(&with_subflow(), &set(with_subflow(), "q", json!({"func": "new"})), &both);
    check(&with_subflow(), &set(with_subflow(), "v", json!({"func": "new"})), &both);
    check(&with_subflow(), &set(with_subflow(), "s", json!({"name": "new"})), &both);
    check(&with_subflow(), &set(with_subflow(), "r", json!({"info": "new"})), &both);
    check(&with_subflow(), &set(with_subflow(), "k", json!({"name": "new"})), &both);
    let removed = without(set(with_subflow(), "s", json!({"out": []})), "q");
    check(&with_subflow(), &removed, "-i-q -j-q ~i-p ~i-k-v ~j-p ~j-k-v");
    let added = and(with_subflow(), node("w", "function", json!({"z": "r"})));
    check(&with_subflow(), &added, &format!("+i-k-w +j-k-w {both}"));
}

#[test]
fn moving_and_rewiring_inside_a_subflow_restarts_nothing() {
    check(&with_subflow(), &set(with_subflow(), "q", json!({"x": 99})), "");
    check(&with_subflow(), &set(with_subflow(), "p", json!({"wires": []})), ">i-p >j-p");
    // Only the instance i has something wired to its output.
    let output = json!({"out": [{"x": 5, "wires": [{"id": "p", "port": 0}]}]});
    check(&with_subflow(), &set(with_subflow(), "s", output), ">i-p >i-q");
}

#[test]
fn a_change_of_one_instance_restarts_that_instance() {
    let env = json!({"env": [{"name": "A", "type": "str", "value": "1"}]});
    check(&with_subflow(), &set(with_subflow(), "i", env), I);
    check(&with_subflow(), &set(with_subflow(), "j", json!({"name": "new"})), J);
    check(&with_subflow(), &set(with_subflow(), "i", json!({"wires": [["n3"]]})), ">i-q");
    check(&with_subflow(), &set(with_subflow(), "i", json!({"d": true})), "-i-p -i-q -i-k-v >n1");
    check(
        &with_subflow(),
        &set(with_subflow(), "t2", json!({"env": [{"name": "B", "value": "1"}]})),
        &format!("~m1 ~m2 {J}"),
    );
}

#[test]
fn an_inner_node_that_uses_a_changed_config_node_takes_its_instance_along() {
    let old = and(set(with_subflow(), "v", json!({"server": "c"})), config("c", "server", json!({})));
    let new = set(old.clone(), "c", json!({"path": "new"}));
    check(&old, &new, &format!("~c {I} {J}"));
}

#[test]
fn a_change_of_global_config_restarts_everything() {
    let old = and(base(), config("gc", "global-config", json!({"env": []})));
    let new = set(old.clone(), "gc", json!({"env": [{"name": "A", "type": "str", "value": "1"}]}));
    check(&old, &new, "~gc ~n1 ~n2 ~n3 ~m1 ~m2");
    check(&base(), &old, "+gc ~n1 ~n2 ~n3 ~m1 ~m2");
    check(&old, &set(old.clone(), "gc", json!({"x": 5})), "");
}

#[test]
fn another_value_of_a_variable_restarts_the_nodes_whose_properties_hold_it() {
    let flow = file(&json!(set(base(), "n2", json!({"topic": "${STAGE}"}))));
    let at = |stage: &'static str| {
        let env = move |name: &str| (name == "STAGE").then(|| stage.to_owned());
        FlowGraph::build(&flow, Arc::new(env), &roles).0
    };
    assert_eq!(summary(&GraphDiff::between(&at("test"), &at("live"))), "~n2");
    assert!(GraphDiff::between(&at("test"), &at("test")).is_empty());
}

#[test]
fn a_node_moved_to_another_tab_or_given_another_type_restarts() {
    check(&base(), &set(base(), "n3", json!({"z": "t2"})), "~n3");
    check(&base(), &set(base(), "n3", json!({"type": "change"})), "~n3");
}
