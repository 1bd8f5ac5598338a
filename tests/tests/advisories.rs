//! What has brought down other WebSocket software: the input of each advisory, given to the host as server and, where
//! a server could send it, as client. The host must withstand it without anybody else noticing, at its defaults.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flowbay_tests::harness::{Client, Flow, Host, PATIENCE, RawPeer, Visitor, WsServer};
use serde_json::json;

/// A megabyte.
const MB: u64 = 1_000_000;

/// A host under attack, and a client that was there before.
struct Attacked {
    host: Host,
    witness: Client,
    resident_before: u64,
    cpu_before: Duration,
}

impl Attacked {
    /// Listens at `/ws`, where it echoes.
    fn listening() -> Attacked {
        Self::running(Flow::new())
    }

    /// Listens at `/ws` too, and connects to `server`. A server that does not keep its connection gets another soon.
    fn connecting_to(server: &WsServer) -> Attacked {
        let client = json!({"path": server.url("/"), "reconnect": "fixed", "reconnectDelay": 0});
        Self::running(Flow::new().config("client", "websocket-client", client).node(
            "receive",
            "websocket in",
            "",
            json!({"client": "client"}),
        ))
    }

    fn running(flow: Flow) -> Attacked {
        let flow = flow
            .config("listener", "websocket-listener", json!({"path": "/ws"}))
            .node("in", "websocket in", "out", json!({"server": "listener"}))
            .node("out", "websocket out", "", json!({"server": "listener"}));
        let host = Host::run(&flow);
        let witness = host.connect("/ws");
        let (resident_before, cpu_before) = (resident_bytes(&host), cpu_time(&host));
        let mut attacked = Attacked { host, witness, resident_before, cpu_before };
        attacked.assert_serves();
        attacked
    }

    fn address(&self) -> SocketAddr {
        self.host.address()
    }

    /// The client that was there before is served, and so is a new one.
    fn assert_serves(&mut self) {
        let mut newcomer = self.host.connect("/ws");
        for client in [&mut self.witness, &mut newcomer] {
            client.send_text("still here");
            assert_eq!(client.recv_text(), "still here", "{}", self.host.logs());
        }
        assert_eq!(self.host.count_log("panicked"), 0, "{}", self.host.logs());
    }

    /// How many bytes of memory the host has taken since the attack began.
    fn grown_by(&self) -> u64 {
        resident_bytes(&self.host).saturating_sub(self.resident_before)
    }

    /// All is well, and the attack has cost little.
    fn assert_withstood(mut self) {
        self.assert_serves();
        let (grown, cpu) = (self.grown_by(), cpu_time(&self.host).saturating_sub(self.cpu_before));
        assert!(grown < 40 * MB, "{grown} bytes more are in use");
        assert!(cpu < Duration::from_secs(10), "{cpu:?} of processor time were spent");
    }
}

/// Memory of the host that is in use.
fn resident_bytes(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Processor time that the host has used.
fn cpu_time(host: &Host) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.pid())).unwrap();
    // Behind the name, which may have blanks in it, the 12th and 13th: ticks in user and kernel mode.
    let numbers: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = numbers[11].parse::<u64>().unwrap() + numbers[12].parse::<u64>().unwrap();
    // Linux counts a hundred in a second, whatever it runs on.
    Duration::from_millis(ticks * 10)
}

/// Writes pieces until `write` says that the other side is gone.
fn write_until_cut(what: &str, mut write: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while write() {
        assert!(Instant::now() < end, "{what} is taken for ever");
    }
}

/// The first bytes of a frame of a client: its payload has a length of `length`, and none of it follows.
fn head_of_masked_frame(opcode: u8, length: u64) -> Vec<u8> {
    [&[0x80 | opcode, 0x80 | 127][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

/// The same for a server.
fn head_of_frame(opcode: u8, length: u64) -> Vec<u8> {
    [&[0x80 | opcode, 127][..], &length.to_be_bytes()].concat()
}

// ---- CVE-2023-43669

/// tungstenite read its peer's handshake from the start again with every piece that came, so one with a header field
/// that never ends kept a processor busy for minutes.
///
/// Asserted: such a field is refused after the allowed number of bytes, in no time, however small its pieces.
#[test]
fn cve_2023_43669_an_excessively_long_header_field_in_a_handshake() {
    let attacked = Attacked::listening();
    for piece in [1, 1_000, 1_000_000] {
        let piece = vec![b'x'; piece];
        let mut stream = TcpStream::connect(attacked.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nX-Endless: ")
            .unwrap();
        write_until_cut("an endless header field", || stream.write_all(&piece).is_ok());
    }
    attacked.assert_withstood();
}

/// The same from a server.
///
/// Asserted: the client ends the connection and tries again.
#[test]
fn cve_2023_43669_an_excessively_long_header_field_in_the_answer_to_a_handshake() {
    let server = WsServer::bind();
    let attacked = Attacked::connecting_to(&server);
    for piece in [1, 1_000, 1_000_000] {
        let piece = vec![b'x'; piece];
        let mut visitor = server.accept_raw();
        assert!(visitor.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX-Endless: "));
        write_until_cut("an endless header field", || visitor.write(&piece));
    }
    server.accept_raw().agree();
    attacked.assert_withstood();
}

// ---- CVE-2022-35922

/// The `websocket` crate reserved the memory for a frame by the length that its head claimed, so a few bytes from
/// anybody took gigabytes, or ended the process.
///
/// Asserted: a length beyond the limit ends the connection with 1009 before any of the payload has come; many who claim
/// all that is allowed and send nothing take no memory for it.
#[test]
fn cve_2022_35922_a_huge_claimed_frame_length() {
    const ALLOWED: u64 = 16 << 20;
    let attacked = Attacked::listening();
    for opcode in [1, 2] {
        for length in [ALLOWED + 1, 1 << 32, 1 << 40, i64::MAX as u64] {
            let mut peer = RawPeer::websocket(attacked.address(), "/ws");
            peer.write(&head_of_masked_frame(opcode, length));
            assert_eq!(peer.read_close_code(), Some(1009), "{length}");
        }
        // The highest bit must not be set.
        let mut peer = RawPeer::websocket(attacked.address(), "/ws");
        peer.write(&head_of_masked_frame(opcode, u64::MAX));
        assert!(matches!(peer.read_close_code(), Some(1002 | 1009)));
    }
    let claimants: Vec<RawPeer> = (0..200)
        .map(|_| {
            let mut peer = RawPeer::websocket(attacked.address(), "/ws");
            peer.write(&head_of_masked_frame(2, ALLOWED));
            peer.write(b"some of it");
            peer
        })
        .collect();
    attacked.assert_withstood();
    drop(claimants);
}

/// The same from a server.
///
/// Asserted: as there; the client tries again.
#[test]
fn cve_2022_35922_a_huge_claimed_frame_length_from_a_server() {
    let server = WsServer::bind();
    let attacked = Attacked::connecting_to(&server);
    for length in [(64 << 20) + 1, 1 << 40, i64::MAX as u64, u64::MAX] {
        let mut visitor = server.accept_raw();
        visitor.agree();
        assert!(visitor.write(&head_of_frame(2, length)));
        visitor.read_to_end();
    }
    // All that is allowed, and nothing of it.
    let mut visitor = server.accept_raw();
    visitor.agree();
    assert!(visitor.write(&head_of_frame(2, 64 << 20)));
    attacked.assert_withstood();
}

// ---- CVE-2020-35896

/// The `ws` crate kept whatever was to be sent, so a peer that asked for much and read nothing grew the process as far
/// as it liked.
///
/// Asserted: 200 MB for somebody who reads nothing never stay in memory; he is cut, which the log says; who reads gets
/// everything.
#[test]
fn cve_2020_35896_a_peer_that_reads_nothing_of_what_is_sent_to_all() {
    let flow = Flow::new()
        .config("all", "websocket-listener", json!({"path": "/all"}))
        .node("all-in", "websocket in", "forget", json!({"server": "all"}))
        .forget("forget", "all-out")
        .node("all-out", "websocket out", "", json!({"server": "all"}));
    let attacked = Attacked::running(flow);
    let mut lazy = RawPeer::websocket(attacked.address(), "/all");
    let mut reader = attacked.host.connect("/all");
    let mut largest = 0;
    for number in 0..2_000_u32 {
        let mut payload = vec![0; 100_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        reader.send_binary(&payload);
        assert!(reader.recv_binary() == payload, "message {number} comes back");
        if number % 50 == 0 {
            largest = largest.max(attacked.grown_by());
        }
    }
    assert!(largest < 60 * MB, "{largest} bytes were kept");
    attacked.host.wait_log("cut*127.0.0.1");
    // What was on its way may still come, and then the end.
    lazy.read_to_end();
    attacked.assert_withstood();
}

// ---- CVE-2024-37890

/// Header fields of two characters each, in the manner of the advisory.
fn many_fields(count: usize) -> Vec<String> {
    const CHARACTERS: &[u8] = b"!#$%&'*+-.0123456789abcdefghijklmnopqrstuvwxyz^_`|~";
    let name = |number: usize| {
        let (first, second) = (number / CHARACTERS.len(), number % CHARACTERS.len());
        format!("{}{}: x", CHARACTERS[first] as char, CHARACTERS[second] as char)
    };
    (0..count).map(name).collect()
}

/// npm's ws crashed over an upgrade whose `Upgrade` field came behind so many others that Node.js had dropped it.
///
/// Asserted: two thousand fields are refused with 431; where a setting allows that many, they are served like any
/// others, wherever those of the handshake stand among them.
#[test]
fn cve_2024_37890_an_upgrade_with_thousands_of_header_fields() {
    let handshakes = || {
        let (usual, many) = (RawPeer::usual_headers(), many_fields(2_000));
        let middle = [&many[..1_000], &usual, &many[1_000..]].concat();
        [[usual.clone(), many.clone()].concat(), middle, [many, usual].concat()]
    };
    let attacked = Attacked::listening();
    for headers in handshakes() {
        let reply = RawPeer::connect(attacked.address()).handshake("GET", "/ws", &headers);
        assert_eq!(reply.status, 431, "{reply:?}");
    }
    attacked.assert_withstood();

    let flow = Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("in", "websocket in", "out", json!({"server": "listener"}))
        .node("out", "websocket out", "", json!({"server": "listener"}));
    let host = Host::builder()
        .flow(&flow)
        .setting("http_max_headers", 3_000)
        .setting("http_max_header_bytes", 65_536)
        .start();
    for headers in handshakes() {
        let mut peer = RawPeer::connect(host.address());
        assert_eq!(peer.handshake("GET", "/ws", &headers).status, 101);
        peer.write_frame(true, 1, b"served");
        assert_eq!(peer.read_frame(), (1, b"served".to_vec()));
    }
}

/// The same from a server.
///
/// Asserted: the client gives such an answer up and tries again.
#[test]
fn cve_2024_37890_an_answer_with_thousands_of_header_fields() {
    let server = WsServer::bind();
    let attacked = Attacked::connecting_to(&server);
    let fields = many_fields(2_000).join("\r\n");
    for answer in [
        format!(
            "HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        ),
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{fields}\r\n"
        ),
    ] {
        let mut visitor: Visitor = server.accept_raw();
        visitor.answer(&format!("{answer}Sec-WebSocket-Accept: ACCEPT\r\n\r\n"));
        visitor.read_to_end();
    }
    server.accept_raw().agree();
    attacked.assert_withstood();
}

// ---- GHSA-96hv-2xvq-fx4p (CVE-2026-48779)

/// npm's ws kept an object for each fragment and each piece that came, so a message of very many tiny or empty ones took
/// far more memory than the limit on its size lets one think.
///
/// Asserted: endless fragments, of one byte or none, end the connection with 1008; many who stop just below the limit
/// and never finish take next to no memory; a message whose bytes come one by one is served like any other.
#[test]
fn ghsa_96hv_2xvq_fx4p_tiny_fragments_and_pieces_without_end() {
    const ALLOWED: usize = 1_024;
    let attacked = Attacked::listening();
    for payload in [&b"x"[..], b""] {
        let mut peer = RawPeer::websocket(attacked.address(), "/ws");
        peer.write_frame(false, 1, payload);
        // One by one, each in a packet of its own, as there; the last one is one too many.
        for _ in 0..ALLOWED {
            peer.write_frame(false, 0, payload);
        }
        assert_eq!(peer.read_close_code(), Some(1008));
    }
    let hoarders: Vec<RawPeer> = (0..100)
        .map(|number| {
            let mut peer = RawPeer::websocket(attacked.address(), "/ws");
            peer.write_frame(false, 2, b"x");
            // Together: a thousand calls for each of a hundred peers take long.
            let fragment = [0x00, 0x81, 0, 0, 0, 0, b'x'];
            peer.write(&fragment.repeat(ALLOWED - 2));
            if number % 2 == 0 {
                // They are all there: the ping behind them is answered.
                peer.write_frame(true, 9, b"?");
                assert_eq!(peer.read_frame(), (10, b"?".to_vec()));
            }
            peer
        })
        .collect();
    let grown = attacked.grown_by();
    assert!(grown < 20 * MB, "{grown} bytes for {} unfinished messages", hoarders.len());

    let mut drop_by_drop = RawPeer::websocket(attacked.address(), "/ws");
    let frame = [&head_of_masked_frame(2, 20_000)[..], &[0; 20_000]].concat();
    for byte in &frame {
        drop_by_drop.write(&[*byte]);
    }
    assert_eq!(drop_by_drop.read_frame().1.len(), 20_000);
    attacked.assert_withstood();
}

/// The same from a server.
///
/// Asserted: the client ends the connection and tries again.
#[test]
fn ghsa_96hv_2xvq_fx4p_tiny_fragments_without_end_from_a_server() {
    let server = WsServer::bind();
    let attacked = Attacked::connecting_to(&server);
    for fragment in [&[0x00, 0x01, b'x'][..], &[0x00, 0x00]] {
        let mut visitor = server.accept_raw();
        visitor.agree();
        assert!(visitor.write(&[0x01, 0x01, b'x']));
        let many = fragment.repeat(1_000);
        write_until_cut("a message of endless fragments", || visitor.write(&many));
    }
    server.accept_raw().agree();
    attacked.assert_withstood();
}
