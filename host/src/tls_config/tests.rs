use super::*;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dial/test-certificates").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn node(properties: Value, credentials: Value) -> Result<TlsNode, TlsProblem> {
    let mut properties = object(properties);
    properties.entry("type").or_insert(json!("tls-config"));
    let variable = |name: &str| match name {
        "CERT" => text("client.pem"),
        "KEY" => text("client-key.pem").replace('\n', "\\n"),
        _ => String::new(),
    };
    TlsNode::new("t1", &properties, &object(credentials), variable)
}

/// What a node comes to: its options, or the line that says why not.
async fn resolved(properties: Value, credentials: Value) -> Result<TlsOptions, String> {
    let node = node(properties, credentials)
        .map_err(|problem| TlsConfigError { node: "t1".to_owned(), problem }.to_string())?;
    TlsConfigs::default().resolve(node).await.map_err(|error| error.to_string())
}

async fn refused(properties: Value, credentials: Value) -> String {
    match resolved(properties.clone(), credentials).await {
        Err(error) => error,
        Ok(_) => panic!("{properties} is taken"),
    }
}

fn has_certificate(options: &TlsOptions) -> bool {
    options.config.as_ref().unwrap().client_auth_cert_resolver.has_certs()
}

#[tokio::test]
async fn certificate_and_key_come_from_files_credentials_or_variables() {
    let ca = json!(file("authority.pem"));
    for (properties, credentials) in [
        (json!({"cert": file("client.pem"), "key": file("client-key.pem"), "ca": ca}), json!({})),
        (
            json!({"certType": "files", "ca": ca}),
            json!({"certdata": text("client.pem"), "keydata": text("client-key.pem")}),
        ),
        (json!({"cert": file("client.pem"), "ca": ca}), json!({"keydata": text("client-key-sec1.pem")})),
        (
            json!({"certType": "env", "certEnv": "CERT", "keyEnv": "KEY", "verifyservercert": false}),
            json!({}),
        ),
    ] {
        let options = resolved(properties.clone(), credentials).await.unwrap();
        assert!(has_certificate(&options), "{properties}");
    }
    let options =
        resolved(json!({"ca": "", "cert": "", "key": ""}), json!({"cadata": text("authority.pem")})).await;
    assert!(!has_certificate(&options.unwrap()));
}

#[tokio::test]
async fn an_encrypted_key_needs_its_passphrase() {
    let properties =
        |key: &str| json!({"cert": file("client.pem"), "key": file(key), "ca": file("authority.pem")});
    for name in ["client-key-pbkdf2.pem", "client-key-scrypt.pem", "client-key-3des.pem"] {
        let with = |passphrase: &str| resolved(properties(name), json!({"passphrase": passphrase}));
        assert!(has_certificate(&with("correct horse").await.unwrap()), "{name}");
        let key = file(name).display().to_string();
        assert_eq!(
            with("battery staple").await.unwrap_err(),
            format!("tls-config t1: the passphrase does not fit the key in {key}")
        );
        assert_eq!(
            with("").await.unwrap_err(),
            format!("tls-config t1: the key in {key} is encrypted, and there is no passphrase")
        );
    }
    for name in ["client-key-legacy.pem", "client-key-pbes1.pem", "client-key-endless.pem"] {
        let error = refused(properties(name), json!({"passphrase": "correct horse"})).await;
        assert!(error.contains(name) && error.contains("openssl pkcs8 -topk8"), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_named_and_what_is_in_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let own = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        json!(path)
    };
    let (cert, key) = (file("client.pem"), file("client-key.pem"));
    let half = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n";
    let no_base64 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n!secret!\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (properties, credentials, expected) in [
        (
            json!({"cert": cert}),
            json!({}),
            "No certificate/key file provided: a certificate and its key belong together, and the key is missing",
        ),
        (json!({"key": key}), json!({}), "the certificate is missing"),
        (
            json!({"cert": "/no/such/file", "key": key}),
            json!({}),
            "cannot read /no/such/file: entity not found",
        ),
        (json!({"cert": folder.path(), "key": key}), json!({}), "is not a file"),
        (json!({"cert": "/dev/zero", "key": key}), json!({}), "/dev/zero is not a file"),
        (json!({"cert": own("large", &vec![b'x'; 2_000_000]), "key": key}), json!({}), "large is too large"),
        (json!({"cert": key, "key": key}), json!({}), "there is no certificate in PEM form in"),
        (json!({"cert": cert, "key": cert}), json!({}), "there is no private key in PEM form in"),
        (json!({"cert": cert, "key": own("half", half.as_bytes())}), json!({}), "half"),
        (
            json!({"cert": cert}),
            json!({"keydata": no_base64, "passphrase": "x"}),
            "the credential keydata is damaged",
        ),
        (
            json!({"cert": cert}),
            json!({"keydata": "secret"}),
            "there is no private key in PEM form in the credential keydata",
        ),
        (
            json!({"cert": own("binary", &[0xFF; 100]), "key": own("binary", &[0xFF; 100])}),
            json!({}),
            "there is no certificate",
        ),
        (
            json!({"cert": cert, "key": file("server-key.pem"), "ca": cert}),
            json!({}),
            "keys may not be consistent",
        ),
        (json!({"certType": "pfx", "p12": "a.p12"}), json!({"p12data": "secret"}), "openssl pkcs12 -in FILE"),
        (json!({"certType": "vault"}), json!({}), "certType \"vault\" is not known"),
        (json!({"certType": "env", "certEnv": "GONE"}), json!({}), "the variable GONE is not set"),
        (json!({"type": "websocket-listener"}), json!({}), "the node is a websocket-listener"),
        (
            json!({"alpnprotocol": "x".repeat(256), "ca": cert}),
            json!({}),
            "the ALPN protocol is longer than 255 bytes",
        ),
    ] {
        let error = refused(properties.clone(), credentials).await;
        assert!(error.starts_with("tls-config t1: "), "{error}");
        assert!(error.contains(expected), "{properties}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn server_name_and_protocol_are_the_nodes() {
    let options = resolved(
        json!({"ca": file("authority.pem"), "servername": " server.example ", "alpnprotocol": "mqtt"}),
        json!({}),
    );
    let options = options.await.unwrap();
    assert_eq!(options.server_name.as_deref(), Some("server.example"));
    assert_eq!(options.config.unwrap().alpn_protocols, [b"mqtt".to_vec()]);

    let plain =
        resolved(json!({"ca": file("authority.pem"), "servername": "", "alpnprotocol": ""}), json!({}));
    let plain = plain.await.unwrap();
    assert_eq!(plain.server_name, None);
    assert!(plain.config.unwrap().alpn_protocols.is_empty());
}

#[tokio::test]
async fn a_configuration_is_kept_until_the_node_or_a_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, text("authority.pem")).unwrap();
    let configs = TlsConfigs::default();
    let configs = &configs;
    let config = |properties: Value| async move {
        configs.resolve(node(properties, json!({})).unwrap()).await.unwrap().config.unwrap()
    };
    let first = config(json!({"ca": ca})).await;
    assert!(std::sync::Arc::ptr_eq(&first, &config(json!({"ca": ca, "x": 1})).await));
    std::fs::write(&ca, text("stranger.pem")).unwrap();
    let second = config(json!({"ca": ca})).await;
    assert!(!std::sync::Arc::ptr_eq(&first, &second));
    assert!(!std::sync::Arc::ptr_eq(&second, &config(json!({"ca": ca, "alpnprotocol": "a"})).await));
}

#[tokio::test]
async fn only_a_plain_no_switches_verification_off() {
    for (value, verifies) in [
        (json!(true), true),
        (json!(null), true),
        (json!("false"), true),
        (json!(0), true),
        (json!(false), false),
    ] {
        let node = node(json!({"verifyservercert": value}), json!({})).unwrap();
        assert_eq!(node.verify, verifies, "{value}");
    }
}
