//! HTTP requests and upgrades on their way to the node that registered the path.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use flowbay_abi::{Blob, Object, Value, io::HostIo};
use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderName, HeaderValue},
};
use tokio::sync::{Semaphore, oneshot};

use super::{cell::NodeCell, drain, events, tasks::Polled};
use crate::{
    http::{
        BoxFuture, HostStream, HttpRequest, HttpResponse, Params, RequestHandler, UpgradeAnswer,
        UpgradeHandler, UpgradeRequest,
    },
    plugin::{PluginStream, with_task},
};

/// The longest that a node may have an upgrade wait: an hour, the most that the host's own setting may say too.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// Upgrades whose answer was put off.
#[derive(Default)]
pub struct Tickets {
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
}

struct Waiting {
    /// The node that is to answer.
    node: String,
    answer: oneshot::Sender<Value>,
}

impl Tickets {
    fn issue(self: &Arc<Self>, node: &str) -> Ticket {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        self.lock().insert(number, Waiting { node: node.to_owned(), answer: sender });
        Ticket { tickets: self.clone(), number, answer }
    }

    /// A node answers an upgrade. Nothing happens when that is gone, or is another node's to decide about: numbers can
    /// be guessed.
    pub fn answer(&self, node: &str, number: u64, answer: Value) {
        let mut waiting = self.lock();
        if waiting.get(&number).is_some_and(|waiting| waiting.node == node)
            && let Some(its) = waiting.remove(&number)
        {
            drop(waiting);
            let _ = its.answer.send(answer);
        }
    }

    /// A node is gone: nobody is to wait for its answer any more.
    pub fn give_up(&self, node: &str) {
        self.lock().retain(|_, waiting| waiting.node != node);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.tickets.lock().remove(&self.number);
    }
}

/// Leads upgrades to a node.
pub fn upgrades(cell: &Arc<NodeCell>) -> Arc<dyn UpgradeHandler> {
    let may_wait = Arc::new(Semaphore::new(cell.shared().settings.max_waiting_upgrades));
    let cell = Arc::downgrade(cell);
    Arc::new(move |request: UpgradeRequest| -> BoxFuture<UpgradeAnswer> {
        Box::pin(upgrade(cell.clone(), may_wait.clone(), request))
    })
}

/// Leads requests to a node.
pub fn requests(cell: &Arc<NodeCell>) -> Arc<dyn RequestHandler> {
    let cell = Arc::downgrade(cell);
    Arc::new(move |request: HttpRequest| -> BoxFuture<HttpResponse> {
        Box::pin(answer(cell.clone(), request))
    })
}

async fn upgrade(cell: Weak<NodeCell>, may_wait: Arc<Semaphore>, request: UpgradeRequest) -> UpgradeAnswer {
    let gone = || refuse(StatusCode::NOT_FOUND, "the node is gone");
    let Some(cell) = cell.upgrade() else { return gone() };
    let Some(instance) = cell.instance() else { return gone() };
    let too_many = || refuse(StatusCode::SERVICE_UNAVAILABLE, "too many handshakes wait for their answer");
    if may_wait.available_permits() == 0 {
        // The node has more than enough to decide about.
        return too_many();
    }
    let mut ticket = cell.shared().tickets.issue(cell.id());
    // A node that is being closed gives its tickets up, those that there are by then: nobody would answer this one.
    if cell.is_closed() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the node was stopped");
    }
    let request = upgrade_value(&request);
    let answered = drain::scope(|| {
        with_task(drain::NO_TASK, || instance.node.on_upgrade(request.clone(), ticket.number))
    });
    // While the answer is put off, the node may be closed or replaced.
    drop(instance);
    let answer = match answered {
        Ok(answer) => answer,
        Err(error) => {
            events::log_error(&cell, &error);
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the node failed");
        }
    };
    if !is_true(&answer, "defer") {
        drop(ticket);
        return decided(&cell, request, &answer);
    }
    let Ok(place) = may_wait.try_acquire_owned() else { return too_many() };
    let timeout = answer.get("timeout_ms").and_then(Value::as_i64).and_then(|ms| u64::try_from(ms).ok());
    let timeout = timeout.map(|ms| Duration::from_millis(ms).min(LONGEST_WAIT));
    let answer = Box::pin(async move {
        let answered = (&mut ticket.answer).await;
        drop((ticket, place));
        match answered {
            Ok(answer) => decided(&cell, request, &answer),
            Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the node was stopped"),
        }
    });
    UpgradeAnswer::Deferred { timeout, answer }
}

/// What a node's answer means.
fn decided(cell: &Arc<NodeCell>, request: Value, answer: &Value) -> UpgradeAnswer {
    if !is_true(answer, "accept") {
        let status = answer
            .get("refuse")
            .and_then(Value::as_i64)
            .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let response = HttpResponse { status, headers: headers_of(answer), body: body_of(answer) };
        let reason = answer.get("reason").and_then(Value::as_str).unwrap_or("the node refuses it");
        return UpgradeAnswer::Refuse { response, reason: reason.to_owned() };
    }
    let protocol = answer.get("protocol").and_then(Value::as_str).map(str::to_owned);
    let headers = headers_of(answer);
    let mut state = Object::from_iter([
        ("request", request.clone()),
        ("protocol", protocol.as_deref().map_or(Value::Null, Value::from)),
    ]);
    if let Some(extra) = answer.get("extra") {
        state.insert("extra", extra.clone());
    }
    // Before the client can know that it is connected: what is sent to all from then on is for it too.
    let Some(instance) = cell.instance() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the node was stopped");
    };
    let peer = request.get("remote").and_then(Value::as_str).unwrap_or_default();
    let open = cell.open_session(peer, answer.get("queue"));
    drop(instance);
    let cell = Arc::clone(cell);
    let on_stream = Box::new(move |stream: HostStream, leftover: Bytes| {
        state.insert("input", Value::Bytes(Blob::from(&leftover[..])));
        // The node may have been restarted since it answered.
        let Some(instance) = cell.instance() else { return };
        let io = HostIo::new(PluginStream::new(stream, instance.plugin.clone()));
        if let Err(error) = drain::scope(|| cell.serve(&instance, open, io, Value::Object(state))) {
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
        ("params", params_value(&request.params)),
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
    // A task of the node's, so that it ends with the node; and with the client, or whoever asks and leaves would make a
    // node that waits for something do so any number of times.
    let (mut sender, response) = oneshot::channel();
    cell.spawn_request(async move {
        let mut future = pin!(future);
        tokio::select! {
            response = &mut future => {
                let _ = sender.send(response);
            }
            () = sender.closed() => {}
        }
    });
    let Ok(response) = response.await else { return HttpResponse::empty(StatusCode::SERVICE_UNAVAILABLE) };
    let status = response
        .get("status")
        .and_then(Value::as_i64)
        .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse { status, headers: headers_of(&response), body: body_of(&response) }
}

fn refuse(status: StatusCode, reason: &str) -> UpgradeAnswer {
    UpgradeAnswer::Refuse { response: HttpResponse::empty(status), reason: reason.to_owned() }
}

fn is_true(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool) == Some(true)
}

fn upgrade_value(request: &UpgradeRequest) -> Value {
    let protocols: Vec<Value> = request.protocols.iter().map(|name| Value::from(name.as_str())).collect();
    Value::Object(Object::from_iter([
        ("path", Value::from(request.path.as_str())),
        ("query", request.query.as_deref().map_or(Value::Null, Value::from)),
        ("params", params_value(&request.params)),
        ("headers", headers_value(&request.headers)),
        ("protocols", Value::from(protocols)),
        ("remote", Value::from(request.remote.to_string())),
        ("tls", Value::Bool(request.tls)),
    ]))
}

/// Path parameters as an object; of several with one name, the last.
fn params_value(params: &Params) -> Value {
    let mut object = Object::new();
    for (name, value) in params {
        object.insert(name.as_str(), value.as_str());
    }
    Value::Object(object)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_answered_by_the_node_that_has_it_and_forgotten_with_its_upgrade() {
        let tickets = Arc::new(Tickets::default());
        let mut ticket = tickets.issue("n1");
        tickets.answer("n2", ticket.number, Value::from(1));
        assert!(ticket.answer.try_recv().is_err(), "another node's answer counts for nothing");
        tickets.answer("n1", ticket.number, Value::from(2));
        assert_eq!(ticket.answer.try_recv().unwrap().as_i64(), Some(2));
        tickets.answer("n1", ticket.number, Value::from(3));

        let (gone, stays) = (tickets.issue("n1"), tickets.issue("n2"));
        assert_ne!(gone.number, stays.number);
        drop(gone);
        assert_eq!(tickets.lock().len(), 1);
        tickets.give_up("n1");
        assert_eq!(tickets.lock().len(), 1, "the other node is still there");
        tickets.give_up("n2");
        assert!(tickets.lock().is_empty());
        drop(stays);
    }
}
