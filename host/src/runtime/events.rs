//! What nodes report besides messages: errors, statuses, completions, and who is told.

use std::sync::Arc;

use flowbay_abi::{
    Msg, Object, Value, message,
    node::{NodeError, Via},
};

use super::{cell::NodeCell, mailbox::Refused};
use crate::ids::new_id;

/// An error that would be the one of this number from the same node on the same message is only logged: Node-RED's
/// limit. Catch nodes see the nine before.
const MAX_CATCHES: i64 = 10;

/// The catch, status and complete nodes that hear of a node, in order.
#[derive(Default)]
pub struct EventTargets {
    /// Who gets its errors.
    pub catch: Vec<Arc<NodeCell>>,
    /// Who gets its statuses.
    pub status: Vec<Arc<NodeCell>>,
    /// Who is told when it is done with a message.
    pub complete: Vec<Arc<NodeCell>>,
}

impl EventTargets {
    /// Whether somebody wants the message that led to an error.
    pub fn wants_errors(&self) -> bool {
        !self.catch.is_empty()
    }

    /// Whether somebody wants the messages that the node is given, after it has had them.
    pub fn wants_messages(&self) -> bool {
        !self.catch.is_empty() || !self.complete.is_empty()
    }
}

/// Reports an error of a node: to its Catch nodes when it came of a message, else to the log.
pub fn error(cell: &Arc<NodeCell>, error: NodeError, msg: Option<Msg>) {
    let targets = cell.targets.load();
    let Some(msg) = msg.filter(|_| targets.wants_errors()) else {
        log_error(cell, &error);
        return;
    };
    let Some(msg) = error_message(cell, &error, msg) else {
        tracing::warn!(node = %cell.id(), r#type = %cell.graph_node.node_type, "Message exceeded maximum number of catches");
        log_error(cell, &error);
        return;
    };
    for target in &targets.catch {
        target.deliver(msg.clone(), Via::Wire);
    }
}

/// The message as Catch nodes get it; `None` when it has been caught too often.
fn error_message(cell: &NodeCell, error: &NodeError, mut msg: Msg) -> Option<Msg> {
    let previous = msg.get("error").cloned();
    let count = previous
        .as_ref()
        .and_then(|error| error.get("source"))
        .filter(|source| source.get("id").and_then(Value::as_str) == Some(cell.id()))
        .and_then(|source| source.get("count"))
        .and_then(Value::as_i64)
        .unwrap_or(0)
        .saturating_add(1);
    if count >= MAX_CATCHES {
        return None;
    }
    let mut source = source(cell);
    source.insert("count", count);
    let mut object = Object::new();
    object.insert("message", error.message.clone());
    object.insert("source", source);
    if let Value::Object(details) = &error.details {
        for (key, value) in details.iter() {
            object.insert(key.clone(), value.clone());
        }
    }
    if let Some(previous) = previous {
        msg.set("_error", previous);
    }
    msg.set("error", object);
    Some(msg)
}

/// Writes an error to the log under the node's id.
pub fn log_error(cell: &NodeCell, error: &NodeError) {
    let code = error.details.get("code").and_then(Value::as_str);
    tracing::error!(node = %cell.id(), r#type = %cell.graph_node.node_type, name = %cell.graph_node.name, code, "{}", error.message);
}

/// A mailbox took no message.
pub fn refused(cell: &Arc<NodeCell>, why: Refused, first: bool, msg: Option<Msg>) {
    let (text, code) = match why {
        Refused::Closed => return,
        Refused::Stuck => ("message refused: the node is stuck and its mailbox is full", "STUCK"),
        Refused::Cap => ("message refused: the node's mailbox has reached its limit", "MAILBOX_FULL"),
    };
    // The first of a series says it in the log; each goes to Catch nodes.
    if first {
        tracing::warn!(node = %cell.id(), r#type = %cell.graph_node.node_type, "{text}; further ones are only counted");
    }
    if msg.is_some() {
        error(cell, NodeError::new(text).with_code(code), msg);
    }
}

/// Tells Complete nodes that a node is done with a message.
pub fn complete(cell: &Arc<NodeCell>, msg: Msg) {
    let targets = cell.targets.load();
    for target in &targets.complete {
        let mut msg = msg.clone();
        let mut object = Object::new();
        object.insert("source", source(cell));
        msg.set("complete", object);
        target.deliver(msg, Via::Wire);
    }
}

/// Publishes a node's status.
pub fn status(cell: &Arc<NodeCell>, status: Value) {
    let mut object = match status {
        Value::Object(object) => object,
        Value::Null => return,
        other => Object::from_iter([("text", Value::from(other.to_js_string()))]),
    };
    match object.get("text") {
        None | Some(Value::Str(_)) => {}
        Some(other) => {
            let text = other.to_js_string();
            object.insert("text", text);
        }
    }
    let text = object.get("text").and_then(Value::as_str);
    tracing::debug!(node = %cell.id(), text, "status");
    let targets = cell.targets.load();
    if targets.status.is_empty() {
        return;
    }
    object.insert("source", source(cell));
    let mut msg = Msg::new();
    msg.set("status", object);
    msg.set(message::MSGID, new_id());
    for target in &targets.status {
        target.deliver(msg.clone(), Via::Wire);
    }
}

/// A subflow instance with a status output, and who hears of its status.
pub struct InstanceStatus {
    /// The instance's id, type and name, as the source of its statuses.
    pub source: Object,
    /// The status nodes around it.
    pub listeners: Vec<Arc<NodeCell>>,
}

/// Characters of a status made from a payload that is no text: Node-RED's limit.
const MAX_STATUS_TEXT: usize = 32;

/// A message reached the status output of a subflow: it sets the status of the instance.
pub fn instance_status(instance: &InstanceStatus, msg: &Msg) {
    let mut status = match msg.get("payload") {
        Some(Value::Str(text)) => Object::from_iter([("text", Value::Str(text.clone()))]),
        Some(Value::Object(object))
            if object.is_empty() || ["fill", "shape", "text"].iter().any(|key| object.contains_key(key)) =>
        {
            object.clone()
        }
        Some(other) if !other.is_null() => {
            let text: String = other.to_js_string().chars().take(MAX_STATUS_TEXT).collect();
            Object::from_iter([("text", Value::from(text))])
        }
        _ => match msg.get("status") {
            Some(Value::Object(status)) => status.clone(),
            _ => return,
        },
    };
    status.insert("source", instance.source.clone());
    let mut msg = Msg::new();
    msg.set("status", status);
    msg.set(message::MSGID, new_id());
    for target in &instance.listeners {
        target.deliver(msg.clone(), Via::Wire);
    }
}

fn source(cell: &NodeCell) -> Object {
    let node = &cell.graph_node;
    Object::from_iter([
        ("id", Value::from(node.id.as_str())),
        ("type", Value::from(node.node_type.as_str())),
        ("name", Value::from(node.name.as_str())),
    ])
}
