//! Clients of a host that speaks TLS, and the certificates that such a host can be started with.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tungstenite::WebSocket;

use super::artifacts::workspace;
use super::{PATIENCE, Reply};

/// A client's connection inside TLS.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// One of the two certificates for `localhost` among the host's own files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Signed by its root.
    First,
    /// Signed by an intermediate, which its file has too.
    Second,
}

impl Certificate {
    /// The PEM files of certificate and key.
    pub fn files(self) -> (PathBuf, PathBuf) {
        (self.file("chain"), self.file("key"))
    }

    /// Puts copies of both in a folder, by way of a file beside each, and returns where they are.
    ///
    /// # Panics
    /// When the file system refuses.
    pub fn put(self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.files();
        let put = |from: &Path, name: &str| {
            let (beside, to) = (folder.join(format!("{name}.new")), folder.join(name));
            let done = std::fs::copy(from, &beside).and_then(|_| std::fs::rename(&beside, &to));
            done.unwrap_or_else(|error| panic!("{}: {error}", to.display()));
            to
        };
        (put(&certificate, "cert.pem"), put(&key, "key.pem"))
    }

    /// A client that trusts its root and nothing else.
    ///
    /// # Panics
    /// When its files are not there.
    pub fn trusted(self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.file("root")).expect("a certificate");
        roots.add(root).expect("it is a root");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the usual versions");
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }

    fn file(self, what: &str) -> PathBuf {
        let name = match self {
            Certificate::First => "first",
            Certificate::Second => "second",
        };
        let folder = workspace().join("host/src/http/tls/test-certificates");
        folder.join(format!("{name}-{what}.pem"))
    }
}

/// Connects by TLS, to a server called `localhost`, and shakes hands.
///
/// # Errors
/// The handshake failed: the client does not trust the certificate, for instance.
///
/// # Panics
/// When nobody listens there.
pub fn connect_tls(to: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream> {
    let tcp = TcpStream::connect(to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"));
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Opens a WebSocket inside TLS.
///
/// # Panics
/// When the server refuses.
pub fn connect_wss(to: SocketAddr, path: &str, config: &Arc<ClientConfig>) -> WebSocket<TlsStream> {
    let stream = connect_tls(to, config).unwrap_or_else(|error| panic!("no TLS with {to}: {error}"));
    let url = format!("wss://localhost:{}{path}", to.port());
    match tungstenite::client(url, stream) {
        Ok((socket, _)) => socket,
        Err(error) => panic!("{path} refused: {error}"),
    }
}

/// As [`super::request`], by TLS.
///
/// # Panics
/// When the server does not answer.
pub fn https_request(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    method: &str,
    path: &str,
    headers: &[&str],
) -> Reply {
    let mut stream = connect_tls(to, config).unwrap_or_else(|error| panic!("no TLS with {to}: {error}"));
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n");
    if !headers.iter().any(|line| line.to_lowercase().starts_with("host:")) {
        text.push_str(&format!("Host: localhost:{}\r\n", to.port()));
    }
    for line in headers {
        text.push_str(&format!("{line}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).expect("the server reads the request");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .unwrap_or_else(|error| panic!("no whole answer to {method} {path}: {error}; so far {answer:?}"));
    Reply::parse(&String::from_utf8_lossy(&answer))
}
