//! The command line: commands, exit codes, settings, signals.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use flowbay_tests::harness::{
    Client, Finished, Flow, Host, RawPeer, built, eventually, flowbay, free_port, host_copy, link, plugin,
    request, scratch_folder,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn echo() -> Flow {
    Flow::new()
        .config("listener", "websocket-listener", json!({"path": "/ws"}))
        .node("in", "websocket in", "out", json!({"server": "listener"}))
        .node("out", "websocket out", "", json!({"server": "listener"}))
}

/// A folder with `flows.json` in it and an empty folder `plugins`.
fn folder_with(flows: &str) -> tempfile::TempDir {
    let folder = scratch_folder();
    std::fs::write(folder.path().join("flows.json"), flows).unwrap();
    std::fs::create_dir(folder.path().join("plugins")).unwrap();
    folder
}

fn add_plugins(folder: &Path) {
    for name in ["core", "websocket"] {
        link(&plugin(name), &folder.join("plugins"));
    }
}

/// Checks that the command failed with one line and no more, and returns the line.
fn one_line(finished: &Finished) -> &str {
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(finished.stdout, "", "{finished:?}");
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(lines.len(), 1, "{finished:?}");
    lines[0]
}

// ---- run

#[test]
fn run_says_where_it_listens_what_it_loaded_and_that_the_flow_started() {
    let host = Host::run(&echo());
    host.wait_log(&format!("listening on http://{}", host.address()));
    host.wait_log("flowbay-core*inject*debug*change");
    host.wait_log("flowbay-websocket*websocket in*websocket out*websocket-listener*websocket-client");
    host.wait_log("started flows");
    assert_eq!(host.stdout(), "", "standard output is for what flows print");
}

#[test]
fn run_without_a_flow_file_is_one_clear_line() {
    let folder = folder_with("[]");
    let finished = flowbay(folder.path(), &["run", "missing.json", "-p", "0", "--plugins", "plugins"]);
    assert!(one_line(&finished).contains("missing.json"), "{finished:?}");
}

#[test]
fn run_with_what_is_no_flow_file_is_one_clear_line() {
    for (text, says) in [
        ("", "empty"),
        ("this is not JSON", "not JSON"),
        ("[{\"id\": \"a\",]", "line 1"),
        ("{\"flows\": []}", "array"),
        ("42", "array"),
        (&"[".repeat(100_000), "not JSON"),
    ] {
        let folder = folder_with(text);
        let finished = flowbay(folder.path(), &["run", "flows.json", "-p", "0", "--plugins", "plugins"]);
        let line = one_line(&finished);
        assert!(line.contains("flows.json") && line.contains(says), "{line}");
    }
}

#[test]
fn run_on_a_port_that_is_taken_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = folder_with("[]");
    let finished = flowbay(folder.path(), &["run", "flows.json", "-p", &port, "--plugins", "plugins"]);
    let line = one_line(&finished);
    assert!(line.contains(&port) && line.contains("in use"), "{line}");
}

#[test]
fn run_listens_on_loopback_unless_told_otherwise() {
    let host = Host::run(&echo());
    assert!(host.address().ip().is_loopback());
    let host = Host::builder().flow(&echo()).setting("host", "0.0.0.0").start();
    assert!(host.address().ip().is_unspecified(), "{}", host.log());
}

#[test]
fn ctrl_c_and_sigterm_close_the_clients_and_exit_with_0() {
    for signal in [Signal::INT, Signal::TERM] {
        let host = Host::run(&echo());
        let mut client = host.connect("/ws");
        client.send_text("here");
        assert_eq!(client.recv_text(), "here");
        let begin = Instant::now();
        host.signal(signal);
        assert_eq!(client.recv_close(), 1001);
        let finished = host.wait_exit();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
    }
}

#[test]
fn a_signal_right_after_the_start_stops_the_host_in_order_too() {
    for signal in [Signal::INT, Signal::TERM, Signal::INT, Signal::TERM] {
        let host = Host::builder().flow(&echo()).start_without_flows();
        host.signal(signal);
        assert_eq!(host.wait_exit().code, Some(0));
    }
}

/// The log of a host, line by line.
type Log = std::io::Lines<BufReader<ChildStderr>>;

/// Starts the binary with these arguments and the folder `plugins`, and does not wait for anything.
fn spawn(folder: &Path, arguments: &[&str]) -> (Child, Log) {
    let mut child = Command::new(host_copy())
        .current_dir(folder)
        .args(arguments)
        .args(["--plugins", "plugins", "--no-shipped-plugins"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap()).lines();
    (child, log)
}

/// Reads the log until it says where the host listens.
fn address_in(log: &mut Log) -> SocketAddr {
    let listening = log.find_map(|line| Some(line.unwrap().split_once("listening on http://")?.1.to_owned()));
    listening.expect("it listens").parse().unwrap()
}

#[test]
fn a_hangup_while_the_host_starts_does_not_end_it() {
    let folder = folder_with(&echo().to_json());
    add_plugins(folder.path());
    // Loaded last, which takes as long as it may.
    link(&plugin("hangs-on-load"), &folder.path().join("plugins"));
    let (mut child, mut log) = spawn(folder.path(), &["run", "flows.json", "-p", "0"]);
    assert!(log.any(|line| line.unwrap().contains("plugin flowbay-websocket")));
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let address = address_in(&mut log);
    let mut client = Client::connect(address, "/ws");
    client.send_text("here");
    assert_eq!(client.recv_text(), "here");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(eventually("the end", || child.try_wait().unwrap()).code(), Some(0));
}

#[test]
fn a_host_whose_log_nobody_reads_any_more_goes_on() {
    let folder = folder_with(&echo().to_json());
    add_plugins(folder.path());
    let (mut child, mut log) = spawn(folder.path(), &["run", "flows.json", "-p", "0"]);
    let address = address_in(&mut log);
    drop((log, child.stdout.take()));
    // Each a line of the log.
    assert_eq!(request(address, "POST", "/plugins/reload", &["Origin: http://evil.example"], "").status, 403);
    assert_eq!(Client::connect_with(address, "/nobody", &[]).map(drop).unwrap_err().status, 404);
    let mut garbage = RawPeer::connect(address);
    garbage.write(b"\r\n\0garbage\r\n\r\n");
    assert!(garbage.read_to_end().starts_with(b"HTTP/1.1 400 "));
    let mut client = Client::connect(address, "/ws");
    client.send_text("still here");
    assert_eq!(client.recv_text(), "still here");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(eventually("the end", || child.try_wait().unwrap()).code(), Some(0));
}

#[test]
fn a_command_whose_output_nobody_reads_ends_without_a_word() {
    let folder = folder_with("[]");
    add_plugins(folder.path());
    for arguments in [vec!["plugins"], vec!["check", "flows.json"]] {
        let (mut child, log) = spawn(folder.path(), &arguments);
        // Long before it has loaded its plugins.
        drop(child.stdout.take());
        let log: Vec<String> = log.map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success(), "{log:?}");
        assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
    }
}

#[test]
fn a_second_start_on_the_same_port_works_as_soon_as_the_first_has_ended() {
    let port = free_port();
    for _ in 0..2 {
        let host = Host::builder().flow(&echo()).setting("port", port).start();
        let mut client = host.connect("/ws");
        client.send_text("x");
        assert_eq!(client.recv_text(), "x");
        assert_eq!(host.stop().code, Some(0));
    }
}

#[test]
fn log_lines_can_be_json_and_more_or_less() {
    let host = Host::builder().flow(&echo()).setting("log_format", "json").start();
    let log = host.log();
    for line in log.lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert!(record["level"].is_string() && record["timestamp"].is_string(), "{line}");
    }

    let usual = Host::run(&echo());
    assert_eq!(usual.count_log("DEBUG"), 0, "{}", usual.log());
    let verbose = Host::builder().flow(&echo()).argument("-v").start();
    verbose.connect("/ws");
    verbose.wait_log("DEBUG");
}

// ---- Settings

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_settings_file() {
    let ports = [free_port(), free_port(), free_port()];
    let file = format!("port = {}", ports[2]);
    let from_file = Host::builder().flow(&echo()).settings_file(&file);
    let from_environment = from_file.clone().variable("FLOWBAY_PORT", ports[1].to_string());
    let from_command_line = from_environment.clone().setting("port", ports[0]);
    for (builder, port) in
        [(from_command_line, ports[0]), (from_environment, ports[1]), (from_file, ports[2])]
    {
        assert_eq!(builder.start().address().port(), port);
    }
}

#[test]
fn settings_that_make_no_sense_are_one_clear_line() {
    for (toml, says) in [
        ("prot = 1", "prot"),
        ("port = \"many\"", "flowbay.toml line 1"),
        ("port =", "flowbay.toml line 1"),
        ("drain_budget = 0", "drain_budget must be from 1"),
    ] {
        let folder = folder_with("[]");
        std::fs::write(folder.path().join("flowbay.toml"), toml).unwrap();
        let finished = flowbay(folder.path(), &["run", "flows.json", "-p", "0", "--plugins", "plugins"]);
        let line = one_line(&finished);
        assert!(line.contains("flowbay.toml") && line.contains(says), "{toml}: {line}");
    }
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let folder = folder_with("[]");
    let finished = flowbay(folder.path(), &["run", "flows.json", "--prot", "1"]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("--prot"), "{finished:?}");
}

// ---- plugins

#[test]
fn plugins_lists_what_is_there_with_versions_and_node_types() {
    let folder = folder_with("[]");
    add_plugins(folder.path());
    std::fs::write(folder.path().join("plugins/libbroken.so"), "not a library").unwrap();
    let finished = flowbay(folder.path(), &["plugins", "--plugins", "plugins"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let row = |name: &str| {
        let row = finished.stdout.lines().find(|line| line.contains(name));
        row.unwrap_or_else(|| panic!("no line with {name}: {finished:?}"))
    };
    let core = row("flowbay-core");
    for part in ["libflowbay_core.so", env!("CARGO_PKG_VERSION"), "1.0", "inject", "link call"] {
        assert!(core.contains(part), "{part} is missing in {core}");
    }
    let head = finished.stdout.lines().next().unwrap_or_default();
    for column in ["FILE", "PLUGIN", "VERSION", "SDK", "ABI", "RUSTC", "NODE TYPES"] {
        assert!(head.contains(column), "{column} is missing in {head}");
    }
    assert!(row("flowbay-websocket").contains("websocket-listener"));
    assert!(row("libbroken.so").contains("not a shared library"));
}

#[test]
fn plugins_are_found_beside_the_executable_when_no_folder_is_named() {
    // As after `cargo build`: the libraries lie in the executable's own folder, among much else.
    let output = std::process::Command::new(built("flowbay")).arg("plugins").output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    for name in ["flowbay-core", "flowbay-websocket"] {
        assert!(stdout.contains(name), "{output:?}");
    }
    assert!(!stdout.contains("refused"), "{output:?}");
    assert!(output.status.success());
}

#[test]
fn plugin_folders_can_be_given_several_times_and_by_the_environment() {
    let folder = scratch_folder();
    for name in ["core", "websocket"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        link(&plugin(name), &folder.path().join(name));
    }
    let finished = flowbay(folder.path(), &["plugins", "--plugins", "core", "--plugins", "websocket"]);
    assert!(
        finished.stdout.contains("flowbay-core") && finished.stdout.contains("flowbay-websocket"),
        "{finished:?}"
    );

    let host = Host::builder()
        .no_plugins()
        .flow(&echo())
        .variable("FLOWBAY_PLUGINS", folder.path().join("websocket"));
    let host = host.plugin_folder_from_environment().start();
    host.wait_log("flowbay-websocket");
}

// ---- check

#[test]
fn check_accepts_a_good_file_and_starts_nothing() {
    let folder = folder_with(&echo().to_json());
    add_plugins(folder.path());
    let finished = flowbay(folder.path(), &["check", "flows.json", "--plugins", "plugins"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(!finished.stderr.contains("listening"), "{finished:?}");
}

#[test]
fn check_names_the_problems_of_a_bad_file_and_exits_with_1() {
    let with = |entry: Value| echo().entry(entry).to_json();
    for (flows, says) in [
        (with(json!({"id": "in", "type": "debug"})), vec!["debug", "in", "duplicate id"]),
        (with(json!({"id": "x", "type": "never-heard-of"})), vec!["never-heard-of"]),
        (with(json!("text")), vec!["not an object"]),
        (
            echo()
                .config("a", "websocket-listener", json!({"path": "/a", "b": "b"}))
                .config("b", "websocket-listener", json!({"path": "/b", "a": "a"}))
                .to_json(),
            vec!["websocket-listener", "circle"],
        ),
    ] {
        let folder = folder_with(&flows);
        add_plugins(folder.path());
        let finished = flowbay(folder.path(), &["check", "flows.json", "--plugins", "plugins"]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        for part in says {
            assert!(finished.stdout.contains(part), "{part} is missing in {finished:?}");
        }
    }
    let folder = folder_with("{}");
    let finished = flowbay(folder.path(), &["check", "flows.json", "--plugins", "plugins"]);
    assert!(one_line(&finished).contains("array"), "{finished:?}");
}

// ---- help

#[test]
fn help_explains_the_commands() {
    let folder = folder_with("[]");
    let finished = flowbay(folder.path(), &["--help"]);
    assert_eq!(finished.code, Some(0));
    for part in ["Usage: flowbay", "run", "plugins", "check"] {
        assert!(finished.stdout.contains(part), "{part} is missing in {}", finished.stdout);
    }
    let finished = flowbay(folder.path(), &["run", "--help"]);
    for part in ["--port", "--host", "--plugins", "--admin-token-file", "--log-format", "1880"] {
        assert!(finished.stdout.contains(part), "{part} is missing in {}", finished.stdout);
    }
    let finished = flowbay(folder.path(), &["--version"]);
    assert_eq!(finished.stdout.trim(), format!("flowbay {}", env!("CARGO_PKG_VERSION")));
}
