//! Private copies: what is loaded is never the file that others write to, and no path is ever loaded twice.
//!
//! The dynamic linker recognises a file that it has open and returns the old library for it; and a mapped file that
//! is overwritten in place takes the process down. So every generation gets a copy of its own, under a name that was
//! never used before, in a folder that only this user can look into. The copy stays until the library is unloaded:
//! backtraces read it.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest as _, Sha256};

use super::error::Refusal;

/// Largest plugin: the largest debug builds are some hundred MiB, and copying more would fill the temporary folder.
pub(super) const MAX_PLUGIN_BYTES: u64 = 1 << 30;

/// Prefix of the folders with copies; the sweep recognises those of processes that are gone by it.
const FOLDER_PREFIX: &str = "flowbay-plugins-";
/// Held locked for as long as the process lives.
const LOCK_FILE: &str = "lock";

/// Generations are counted over all plugins of the process, so that no file name comes twice.
static NEXT_GENERATION: AtomicU64 = AtomicU64::new(1);

/// A private copy of a file. Removed when dropped.
#[derive(Debug)]
pub(super) struct Staged {
    pub path: PathBuf,
    /// SHA-256 of the bytes, in hexadecimal.
    pub hash: String,
    /// Number of this copy in the life of the process.
    pub generation: u64,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("{} could not be removed: {error}", self.path.display());
        }
    }
}

/// Copies `file`, if nothing changes it meanwhile.
///
/// # Errors
/// The file cannot be read, is no regular file, is too large, is empty, or is being written.
pub(super) fn stage(file: &Path) -> Result<Staged, Refusal> {
    let folder = folder().map_err(|error| {
        Refusal::Io(format!(
            "no private folder for its copy could be made in {} ({error}); set TMPDIR to another one",
            std::env::temp_dir().display()
        ))
    })?;
    stage_in(&folder, file)
}

fn stage_in(folder: &Path, file: &Path) -> Result<Staged, Refusal> {
    let io = |error: io::Error| Refusal::Io(error.to_string());
    // Not to be caught waiting for somebody to write into a pipe that has a library's name.
    let mut source = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file).map_err(io)?;
    let before = source.metadata().map_err(io)?;
    if !before.is_file() {
        return Err(Refusal::Io("it is not a regular file".to_owned()));
    }
    if before.len() == 0 {
        return Err(Refusal::Empty);
    }
    if before.len() > MAX_PLUGIN_BYTES {
        return Err(Refusal::TooLarge(before.len()));
    }

    let generation = NEXT_GENERATION.fetch_add(1, Ordering::Relaxed);
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let partial = folder.join(format!("{generation}.partial"));
    let mut target =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).map_err(io)?;
    let mut staged = Staged { path: partial, hash: String::new(), generation };
    let (copied, hash) = copy(&mut source, &mut target, before.len()).map_err(io)?;
    let after = source.metadata().map_err(io)?;
    if copied != before.len() || stamp(&before) != stamp(&after) {
        return Err(Refusal::Changing);
    }
    drop(target);

    let name = format!("{generation}-{}-{stem}{}", &hash[..12], std::env::consts::DLL_SUFFIX);
    let path = folder.join(name);
    fs::rename(&staged.path, &path).map_err(io)?;
    staged.path = path;
    staged.hash = hash;
    Ok(staged)
}

/// What changes when a file is written to or replaced.
fn stamp(metadata: &Metadata) -> [i64; 6] {
    [
        metadata.ino().cast_signed(),
        metadata.size().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
}

/// Copies at most `len` bytes and one: more than expected shows, and a file that grows for ever ends.
fn copy(source: &mut File, target: &mut File, len: u64) -> io::Result<(u64, String)> {
    let mut source = source.take(len + 1);
    let mut buffer = vec![0; 64 * 1024];
    let mut hash = Sha256::new();
    let mut copied = 0;
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        target.write_all(&buffer[..read])?;
        copied += read as u64;
    }
    Ok((copied, data_encoding::HEXLOWER.encode(&hash.finalize())))
}

/// The folder of this process, and what keeps others from sweeping it.
struct Folder {
    path: PathBuf,
    _lock: File,
}

static FOLDER: Mutex<Option<Folder>> = Mutex::new(None);

/// This process's folder, made at the first call.
fn folder() -> io::Result<PathBuf> {
    let mut folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = &*folder {
        return Ok(folder.path.clone());
    }
    let parent = std::env::temp_dir();
    sweep(&parent);
    let made = make_folder(&parent)?;
    let path = made.path.clone();
    *folder = Some(made);
    Ok(path)
}

/// Removes this process's folder with all copies in it. For the end of the process; libraries that are still loaded
/// are not disturbed.
pub fn remove_staging_folder() {
    if let Some(folder) = FOLDER.lock().unwrap_or_else(PoisonError::into_inner).take()
        && let Err(error) = fs::remove_dir_all(&folder.path)
    {
        tracing::debug!("{} could not be removed: {error}", folder.path.display());
    }
}

fn make_folder(parent: &Path) -> io::Result<Folder> {
    // It gets the name that the sweep looks for only once it is locked.
    let fresh = tempfile::Builder::new()
        .prefix(".flowbay-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)?;
    let lock = File::create_new(fresh.path().join(LOCK_FILE))?;
    lock.try_lock()?;
    let name = fresh.path().file_name().unwrap_or_default().to_string_lossy().replacen(
        ".flowbay-",
        FOLDER_PREFIX,
        1,
    );
    let path = parent.join(name);
    fs::rename(fresh.path(), &path)?;
    let _ = fresh.keep();
    Ok(Folder { path, _lock: lock })
}

/// Removes the folders that processes left behind which ended without [`remove_staging_folder`].
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(FOLDER_PREFIX.as_bytes())
            && is_abandoned(&entry.path())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether the folder is this user's and its process is gone: then nobody holds its lock.
fn is_abandoned(folder: &Path) -> bool {
    let ours = |metadata: &Metadata| metadata.uid() == rustix::process::geteuid().as_raw();
    let Ok(metadata) = fs::symlink_metadata(folder) else { return false };
    if !metadata.is_dir() || !ours(&metadata) {
        return false;
    }
    let lock = folder.join(LOCK_FILE);
    let is_file = fs::symlink_metadata(&lock).is_ok_and(|metadata| metadata.is_file() && ours(&metadata));
    is_file && File::open(lock).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
        let file = folder.path().join("libx.so");
        fs::write(&file, bytes).unwrap();
        file
    }

    #[test]
    fn a_copy_has_the_bytes_and_a_name_of_its_own_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_with(&folder, b"some bytes");
        let (first, second) = (stage(&file).unwrap(), stage(&file).unwrap());
        assert_eq!(fs::read(&first.path).unwrap(), b"some bytes");
        assert_eq!(first.hash, second.hash);
        assert_ne!(first.path, second.path);
        assert!(first.generation < second.generation);
        let path = first.path.clone();
        drop(first);
        assert!(!path.exists());
        assert!(second.path.exists());
    }

    #[test]
    fn other_bytes_have_another_hash() {
        let folder = tempfile::tempdir().unwrap();
        let before = stage(&file_with(&folder, b"one")).unwrap().hash.clone();
        let after = stage(&file_with(&folder, b"two")).unwrap().hash.clone();
        assert_ne!(before, after);
    }

    #[test]
    fn nobody_else_can_look_into_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let staged = stage(&file_with(&folder, b"x")).unwrap();
        let mode = fs::metadata(staged.path.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn what_is_no_readable_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(stage(&file_with(&folder, b"")).unwrap_err(), Refusal::Empty);
        assert!(matches!(stage(&folder.path().join("none.so")), Err(Refusal::Io(_))));
        assert!(matches!(stage(folder.path()), Err(Refusal::Io(_))));
        let pipe = folder.path().join("pipe.so");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(matches!(stage(&pipe), Err(Refusal::Io(_))));
        let huge = folder.path().join("huge.so");
        File::create(&huge).unwrap().set_len(MAX_PLUGIN_BYTES + 1).unwrap();
        assert_eq!(stage(&huge).unwrap_err(), Refusal::TooLarge(MAX_PLUGIN_BYTES + 1));
    }

    #[test]
    fn a_write_shows_in_the_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_with(&folder, b"first");
        let before = stamp(&fs::metadata(&file).unwrap());
        let mut writer = OpenOptions::new().append(true).open(&file).unwrap();
        writer.write_all(b" and more").unwrap();
        assert_ne!(before, stamp(&fs::metadata(&file).unwrap()));
    }

    #[test]
    fn folders_of_processes_that_are_gone_are_swept_and_those_of_living_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let living = make_folder(parent.path()).unwrap();
        let gone = make_folder(parent.path()).unwrap();
        fs::write(gone.path.join("1-libx.so"), "x").unwrap();
        let gone_path = gone.path.clone();
        drop(gone);
        let foreign = parent.path().join(format!("{FOLDER_PREFIX}not-ours"));
        fs::create_dir(&foreign).unwrap();

        sweep(parent.path());

        assert!(!gone_path.exists());
        assert!(living.path.exists());
        assert!(foreign.exists(), "a folder without a lock is none of ours");
    }
}
