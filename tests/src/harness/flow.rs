//! Flow files, written the short way.

use serde_json::{Map, Value, json};

/// A flow file in the making: entries in order, on one tab unless said otherwise.
///
/// Wires are a text: `"a, b"` wires output 1 to two nodes, `"a | b"` two outputs to one each, `""` wires nothing.
#[derive(Debug, Clone)]
pub struct Flow {
    entries: Vec<Value>,
    tab: String,
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

impl Flow {
    /// A flow with one tab, `tab`.
    pub fn new() -> Flow {
        Flow { entries: Vec::new(), tab: String::new() }.tab("tab", json!({}))
    }

    /// Adds a tab; the nodes that follow are on it.
    #[must_use]
    pub fn tab(self, id: &str, properties: Value) -> Flow {
        let mut flow = self.entry(with(json!({"id": id, "type": "tab", "label": id}), properties));
        flow.tab = id.to_owned();
        flow
    }

    /// Adds a subflow definition; the nodes that follow are in it.
    #[must_use]
    pub fn subflow(self, id: &str, properties: Value) -> Flow {
        let mut flow = self.entry(with(json!({"id": id, "type": "subflow", "name": id}), properties));
        flow.tab = id.to_owned();
        flow
    }

    /// The nodes that follow are on this tab or in this subflow, which is in the flow already or need not be.
    #[must_use]
    pub fn within(mut self, tab: &str) -> Flow {
        self.tab = tab.to_owned();
        self
    }

    /// Adds a flow node.
    #[must_use]
    pub fn node(self, id: &str, node_type: &str, wires: &str, properties: Value) -> Flow {
        let own = json!({
            "id": id, "type": node_type, "z": self.tab, "x": 100, "y": 100, "wires": parsed_wires(wires),
        });
        self.entry(with(own, properties))
    }

    /// Adds a config node; it is global unless `properties` has a `z`.
    #[must_use]
    pub fn config(self, id: &str, node_type: &str, properties: Value) -> Flow {
        self.entry(with(json!({"id": id, "type": node_type}), properties))
    }

    /// Adds a change node with these rules.
    #[must_use]
    pub fn change(self, id: &str, wires: &str, rules: Value) -> Flow {
        self.node(id, "change", wires, json!({"rules": rules}))
    }

    /// Adds a change node that sets `msg.<property>` to a value of a type, in Node-RED's names for types.
    #[must_use]
    pub fn set(self, id: &str, wires: &str, property: &str, value: &str, value_type: &str) -> Flow {
        let rule = json!({"t": "set", "p": property, "pt": "msg", "to": value, "tot": value_type});
        self.change(id, wires, json!([rule]))
    }

    /// Adds a node that only passes messages on.
    #[must_use]
    pub fn junction(self, id: &str, wires: &str) -> Flow {
        self.node(id, "junction", wires, json!({}))
    }

    /// Adds a change node that deletes `msg._session`, so that what follows is no reply to anybody.
    #[must_use]
    pub fn forget(self, id: &str, wires: &str) -> Flow {
        self.change(id, wires, json!([{"t": "delete", "p": "_session", "pt": "msg"}]))
    }

    /// Adds a debug node that shows a property of the message, or the whole message for `""`.
    #[must_use]
    pub fn debug(self, id: &str, property: &str) -> Flow {
        let complete = if property.is_empty() { "true" } else { property };
        let target = if property.is_empty() { "full" } else { "msg" };
        let shown = json!({"active": true, "tosidebar": true, "complete": complete, "targetType": target});
        self.node(id, "debug", "", shown)
    }

    /// Adds any entry.
    #[must_use]
    pub fn entry(mut self, entry: Value) -> Flow {
        self.entries.push(entry);
        self
    }

    /// Adds a way in and out for whole messages: a listener on `/io`, whose input is wired to `first` and whose
    /// output is the node `out`. See [`super::Host::io`].
    ///
    /// A message that came in this way and reaches `out` goes to the client that sent it; one without `_session`
    /// goes to all clients. Both nodes are on a tab of their own, out of sight of the flow's Catch, Status and
    /// Complete nodes.
    #[must_use]
    pub fn io(self, first: &str) -> Flow {
        let tab = self.tab.clone();
        self.config("io", "websocket-listener", json!({"path": "/io", "wholemsg": "true"}))
            .tab("io-tab", json!({}))
            .node("in", "websocket in", first, json!({"server": "io"}))
            .node("out", "websocket out", "", json!({"server": "io"}))
            .within(&tab)
    }

    /// The flow file's text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.entries).expect("JSON values are JSON")
    }
}

fn with(mut own: Value, properties: Value) -> Value {
    let (Some(entry), Value::Object(properties)) = (own.as_object_mut(), properties) else {
        panic!("properties are an object")
    };
    let properties: Map<String, Value> = properties;
    entry.extend(properties);
    own
}

fn parsed_wires(text: &str) -> Value {
    if text.is_empty() {
        return json!([]);
    }
    let outputs = text.split('|');
    let ids = |output: &str| -> Vec<String> {
        output.split(',').map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()).collect()
    };
    outputs.map(ids).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wires_are_outputs_split_by_bars_and_targets_split_by_commas() {
        assert_eq!(parsed_wires(""), json!([]));
        assert_eq!(parsed_wires("a"), json!([["a"]]));
        assert_eq!(parsed_wires("a, b | | c"), json!([["a", "b"], [], ["c"]]));
    }
}
