//! The files of a context store: where they are, and how one is read and written so that it is always whole.
//!
//! The layout is that of Node-RED's `localfilesystem`: `global/global.json`, `<flow id>/flow.json`,
//! `<flow id>/<node id>.json`; and `<node id>/flow.json` for a config node that is on no tab.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use flowbay_abi::{Object, Value, value::JsonError};

use super::ContextError;

/// Spaces that each level is indented by, as Node-RED writes them.
const INDENT: usize = 4;
/// What a file that is being written is called at first.
const UNFINISHED: &str = ".flowbay-context-";
/// The file whose lock says that the folder is in use.
const LOCK: &str = ".flowbay-lock";
/// Longest part of a path: what file systems allow is 255, and `.json.corrupt-99` follows.
const MAX_NAME_BYTES: usize = 200;
/// Bad versions of one file that are kept.
const MAX_ASIDE: usize = 99;

/// The folder. Nobody else uses it while this is there.
pub(super) struct Files {
    folder: PathBuf,
    /// Bytes that a file may have. JSON may take more than what it describes does in memory.
    max_bytes: usize,
    /// The system gives the lock back with it, however the process ends.
    _lock: File,
}

/// A file that could not be read.
#[derive(Debug)]
pub(super) struct BadFile {
    file: PathBuf,
    reason: String,
    /// It has another name now, and does not stand in the way.
    pub is_aside: bool,
    aside: Option<PathBuf>,
}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "context file {}: {}; ", self.file.display(), self.reason)?;
        match &self.aside {
            Some(aside) => write!(f, "it is kept as {}, and the context begins empty", aside.display()),
            None => f.write_str("it is left as it is, and the context is only kept in memory"),
        }
    }
}

impl Files {
    /// Takes a folder into use; it is made if it is not there. A context may have `max_bytes`.
    pub fn open(folder: &Path, max_bytes: usize) -> Result<Self, ContextError> {
        let failed = |error| ContextError::Folder { folder: folder.to_owned(), error };
        fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ContextError::InUse { folder: folder.to_owned() }),
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        sweep(folder).map_err(failed)?;
        Ok(Self { folder: folder.to_owned(), max_bytes: max_bytes.saturating_mul(2).max(1024), _lock: lock })
    }

    /// What an owner's file says; `None` when there is none.
    ///
    /// # Errors
    /// It could not be read, or made sense of: then it has been put aside, if that was possible.
    pub fn read(&self, owner: &str) -> Result<Option<Object>, BadFile> {
        let Some(file) = self.file_of(owner) else { return Ok(None) };
        let left = |reason: String| BadFile { file: file.clone(), reason, is_aside: false, aside: None };
        let metadata = match fs::metadata(&file) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(left(error.to_string())),
        };
        if !metadata.is_file() {
            return Err(left("it is no file".to_owned()));
        }
        if metadata.len() > self.max_bytes as u64 {
            return Err(left(format!("it has more than {} bytes (twice context_max_bytes)", self.max_bytes)));
        }
        let json = fs::read(&file).map_err(|error| left(error.to_string()))?;
        if json.is_empty() {
            return Ok(Some(Object::new()));
        }
        let reason = match Value::from_json(json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&json)) {
            Ok(Value::Object(object)) => return Ok(Some(object)),
            Ok(other) => format!("it is no JSON object: it is {}", other.type_name()),
            Err(error) => format!("it is no JSON: {error}"),
        };
        let aside = put_aside(&file);
        Err(BadFile { file, reason, is_aside: aside.is_some(), aside })
    }

    /// Writes an owner's file anew: whoever looks at it, whenever the machine stops, finds the one or the other.
    ///
    /// # Errors
    /// One line that names the file, which is as it was.
    pub fn write(&self, owner: &str, context: &Value) -> Result<(), String> {
        let Some(file) = self.file_of(owner) else { return Ok(()) };
        let named =
            |error: &dyn fmt::Display| format!("context file {} is not written: {error}", file.display());
        let json = context.to_json_pretty(INDENT).map_err(|error| named(&error))?;
        if json.len() > self.max_bytes {
            return Err(named(&JsonError::TooLarge));
        }
        write_whole(&file, json.as_bytes()).map_err(|error| named(&error))
    }

    /// Removes an owner's file, and the folder that it leaves empty.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn remove(&self, owner: &str) -> Result<(), String> {
        let Some(file) = self.file_of(owner) else { return Ok(()) };
        match fs::remove_file(&file) {
            Ok(()) => {
                // Fails while there is something in it.
                let _ = file.parent().map(fs::remove_dir);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(format!("context file {} is not removed: {error}", file.display())),
        }
    }

    /// Where an owner's context is; `None` when its name is none for a file, and it is only kept in memory.
    fn file_of(&self, owner: &str) -> Option<PathBuf> {
        let (folder, name) = match owner.rsplit_once(':') {
            None if owner == "global" => ("global".to_owned(), "global".to_owned()),
            None | Some((_, "global")) => {
                let id = owner.strip_suffix(":global").unwrap_or(owner);
                (file_name(id)?, "flow".to_owned())
            }
            // A node of that name would have the file of its flow.
            Some(("flow", flow)) => (file_name(flow)?, "%66low".to_owned()),
            Some((node, flow)) => (file_name(flow)?, file_name(node)?),
        };
        Some(self.folder.join(folder).join(format!("{name}.json")))
    }
}

/// A name for a file that no id can lead astray with: letters, digits, `-`, `_` and dots that are not the first
/// character stand for themselves. Node-RED's own ids are all of that kind.
fn file_name(id: &str) -> Option<String> {
    let mut name = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
            b'.' if !name.is_empty() => name.push('.'),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    (1..=MAX_NAME_BYTES).contains(&name.len()).then_some(name)
}

fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    if fs::symlink_metadata(file).is_ok_and(|there| !there.is_file() && !there.is_symlink()) {
        return Err(io::Error::other("there is something else of that name"));
    }
    let mut unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    unfinished.write_all(bytes)?;
    unfinished.as_file().sync_all()?;
    unfinished.persist(file)?;
    // The new name is only sure to be there when the folder is written.
    File::open(folder)?.sync_all()
}

/// Gives a bad file another name that nothing has.
fn put_aside(file: &Path) -> Option<PathBuf> {
    for number in 1..=MAX_ASIDE {
        let mut name = file.as_os_str().to_owned();
        name.push(if number == 1 { ".corrupt".to_owned() } else { format!(".corrupt-{number}") });
        let aside = PathBuf::from(name);
        // A link and not a rename, which would write over what is there.
        match fs::hard_link(file, &aside) {
            Ok(()) => return fs::remove_file(file).is_ok().then_some(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // The file system has no links; nobody else uses the folder.
            Err(_) if !aside.exists() => return fs::rename(file, &aside).is_ok().then_some(aside),
            Err(_) => {}
        }
    }
    None
}

/// Removes what a host that was killed was writing. What cannot be looked at is in nobody's way.
fn sweep(folder: &Path) -> io::Result<()> {
    for inner in fs::read_dir(folder)?.filter_map(Result::ok) {
        if !inner.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        for file in fs::read_dir(inner.path()).into_iter().flatten().filter_map(Result::ok) {
            if file.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
    Ok(())
}
