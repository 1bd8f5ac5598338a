//! A plugin with one node type, `page`, which serves a web page at a path: where a browser's WebSocket has the host
//! itself as its origin.

#![forbid(unsafe_code)]

use flowbay_sdk::{Request, Response, prelude::*};

/// Serves its page.
struct Page {
    html: String,
}

#[derive(serde::Deserialize)]
struct PageConfig {
    path: String,
    html: String,
}

#[node("page")]
impl Node for Page {
    type Config = PageConfig;

    fn new(config: PageConfig, ctx: &Ctx) -> Result<Self, Error> {
        ctx.register_public("GET", &config.path)?;
        Ok(Page { html: config.html })
    }

    async fn on_request(&self, _request: Request, _ctx: &Ctx) -> Response {
        Response::status(200).header("content-type", "text/html; charset=utf-8").body(self.html.as_str())
    }
}

export_plugin!(Page);
