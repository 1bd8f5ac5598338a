//! Configuration: a typed struct with defaults, checked once, with its form, help, icon and texts in the
//! editor. Errors and statuses.
//!
//! The node lets numbers pass that are on the right side of a limit. Try it: `sdk/examples/run threshold`.

use flowbay_sdk::{PropertyPath, lenient, prelude::*};
use serde::Deserialize;

/// The fields of the form, under the names that the flow file has for them.
#[derive(Deserialize)]
struct Config {
    // Left out of the flow file, a property has its default.
    #[serde(default = "payload")]
    property: String,
    // Forms of the editor write numbers as text, and an empty field as "".
    #[serde(default, deserialize_with = "lenient::number")]
    limit: Option<f64>,
    #[serde(default)]
    pass: Side,
}

fn payload() -> String {
    "payload".to_owned()
}

/// Any other text in the flow file is an error that lists these.
#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Side {
    #[default]
    Above,
    Below,
}

/// What the node works with: what the configuration means, not what it says.
struct Threshold {
    property: PropertyPath,
    limit: f64,
    pass: Side,
}

#[node(
    "threshold",
    category = "function",
    color = "#e2d96e",
    // Of one's own; or one that the editor has, "font-awesome/fa-filter" for instance, without `icon_svg`.
    icon = "threshold.svg",
    icon_svg = include_str!("threshold.svg"),
    inputs = 1,
    outputs = 1,
    html = include_str!("threshold.html"),
    // The texts that the form names by `data-i18n`.
    locales = &[
        ("en-US", include_str!("threshold.en-US.json")),
        ("de", include_str!("threshold.de.json")),
    ]
)]
impl Node for Threshold {
    type Config = Config;

    // An error here is shown with the node's id and type; the rest of the flow runs without this node.
    fn new(config: Config, _ctx: &Ctx) -> Result<Self, Error> {
        let limit = config.limit.ok_or_else(|| Error::new("the limit is no number"))?;
        Ok(Self { property: PropertyPath::parse_msg(&config.property)?, limit, pass: config.pass })
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let value = msg.get_path(&self.property).unwrap_or_default();
        // An error goes to Catch nodes, as `msg.error`, with the message as it arrived. The code is `msg.error.code`.
        let number = value.as_f64().ok_or_else(|| {
            Error::new(format!("msg.{} is no number but of type {}", self.property, value.type_name()))
                .with_code("NOT_A_NUMBER")
        })?;
        let passes = match self.pass {
            Side::Above => number > self.limit,
            Side::Below => number < self.limit,
        };
        if passes {
            ctx.status(Status::new().fill("green").shape("dot").text(&format!("{number} passed")));
            ctx.send(msg);
        } else {
            ctx.status(Status::new().fill("grey").shape("ring").text(&format!("{number} held back")));
        }
        // The node is done with the message: Complete nodes are told.
        Ok(())
    }

    // Newer code takes over while flows run. There is nothing to give to it. (See `state` for a node that has something.)
    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

export_plugin!(Threshold);

#[cfg(test)]
mod tests {
    use flowbay_sdk::{
        testing::{Setup, TestNode},
        value,
    };

    use super::*;

    #[test]
    fn numbers_above_the_limit_pass() {
        let mut node = TestNode::<Threshold>::new(value!({ "limit": "21.5" }));
        node.input(Msg::with_payload(22));
        node.input(Msg::with_payload(21));
        assert_eq!(node.sent().len(), 1);
        assert_eq!((node.completed().len(), &node.statuses()[1]["text"]), (2, &"21 held back".into()));
    }

    #[test]
    fn what_is_no_number_is_an_error_that_says_where() {
        let mut node = TestNode::<Threshold>::new(value!({ "limit": 1, "property": "payload.t" }));
        node.input(Msg::with_payload(value!({ "t": "warm" })));
        let failure = &node.failures()[0];
        assert_eq!(failure.text, "msg.payload.t is no number but of type string");
        assert_eq!(failure.code, "NOT_A_NUMBER");
    }

    #[test]
    fn a_configuration_that_means_nothing_is_refused() {
        for (config, says) in [
            (value!({ "limit": "" }), "the limit is no number"),
            (value!({ "limit": 1, "pass": "beside" }), "beside"),
            (value!({ "limit": 1, "property": "a..b" }), "a..b"),
        ] {
            let error = Setup::new().config(config).create::<Threshold>().err().unwrap();
            assert!(error.text().contains(says), "{error}");
        }
    }
}
