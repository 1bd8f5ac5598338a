//! Plugin files: which are loaded, which are refused and how, which are passed over. Real files, beside good ones.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowbay_tests::harness::{
    Flow, Host, HostBuilder, built, eventually_within, flowbay, plugin, rebuilt, scratch_folder, stage,
};
use serde_json::json;

/// A flow that needs both good plugins.
fn flow() -> Flow {
    Flow::new().junction("j", "out").io("j")
}

fn assert_works(host: &Host) {
    let mut io = host.io();
    io.send_json(&json!({"payload": "works"}));
    assert_eq!(io.recv_json()["payload"], "works");
}

/// Starts a host with `file` beside the good plugins; `file` must be refused in one line that says all of `says`,
/// and the flow must run.
fn check_refused(file: &Path, says: &[&str]) {
    check_refused_by(Host::builder(), file, says);
}

fn check_refused_by(builder: HostBuilder, file: &Path, says: &[&str]) {
    let host = builder.plugin_file(file).flow(&flow()).start();
    assert_works(&host);
    let name = file.file_name().unwrap().to_str().unwrap();
    let log = host.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(name)).collect();
    assert_eq!(lines.len(), 1, "one paragraph names {name}:\n{log}");
    for part in says {
        assert!(lines[0].contains(part), "{part:?} is missing in {}", lines[0]);
    }
    assert!(lines[0].contains("WARN"), "{}", lines[0]);
    // Nothing of the plugin's or the linker's own words stands beside it.
    let strays: Vec<&str> =
        log.lines().filter(|line| !line.contains(" INFO ") && *line != lines[0]).collect();
    assert!(strays.is_empty(), "{strays:?}");
}

/// A file of this name with these bytes.
fn file_with(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let file = folder.path().join(name);
    std::fs::write(&file, bytes).unwrap();
    file
}

// ---- Files that are no plugins

#[test]
fn an_empty_file_is_refused() {
    let folder = scratch_folder();
    check_refused(&file_with(&folder, "libempty.so", b""), &["empty"]);
}

#[test]
fn a_text_file_is_refused() {
    let folder = scratch_folder();
    check_refused(
        &file_with(&folder, "libtext.so", b"This is not a library.\n"),
        &["is not a shared library"],
    );
}

#[test]
fn a_program_is_refused() {
    let folder = scratch_folder();
    let bytes = std::fs::read(built("flowbay")).unwrap();
    // A position-independent program is a shared object with an interpreter; it has no plugin's root at least.
    check_refused(&file_with(&folder, "libprogram.so", &bytes), &["libprogram.so"]);
}

#[test]
fn a_shared_library_that_is_no_plugin_is_refused() {
    check_refused(&plugin("not-a-plugin"), &["not a Flowbay plugin"]);
}

#[test]
fn a_library_of_the_system_is_refused() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
    let folder = scratch_folder();
    let bytes = std::fs::read(library.expect("this process uses the C library")).unwrap();
    check_refused(&file_with(&folder, "libcopied.so", &bytes), &["not a Flowbay plugin"]);
}

#[test]
fn a_truncated_plugin_is_refused_wherever_it_is_cut() {
    let whole = std::fs::read(plugin("core")).unwrap();
    for percent in [1, 10, 50, 90, 99] {
        let folder = scratch_folder();
        let bytes = &whole[..whole.len() * percent / 100];
        check_refused(&file_with(&folder, &format!("libcut{percent}.so"), bytes), &["incomplete"]);
    }
}

#[test]
fn a_procedural_macro_is_passed_over_in_silence() {
    let library = built("flowbay_sdk_macros");
    let host = Host::builder().plugin_file(&library).flow(&flow()).start();
    assert_works(&host);
    let name = library.file_name().unwrap().to_str().unwrap();
    assert_eq!(host.count_log(name), 0, "{}", host.log());
    assert_eq!(host.count_log("WARN"), 0, "{}", host.log());

    let listed = flowbay(host.folder(), &["plugins", "--plugins", "plugins"]);
    assert!(!listed.stdout.contains(name), "{listed:?}");
}

#[test]
fn files_with_other_names_are_not_looked_at() {
    let folder = scratch_folder();
    let mut builder = Host::builder();
    for name in ["README.md", "libold.so.1", "flowbay.d", ".libhidden.so"] {
        builder = builder.plugin_file(&file_with(&folder, name, b"no library"));
    }
    let host = builder.flow(&flow()).start();
    assert_works(&host);
    assert_eq!(host.count_log("WARN"), 0, "{}", host.log());
}

// ---- Plugins that are broken

#[test]
fn a_plugin_of_an_older_abi_is_refused_with_both_versions() {
    check_refused(&plugin("old-abi"), &["ABI 0.9.0", "ABI 1.0", "flowbay-sdk"]);
}

#[test]
fn a_plugin_of_a_newer_abi_is_refused_with_both_versions() {
    check_refused(&plugin("new-abi"), &["ABI 2.0.0", "ABI 1.0", "flowbay-sdk"]);
}

#[test]
fn a_plugin_whose_types_are_laid_out_differently_is_refused() {
    check_refused(&plugin("wrong-layout"), &["their types differ"]);
}

#[test]
fn a_plugin_that_panics_while_it_is_loaded_is_refused() {
    check_refused(&plugin("panics-on-load"), &["panic"]);
}

#[test]
fn a_plugin_that_panics_while_it_describes_itself_is_refused() {
    check_refused(&plugin("panics-in-describe"), &["describe"]);
}

#[test]
fn a_plugin_that_exits_while_it_is_loaded_is_refused() {
    check_refused(&plugin("exits-on-load"), &["ended the process that tried to load it", "3"]);
}

#[test]
fn a_plugin_that_hangs_while_it_is_loaded_is_refused() {
    let builder = Host::builder().setting("probe_deadline_ms", 700);
    check_refused_by(builder, &plugin("hangs-on-load"), &["had not finished loading after 700 ms"]);
}

#[test]
fn a_plugin_that_would_abort_on_a_panic_is_refused() {
    check_refused(&plugin("aborts-panics"), &["panic = \"abort\"", "aborts-panics"]);
}

// ---- Two of a kind

#[test]
fn of_two_plugins_with_one_node_type_the_second_is_refused_by_name() {
    // Sorted by name `libflowbay_core.so` comes before `libtaken_type.so`.
    check_refused(&plugin("taken-type"), &["taken-type", "debug", "flowbay-core"]);
}

#[test]
fn a_second_copy_of_a_plugin_is_refused_by_name() {
    let folder = scratch_folder();
    let bytes = std::fs::read(plugin("core")).unwrap();
    check_refused(&file_with(&folder, "libzz_copy.so", &bytes), &["flowbay-core", "libflowbay_core.so"]);
}

#[test]
fn of_two_files_with_one_plugin_that_come_together_one_is_refused_by_name() {
    let host = Host::builder().argument("--no-watch").flow(&flow()).start();
    let bytes = std::fs::read(plugin("swap-faults")).unwrap();
    let put = |name: &str, number| {
        std::fs::write(host.plugin_folder().join(name), rebuilt(&bytes, number)).unwrap();
    };
    let reload = || {
        let reply = host.post("/plugins/reload").json();
        let file = |value: &serde_json::Value| {
            let file = value["file"].as_str().unwrap_or_default().to_owned();
            file.rsplit('/').next().unwrap_or_default().to_owned()
        };
        let plugins = reply["plugins"].as_array().unwrap().iter();
        let used: Vec<String> = plugins.filter(|plugin| plugin["name"] == "swap-faults").map(file).collect();
        let refused: Vec<String> = reply["refused"].as_array().unwrap().iter().map(file).collect();
        (used, refused)
    };
    put("liba.so", 1);
    put("libb.so", 2);
    assert_eq!(reload(), (vec!["liba.so".to_owned()], vec!["libb.so".to_owned()]));
    // Both would replace the one whose file is gone.
    std::fs::remove_file(host.plugin_folder().join("liba.so")).unwrap();
    std::fs::remove_file(host.plugin_folder().join("libb.so")).unwrap();
    put("libc.so", 3);
    put("libd.so", 4);
    let (used, refused) = reload();
    assert_eq!(used, ["libc.so"], "{}", host.logs());
    assert!(refused.contains(&"libd.so".to_owned()), "{refused:?}\n{}", host.logs());
    host.wait_log("libd.so*refused*libc.so");
    assert_works(&host);
}

#[test]
fn two_names_of_one_file_are_one_plugin() {
    let folder = scratch_folder();
    let first = stage(&plugin("core"), folder.path());
    std::fs::hard_link(&first, folder.path().join("libsame.so")).unwrap();
    let listed = flowbay(folder.path(), &["plugins", "--plugins", "."]);
    assert_eq!(listed.stdout.matches("flowbay-core").count(), 1, "{listed:?}");
    assert!(!listed.stdout.contains("refused"), "{listed:?}");
}

// ---- Plugins that appear while the host runs

#[test]
fn a_plugin_that_is_written_slowly_is_loaded_when_it_is_whole() {
    let host = Host::builder().no_plugins().plugin("websocket").flow(&flow()).start_without_flows();
    host.wait_log("- junction");
    let whole = std::fs::read(plugin("core")).unwrap();
    let (first, second) = whole.split_at(whole.len() / 2);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(host.plugin_folder().join("libflowbay_core.so"))
        .unwrap();
    file.write_all(first).unwrap();
    // Long enough for the host to see half a file, whether it says so or not.
    eventually_within(Duration::from_millis(500), || (host.count_log("incomplete") > 0).then_some(()));
    file.write_all(second).unwrap();
    drop(file);
    host.wait_log("started flows");
    assert_works(&host);
}

#[test]
fn a_plugin_is_loaded_even_when_the_hosts_own_file_was_replaced() {
    // As when a package is upgraded while its service runs.
    let folder = scratch_folder();
    let program = folder.path().join("flowbay");
    std::fs::copy(built("flowbay"), &program).unwrap();
    let host = Host::builder()
        .program(&program)
        .no_plugins()
        .plugin("websocket")
        .flow(&flow())
        .start_without_flows();
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "another version").unwrap();
    stage(&plugin("core"), &host.plugin_folder());
    host.wait_log("started flows");
    assert_works(&host);
}

#[test]
fn a_bad_file_that_appears_is_refused_and_the_flows_run_on() {
    let host = Host::run(&flow());
    let mut io = host.io();
    stage(&plugin("exits-on-load"), &host.plugin_folder());
    host.wait_log("libexits_on_load.so*ended the process");
    io.send_json(&json!({"payload": 1}));
    assert_eq!(io.recv_json()["payload"], 1);
}

#[test]
fn a_plugin_file_that_is_removed_or_overwritten_does_not_disturb_what_runs() {
    let host = Host::run(&flow());
    let mut io = host.io();
    let file = host.plugin_folder().join("libflowbay_core.so");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "overwritten").unwrap();
    std::fs::remove_file(host.plugin_folder().join("libflowbay_websocket.so")).unwrap();
    eventually_within(Duration::from_millis(500), || {
        (host.count_log("libflowbay_core.so") > 1).then_some(())
    });
    for payload in 0..10 {
        io.send_json(&json!({"payload": payload}));
        assert_eq!(io.recv_json()["payload"], payload);
    }
    assert_works(&host);
}

#[test]
fn a_plugin_without_the_threads_hook_is_loaded_with_a_warning() {
    let host = Host::builder().plugin("without-tls-hook").flow(&flow()).start();
    assert_works(&host);
    host.wait_log("without-tls-hook");
    assert_eq!(host.stop().code, Some(0));
}
