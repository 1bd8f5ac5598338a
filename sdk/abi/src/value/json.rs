//! JSON in and out, as JavaScript's `JSON.parse` and `JSON.stringify` see it.

use std::fmt;

use serde::Deserialize;

use super::number::push_integer;
use super::{Blob, Value};

/// How deeply arrays and objects may be nested in JSON, read or written, and in what serde
/// converts. One less than the depth that serde_json's parser refuses.
pub const MAX_DEPTH: usize = 127;

/// The most bytes of JSON that one value is written as. Since clones share memory, a small value
/// can stand for an exponentially long text; Node.js stops at the same size, its longest string.
pub const MAX_JSON_BYTES: usize = 512 << 20;

/// Why a value was not read from JSON or written as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonError {
    /// The text is not JSON; the message says why, and where.
    Syntax(String),
    /// Arrays and objects are nested more than [`MAX_DEPTH`] deep.
    TooDeep,
    /// The text would be longer than [`MAX_JSON_BYTES`], or than the limit that was given.
    TooLarge,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::Syntax(message) => f.write_str(message),
            JsonError::TooDeep => write!(f, "nested more than {MAX_DEPTH} levels deep"),
            JsonError::TooLarge => f.write_str("too large to be written as JSON"),
        }
    }
}

impl std::error::Error for JsonError {}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        let message = error.to_string();
        // serde_json does not tell this error from others except by its text.
        if message.starts_with("recursion limit exceeded") {
            JsonError::TooDeep
        } else {
            JsonError::Syntax(message)
        }
    }
}

impl Value {
    /// Reads one JSON text. Whole numbers that fit `i64` stay exact; of a repeated name the last
    /// value counts.
    ///
    /// # Errors
    /// When it is not JSON in UTF-8, or is nested too deeply.
    pub fn from_json(json: &[u8]) -> Result<Value, JsonError> {
        let mut parser = serde_json::Deserializer::from_slice(json);
        let value = Value::deserialize(&mut parser)?;
        parser.end()?;
        Ok(value)
    }

    /// The value as `JSON.stringify` writes it: no spaces, `1` for 1.0, `null` for NaN, infinities
    /// and handles, `{"type":"Buffer","data":[…]}` for bytes.
    ///
    /// # Errors
    /// When it is nested too deeply or the text would exceed [`MAX_JSON_BYTES`].
    pub fn to_json(&self) -> Result<String, JsonError> {
        let mut out = Vec::with_capacity(128);
        self.write_json(&mut out)?;
        Ok(into_string(out))
    }

    /// As [`Value::to_json`], with an indent of `spaces` per level, like `JSON.stringify(x, null, spaces)`.
    ///
    /// # Errors
    /// As for [`Value::to_json`].
    pub fn to_json_pretty(&self, spaces: usize) -> Result<String, JsonError> {
        let mut out = Vec::with_capacity(128);
        Writer { out: &mut out, limit: MAX_JSON_BYTES, indent: Some(spaces) }.value(self, 0)?;
        Ok(into_string(out))
    }

    /// Appends what [`Value::to_json`] returns.
    ///
    /// # Errors
    /// As for [`Value::to_json`]; `out` is then as it was.
    pub fn write_json(&self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.write_json_within(out, MAX_JSON_BYTES)
    }

    /// As [`Value::write_json`], with a limit in bytes for what is appended.
    ///
    /// # Errors
    /// As for [`Value::write_json`].
    pub fn write_json_within(&self, out: &mut Vec<u8>, max_bytes: usize) -> Result<(), JsonError> {
        let start = out.len();
        let limit = start.saturating_add(max_bytes);
        let written = Writer { out, limit, indent: None }.value(self, 0);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }
}

fn into_string(json: Vec<u8>) -> String {
    String::from_utf8(json).expect("JSON made of strings and ASCII is UTF-8")
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// The length of `out` that may not be exceeded.
    limit: usize,
    /// Spaces per level, or everything on one line.
    indent: Option<usize>,
}

impl Writer<'_> {
    /// Recursive, which [`MAX_DEPTH`] bounds.
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), JsonError> {
        match value {
            Value::Null | Value::Handle(_) => self.out.extend_from_slice(b"null"),
            Value::Bool(true) => self.out.extend_from_slice(b"true"),
            Value::Bool(false) => self.out.extend_from_slice(b"false"),
            Value::Int(value) => push_integer(self.out, *value),
            Value::Float(value) if value.is_finite() => {
                self.out.extend_from_slice(ryu_js::Buffer::new().format_finite(*value).as_bytes());
            }
            Value::Float(_) => self.out.extend_from_slice(b"null"),
            Value::Str(value) => self.string(value)?,
            Value::Bytes(value) => self.bytes(value, depth)?,
            Value::Array(array) => {
                self.open(b'[', depth)?;
                for (index, item) in array.iter().enumerate() {
                    self.separate(index, depth + 1);
                    self.value(item, depth + 1)?;
                }
                self.close(b']', array.len(), depth);
            }
            Value::Object(object) => {
                self.open(b'{', depth)?;
                for (index, (key, value)) in object.iter().enumerate() {
                    self.separate(index, depth + 1);
                    self.string(key)?;
                    self.colon();
                    self.value(value, depth + 1)?;
                }
                self.close(b'}', object.len(), depth);
            }
        }
        self.check(0)
    }

    /// Fails when `more` bytes have no room.
    #[inline]
    fn check(&self, more: usize) -> Result<(), JsonError> {
        if self.out.len().saturating_add(more) > self.limit { Err(JsonError::TooLarge) } else { Ok(()) }
    }

    #[inline]
    fn open(&mut self, bracket: u8, depth: usize) -> Result<(), JsonError> {
        if depth >= MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.out.push(bracket);
        Ok(())
    }

    #[inline]
    fn close(&mut self, bracket: u8, items: usize, depth: usize) {
        if items > 0 {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    #[inline]
    fn separate(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push(b',');
        }
        self.new_line(depth);
    }

    #[inline]
    fn colon(&mut self) {
        self.out.extend_from_slice(if self.indent.is_some() { b": " } else { b":" });
    }

    #[inline]
    fn new_line(&mut self, depth: usize) {
        if let Some(spaces) = self.indent {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + spaces * depth, b' ');
        }
    }

    fn bytes(&mut self, bytes: &Blob, depth: usize) -> Result<(), JsonError> {
        // At least a digit and a comma each.
        self.check(bytes.len().saturating_mul(2))?;
        self.open(b'{', depth)?;
        self.separate(0, depth + 1);
        self.string("type")?;
        self.colon();
        self.string("Buffer")?;
        self.separate(1, depth + 1);
        self.string("data")?;
        self.colon();
        self.out.push(b'[');
        for (index, byte) in bytes.iter().enumerate() {
            self.separate(index, depth + 2);
            push_integer(self.out, i64::from(*byte));
        }
        self.close(b']', bytes.len(), depth + 1);
        self.close(b'}', 2, depth);
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), JsonError> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bytes = text.as_bytes();
        self.check(bytes.len())?;
        self.out.push(b'"');
        let mut plain = 0;
        for (index, &byte) in bytes.iter().enumerate() {
            let escape = match byte {
                b'"' | b'\\' => byte,
                0x08 => b'b',
                0x09 => b't',
                0x0a => b'n',
                0x0c => b'f',
                0x0d => b'r',
                0x00..=0x1f => b'u',
                _ => continue,
            };
            self.out.extend_from_slice(&bytes[plain..index]);
            self.out.extend_from_slice(&[b'\\', escape]);
            if escape == b'u' {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                self.out.extend_from_slice(&[b'0', b'0', high, low]);
            }
            plain = index + 1;
        }
        self.out.extend_from_slice(&bytes[plain..]);
        self.out.push(b'"');
        Ok(())
    }
}
