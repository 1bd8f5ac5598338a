//! Where the key to the credentials comes from.

use std::path::Path;

use serde_json::Value;

use super::{CredentialsError, cipher::Key, file::read_small};
use crate::settings::Settings;

/// Environment variables that may hold the secret, the first of them first. Flows do not see them.
pub const SECRET_VARIABLES: [&str; 2] = ["FLOWBAY_CREDENTIAL_SECRET", "NODE_RED_CREDENTIAL_SECRET"];

/// Files beside the flow file in which Node-RED keeps the key that it made itself when it was given none; the second is
/// that of old versions.
pub const RUNTIME_FILES: [&str; 2] = [".config.runtime.json", ".config.json"];

/// A key, and where it comes from, for people.
#[derive(Clone)]
pub struct Secret {
    /// The key.
    pub key: Key,
    /// Its origin: a variable or a file.
    pub origin: String,
}

/// The secrets that may open credentials in `folder`: the one given, then the one that Node-RED made.
///
/// # Errors
/// What was given is unusable.
pub fn all(settings: &Settings, folder: &Path) -> Result<Vec<Secret>, CredentialsError> {
    Ok(given(settings)?.into_iter().chain(generated(folder)).collect())
}

/// The secret that the settings or the environment give.
///
/// # Errors
/// It is unusable.
pub fn given(settings: &Settings) -> Result<Option<Secret>, CredentialsError> {
    if let Some(file) = &settings.credential_secret_file {
        let bytes =
            read_small(file).map_err(|error| CredentialsError::Unreadable { file: file.clone(), error })?;
        return secret(bytes, file.display().to_string()).map(Some);
    }
    for variable in SECRET_VARIABLES {
        if let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
            let bytes = std::os::unix::ffi::OsStringExt::into_vec(value);
            return secret(bytes, format!("the environment variable {variable}")).map(Some);
        }
    }
    Ok(None)
}

fn secret(bytes: Vec<u8>, origin: String) -> Result<Secret, CredentialsError> {
    let bad = |origin, reason: &str| CredentialsError::BadSecret { origin, reason: reason.to_owned() };
    let Ok(text) = String::from_utf8(bytes) else { return Err(bad(origin, "is not UTF-8")) };
    // Only the end of the line: blanks may be part of it.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(bad(origin, "is empty"));
    }
    Ok(Secret { key: Key::of_secret(text), origin })
}

/// The secret that Node-RED made by itself. What is not there, or broken, is none.
fn generated(folder: &Path) -> Option<Secret> {
    RUNTIME_FILES.iter().find_map(|name| {
        let file = folder.join(name);
        let settings: Value = serde_json::from_slice(&read_small(&file).ok()?).ok()?;
        let text = settings.get("_credentialSecret")?.as_str().filter(|text| !text.is_empty())?;
        Some(Secret { key: Key::of_secret(text), origin: file.display().to_string() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &[u8]) -> (tempfile::TempDir, Settings) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, text).unwrap();
        let settings = Settings { credential_secret_file: Some(file), ..Settings::default() };
        (folder, settings)
    }

    #[test]
    fn a_secret_file_is_its_text_without_the_end_of_the_line() {
        for text in ["open sesame ", "open sesame \n", "open sesame \r\n"] {
            let (_folder, settings) = settings(text.as_bytes());
            let secret = given(&settings).unwrap().unwrap();
            assert!(secret.key == Key::of_secret("open sesame "), "{text:?}");
        }
    }

    #[test]
    fn an_unusable_secret_is_an_error_that_says_where_it_is_and_not_what() {
        for (text, says) in [(&b"\n"[..], "is empty"), (b"\xff\xfeabc", "is not UTF-8")] {
            let (_folder, settings) = settings(text);
            let error = given(&settings).map(drop).unwrap_err().to_string();
            assert!(error.contains("secret") && error.ends_with(says) && !error.contains("abc"), "{error}");
        }
        let (folder, settings) = settings(b"x");
        std::fs::remove_file(folder.path().join("secret")).unwrap();
        assert!(matches!(given(&settings), Err(CredentialsError::Unreadable { .. })));
    }

    #[test]
    fn node_reds_own_secret_comes_after_the_one_given_and_the_newer_file_first() {
        let (folder, settings) = settings(b"given");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let origins = || -> Vec<String> {
            let all = all(&settings, folder.path()).unwrap();
            all.iter().map(|secret| secret.origin.rsplit('/').next().unwrap().to_owned()).collect()
        };
        assert_eq!(origins(), ["secret"]);
        write(".config.json", r#"{"_credentialSecret": "old"}"#);
        assert_eq!(origins(), ["secret", ".config.json"]);
        write(".config.runtime.json", r#"{"instanceId": "x", "_credentialSecret": "new"}"#);
        assert_eq!(origins(), ["secret", ".config.runtime.json"]);
        for broken in ["", "[1]", r#"{"_credentialSecret": 5}"#, r#"{"_credentialSecret": ""}"#] {
            write(".config.runtime.json", broken);
            assert_eq!(origins(), ["secret", ".config.json"], "{broken:?}");
        }
    }
}
