//! `comment`: a note in the flow; it does nothing.

use flowbay_sdk::prelude::*;

use crate::handover;

/// Does nothing.
pub struct Comment;

#[node(
    "comment",
    category = "common",
    color = "#ffffff",
    icon = "comment.svg",
    html = include_str!("../html/comment.html")
)]
impl Node for Comment {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(Self)
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(handover::stateless())
    }
}
