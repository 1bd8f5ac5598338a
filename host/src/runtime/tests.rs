//! The runtime under several threads, with nodes made for the purpose instead of plugins.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::Poll,
    time::{Duration, Instant},
};

use abi_stable::std_types::RResult;
use flowbay_abi::{
    FfiFuture, FutureExt as _, Msg, Value,
    host::{HostNode, PortMsg},
    io::{Connection, ConnectionEnd, HostIo},
    node::{AbiNode, NodeError, Outcome, PluginNode, Via},
};
use serde_json::json;

use super::{api::NodeHost, cell::Instance, mailbox::Standing, *};
use crate::{
    flow::{FlowFile, ProcessEnv, Role},
    http::{HostStream, HttpRequest},
    plugin::{Plugin, PluginStream, next_task_id, with_task},
};

const LONG: Duration = Duration::from_secs(30);

/// What a node does with a message.
type Input = Arc<dyn Fn(&HostNode, Msg) -> Outcome + Send + Sync>;

struct TestNode {
    host: HostNode,
    input: Input,
    /// Runs in `on_close`, on the calling thread.
    close: Arc<dyn Fn() + Send + Sync>,
}

impl PluginNode for TestNode {
    fn on_start(&self) {}
    fn on_input(&self, msg: Msg, _: Via) -> Outcome {
        (self.input)(&self.host, msg)
    }
    fn on_close(&self, _: bool) -> FfiFuture<()> {
        (self.close)();
        async {}.into_ffi()
    }
    fn on_upgrade(&self, _: Value, _: u64) -> Value {
        Value::Null
    }
    fn on_request(&self, _: Value) -> FfiFuture<Value> {
        let held = self.close.clone();
        async move {
            let _held = held;
            std::future::pending().await
        }
        .into_ffi()
    }
    fn on_connection(&self, _: Connection) -> FfiFuture<ConnectionEnd> {
        async { ConnectionEnd::Closed }.into_ffi()
    }
    fn save(&self) -> Result<Option<Value>, NodeError> {
        Ok(None)
    }
}

struct Rig {
    tokio: tokio::runtime::Runtime,
    shared: Arc<Shared>,
}

fn graph(nodes: &serde_json::Value) -> FlowGraph {
    let mut file = nodes.clone();
    for node in file.as_array_mut().unwrap() {
        node["z"] = json!("tab");
        node["x"] = json!(1);
        node["y"] = json!(1);
    }
    file.as_array_mut().unwrap().push(json!({"id": "tab", "type": "tab"}));
    let roles = |node_type: &str| match node_type {
        "source" => Role::Source,
        "catch" => Role::Catch,
        _ => Role::Plain,
    };
    let file = FlowFile::from_value(file).unwrap();
    FlowGraph::build(&file, Arc::new(ProcessEnv::default()), &roles).0
}

impl Rig {
    fn new(
        threads: usize,
        settings: Settings,
        nodes: &serde_json::Value,
        input: &dyn Fn(&str) -> Input,
    ) -> Self {
        Self::closing(threads, settings, nodes, input, Arc::new(|| ()))
    }

    fn closing(
        threads: usize,
        settings: Settings,
        nodes: &serde_json::Value,
        input: &dyn Fn(&str) -> Input,
        close: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
        let routes = Arc::new(Routes::new());
        let shared = Arc::new(Shared::new(settings, tokio.handle().clone(), routes, Arc::default()).unwrap());
        let graph = graph(nodes);
        for node in &graph.nodes {
            let plugin = Plugin::for_test();
            let cell = Arc::new(NodeCell::new(node.clone(), 1, node.role == Role::Source, shared.clone()));
            let door = Arc::new(NodeHost::new(cell.clone(), plugin.clone()));
            door.begin();
            let host = HostNode::new(door.clone());
            let node = TestNode { host, input: input(cell.id()), close: close.clone() };
            cell.open(Instance::new(AbiNode::new(Arc::new(node)), door, plugin));
            shared.nodes.write().unwrap().insert(cell.id().to_owned(), cell);
        }
        deploy::wire(&shared, &graph);
        shared.graph.store(Arc::new(graph));
        Self { tokio, shared }
    }

    fn cell(&self, id: &str) -> Arc<NodeCell> {
        self.shared.node(id).unwrap()
    }

    /// A task that sends numbered messages from a source, as fast as its gate lets it.
    fn send_numbers(&self, id: &str, count: i64) -> tokio::task::JoinHandle<()> {
        let cell = self.cell(id);
        let ready = self.ready(id);
        self.tokio.spawn(async move {
            for number in 0..count {
                ready().await;
                let mut msg = Msg::with_payload(number);
                msg.set("from", cell.id());
                drain::scope(|| cell.send(&mut [PortMsg { port: 0, msg }]));
            }
        })
    }

    /// Waits as a connection or a task of the source `id` does.
    fn ready(&self, id: &str) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + use<> {
        let host = HostNode::new(Arc::new(NodeHost::new(self.cell(id), Plugin::for_test())));
        let task = next_task_id();
        move || {
            let host = host.clone();
            Box::pin(poll_fn(move |cx| with_task(task, || host.poll_ready(cx))))
        }
    }

    fn in_time<T>(&self, future: impl Future<Output = T>) -> T {
        self.tokio.block_on(async { tokio::time::timeout(LONG, future).await }).expect("it hangs")
    }
}

/// Marks the message and sends it on.
fn pass(host: &HostNode, mut msg: Msg, mark: &str) {
    msg.set("via", mark);
    host.send(&mut [PortMsg { port: 0, msg }]);
}

/// Sends messages on after one more turn of the executor.
fn later(mark: &'static str) -> Input {
    Arc::new(move |host, msg| {
        let (host, mut msg, mut turns) = (host.clone(), Some(msg), 0);
        let waits = poll_fn(move |cx| {
            turns += 1;
            if turns < 3 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            pass(&host, msg.take().unwrap(), mark);
            Poll::Ready(RResult::ROk(()))
        });
        Outcome::Pending(waits.into_ffi())
    })
}

fn never() -> Input {
    Arc::new(|_, _| Outcome::Pending(std::future::pending().into_ffi()))
}

fn small_marks() -> Settings {
    Settings { mailbox_mark: 10, drain_budget: 3, stall_deadline_ms: 60_000, ..Settings::default() }
}

/// Four sources, each to a node that is quick and one that waits, those to one node, that to the end.
fn diamond() -> serde_json::Value {
    let mut nodes = vec![
        json!({"id": "quick", "type": "node", "wires": [["middle"]]}),
        json!({"id": "waits", "type": "node", "wires": [["middle"]]}),
        json!({"id": "middle", "type": "node", "wires": [["end"]]}),
        json!({"id": "end", "type": "node", "wires": []}),
    ];
    for number in 0..4 {
        nodes.push(json!({"id": format!("s{number}"), "type": "source", "wires": [["quick", "waits"]]}));
    }
    json!(nodes)
}

#[test]
fn messages_from_several_threads_keep_their_order_on_each_wire_and_none_is_lost() {
    const COUNT: i64 = 1_500;
    type Seen = Mutex<std::collections::HashMap<(String, String), Vec<i64>>>;
    let seen = Arc::new(Seen::default());
    let (done, all) = mpsc::channel();
    let input = |id: &str| -> Input {
        let (seen, done, left) = (seen.clone(), Mutex::new(done.clone()), Mutex::new(8 * COUNT));
        match id {
            "quick" => Arc::new(|host, msg| {
                pass(host, msg, "quick");
                Outcome::Done
            }),
            "waits" => later("waits"),
            "middle" => Arc::new(|host, msg| {
                host.send(&mut [PortMsg { port: 0, msg }]);
                Outcome::Done
            }),
            _ => Arc::new(move |_, msg| {
                let text = |key: &str| msg[key].as_str().unwrap().to_owned();
                let mut seen = seen.lock().unwrap();
                let wire = seen.entry((text("from"), text("via"))).or_default();
                wire.push(msg.payload().as_i64().unwrap());
                let mut left = left.lock().unwrap();
                *left -= 1;
                if *left == 0 {
                    done.lock().unwrap().send(()).unwrap();
                }
                Outcome::Done
            }),
        }
    };
    let rig = Rig::new(4, small_marks(), &diamond(), &input);
    let sources: Vec<_> = (0..4).map(|number| rig.send_numbers(&format!("s{number}"), COUNT)).collect();
    for source in sources {
        rig.in_time(source).unwrap();
    }
    all.recv_timeout(LONG).expect("all messages arrive");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 8);
    let in_order: Vec<i64> = (0..COUNT).collect();
    for (wire, numbers) in seen.iter() {
        assert_eq!(numbers, &in_order, "{wire:?}");
    }
    assert!(rig.shared.cells().iter().all(|cell| cell.gate.blocked() == 0), "nobody is held any more");
}

#[test]
fn wires_that_change_under_load_hold_no_source_for_ever() {
    let input = |id: &str| -> Input {
        match id {
            "waits" => later("waits"),
            _ => Arc::new(|host, msg| {
                host.send(&mut [PortMsg { port: 0, msg }]);
                Outcome::Done
            }),
        }
    };
    let rig = Rig::new(4, small_marks(), &diamond(), &input);
    let other = {
        let mut nodes = diamond();
        for node in nodes.as_array_mut().unwrap() {
            match node["id"].as_str().unwrap() {
                "s0" => node["wires"] = json!([["waits"]]),
                "s1" => node["wires"] = json!([[]]),
                "quick" => node["wires"] = json!([["waits"]]),
                _ => {}
            }
        }
        graph(&nodes)
    };
    let sources: Vec<_> = (0..4).map(|number| rig.send_numbers(&format!("s{number}"), 2_000)).collect();
    let original = rig.shared.graph.load_full();
    while !sources.iter().all(tokio::task::JoinHandle::is_finished) {
        deploy::wire(&rig.shared, &other);
        deploy::wire(&rig.shared, &original);
    }
    for source in sources {
        rig.in_time(source).unwrap();
    }
    let begin = Instant::now();
    while rig.shared.cells().iter().any(|cell| cell.gate.blocked() != 0) {
        assert!(begin.elapsed() < LONG, "a source is held although all mailboxes drain");
        std::thread::yield_now();
    }
}

#[test]
fn who_waits_for_a_source_goes_on_when_the_source_is_closed() {
    let nodes = json!([
        {"id": "source", "type": "source", "wires": [["stuck"]]},
        {"id": "stuck", "type": "node", "wires": []},
    ]);
    let settings = Settings { mailbox_mark: 1, stall_deadline_ms: 60_000, ..Settings::default() };
    let rig = Rig::new(2, settings, &nodes, &|_| never());
    let source = rig.cell("source");
    for number in 0..5 {
        source.send(&mut [PortMsg { port: 0, msg: Msg::with_payload(number) }]);
    }
    assert_eq!(source.gate.blocked(), 1);
    let (polled, first_poll) = tokio::sync::oneshot::channel();
    let waiting = rig.ready("source")();
    let waiter = rig.tokio.spawn(async move {
        let mut waiting = pin!(waiting);
        let mut polled = Some(polled);
        poll_fn(|cx| {
            let result = waiting.as_mut().poll(cx);
            assert!(result.is_pending() || polled.is_none(), "it does not wait");
            if let Some(polled) = polled.take() {
                polled.send(()).unwrap();
            }
            result
        })
        .await;
    });
    rig.in_time(first_poll).unwrap();
    rig.in_time(source.close(true, LONG));
    rig.in_time(waiter).unwrap();
}

#[test]
fn a_node_that_is_given_up_holds_its_sources_no_longer() {
    let nodes = json!([
        {"id": "source", "type": "source", "wires": [["stuck"]]},
        {"id": "stuck", "type": "node", "wires": []},
    ]);
    let settings = Settings { mailbox_mark: 1, ..Settings::default() };
    let rig = Rig::new(2, settings, &nodes, &|_| never());
    let (source, stuck) = (rig.cell("source"), rig.cell("stuck"));
    let ready = rig.ready("source");
    drain::scope(|| {
        for number in 0..5 {
            source.send(&mut [PortMsg { port: 0, msg: Msg::with_payload(number) }]);
        }
    });
    let standing = stuck.congested_at().expect("congested");
    stuck.give_up(Standing { taken: standing.taken + 1, ..standing });
    assert_eq!(source.gate.blocked(), 1, "it has taken a message, so it is not stuck");
    stuck.give_up(standing);
    assert_eq!(source.gate.blocked(), 0);
    rig.in_time(ready());
    stuck.give_up(standing);
    assert_eq!(source.gate.blocked(), 0, "once");
}

/// A source before a loop of two nodes.
fn loop_of_two(second_wires: &[&str]) -> serde_json::Value {
    json!([
        {"id": "source", "type": "source", "wires": [["first"]]},
        {"id": "first", "type": "node", "wires": [["second", "end"]]},
        {"id": "second", "type": "node", "wires": [second_wires]},
        {"id": "end", "type": "node", "wires": []},
    ])
}

fn forward(host: &HostNode, msg: Msg) -> Outcome {
    host.send(&mut [PortMsg { port: 0, msg }]);
    Outcome::Done
}

#[test]
fn a_loop_that_is_full_of_messages_holds_its_source_no_longer_than_the_stall_deadline() {
    let settings = Settings { mailbox_mark: 10, stall_deadline_ms: 100, ..Settings::default() };
    let rig = Rig::new(2, settings, &loop_of_two(&["first"]), &|_| Arc::new(forward));
    let loops: Vec<bool> =
        ["source", "first", "second", "end"].iter().map(|id| rig.cell(id).in_loop().is_some()).collect();
    assert_eq!(loops, [false, true, true, false]);
    assert_eq!(rig.cell("first").in_loop(), rig.cell("second").in_loop());
    let watched = Arc::downgrade(&rig.shared);
    std::thread::spawn(move || watch::watch(&watched, Duration::from_millis(100)));
    // Each message goes round for ever: after some, the source would wait for ever.
    rig.in_time(rig.send_numbers("source", 500)).unwrap();
    deploy::stop(&rig.shared);
}

#[test]
fn a_node_that_keeps_its_thread_is_under_way_and_one_that_waits_is_not() {
    let nodes = json!([
        {"id": "source", "type": "source", "wires": [["keeps", "waits"]]},
        {"id": "keeps", "type": "node", "wires": []},
        {"id": "waits", "type": "node", "wires": []},
    ]);
    let (entered, is_in) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let left = Arc::new(Mutex::new(left));
    let keeps: Input = Arc::new(move |_, _| {
        entered.send(()).unwrap();
        left.lock().unwrap().recv().unwrap();
        Outcome::Done
    });
    let rig = Rig::new(2, Settings::default(), &nodes, &|id| {
        if id == "keeps" { keeps.clone() } else { never() }
    });
    let under_way = |id: &str| rig.cell(id).under_way();
    assert_eq!(under_way("keeps"), [None; 3]);
    let sent = rig.send_numbers("source", 1);
    is_in.recv_timeout(LONG).unwrap();
    assert_eq!(under_way("keeps"), [Some(1), None, None]);
    leave.send(()).unwrap();
    rig.in_time(sent).unwrap();
    assert_eq!((under_way("keeps"), under_way("waits")), ([None; 3], [None; 3]));
}

#[test]
fn two_loops_and_what_is_between_them_are_told_apart() {
    let nodes = json!([
        {"id": "self", "type": "node", "wires": [["self", "between"]]},
        {"id": "between", "type": "node", "wires": [["a"]]},
        {"id": "a", "type": "node", "wires": [["b"]]},
        {"id": "b", "type": "node", "wires": [["c"], ["a", "end"]]},
        {"id": "c", "type": "node", "wires": [["a"]]},
        {"id": "end", "type": "node", "wires": []},
    ]);
    let rig = Rig::new(1, Settings::default(), &nodes, &|_| Arc::new(forward));
    let number = |id: &str| rig.cell(id).in_loop();
    assert_eq!((number("between"), number("end")), (None, None));
    assert!(number("a").is_some() && number("a") == number("b") && number("b") == number("c"));
    assert!(number("self").is_some() && number("self") != number("a"));
}

#[test]
fn a_loop_that_multiplies_messages_holds_its_source_no_longer_than_to_its_cap() {
    let settings = Settings { mailbox_mark: 10, mailbox_cap: 50, ..Settings::default() };
    let rig = Rig::new(2, settings, &loop_of_two(&["first", "first"]), &|_| Arc::new(forward));
    rig.in_time(rig.send_numbers("source", 500)).unwrap();
    deploy::stop(&rig.shared);
}

#[test]
fn catch_nodes_that_are_full_do_not_tell_each_other() {
    let nodes = json!([
        {"id": "fails", "type": "node", "wires": []},
        {"id": "c1", "type": "catch", "scope": null, "wires": []},
        {"id": "c2", "type": "catch", "scope": null, "wires": []},
    ]);
    let settings = Settings { mailbox_cap: 3, ..Settings::default() };
    let rig = Rig::new(1, settings, &nodes, &|_| never());
    let fails = rig.cell("fails");
    for _ in 0..10 {
        events::error(&fails, NodeError::new("again"), Some(Msg::new()));
    }
    // One in hand at most, three wait, the others are counted.
    assert!((6..=7).contains(&rig.cell("c1").refused()), "{}", rig.cell("c1").refused());
}

#[test]
fn the_tenth_error_of_one_node_on_one_message_is_only_logged() {
    let counts = Arc::new(Mutex::new(Vec::new()));
    let nodes = json!([
        {"id": "fails", "type": "node", "wires": []},
        {"id": "catch", "type": "catch", "scope": null, "wires": [["fails"]]},
    ]);
    let input = |id: &str| -> Input {
        let counts = counts.clone();
        match id {
            "fails" => Arc::new(|_, _| Outcome::Failed(NodeError::new("again"))),
            _ => Arc::new(move |host, msg| {
                counts.lock().unwrap().push(msg["error"]["source"]["count"].as_i64().unwrap());
                host.send(&mut [PortMsg { port: 0, msg }]);
                Outcome::Done
            }),
        }
    };
    let rig = Rig::new(1, Settings::default(), &nodes, &input);
    drain::scope(|| rig.cell("fails").deliver(Msg::new(), Via::Wire));
    assert_eq!(*counts.lock().unwrap(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // Whatever a peer puts there.
    let hostile = Msg::from_value(json!({"error": {"source": {"id": "fails", "count": i64::MAX}}}));
    events::error(&rig.cell("fails"), NodeError::new("again"), Some(hostile));
    assert_eq!(counts.lock().unwrap().len(), 9);
}

trait FromJson {
    fn from_value(json: serde_json::Value) -> Self;
}

impl FromJson for Msg {
    fn from_value(json: serde_json::Value) -> Self {
        Msg::try_from(Value::from(json)).unwrap()
    }
}

#[test]
fn flows_that_stop_while_messages_are_on_their_way_leave_nothing_behind() {
    let input = |id: &str| -> Input {
        match id {
            "waits" => later("waits"),
            "quick" => never(),
            _ => Arc::new(|host, msg| {
                host.send(&mut [PortMsg { port: 0, msg }]);
                Outcome::Done
            }),
        }
    };
    let rig = Rig::new(4, Settings { mailbox_mark: 1_000_000, ..small_marks() }, &diamond(), &input);
    let sources: Vec<_> = (0..4).map(|number| rig.send_numbers(&format!("s{number}"), 3_000)).collect();
    while !sources.iter().any(tokio::task::JoinHandle::is_finished) {
        std::thread::yield_now();
    }
    deploy::stop(&rig.shared);
    for source in sources {
        rig.in_time(source).unwrap();
    }
    // Cells hold the shared state, nodes and tasks hold cells.
    let begin = Instant::now();
    while Arc::strong_count(&rig.shared) > 1 {
        assert!(begin.elapsed() < LONG, "{} references are left", Arc::strong_count(&rig.shared));
        std::thread::yield_now();
    }
}

#[test]
fn a_node_that_keeps_the_thread_while_it_closes_does_not_keep_the_host() {
    let nodes: Vec<_> =
        (0..20).map(|number| json!({"id": format!("n{number}"), "type": "node", "wires": []})).collect();
    // The only worker thread does not come back before this is set.
    static LET_GO: AtomicBool = AtomicBool::new(false);
    static ENTERED: OnceLock<()> = OnceLock::new();
    let block: Arc<dyn Fn() + Send + Sync> = Arc::new(|| {
        let _ = ENTERED.set(());
        while !LET_GO.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    let settings = Settings { node_close_timeout_ms: 50, ..Settings::default() };
    let rig = Rig::closing(1, settings, &json!(nodes), &|_| never(), block);
    let begin = Instant::now();
    deploy::stop(&rig.shared);
    assert!(ENTERED.get().is_some(), "a node was closed");
    assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
    LET_GO.store(true, Ordering::SeqCst);
}

/// A node that hands its first connection on at once, and panics when it is given another.
#[derive(Default)]
struct HandsOn {
    served: AtomicBool,
    lost: Mutex<Vec<String>>,
}

impl PluginNode for HandsOn {
    fn on_start(&self) {}
    fn on_input(&self, _: Msg, _: Via) -> Outcome {
        Outcome::Done
    }
    fn on_close(&self, _: bool) -> FfiFuture<()> {
        async {}.into_ffi()
    }
    fn on_upgrade(&self, _: Value, _: u64) -> Value {
        Value::Null
    }
    fn on_request(&self, _: Value) -> FfiFuture<Value> {
        async { Value::Null }.into_ffi()
    }
    fn on_connection(&self, connection: Connection) -> FfiFuture<ConnectionEnd> {
        assert!(!self.served.swap(true, Ordering::SeqCst), "on purpose");
        let Connection { io, state, .. } = connection;
        async move { ConnectionEnd::HandOver { io, state } }.into_ffi()
    }
    fn save(&self) -> Result<Option<Value>, NodeError> {
        Ok(None)
    }
    fn on_connection_lost(&self, session: &str) {
        self.lost.lock().unwrap().push(session.to_owned());
    }
}

#[test]
fn a_node_is_told_of_a_connection_that_it_could_not_take_over() {
    let rig =
        Rig::new(2, Settings::default(), &json!([{"id": "n", "type": "node", "wires": []}]), &|_| never());
    let cell = rig.cell("n");
    let (plugin, node) = (Plugin::for_test(), Arc::<HandsOn>::default());
    let door = Arc::new(NodeHost::new(cell.clone(), plugin.clone()));
    cell.exchange(Instance::new(AbiNode::new(node.clone()), door, plugin.clone()), false, 1);
    let stream = rig.in_time(rig.tokio.spawn(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()
    }));
    let io = HostIo::new(PluginStream::new(HostStream::tcp(stream.unwrap()), plugin));
    let open = cell.open_session("somebody", None);
    let id = cell.serve(&cell.instance().unwrap(), open, io, Value::Null).unwrap();
    let begin = Instant::now();
    while cell.sessions.count() > 0 {
        assert!(begin.elapsed() < LONG, "the session does not end");
        std::thread::yield_now();
    }
    assert_eq!(*node.lost.lock().unwrap(), [id.to_string()]);
}

#[test]
fn a_request_whose_client_goes_away_is_given_up_by_its_node() {
    let nodes = json!([{"id": "door", "type": "node", "wires": []}]);
    let held: Arc<dyn Fn() + Send + Sync> = Arc::new(|| ());
    let rig = Rig::closing(2, Settings::default(), &nodes, &|_| never(), held.clone());
    let handler = endpoints::requests(&rig.cell("door"));
    let before = Arc::strong_count(&held);
    let request = || HttpRequest {
        method: hyper::Method::GET,
        path: "/door".into(),
        query: None,
        params: Vec::new(),
        headers: hyper::HeaderMap::new(),
        body: bytes::Bytes::new(),
        remote: ([127, 0, 0, 1], 5).into(),
    };
    rig.tokio.block_on(async {
        for _ in 0..10 {
            let mut answer = handler.handle(request());
            assert!(poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await.is_pending());
        }
    });
    let begin = Instant::now();
    while Arc::strong_count(&held) > before {
        assert!(begin.elapsed() < LONG, "{} are still at work", Arc::strong_count(&held) - before);
        std::thread::yield_now();
    }
}
