//! Unfolding subflow instances into plain nodes.

use std::collections::HashMap;

use serde_json::Value;

use super::build::{Builder, Context, Inside};
use super::env::{ScopeKind, env_entries, overridden};
use super::graph::{Absence, Instance};
use super::outline::{Entry, EntryId};
use super::problems::shown;
use super::wiring::{Hop, InstancePorts, Slot};

/// One `{id, port}` of a subflow's `in`, `out` or `status`.
struct PortWire<'a> {
    id: &'a str,
    port: usize,
}

impl<'a> Builder<'a> {
    /// Unfolds the instance `entry_id`, in its place. `open` holds the definitions around it, outermost first.
    pub(super) fn instance(&mut self, entry_id: EntryId, context: &Context<'a>, open: &mut Vec<usize>) {
        let outline = self.outline;
        let entry = outline.entries[entry_id];
        let Some(id) = self.claim(entry, context) else { return };
        let definition_id = entry.subflow_id().unwrap_or("");
        let refusal = match outline.definitions_by_id.get(definition_id) {
            None => Some(format!("the subflow {} is not in the flow file", shown(definition_id))),
            Some(definition) if open.contains(definition) => Some(format!(
                "the subflow {} contains itself; this instance is left out",
                shown(definition_id)
            )),
            Some(_) if open.len() >= self.limits.subflow_depth => {
                let limit = self.limits.subflow_depth;
                Some(format!("is more than {limit} subflows deep and is left out"))
            }
            Some(_) => None,
        };
        if let Some(text) = refusal {
            self.problems.error(entry.id, entry.node_type, text);
            self.absent.insert(id, Absence::Refused);
            return;
        }
        // Also counts the instance itself: one with an empty definition must not be free.
        if !self.expanded.spend(1) || self.budget.exceeded() {
            self.absent.insert(id, Absence::Refused);
            return;
        }
        let definition_index = outline.definitions_by_id[definition_id];
        let definition = &outline.definitions[definition_index];

        let (groups, outside) = self.surroundings(entry_id, &context.spots, context);
        let path = context.path_of(entry.id);
        let name = entry.text("name").to_owned();
        let kind = ScopeKind::Instance { id: id.clone(), name: name.clone(), path: path.clone() };
        let scope = self.scopes.add(kind, outside);
        let origin = definition.entry;
        let defaults = env_entries(origin.id, origin.node_type, origin.properties, &mut self.problems);
        let own = env_entries(entry.id, entry.node_type, entry.properties, &mut self.problems);
        self.define(scope, &overridden(defaults, own));

        let index = self.instances.len();
        let outermost = context.inside.as_ref().map_or(index, |inside| inside.outermost);
        self.instances.push(Instance {
            id: id.clone(),
            subflow_id: definition_id.to_owned(),
            name,
            z: context.z.clone(),
            flow_id: context.flow_id.clone(),
            parent: context.inside.as_ref().map(|inside| inside.id.clone()),
            alias: context.alias_of(entry.id),
            path: path.clone(),
            groups,
            env: self.scopes.vars(scope),
            inputs: Vec::new(),
            has_status_output: origin.properties.get("status").is_some_and(Value::is_object),
            status_sources: Vec::new(),
            source: entry.source,
            outermost,
        });
        let outputs = self.hops_of(entry, context);
        self.ports.push(InstancePorts { entry: Vec::new(), outputs });
        self.slots.insert(id.clone(), Slot::Instance(index));

        let inside = Inside { definition: definition_index, id: id.clone(), outermost };
        let flow_id = context.flow_id.clone();
        let mut inner =
            Context { z: Some(id), flow_id, path, scope, inside: Some(inside), spots: HashMap::new() };
        open.push(definition_index);
        self.fill(&definition.members, &mut inner, open);
        open.pop();
        self.connect_ports(origin, index, &inner);
    }

    /// Ties the ports of an instance to the nodes inside it, once these exist.
    fn connect_ports(&mut self, definition: Entry<'a>, instance: usize, inner: &Context<'a>) {
        for wire in self.port_wires(definition, "in", 0) {
            if wire.id != definition.id && self.is_inside(definition, "in", &wire, inner) {
                self.ports[instance].entry.push(Hop::Id(inner.id_of(wire.id)));
            }
        }
        let outputs = definition.properties.get("out").and_then(Value::as_array).map_or(0, Vec::len);
        for output in 0..outputs.min(self.limits.ports) {
            if !self.expanded.spend(1) {
                break;
            }
            self.connect_output(definition, "out", output, Hop::Port(instance, output), instance, inner);
        }
        self.connect_output(definition, "status", 0, Hop::Status(instance), instance, inner);
    }

    fn connect_output(
        &mut self,
        definition: Entry<'a>,
        property: &str,
        output: usize,
        hop: Hop,
        instance: usize,
        inner: &Context<'a>,
    ) {
        for wire in self.port_wires(definition, property, output) {
            if wire.id == definition.id {
                self.ports[instance].entry.push(hop.clone());
                continue;
            }
            if !self.is_inside(definition, property, &wire, inner) {
                continue;
            }
            let outputs = match self.slots.get(&inner.id_of(wire.id)) {
                Some(&Slot::Node(node)) => &mut self.hops[node],
                Some(&Slot::Instance(nested)) => &mut self.ports[nested].outputs,
                None => continue,
            };
            if wire.port >= self.limits.ports {
                let text = format!("its {property} is wired to output {} of {}", wire.port, shown(wire.id));
                self.problems.warning(
                    definition.id,
                    definition.node_type,
                    text + ", beyond the limit; ignored",
                );
                continue;
            }
            if outputs.len() <= wire.port {
                outputs.resize_with(wire.port + 1, Vec::new);
            }
            outputs[wire.port].push(hop.clone());
        }
    }

    /// Whether a port's wire names an entry of the definition; reported if not.
    fn is_inside(
        &mut self,
        definition: Entry<'a>,
        property: &str,
        wire: &PortWire<'a>,
        inner: &Context<'a>,
    ) -> bool {
        let Some(inside) = &inner.inside else { return false };
        let found = self.outline.is_inner(inside.definition, wire.id);
        if !found {
            let text = format!(
                "its {property} is wired to {}, which is not in the subflow; ignored",
                shown(wire.id)
            );
            self.problems.warning(definition.id, definition.node_type, text);
        }
        found
    }

    /// The wires of one port: `in` and `out` are lists of ports, `status` is a single one.
    fn port_wires(&mut self, definition: Entry<'a>, property: &str, index: usize) -> Vec<PortWire<'a>> {
        let port = match definition.properties.get(property) {
            Some(Value::Array(list)) => list.get(index),
            Some(single @ Value::Object(_)) => Some(single),
            _ => None,
        };
        let Some(Value::Array(wires)) = port.and_then(|port| port.get("wires")) else { return Vec::new() };
        let mut found = Vec::with_capacity(wires.len());
        for wire in wires {
            // A wire is counted like a node: instances times wires must stay within bounds too.
            if !self.expanded.spend(1) {
                break;
            }
            let Some(id) = wire.get("id").and_then(Value::as_str) else {
                let text = format!("its {property} has a wire without an id, which is ignored");
                self.problems.warning(definition.id, definition.node_type, text);
                continue;
            };
            let port = wire.get("port").and_then(Value::as_u64).unwrap_or(0);
            found.push(PortWire { id, port: usize::try_from(port).unwrap_or(usize::MAX) });
        }
        found
    }
}
