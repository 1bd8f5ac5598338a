//! Asking a host that runs: the other side of the admin API.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// How long an answer may take: it is on this machine, or near.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// `GET path` of the host at `url` (`http://HOST:PORT`), with the admin token if there is one.
///
/// # Errors
/// One line that names the host: it does not answer, refuses, or answers something else than JSON.
pub async fn get(url: &str, path: &str, token: Option<&str>) -> Result<Value, String> {
    let answer = tokio::time::timeout(PATIENCE, request(url, path, token)).await;
    answer
        .unwrap_or_else(|_| Err("no answer in time".to_owned()))
        .map_err(|reason| format!("{url}: {reason}"))
}

async fn request(url: &str, path: &str, token: Option<&str>) -> Result<Value, String> {
    let url: Uri = url.parse().map_err(|_| "not an address such as http://127.0.0.1:1880".to_owned())?;
    let authority = url.authority().ok_or("not an address such as http://127.0.0.1:1880")?;
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(1880));
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    tokio::spawn(connection);
    let mut request =
        Request::builder().method(Method::GET).uri(path).header(header::HOST, authority.as_str());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    if status != StatusCode::OK {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    serde_json::from_slice(&body).map_err(|error| format!("the answer is not JSON: {error}"))
}
