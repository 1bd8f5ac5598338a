//! `flowbay new`: a plugin to begin with.

use std::{fs, io, path::Path};

/// The files of a new plugin: where they go, and their text with `{{…}}` to be filled in.
const FILES: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("../templates/plugin/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("../templates/plugin/lib.rs.txt")),
    ("src/lower-case.html", include_str!("../templates/plugin/lower-case.html.txt")),
    ("flow.json", include_str!("../templates/plugin/flow.json.txt")),
    ("README.md", include_str!("../templates/plugin/README.md.txt")),
    (".gitignore", include_str!("../templates/plugin/gitignore.txt")),
];

/// Writes a new plugin into the folder `path`, which is created. The folder's name is the crate's. With `sdk` the
/// plugin is built against the SDK in that folder, otherwise against the published one of this host's version.
///
/// # Errors
/// The name is no name of a crate, the folder is there and not empty, there is no SDK in `sdk`, or it cannot be
/// written; one line that says so.
pub fn new(path: &Path, sdk: Option<&Path>) -> Result<(), String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    check_name(name)?;
    let sdk = match sdk {
        None => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
        Some(sdk) => sdk_by_path(sdk)?,
    };
    match fs::read_dir(path).map(|mut files| files.next().is_some()) {
        Ok(true) => {
            return Err(format!("{} is there already and not empty; choose another name", path.display()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(format!("{} is there already and is no folder; choose another name", path.display()));
        }
        _ => {}
    }
    for (file, template) in FILES {
        let text = template
            .replace("{{name}}", name)
            .replace("{{NAME}}", &name.to_uppercase())
            .replace("{{sdk}}", &sdk);
        write(&path.join(file), &text)
            .map_err(|error| format!("cannot write {}: {error}", path.join(file).display()))?;
    }
    Ok(())
}

/// What Cargo takes for the name of a package that is a library.
fn check_name(name: &str) -> Result<(), String> {
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if begins_well && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        Ok(())
    } else {
        Err(format!(
            "`{name}` is no name for a crate: it has letters, digits, - and _, and begins with a letter"
        ))
    }
}

/// The dependency on an SDK in a folder, by its absolute path: the plugin may be moved, or built from elsewhere.
fn sdk_by_path(sdk: &Path) -> Result<String, String> {
    let manifest = sdk.join("Cargo.toml");
    let is_sdk = fs::read_to_string(&manifest)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .is_some_and(|manifest| manifest["package"]["name"].as_str() == Some("flowbay-sdk"));
    if !is_sdk {
        return Err(format!("{} is no folder of the crate flowbay-sdk", sdk.display()));
    }
    let absolute = fs::canonicalize(sdk).map_err(|error| format!("{}: {error}", sdk.display()))?;
    let path = absolute.to_str().ok_or_else(|| format!("{} is no UTF-8 path", absolute.display()))?;
    Ok(format!("{{ path = {} }}", toml::Value::from(path)))
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // Never over a file that is there.
    fs::File::create_new(file).and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_crate_is_refused() {
        for name in ["", "7up", "a b", "ä", "-x", "a/b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        for name in ["a", "my-nodes", "my_nodes2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn files_that_are_there_are_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my-nodes");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("notes"), "mine").unwrap();
        let error = new(&path, None).unwrap_err();
        assert!(error.contains("my-nodes") && error.contains("not empty"), "{error}");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);

        fs::write(folder.path().join("file"), "mine").unwrap();
        assert!(new(&folder.path().join("file"), None).is_err());
    }

    #[test]
    fn everything_is_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my-nodes");
        new(&path, None).unwrap();
        for (file, _) in FILES {
            let text = fs::read_to_string(path.join(file)).unwrap();
            assert!(!text.contains("{{"), "{file}: {text}");
        }
        let manifest: toml::Table = fs::read_to_string(path.join("Cargo.toml")).unwrap().parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("my-nodes"));
        assert_eq!(manifest["dependencies"]["flowbay-sdk"].as_str(), Some(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn an_sdk_is_named_by_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my-nodes");
        let error = new(&path, Some(folder.path())).unwrap_err();
        assert!(error.contains("no folder of the crate flowbay-sdk"), "{error}");
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
        new(&path, Some(&sdk)).unwrap();
        let manifest: toml::Table = fs::read_to_string(path.join("Cargo.toml")).unwrap().parse().unwrap();
        let named = Path::new(manifest["dependencies"]["flowbay-sdk"]["path"].as_str().unwrap());
        assert_eq!(named, fs::canonicalize(sdk).unwrap());
    }
}
