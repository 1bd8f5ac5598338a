//! The link in nodes that run, by name: what a link call with a dynamic target looks in.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use flowbay_sdk::{Ctx, Error, Value};

use crate::link_in::LinkIn;

/// A link in node.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The node's id.
    pub id: String,
    /// Its name, or its id when it has none.
    pub name: String,
    /// The tab or subflow instance it is in.
    pub flow: String,
    /// Whether that is a subflow instance.
    pub in_subflow: bool,
    /// Tells apart two nodes that have had the same id one after the other.
    pub serial: u64,
}

impl Target {
    /// The node that `ctx` belongs to.
    pub fn of(ctx: &Ctx) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let text = |name: &str| ctx.info().get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = if ctx.name().is_empty() { ctx.id() } else { ctx.name() };
        Self {
            id: ctx.id().to_owned(),
            name: name.to_owned(),
            flow: text("z"),
            in_subflow: !text("alias").is_empty(),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// Link in nodes by name.
#[derive(Debug, Default)]
pub struct Targets(BTreeMap<String, Vec<Target>>);

/// Those that run. It belongs to the library, so it holds the nodes of this generation only. A `BTreeMap` because
/// an empty one owns no memory, which nobody would free when the library is unloaded.
static RUNNING: Mutex<Targets> = Mutex::new(Targets(BTreeMap::new()));

/// The link in nodes that run.
pub fn running() -> MutexGuard<'static, Targets> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Targets {
    /// Adds a node that runs now, in the place of an earlier one with its id and name.
    pub fn add(&mut self, target: Target) {
        let same_name = self.0.entry(target.name.clone()).or_default();
        same_name.retain(|other| other.id != target.id);
        same_name.push(target);
    }

    /// Removes a node that does not run any more.
    pub fn remove(&mut self, target: &Target) {
        if let Some(same_name) = self.0.get_mut(&target.name) {
            same_name.retain(|other| other.serial != target.serial);
            if same_name.is_empty() {
                self.0.remove(&target.name);
            }
        }
    }

    /// The id of the node with that name that a node in `flow` means: the one in its own flow, else the only one
    /// outside of subflows.
    ///
    /// # Errors
    /// There is none, or more than one.
    fn by_name(&self, name: &str, flow: &str) -> Result<&str, Error> {
        let same_name = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut in_flow = same_name.iter().filter(|target| target.flow == flow);
        if let (Some(target), None) = (in_flow.next(), in_flow.next()) {
            return Ok(&target.id);
        }
        let mut anywhere = same_name.iter().filter(|target| !target.in_subflow);
        match (anywhere.next(), anywhere.next()) {
            (Some(target), None) => Ok(&target.id),
            (None, _) => Err(not_found(name)),
            // The words of Node-RED, where an error turned into text says that it is one.
            _ => Err(Error::new(format!("Error: Multiple link-in nodes named '{name}' found"))),
        }
    }
}

/// The id of the link in node that a static link call names.
///
/// # Errors
/// No link in node with that id runs.
pub fn by_id<'a>(ctx: &Ctx, id: &'a str) -> Result<&'a str, Error> {
    ctx.config_node::<LinkIn>(id).map(|_| id).ok_or_else(|| not_found(id))
}

/// The id of the link in node with that id or name.
///
/// # Errors
/// There is none, or more than one with that name.
pub fn by_id_or_name(ctx: &Ctx, target: &str) -> Result<String, Error> {
    if ctx.config_node::<LinkIn>(target).is_some() {
        return Ok(target.to_owned());
    }
    let flow = ctx.info().get("z").and_then(Value::as_str).unwrap_or_default();
    running().by_name(target, flow).map(str::to_owned)
}

fn not_found(target: &str) -> Error {
    Error::new(format!("Error: target link-in node '{target}' not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: &str, name: &str, flow: &str, in_subflow: bool) -> Target {
        let serial = id.parse().unwrap();
        Target { id: id.to_owned(), name: name.to_owned(), flow: flow.to_owned(), in_subflow, serial }
    }

    #[test]
    fn the_own_flow_comes_first_and_subflows_are_closed_to_others() {
        let mut targets = Targets::default();
        targets.add(target("1", "double", "tab1", false));
        targets.add(target("2", "double", "tab2", false));
        targets.add(target("3", "half", "tab2", false));
        targets.add(target("4", "half", "instance", true));
        targets.add(target("5", "inner", "instance", true));
        for (name, flow, expected) in [
            ("double", "tab1", Ok("1")),
            ("double", "tab2", Ok("2")),
            ("double", "tab3", Err("Error: Multiple link-in nodes named 'double' found")),
            ("half", "tab1", Ok("3")),
            ("half", "instance", Ok("4")),
            ("inner", "tab1", Err("Error: target link-in node 'inner' not found")),
            ("", "tab1", Err("Error: target link-in node '' not found")),
        ] {
            let found = targets.by_name(name, flow).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{name} from {flow}");
        }
    }

    #[test]
    fn a_node_that_is_gone_takes_only_itself_away() {
        let mut targets = Targets::default();
        let earlier = target("1", "double", "tab1", false);
        let later = Target { serial: 2, ..earlier.clone() };
        targets.add(earlier.clone());
        targets.add(later.clone());
        targets.remove(&earlier);
        assert_eq!(targets.by_name("double", "").unwrap(), "1");
        targets.remove(&later);
        assert!(targets.0.is_empty());
    }
}
