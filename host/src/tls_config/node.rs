//! The properties of a `tls-config` node, and what they refer to.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::{Place, TlsProblem};

/// Node-RED's name for the type.
const NODE_TYPE: &str = "tls-config";

/// Largest file that is read, in bytes. The bundle of all public authorities has about 200 KB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A node as it is in the flow file, with its credentials. Not for the log.
pub struct TlsNode {
    pub(super) id: String,
    certificate: Option<Source>,
    key: Option<Source>,
    authorities: Option<Source>,
    /// Empty for none, as the following.
    pub(super) passphrase: String,
    pub(super) server_name: String,
    pub(super) protocol: String,
    pub(super) verify: bool,
}

/// Where a part of it is to be had.
enum Source {
    File(PathBuf),
    Text(Place, String),
}

/// What the sources hold.
pub(super) struct Material {
    pub(super) certificate: Option<(Place, Vec<u8>)>,
    pub(super) key: Option<(Place, Vec<u8>)>,
    pub(super) authorities: Option<(Place, Vec<u8>)>,
}

impl TlsNode {
    /// A node by its properties and credentials; `variable` has the values of the environment as the node sees it.
    ///
    /// # Errors
    /// The properties are those of another type, or ask for what the host cannot do.
    pub fn new(
        id: &str,
        properties: &Map<String, Value>,
        credentials: &Map<String, Value>,
        variable: impl Fn(&str) -> String,
    ) -> Result<Self, TlsProblem> {
        let text = |key: &str| text(properties, key);
        match text("type") {
            NODE_TYPE => {}
            other => return Err(TlsProblem::OtherType(other.to_owned())),
        }
        let file_or_credential = |path: &str, field: &'static str| {
            let (path, data) = (text(path), self::text(credentials, field));
            if path.is_empty() {
                (!data.is_empty()).then(|| Source::Text(Place::Credential(field), data.to_owned()))
            } else {
                Some(Source::File(PathBuf::from(path)))
            }
        };
        let from_variable = |property: &str| match text(property) {
            "" => Ok(None),
            name => match variable(name) {
                value if value.is_empty() => Err(TlsProblem::NoVariable(name.to_owned())),
                // Files of variables, Docker's for instance, have no other way to say where a line ends.
                value => {
                    let value = value.replace("\\n", "\n");
                    Ok(Some(Source::Text(Place::Variable(name.to_owned()), value)))
                }
            },
        };
        let (certificate, key, authorities) = match text("certType") {
            "" | "files" => (
                file_or_credential("cert", "certdata"),
                file_or_credential("key", "keydata"),
                file_or_credential("ca", "cadata"),
            ),
            "env" => (from_variable("certEnv")?, from_variable("keyEnv")?, from_variable("caEnv")?),
            "pfx" => return Err(TlsProblem::Pkcs12),
            other => return Err(TlsProblem::UnknownForm(other.to_owned())),
        };
        Ok(Self {
            id: id.to_owned(),
            certificate,
            key,
            authorities,
            // Spaces may belong to it.
            passphrase: credentials.get("passphrase").and_then(Value::as_str).unwrap_or_default().to_owned(),
            server_name: text("servername").to_owned(),
            protocol: text("alpnprotocol").to_owned(),
            // Verified unless it says plainly no, as in Node.js.
            verify: properties.get("verifyservercert") != Some(&Value::Bool(false)),
        })
    }

    /// Reads the files. Blocks.
    pub(super) fn read(&self) -> Result<Material, TlsProblem> {
        Ok(Material {
            certificate: self.certificate.as_ref().map(Source::read).transpose()?,
            key: self.key.as_ref().map(Source::read).transpose()?,
            authorities: self.authorities.as_ref().map(Source::read).transpose()?,
        })
    }
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default().trim()
}

impl Source {
    fn read(&self) -> Result<(Place, Vec<u8>), TlsProblem> {
        match self {
            Self::Text(place, text) => Ok((place.clone(), text.clone().into_bytes())),
            Self::File(path) => Ok((Place::File(path.clone()), read_file(path)?)),
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsProblem> {
    let failed = |error: std::io::Error| TlsProblem::File(path.to_owned(), error.kind());
    // A pipe would be waited for for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(TlsProblem::NotAFile(path.to_owned()));
    }
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content))
        .map_err(failed)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsProblem::TooLarge(Place::File(path.to_owned())));
    }
    Ok(content)
}
