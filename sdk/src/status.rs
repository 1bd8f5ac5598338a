//! Node statuses.

use flowbay_abi::value::{Object, Str, Value};

/// A node's status: what the editor shows under it and Status nodes receive.
///
/// ```
/// use flowbay_sdk::Status;
/// let connected = Status::new().fill("green").shape("dot").text("connected 3");
/// let cleared = Status::new();
/// ```
#[derive(Debug, Clone, Default)]
pub struct Status(Object);

impl Status {
    /// An empty status: it clears the one before.
    pub fn new() -> Self {
        Self::default()
    }

    /// `red`, `green`, `yellow`, `blue` or `grey`.
    #[must_use]
    pub fn fill(self, fill: &str) -> Self {
        self.with("fill", fill)
    }

    /// `dot` or `ring`.
    #[must_use]
    pub fn shape(self, shape: &str) -> Self {
        self.with("shape", shape)
    }

    /// The text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.with("text", text)
    }

    /// Any further property: Status nodes receive it, the editor does not.
    #[must_use]
    pub fn with(mut self, key: impl Into<Str>, value: impl Into<Value>) -> Self {
        self.0.insert(key, value);
        self
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}
