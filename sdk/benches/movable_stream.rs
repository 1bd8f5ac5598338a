//! What it costs to be able to move: an echo on tungstenite, over a plain stream and over a [`MovableStream`].
//!
//! `cargo bench -p flowbay-sdk --bench movable_stream` prints instructions per message, counted by callgrind in a
//! child process and so the same in every run, and the time per message, which is not. The stream is memory, so the
//! share of the adapter is larger than it can ever be in a server.

use std::{
    env,
    hint::black_box,
    io,
    pin::Pin,
    process::Command,
    task::{Context, Poll, Waker},
    time::Instant,
};

use flowbay_sdk::frames::{Limits, MovableStream};
use futures_util::{FutureExt, Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

/// Name, payload bytes, messages that arrive together, bytes of the codec's read buffer. Text is judged as it comes.
const CASES: [(&str, usize, usize, usize); 9] = [
    ("64 B, 1 at a time", 64, 1, 4 << 10),
    ("64 B, 16 at a time", 64, 16, 4 << 10),
    ("16 KiB, 1 at a time", 16 << 10, 1, 4 << 10),
    ("16 KiB, 4 at a time", 16 << 10, 4, 4 << 10),
    ("16 KiB, 4 at a time, 32 KiB buffer", 16 << 10, 4, 32 << 10),
    ("1 MiB, 1 at a time", 1 << 20, 1, 4 << 10),
    ("text, 64 B, 16 at a time", 64, 16, 4 << 10),
    ("text, 16 KiB, 1 at a time", 16 << 10, 1, 4 << 10),
    ("text, 16 KiB, 4 at a time", 16 << 10, 4, 4 << 10),
];
const LIMIT: usize = 16 << 20;
const LIMITS: Limits = Limits { message_bytes: LIMIT, frame_bytes: LIMIT, fragments: 1024 };

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, case, kind, rounds] = &arguments[..]
        && flag == "--run"
    {
        let (Ok(case), Ok(rounds)) = (case.parse::<usize>(), rounds.parse()) else { return };
        return run(case, kind == "movable", rounds);
    }
    println!(
        "{:36} {:>10} {:>10} {:>7}   {:>10} {:>10} {:>7}",
        "", "instr", "movable", "", "ns", "movable", ""
    );
    for (case, (name, size, together, _)) in CASES.iter().enumerate() {
        let instructions = |movable| instructions(case, movable, (1 + (1 << 18) / size).min(400), *together);
        let (plain, movable) = (instructions(false), instructions(true));
        // The two in turns, and the best of each: whatever else the machine does only ever adds.
        let (mut plain_ns, mut movable_ns) = (f64::MAX, f64::MAX);
        for _ in 0..20 {
            plain_ns = plain_ns.min(nanoseconds(case, false));
            movable_ns = movable_ns.min(nanoseconds(case, true));
        }
        println!(
            "{name:36} {plain:10.0} {movable:10.0} {:6.3}×   {plain_ns:10.0} {movable_ns:10.0} {:6.3}×",
            movable / plain,
            movable_ns / plain_ns
        );
    }
}

/// Instructions per message: the difference between a run and one of twice its length, so that the start of the
/// process does not count. Not a number without valgrind.
fn instructions(case: usize, movable: bool, rounds: usize, together: usize) -> f64 {
    let count = |rounds: usize| -> Option<f64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().ok()?)
            .args(["--run", &case.to_string(), if movable { "movable" } else { "plain" }])
            .arg(rounds.to_string())
            .output()
            .ok()?;
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        report.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
    };
    match (count(rounds), count(2 * rounds)) {
        (Some(once), Some(twice)) => (twice - once) / (rounds * together) as f64,
        _ => f64::NAN,
    }
}

fn nanoseconds(case: usize, movable: bool) -> f64 {
    let (_, size, together, _) = CASES[case];
    let rounds = 1 + (1 << 22) / (size + 256) / together;
    let begin = Instant::now();
    run(case, movable, rounds);
    begin.elapsed().as_nanos() as f64 / (rounds * together) as f64
}

fn run(case: usize, movable: bool, rounds: usize) {
    let (name, size, together, buffer) = CASES[case];
    let peer = Peer::new(name.starts_with("text"), size, together, rounds);
    if movable {
        echo(MovableStream::new(peer, LIMITS), buffer, rounds * together);
    } else {
        echo(peer, buffer, rounds * together);
    }
}

/// Echoes so many messages.
fn echo(stream: impl AsyncRead + AsyncWrite + Unpin, buffer: usize, messages: usize) {
    let config = WebSocketConfig::default()
        .read_buffer_size(buffer)
        .write_buffer_size(16 << 10)
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let opening = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config));
    let Some(mut socket) = opening.now_or_never() else { return };
    let mut cx = Context::from_waker(Waker::noop());
    let mut echoed = 0;
    while echoed < messages {
        while let Poll::Ready(Some(Ok(message))) = Pin::new(&mut socket).poll_next(&mut cx) {
            echoed += 1;
            let _ = Pin::new(&mut socket).start_send(message);
        }
        let _ = Pin::new(&mut socket).poll_flush(&mut cx);
    }
}

/// A peer that sends bursts of messages, each when what it sent before has been read.
struct Peer {
    burst: Vec<u8>,
    at: usize,
    /// Between two bursts, a read finds nothing once.
    paused: bool,
    bursts_left: usize,
}

impl Peer {
    fn new(text: bool, size: usize, together: usize, bursts: usize) -> Self {
        let mut frame = vec![if text { 0x81 } else { 0x82 }];
        match size {
            0..126 => frame.push(0x80 | size as u8),
            126..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend((size as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((size as u64).to_be_bytes());
            }
        }
        let key = [1, 2, 3, 4];
        frame.extend(key);
        frame.extend(key.iter().cycle().take(size).map(|key| key ^ b'x'));
        Self { burst: frame.repeat(together), at: 0, paused: false, bursts_left: bursts }
    }
}

impl AsyncRead for Peer {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.at == me.burst.len() {
            me.at = 0;
            me.bursts_left -= 1;
            me.paused = true;
        }
        if std::mem::take(&mut me.paused) || me.bursts_left == 0 {
            return Poll::Pending;
        }
        let count = (me.burst.len() - me.at).min(buf.remaining());
        buf.put_slice(&me.burst[me.at..me.at + count]);
        me.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(buf).len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
