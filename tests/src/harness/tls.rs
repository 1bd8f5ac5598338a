//! A WebSocket server that speaks TLS, with a certificate for `localhost` that only hosts trust which are told to.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::WebSocket;

use super::WsServer;
use super::artifacts::workspace;

/// A WebSocket inside TLS.
pub type TlsWebSocket = WebSocket<StreamOwned<ServerConnection, TcpStream>>;

/// Waits for a connection and shakes hands, first by TLS, then as a WebSocket.
///
/// # Errors
/// The client went away, because it does not trust the certificate, for instance.
///
/// # Panics
/// When nobody connects.
pub fn accept_tls(server: &WsServer) -> Result<TlsWebSocket, String> {
    let stream = server.accept_tcp();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate("localhost-key.der")));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows the usual versions")
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate("localhost.der"))], key)
        .expect("certificate and key belong together");
    let tls = ServerConnection::new(Arc::new(config)).expect("the configuration is complete");
    tungstenite::accept(StreamOwned::new(tls, stream)).map_err(|error| error.to_string())
}

/// Writes a file of trusted roots, as systems have one, with the root of that certificate in it.
///
/// # Panics
/// When it cannot be written.
pub fn test_root_file(folder: &Path) -> PathBuf {
    let text = BASE64.encode(&certificate("root.der"));
    let file = folder.join("roots.pem");
    std::fs::write(&file, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    file
}

fn certificate(name: &str) -> Vec<u8> {
    let file = workspace().join("host/src/dial/test-certificates").join(name);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
