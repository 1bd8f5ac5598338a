//! `change`: sets, changes, deletes and moves properties.

use flowbay_sdk::prelude::*;

use crate::{handover, rule::Rule};

/// Applies its rules in order and sends the message on.
pub struct Change {
    rules: Vec<Rule>,
    /// What to log at the start.
    warnings: Vec<String>,
}

#[node(
    "change",
    category = "function",
    color = "#E2D96E",
    icon = "swap.svg",
    inputs = 1,
    outputs = 1,
    html = include_str!("../html/change.html")
)]
impl Node for Change {
    type Config = AnyConfig;

    fn new(AnyConfig(config): AnyConfig, ctx: &Ctx) -> Result<Self, Error> {
        let mut warnings = Vec::new();
        let rules = Rule::read_all(&config, ctx, &mut warnings)?;
        Ok(Self { rules, warnings })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        if ctx.restored().is_none() {
            self.warnings.iter().for_each(|warning| ctx.warn(warning));
        }
        Ok(())
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        for rule in &self.rules {
            rule.apply(&mut msg, ctx)?;
        }
        ctx.send(msg);
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(handover::stateless())
    }
}
