//! Properties of context stores, as typed values name them.

use std::borrow::Cow;

use flowbay_sdk::{ContextScope, Error, Object, PropertyPath, Value};

use crate::surroundings::Surroundings;

/// A key in a flow or global context store.
#[derive(Debug, Clone)]
pub struct ContextKey {
    scope: ContextScope,
    /// Empty for the default store.
    store: String,
    key: Key,
}

#[derive(Debug, Clone)]
enum Key {
    Fixed(String),
    /// Parts of the key come from the message: `a[msg.topic]`.
    FromMessage(PropertyPath),
}

impl ContextKey {
    /// Reads `key` or `#:(store)::key`.
    pub fn parse(scope: ContextScope, text: &str) -> Self {
        let (store, key) = split_store(text);
        let key = match PropertyPath::parse(key) {
            Ok(path) if path.has_references() => Key::FromMessage(path),
            // A key that is not valid is reported by the store when it is used.
            _ => Key::Fixed(key.to_owned()),
        };
        Self { scope, store: store.to_owned(), key }
    }

    /// The value, if there is one.
    ///
    /// # Errors
    /// The key is not valid, or refers to something that the message does not have.
    pub fn read(&self, msg: &Object, around: &impl Surroundings) -> Result<Option<Value>, Error> {
        around.context_get(self.scope, &self.store, &self.resolve(msg)?)
    }

    /// Sets the value; `None` deletes it.
    ///
    /// # Errors
    /// As for [`ContextKey::read`].
    pub fn write(&self, value: Option<Value>, msg: &Object, around: &impl Surroundings) -> Result<(), Error> {
        around.context_set(self.scope, &self.store, &self.resolve(msg)?, value)
    }

    fn resolve(&self, msg: &Object) -> Result<Cow<'_, str>, Error> {
        match &self.key {
            Key::Fixed(key) => Ok(Cow::Borrowed(key)),
            Key::FromMessage(path) => Ok(Cow::Owned(path.resolve(msg)?.to_string())),
        }
    }
}

fn split_store(text: &str) -> (&str, &str) {
    text.strip_prefix("#:(")
        .and_then(|rest| rest.split_once(")::"))
        .filter(|(store, _)| !store.is_empty() && !store.contains(char::is_whitespace))
        .unwrap_or(("", text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::fake::{Fake, msg};

    #[test]
    fn a_store_in_front_of_the_key_is_taken_off() {
        for (text, store, key) in [
            ("count", "", "count"),
            ("#:(file)::count", "file", "count"),
            ("#:()::count", "", "#:()::count"),
            ("#:(a b)::count", "", "#:(a b)::count"),
            ("$parent.count", "", "$parent.count"),
        ] {
            assert_eq!(split_store(text), (store, key), "{text}");
        }
    }

    #[test]
    fn a_key_may_take_parts_from_the_message() {
        let around = Fake::default();
        let key = ContextKey::parse(ContextScope::Flow, "#:(file)::count[msg.topic]");
        key.write(Some(Value::Int(1)), &msg(r#"{"topic":"a b"}"#), &around).unwrap();
        assert_eq!(around.context.borrow().get(r#"Flow file count["a b"]"#), Some(&Value::Int(1)));
        assert!(key.read(&msg("{}"), &around).is_err(), "a reference to nothing");
    }
}
