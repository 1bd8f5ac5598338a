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

/// Folder of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace")
}

/// The example flows.
pub fn flows_folder() -> PathBuf {
    workspace().join("flows")
}

/// Where the fixtures are built: apart, so that no host ever finds them beside the real plugins.
pub fn faulty_build_folder() -> PathBuf {
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

/// A new folder for one test, removed when dropped. It is on the file system of the build, so that files can be
/// linked into it.
///
/// # Panics
/// When it cannot be made.
pub fn scratch_folder() -> tempfile::TempDir {
    let folder = target_folder().join("tmp");
    std::fs::create_dir_all(&folder).expect("the target folder can be written to");
    tempfile::Builder::new().prefix("host-").tempdir_in(folder).expect("a temporary folder can be made")
}

/// The host binary that the tests run: a copy, because a build that happens meanwhile replaces cargo's own.
///
/// # Panics
/// When it cannot be copied.
pub fn host_copy() -> PathBuf {
    static COPY: LazyLock<PathBuf> = LazyLock::new(|| stable(&built("flowbay")));
    COPY.clone()
}

/// Puts `file` into `folder` under its own name by a link to a copy of it, which no build writes to and which all
/// hosts of this process share: what they load is tens of megabytes each. Returns the link.
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
    copy_file(file, &copy);
    let staged = folder.join(file.file_name().expect("a file has a name"));
    std::fs::hard_link(&copy, &staged)
        .unwrap_or_else(|error| panic!("cannot link {} to {}: {error}", copy.display(), staged.display()));
    staged
}

/// A copy of a file that lasts for as long as this process does. There is one for each path.
fn stable(file: &Path) -> PathBuf {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(folder_of_this_process);
    static COPIES: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());

    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    let number = copies.len();
    let copy = copies.entry(file.to_owned()).or_insert_with(|| {
        let copy = FOLDER.join(number.to_string());
        copy_file(file, &copy);
        copy
    });
    copy.clone()
}

/// Nothing runs at the end of a test process, so its folder is removed by the next one.
fn folder_of_this_process() -> PathBuf {
    const PREFIX: &str = "copies-of-";
    let folder = scratch_folder();
    let all = folder.path().parent().expect("it lies in a folder");
    for entry in std::fs::read_dir(all).expect("the folder is there").filter_map(Result::ok) {
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
}

fn copy_file(file: &Path, copy: &Path) {
    std::fs::copy(file, copy).unwrap_or_else(|error| panic!("cannot copy {}: {error}", file.display()));
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
        if !kinds.iter().any(|kind| ["bin", "cdylib", "proc-macro"].contains(kind)) {
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
