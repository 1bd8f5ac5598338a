//! What typed values and rules need of the node they stand in, apart from its `Ctx` so that they can be tested.

use flowbay_sdk::{ContextScope, Ctx, Error, Value};

/// Environment and context stores of a node, and a way to warn.
pub trait Surroundings {
    /// See [`Ctx::env`].
    fn env(&self, name: &str) -> Option<Value>;
    /// See [`Ctx::context_get`].
    fn context_get(&self, scope: ContextScope, store: &str, key: &str) -> Result<Option<Value>, Error>;
    /// See [`Ctx::context_set`].
    fn context_set(
        &self,
        scope: ContextScope,
        store: &str,
        key: &str,
        value: Option<Value>,
    ) -> Result<(), Error>;
    /// See [`Ctx::warn`].
    fn warn(&self, text: &str);
}

impl Surroundings for Ctx {
    fn env(&self, name: &str) -> Option<Value> {
        Ctx::env(self, name)
    }

    fn context_get(&self, scope: ContextScope, store: &str, key: &str) -> Result<Option<Value>, Error> {
        Ctx::context_get(self, scope, store, key)
    }

    fn context_set(
        &self,
        scope: ContextScope,
        store: &str,
        key: &str,
        value: Option<Value>,
    ) -> Result<(), Error> {
        Ctx::context_set(self, scope, store, key, value)
    }

    fn warn(&self, text: &str) {
        Ctx::warn(self, text);
    }
}

#[cfg(test)]
pub mod fake {
    //! Surroundings for tests: two maps and a list of warnings.

    use std::{cell::RefCell, collections::HashMap};

    use super::*;

    /// Context entries are named `scope store key`, such as `Flow file count`.
    #[derive(Default)]
    pub struct Fake {
        pub env: HashMap<&'static str, Value>,
        pub context: RefCell<HashMap<String, Value>>,
        pub warnings: RefCell<Vec<String>>,
    }

    impl Surroundings for Fake {
        fn env(&self, name: &str) -> Option<Value> {
            self.env.get(name).cloned()
        }

        fn context_get(&self, scope: ContextScope, store: &str, key: &str) -> Result<Option<Value>, Error> {
            if key.is_empty() {
                return Err(Error::new("Invalid context key"));
            }
            Ok(self.context.borrow().get(&format!("{scope:?} {store} {key}")).cloned())
        }

        fn context_set(
            &self,
            scope: ContextScope,
            store: &str,
            key: &str,
            value: Option<Value>,
        ) -> Result<(), Error> {
            let name = format!("{scope:?} {store} {key}");
            match value {
                Some(value) => self.context.borrow_mut().insert(name, value),
                None => self.context.borrow_mut().remove(&name),
            };
            Ok(())
        }

        fn warn(&self, text: &str) {
            self.warnings.borrow_mut().push(text.to_owned());
        }
    }

    /// A value from JSON text.
    pub fn json(text: &str) -> Value {
        Value::from_json(text.as_bytes()).unwrap()
    }

    /// A message from JSON text.
    pub fn msg(text: &str) -> flowbay_sdk::Msg {
        json(text).try_into().unwrap()
    }
}
