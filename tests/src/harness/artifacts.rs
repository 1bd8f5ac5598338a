//! The files under test: the host binary, the plugins, and the plugins that are broken on purpose. Cargo builds them
//! once for each test process and says where they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Puts a copy of `file` into `folder` under its own name, at once: it never appears half written. Returns the copy.
///
/// The copies of one file share their bytes, but not with cargo's own, which the next build may write to.
///
/// # Panics
/// When that fails.
pub fn stage(file: &Path, folder: &Path) -> PathBuf {
    static COPIES: LazyLock<(tempfile::TempDir, std::sync::Mutex<Files>)> =
        LazyLock::new(|| (scratch_folder(), std::sync::Mutex::default()));
    static NUMBER: AtomicU64 = AtomicU64::new(0);

    let mut copies = COPIES.1.lock().expect("staging does not panic");
    let copy = copies.entry(file.display().to_string()).or_insert_with(|| {
        let copy = COPIES.0.path().join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::copy(file, &copy).unwrap_or_else(|error| panic!("cannot copy {}: {error}", file.display()));
        copy
    });
    let staged = folder.join(file.file_name().expect("a file has a name"));
    std::fs::hard_link(&copy, &staged)
        .unwrap_or_else(|error| panic!("cannot link {} to {}: {error}", copy.display(), staged.display()));
    staged
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
