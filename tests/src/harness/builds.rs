//! Other builds of plugins, and the ways in which they come into the folder of a running host.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::artifacts::workspace;

/// Both plugins, built from the sources that the product has, as another version.
#[derive(Debug, Clone)]
pub struct Builds {
    /// The library of the core nodes.
    pub core: PathBuf,
    /// The library of the WebSocket nodes.
    pub websocket: PathBuf,
}

impl Builds {
    /// Builds both as `version` in a workspace of their own under `folder`; quick when they are there from before.
    ///
    /// # Panics
    /// When cargo fails.
    pub fn make(version: &str, release: bool, folder: &Path) -> Builds {
        let folder = folder.join(version);
        mirror(&workspace().join("plugins"), &folder.join("plugins"));
        let manifest = folder.join("Cargo.toml");
        write_changed(&manifest, plugins_only(&read(&workspace().join("Cargo.toml")), version).as_bytes());
        if !folder.join("Cargo.lock").exists() {
            write_changed(&folder.join("Cargo.lock"), read(&workspace().join("Cargo.lock")).as_bytes());
        }
        let target = folder.join("target");
        cargo(&manifest, &target, release);
        let made = target.join(if release { "release" } else { "debug" });
        Builds { core: made.join("libflowbay_core.so"), websocket: made.join("libflowbay_websocket.so") }
    }
}

/// Builds all of a workspace.
///
/// # Panics
/// When cargo fails.
pub fn cargo(manifest: &Path, target: &Path, release: bool) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(target);
    if release {
        command.arg("--release");
    }
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "building {} failed:\n{text}", manifest.display());
}

/// Builds one package of a workspace, from what is on this machine already.
pub(super) fn cargo_offline(manifest: &Path, target: &Path, package: &str) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--offline", "-p", package, "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target);
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "building {package} of {} failed:\n{text}", manifest.display());
}

/// The product's manifest for a copy of its plugins alone, with another version.
fn plugins_only(manifest: &str, version: &str) -> String {
    let root = workspace().display();
    let mut text = String::new();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        if section == "[workspace]" && ["default-members", "exclude"].iter().any(|key| line.starts_with(key))
        {
            continue;
        } else if section == "[workspace]" && line.starts_with("members") {
            text.push_str("members = [\"plugins/core\", \"plugins/websocket\"]");
        } else if section == "[workspace.package]" && line.starts_with("version") {
            text.push_str(&format!("version = \"{version}\""));
        } else {
            text.push_str(&line.replace("path = \"", &format!("path = \"{root}/")));
        }
        text.push('\n');
    }
    text
}

/// Makes `to` have the files of `from`. Those that are alike are left alone, so that cargo sees no change.
fn mirror(from: &Path, to: &Path) {
    mirror_changed(from, to, &|_, bytes| bytes);
}

/// As [`mirror`], with each file as `change` makes it of the one that it is given.
pub(super) fn mirror_changed(from: &Path, to: &Path, change: &dyn Fn(&Path, Vec<u8>) -> Vec<u8>) {
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    let names = |folder: &Path| -> Vec<_> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.expect("a folder can be listed").file_name()).collect()
    };
    for name in names(to) {
        if !from.join(&name).exists() {
            // Another process may be doing the same.
            let _ = fs::remove_file(to.join(&name)).or_else(|_| fs::remove_dir_all(to.join(&name)));
        }
    }
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            mirror_changed(&from, &to, change);
        } else {
            let bytes = fs::read(&from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
            write_changed(&to, &change(&from, bytes));
        }
    }
}

pub(super) fn write_changed(file: &Path, bytes: &[u8]) {
    if fs::read(file).is_ok_and(|before| before == bytes) {
        return;
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    // In one step: another process may be building from it.
    let new = file.with_extension(format!("new{}", std::process::id()));
    fs::write(&new, bytes).unwrap_or_else(|error| panic!("{}: {error}", new.display()));
    fs::rename(&new, file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

pub(super) fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Another build of a library without a compiler: the text `from` in it becomes `to`, which has as many bytes.
///
/// # Panics
/// When there is no such text in it.
pub fn patched(library: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "{from} and {to} take the same room");
    let mut bytes = library.to_vec();
    let mut found = 0;
    let mut at = 0;
    // By the first byte, which is quick enough for a library even where nothing is optimised.
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == from.as_bytes()[0]) {
        at += next;
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
        at += 1;
    }
    assert!(found > 0, "the library says {from:?} nowhere");
    bytes
}

/// The same code as a file that differs: what every new build is to the host, at least.
pub fn rebuilt(library: &[u8], number: u64) -> Vec<u8> {
    // Behind the end of everything that the file's headers speak of.
    [library, &number.to_le_bytes()].concat()
}

/// A way in which a file is replaced by a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As cargo does: removed, then linked from elsewhere.
    CargosLink,
    /// As `cp` does: written over in place.
    CopiedOver,
    /// As editors and package managers do: written beside it, then renamed.
    Renamed,
    /// In place, in pieces, with pauses, one of them longer than any quiet time.
    InPieces,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 4] = [Way::CargosLink, Way::CopiedOver, Way::Renamed, Way::InPieces];
}

/// Longer than the host waits for a file to become quiet.
const LONG_PAUSE: Duration = Duration::from_millis(400);
/// Shorter than that.
const SHORT_PAUSE: Duration = Duration::from_millis(20);

/// Puts `bytes` in the place of `file`, or there when there is none. `aside` is a folder on the same file system that
/// nobody watches.
///
/// # Panics
/// When the file system refuses.
pub fn install(bytes: &[u8], file: &Path, aside: &Path, way: Way) {
    let check = |result: std::io::Result<()>| {
        result.unwrap_or_else(|error| panic!("{way:?} of {}: {error}", file.display()));
    };
    match way {
        Way::CargosLink => {
            let made = aside.join("made");
            check(fs::write(&made, bytes));
            let _ = fs::remove_file(file);
            check(fs::hard_link(&made, file));
            // The link stays as it is, whatever is written here next.
            check(fs::remove_file(&made));
        }
        Way::CopiedOver => check(fs::write(file, bytes)),
        Way::Renamed => {
            // What editors call such a file does not look like a library.
            let beside = file.with_extension("so.new");
            check(fs::write(&beside, bytes));
            check(fs::rename(&beside, file));
        }
        Way::InPieces => {
            let open = || OpenOptions::new().create(true).truncate(true).write(true).open(file);
            let mut target: File = open().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let pieces: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(6)).collect();
            for (number, piece) in pieces.iter().enumerate() {
                check(target.write_all(piece));
                std::thread::sleep(if number == 2 { LONG_PAUSE } else { SHORT_PAUSE });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_of_other_builds_has_the_plugins_and_the_version() {
        let text = plugins_only(&read(&workspace().join("Cargo.toml")), "9.8.7");
        assert!(text.contains("members = [\"plugins/core\", \"plugins/websocket\"]"), "{text}");
        assert!(text.contains("\nversion = \"9.8.7\"\n") && !text.contains("path = \"sdk"), "{text}");
    }

    #[test]
    fn a_library_is_patched_wherever_it_says_so() {
        assert_eq!(patched(b"..one..one", "one", "two"), b"..two..two");
    }

    #[test]
    fn a_file_has_the_new_bytes_whichever_way_they_came() {
        let folder = crate::harness::scratch_folder();
        let watched = folder.path().join("watched");
        fs::create_dir(&watched).unwrap();
        let file = watched.join("lib.so");
        for (number, way) in Way::ALL.into_iter().enumerate() {
            let bytes = vec![number as u8; 1000];
            install(&bytes, &file, folder.path(), way);
            assert_eq!(fs::read(&file).unwrap(), bytes, "{way:?}");
            assert_eq!(fs::read_dir(&watched).unwrap().count(), 1, "{way:?} leaves nothing behind");
        }
    }
}
