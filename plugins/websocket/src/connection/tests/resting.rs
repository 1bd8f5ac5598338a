//! A codec takes memory only while it is needed.

use super::*;

type HandPolled = Box<Live<'static, DuplexStream, Flow>>;

/// A connection that the test polls itself, to look at it between two turns.
fn by_hand(flow: &Flow) -> (DuplexStream, HandPolled) {
    let (peer, stream) = duplex(1 << 20);
    (peer, Live::new(stream, State::default(), Role::Server, &LIMITS, flow.clone()))
}

/// Lets it do all that it can do now.
async fn turns(live: &mut HandPolled) {
    for _ in 0..20 {
        std::future::poll_fn(|cx| {
            assert!(live.poll_serve(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
}

fn is_at_rest(live: &mut HandPolled) -> bool {
    live.codec.parts().is_some()
}

/// Exchanges a message for its echo.
async fn exchange(peer: &mut DuplexStream, live: &mut HandPolled, payload: &[u8]) {
    peer.write_all(&frame(BINARY, payload)).await.unwrap();
    turns(live).await;
    let header_len = if payload.len() < 126 { 2 } else { 4 };
    let mut echo = vec![0; header_len + payload.len()];
    peer.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo[header_len..], payload);
}

fn echoing() -> Flow {
    let flow = Flow::default();
    flow.with(|state| state.echoes = true);
    flow
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_little_to_do_is_at_rest_between_two_messages() {
    let (mut peer, mut live) = by_hand(&echoing());
    turns(&mut live).await;
    assert!(is_at_rest(&mut live), "nothing has happened yet");
    for _ in 0..10 {
        exchange(&mut peer, &mut live, b"now and then").await;
        assert!(is_at_rest(&mut live));
        tokio::time::advance(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_is_at_rest_only_when_it_has_been_quiet_for_a_while() {
    let (mut peer, mut live) = by_hand(&echoing());
    for _ in 0..5 {
        exchange(&mut peer, &mut live, b"again and again").await;
    }
    assert!(!is_at_rest(&mut live));
    tokio::time::advance(Duration::from_millis(900)).await;
    exchange(&mut peer, &mut live, b"still").await;
    tokio::time::advance(Duration::from_millis(200)).await;
    turns(&mut live).await;
    assert!(!is_at_rest(&mut live), "something happened in that second");
    tokio::time::advance(Duration::from_millis(1100)).await;
    turns(&mut live).await;
    assert!(is_at_rest(&mut live));
    exchange(&mut peer, &mut live, b"back again").await;
    assert!(is_at_rest(&mut live));
}

#[tokio::test(start_paused = true)]
async fn who_reads_much_gets_a_larger_buffer_and_gives_it_back() {
    let (mut peer, mut live) = by_hand(&echoing());
    for _ in 0..10 {
        exchange(&mut peer, &mut live, &[7; 20_000]).await;
    }
    assert!(!is_at_rest(&mut live) && live.codec.reads_much());
    for _ in 0..2 {
        tokio::time::advance(Duration::from_millis(1100)).await;
        exchange(&mut peer, &mut live, b"little").await;
    }
    assert!(!is_at_rest(&mut live) && !live.codec.reads_much());
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_frame_may_rest_too_and_a_long_one_stays_where_it_is() {
    let (mut peer, mut live) = by_hand(&echoing());
    for (unfinished, rests) in [(100, true), (20_000, false)] {
        let bytes = frame(BINARY, &vec![7; 30_000]);
        peer.write_all(&bytes[..unfinished]).await.unwrap();
        turns(&mut live).await;
        assert_eq!(is_at_rest(&mut live), rests, "{unfinished} bytes of a frame");
        peer.write_all(&bytes[unfinished..]).await.unwrap();
        turns(&mut live).await;
        let mut echo = vec![0; 4 + 30_000];
        peer.read_exact(&mut echo).await.unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        turns(&mut live).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_congested_flow_gets_nothing_because_a_connection_would_rest() {
    let flow = Flow::default();
    let (mut peer, mut live) = by_hand(&flow);
    flow.with(|state| state.congests = true);
    peer.write_all(&frame(TEXT, b"x").repeat(10)).await.unwrap();
    turns(&mut live).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    turns(&mut live).await;
    assert_eq!(flow.delivered().len(), 1);
    flow.with(|state| (state.congested, state.congests) = (false, false));
    turns(&mut live).await;
    assert_eq!(flow.delivered().len(), 10);
    assert!(is_at_rest(&mut live));
}

#[test]
fn a_connection_at_rest_is_small() {
    // Ten thousand idle connections may cost 4 KiB each, host included; this is all of it here.
    assert!(size_of::<Live<'_, flowbay_sdk::HostStream, Flow>>() <= 384);
}
