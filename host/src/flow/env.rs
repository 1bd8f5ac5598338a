//! Environment variables of flows: `env` of tabs, groups, subflows and `global-config`, and the references to them.
//!
//! Every place that can define variables is a scope with a parent, and a look-up walks outwards: groups innermost
//! first, the tab or subflow instance, for an instance its surroundings in the parent flow, the global scope, and at
//! last the process environment.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Number, Value, json};

use super::limits::Budget;
use super::problems::{Problems, shown};

/// Longest text that references inside a text may grow to, in bytes: ten `${X}` in each of ten variables would
/// otherwise make a gigabyte out of a hundred bytes.
pub const MAX_ENV_TEXT_BYTES: usize = 1024 * 1024;

/// Where a variable comes from that no flow defines. Closures do; [`ProcessEnv`] is the real one.
pub trait EnvSource: Send + Sync {
    /// Value of the variable called `name`.
    fn var(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String> + Send + Sync> EnvSource for F {
    fn var(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// The environment of this process, except for names that flows must not see (`envVarExcludes`). By default these are
/// the ones that hold the key to the credentials.
#[derive(Debug, Clone)]
pub struct ProcessEnv {
    /// Names that flows do not see.
    pub excluded: HashSet<String>,
}

impl Default for ProcessEnv {
    fn default() -> Self {
        Self { excluded: crate::credentials::SECRET_VARIABLES.map(str::to_owned).into() }
    }
}

impl EnvSource for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        if self.excluded.contains(name) { None } else { std::env::var(name).ok() }
    }
}

/// Index into [`Scopes`].
pub(super) type ScopeId = usize;

/// The scope that everything else stands in; it always exists.
pub(super) const GLOBAL: ScopeId = 0;

#[derive(Debug, Clone)]
pub(super) enum ScopeKind {
    Global,
    Tab { id: String, label: String },
    Instance { id: String, name: String, path: String },
    Group { id: String, name: String },
}

#[derive(Debug, Clone)]
struct Scope {
    kind: ScopeKind,
    parent: Option<ScopeId>,
    vars: Arc<Map<String, Value>>,
}

/// All scopes of a graph. A parent always comes before its children, so walking outwards ends.
#[derive(Clone)]
pub(super) struct Scopes {
    list: Vec<Scope>,
    process: Arc<dyn EnvSource>,
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The source may be the process environment, which holds secrets: never printed.
        f.debug_struct("Scopes").field("list", &self.list).finish_non_exhaustive()
    }
}

/// What the built-in `NR_NODE_…` names stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeFacts<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) path: &'a str,
}

impl Scopes {
    pub(super) fn new(process: Arc<dyn EnvSource>) -> Scopes {
        let global = Scope { kind: ScopeKind::Global, parent: None, vars: Arc::default() };
        Scopes { list: vec![global], process }
    }

    pub(super) fn add(&mut self, kind: ScopeKind, parent: ScopeId) -> ScopeId {
        debug_assert!(parent < self.list.len(), "a scope comes after its parent");
        self.list.push(Scope { kind, parent: Some(parent), vars: Arc::default() });
        self.list.len() - 1
    }

    pub(super) fn vars(&self, scope: ScopeId) -> Arc<Map<String, Value>> {
        Arc::clone(&self.list[scope].vars)
    }

    /// Looks `name` up for a node that stands in `scope`.
    pub(super) fn node_var(&self, scope: ScopeId, node: NodeFacts<'_>, name: &str) -> Option<Cow<'_, Value>> {
        let own = match name {
            "NR_NODE_ID" => node.id,
            "NR_NODE_NAME" => node.name,
            "NR_NODE_PATH" => node.path,
            _ => return self.var(scope, name),
        };
        Some(Cow::Owned(Value::from(own)))
    }

    /// Looks `name` up from `scope` outwards.
    fn var(&self, scope: ScopeId, mut name: &str) -> Option<Cow<'_, Value>> {
        let mut next = Some(scope);
        while let Some(id) = next {
            let scope = &self.list[id];
            if let Some(outer) = name.strip_prefix("$parent.") {
                name = outer;
            } else if let Some(value) = scope.kind.built_in(name) {
                return Some(Cow::Owned(Value::from(value)));
            } else if let Some(value) = scope.vars.get(name) {
                return Some(Cow::Borrowed(value));
            }
            next = scope.parent;
        }
        self.process.var(name).map(|text| Cow::Owned(Value::from(text)))
    }

    /// Copies `value`, with every string in it that is exactly one reference replaced by what it refers to. A
    /// reference to nothing stays as it is, and so does one whose value no longer fits `budget`.
    pub(super) fn substituted(
        &self,
        value: &Value,
        scope: ScopeId,
        node: NodeFacts<'_>,
        budget: &mut Budget,
    ) -> Value {
        match value {
            Value::String(text) => {
                let found = reference(text).and_then(|name| self.node_var(scope, node, name));
                match found {
                    Some(found) if budget.spend(size(&found)) => found.into_owned(),
                    _ => {
                        budget.spend(size(value));
                        value.clone()
                    }
                }
            }
            Value::Array(items) => {
                budget.spend(VALUE_BYTES);
                items.iter().map(|item| self.substituted(item, scope, node, budget)).collect()
            }
            Value::Object(map) => {
                budget.spend(VALUE_BYTES);
                let copy = map.iter().map(|(key, item)| {
                    budget.spend(key.len());
                    (key.clone(), self.substituted(item, scope, node, budget))
                });
                Value::Object(copy.collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                budget.spend(VALUE_BYTES);
                value.clone()
            }
        }
    }

    /// Works out the variables of `scope` from their entries. Variables of type `env` come last, each after those of
    /// the same scope that it refers to; one that refers to itself, directly or in a circle, sees the parent's.
    pub(super) fn define(
        &mut self,
        scope: ScopeId,
        entries: &[EnvEntry<'_>],
        credentials: &Map<String, Value>,
        budget: &mut Budget,
        problems: &mut Problems,
    ) {
        let mut later = Vec::new();
        for entry in entries {
            if entry.kind == "env" {
                later.push(entry);
                continue;
            }
            match entry.plain_value(credentials) {
                Ok(Some(value)) => self.insert(scope, entry.name, value, budget),
                Ok(None) => {}
                Err(reason) => entry.warn(problems, &reason),
            }
        }
        for entry in in_order_of_reference(&later) {
            let text = text_of(entry.value);
            match env_text(&text, |name| self.var(scope, name)) {
                Ok(value) => self.insert(scope, entry.name, value, budget),
                Err(TooLong) => entry.warn(problems, "grows too long when its references are filled in"),
            }
        }
    }

    fn insert(&mut self, scope: ScopeId, name: &str, value: Value, budget: &mut Budget) {
        if budget.spend(size(&value) + name.len()) {
            Arc::make_mut(&mut self.list[scope].vars).insert(name.to_owned(), value);
        }
    }
}

impl ScopeKind {
    fn built_in(&self, name: &str) -> Option<&str> {
        if !name.starts_with("NR_") {
            return None;
        }
        match (self, name) {
            (ScopeKind::Tab { id, .. }, "NR_FLOW_ID") => Some(id),
            (ScopeKind::Tab { label, .. }, "NR_FLOW_NAME") => Some(label),
            (ScopeKind::Group { id, .. }, "NR_GROUP_ID") => Some(id),
            (ScopeKind::Group { name, .. }, "NR_GROUP_NAME") => Some(name),
            // To a subflow's own variables the instance is the node that they belong to.
            (ScopeKind::Instance { id, .. }, "NR_SUBFLOW_ID" | "NR_NODE_ID") => Some(id),
            (ScopeKind::Instance { name, .. }, "NR_SUBFLOW_NAME" | "NR_NODE_NAME") => Some(name),
            (ScopeKind::Instance { path, .. }, "NR_SUBFLOW_PATH" | "NR_NODE_PATH") => Some(path),
            _ => None,
        }
    }
}

/// One `{name, type, value}` of an `env` array, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct EnvEntry<'a> {
    pub(super) name: &'a str,
    kind: &'a str,
    value: &'a Value,
    owner_id: &'a str,
    owner_type: &'a str,
}

/// The usable entries of the property `env` of one file entry.
pub(super) fn env_entries<'a>(
    owner_id: &'a str,
    owner_type: &'a str,
    owner: &'a Map<String, Value>,
    problems: &mut Problems,
) -> Vec<EnvEntry<'a>> {
    let list = match owner.get("env") {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => {
            problems.warning(owner_id, owner_type, "env is not a list and is ignored");
            return Vec::new();
        }
    };
    let mut entries = Vec::with_capacity(list.len());
    for item in list {
        let Some(name) = item.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            problems.warning(owner_id, owner_type, "env holds an entry without a name, which is ignored");
            continue;
        };
        let kind = item.get("type").and_then(Value::as_str).unwrap_or("str");
        let value = item.get("value").unwrap_or(&Value::Null);
        entries.push(EnvEntry { name, kind, value, owner_id, owner_type });
    }
    entries
}

/// `own` entries laid over the `defaults` of the same name.
pub(super) fn overridden<'a>(defaults: Vec<EnvEntry<'a>>, own: Vec<EnvEntry<'a>>) -> Vec<EnvEntry<'a>> {
    let mut merged: Vec<EnvEntry<'a>> = Vec::with_capacity(defaults.len() + own.len());
    let mut places: HashMap<&str, usize> = HashMap::new();
    for entry in defaults.into_iter().chain(own) {
        match places.get(entry.name) {
            Some(&place) => merged[place] = entry,
            None => {
                places.insert(entry.name, merged.len());
                merged.push(entry);
            }
        }
    }
    merged
}

impl EnvEntry<'_> {
    /// The value of an entry of any type but `env`; `None` when it has none.
    fn plain_value(&self, credentials: &Map<String, Value>) -> Result<Option<Value>, Cow<'static, str>> {
        let text = text_of(self.value);
        let value = match self.kind {
            // `conf-type` names the type of a config node; the value is its id.
            "str" | "conf-type" | "conf-types" => Value::from(text.into_owned()),
            "num" => match self.value {
                Value::Number(_) => self.value.clone(),
                _ => js_number(&text).ok_or("is not a number")?,
            },
            "bool" => Value::from(text.eq_ignore_ascii_case("true")),
            "json" => match self.value {
                Value::String(text) => {
                    serde_json::from_str(text).map_err(|error| Cow::from(format!("is not JSON: {error}")))?
                }
                parsed => parsed.clone(),
            },
            "bin" => buffer(&text).ok_or("is not a list of bytes or a string in JSON")?,
            "cred" => {
                let fields = credentials.get(self.owner_id);
                // Node-RED has those of global-config one level deeper.
                let fields = match fields.and_then(|fields| fields.get("map")) {
                    Some(map) if self.owner_type == "global-config" => Some(map),
                    _ => fields,
                };
                return Ok(fields.and_then(|fields| fields.get(self.name)).cloned());
            }
            other => {
                return Err(Cow::from(format!("has the type {}, which is not supported", shown(other))));
            }
        };
        Ok(Some(value))
    }

    fn warn(&self, problems: &mut Problems, reason: &str) {
        let text = format!("the variable {} {reason}; it is ignored", shown(self.name));
        problems.warning(self.owner_id, self.owner_type, text);
    }
}

/// Orders variables of type `env` so that each comes after those it refers to; the ones in circles stay last, in the
/// order of the file.
fn in_order_of_reference<'e, 'a>(entries: &[&'e EnvEntry<'a>]) -> Vec<&'e EnvEntry<'a>> {
    let places: HashMap<&str, usize> =
        entries.iter().enumerate().map(|(place, entry)| (entry.name, place)).collect();
    let mut waits_for = vec![0usize; entries.len()];
    let mut wanted_by: Vec<Vec<usize>> = vec![Vec::new(); entries.len()];
    for (place, entry) in entries.iter().enumerate() {
        let text = text_of(entry.value);
        for name in names_in(&text) {
            if let Some(&other) = places.get(name).filter(|&&other| other != place) {
                waits_for[place] += 1;
                wanted_by[other].push(place);
            }
        }
    }
    let mut order: Vec<usize> = (0..entries.len()).filter(|&place| waits_for[place] == 0).collect();
    let mut done = 0;
    while done < order.len() {
        for &place in &wanted_by[order[done]] {
            waits_for[place] -= 1;
            if waits_for[place] == 0 {
                order.push(place);
            }
        }
        done += 1;
    }
    order.extend((0..entries.len()).filter(|&place| waits_for[place] > 0));
    order.into_iter().map(|place| entries[place]).collect()
}

/// The name in a text that is exactly `${NAME}` or `$(NAME)`, without white space.
pub(super) fn reference(text: &str) -> Option<&str> {
    let braces = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let inner = braces.or_else(|| text.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')')))?;
    let is_name = !inner.is_empty() && !inner.contains(char::is_whitespace);
    is_name.then_some(inner)
}

/// A text split into literal parts and `${NAME}` references.
enum Part<'a> {
    Literal(&'a str),
    Name(&'a str),
}

fn parts(mut text: &str) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let mut from = 0;
        while let Some(start) = text[from..].find("${").map(|found| from + found) {
            // Without a closing brace after this point no later `${` has one either.
            let Some(length) = text[start + 2..].find('}') else { break };
            if length == 0 {
                from = start + 2;
                continue;
            }
            if start > 0 {
                let literal = &text[..start];
                text = &text[start..];
                return Some(Part::Literal(literal));
            }
            let name = &text[2..2 + length];
            text = &text[length + 3..];
            return Some(Part::Name(name));
        }
        Some(Part::Literal(std::mem::take(&mut text)))
    })
}

/// The variables that a value of type `env` refers to.
fn names_in(text: &str) -> Vec<&str> {
    let names: Vec<&str> = parts(text)
        .filter_map(|part| match part {
            Part::Name(name) => Some(name),
            Part::Literal(_) => None,
        })
        .collect();
    if names.is_empty() { vec![text] } else { names }
}

/// A text grew past [`MAX_ENV_TEXT_BYTES`].
#[derive(Debug)]
pub(super) struct TooLong;

/// Value of a typed property of type `env`: `NAME` and `${NAME}` give the value with its type, text around or between
/// references gives text; whatever is not defined is the empty string.
pub(super) fn env_text<'v>(
    text: &str,
    lookup: impl Fn(&str) -> Option<Cow<'v, Value>>,
) -> Result<Value, TooLong> {
    let mut whole = parts(text);
    let single = match (whole.next(), whole.next()) {
        (Some(Part::Name(name)), None) => Some(name),
        (Some(Part::Literal(name)), None) => Some(name),
        (None, _) => Some(text),
        _ => None,
    };
    if let Some(name) = single {
        return Ok(lookup(name).map_or_else(|| Value::from(""), Cow::into_owned));
    }
    let mut filled = String::new();
    for part in parts(text) {
        match part {
            Part::Literal(literal) => filled.push_str(literal),
            Part::Name(name) => {
                if let Some(value) = lookup(name) {
                    filled.push_str(&text_of(&value));
                }
            }
        }
        if filled.len() > MAX_ENV_TEXT_BYTES {
            return Err(TooLong);
        }
    }
    Ok(Value::from(filled))
}

/// A value as text: strings as they are, everything else as JSON; nothing for a value that is missing.
fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// `Number(text)` as JavaScript has it, where JSON can hold the result.
fn js_number(text: &str) -> Option<Value> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Value::from(0));
    }
    let lower = text.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok().map(Value::from);
        }
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Value::from(whole));
    }
    let number: f64 = text.parse().ok()?;
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return Some(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::from)
}

/// A variable of type `bin`: a JSON list of bytes, or a JSON string; in the form that Node.js gives a Buffer in JSON.
fn buffer(text: &str) -> Option<Value> {
    let bytes = match serde_json::from_str(text).ok()? {
        Value::String(text) => text.into_bytes(),
        Value::Array(items) => {
            // As Buffer.from does: every number is taken modulo 256.
            let byte = |item: &Value| item.as_f64().map(|number| (number.trunc().rem_euclid(256.0)) as u8);
            items.iter().map(byte).collect::<Option<Vec<u8>>>()?
        }
        _ => return None,
    };
    Some(json!({"type": "Buffer", "data": bytes}))
}

/// What one JSON value is counted for, besides its text.
pub(super) const VALUE_BYTES: usize = 64;

/// Rough memory of a value, in bytes.
pub(super) fn size(value: &Value) -> usize {
    VALUE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(map) => map.iter().map(|(key, item)| key.len() + size(item)).sum(),
            _ => 0,
        }
}
