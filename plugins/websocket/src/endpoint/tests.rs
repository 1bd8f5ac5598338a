//! What an endpoint knows and says of its sessions.

use std::future::poll_fn;

use flowbay_sdk::{
    Node, node,
    testing::{Setup, TestNode},
    value,
};

use super::*;
use crate::{
    client::WebSocketClient,
    listener::WebSocketListener,
    users::{Direction, Membership, References},
};

#[test]
fn sessions_that_were_saved_are_known_and_nothing_else_is() {
    let json = |text: &str| Value::from_json(text.as_bytes()).unwrap();
    for saved in ["null", "{}", r#"{"sessions":7}"#] {
        assert!(saved_sessions(&json(saved)).is_empty(), "{saved}");
    }
    let minimal = |id: &str| (Str::from(id), session::minimal(&Str::from(id)));
    let older = saved_sessions(&json(r#"{"sessions":["a",1,"b"]}"#));
    assert_eq!(older, HashMap::from([minimal("a"), minimal("b")]));
    let described = json(r#"{"type":"websocket","id":"a","path":"/x"}"#);
    let known = saved_sessions(&json(
        r#"{"sessions":["a","b"],"described":[7,{"id":"c"},{"type":"websocket","id":"a","path":"/x"}]}"#,
    ));
    assert_eq!(known, HashMap::from([(Str::from("a"), described), minimal("b")]));
}

#[test]
fn a_successor_hears_who_left_and_how_even_from_an_older_predecessor() {
    let session = Value::from_json(br#"{"type":"websocket","id":"a","path":"/x"}"#).unwrap();
    let ending = Ending { code: 4000, reason: "r".into() };
    let left = Left { id: Str::from("a"), session: session.clone(), ending, unsent: vec!["m".into()] };
    let heard = Left::from_value(&left.to_value()).unwrap();
    assert_eq!((&*heard.id, heard.session, heard.unsent), ("a", session, vec![Value::from("m")]));
    assert_eq!(heard.ending, left.ending);

    let heard = Left::from_value(&Value::from_json(br#"{"left":"a"}"#).unwrap()).unwrap();
    assert_eq!(heard.session, session::minimal(&Str::from("a")));
    assert_eq!((heard.ending, heard.unsent), (Ending::default(), vec![]));
    assert!(Left::from_value(&Value::Null).is_none());
}

#[test]
fn the_secret_of_a_request_is_forgotten_and_the_rest_is_not() {
    let mut state =
        Value::from_json(br#"{"request":{"path":"/x","headers":{"authorization":"s","a":"1"}}}"#).unwrap();
    forget_secrets(&mut state);
    assert_eq!(state.to_json().unwrap(), r#"{"request":{"path":"/x","headers":{"a":"1"}}}"#);
    for mut odd in [Value::Null, Value::from(7), Value::from_json(br#"{"request":[]}"#).unwrap()] {
        let before = odd.clone();
        forget_secrets(&mut odd);
        assert_eq!(odd, before);
    }
}

#[test]
fn ids_are_16_hexadecimal_digits_and_differ() {
    let ids: std::collections::HashSet<String> = (0..1000).map(|_| new_id().to_string()).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
}

// ---- With nodes

/// A listener whose connections send nothing: what is queued for them leaves by its output.
struct Hears(Endpoint);

#[node("hears", inputs = 1, outputs = 1)]
impl Node for Hears {
    type Config = Settings;

    fn new(settings: Settings, ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self(Endpoint::new(settings, ctx)?))
    }

    fn on_upgrade(&self, request: UpgradeRequest, _ctx: &Ctx) -> UpgradeAnswer {
        self.0.answer(&request)
    }

    async fn on_connection(&self, connection: Connection, ctx: &Ctx) -> ConnectionEnd {
        let mut values = Vec::new();
        while let Received::Values(_) = poll_fn(|cx| connection.session.poll_recv(cx, &mut values)).await {
            values.drain(..).for_each(|value| ctx.send(Msg::with_payload(value)));
        }
        ConnectionEnd::Closed
    }

    async fn on_input(&self, msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        self.0.send(&msg)
    }
}

#[test]
fn the_text_of_a_broadcast_is_made_once_and_shared_by_all_queues() {
    const CLIENTS: usize = 5;
    for settings in [value!({"path": "/x"}), value!({"path": "/x", "wholemsg": "true"})] {
        let mut listener = TestNode::<Hears>::new(settings);
        let peers: Vec<_> = (0..CLIENTS)
            .map(|_| listener.upgrade(value!({"path": "/x", "remote": "10.0.0.7:1"})).1.expect("let in"))
            .collect();
        let payload = value!({"a": ["x".repeat(1_000)]});
        listener.input(Msg::with_payload(payload));
        let queued: Vec<Msg> = listener.sent().into_iter().map(|sent| sent.msg).collect();
        assert_eq!(queued.len(), peers.len());
        let place = |msg: &Msg| msg.payload().as_str().unwrap().as_ptr();
        // All are alive, so none can have the place of another by chance.
        assert!(queued.iter().all(|msg| place(msg) == place(&queued[0])), "{:?}", queued[0]);
        assert!(queued[0].payload().as_str().unwrap().len() > 1_000);
    }
}

/// A user of a configuration, which gets its statuses and calls it as the host does.
struct Tells(Membership);

#[node("tells", inputs = 1)]
impl Node for Tells {
    type Config = References;

    fn new(references: References, ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self(Membership::join(&references, ctx, Direction::Out)?.unwrap()))
    }

    async fn on_input(&self, msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        let endpoint = self.0.endpoint();
        match msg["topic"].as_str() {
            Some("lost") => endpoint.lost(msg.payload().as_str().unwrap()),
            Some("close") => endpoint.close().await,
            _ => endpoint.send(&msg)?,
        }
        Ok(())
    }
}

fn tell(teller: &mut TestNode<Tells>, topic: &str, payload: &str) {
    teller.input(Msg::try_from(value!({"topic": topic, "payload": payload})).unwrap());
}

#[test]
fn the_end_of_a_connection_that_a_swap_lost_says_all_that_was_known_of_it() {
    let mut old =
        Setup::new().id("lossy").config(value!({"path": "/x"})).create::<WebSocketListener>().unwrap();
    old.run();
    let (_, connection) = old.upgrade(value!({"path": "/x", "query": "a=1", "remote": "10.0.0.7:1"}));
    let (session, _peer) = connection.unwrap();
    let saved = old.save().unwrap().unwrap();
    drop(old);
    let new = Setup::new().id("lossy").config(value!({"path": "/x"})).restored(saved);
    let mut new = new.create::<WebSocketListener>().unwrap();
    new.run();
    let mut teller = TestNode::<Tells>::new(value!({"server": "lossy"}));
    tell(&mut teller, "lost", "another");
    assert!(teller.statuses().is_empty());
    tell(&mut teller, "lost", &session);
    let statuses = teller.statuses();
    assert_eq!((statuses.len(), &statuses[0]["event"]), (1, &Value::from("disconnect")));
    let known = &statuses[0]["_session"];
    assert_eq!((&known["id"], &known["remoteAddress"]), (&Value::from(&session), &Value::from("10.0.0.7")));
    assert_eq!(known["query"], value!({"a": "1"}));
}

#[test]
fn what_waits_when_a_client_stops_is_counted_as_undelivered() {
    let client = Setup::new().id("stops").config(value!({"path": "ws://h", "queueWhileDisconnected": 5}));
    let mut client = client.create::<WebSocketClient>().unwrap();
    let mut teller = TestNode::<Tells>::new(value!({"client": "stops"}));
    client.run();
    tell(&mut teller, "", "1");
    tell(&mut teller, "", "2");
    let figures = |client: &TestNode<WebSocketClient>| {
        ["websocket_waiting_messages", "websocket_waiting_bytes", "websocket_undelivered_total"]
            .map(|name| client.metric(name).unwrap())
    };
    assert_eq!(figures(&client), [2, 2 * 65, 0]);
    tell(&mut teller, "close", "");
    assert_eq!(figures(&client), [0, 0, 2]);
    let log: Vec<String> = client.log().into_iter().map(|line| line.text).collect();
    assert!(log.contains(&"stopped with 2 messages that waited for a connection".to_owned()), "{log:?}");
}
