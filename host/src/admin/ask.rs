//! Asking a host that runs: the other side of the admin API.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::{
    dial::{DialOptions, TlsOptions, Trust, client_config, dial},
    http::HostStream,
    settings::Settings,
};

/// How long an answer may take: it is on this machine, or near.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The host to ask.
#[derive(Debug, Clone)]
pub struct Host {
    /// `http://HOST:PORT`, or `https://`.
    url: String,
    /// Whatever certificate it shows is good enough.
    any_certificate: bool,
}

impl Host {
    /// The host at an address. With `https`, a certificate that the system trusts must vouch for it.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), any_certificate: false }
    }

    /// The host that runs on this machine with these settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let scheme = if settings.tls_cert.is_some() { "https" } else { "http" };
        let name = settings.host.trim_matches(['[', ']']);
        // Who listens everywhere listens on the loopback too.
        let name = match name.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".to_owned(),
            Ok(IpAddr::V6(address)) if address.is_unspecified() => "[::1]".to_owned(),
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => name.to_owned(),
        };
        // Its certificate is for the name that others know it by. On the loopback nobody stands between.
        let local = name.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
        Self {
            url: format!("{scheme}://{name}:{}", settings.port),
            any_certificate: local || name == "localhost",
        }
    }

    /// The answer to `GET path`, with the admin token of the settings if there is one.
    ///
    /// # Errors
    /// One line that names the host or the token's file: it does not answer, refuses, or answers something else than
    /// JSON.
    pub fn get(&self, path: &str, settings: &Settings) -> Result<Value, String> {
        let token = settings
            .admin_token_file
            .as_ref()
            .map(|file| std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display())))
            .transpose()?;
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let asked = self.request(path, token.as_deref().map(str::trim));
        let answer = tokio.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
        answer
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            .map_err(|reason| format!("{}: {reason}", self.url))
    }

    async fn connect(&self, url: &Uri) -> Result<HostStream, String> {
        let host = url.host().ok_or(NO_ADDRESS)?.to_owned();
        let tls = match url.scheme_str() {
            Some("https") if self.any_certificate => {
                let config = client_config(Trust::Blind, None, Vec::new())?;
                Some(TlsOptions { config: Some(config), ..TlsOptions::default() })
            }
            Some("https") => Some(TlsOptions::default()),
            Some("http") => None,
            _ => return Err(NO_ADDRESS.to_owned()),
        };
        let port = url.port_u16().unwrap_or(1880);
        let options = DialOptions { host, port, tls, proxies: None, timeout: PATIENCE };
        dial(&options).await.map_err(|error| error.to_string())
    }

    async fn request(&self, path: &str, token: Option<&str>) -> Result<Value, String> {
        let url: Uri = self.url.parse().map_err(|_| NO_ADDRESS.to_owned())?;
        let authority = url.authority().ok_or(NO_ADDRESS)?;
        let stream = self.connect(&url).await?;
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
}

const NO_ADDRESS: &str = "not an address such as http://127.0.0.1:1880";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_on_this_machine_is_asked_where_it_listens() {
        for (host, tls, url, any_certificate) in [
            ("127.0.0.1", false, "http://127.0.0.1:7", true),
            ("0.0.0.0", true, "https://127.0.0.1:7", true),
            ("::", true, "https://[::1]:7", true),
            ("localhost", true, "https://localhost:7", true),
            ("10.0.0.5", true, "https://10.0.0.5:7", false),
            ("flows.example", true, "https://flows.example:7", false),
        ] {
            let tls_cert = tls.then(|| "cert.pem".into());
            let settings = Settings { host: host.to_owned(), port: 7, tls_cert, ..Settings::default() };
            let found = Host::of(&settings);
            assert_eq!((found.url.as_str(), found.any_certificate), (url, any_certificate), "{host}");
        }
    }
}
