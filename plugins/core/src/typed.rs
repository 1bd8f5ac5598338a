//! Typed values: a text in the flow file and the type that says how to read it.

use flowbay_sdk::{Blob, ContextScope, Error, Object, PropertyPath, Value, path::Part};

use crate::{context_key::ContextKey, moment::Moment, numbers, surroundings::Surroundings};

/// A typed value, read once; what can change is looked up for every message.
#[derive(Debug, Clone)]
pub enum Typed {
    /// Always the same.
    Fixed(Value),
    /// JavaScript's `undefined`: no value.
    Undefined,
    /// A property of the message.
    Msg(PropertyPath),
    /// A property of a context store.
    Context(ContextKey),
    /// An environment variable, or a text with variables in it.
    Env(String),
    /// The time now.
    Now(Moment),
    /// The text does not fit the type. Node-RED finds out when it needs the value.
    Invalid(String),
}

/// Why a value could not be determined for a message.
#[derive(Debug)]
pub enum Undetermined {
    /// The message has nothing where the value's parent should be: there JavaScript throws.
    Unreachable,
    /// A value cannot be had at all.
    Failed(Error),
}

impl From<Undetermined> for Error {
    fn from(undetermined: Undetermined) -> Self {
        match undetermined {
            Undetermined::Unreachable => Error::new("Cannot read a property of a value that is not there"),
            Undetermined::Failed(error) => error,
        }
    }
}

impl Typed {
    /// Reads a value of type `kind`; without one it is empty. A type that is not known leaves the value as it is.
    ///
    /// # Errors
    /// The type is JSONata, which Flowbay does not have.
    pub fn new(value: Option<&Value>, kind: &str) -> Result<Self, Error> {
        let text = || value.map_or_else(String::new, Value::to_js_string);
        Ok(match kind {
            "jsonata" => return Err(Error::new("JSONata expressions are not supported")),
            "str" => Typed::Fixed(text().into()),
            "num" => Typed::Fixed(numbers::to_value(value.map_or(0.0, numbers::number))),
            "bool" => Typed::Fixed(Value::Bool(text().eq_ignore_ascii_case("true"))),
            "json" => match value {
                // Some old flows hold the object itself.
                Some(Value::Object(_) | Value::Array(_)) => Typed::Fixed(value.into()),
                _ => parse_json(&text()).map_or_else(Typed::Invalid, Typed::Fixed),
            },
            "bin" => parse_json(&text())
                .and_then(|data| buffer(&data).ok_or_else(|| "Not string or array".to_owned()))
                .map_or_else(Typed::Invalid, Typed::Fixed),
            "date" => Typed::Now(Moment::parse(&text())),
            "msg" => {
                PropertyPath::parse_msg(&text()).map_or_else(|e| Typed::Invalid(e.to_string()), Typed::Msg)
            }
            "flow" => Typed::Context(ContextKey::parse(ContextScope::Flow, &text())),
            "global" => Typed::Context(ContextKey::parse(ContextScope::Global, &text())),
            "env" => Typed::Env(text()),
            _ => value.map_or(Typed::Fixed("".into()), |value| Typed::Fixed(value.clone())),
        })
    }

    /// The value for a message; `None` is `undefined`.
    ///
    /// # Errors
    /// It cannot be determined.
    #[inline]
    pub fn evaluate(&self, msg: &Object, around: &impl Surroundings) -> Result<Option<Value>, Undetermined> {
        match self {
            Typed::Fixed(value) => Ok(Some(value.clone())),
            Typed::Undefined => Ok(None),
            Typed::Msg(path) => read(msg, path),
            Typed::Context(key) => key.read(msg, around).map_err(Undetermined::Failed),
            Typed::Env(text) => Ok(Some(environment(text, around))),
            Typed::Now(moment) => Ok(Some(moment.now())),
            Typed::Invalid(reason) => Err(Undetermined::Failed(Error::new(reason))),
        }
    }
}

/// A property of the message.
///
/// # Errors
/// [`Undetermined::Unreachable`] when not even its parent exists.
pub fn read(msg: &Object, path: &PropertyPath) -> Result<Option<Value>, Undetermined> {
    match msg.get_path(path) {
        None if !parent_exists(msg, path) => Err(Undetermined::Unreachable),
        value => Ok(value),
    }
}

fn parent_exists(msg: &Object, path: &PropertyPath) -> bool {
    let Ok(path) = path.resolve(msg) else { return false };
    let Some((last_of_parent, way)) = path.parts().split_last().and_then(|(_, parents)| parents.split_last())
    else {
        return true;
    };
    let step = |value: &Value, part: &Part| -> Option<Value> {
        match (value, part) {
            (Value::Object(object), Part::Key(key)) => object.get(key).cloned(),
            (Value::Object(object), Part::Index(index)) => object.get(&index.to_string()).cloned(),
            (Value::Array(array), Part::Index(index)) => array.get(*index).cloned(),
            _ => None,
        }
    };
    let root = Value::Object(msg.clone());
    way.iter()
        .chain([last_of_parent])
        .try_fold(root, |value, part| step(&value, part))
        .is_some_and(|parent| !parent.is_null())
}

/// A value from JSON text.
///
/// # Errors
/// What is wrong with it.
pub fn parse_json(text: &str) -> Result<Value, String> {
    Value::from_json(text.as_bytes()).map_err(|error| error.to_string())
}

/// What `Buffer.from(data)` makes: bytes of a text, or of numbers modulo 256.
fn buffer(data: &Value) -> Option<Value> {
    let bytes: Vec<u8> = match data {
        Value::Str(text) => text.as_bytes().to_vec(),
        Value::Array(items) => items.iter().map(byte).collect(),
        _ => return None,
    };
    Some(Value::Bytes(Blob::from(bytes)))
}

fn byte(value: &Value) -> u8 {
    let number = numbers::number(value);
    if number.is_finite() { number.trunc().rem_euclid(256.0) as u8 } else { 0 }
}

/// An environment variable: its name, `${name}`, or a text with several of the latter in it.
fn environment(text: &str, around: &impl Surroundings) -> Value {
    if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
        && !name.is_empty()
        && !name.contains('}')
    {
        return around.env(name).unwrap_or_else(|| "".into());
    }
    if !has_reference(text) {
        return around.env(text).unwrap_or_else(|| "".into());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        match after.split_once('}') {
            Some((name, after)) if !name.is_empty() => {
                out.push_str(&around.env(name).map_or_else(String::new, |value| value.to_js_string()));
                rest = after;
            }
            _ => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.into()
}

/// Whether there is a `${…}` without spaces in the text.
fn has_reference(text: &str) -> bool {
    text.split("${").skip(1).any(|rest| {
        let word = rest.split(char::is_whitespace).next().unwrap_or_default();
        word.rfind('}').is_some_and(|end| end > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::fake::{Fake, json, msg};

    fn evaluated(value: &str, kind: &str) -> Option<Value> {
        let message = msg(r#"{"topic":"t","a":{"b":[1,2]},"none":null}"#);
        let around = Fake {
            env: [("WHO", Value::from("Joe")), ("N", Value::Int(7))].into(),
            context: [("Flow  count".to_owned(), Value::Int(3))]
                .into_iter()
                .collect::<std::collections::HashMap<_, _>>()
                .into(),
            ..Fake::default()
        };
        Typed::new(Some(&value.into()), kind)
            .unwrap()
            .evaluate(&message, &around)
            .unwrap_or_else(|error| panic!("{value} as {kind}: {error:?}"))
    }

    #[test]
    fn each_type_reads_its_text() {
        for (value, kind, expected) in [
            ("5", "str", Some(Value::from("5"))),
            ("5", "num", Some(Value::Int(5))),
            ("TRUE", "bool", Some(Value::Bool(true))),
            ("yes", "bool", Some(Value::Bool(false))),
            (r#"{"a":[1]}"#, "json", Some(json(r#"{"a":[1]}"#))),
            ("[104, 361]", "bin", Some(Value::Bytes(Blob::from(b"hi")))),
            (r#""hé""#, "bin", Some(Value::Bytes(Blob::from("hé".as_bytes())))),
            ("topic", "msg", Some(Value::from("t"))),
            ("msg.a.b[1]", "msg", Some(Value::Int(2))),
            ("a.c", "msg", None),
            ("none", "msg", Some(Value::Null)),
            ("count", "flow", Some(Value::Int(3))),
            ("other", "global", None),
            ("WHO", "env", Some(Value::from("Joe"))),
            ("${N}", "env", Some(Value::Int(7))),
            ("Hello ${WHO}${N}!", "env", Some(Value::from("Hello Joe7!"))),
            ("MISSING", "env", Some(Value::from(""))),
            ("a ${MISSING} b", "env", Some(Value::from("a  b"))),
            ("as it is", "string", Some(Value::from("as it is"))),
        ] {
            assert_eq!(evaluated(value, kind), expected, "{value} as {kind}");
        }
    }

    #[test]
    fn what_does_not_fit_its_type_fails_when_it_is_needed() {
        let around = Fake::default();
        for (value, kind) in
            [("{", "json"), ("5", "bin"), ("a[", "msg"), ("a..b", "msg"), ("", "msg"), ("", "flow")]
        {
            let typed = Typed::new(Some(&value.into()), kind).unwrap();
            assert!(
                matches!(typed.evaluate(&msg("{}"), &around), Err(Undetermined::Failed(_))),
                "{value} as {kind}: {typed:?}"
            );
        }
    }

    #[test]
    fn a_property_of_nothing_is_told_from_a_missing_one() {
        let message = msg(r#"{"a":{"b":null,"s":"x"}}"#);
        for (path, reachable) in [
            ("x", true),
            ("a.x", true),
            ("x.y", false),
            ("a.b.c", false),
            ("a.s.t", true),
            ("a[msg.no]", false),
        ] {
            let result = read(&message, &PropertyPath::parse(path).unwrap());
            assert_eq!(result.is_ok(), reachable, "{path}");
            assert!(result.ok().flatten().is_none(), "{path}");
        }
    }

    #[test]
    fn jsonata_is_refused() {
        assert!(Typed::new(Some(&"1+1".into()), "jsonata").unwrap_err().text().contains("JSONata"));
    }

    #[test]
    fn no_value_counts_as_an_empty_text() {
        let around = Fake::default();
        let value = Typed::new(None, "str").unwrap().evaluate(&msg("{}"), &around).unwrap();
        assert_eq!(value, Some(Value::from("")));
    }
}
