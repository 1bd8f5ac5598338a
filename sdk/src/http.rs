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

    /// The request as an object: `path`, `query`, `params`, `headers`, `protocols`, `remote`, `tls`.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The path that was asked for, as it came.
    pub fn path(&self) -> &str {
        text(&self.value, "path").unwrap_or_default()
    }

    /// What came behind the `?`, as it came.
    pub fn query(&self) -> Option<&str> {
        text(&self.value, "query")
    }

    /// What the path has in place of the parameters of the node's route (`/ws/:room`), by name.
    pub fn params(&self) -> Object {
        self.value.get("params").and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// The peer, as address:port.
    pub fn remote(&self) -> &str {
        text(&self.value, "remote").unwrap_or_default()
    }

    /// Whether it came over TLS.
    pub fn tls(&self) -> bool {
        self.value.get("tls").and_then(Value::as_bool).unwrap_or(false)
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

fn text<'a>(request: &'a Value, key: &str) -> Option<&'a str> {
    request.get(key)?.as_str()
}

fn header<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    match request.get("headers")?.get(name)? {
        Value::Array(values) => values.first()?.as_str(),
        value => value.as_str(),
    }
}

/// What happens with a value for a session whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The session is cut: its connection is told ([`crate::Received::Closed`]). What waited is dropped.
    #[default]
    Close,
    /// That value is dropped; what waits is sent.
    DropNewest,
    /// Values that wait longest are dropped until it fits.
    DropOldest,
}

/// How much may wait to be sent to a session, and what happens with more.
///
/// One value always fits an empty queue, however large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueOptions {
    /// Values that may wait; the host's setting `session_queue_messages` when absent.
    pub messages: Option<u64>,
    /// Bytes that may wait; the host's setting `session_queue_bytes` when absent.
    pub bytes: Option<u64>,
    /// What happens with more.
    pub overflow: Overflow,
}

/// As an upgrade's answer and the state of [`crate::Ctx::attach`] have it, under the name `queue`.
impl From<QueueOptions> for Value {
    fn from(options: QueueOptions) -> Value {
        let mut object = Object::new();
        for (key, limit) in [("messages", options.messages), ("bytes", options.bytes)] {
            if let Some(limit) = limit {
                object.insert(key, limit);
            }
        }
        let overflow = match options.overflow {
            Overflow::Close => "close",
            Overflow::DropNewest => "drop-newest",
            Overflow::DropOldest => "drop-oldest",
        };
        object.insert("overflow", overflow);
        Value::Object(object)
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

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key, value.into());
        self
    }

    /// The subprotocol chosen.
    #[must_use]
    pub fn protocol(self, protocol: &str) -> Self {
        self.with("protocol", protocol)
    }

    /// Adds a header to the answer, or replaces it.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        Self(with_header(self.0, name, value))
    }

    /// What becomes of values that wait to be sent to the session.
    #[must_use]
    pub fn queue(self, options: QueueOptions) -> Self {
        self.with("queue", options)
    }

    /// Anything that the connection is to know: it finds it in its state under the name `extra`.
    #[must_use]
    pub fn extra(self, extra: impl Into<Value>) -> Self {
        self.with("extra", extra)
    }

    /// Body of a refusal.
    #[must_use]
    pub fn body(self, body: &str) -> Self {
        self.with("body", body)
    }

    /// Why it is refused, for the host's log; the peer is not told. It must hold no secret.
    #[must_use]
    pub fn reason(self, reason: &str) -> Self {
        self.with("reason", reason)
    }

    /// How long a deferred answer may take, in milliseconds, before the host refuses with 503; the host's setting
    /// `upgrade_timeout_ms` when this is not said.
    #[must_use]
    pub fn timeout_ms(self, ms: u64) -> Self {
        self.with("timeout_ms", ms)
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

fn with_header(mut answer: Object, name: &str, value: &str) -> Object {
    let mut headers = match answer.remove("headers") {
        Some(Value::Object(headers)) => headers,
        _ => Object::new(),
    };
    headers.insert(name, value);
    answer.insert("headers", headers);
    answer
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
    pub fn header(self, name: &str, value: &str) -> Self {
        Self(with_header(self.0, name, value))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_property_has_an_empty_one() {
        let request = UpgradeRequest::new(Value::Null, 1);
        assert_eq!((request.path(), request.query(), request.remote(), request.tls()), ("", None, "", false));
        assert!(request.params().is_empty());
        let request = UpgradeRequest::new(
            Value::from_json(br#"{"path":"/a/b","query":"c=d","params":{"room":"b"}}"#).unwrap(),
            1,
        );
        assert_eq!((request.path(), request.query()), ("/a/b", Some("c=d")));
        assert_eq!(request.params().get("room").and_then(Value::as_str), Some("b"));
    }

    #[test]
    fn an_answer_has_what_was_said() {
        let queue = QueueOptions { messages: Some(10), bytes: None, overflow: Overflow::DropOldest };
        let answer = UpgradeAnswer::accept().header("a", "1").header("b", "2").queue(queue).extra("me");
        assert_eq!(
            answer.into_value().to_json().unwrap(),
            r#"{"accept":true,"headers":{"a":"1","b":"2"},"queue":{"messages":10,"overflow":"drop-oldest"},"extra":"me"}"#
        );
    }
}
