//! What an inject node puts into its messages.

use flowbay_sdk::{Array, Error, Msg, Object, PropertyPath, Value, path::PathError};

use crate::{surroundings::Surroundings, typed::Typed};

/// The properties to set, in order.
#[derive(Debug)]
pub struct Props(Vec<Prop>);

#[derive(Debug)]
struct Prop {
    path: Result<PropertyPath, String>,
    value: Typed,
}

impl Props {
    /// From the node's properties: `props`, and for older flows `payload`, `payloadType` and `topic`.
    ///
    /// # Errors
    /// One of them is a JSONata expression.
    pub fn of_node(config: &Value) -> Result<Self, Error> {
        let payload = || (config.get("payload"), config["payloadType"].as_str());
        let topic = || config.get("topic");
        let Value::Array(props) = &config["props"] else {
            let (value, kind) = payload();
            let props = [Prop::new("payload", value, kind)?, Prop::new("topic", topic(), Some("str"))?];
            return Ok(Self(props.into_iter().flatten().collect()));
        };
        let props = props.iter().map(|prop| {
            let (name, kind) = (name(prop), prop["vt"].as_str());
            match (name, prop.get("v")) {
                ("payload", None) => {
                    let (value, kind) = payload();
                    Prop::new(name, value, kind)
                }
                ("topic", None) if kind == Some("str") => Prop::new(name, topic(), kind),
                (_, value) => Prop::new(name, value, kind),
            }
        });
        Ok(Self(props.filter_map(Result::transpose).collect::<Result<_, _>>()?))
    }

    /// From a request to inject once with other properties.
    ///
    /// # Errors
    /// As for [`Props::of_node`].
    pub fn of_request(props: &Array) -> Result<Self, Error> {
        let props = props.iter().map(|prop| Prop::new(name(prop), prop.get("v"), prop["vt"].as_str()));
        Ok(Self(props.filter_map(Result::transpose).collect::<Result<_, _>>()?))
    }

    /// Sets the properties in a message.
    ///
    /// # Errors
    /// Some cannot be set; the text names them all, and the others are set.
    pub fn apply(&self, msg: &mut Msg, around: &impl Surroundings) -> Result<(), Error> {
        let mut errors = Vec::new();
        for prop in &self.0 {
            if let Err(error) = prop.apply(msg, around) {
                errors.push(error.to_string());
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::new(errors.join("; "))) }
    }
}

fn name(prop: &Value) -> &str {
    prop["p"].as_str().unwrap_or_default()
}

impl Prop {
    /// `None` for one without a name, or with nothing to evaluate.
    fn new(name: &str, value: Option<&Value>, kind: Option<&str>) -> Result<Option<Self>, Error> {
        let kind = kind.unwrap_or("str");
        let is_empty = value.is_none_or(|value| value.is_null() || *value == *"");
        if name.is_empty() || (kind == "jsonata" && is_empty) {
            return Ok(None);
        }
        let value = Typed::new(value, kind).map_err(|error| Error::new(format!("msg.{name}: {error}")))?;
        Ok(Some(Self { path: PropertyPath::parse_msg(name).map_err(|error| error.to_string()), value }))
    }

    fn apply(&self, msg: &mut Msg, around: &impl Surroundings) -> Result<(), Error> {
        let path = self.path.as_ref().map_err(Error::new)?;
        let named = |error: Error| Error::new(format!("msg.{path}: {error}"));
        match self.value.evaluate(&Object::clone(msg), around).map_err(|error| named(error.into()))? {
            None => {
                msg.delete_path(path);
                Ok(())
            }
            Some(value) => match msg.set_path(path, value) {
                // As in Node-RED, below a text or a number nothing is set.
                Ok(()) | Err(PathError::NotAContainer { .. }) => Ok(()),
                Err(error) => Err(named(error.into())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::fake::{Fake, json};

    fn injected(config: &str) -> Result<Value, String> {
        let around = Fake { env: [("WHO", Value::from("Joe"))].into(), ..Fake::default() };
        let mut msg = Msg::new();
        Props::of_node(&json(config))
            .and_then(|props| props.apply(&mut msg, &around))
            .map(|()| msg.into())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn properties_of_all_ages_are_read() {
        for (config, expected) in [
            // The form of Node-RED 0.
            (r#"{"payload":"5","payloadType":"num","topic":"t"}"#, r#"{"payload":5,"topic":"t"}"#),
            (r#"{"payload":"x"}"#, r#"{"payload":"x","topic":""}"#),
            // The form of Node-RED 1 and later: payload and topic stay where they were.
            (
                r#"{"props":[{"p":"payload"},{"p":"topic","vt":"str"}],"payload":"x","payloadType":"str","topic":"t"}"#,
                r#"{"payload":"x","topic":"t"}"#,
            ),
            (
                r#"{"props":[{"p":"topic","v":"1","vt":"num"},{"p":"a.b","v":"true","vt":"bool"}]}"#,
                r#"{"topic":1,"a":{"b":true}}"#,
            ),
            // A value may come from one that is set before it.
            (
                r#"{"props":[{"p":"a","v":"WHO","vt":"env"},{"p":"b","v":"a","vt":"msg"},{"p":"c","v":"no","vt":"msg"}]}"#,
                r#"{"a":"Joe","b":"Joe"}"#,
            ),
            (r#"{"props":[]}"#, "{}"),
            (r#"{"props":[5,null,{},{"p":""},{"p":"a"},{"p":"b","v":"","vt":"jsonata"}]}"#, r#"{"a":""}"#),
        ] {
            assert_eq!(injected(config), Ok(json(expected)), "{config}");
        }
    }

    #[test]
    fn errors_are_listed_and_nothing_is_sent() {
        let error = injected(r#"{"props":[{"p":"a","v":"{","vt":"json"},{"p":"b","v":"x.y","vt":"msg"}]}"#)
            .unwrap_err();
        let parts: Vec<&str> = error.split("; ").collect();
        assert!(
            parts.len() == 2 && parts[0].starts_with("msg.a: ") && parts[1].starts_with("msg.b: "),
            "{error}"
        );
    }

    #[test]
    fn jsonata_is_refused_with_the_property_named() {
        let error = injected(r#"{"props":[{"p":"payload"}],"payload":"$now()","payloadType":"jsonata"}"#)
            .unwrap_err();
        assert_eq!(error, "msg.payload: JSONata expressions are not supported");
    }

    #[test]
    fn a_timestamp_is_the_time_now() {
        let value = injected(r#"{"props":[{"p":"payload"}],"payload":"","payloadType":"date"}"#).unwrap();
        assert!(value["payload"].as_i64().unwrap() > 1_600_000_000_000);
    }
}
