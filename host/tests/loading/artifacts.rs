//! The libraries under test, built by cargo as in life.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The host's executable, which tries plugins.
pub fn host() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_flowbay"))
}

/// The library of a package in `tests/faulty`, by the package's name with underscores.
pub fn fixture(name: &str) -> PathBuf {
    static FIXTURES: LazyLock<HashMap<String, PathBuf>> = LazyLock::new(|| {
        // Apart from the product: no host may find these beside the real plugins.
        let target = host().ancestors().nth(2).unwrap().join("faulty");
        libraries("tests/faulty/Cargo.toml", &["--workspace", "--target-dir", target.to_str().unwrap()])
    });
    FIXTURES.get(name).unwrap_or_else(|| panic!("cargo built no {name}: {FIXTURES:?}")).clone()
}

/// A library of the product's workspace: a shipped plugin, or a procedural macro.
pub fn product(name: &str) -> PathBuf {
    static PRODUCT: LazyLock<HashMap<String, PathBuf>> = LazyLock::new(|| libraries("Cargo.toml", &[]));
    PRODUCT.get(name).unwrap_or_else(|| panic!("cargo built no {name}: {PRODUCT:?}")).clone()
}

/// Builds and asks cargo where the shared libraries are.
fn libraries(manifest: &str, options: &[&str]) -> HashMap<String, PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--message-format=json-render-diagnostics", "--manifest-path"])
        .arg(workspace.join(manifest))
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo failed:\n{}", String::from_utf8_lossy(&output.stderr));
    let mut libraries = HashMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        for file in message["filenames"].as_array().into_iter().flatten().filter_map(|file| file.as_str()) {
            if file.ends_with(std::env::consts::DLL_SUFFIX) {
                let name = message["target"]["name"].as_str().unwrap().replace('-', "_");
                libraries.insert(name, PathBuf::from(file));
            }
        }
    }
    libraries
}
