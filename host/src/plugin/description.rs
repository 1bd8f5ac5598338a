//! What a plugin says of itself: a claim, read from the value it returns, checked, and kept as plain data.

use std::collections::{BTreeMap, HashSet};

use flowbay_abi::value::{self, Value};
use serde::{Deserialize, Serialize};

use super::error::Refusal;
use crate::flow::Role;

/// Longest name of a plugin or node type, in bytes: more is a mistake, and log lines must stay readable.
const MAX_NAME_BYTES: usize = 200;
/// Node types in one plugin; the largest palettes have some hundred.
const MAX_TYPES: usize = 10_000;

/// Longest text about a plugin, in bytes: a paragraph.
const MAX_ABOUT_BYTES: usize = 4096;
/// Largest icon, in bytes. Icons of a palette have one or two thousand.
const MAX_ICON_BYTES: usize = 64 * 1024;
/// Largest message catalogue, in bytes: what a large form with its help has.
const MAX_CATALOGUE_BYTES: usize = 256 * 1024;
/// Languages of one node type; Node-RED's own nodes have ten.
const MAX_LANGUAGES: usize = 100;

/// One node type of a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeTypeInfo {
    /// Its name in flow files.
    pub name: String,
    /// What the host does with its nodes beyond delivering messages.
    pub role: Role,
    /// Palette category.
    pub category: String,
    /// Background colour, as CSS writes it.
    pub color: String,
    /// The icon's file name.
    pub icon: String,
    /// The icon itself, as SVG; empty when it is none of the plugin's own.
    pub icon_svg: String,
    /// The icon's side: `left` or `right`.
    pub align: String,
    /// Number of inputs.
    pub inputs: u32,
    /// Number of outputs, where a node's configuration does not say.
    pub outputs: u32,
    /// Messages that a node may have in hand at a time; 0 is any number.
    pub concurrency: u32,
    /// Editor form and help, in the form of Node-RED's `.html` files; empty when there is none.
    pub html: String,
    /// The fields of its nodes that are kept apart from the flow file.
    pub credentials: BTreeMap<String, CredentialKind>,
    /// The editor's texts by language tag: JSON objects, as text.
    pub locales: BTreeMap<String, String>,
}

/// How a credential is shown in the editor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialKind {
    /// Readable.
    Text,
    /// Never sent back to the editor.
    Password,
}

/// The whole description, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Description {
    pub name: String,
    pub version: String,
    pub description: String,
    pub license: String,
    pub homepage: String,
    pub sdk: String,
    pub abi: String,
    pub rustc: String,
    pub types: Vec<NodeTypeInfo>,
}

#[derive(Deserialize)]
struct RawPlugin {
    name: String,
    version: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    license: String,
    #[serde(default)]
    homepage: String,
    sdk: String,
    abi: String,
    rustc: String,
    panic: String,
    types: Vec<RawType>,
}

#[derive(Deserialize)]
struct RawType {
    #[serde(rename = "type")]
    name: String,
    #[serde(default = "plain")]
    role: String,
    #[serde(default)]
    category: String,
    #[serde(default)]
    color: String,
    #[serde(default)]
    icon: String,
    #[serde(default)]
    icon_svg: String,
    #[serde(default)]
    align: String,
    #[serde(default)]
    inputs: u32,
    #[serde(default)]
    outputs: u32,
    #[serde(default = "one")]
    concurrency: u32,
    #[serde(default)]
    html: String,
    #[serde(default)]
    credentials: BTreeMap<String, CredentialKind>,
    #[serde(default)]
    locales: BTreeMap<String, String>,
}

fn plain() -> String {
    "plain".to_owned()
}

fn one() -> u32 {
    1
}

/// Reads the value that `describe` returned.
///
/// # Errors
/// It has not the shape, a name in it is unusable, or the plugin was built to abort on panics.
pub(super) fn read(value: &Value) -> Result<Description, Refusal> {
    if matches!(value, Value::Null) {
        return Err(Refusal::Description("it panicked while it described itself".to_owned()));
    }
    let raw: RawPlugin = value::from_value(value).map_err(|error| Refusal::Description(error.to_string()))?;
    check_name("the plugin's name", &raw.name)?;
    for (what, text) in
        [("version", &raw.version), ("sdk", &raw.sdk), ("abi", &raw.abi), ("rustc", &raw.rustc)]
    {
        check_name(what, text)?;
    }
    let about = [("description", &raw.description), ("license", &raw.license), ("homepage", &raw.homepage)];
    if let Some((what, _)) = about.iter().find(|(_, text)| text.len() > MAX_ABOUT_BYTES) {
        return Err(Refusal::Description(format!("{what} has more than {MAX_ABOUT_BYTES} bytes")));
    }
    match raw.panic.as_str() {
        "unwind" => {}
        "abort" => return Err(Refusal::AbortsOnPanic { name: raw.name, version: raw.version }),
        other => {
            return Err(Refusal::Description(format!(
                "panic is {other:?}, neither \"unwind\" nor \"abort\""
            )));
        }
    }
    if raw.types.is_empty() {
        return Err(Refusal::Description(format!("plugin {} has no node types", raw.name)));
    }
    if raw.types.len() > MAX_TYPES {
        return Err(Refusal::Description(format!("plugin {} has {} node types", raw.name, raw.types.len())));
    }
    let mut types: Vec<NodeTypeInfo> = Vec::with_capacity(raw.types.len());
    let mut names = HashSet::new();
    for raw_type in raw.types {
        if !names.insert(raw_type.name.clone()) {
            return Err(Refusal::Description(format!("node type {} is in it twice", raw_type.name)));
        }
        types.push(node_type(raw_type)?);
    }
    Ok(Description {
        name: raw.name,
        version: raw.version,
        description: raw.description,
        license: raw.license,
        homepage: raw.homepage,
        sdk: raw.sdk,
        abi: raw.abi,
        rustc: raw.rustc,
        types,
    })
}

fn node_type(raw: RawType) -> Result<NodeTypeInfo, Refusal> {
    check_name("the name of a node type", &raw.name)?;
    let role = role(&raw.role).ok_or_else(|| {
        Refusal::Description(format!(
            "node type {} has the role {:?}, which this host does not know",
            raw.name, raw.role
        ))
    })?;
    let fault = |fault: String| Refusal::Description(format!("node type {}: {fault}", raw.name));
    check_icon(&raw.icon, &raw.icon_svg).map_err(fault)?;
    if raw.locales.len() > MAX_LANGUAGES {
        return Err(fault(format!("it has texts in more than {MAX_LANGUAGES} languages")));
    }
    for (language, texts) in &raw.locales {
        check_catalogue(language, texts).map_err(fault)?;
    }
    Ok(NodeTypeInfo {
        name: raw.name,
        role,
        category: raw.category,
        color: raw.color,
        icon: raw.icon,
        icon_svg: raw.icon_svg,
        align: raw.align,
        inputs: raw.inputs,
        outputs: raw.outputs,
        concurrency: raw.concurrency,
        html: raw.html,
        credentials: raw.credentials,
        locales: raw.locales,
    })
}

/// What is wrong with an icon that comes with the plugin, if anything.
fn check_icon(name: &str, svg: &str) -> Result<(), String> {
    if svg.is_empty() {
        Ok(())
    } else if name.is_empty() {
        Err("icon_svg without an icon, which is its file name".to_owned())
    } else if svg.len() > MAX_ICON_BYTES {
        Err(format!("icon_svg has more than {MAX_ICON_BYTES} bytes"))
    } else if !svg.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).starts_with('<')
        || !svg.contains("<svg")
    {
        Err("icon_svg is no SVG".to_owned())
    } else {
        Ok(())
    }
}

/// What is wrong with the texts of one language, if anything.
fn check_catalogue(language: &str, texts: &str) -> Result<(), String> {
    let is_tag = (1..=35).contains(&language.len())
        && language.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    if !is_tag {
        return Err(format!("{language:.40?} in locales is no language tag"));
    }
    if texts.len() > MAX_CATALOGUE_BYTES {
        return Err(format!("its texts in {language} have more than {MAX_CATALOGUE_BYTES} bytes"));
    }
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(texts)
        .map(|_| ())
        .map_err(|error| format!("its texts in {language} are no JSON object: {error}"))
}

fn role(name: &str) -> Option<Role> {
    Some(match name {
        "plain" => Role::Plain,
        "config" => Role::Config,
        "catch" => Role::Catch,
        "status" => Role::Status,
        "complete" => Role::Complete,
        "link-in" => Role::LinkIn,
        "link-out" => Role::LinkOut,
        "link-call" => Role::LinkCall,
        "source" => Role::Source,
        _ => return None,
    })
}

fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let fault = if name.trim().is_empty() {
        "empty"
    } else if name.len() > MAX_NAME_BYTES {
        "too long"
    } else if name.chars().any(char::is_control) {
        "not printable"
    } else {
        return Ok(());
    };
    Err(Refusal::Description(format!("{what} is {fault}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(change: impl FnOnce(&mut serde_json::Value)) -> Result<Description, Refusal> {
        let mut json = serde_json::json!({
            "name": "p", "version": "1.2.3", "sdk": "0.1.0", "abi": "1.0.0", "rustc": "1.95.0", "panic": "unwind",
            "types": [{"type": "lower-case", "role": "plain", "inputs": 1, "outputs": 1}],
        });
        change(&mut json);
        read(&Value::from_json(json.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_description_becomes_plain_data() {
        let description = described(|json| {
            json["types"][0]["credentials"] = serde_json::json!({"user": "text", "key": "password"});
        })
        .unwrap();
        assert_eq!((description.name.as_str(), description.version.as_str()), ("p", "1.2.3"));
        let lower_case = &description.types[0];
        assert_eq!((lower_case.inputs, lower_case.outputs, lower_case.concurrency), (1, 1, 1));
        assert_eq!(lower_case.role, Role::Plain);
        assert_eq!(lower_case.credentials["key"], CredentialKind::Password);
    }

    #[test]
    fn icons_and_texts_are_kept_as_they_are() {
        let svg = "<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>";
        let description = described(|json| {
            json["license"] = "MIT".into();
            json["types"][0]["icon"] = "own.svg".into();
            json["types"][0]["icon_svg"] = svg.into();
            json["types"][0]["locales"] = serde_json::json!({"en-US": r#"{"a":"A"}"#, "de": "{}"});
        })
        .unwrap();
        let lower_case = &description.types[0];
        assert_eq!((description.license.as_str(), description.homepage.as_str()), ("MIT", ""));
        assert_eq!(
            (lower_case.icon_svg.as_str(), lower_case.locales["en-US"].as_str()),
            (svg, r#"{"a":"A"}"#)
        );
    }

    #[test]
    fn icons_and_texts_that_an_editor_could_not_show_are_refused() {
        let large = |bytes| format!("<svg>{}", " ".repeat(bytes));
        let cases: [(&str, serde_json::Value, &str); 9] = [
            ("icon_svg", "<svg/>".into(), "without an icon"),
            ("icon_svg", "GIF89a <svg".into(), "no SVG"),
            ("icon_svg", "<html/>".into(), "no SVG"),
            ("icon_svg", large(MAX_ICON_BYTES).into(), "more than 65536 bytes"),
            ("locales", serde_json::json!({"../etc": "{}"}), "no language tag"),
            ("locales", serde_json::json!({"": "{}"}), "no language tag"),
            ("locales", serde_json::json!({"de": "[]"}), "in de are no JSON object"),
            (
                "locales",
                serde_json::json!({"de": format!("{{}}{}", " ".repeat(MAX_CATALOGUE_BYTES))}),
                "in de have more",
            ),
            (
                "locales",
                (0..=MAX_LANGUAGES)
                    .map(|n| (format!("x-{n}"), "{}".into()))
                    .collect::<serde_json::Map<_, _>>()
                    .into(),
                "more than 100 languages",
            ),
        ];
        for (number, (key, value, expected)) in cases.into_iter().enumerate() {
            let refusal = described(|json| {
                if number > 0 {
                    json["types"][0]["icon"] = "own.svg".into();
                }
                json["types"][0][key] = value;
            })
            .expect_err(expected)
            .to_string();
            assert!(
                refusal.contains("lower-case") && refusal.contains(expected),
                "{expected} is missing in: {refusal}"
            );
        }
    }

    #[test]
    fn unknown_properties_are_left_to_newer_hosts() {
        assert!(described(|json| json["types"][0]["sparkle"] = true.into()).is_ok());
    }

    #[test]
    fn a_bad_description_is_refused_with_the_reason() {
        type Change = fn(&mut serde_json::Value);
        let cases: [(Change, &str); 8] = [
            (|json| *json = serde_json::Value::Null, "panicked"),
            (|json| *json = serde_json::json!([]), ""),
            (|json| json["name"] = "".into(), "name is empty"),
            (|json| json["name"] = "a\nb".into(), "not printable"),
            (|json| json["types"] = serde_json::json!([]), "no node types"),
            (|json| json["types"][0]["role"] = "king".into(), "\"king\""),
            (|json| json["types"][0]["inputs"] = (-1).into(), "inputs"),
            (|json| json["types"] = serde_json::json!([{"type": "x"}, {"type": "x"}]), "x is in it twice"),
        ];
        for (change, expected) in cases {
            let refusal = described(change).expect_err(expected).to_string();
            assert!(refusal.contains(expected), "{expected} is missing in: {refusal}");
        }
    }

    #[test]
    fn a_plugin_that_aborts_on_panics_is_refused() {
        let refusal = described(|json| json["panic"] = "abort".into()).unwrap_err();
        assert_eq!(refusal, Refusal::AbortsOnPanic { name: "p".into(), version: "1.2.3".into() });
    }
}
