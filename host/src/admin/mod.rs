//! The admin API: how its answers look. Its routes are registered by those who answer them, and
//! [`AdminGuard`](crate::http::AdminGuard) decides who may ask.

pub mod ask;
pub mod health;
pub mod metrics;
pub mod plugins;
pub mod runtime;
pub mod status;
pub mod table;
mod turn;

use bytes::Bytes;
use hyper::StatusCode;

use crate::http::HttpResponse;

/// Who owns the host's own routes, for those who ask why a path is taken.
const OWNER: &str = "the host";

/// An error of the admin API: one line of JSON, `{"code":…,"message":…}`, as Node-RED's editor expects it.
///
/// `code` is for programs, `message` for people.
#[must_use]
pub fn error(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    json(status, &serde_json::json!({ "code": code, "message": message }))
}

/// A JSON answer of the admin API.
#[must_use]
pub fn json(status: StatusCode, value: &serde_json::Value) -> HttpResponse {
    json_text(status, value.to_string())
}

/// The same, from its text.
fn json_text(status: StatusCode, text: impl Into<Bytes>) -> HttpResponse {
    HttpResponse::typed(status, "application/json; charset=utf-8", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_of_json_whatever_its_message() {
        let response = error(StatusCode::FORBIDDEN, "forbidden", "a \"b\"\nc");
        assert_eq!(response.body, r#"{"code":"forbidden","message":"a \"b\"\nc"}"#);
        assert_eq!(response.headers["content-type"], "application/json; charset=utf-8");
    }
}
