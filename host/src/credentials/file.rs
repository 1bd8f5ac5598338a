//! The credentials file: found, read, changed, written in one step.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{CredentialsError, cipher::Key, secret};
use crate::settings::Settings;

/// Longest file that is read here, in bytes: as for flow files.
const MAX_BYTES: u64 = 16 << 20;

/// Under which the ciphertext stands in the file.
const SEALED: &str = "$";

/// The credentials beside one flow file, decrypted.
pub struct CredentialsFile {
    path: PathBuf,
    entries: Map<String, Value>,
    /// What it is encrypted with, or is to be.
    key: Option<Key>,
    /// Keeps others that would change it waiting, until it is closed.
    _lock: Option<File>,
}

impl CredentialsFile {
    /// The file that belongs to a flow file: `flows.json` has `flows_cred.json` beside it.
    #[must_use]
    pub fn path_for(flows: &Path) -> PathBuf {
        let mut name = flows.file_stem().unwrap_or_default().to_owned();
        name.push("_cred");
        if let Some(extension) = flows.extension() {
            name.push(".");
            name.push(extension);
        }
        flows.with_file_name(name)
    }

    /// Reads the credentials of `flows`. A file that is not there is an empty one.
    ///
    /// # Errors
    /// It cannot be read, is something else, or no secret opens it.
    pub fn read(flows: &Path, settings: &Settings) -> Result<Self, CredentialsError> {
        let path = Self::path_for(flows);
        let secrets = secret::all(settings, &folder_of(flows))?;
        let mut key = secrets.first().map(|secret| secret.key.clone());
        let bytes = match read_small(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, entries: Map::new(), key, _lock: None });
            }
            Err(error) => return Err(CredentialsError::Unreadable { file: path, error }),
        };
        let malformed =
            |reason: &str| CredentialsError::Malformed { file: path.clone(), reason: reason.to_owned() };
        // As a value of any kind first: errors about kinds would quote what is there.
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| malformed(&error.to_string()))?;
        let Value::Object(mut entries) = value else { return Err(malformed("it must be an object")) };
        if let Some(sealed) = entries.get(SEALED) {
            let sealed = sealed.as_str().ok_or_else(|| malformed("its $ must be a text"))?;
            if secrets.is_empty() {
                return Err(CredentialsError::NoSecret { file: path });
            }
            let opened =
                secrets.iter().find_map(|secret| Some((secret.key.open(sealed)?, secret.key.clone())));
            let Some((opened, with)) = opened else {
                let tried = secrets.into_iter().map(|secret| secret.origin).collect();
                return Err(CredentialsError::WrongSecret { file: path, tried });
            };
            entries = opened;
            // It stays with the secret that whoever else writes it has.
            key = Some(with);
        }
        Ok(Self { path, entries, key, _lock: None })
    }

    /// As [`Self::read`], and keeps others that would change it waiting until this is dropped.
    ///
    /// # Errors
    /// As for [`Self::read`]; or there is no secret to encrypt it with.
    pub fn open(flows: &Path, settings: &Settings) -> Result<Self, CredentialsError> {
        let path = Self::path_for(flows);
        let folder = folder_of(flows);
        // The folder, because the file itself is another one after each change.
        let lock = File::open(&folder)
            .and_then(|folder| folder.lock().map(|()| folder))
            .map_err(|error| CredentialsError::Unwritable { file: path, error })?;
        let file = Self::read(flows, settings)?;
        if file.key.is_none() {
            return Err(CredentialsError::NoSecret { file: file.path });
        }
        Ok(Self { _lock: Some(lock), ..file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The credentials, by node id. Secret.
    pub fn entries(&self) -> &Map<String, Value> {
        &self.entries
    }

    /// The credentials, to be changed. Secret.
    pub fn entries_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.entries
    }

    /// The credentials, by node id. Secret.
    #[must_use]
    pub fn into_entries(self) -> Map<String, Value> {
        self.entries
    }

    /// Writes the file, encrypted: whoever reads it sees all of the old or all of the new. Only its owner may read it;
    /// the owner stays the same, or is that of the flow file `flows`.
    ///
    /// # Errors
    /// It cannot be written. What was there is untouched.
    pub fn write(&self, flows: &Path) -> Result<(), CredentialsError> {
        let Some(key) = &self.key else { return Err(CredentialsError::NoSecret { file: self.path.clone() }) };
        // A link stays one.
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let write = || -> io::Result<()> {
            let folder = folder_of(&target);
            // Its mode is 0600 from the start.
            let mut file = tempfile::Builder::new().prefix(".flowbay-cred-").tempfile_in(&folder)?;
            serde_json::to_writer(&mut file, &json!({ SEALED: key.seal(&self.entries)? }))?;
            file.flush()?;
            let owner = fs::metadata(&target).or_else(|_| fs::metadata(flows))?;
            if file.as_file().metadata()?.uid() != owner.uid() {
                std::os::unix::fs::fchown(file.as_file(), Some(owner.uid()), Some(owner.gid()))?;
            }
            file.as_file().sync_all()?;
            file.persist(&target)?;
            File::open(&folder)?.sync_all()
        };
        write().map_err(|error| CredentialsError::Unwritable { file: self.path.clone(), error })
    }
}

/// The folder that a file is in.
pub(super) fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Reads an ordinary file of at most [`MAX_BYTES`].
pub(super) fn read_small(file: &Path) -> io::Result<Vec<u8>> {
    // Not a pipe, on which opening would wait for ever.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A folder with `flows.json` in it, and settings with a secret.
    fn place() -> (tempfile::TempDir, PathBuf, Settings) {
        let folder = tempfile::tempdir().unwrap();
        let flows = folder.path().join("flows.json");
        fs::write(&flows, "[]").unwrap();
        fs::write(folder.path().join("secret"), "open").unwrap();
        let settings =
            Settings { credential_secret_file: Some(folder.path().join("secret")), ..Settings::default() };
        (folder, flows, settings)
    }

    fn error(flows: &Path, settings: &Settings) -> String {
        CredentialsFile::read(flows, settings).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn the_file_is_named_after_the_flow_file() {
        for (flows, expected) in [
            ("flows.json", "flows_cred.json"),
            ("a.b/flows_host.json", "a.b/flows_host_cred.json"),
            ("/x/flows", "/x/flows_cred"),
            (".flows", ".flows_cred"),
        ] {
            assert_eq!(CredentialsFile::path_for(Path::new(flows)), Path::new(expected));
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_only_its_owner_may() {
        let (_folder, flows, settings) = place();
        let mut file = CredentialsFile::open(&flows, &settings).unwrap();
        file.entries_mut().insert("a".into(), json!({"password": "sesame"}));
        file.write(&flows).unwrap();
        let path = CredentialsFile::path_for(&flows);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains("sesame"));
        let again = CredentialsFile::read(&flows, &settings).unwrap();
        assert_eq!(again.entries()["a"], json!({"password": "sesame"}));
        assert_eq!(fs::read_dir(flows.parent().unwrap()).unwrap().count(), 3, "nothing is left beside it");
    }

    #[test]
    fn a_file_goes_on_with_the_secret_that_opens_it() {
        let (folder, flows, settings) = place();
        let generated = folder.path().join(".config.runtime.json");
        fs::write(&generated, r#"{"_credentialSecret": "made"}"#).unwrap();
        let mut file = CredentialsFile::open(&flows, &Settings::default()).unwrap();
        file.entries_mut().insert("a".into(), json!({"x": "y"}));
        file.write(&flows).unwrap();
        drop(file);
        // Now with another secret given: the one that Node-RED made still opens it, and still closes it.
        CredentialsFile::open(&flows, &settings).unwrap().write(&flows).unwrap();
        assert_eq!(CredentialsFile::read(&flows, &Settings::default()).unwrap().entries()["a"]["x"], "y");
    }

    #[test]
    fn a_plain_file_is_read_and_encrypted_when_it_is_written() {
        let (_folder, flows, settings) = place();
        let path = CredentialsFile::path_for(&flows);
        fs::write(&path, r#"{"a": {"password": "sesame"}}"#).unwrap();
        let plain = CredentialsFile::read(&flows, &Settings::default()).unwrap();
        assert_eq!(plain.entries()["a"]["password"], "sesame");
        assert!(matches!(
            CredentialsFile::open(&flows, &Settings::default()),
            Err(CredentialsError::NoSecret { .. })
        ));
        CredentialsFile::open(&flows, &settings).unwrap().write(&flows).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with(r#"{"$":""#));
    }

    #[test]
    fn what_is_no_credentials_file_is_a_line_that_names_it_and_quotes_nothing() {
        let (_folder, flows, settings) = place();
        let path = CredentialsFile::path_for(&flows);
        let sealed = Key::of_secret("other").seal(&Map::new()).unwrap();
        for (text, says) in [
            ("", "not a credentials file: EOF"),
            ("sesame", "not a credentials file: expected"),
            ("\"sesame\"", "must be an object"),
            ("[\"sesame\"]", "must be an object"),
            (r#"{"$": 5}"#, "its $ must be a text"),
            (r#"{"$": "sesame"}"#, "cannot be decrypted with the secret from"),
            (&json!({"$": sealed}).to_string(), "cannot be decrypted with the secret from"),
            (&format!("{{\"a\":{}", "[".repeat(200_000)), "recursion limit"),
        ] {
            fs::write(&path, text).unwrap();
            let error = error(&flows, &settings);
            assert!(error.contains("flows_cred.json: ") && error.contains(says), "{text:.40}: {error}");
            assert!(!error.contains("sesame") && !error.contains('\n'), "{error}");
        }
        fs::write(&path, json!({"$": sealed}).to_string()).unwrap();
        let error = CredentialsFile::read(&flows, &Settings::default()).map(drop).unwrap_err().to_string();
        assert!(error.contains("no secret") && error.contains("NODE_RED_CREDENTIAL_SECRET"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let (_folder, flows, settings) = place();
        fs::create_dir(CredentialsFile::path_for(&flows)).unwrap();
        assert!(error(&flows, &settings).ends_with("not a file"));
    }

    #[test]
    fn a_link_stays_a_link() {
        let (folder, flows, settings) = place();
        let path = CredentialsFile::path_for(&flows);
        let real = folder.path().join("elsewhere.json");
        fs::write(&real, "{}").unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        CredentialsFile::open(&flows, &settings).unwrap().write(&flows).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains('$'));
    }
}
