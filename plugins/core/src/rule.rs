//! The rules of the `change` node.

use flowbay_sdk::{ContextScope, Error, Msg, Object, PropertyPath, Value, path::PathError};

use crate::{
    context_key::ContextKey,
    replace::{Needle, Replaced},
    surroundings::Surroundings,
    typed::{Typed, Undetermined, read},
};

/// One rule, read once.
#[derive(Debug)]
pub enum Rule {
    /// Sets a property; to `undefined`, which deletes it.
    Set { place: Place, to: Typed },
    /// Replaces a value, or parts of a text.
    Change { place: Place, from: Sought, to: Typed },
    /// Deletes a property.
    Delete { place: Place },
    /// Moves a property to another place.
    Move { from: Place, to: Place },
}

/// Where a property is.
#[derive(Debug)]
pub enum Place {
    /// In the message.
    Msg(PropertyPath),
    /// In a context store.
    Context(ContextKey),
}

/// What a `change` rule looks for.
#[derive(Debug)]
pub enum Sought {
    /// Always the same.
    Fixed(Needle),
    /// What this place holds.
    Place(Place),
}

impl Rule {
    /// Reads the rules of a node: its `rules`, or the properties of Node-RED before 0.11. Rules that can do nothing
    /// are left out, with a line in `warnings`.
    ///
    /// # Errors
    /// A rule cannot be followed.
    pub fn read_all(
        config: &Value,
        around: &impl Surroundings,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Self>, Error> {
        let legacy;
        let rules = match &config["rules"] {
            Value::Array(rules) => rules.as_slice(),
            _ => {
                legacy = [legacy_rule(config)];
                &legacy
            }
        };
        let mut read = Vec::with_capacity(rules.len());
        for (number, rule) in (1..).zip(rules) {
            match Self::new(rule, around) {
                Ok(rule) => read.push(rule),
                Err(Unusable::Inert(reason)) => {
                    warnings.push(format!("rule {number} does nothing: {reason}"))
                }
                Err(Unusable::Refused(error)) => return Err(Error::new(format!("rule {number}: {error}"))),
            }
        }
        Ok(read)
    }

    fn new(rule: &Value, around: &impl Surroundings) -> Result<Self, Unusable> {
        let text = |name: &str| rule[name].as_str().unwrap_or_default();
        let place = Place::new(rule.get("p"), text("pt"))?;
        match text("t") {
            "set" => Ok(Rule::Set { place, to: target(rule, around)? }),
            "change" => {
                let from = rule.get("from").map_or_else(String::new, Value::to_js_string);
                let kind = if is_truthy(&rule["re"]) { "re" } else { text("fromt") };
                let from = match kind {
                    "msg" | "flow" | "global" => Sought::Place(Place::new(rule.get("from"), kind)?),
                    "env" => {
                        let value = Typed::Env(from).evaluate(&Object::new(), around).ok().flatten();
                        Sought::Fixed(Needle::typed(value.unwrap_or_default().to_js_string(), "str")?)
                    }
                    _ => Sought::Fixed(Needle::typed(from, kind)?),
                };
                Ok(Rule::Change { place, from, to: target(rule, around)? })
            }
            "delete" => Ok(Rule::Delete { place }),
            "move" => Ok(Rule::Move { from: place, to: Place::new(rule.get("to"), text("tot"))? }),
            other => Err(Unusable::Inert(format!("there is no action {other:?}"))),
        }
    }

    /// Applies the rule to a message.
    ///
    /// # Errors
    /// It could not be applied, for a reason that Catch nodes should hear of.
    #[inline]
    pub fn apply(&self, msg: &mut Msg, around: &impl Surroundings) -> Result<(), Error> {
        match self.try_apply(msg, around) {
            // Where JavaScript throws on a property of nothing, Node-RED passes over the rule.
            Ok(()) | Err(Undetermined::Unreachable) => Ok(()),
            Err(Undetermined::Failed(error)) => Err(error),
        }
    }

    fn try_apply(&self, msg: &mut Msg, around: &impl Surroundings) -> Result<(), Undetermined> {
        match self {
            Rule::Set { place, to } => {
                let value = to.evaluate(msg, around)?;
                if !place.write(value, msg, around)? {
                    place.warn_not_set(around);
                }
            }
            Rule::Change { place, from, to } => {
                let to = to.evaluate(msg, around)?;
                let found;
                let needle = match from {
                    Sought::Fixed(needle) => needle,
                    Sought::Place(place) => {
                        let value = place.read(msg, around)?;
                        found = Needle::found(value.as_ref()).map_err(Undetermined::Failed)?;
                        &found
                    }
                };
                let Some(current) = place.read(msg, around)? else { return Ok(()) };
                match needle.replace(&current, to.as_ref()).map_err(Undetermined::Failed)? {
                    None => {}
                    Some(Replaced::Whole) => {
                        place.write(to, msg, around)?;
                    }
                    Some(Replaced::Text(text)) => {
                        place.write(Some(text.into()), msg, around)?;
                    }
                }
            }
            Rule::Delete { place } => {
                place.write(None, msg, around)?;
            }
            Rule::Move { from, to } => {
                let value = from.read(msg, around)?;
                // Taken away first: one place may be inside the other.
                from.write(None, msg, around)?;
                if !to.write(value.clone(), msg, around)? {
                    from.write(value, msg, around)?;
                    to.warn_not_set(around);
                }
            }
        }
        Ok(())
    }
}

/// Why there is no rule.
enum Unusable {
    /// Node-RED accepts it, and it has no effect.
    Inert(String),
    /// Node-RED refuses the node, or Flowbay does.
    Refused(Error),
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        Unusable::Refused(error)
    }
}

/// The value that a rule sets.
fn target(rule: &Value, around: &impl Surroundings) -> Result<Typed, Unusable> {
    let value = rule.get("to");
    let kind = rule["tot"].as_str().unwrap_or_default();
    if kind.is_empty() {
        // Before rules had types, `msg.` in front made it a property of the message.
        let path = value.and_then(Value::as_str).and_then(|to| to.strip_prefix("msg."));
        if let (Some(path), "set") = (path, rule["t"].as_str().unwrap_or_default()) {
            return Ok(Typed::new(Some(&path.into()), "msg")?);
        }
    }
    let typed = match kind {
        // Whatever it is in the file.
        "" | "str" => value.map_or(Typed::Undefined, |value| Typed::Fixed(value.clone())),
        _ => Typed::new(value, kind)?,
    };
    match typed {
        Typed::Invalid(_) if matches!(kind, "json" | "bin") => {
            Err(Unusable::Refused(Error::new("Invalid 'to' JSON property")))
        }
        Typed::Invalid(reason) => Err(Unusable::Inert(reason)),
        // The environment does not change while a node runs.
        Typed::Env(_) => Ok(match typed.evaluate(&Object::new(), around) {
            Ok(Some(value)) => Typed::Fixed(value),
            _ => Typed::Undefined,
        }),
        typed => Ok(typed),
    }
}

/// The only rule of a node without `rules`.
fn legacy_rule(config: &Value) -> Value {
    let mut rule = Object::new();
    let action = config["action"].as_str().unwrap_or_default();
    rule.insert("t", if action == "replace" { "set" } else { action });
    for (name, old) in [("p", "property"), ("from", "from"), ("to", "to")] {
        rule.insert(name, config.get(old).cloned().unwrap_or_else(|| "".into()));
    }
    rule.insert("re", config.get("reg").is_some_and(|reg| reg.is_null() || is_truthy(reg)));
    Value::Object(rule)
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Str(text) => !text.is_empty(),
        Value::Int(_) | Value::Float(_) => {
            value.as_f64().is_some_and(|number| number != 0.0 && !number.is_nan())
        }
        _ => true,
    }
}

impl Place {
    fn new(text: Option<&Value>, kind: &str) -> Result<Self, Unusable> {
        let text = text.and_then(Value::as_str).unwrap_or_default();
        match kind {
            "" | "msg" => PropertyPath::parse_msg(text)
                .map(Place::Msg)
                .map_err(|_| Unusable::Inert(format!("Invalid property expression: {text}"))),
            "flow" => Ok(Place::Context(ContextKey::parse(ContextScope::Flow, text))),
            "global" => Ok(Place::Context(ContextKey::parse(ContextScope::Global, text))),
            other => Err(Unusable::Inert(format!("a property cannot be in {other:?}"))),
        }
    }

    fn read(&self, msg: &Msg, around: &impl Surroundings) -> Result<Option<Value>, Undetermined> {
        match self {
            Place::Msg(path) => read(msg, path),
            Place::Context(key) => key.read(msg, around).map_err(Undetermined::Failed),
        }
    }

    /// Sets or deletes the property; false when something that can have no properties is in the way.
    fn write(
        &self,
        value: Option<Value>,
        msg: &mut Msg,
        around: &impl Surroundings,
    ) -> Result<bool, Undetermined> {
        match (self, value) {
            (Place::Msg(path), Some(value)) => match msg.set_path(path, value) {
                Ok(()) => Ok(true),
                Err(PathError::NotAContainer { .. }) => Ok(false),
                Err(PathError::UndefinedReference { .. }) => Err(Undetermined::Unreachable),
                Err(error) => Err(Undetermined::Failed(error.into())),
            },
            (Place::Msg(path), None) => {
                msg.delete_path(path);
                Ok(true)
            }
            (Place::Context(key), value) => {
                key.write(value, msg, around).map(|()| true).map_err(Undetermined::Failed)
            }
        }
    }

    fn warn_not_set(&self, around: &impl Surroundings) {
        if let Place::Msg(path) = self {
            around.warn(&format!("Cannot set property of non-object type: {path}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::fake::{Fake, json, msg};

    /// The message after the rules, or the text of the error.
    fn changed(around: &Fake, rules: &str, message: &str) -> Result<Value, String> {
        let mut config = Object::new();
        config.insert("rules", json(rules));
        let rules =
            Rule::read_all(&config.into(), around, &mut Vec::new()).map_err(|error| error.to_string())?;
        let mut message = msg(message);
        for rule in &rules {
            rule.apply(&mut message, around).map_err(|error| error.to_string())?;
        }
        Ok(message.into())
    }

    fn check(rows: &[(&str, &str, &str)]) {
        let around = Fake { env: [("WHO", Value::from("Joe"))].into(), ..Fake::default() };
        for (rules, message, expected) in rows {
            assert_eq!(changed(&around, rules, message), Ok(json(expected)), "{rules} on {message}");
        }
    }

    #[test]
    fn set_sets_a_property_to_a_value_of_each_type() {
        check(&[
            (r#"[{"t":"set","p":"payload","to":"bar"}]"#, r#"{"payload":"foo"}"#, r#"{"payload":"bar"}"#),
            (r#"[{"t":"set","p":"a.b","pt":"msg","to":"1","tot":"num"}]"#, "{}", r#"{"a":{"b":1}}"#),
            (r#"[{"t":"set","p":"a[1]","to":"true","tot":"bool"}]"#, "{}", r#"{"a":[null,true]}"#),
            (r#"[{"t":"set","p":"p","to":"{\"x\":[]}","tot":"json"}]"#, "{}", r#"{"p":{"x":[]}}"#),
            (r#"[{"t":"set","p":"p","to":"WHO","tot":"env"}]"#, "{}", r#"{"p":"Joe"}"#),
            (
                r#"[{"t":"set","p":"p","to":"q","tot":"msg","dc":true}]"#,
                r#"{"q":[1]}"#,
                r#"{"q":[1],"p":[1]}"#,
            ),
            (r#"[{"t":"set","p":"p","to":"msg.q"}]"#, r#"{"q":1}"#, r#"{"q":1,"p":1}"#),
            (r#"[{"t":"set","p":"p[msg.k]","to":"v"}]"#, r#"{"k":"x","p":{}}"#, r#"{"k":"x","p":{"x":"v"}}"#),
            (r#"[{"t":"set","p":"msg.payload","to":""}]"#, r#"{"payload":1}"#, r#"{"payload":""}"#),
        ]);
    }

    #[test]
    fn set_to_what_is_missing_deletes_unless_its_parent_is_missing_too() {
        check(&[
            (r#"[{"t":"set","p":"payload","to":"no","tot":"msg"}]"#, r#"{"payload":1}"#, "{}"),
            (
                r#"[{"t":"set","p":"payload","to":"no.no","tot":"msg"}]"#,
                r#"{"payload":1}"#,
                r#"{"payload":1}"#,
            ),
            (r#"[{"t":"set","p":"payload","to":"no","tot":"flow"}]"#, r#"{"payload":1}"#, "{}"),
        ]);
    }

    #[test]
    fn set_below_something_that_is_no_object_warns() {
        let around = Fake::default();
        let rules = r#"[{"t":"set","p":"payload.x","to":"v"}]"#;
        assert_eq!(changed(&around, rules, r#"{"payload":"text"}"#), Ok(json(r#"{"payload":"text"}"#)));
        assert_eq!(*around.warnings.borrow(), ["Cannot set property of non-object type: payload.x"]);
    }

    #[test]
    fn change_replaces_in_the_message() {
        check(&[
            (
                r#"[{"t":"change","p":"payload","from":"Hello","to":"Goodbye"}]"#,
                r#"{"payload":"Hello Hello!"}"#,
                r#"{"payload":"Goodbye Goodbye!"}"#,
            ),
            (
                r#"[{"t":"change","p":"payload","from":"123","fromt":"str","to":"456","tot":"num"}]"#,
                r#"{"payload":"123"}"#,
                r#"{"payload":456}"#,
            ),
            (
                r#"[{"t":"change","p":"payload","from":"123","to":"456","tot":"num"}]"#,
                r#"{"payload":"Change123"}"#,
                r#"{"payload":"Change456"}"#,
            ),
            (
                r#"[{"t":"change","p":"payload","from":"\\d+","fromt":"re","to":"NUMBER"}]"#,
                r#"{"payload":"1 and 22"}"#,
                r#"{"payload":"NUMBER and NUMBER"}"#,
            ),
            (
                r#"[{"t":"change","p":"payload","from":"(\\w)","re":true,"to":"$1$1"}]"#,
                r#"{"payload":"ab"}"#,
                r#"{"payload":"aabb"}"#,
            ),
            (
                r#"[{"t":"change","p":"payload","from":"t","fromt":"msg","to":"x"}]"#,
                r#"{"payload":"abc","t":"b"}"#,
                r#"{"payload":"axc","t":"b"}"#,
            ),
            (
                r#"[{"t":"change","p":"payload","from":"true","fromt":"bool","to":"1","tot":"num"}]"#,
                r#"{"payload":true}"#,
                r#"{"payload":1}"#,
            ),
            (
                r#"[{"t":"change","p":"payload","from":"WHO","fromt":"env","to":"Ann"}]"#,
                r#"{"payload":"Joe!"}"#,
                r#"{"payload":"Ann!"}"#,
            ),
            (r#"[{"t":"change","p":"no.no","from":"a","to":"b"}]"#, r#"{"payload":1}"#, r#"{"payload":1}"#),
        ]);
    }

    #[test]
    fn change_from_something_that_cannot_be_looked_for_is_an_error() {
        let rules = r#"[{"t":"change","p":"payload","from":"null","fromt":"msg","to":"abc"}]"#;
        let error = changed(&Fake::default(), rules, r#"{"payload":"","null":null}"#).unwrap_err();
        assert_eq!(error, "Invalid 'from' property: unsupported type: object");
    }

    #[test]
    fn delete_removes_a_property_or_nothing() {
        check(&[
            (r#"[{"t":"delete","p":"payload.a"}]"#, r#"{"payload":{"a":1,"b":2}}"#, r#"{"payload":{"b":2}}"#),
            (r#"[{"t":"delete","p":"list[0]"}]"#, r#"{"list":[1,2]}"#, r#"{"list":[2]}"#),
            (r#"[{"t":"delete","p":"no.no"}]"#, r#"{"payload":1}"#, r#"{"payload":1}"#),
        ]);
    }

    #[test]
    fn move_moves_between_places_even_when_one_is_in_the_other() {
        let row = |from: &str, to: &str| {
            format!(r#"[{{"t":"move","p":"{from}","pt":"msg","to":"{to}","tot":"msg"}}]"#)
        };
        check(&[
            (&row("topic", "payload"), r#"{"topic":"t","payload":1}"#, r#"{"payload":"t"}"#),
            (&row("payload", "payload"), r#"{"payload":1}"#, r#"{"payload":1}"#),
            (&row("payload", "payload.a"), r#"{"payload":1}"#, r#"{"payload":{"a":1}}"#),
            (&row("payload.a", "payload"), r#"{"payload":{"a":{"a":1}}}"#, r#"{"payload":{"a":1}}"#),
            (&row("no", "payload"), r#"{"payload":1}"#, "{}"),
            (&row("no.no", "payload"), r#"{"payload":1}"#, r#"{"payload":1}"#),
            (&row("payload", "n.x"), r#"{"payload":1,"n":5}"#, r#"{"n":5,"payload":1}"#),
        ]);
    }

    #[test]
    fn rules_reach_context_stores() {
        let around = Fake::default();
        let rules = r##"[
            {"t":"set","p":"count","pt":"flow","to":"5","tot":"num"},
            {"t":"change","p":"count","pt":"flow","from":"5","fromt":"num","to":"six","tot":"str"},
            {"t":"move","p":"count","pt":"flow","to":"#:(file)::count","tot":"global"},
            {"t":"set","p":"payload","to":"#:(file)::count","tot":"global"}
        ]"##;
        assert_eq!(changed(&around, rules, "{}"), Ok(json(r#"{"payload":"six"}"#)));
        let context = around.context.borrow();
        assert_eq!(
            context.iter().collect::<Vec<_>>(),
            [(&"Global file count".to_owned(), &Value::from("six"))]
        );
    }

    #[test]
    fn rules_apply_in_order() {
        check(&[(
            r#"[{"t":"set","p":"a","to":"1","tot":"num"},{"t":"move","p":"a","to":"b"},{"t":"set","p":"c","to":"b","tot":"msg"}]"#,
            "{}",
            r#"{"b":1,"c":1}"#,
        )]);
    }

    #[test]
    fn what_cannot_be_followed_refuses_the_node() {
        for (rules, expected) in [
            (r#"[{"t":"set","p":"payload","to":"{","tot":"json"}]"#, "rule 1: Invalid 'to' JSON property"),
            (
                r#"[{"t":"set","p":"p","to":"1"},{"t":"set","p":"p","to":"$now()","tot":"jsonata"}]"#,
                "rule 2: JSONata",
            ),
            (
                r#"[{"t":"change","p":"p","from":"(","fromt":"re","to":""}]"#,
                "rule 1: Invalid 'from' property",
            ),
        ] {
            let error = changed(&Fake::default(), rules, "{}").unwrap_err();
            assert!(error.starts_with(expected), "{rules}: {error}");
        }
    }

    #[test]
    fn rules_without_effect_are_passed_over_with_a_warning() {
        let mut warnings = Vec::new();
        let config =
            json(r#"{"rules":[{"t":"set","p":"","to":"1"},{},5,{"t":"set","p":"a","pt":"env","to":"1"}]}"#);
        assert!(Rule::read_all(&config, &Fake::default(), &mut warnings).unwrap().is_empty());
        assert_eq!(warnings.len(), 4, "{warnings:?}");
    }

    #[test]
    fn the_properties_of_old_versions_are_one_rule() {
        for (config, expected) in [
            (r#"{"action":"replace","property":"payload","to":"x"}"#, r#"{"payload":"x"}"#),
            (r#"{"action":"replace","property":"payload","to":"msg.topic"}"#, r#"{"payload":"t9"}"#),
            (
                r#"{"action":"change","property":"topic","from":"t","to":"x","reg":false}"#,
                r#"{"topic":"x9"}"#,
            ),
            (
                r#"{"action":"change","property":"topic","from":"\\d","to":"x","reg":null}"#,
                r#"{"topic":"tx"}"#,
            ),
            (r#"{"action":"move","property":"topic","to":"payload"}"#, r#"{"payload":"t9"}"#),
            (r#"{"action":"delete","property":"topic"}"#, "{}"),
        ] {
            let rules = Rule::read_all(&json(config), &Fake::default(), &mut Vec::new()).unwrap();
            let mut message = msg(r#"{"topic":"t9"}"#);
            rules[0].apply(&mut message, &Fake::default()).unwrap();
            for (key, value) in json(expected).as_object().unwrap() {
                assert_eq!(message.get(key), Some(value), "{config}: {message:?}");
            }
        }
    }
}
