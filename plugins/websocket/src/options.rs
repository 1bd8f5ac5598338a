//! Optional properties of a configuration node, read with care: one that is absent or left empty in the editor has its
//! default, one that makes no sense is an error that names it. A limit that was mistyped must not become another one
//! in silence.

use std::ops::RangeInclusive;

use flowbay_sdk::{Error, Value};

/// The properties of a node, to be read by name.
#[derive(Clone, Copy)]
pub struct Options<'a>(pub &'a Value);

impl<'a> Options<'a> {
    /// The property, unless it is absent, null or an empty text.
    fn given(&self, name: &str) -> Option<&'a Value> {
        let value = self.0.get(name)?;
        let empty = match value {
            Value::Null => true,
            Value::Str(text) => text.trim().is_empty(),
            _ => false,
        };
        (!empty).then_some(value)
    }

    /// A number, also as text, as the editor writes it.
    fn number(&self, name: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.given(name) else { return Ok(None) };
        let number = match value {
            Value::Int(_) | Value::Float(_) => value.as_f64(),
            Value::Str(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| wrong(name, value, "is not a number"))
    }

    /// A whole number in a range; `None` when it is not given.
    ///
    /// # Errors
    /// It is no whole number, or not in the range.
    pub fn whole(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Error> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        // Below 2^53 each whole number is one of these.
        if number.fract() == 0.0 && number >= *range.start() as f64 && number <= *range.end() as f64 {
            return Ok(Some(number as u64));
        }
        let must = format!("must be a whole number from {} to {}", range.start(), range.end());
        Err(wrong(name, &Value::from(number), &must))
    }

    /// A time in seconds, which may have a fraction, as milliseconds; `None` when it is not given. At most a day,
    /// which is long enough for all that is waited for here.
    ///
    /// # Errors
    /// It is no number, negative, or too long.
    pub fn seconds_ms(&self, name: &str) -> Result<Option<u64>, Error> {
        const DAY: f64 = 86_400.0;
        let Some(seconds) = self.number(name)? else { return Ok(None) };
        if (0.0..=DAY).contains(&seconds) {
            // Rounded up: the shortest time is not none at all.
            return Ok(Some((seconds * 1000.0).ceil() as u64));
        }
        Err(wrong(name, &Value::from(seconds), "must be from 0 to 86400 seconds"))
    }

    /// Whether a box is ticked; `None` when it is not given.
    ///
    /// # Errors
    /// It is neither true nor false, not even as text.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::Str(text)) if &**text == "true" => Ok(Some(true)),
            Some(Value::Str(text)) if &**text == "false" => Ok(Some(false)),
            Some(value) => Err(wrong(name, value, "must be true or false")),
        }
    }

    /// One of several named choices; `None` when it is not given.
    ///
    /// # Errors
    /// It is none of them.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(value) = self.given(name) else { return Ok(None) };
        let chosen = choices.iter().find(|(choice, _)| value.as_str().map(str::trim) == Some(*choice));
        chosen.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
            wrong(name, value, &format!("must be one of {}", names.join(", ")))
        })
    }

    /// A list: texts, or one text with commas. Empty parts do not count.
    ///
    /// # Errors
    /// It is neither.
    pub fn list(&self, name: &str) -> Result<Vec<String>, Error> {
        let wrong = |value| wrong(name, value, "must be a list of texts");
        let texts: Vec<&str> = match self.given(name) {
            None => Vec::new(),
            Some(Value::Str(text)) => text.split(',').collect(),
            Some(Value::Array(items)) => {
                items.iter().map(|item| item.as_str().ok_or_else(|| wrong(item))).collect::<Result<_, _>>()?
            }
            Some(value) => return Err(wrong(value)),
        };
        let parts = texts.into_iter().map(str::trim).filter(|part| !part.is_empty());
        Ok(parts.map(str::to_owned).collect())
    }
}

/// How much of a wrong value an error shows.
const SHOWN_CHARS: usize = 60;

/// The error for a property: what it is, and what it must be.
pub fn wrong(name: &str, value: &Value, must: &str) -> Error {
    let text = match value {
        Value::Str(text) => format!("{text:?}"),
        Value::Array(_) | Value::Object(_) | Value::Bytes(_) => value.type_name().to_owned(),
        other => other.to_js_string(),
    };
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    Error::new(format!("property \"{name}\" {must}: {shown}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a property with that JSON text is read as; an error is its text.
    fn read<T>(
        json: &str,
        read: impl Fn(Options<'_>) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, String> {
        let properties = Value::from_json(format!(r#"{{"p":{json}}}"#).as_bytes()).unwrap();
        read(Options(&properties)).map_err(|error| error.to_string())
    }

    fn whole(json: &str) -> Result<Option<u64>, String> {
        read(json, |options| options.whole("p", 1..=100))
    }

    #[test]
    fn what_is_absent_or_empty_is_not_given() {
        for json in ["null", r#""""#, r#"" ""#] {
            assert_eq!(whole(json), Ok(None), "{json}");
            assert_eq!(read(json, |options| options.flag("p")), Ok(None), "{json}");
            assert_eq!(read(json, |options| options.seconds_ms("p")), Ok(None), "{json}");
            assert_eq!(read(json, |options| options.choice("p", &[("a", 1)])), Ok(None), "{json}");
            assert_eq!(read(json, |options| options.list("p").map(Some)), Ok(Some(vec![])), "{json}");
        }
        assert_eq!(read("1", |options| options.whole("other", 0..=1)), Ok(None));
    }

    #[test]
    fn numbers_may_be_texts() {
        assert_eq!(whole("7"), Ok(Some(7)));
        assert_eq!(whole(r#"" 7 ""#), Ok(Some(7)));
        assert_eq!(whole("7.0"), Ok(Some(7)));
        for (json, ms) in [("2", 2000), (r#""0.5""#, 500), ("0", 0), ("0.0001", 1), ("86400", 86_400_000)] {
            assert_eq!(read(json, |options| options.seconds_ms("p")), Ok(Some(ms)), "{json}");
        }
    }

    #[test]
    fn a_wrong_value_is_an_error_that_names_the_property() {
        for json in ["0", "101", "1.5", "-1", r#""x""#, r#""7s""#, r#""NaN""#, "1e300", "true", "[]", "{}"] {
            let error = whole(json).unwrap_err();
            assert!(error.starts_with(r#"property "p" "#), "{json}: {error}");
        }
        for json in ["-1", "86401", r#""inf""#, r#""1 m""#, "[1]"] {
            assert!(read(json, |options| options.seconds_ms("p")).is_err(), "{json}");
        }
        for json in ["1", r#""yes""#, "[]"] {
            assert!(read(json, |options| options.flag("p")).is_err(), "{json}");
        }
        assert_eq!(
            read(r#""c""#, |options| options.choice("p", &[("a", 1), ("b", 2)])),
            Err(r#"property "p" must be one of a, b: "c""#.to_owned())
        );
        for json in ["1", "[1]", "{}"] {
            assert!(read(json, |options| options.list("p").map(Some)).is_err(), "{json}");
        }
    }

    #[test]
    fn a_long_wrong_value_is_shown_in_part() {
        let error = whole(&format!("{:?}", "x".repeat(10_000))).unwrap_err();
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn lists_and_choices_are_read_with_or_without_blanks() {
        for json in [r#"" a, b ,,c""#, r#"["a","b "," c",""]"#] {
            assert_eq!(
                read(json, |options| options.list("p").map(Some)),
                Ok(Some(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]))
            );
        }
        assert_eq!(read(r#""b ""#, |options| options.choice("p", &[("a", 1), ("b", 2)])), Ok(Some(2)));
    }
}
