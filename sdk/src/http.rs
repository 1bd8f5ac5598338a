//! HTTP as node authors see it: upgrade requests and plain requests.

use flowbay_abi::value::{Object, Value};

/// A WebSocket upgrade that asks for one of the node's paths.
#[derive(Debug, Clone)]
pub struct UpgradeRequest {
    value: Value,
    ticket: u64,
}

impl UpgradeRequest {
    pub(crate) fn new(value: Value, ticket: u64) -> Self {
        Self { value, ticket }
    }

    /// The request as an object: `path`, `query`, `headers`, `protocols`, `remote`.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The subprotocols offered, in order.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        self.value.get("protocols").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// A header by its lower-case name; the first one when it is repeated.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.value, name)
    }

    /// What [`crate::Ctx::answer_upgrade`] wants when the answer is deferred.
    pub fn ticket(&self) -> u64 {
        self.ticket
    }
}

fn header<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    match request.get("headers")?.get(name)? {
        Value::Array(values) => values.first()?.as_str(),
        value => value.as_str(),
    }
}

/// What to do with an upgrade.
#[derive(Debug, Clone)]
pub struct UpgradeAnswer(Object);

impl UpgradeAnswer {
    /// Accept: the connection comes to [`crate::Node::on_connection`].
    pub fn accept() -> Self {
        Self(Object::from_iter([("accept", Value::Bool(true))]))
    }

    /// Refuse, with an HTTP status.
    pub fn refuse(status: u16) -> Self {
        Self(Object::from_iter([("refuse", Value::from(i64::from(status)))]))
    }

    /// Answer later, with [`crate::Ctx::answer_upgrade`].
    pub fn defer() -> Self {
        Self(Object::from_iter([("defer", Value::Bool(true))]))
    }

    /// The subprotocol chosen.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.0.insert("protocol", protocol);
        self
    }

    /// Body of a refusal.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        self.0.insert("body", body);
        self
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// An HTTP request for one of the node's routes.
#[derive(Debug, Clone)]
pub struct Request(Value);

impl Request {
    pub(crate) fn new(value: Value) -> Self {
        Self(value)
    }

    /// The request as an object: `method`, `path`, `query`, `headers`, `body`, `remote`.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.0.get("body").and_then(Value::as_bytes).unwrap_or_default()
    }

    /// A header by its lower-case name; the first one when it is repeated.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.0, name)
    }
}

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct Response(Object);

impl Response {
    /// An empty response with that status.
    pub fn status(status: u16) -> Self {
        Self(Object::from_iter([("status", Value::from(i64::from(status)))]))
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let mut headers = match self.0.remove("headers") {
            Some(Value::Object(headers)) => headers,
            _ => Object::new(),
        };
        headers.insert(name, value);
        self.0.insert("headers", headers);
        self
    }

    /// The body: bytes as they are, a string as UTF-8, anything else as JSON.
    #[must_use]
    pub fn body(mut self, body: impl Into<Value>) -> Self {
        self.0.insert("body", body);
        self
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}
