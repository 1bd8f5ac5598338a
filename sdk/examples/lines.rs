//! Outgoing connections: dialled by the host, over TCP or TLS, served by the node, handed over to newer code.
//!
//! The node speaks a protocol of lines with a server, and connects again when the connection is lost. Try it:
//! `nc -lk 7070` in one terminal, `sdk/examples/run lines` in another.

use std::future::poll_fn;

use flowbay_sdk::{Blob, Connection, ConnectionEnd, DialOptions, Received, Role, Session, prelude::*, value};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};

#[derive(Deserialize, Clone)]
struct Config {
    host: String,
    port: u16,
    #[serde(default)]
    tls: bool,
    /// The id of a `tls-config` node: which certificates are trusted. The host reads it.
    #[serde(default)]
    tls_config: Option<String>,
}

struct Lines(Config);

/// How long until it is tried again, and how often it is looked whether the connection is there.
const RETRY_MS: u64 = 1_000;
const MAX_LINE: usize = 64 << 10;

#[node("lines", role = Role::Source, category = "network", inputs = 1, outputs = 1)]
impl Node for Lines {
    type Config = Config;

    fn new(config: Config, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self(config))
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        loop {
            // In newer code the connection is there already. It may also have ended in the older one, in the last moment:
            // so this looks again and again, instead of waiting for `on_connection` to say so.
            while ctx.session_count() > 0 {
                ctx.sleep_ms(RETRY_MS).await;
            }
            ctx.status(Status::new().fill("yellow").shape("ring").text("connecting"));
            let Config { host, port, tls, tls_config } = self.0.clone();
            match ctx.dial(DialOptions { host, port, tls, tls_config, ..DialOptions::default() }).await {
                Ok(stream) => {
                    // From here on it is served by `on_connection`, with this state.
                    ctx.attach(stream, value!({}))?;
                    ctx.status(Status::new().fill("green").shape("dot").text("connected"));
                }
                Err(error) => {
                    ctx.status(Status::new().fill("red").shape("ring").text(error.text()));
                    ctx.sleep_ms(RETRY_MS).await;
                }
            }
        }
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let line = format!("{}\n", msg.payload().to_js_string());
        // Into the queue of the connection, which the host keeps for it.
        match ctx.session_broadcast(line.into()) {
            0 => Err(Error::new("not connected").with_code("ENOTCONN")),
            _ => Ok(()),
        }
    }

    async fn on_connection(&self, connection: Connection, ctx: &Ctx) -> ConnectionEnd {
        let Connection { stream, session, state } = connection;
        let bytes = |key: &str| state[key].as_bytes().unwrap_or_default().to_vec();
        let (reader, writer) = split(stream);
        let mut live = Live { reader, writer, session, unread: bytes("unread"), unsent: bytes("unsent") };
        match live.serve(ctx).await {
            // What of a line was read, or was not yet written, goes with the stream.
            Ok(true) => ConnectionEnd::HandOver {
                stream: live.reader.unsplit(live.writer),
                state: value!({ "unread": Blob::from(live.unread), "unsent": Blob::from(live.unsent) }),
            },
            Ok(false) => ConnectionEnd::Closed,
            Err(error) => {
                ctx.warn(format!("the connection to {} failed: {error}", self.0.host));
                ConnectionEnd::Closed
            }
        }
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

struct Live<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    session: Session,
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite> Live<S> {
    /// Serves the connection until the host wants it for newer code (true), or until its end. What it waits for can all
    /// be given up without a loss.
    async fn serve(&mut self, ctx: &Ctx) -> Result<bool, Error> {
        let Self { reader, writer, session, unread, unsent } = self;
        let mut queued = Vec::new();
        loop {
            tokio::select! {
                biased;
                // One or the other: nothing more is taken from the queue while the server does not read.
                received = session.recv(&mut queued), if unsent.is_empty() => match received {
                    Received::Values(_) => {
                        queued.drain(..).for_each(|line| unsent.extend(line.as_str().unwrap_or_default().bytes()));
                    }
                    Received::HandOver => return Ok(true),
                    Received::Closed => return Ok(false),
                },
                end = poll_fn(|cx| session.poll_end(cx)), if !unsent.is_empty() => return Ok(end == Received::HandOver),
                written = writer.write(unsent), if !unsent.is_empty() => drop(unsent.drain(..written?)),
                read = async { ctx.ready().await; reader.read_buf(unread).await } => {
                    if read? == 0 {
                        return Ok(false);
                    }
                    while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = unread.drain(..=end).collect();
                        ctx.send(Msg::with_payload(String::from_utf8_lossy(&line).trim_end()));
                    }
                    if unread.len() > MAX_LINE {
                        return Err(Error::new("a line without end"));
                    }
                }
            }
        }
    }
}

export_plugin!(Lines);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flowbay_sdk::testing::{TestNode, TestPeer};

    use super::*;

    fn connected() -> (TestNode<Lines>, TestPeer) {
        let mut node = TestNode::<Lines>::new(value!({ "host": "server.test", "port": 7070 }));
        let dialled = node.dialled().unwrap();
        let server = node.connect(dialled);
        (node, server)
    }

    #[test]
    fn a_line_that_is_half_read_moves_to_newer_code() {
        let (mut node, server) = connected();
        server.write("one\ntw");
        server.set_room(Some(2));
        node.input(Msg::with_payload("hello"));
        assert_eq!(node.next_sent().payload(), "one");
        let Ok(mut newer) = node.hand_over::<Lines>() else { panic!("it hands over") };
        assert!(newer.dialled().is_none(), "it is still connected");
        server.write("o\n");
        server.set_room(None);
        newer.run();
        assert_eq!((newer.next_sent().payload(), server.read().as_slice()), (&"two".into(), &b"hello\n"[..]));
    }

    #[test]
    fn it_connects_again() {
        let (mut node, server) = connected();
        drop(server);
        node.advance(Duration::from_millis(RETRY_MS));
        let dialled = node.dialled().unwrap();
        node.refuse(dialled, "nobody there");
        assert_eq!(node.statuses().last().unwrap()["text"], "nobody there");
        node.input(Msg::with_payload("lost"));
        assert_eq!(node.failures()[0].text, "not connected");
        node.advance(Duration::from_millis(RETRY_MS));
        assert!(node.dialled().is_some());
    }
}
