//! Watches folders: when files in them have been quiet for a moment, it says which. Knows nothing of plugins.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
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
                while let Ok(first) = events.recv() {
                    let mut paths = BTreeSet::from([first]);
                    loop {
                        match events.recv_timeout(QUIET) {
                            Ok(path) => {
                                paths.insert(path);
                            }
                            Err(RecvTimeoutError::Timeout) => break,
                            Err(RecvTimeoutError::Disconnected) => return,
                        }
                    }
                    changed(paths);
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
}
