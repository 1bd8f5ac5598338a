//! Which files in the plugin folders are candidates.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A file that may be a plugin: it has the right name. [`super::load`] finds out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The file, in one of the folders asked for.
    pub file: PathBuf,
}

/// The shared libraries in the folders, folder by folder, each sorted by name. Subfolders are not searched.
///
/// A file that is there under several names (cargo and package managers link) or in several folders comes once,
/// under the first. A folder that does not exist has none; one that cannot be read is logged.
pub fn discover(dirs: &[PathBuf]) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let mut candidates = Vec::new();
    for dir in dirs {
        match libraries(dir) {
            Ok(files) => {
                let new = files.into_iter().filter(|(_, identity)| seen.insert(*identity));
                candidates.extend(new.map(|(file, _)| Candidate { file }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::debug!("plugin folder {} does not exist", dir.display());
            }
            Err(error) => tracing::warn!("plugin folder {} cannot be read: {error}", dir.display()),
        }
    }
    candidates
}

/// Whether a file of that name is looked at: `lib….so` and the like on this platform, and no hidden ones, which are
/// what copying tools write to before they rename.
pub fn is_library_name(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    let suffix = std::env::consts::DLL_SUFFIX.as_bytes();
    name.len() > suffix.len() && name.ends_with(suffix) && !name.starts_with(b".")
}

/// Device and inode: what two names of one file share.
type Identity = (u64, u64);

fn libraries(dir: &Path) -> io::Result<Vec<(PathBuf, Identity)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.path();
        if !is_library_name(&file) {
            continue;
        }
        match fs::metadata(&file) {
            // Links are followed; folders, pipes and devices are no libraries whatever their names.
            Ok(metadata) if metadata.is_file() => files.push((file, (metadata.dev(), metadata.ino()))),
            Ok(_) => {}
            // It is gone already, or a link that leads nowhere.
            Err(error) => tracing::debug!("{} is passed over: {error}", file.display()),
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.file.file_name().unwrap().to_str().unwrap()).collect()
    }

    fn folder_with(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(folder.path().join(file), file).unwrap();
        }
        folder
    }

    #[test]
    fn only_libraries_of_the_folder_itself_are_found_in_order() {
        let folder =
            folder_with(&["libb.so", "liba.so", "notes.txt", "libc.so.1", ".libd.so", ".so", "libe.rlib"]);
        fs::create_dir(folder.path().join("deps.so")).unwrap();
        fs::create_dir(folder.path().join("deps")).unwrap();
        fs::write(folder.path().join("deps/libf.so"), "f").unwrap();
        assert_eq!(names(&discover(&[folder.path().to_owned()])), ["liba.so", "libb.so"]);
    }

    #[test]
    fn one_file_under_two_names_comes_once() {
        let folder = folder_with(&["liba.so", "libb.so"]);
        fs::hard_link(folder.path().join("liba.so"), folder.path().join("liba-1234.so")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("libb.so"), folder.path().join("libz.so")).unwrap();
        let dirs = [folder.path().to_owned(), folder.path().join(".")];
        assert_eq!(names(&discover(&dirs)), ["liba-1234.so", "libb.so"]);
    }

    #[test]
    fn folders_come_in_the_order_given_and_missing_ones_are_no_error() {
        let first = folder_with(&["libz.so"]);
        let second = folder_with(&["liba.so"]);
        let dirs = [first.path().to_owned(), first.path().join("none"), second.path().to_owned()];
        assert_eq!(names(&discover(&dirs)), ["libz.so", "liba.so"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_passed_over() {
        let folder = folder_with(&["liba.so"]);
        std::os::unix::fs::symlink("nowhere.so", folder.path().join("libb.so")).unwrap();
        assert_eq!(names(&discover(&[folder.path().to_owned()])), ["liba.so"]);
    }
}
