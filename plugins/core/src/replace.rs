//! What the `change` rule looks for in a value, and its replacement as JavaScript's `replace` makes it.

use std::borrow::Cow;

use flowbay_sdk::{Error, Value};
use regex_lite::{Captures, Regex};

use crate::numbers;

/// A replacement may make a text longer; a text longer than this is refused, in bytes.
const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;

/// What to look for.
#[derive(Debug, Clone)]
pub enum Needle {
    /// A text, anywhere in a text.
    Text(String),
    /// A number: one that is equal, or its digits in a text.
    Number { text: String, number: f64 },
    /// A boolean: one that is equal, or its name in a text.
    Bool(String),
    /// What a regular expression matches in a text.
    Pattern(Regex),
}

impl Needle {
    /// A text that has been written in the flow file, with its type.
    ///
    /// # Errors
    /// It is a regular expression that is malformed or uses look-around or back-references, which are not
    /// supported: they may take forever.
    pub fn typed(text: String, kind: &str) -> Result<Self, Error> {
        Ok(match kind {
            "re" => Needle::Pattern(
                Regex::new(&text).map_err(|error| Error::new(format!("Invalid 'from' property: {error}")))?,
            ),
            "num" => Needle::Number { number: numbers::number(&Value::from(&text)), text },
            "bool" => Needle::Bool(text),
            _ => Needle::Text(text),
        })
    }

    /// A value found in a message or a context store.
    ///
    /// # Errors
    /// It is neither text, number nor boolean.
    pub fn found(value: Option<&Value>) -> Result<Self, Error> {
        match value {
            Some(Value::Str(text)) => Ok(Needle::Text(text.to_string())),
            Some(number @ (Value::Int(_) | Value::Float(_))) => {
                Ok(Needle::Number { text: number.to_js_string(), number: numbers::number(number) })
            }
            Some(Value::Bool(flag)) => Ok(Needle::Bool(flag.to_string())),
            other => {
                let kind = if other.is_none() { "undefined" } else { "object" };
                Err(Error::new(format!("Invalid 'from' property: unsupported type: {kind}")))
            }
        }
    }

    /// What becomes of `current` when this is replaced by `to` (`None` is `undefined`); `None` when nothing does.
    ///
    /// # Errors
    /// The text would become too long.
    pub fn replace(&self, current: &Value, to: Option<&Value>) -> Result<Option<Replaced>, Error> {
        match (current, self) {
            (Value::Str(text), _) if self.is_exactly(text) => Ok(Some(Replaced::Whole)),
            (Value::Str(text), _) => {
                let template = match to {
                    None => Cow::Borrowed("undefined"),
                    Some(Value::Str(text)) => Cow::Borrowed(text.as_str()),
                    Some(other) => Cow::Owned(other.to_js_string()),
                };
                match self.replace_in(text, &template)? {
                    Cow::Borrowed(_) => Ok(None),
                    // "true" that became so by a boolean's name is that boolean.
                    Cow::Owned(text) if matches!(to, Some(Value::Bool(_))) && text == *template => {
                        Ok(Some(Replaced::Whole))
                    }
                    Cow::Owned(text) => Ok(Some(Replaced::Text(text))),
                }
            }
            (Value::Int(_) | Value::Float(_), Needle::Number { number, .. }) => {
                Ok((current.as_f64() == Some(*number)).then_some(Replaced::Whole))
            }
            (Value::Bool(flag), Needle::Bool(name)) => {
                Ok((name == if *flag { "true" } else { "false" }).then_some(Replaced::Whole))
            }
            _ => Ok(None),
        }
    }

    fn is_exactly(&self, text: &str) -> bool {
        match self {
            Needle::Text(needle) | Needle::Bool(needle) | Needle::Number { text: needle, .. } => {
                needle == text
            }
            Needle::Pattern(_) => false,
        }
    }

    fn replace_in<'a>(&self, text: &'a str, template: &str) -> Result<Cow<'a, str>, Error> {
        let mut out = Output { text, out: String::new(), copied: 0, found: false };
        let plain = !template.contains('$');
        match self {
            Needle::Pattern(regex) if plain => {
                for found in regex.find_iter(text) {
                    out.replace(found.start(), found.end(), |out| out.push(template))?;
                }
            }
            Needle::Pattern(regex) => {
                for captures in regex.captures_iter(text) {
                    let Some(all) = captures.get(0) else { continue };
                    let (start, end) = (all.start(), all.end());
                    let groups = Some((regex, &captures));
                    out.replace(start, end, |out| expand(template, (start, end), groups, out))?;
                }
            }
            Needle::Text(needle) | Needle::Bool(needle) | Needle::Number { text: needle, .. } => {
                for (start, found) in text.match_indices(needle.as_str()) {
                    let end = start + found.len();
                    out.replace(start, end, |out| match plain {
                        true => out.push(template),
                        false => expand(template, (start, end), None, out),
                    })?;
                }
            }
        }
        out.finish()
    }
}

/// What becomes of a value.
#[derive(Debug, PartialEq)]
pub enum Replaced {
    /// It is replaced as a whole and takes the replacement's type.
    Whole,
    /// It stays text.
    Text(String),
}

/// A text that is copied with replacements.
struct Output<'a> {
    text: &'a str,
    out: String,
    /// Up to where `text` is in `out`.
    copied: usize,
    found: bool,
}

impl<'a> Output<'a> {
    /// Replaces the text from `start` to `end` by what `write` pushes.
    fn replace(
        &mut self,
        start: usize,
        end: usize,
        write: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.found = true;
        self.push(&self.text[self.copied..start])?;
        self.copied = end;
        write(self)
    }

    fn push(&mut self, part: &str) -> Result<(), Error> {
        if self.out.len() + part.len() > MAX_TEXT_BYTES {
            return Err(Error::new(format!("the replaced text would be longer than {MAX_TEXT_BYTES} bytes")));
        }
        self.out.push_str(part);
        Ok(())
    }

    fn finish(mut self) -> Result<Cow<'a, str>, Error> {
        if !self.found {
            return Ok(Cow::Borrowed(self.text));
        }
        self.push(&self.text[self.copied..])?;
        Ok(Cow::Owned(self.out))
    }
}

/// Appends a replacement in which JavaScript's patterns stand for parts of the text: `$$` for `$`, `$&` for the
/// match, `` $` `` and `$'` for what is before and after it, `$1` and `$<name>` for groups.
fn expand(
    template: &str,
    (start, end): (usize, usize),
    groups: Option<(&Regex, &Captures<'_>)>,
    out: &mut Output<'_>,
) -> Result<(), Error> {
    let text = out.text;
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push(before)?;
        let (part, len) = match after.as_bytes().first() {
            Some(b'$') => ("$", 1),
            Some(b'&') => (&text[start..end], 1),
            Some(b'`') => (&text[..start], 1),
            Some(b'\'') => (&text[end..], 1),
            _ => groups.and_then(|(regex, captures)| group(after, regex, captures)).unwrap_or(("$", 0)),
        };
        out.push(part)?;
        rest = &after[len..];
    }
    out.push(rest)
}

/// The group that `after` names at its beginning (behind a `$`), and the length of the name. A group that took no
/// part in the match is empty.
fn group<'t>(after: &str, regex: &Regex, captures: &Captures<'t>) -> Option<(&'t str, usize)> {
    if let Some((name, _)) = after.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        // Without named groups in the pattern, `$<` is no pattern of the replacement.
        regex.capture_names().flatten().next()?;
        return Some((captures.name(name).map_or("", |found| found.as_str()), name.len() + 2));
    }
    let digits = after.bytes().take(2).take_while(u8::is_ascii_digit).count();
    // Two digits if there are so many groups, else one.
    (1..=digits).rev().find_map(|len| {
        let number: usize = after[..len].parse().ok()?;
        (number > 0 && number < captures.len())
            .then(|| (captures.get(number).map_or("", |found| found.as_str()), len))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(current: &str, from: &str, kind: &str, to: &str) -> Value {
        let needle = Needle::typed(from.to_owned(), kind).unwrap();
        match needle.replace(&current.into(), Some(&to.into())).unwrap() {
            None => "(unchanged)".into(),
            Some(Replaced::Whole) => to.into(),
            Some(Replaced::Text(text)) => text.into(),
        }
    }

    #[test]
    fn all_occurrences_of_a_text_are_replaced() {
        for (current, from, to, expected) in [
            ("Hello World!", "Hello", "Goodbye", "Goodbye World!"),
            ("a.b.c", ".", "-", "a-b-c"),
            ("aaa", "aa", "b", "ba"),
            ("abc", "", "-", "-a-b-c-"),
            ("abc", "x", "y", "(unchanged)"),
            ("abc", "b", "[$&$$$`$']", "a[b$ac]c"),
            ("abc", "b", "$1$<n>$", "a$1$<n>$c"),
        ] {
            assert_eq!(replaced(current, from, "str", to), expected, "{current} {from} {to}");
        }
    }

    #[test]
    fn a_pattern_replaces_with_its_groups() {
        for (current, from, to, expected) in [
            ("abc123def", r"[0-9]+", "#", "abc#def"),
            ("3-2", r"(\d)-(\d)", "$2-$1", "2-3"),
            ("ab", "(a)", "$10$2$0", "a0$2$0b"),
            ("john smith", r"(?<first>\w+) (?<last>\w+)", "$<last>, $<first>$<no>", "smith, john"),
            ("xyx", "(x)|(y)", "[$1]", "[x][][x]"),
            ("abc", r"\d", "#", "(unchanged)"),
            ("éa", "a", "ü$é", "éü$é"),
        ] {
            assert_eq!(replaced(current, from, "re", to), expected, "{current} {from} {to}");
        }
    }

    #[test]
    fn numbers_and_booleans_match_whole_values_or_their_text() {
        let ten = Needle::typed("10".to_owned(), "num").unwrap();
        let to = Value::from("x");
        assert_eq!(ten.replace(&Value::Int(10), Some(&to)).unwrap(), Some(Replaced::Whole));
        assert_eq!(ten.replace(&Value::Int(11), Some(&to)).unwrap(), None);
        assert_eq!(ten.replace(&"10".into(), Some(&to)).unwrap(), Some(Replaced::Whole));
        assert_eq!(ten.replace(&"a10b".into(), Some(&to)).unwrap(), Some(Replaced::Text("axb".to_owned())));
        let yes = Needle::found(Some(&Value::Bool(true))).unwrap();
        assert_eq!(yes.replace(&Value::Bool(true), Some(&to)).unwrap(), Some(Replaced::Whole));
        assert_eq!(yes.replace(&Value::Bool(false), Some(&to)).unwrap(), None);
        assert_eq!(yes.replace(&Value::Int(1), Some(&to)).unwrap(), None);
    }

    #[test]
    fn a_text_that_becomes_a_boolean_is_one() {
        let pattern = Needle::typed("^.*$".to_owned(), "re").unwrap();
        let to = Value::Bool(true);
        assert_eq!(pattern.replace(&"abc".into(), Some(&to)).unwrap(), Some(Replaced::Whole));
    }

    #[test]
    fn a_replacement_cannot_grow_without_bound() {
        let needle = Needle::Text("a".to_owned());
        let current = Value::from("a".repeat(10_000));
        let to = Value::from("b".repeat(10_000));
        assert!(needle.replace(&current, Some(&to)).unwrap_err().text().contains("longer"));
    }

    #[test]
    fn what_cannot_be_looked_for_is_named() {
        let unsupported = |value: Option<Value>| Needle::found(value.as_ref()).unwrap_err().to_string();
        assert_eq!(unsupported(None), "Invalid 'from' property: unsupported type: undefined");
        assert_eq!(unsupported(Some(Value::Null)), "Invalid 'from' property: unsupported type: object");
        assert!(
            Needle::typed("(".to_owned(), "re").unwrap_err().text().starts_with("Invalid 'from' property: ")
        );
        assert!(Needle::typed("(?=a)".to_owned(), "re").is_err(), "look-ahead");
    }
}
