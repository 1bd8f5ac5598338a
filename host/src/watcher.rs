//! Watches folders: when files in them have been quiet for a moment, it says which. Knows nothing of plugins.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// How long nothing may happen before a change counts as finished: a linker writes in bursts, `cp` in pieces.
pub const QUIET: Duration = Duration::from_millis(200);

/// A running watch; it ends when this is dropped.
pub struct Watcher {
    _inner: RecommendedWatcher,
}

impl Watcher {
    /// Calls `changed` on a thread of its own with the files that changed, each time they have become quiet.
    ///
    /// # Errors
    /// The system cannot watch; the text says why. A folder that does not exist is passed over.
    pub fn start(
        folders: &[PathBuf],
        mut changed: impl FnMut(BTreeSet<PathBuf>) + Send + 'static,
    ) -> Result<Self, String> {
        let (sender, events) = channel::<PathBuf>();
        let mut inner = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
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
        for folder in folders {
            if folder.is_dir() {
                inner
                    .watch(folder, RecursiveMode::NonRecursive)
                    .map_err(|error| format!("{}: {error}", Path::display(folder)))?;
            }
        }
        std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || {
                // Files that changed, and when they will have been quiet for long enough. Each for itself: one that
                // never comes to rest, a log in the same folder for instance, must not hide the others.
                let mut changing: BTreeMap<PathBuf, Instant> = BTreeMap::new();
                loop {
                    let event = match changing.values().min() {
                        None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                        Some(due) => events.recv_timeout(due.saturating_duration_since(Instant::now())),
                    };
                    let now = Instant::now();
                    match event {
                        Ok(path) => drop(changing.insert(path, now + QUIET)),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                    let quiet: BTreeSet<PathBuf> = changing
                        .iter()
                        .filter(|(_, due)| **due <= now)
                        .map(|(path, _)| path.clone())
                        .collect();
                    if !quiet.is_empty() {
                        changing.retain(|path, _| !quiet.contains(path));
                        changed(quiet);
                    }
                }
            })
            .map_err(|error| error.to_string())?;
        Ok(Self { _inner: inner })
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
}
