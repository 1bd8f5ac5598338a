use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::Waker,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;

mod deaf;
mod moving;
mod resting;
mod watching;

/// Of a listener, but for what a test adds.
const LIMITS: Limits = Limits::LISTENER;

/// Surroundings that the test plays: it fills the queue and sees what is delivered.
#[derive(Clone, Default)]
struct Flow(Arc<Mutex<FlowState>>);

#[derive(Default)]
struct FlowState {
    queue: VecDeque<Value>,
    /// The session is cut, which the queue says when it is empty.
    cut: bool,
    /// The connection is wanted back, which the queue says whatever is in it.
    hand_over: bool,
    /// A close request that nobody may have taken yet is in the queue.
    to_end: bool,
    congested: bool,
    /// It is congested as soon as something is delivered.
    congests: bool,
    /// Sends back what it gets, as a flow with an echo does.
    echoes: bool,
    delivered: Vec<Value>,
    failures: Vec<String>,
    /// Why it was ended by us.
    cuts: Vec<String>,
    violations: usize,
    traffic: Traffic,
    endings: Vec<Ending>,
    /// What the connection took along, each time that it moved: what was read and what was not sent.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
    waker: Option<Waker>,
}

impl FlowState {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Flow {
    fn with<T>(&self, change: impl FnOnce(&mut FlowState) -> T) -> T {
        let mut state = self.0.lock().unwrap();
        let result = change(&mut state);
        state.wake();
        result
    }

    fn send(&self, value: impl Into<Value>) {
        self.with(|state| state.queue.push_back(value.into()));
    }

    fn delivered(&self) -> Vec<Value> {
        self.with(|state| state.delivered.clone())
    }

    /// Waits until so many messages were delivered.
    async fn delivered_are(&self, count: usize) -> Vec<Value> {
        while self.delivered().len() < count {
            tokio::task::yield_now().await;
        }
        self.delivered()
    }
}

impl Surroundings for Flow {
    fn poll_outgoing(&self, cx: &mut Context<'_>, into: &mut Vec<Value>) -> Poll<Received> {
        let mut state = self.0.lock().unwrap();
        if state.hand_over {
            return Poll::Ready(Received::HandOver);
        }
        let count = state.queue.len().min(16);
        if count > 0 {
            into.extend(state.queue.drain(..count));
            return Poll::Ready(Received::Values(count));
        }
        if state.cut {
            return Poll::Ready(Received::Closed);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Received> {
        let mut state = self.0.lock().unwrap();
        if state.hand_over {
            return Poll::Ready(Received::HandOver);
        }
        if state.cut {
            return Poll::Ready(Received::Closed);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_to_end(&self) -> bool {
        self.0.lock().unwrap().to_end
    }

    fn outgoing_bytes(&self) -> usize {
        let state = self.0.lock().unwrap();
        state.queue.iter().map(|value| value.as_str().map_or(0, str::len)).sum()
    }

    fn poll_flow(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.congested {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn deliver(&self, data: Data<'_>) {
        let value = match data {
            Data::Text(text) => Value::from(text),
            Data::Binary(bytes) => Value::Bytes(Blob::from(bytes)),
        };
        self.with(|state| {
            if state.echoes {
                state.queue.push_back(value.clone());
            }
            state.delivered.push(value);
            state.congested |= state.congests;
        });
    }

    fn failed(&self, reason: &str) {
        self.with(|state| state.failures.push(reason.to_owned()));
    }

    fn broke_protocol(&self) {
        self.with(|state| state.violations += 1);
    }

    fn cut_off(&self, reason: &str) {
        self.with(|state| state.cuts.push(reason.to_owned()));
    }

    fn passed(&self, traffic: &Traffic) {
        self.with(|state| {
            state.traffic.messages_received += traffic.messages_received;
            state.traffic.bytes_received += traffic.bytes_received;
            state.traffic.messages_sent += traffic.messages_sent;
            state.traffic.bytes_sent += traffic.bytes_sent;
        });
    }

    fn ended(&self, ending: &Ending) {
        self.with(|state| state.endings.push(ending.clone()));
    }

    fn on_cut(&self) -> Value {
        close_request(Some(1008), "cut")
    }

    fn timer(&self, ms: u64) -> Timer {
        Box::pin(tokio::time::sleep(Duration::from_millis(ms)))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// Serves one end of a pipe in a task and returns the other end.
fn serve(role: Role, flow: &Flow, input: &[u8], heartbeat_ms: Option<u64>) -> (DuplexStream, JoinHandle<()>) {
    let (peer, ours) = duplex(4096);
    let (flow, state) = (flow.clone(), State { input: input.to_vec(), ..State::default() });
    let limits = Limits { heartbeat_ms, ..LIMITS };
    let served = tokio::spawn(async move {
        let moved = Live::new(ours, state, role, &limits, flow).serve().await;
        assert!(moved.is_none(), "nobody asked for it");
    });
    (peer, served)
}

fn server(flow: &Flow) -> (DuplexStream, JoinHandle<()>) {
    serve(Role::Server, flow, &[], None)
}

async fn socket(peer: DuplexStream, role: Role) -> tokio_tungstenite::WebSocketStream<DuplexStream> {
    tokio_tungstenite::WebSocketStream::from_raw_socket(peer, role, None).await
}

/// A masked frame, as a client sends it; `first` is the byte with opcode and flags.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn blob(bytes: &[u8]) -> Value {
    Value::Bytes(Blob::from(bytes))
}

/// Sends raw bytes and returns all that comes back until the connection ends.
async fn answer_to(bytes: &[u8]) -> (Vec<u8>, Vec<Value>, Vec<String>) {
    let flow = Flow::default();
    let (mut peer, served) = server(&flow);
    let mut answer = Vec::new();
    peer.write_all(bytes).await.unwrap();
    peer.read_to_end(&mut answer).await.unwrap();
    drop(peer);
    served.await.unwrap();
    (answer, flow.delivered(), flow.with(|state| state.failures.clone()))
}

#[tokio::test]
async fn text_and_binary_go_both_ways() {
    let flow = Flow::default();
    let (peer, _served) = server(&flow);
    let mut client = socket(peer, Role::Client).await;
    client.send(Message::text("hä")).await.unwrap();
    client.send(Message::binary(vec![0, 255])).await.unwrap();
    client.send(Message::text("")).await.unwrap();
    client.send(Message::binary(vec![])).await.unwrap();
    assert_eq!(flow.delivered_are(4).await, [Value::from("hä"), blob(&[0, 255]), Value::from(""), blob(&[])]);

    let long = "x".repeat(100_000);
    for value in [Value::from("a"), blob(&[1]), Value::from(""), blob(&[]), Value::from(&long)] {
        flow.send(value);
    }
    for expected in [
        Message::text("a"),
        Message::binary(vec![1]),
        Message::text(""),
        Message::binary(vec![]),
        Message::text(long),
    ] {
        assert_eq!(client.next().await.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn many_queued_values_arrive_in_order() {
    let flow = Flow::default();
    let (peer, _served) = server(&flow);
    let mut client = socket(peer, Role::Client).await;
    for number in 0..5000 {
        flow.send(number.to_string());
    }
    for number in 0..5000 {
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text(number.to_string()));
    }
}

#[tokio::test]
async fn input_that_was_read_with_the_handshake_is_not_lost() {
    let flow = Flow::default();
    let input = [frame(TEXT, b"first"), frame(TEXT, b"second")].concat();
    let (begun, rest) = input.split_at(input.len() - 3);
    let (mut peer, _served) = serve(Role::Server, &flow, begun, None);
    peer.write_all(rest).await.unwrap();
    assert_eq!(flow.delivered_are(2).await, [Value::from("first"), Value::from("second")]);
}

#[tokio::test]
async fn fragments_are_joined_and_a_ping_between_them_is_answered_at_once() {
    let flow = Flow::default();
    let (mut peer, _served) = server(&flow);
    peer.write_all(&[frame(0x01, b"frag1"), frame(PING, b"p")].concat()).await.unwrap();
    let mut pong = [0; 3];
    peer.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [PONG, 1, b'p']);
    peer.write_all(&frame(0x80, b"frag2")).await.unwrap();
    assert_eq!(flow.delivered_are(1).await, [Value::from("frag1frag2")]);
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_code_and_reason() {
    let close = [&3000u16.to_be_bytes()[..], b"app"].concat();
    let (answer, delivered, failures) =
        answer_to(&[frame(TEXT, b"last"), frame(CLOSE, &close)].concat()).await;
    assert_eq!(answer, [&[CLOSE, 5][..], &close].concat());
    assert_eq!((delivered, failures), (vec![Value::from("last")], vec![]));
}

#[tokio::test]
async fn a_close_frame_without_code_is_answered_without_code() {
    assert_eq!(answer_to(&frame(CLOSE, &[])).await.0, [CLOSE, 0]);
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told_how() {
    let unmasked = vec![TEXT, 1, b'x'];
    let huge = [&[BINARY, 0xff][..], &(LIMITS.max_message as u64 + 1).to_be_bytes(), &[0; 4]].concat();
    for (what, bytes, code) in [
        ("unmasked frame", unmasked, 1002),
        ("reserved bit", frame(0xc1, b"x"), 1002),
        ("reserved opcode", frame(0x83, b"x"), 1002),
        ("reserved control opcode", frame(0x8b, b"x"), 1002),
        ("fragmented ping", frame(0x09, b"x"), 1002),
        ("ping with more than 125 bytes", frame(PING, &[0; 126]), 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("new message between fragments", [frame(0x01, b"x"), frame(TEXT, b"y")].concat(), 1002),
        ("close code of one byte", frame(CLOSE, &[3]), 1002),
        ("invalid UTF-8", frame(TEXT, &[0xff]), 1007),
        ("invalid UTF-8 in fragments", [frame(0x01, &[0xc3]), frame(0x80, b"x")].concat(), 1007),
        (
            "invalid UTF-8 in a frame that never ends",
            frame(TEXT, &[b'x', 0xff, b'y', b'y'])[..8].to_vec(),
            1007,
        ),
        ("invalid UTF-8 in a fragment without an end", frame(0x01, &[0xed, 0xa0]), 1007),
        ("invalid UTF-8 in a close reason", frame(CLOSE, &[3, 0xe8, 0xff]), 1007),
        ("frame over the limit", huge, 1009),
    ] {
        let (answer, delivered, failures) = answer_to(&bytes).await;
        assert_eq!(answer, [&[CLOSE, 2][..], &u16::to_be_bytes(code)].concat(), "{what}");
        assert_eq!((delivered, failures.len()), (vec![], 1), "{what}");
    }
}

#[tokio::test]
async fn a_close_code_that_must_not_be_sent_is_a_protocol_error() {
    for code in [0u16, 999, 1005, 1006, 1015] {
        let (answer, ..) = answer_to(&frame(CLOSE, &code.to_be_bytes())).await;
        assert_eq!(answer[2..4], 1002u16.to_be_bytes(), "{code}");
    }
}

#[tokio::test]
async fn fragments_together_over_the_limit_are_refused() {
    let flow = Flow::default();
    let (peer, served) = server(&flow);
    let (mut reader, mut writer) = tokio::io::split(peer);
    let sending = async move {
        let fragment = vec![b'x'; LIMITS.max_message / 4];
        writer.write_all(&frame(0x02, &fragment)).await.unwrap();
        for _ in 0..4 {
            writer.write_all(&frame(0x00, &fragment)).await.unwrap();
        }
        writer
    };
    let receiving = async {
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (_, answer) = tokio::join!(sending, receiving);
    assert_eq!(answer, [CLOSE, 2, 0x03, 0xf1]);
    assert!(flow.delivered().is_empty());
    served.abort();
}

#[tokio::test]
async fn a_peer_that_just_leaves_ends_the_connection_without_an_error() {
    let flow = Flow::default();
    let (peer, served) = server(&flow);
    drop(peer);
    served.await.unwrap();
    assert!(flow.with(|state| state.failures.is_empty()));
}

#[tokio::test]
async fn a_close_request_follows_what_was_queued_before_it() {
    let flow = Flow::default();
    let (peer, served) = server(&flow);
    let mut client = socket(peer, Role::Client).await;
    flow.send("last");
    flow.send(close_request(Some(1001), "bye"));
    flow.send("never");
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("last"));
    let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Close(Some(frame)));
    assert!(client.next().await.is_none());
    served.await.unwrap();
}

#[tokio::test]
async fn messages_sent_before_the_peer_saw_our_close_frame_still_count() {
    let flow = Flow::default();
    let (mut peer, served) = server(&flow);
    flow.send(close_request(None, ""));
    let mut close = [0; 2];
    peer.read_exact(&mut close).await.unwrap();
    assert_eq!(close, [CLOSE, 0]);
    peer.write_all(&[frame(TEXT, b"late"), frame(CLOSE, &[])].concat()).await.unwrap();
    served.await.unwrap();
    assert_eq!(flow.delivered(), [Value::from("late")]);
}

#[tokio::test]
async fn a_session_cut_by_the_host_is_closed_with_the_code_for_it() {
    let flow = Flow::default();
    flow.with(|state| state.cut = true);
    let (peer, _served) = server(&flow);
    let mut client = socket(peer, Role::Client).await;
    let Message::Close(Some(frame)) = client.next().await.unwrap().unwrap() else { panic!("no close frame") };
    assert_eq!(u16::from(frame.code), 1008);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_a_close_frame_is_let_go_after_a_while() {
    let flow = Flow::default();
    let (_peer, served) = server(&flow);
    flow.send(close_request(Some(1001), ""));
    tokio::time::timeout(Duration::from_millis(CLOSE_MS + 1000), served).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_broke_the_protocol_and_keeps_sending_is_let_go_after_a_while() {
    let flow = Flow::default();
    let (peer, served) = server(&flow);
    let (mut reader, mut writer) = tokio::io::split(peer);
    let sending = tokio::spawn(async move {
        writer.write_all(&[TEXT, 0]).await.unwrap();
        while writer.write_all(&[0; 1000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut answer = Vec::new();
    reader.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [CLOSE, 2, 0x03, 0xea]);
    tokio::time::timeout(Duration::from_millis(LINGER_MS + 1000), served).await.unwrap().unwrap();
    drop(reader);
    sending.abort();
}

// The clock of the next tests stands still, and jumps only when no task can go on: a timeout means "stuck".

#[tokio::test(start_paused = true)]
async fn reading_stops_while_the_flow_is_congested() {
    let flow = Flow::default();
    flow.with(|state| state.congested = true);
    let (mut peer, _served) = server(&flow);
    let message = frame(BINARY, &[7; 1000]);
    // The pipe holds 4 KiB, tungstenite nothing: reading has not begun.
    let mut accepted = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(100), peer.write_all(&message)).await {
        written.unwrap();
        accepted += 1;
    }
    assert!(accepted < 10 && flow.delivered().is_empty(), "{accepted} messages went into a congested flow");
    flow.with(|state| state.congested = false);
    flow.delivered_are(accepted).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_not_read_from_for_ever_and_nothing_is_lost() {
    let flow = Flow::default();
    flow.with(|state| state.echoes = true);
    let (peer, _served) = server(&flow);
    let (mut reader, mut writer) = tokio::io::split(peer);
    const COUNT: usize = 3000;
    let sending = tokio::spawn(async move {
        for number in 0..COUNT {
            writer.write_all(&frame(TEXT, format!("{number:0>1000}").as_bytes())).await.unwrap();
        }
        writer
    });
    // Without a reader, the sender gets stuck long before it is done.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let read = flow.delivered().len();
    assert!(read < COUNT / 2, "{read} messages were read for a peer that reads nothing");
    for number in 0..COUNT {
        let mut echo = [0; 4 + 1000];
        reader.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo[4..], *format!("{number:0>1000}").as_bytes());
    }
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pings_from_a_peer_that_does_not_read_do_not_pile_up() {
    let flow = Flow::default();
    let (mut peer, served) = server(&flow);
    let pings = frame(PING, &[0; 125]).repeat(100);
    let mut accepted = 0;
    while tokio::time::timeout(Duration::from_millis(100), peer.write_all(&pings)).await.is_ok() {
        accepted += 100;
        assert!(accepted < 100_000, "pings are taken without end");
    }
    served.abort();
}

#[tokio::test]
async fn a_client_masks_its_frames_and_refuses_masked_ones() {
    let flow = Flow::default();
    let (mut peer, served) = serve(Role::Client, &flow, &[], None);
    flow.send("x");
    let mut sent = [0; 7];
    peer.read_exact(&mut sent).await.unwrap();
    assert_eq!((sent[0], sent[1]), (TEXT, 0x81));
    assert_eq!(sent[6] ^ sent[2], b'x');
    peer.write_all(&frame(TEXT, b"masked")).await.unwrap();
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.unwrap();
    drop(peer);
    served.await.unwrap();
    assert_eq!(answer[..2], [CLOSE, 0x82]);
    assert_eq!(flow.with(|state| state.failures.len()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_asks_again_while_it_is_answered_and_gives_up_when_it_is_not() {
    let flow = Flow::default();
    let (mut peer, served) = serve(Role::Client, &flow, &[], Some(1000));
    for _ in 0..5 {
        let mut ping = [0; 6];
        peer.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping[..2], [PING, 0x80]);
        peer.write_all(&[PONG, 0]).await.unwrap();
    }
    assert!(!served.is_finished());
    let began = tokio::time::Instant::now();
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).await.unwrap();
    // One more ping, no answer, and no close frame: the connection is cut.
    assert_eq!((rest.len(), began.elapsed().as_secs()), (6, 2));
    served.await.unwrap();
    assert_eq!(flow.with(|state| state.failures.clone()), ["no answer to a ping"]);
}

#[tokio::test(start_paused = true)]
async fn a_ping_from_the_server_counts_as_a_sign_of_life() {
    let flow = Flow::default();
    let (mut peer, served) = serve(Role::Client, &flow, &[], Some(1000));
    for _ in 0..5 {
        let mut ping = [0; 6];
        peer.read_exact(&mut ping).await.unwrap();
        peer.write_all(&[PING, 0]).await.unwrap();
        let mut pong = [0; 6];
        peer.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong[0], PONG);
    }
    assert!(!served.is_finished());
}
