//! The files under test: the host binary, the plugins, and the plugins that are broken on purpose. Cargo builds them
//! once for each test process and says where they are.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::Value;

/// Files by name: `flowbay` (the host), and libraries by the name of their crate with underscores.
type Files = HashMap<String, PathBuf>;

static PRODUCT: LazyLock<Files> = LazyLock::new(|| {
    // No package is named: exactly what a plain `cargo build` makes is what users run.
    build("the host and its plugins", &workspace().join("Cargo.toml"), &[])
});

static FAULTY: LazyLock<Files> = LazyLock::new(|| {
    let manifest = workspace().join("tests/faulty/Cargo.toml");
    let target = faulty_build_folder();
    build("the faulty plugins", &manifest, &["--workspace".into(), "--target-dir".into(), target.into()])
});

static EXAMPLES: LazyLock<Files> = LazyLock::new(|| {
    let options = ["-p", "flowbay-sdk", "--features", "tokio", "--examples"].map(Into::into);
    build("the examples of the SDK", &workspace().join("Cargo.toml"), &options)
});

/// Folder of the workspace.
pub(super) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace")
}

/// The example flows.
pub fn flows_folder() -> PathBuf {
    workspace().join("flows")
}

/// Where the fixtures are built: apart, so that no host ever finds them beside the real plugins.
fn faulty_build_folder() -> PathBuf {
    target_folder().join("faulty")
}

fn target_folder() -> PathBuf {
    let host = built("flowbay");
    // target/debug/flowbay
    host.ancestors().nth(2).expect("cargo builds into a folder of a folder").to_owned()
}

/// The file that cargo built for a name: `flowbay` is the host, `flowbay_core` and `flowbay_websocket` the plugins.
///
/// # Panics
/// When the build fails or made no such file.
pub fn built(name: &str) -> PathBuf {
    PRODUCT.get(name).unwrap_or_else(|| panic!("cargo built no {name}: {PRODUCT:?}")).clone()
}

/// The library file of a plugin: `core` or `websocket`, or else the name of a package in `tests/faulty`.
///
/// # Panics
/// As [`built`].
pub fn plugin(name: &str) -> PathBuf {
    match name {
        "core" | "websocket" => built(&format!("flowbay_{name}")),
        fixture => {
            let name = fixture.replace('-', "_");
            FAULTY.get(&name).unwrap_or_else(|| panic!("cargo built no {name}: {FAULTY:?}")).clone()
        }
    }
}

/// An example of the SDK: its library file, and the text of the flow that runs it.
///
/// # Panics
/// When there is none, or the build fails.
pub fn sdk_example(name: &str) -> (PathBuf, String) {
    let library = EXAMPLES.get(name).unwrap_or_else(|| panic!("cargo built no {name}: {EXAMPLES:?}"));
    let flow = workspace().join(format!("sdk/examples/{name}.json"));
    let flow = std::fs::read_to_string(&flow).unwrap_or_else(|error| panic!("{}: {error}", flow.display()));
    (library.clone(), flow)
}

/// A new folder for one test, removed when dropped. It is on the file system of the build, so that files can be
/// linked into it.
///
/// # Panics
/// When it cannot be made.
pub fn scratch_folder() -> tempfile::TempDir {
    let folder = folder_of_this_process();
    tempfile::Builder::new().prefix("test-").tempdir_in(folder).expect("a temporary folder can be made")
}

/// Everything that this process writes. Nothing runs at the end of a test process, so the folder is removed by the
/// next one.
fn folder_of_this_process() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        const PREFIX: &str = "tests-";
        let all = target_folder().join("tmp");
        std::fs::create_dir_all(&all).expect("the target folder can be written to");
        for entry in std::fs::read_dir(&all).expect("the folder is there").filter_map(Result::ok) {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            if !Path::new("/proc").join(pid).exists() {
                // Another process may be removing it too.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let own = all.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir_all(&own).expect("a folder can be made");
        own
    });
    &FOLDER
}

/// The host binary that the tests run: another name of the one that was built, because a build that happens meanwhile
/// gives cargo's own name to another file.
///
/// # Panics
/// When it cannot be linked.
pub fn host_copy() -> PathBuf {
    static COPY: LazyLock<PathBuf> = LazyLock::new(|| stable(&built("flowbay")));
    COPY.clone()
}

/// Puts `file` into `folder` under its own name by a symbolic link. What it leads to stays as it is until the process
/// ends, whatever is built meanwhile. Returns the link.
///
/// # Panics
/// When that fails.
pub fn link(file: &Path, folder: &Path) -> PathBuf {
    let link = folder.join(file.file_name().expect("a file has a name"));
    std::os::unix::fs::symlink(stable(file), &link)
        .unwrap_or_else(|error| panic!("cannot link to {}: {error}", link.display()));
    link
}

/// Puts a copy of `file` into `folder` under its own name, at once: it never appears half written, as when cargo puts
/// its result in place. Returns the copy.
///
/// # Panics
/// When that fails.
pub fn stage(file: &Path, folder: &Path) -> PathBuf {
    let elsewhere = scratch_folder();
    let copy = elsewhere.path().join("copy");
    std::fs::copy(file, &copy).unwrap_or_else(|error| panic!("cannot copy {}: {error}", file.display()));
    let staged = folder.join(file.file_name().expect("a file has a name"));
    hard_link(&copy, &staged);
    staged
}

/// A name of the file that lasts for as long as this process does. (Linkers and cargo never write into a file that
/// they made before; they put a new one in its place.)
fn stable(file: &Path) -> PathBuf {
    static NAMES: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());

    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let number = names.len();
    let name = names.entry(file.to_owned()).or_insert_with(|| {
        let folder = folder_of_this_process().join(number.to_string());
        std::fs::create_dir(&folder).expect("a folder can be made");
        // With the same last part: a program tells its name by it.
        let name = folder.join(file.file_name().expect("a file has a name"));
        hard_link(file, &name);
        name
    });
    name.clone()
}

fn hard_link(file: &Path, link: &Path) {
    std::fs::hard_link(file, link)
        .unwrap_or_else(|error| panic!("cannot link {} to {}: {error}", link.display(), file.display()));
}

/// Builds with cargo and collects the executables and libraries that it names.
fn build(what: &str, manifest: &Path, options: &[std::ffi::OsString]) -> Files {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let output = Command::new(cargo)
        .args(["build", "--message-format=json-render-diagnostics", "--manifest-path"])
        .arg(manifest)
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    assert!(output.status.success(), "building {what} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut files = Files::new();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let target = &message["target"];
        let kinds: Vec<&str> =
            target["kind"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !kinds.iter().any(|kind| ["bin", "cdylib", "example", "proc-macro"].contains(kind)) {
            continue;
        }
        let name = target["name"].as_str().expect("cargo names its targets").replace('-', "_");
        for file in message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if kinds.contains(&"bin") || file.ends_with(std::env::consts::DLL_SUFFIX) {
                files.insert(name.clone(), PathBuf::from(file));
            }
        }
    }
    files
}
