//! Plugins of other minors of the ABI than the host's. They are built from the SDK as it is here, with its boundary
//! changed as a minor may change it: an older one has shorter tables, a newer one longer ones.

use std::path::PathBuf;
use std::sync::LazyLock;

use super::artifacts::{built, workspace};
use super::builds::{cargo_offline, mirror_changed, read, write_changed};

/// The version that the older minor claims, of a major whose minors are all supported.
pub const OLDER: &str = "1.0.0";
/// The version that the newer minor claims.
pub const NEWER: &str = "1.99.0";

/// The library of a plugin (`minor`) of an older minor: its tables end where those of the first minor did.
///
/// # Panics
/// When the build fails.
pub fn older_minor() -> PathBuf {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| build("older", OLDER, &shortened, ""));
    LIBRARY.clone()
}

/// The same plugin of a newer minor: each table that crosses has an entry more; the plugin calls the host's.
///
/// # Panics
/// When the build fails.
pub fn newer_minor() -> PathBuf {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| build("newer", NEWER, &lengthened, "--cfg newer"));
    LIBRARY.clone()
}

/// What becomes of the text of a file of the SDK, which is named from the SDK's folder.
type Change<'a> = &'a dyn Fn(&str, &str) -> String;

fn build(name: &str, version: &str, change: Change<'_>, flags: &str) -> PathBuf {
    let target =
        built("flowbay").ancestors().nth(2).expect("cargo builds into a folder of a folder").join("minors");
    let folder = target.join(format!("{name}-sources"));
    let sdk = workspace().join("sdk");
    mirror_changed(&sdk, &folder.join("sdk"), &|file, bytes| {
        let Ok(text) = String::from_utf8(bytes.clone()) else { return bytes };
        let file = file.strip_prefix(&sdk).expect("it is a file of the SDK").to_string_lossy().into_owned();
        let text = match &*file {
            "abi/Cargo.toml" => with_version(&text, version),
            _ => change(&file, &text),
        };
        text.into_bytes()
    });
    write_changed(&folder.join("Cargo.toml"), manifest(&read(&workspace().join("Cargo.toml"))).as_bytes());
    let plugin = format!(
        "[package]\nname = \"minor\"\nversion = \"{version}\"\nedition = \"2024\"\n\n[lib]\n\
         crate-type = [\"cdylib\"]\n\n[dependencies]\nflowbay-sdk.workspace = true\n\n[lints.rust]\n\
         unexpected_cfgs = {{ level = \"warn\", check-cfg = [\"cfg(newer)\"] }}\n"
    );
    write_changed(&folder.join("plugin/Cargo.toml"), plugin.as_bytes());
    // A variable would not do for the cfg: it would be another build of every dependency.
    let options = match flags.strip_prefix("--cfg ") {
        Some(cfg) => format!("println!(\"cargo::rustc-cfg={cfg}\");"),
        None => String::new(),
    };
    let script = format!("fn main() {{ println!(\"cargo::rustc-env=MINOR={version}\"); {options} }}\n");
    write_changed(&folder.join("plugin/build.rs"), script.as_bytes());
    write_changed(
        &folder.join("plugin/src/lib.rs"),
        read(&workspace().join("tests/minors/plugin.rs")).as_bytes(),
    );
    if !folder.join("Cargo.lock").exists() {
        write_changed(&folder.join("Cargo.lock"), read(&workspace().join("Cargo.lock")).as_bytes());
    }
    // Each has a folder of its own below, since both libraries have one name; that is what makes them one plugin.
    cargo_offline(&folder.join("Cargo.toml"), &target.join(name), "minor");
    target.join(name).join(format!("debug/libminor{}", std::env::consts::DLL_SUFFIX))
}

/// The product's manifest for the SDK and the plugin alone.
fn manifest(text: &str) -> String {
    let mut manifest = String::new();
    let mut section = "";
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        }
        if section == "[workspace]" && ["default-members", "exclude"].iter().any(|key| line.starts_with(key))
        {
            continue;
        } else if section == "[workspace]" && line.starts_with("members") {
            manifest.push_str("members = [\"plugin\", \"sdk\", \"sdk/abi\", \"sdk/macros\"]");
        } else if line.starts_with("flowbay-abi ") {
            manifest.push_str("flowbay-abi = { path = \"sdk/abi\" }");
        } else if line.starts_with("unsafe_code") {
            // The entries that are put in have no reasons written beside them.
            manifest.push_str("unsafe_code = \"allow\"");
        } else {
            manifest.push_str(line);
        }
        manifest.push('\n');
    }
    manifest
}

fn with_version(manifest: &str, version: &str) -> String {
    let line = manifest.lines().find(|line| line.starts_with("version = ")).expect("a crate has a version");
    manifest.replacen(line, &format!("version = \"{version}\""), 1)
}

// ---- What a minor may change

const HOST: &str = "pub struct HostVTable {";
const NODE: &str = "pub struct NodeVTable {";
const ROOT: &str = "pub struct PluginRoot {";
/// The tables that neither side looks for more in.
const OTHERS: [(&str, &str); 3] =
    [("abi/src/host.rs", "FutureVTable"), ("abi/src/io.rs", "IoVTable"), ("abi/src/io.rs", "SessionVTable")];

/// Without the entries that came after the first minor, those behind the field that ends the prefix. What would call
/// them finds that they are not there.
fn shortened(file: &str, text: &str) -> String {
    let table = match file {
        "abi/src/host.rs" => HOST,
        "abi/src/node.rs" => NODE,
        "abi/src/root.rs" => ROOT,
        _ => return text.to_owned(),
    };
    let (before, body, after) = block(text, table);
    let marked = body.find("#[sabi(last_prefix_field)]").expect("a table says where its prefix ends");
    let end =
        marked + body[marked..].find(";\n").or_else(|| body[marked..].find(",\n")).expect("a field ends") + 2;
    let mut text = format!("{before}{}{after}", &body[..end]);
    for (name, kind) in fields(&body[end..]) {
        let entry = format!("{name}: {name}::<");
        text = text
            .lines()
            .filter(|line| !line.trim().starts_with(&entry))
            .map(|line| format!("{line}\n"))
            .collect();
        text = text.replace(&format!("self.vtable.{name}()"), &format!("None::<{kind}>"));
    }
    text
}

/// With one more entry in each table, and the calls that lead there.
fn lengthened(file: &str, text: &str) -> String {
    let mut text = text.to_owned();
    for (_, table) in OTHERS.iter().filter(|(of, _)| *of == file) {
        let entry = "from_the_future: unsafe extern \"C\" fn(*const ()) -> u64,\n";
        let filled = "from_the_future: { unsafe extern \"C\" fn added(_: *const ()) -> u64 { 45 } added },";
        text = entered(&text, &format!("pub struct {table} {{"), entry, table, filled);
    }
    let text = &text;
    match file {
        "abi/src/host.rs" => {
            let entry = "#[sabi(missing_field(option))]\nfrom_the_future: unsafe extern \"C\" fn(*const ()) -> u64,\n";
            let text = entered(text, HOST, entry, "HostVTable", "from_the_future: from_the_future::<H>,");
            let text = text.replacen(
                "mod shims {",
                "mod shims {\nunsafe extern \"C\" fn from_the_future<H: HostApi>(_: *const ()) -> u64 { 42 }",
                1,
            );
            text + "\nimpl HostNode {\n/// What only this minor has.\npub fn from_the_future(&self) -> Option<u64> {\n\
                    self.vtable.from_the_future().map(|call| unsafe { call(self.ptr) })\n}\n}\n"
        }
        "abi/src/node.rs" => {
            let entry = "from_the_future: unsafe extern \"C\" fn(*const ()) -> u64,\n";
            let text = entered(text, NODE, entry, "NodeVTable", "from_the_future: from_the_future::<N>,");
            text.replacen(
                "mod shims {",
                "mod shims {\nunsafe extern \"C\" fn from_the_future<N: PluginNode>(_: *const ()) -> u64 { 43 }",
                1,
            )
        }
        "abi/src/root.rs" => {
            let (before, body, after) = block(text, ROOT);
            format!(
                "{before}{body}/// What only this minor has.\npub from_the_future: extern \"C\" fn() -> u64,\n{after}"
            )
        }
        "src/plugin.rs" => {
            let made = "run_tls_dtors: tls_hook::run_tls_dtors,";
            assert!(text.contains(made), "the SDK makes its root otherwise");
            text.replacen(made, &format!("{made} from_the_future,"), 1)
                + "\nextern \"C\" fn from_the_future() -> u64 { 44 }\n"
        }
        "src/context.rs" => {
            text.to_owned()
                + "\nimpl Ctx {\n/// What only this minor has.\npub fn from_the_future(&self) -> Option<u64> {\n\
                   self.inner.host.from_the_future()\n}\n}\n"
        }
        _ => text.to_owned(),
    }
}

/// A table with one more entry, in its type and where it is filled.
fn entered(text: &str, table: &str, entry: &str, name: &str, filled: &str) -> String {
    let (before, body, after) = block(text, table);
    let text = format!("{before}{body}{entry}{after}");
    let (before, body, after) = block(&text, &format!("WithMetadata::new({name} {{"));
    let comma = if body.trim_end().ends_with(',') { "" } else { "," };
    format!("{before}{body}{comma}{filled}\n{after}")
}

/// A text before, inside and behind the braces that open with `head`.
fn block<'a>(text: &'a str, head: &str) -> (&'a str, &'a str, &'a str) {
    let from = text.find(head).unwrap_or_else(|| panic!("no {head:?}")) + head.len();
    let mut depth = 1;
    let end = text[from..].find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    let end = from + end.expect("what opens closes");
    (&text[..from], &text[from..end], &text[end..])
}

/// Names and types of the fields in a part of a struct.
fn fields(body: &str) -> Vec<(String, String)> {
    let code: String = body
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//") && !line.starts_with("#["))
        .collect::<Vec<_>>()
        .join(" ");
    let mut fields = Vec::new();
    let mut depth = 0;
    let mut field = String::new();
    for c in code.chars() {
        depth += i32::from("(<[".contains(c)) - i32::from(")]".contains(c));
        // Not the arrow of a function.
        depth -= i32::from(c == '>' && !field.ends_with('-'));
        if c == ',' && depth == 0 {
            fields.push(std::mem::take(&mut field));
        } else {
            field.push(c);
        }
    }
    let split = |field: String| {
        let (name, kind) = field.split_once(':')?;
        Some((name.trim().trim_start_matches("pub ").to_owned(), kind.trim().to_owned()))
    };
    fields.into_iter().filter_map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_whatever_their_types() {
        let body = "    // A comment, with a comma.\n    #[sabi(missing_field(option))]\n    \
                    a: unsafe extern \"C\" fn(*const (), F<()>) -> R<(), E>,\n    pub b: u8,\n";
        let expected = [("a", "unsafe extern \"C\" fn(*const (), F<()>) -> R<(), E>"), ("b", "u8")];
        assert_eq!(fields(body), expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    }

    #[test]
    fn a_block_ends_where_its_braces_do() {
        assert_eq!(block("a { b { c } d } e", "a {"), ("a {", " b { c } d ", "} e"));
    }

    #[test]
    fn tables_become_shorter_and_longer() {
        for file in ["abi/src/host.rs", "abi/src/node.rs", "abi/src/root.rs"] {
            let text = read(&workspace().join("sdk").join(file));
            assert!(lengthened(file, &text).contains("from_the_future"), "{file}");
            assert!(!shortened(file, &text).contains("sabi(missing_field(option))"), "{file}");
        }
        for (file, table) in OTHERS {
            let text = lengthened(file, &read(&workspace().join("sdk").join(file)));
            for head in [format!("pub struct {table} {{"), format!("WithMetadata::new({table} {{")] {
                assert!(block(&text, &head).1.contains("from_the_future"), "{head} of {file}");
            }
        }
    }
}
