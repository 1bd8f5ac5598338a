//! Watches folders: when files in them have been quiet for a moment, it says which. Knows nothing of plugins.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// How long nothing may happen before a change counts as finished: a linker writes in bursts, `cp` in pieces.
pub const QUIET: Duration = Duration::from_millis(200);
/// How often it is looked whether a folder that was not there has been made: `cargo clean` takes them away, and the
/// next build takes longer than this.
const MISSING: Duration = Duration::from_secs(1);

/// A running watch; it ends when this is dropped.
pub struct Watcher {
    /// Shared with the thread, which ends when it is taken out of here: what sends to it is part of it.
    inner: Arc<Mutex<Option<RecommendedWatcher>>>,
}

impl Watcher {
    /// Calls `changed` on a thread of its own with the files that changed, each time they have become quiet. A folder
    /// that does not exist, or no longer, is watched once it does, and then all of its files have changed.
    ///
    /// # Errors
    /// The system cannot watch; the text says why.
    pub fn start(
        folders: &[PathBuf],
        changed: impl FnMut(BTreeSet<PathBuf>) + Send + 'static,
    ) -> Result<Self, String> {
        let (sender, events) = channel::<PathBuf>();
        let inner = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is no change to it: without this, loading one would report it again.
            if let Ok(event) = event
                && !matches!(
                    event.kind,
                    EventKind::Access(notify::event::AccessKind::Open(_) | notify::event::AccessKind::Read)
                )
            {
                for path in event.paths {
                    let _ = sender.send(path);
                }
            }
        })
        .map_err(|error| error.to_string())?;
        let inner = Arc::new(Mutex::new(Some(inner)));
        let mut folders: Vec<Folder> = folders.iter().map(|folder| Folder::new(folder)).collect();
        for folder in &mut folders {
            folder.follow(&inner).map_err(|error| format!("{}: {error}", folder.path.display()))?;
        }
        let watched = inner.clone();
        std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || follow(&mut folders, &watched, &events, changed))
            .map_err(|error| error.to_string())?;
        Ok(Self { inner })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Reports what has become quiet, until the watcher is dropped.
fn follow(
    folders: &mut [Folder],
    inner: &Mutex<Option<RecommendedWatcher>>,
    events: &Receiver<PathBuf>,
    mut changed: impl FnMut(BTreeSet<PathBuf>),
) {
    // Files that changed, and when they will have been quiet for long enough. Each for itself: one that never comes to
    // rest, a log in the same folder for instance, must not hide the others.
    let mut changing: BTreeMap<PathBuf, Instant> = BTreeMap::new();
    let mut look = Instant::now() + MISSING;
    loop {
        let missing = folders.iter().any(|folder| folder.identity.is_none()).then_some(look);
        let event = match changing.values().copied().chain(missing).min() {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => events.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        let now = Instant::now();
        let mut is_folder = false;
        match event {
            Ok(path) => {
                is_folder = folders.iter().any(|folder| folder.path == path);
                changing.insert(path, now + QUIET);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if is_folder || missing.is_some_and(|look| look <= now) {
            look = now + MISSING;
            for folder in folders.iter_mut() {
                // One that cannot be watched is tried again.
                let appeared = folder.follow(inner).unwrap_or_default();
                changing.extend(appeared.into_iter().map(|file| (file, now + QUIET)));
            }
        }
        let quiet: BTreeSet<PathBuf> =
            changing.iter().filter(|(_, due)| **due <= now).map(|(path, _)| path.clone()).collect();
        if !quiet.is_empty() {
            changing.retain(|path, _| !quiet.contains(path));
            changed(quiet);
        }
    }
}

/// A folder that should be watched.
struct Folder {
    /// From the root, as events name it.
    path: PathBuf,
    /// Device and inode of the one that is watched; `None` when there is none.
    identity: Option<(u64, u64)>,
}

impl Folder {
    fn new(path: &Path) -> Self {
        Self { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), identity: None }
    }

    /// Watches the folder that is there now, if it is not the one that is watched, and returns what is in it.
    fn follow(&mut self, inner: &Mutex<Option<RecommendedWatcher>>) -> notify::Result<Vec<PathBuf>> {
        let folder = fs::metadata(&self.path).ok().filter(fs::Metadata::is_dir);
        let identity = folder.map(|folder| (folder.dev(), folder.ino()));
        if identity == self.identity {
            return Ok(Vec::new());
        }
        let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inner) = inner.as_mut() else { return Ok(Vec::new()) };
        if self.identity.take().is_some() {
            // Fails where the system has noticed by itself that it is gone.
            let _ = inner.unwatch(&self.path);
        }
        if identity.is_some() {
            inner.watch(&self.path, RecursiveMode::NonRecursive)?;
            self.identity = identity;
        }
        let files = fs::read_dir(&self.path).into_iter().flatten();
        Ok(files.filter_map(|file| Some(file.ok()?.path())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_written_in_pieces_is_reported_once_when_it_is_quiet() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, changes) = channel();
        let _watcher =
            Watcher::start(&[folder.path().to_owned()], move |paths| sender.send(paths).unwrap()).unwrap();
        let file = folder.path().join("a.so");
        for piece in 1..5 {
            std::fs::write(&file, vec![0; piece * 100]).unwrap();
            std::thread::sleep(QUIET / 8);
        }
        let paths = changes.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(paths, BTreeSet::from([file.clone()]));
        // Reading it is no change.
        std::fs::read(&file).unwrap();
        assert!(changes.recv_timeout(QUIET * 3).is_err());
    }

    #[test]
    fn a_file_that_never_comes_to_rest_does_not_hide_others() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, changes) = channel();
        let _watcher =
            Watcher::start(&[folder.path().to_owned()], move |paths| sender.send(paths).unwrap()).unwrap();
        std::fs::write(folder.path().join("a.so"), "plugin").unwrap();
        let begin = Instant::now();
        let found = loop {
            std::fs::write(folder.path().join("log"), "on and on").unwrap();
            match changes.recv_timeout(QUIET / 10) {
                Ok(paths) => break paths,
                Err(_) => assert!(begin.elapsed() < Duration::from_secs(10), "hidden"),
            }
        };
        assert!(found.contains(&folder.path().join("a.so")), "{found:?}");
    }

    #[test]
    fn a_folder_that_is_made_later_or_again_is_watched() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("target/release");
        let (sender, changes) = channel();
        let _watcher =
            Watcher::start(std::slice::from_ref(&folder), move |paths| sender.send(paths).unwrap()).unwrap();
        let file = folder.join("a.so");
        let begin = Instant::now();
        let wait_for_the_file = || {
            while !changes.recv_timeout(Duration::from_secs(10)).unwrap().contains(&file) {
                assert!(begin.elapsed() < Duration::from_secs(30), "not reported");
            }
        };
        for _ in 0..2 {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, "plugin").unwrap();
            wait_for_the_file();
            // Now the folder itself is watched.
            std::fs::write(&file, "newer").unwrap();
            wait_for_the_file();
            std::fs::remove_dir_all(parent.path().join("target")).unwrap();
        }
    }
}
