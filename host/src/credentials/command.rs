//! `flowbay credentials`: shows which there are, sets and removes them.

use std::{
    io::{IsTerminal as _, Read as _},
    path::Path,
};

use serde_json::{Map, Value};

use super::CredentialsFile;
use crate::{cli::CredentialsCommand, run::read_flows, settings::Settings};

/// Longest value, in bytes: lists of users and certificates are some kilobytes.
const MAX_VALUE_BYTES: u64 = 1 << 20;

/// Carries the command out. What it prints has no value in it.
///
/// # Errors
/// One line that names the file.
pub fn run(command: &CredentialsCommand, settings: &Settings) -> Result<(), String> {
    match command {
        CredentialsCommand::List { flows, .. } => list(flows, settings),
        CredentialsCommand::Set { flows, node, field, .. } => {
            // Before it is asked for: who has typed it does not want to hear that there is no such node.
            let node = Node::find(flows, node)?;
            let file = CredentialsFile::open(flows, settings).map_err(|error| error.to_string())?;
            drop(file);
            let value = value(field)?;
            change(flows, settings, |entries| node.set(entries, field, value))?;
            println!("{field} of {} is set", node.id);
            Ok(())
        }
        CredentialsCommand::Remove { flows, node, field, .. } => {
            // Also what is left of a node that is gone from the flow file.
            let found = Node::find(flows, node).unwrap_or(Node { id: node, global: false });
            change(flows, settings, |entries| found.remove(entries, field.as_deref()))?;
            match field {
                Some(field) => println!("{field} of {node} is removed"),
                None => println!("the credentials of {node} are removed"),
            }
            Ok(())
        }
    }
}

fn list(flows: &Path, settings: &Settings) -> Result<(), String> {
    let file = CredentialsFile::read(flows, settings).map_err(|error| error.to_string())?;
    for (id, fields) in file.entries() {
        println!("{}: {}", id.escape_debug(), field_names(fields).join(", "));
    }
    Ok(())
}

/// The names of fields, those of `global-config` among them.
fn field_names(fields: &Value) -> Vec<String> {
    let Some(fields) = fields.as_object() else { return Vec::new() };
    let inner = fields.get("map").and_then(Value::as_object);
    let outer = fields.iter().filter(|(name, value)| *name != "map" || !value.is_object());
    outer.chain(inner.into_iter().flatten()).map(|(name, _)| name.escape_debug().to_string()).collect()
}

/// Reads, changes and writes the file, while others that would wait.
fn change(
    flows: &Path,
    settings: &Settings,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(), String>,
) -> Result<(), String> {
    let mut file = CredentialsFile::open(flows, settings).map_err(|error| error.to_string())?;
    let path = file.path().display().to_string();
    change(file.entries_mut()).map_err(|reason| format!("{path}: {reason}"))?;
    file.write(flows).map_err(|error| error.to_string())
}

/// The value of a field: typed without being shown, or what standard input has, without the end of the last line.
fn value(field: &str) -> Result<String, String> {
    let mut stdin = std::io::stdin();
    let value = if stdin.is_terminal() {
        rpassword::prompt_password(format!("{field} (not shown): "))
            .map_err(|error| format!("cannot ask for the value: {error}"))?
    } else {
        let mut bytes = Vec::new();
        stdin
            .by_ref()
            .take(MAX_VALUE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("cannot read standard input: {error}"))?;
        if bytes.len() as u64 > MAX_VALUE_BYTES {
            return Err(format!("the value on standard input has more than {MAX_VALUE_BYTES} bytes"));
        }
        String::from_utf8(bytes).map_err(|_| "the value on standard input is not UTF-8".to_owned())?
    };
    let value = value.strip_suffix('\n').unwrap_or(&value);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.trim().is_empty() {
        // Node-RED's editor takes a field away with that.
        return Err("the value is blank; `flowbay credentials remove` takes a field away".to_owned());
    }
    Ok(value.to_owned())
}

/// Whose credentials they are.
struct Node<'a> {
    id: &'a str,
    /// It is `global-config`, which has its fields one level deeper.
    global: bool,
}

impl<'a> Node<'a> {
    /// The node (tab, group, subflow) of the flow file with this id.
    fn find(flows: &Path, id: &'a str) -> Result<Self, String> {
        let file = read_flows(flows)?;
        let entry = file.entries().iter().find(|entry| entry["id"] == id);
        match entry {
            Some(entry) => Ok(Self { id, global: entry["type"] == "global-config" }),
            None => Err(format!("{}: there is no node with the id {}", flows.display(), id.escape_debug())),
        }
    }

    fn set(&self, entries: &mut Map<String, Value>, field: &str, value: String) -> Result<(), String> {
        let mut fields = object(entries, self.id)?;
        if self.global {
            fields = object(fields, "map")?;
        }
        fields.insert(field.to_owned(), value.into());
        Ok(())
    }

    fn remove(&self, entries: &mut Map<String, Value>, field: Option<&str>) -> Result<(), String> {
        let nothing = || format!("there are no such credentials of {}", self.id.escape_debug());
        let Some(field) = field else {
            return entries.shift_remove(self.id).map(drop).ok_or_else(nothing);
        };
        let own = entries.get_mut(self.id).and_then(Value::as_object_mut).ok_or_else(nothing)?;
        if self.global {
            let map = own.get_mut("map").and_then(Value::as_object_mut).ok_or_else(nothing)?;
            return map.shift_remove(field).map(drop).ok_or_else(nothing);
        }
        own.shift_remove(field).ok_or_else(nothing)?;
        if own.is_empty() {
            entries.shift_remove(self.id);
        }
        Ok(())
    }
}

fn object<'m>(map: &'m mut Map<String, Value>, key: &str) -> Result<&'m mut Map<String, Value>, String> {
    let slot = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    slot.as_object_mut().ok_or_else(|| format!("what it has for {} is no object", key.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entries(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("not an object: {value}") };
        map
    }

    #[test]
    fn fields_are_set_and_removed_and_other_entries_stay() {
        let mut all = entries(json!({"other": {"a": "b"}, "odd": 5}));
        let node = Node { id: "n", global: false };
        node.set(&mut all, "user", "u".into()).unwrap();
        node.set(&mut all, "password", "p".into()).unwrap();
        node.set(&mut all, "user", "v".into()).unwrap();
        assert_eq!(all["n"], json!({"user": "v", "password": "p"}));
        node.remove(&mut all, Some("user")).unwrap();
        assert!(node.remove(&mut all, Some("user")).is_err());
        node.remove(&mut all, Some("password")).unwrap();
        assert_eq!(Value::Object(all.clone()), json!({"other": {"a": "b"}, "odd": 5}));
        assert!(Node { id: "odd", global: false }.set(&mut all, "x", "y".into()).is_err());
        assert!(node.remove(&mut all, None).is_err());
        Node { id: "odd", global: false }.remove(&mut all, None).unwrap();
        assert_eq!(Value::Object(all), json!({"other": {"a": "b"}}));
    }

    #[test]
    fn those_of_global_config_are_where_node_red_has_them() {
        let mut all = Map::new();
        let node = Node { id: "g", global: true };
        node.set(&mut all, "KEY", "k".into()).unwrap();
        assert_eq!(Value::Object(all.clone()), json!({"g": {"map": {"KEY": "k"}}}));
        assert_eq!(field_names(&all["g"]), ["KEY"]);
        node.remove(&mut all, Some("KEY")).unwrap();
        assert_eq!(Value::Object(all), json!({"g": {"map": {}}}));
    }
}
