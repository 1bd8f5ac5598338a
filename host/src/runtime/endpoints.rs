//! HTTP requests and upgrades on their way to the node that registered the path.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use flowbay_abi::{Blob, Object, Value, io::HostIo};
use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderName, HeaderValue},
};
use tokio::sync::oneshot;

use super::{cell::NodeCell, drain, events, tasks::Polled};
use crate::{
    http::{
        BoxFuture, HostStream, HttpRequest, HttpResponse, RequestHandler, UpgradeAnswer, UpgradeHandler,
        UpgradeRequest,
    },
    plugin::{PluginStream, with_task},
};

/// Upgrades whose answer was put off.
#[derive(Default)]
pub struct Tickets {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    next: AtomicU64,
}

impl Tickets {
    fn issue(self: &Arc<Self>) -> Ticket {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
        Ticket { tickets: self.clone(), number, answer }
    }

    /// Answers an upgrade; nothing when it is gone.
    pub fn answer(&self, number: u64, answer: Value) {
        let sender = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let Some(sender) = sender {
            let _ = sender.send(answer);
        }
    }
}

/// One upgrade's ticket; forgotten when the upgrade is.
struct Ticket {
    tickets: Arc<Tickets>,
    number: u64,
    answer: oneshot::Receiver<Value>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tickets.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Leads upgrades to a node.
pub fn upgrades(cell: &Arc<NodeCell>) -> Arc<dyn UpgradeHandler> {
    let cell = Arc::downgrade(cell);
    Arc::new(move |request: UpgradeRequest| -> BoxFuture<UpgradeAnswer> {
        Box::pin(upgrade(cell.clone(), request))
    })
}

/// Leads requests to a node.
pub fn requests(cell: &Arc<NodeCell>) -> Arc<dyn RequestHandler> {
    let cell = Arc::downgrade(cell);
    Arc::new(move |request: HttpRequest| -> BoxFuture<HttpResponse> {
        Box::pin(answer(cell.clone(), request))
    })
}

async fn upgrade(cell: Weak<NodeCell>, request: UpgradeRequest) -> UpgradeAnswer {
    let Some(cell) = cell.upgrade() else { return refuse(StatusCode::NOT_FOUND) };
    let Some(instance) = cell.instance() else { return refuse(StatusCode::NOT_FOUND) };
    let mut ticket = cell.shared().tickets.issue();
    let request = upgrade_value(&request);
    let answered = drain::scope(|| {
        with_task(drain::NO_TASK, || instance.node.on_upgrade(request.clone(), ticket.number))
    });
    // While the answer is put off, the node may be closed or replaced.
    drop(instance);
    let mut answer = match answered {
        Ok(answer) => answer,
        Err(error) => {
            events::log_error(&cell, &error);
            return refuse(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    if is_true(&answer, "defer") {
        let Ok(deferred) = (&mut ticket.answer).await else { return refuse(StatusCode::SERVICE_UNAVAILABLE) };
        answer = deferred;
    }
    drop(ticket);
    if !is_true(&answer, "accept") {
        let status = answer
            .get("refuse")
            .and_then(Value::as_i64)
            .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return UpgradeAnswer::Refuse(HttpResponse {
            status,
            headers: headers_of(&answer),
            body: body_of(&answer),
        });
    }
    let protocol = answer.get("protocol").and_then(Value::as_str).map(str::to_owned);
    let headers = headers_of(&answer);
    let chosen = protocol.clone();
    // Before the client can know that it is connected: what is sent to all from then on is for it too.
    let Some(instance) = cell.instance() else { return refuse(StatusCode::SERVICE_UNAVAILABLE) };
    let open = cell.open_session();
    drop(instance);
    let on_stream = Box::new(move |stream: HostStream, leftover: Bytes| {
        let state = Value::Object(Object::from_iter([
            ("request", request),
            ("protocol", chosen.map_or(Value::Null, Value::from)),
            ("input", Value::Bytes(Blob::from(&leftover[..]))),
        ]));
        // The node may have been restarted since it answered.
        let Some(instance) = cell.instance() else { return };
        let io = HostIo::new(PluginStream::new(stream, instance.plugin.clone()));
        if let Err(error) = drain::scope(|| cell.serve(&instance, open, io, state)) {
            events::log_error(&cell, &error);
        }
    });
    UpgradeAnswer::Accept { protocol, headers, on_stream }
}

async fn answer(cell: Weak<NodeCell>, request: HttpRequest) -> HttpResponse {
    let Some(cell) = cell.upgrade() else { return HttpResponse::empty(StatusCode::NOT_FOUND) };
    let Some(instance) = cell.instance() else { return HttpResponse::empty(StatusCode::NOT_FOUND) };
    let request = Value::Object(Object::from_iter([
        ("method", Value::from(request.method.as_str())),
        ("path", Value::from(request.path.as_str())),
        ("query", request.query.as_deref().map_or(Value::Null, Value::from)),
        ("headers", headers_value(&request.headers)),
        ("body", Value::Bytes(Blob::from(&request.body[..]))),
        ("remote", Value::from(request.remote.to_string())),
    ]));
    let called = drain::scope(|| with_task(drain::NO_TASK, || instance.node.on_request(request)));
    let future = match called {
        Ok(future) => Polled::new(future, instance.plugin.clone()),
        Err(error) => {
            events::log_error(&cell, &error);
            return HttpResponse::empty(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    drop(instance);
    // A task of the node's, so that it ends with the node.
    let (sender, response) = oneshot::channel();
    cell.spawn_request(async move {
        let _ = sender.send(future.await);
    });
    let Ok(response) = response.await else { return HttpResponse::empty(StatusCode::SERVICE_UNAVAILABLE) };
    let status = response
        .get("status")
        .and_then(Value::as_i64)
        .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse { status, headers: headers_of(&response), body: body_of(&response) }
}

fn refuse(status: StatusCode) -> UpgradeAnswer {
    UpgradeAnswer::Refuse(HttpResponse::empty(status))
}

fn is_true(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool) == Some(true)
}

fn upgrade_value(request: &UpgradeRequest) -> Value {
    let protocols: Vec<Value> = request.protocols.iter().map(|name| Value::from(name.as_str())).collect();
    Value::Object(Object::from_iter([
        ("path", Value::from(request.path.as_str())),
        ("query", request.query.as_deref().map_or(Value::Null, Value::from)),
        ("headers", headers_value(&request.headers)),
        ("protocols", Value::from(protocols)),
        ("remote", Value::from(request.remote.to_string())),
    ]))
}

fn headers_value(headers: &HeaderMap) -> Value {
    let mut object = Object::new();
    for name in headers.keys() {
        let mut values: Vec<Value> = headers
            .get_all(name)
            .iter()
            .map(|value| Value::from(&*String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let value = if values.len() == 1 { values.remove(0) } else { Value::from(values) };
        object.insert(name.as_str(), value);
    }
    Value::Object(object)
}

/// Headers that a plugin gave; what is no header is left out.
fn headers_of(answer: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in
        answer.get("headers").and_then(Value::as_object).into_iter().flat_map(|object| object.iter())
    {
        let values = match value {
            Value::Array(values) => &values[..],
            one => std::slice::from_ref(one),
        };
        for value in values {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value.to_js_string()))
            {
                headers.append(name, value);
            }
        }
    }
    headers
}

fn body_of(answer: &Value) -> Bytes {
    match answer.get("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::Bytes(bytes)) => Bytes::copy_from_slice(bytes),
        Some(Value::Str(text)) => Bytes::copy_from_slice(text.as_bytes()),
        Some(other) => other.to_json().map(Bytes::from).unwrap_or_default(),
    }
}
