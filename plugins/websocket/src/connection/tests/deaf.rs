//! Peers that take nothing while the connection is to end.

use super::*;

/// A connection whose peer has read nothing yet, with more to be sent than goes anywhere.
async fn blocked(flow: &Flow) -> (DuplexStream, JoinHandle<()>) {
    let (peer, served) = server(flow);
    for number in 0..200 {
        flow.send(format!("{number:0>1000}"));
    }
    // The clock jumps when nothing else can go on.
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(flow.with(|state| state.queue.len()) > 0, "nothing is left to wait");
    (peer, served)
}

fn deaf() -> Ending {
    Ending { code: 1006, reason: "it does not read".into() }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_dropped_ten_seconds_after_its_session_was_cut() {
    let flow = Flow::default();
    let (mut peer, served) = blocked(&flow).await;
    // However long it was blocked before.
    tokio::time::sleep(Duration::from_secs(77)).await;
    let began = tokio::time::Instant::now();
    flow.with(|state| {
        state.cut = true;
        state.queue.clear();
    });
    served.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 10);
    flow.with(|state| {
        assert_eq!(state.endings, [deaf()]);
        assert_eq!(state.cuts, ["it does not read"], "said once");
        assert!(state.failures.is_empty());
    });
    peer.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_dropped_soon_after_it_was_told_to_end() {
    for told_after in [0, 3, 10, 25] {
        let flow = Flow::default();
        let (_peer, served) = blocked(&flow).await;
        tokio::time::sleep(Duration::from_secs(told_after)).await;
        let began = tokio::time::Instant::now();
        // Which does not wake the connection: the request is behind what waits.
        {
            let mut state = flow.0.lock().unwrap();
            state.queue.push_back(close_request(Some(4000), "go"));
            state.to_end = true;
        }
        served.await.unwrap();
        let waited = began.elapsed().as_millis();
        assert!((10_000..15_100).contains(&waited), "told after {told_after} s: {waited} ms");
        assert_eq!(flow.with(|state| state.endings.clone()), [deaf()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_waited_for_as_long_as_nobody_wants_it_to_end() {
    let flow = Flow::default();
    let (mut peer, served) = blocked(&flow).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(!served.is_finished());
    let mut socket = socket(peer, Role::Client).await;
    for number in 0..200 {
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(format!("{number:0>1000}")));
    }
    peer = socket.into_inner();
    drop(peer);
    served.await.unwrap();
    assert!(flow.with(|state| state.cuts.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_in_time_gets_the_close_frame() {
    let flow = Flow::default();
    let (peer, served) = blocked(&flow).await;
    flow.with(|state| {
        state.cut = true;
        state.queue.clear();
    });
    tokio::time::sleep(Duration::from_secs(9)).await;
    let mut socket = socket(peer, Role::Client).await;
    let closed = loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Close(frame) => break frame.unwrap(),
            Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((u16::from(closed.code), closed.reason.as_str()), (1008, "cut"));
    assert!(socket.next().await.is_none_or(|end| end.is_err()));
    served.await.unwrap();
    assert_eq!(flow.with(|state| state.endings[0].code), 1008);
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_that_nobody_takes_was_none() {
    let flow = Flow::default();
    let (peer, served) = server(&flow);
    // All of it is in the connection's hands, and the close frame is behind it.
    flow.send("x".repeat(10_000));
    flow.send(close_request(Some(4000), "go"));
    served.await.unwrap();
    flow.with(|state| assert_eq!((&state.endings[..], state.cuts.len()), (&[deaf()][..], 1)));
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_and_says_nothing_does_not_answer_pings_however_much_waits_for_it() {
    for values in [10, 1_000] {
        let flow = Flow::default();
        let (_peer, served) = serve(Role::Server, &flow, &[], Some(1_000));
        for number in 0..values {
            flow.send(format!("{number:0>1000}"));
        }
        let began = tokio::time::Instant::now();
        tokio::time::timeout(Duration::from_secs(60), served).await.expect("it is cut").unwrap();
        assert_eq!(began.elapsed().as_secs(), 2, "{values} messages");
        assert_eq!(flow.with(|state| state.failures.clone()), ["no answer to a ping"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_now_and_then_answers_by_that() {
    let flow = Flow::default();
    let (mut peer, served) = serve(Role::Server, &flow, &[], Some(1_000));
    for number in 0..1_000 {
        flow.send(format!("{number:0>1000}"));
    }
    // Its answers are behind what nobody listens to.
    let sent = tokio::spawn({
        let (mut reader, mut writer) = tokio::io::split(peer);
        async move {
            let mut bytes = vec![0; 100_000];
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(900)).await;
                reader.read_exact(&mut bytes).await.unwrap();
            }
            writer.write_all(&frame(PONG, b"")).await.unwrap();
            reader.unsplit(writer)
        }
    });
    peer = sent.await.unwrap();
    assert!(!served.is_finished(), "{:?}", flow.with(|state| state.failures.clone()));
    drop(peer);
    served.await.unwrap();
}
