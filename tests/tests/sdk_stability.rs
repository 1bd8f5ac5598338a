//! What the boundary promises: panics stay where they are, older and newer plugins are loaded or refused readably, and
//! any file can be explained.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flowbay_tests::harness::{
    Client, Finished, Flow, Host, NEWER, OLDER, Way, built, flowbay, flows_folder, install, link,
    newer_minor, older_minor, plugin, rebuilt, scratch_folder,
};
use serde_json::{Value, json};

// ---- Panics, in every callback of a node

/// A flow with a way through it, without the node that panics.
fn sound() -> Flow {
    Flow::new()
        .io("out")
        .node("press", "inject", "culprit", json!({"props": []}))
        .node("press-direct", "inject", "caller", json!({"props": []}))
        .node("caller", "delivers", "", json!({"to": "culprit"}))
}

/// The same with the node `culprit`, which panics at `place`.
fn flow(place: &str) -> Flow {
    sound().node("culprit", "panics", "", json!({"at": place}))
}

/// Runs the flow, does what leads to the panic, and checks that it is said under the node's id, that the rest of the
/// flow goes on, and that the host stops in order.
fn check(place: &str, lead: impl FnOnce(&Host)) {
    // A node that has not closed after so long is left behind.
    let host =
        Host::builder().plugin("panics-anywhere").setting("node_close_timeout_ms", 300).flow(&flow(place));
    let host = host.argument("-v").start();
    let mut io = host.io();
    let mut works = || {
        io.send_json(&json!({"payload": place}));
        assert_eq!(io.recv_json()["payload"], place);
    };
    works();
    lead(&host);
    let line = host.wait_log(&format!("culprit*panics at {place}"));
    assert!([" ERROR ", " WARN "].iter().any(|level| line.contains(level)), "{line}");
    assert!(line.contains("panics_anywhere/src/lib.rs:"), "{line}");
    works();
    let finished = host.stop();
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

fn nothing(_: &Host) {}

/// Takes the node out of the flow.
fn remove(host: &Host) {
    std::fs::write(host.folder().join("flows.json"), sound().to_json()).unwrap();
}

/// Has newer code take over.
fn swap(host: &Host) {
    let library = plugin("panics-anywhere");
    let newer = rebuilt(&std::fs::read(&library).unwrap(), 1);
    let file = host.plugin_folder().join(library.file_name().unwrap());
    install(&newer, &file, scratch_folder().path(), Way::Renamed);
    assert_eq!(host.post("/plugins/reload").status, 200);
}

/// Waits until the node answers requests, which its `run` brings about, and returns the status.
fn ask(host: &Host, path: &str) -> u16 {
    host.eventually("the node's route", || Some(host.get(path).status).filter(|status| *status != 404))
}

fn connect(host: &Host) -> Client {
    host.eventually("the node's path", || Client::connect_with(host.address(), "/panics-too", &[]).ok())
}

#[test]
fn a_panic_in_a_constructor_is_reported() {
    check("constructor", nothing);
}

#[test]
fn a_panic_in_the_drop_of_a_configuration_is_reported() {
    check("config", nothing);
}

#[test]
fn a_panic_in_a_constructor_that_restores_is_reported_and_the_old_code_goes_on() {
    check("restore", |host| {
        swap(host);
        assert!(host.wait_log("panics at restore").contains("the old code goes on"));
    });
}

#[test]
fn a_panic_in_save_is_reported_and_the_old_code_goes_on() {
    check("save", |host| {
        swap(host);
        assert!(host.wait_log("panics at save").contains("the old code goes on"));
    });
}

#[test]
fn a_panic_at_the_begin_of_run_is_reported() {
    check("start", nothing);
}

#[test]
fn a_panic_in_run_is_reported() {
    check("run", nothing);
}

#[test]
fn a_panic_in_a_spawned_task_is_reported() {
    check("task", nothing);
}

#[test]
fn a_panic_after_a_timer_is_reported() {
    check("timer", nothing);
}

#[test]
fn a_panic_in_the_drop_of_a_task_is_reported() {
    check("task-drop", |host| {
        assert_eq!(ask(host, "/panics"), 200);
        remove(host);
    });
}

#[test]
fn a_panic_over_a_message_is_reported() {
    check("input", |host| host.inject("press"));
}

#[test]
fn a_panic_over_a_message_that_took_time_is_reported() {
    check("later", |host| host.inject("press"));
}

#[test]
fn a_panic_over_a_message_that_was_delivered_is_reported() {
    check("direct", |host| host.inject("press-direct"));
}

#[test]
fn a_panic_in_the_drop_of_a_message_in_hand_is_reported() {
    check("input-drop", |host| {
        host.inject("press");
        host.wait_log("culprit * holds a message");
        remove(host);
    });
}

#[test]
fn a_panic_over_an_upgrade_is_reported_and_refuses_it() {
    check("upgrade", |host| {
        let status = host.eventually("a refusal", || {
            let refusal = Client::connect_with(host.address(), "/panics-too", &[]).err()?;
            Some(refusal.status).filter(|status| *status != 404)
        });
        assert_eq!(status, 500);
    });
}

#[test]
fn a_panic_over_a_request_is_reported_and_not_told_to_the_client() {
    for place in ["request", "request-later"] {
        check(place, |host| {
            assert_eq!(ask(host, "/panics"), 500);
            let reply = host.get("/panics");
            assert!(!reply.body.contains("panic"), "{reply:?}");
        });
    }
}

#[test]
fn a_panic_in_the_drop_of_a_request_is_reported() {
    check("request-drop", |host| {
        let address = host.address();
        let client = std::thread::spawn(move || {
            flowbay_tests::harness::eventually("the node's route", || {
                let reply = flowbay_tests::harness::request(address, "GET", "/panics", &[], "");
                (reply.status != 404).then_some(())
            });
        });
        host.wait_log("culprit * holds a request");
        remove(host);
        client.join().unwrap();
    });
}

#[test]
fn a_panic_over_a_connection_is_reported_and_closes_it() {
    check("connection", |host| drop(connect(host)));
}

#[test]
fn a_panic_over_a_lost_connection_is_reported() {
    check("lost", |host| {
        drop(connect(host));
        host.wait_log("culprit * panics at lost, again");
    });
}

#[test]
fn a_panic_in_the_drop_of_a_connection_is_reported() {
    check("connection-drop", |host| {
        let _client = connect(host);
        host.wait_log("culprit * holds a connection");
        remove(host);
        host.wait_log("culprit * panics at connection-drop");
    });
}

#[test]
fn a_panic_in_close_is_reported() {
    for place in ["close", "close-later"] {
        check(place, remove);
    }
}

#[test]
fn a_panic_in_the_drop_of_a_node_is_reported() {
    check("drop", remove);
}

// ---- Other minors of the ABI

fn through_minor() -> Flow {
    Flow::new().io("minor").node("minor", "minor", "out", json!({}))
}

fn ask_minor(io: &mut Client) -> Value {
    io.send_json(&json!({"payload": "x"}));
    io.recv_json()
}

#[test]
fn a_plugin_of_an_older_minor_with_shorter_tables_works() {
    let host = Host::builder().plugin_file(&older_minor()).flow(&through_minor()).start();
    let answer = ask_minor(&mut host.io());
    assert_eq!((&answer["abi"], &answer["count"]), (&json!(OLDER), &json!(1)), "{}", host.logs());
    assert_eq!(host.count_log("WARN"), 0, "{}", host.logs());
    assert_eq!(host.stop().code, Some(0));
}

#[test]
fn a_plugin_of_a_newer_minor_with_longer_tables_works_without_what_the_host_has_not() {
    let host = Host::builder().plugin_file(&newer_minor()).flow(&through_minor()).start();
    let answer = ask_minor(&mut host.io());
    assert_eq!((&answer["abi"], &answer["future"]), (&json!(NEWER), &json!("not there")), "{}", host.logs());
    assert_eq!(host.count_log("WARN"), 0, "{}", host.logs());
    assert_eq!(host.stop().code, Some(0));
}

#[test]
fn a_newer_minor_takes_over_from_an_older_one_and_back() {
    let host =
        Host::builder().argument("--no-watch").plugin_file(&older_minor()).flow(&through_minor()).start();
    let mut io = host.io();
    let mut count = 0;
    for (library, abi) in [(older_minor(), OLDER), (newer_minor(), NEWER), (older_minor(), OLDER)] {
        let file = host.plugin_folder().join(library.file_name().unwrap());
        install(&std::fs::read(&library).unwrap(), &file, scratch_folder().path(), Way::Renamed);
        assert_eq!(host.post("/plugins/reload").status, 200);
        count += 1;
        let answer = ask_minor(&mut io);
        assert_eq!((&answer["abi"], &answer["count"]), (&json!(abi), &json!(count)), "{}", host.logs());
    }
    assert_eq!(host.count_log("old code unloaded"), 2, "{}", host.logs());
}

// ---- Any file explained

/// What `flowbay plugins FILE` says of a file, and its exit code.
fn explained(file: &Path, options: &[&str]) -> (String, Option<i32>) {
    let folder = scratch_folder();
    let arguments = [&["plugins", file.to_str().unwrap()], options].concat();
    let Finished { code, stdout, stderr } = flowbay(folder.path(), &arguments);
    // A plugin that stays in memory is reported when it should leave, if the process lives so long.
    let strays = stderr.lines().find(|line| !line.contains("stays in memory"));
    assert_eq!(strays, None, "{stdout}");
    assert!(stdout.starts_with(&format!("{}\n  is ", file.display())), "{stdout}");
    (stdout, code)
}

fn check_explained(file: &Path, says: &[&str], loads: bool) {
    let (text, code) = explained(file, &[]);
    for part in says {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let answer = if loads { "  loads   yes" } else { "  loads   no" };
    assert!(text.lines().any(|line| line.starts_with(answer)), "{text}");
    assert_eq!(code, Some(if loads { 0 } else { 1 }), "{text}");
}

#[test]
fn a_plugin_is_explained_with_what_it_has_and_was_built_with() {
    check_explained(
        &plugin("core"),
        &[
            "the Flowbay plugin flowbay-core 0.1.0",
            "inject, debug",
            "with flowbay-sdk 0.1.0 for ABI 1.",
            "rustc 1.",
        ],
        true,
    );
    check_explained(&older_minor(), &[&format!("for ABI {OLDER}")], true);
    check_explained(&newer_minor(), &[&format!("for ABI {NEWER}")], true);
    check_explained(&plugin("without-tls-hook"), &["stays in memory"], true);
}

#[test]
fn a_file_that_is_no_plugin_is_explained() {
    let folder = scratch_folder();
    let file = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file
    };
    let whole = std::fs::read(plugin("core")).unwrap();
    let mut foreign = whole.clone();
    // The number of the machine in the file's header.
    foreign[18..20].copy_from_slice(&if cfg!(target_arch = "aarch64") { [62, 0] } else { [183, 0] });
    let other = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
    let rows: [(&Path, &[&str]); 11] = [
        (&file("libempty.so", b""), &["an empty file", "is empty"]),
        (&file("libtext.so", b"hello"), &["a text of 5 bytes", "not a shared library"]),
        (&file("flow.json", b"[]"), &["JSON"]),
        (&file("liba.rlib", b"!<arch>\nxyz"), &["rlib", "crate-type = [\"cdylib\"]"]),
        (&file("a.dll", b"MZ\x90\0"), &["Windows", "build the plugin for this host"]),
        (&file("libcut.so", &whole[..whole.len() / 2]), &["incomplete", "copy or build it again"]),
        (
            &file("libforeign.so", &foreign),
            &[other, "another kind of processor", "build the plugin for this host"],
        ),
        (&plugin("not-a-plugin"), &["made by rustc", "does not export", "without export_plugin!"]),
        (&built("flowbay_sdk_macros"), &["a procedural macro", "in silence"]),
        (&folder.path().join("none.so"), &["nothing that can be read", "No such file"]),
        (folder.path(), &["a folder", "--plugins DIR"]),
    ];
    for (file, says) in rows {
        check_explained(file, says, false);
    }
}

#[test]
fn a_plugin_that_would_be_refused_is_explained() {
    check_explained(&plugin("old-abi"), &["ABI 0.9.0", "to do   build the plugin with a flowbay-sdk"], false);
    check_explained(&plugin("new-abi"), &["ABI 2.0.0", "to do   build the plugin with a flowbay-sdk"], false);
    check_explained(
        &plugin("wrong-layout"),
        &["their types differ", "to do   build the plugin with the released"],
        false,
    );
    check_explained(&plugin("panics-on-load"), &["no root today", "to do   a fault of the plugin"], false);
    check_explained(&plugin("aborts-panics"), &["panic = \"unwind\""], false);
    check_explained(&plugin("exits-on-load"), &["ended the process that tried", "to do   a fault of"], false);
    check_explained(&plugin("hangs-on-load"), &["had not finished loading", "to do   a fault of"], false);
}

#[test]
fn a_plugin_whose_type_or_name_is_taken_is_explained() {
    let folder = scratch_folder();
    link(&plugin("core"), folder.path());
    let options = ["--plugins", folder.path().to_str().unwrap()];
    let (text, code) = explained(&plugin("taken-type"), &options);
    assert!(text.contains("its node type debug is already provided by plugin flowbay-core"), "{text}");
    assert!(text.contains("rename the type") && code == Some(1), "{text}");

    let copy = scratch_folder();
    let copy = copy.path().join("libother.so");
    std::fs::copy(plugin("core"), &copy).unwrap();
    let (text, code) = explained(&copy, &options);
    assert!(text.contains("has a plugin of this name") && code == Some(0), "{text}");
}

#[test]
fn of_several_files_one_that_would_not_load_decides_the_exit_code() {
    let folder = scratch_folder();
    let (good, bad) = (plugin("core"), plugin("not-a-plugin"));
    let files = [good.to_str().unwrap(), bad.to_str().unwrap()];
    let finished = flowbay(folder.path(), &["plugins", files[0], files[1]]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(files.iter().all(|file| finished.stdout.contains(file)), "{finished:?}");
    let finished = flowbay(folder.path(), &["plugins", files[0], "--url", "http://localhost:1"]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
}

// ---- Outsiders

/// Has cargo do something with the plugin in `tests/outside`, where nothing is inherited from this workspace. What it
/// builds is in the folder that is returned, and kept.
fn outside(command: &str) -> PathBuf {
    let tests = std::fs::canonicalize(flows_folder().join("../tests")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for file in ["Cargo.lock", "src/lib.rs", "tests/host.rs"] {
        let copy = folder.path().join(file);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(tests.join("outside").join(file), copy).unwrap();
    }
    let manifest = std::fs::read_to_string(tests.join("outside/Cargo.toml")).unwrap();
    let sdk = tests.join("../sdk").display().to_string();
    std::fs::write(folder.path().join("Cargo.toml"), manifest.replace("../../sdk", &sdk)).unwrap();
    // target/debug/flowbay
    let host = built("flowbay");
    let target = host.ancestors().nth(2).unwrap().join("outside/built");
    let output = Command::new(env!("CARGO"))
        .args([command, "--offline"])
        .env("CARGO_TARGET_DIR", &target)
        .env("FLOWBAY_BIN", &host)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    target
}

#[test]
fn a_crate_of_somebody_elses_with_nothing_but_the_sdk_compiles_and_runs() {
    let library = outside("build").join("debug").join("liboutside.so");
    let flow = Flow::new().io("letters").node("letters", "letters", "out", json!({"property": "payload"}));
    let host = Host::builder().plugin_file(&library).flow(&flow).start();
    let mut io = host.io();
    io.send_json(&json!({"payload": "a, b"}));
    assert_eq!(io.recv_json()["letters"], 2);
    assert_eq!(host.count_log("WARN"), 0, "{}", host.log());
    // Its own tests run it in the host by what the SDK has for that.
    outside("test");
}

#[test]
fn the_shipped_plugins_use_nothing_that_an_outsider_cannot() {
    let root = flows_folder().join("..");
    for plugin in ["plugins/core", "plugins/websocket", "tests/outside"] {
        let manifest = std::fs::read_to_string(root.join(plugin).join("Cargo.toml")).unwrap();
        let ours: Vec<&str> = manifest
            .lines()
            .filter(|line| line.starts_with("flowbay") || line.starts_with("abi_stable"))
            .map(|line| line.split([' ', '.']).next().unwrap())
            .collect();
        assert_eq!(ours, ["flowbay-sdk"], "{plugin}");
        let mut files = vec![root.join(plugin).join("src")];
        let mut forbids = false;
        while let Some(file) = files.pop() {
            if file.is_dir() {
                files.extend(std::fs::read_dir(file).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            for hidden in ["__private", "flowbay_abi", "abi_stable"] {
                assert!(!text.contains(hidden), "{hidden} in {}", file.display());
            }
            forbids |= text.contains("#![forbid(unsafe_code)]");
        }
        assert!(forbids, "{plugin} may have unsafe code");
    }
}
