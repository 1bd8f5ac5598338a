//! The one HTTP server: WebSocket listeners, public routes and the admin API share its port.
//!
//! [`server`] owns the sockets and speaks HTTP/1.1; [`tls`] has its certificate; [`places`] says who may be
//! connected; [`routes`] says who answers a path; [`upgrade`] checks WebSocket handshakes; [`guard`] decides who may
//! use admin routes; [`stream`] is a connection as the rest of the host, and through it a plugin, gets it. What
//! WebSocket frames look like is none of this module's business: after the handshake the connection belongs to whoever
//! registered the path.

pub mod guard;
mod patient;
pub mod places;
pub mod routes;
pub(crate) mod seldom;
pub mod server;
pub mod stream;
pub mod tls;
pub mod upgrade;

use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
pub use hyper::{HeaderMap, Method, StatusCode, header};

pub use guard::{AdminGuard, TokenError};
pub use places::Places;
pub use routes::{Access, Handler, Params, RequestHandler, RouteId, RouteTaken, Routes, UpgradeHandler};
pub use server::{RunningServer, Server, ServerError};
pub use stream::HostStream;
pub use tls::{ServerTls, TlsError};
pub use upgrade::{OnStream, UpgradeAnswer, UpgradeRequest};

/// A future on the heap that may be polled from any thread.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request, read to its end.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The path as it was sent: percent-encoding is left alone, the query is not part of it.
    pub path: String,
    /// What stood after the `?`, if there was one.
    pub query: Option<String>,
    /// What the path has in place of the route's parameters.
    pub params: Params,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body, at most `http_max_body_bytes`.
    pub body: Bytes,
    /// Who sent it.
    pub remote: SocketAddr,
}

/// What to answer a request with.
///
/// The server sets the fields that frame a message (`Content-Length`, `Connection`…) itself and drops them
/// from `headers`.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status; 1xx is answered as 500, because those are not the last word on a request.
    pub status: StatusCode,
    /// Further header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl HttpResponse {
    /// A response with nothing but a status.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A plain text.
    #[must_use]
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::typed(status, "text/plain; charset=utf-8", body)
    }

    /// A body of this media type.
    #[must_use]
    pub fn typed(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Self { body: body.into(), ..Self::empty(status) };
        response.headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
        response
    }

    /// This response with one header field more.
    #[must_use]
    pub fn with(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, header::HeaderValue::from_static(value));
        self
    }
}
