//! The credentials of nodes: Node-RED's `<flow file>_cred.json`, read for the flows and changed by
//! `flowbay credentials`.
//!
//! `cipher` is the format, `secret` finds the key, [`mod@file`] reads and writes the file, [`command`] is the command
//! line. What is in force, with what entries of a flow file carry themselves, is
//! [`FlowFile::credentials`](crate::flow::FlowFile::credentials).
//!
//! A value never gets into a log line, an error or anything that is printed.

mod cipher;
pub mod command;
pub mod file;
mod secret;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

pub use self::{
    file::CredentialsFile,
    secret::{RUNTIME_FILES, SECRET_VARIABLES},
};
use crate::{flow::FlowGraph, registry::Registry, settings::Settings};

/// The credentials kept beside `flows`, by node id; none when there is no such file.
///
/// # Errors
/// The file cannot be read, or not be decrypted.
pub fn stored(flows: &Path, settings: &Settings) -> Result<Map<String, Value>, CredentialsError> {
    CredentialsFile::read(flows, settings).map(CredentialsFile::into_entries)
}

/// Checks that the secret which the settings name is there.
///
/// # Errors
/// The file or the variable for it is unusable.
pub fn check_secret(settings: &Settings) -> Result<(), CredentialsError> {
    secret::given(settings).map(drop)
}

/// One line for each node with credentials that its type does not declare: it does not get those.
pub fn undeclared(graph: &FlowGraph, registry: &Registry) -> Vec<String> {
    let mut lines = Vec::new();
    for node in &graph.nodes {
        let Some(registered) = registry.get(&node.node_type) else { continue };
        let fields: Vec<String> = graph
            .credential_fields(node)
            .filter(|field| !registered.info.credentials.contains_key(*field))
            .map(|field| field.escape_debug().to_string())
            .collect();
        if !fields.is_empty() {
            lines.push(format!(
                "{} {}: its type has no credentials called {}; the node does not get them",
                node.node_type.escape_debug(),
                node.stored_id().escape_debug(),
                fields.join(", ")
            ));
        }
    }
    lines
}

/// What is wrong with credentials; each names the file.
#[derive(Debug)]
pub enum CredentialsError {
    /// A file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file has another form than Node-RED's.
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong, without any of its content.
        reason: String,
    },
    /// The file is encrypted and nothing says with which secret, or it is to be and nothing says so.
    NoSecret {
        /// The file.
        file: PathBuf,
    },
    /// The file was encrypted with another secret, or is damaged.
    WrongSecret {
        /// The file.
        file: PathBuf,
        /// Where the secrets that were tried come from.
        tried: Vec<String>,
    },
    /// The secret itself is unusable.
    BadSecret {
        /// Where it comes from: a variable or a file.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be written; it is as it was.
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, error } => write!(f, "{}: {error}", file.display()),
            Self::Malformed { file, reason } => {
                write!(f, "{}: not a credentials file: {reason}", file.display())
            }
            Self::NoSecret { file } => write!(
                f,
                "{}: there is no secret to encrypt and decrypt credentials with: name a file that holds it \
                 (--credential-secret-file), or set the environment variable {}",
                file.display(),
                SECRET_VARIABLES.join(" or ")
            ),
            Self::WrongSecret { file, tried } => write!(
                f,
                "{}: cannot be decrypted with the secret from {}: it was written with another one, or is damaged",
                file.display(),
                tried.join(", nor with that from ")
            ),
            Self::BadSecret { origin, reason } => write!(f, "the credential secret in {origin} {reason}"),
            Self::Unwritable { file, error } => write!(f, "cannot write {}: {error}", file.display()),
        }
    }
}

impl std::error::Error for CredentialsError {}
