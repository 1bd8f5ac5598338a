//! Counts the letters of texts: a plugin that needs nothing but the SDK.

#![forbid(unsafe_code)]

use flowbay_sdk::{AnyConfig, PropertyPath, Status, prelude::*};

/// Sets `msg.letters` to how many there are in a property.
struct Letters {
    property: PropertyPath,
}

#[node("letters", category = "function", inputs = 1, outputs = 1)]
impl Node for Letters {
    type Config = AnyConfig;

    fn new(AnyConfig(config): AnyConfig, _ctx: &Ctx) -> Result<Self, Error> {
        let property = config.get("property").and_then(Value::as_str).unwrap_or("payload");
        Ok(Letters { property: PropertyPath::parse(property)? })
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let value = msg.get_path(&self.property).unwrap_or_default();
        let text = value.as_str().ok_or_else(|| Error::new("not a text"))?;
        let letters = text.chars().filter(|c| c.is_alphabetic()).count();
        msg.set("letters", letters as i64);
        ctx.status(Status::new().text(&format!("{letters} letters")));
        ctx.send(msg);
        Ok(())
    }
}

export_plugin!(Letters);

#[cfg(test)]
mod tests {
    use flowbay_sdk::{testing::TestNode, value};

    use super::*;

    #[test]
    fn letters_are_counted() {
        let mut node = TestNode::<Letters>::new(value!({}));
        node.input(Msg::with_payload("a, b"));
        assert_eq!(node.next_sent().get("letters"), Some(&Value::from(2)));
    }
}
