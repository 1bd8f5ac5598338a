//! Why a `tls-config` node cannot be used.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A node that cannot be used; the line names it, and the file that is at fault, and never what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfigError {
    /// The node's id.
    pub node: String,
    /// What is wrong.
    pub problem: TlsProblem,
}

/// What is wrong with a `tls-config` node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsProblem {
    /// There is no such node, or it is disabled.
    NoSuchNode,
    /// The node is of this type.
    OtherType(String),
    /// Of certificate and key only the other one is given.
    Missing(&'static str),
    /// It keeps certificate and key in this way (`certType`), which the host does not know.
    UnknownForm(String),
    /// Certificate and key are in PKCS#12 form.
    Pkcs12,
    /// A file cannot be read.
    File(PathBuf, io::ErrorKind),
    /// It is a folder, a pipe or the like.
    NotAFile(PathBuf),
    /// A file is larger than a certificate ever is.
    TooLarge(Place),
    /// A variable of the environment is not set, or empty.
    NoVariable(String),
    /// There is no certificate in it, or no key.
    Nothing(Place, &'static str),
    /// It is not what PEM is like.
    Malformed(Place),
    /// The key is encrypted, and there is no passphrase.
    NoPassphrase(Place),
    /// The key is encrypted with another passphrase.
    WrongPassphrase(Place),
    /// The key is encrypted in a way that the host does not know, or with more effort than it takes.
    Encryption(Place),
    /// The parts do not make a whole, in the words of the TLS library.
    Unusable(String),
}

/// Where a certificate or a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A credential of the node.
    Credential(&'static str),
    /// A variable of the environment.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Credential(field) => write!(f, "the credential {field}"),
            Self::Variable(name) => write!(f, "the variable {name}"),
        }
    }
}

/// How to turn any encrypted key into one that the host reads.
const TO_PKCS8: &str = "openssl pkcs8 -topk8 -v2 aes256 -in OLD -out NEW";

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tls-config {}: ", self.node)?;
        match &self.problem {
            TlsProblem::NoSuchNode => f.write_str("there is no such node, or it is disabled"),
            TlsProblem::OtherType(node_type) => write!(f, "the node is a {node_type}"),
            TlsProblem::Missing(part) => {
                write!(f, "No certificate/key file provided: a certificate and its key belong together, and the {part} is missing")
            }
            TlsProblem::UnknownForm(form) => write!(f, "certType {form:?} is not known"),
            TlsProblem::Pkcs12 => f.write_str(
                "PKCS#12 files (pfx, p12) are not read; \
                 openssl pkcs12 -in FILE -out client.pem writes certificate and key in PEM form, in one file that serves as both",
            ),
            TlsProblem::File(file, kind) => write!(f, "cannot read {}: {kind}", file.display()),
            TlsProblem::NotAFile(file) => write!(f, "{} is not a file", file.display()),
            TlsProblem::TooLarge(place) => write!(f, "{place} is too large for certificates or a key"),
            TlsProblem::NoVariable(name) => write!(f, "the variable {name} is not set"),
            TlsProblem::Nothing(place, what) => write!(f, "there is no {what} in PEM form in {place}"),
            TlsProblem::Malformed(place) => write!(f, "{place} is damaged: it is not PEM"),
            TlsProblem::NoPassphrase(place) => {
                write!(f, "the key in {place} is encrypted, and there is no passphrase")
            }
            TlsProblem::WrongPassphrase(place) => write!(f, "the passphrase does not fit the key in {place}"),
            TlsProblem::Encryption(place) => {
                write!(f, "the key in {place} is encrypted in a way that is not supported; {TO_PKCS8} changes that")
            }
            TlsProblem::Unusable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TlsConfigError {}
