use super::*;

use hyper::Method;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::http::routes::Handler;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const HANDSHAKE: &str = "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A server with these settings on a free port, and its routes.
async fn server(settings: Settings) -> (RunningServer, Arc<Routes>) {
    let routes = Arc::new(Routes::new());
    let settings = Settings { port: 0, ..settings };
    let server = Server::bind(&settings, Arc::clone(&routes), AdminGuard::loopback_only()).await.unwrap();
    (server.start(), routes)
}

fn request(
    access: Access,
    method: Method,
    answer: impl Fn(HttpRequest) -> HttpResponse + Send + Sync + 'static,
) -> Handler {
    let handler = move |request: HttpRequest| -> BoxFuture<HttpResponse> {
        let response = answer(request);
        Box::pin(async { response })
    };
    Handler::Request(access, method, Arc::new(handler))
}

fn upgrade(answer: impl Fn(UpgradeRequest) -> UpgradeAnswer + Send + Sync + 'static) -> Handler {
    let handler = move |request: UpgradeRequest| -> BoxFuture<UpgradeAnswer> {
        let answer = answer(request);
        Box::pin(async { answer })
    };
    Handler::Upgrade(Arc::new(handler))
}

/// Accepts with the first offered subprotocol and sends back what comes, beginning with what came early.
fn echo() -> Handler {
    upgrade(|request| UpgradeAnswer::Accept {
        protocol: request.protocols.first().cloned(),
        headers: hyper::HeaderMap::new(),
        on_stream: Box::new(|mut stream, early| {
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                stream.write_all(&early).await?;
                loop {
                    let length = stream.read(&mut buffer).await?;
                    if length == 0 {
                        return io::Result::Ok(());
                    }
                    stream.write_all(&buffer[..length]).await?;
                }
            });
        }),
    })
}

async fn connect(server: &RunningServer) -> TcpStream {
    TcpStream::connect(server.local_addr()).await.unwrap()
}

/// Sends this and reads until the server closes.
async fn ask(server: &RunningServer, text: &str) -> String {
    let mut client = connect(server).await;
    client.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap_or_else(|error| panic!("{error} after {answer:?}"));
    String::from_utf8(answer).unwrap()
}

/// Reads until what was read ends with this.
async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let byte = client.read_u8().await;
        answer
            .push(byte.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&answer))));
    }
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").or_else(|| answer.strip_prefix("HTTP/1.0 "));
    status.and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// Waits for something to be so.
async fn until(is_so: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it does not come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_accepted_handshake_hands_the_stream_over_with_what_came_early() {
    let (server, routes) = server(Settings::default()).await;
    routes.add("n1", "ws/echo", echo()).unwrap();
    let mut client = connect(&server).await;
    let handshake = format!("GET /ws/echo?room=1 HTTP/1.1\r\n{HANDSHAKE}\r\nearly");
    client.write_all(handshake.as_bytes()).await.unwrap();
    let answer = read_until(&mut client, "\r\n\r\n").await;
    assert_eq!(
        answer,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
    read_until(&mut client, "early").await;
    client.write_all(b"late").await.unwrap();
    read_until(&mut client, "late").await;
}

#[tokio::test]
async fn the_chosen_subprotocol_is_answered_and_the_request_reaches_the_node_whole() {
    let (server, routes) = server(Settings::default()).await;
    let (seen, mut requests) = mpsc::unbounded_channel();
    let handler = upgrade(move |request| {
        seen.send(request).unwrap();
        let response = HttpResponse::text(StatusCode::UNAUTHORIZED, "Unauthorized");
        UpgradeAnswer::Refuse { response, reason: "not today".into() }
    });
    routes.add("n1", "/refusing", handler).unwrap();
    routes.add("n2", "/echo", echo()).unwrap();

    let offer = format!("HTTP/1.1\r\n{HANDSHAKE}Sec-WebSocket-Protocol: foo, bar\r\n\r\n");
    let answer = ask(&server, &format!("GET /refusing?a=%20b {offer}")).await;
    assert_eq!(status(&answer), 401);
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("\r\n\r\nUnauthorized"), "{answer}");
    let request = requests.recv().await.unwrap();
    assert_eq!((request.path.as_str(), request.query.as_deref()), ("/refusing", Some("a=%20b")));
    assert_eq!(request.protocols, ["foo", "bar"]);
    assert_eq!(request.headers["host"], "localhost");
    assert!(request.remote.ip().is_loopback());

    let mut client = connect(&server).await;
    client.write_all(format!("GET /echo {offer}").as_bytes()).await.unwrap();
    let answer = read_until(&mut client, "\r\n\r\n").await;
    assert!(answer.contains("\r\nsec-websocket-protocol: foo\r\n"), "{answer}");
}

#[tokio::test]
async fn bad_handshakes_get_node_reds_400_and_the_connection_is_closed() {
    let (server, routes) = server(Settings::default()).await;
    routes.add("n1", "/ws", echo()).unwrap();
    for (from, to) in [
        ("GET", "POST"),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade", "Connection: keep-alive"),
        ("Version: 13", "Version: 7"),
        (KEY, ""),
        ("jZQ==", "jZQ="),
        (KEY, "Content-Length: 3\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
    ] {
        let handshake = format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\n");
        let bad = handshake.replacen(from, to, 1);
        assert_ne!(bad, handshake);
        let answer = ask(&server, &bad).await;
        assert_eq!(status(&answer), 400, "{bad}");
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/html\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nBad Request"), "{answer}");
    }
}

#[tokio::test]
async fn a_path_that_nobody_owns_is_404_at_once_and_so_is_a_listeners_path_without_handshake() {
    let (server, routes) = server(Settings::default()).await;
    routes.add("n1", "/ws", echo()).unwrap();
    for path in ["/nobody", "/WS", "/ws/", "/"] {
        let answer = ask(&server, &format!("GET {path} HTTP/1.1\r\n{HANDSHAKE}\r\n")).await;
        assert_eq!(status(&answer), 404, "{path}");
    }
    let answer = ask(&server, "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 404);

    routes.remove_owner("n1");
    let answer = ask(&server, &format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\n")).await;
    assert_eq!(status(&answer), 404, "the route left with its node");
}

#[tokio::test]
async fn a_handshake_that_nobody_decides_about_is_503_after_the_deadline() {
    let (server, routes) = server(Settings { upgrade_timeout_ms: 20, ..Settings::default() }).await;
    let handler = |_: UpgradeRequest| -> BoxFuture<UpgradeAnswer> { Box::pin(std::future::pending()) };
    routes.add("n1", "/ws", Handler::Upgrade(Arc::new(handler))).unwrap();
    let answer = ask(&server, &format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\n")).await;
    assert_eq!(status(&answer), 503);
}

#[tokio::test]
async fn a_slow_handshake_is_cut_by_the_header_deadline() {
    let (server, routes) = server(Settings { http_header_timeout_ms: 30, ..Settings::default() }).await;
    routes.add("n1", "/ws", echo()).unwrap();
    for start in ["", "GET /ws HTTP/1.1\r\nHost: local"] {
        // The end of the stream, without an answer, is the only way for this to return.
        assert_eq!(ask(&server, start).await, "", "{start:?}");
    }
}

#[tokio::test]
async fn headers_beyond_the_limits_are_431() {
    let (server, routes) =
        server(Settings { http_max_header_bytes: 8192, http_max_headers: 10, ..Settings::default() }).await;
    routes
        .add("n1", "/a", request(Access::Public, Method::GET, |_| HttpResponse::empty(StatusCode::OK)))
        .unwrap();
    let get = |fields: String| format!("GET /a HTTP/1.1\r\nConnection: close\r\n{fields}\r\n");
    assert_eq!(status(&ask(&server, &get("X: y\r\n".repeat(9))).await), 200);
    assert_eq!(status(&ask(&server, &get("X: y\r\n".repeat(10))).await), 431);
    assert_eq!(status(&ask(&server, &get(format!("X: {}\r\n", "y".repeat(7000)))).await), 200);
    assert_eq!(status(&ask(&server, &get(format!("X: {}\r\n", "y".repeat(20_000)))).await), 431);
}

#[tokio::test]
async fn a_request_reaches_its_route_with_its_body_and_other_methods_are_405() {
    let (server, routes) = server(Settings { http_max_body_bytes: 10, ..Settings::default() }).await;
    let handler = request(Access::Public, Method::POST, |request| {
        let text = format!("{} {:?} {:?}", request.path, request.query, request.body);
        // A length that is not true would break the connection for those who come after.
        HttpResponse::text(StatusCode::CREATED, text).with(CONTENT_LENGTH, "1")
    });
    routes.add("n1", "/in", handler).unwrap();
    let post = |fields: &str, body: &str| {
        format!("POST /in?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n\r\n{body}")
    };

    let answer = ask(&server, &post("Content-Length: 5", "hello")).await;
    assert_eq!(status(&answer), 201);
    assert!(answer.ends_with("\r\n\r\n/in Some(\"x=1\") b\"hello\""), "{answer}");

    let answer = ask(&server, &post("Content-Length: 11", "")).await;
    assert_eq!(status(&answer), 413, "an announced length is enough");
    let chunked = "6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n";
    assert_eq!(status(&ask(&server, &post("Transfer-Encoding: chunked", chunked)).await), 413);

    let answer = ask(&server, "DELETE /in HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 405);
    assert!(answer.contains("allow: POST\r\n"), "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let (server, routes) = server(Settings { http_body_timeout_ms: 20, ..Settings::default() }).await;
    let handler = request(Access::Public, Method::POST, |_| HttpResponse::empty(StatusCode::OK));
    routes.add("n1", "/in", handler).unwrap();
    let answer = ask(&server, "POST /in HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await;
    assert_eq!(status(&answer), 408);
}

#[tokio::test]
async fn admin_routes_ask_the_guard_and_public_ones_do_not() {
    let (server, routes) = server(Settings::default()).await;
    let ok = |_| HttpResponse::text(StatusCode::OK, "OK");
    routes.add("n1", "/inject/n1", request(Access::Admin, Method::POST, ok)).unwrap();
    routes.add("n2", "/public", request(Access::Public, Method::POST, ok)).unwrap();
    for (path, host, expected) in [
        ("/inject/n1", "localhost:1880", 200),
        ("/inject/n1", "evil.example", 403),
        ("/public", "evil.example", 200),
    ] {
        let text = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = ask(&server, &text).await;
        assert_eq!(status(&answer), expected, "{path} {host}");
        if expected == 403 {
            assert!(answer.contains("content-type: application/json"), "{answer}");
            assert!(answer.contains("\r\n\r\n{\"code\":\"forbidden\",\"message\":\""), "{answer}");
        }
    }
    let text = "GET /inject/n1 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&ask(&server, text).await), 403, "nor does a wrong method tell anything");
}

#[tokio::test]
async fn a_taken_port_and_an_address_of_others_are_one_clear_line() {
    let (first, routes) = server(Settings::default()).await;
    let port = first.local_addr().port();
    let bind = |host: &str, port| {
        let settings = Settings { host: host.to_owned(), port, ..Settings::default() };
        let routes = Arc::clone(&routes);
        async move { Server::bind(&settings, routes, AdminGuard::loopback_only()).await.unwrap_err().to_string() }
    };
    assert_eq!(
        bind("127.0.0.1", port).await,
        format!("port {port} on 127.0.0.1 is already in use; --port chooses another")
    );
    let error = bind("192.0.2.1", 0).await;
    assert!(error.starts_with("cannot listen on port 0 of 192.0.2.1: "), "{error}");
    let error = bind("no such host", 0).await;
    assert!(error.starts_with("cannot listen on port 0 of no such host: "), "{error}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_upgraded_ones_count_until_they_end() {
    let (server, routes) = server(Settings { max_connections: 1, ..Settings::default() }).await;
    routes.add("n1", "/ws", echo()).unwrap();
    let handshake = format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\n");
    let mut first = connect(&server).await;
    first.write_all(handshake.as_bytes()).await.unwrap();
    read_until(&mut first, "\r\n\r\n").await;

    let mut second = connect(&server).await;
    let refused = second.read(&mut [0; 1]).await;
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");

    drop(first);
    // Its place is free as soon as the echo notices; clients who come before that are still refused.
    loop {
        let mut client = connect(&server).await;
        let mut start = [0; 12];
        if client.write_all(handshake.as_bytes()).await.is_ok() && client.read_exact(&mut start).await.is_ok()
        {
            assert_eq!(&start, b"HTTP/1.1 101");
            break;
        }
    }
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_leaves_upgraded_connections_alone() {
    let (server, routes) = server(Settings::default()).await;
    let (started, mut is_started) = mpsc::unbounded_channel();
    let (finish, finished) = watch::channel(false);
    let handler = move |_: HttpRequest| -> BoxFuture<HttpResponse> {
        let mut finished = finished.clone();
        started.send(()).unwrap();
        Box::pin(async move {
            finished.wait_for(|finished| *finished).await.unwrap();
            HttpResponse::text(StatusCode::OK, "done")
        })
    };
    routes.add("n1", "/slow", Handler::Request(Access::Public, Method::GET, Arc::new(handler))).unwrap();
    routes.add("n2", "/ws", echo()).unwrap();

    let mut websocket = connect(&server).await;
    websocket.write_all(format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\n").as_bytes()).await.unwrap();
    read_until(&mut websocket, "\r\n\r\n").await;
    let mut idle = connect(&server).await;
    idle.write_all(b"GET /nobody HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, "Not Found").await;
    read_until(&mut idle, "Not Found").await;
    let mut slow = connect(&server).await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    is_started.recv().await.unwrap();

    let address = server.local_addr();
    let (stopped, mut is_stopped) = oneshot::channel();
    tokio::spawn(async move {
        server.stop().await;
        let _ = stopped.send(());
    });
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed");
    assert!(is_stopped.try_recv().is_err(), "the slow request is still in flight");
    finish.send(true).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer}");
    drop(slow);
    is_stopped.await.unwrap();
    TcpStream::connect(address).await.expect_err("nobody listens any more");
    websocket.write_all(b"still here").await.unwrap();
    read_until(&mut websocket, "still here").await;
}

#[tokio::test]
async fn stopping_cuts_requests_that_outlast_the_grace() {
    let (server, routes) = server(Settings { shutdown_grace_ms: 20, ..Settings::default() }).await;
    let (started, mut is_started) = mpsc::unbounded_channel();
    let handler = move |_: HttpRequest| -> BoxFuture<HttpResponse> {
        started.send(()).unwrap();
        Box::pin(std::future::pending())
    };
    routes.add("n1", "/never", Handler::Request(Access::Public, Method::GET, Arc::new(handler))).unwrap();
    let mut client = connect(&server).await;
    client.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    is_started.recv().await.unwrap();
    server.stop().await;
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    assert_eq!(answer, b"", "it was cut without an answer");
}

#[tokio::test]
async fn a_target_beyond_the_limit_is_414_and_the_longest_that_is_not_is_served() {
    let (server, routes) = server(Settings { http_max_target_bytes: 300, ..Settings::default() }).await;
    let handler = request(Access::Public, Method::GET, |_| HttpResponse::empty(StatusCode::OK));
    routes.add("n1", "/a", handler).unwrap();
    for (query, expected) in [(300 - "/a?".len(), 200), (301 - "/a?".len(), 414)] {
        let query = "q".repeat(query);
        let text = format!("GET /a?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(status(&ask(&server, &text).await), expected);
    }
}

#[tokio::test]
async fn path_parameters_reach_handlers_of_either_kind() {
    let (server, routes) = server(Settings::default()).await;
    let (seen, mut requests) = mpsc::unbounded_channel();
    let upgrades = seen.clone();
    let refusing = upgrade(move |request| {
        upgrades.send((request.params, request.path, request.tls)).unwrap();
        let response = HttpResponse::empty(StatusCode::FORBIDDEN);
        UpgradeAnswer::Refuse { response, reason: "no".into() }
    });
    let answering = request(Access::Public, Method::GET, move |request| {
        seen.send((request.params, request.path, false)).unwrap();
        HttpResponse::empty(StatusCode::OK)
    });
    routes.add("n1", "/ws/:room", refusing).unwrap();
    routes.add("n2", "/items/:id", answering).unwrap();
    let expected = |name: &str, value: &str, path: &str| {
        (vec![(name.to_owned(), value.to_owned())], path.to_owned(), false)
    };
    assert_eq!(status(&ask(&server, &format!("GET /ws/a%20b?x HTTP/1.1\r\n{HANDSHAKE}\r\n")).await), 403);
    assert_eq!(requests.recv().await.unwrap(), expected("room", "a b", "/ws/a%20b"));
    let text = "GET /items/7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&ask(&server, text).await), 200);
    assert_eq!(requests.recv().await.unwrap(), expected("id", "7", "/items/7"));
}

/// A handler that defers with this time, and a way to end the wait; dropped with the wait itself.
fn deferring(
    timeout: Option<Duration>,
) -> (Handler, mpsc::UnboundedReceiver<oneshot::Sender<UpgradeAnswer>>) {
    let (waiting, waits) = mpsc::unbounded_channel();
    let handler = upgrade(move |_| {
        let (decide, decided) = oneshot::channel();
        waiting.send(decide).unwrap();
        UpgradeAnswer::Deferred { timeout, answer: Box::pin(async { decided.await.unwrap() }) }
    });
    (handler, waits)
}

#[tokio::test]
async fn a_deferred_handshake_waits_as_long_as_its_answer_says_and_not_longer() {
    let settings = Settings { upgrade_timeout_ms: 20, ..Settings::default() };
    let (server, routes) = server(settings).await;
    let (patient, mut waits) = deferring(Some(Duration::from_secs(3_600)));
    let (usual, _keeps) = deferring(None);
    routes.add("n1", "/patient", patient).unwrap();
    routes.add("n2", "/usual", usual).unwrap();
    let answer = ask(&server, &format!("GET /usual HTTP/1.1\r\n{HANDSHAKE}\r\n")).await;
    assert_eq!(status(&answer), 503);

    let mut client = connect(&server).await;
    client.write_all(format!("GET /patient HTTP/1.1\r\n{HANDSHAKE}\r\n").as_bytes()).await.unwrap();
    let decide = waits.recv().await.unwrap();
    // Longer than the setting, which would have ended it.
    let early = tokio::time::timeout(Duration::from_millis(100), client.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    let Handler::Upgrade(echo) = echo() else { panic!("an upgrade") };
    let accept = echo.upgrade(UpgradeRequest {
        path: "/patient".into(),
        query: None,
        params: Params::new(),
        headers: hyper::HeaderMap::new(),
        protocols: Vec::new(),
        remote: server.local_addr(),
        tls: false,
    });
    assert!(decide.send(accept.await).is_ok(), "it still waits");
    assert_eq!(status(&read_until(&mut client, "\r\n\r\n").await), 101);
}

#[tokio::test]
async fn a_deferred_handshake_whose_client_goes_away_is_forgotten() {
    let (server, routes) = server(Settings::default()).await;
    let (handler, mut waits) = deferring(Some(Duration::from_secs(3_600)));
    routes.add("n1", "/ws", handler).unwrap();
    for reset in [false, true] {
        let mut client = connect(&server).await;
        client.write_all(format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\n").as_bytes()).await.unwrap();
        let mut decide = waits.recv().await.unwrap();
        if reset {
            client.set_zero_linger().unwrap();
        }
        drop(client);
        // The end of the wait is all that is seen here: if it does not come, nor does the end of this test.
        decide.closed().await;
    }
    assert_eq!(routes.remove_owner("n1"), 1);
}

#[tokio::test]
async fn a_client_that_leaves_its_answer_lying_is_cut() {
    let large =
        || request(Access::Public, Method::GET, |_| HttpResponse::text(StatusCode::OK, vec![b'x'; 32 << 20]));
    let (patient, routes) = server(Settings::default()).await;
    routes.add("n1", "/large", large()).unwrap();
    let (server, routes) = server(Settings { http_write_timeout_ms: 50, ..Settings::default() }).await;
    routes.add("n1", "/large", large()).unwrap();
    let places = server.places();
    let mut lazy = connect(&server).await;
    lazy.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    lazy.readable().await.unwrap();
    assert_eq!(places.taken(), 1);
    until(|| places.taken() == 0).await;
    // One that reads gets it all.
    let mut slow = connect(&patient).await;
    slow.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    assert!(answer.len() > 32 << 20, "{}", answer.len());
}

#[tokio::test]
async fn one_address_gets_so_many_connections_and_no_more() {
    let settings = Settings { max_connections_per_address: 2, ..Settings::default() };
    let (server, routes) = server(settings).await;
    routes.add("n1", "/ws", echo()).unwrap();
    let handshake = format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\n");
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = connect(&server).await;
        client.write_all(handshake.as_bytes()).await.unwrap();
        read_until(&mut client, "\r\n\r\n").await;
        open.push(client);
    }
    let refused = connect(&server).await.read(&mut [0; 1]).await;
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
    for client in &mut open {
        client.write_all(b"undisturbed").await.unwrap();
        read_until(client, "undisturbed").await;
    }
}

#[test]
fn what_others_wrote_stands_on_one_line_of_the_log_and_is_not_long() {
    assert_eq!(for_log("/ws/room"), "/ws/room");
    assert_eq!(for_log("a\nb\u{1b}[2J"), "a\u{fffd}b\u{fffd}[2J");
    assert_eq!(for_log(&"ä".repeat(MOST_LOGGED)), "ä".repeat(MOST_LOGGED));
    assert_eq!(for_log(&"x".repeat(MOST_LOGGED + 1)), format!("{}…", "x".repeat(MOST_LOGGED)));
}

// ---- TLS

/// A server with the certificate of these files, and a client that trusts it.
async fn tls_server(
    name: &str,
    settings: Settings,
) -> (RunningServer, Arc<Routes>, tokio_rustls::TlsConnector) {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let file = |what: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/tls/test-certificates");
        folder.join(format!("{name}-{what}.pem"))
    };
    let (certificate, key) = (Some(file("chain")), Some(file("key")));
    let (server, routes) = server(Settings { tls_cert: certificate, tls_key: key, ..settings }).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("root")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (server, routes, Arc::new(client).into())
}

#[tokio::test]
async fn by_tls_a_handshake_is_accepted_and_the_node_knows_that_it_came_so() {
    for name in ["first", "second"] {
        let (server, routes, connector) = tls_server(name, Settings::default()).await;
        let (seen, mut requests) = mpsc::unbounded_channel();
        let Handler::Upgrade(echo) = echo() else { panic!("an upgrade") };
        let handler = move |request: UpgradeRequest| {
            seen.send(request.tls).unwrap();
            echo.upgrade(request)
        };
        routes.add("n1", "/ws", Handler::Upgrade(Arc::new(handler))).unwrap();
        let tcp = connect(&server).await;
        let mut client = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let handshake = format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\nearly");
        client.write_all(handshake.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"early") {
            answer.push(client.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(requests.recv().await, Some(true));
    }
}

#[tokio::test]
async fn plain_http_to_a_tls_port_is_told_so_and_garbage_is_cut() {
    let (server, routes, _) = tls_server("first", Settings::default()).await;
    routes.add("n1", "/ws", echo()).unwrap();
    let answer = ask(&server, &format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}\r\n")).await;
    assert_eq!(status(&answer), 400);
    assert!(answer.ends_with("\r\n\r\nThis port speaks HTTPS only"), "{answer}");
    let places = server.places();
    for garbage in ["\u{16}\u{3}\u{1}nonsense and more of it", "\0\0\0", "\u{16}"] {
        let mut client = connect(&server).await;
        client.write_all(garbage.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{garbage:?}");
    }
    until(|| places.taken() == 0).await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_go_on_is_cut_and_keeps_no_stop_waiting() {
    let settings = Settings { tls_handshake_timeout_ms: 30, ..Settings::default() };
    let (server, _routes, _) = tls_server("first", settings).await;
    for start in ["", "\u{16}\u{3}\u{1}\u{2}\0"] {
        assert_eq!(ask(&server, start).await, "", "{start:?}");
    }

    let settings = Settings { shutdown_grace_ms: 3_600_000, ..Settings::default() };
    let (server, _routes, _) = tls_server("first", settings).await;
    let mut client = connect(&server).await;
    client.write_all(b"\x16\x03\x01\x02").await.unwrap();
    let places = server.places();
    until(|| places.taken() > 0).await;
    server.stop().await;
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

// ---- Places

/// Does everything that a client may do wrong, at once and several times over; `client` makes the connections.
async fn abuse<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>(
    client: impl AsyncFn() -> Option<S>,
) -> Vec<S> {
    let handshake = |path: &str| format!("GET {path} HTTP/1.1\r\n{HANDSHAKE}\r\n");
    let texts = [
        String::new(),
        "GET /a HTT".into(),
        "\u{1}\u{2}garbage\r\n\r\n".into(),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000)),
        format!("GET /a HTTP/1.1\r\nX: {}", "y".repeat(30_000)),
        "GET /plugins HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(),
        "GET /large HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /panics HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /never HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n".into(),
        "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nslow".into(),
        "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n".into(),
        handshake("/nobody"),
        handshake("/refusing"),
        handshake("/waiting"),
        handshake("/panicking"),
        handshake("/ws"),
        handshake("/ws").replace("13", "12"),
        handshake("/dropping"),
    ];
    let mut left_open = Vec::new();
    for text in &texts {
        for stays in [false, true] {
            let Some(mut stream) = client().await else { continue };
            let _ = stream.write_all(text.as_bytes()).await;
            if stays {
                left_open.push(stream);
            }
        }
    }
    left_open
}

#[tokio::test]
async fn whatever_clients_do_their_places_are_free_again() {
    const PLACES: usize = 60;
    let settings = || Settings {
        max_connections: PLACES,
        max_connections_per_address: PLACES,
        http_header_timeout_ms: 50,
        http_body_timeout_ms: 50,
        http_write_timeout_ms: 50,
        tls_handshake_timeout_ms: 50,
        upgrade_timeout_ms: 50,
        ..Settings::default()
    };
    for tls in [false, true] {
        let (running, routes, connector) = tls_server("first", settings()).await;
        let (running, routes) = if tls { (running, routes) } else { server(settings()).await };
        let public = |answer: fn(HttpRequest) -> HttpResponse| request(Access::Public, Method::GET, answer);
        routes
            .add("n", "/large", public(|_| HttpResponse::text(StatusCode::OK, vec![b'x'; 32 << 20])))
            .unwrap();
        routes.add("n", "/panics", public(|_| panic!("on purpose"))).unwrap();
        routes
            .add("n", "/body", request(Access::Public, Method::POST, |_| HttpResponse::empty(StatusCode::OK)))
            .unwrap();
        let (gone, went) = watch::channel(());
        let never = move |_: HttpRequest| -> BoxFuture<HttpResponse> {
            // As a node that waits: until it is taken away.
            let mut went = went.clone();
            Box::pin(async move {
                let _ = went.changed().await;
                HttpResponse::empty(StatusCode::OK)
            })
        };
        routes.add("n", "/never", Handler::Request(Access::Public, Method::GET, Arc::new(never))).unwrap();
        routes.add("n", "/ws", echo()).unwrap();
        routes.add("n", "/panicking", upgrade(|_| panic!("on purpose"))).unwrap();
        let refusing = |_| {
            let response = HttpResponse::empty(StatusCode::FORBIDDEN);
            UpgradeAnswer::Refuse { response, reason: "no".into() }
        };
        routes.add("n", "/refusing", upgrade(refusing)).unwrap();
        let (waiting, _keeps) = deferring(None);
        routes.add("n", "/waiting", waiting).unwrap();
        let dropping = |_| UpgradeAnswer::Accept {
            protocol: None,
            headers: hyper::HeaderMap::new(),
            on_stream: Box::new(|stream, _| drop(stream)),
        };
        routes.add("n", "/dropping", upgrade(dropping)).unwrap();

        let address = running.local_addr();
        let tcp = async || TcpStream::connect(address).await.ok();
        // Plain clients of a server with TLS are one more thing that may go wrong.
        let plain = abuse(tcp).await;
        let by_tls = abuse(async || {
            let stream = tcp().await?;
            connector.connect("localhost".try_into().ok()?, stream).await.ok()
        });
        let by_tls = if tls { by_tls.await } else { Vec::new() };
        let reset = tcp().await.unwrap();
        reset.set_zero_linger().unwrap();
        drop(reset);

        let places = running.places();
        assert_ne!(places.taken(), 0, "who waits for a node, and who has a WebSocket, is still there");
        drop((plain, by_tls, gone));
        let begin = std::time::Instant::now();
        while places.taken() > 0 {
            assert!(begin.elapsed() < Duration::from_secs(30), "{} places are lost", places.taken());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let all: Vec<_> = (0..PLACES).map(|_| places.take(address.ip())).collect();
        assert!(all.iter().all(Result::is_ok), "the address has fewer places than before");
    }
}
