//! `tls-config` nodes: what a client trusts and what it shows. The server's certificate is for `server.example`, and
//! the clients find it on `localhost`, so its name comes from the configuration.

use flowbay_tests::harness::{
    Client, Flow, Host, HostBuilder, ServerTls, TlsWebSocket, WsServer, accept_tls_as, certificate_file,
    certificate_in, scratch_folder, test_root_file,
};
use serde_json::{Value, json};

/// A client of `server` with this `tls-config`, besides authority and server name. What it receives and its statuses
/// come out of `/io`, and what goes into that is sent.
fn flow(server: &WsServer, properties: Value) -> Flow {
    let mut tls = json!({"ca": certificate_file("authority.pem"), "servername": "server.example"});
    tls.as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
    client_of(server).config("tls", "tls-config", tls)
}

fn client_of(server: &WsServer) -> Flow {
    let url = format!("wss://localhost:{}/", server.address().port());
    Flow::new()
        .config("client", "websocket-client", json!({"path": url, "tls": "tls"}))
        .node("receive", "websocket in", "show", json!({"client": "client"}))
        .node("send", "websocket out", "", json!({"client": "client"}))
        .forget("show", "out")
        .forget("forget", "send")
        .node("watch", "status", "out", json!({"scope": ["receive"]}))
        .io("forget")
}

fn certificate_text(name: &str) -> String {
    std::fs::read_to_string(certificate_file(name)).unwrap()
}

fn accepted(host: &Host, server: &WsServer, tls: &ServerTls) -> TlsWebSocket {
    accept_tls_as(server, tls).unwrap_or_else(|error| panic!("{error}\n{}", host.logs()))
}

/// The next status event of the client.
fn event(io: &mut Client) -> Value {
    io.recv_json()["status"]["event"].clone()
}

fn assert_connected(io: &mut Client, peer: &mut TlsWebSocket) {
    assert_eq!(event(io), "connect");
    peer.send("in".into()).unwrap();
    assert_eq!(io.recv_json()["payload"], "in");
    io.send_json(&json!({"payload": "out"}));
    assert_eq!(peer.read().unwrap().into_text().unwrap().as_str(), "out");
}

/// Starts the flow and returns what the log says about the attempt, which fails. Nothing must come of it.
fn refused(server: &WsServer, tls: &ServerTls, host: HostBuilder) -> (Host, String) {
    let host = host.start();
    let mut io = host.io();
    accept_tls_as(server, tls).expect_err("the handshake fails");
    assert_eq!(event(&mut io), "error");
    let line = host.wait_log("could not connect");
    (host, line)
}

#[test]
fn a_server_that_asks_for_a_client_certificate_is_shown_the_nodes() {
    let (cert, key) = (certificate_file("client.pem"), certificate_file("client-key.pem"));
    let encrypted = certificate_file("client-key-pbkdf2.pem");
    let inline = |key: &str| json!({"certdata": certificate_text("client.pem"), "keydata": certificate_text(key), "cadata": certificate_text("authority.pem")});
    let mut inline_encrypted = inline("client-key-scrypt.pem");
    inline_encrypted["passphrase"] = json!("correct horse");
    for properties in [
        json!({"cert": cert, "key": key}),
        json!({"certType": "files", "cert": cert, "key": encrypted, "credentials": {"passphrase": "correct horse"}}),
        json!({"ca": "", "credentials": inline("client-key.pem")}),
        json!({"ca": "", "credentials": inline_encrypted}),
        json!({"certType": "env", "certEnv": "TEST_CERT", "keyEnv": "TEST_KEY", "caEnv": "TEST_CA"}),
    ] {
        let server = WsServer::bind();
        let host = Host::builder()
            .flow(&flow(&server, properties.clone()))
            .variable("TEST_CERT", certificate_text("client.pem"))
            .variable("TEST_KEY", certificate_text("client-key.pem"))
            .variable("TEST_CA", certificate_text("authority.pem"))
            .start();
        let mut io = host.io();
        let tls = ServerTls { clients_of: Some("authority.pem"), ..ServerTls::example() };
        let mut peer = accepted(&host, &server, &tls);
        let shown = peer.get_ref().conn.peer_certificates().expect("the client has shown one")[0].clone();
        assert_eq!(shown, certificate_in("client.pem"), "{properties}");
        assert_connected(&mut io, &mut peer);
    }
}

#[test]
fn without_a_certificate_a_server_that_asks_for_one_refuses() {
    let server = WsServer::bind();
    let host = Host::run(&flow(&server, json!({})));
    let tls = ServerTls { clients_of: Some("authority.pem"), ..ServerTls::example() };
    let mut io = host.io();
    accept_tls_as(&server, &tls).expect_err("the server insists");
    assert_eq!(event(&mut io), "error");
}

#[test]
fn a_configuration_that_cannot_be_used_fails_the_attempt_and_nothing_secret_is_said() {
    let cert = certificate_file("client.pem");
    let encrypted = certificate_file("client-key-pbkdf2.pem");
    for (properties, expected) in [
        (
            json!({"cert": cert, "key": encrypted, "credentials": {"passphrase": "battery staple"}}),
            format!("tls-config tls: the passphrase does not fit the key in {}", encrypted.display()),
        ),
        (json!({"cert": cert}), "tls-config tls: No certificate/key file provided".to_owned()),
        (json!({"ca": "/no/such/file"}), "tls-config tls: cannot read /no/such/file".to_owned()),
        (json!({"certType": "pfx", "p12": "client.p12"}), "tls-config tls: PKCS#12".to_owned()),
        (
            json!({"cert": cert, "credentials": {"keydata": "battery staple"}}),
            "tls-config tls: there is no private key in PEM form in the credential keydata".to_owned(),
        ),
        (json!({"d": true}), "tls-config tls: there is no such node, or it is disabled".to_owned()),
    ] {
        let (server, folder) = (WsServer::bind(), scratch_folder());
        // The system trusts the server: without the configuration there would be a connection.
        let host = Host::builder()
            .flow(&flow(&server, properties))
            .variable("SSL_CERT_FILE", test_root_file(folder.path()))
            .start();
        assert_eq!(event(&mut host.io()), "error");
        let line = host.wait_log("could not connect");
        assert!(line.contains(&expected), "{expected:?} in {line}");
        assert!(server.try_accept_tcp().is_none(), "a connection all the same");
        assert!(!host.log().contains("battery staple"), "{}", host.log());
    }
}

#[test]
fn an_authority_replaces_those_of_the_system() {
    let (server, folder) = (WsServer::bind(), scratch_folder());
    let flow = flow(&server, json!({"servername": ""}));
    // The system trusts this server, the configuration another authority.
    let host = Host::builder().flow(&flow).variable("SSL_CERT_FILE", test_root_file(folder.path()));
    let (_host, line) = refused(&server, &ServerTls::localhost(), host);
    assert!(line.contains("certificate"), "{line}");
}

#[test]
fn a_server_of_another_authority_or_name_is_not_connected_to() {
    for properties in [json!({"ca": certificate_file("stranger.pem")}), json!({"servername": ""})] {
        let server = WsServer::bind();
        let host = Host::builder().flow(&flow(&server, properties));
        let (_host, line) = refused(&server, &ServerTls::example(), host);
        assert!(line.contains("certificate"), "{line}");
    }
}

#[test]
fn a_self_signed_certificate_is_trusted_when_it_stands_in_for_its_authority() {
    let server = WsServer::bind();
    let host = Host::run(&flow(&server, json!({"ca": certificate_file("self-signed.pem")})));
    let mut io = host.io();
    let certificate = ("self-signed.pem", "self-signed-key.pem");
    let mut peer = accepted(&host, &server, &ServerTls { certificate, ..ServerTls::example() });
    assert_connected(&mut io, &mut peer);
}

#[test]
fn without_verification_any_server_is_connected_to_and_the_log_says_so_once() {
    let server = WsServer::bind();
    let host = Host::run(&flow(&server, json!({"ca": "", "servername": "", "verifyservercert": false})));
    let mut io = host.io();
    for _ in 0..2 {
        let certificate = ("expired.pem", "expired-key.pem");
        let mut peer = accepted(&host, &server, &ServerTls { certificate, ..ServerTls::example() });
        assert_connected(&mut io, &mut peer);
        drop(peer);
        while event(&mut io) != "disconnect" {}
    }
    assert_eq!(host.count_log("tls*does not verify the certificates"), 1, "{}", host.log());
}

#[test]
fn server_name_and_application_protocol_are_told_to_the_server() {
    let server = WsServer::bind();
    let host = Host::run(&flow(&server, json!({"alpnprotocol": "http/1.1"})));
    let tls = ServerTls { protocols: vec!["other", "http/1.1"], ..ServerTls::example() };
    let peer = accepted(&host, &server, &tls);
    let session = &peer.get_ref().conn;
    assert_eq!(session.server_name(), Some("server.example"));
    assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_file_that_changes_is_read_again_for_the_next_connection() {
    let (server, folder) = (WsServer::bind(), scratch_folder());
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, certificate_text("stranger.pem")).unwrap();
    let host = Host::run(&flow(&server, json!({"ca": authority})));
    accept_tls_as(&server, &ServerTls::example()).expect_err("the authority is another one");
    host.wait_log("could not connect");
    std::fs::write(&authority, certificate_text("authority.pem")).unwrap();
    // An attempt may have begun before the file was there.
    let again = || accept_tls_as(&server, &ServerTls::example()).ok();
    host.eventually("a connection with the new authority", again);
}

#[test]
fn a_configuration_works_without_the_plugin_that_describes_its_type() {
    let server = WsServer::bind();
    let url = format!("wss://localhost:{}/", server.address().port());
    let tls = json!({"ca": certificate_file("authority.pem"), "servername": "server.example"});
    let flow = Flow::new()
        .config("client", "websocket-client", json!({"path": url, "tls": "tls"}))
        .config("tls", "tls-config", tls)
        .node("receive", "websocket in", "out", json!({"client": "client"}))
        .io("");
    let host = Host::builder().no_plugins().plugin("websocket").flow(&flow).start();
    accepted(&host, &server, &ServerTls::example());
}
