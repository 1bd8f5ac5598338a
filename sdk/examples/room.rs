//! WebSocket connections of one's own, by tungstenite on the host's sockets, that go on when newer code takes over.
//!
//! The node is a room: what one client says goes to the flow, what the flow says to all clients, or to one. (The plugin
//! `websocket` does this and much more; a node that is no chat room begins here.) Try it: `sdk/examples/run room`, and
//! any WebSocket client at `ws://localhost:1880/room`.

use std::future::poll_fn;

use flowbay_sdk::{
    Blob, Connection, ConnectionEnd, HostStream, Queued, Received, Role, Session, UpgradeAnswer,
    UpgradeRequest,
    frames::{Limits, MovableStream, Parts},
    object,
    prelude::*,
    value,
};
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Deserialize;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role as Side, protocol::WebSocketConfig},
};

#[derive(Deserialize)]
struct Room {
    path: String,
}

const MAX_CLIENTS: u64 = 1_000;
const MAX_BYTES: usize = 1 << 20;
const LIMITS: Limits = Limits { message_bytes: MAX_BYTES, frame_bytes: MAX_BYTES, fragments: 1_000 };

/// A codec that can be taken apart: all bytes on their way through it are the stream's below it.
type Socket = WebSocketStream<MovableStream<HostStream>>;
type SocketError = tokio_tungstenite::tungstenite::Error;

#[node("room", role = Role::Source, category = "network", inputs = 1, outputs = 1)]
impl Node for Room {
    type Config = Room;

    fn new(config: Room, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(config)
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        ctx.register_upgrade(&self.path)
    }

    // Called for each handshake. Browsers let any page connect: a real node looks at `request.header("origin")` too.
    fn on_upgrade(&self, request: UpgradeRequest, ctx: &Ctx) -> UpgradeAnswer {
        if ctx.session_count() >= MAX_CLIENTS {
            return UpgradeAnswer::refuse(503).reason("the room is full");
        }
        UpgradeAnswer::accept().extra(request.query().unwrap_or_default())
    }

    // A message for one client names it in `_session`. The queue that it waits in is the host's, and bounded.
    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let text = Value::from(msg.payload().to_js_string());
        let Some(id) = msg["_session"]["id"].as_str() else {
            ctx.session_broadcast(text);
            return Ok(());
        };
        match ctx.session_send(id, text) {
            Queued::NoSession => Err(Error::new("that client is gone")),
            _ => Ok(()),
        }
    }

    // One call for each connection, and one more for it in each newer code.
    async fn on_connection(&self, connection: Connection, ctx: &Ctx) -> ConnectionEnd {
        let Connection { stream, session, state } = connection;
        // What came behind the handshake, or what the earlier code had read and not written yet.
        let bytes = |key: &str| state[key].as_bytes().unwrap_or_default().to_vec();
        let joined = state["joined"].as_i64().and_then(|joined| u32::try_from(joined).ok()).unwrap_or(0);
        let parts = Parts { stream, input: bytes("input"), output: bytes("output"), joined };
        let stream = MovableStream::from_parts(parts, LIMITS);
        let config = WebSocketConfig::default().max_message_size(Some(MAX_BYTES)).read_buffer_size(4096);
        let socket = WebSocketStream::from_raw_socket(stream, Side::Server, Some(config)).await;
        let mut queued = Vec::new();
        let mut live = Live { socket, session, ctx };
        match live.serve(&mut queued).await {
            Ok(true) => live.take_apart(queued).await,
            Ok(false) => ConnectionEnd::Closed,
            Err(error) => {
                ctx.warn(format!("session {}: {error}", live.session.id()));
                ConnectionEnd::Closed
            }
        }
    }

    // Null is what this node queues for the end.
    async fn on_close(&self, _removed: bool, ctx: &Ctx) {
        ctx.session_broadcast(Value::Null);
        while ctx.session_count() > 0 {
            ctx.sleep_ms(10).await;
        }
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

struct Live<'a> {
    socket: Socket,
    session: Session,
    ctx: &'a Ctx,
}

impl Live<'_> {
    /// Serves the connection until the host wants it for newer code (true), or until its end. Every wait is one that
    /// may be given up, so that the connection moves whatever it waits for.
    async fn serve(&mut self, queued: &mut Vec<Value>) -> Result<bool, SocketError> {
        let Self { socket, session, ctx } = self;
        let ended = || poll_fn(|cx| session.poll_end(cx));
        loop {
            while !queued.is_empty() {
                tokio::select! {
                    biased;
                    end = ended() => return Ok(end == Received::HandOver),
                    room = poll_fn(|cx| socket.poll_ready_unpin(cx)) => room?,
                }
                match queued.remove(0).as_str() {
                    Some(text) => socket.start_send_unpin(Message::text(text))?,
                    None => {
                        // The node closes. Who does not take the close frame is cut when the node's time is over.
                        socket.close(None).await?;
                        return Ok(false);
                    }
                }
            }
            // What several messages made is written at once.
            tokio::select! {
                biased;
                end = ended() => return Ok(end == Received::HandOver),
                flushed = socket.flush() => flushed?,
            }
            tokio::select! {
                biased;
                received = session.recv(queued) => match received {
                    Received::Values(_) => {}
                    Received::HandOver => return Ok(true),
                    // It did not keep up: its queue was full.
                    Received::Closed => return Ok(false),
                },
                // A source: nothing more is read while the flow does not keep up, and so the client waits.
                message = async { ctx.ready().await; socket.next().await } => match message.transpose()? {
                    Some(message) => deliver(message, session, ctx),
                    None => return Ok(false),
                },
            }
        }
    }

    /// See `flowbay_sdk::frames` for the steps.
    async fn take_apart(mut self, queued: Vec<Value>) -> ConnectionEnd {
        self.socket.get_mut().absorb();
        for text in queued.iter().filter_map(Value::as_str) {
            // Into memory, from now on: this does not wait.
            let _ = self.socket.feed(Message::text(text)).await;
        }
        while let Some(message) = self.socket.next().now_or_never() {
            let Some(Ok(message)) = message else {
                // It ends in this very moment. The answer to the peer's goodbye is written here.
                self.socket.get_mut().release();
                let _ = self.socket.flush().await;
                return ConnectionEnd::Closed;
            };
            deliver(message, &self.session, self.ctx);
        }
        let _ = self.socket.flush().await;
        match self.socket.into_inner().into_parts() {
            Ok(Parts { stream, input, output, joined }) => ConnectionEnd::HandOver {
                stream,
                state: value!({ "input": Blob::from(input), "output": Blob::from(output), "joined": joined }),
            },
            Err(_) => ConnectionEnd::Closed,
        }
    }
}

fn deliver(message: Message, session: &Session, ctx: &Ctx) {
    // tungstenite answers pings and the closing handshake.
    if let Message::Text(text) = message {
        let mut msg = Msg::with_payload(text.as_str());
        msg.set("_session", object!({ "type": "room", "id": session.id() }));
        ctx.send(msg);
    }
}

export_plugin!(Room);

#[cfg(test)]
mod tests {
    use flowbay_sdk::testing::TestNode;

    use super::*;

    /// A short text frame; masked, by zeros, as a client's is.
    fn frame(text: &str, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x81, mask | text.len() as u8];
        frame.extend_from_slice(if masked { &[0; 4] } else { &[] });
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    #[test]
    fn a_connection_goes_on_in_newer_code_in_the_middle_of_a_frame() {
        let mut node = TestNode::<Room>::new(value!({ "path": "/room" }));
        let (_, client) = node.upgrade(value!({ "path": "/room" })).1.unwrap();
        let hello = frame("hello", true);
        client.write(&hello[..5]);
        node.run();
        let Ok(mut newer) = node.hand_over::<Room>() else { panic!("it hands over") };
        client.write(&hello[5..]);
        newer.run();
        let msg = newer.next_sent();
        assert_eq!(msg.payload(), "hello");

        newer.input(msg);
        newer.input(Msg::with_payload("all"));
        assert_eq!(client.read(), [frame("hello", false), frame("all", false)].concat());
    }

    #[test]
    fn a_client_is_told_when_the_node_closes() {
        let mut node = TestNode::<Room>::new(value!({ "path": "/room" }));
        let (_, client) = node.upgrade(value!({ "path": "/room" })).1.unwrap();
        node.close(true);
        assert_eq!((client.read(), client.is_closed()), (vec![0x88, 0], true));
    }
}
