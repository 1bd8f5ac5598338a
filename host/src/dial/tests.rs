use super::*;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const ROOT: &[u8] = include_bytes!("test-certificates/root.der");
const CERTIFICATE: &[u8] = include_bytes!("test-certificates/localhost.der");
const KEY: &[u8] = include_bytes!("test-certificates/localhost-key.der");

fn plain(host: &str, port: u16) -> DialOptions {
    DialOptions { host: host.to_owned(), port, tls: None, timeout: Duration::from_secs(10) }
}

fn trusting_test_root() -> TlsOptions {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ROOT)).unwrap();
    TlsOptions { server_name: None, config: Some(client_config(roots).unwrap()) }
}

/// Listens on 127.0.0.1 only and says `hi` to the first client, by TLS if asked to.
async fn greeter(tls: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        if !tls {
            return stream.write_all(b"hi").await.unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(CERTIFICATE)],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(KEY)),
            )
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
        let port = greeter(false).await;
        assert_eq!(greeting(plain(host, port)).await, "hi", "{host}");
    }
}

#[tokio::test]
async fn tls_checks_the_certificate_against_roots_and_name() {
    let by_tls = |port, tls| DialOptions { tls: Some(tls), ..plain("localhost", port) };
    let port = greeter(true).await;
    assert_eq!(greeting(by_tls(port, trusting_test_root())).await, "hi");

    let port = greeter(true).await;
    let other_name = TlsOptions { server_name: Some("other.example".into()), ..trusting_test_root() };
    let error = dial(&by_tls(port, other_name)).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("TLS handshake with localhost:{port} failed: ")), "{error}");

    let port = greeter(true).await;
    let no_roots =
        TlsOptions { config: Some(client_config(RootCertStore::empty()).unwrap()), ..TlsOptions::default() };
    let error = dial(&by_tls(port, no_roots)).await.unwrap_err();
    assert!(matches!(error.failure, DialFailure::Tls(_)), "{error}");
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

    let port = greeter(false).await;
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
