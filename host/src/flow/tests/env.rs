//! Variables: where they are looked up, what they hold, where they are filled in.

use super::*;

/// Tab `t` with variables, groups in it, and one node whose property `v` is the reference.
fn check(env: Value, reference: &str, expected: Value) {
    let flow = json!([with(tab("t"), json!({"env": env})), node("n", "x", json!({"v": reference}))]);
    let (graph, problems) = build(&flow);
    assert_eq!(graph.node("n").unwrap().config["v"], expected, "{reference} in {env}, {problems:?}");
}

fn var(name: &str, kind: &str, value: Value) -> Value {
    json!({"name": name, "type": kind, "value": value})
}

#[test]
fn a_property_that_is_exactly_a_reference_gets_the_value_and_anything_else_stays() {
    let env = json!([var("A", "str", json!("a")), var("N", "num", json!("5"))]);
    for (reference, expected) in [
        ("${A}", json!("a")),
        ("$(A)", json!("a")),
        ("${N}", json!(5)),
        ("${HOME}", json!("/home/bay")),
        ("x${A}y", json!("x${A}y")),
        (" ${A}", json!(" ${A}")),
        ("${ A }", json!("${ A }")),
        ("${}", json!("${}")),
        ("${A", json!("${A")),
        ("${UNDEFINED}", json!("${UNDEFINED}")),
        ("A", json!("A")),
    ] {
        check(env.clone(), reference, expected);
    }
}

#[test]
fn references_are_filled_in_at_any_depth_and_the_file_keeps_them() {
    let flow = json!([
        with(tab("t"), json!({"env": [var("A", "json", json!("{\"k\":[1]}"))]})),
        node("n", "x", json!({"list": ["${A}", {"deep": ["${A}"]}], "info": "${A}"})),
    ]);
    let flow_file = file(&flow);
    let (graph, _) = FlowGraph::build(&flow_file, Arc::new(process_env), &roles);
    let config = &graph.node("n").unwrap().config;
    assert_eq!(config["list"], json!([{"k": [1]}, {"deep": [{"k": [1]}]}]));
    assert_eq!(flow_file.entries(), flow.as_array().unwrap());
}

#[test]
fn ids_types_and_wires_are_never_filled_in() {
    let flow =
        json!([tab("t"), node("${HOME}", "${HOME}", json!({"wires": [["${HOME}"]], "name": "${HOME}"})),]);
    let graph = graph(&flow);
    let found = graph.node("${HOME}").unwrap();
    assert_eq!(found.node_type, "${HOME}");
    assert_eq!(found.wires, [["${HOME}"]]);
    assert_eq!(found.name, "/home/bay");
}

#[test]
fn every_type_of_variable_keeps_its_type() {
    let rows = [
        ("str", json!("text"), json!("text")),
        ("str", json!(5), json!("5")),
        ("num", json!("1.5"), json!(1.5)),
        ("num", json!("1e3"), json!(1000)),
        ("num", json!("0x10"), json!(16)),
        ("num", json!(""), json!(0)),
        ("num", json!(7), json!(7)),
        ("bool", json!("true"), json!(true)),
        ("bool", json!("no"), json!(false)),
        ("bool", json!(true), json!(true)),
        ("json", json!("[1,{\"a\":null}]"), json!([1, {"a": null}])),
        ("json", json!({"already": 1}), json!({"already": 1})),
        ("bin", json!("[1,258,-1]"), json!({"type": "Buffer", "data": [1, 2, 255]})),
        ("bin", json!("\"hé\""), json!({"type": "Buffer", "data": [104, 195, 169]})),
        ("env", json!("HOME"), json!("/home/bay")),
        ("env", json!("${HOME}"), json!("/home/bay")),
        ("env", json!("<${HOME}|${NONE}>"), json!("</home/bay|>")),
        ("env", json!("NONE"), json!("")),
        ("conf-type", json!("c1"), json!("c1")),
    ];
    for (kind, value, expected) in rows {
        check(json!([var("V", kind, value)]), "${V}", expected);
    }
}

#[test]
fn a_variable_that_cannot_be_worked_out_is_reported_and_ignored() {
    let flow = json!([
        with(
            tab("t"),
            json!({"env": [
                var("J", "jsonata", json!("$now()")),
                var("N", "num", json!("five")),
                var("O", "json", json!("{")),
                var("B", "bin", json!("[\"x\"]")),
                var("A", "num", json!("1e999")),
                7,
                {"type": "str", "value": "no name"},
            ]})
        ),
        node("n", "x", json!({"j": "${J}", "n": "${N}", "a": "${A}"})),
        node("grp", "group", json!({"env": {"A": 1}})),
    ]);
    let (graph, _) = build(&flow);
    let config = &graph.node("n").unwrap().config;
    assert_eq!((&config["j"], &config["n"]), (&json!("${J}"), &json!("${N}")));
    assert_eq!(config["a"], json!("process"));
    assert_eq!(
        problems(&flow),
        [
            "warning: tab t: env holds an entry without a name, which is ignored",
            "warning: tab t: the variable J has the type jsonata, which is not supported; it is ignored",
            "warning: tab t: the variable N is not a number; it is ignored",
            "warning: tab t: the variable O is not JSON: EOF while parsing an object at line 1 column 1; it is ignored",
            "warning: tab t: the variable B is not a list of bytes or a string in JSON; it is ignored",
            "warning: tab t: the variable A is not a number; it is ignored",
            "warning: group grp: env is not a list and is ignored",
        ]
    );
}

/// One variable A defined everywhere, the value naming the place; `without` leaves some places out.
fn nested(without: &[&str]) -> Value {
    let env = |place: &str| {
        if without.contains(&place) { json!([]) } else { json!([var("A", "str", json!(place))]) }
    };
    json!([
        config("gc", "global-config", json!({"env": env("global")})),
        with(tab("t"), json!({"env": env("tab")})),
        node("outer", "group", json!({"env": env("outer")})),
        node("inner", "group", json!({"g": "outer", "env": env("inner")})),
        node("n", "x", json!({"g": "inner", "v": "${A}", "p": "${$parent.A}", "pp": "${$parent.$parent.A}"})),
        config("c", "server", json!({"v": "${A}"})),
    ])
}

#[test]
fn variables_are_looked_up_from_the_innermost_group_outwards_to_the_process() {
    let rows: [(&[&str], &str); 5] = [
        (&[], "inner"),
        (&["inner"], "outer"),
        (&["inner", "outer"], "tab"),
        (&["inner", "outer", "tab"], "global"),
        (&["inner", "outer", "tab", "global"], "process"),
    ];
    for (without, expected) in rows {
        let graph = graph(&nested(without));
        assert_eq!(graph.node("n").unwrap().config["v"], json!(expected), "without {without:?}");
    }
    assert_eq!(graph(&nested(&[])).node("c").unwrap().config["v"], json!("global"));
}

#[test]
fn parent_skips_one_level_each_time() {
    let graph = graph(&nested(&[]));
    let config = &graph.node("n").unwrap().config;
    assert_eq!((&config["p"], &config["pp"]), (&json!("outer"), &json!("tab")));
    assert_eq!(graph.env("n", "$parent.$parent.$parent.A"), Some(json!("global")));
    assert_eq!(graph.env("n", "$parent.$parent.$parent.$parent.A"), Some(json!("process")));
    assert_eq!(graph.env("n", &"$parent.".repeat(1_000)), None);
}

#[test]
fn a_variable_that_names_itself_refers_to_the_parent_level() {
    let flow = json!([
        with(tab("t"), json!({"env": [var("A", "env", json!("<${A}>"))]})),
        node("grp", "group", json!({"env": [var("A", "env", json!("A")), var("B", "env", json!("[${A}]"))]})),
        node("n", "x", json!({"g": "grp", "a": "${A}", "b": "${B}"})),
    ]);
    let graph = graph(&flow);
    let config = &graph.node("n").unwrap().config;
    assert_eq!((&config["a"], &config["b"]), (&json!("<process>"), &json!("[<process>]")));
}

#[test]
fn variables_may_refer_to_others_of_their_level_in_any_order() {
    let env = json!([
        var("X", "env", json!("${Y}!")),
        var("Y", "env", json!("${Z}?")),
        var("Z", "str", json!("z")),
    ]);
    check(env, "${X}", json!("z?!"));
}

#[test]
fn variables_in_a_circle_end_at_the_parent_level() {
    let env = json!([var("A", "env", json!("B")), var("B", "env", json!("A")), var("C", "env", json!("C"))]);
    let flow = json!([with(tab("t"), json!({"env": env})), node("n", "x", json!({}))]);
    let graph = graph(&flow);
    assert_eq!(graph.env("n", "A"), Some(json!("")));
    assert_eq!(graph.env("n", "B"), Some(json!("")));
    assert_eq!(graph.env("n", "C"), Some(json!("")));
}

#[test]
fn built_in_names_tell_a_node_who_and_where_it_is() {
    let flow = json!([
        tab("t"),
        {"id": "s", "type": "subflow", "env": [var("NR_FLOW_ID", "str", json!("wrong"))]},
        node("g1", "group", json!({"name": "Around"})),
        node("i", "subflow:s", json!({"name": "Inst", "g": "g1"})),
        node("g2", "group", json!({"z": "s", "name": "Inside"})),
        node("p", "x", json!({"z": "s", "name": "P", "g": "g2"})),
        node("q", "x", json!({"z": "s"})),
        node("n", "x", json!({"name": "N", "v": "${NR_NODE_ID}"})),
    ]);
    let graph = graph(&flow);
    assert_eq!(graph.node("n").unwrap().config["v"], json!("n"));
    for (node, name, expected) in [
        ("n", "NR_NODE_NAME", Some("N")),
        ("n", "NR_NODE_PATH", Some("t/n")),
        ("n", "NR_FLOW_ID", Some("t")),
        ("n", "NR_FLOW_NAME", Some("Tab t")),
        ("n", "NR_GROUP_ID", None),
        ("n", "NR_SUBFLOW_ID", None),
        ("i-p", "NR_NODE_ID", Some("i-p")),
        ("i-p", "NR_NODE_PATH", Some("t/i/p")),
        ("i-p", "NR_GROUP_ID", Some("i-g2")),
        ("i-p", "NR_GROUP_NAME", Some("Inside")),
        ("i-q", "NR_GROUP_NAME", Some("Around")),
        ("i-q", "NR_SUBFLOW_ID", Some("i")),
        ("i-q", "NR_SUBFLOW_NAME", Some("Inst")),
        ("i-q", "NR_SUBFLOW_PATH", Some("t/i")),
        ("i-q", "NR_FLOW_NAME", Some("Tab t")),
    ] {
        assert_eq!(graph.env(node, name), expected.map(Value::from), "{name} of {node}");
    }
}

#[test]
fn an_instance_overrides_the_variables_of_its_definition_and_sees_those_around_it() {
    let flow = json!([
        with(tab("t"), json!({"env": [var("T", "str", json!("tab")), var("A", "str", json!("tab"))]})),
        {"id": "s", "type": "subflow", "env": [
            var("A", "str", json!("default")),
            var("B", "str", json!("default")),
            var("C", "env", json!("${A}${B}${T}")),
        ]},
        node("grp", "group", json!({"env": [var("G", "str", json!("group"))]})),
        node("i", "subflow:s", json!({"g": "grp", "env": [var("B", "num", json!("2"))]})),
        node("p", "x", json!({"z": "s", "a": "${A}", "b": "${B}", "t": "${T}", "g2": "${G}", "c": "${C}",
            "up": "${$parent.A}"})),
    ]);
    let graph = graph(&flow);
    let config = &graph.node("i-p").unwrap().config;
    assert_eq!((&config["a"], &config["b"]), (&json!("default"), &json!(2)));
    assert_eq!((&config["t"], &config["g2"]), (&json!("tab"), &json!("group")));
    assert_eq!(config["c"], json!("default2tab"));
    assert_eq!(config["up"], json!("tab"));
    assert_eq!(json!(*graph.instance("i").unwrap().env), json!({"A": "default", "B": 2, "C": "default2tab"}));
}

#[test]
fn a_variable_of_type_cred_has_the_value_that_came_as_credentials() {
    let flow = json!([
        {"id": "t", "type": "tab", "env": [var("KEY", "cred", json!("")), var("NO", "cred", json!(""))],
         "credentials": {"KEY": "sesame"}},
        node("n", "x", json!({"v": "${KEY}", "no": "${NO}"})),
    ]);
    let graph = graph(&flow);
    let config = &graph.node("n").unwrap().config;
    assert_eq!((&config["v"], &config["no"]), (&json!("sesame"), &json!("${NO}")));
}

#[test]
fn credentials_of_global_config_are_where_node_red_has_them() {
    let flow = json!([
        config(
            "gc",
            "global-config",
            json!({"env": [var("KEY", "cred", json!(""))],
            "credentials": {"map": {"KEY": "sesame"}}})
        ),
        config("c", "server", json!({"v": "${KEY}"})),
    ]);
    assert_eq!(graph(&flow).node("c").unwrap().config["v"], json!("sesame"));
}

#[test]
fn a_disabled_global_config_defines_nothing() {
    let flow = json!([
        config("gc", "global-config", json!({"d": true, "env": [var("A", "str", json!("global"))]})),
        config("c", "server", json!({"v": "${A}"})),
    ]);
    assert_eq!(graph(&flow).node("c").unwrap().config["v"], json!("process"));
}

#[test]
fn a_typed_property_of_type_env_is_filled_in_at_run_time() {
    let flow = json!([
        with(tab("t"), json!({"env": [var("N", "num", json!("5")), var("O", "json", json!("{\"a\":1}"))]})),
        node("n", "x", json!({})),
    ]);
    let graph = graph(&flow);
    for (text, expected) in [
        ("N", json!(5)),
        ("${N}", json!(5)),
        ("O", json!({"a": 1})),
        ("pre${N}post", json!("pre5post")),
        ("${N}${O}", json!("5{\"a\":1}")),
        ("a ${NONE} b", json!("a  b")),
        ("NONE", json!("")),
        ("${NONE}", json!("")),
        ("", json!("")),
        ("${", json!("")),
        ("${N}${", json!("5${")),
        ("${}x${N}", json!("${}x5")),
    ] {
        assert_eq!(graph.env_property("n", text), expected, "{text:?}");
    }
    assert_eq!(graph.env_property("nobody", "N"), json!(""));
    assert_eq!(graph.substituted("n", &json!({"password": "${N}"})), json!({"password": 5}));
}

#[test]
fn excluded_names_of_the_process_environment_are_not_seen() {
    let all = ProcessEnv::default();
    assert!(all.var("PATH").is_some());
    let some = ProcessEnv { excluded: ["PATH".to_owned()].into() };
    assert_eq!(some.var("PATH"), None);
}
