//! The library of the crate under test.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

/// Builds the plugin whose tests these are, once in a process, and returns its library.
///
/// # Errors
/// It cannot be built, or is no `cdylib`; some lines that say so.
pub fn plugin_under_test() -> Result<PathBuf, String> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LIBRARY.get_or_init(build).clone()
}

fn build() -> Result<PathBuf, String> {
    let folder = env::var_os("CARGO_MANIFEST_DIR")
        .ok_or("the plugin under test is known only to `cargo test`, which sets CARGO_MANIFEST_DIR")?;
    let manifest = Path::new(&folder).join("Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--lib", "--message-format=json-render-diagnostics", "--manifest-path"])
        .arg(&manifest);
    let profile = env::current_exe().ok().and_then(|test| Some(profile(&test)?.to_owned()));
    command.args(["--profile", profile.as_deref().unwrap_or("dev")]);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} cannot be run: {error}", Path::new(&cargo).display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the plugin under test cannot be built:\n{said}"));
    }
    library(&String::from_utf8_lossy(&output.stdout), &manifest).ok_or_else(|| {
        format!("{} makes no plugin: under [lib] it needs crate-type = [\"cdylib\"]", manifest.display())
    })
}

/// The profile that a test was built with: `target/debug/deps/flow-0123456789abcdef` is of `dev`.
fn profile(test: &Path) -> Option<&str> {
    let folder = test.parent()?;
    let folder = if folder.file_name() == Some(OsStr::new("deps")) { folder.parent()? } else { folder };
    match folder.file_name()?.to_str()? {
        "debug" => Some("dev"),
        named => Some(named),
    }
}

/// The library that cargo names among its messages.
fn library(messages: &str, manifest: &Path) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let kinds = message["target"]["kind"].as_array()?;
        let ours = message["reason"] == "compiler-artifact"
            && kinds.iter().any(|kind| kind == "cdylib")
            && message["manifest_path"].as_str().map(Path::new) == Some(manifest);
        let files = message["filenames"].as_array().filter(|_| ours)?;
        let is_library = |file: &&str| file.ends_with(env::consts::DLL_SUFFIX);
        files.iter().filter_map(Value::as_str).find(is_library).map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_that_of_the_test() {
        for (test, expected) in [
            ("/a/target/debug/deps/flow-01", Some("dev")),
            ("/a/target/release/deps/flow-01", Some("release")),
            ("/a/target/x86_64-unknown-linux-gnu/small/deps/flow-01", Some("small")),
            ("/a/target/debug/flow", Some("dev")),
            ("/", None),
        ] {
            assert_eq!(profile(Path::new(test)), expected, "{test}");
        }
    }

    #[test]
    fn of_all_that_cargo_makes_the_library_of_this_crate_is_found() {
        let suffix = env::consts::DLL_SUFFIX;
        let message = |manifest: &str, kind: &str, file: &str| {
            serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": manifest,
                "target": { "kind": [kind] }, "filenames": [format!("{file}.d"), format!("{file}{suffix}")],
            })
            .to_string()
        };
        let messages = [
            message("/dep/Cargo.toml", "cdylib", "libdep"),
            message("/my/Cargo.toml", "custom-build", "build"),
            "not JSON".to_owned(),
            message("/my/Cargo.toml", "cdylib", "libmy"),
        ]
        .join("\n");
        let expected = PathBuf::from(format!("libmy{suffix}"));
        assert_eq!(library(&messages, Path::new("/my/Cargo.toml")), Some(expected));
        assert_eq!(library(&messages, Path::new("/other/Cargo.toml")), None);
    }
}
