//! The rules of flow files, one test each. Flows are written in place as JSON.

mod diff;
mod env;
mod graph;
mod hostile;
mod routes;
mod subflow;
mod wires;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

/// What a registry with the core plugin would say.
fn roles(node_type: &str) -> Role {
    match node_type {
        "catch" => Role::Catch,
        "status" => Role::Status,
        "complete" => Role::Complete,
        "link in" => Role::LinkIn,
        "link out" => Role::LinkOut,
        "link call" => Role::LinkCall,
        "inject" => Role::Source,
        _ => Role::Plain,
    }
}

fn process_env(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/bay".to_owned()),
        "A" => Some("process".to_owned()),
        _ => None,
    }
}

fn file(flow: &Value) -> FlowFile {
    FlowFile::from_value(flow.clone()).unwrap()
}

fn build(flow: &Value) -> (FlowGraph, Vec<Problem>) {
    FlowGraph::build(&file(flow), Arc::new(process_env), &roles)
}

/// The graph of a flow that has nothing wrong with it.
#[track_caller]
fn graph(flow: &Value) -> FlowGraph {
    let (graph, problems) = build(flow);
    assert_eq!(problems, [], "for {flow}");
    graph
}

/// The problems of a flow, as lines with their level in front.
fn problems(flow: &Value) -> Vec<String> {
    build(flow).1.iter().map(|problem| format!("{}: {problem}", problem.level)).collect()
}

fn ids(graph: &FlowGraph) -> Vec<&str> {
    graph.nodes.iter().map(|node| node.id.as_str()).collect()
}

/// The targets of every output of a node.
#[track_caller]
fn wires(graph: &FlowGraph, id: &str) -> Value {
    json!(graph.node(id).unwrap_or_else(|| panic!("no node {id} among {:?}", ids(graph))).wires)
}

fn tab(id: &str) -> Value {
    json!({"id": id, "type": "tab", "label": format!("Tab {id}")})
}

/// A flow node on tab `t`, with the properties of `more` added or replaced; null removes one.
fn node(id: &str, node_type: &str, more: Value) -> Value {
    with(json!({"id": id, "type": node_type, "z": "t", "x": 1, "y": 2, "wires": []}), more)
}

fn config(id: &str, node_type: &str, more: Value) -> Value {
    with(json!({"id": id, "type": node_type}), more)
}

fn with(mut base: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("properties are an object, not {more}") };
    let map = base.as_object_mut().unwrap();
    for (key, value) in more {
        if value.is_null() {
            map.shift_remove(&key);
        } else {
            map.insert(key, value);
        }
    }
    base
}
