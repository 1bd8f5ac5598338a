//! [`PropertyPath`]: Node-RED's property expressions, such as `payload.list[0]["the name"]`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::value::{Array, Object, Str, Value};

/// Setting an index that is not yet in an array fills the gap with `null`, but never beyond this
/// length: an index may come from a message, and must not make the host allocate gigabytes.
pub const MAX_ARRAY_LEN: usize = 1_000_000;

/// How deeply references to other properties may be nested in an expression.
const MAX_REFERENCE_DEPTH: usize = 16;

/// Where a value is inside another: a parsed property expression.
///
/// Parts are names (`a.b`, `a["b c"]`, `a['b']`), indexes (`a[0]`) or references to a property of
/// the message, whose value is then the name or index (`a[msg.topic]`). Make one by
/// [`PropertyPath::parse`] once and use it for every message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PropertyPath {
    /// At least one.
    parts: Vec<Part>,
}

/// One step of a [`PropertyPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// A property of an object.
    Key(Str),
    /// An item of an array.
    Index(usize),
    /// The property or item that the message names at this path.
    Reference(PropertyPath),
}

/// Why an expression is not a path, or a value was not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathError {
    /// The expression is malformed.
    Syntax {
        /// The expression as it was given.
        expression: String,
        /// What is wrong, and where (positions count from 0).
        reason: String,
    },
    /// A reference in brackets leads to nothing that could be a name or an index.
    UndefinedReference {
        /// The path that is referred to.
        reference: String,
    },
    /// Something on the way, or the value itself, has no properties of that kind.
    NotAContainer {
        /// The path that was to be set.
        path: String,
        /// The part that cannot be entered or set.
        part: String,
        /// What kind of value would have to have it.
        type_name: &'static str,
    },
    /// The array would become longer than [`MAX_ARRAY_LEN`].
    IndexTooLarge {
        /// The path that was to be set.
        path: String,
        /// The index that is too large.
        index: usize,
    },
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::Syntax { expression, reason } => {
                write!(f, "invalid property expression {expression:?}: {reason}")
            }
            PathError::UndefinedReference { reference } => {
                write!(f, "msg.{reference} is not a name or an index")
            }
            PathError::NotAContainer { path, part, type_name } => {
                write!(f, "cannot set {path}: a value of type {type_name} has no {part}")
            }
            PathError::IndexTooLarge { path, index } => {
                write!(f, "cannot set {path}: index {index} is beyond the limit of {MAX_ARRAY_LEN} items")
            }
        }
    }
}

impl std::error::Error for PathError {}

impl PropertyPath {
    /// Reads a property expression; a `msg.` in front is a name like any other.
    ///
    /// # Errors
    /// [`PathError::Syntax`] when the expression is malformed.
    pub fn parse(expression: &str) -> Result<Self, PathError> {
        let parsed = Parser { text: expression, parts: Vec::new(), depth: 0 }.parse(false);
        parsed.map_err(|reason| PathError::Syntax { expression: expression.to_owned(), reason })
    }

    /// Reads a property expression that may begin with `msg.`, as node properties may.
    ///
    /// # Errors
    /// As for [`PropertyPath::parse`].
    pub fn parse_msg(expression: &str) -> Result<Self, PathError> {
        Self::parse(expression.strip_prefix("msg.").unwrap_or(expression))
    }

    /// The path of one property, whatever its name.
    pub fn key(name: impl Into<Str>) -> Self {
        PropertyPath { parts: vec![Part::Key(name.into())] }
    }

    /// The steps, at least one.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether the path depends on a message.
    pub fn has_references(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Reference(_)))
    }

    /// The path with every reference replaced by what `msg` has there.
    ///
    /// # Errors
    /// [`PathError::UndefinedReference`] when that is no text, number or boolean.
    pub fn resolve(&self, msg: &Object) -> Result<Cow<'_, PropertyPath>, PathError> {
        if !self.has_references() {
            return Ok(Cow::Borrowed(self));
        }
        let parts = self.parts.iter().map(|part| match part {
            // Recursive; the parser bounds the depth.
            Part::Reference(path) => resolve_reference(path, msg),
            part => Ok(part.clone()),
        });
        Ok(Cow::Owned(PropertyPath { parts: parts.collect::<Result<_, _>>()? }))
    }
}

fn resolve_reference(path: &PropertyPath, msg: &Object) -> Result<Part, PathError> {
    match msg.get_path(path) {
        Some(Value::Str(name)) => Ok(Part::Key(name)),
        Some(number @ (Value::Int(_) | Value::Float(_))) => {
            let index = number.as_i64().and_then(|index| usize::try_from(index).ok());
            Ok(index.map_or_else(|| Part::Key(number.to_js_string().into()), Part::Index))
        }
        Some(value @ Value::Bool(_)) => Ok(Part::Key(value.to_js_string().into())),
        _ => Err(PathError::UndefinedReference { reference: path.to_string() }),
    }
}

impl FromStr for PropertyPath {
    type Err = PathError;

    fn from_str(expression: &str) -> Result<Self, PathError> {
        PropertyPath::parse(expression)
    }
}

/// As the configuration of a node has it: an expression that may begin with `msg.`.
impl<'de> Deserialize<'de> for PropertyPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expression = Str::deserialize(deserializer)?;
        PropertyPath::parse_msg(&expression).map_err(D::Error::custom)
    }
}

/// An expression that reads as the same path.
impl fmt::Display for PropertyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.parts.iter().enumerate() {
            match part {
                Part::Key(key) if is_plain(key) && position == 0 => f.write_str(key)?,
                Part::Key(key) if is_plain(key) => write!(f, ".{key}")?,
                Part::Key(key) => {
                    let quote = if key.contains('"') { '\'' } else { '"' };
                    let (open, close) = if position == 0 { ("", "") } else { ("[", "]") };
                    write!(f, "{open}{quote}{key}{quote}{close}")?;
                }
                Part::Index(index) if position == 0 => write!(f, "{index}")?,
                Part::Index(index) => write!(f, "[{index}]")?,
                Part::Reference(path) => write!(f, "[msg.{path}]")?,
            }
        }
        Ok(())
    }
}

/// Whether a name can stand without quotes wherever it is.
fn is_plain(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
        && !key.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads an expression; all its special characters are ASCII, so it goes by bytes.
struct Parser<'a> {
    text: &'a str,
    parts: Vec<Part>,
    /// In how many references this expression stands.
    depth: usize,
}

impl Parser<'_> {
    /// `box_first`: whether the expression may begin with a bracket, as what follows `msg` in a
    /// reference may.
    fn parse(mut self, box_first: bool) -> Result<PropertyPath, String> {
        if self.text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let mut at = 0;
        while at < self.text.len() {
            at = match self.text.as_bytes()[at] {
                b'[' if at > 0 || box_first => self.boxed(at)?,
                b'.' if at > 0 => {
                    match self.text.as_bytes().get(at + 1) {
                        None => return Err("it ends with a dot".to_owned()),
                        Some(next) if next.is_ascii_alphanumeric() || matches!(next, b'$' | b'_') => {}
                        Some(_) => return Err(self.unexpected(at + 1)),
                    }
                    self.name(at + 1)?
                }
                b'"' | b'\'' if at == 0 => {
                    let end = self.quoted(at)?;
                    if !matches!(self.text.as_bytes().get(end), None | Some(b'.' | b'[')) {
                        return Err(self.unexpected(end));
                    }
                    end
                }
                b'[' | b']' | b'.' | b' ' | b'"' | b'\'' => return Err(self.unexpected(at)),
                _ => self.name(at)?,
            };
        }
        Ok(PropertyPath { parts: self.parts })
    }

    /// A name without quotes from `start` to the next special character.
    fn name(&mut self, start: usize) -> Result<usize, String> {
        let rest = &self.text[start..];
        let end = rest.find(['.', '[', ']', ' ', '"', '\'']).map_or(self.text.len(), |len| start + len);
        let name = &self.text[start..end];
        // As in Node-RED: digits are an index only when a dot follows.
        let is_index = self.text[end..].starts_with('.') && name.bytes().all(|byte| byte.is_ascii_digit());
        let part = if is_index { Part::Index(self.index(start, name)?) } else { Part::Key(name.into()) };
        self.parts.push(part);
        Ok(end)
    }

    fn index(&self, start: usize, digits: &str) -> Result<usize, String> {
        digits.parse().map_err(|_| format!("the index at position {} is too large", self.position(start)))
    }

    /// A quoted name whose quote stands at `start`.
    fn quoted(&mut self, start: usize) -> Result<usize, String> {
        let quote = char::from(self.text.as_bytes()[start]);
        let rest = &self.text[start + 1..];
        match rest.find(quote) {
            None => Err(format!("the string at position {} has no end", self.position(start))),
            Some(0) => Err(format!("the string at position {} is empty", self.position(start))),
            Some(len) => {
                self.parts.push(Part::Key(rest[..len].into()));
                Ok(start + len + 2)
            }
        }
    }

    /// What stands in the brackets that open at `open`.
    fn boxed(&mut self, open: usize) -> Result<usize, String> {
        let start = open + 1;
        let rest = &self.text[start..];
        if rest.starts_with("msg.") || rest.starts_with("msg[") {
            return self.reference(open);
        }
        let end = match rest.as_bytes().first() {
            None => return Err(self.never_closed(open)),
            Some(b'"' | b'\'') => self.quoted(start)?,
            Some(b'0'..=b'9') => {
                let len = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
                self.parts.push(Part::Index(self.index(start, &rest[..len])?));
                start + len
            }
            Some(_) => return Err(self.unexpected(start)),
        };
        match self.text.as_bytes().get(end) {
            Some(b']') => Ok(end + 1),
            None => Err(self.never_closed(open)),
            Some(_) => Err(self.unexpected(end)),
        }
    }

    /// A reference in the brackets that open at `open`.
    fn reference(&mut self, open: usize) -> Result<usize, String> {
        if self.depth == MAX_REFERENCE_DEPTH {
            return Err(format!("references are nested more than {MAX_REFERENCE_DEPTH} deep"));
        }
        let close = self.closing_bracket(open).ok_or_else(|| self.never_closed(open))?;
        let inner = &self.text[open + 1 + "msg".len()..close];
        let (inner, box_first) = match inner.strip_prefix('.') {
            Some(name) => (name, false),
            None => (inner, true),
        };
        let parser = Parser { text: inner, parts: Vec::new(), depth: self.depth + 1 };
        let path = parser.parse(box_first).map_err(|reason| {
            format!("in the reference at position {}: {reason}", self.position(open + 1))
        })?;
        self.parts.push(Part::Reference(path));
        Ok(close + 1)
    }

    /// Where the bracket that opens at `open` is closed, not counting brackets in quotes.
    fn closing_bracket(&self, open: usize) -> Option<usize> {
        let mut depth = 0_usize;
        let mut quote = None;
        for (at, byte) in self.text.bytes().enumerate().skip(open) {
            match (byte, quote) {
                (b'"' | b'\'', None) => quote = Some(byte),
                (_, Some(open)) if open == byte => quote = None,
                (b'[', None) => depth += 1,
                (b']', None) => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(at);
            }
        }
        None
    }

    fn never_closed(&self, open: usize) -> String {
        format!("the [ at position {} is never closed", self.position(open))
    }

    fn unexpected(&self, at: usize) -> String {
        match self.text[at..].chars().next() {
            Some(character) => format!("unexpected {character:?} at position {}", self.position(at)),
            None => "unexpected end".to_owned(),
        }
    }

    /// The position of a byte in characters, as people count.
    fn position(&self, byte: usize) -> usize {
        self.text[..byte].chars().count()
    }
}

/// The index that a name is when used on an array, as JavaScript reads it: `0`, `17`, not `007`.
fn as_index(key: &str) -> Option<usize> {
    let canonical = key == "0" || !key.starts_with('0');
    (canonical && key.bytes().all(|byte| byte.is_ascii_digit())).then(|| key.parse().ok()).flatten()
}

/// The name that a part is when used on an object.
fn as_key(part: &Part) -> Cow<'_, str> {
    match part {
        Part::Key(key) => Cow::Borrowed(key),
        Part::Index(index) => Cow::Owned(index.to_string()),
        // Paths are resolved before they are followed.
        Part::Reference(_) => Cow::Borrowed(""),
    }
}

/// The array index that a part is, if any.
fn array_index(part: &Part) -> Option<usize> {
    match part {
        Part::Key(key) => as_index(key),
        Part::Index(index) => Some(*index),
        Part::Reference(_) => None,
    }
}

/// What is stored in `value` under `part`.
fn stored<'a>(value: &'a Value, part: &Part) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object.get(&as_key(part)),
        Value::Array(array) => array.get(array_index(part)?),
        _ => None,
    }
}

/// What JavaScript computes where nothing is stored: lengths, characters and bytes.
fn computed(value: &Value, part: &Part) -> Option<Value> {
    if matches!(part, Part::Key(key) if *key == "length") {
        return match value {
            Value::Array(array) => Some(array.len().into()),
            Value::Bytes(bytes) => Some(bytes.len().into()),
            Value::Str(text) => Some(text.encode_utf16().count().into()),
            _ => None,
        };
    }
    let index = array_index(part)?;
    match value {
        Value::Bytes(bytes) => bytes.get(index).map(|byte| Value::from(*byte)),
        Value::Str(text) => {
            let unit = text.encode_utf16().nth(index)?;
            // Half of a surrogate pair is no text here.
            Some(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER).into())
        }
        _ => None,
    }
}

/// Follows resolved parts from `start`.
fn follow(start: &Value, parts: &[Part]) -> Option<Value> {
    let mut current = Cow::Borrowed(start);
    for part in parts {
        current = match current {
            Cow::Borrowed(value) => match stored(value, part) {
                Some(inner) => Cow::Borrowed(inner),
                None => Cow::Owned(computed(value, part)?),
            },
            // Computed values are flat.
            Cow::Owned(value) => Cow::Owned(computed(&value, part)?),
        };
    }
    Some(current.into_owned())
}

/// Sets what `path`, resolved, leads to from `target`. On an error nothing has changed.
fn set(target: &mut Value, path: &PropertyPath, value: Value) -> Result<(), PathError> {
    let mut current = target;
    for (position, part) in path.parts.iter().enumerate() {
        let rest = &path.parts[position + 1..];
        if rest.is_empty() || is_missing(current, part) {
            let value = build(rest, value, path)?;
            return put(current, part, value, path);
        }
        current = match current {
            Value::Object(object) => object.get_mut(&as_key(part)),
            Value::Array(array) => array_index(part).and_then(|index| array.make_mut().get_mut(index)),
            other => return Err(not_a_container(other, part, path)),
        }
        .expect("what is not missing can be entered");
    }
    Ok(())
}

fn not_a_container(value: &Value, part: &Part, path: &PropertyPath) -> PathError {
    let part = match part {
        Part::Index(index) => format!("item {index}"),
        part => format!("property {:?}", as_key(part)),
    };
    PathError::NotAContainer { path: path.to_string(), part, type_name: value.type_name() }
}

/// Whether a container has to be made under `part`. A `null` in an array counts as a gap.
fn is_missing(value: &Value, part: &Part) -> bool {
    match value {
        Value::Object(_) => stored(value, part).is_none(),
        Value::Array(_) => stored(value, part).is_none_or(Value::is_null),
        _ => false,
    }
}

/// Wraps `value` in the containers that `parts` ask for: an array for an index, else an object.
fn build(parts: &[Part], value: Value, path: &PropertyPath) -> Result<Value, PathError> {
    parts.iter().rev().try_fold(value, |inner, part| {
        let mut container = match part {
            Part::Index(_) => Value::Array(Array::new()),
            _ => Value::Object(Object::new()),
        };
        put(&mut container, part, inner, path)?;
        Ok(container)
    })
}

/// Stores `value` in `container` under `part`.
fn put(container: &mut Value, part: &Part, value: Value, path: &PropertyPath) -> Result<(), PathError> {
    match container {
        Value::Object(object) => {
            match part {
                Part::Key(key) => object.insert(key, value),
                part => object.insert(as_key(part), value),
            };
            Ok(())
        }
        Value::Array(array) => match array_index(part) {
            Some(index) => put_item(array, index, value, path),
            None => Err(not_a_container(container, part, path)),
        },
        other => Err(not_a_container(other, part, path)),
    }
}

fn put_item(array: &mut Array, index: usize, value: Value, path: &PropertyPath) -> Result<(), PathError> {
    if let Some(slot) = (index < array.len()).then(|| &mut array.make_mut()[index]) {
        *slot = value;
        return Ok(());
    }
    // One more at the end is always allowed: that is how arrays grow.
    if index > array.len() && index >= MAX_ARRAY_LEN {
        return Err(PathError::IndexTooLarge { path: path.to_string(), index });
    }
    if index > array.len() {
        array.reserve(index + 1 - array.len());
    }
    while array.len() < index {
        array.push(Value::Null);
    }
    array.push(value);
    Ok(())
}

/// Removes what resolved parts lead to from `target`, which must be there.
fn delete(target: &mut Value, parts: &[Part]) -> Option<Value> {
    let (last, parents) = parts.split_last()?;
    let mut current = target;
    for part in parents {
        current = match current {
            Value::Object(object) => object.get_mut(&as_key(part))?,
            Value::Array(array) => array.make_mut().get_mut(array_index(part)?)?,
            _ => return None,
        };
    }
    match current {
        Value::Object(object) => object.remove(&as_key(last)),
        Value::Array(array) => {
            let index = array_index(last).filter(|index| *index < array.len())?;
            Some(array.remove(index))
        }
        _ => None,
    }
}

impl Value {
    /// Resolves references against this value, which then is the message.
    fn resolve<'a>(&self, path: &'a PropertyPath) -> Result<Cow<'a, PropertyPath>, PathError> {
        match self {
            Value::Object(msg) => path.resolve(msg),
            _ => path.resolve(&Object::new()),
        }
    }

    /// The value at `path`, if there is one; a clone, which shares what it holds. As in JavaScript,
    /// arrays, strings and buffers also have a `length`, and strings and buffers have items.
    ///
    /// References in the path are to this value. To follow a path elsewhere than in the message,
    /// [resolve](PropertyPath::resolve) it first.
    pub fn get_path(&self, path: &PropertyPath) -> Option<Value> {
        follow(self, &self.resolve(path).ok()?.parts)
    }

    /// Sets the value at `path`. Objects that are missing on the way are created, or arrays where
    /// the next part is an index; gaps in arrays are filled with `null`.
    ///
    /// # Errors
    /// When a reference in the path leads to nothing, something on the way is neither object nor
    /// array, or an array would exceed [`MAX_ARRAY_LEN`]. Then nothing has changed.
    pub fn set_path(&mut self, path: &PropertyPath, value: impl Into<Value>) -> Result<(), PathError> {
        let path = self.resolve(path)?;
        set(self, &path, value.into())
    }

    /// Removes the value at `path` and returns it; later items of an array move up.
    pub fn delete_path(&mut self, path: &PropertyPath) -> Option<Value> {
        let path = self.resolve(path).ok()?;
        // Looked up first, so that nothing shared is copied in vain.
        path.parts.iter().try_fold(&*self, stored)?;
        delete(self, &path.parts)
    }
}

impl Object {
    /// As [`Value::get_path`].
    pub fn get_path(&self, path: &PropertyPath) -> Option<Value> {
        let path = path.resolve(self).ok()?;
        let (first, rest) = path.parts.split_first()?;
        follow(self.get(&as_key(first))?, rest)
    }

    /// As [`Value::set_path`].
    ///
    /// # Errors
    /// As for [`Value::set_path`].
    pub fn set_path(&mut self, path: &PropertyPath, value: impl Into<Value>) -> Result<(), PathError> {
        self.as_value(|root| root.set_path(path, value))
    }

    /// As [`Value::delete_path`].
    pub fn delete_path(&mut self, path: &PropertyPath) -> Option<Value> {
        self.as_value(|root| root.delete_path(path))
    }

    /// Lends this object as a value to a function that leaves it an object.
    fn as_value<T>(&mut self, change: impl FnOnce(&mut Value) -> T) -> T {
        let mut root = Value::Object(std::mem::take(self));
        let outcome = change(&mut root);
        if let Value::Object(object) = root {
            *self = object;
        }
        outcome
    }
}
