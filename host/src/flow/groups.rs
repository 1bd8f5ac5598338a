//! Groups: who is inside whom, and the variables that they define.

use std::collections::{HashMap, HashSet};

use super::build::{Builder, Context};
use super::env::{ScopeId, ScopeKind, env_entries};
use super::outline::{EntryId, Members};
use super::problems::shown;

/// One group of a tab or of a subflow instance.
#[derive(Debug)]
pub(super) struct GroupSpot {
    /// Ids at run time, this group first, then those around it.
    pub(super) chain: Vec<String>,
    /// Where variables of its members are looked up.
    pub(super) scope: ScopeId,
}

impl<'a> Builder<'a> {
    /// Works out the groups of one tab or instance, the outer ones first, by their ids in the file.
    pub(super) fn groups(&mut self, members: &Members, context: &Context<'a>) -> HashMap<&'a str, GroupSpot> {
        let mut spots: HashMap<&'a str, GroupSpot> = HashMap::new();
        let here: HashMap<&'a str, EntryId> =
            members.groups.iter().map(|&entry| (self.outline.entries[entry].id, entry)).collect();
        for &entry in &members.groups {
            if !self.counts(context) {
                break;
            }
            // From this group outwards to one that is done, or to one that stands in no other.
            let mut climb = vec![entry];
            let mut climbed = HashSet::from([entry]);
            loop {
                let inner = self.outline.entries[climb[climb.len() - 1]];
                let Some(&outer) = here.get(inner.text("g")) else { break };
                if spots.contains_key(self.outline.entries[outer].id) {
                    break;
                }
                if !climbed.insert(outer) {
                    let text = format!(
                        "is inside itself, through the group {}; taken as outermost",
                        shown(inner.text("g"))
                    );
                    self.problems.error(inner.id, inner.node_type, text);
                    break;
                }
                climb.push(outer);
            }
            while let Some(entry) = climb.pop() {
                self.group(entry, &mut spots, context);
            }
        }
        spots
    }

    fn group(&mut self, entry: EntryId, spots: &mut HashMap<&'a str, GroupSpot>, context: &Context<'a>) {
        let entry = self.outline.entries[entry];
        if spots.contains_key(entry.id) {
            return;
        }
        let id = context.id_of(entry.id);
        let mut chain = vec![id.clone()];
        let mut outside = context.scope;
        if let Some(outer) = spots.get(entry.text("g")) {
            if outer.chain.len() < self.limits.group_depth {
                chain.extend_from_slice(&outer.chain);
                outside = outer.scope;
            } else {
                let text =
                    format!("is more than {} groups deep; taken as outermost", self.limits.group_depth);
                self.problems.error(entry.id, entry.node_type, text);
            }
        }
        let kind = ScopeKind::Group { id: id.clone(), name: entry.text("name").to_owned() };
        let scope = self.scopes.add(kind, outside);
        let variables = env_entries(entry.id, entry.node_type, entry.properties, &mut self.problems);
        self.define(scope, &variables);
        self.group_sources.insert(id, entry.source);
        spots.insert(entry.id, GroupSpot { chain, scope });
    }

    /// The group chain and the scope of a node or instance that stands in `context`.
    pub(super) fn surroundings(
        &mut self,
        entry: EntryId,
        spots: &HashMap<&'a str, GroupSpot>,
        context: &Context<'a>,
    ) -> (Vec<String>, ScopeId) {
        let entry = self.outline.entries[entry];
        let group = entry.text("g");
        match spots.get(group) {
            Some(spot) => (spot.chain.clone(), spot.scope),
            None => {
                if !group.is_empty() && !self.budget.exceeded() {
                    let text = format!(
                        "is in the group {}, which is not on its tab; taken as in none",
                        shown(group)
                    );
                    self.problems.warning(entry.id, entry.node_type, text);
                }
                (Vec::new(), context.scope)
            }
        }
    }
}
