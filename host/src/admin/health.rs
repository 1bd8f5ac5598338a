//! `GET /healthz`: whether the flows run, for those who keep the host running.

use std::sync::Arc;

use hyper::{Method, StatusCode};

use crate::{
    http::{Access, BoxFuture, Handler, HttpRequest, HttpResponse, RouteTaken, Routes},
    runtime::{Phase, Runtime},
};

/// Adds the route. It is public: it says one word, and load balancers have no token.
///
/// # Errors
/// The path is taken, which cannot be before nodes start.
pub fn add_route(routes: &Routes, runtime: Runtime) -> Result<(), RouteTaken> {
    let answer = move |_: HttpRequest| -> BoxFuture<HttpResponse> {
        let response = response(runtime.phase());
        Box::pin(async move { response })
    };
    let handler = Handler::Request(Access::Public, Method::GET, Arc::new(answer));
    routes.add(super::OWNER, "/healthz", handler)?;
    Ok(())
}

fn response(phase: Phase) -> HttpResponse {
    match phase {
        Phase::Running => HttpResponse::text(StatusCode::OK, "ok"),
        Phase::Starting => HttpResponse::text(StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Stopping => HttpResponse::text(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_whose_flows_run_is_well() {
        for (phase, status, text) in [
            (Phase::Starting, 503, "starting"),
            (Phase::Running, 200, "ok"),
            (Phase::Stopping, 503, "stopping"),
        ] {
            let response = response(phase);
            assert_eq!((response.status.as_u16(), &response.body[..]), (status, text.as_bytes()));
        }
    }
}
