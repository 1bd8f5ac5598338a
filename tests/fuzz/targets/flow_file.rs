//! A flow file, from its text to what a deploy would do.

#![no_main]

use std::sync::Arc;

use flowbay::flow::{FlowFile, FlowGraph, GraphDiff, Layout, Limits, Role};
use libfuzzer_sys::fuzz_target;
use serde_json::Map;

/// What a registry with the shipped plugins would say.
fn roles(node_type: &str) -> Role {
    match node_type {
        "catch" => Role::Catch,
        "status" => Role::Status,
        "complete" => Role::Complete,
        "link in" => Role::LinkIn,
        "link out" => Role::LinkOut,
        "link call" => Role::LinkCall,
        "inject" | "websocket in" => Role::Source,
        "websocket-listener" | "websocket-client" => Role::Config,
        _ => Role::Plain,
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "A" => Some("a value".to_owned()),
        "B" => Some("${A} ${B}".to_owned()),
        _ => None,
    }
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    // As from the disk: credentials in a deploy are always new ones.
    let Ok(file) = FlowFile::parse(&text).map(|file| file.with_stored_credentials(Map::new())) else {
        return;
    };

    // What is written back is the same file.
    for layout in [Layout::Compact, Layout::Pretty] {
        let again = FlowFile::parse(&file.to_json(layout)).expect("it was written by us");
        assert_eq!(again.entries(), file.entries());
        assert_eq!(again.rev(), file.rev());
    }

    // Small bounds, so that reaching them is part of the search; no input may take long.
    let limits = Limits { expanded_entries: 2_000, wires: 5_000, config_bytes: 1 << 20, ..Limits::default() };
    let build = || FlowGraph::build_within(&file, Arc::new(env), &roles, &limits);
    let (graph, problems) = build();
    for problem in &problems {
        let _ = problem.to_string();
    }
    for node in &graph.nodes {
        let _ = graph.env(&node.id, "A");
        let _ = graph.env_property(&node.id, "x${B}y");
        let _ = graph.event_routes(&node.id);
        let _ = graph.credentials_of(&node.id);
        // A wire leads to a node that there is.
        for target in node.wires.iter().flatten() {
            assert!(graph.node(target).is_some(), "{} is wired to {target}, which there is not", node.id);
        }
    }
    for instance in &graph.instances {
        let _ = graph.event_routes(&instance.id);
    }

    let (same, same_problems) = build();
    assert_eq!(problems, same_problems);
    assert!(GraphDiff::between(&graph, &same).is_empty(), "a graph differs from itself");
    let _ = GraphDiff::between(&FlowGraph::empty(), &graph);
    let _ = GraphDiff::full(&graph, &FlowGraph::empty());
});
