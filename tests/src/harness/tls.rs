//! A WebSocket server that speaks TLS, with a certificate for `localhost` that only hosts trust which are told to.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
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
    accept_tls_as(server, &ServerTls::localhost())
}

/// How a TLS server of a test is set up.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The files of its certificate and its key, see [`certificate_file`].
    pub certificate: (&'static str, &'static str),
    /// The authority of the clients' certificates; clients need none when it is absent.
    pub clients_of: Option<&'static str>,
    /// The application protocols (ALPN) that it knows.
    pub protocols: Vec<&'static str>,
}

impl ServerTls {
    /// With the certificate for `localhost` that [`test_root_file`] vouches for.
    pub fn localhost() -> ServerTls {
        let certificate = ("localhost.der", "localhost-key.der");
        ServerTls { certificate, clients_of: None, protocols: Vec::new() }
    }

    /// With the certificate for `server.example` that `authority.pem` vouches for.
    pub fn example() -> ServerTls {
        ServerTls { certificate: ("server.pem", "server-key.pem"), ..ServerTls::localhost() }
    }
}

/// The configuration of a server that is set up like this.
///
/// # Panics
/// When a file of it is not there.
pub fn server_config(tls: &ServerTls) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider knows the usual versions");
    let builder = match tls.clients_of {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate_in(authority)).expect("it is an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("there is an authority"))
        }
    };
    let key = match certificate(tls.certificate.1) {
        pem if pem.starts_with(b"-----") => PrivateKeyDer::from_pem_slice(&pem).expect("a key"),
        der => PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der)),
    };
    let mut config = builder
        .with_single_cert(vec![certificate_in(tls.certificate.0)], key)
        .expect("certificate and key belong together");
    config.alpn_protocols = tls.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// As [`accept_tls`], by a server that is set up like this.
///
/// # Errors
/// As for [`accept_tls`].
///
/// # Panics
/// As for [`accept_tls`].
pub fn accept_tls_as(server: &WsServer, tls: &ServerTls) -> Result<TlsWebSocket, String> {
    let stream = server.accept_tcp();
    let tls = ServerConnection::new(server_config(tls)).expect("the configuration is complete");
    tungstenite::accept(StreamOwned::new(tls, stream)).map_err(|error| error.to_string())
}

/// A file among the host's own test certificates; a README beside them says what they are.
pub fn certificate_file(name: &str) -> PathBuf {
    workspace().join("host/src/dial/test-certificates").join(name)
}

/// The certificate in such a file, in PEM or in DER form.
///
/// # Panics
/// When there is none.
pub fn certificate_in(name: &str) -> CertificateDer<'static> {
    match certificate(name) {
        pem if pem.starts_with(b"-----") => CertificateDer::from_pem_slice(&pem).expect("a certificate"),
        der => CertificateDer::from(der),
    }
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
    let file = certificate_file(name);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
