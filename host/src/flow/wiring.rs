//! Wires: from what the file says to the nodes that a message reaches, through subflow ports and link nodes.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::build::{Builder, Context};
use super::outline::Entry;
use super::problems::shown;
use super::roles::Role;

/// Where a wire leads, before subflow ports are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hop {
    /// The node or instance with this id at run time.
    Id(String),
    /// Out of an instance (its index) through one of its outputs.
    Port(usize, usize),
    /// To the status output of an instance.
    Status(usize),
}

/// The inside and the outside of an instance's ports.
#[derive(Debug)]
pub(super) struct InstancePorts {
    /// Where messages to the instance lead.
    pub(super) entry: Vec<Hop>,
    /// What its outputs are wired to.
    pub(super) outputs: Vec<Vec<Hop>>,
}

/// What an id at run time stands for; the indices of nodes and of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Node(usize),
    Instance(usize),
}

/// A port that is being followed. Meeting it again on the way is a loop without a node in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Passage {
    Into(usize),
    OutOf(usize, usize),
}

/// Where an output leads.
#[derive(Debug, Default)]
struct Reached {
    nodes: Vec<String>,
    /// Instances whose status output is reached.
    statuses: Vec<usize>,
    /// The first instance through which a wire leads back into itself.
    loops: Option<usize>,
}

impl<'a> Builder<'a> {
    /// The property `wires` of an entry that stands in `context`.
    pub(super) fn hops_of(&mut self, entry: Entry<'a>, context: &Context<'a>) -> Vec<Vec<Hop>> {
        let ports = match entry.properties.get("wires") {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(ports)) => ports,
            Some(_) => {
                self.problems.warning(entry.id, entry.node_type, "wires is not a list and is ignored");
                return Vec::new();
            }
        };
        if ports.len() > self.limits.ports {
            let text =
                format!("has more than {} outputs; the wires of the rest are ignored", self.limits.ports);
            self.problems.warning(entry.id, entry.node_type, text);
        }
        let mut outputs = Vec::with_capacity(ports.len().min(self.limits.ports));
        for (output, port) in ports.iter().take(self.limits.ports).enumerate() {
            let Value::Array(targets) = port else {
                if !port.is_null() {
                    let text = format!("wires of output {} is not a list and is ignored", output + 1);
                    self.problems.warning(entry.id, entry.node_type, text);
                }
                outputs.push(Vec::new());
                continue;
            };
            let mut hops = Vec::with_capacity(targets.len());
            for target in targets {
                match target {
                    Value::String(id) => {
                        self.budget.spend(id.len() + size_of::<Hop>());
                        hops.push(Hop::Id(self.target(id, context)));
                    }
                    _ => {
                        let text =
                            format!("output {} has a wire that is no id, which is ignored", output + 1);
                        self.problems.warning(entry.id, entry.node_type, text);
                    }
                }
            }
            outputs.push(hops);
        }
        outputs
    }

    fn target(&self, id: &str, context: &Context<'a>) -> String {
        match &context.inside {
            Some(inside) if self.outline.is_inner(inside.definition, id) => context.id_of(id),
            _ => id.to_owned(),
        }
    }

    /// Resolves all wires.
    pub(super) fn wire(&mut self) {
        self.report_missing_targets();
        self.link();

        let all = std::mem::take(&mut self.hops);
        let mut steps = self.limits.wires;
        let mut statuses: Vec<(usize, usize, usize)> = Vec::new();
        for (node, outputs) in all.iter().enumerate() {
            let mut wires = Vec::with_capacity(outputs.len());
            for (output, hops) in outputs.iter().enumerate() {
                let reached = self.follow(hops, &mut steps);
                statuses.extend(reached.statuses.iter().map(|&instance| (instance, node, output)));
                self.report_loop(&reached);
                wires.push(reached.nodes);
            }
            self.nodes[node].wires = wires;
        }
        let mut seen = HashSet::new();
        for (instance, node, output) in statuses {
            if seen.insert((instance, node, output)) {
                let id = self.nodes[node].id.clone();
                self.instances[instance].status_sources.push((id, output));
            }
        }
        for instance in 0..self.instances.len() {
            let reached = self.follow(&self.ports[instance].entry, &mut steps);
            self.report_loop(&reached);
            self.instances[instance].inputs = reached.nodes;
        }
        if steps == 0 {
            let text = format!("it has more than {} wires; the rest is left out", self.limits.wires);
            self.problems.error("flow file", "", text);
        }
    }

    /// Follows wires, through the ports of instances, to nodes. Uses up one of `steps` for every wire; without any
    /// left, the rest is left out.
    fn follow(&self, start: &[Hop], steps: &mut usize) -> Reached {
        let mut reached = Reached::default();
        let mut way: Vec<(&[Hop], Option<Passage>)> = vec![(start, None)];
        let mut passed: HashSet<Passage> = HashSet::new();
        while let Some((hops, passage)) = way.last_mut() {
            let Some((hop, rest)) = hops.split_first() else {
                if let Some(passage) = passage {
                    passed.remove(passage);
                }
                way.pop();
                continue;
            };
            *hops = rest;
            if *steps == 0 {
                break;
            }
            *steps -= 1;
            let (passage, next): (Passage, &[Hop]) = match *hop {
                Hop::Id(ref id) => match self.slots.get(id) {
                    Some(&Slot::Node(_)) => {
                        // The target's id is copied: very long ones count for more than one wire.
                        *steps = steps.saturating_sub(id.len() / 64);
                        reached.nodes.push(id.clone());
                        continue;
                    }
                    Some(&Slot::Instance(instance)) => (Passage::Into(instance), &self.ports[instance].entry),
                    None => continue,
                },
                Hop::Port(instance, output) => {
                    let Some(outside) = self.ports[instance].outputs.get(output) else { continue };
                    (Passage::OutOf(instance, output), outside)
                }
                Hop::Status(instance) => {
                    reached.statuses.push(instance);
                    continue;
                }
            };
            if passed.insert(passage) {
                way.push((next, Some(passage)));
            } else {
                let (Passage::Into(instance) | Passage::OutOf(instance, _)) = passage;
                reached.loops.get_or_insert(instance);
            }
        }
        reached
    }

    fn report_loop(&mut self, reached: &Reached) {
        if let Some(instance) = reached.loops {
            let instance = &self.instances[instance];
            let text = "its output leads back to its input without a node on the way; ignored";
            self.problems.warning(instance.stored_id(), &instance.node_type(), text);
        }
    }

    fn report_missing_targets(&mut self) {
        let Builder { nodes, hops, instances, ports, slots, absent, problems, .. } = self;
        let mut check = |id: &str, node_type: &str, outputs: &[Vec<Hop>]| {
            for (output, hops) in outputs.iter().enumerate() {
                for hop in hops {
                    let Hop::Id(target) = hop else { continue };
                    if !slots.contains_key(target) && !absent.contains_key(target) {
                        let output = output + 1;
                        let text = format!(
                            "output {output} is wired to {}, which does not exist; ignored",
                            shown(target)
                        );
                        problems.warning(id, node_type, text);
                    }
                }
            }
        };
        for (node, outputs) in nodes.iter().zip(&*hops) {
            check(node.stored_id(), &node.node_type, outputs);
        }
        for (instance, ports) in instances.iter().zip(&*ports) {
            check(instance.stored_id(), &instance.node_type(), &ports.outputs);
        }
    }

    /// Wires every link-out node (unless it answers calls) to the link-in nodes that it lists or that list it.
    fn link(&mut self) {
        // Ids that link-in nodes list, which are those of link-out nodes to them.
        let mut listed_by: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if node.role == Role::LinkIn {
                for id in links(&node.config) {
                    listed_by.entry(id).or_default().push(index);
                }
            }
        }
        let mut missing = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if node.role != Role::LinkOut || node.config.get("mode").and_then(Value::as_str) == Some("return")
            {
                continue;
            }
            let mut targets: Vec<usize> = Vec::new();
            let mut known: HashSet<usize> = HashSet::new();
            for id in links(&node.config) {
                match self.slots.get(id) {
                    Some(&Slot::Node(target)) if self.nodes[target].role == Role::LinkIn => {
                        if known.insert(target) {
                            targets.push(target);
                        }
                    }
                    None if self.absent.contains_key(id) => {}
                    _ => missing.push((index, shown(id))),
                }
            }
            for &target in listed_by.get(node.id.as_str()).map_or(&[][..], Vec::as_slice) {
                if known.insert(target) {
                    targets.push(target);
                }
            }
            let outputs = &mut self.hops[index];
            if outputs.is_empty() {
                outputs.push(Vec::new());
            }
            outputs[0].extend(targets.iter().map(|&target| Hop::Id(self.nodes[target].id.clone())));
        }
        for (index, target) in missing {
            let node = &self.nodes[index];
            let text = format!("is linked to {target}, which is no link-in node; ignored");
            self.problems.warning(node.stored_id(), &node.node_type, text);
        }
    }
}

/// The ids in the property `links`.
fn links(config: &serde_json::Map<String, Value>) -> impl Iterator<Item = &str> {
    config.get("links").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
