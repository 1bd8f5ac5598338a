//! The server's own TLS: its certificate, taken from files and taken anew when they change.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

/// The one application protocol that the server speaks. A client that offers others only is refused.
const ALPN: &[u8] = b"http/1.1";

/// Largest file that is read, in bytes: a certificate with its chain has some kilobytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The server's certificate and key. Connections take the configuration that holds when they begin.
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
    /// What the files held when they were last looked at, good or bad: nothing is said twice.
    seen: Mutex<[u8; 32]>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why certificate and key cannot be used, as one line that names the file. Nothing of a key is ever in it.
#[derive(Debug)]
pub enum TlsError {
    /// One was given without the other.
    OnlyOne {
        /// The setting that is missing.
        missing: &'static str,
        /// The setting that is there.
        given: &'static str,
    },
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A file is not PEM.
    NotPem(PathBuf, String),
    /// There is no certificate in the file.
    NoCertificate(PathBuf),
    /// There is no private key in the file.
    NoKey(PathBuf),
    /// The key is encrypted, and nobody is there to ask for its passphrase.
    EncryptedKey(PathBuf),
    /// The key is of a kind that the server cannot use, or damaged.
    BadKey(PathBuf),
    /// The certificate cannot be used.
    BadCertificate(PathBuf, String),
    /// The key is another certificate's.
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyOne { missing, given } => write!(f, "{given} needs {missing} too"),
            Self::Unreadable(file, error) => {
                write!(f, "cannot read the TLS file {}: {error}", file.display())
            }
            Self::NotPem(file, why) => write!(f, "{} is not a PEM file: {why}", file.display()),
            Self::NoCertificate(file) => {
                write!(f, "{} has no certificate (-----BEGIN CERTIFICATE-----) in it", file.display())
            }
            Self::NoKey(file) => {
                write!(f, "{} has no private key (-----BEGIN PRIVATE KEY-----) in it", file.display())
            }
            Self::EncryptedKey(file) => {
                write!(
                    f,
                    "the key in {} is encrypted; the host needs it without a passphrase",
                    file.display()
                )
            }
            Self::BadKey(file) => {
                write!(f, "the key in {} is damaged or neither RSA, ECDSA nor Ed25519", file.display())
            }
            Self::BadCertificate(file, why) => {
                write!(f, "the certificate in {} cannot be used: {why}", file.display())
            }
            Self::Mismatch { certificate, key } => write!(
                f,
                "the key in {} does not belong to the certificate in {}",
                key.display(),
                certificate.display()
            ),
        }
    }
}

impl std::error::Error for TlsError {}

impl ServerTls {
    /// TLS with the certificate (its chain may follow it) and key in these PEM files; `None` without both. A key that
    /// others than its owner and group may read is warned about.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn from_files(certificate: Option<&Path>, key: Option<&Path>) -> Result<Option<Arc<Self>>, TlsError> {
        let (certificate, key) = match (certificate, key) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => return Err(TlsError::OnlyOne { missing: "--tls-key", given: "--tls-cert" }),
            (None, Some(_)) => return Err(TlsError::OnlyOne { missing: "--tls-cert", given: "--tls-key" }),
        };
        let files = Files::read(certificate, key)?;
        let config = files.config(certificate, key)?;
        warn_if_others_may_read(key);
        Ok(Some(Arc::new(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            config: ArcSwap::new(config),
            seen: Mutex::new(files.digest()),
        })))
    }

    /// What holds for a connection that begins now.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Folders in which a change may mean another certificate: those of the files, and those that links lead to.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let files = [&self.certificate, &self.key];
        let real = files.iter().filter_map(|file| file.canonicalize().ok());
        let all: Vec<PathBuf> = files.into_iter().cloned().chain(real).collect();
        let mut folders: Vec<PathBuf> = all
            .iter()
            .filter_map(|file| file.parent())
            .map(|folder| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
            .collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    /// Looks at the files again. New connections get what is new in them; what cannot be used is said in the log, and
    /// what held before goes on holding. Reads files, so it is not for tokio's threads.
    pub fn reload(&self) {
        // Held throughout: who comes second finds what the first one did.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let files = Files::read(&self.certificate, &self.key);
        let digest = match &files {
            Ok(files) => files.digest(),
            Err(error) => Sha256::digest(error.to_string()).into(),
        };
        if std::mem::replace(&mut *seen, digest) == digest {
            return;
        }
        match files.and_then(|files| files.config(&self.certificate, &self.key)) {
            Ok(config) => {
                self.config.store(config);
                info!("new TLS certificate from {}", self.certificate.display());
                warn_if_others_may_read(&self.key);
            }
            Err(error) => warn!("the TLS certificate stays as it was: {error}"),
        }
    }
}

/// Why a client did not get through the TLS handshake, with the stream where there is something to end in order.
#[derive(Debug)]
pub(super) enum HandshakeFailure {
    /// It went away, or never said anything.
    Gone(io::Error),
    /// It speaks HTTP without TLS.
    PlainHttp(TcpStream),
    /// It was told what is wrong, as far as TLS has words for that.
    Failed(io::Error, TcpStream),
}

/// Shakes hands with a client.
pub(super) async fn shake_hands(
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, HandshakeFailure> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Err(error) => return Err(HandshakeFailure::Gone(error)),
        Ok(0) => return Err(HandshakeFailure::Gone(io::ErrorKind::UnexpectedEof.into())),
        // Every method of HTTP begins so, and nothing of TLS does.
        Ok(_) if first[0].is_ascii_uppercase() => return Err(HandshakeFailure::PlainHttp(stream)),
        Ok(_) => {}
    }
    let shaken = TlsAcceptor::from(config).accept(stream).into_fallible().await;
    shaken.map_err(|(error, stream)| match error.kind() {
        io::ErrorKind::InvalidData => HandshakeFailure::Failed(error, stream),
        _ => HandshakeFailure::Gone(error),
    })
}

/// Both files as they are.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read =
            |file: &Path| read_small(file).map_err(|error| TlsError::Unreadable(file.to_owned(), error));
        Ok(Self { certificate: read(certificate)?, key: read(key)? })
    }

    fn digest(&self) -> [u8; 32] {
        let both = Sha256::new().chain_update((self.certificate.len() as u64).to_le_bytes());
        both.chain_update(&self.certificate).chain_update(&self.key).finalize().into()
    }

    /// What a connection needs, made of them; the names are for errors.
    fn config(&self, certificate_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, TlsError> {
        let not_pem = |file: &Path, error: pem::Error| TlsError::NotPem(file.to_owned(), error.to_string());
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| not_pem(certificate_file, error))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(certificate_file.to_owned()));
        }
        let key = match PrivateKeyDer::from_pem_slice(&self.key) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) if self.has_encrypted_key() => {
                return Err(TlsError::EncryptedKey(key_file.to_owned()));
            }
            Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey(key_file.to_owned())),
            Err(error) => return Err(not_pem(key_file, error)),
        };
        // Tried alone first, so that the error names the file that it is in.
        ring::sign::any_supported_type(&key).map_err(|_| {
            if self.has_encrypted_key() {
                TlsError::EncryptedKey(key_file.to_owned())
            } else {
                TlsError::BadKey(key_file.to_owned())
            }
        })?;
        let bad = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: certificate_file.to_owned(), key: key_file.to_owned() }
            }
            error => TlsError::BadCertificate(certificate_file.to_owned(), error.to_string()),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            // TLS 1.2 and 1.3, which is all that the library has.
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(bad)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }

    /// By either of the two ways in which PEM files say so.
    fn has_encrypted_key(&self) -> bool {
        let text = String::from_utf8_lossy(&self.key);
        text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
    }
}

/// Reads an ordinary file of at most [`MAX_FILE_BYTES`]. On a pipe, opening would wait for ever, and with it whoever has
/// the files read again: the thread that takes signals, for one.
fn read_small(file: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Whoever can read the key can be this server.
#[cfg(unix)]
fn warn_if_others_may_read(key: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(key).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o004 != 0 {
        warn!("every user of this machine may read the TLS key {}; chmod o-r closes that", key.display());
    }
}

#[cfg(not(unix))]
fn warn_if_others_may_read(_key: &Path) {}

#[cfg(test)]
mod tests;
