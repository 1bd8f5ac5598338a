//! `GET /runtime`: what nodes, queues, connections and generations are doing.

use std::{sync::Arc, time::Instant};

use hyper::{Method, StatusCode};
use serde::Serialize;

use super::turn::Turn;
use crate::{
    http::{Access, BoxFuture, Handler, HttpRequest, HttpResponse, RouteTaken, Routes},
    loader::PluginFiles,
    plugin,
    runtime::{Inspection, Limits, Runtime},
};

/// How many connections are listed unless the request says: some 200 kB, enough to see what is wrong with any of them.
const CONNECTIONS: usize = 1_000;
/// How many nodes are listed unless the request says: all, in any flow that somebody has drawn.
const NODES: usize = 10_000;
/// How many of either may be asked for, so that the answer stays within some 100 MB.
const MOST: usize = 200_000;

/// What the handler needs.
struct Asked {
    runtime: Runtime,
    files: PluginFiles,
    since: Instant,
    /// With thousands of nodes it takes some milliseconds, and memory.
    turn: Turn,
}

/// The answer: the host, and what it is doing. Written as text directly: a tree of values would take many times as much.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    version: &'static str,
    pid: u32,
    uptime_seconds: u64,
    generations_loaded: usize,
    #[serde(flatten)]
    found: Inspection,
}

/// Adds the route. It is for administrators: addresses of peers are nobody else's business.
///
/// # Errors
/// The path is taken, which cannot be before nodes start.
pub fn add_route(routes: &Routes, runtime: Runtime, files: PluginFiles) -> Result<(), RouteTaken> {
    let asked = Arc::new(Asked { runtime, files, since: Instant::now(), turn: Turn::default() });
    let answer = move |request: HttpRequest| -> BoxFuture<HttpResponse> {
        let asked = asked.clone();
        Box::pin(async move { asked.answer(request.query.as_deref()).await })
    };
    routes.add(super::OWNER, "/runtime", Handler::Request(Access::Admin, Method::GET, Arc::new(answer)))?;
    Ok(())
}

impl Asked {
    async fn answer(self: Arc<Self>, query: Option<&str>) -> HttpResponse {
        let limits = match limits(query.unwrap_or_default()) {
            Ok(limits) => limits,
            Err(text) => return super::error(StatusCode::BAD_REQUEST, "invalid_request", &text),
        };
        let asked = self.clone();
        match self.turn.take(move || asked.look(limits)).await.flatten() {
            Some(text) => super::json_text(StatusCode::OK, text),
            None => super::error(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the host is stopping"),
        }
    }

    /// The answer's text.
    fn look(&self, limits: Limits) -> Option<Vec<u8>> {
        let mut found = self.runtime.inspect(limits)?;
        let files = self.files.all();
        for plugin in &mut found.plugins {
            plugin.last_error = files.get(&plugin.file).and_then(|state| state.refused.clone());
        }
        let answer = Answer {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: self.since.elapsed().as_secs(),
            generations_loaded: plugin::live_generations(),
            found,
        };
        serde_json::to_vec(&answer).ok()
    }
}

/// What a query asks for: `connections=N` and `nodes=N`.
fn limits(query: &str) -> Result<Limits, String> {
    let mut limits = Limits { nodes: NODES, connections: CONNECTIONS };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let limit = match name {
            "connections" => &mut limits.connections,
            "nodes" => &mut limits.nodes,
            // For what clients add against caches.
            _ => continue,
        };
        *limit = value
            .parse()
            .ok()
            .filter(|number| *number <= MOST)
            .ok_or_else(|| format!("{name} must be a number from 0 to {MOST}"))?;
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_how_much_is_listed() {
        for (query, expected) in [
            ("", Ok((NODES, CONNECTIONS))),
            ("connections=5", Ok((NODES, 5))),
            ("_=1&nodes=0&connections=200000", Ok((0, 200_000))),
            ("connections=-1", Err("connections must be a number from 0 to 200000".to_owned())),
            ("connections", Err("connections must be a number from 0 to 200000".to_owned())),
            ("nodes=200001", Err("nodes must be a number from 0 to 200000".to_owned())),
        ] {
            let found = limits(query).map(|limits| (limits.nodes, limits.connections));
            assert_eq!(found, expected, "{query}");
        }
    }
}
