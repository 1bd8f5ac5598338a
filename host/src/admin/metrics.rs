//! `GET /metrics`: what the host and its nodes count, as Prometheus reads it.

use std::sync::Arc;

use hyper::{HeaderMap, Method, StatusCode, header};

use super::turn::Turn;
use crate::{
    http::{Access, BoxFuture, Handler, HttpRequest, HttpResponse, Places, RouteTaken, Routes},
    metrics::{
        exposition::Scrape,
        process::{ProcessFigures, Start},
    },
    plugin,
    runtime::Runtime,
};

/// What the text is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// For those who do not ask for that: they can read it too, and a browser shows it.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the handler needs.
struct Metrics {
    runtime: Runtime,
    places: Arc<Places>,
    max_connections: usize,
    start: Start,
    /// With thousands of nodes it takes some milliseconds.
    turn: Turn,
}

/// Adds the route. It is for administrators: names of nodes are nobody else's business.
///
/// # Errors
/// The path is taken, which cannot be before nodes start.
pub fn add_route(
    routes: &Routes,
    runtime: Runtime,
    places: Arc<Places>,
    max_connections: usize,
) -> Result<(), RouteTaken> {
    let turn = Turn::default();
    let metrics = Arc::new(Metrics { runtime, places, max_connections, start: Start::now(), turn });
    let answer = move |request: HttpRequest| -> BoxFuture<HttpResponse> {
        let metrics = metrics.clone();
        Box::pin(async move { metrics.answer(&request.headers).await })
    };
    let handler = Handler::Request(Access::Admin, Method::GET, Arc::new(answer));
    routes.add(super::OWNER, "/metrics", handler)?;
    Ok(())
}

impl Metrics {
    async fn answer(self: Arc<Self>, headers: &HeaderMap) -> HttpResponse {
        let content_type = content_type(headers);
        let metrics = self.clone();
        match self.turn.take(move || metrics.text()).await.flatten() {
            Some(text) => HttpResponse::typed(StatusCode::OK, content_type, text),
            None => super::error(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the host is stopping"),
        }
    }

    fn text(&self) -> Option<String> {
        let scrape = Scrape {
            figures: self.runtime.figures()?,
            connections: (self.places.taken(), self.max_connections),
            generations_loaded: plugin::live_generations(),
            start: self.start,
            process: ProcessFigures::now(),
        };
        scrape.into_text().ok()
    }
}

fn content_type(headers: &HeaderMap) -> &'static str {
    let asked = headers.get_all(header::ACCEPT).iter().any(|accepted| {
        accepted.to_str().is_ok_and(|accepted| accepted.contains("application/openmetrics-text"))
    });
    if asked { OPEN_METRICS } else { PLAIN }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn who_asks_for_open_metrics_is_told_that_it_is() {
        let with = |accept: &'static str| {
            content_type(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(with(prometheus), OPEN_METRICS);
        assert_eq!(with("*/*"), PLAIN);
        assert_eq!(content_type(&HeaderMap::new()), PLAIN);
    }
}
