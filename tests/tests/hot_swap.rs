//! Newer plugin code under running flows: what moves, what stays, what a bad build may not do.
//!
//! Short of the full measure, which `flowbay-bench soak` takes: a few dozen connections and about twenty swaps each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use flowbay_tests::harness::{
    Builds, Client, Flow, Frame, Host, HostBuilder, RawPeer, Way, WsServer, built, eventually_within,
    install, patched, plugin, rebuilt, scratch_folder, test_root_file,
};
use flowbay_tests::load::{Load, Mode, Plan, Tally, tls};
use rustix::process::Signal;
use serde_json::{Value, json};

// ---- Builds

/// The version of the builds that take over from the product's, which is 0.1.0.
const NEWER: &str = "0.1.1";

/// Where they are built: beside what cargo builds.
fn builds_folder() -> PathBuf {
    // target/debug/flowbay
    built("flowbay").ancestors().nth(2).unwrap().join("builds")
}

/// Bytes of a library: `core` and `websocket` are there in both versions, the others once.
pub(super) fn library(name: &str, version: &str) -> Arc<Vec<u8>> {
    static NEWER_BUILDS: LazyLock<Builds> = LazyLock::new(|| Builds::make(NEWER, false, &builds_folder()));
    static READ: Mutex<BTreeMap<PathBuf, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());
    let file = match (name, version) {
        ("core", NEWER) => NEWER_BUILDS.core.clone(),
        ("websocket", NEWER) => NEWER_BUILDS.websocket.clone(),
        _ => plugin(name),
    };
    let mut read = READ.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Arc::clone(read.entry(file.clone()).or_insert_with(|| Arc::new(std::fs::read(&file).unwrap())))
}

/// The build of `swap-faults` that does `what`.
fn faults(what: &str) -> Vec<u8> {
    patched(&library("swap-faults", ""), "0.1.0-good-----------------", &format!("0.1.0-{what:-<21}"))
}

// ---- A plugin folder of a test's own

/// A plugin folder whose files are the test's to replace.
pub(super) struct Bay {
    folder: tempfile::TempDir,
}

impl Bay {
    /// With the core and websocket plugins, and these besides.
    pub(super) fn with(fixtures: &[&str]) -> Bay {
        let bay = Bay { folder: scratch_folder() };
        std::fs::create_dir(bay.plugins()).unwrap();
        for name in ["core", "websocket"].iter().chain(fixtures) {
            bay.put(name, &library(name, "0.1.0"), Way::CopiedOver);
        }
        bay
    }

    fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    fn file(&self, name: &str) -> PathBuf {
        let file = plugin(name);
        self.plugins().join(file.file_name().unwrap())
    }

    /// Puts a build in the place of a plugin's file.
    pub(super) fn put(&self, name: &str, bytes: &[u8], way: Way) {
        install(bytes, &self.file(name), self.folder.path(), way);
    }

    /// A host with this folder.
    fn host(&self, flow: &Flow) -> HostBuilder {
        let host = Host::builder().no_plugins().plugin_folder_from_environment().flow(flow);
        host.argument("--plugins").argument(self.plugins())
    }

    /// A host that looks at the folder when it is told to.
    pub(super) fn deaf_host(&self, flow: &Flow) -> HostBuilder {
        self.host(flow).argument("--no-watch")
    }
}

/// Has the host look at its plugin folder, and returns what it says of its plugins afterwards.
pub(super) fn reload(host: &Host) -> Value {
    let reply = host.post("/plugins/reload");
    assert_eq!(reply.status, 200, "{reply:?}\n{}", host.logs());
    reply.json()
}

/// What the host says of one plugin.
fn listed(plugins: &Value, name: &str) -> Value {
    let named = |plugin: &&Value| plugin["name"].as_str().is_some_and(|full| full.ends_with(name));
    plugins["plugins"].as_array().unwrap().iter().find(named).unwrap_or(&Value::Null).clone()
}

/// Puts a build in place, has the host look, and checks that it is the one that runs now.
fn swap(bay: &Bay, host: &Host, name: &str, version: &str) {
    bay.put(name, &library(name, version), Way::Renamed);
    let plugins = reload(host);
    let plugin = listed(&plugins, name);
    assert_eq!((&plugin["version"], &plugin["refused"]), (&json!(version), &Value::Null), "{}", host.logs());
}

/// Has the host run this flow from now on.
fn edit(host: &Host, flow: &Flow) {
    std::fs::write(host.folder().join("flows.json"), flow.to_json()).unwrap();
}

// ---- What a process has

/// How many generations of each plugin are mapped, by the name of its file.
pub(super) fn mapped(host: &Host) -> BTreeMap<String, usize> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", host.pid())).unwrap();
    let mut files: Vec<&str> = maps
        .lines()
        .filter(|line| line.contains("flowbay-plugins-"))
        .filter_map(|line| line.split_whitespace().nth(5)?.rsplit('/').next())
        .collect();
    files.sort_unstable();
    files.dedup();
    let mut counts = BTreeMap::new();
    for file in files {
        // generation-hash-name
        let name = file.splitn(3, '-').nth(2).unwrap_or(file);
        *counts.entry(name.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// Waits until one generation of each plugin is mapped.
pub(super) fn wait_for_one_generation(host: &Host) {
    host.eventually("one generation of each plugin is mapped", || {
        mapped(host).values().all(|count| *count == 1).then_some(())
    });
}

pub(super) fn count_in(host: &Host, folder: &str) -> usize {
    std::fs::read_dir(format!("/proc/{}/{folder}", host.pid())).unwrap().count()
}

fn resident_kb(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

// ---- Flows

/// A flow with a junction between the way in and the way out.
fn through_a_junction() -> Flow {
    Flow::new().junction("j", "out").io("j")
}

/// A flow through a node of `swap-faults`.
fn through_keeps(properties: Value) -> Flow {
    Flow::new().node("k", "keeps", "out", properties).io("k")
}

fn assert_works(io: &mut Client) {
    io.send_json(&json!({"payload": "works"}));
    assert_eq!(io.recv_json()["payload"], "works");
}

/// Sends a message through a `keeps` node; its count and the build that counted.
fn count(io: &mut Client) -> (i64, String) {
    io.send_json(&json!({}));
    counted(io)
}

fn counted(io: &mut Client) -> (i64, String) {
    let msg = io.recv_json();
    (msg["count"].as_i64().unwrap(), msg["build"].as_str().unwrap().to_owned())
}

// ---- How newer code comes

#[test]
fn newer_code_is_noticed_whichever_way_it_comes() {
    let bay = Bay::with(&[]);
    let host = bay.host(&through_a_junction()).start();
    let mut io = host.io();
    for (number, way) in Way::ALL.into_iter().enumerate() {
        let (from, to) = if number % 2 == 0 { ("0.1.0", NEWER) } else { (NEWER, "0.1.0") };
        bay.put("core", &library("core", to), way);
        host.wait_log(&format!("core {from} → {to} (generation {})*old code unloaded", number + 2));
        assert_works(&mut io);
    }
    assert_eq!(host.count_log("→"), Way::ALL.len(), "each came once\n{}", host.logs());
    wait_for_one_generation(&host);
}

#[test]
fn newer_code_is_noticed_in_a_folder_that_is_named_from_the_working_directory() {
    let host = Host::builder().plugin_folder_from_environment().flow(&through_a_junction());
    let host = host.argument("--plugins").argument("plugins").start();
    let file = host.plugin_folder().join("libflowbay_core.so");
    install(&library("core", NEWER), &file, host.folder(), Way::CargosLink);
    host.wait_log("core 0.1.0 → 0.1.1 (generation 2)");
    assert_works(&mut host.io());
}

#[test]
fn without_the_watch_newer_code_comes_when_it_is_asked_for() {
    let bay = Bay::with(&[]);
    let host = bay.deaf_host(&through_a_junction()).start();
    let mut io = host.io();
    bay.put("core", &library("core", NEWER), Way::CargosLink);
    // Nothing is to happen, which takes a while to see.
    assert!(
        eventually_within(Duration::from_millis(700), || (host.count_log("→") > 0).then_some(())).is_none()
    );
    assert_eq!(listed(&reload(&host), "core")["version"], NEWER);
    host.wait_log("core 0.1.0 → 0.1.1 (generation 2): 1 nodes, 0 connections moved in");

    bay.put("core", &library("core", "0.1.0"), Way::CargosLink);
    host.signal(Signal::HUP);
    host.wait_log("core 0.1.1 → 0.1.0 (generation 3)");
    assert_works(&mut io);

    // Nothing new: nothing happens.
    reload(&host);
    assert_eq!(host.count_log("→"), 2, "{}", host.logs());
}

#[test]
fn two_plugins_that_change_at_once_are_both_swapped() {
    let bay = Bay::with(&["swap-faults"]);
    let host = bay.host(&through_keeps(json!({})).junction("j", "")).start();
    let mut io = host.io();
    assert_eq!(count(&mut io), (1, "good".into()));
    bay.put("core", &library("core", NEWER), Way::CargosLink);
    bay.put("swap-faults", &faults("slow-in-restore"), Way::CargosLink);
    host.wait_log("core 0.1.0 → 0.1.1 (generation 2)");
    host.wait_log("swap-faults 0.1.0-good* → 0.1.0-slow-in-restore* (generation 2)");
    assert_eq!(count(&mut io), (2, "slow-in-restore".into()));
    wait_for_one_generation(&host);
}

#[test]
fn changes_that_come_during_a_swap_are_folded_into_the_next() {
    let bay = Bay::with(&["swap-faults"]);
    let mut flow = through_keeps(json!({}));
    for number in 0..5 {
        flow = flow.node(&format!("k{number}"), "keeps", "", json!({}));
    }
    let host = bay.host(&flow.junction("j", "")).start();
    // Six nodes to restore: two seconds.
    bay.put("swap-faults", &faults("slow-in-restore"), Way::Renamed);
    for number in 0..8 {
        bay.put("core", &rebuilt(&library("core", "0.1.0"), number), Way::Renamed);
        // Long enough for each to count as a change of its own.
        eventually_within(Duration::from_millis(220), || None::<()>);
    }
    bay.put("core", &library("core", NEWER), Way::Renamed);
    host.wait_log("core*→ 0.1.1 (generation");
    host.wait_log("swap-faults*(generation 2)");
    let swaps = host.count_log("flowbay-core*→");
    assert!(swaps < 7, "{swaps} swaps\n{}", host.logs());
    assert_works(&mut host.io());
}

#[test]
fn a_new_plugin_file_starts_the_flows_that_waited_for_its_types() {
    let bay = Bay::with(&[]);
    let host = bay.host(&through_keeps(json!({}))).start_without_flows();
    host.wait_log("- keeps");
    bay.put("swap-faults", &faults("good"), Way::CargosLink);
    host.wait_log("started flows");
    assert_eq!(count(&mut host.io()), (1, "good".into()));
}

#[test]
fn nodes_of_a_dropped_type_go_missing_and_come_back_with_it() {
    let bay = Bay::with(&["swap-faults"]);
    let flow = through_keeps(json!({}))
        .node("o", "optional-1", "mark", json!({}))
        .config("other", "websocket-listener", json!({"path": "/other", "wholemsg": "true"}))
        .node("other-in", "websocket in", "o", json!({"server": "other"}))
        .node("other-out", "websocket out", "", json!({"server": "other"}))
        .set("mark", "other-out", "optional", "true", "bool");
    let host = bay.deaf_host(&flow).start();
    let (mut io, mut other) = (host.io(), host.connect("/other"));
    other.send_json(&json!({}));
    assert_eq!(other.recv_json()["optional"], true);
    assert_eq!(count(&mut io), (1, "good".into()));

    bay.put("swap-faults", &patched(&faults("good"), "optional-1", "optional-2"), Way::Renamed);
    let types = listed(&reload(&host), "swap-faults")["types"].clone();
    assert_eq!(types, json!(["keeps", "optional-2"]));
    host.wait_log("swap-faults*(generation 2)*1 nodes lost their type");
    // The rest runs; what is sent to the missing node vanishes.
    other.send_json(&json!({}));
    assert_eq!(count(&mut io), (2, "good".into()));

    bay.put("swap-faults", &faults("forgets"), Way::Renamed);
    reload(&host);
    other.send_json(&json!({"which": "after"}));
    let msg = other.recv_json();
    assert_eq!((&msg["optional"], &msg["which"]), (&json!(true), &json!("after")), "{}", host.logs());
    assert_eq!(count(&mut io), (3, "forgets".into()));
}

#[test]
fn a_removed_file_changes_nothing_and_the_log_says_so() {
    let bay = Bay::with(&[]);
    let host = bay.host(&through_a_junction()).start();
    let mut io = host.io();
    std::fs::remove_file(bay.file("core")).unwrap();
    host.wait_log("libflowbay_core.so is gone*core stays in use");
    assert_works(&mut io);
    // It comes back as something newer.
    bay.put("core", &library("core", NEWER), Way::Renamed);
    host.wait_log("core 0.1.0 → 0.1.1 (generation 2)");
    assert_works(&mut io);
}

// ---- Bad builds

/// Builds that must not come into use, and what is said of them.
fn bad_builds() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = library("core", NEWER);
    let fixture = |name: &str| library(name, "").to_vec();
    vec![
        ("an empty file", Vec::new(), "empty"),
        ("a text file", b"Not a library.\n".to_vec(), "not a shared library"),
        ("a half of one", whole[..whole.len() / 2].to_vec(), "incomplete"),
        ("nearly all of one", whole[..whole.len() - 1].to_vec(), "incomplete"),
        ("another library", fixture("not-a-plugin"), "not a Flowbay plugin"),
        ("an older ABI", fixture("old-abi"), "ABI 0.9.0"),
        ("a newer ABI", fixture("new-abi"), "ABI 2.0.0"),
        ("another layout", fixture("wrong-layout"), "their types differ"),
        ("an exit on load", fixture("exits-on-load"), "ended the process"),
        ("a panic on load", fixture("panics-on-load"), "panic"),
        ("a panic in its description", fixture("panics-in-describe"), "describe"),
        ("a hang on load", fixture("hangs-on-load"), "had not finished loading"),
        ("aborts", fixture("aborts-panics"), "panic = \"abort\""),
    ]
}

#[test]
fn a_bad_build_leaves_the_old_code_at_work_and_its_reason_is_told() {
    let bay = Bay::with(&["swap-faults"]);
    let flow = echoes().node("k", "keeps", "out", json!({})).io("k");
    let host = bay.deaf_host(&flow).setting("probe_deadline_ms", 1_000).start();
    let mut io = host.io();
    let load = load(&host, 10, 0);
    let mut messages = 0;
    for (what, bytes, says) in bad_builds() {
        bay.put("core", &bytes, Way::CopiedOver);
        let plugins = reload(&host);
        let core = listed(&plugins, "core");
        assert_eq!(core["version"], "0.1.0", "{what}: {plugins}");
        let reason = core["refused"].as_str().unwrap_or_else(|| panic!("{what}: {plugins}"));
        assert!(reason.contains(says) && reason.contains("libflowbay_core.so"), "{what}: {reason}");
        host.wait_log(says);
        messages += 1;
        assert_eq!(count(&mut io), (messages, "good".into()), "{what}");
    }
    assert_eq!(mapped(&host).len(), 3, "{:?}", mapped(&host));
    wait_for_one_generation(&host);
    // A good one is taken after all of them, and then nothing is refused any more.
    swap(&bay, &host, "core", NEWER);
    assert_eq!(reload(&host)["refused"], json!([]));
    assert_perfect(load.stop(), &host);
}

#[test]
fn a_build_that_cannot_take_over_from_a_node_is_undone_with_nothing_lost() {
    let bay = Bay::with(&["swap-faults"]);
    // More than one node, so that some are restored before one fails; a flow that is never quiet.
    let flow =
        Flow::new().node("k", "keeps", "k2", json!({})).node("k2", "keeps", "out", json!({"ms": 1})).io("k");
    let host = bay.deaf_host(&flow).setting("call_deadline_ms", 300).start();
    let mut io = host.io();
    let mut expected = 0;
    for (build, says) in [
        ("fails-in-restore", "this build cannot restore"),
        ("panics-in-restore", "this build panics while it restores"),
        ("hangs-in-restore", "300 ms"),
    ] {
        for _ in 0..200 {
            io.queue_text("{}");
        }
        io.send_text("{}");
        bay.put("swap-faults", &faults(build), Way::Renamed);
        let plugins = reload(&host);
        let plugin = listed(&plugins, "swap-faults");
        assert!(plugin["version"].as_str().unwrap().starts_with("0.1.0-good-"), "{build}: {plugins}");
        assert!(plugin["refused"].as_str().is_some_and(|text| text.contains(says)), "{build}: {plugins}");
        host.wait_log(&format!("swap-faults*{build}*the old code goes on*{says}"));
        for _ in 0..=200 {
            expected += 1;
            assert_eq!(counted(&mut io), (expected, "good".into()), "{build}\n{}", host.logs());
        }
    }
    // One that hung is let go when it is back.
    wait_for_one_generation(&host);
    bay.put("swap-faults", &faults("slow-in-restore"), Way::Renamed);
    let _ = reload(&host);
    // Two nodes, a third of a second each, which is more than a call may take here.
    assert_eq!(count(&mut io).0, expected + 1);
}

#[test]
fn a_node_that_cannot_be_saved_keeps_its_code() {
    for (build, says) in
        [("fails-in-save", "this build cannot save"), ("panics-in-save", "panics while it saves")]
    {
        let bay = Bay::with(&[]);
        bay.put("swap-faults", &faults(build), Way::CopiedOver);
        let host = bay.deaf_host(&through_keeps(json!({}))).start();
        let mut io = host.io();
        assert_eq!(count(&mut io), (1, build.into()));
        bay.put("swap-faults", &faults("good"), Way::Renamed);
        let refused = listed(&reload(&host), "swap-faults")["refused"].clone();
        assert!(refused.as_str().is_some_and(|text| text.contains(says)), "{refused}\n{}", host.logs());
        assert_eq!(count(&mut io), (2, build.into()));
    }
}

// ---- What nodes keep

#[test]
fn a_node_goes_on_with_what_it_saved() {
    let bay = Bay::with(&["swap-faults"]);
    let host = bay.deaf_host(&through_keeps(json!({}))).start();
    let mut io = host.io();
    for (number, build) in ["good", "slow-in-restore", "good", "slow-in-restore"].into_iter().enumerate() {
        bay.put("swap-faults", &faults(build), Way::Renamed);
        reload(&host);
        assert_eq!(count(&mut io), (number as i64 + 1, build.into()), "{}", host.logs());
    }
}

#[test]
fn a_node_that_saves_nothing_is_stopped_and_started_and_no_message_is_lost() {
    let bay = Bay::with(&[]);
    bay.put("swap-faults", &faults("forgets"), Way::CopiedOver);
    let host = bay.deaf_host(&through_keeps(json!({"ms": 2}))).start();
    let mut io = host.io();
    for _ in 0..100 {
        io.queue_text("{}");
    }
    io.send_text("{}");
    bay.put("swap-faults", &faults("good"), Way::Renamed);
    reload(&host);
    let all: Vec<(i64, String)> = (0..=100).map(|_| counted(&mut io)).collect();
    let (before, after): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, build)| build == "forgets");
    let counts = |of: &[(i64, String)]| of.iter().map(|(count, _)| *count).collect::<Vec<_>>();
    assert_eq!(counts(&before), (1..=before.len() as i64).collect::<Vec<_>>());
    assert_eq!(counts(&after), (1..=after.len() as i64).collect::<Vec<_>>(), "counted anew");
}

#[test]
fn an_inject_node_keeps_its_schedule() {
    const INTERVAL: Duration = Duration::from_millis(1_000);
    let bay = Bay::with(&[]);
    let inject = |once: bool, repeat: &str, topic: &str| json!({"props": [{"p": "topic", "vt": "str"}], "topic": topic, "once": once, "onceDelay": "0.1", "repeat": repeat});
    let flow = Flow::new()
        .node("often", "inject", "out", inject(false, "1", "often"))
        .node("once", "inject", "out", inject(true, "", "once"))
        .junction("j", "out")
        .io("j");
    let host = bay.deaf_host(&flow).start();
    let mut io = host.io();
    let mut once = 0;
    let mut last: Option<Instant> = None;
    let mut version = NEWER;
    for _ in 0..4 {
        loop {
            let msg = io.recv_json();
            if msg["topic"] == "often" {
                break;
            }
            once += 1;
        }
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            let gap = now.duration_since(last);
            // Begun anew, the interval would have been half as long again.
            assert!(gap < INTERVAL * 14 / 10, "{gap:?}\n{}", host.logs());
            assert!(gap > INTERVAL * 6 / 10, "{gap:?}\n{}", host.logs());
        }
        eventually_within(INTERVAL / 2, || None::<()>);
        swap(&bay, &host, "core", version);
        version = if version == NEWER { "0.1.0" } else { NEWER };
    }
    assert!(once <= 1, "injected {once} times what is injected once");
}

#[test]
fn a_link_call_that_waits_over_a_swap_returns_exactly_once() {
    let bay = Bay::with(&["swap-faults"]);
    let flow = Flow::new()
        .node("call", "link call", "out", json!({"links": ["enter"], "linkType": "static", "timeout": "20"}))
        .node("enter", "link in", "k", json!({"links": []}))
        .node("k", "keeps", "leave", json!({"ms": 150}))
        .node("leave", "link out", "", json!({"mode": "return", "links": []}))
        .io("call");
    let host = bay.deaf_host(&flow).start();
    let mut io = host.io();
    const CALLS: i64 = 8;
    for number in 0..CALLS {
        io.send_json(&json!({"number": number}));
    }
    for version in [NEWER, "0.1.0", NEWER] {
        swap(&bay, &host, "core", version);
    }
    for number in 0..CALLS {
        assert_eq!(io.recv_json()["number"], number, "{}", host.logs());
    }
    // Nothing comes twice: the next answer is the next call's.
    io.send_json(&json!({"number": "next"}));
    assert_eq!(io.recv_json()["number"], "next");
    assert_eq!(host.count_log("ERROR"), 0, "{}", host.logs());
    assert_eq!(host.count_log("WARN"), 0, "{}", host.logs());
    wait_for_one_generation(&host);
}

#[test]
fn a_message_in_hand_is_finished_by_the_code_that_began_it() {
    let bay = Bay::with(&["swap-faults"]);
    let host = bay.deaf_host(&through_keeps(json!({"ms": 2_000}))).start();
    let mut io = host.io();
    io.send_text("{}");
    // Until it is in hand.
    eventually_within(Duration::from_millis(100), || None::<()>);
    io.send_text("{}");
    bay.put("swap-faults", &faults("slow-in-restore"), Way::Renamed);
    reload(&host);
    assert_eq!(counted(&mut io), (1, "good".into()));
    assert_eq!(counted(&mut io), (2, "slow-in-restore".into()));
    wait_for_one_generation(&host);
}

#[test]
fn a_node_that_does_not_finish_keeps_the_old_code_in_memory_and_is_reported() {
    let bay = Bay::with(&["bad-node"]);
    let flow = Flow::new()
        .node("stuck", "never-completes", "", json!({}))
        .node("count", "counter", "out", json!({}))
        .io("stuck, count");
    let host = bay.deaf_host(&flow).setting("swap_deadline_ms", 300).start();
    let mut io = host.io();
    io.send_json(&json!({}));
    assert_eq!(io.recv_json()["count"], 1);
    bay.put("bad-node", &rebuilt(&library("bad-node", ""), 1), Way::Renamed);
    let plugins = reload(&host);
    host.wait_log("bad-node 0.1.0 → 0.1.0 (generation 2)*old code still in use");
    assert_eq!(plugins["generations"], 4, "{plugins}");
    assert_eq!(mapped(&host)["libbad_node.so"], 2);
    // The rest goes on in the new code.
    io.send_json(&json!({}));
    assert_eq!(io.recv_json()["count"], 2);
    assert_eq!(host.stop().code, Some(0));
}

// ---- Connections

/// Two listeners that send back what they get, through a node of the core plugin, and tell all of their clients the
/// time in numbers.
fn echoes() -> Flow {
    Flow::new()
        .config("echo", "websocket-listener", json!({"path": "/echo", "wholemsg": "false"}))
        .node("echo-in", "websocket in", "echo-j", json!({"server": "echo"}))
        .junction("echo-j", "echo-out")
        .node("echo-out", "websocket out", "", json!({"server": "echo"}))
        .config("whole", "websocket-listener", json!({"path": "/whole", "wholemsg": "true"}))
        .node("whole-in", "websocket in", "whole-j", json!({"server": "whole"}))
        .junction("whole-j", "whole-out")
        .node("whole-out", "websocket out", "", json!({"server": "whole"}))
        .node(
            "clock",
            "inject",
            "number",
            json!({"props": [{"p": "topic", "vt": "str"}], "topic": "tick", "repeat": "0.03"}),
        )
        .node("number", "keeps", "told", json!({}))
        .change(
            "told",
            "echo-out, whole-out",
            json!([{"t": "set", "p": "payload", "pt": "msg", "to": "count", "tot": "msg"}]),
        )
}

/// A load on [`echoes`].
fn load(host: &Host, connections: usize, come_and_go: usize) -> Load {
    let paths = [("/echo", Mode::Payload), ("/whole", Mode::Whole), ("/echo", Mode::Payload)];
    let mut plan = Plan::clients(host.address(), &paths, connections);
    plan.come_and_go = come_and_go;
    begin(plan, host)
}

fn begin(plan: Plan, host: &Host) -> Load {
    let connections = plan.connections;
    let load = Load::start(plan).unwrap();
    host.eventually("all connections are open", || (load.open() == connections).then_some(()));
    load
}

/// Waits until so many more echoes have come.
fn wait_for_echoes(load: &Load, host: &Host, more: u64) {
    let enough = load.echoed() + more;
    host.eventually("echoes come", || (load.echoed() >= enough).then_some(()));
}

fn assert_perfect(tally: Tally, host: &Host) {
    assert!(tally.is_perfect(), "{tally}\n{}", host.logs());
    assert!(tally.echoed > 0, "{tally}");
}

/// Swaps plugins to and fro while echoes come, and checks that every line of the log says that all connections moved.
fn swap_under(load: &Load, bay: &Bay, host: &Host, names: &[&str], swaps: usize) {
    for number in 0..swaps {
        let version = if number % 2 == 0 { NEWER } else { "0.1.0" };
        for name in names {
            swap(bay, host, name, version);
        }
        load.swapped();
        wait_for_echoes(load, host, 30);
    }
}

#[test]
fn clients_of_a_listener_notice_nothing_of_twenty_swaps() {
    let bay = Bay::with(&["swap-faults"]);
    let host = bay.deaf_host(&echoes()).start();
    let load = load(&host, 40, 4);
    swap_under(&load, &bay, &host, &["websocket"], 20);
    host.wait_log("websocket*(generation 21)*old code unloaded");
    assert_eq!(host.count_log("stay with the old code"), 0, "{}", host.logs());
    wait_for_one_generation(&host);
    let tally = load.stop();
    assert!(tally.ticks > 0 && tally.stalls > 0 && tally.closes > 0 && tally.pings > 0, "{tally}");
    assert_perfect(tally, &host);
    assert_eq!(host.stop().code, Some(0));
}

#[test]
fn both_plugins_swap_under_load() {
    let bay = Bay::with(&["swap-faults"]);
    let host = bay.deaf_host(&echoes()).start();
    let load = load(&host, 20, 2);
    for number in 0..6 {
        let version = if number % 2 == 0 { NEWER } else { "0.1.0" };
        let build = if number % 2 == 0 { "slow-in-restore" } else { "good" };
        bay.put("core", &library("core", version), Way::Renamed);
        bay.put("websocket", &library("websocket", version), Way::Renamed);
        bay.put("swap-faults", &faults(build), Way::Renamed);
        let plugins = reload(&host);
        for name in ["core", "websocket"] {
            assert_eq!(listed(&plugins, name)["version"], version, "{}", host.logs());
        }
        load.swapped();
        wait_for_echoes(&load, &host, 30);
    }
    wait_for_one_generation(&host);
    assert_perfect(load.stop(), &host);
}

#[test]
fn connections_that_wait_for_a_slow_flow_move_too() {
    let bay = Bay::with(&["swap-faults"]);
    let flow = Flow::new()
        .config("echo", "websocket-listener", json!({"path": "/echo", "wholemsg": "false"}))
        .node("in", "websocket in", "slow", json!({"server": "echo"}))
        .node("slow", "keeps", "out", json!({"ms": 1}))
        .node("out", "websocket out", "", json!({"server": "echo"}));
    let host = bay.deaf_host(&flow).setting("mailbox_mark", 10).start();
    let mut plan = Plan::clients(host.address(), &[("/echo", Mode::Payload)], 10);
    plan.sizes = (16, 1_000);
    plan.in_flight = 100;
    plan.pause = Duration::ZERO;
    let load = begin(plan, &host);
    for number in 0..8 {
        let name = if number % 2 == 0 { "websocket" } else { "core" };
        swap(&bay, &host, name, if number % 4 < 2 { NEWER } else { "0.1.0" });
        bay.put(
            "swap-faults",
            &faults(if number % 2 == 0 { "slow-in-restore" } else { "good" }),
            Way::Renamed,
        );
        reload(&host);
        load.swapped();
        wait_for_echoes(&load, &host, 100);
    }
    assert_eq!(host.count_log("stay with the old code"), 0, "{}", host.logs());
    wait_for_one_generation(&host);
    assert_perfect(load.stop(), &host);
}

/// A flow with so many clients of a server that send back what they get.
fn clients_of(url: &str, count: usize) -> Flow {
    let mut flow = Flow::new();
    for number in 0..count {
        let client = format!("client{number}");
        flow = flow
            .config(&client, "websocket-client", json!({"path": url, "wholemsg": "false"}))
            .node(
                &format!("in{number}"),
                "websocket in",
                &format!("forget{number}"),
                json!({"client": client}),
            )
            .forget(&format!("forget{number}"), &format!("out{number}"))
            .node(&format!("out{number}"), "websocket out", "", json!({"client": client}));
    }
    flow
}

#[test]
fn a_server_notices_nothing_of_swaps_of_its_clients() {
    let bay = Bay::with(&[]);
    let plan = Plan::server(20, None);
    let load = Load::start(plan).unwrap();
    let flow = clients_of(&format!("ws://{}/", load.address()), 20);
    let host = bay.deaf_host(&flow).start();
    host.eventually("all connections are open", || (load.open() == 20).then_some(()));
    swap_under(&load, &bay, &host, &["websocket"], 10);
    wait_for_one_generation(&host);
    let tally = load.stop();
    assert_eq!(tally.handshakes, 20, "nobody connected twice: {tally}");
    assert_perfect(tally, &host);
}

#[test]
fn a_server_with_tls_notices_nothing_of_swaps_of_its_clients() {
    let bay = Bay::with(&[]);
    let load = Load::start(Plan::server(10, Some(tls::server_config()))).unwrap();
    let flow = clients_of(&format!("wss://localhost:{}/", load.address().port()), 10);
    let host = bay.deaf_host(&flow).variable("SSL_CERT_FILE", test_root_file(bay.folder.path())).start();
    host.eventually("all connections are open", || (load.open() == 10).then_some(()));
    swap_under(&load, &bay, &host, &["websocket"], 6);
    wait_for_one_generation(&host);
    let tally = load.stop();
    assert_eq!(tally.handshakes, 10, "nobody connected twice: {tally}");
    assert_perfect(tally, &host);
}

#[test]
fn a_connection_keeps_its_session_and_nobody_is_told_of_a_new_one() {
    let bay = Bay::with(&[]);
    let sid = json!([{"t": "set", "p": "sid", "pt": "msg", "to": "_session.id", "tot": "msg"}]);
    let flow = Flow::new()
        .config("io", "websocket-listener", json!({"path": "/io", "wholemsg": "true"}))
        .node("in", "websocket in", "sid", json!({"server": "io"}))
        .change("sid", "out", sid)
        .node("out", "websocket out", "", json!({"server": "io"}))
        .node("hears", "status", "told", json!({"scope": ["in"]}))
        .debug("told", "status.event");
    let host = bay.deaf_host(&flow).start();
    let mut io = host.io();
    let mut session = || {
        io.send_json(&json!({}));
        io.recv_json()["sid"].as_str().unwrap().to_owned()
    };
    let before = session();
    for version in [NEWER, "0.1.0"] {
        swap(&bay, &host, "websocket", version);
        assert_eq!(session(), before, "{}", host.logs());
    }
    host.wait_log("websocket 0.1.0 → 0.1.1 (generation 2): 3 nodes, 1 connections moved in");
    // A second client is the next event.
    let _second = host.io();
    host.eventually("two events", || (host.count_stdout("[debug:told]") >= 2).then_some(()));
    assert_eq!(host.count_stdout("[debug:told]"), 2, "{}", host.logs());
}

#[test]
fn a_connection_keeps_its_subprotocol_and_its_heartbeat() {
    let bay = Bay::with(&[]);
    let server = WsServer::bind();
    let flow = Flow::new()
        .config(
            "c",
            "websocket-client",
            json!({"path": server.url("/"), "wholemsg": "false", "hb": "3", "subprotocol": "a, b"}),
        )
        .node("in", "websocket in", "forget", json!({"client": "c"}))
        .forget("forget", "out")
        .node("out", "websocket out", "", json!({"client": "c"}));
    let host = bay.deaf_host(&flow).start();
    let mut peer = server.accept();
    assert_eq!(peer.socket.protocol(), Some("a"));
    for version in [NEWER, "0.1.0", NEWER] {
        swap(&bay, &host, "websocket", version);
        peer.socket.send_text("still there");
        let (mut pings, mut echoes) = (0, 0);
        while pings == 0 || echoes == 0 {
            match peer.socket.recv_or_ping() {
                Frame::Ping(_) => pings += 1,
                Frame::Text(text) if text == "still there" => echoes += 1,
                other => panic!("{other:?}\n{}", host.logs()),
            }
            assert!(pings < 5, "no echo\n{}", host.logs());
        }
    }
    assert!(server.try_accept_tcp().is_none(), "it connected again");
}

#[test]
fn clients_that_come_and_go_are_answered_all_through_the_swaps() {
    let bay = Bay::with(&["swap-faults"]);
    let host = bay.deaf_host(&echoes()).start();
    let load = load(&host, 2, 12);
    swap_under(&load, &bay, &host, &["websocket"], 8);
    let tally = load.stop();
    assert!(tally.closes > 20, "{tally}");
    assert_perfect(tally, &host);
}

#[test]
fn a_connection_that_is_closing_ends_in_the_old_code_with_its_close_frame() {
    let bay = Bay::with(&[]);
    let host = bay.deaf_host(&through_a_junction()).start();
    let mut others = host.io();
    // One breaks the protocol, one says that it goes; neither reads the answer before the swap is over.
    let mut broken = RawPeer::websocket(host.address(), "/io");
    broken.write_frame(true, 3, b"no such opcode");
    let mut going = RawPeer::websocket(host.address(), "/io");
    going.write_frame(true, 8, &1000_u16.to_be_bytes());
    swap(&bay, &host, "websocket", NEWER);
    assert_eq!(broken.read_close_code(), Some(1002));
    assert_eq!(going.read_close_code(), Some(1000));
    assert_works(&mut others);
    drop((broken, going));
    wait_for_one_generation(&host);
}

// ---- What is left behind

#[test]
fn twenty_swaps_leave_no_threads_files_or_memory_behind() {
    let bay = Bay::with(&["bad-node", "swap-faults"]);
    // Thread-local values with destructors on the host's threads, and connections.
    let flow = echoes().node("tls", "uses-tls", "out", json!({})).io("tls");
    let host = bay.deaf_host(&flow).start();
    let mut io = host.io();
    let load = load(&host, 6, 0);
    let mut look = |swaps: std::ops::Range<u64>| {
        for number in swaps {
            bay.put("bad-node", &rebuilt(&library("bad-node", ""), number), Way::Renamed);
            swap(&bay, &host, "websocket", if number % 2 == 0 { NEWER } else { "0.1.0" });
            load.swapped();
            for _ in 0..20 {
                assert_works(&mut io);
            }
        }
        wait_for_one_generation(&host);
        (count_in(&host, "task"), count_in(&host, "fd"), resident_kb(&host))
    };
    let (threads, files, memory) = look(0..10);
    let (threads_later, files_later, memory_later) = look(10..20);
    assert!(threads_later <= threads, "{threads} threads became {threads_later}");
    assert!(files_later <= files, "{files} open files became {files_later}");
    // A generation that stayed would be some megabytes for each swap.
    assert!(memory_later < memory + 8_000, "{memory} KB became {memory_later}");
    assert_perfect(load.stop(), &host);
    assert_eq!(host.stop().code, Some(0));
}

// ---- At odd moments

#[test]
fn newer_code_that_comes_while_the_host_starts_is_taken_over() {
    for delay_ms in [0, 30, 60, 150, 400] {
        let bay = Bay::with(&["bad-node"]);
        let flow = Flow::new()
            .node("slow1", "slow-constructor", "", json!({"ms": "300"}))
            .node("slow2", "slow-constructor", "", json!({"ms": "300"}))
            .junction("j", "out")
            .io("j");
        let host = std::thread::scope(|scope| {
            scope.spawn(|| {
                eventually_within(Duration::from_millis(delay_ms), || None::<()>);
                bay.put("core", &library("core", NEWER), Way::CargosLink);
            });
            bay.host(&flow).start()
        });
        host.eventually("the newer code is in use", || {
            (listed(&host.get("/plugins").json(), "core")["version"] == NEWER).then_some(())
        });
        assert_works(&mut host.io());
        wait_for_one_generation(&host);
    }
}

#[test]
fn a_host_that_stops_during_a_swap_ends_well() {
    for delay_ms in [0, 100, 220, 260, 320, 400] {
        let bay = Bay::with(&["swap-faults"]);
        let host = bay.host(&echoes()).start();
        let load = load(&host, 6, 0);
        bay.put("websocket", &library("websocket", NEWER), Way::Renamed);
        bay.put("swap-faults", &faults("slow-in-restore"), Way::Renamed);
        eventually_within(Duration::from_millis(delay_ms), || None::<()>);
        let finished = host.stop();
        assert_eq!(finished.code, Some(0), "after {delay_ms} ms: {}", finished.stderr);
        assert!(!finished.stderr.contains("panic"), "after {delay_ms} ms: {}", finished.stderr);
        assert!(finished.stderr.contains("stopped flows"), "{}", finished.stderr);
        drop(load);
    }
}

#[test]
fn a_swap_and_a_deploy_that_takes_its_nodes_away_do_not_disturb_each_other() {
    let bay = Bay::with(&["swap-faults"]);
    let small = through_a_junction();
    let large = through_a_junction().node("k", "keeps", "", json!({"ms": 50})).node(
        "feeds",
        "inject",
        "k",
        json!({"repeat": "0.02"}),
    );
    let host = bay.host(&large).start();
    let mut io = host.io();
    for (number, flow) in [&small, &large, &small, &large].into_iter().enumerate() {
        let build = if number % 2 == 0 { "slow-in-restore" } else { "good" };
        bay.put("swap-faults", &faults(build), Way::Renamed);
        edit(&host, flow);
        host.wait_log(&format!("swap-faults*(generation {})", number + 2));
        host.eventually("the edited flows have started", || {
            (host.count_log("started flows") >= number + 2).then_some(())
        });
        assert_works(&mut io);
    }
    wait_for_one_generation(&host);
    assert_eq!(host.stop().code, Some(0));
}

#[test]
fn what_nodes_are_sent_before_they_have_begun_is_passed_on_in_order() {
    // Nodes begin one after the other, and the first of these has sent everything before the second begins. (It does
    // not begin before the whole flow can: that keeps a successor in a swap from acting beside its predecessor.)
    const COUNT: usize = 20_000;
    let flow = Flow::new()
        .node("burst", "blind-burst", "passes", json!({"count": COUNT}))
        .node("passes", "passes", "collector", json!({}))
        .node("collector", "collector", "", json!({}));
    let host = Host::builder().plugin("bad-node").flow(&flow).start();
    let collected = || host.get("/collector/collector").json();
    host.eventually("everything has come", || {
        (collected().as_array().is_some_and(|all| all.len() >= COUNT)).then_some(())
    });
    assert_eq!(collected(), json!((0..COUNT).collect::<Vec<_>>()));
}

// ---- The flow file

#[test]
fn an_edited_flow_file_is_applied_as_a_difference() {
    let flow = |value: &str, second: bool| {
        let flow = Flow::new().set("set", "out", "value", value, "str").io("set");
        match second {
            true => flow
                .config("second", "websocket-listener", json!({"path": "/second", "wholemsg": "true"}))
                .node("second-in", "websocket in", "", json!({"server": "second"})),
            false => flow,
        }
    };
    let host = Host::run(&flow("before", true));
    let (mut io, mut second) = (host.io(), host.connect("/second"));
    io.send_json(&json!({}));
    assert_eq!(io.recv_json()["value"], "before");

    // One node changed: it is another one, and every connection is as it was.
    edit(&host, &flow("after", true));
    host.eventually("the flows have started again", || (host.count_log("started flows") == 2).then_some(()));
    io.send_json(&json!({}));
    assert_eq!(io.recv_json()["value"], "after");
    assert!(second.recv_within(Duration::from_millis(200)).is_none(), "nothing happened to it");

    // A listener less: its clients go, the others stay.
    edit(&host, &flow("after", false));
    assert!(matches!(second.recv(), Frame::Close(_) | Frame::Lost));
    io.send_json(&json!({}));
    assert_eq!(io.recv_json()["value"], "after");
    assert_eq!(host.connect_refused("/second"), 404);
}

#[test]
fn a_broken_flow_file_changes_nothing_and_the_log_says_why() {
    let host = Host::run(&through_a_junction());
    let mut io = host.io();
    for (text, says) in [("[{", "flows.json"), ("", "flows.json"), ("42", "flows.json")] {
        let before = host.count_log("the flows stay as they are");
        std::fs::write(host.folder().join("flows.json"), text).unwrap();
        host.eventually("the log says that the file is broken", || {
            (host.count_log(&format!("the flows stay as they are*{says}")) > before).then_some(())
        });
        assert_works(&mut io);
    }
    assert_eq!(host.count_log("started flows"), 1, "{}", host.logs());
    // Put right, it is noticed again.
    edit(&host, &Flow::new().set("j", "out", "new", "true", "bool").io("j"));
    host.eventually("the flows have started again", || (host.count_log("started flows") == 2).then_some(()));
    io.send_json(&json!({}));
    assert_eq!(io.recv_json()["new"], true);
}
