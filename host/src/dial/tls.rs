//! TLS of outgoing connections: whom to trust, what to show, the handshake.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client};

use super::DialFailure;

/// How to speak TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// The name that the server is told and that its certificate must have; the host's own by default.
    pub server_name: Option<String>,
    /// Trust, client certificate and application protocol; by default the system's root certificates, no certificate,
    /// and no protocol (HTTP/1.1, what WebSockets need, is what a server then speaks).
    pub config: Option<Arc<ClientConfig>>,
}

/// Which servers are believed to be who they say.
#[derive(Debug)]
pub enum Trust {
    /// Those that the system's root certificates vouch for.
    System,
    /// Those that one of these certificates vouches for, or that show one of them.
    Only(Vec<CertificateDer<'static>>),
    /// All. Whoever is on the way can read and change what is sent.
    Blind,
}

/// A TLS client: whom it trusts, the certificate (with its chain) and key that it shows when it is asked for them, and
/// the application protocols that it offers. Reads the system's root certificates when they are needed: it blocks.
///
/// # Errors
/// What is wrong with certificates, key or protocols, in words that hold no secret.
pub fn client_config(
    trust: Trust,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    protocols: Vec<Vec<u8>>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let webpki = |roots| {
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| error.to_string())
    };
    let builder = match trust {
        Trust::System => builder.with_webpki_verifier(webpki(system_roots()?)?),
        Trust::Only(trusted) => {
            let mut roots = RootCertStore::empty();
            for certificate in &trusted {
                roots.add(certificate.clone()).map_err(|error| format!("a certificate to trust: {error}"))?;
            }
            let chains = webpki(Arc::new(roots))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Exact { trusted, chains }))
        }
        Trust::Blind => builder.dangerous().with_custom_certificate_verifier(Arc::new(Blind { provider })),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?,
    };
    config.alpn_protocols = protocols;
    Ok(Arc::new(config))
}

/// Shakes hands with the server at the other end of `stream`.
pub(super) async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    tls: &TlsOptions,
) -> Result<client::TlsStream<S>, DialFailure> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    let server_name =
        ServerName::try_from(name.to_owned()).map_err(|_| DialFailure::ServerName(name.to_owned()))?;
    let config = match &tls.config {
        Some(config) => Arc::clone(config),
        None => system_config().await.map_err(DialFailure::Roots)?,
    };
    TlsConnector::from(config).connect(server_name, stream).await.map_err(DialFailure::Tls)
}

/// The system's root certificates.
///
/// They are read when the first connection needs them, not at the start: parsed, they take about a megabyte,
/// and most flows dial nothing by TLS. A failure is not kept, so that certificates installed later are found.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);
    // Held while they are read: who comes meanwhile, on a thread that may block, needs them too.
    let mut known = ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = &*known {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may hold a few certificates that rustls cannot use; the others do.
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(found.errors.first().map_or("the system has none".to_owned(), ToString::to_string));
    }
    Ok(Arc::clone(known.insert(Arc::new(roots))))
}

/// TLS with the system's root certificates and nothing else.
async fn system_config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: Mutex<Option<Arc<ClientConfig>>> = Mutex::new(None);
    let known = || CONFIG.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(config) = known() {
        return Ok(config);
    }
    let making = tokio::task::spawn_blocking(|| client_config(Trust::System, None, Vec::new()));
    let config = making.await.map_err(|error| error.to_string())??;
    *CONFIG.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&config));
    Ok(config)
}

/// Trusts chains that end in one of its certificates, and a server that shows one of them itself.
///
/// The latter is what devices do whose certificate `openssl req -x509` made: it is its own authority, and marked as one.
/// Node-RED's users put it where the authority belongs; webpki refuses an authority as a server.
#[derive(Debug)]
struct Exact {
    trusted: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Exact {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // Found before the chain is looked at and after the dates were: an expired certificate is another error.
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if why.0.to_string() == "CaUsedAsEndEntity" && self.trusted.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Trusts everybody. Signatures are not looked at either: they show that the peer has the key of the certificate that
/// it made, and old devices have certificates that webpki cannot read.
#[derive(Debug)]
struct Blind {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
