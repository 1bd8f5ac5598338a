//! Errors of nodes.

use flowbay_abi::{node::NodeError, value::Value};

/// Why a node could not do what it was asked: its text is what Catch nodes find in `msg.error.message`.
///
/// `?` makes one of any standard error. It is not a standard error itself, so that this works.
#[derive(Debug)]
pub struct Error(Kind);

#[derive(Debug)]
enum Kind {
    Failed(NodeError),
    Ignored,
}

impl Error {
    /// An error with a text.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(Kind::Failed(NodeError::new(text)))
    }

    /// No error, and no success: the message is dropped, neither Complete nor Catch nodes are told.
    pub fn ignored() -> Self {
        Self(Kind::Ignored)
    }

    /// The same error with a `code`, as Node-RED's system errors have (`ECONNREFUSED`, …).
    #[must_use]
    pub fn with_code(self, code: &str) -> Self {
        match self.0 {
            Kind::Failed(error) => Self(Kind::Failed(error.with_code(code))),
            Kind::Ignored => self,
        }
    }

    /// The text; empty for [`Error::ignored`].
    pub fn text(&self) -> &str {
        match &self.0 {
            Kind::Failed(error) => &error.message,
            Kind::Ignored => "",
        }
    }

    /// As it crosses the boundary; `None` for [`Error::ignored`].
    pub(crate) fn into_abi(self) -> Option<NodeError> {
        match self.0 {
            Kind::Failed(error) => Some(error),
            Kind::Ignored => None,
        }
    }

    pub(crate) fn from_abi(error: NodeError) -> Self {
        Self(Kind::Failed(error))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut node_error = NodeError::new(error.to_string());
        if let Some(cause) = error.source() {
            let mut details = flowbay_abi::Object::new();
            details.insert("cause", cause.to_string());
            node_error.details = Value::Object(details);
        }
        Self(Kind::Failed(node_error))
    }
}
