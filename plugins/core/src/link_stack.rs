//! `msg._linkSource`: the link calls that a message has to return to, the last one first.

use flowbay_sdk::{Array, Error, Msg, Object, Str, Value};

const LINK_SOURCE: &str = "_linkSource";

/// Calls within calls; a flow that calls itself without end stops here.
const MAX_DEPTH: usize = 256;

/// A link call and one of its calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The link call node's id.
    pub node: Str,
    /// The call's id.
    pub id: Str,
}

impl Caller {
    fn from_value(value: &Value) -> Option<Self> {
        let text = |name: &str| {
            value.get(name).and_then(|value| match value {
                Value::Str(text) => Some(text.clone()),
                _ => None,
            })
        };
        Some(Self { node: text("node")?, id: text("id")? })
    }
}

/// Adds a call.
///
/// # Errors
/// Calls are nested too deeply.
pub fn push(msg: &mut Msg, caller: Caller) -> Result<(), Error> {
    let mut entry = Object::with_capacity(2);
    entry.insert("id", caller.id);
    entry.insert("node", caller.node);
    match msg.get_mut(LINK_SOURCE) {
        Some(Value::Array(calls)) if calls.len() >= MAX_DEPTH => {
            return Err(Error::new(format!("link calls are nested more than {MAX_DEPTH} deep")));
        }
        Some(Value::Array(calls)) => calls.push(entry),
        _ => msg.set(LINK_SOURCE, Array::from([entry])),
    }
    Ok(())
}

/// The call to return to.
pub fn last(msg: &Msg) -> Option<Caller> {
    msg.get(LINK_SOURCE)?.as_array()?.last().and_then(Caller::from_value)
}

/// Takes the last call off; with the last one the property goes.
pub fn pop(msg: &mut Msg) -> Option<Caller> {
    let calls = msg.get_mut(LINK_SOURCE)?.as_array_mut()?;
    let caller = calls.pop().as_ref().and_then(Caller::from_value);
    if calls.is_empty() {
        msg.remove(LINK_SOURCE);
    }
    caller
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::fake::msg;

    fn caller(id: &str) -> Caller {
        Caller { node: "n".into(), id: id.into() }
    }

    #[test]
    fn the_last_call_is_returned_to_first() {
        let mut msg = Msg::with_payload(1);
        push(&mut msg, caller("a")).unwrap();
        push(&mut msg, caller("b")).unwrap();
        assert_eq!(last(&msg), Some(caller("b")));
        assert_eq!(pop(&mut msg), Some(caller("b")));
        assert_eq!(pop(&mut msg), Some(caller("a")));
        assert_eq!(msg, Msg::with_payload(1), "nothing is left of it");
        assert_eq!(pop(&mut msg), None);
    }

    #[test]
    fn what_is_no_stack_is_replaced_or_ignored() {
        for text in [r#"{"_linkSource":5}"#, r#"{"_linkSource":[5]}"#, r#"{"_linkSource":[]}"#, "{}"] {
            let mut msg = msg(text);
            assert_eq!(last(&msg), None, "{text}");
            push(&mut msg, caller("a")).unwrap();
            assert_eq!(pop(&mut msg), Some(caller("a")), "{text}");
        }
    }

    #[test]
    fn a_flow_that_calls_itself_without_end_is_stopped() {
        let mut msg = Msg::new();
        let pushed = (0..MAX_DEPTH + 10).take_while(|_| push(&mut msg, caller("a")).is_ok()).count();
        assert_eq!(pushed, MAX_DEPTH);
    }
}
