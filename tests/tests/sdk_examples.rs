//! The examples of the SDK, each in the real host, with the flow that stands beside it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use flowbay_tests::harness::{
    Client, Host, HostBuilder, PATIENCE, Way, free_port, install, rebuilt, request, scratch_folder,
    sdk_example,
};
use serde_json::json;

/// A host with the example's plugin and flow, which takes newer code when it is told to.
fn host(example: &str) -> HostBuilder {
    let (library, flow) = sdk_example(example);
    Host::builder().plugin_file(&library).flow_text(flow).argument("--no-watch")
}

/// Puts another build of the example in the place of the one that runs, and has it take over.
fn swap(host: &Host, example: &str) {
    let library = sdk_example(example).0;
    let newer = rebuilt(&std::fs::read(&library).unwrap(), 1);
    let file = host.plugin_folder().join(library.file_name().unwrap());
    install(&newer, &file, scratch_folder().path(), Way::Renamed);
    assert_eq!(host.post("/plugins/reload").status, 200, "{}", host.logs());
    host.wait_log("flowbay-sdk*(generation 2)*old code unloaded");
}

/// Waits until a debug node of that name has shown so many values, and returns them.
fn shown(host: &Host, name: &str, count: usize) -> Vec<String> {
    let head = format!("[debug:{name}] ");
    host.eventually(&format!("{count} values of {name}"), || {
        let text = host.stdout();
        let mut lines = text.lines();
        let mut values = Vec::new();
        while let Some(line) = lines.next() {
            if line.contains(&head) {
                values.push(lines.next()?.to_owned());
            }
        }
        (values.len() >= count).then_some(values)
    })
}

#[test]
fn threshold_lets_numbers_pass_and_reports_what_is_none() {
    let host = host("threshold").start();
    assert_eq!(host.wait_debug("alarm").1, "30");
    assert!(host.wait_debug("status").1.contains("30 passed"));
    host.inject("5f20000000000003");
    assert!(host.wait_debug("problem").1.contains("msg.payload is no number but of type string"));
    assert_eq!(host.count_stdout("[debug:alarm]"), 1);
}

#[test]
fn words_are_sent_in_order() {
    let host = host("words").start();
    let summary = host.wait_debug("summary").1;
    assert_eq!(summary, r#"{"words":6,"bytes":18}"#);
    let words: Vec<String> =
        shown(&host, "word", 6).iter().map(|word| word.replace(['\'', '"'], "")).collect();
    assert_eq!(words, ["to", "be", "or", "not", "to", "be"]);
}

#[test]
fn an_order_is_added_up() {
    let bill = host("order").start().wait_debug("bill").1;
    assert!(bill.contains("62") && bill.contains("hammer") && bill.contains("Ada"), "{bill}");
}

#[test]
fn a_batch_is_done_or_failed_message_by_message() {
    let host = host("batch").start();
    let batch = host.wait_debug("batch").1;
    assert!(batch.contains("one") && batch.contains("two"), "{batch}");
    assert_eq!(shown(&host, "done", 2).len(), 2);
    assert!(host.wait_debug("failed").1.contains("a message without a payload"));
}

#[test]
fn a_ticker_counts_on_in_newer_code_and_says_goodbye() {
    let host = host("ticker").start();
    host.wait_log("5f60000000000002*every 500 ms");
    assert!(host.wait_debug("tick").0.starts_with("beat"), "{}", host.logs());
    let before = shown(&host, "tick", 2).len();
    swap(&host, "ticker");
    let after = shown(&host, "tick", before + 2);
    for (number, tick) in after.iter().enumerate() {
        assert!(tick.contains(&format!(r#""payload":{},"#, number + 1)), "{after:?}");
    }
    assert_eq!(host.count_log("every 500 ms"), 2, "the newer code began its own task");
    let finished = host.stop();
    assert!(finished.stderr.contains("stopped after"), "{finished:?}");
}

#[test]
fn an_account_is_shared_and_its_token_is_in_no_log() {
    let host = host("account").start();
    host.wait_debug("request");
    host.wait_stdout("Bearer s3cret");
    assert!(host.stdout().contains("/ws"), "{}", host.logs());
    assert_eq!(host.count_log("s3cret"), 0, "{}", host.logs());
}

#[test]
fn an_average_goes_on_in_newer_code() {
    let host = host("state").start();
    host.inject("5f80000000000002");
    assert_eq!(shown(&host, "average", 1), ["10"]);
    swap(&host, "state");
    host.inject("5f80000000000003");
    assert_eq!(shown(&host, "average", 2), ["10", "15"]);
}

#[test]
fn stock_is_kept_over_http_and_counted() {
    let host = host("stock").start();
    let put = |amount: &str| request(host.address(), "PUT", "/stock/apples", &[], amount).status;
    assert_eq!((host.get("/stock/apples").status, put("5"), put("many")), (404, 204, 400));
    swap(&host, "stock");
    assert_eq!(host.get("/stock/apples").json(), json!({"item": "apples", "amount": 5}));
    assert_eq!(host.wait_debug("changed").1.replace(['\'', '"'], ""), "apples");
    assert_eq!(put("6"), 204);
    let metrics = host.get("/metrics").body;
    let of_node = r#"{node="5f90000000000002",type="stock",name="shop"}"#;
    for line in [format!("flowbay_stock_changes_total{of_node} 2"), format!("flowbay_stock_kinds{of_node} 1")]
    {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let delete = |headers: &[&str]| request(host.address(), "DELETE", "/stock", headers, "").status;
    assert_eq!(delete(&["Origin: http://elsewhere.test"]), 403);
    assert_eq!((delete(&[]), host.get("/stock/apples").status), (204, 404));
}

#[test]
fn clients_of_a_room_stay_when_newer_code_comes() {
    let host = host("room").start();
    let mut clients: Vec<Client> = (0..3).map(|_| host.connect("/room")).collect();
    for round in 0..2 {
        for speaker in 0..clients.len() {
            let text = format!("{speaker} in round {round}");
            clients[speaker].send_text(&text);
            for client in &mut clients {
                assert_eq!(client.recv_text(), text);
            }
        }
        if round == 0 {
            swap(&host, "room");
            host.wait_log("3 connections moved");
        }
    }
}

#[test]
fn files_are_read_beside_the_flow() {
    let host = host("files").start();
    let counted = host.wait_debug("counted").1;
    assert!(counted.starts_with(r#"{"lines":"#), "{counted}");
    host.inject("5fc0000000000005");
    assert!(host.wait_debug("problem").1.contains("No such file"));
}

#[test]
fn a_runtime_of_tokio_ends_before_newer_code_opens_its_port() {
    let port = free_port();
    let (library, flow) = sdk_example("udp");
    let flow = flow.replace("7071", &port.to_string());
    let host = Host::builder().plugin_file(&library).flow_text(flow).argument("--no-watch").start();
    let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    // Nobody may have the port yet, and the system drops what comes meanwhile.
    let heard = |count: usize| {
        host.eventually(&format!("{count} datagrams"), || {
            let _ = sender.send_to(b"hello", ("127.0.0.1", port));
            (host.count_stdout("[debug:datagram]") >= count).then_some(())
        });
    };
    heard(1);
    swap(&host, "udp");
    heard(host.count_stdout("[debug:datagram]") + 1);
}

#[test]
fn lines_are_spoken_with_a_server_across_a_swap() {
    let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (library, flow) = sdk_example("lines");
    let flow = flow
        .replace("localhost", "127.0.0.1")
        .replace("7070", &server.local_addr().unwrap().port().to_string());
    let host = Host::builder().plugin_file(&library).flow_text(flow).argument("--no-watch").start();
    let stream = server.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream);
    let line = |lines: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    };
    host.inject("5fb0000000000002");
    assert_eq!(line(&mut lines), "hello\n");
    lines.get_mut().write_all(b"first\nsec").unwrap();
    assert_eq!(shown(&host, "line", 1).len(), 1);
    swap(&host, "lines");
    lines.get_mut().write_all(b"ond\n").unwrap();
    assert!(shown(&host, "line", 2)[1].contains("second"), "{}", host.logs());
    host.inject("5fb0000000000002");
    assert_eq!(line(&mut lines), "hello\n");
}
