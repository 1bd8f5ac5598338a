//! Clients that go by way of the proxies in the host's environment. Their servers have a name that only the proxy
//! knows: a connection that is made has come through it.

use flowbay_tests::harness::{
    ConnectProxy, Flow, Host, HostBuilder, ProxyManner, ServerTls, WsServer, accept_tls_as, certificate_file,
    scratch_folder, test_root_file,
};
use serde_json::{Value, json};

/// A client of `url`; what it receives and its statuses come out of `/io`, and what goes into that is sent.
fn flow(url: &str) -> Flow {
    Flow::new()
        .config("client", "websocket-client", json!({"path": url, "tls": "tls", "connectTimeout": "2"}))
        .config(
            "tls",
            "tls-config",
            json!({"ca": certificate_file("authority.pem"), "servername": "server.example"}),
        )
        .node("receive", "websocket in", "show", json!({"client": "client"}))
        .node("send", "websocket out", "", json!({"client": "client"}))
        .forget("show", "out")
        .forget("forget", "send")
        .node("watch", "status", "out", json!({"scope": ["receive"]}))
        .io("forget")
}

fn host(url: &str, variables: &[(&str, String)]) -> HostBuilder {
    let host = Host::builder().flow(&flow(url));
    variables.iter().fold(host, |host, (name, value)| host.variable(name, value))
}

fn url_of(scheme: &str, proxy: &ConnectProxy) -> String {
    format!("{scheme}://{}", proxy.address())
}

/// The line of the log about an attempt that fails.
fn failure(host: &Host) -> String {
    let status: Value = host.io().recv_json()["status"].clone();
    assert_eq!(status["event"], "error");
    host.wait_log("could not connect")
}

#[test]
fn a_plain_connection_goes_through_a_tunnel_of_the_proxy() {
    for status in ["HTTP/1.1 200 Connection established", "HTTP/1.0 200 OK\r\nVia: 1.0 it"] {
        let server = WsServer::bind();
        let proxy = ConnectProxy::start(false, ProxyManner::Tunnel(server.address(), status));
        let host = host("ws://server.example:81/path?q", &[("HTTP_PROXY", url_of("http", &proxy))]).start();
        let mut io = host.io();
        let mut peer = server.accept();
        let head = proxy.asked();
        assert!(head.starts_with("CONNECT server.example:81 HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\nhost: server.example:81\r\n"), "{head}");
        assert_eq!(peer.path, "/path?q", "{status}");
        assert_eq!(peer.headers["host"], "server.example:81");
        assert_eq!(io.recv_json()["status"]["event"], "connect");
        peer.socket.send_text("in");
        assert_eq!(io.recv_json()["payload"], "in");
        io.send_json(&json!({"payload": "out"}));
        assert_eq!(peer.socket.recv_text(), "out");
    }
}

#[test]
fn tls_is_spoken_with_the_server_through_the_proxy() {
    let server = WsServer::bind();
    let proxy = ConnectProxy::start(false, ProxyManner::tunnel(server.address()));
    let host = host("wss://server.example/", &[("https_proxy", url_of("http", &proxy))]).start();
    let mut peer = accept_tls_as(&server, &ServerTls::example())
        .unwrap_or_else(|error| panic!("{error}\n{}", host.logs()));
    assert!(proxy.asked().starts_with("CONNECT server.example:443 "));
    let mut io = host.io();
    peer.send("in".into()).unwrap();
    while io.recv_json()["payload"] != "in" {}
}

#[test]
fn a_proxy_may_be_spoken_with_by_tls() {
    let folder = scratch_folder();
    for scheme in ["ws", "wss"] {
        let server = WsServer::bind();
        let proxy = ConnectProxy::start(true, ProxyManner::tunnel(server.address()));
        let proxy_url = format!("https://localhost:{}", proxy.address().port());
        let host = host(&format!("{scheme}://server.example/"), &[("ALL_PROXY", proxy_url)])
            .variable("SSL_CERT_FILE", test_root_file(folder.path()))
            .start();
        let mut io = host.io();
        if scheme == "ws" {
            let mut peer = server.accept();
            // Until then it is the server alone that is connected.
            peer.socket.send_text("in");
            while io.recv_json()["payload"] != "in" {}
            io.send_json(&json!({"payload": "out"}));
            assert_eq!(peer.socket.recv_text(), "out");
        } else {
            let peer = accept_tls_as(&server, &ServerTls::example());
            let mut peer = peer.unwrap_or_else(|error| panic!("{error}\n{}", host.logs()));
            peer.send("in".into()).unwrap();
            while io.recv_json()["payload"] != "in" {}
        }
    }
}

#[test]
fn a_proxy_by_tls_that_the_system_does_not_trust_is_not_used() {
    let server = WsServer::bind();
    let proxy = ConnectProxy::start(true, ProxyManner::tunnel(server.address()));
    let proxy_url = format!("https://localhost:{}", proxy.address().port());
    let host = host("ws://server.example/", &[("ALL_PROXY", proxy_url.clone())]).start();
    let line = failure(&host);
    assert!(
        line.contains(&format!("by way of the proxy {proxy_url}: TLS handshake with the proxy failed")),
        "{line}"
    );
    assert!(proxy.try_asked().is_none());
}

#[test]
fn a_proxy_that_wants_to_know_who_asks_is_told_and_the_log_is_not() {
    let server = WsServer::bind();
    let proxy = ConnectProxy::start(false, ProxyManner::TunnelFor(server.address(), "Basic bWU6c2VjcmV0"));
    let with = |user: &str| {
        let url = format!("http://{user}{}", proxy.address());
        host("ws://server.example/", &[("HTTP_PROXY", url)]).start()
    };
    let accepted = with("me:secret@");
    server.accept();
    assert!(!accepted.log().contains("secret"));
    drop(accepted);

    for (user, expected) in [
        ("", "the proxy asks for a user and a password (407)"),
        ("me:wrong-secret@", "the proxy does not accept the user and password (407)"),
    ] {
        let refused = with(user);
        let line = failure(&refused);
        assert!(
            line.contains(&format!("by way of the proxy http://{}: {expected}", proxy.address())),
            "{line}"
        );
        assert!(!refused.log().contains("secret"), "{}", refused.log());
    }
    assert!(server.try_accept_tcp().is_none());
}

#[test]
fn a_proxy_may_speak_socks_and_looks_the_name_up() {
    for (user, known) in [("", None), ("me:secret@", Some(("me", "secret")))] {
        let server = WsServer::bind();
        let proxy = ConnectProxy::start(false, ProxyManner::Socks(server.address(), known));
        let proxy_url = format!("socks5://{user}{}", proxy.address());
        let _host = host("ws://server.example:81/", &[("ALL_PROXY", proxy_url)]).start();
        assert_eq!(server.accept().headers["host"], "server.example:81");
        assert_eq!(proxy.asked(), "server.example:81");
    }

    let proxy =
        ConnectProxy::start(false, ProxyManner::Socks(WsServer::bind().address(), Some(("me", "secret"))));
    for (user, expected) in [
        ("", "the proxy refused: No acceptable auth methods"),
        ("me:wrong-secret@", "the proxy refused: Password auth failure"),
    ] {
        let proxy_url = format!("socks5h://{user}{}", proxy.address());
        let host = host("ws://server.example/", &[("ALL_PROXY", proxy_url)]).start();
        let line = failure(&host);
        assert!(
            line.contains(&format!("by way of the proxy socks5://{}: {expected}", proxy.address())),
            "{line}"
        );
        assert!(!host.log().contains("secret"), "{}", host.log());
    }
}

#[test]
fn a_proxy_that_does_not_open_the_way_is_named_and_the_server_is_not_connected_to_without_it() {
    let say = |text: &str| ProxyManner::Say(text.as_bytes().to_vec());
    for (manner, expected) in [
        (say("HTTP/1.1 403 No way\r\nContent-Length: 3\r\n\r\nnot"), "the proxy refused: 403 Forbidden"),
        (say("HTTP/1.1 502 Gone\r\n\r\n"), "the proxy refused: 502 Bad Gateway"),
        (say("HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n"), "the proxy refused: 302 Found"),
        (say("SSH-2.0-OpenSSH_9.2\r\n"), "the proxy did not answer as one"),
        (say(&"x".repeat(100_000)), "the proxy did not answer as one"),
        (
            say(&format!("HTTP/1.1 200 OK\r\n{}", "X-More: of it\r\n".repeat(5_000))),
            "the proxy did not answer as one",
        ),
        (
            say("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n"),
            "the proxy sent data that nobody asked for",
        ),
        (say(""), "no answer within"),
        (ProxyManner::Close, "the proxy did not answer as one"),
    ] {
        let proxy = ConnectProxy::start(false, manner.clone());
        let host = host("ws://server.example/", &[("HTTP_PROXY", url_of("http", &proxy))]).start();
        let line = failure(&host);
        let way =
            format!("cannot connect to server.example:80 by way of the proxy http://{}", proxy.address());
        assert!(line.contains(&way) && line.contains(expected), "{manner:?}: {line}");
    }
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    // Its port is free again.
    let gone = WsServer::bind().address();
    let host = host("ws://server.example/", &[("HTTP_PROXY", format!("http://{gone}"))]).start();
    let line = failure(&host);
    assert!(line.contains("cannot connect to the proxy"), "{line}");
}

#[test]
fn what_no_proxy_lists_and_what_is_on_this_machine_is_connected_to_directly() {
    let server = WsServer::bind();
    let proxy = ConnectProxy::start(false, ProxyManner::Close);
    let variables = [("ALL_PROXY", url_of("http", &proxy)), ("NO_PROXY", ".example:80".to_owned())];
    let local = host(&server.url("/"), &variables).start();
    server.accept();
    assert!(proxy.try_asked().is_none());
    drop(local);

    let listed = host("ws://server.example/", &variables).start();
    let line = failure(&listed);
    assert!(line.contains("cannot look up server.example:80"), "{line}");
    assert!(proxy.try_asked().is_none());

    // Another port is not listed.
    let other = host("ws://server.example:81/", &variables).start();
    assert!(proxy.asked().starts_with("CONNECT server.example:81 "), "{}", other.log());
}

#[test]
fn a_variable_that_names_no_proxy_is_an_error_and_never_a_direct_connection() {
    for (value, expected) in [
        ("ftp://me:secret@proxy", "HTTP_PROXY in the environment is not the URL of a proxy"),
        ("socks4://me:secret@proxy", "HTTP_PROXY in the environment names a socks4 proxy"),
    ] {
        let host = host("ws://server.example/", &[("HTTP_PROXY", value.to_owned())]).start();
        let line = failure(&host);
        assert!(line.contains(expected), "{line}");
        assert!(!host.log().contains("secret"), "{}", host.log());
    }
}
