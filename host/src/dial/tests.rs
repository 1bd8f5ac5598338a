use super::*;

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const ROOT: &[u8] = include_bytes!("test-certificates/root.der");
const CERTIFICATE: &[u8] = include_bytes!("test-certificates/localhost.der");
const KEY: &[u8] = include_bytes!("test-certificates/localhost-key.der");

type Server = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// For `localhost`, from the authority of [`trusting_test_root`].
fn localhost() -> Server {
    (CertificateDer::from(CERTIFICATE), PrivateKeyDer::from(PrivatePkcs8KeyDer::from(KEY)))
}

/// For `server.example`, and its own authority.
fn self_signed() -> Server {
    pem(
        include_bytes!("test-certificates/self-signed.pem"),
        include_bytes!("test-certificates/self-signed-key.pem"),
    )
}

/// As [`self_signed`], and no longer valid.
fn expired() -> Server {
    pem(include_bytes!("test-certificates/expired.pem"), include_bytes!("test-certificates/expired-key.pem"))
}

fn pem(certificate: &[u8], key: &[u8]) -> Server {
    (CertificateDer::from_pem_slice(certificate).unwrap(), PrivateKeyDer::from_pem_slice(key).unwrap())
}

fn plain(host: &str, port: u16) -> DialOptions {
    DialOptions { host: host.to_owned(), port, tls: None, proxies: None, timeout: Duration::from_secs(10) }
}

fn by_tls(port: u16, tls: TlsOptions) -> DialOptions {
    DialOptions { tls: Some(tls), ..plain("localhost", port) }
}

fn trusting(trust: Trust) -> TlsOptions {
    TlsOptions { server_name: None, config: Some(client_config(trust, None, Vec::new()).unwrap()) }
}

fn trusting_test_root() -> TlsOptions {
    trusting(Trust::Only(vec![CertificateDer::from(ROOT)]))
}

/// Listens on 127.0.0.1 only and says `hi` to the first client, by TLS if there is a certificate.
async fn greeter(tls: Option<Server>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let Some((certificate, key)) = tls else { return stream.write_all(b"hi").await.unwrap() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        // A client that refuses the certificate ends the handshake: that is its test's business.
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            stream.write_all(b"hi").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    port
}

async fn greeting(options: DialOptions) -> String {
    let mut text = String::new();
    dial(&options).await.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_server_on_one_address_of_localhost_is_found_whichever_comes_first() {
    for host in ["localhost", "127.0.0.1"] {
        let port = greeter(None).await;
        assert_eq!(greeting(plain(host, port)).await, "hi", "{host}");
    }
}

#[tokio::test]
async fn tls_checks_the_certificate_against_roots_and_name() {
    let port = greeter(Some(localhost())).await;
    assert_eq!(greeting(by_tls(port, trusting_test_root())).await, "hi");

    let port = greeter(Some(localhost())).await;
    let other_name = TlsOptions { server_name: Some("other.example".into()), ..trusting_test_root() };
    let error = dial(&by_tls(port, other_name)).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("TLS handshake with localhost:{port} failed: ")), "{error}");

    let port = greeter(Some(localhost())).await;
    let other_root = trusting(Trust::Only(vec![self_signed().0]));
    let error = dial(&by_tls(port, other_root)).await.unwrap_err();
    assert!(matches!(error.failure, DialFailure::Tls(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_is_its_own_authority_is_trusted_when_it_is_the_one_that_was_named() {
    let named = |certificate: &Server, name: &str| TlsOptions {
        server_name: Some(name.into()),
        ..trusting(Trust::Only(vec![certificate.0.clone()]))
    };
    let port = greeter(Some(self_signed())).await;
    assert_eq!(greeting(by_tls(port, named(&self_signed(), "server.example"))).await, "hi");

    for (server, tls, reason) in [
        (self_signed(), named(&self_signed(), "other.example"), "NotValidForName"),
        (self_signed(), named(&localhost(), "server.example"), "CaUsedAsEndEntity"),
        (expired(), named(&expired(), "server.example"), "expired"),
    ] {
        let port = greeter(Some(server)).await;
        let error = dial(&by_tls(port, tls)).await.unwrap_err().to_string();
        let words = |text: &str| text.to_lowercase().replace(' ', "");
        assert!(words(&error).contains(&words(reason)), "{reason}: {error}");
    }
}

#[tokio::test]
async fn a_blind_client_takes_any_certificate() {
    for server in [localhost(), self_signed(), expired()] {
        let port = greeter(Some(server)).await;
        let tls = TlsOptions { server_name: Some("other.example".into()), ..trusting(Trust::Blind) };
        assert_eq!(greeting(by_tls(port, tls)).await, "hi");
    }
}

#[tokio::test]
async fn a_server_that_wants_another_client_certificate_says_so_when_it_is_read_from() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(ROOT)).unwrap();
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (certificate, key) = localhost();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![certificate], key)
        .unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap_err();
    });
    let mut stream = dial(&by_tls(port, trusting_test_root())).await.unwrap();
    let error = stream.read_u8().await.unwrap_err().to_string();
    assert_eq!(error, "received fatal alert: CertificateRequired");
}

#[tokio::test]
async fn what_fails_is_named_with_host_and_port() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = dial(&plain("127.0.0.1", free)).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot connect to 127.0.0.1:{free}: ")), "{error}");

    let error = dial(&plain("[::1]", free)).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot connect to [::1]:{free}: ")), "{error}");

    let error = dial(&plain("no such host", 80)).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot look up no such host:80: "), "{error}");

    let port = greeter(None).await;
    let tls = TlsOptions { server_name: Some("not a name".into()), ..trusting_test_root() };
    let error = dial(&DialOptions { tls: Some(tls), ..plain("localhost", port) }).await.unwrap_err();
    assert!(error.to_string().ends_with("`not a name` is not a server name for TLS"), "{error}");
}

#[tokio::test]
async fn a_peer_that_never_answers_is_given_up_in_time() {
    // It accepts, as the system does for it, but says nothing to a TLS handshake.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = DialOptions {
        tls: Some(trusting_test_root()),
        timeout: Duration::from_millis(50),
        ..plain("localhost", port)
    };
    let error = dial(&options).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot connect to localhost:{port}: no answer within 50 ms"));
}
