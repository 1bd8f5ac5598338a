//! `flowbay new`: a plugin to begin with.

use std::{fs, io, path::Path};

/// The files of a new plugin: where they go, and their text with `{{…}}` to be filled in.
const FILES: [(&str, &str); 7] = [
    ("Cargo.toml", include_str!("../templates/plugin/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("../templates/plugin/lib.rs.txt")),
    ("src/lower-case.html", include_str!("../templates/plugin/lower-case.html.txt")),
    ("tests/flow.rs", include_str!("../templates/plugin/flow.rs.txt")),
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

/// Names that no crate with this template can have: words of the language, libraries that every program has, and what
/// the plugin itself depends on.
const TAKEN: [&str; 56] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "flowbay-sdk",
    "flowbay_sdk",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "use",
    "where",
];

/// What Cargo takes for the name of a package that is a library.
fn check_name(name: &str) -> Result<(), String> {
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if !begins_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    {
        return Err(format!(
            "`{name}` is no name for a crate: it has letters, digits, - and _, and begins with a letter"
        ));
    }
    if TAKEN.contains(&name) {
        return Err(format!("`{name}` is no name for a crate: it has a meaning already; choose another one"));
    }
    Ok(())
}

/// The dependency on an SDK in a folder, by its absolute path: the plugin may be moved, or built from elsewhere.
fn sdk_by_path(sdk: &Path) -> Result<String, String> {
    // In a checkout of the whole project it is one folder further down.
    let candidates = [sdk.to_owned(), sdk.join("sdk")];
    let Some(found) = candidates.iter().find(|folder| is_sdk(folder)) else {
        return Err(format!("{} is no folder of the crate flowbay-sdk", sdk.display()));
    };
    let absolute = fs::canonicalize(found).map_err(|error| format!("{}: {error}", found.display()))?;
    let path = absolute.to_str().ok_or_else(|| format!("{} is no UTF-8 path", absolute.display()))?;
    Ok(format!("{{ path = {} }}", toml::Value::from(path)))
}

fn is_sdk(folder: &Path) -> bool {
    fs::read_to_string(folder.join("Cargo.toml"))
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .is_some_and(|manifest| {
            manifest.get("package").and_then(|package| package.get("name")?.as_str()) == Some("flowbay-sdk")
        })
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
        for name in ["", "7up", "a b", "ä", "-x", "a/b", "fn", "test", "std", "serde"] {
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
    fn the_author_s_own_code_has_at_most_twenty_lines() {
        let source = include_str!("../templates/plugin/lib.rs.txt");
        let (node, _tests) = source.split_once("#[cfg(test)]").unwrap();
        let lines: Vec<&str> = node
            .lines()
            .map(str::trim)
            // Neither comments nor the editor form.
            .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("html = "))
            .collect();
        assert!(lines.len() <= 20, "{} lines:\n{}", lines.len(), lines.join("\n"));
        // And none of them is two.
        assert!(lines.iter().all(|line| line.len() <= 100 && line.matches(';').count() <= 1), "{lines:#?}");
    }

    #[test]
    fn an_sdk_is_named_by_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my-nodes");
        let error = new(&path, Some(folder.path())).unwrap_err();
        assert!(error.contains("no folder of the crate flowbay-sdk"), "{error}");
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
        for (name, given) in [("one", sdk.clone()), ("two", sdk.join(".."))] {
            let path = folder.path().join(name);
            new(&path, Some(&given)).unwrap();
            let manifest: toml::Table = fs::read_to_string(path.join("Cargo.toml")).unwrap().parse().unwrap();
            let named = Path::new(manifest["dependencies"]["flowbay-sdk"]["path"].as_str().unwrap());
            assert_eq!(named, fs::canonicalize(&sdk).unwrap());
        }
    }
}
