//! The flow file: Node-RED's JSON array, read and written without losing anything.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::credentials::Credentials;
use super::problems::{Problem, Problems};

/// Longest flow text that [`FlowFile::parse`] takes, in bytes. The largest flow files in use are a few megabytes;
/// parsed JSON can take forty times its text, so this also bounds memory.
pub const MAX_FLOW_FILE_BYTES: usize = 16 * 1024 * 1024;

/// Deepest nesting of arrays and objects. serde_json's own bound, and the bound of every recursion in this module.
const MAX_NESTING: usize = 128;

/// A flow file as it was given: every entry, in order, with every property.
///
/// Nothing is interpreted here; [`FlowGraph::build`](super::FlowGraph::build) does that. The one thing removed is the
/// property `credentials` of an entry, which must never reach the flow file on disk: see [`FlowFile::credentials`].
/// Cloning is cheap. The default is the empty set of flows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FlowFile {
    entries: Arc<Vec<Value>>,
    credentials: Credentials,
    /// Entries that carried credentials which are new: a deploy of them.
    given: Arc<HashSet<String>>,
    problems: Arc<Vec<Problem>>,
}

/// How [`FlowFile::to_json`] lays the text out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Indented by four spaces (`flowFilePretty`).
    Pretty,
    /// No white space at all; the form that [`FlowFile::rev`] hashes.
    Compact,
}

/// Why a text is not a flow file at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowFileError {
    /// The text is longer than the limit; both in bytes.
    TooLarge {
        /// Length of the text.
        bytes: usize,
        /// The limit it exceeds.
        limit: usize,
    },
    /// There is nothing in it.
    Empty,
    /// It is not JSON, or nested too deeply to be read.
    NotJson {
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error, from 1.
        column: usize,
        /// What the parser met there.
        reason: String,
    },
    /// It is JSON, but not an array.
    NotAnArray {
        /// What it is instead: `an object`, `a string`, ….
        found: &'static str,
    },
    /// A value that was not parsed here is nested too deeply.
    TooDeep,
}

impl fmt::Display for FlowFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, limit } => {
                write!(f, "the flow file has {bytes} bytes, more than the limit of {limit}")
            }
            Self::Empty => f.write_str("the flow file is empty; an empty set of flows is written []"),
            Self::NotJson { line, column, reason } => {
                write!(f, "the flow file is not JSON: {reason} at line {line}, column {column}")
            }
            Self::NotAnArray { found } => {
                write!(f, "the flow file holds {found}, but must be an array of nodes")
            }
            Self::TooDeep => write!(f, "the flow file is nested more than {MAX_NESTING} levels deep"),
        }
    }
}

impl std::error::Error for FlowFileError {}

impl FlowFile {
    /// The empty set of flows: what a missing flow file stands for.
    pub fn empty() -> FlowFile {
        FlowFile::default()
    }

    /// Reads the text of a flow file of at most [`MAX_FLOW_FILE_BYTES`].
    ///
    /// Entries that are no objects, or that lack a string `id` or `type`, are kept and reported by
    /// [`problems`](Self::problems).
    ///
    /// # Errors
    /// When the text is empty, too large, not JSON, or not an array.
    pub fn parse(text: &str) -> Result<FlowFile, FlowFileError> {
        Self::parse_within(text, MAX_FLOW_FILE_BYTES)
    }

    /// As [`parse`](Self::parse), with another limit on the length of the text, in bytes.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    pub fn parse_within(text: &str, limit: usize) -> Result<FlowFile, FlowFileError> {
        if text.len() > limit {
            return Err(FlowFileError::TooLarge { bytes: text.len(), limit });
        }
        // Editors on Windows put a byte order mark in front; JSON itself does not allow one.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(FlowFileError::Empty);
        }
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let full = error.to_string();
            let reason = full.split(" at line ").next().unwrap_or(&full).to_owned();
            FlowFileError::NotJson { line: error.line(), column: error.column(), reason }
        })?;
        Self::from_value(value)
    }

    /// Takes a flow array that is already parsed, as the admin API has it.
    ///
    /// # Errors
    /// When the value is not an array, or nested deeper than 128 levels.
    pub fn from_value(value: Value) -> Result<FlowFile, FlowFileError> {
        let found = match &value {
            Value::Array(_) => None,
            Value::Null => Some("null"),
            Value::Bool(_) => Some("a boolean"),
            Value::Number(_) => Some("a number"),
            Value::String(_) => Some("a string"),
            Value::Object(_) => Some("an object"),
        };
        if let Some(found) = found {
            return Err(FlowFileError::NotAnArray { found });
        }
        if deeper_than(&value, MAX_NESTING) {
            return Err(FlowFileError::TooDeep);
        }
        let Value::Array(mut entries) = value else { return Err(FlowFileError::TooDeep) };

        let mut credentials = Map::new();
        let mut problems = Problems::default();
        for (index, entry) in entries.iter_mut().enumerate() {
            let place = format!("entry {}", index + 1);
            let Value::Object(properties) = entry else {
                problems.error(&place, "", "is not an object and is ignored");
                continue;
            };
            let given = properties.shift_remove("credentials");
            let id = properties.get("id").and_then(Value::as_str);
            let node_type = properties.get("type").and_then(Value::as_str);
            match (id, node_type) {
                (Some(id), Some(_)) => {
                    if let Some(given) = given {
                        credentials.insert(id.to_owned(), given);
                    }
                }
                (None, node_type) => {
                    problems.error(
                        &place,
                        node_type.unwrap_or(""),
                        "has no id that is a string and is ignored",
                    );
                }
                (Some(id), None) => problems.error(id, "", "has no type that is a string and is ignored"),
            }
        }
        Ok(FlowFile {
            entries: Arc::new(entries),
            given: Arc::new(credentials.keys().cloned().collect()),
            credentials: Credentials::new(credentials),
            problems: Arc::new(problems.into_list()),
        })
    }

    /// The entries in file order, without `credentials`.
    pub fn entries(&self) -> &[Value] {
        &self.entries
    }

    /// The entries, shared: a graph keeps them to compare itself with the next one.
    pub(super) fn shared_entries(&self) -> Arc<Vec<Value>> {
        Arc::clone(&self.entries)
    }

    /// This file with the credentials that are kept apart from it, by the id of the node (tab, group, subflow) that
    /// they are for. What entries carry themselves goes before that, field by field.
    ///
    /// For a file that lies on disk: what its entries carry is no deploy of new credentials, as it is without this
    /// call. A node restarts when its credentials are others than before.
    #[must_use]
    pub fn with_stored_credentials(self, stored: Map<String, Value>) -> FlowFile {
        FlowFile { credentials: self.credentials.over(stored), given: Arc::default(), ..self }
    }

    /// The credentials, by node id. Secret: never write them to the flow file or to a log.
    pub fn credentials(&self) -> &Map<String, Value> {
        self.credentials.by_id()
    }

    pub(super) fn shared_credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// Whether the entry carried credentials that are a deploy of new ones.
    pub(super) fn gives_credentials(&self, id: &str) -> bool {
        self.given.contains(id)
    }

    /// Entries that cannot be used at all. [`FlowGraph::build`](super::FlowGraph::build) reports them again, first.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The file as text, with everything that was given, in the order given, except credentials.
    pub fn to_json(&self, layout: Layout) -> String {
        let mut text = Vec::new();
        let written = match layout {
            Layout::Compact => serde_json::to_writer(&mut text, &*self.entries),
            Layout::Pretty => {
                let indented = PrettyFormatter::with_indent(b"    ");
                self.entries.serialize(&mut serde_json::Serializer::with_formatter(&mut text, indented))
            }
        };
        written.expect("JSON values are written to memory without error");
        String::from_utf8(text).expect("serde_json writes UTF-8")
    }

    /// Revision: the SHA-256 of the compact JSON, as 64 lower-case hexadecimal digits.
    pub fn rev(&self) -> String {
        let digest = Sha256::digest(self.to_json(Layout::Compact));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Whether `value` nests deeper than `levels`. Recurses no deeper than that.
fn deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| deeper_than(item, levels - 1)),
        Value::Object(map) => levels == 0 || map.values().any(|item| deeper_than(item, levels - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ECHO: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../flows/websocket-echo.json"));

    #[test]
    fn the_seed_file_is_written_back_byte_for_byte() {
        let file = FlowFile::parse(ECHO).unwrap();
        assert_eq!(file.to_json(Layout::Pretty), ECHO.trim_end());
        assert_eq!(file.problems(), []);
    }

    #[test]
    fn unknown_properties_types_orphans_and_order_survive() {
        let text = r#"[{"zz":1,"id":"a","odd":{"b":[null,1.5,"ü\u0007"],"a":{}},"type":"no such type"},7,{"id":3},{"type":"x","z":"nowhere"}]"#;
        let file = FlowFile::parse(text).unwrap();
        assert_eq!(file.to_json(Layout::Compact), text);
        let again = FlowFile::parse(&file.to_json(Layout::Pretty)).unwrap();
        assert_eq!(again.to_json(Layout::Compact), text);
    }

    /// Needs serde_json's feature `float_roundtrip`: without it one in seven such numbers comes out changed.
    #[test]
    fn numbers_with_many_digits_survive() {
        let mut state = 1u64;
        let numbers = (0..2_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{}", (state >> 11) as f64 / (1u64 << 44) as f64 + 0.1)
        });
        let text = format!("[{{\"x\":[{}]}}]", numbers.collect::<Vec<_>>().join(","));
        assert_eq!(FlowFile::parse(&text).unwrap().to_json(Layout::Compact), text);
    }

    #[test]
    fn credentials_are_taken_out_and_kept_apart() {
        let text = r#"[{"id":"a","credentials":{"user":"u"},"type":"t","name":"n"}]"#;
        let file = FlowFile::parse(text).unwrap();
        assert_eq!(file.to_json(Layout::Compact), r#"[{"id":"a","type":"t","name":"n"}]"#);
        assert_eq!(file.credentials()["a"], json!({"user": "u"}));
    }

    #[test]
    fn rev_is_the_sha_256_of_the_compact_text() {
        let empty = FlowFile::parse(" [\n] ").unwrap();
        assert_eq!(empty.rev(), "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945");
        let spaced = FlowFile::parse("[ {\"id\" : \"a\"} ]").unwrap();
        assert_eq!(spaced.rev(), FlowFile::parse("[{\"id\":\"a\"}]").unwrap().rev());
    }

    #[test]
    fn text_that_is_no_flow_file_gets_one_clear_line() {
        let cases = [
            ("", "the flow file is empty; an empty set of flows is written []"),
            (" \n", "the flow file is empty; an empty set of flows is written []"),
            ("[\n  {\"id\": }\n]", "the flow file is not JSON: expected value at line 2, column 10"),
            ("{\"flows\":[]}", "the flow file holds an object, but must be an array of nodes"),
            ("\"x\"", "the flow file holds a string, but must be an array of nodes"),
            ("null", "the flow file holds null, but must be an array of nodes"),
        ];
        for (text, expected) in cases {
            assert_eq!(FlowFile::parse(text).unwrap_err().to_string(), expected, "for {text:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(FlowFile::parse("\u{feff}[]").unwrap().entries().len(), 0);
    }

    #[test]
    fn nesting_without_end_is_an_error_and_not_a_stack_overflow() {
        let deep = "[".repeat(1_000_000);
        assert!(matches!(FlowFile::parse(&deep), Err(FlowFileError::NotJson { .. })));

        let mut value = json!([]);
        for _ in 0..MAX_NESTING {
            value = json!([value]);
        }
        assert_eq!(FlowFile::from_value(value), Err(FlowFileError::TooDeep));
    }

    #[test]
    fn a_text_beyond_the_limit_is_refused_before_it_is_parsed() {
        let error = FlowFile::parse_within("[1,2,3]", 6).unwrap_err();
        assert_eq!(error, FlowFileError::TooLarge { bytes: 7, limit: 6 });
    }

    #[test]
    fn entries_without_id_or_type_are_reported_by_place() {
        let file = FlowFile::parse(r#"[7, {"type":"debug"}, {"id":"a"}, {"id":5,"type":"x"}]"#).unwrap();
        let lines: Vec<String> = file.problems().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "entry 1: is not an object and is ignored",
                "debug entry 2: has no id that is a string and is ignored",
                "a: has no type that is a string and is ignored",
                "x entry 4: has no id that is a string and is ignored",
            ]
        );
    }
}
