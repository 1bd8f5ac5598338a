//! What a node hands to its successor in a hot swap: an object with the `version` of its form, or null when the node
//! keeps nothing. (Saving null is not the same as saving nothing: it lets the successor take over in flight, where a
//! node that saves nothing is stopped and started.)

use flowbay_sdk::{Error, Object, Value};

const VERSION: &str = "version";

/// A state of a node that keeps nothing.
pub fn stateless() -> Option<Value> {
    Some(Value::Null)
}

/// The beginning of a state.
pub fn state(version: i64) -> Object {
    let mut state = Object::new();
    state.insert(VERSION, version);
    state
}

/// Checks that a state has the form that is known.
///
/// # Errors
/// It has another one; the swap is undone.
pub fn check(state: &Value, version: i64) -> Result<(), Error> {
    match state.get(VERSION).and_then(Value::as_i64) {
        Some(found) if found == version => Ok(()),
        Some(found) => Err(Error::new(format!("the state handed over has version {found}, not {version}"))),
        None => Err(Error::new("the state handed over has no version")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::fake::json;

    #[test]
    fn only_the_known_version_is_taken_over() {
        assert!(check(&state(1).into(), 1).is_ok());
        for (state, error) in [
            (r#"{"version":2}"#, "the state handed over has version 2, not 1"),
            ("{}", "the state handed over has no version"),
            ("null", "the state handed over has no version"),
        ] {
            assert_eq!(check(&json(state), 1).unwrap_err().text(), error);
        }
    }
}
