//! Credentials as flows have them: what entries carried, laid over what is kept beside the flow file.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

/// What Node-RED's editor has in the place of a password that it was not told: the stored one stays.
const UNTOLD: &str = "__PWRD__";

/// Credentials by node id: for each an object of fields. Cloning is cheap; nothing in it is ever printed.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Credentials(Arc<Map<String, Value>>);

impl Credentials {
    pub(super) fn new(by_id: Map<String, Value>) -> Self {
        Self(Arc::new(by_id))
    }

    pub(super) fn by_id(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The fields of one node or other entry; `None` when there are none.
    pub(super) fn of(&self, id: &str) -> Option<&Map<String, Value>> {
        self.0.get(id).and_then(Value::as_object).filter(|fields| !fields.is_empty())
    }

    /// These laid over `stored`, field by field, by Node-RED's rules for what the editor sends: a blank text takes the
    /// stored field away, a password that the editor was not told leaves it.
    pub(super) fn over(&self, stored: Map<String, Value>) -> Self {
        let mut merged = stored;
        for (id, given) in self.by_id() {
            let Value::Object(given) = given else { continue };
            let slot = merged.entry(id.as_str()).or_insert_with(|| Value::Object(Map::new()));
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            let Value::Object(fields) = slot else { continue };
            for (field, value) in given {
                match value.as_str() {
                    Some(UNTOLD) => {}
                    Some(text) if text.trim().is_empty() => drop(fields.shift_remove(field)),
                    _ => drop(fields.insert(field.clone(), value.clone())),
                }
            }
        }
        Self::new(merged)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials of {} nodes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn credentials(value: Value) -> Credentials {
        let Value::Object(map) = value else { panic!("not an object: {value}") };
        Credentials::new(map)
    }

    #[test]
    fn what_an_entry_carries_wins_field_by_field() {
        let stored = json!({
            "a": {"user": "old", "password": "kept", "gone": "x"},
            "b": {"password": "b's"},
            "odd": 7,
        });
        let given = credentials(json!({
            "a": {"user": "new", "password": "__PWRD__", "gone": " "},
            "c": {"token": 5},
            "odd": {"x": "y"},
            "ignored": "no object",
        }));
        let Value::Object(stored) = stored else { panic!() };
        assert_eq!(
            Value::Object(given.over(stored).by_id().clone()),
            json!({
                "a": {"user": "new", "password": "kept"},
                "b": {"password": "b's"},
                "odd": {"x": "y"},
                "c": {"token": 5},
            })
        );
    }

    #[test]
    fn an_entry_without_fields_has_no_credentials() {
        let all = credentials(json!({"a": {}, "b": null, "c": {"x": ""}}));
        assert!(all.of("a").is_none() && all.of("b").is_none() && all.of("none").is_none());
        assert!(all.of("c").is_some());
    }

    #[test]
    fn debug_output_has_no_value_in_it() {
        let all = credentials(json!({"a": {"password": "sesame"}}));
        assert_eq!(format!("{all:?}"), "Credentials of 1 nodes");
    }
}
