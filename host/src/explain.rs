//! `flowbay plugins FILE…`: what a library file is, whether this host would load it, why not, and what to do.

use std::{fmt::Write as _, path::Path};

use crate::{
    admin::table::harmless,
    loader::Loader,
    plugin::{self, FileKind, LoadSettings, Loaded, PluginInfo, Refusal},
    registry::Registry,
    settings::Settings,
};

/// What is to be said of a file.
pub struct Explanation {
    /// Some lines, the first of them the file's name.
    pub text: String,
    /// Whether the host would load it.
    pub loads: bool,
}

/// Explains files, each of which is tried as the host would try it.
pub struct Explainer {
    load: LoadSettings,
    /// The plugins that the host has already: theirs are names that are taken.
    registry: Registry,
}

impl Explainer {
    /// For a host with these settings.
    pub fn new(settings: &Settings) -> Self {
        let loader = Loader::new(settings);
        let registry = Registry::default();
        for plugin in loader.examine(None, &registry) {
            // One of two that do not go together is enough.
            let _ = registry.add(plugin);
        }
        Self { load: settings.into(), registry }
    }

    /// Explains one file.
    pub fn explain(&self, file: &Path) -> Explanation {
        let mut page = Page::of(file);
        let kind = match plugin::file_kind(file) {
            Ok(kind) => kind,
            Err(error) => {
                page.line("is", &format!("nothing that can be read: {error}"));
                page.line("loads", "no");
                if file.is_dir() {
                    page.line("to do", "name the files in it, or give the folder as --plugins DIR");
                }
                return page.finished(false);
            }
        };
        match plugin::load(file, &self.load) {
            Ok(Loaded::Plugin(loaded)) => self.explain_plugin(page, file, &kind, loaded.info()),
            Ok(Loaded::PassedOver) => {
                page.line(
                    "is",
                    &format!("{}: a procedural macro, which the compiler loads", described(&kind)),
                );
                page.line("loads", "no; the host passes it over in silence, so it may stay where it is");
                page.finished(false)
            }
            Err(error) => {
                page.line("is", &described(&kind));
                page.line("loads", &format!("no: it {}", error.refusal.problem()));
                if let Some(remedy) = remedy(&error.refusal, &kind) {
                    page.line("to do", &remedy);
                }
                page.finished(false)
            }
        }
    }

    fn explain_plugin(&self, mut page: Page, file: &Path, kind: &FileKind, info: &PluginInfo) -> Explanation {
        page.line("is", &format!("the Flowbay plugin {} {}; {}", info.name, info.version, described(kind)));
        page.line(
            "built",
            &format!("with flowbay-sdk {} for ABI {}, by rustc {}", info.sdk, info.abi, info.rustc),
        );
        let types: Vec<&str> = info.types.iter().map(|node_type| node_type.name.as_str()).collect();
        page.line("types", &types.join(", "));
        if let Some(conflict) = self.registry.taken_type(info) {
            let reason = conflict.to_string();
            let reason = reason.split_once("refused: ").map_or(reason.as_str(), |(_, reason)| reason);
            let (why, what) = reason.split_once("; ").unwrap_or((reason, ""));
            page.line("loads", &format!("no: {why}"));
            page.line("to do", what);
            return page.finished(false);
        }
        page.line("loads", "yes");
        if let Some(first) = self.registry.plugin(&info.name)
            && std::fs::canonicalize(&first.info().file).ok() != std::fs::canonicalize(file).ok()
        {
            let first = first.info().file.display().to_string();
            page.line("note", &format!("{first} has a plugin of this name; a host uses one of the two"));
        }
        if !plugin::is_library_name(file) {
            let suffix = std::env::consts::DLL_SUFFIX;
            page.line(
                "note",
                &format!("in a plugin folder only files whose names end with {suffix} are looked at"),
            );
        }
        if !info.unloadable {
            page.line(
                "note",
                "it stays in memory when newer code has taken over: it was not built with the flowbay-sdk's \
                 thread-local hook",
            );
        }
        page.finished(true)
    }
}

fn described(kind: &FileKind) -> String {
    let made = kind.rustc.as_ref().map_or_else(String::new, |version| format!(", made by rustc {version}"));
    format!("{} of {} bytes{made}", kind.text, kind.bytes)
}

/// What to do, with what is known of the file besides the refusal.
fn remedy(refusal: &Refusal, kind: &FileKind) -> Option<String> {
    Some(match refusal {
        Refusal::NotAPlugin if kind.rustc.is_some() => {
            "if it should be a plugin: it is a Rust library without export_plugin!(…), so list its node types there"
                .to_owned()
        }
        Refusal::NotAPlugin => "none: it is some other library; a plugin is a cdylib made with flowbay-sdk".to_owned(),
        Refusal::NotALibrary(_) if kind.text.contains("rlib") => {
            "set crate-type = [\"cdylib\"] under [lib] in the plugin's Cargo.toml and build it again".to_owned()
        }
        Refusal::NotALibrary(_) if kind.linked => {
            format!("build the plugin for this host: {}, a shared library", target())
        }
        Refusal::NotALibrary(_) => {
            "none: it is no library; cargo puts a plugin's at target/release/lib….so".to_owned()
        }
        Refusal::OtherMachine => format!("build the plugin for this host: {}", target()),
        other => other.remedy()?,
    })
}

fn target() -> String {
    format!("{} on {}", std::env::consts::ARCH, std::env::consts::OS)
}

/// Lines under a file's name.
struct Page(String);

impl Page {
    fn of(file: &Path) -> Self {
        Self(format!("{}\n", harmless(&file.display().to_string())))
    }

    fn line(&mut self, what: &str, text: &str) {
        let _ = writeln!(self.0, "  {what:<8}{}", harmless(text));
    }

    fn finished(self, loads: bool) -> Explanation {
        Explanation { text: self.0, loads }
    }
}
