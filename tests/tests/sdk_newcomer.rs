//! The path of somebody who writes a first plugin: from `flowbay new` to newer code in a flow that runs. And plugins of
//! one's own beside those that come with the host.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flowbay_tests::harness::{
    Finished, Flow, Host, HostBuilder, Way, flowbay, flows_folder, host_copy, install, link, plugin, rebuilt,
    scratch_folder,
};
use serde_json::json;

/// A host as it is installed: the binary, and the shipped plugins in the folder beside it.
struct Installed {
    folder: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let folder = scratch_folder();
        std::fs::hard_link(host_copy(), folder.path().join("flowbay")).unwrap();
        std::fs::create_dir(folder.path().join("plugins")).unwrap();
        for name in ["core", "websocket"] {
            link(&plugin(name), &folder.path().join("plugins"));
        }
        Self { folder }
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("flowbay")
    }

    fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    /// To be run in a folder of its own, in which `plugins` is the folder given.
    fn host(&self) -> HostBuilder {
        Host::builder().program(&self.program()).no_plugins().variable("FLOWBAY_SHIPPED_PLUGINS", "true")
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let output =
            Command::new(self.program()).args(arguments).env_remove("FLOWBAY_PLUGINS").output().unwrap();
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

// ---- From nothing to a node in a flow, and on

/// A crate that `flowbay new` wrote. What cargo builds of it is kept between runs of the tests, so there is one at a time.
struct Author {
    folder: tempfile::TempDir,
    _only: MutexGuard<'static, ()>,
}

impl Author {
    fn new() -> Self {
        static ONLY: Mutex<()> = Mutex::new(());
        // One that failed leaves nothing behind that matters.
        let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = scratch_folder();
        let sdk = std::fs::canonicalize(flows_folder().join("../sdk")).unwrap();
        let written = flowbay(folder.path(), &["new", "my-nodes", "--sdk", sdk.to_str().unwrap()]);
        assert_eq!(written.code, Some(0), "{written:?}");
        for step in ["cd my-nodes", "cargo test", "cargo build --release", "--plugins target/release"] {
            assert!(written.stdout.contains(step), "{written:?}");
        }
        // The versions that are on this machine already.
        std::fs::copy(sdk.join("../Cargo.lock"), folder.path().join("my-nodes/Cargo.lock")).unwrap();
        Self { folder, _only: only }
    }

    fn crate_folder(&self) -> PathBuf {
        self.folder.path().join("my-nodes")
    }

    /// Where cargo builds.
    fn target(&self) -> PathBuf {
        // The folder is target/tmp/tests-<process>/test-<random>.
        self.folder.path().ancestors().nth(3).unwrap().join("newcomer")
    }

    /// Runs cargo as the author would, without a network, and returns what it said. `host` is the one on the `PATH`.
    fn cargo(&self, arguments: &str, host: Option<&Path>) -> String {
        let mut arguments: Vec<&str> = arguments.split(' ').collect();
        if arguments[0] != "fmt" {
            arguments.insert(1, "--offline");
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::split_paths(&path).filter(|folder| !folder.join("flowbay").exists());
        let path = host.into_iter().filter_map(|host| Some(host.parent()?.to_owned())).chain(path);
        let mut command = Command::new(env!("CARGO"));
        command.args(&arguments).current_dir(self.crate_folder()).stdin(Stdio::null());
        command.env("CARGO_TARGET_DIR", self.target()).env_remove("FLOWBAY_BIN");
        let output = command.env("PATH", std::env::join_paths(path).unwrap()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "cargo {arguments:?}:\n{said}");
        said
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let file = self.crate_folder().join(file);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(file, text.replace(from, to)).unwrap();
    }
}

/// The whole way in one test: its steps build on one another, and cargo makes each thing once.
#[test]
fn a_new_plugin_is_tested_built_run_edited_and_swapped_in() {
    let author = Author::new();
    let installed = Installed::new();
    author.cargo("fmt --check", None);
    let said = author.cargo("test -- --nocapture", None);
    assert!(said.contains("3 passed") && said.contains("skipped: there is no host"), "{said}");
    let said = author.cargo("test -- --nocapture", Some(&installed.program()));
    assert!(said.contains("1 passed") && !said.contains("skipped"), "{said}");
    assert!(!said.contains("warning"), "{said}");

    author.cargo("build", None);
    let flow = std::fs::read_to_string(author.crate_folder().join("flow.json")).unwrap();
    let host = installed.host().plugin_folder_from_environment().flow_text(flow);
    let host = host.argument("--plugins").argument(author.target().join("debug")).start();
    assert_eq!(host.wait_debug("result").1, "\"hello from my-nodes\"");

    author.edit("src/lib.rs", "text.to_lowercase()", "format!(\"{}!\", text.to_lowercase())");
    author.cargo("build", None);
    host.wait_log("my-nodes 0.1.0 → 0.1.0 (generation 2): 1 nodes*old code unloaded");
    host.wait_stdout("\"hello from my-nodes!\"");
    assert_eq!(host.count_log("WARN"), 0, "{}", host.log());
    assert_eq!(host.stop().code, Some(0));
}

#[test]
fn a_test_in_the_real_host_fails_with_what_the_host_wrote() {
    let author = Author::new();
    let installed = Installed::new();
    author.edit("flow.json", "\"lower-case\"", "\"upper-case\"");
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--offline", "--test", "flow"]).current_dir(author.crate_folder());
    command.env("CARGO_TARGET_DIR", author.target()).env("FLOWBAY_BIN", installed.program());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{said}");
    for part in ["not there: a host whose nodes have begun", "- upper-case", "plugin my-nodes 0.1.0"] {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

#[test]
fn new_neither_overwrites_nor_takes_a_name_that_is_none() {
    let folder = scratch_folder();
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/notes"), "mine").unwrap();
    for (arguments, says) in [
        (&["new", "mine"][..], "mine is there already and not empty"),
        (&["new", "7up"], "`7up` is no name for a crate"),
        (&["new", "fn"], "`fn` is no name for a crate"),
        (&["new", "a b"], "`a b` is no name for a crate"),
        (&["new", "fine", "--sdk", "."], ". is no folder of the crate flowbay-sdk"),
    ] {
        let finished = flowbay(folder.path(), arguments);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        assert!(finished.stderr.contains(says), "{finished:?}");
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"]);
}

// ---- Plugins of one's own, and those that come with the host

fn through_passes() -> Flow {
    Flow::new().io("mine").node("mine", "passes", "out", json!({}))
}

fn assert_works(host: &Host) {
    let mut io = host.io();
    io.send_json(&json!({"payload": "works"}));
    assert_eq!(io.recv_json()["payload"], "works");
}

#[test]
fn plugins_of_ones_own_come_in_addition_to_the_shipped_ones() {
    let installed = Installed::new();
    let host = installed.host().plugin("bad-node").flow(&through_passes()).start();
    host.wait_log("plugin flowbay-core");
    assert_works(&host);
    assert_eq!(host.count_log("WARN"), 0, "{}", host.log());

    let own = host.plugin_folder();
    let own = own.to_str().unwrap();
    let all = installed.run(&["plugins", "--plugins", own]).stdout;
    assert!(all.contains("flowbay-core") && all.contains("bad-node"), "{all}");
    for alone in ["--no-shipped-plugins", "--shipped-plugins=false"] {
        let listed = installed.run(&["plugins", "--plugins", own, alone]).stdout;
        assert!(!listed.contains("flowbay-core") && listed.contains("bad-node"), "{listed}");
    }
}

#[test]
fn the_folder_of_the_shipped_plugins_may_be_given_too() {
    let installed = Installed::new();
    // By another name of the same folder.
    let roundabout = installed.folder.path().join("plugins/../plugins");
    let listed = installed.run(&["plugins", "--plugins", roundabout.to_str().unwrap()]);
    assert_eq!(listed.stdout.matches("flowbay-core").count(), 1, "{listed:?}");
    assert!(!listed.stdout.contains("not used") && !listed.stdout.contains("refused"), "{listed:?}");
}

#[test]
fn a_plugin_of_the_same_name_wins_over_the_shipped_one_and_one_line_says_so() {
    let installed = Installed::new();
    let folder = scratch_folder();
    let newer = folder.path().join("libflowbay_core.so");
    std::fs::write(&newer, rebuilt(&std::fs::read(plugin("core")).unwrap(), 1)).unwrap();
    let host = installed.host().plugin_file(&newer).flow(&Flow::new().junction("j", "out").io("j")).start();
    let shipped = installed.plugins().join("libflowbay_core.so");
    let own = host.plugin_folder().join("libflowbay_core.so");
    host.wait_log("plugin flowbay-core is used from*, not from");
    assert_eq!(host.post("/plugins/reload").status, 200);
    assert_eq!(host.count_log("not from"), 1, "{}", host.log());
    assert_eq!(host.count_log("WARN"), 0, "{}", host.log());
    let plugins = host.get("/plugins").json();
    assert_eq!(plugins["overridden"], json!([{"file": shipped, "by": own}]));
    assert_eq!(plugins["refused"], json!([]));
    assert_works(&host);

    let listed = installed.run(&["plugins", "--plugins", host.plugin_folder().to_str().unwrap()]);
    assert!(listed.stdout.contains(&format!("not used: {}", shipped.display())), "{listed:?}");
}

#[test]
fn a_plugin_with_a_shipped_node_type_is_refused_and_the_shipped_one_stays() {
    let installed = Installed::new();
    let flow = Flow::new().junction("j", "out").io("j");
    let host = installed.host().plugin("taken-type").flow(&flow).start();
    host.wait_log("taken-type refused: its node type debug*flowbay-core");
    assert_works(&host);
}

#[test]
fn while_the_host_runs_ones_own_plugin_takes_over_from_the_shipped_one_and_keeps_the_place() {
    let installed = Installed::new();
    let host = installed.host().flow(&Flow::new().junction("j", "out").io("j")).start();
    let bytes = std::fs::read(plugin("core")).unwrap();
    let shipped = installed.plugins().join("libflowbay_core.so");
    let own = host.plugin_folder().join("libflowbay_core.so");
    install(&rebuilt(&bytes, 1), &own, host.folder(), Way::Renamed);
    host.wait_log("flowbay-core 0.1.0 → 0.1.0 (generation 2)");
    host.wait_log("plugin flowbay-core is used from*, not from");
    // The shipped ones are watched too.
    install(
        &rebuilt(&bytes, 2),
        &installed.plugins().join("libflowbay_core.so"),
        host.folder(),
        Way::Renamed,
    );
    link(&plugin("bad-node"), &installed.plugins());
    host.wait_log("plugin bad-node");
    let plugins = host.get("/plugins").json();
    assert_eq!(plugins["overridden"], json!([{"file": shipped, "by": own}]), "{}", host.logs());
    assert_eq!(host.count_log("→"), 1, "{}", host.log());
    assert_works(&host);
}

#[test]
fn a_folder_that_is_made_when_the_host_runs_is_noticed() {
    let installed = Installed::new();
    let host = installed.host().plugin_folder_from_environment().flow(&through_passes());
    let host = host.argument("--plugins").argument("target/release").start_without_flows();
    host.wait_log("target/release does not exist yet");
    let folder = host.folder().join("target/release");
    std::fs::create_dir_all(&folder).unwrap();
    link(&plugin("bad-node"), &folder);
    host.wait_log("started flows");
    assert_works(&host);
}
