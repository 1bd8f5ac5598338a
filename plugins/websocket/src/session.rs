//! `msg._session`: what a connection is known as in messages and statuses.

use std::net::SocketAddr;

use flowbay_sdk::{Array, Object, Str, UpgradeRequest, Value};

/// The type that all have; a message whose `_session` has another one is not for WebSockets.
pub const TYPE: &str = "websocket";
/// More parameters of a query are left out: it is in each message that is copied for a flow.
const MAX_QUERY: usize = 256;

/// What is known of a session of which nothing else is: its type and id.
pub fn minimal(id: &Str) -> Value {
    Value::Object(Object::from([("type", Value::from(TYPE)), ("id", Value::from(id))]))
}

/// The `_session` of a connection with that state. All messages of the connection share it.
///
/// `type`, `id`; on a listener `remoteAddress`, `remotePort`, `path`, `query`, `params`; on a client `url`; `protocol`
/// when one was chosen, and `identity` when the client's is known.
pub fn describe(id: &Str, state: &Value) -> Value {
    let mut session = Object::from([("type", Value::from(TYPE)), ("id", Value::from(id))]);
    let request = &state["request"];
    if let Value::Object(_) = request {
        let (address, port) = remote(request["remote"].as_str().unwrap_or_default());
        session.insert("remoteAddress", address);
        session.insert("remotePort", port);
        session.insert("path", request["path"].clone());
        session.insert("query", query(request["query"].as_str().unwrap_or_default()));
        session.insert("params", Value::Object(request["params"].as_object().cloned().unwrap_or_default()));
    }
    for (name, value) in
        [("url", &state["url"]), ("protocol", &state["protocol"]), ("identity", &state["extra"]["identity"])]
    {
        if !value.is_null() {
            session.insert(name, value.clone());
        }
    }
    Value::Object(session)
}

/// The peer that a `_session` is of, for the log.
pub fn peer(session: &Value) -> String {
    match (session["remoteAddress"].as_str(), session["remotePort"].as_i64()) {
        (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
        // Without the query, which may hold secrets.
        _ => {
            session["url"].as_str().map_or("its peer", |url| url.split('?').next().unwrap_or(url)).to_owned()
        }
    }
}

/// An upgrade request as a flow sees it that decides about it.
pub fn request_payload(request: &UpgradeRequest) -> Value {
    let (address, port) = remote(request.remote());
    let value = request.value();
    Value::Object(Object::from([
        ("path", Value::from(request.path())),
        ("query", query(request.query().unwrap_or_default())),
        ("params", Value::Object(request.params())),
        ("headers", value["headers"].clone()),
        ("protocols", value["protocols"].clone()),
        ("remoteAddress", address),
        ("remotePort", port),
    ]))
}

/// Address and port of a peer. An IPv4 address is one whatever the socket it came through.
fn remote(text: &str) -> (Value, Value) {
    match text.parse::<SocketAddr>() {
        Ok(peer) => (Value::from(peer.ip().to_canonical().to_string()), Value::from(i64::from(peer.port()))),
        Err(_) => (Value::Null, Value::Null),
    }
}

/// The parameters of a query by name; those of a name that is repeated are an array.
fn query(text: &str) -> Value {
    let mut all = Object::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()).take(MAX_QUERY) {
        let value = Value::from(&*value);
        match all.get_mut(&name) {
            None => {
                all.insert(&*name, value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(one) => *one = Value::Array(Array::from([one.take(), value])),
        }
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::from_json(text.as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(state: &str, expected: &str) {
        let session = describe(&Str::from("0123456789abcdef"), &json(state));
        let expected = format!(r#"{{"type":"websocket","id":"0123456789abcdef"{expected}}}"#);
        assert_eq!(session.to_json().unwrap(), expected, "of {state}");
    }

    #[test]
    fn a_session_says_where_it_came_from_and_what_it_asked_for() {
        check(
            r#"{"request":{"path":"/ws/tea","query":"a=1&b=2&a=3","params":{"room":"tea"},"headers":{"cookie":"x"},
                "remote":"[::ffff:10.0.0.7]:4242"},"protocol":"chat","extra":{"identity":"anna"}}"#,
            concat!(
                r#","remoteAddress":"10.0.0.7","remotePort":4242,"path":"/ws/tea","query":{"a":["1","3"],"b":"2"},"#,
                r#""params":{"room":"tea"},"protocol":"chat","identity":"anna""#
            ),
        );
        check(
            r#"{"request":{"path":"/ws","query":null,"remote":"[::1]:1"},"protocol":null}"#,
            r#","remoteAddress":"::1","remotePort":1,"path":"/ws","query":{},"params":{}"#,
        );
    }

    #[test]
    fn a_clients_session_says_which_server_it_is() {
        check(
            r#"{"role":"client","url":"ws://host/x","protocol":"chat"}"#,
            r#","url":"ws://host/x","protocol":"chat""#,
        );
    }

    #[test]
    fn the_log_shows_whom_a_session_is_with_and_no_secret() {
        for (session, shown) in [
            (r#"{"remoteAddress":"10.0.0.7","remotePort":1}"#, "10.0.0.7:1"),
            (r#"{"remoteAddress":"::1","remotePort":1}"#, "[::1]:1"),
            (r#"{"url":"wss://host/x?token=hunter2"}"#, "wss://host/x"),
            ("{}", "its peer"),
        ] {
            assert_eq!(peer(&json(session)), shown);
        }
    }

    #[test]
    fn a_state_of_an_older_library_leaves_out_what_it_does_not_know() {
        check("null", "");
        check("{}", "");
        check(
            r#"{"request":{"path":"/ws","remote":"?"},"moved":true}"#,
            r#","remoteAddress":null,"remotePort":null,"path":"/ws","query":{},"params":{}"#,
        );
    }

    #[test]
    fn a_query_is_decoded_and_cannot_grow_without_bound() {
        assert_eq!(
            query("a%20b=c+d&e&=f&__proto__=x").to_json().unwrap(),
            r#"{"a b":"c d","e":"","":"f","__proto__":"x"}"#
        );
        assert_eq!(query("n=%FF"), json("{\"n\":\"\u{fffd}\"}"));
        let long: String = (0..100_000).map(|number| format!("p{number}&")).collect();
        assert_eq!(query(&long).as_object().map(Object::len), Some(MAX_QUERY));
    }
}
