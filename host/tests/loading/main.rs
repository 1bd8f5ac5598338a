//! Loading and unloading real libraries: those that we ship, and those that are broken on purpose.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected fails")]

mod artifacts;
mod lone_host;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use artifacts::{fixture, product};
use flowbay::{
    flow::Role,
    plugin::{self, LoadSettings, Loaded, Plugin, PluginError, Refusal, load},
};
use flowbay_abi::{
    Msg, Value,
    node::{Outcome, Via},
    value,
};
use lone_host::lone_host;

/// Long enough that a busy machine never makes a good plugin look like one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings() -> LoadSettings {
    LoadSettings { probe_exe: Some(artifacts::host().to_owned()), probe_deadline: PATIENCE }
}

fn loaded(file: &Path) -> Arc<Plugin> {
    match load(file, &settings()) {
        Ok(Loaded::Plugin(plugin)) => plugin,
        other => panic!("{} was not loaded: {other:?}", file.display()),
    }
}

fn refused(file: &Path) -> PluginError {
    load(file, &settings()).expect_err("it must be refused")
}

/// A copy of a fixture under a name that only this test uses, to be found by it in the process's memory map.
fn copy_named(folder: &tempfile::TempDir, fixture_name: &str, name: &str) -> PathBuf {
    let file = folder.path().join(format!("lib{name}.so"));
    fs::copy(fixture(fixture_name), &file).unwrap();
    file
}

/// How many different files whose name contains `name` are mapped into this process.
fn mapped(name: &str) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut files: Vec<&str> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .filter(|it| it.contains(name))
        .collect();
    files.sort_unstable();
    files.dedup();
    files.len()
}

/// Lines that `uses-tls` has written: how many of its thread-local values are gone.
fn gone(log: &Path) -> usize {
    fs::read_to_string(log).map_or(0, |text| text.lines().count())
}

fn use_tls(plugin: &Plugin, log: &Path) {
    let config = value!({"log": log.to_str().unwrap()});
    let node = plugin.create("uses-tls", lone_host(), config, None).unwrap();
    assert!(matches!(node.on_input(Msg::with_payload(1), Via::Wire), Outcome::Done));
}

#[test]
fn a_plugin_says_what_it_is() {
    let file = fixture("bad_node");
    let plugin = loaded(&file);
    let info = plugin.info();
    assert_eq!((info.name.as_str(), info.version.as_str()), ("bad-node", "0.1.0"));
    assert_eq!(info.abi, flowbay_abi::version::ABI_VERSION);
    assert!(info.rustc.starts_with("1."), "{}", info.rustc);
    assert_eq!(info.file, file);
    assert!(info.unloadable);
    let of = |name: &str| info.types.iter().find(|node_type| node_type.name == name).unwrap();
    assert_eq!(of("burst").role, Role::Source);
    assert_eq!((of("passes").inputs, of("passes").outputs, of("passes").role), (1, 1, Role::Plain));
}

#[test]
fn the_plugins_that_we_ship_load() {
    for (library, name, node_type) in [
        ("flowbay_core", "flowbay-core", "inject"),
        ("flowbay_websocket", "flowbay-websocket", "websocket-listener"),
    ] {
        let plugin = loaded(&product(library));
        assert_eq!(plugin.info().name, name);
        assert!(plugin.info().unloadable, "{name} has the thread-local hook");
        assert!(plugin.info().types.iter().any(|it| it.name == node_type), "{node_type} is not in {name}");
    }
}

#[test]
fn a_procedural_macro_is_passed_over() {
    let file = product("flowbay_sdk_macros");
    assert!(matches!(load(&file, &settings()), Ok(Loaded::PassedOver)), "{}", file.display());
}

#[test]
fn nodes_are_created_by_type_and_errors_and_panics_in_constructors_are_errors() {
    let plugin = loaded(&fixture("bad_node"));
    let create = |node_type: &str| plugin.create(node_type, lone_host(), Value::Null, None);
    assert!(create("passes").is_ok());
    let error = create("panics-in-constructor").err().unwrap();
    assert!(error.message.contains("panics-in-constructor was created"), "{error}");
    let error = create("no-such-type").err().unwrap();
    assert!(error.message.contains("no-such-type"), "{error}");
}

/// Whether it is the refusal that is expected.
type Expected = fn(&Refusal) -> bool;

/// The refusal of each fixture, and words that its text must have beside the file's name.
fn refusals() -> Vec<(&'static str, Expected, Vec<&'static str>)> {
    vec![
        ("not_a_plugin", |it| *it == Refusal::NotAPlugin, vec!["not a Flowbay plugin"]),
        ("old_abi", |it| matches!(it, Refusal::AbiVersion { .. }), vec!["ABI 0.9.0", "ABI 1."]),
        ("new_abi", |it| matches!(it, Refusal::AbiVersion { .. }), vec!["ABI 2.0.0", "ABI 1."]),
        ("wrong_layout", |it| matches!(it, Refusal::Layout { .. }), vec!["types differ", "ABI 1."]),
        ("panics_on_load", |it| matches!(it, Refusal::Root(_)), vec!["panicked", "no root today"]),
        ("panics_in_describe", |it| matches!(it, Refusal::Description(_)), vec!["panicked"]),
        ("exits_on_load", |it| matches!(it, Refusal::Crashed { .. }), vec!["exit code 3"]),
        (
            "aborts_panics",
            |it| matches!(it, Refusal::AbortsOnPanic { .. }),
            vec!["aborts-panics 0.1.0", "unwind"],
        ),
    ]
}

#[test]
fn a_bad_plugin_is_refused_in_one_readable_paragraph_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    for (fixture_name, expected, words) in refusals() {
        let file = copy_named(&folder, fixture_name, &format!("refused-{fixture_name}"));
        let error = refused(&file);
        assert!(expected(&error.refusal), "{fixture_name}: {error:?}");
        let text = error.to_string();
        for word in words.iter().copied().chain([file.to_str().unwrap()]) {
            assert!(text.contains(word), "{word} is missing in: {text}");
        }
        assert!(!text.contains('\n') && text.len() < 700, "{fixture_name} in one paragraph: {text}");
        println!("{text}\n");
    }
    assert_eq!(mapped("refused-"), 0);
}

#[test]
fn a_plugin_that_hangs_is_refused_after_the_deadline() {
    let settings = LoadSettings { probe_deadline: Duration::from_millis(500), ..settings() };
    let error = load(&fixture("hangs_on_load"), &settings).expect_err("it hangs");
    assert_eq!(error.refusal, Refusal::Hung(500));
}

#[test]
fn what_is_no_library_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], Expected); 3] = [
        ("empty", b"", |it| *it == Refusal::Empty),
        ("text", b"not a library\n", |it| matches!(it, Refusal::NotALibrary(_))),
        ("flows", b"[{\"id\": \"1\", \"type\": \"tab\"}]", |it| matches!(it, Refusal::NotALibrary(_))),
    ];
    for (name, bytes, expected) in cases {
        let file = folder.path().join(format!("lib{name}.so"));
        fs::write(&file, bytes).unwrap();
        let error = refused(&file);
        assert!(expected(&error.refusal), "{name}: {error:?}");
        println!("{error}\n");
    }
    assert!(matches!(refused(&folder.path().join("libmissing.so")).refusal, Refusal::Io(_)));
}

#[test]
fn a_library_that_is_cut_off_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("bad_node")).unwrap();
    for percent in [1, 10, 25, 50, 75, 90, 99] {
        let file = folder.path().join(format!("libcut-{percent}.so"));
        fs::write(&file, &whole[..whole.len() * percent / 100]).unwrap();
        let error = refused(&file);
        assert!(matches!(error.refusal, Refusal::Incomplete(_)), "{percent} %: {error:?}");
    }
    let file = folder.path().join("libcut-1-byte.so");
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(refused(&file).refusal, Refusal::Incomplete(_)));
    println!("{}", refused(&file));
}

#[test]
fn fifty_generations_are_loaded_used_and_unloaded_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy_named(&folder, "bad_node", "fifty-generations");
    let log = folder.path().join("log");
    let mut last_generation = 0;
    for cycle in 1..=50 {
        let plugin = loaded(&file);
        assert!(plugin.info().generation > last_generation);
        last_generation = plugin.info().generation;
        use_tls(&plugin, &log);
        assert_eq!(mapped("fifty-generations"), 1, "in cycle {cycle}");
        drop(plugin);
        assert!(plugin::wait_for_unloads(PATIENCE));
        assert_eq!(mapped("fifty-generations"), 0, "after cycle {cycle}");
        assert_eq!(gone(&log), cycle, "the destructor of each generation's value has run");
    }
    // A thread that used all of them can end: nothing of it leads into them.
    std::thread::spawn(move || (0..5).for_each(|_| use_tls(&loaded(&file), &log))).join().unwrap();
    assert!(plugin::wait_for_unloads(PATIENCE));
    assert_eq!(mapped("fifty-generations"), 0);
}

#[test]
fn generations_of_one_file_are_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy_named(&folder, "bad_node", "apart");
    let (old, new) = (loaded(&file), loaded(&file));
    assert_eq!(mapped("apart"), 2);
    assert_eq!(old.info().hash, new.info().hash);
    drop(old);
    assert!(plugin::wait_for_unloads(PATIENCE));
    assert_eq!(mapped("apart"), 1);
    use_tls(&new, &folder.path().join("log"));
}

#[test]
fn a_loaded_plugin_does_not_mind_what_happens_to_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy_named(&folder, "bad_node", "overwritten");
    let plugin = loaded(&file);
    fs::write(&file, "something else").unwrap();
    use_tls(&plugin, &folder.path().join("log"));
    fs::remove_file(&file).unwrap();
    use_tls(&plugin, &folder.path().join("log"));
}

#[test]
fn a_thread_that_ends_takes_its_values_along_while_the_plugin_stays() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = loaded(&fixture("bad_node"));
    let log = folder.path().join("log");
    for ended in 1..=3 {
        // The end of a scope does not wait for the end of its threads, a join does.
        std::thread::scope(|scope| scope.spawn(|| use_tls(&plugin, &log)).join().unwrap());
        assert_eq!(gone(&log), ended);
    }
    drop(plugin);
    assert!(plugin::wait_for_unloads(PATIENCE));
    assert_eq!(gone(&log), 3, "no value is destroyed twice");
}

#[test]
fn a_thread_of_the_plugin_s_own_takes_its_values_along() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = loaded(&copy_named(&folder, "bad_node", "own-thread"));
    let log = folder.path().join("log");
    let config = value!({"log": log.to_str().unwrap()});
    drop(plugin.create("makes-thread", lone_host(), config, None).unwrap());
    assert_eq!(gone(&log), 1);
    drop(plugin);
    assert!(plugin::wait_for_unloads(PATIENCE));
    assert_eq!((gone(&log), mapped("own-thread")), (1, 0));
}

#[test]
fn a_plugin_without_the_thread_local_hook_is_loaded_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy_named(&folder, "without_tls_hook", "no-hook");
    let plugin = loaded(&file);
    assert!(!plugin.info().unloadable);
    drop(plugin);
    assert!(plugin::wait_for_unloads(PATIENCE));
    assert_eq!(mapped("no-hook"), 1);
    assert!(plugin::live_generations() >= 1);
}

#[test]
fn many_threads_load_use_and_drop_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy_named(&folder, "bad_node", "at-the-same-time");
    let log = folder.path().join("log");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let plugin = loaded(&file);
                    let shared = plugin.clone();
                    let user = scope.spawn(|| {
                        use_tls(&shared, &log);
                        drop(shared);
                    });
                    use_tls(&plugin, &log);
                    drop(plugin);
                    drop(user);
                }
            });
        }
    });
    assert!(plugin::wait_for_unloads(PATIENCE));
    assert_eq!(mapped("at-the-same-time"), 0);
    assert_eq!(gone(&log), 40, "one value for each thread and generation");
}

#[test]
fn the_probe_says_on_its_own_what_it_thinks_of_a_file() {
    let probe = |file: PathBuf| {
        let output = std::process::Command::new(artifacts::host()).arg("probe").arg(file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = probe(fixture("bad_node"));
    assert_eq!((code, said.trim()), (Some(0), "\"Loads\""));
    let (code, said) = probe(fixture("old_abi"));
    assert_eq!(code, Some(1));
    assert!(said.contains("AbiVersion") && said.contains("0.9.0"), "{said}");
}
