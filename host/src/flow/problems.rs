//! What is wrong with a flow file, entry by entry. A problem never stops the rest of the file.

use std::collections::HashSet;
use std::fmt;

/// Beyond this many problems the rest is only counted: a file that is wrong throughout must not fill the log.
const MAX_PROBLEMS: usize = 1_000;

/// How much of an id or a value from the file is shown. Real ids have 16 characters.
const SHOWN_CHARS: usize = 80;

/// Longer ids are cut in problems: a thousand problems of one node must not be a thousand copies of a megabyte.
const MAX_ID_CHARS: usize = 1_000;

/// How serious a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Something is ignored; every node runs.
    Warning,
    /// A node, or part of its configuration, is left out.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Warning => "warning",
            Level::Error => "error",
        })
    }
}

/// One thing wrong with one entry of a flow file.
///
/// `Display` gives one line, `<type> <id>: <text>`, without the level. Problems inside a subflow name the node of the
/// definition, once, however many instances there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// How serious it is.
    pub level: Level,
    /// Id of the entry as it stands in the file (its first 1,000 characters); `entry <n>` (counted from 1) when it has none.
    pub node_id: String,
    /// Its `type`; empty when it has none.
    pub node_type: String,
    /// What is wrong and what follows from it; no full stop at the end.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.node_type.is_empty() {
            write!(f, "{}: {}", shown(&self.node_id), self.text)
        } else {
            write!(f, "{} {}: {}", shown(&self.node_type), shown(&self.node_id), self.text)
        }
    }
}

/// Text from a flow file in a form fit for one line of a log: control characters escaped, long text cut.
pub(super) fn shown(text: &str) -> String {
    let mut line = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == SHOWN_CHARS {
            line.push('…');
            break;
        }
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// An id as it is, unless it is far longer than any real one.
fn cut(id: &str) -> String {
    id.chars().take(MAX_ID_CHARS).collect()
}

/// Problems in the order in which they were found, each once.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    seen: HashSet<Problem>,
    left_out: usize,
}

impl Problems {
    pub(super) fn error(&mut self, node_id: &str, node_type: &str, text: impl Into<String>) {
        self.push(Level::Error, node_id, node_type, text.into());
    }

    pub(super) fn warning(&mut self, node_id: &str, node_type: &str, text: impl Into<String>) {
        self.push(Level::Warning, node_id, node_type, text.into());
    }

    pub(super) fn extend(&mut self, problems: &[Problem]) {
        for problem in problems {
            self.add(problem.clone());
        }
    }

    fn push(&mut self, level: Level, node_id: &str, node_type: &str, text: String) {
        self.add(Problem { level, node_id: cut(node_id), node_type: cut(node_type), text });
    }

    fn add(&mut self, problem: Problem) {
        if self.list.len() >= MAX_PROBLEMS {
            self.left_out += 1;
        } else if self.seen.insert(problem.clone()) {
            self.list.push(problem);
        }
    }

    pub(super) fn into_list(mut self) -> Vec<Problem> {
        if self.left_out > 0 {
            self.list.push(Problem {
                level: Level::Warning,
                node_id: "flow file".to_owned(),
                node_type: String::new(),
                text: format!("{} more problems are not listed", self.left_out),
            });
        }
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_that_names_type_and_id() {
        let mut problems = Problems::default();
        problems.error("ab\ncd", "debug", "duplicate id");
        assert_eq!(problems.into_list()[0].to_string(), "debug ab\\ncd: duplicate id");
    }

    #[test]
    fn a_problem_is_listed_once_and_a_flood_of_problems_is_counted() {
        let mut problems = Problems::default();
        for number in 0..MAX_PROBLEMS + 5 {
            problems.warning(&number.to_string(), "debug", "odd");
            problems.warning("0", "debug", "odd");
        }
        let list = problems.into_list();
        assert_eq!(list.len(), MAX_PROBLEMS + 1);
        assert!(list[MAX_PROBLEMS].text.contains("more problems"), "{}", list[MAX_PROBLEMS]);
    }
}
