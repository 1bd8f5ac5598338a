//! The everyday nodes: inject, debug, change, link, catch, status, complete, junction, comment.

use std::time::{Duration, Instant, SystemTime};

use flowbay_tests::harness::{Flow, Host};
use serde_json::{Value, json};

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// An inject node, `inject`, wired to `out`.
fn inject(properties: Value) -> Flow {
    Flow::new().node("inject", "inject", "out", properties).io("")
}

// ---- inject

#[test]
fn inject_sends_the_properties_it_is_set_to() {
    let property =
        |name: &str, value: &str, value_type: &str| json!({"p": name, "v": value, "vt": value_type});
    let props = json!([
        {"p": "payload"},
        {"p": "topic", "vt": "str"},
        property("text", "some text", "str"),
        property("number", "1.5", "num"),
        property("yes", "true", "bool"),
        property("no", "false", "bool"),
        property("parsed", "{\"a\":[1,2]}", "json"),
        property("bytes", "[1,2,3]", "bin"),
        property("variable", "TEST_VALUE", "env"),
        property("deep.er", "x", "str"),
    ]);
    let flow = inject(json!({"props": props, "payload": "p", "payloadType": "str", "topic": "t"}));
    let host = Host::builder().flow(&flow).variable("TEST_VALUE", "from-env").start();
    let mut io = host.io();
    host.inject("inject");
    let mut msg = io.recv_json();
    assert_eq!(msg["_msgid"].as_str().map(str::len), Some(16), "{msg}");
    msg.as_object_mut().unwrap().shift_remove("_msgid");
    assert_eq!(
        msg,
        json!({
            "payload": "p",
            "topic": "t",
            "text": "some text",
            "number": 1.5,
            "yes": true,
            "no": false,
            "parsed": {"a": [1, 2]},
            "bytes": {"type": "Buffer", "data": [1, 2, 3]},
            "variable": "from-env",
            "deep": {"er": "x"},
        })
    );
}

#[test]
fn inject_of_an_older_flow_file_sends_payload_and_topic() {
    let host = Host::run(&inject(json!({"topic": "t", "payload": "[1]", "payloadType": "json"})));
    let mut io = host.io();
    host.inject("inject");
    let msg = io.recv_json();
    assert_eq!((&msg["topic"], &msg["payload"]), (&json!("t"), &json!([1])));
}

#[test]
fn inject_sends_the_time_in_milliseconds() {
    let host = Host::run(&inject(json!({"props": [{"p": "payload"}], "payload": "", "payloadType": "date"})));
    let mut io = host.io();
    let before = now_ms();
    host.inject("inject");
    let sent = io.recv_json()["payload"].as_u64().unwrap();
    assert!((before..=now_ms()).contains(&sent), "{sent}");
}

#[test]
fn inject_gives_each_message_an_id_of_its_own() {
    let host = Host::run(&inject(json!({"props": [{"p": "payload"}], "payload": "", "payloadType": "str"})));
    let mut io = host.io();
    host.inject("inject");
    host.inject("inject");
    assert_ne!(io.recv_json()["_msgid"], io.recv_json()["_msgid"]);
}

#[test]
fn inject_reads_flow_and_global_context() {
    let props =
        json!([{"p": "payload", "v": "a.b", "vt": "flow"}, {"p": "shared", "v": "g", "vt": "global"}]);
    let flow = Flow::new()
        .node("inject", "inject", "out", json!({"props": props}))
        .change(
            "store",
            "stored",
            json!([
                {"t": "set", "p": "a.b", "pt": "flow", "to": "payload", "tot": "msg"},
                {"t": "set", "p": "g", "pt": "global", "to": "everywhere", "tot": "str"},
            ]),
        )
        .debug("stored", "payload")
        .io("store");
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({"payload": 7}));
    host.wait_debug("stored");
    host.inject("inject");
    let msg = io.recv_json();
    assert_eq!((&msg["payload"], &msg["shared"]), (&json!(7), &json!("everywhere")));
}

#[test]
fn inject_once_sends_after_its_delay_without_being_pressed() {
    let flow = Flow::new()
        .node(
            "inject",
            "inject",
            "show",
            json!({"props": [{"p": "payload"}], "payload": "once", "payloadType": "str", "once": true, "onceDelay": 0.3}),
        )
        .debug("show", "payload");
    let begin = Instant::now();
    let host = Host::run(&flow);
    assert_eq!(host.wait_debug("show").1, "\"once\"");
    assert!(begin.elapsed() >= Duration::from_millis(300), "after {:?}", begin.elapsed());
}

#[test]
fn inject_repeats_at_its_interval() {
    let properties = json!({"props": [{"p": "payload"}], "payload": "", "payloadType": "date", "repeat": "0.2", "once": false});
    let host = Host::run(&inject(properties));
    let mut io = host.io();
    let times: Vec<u64> = (0..4).map(|_| io.recv_json()["payload"].as_u64().unwrap()).collect();
    let taken = times[3] - times[0];
    assert!((400..5_000).contains(&taken), "three intervals of 200 ms took {taken} ms");
}

#[test]
fn inject_repeats_on_a_schedule() {
    let properties = json!({"props": [{"p": "payload"}], "payload": "", "payloadType": "date", "crontab": "*/1 * * * * *"});
    let host = Host::run(&inject(properties));
    let mut io = host.io();
    let (first, second) =
        (io.recv_json()["payload"].as_u64().unwrap(), io.recv_json()["payload"].as_u64().unwrap());
    assert!(second > first);
    assert!(first % 1_000 < 900, "at the beginning of a second, not {first}");
}

#[test]
fn inject_refuses_jsonata_with_a_clear_error_and_the_rest_runs() {
    let flow = Flow::new()
        .node(
            "plain",
            "inject",
            "out",
            json!({"props": [{"p": "payload"}], "payload": "x", "payloadType": "str"}),
        )
        .node("jsonata", "inject", "out", json!({"props": [{"p": "payload", "v": "1+1", "vt": "jsonata"}]}))
        .io("");
    let host = Host::run(&flow);
    let mut io = host.io();
    // Refused when the node is created or when it is pressed; in the log in either case.
    host.post("/inject/jsonata");
    host.wait_log("jsonata*JSONata");
    host.inject("plain");
    assert_eq!(io.recv_json()["payload"], "x");
}

#[test]
fn inject_with_a_schedule_that_is_none_is_reported_and_the_rest_runs() {
    let flow = inject(json!({"props": [{"p": "payload"}], "payload": "x", "payloadType": "str"})).node(
        "never",
        "inject",
        "out",
        json!({"props": [], "crontab": "every now and then"}),
    );
    let host = Host::run(&flow);
    host.wait_log("never*every now and then");
    let mut io = host.io();
    host.inject("inject");
    assert_eq!(io.recv_json()["payload"], "x");
}

// ---- debug

/// What a debug node with these properties prints for a message: head and value.
fn printed(properties: Value, msg: &Value) -> (String, String) {
    let flow = Flow::new().node("id-of-it", "debug", "", properties).io("id-of-it");
    let host = Host::run(&flow);
    host.io().send_json(msg);
    host.wait_debug("spy")
}

#[test]
fn debug_prints_name_topic_property_type_and_value() {
    for (payload, format, shown) in [
        (json!("hi"), "string[2]", "\"hi\""),
        (json!(1.5), "number", "1.5"),
        (json!(true), "boolean", "true"),
        (json!(null), "null", "null"),
        (json!([1, "x"]), "array[2]", "[1,\"x\"]"),
        (json!({"a": {"b": 1}}), "Object", "{\"a\":{\"b\":1}}"),
    ] {
        let (head, value) = printed(
            json!({"name": "spy", "active": true, "complete": "false"}),
            &json!({"topic": "news", "payload": payload}),
        );
        assert_eq!(head, format!("news : msg.payload : {format}"));
        assert_eq!(value, shown);
    }
}

#[test]
fn debug_prints_a_property_or_the_complete_message() {
    let msg = json!({"payload": 1, "some": {"where": [5, "deep"]}});
    let (head, value) = printed(
        json!({"name": "spy", "active": true, "complete": "some.where[1]", "targetType": "msg"}),
        &msg,
    );
    assert_eq!((head.as_str(), value.as_str()), ("msg.some.where[1] : string[4]", "\"deep\""));

    let (head, value) =
        printed(json!({"name": "spy", "active": true, "complete": "nothing", "targetType": "msg"}), &msg);
    assert_eq!((head.as_str(), value.as_str()), ("msg.nothing : undefined", "undefined"));

    let (head, value) =
        printed(json!({"name": "spy", "active": true, "complete": "true", "targetType": "full"}), &msg);
    assert_eq!(head, "msg : Object");
    let whole: Value = serde_json::from_str(&value).unwrap();
    assert_eq!((&whole["payload"], &whole["some"]), (&json!(1), &msg["some"]));
}

#[test]
fn debug_without_a_name_is_called_by_its_id_and_an_inactive_one_is_silent() {
    let flow = Flow::new()
        .node("quiet", "debug", "", json!({"active": false, "complete": "payload"}))
        .node("loud", "debug", "", json!({"active": true, "complete": "payload"}))
        .io("quiet, loud");
    let host = Host::run(&flow);
    host.io().send_json(&json!({"payload": 1}));
    assert_eq!(host.wait_debug("loud").1, "1");
    assert_eq!(host.count_stdout("quiet"), 0, "{}", host.stdout());
}

#[test]
fn debug_shows_what_it_prints_as_its_status_when_told_to() {
    let flow = Flow::new()
        .node(
            "spy",
            "debug",
            "",
            json!({"active": true, "complete": "payload", "tostatus": true, "statusVal": "", "statusType": "auto"}),
        )
        .node("watch", "status", "out", json!({"scope": ["spy"]}))
        .io("spy");
    let host = Host::run(&flow);
    let mut io = host.io();
    for (payload, text) in [
        (json!("hello"), "hello".to_owned()),
        (json!(42), "42".to_owned()),
        (json!("x".repeat(100)), format!("{}...", "x".repeat(32))),
    ] {
        io.send_json(&json!({"payload": payload}));
        assert_eq!(io.recv_json()["status"]["text"], text);
    }
}

// ---- change

/// One row for each behaviour: what it is, the rules, the message, and the message that comes out.
#[test]
fn change_does_what_its_rules_say() {
    let set = |p: &str, to: &str, tot: &str| json!({"t": "set", "p": p, "pt": "msg", "to": to, "tot": tot});
    let change = |p: &str, from: &str, fromt: &str, to: &str, tot: &str| json!({"t": "change", "p": p, "pt": "msg", "from": from, "fromt": fromt, "to": to, "tot": tot});
    let delete = |p: &str| json!({"t": "delete", "p": p, "pt": "msg"});
    let moved = |p: &str, to: &str| json!({"t": "move", "p": p, "pt": "msg", "to": to, "tot": "msg"});
    let rows = [
        ("set a string", json!([set("payload", "x", "str")]), json!({}), json!({"payload": "x"})),
        (
            "set a number",
            json!([set("payload", "4.5", "num")]),
            json!({"payload": "x"}),
            json!({"payload": 4.5}),
        ),
        ("set a whole number", json!([set("payload", "10", "num")]), json!({}), json!({"payload": 10})),
        ("set true", json!([set("payload", "true", "bool")]), json!({}), json!({"payload": true})),
        ("set false", json!([set("payload", "false", "bool")]), json!({}), json!({"payload": false})),
        (
            "set JSON",
            json!([set("payload", "{\"a\":[1]}", "json")]),
            json!({}),
            json!({"payload": {"a": [1]}}),
        ),
        (
            "set a buffer",
            json!([set("payload", "[104,105]", "bin")]),
            json!({}),
            json!({"payload": {"type": "Buffer", "data": [104, 105]}}),
        ),
        (
            "set from the environment",
            json!([set("payload", "TEST_VALUE", "env")]),
            json!({}),
            json!({"payload": "ev"}),
        ),
        (
            "set from inside a text with a variable",
            json!([set("payload", "a-${TEST_VALUE}-${NOT_SET}-b", "env")]),
            json!({}),
            json!({"payload": "a-ev--b"}),
        ),
        (
            "set a deep property",
            json!([set("a.b.c", "x", "str")]),
            json!({}),
            json!({"a": {"b": {"c": "x"}}}),
        ),
        (
            "set an element",
            json!([set("a[1].b", "x", "str")]),
            json!({"a": [{"b": 1}, {"b": 2}]}),
            json!({"a": [{"b": 1}, {"b": "x"}]}),
        ),
        (
            "set with quoted property names",
            json!([set("a[\"two words\"]['more']", "x", "str")]),
            json!({}),
            json!({"a": {"two words": {"more": "x"}}}),
        ),
        (
            "copy a property",
            json!([set("b", "a.deep[0]", "msg")]),
            json!({"a": {"deep": [7]}}),
            json!({"a": {"deep": [7]}, "b": 7}),
        ),
        ("copy what is not there", json!([set("b", "nothing", "msg")]), json!({"b": 1}), json!({})),
        (
            "copies are separate",
            json!([set("b", "a", "msg"), set("b.x", "2", "num")]),
            json!({"a": {"x": 1}}),
            json!({"a": {"x": 1}, "b": {"x": 2}}),
        ),
        (
            "set and read context",
            json!([
                {"t": "set", "p": "k.deep", "pt": "flow", "to": "a", "tot": "msg"},
                {"t": "set", "p": "k", "pt": "global", "to": "g", "tot": "str"},
                set("b", "k", "flow"),
                set("c", "k", "global"),
            ]),
            json!({"a": 1}),
            json!({"a": 1, "b": {"deep": 1}, "c": "g"}),
        ),
        (
            "replace in a string, everywhere",
            json!([change("payload", "a", "str", "o", "str")]),
            json!({"payload": "banana"}),
            json!({"payload": "bonono"}),
        ),
        (
            "replace takes no pattern for a pattern",
            json!([change("payload", ".", "str", "!", "str")]),
            json!({"payload": "a.b"}),
            json!({"payload": "a!b"}),
        ),
        (
            "replace by a regular expression",
            json!([change("payload", "(\\w+) (\\w+)", "re", "$2 $1", "str")]),
            json!({"payload": "one two"}),
            json!({"payload": "two one"}),
        ),
        (
            "replace a whole string by a number",
            json!([change("payload", "on", "str", "1", "num")]),
            json!({"payload": "on"}),
            json!({"payload": 1}),
        ),
        (
            "replace a number",
            json!([change("payload", "1", "num", "one", "str")]),
            json!({"payload": 1}),
            json!({"payload": "one"}),
        ),
        (
            "replace another number not",
            json!([change("payload", "1", "num", "one", "str")]),
            json!({"payload": 11}),
            json!({"payload": 11}),
        ),
        (
            "replace a boolean",
            json!([change("payload", "true", "bool", "yes", "str")]),
            json!({"payload": true}),
            json!({"payload": "yes"}),
        ),
        (
            "replace nothing in an object",
            json!([change("payload", "a", "str", "b", "str")]),
            json!({"payload": {"a": "a"}}),
            json!({"payload": {"a": "a"}}),
        ),
        ("delete", json!([delete("payload")]), json!({"payload": 1, "a": 2}), json!({"a": 2})),
        (
            "delete a deep property",
            json!([delete("a.b")]),
            json!({"a": {"b": 1, "c": 2}}),
            json!({"a": {"c": 2}}),
        ),
        ("delete what is not there", json!([delete("x.y")]), json!({"a": 1}), json!({"a": 1})),
        ("move", json!([moved("payload", "topic")]), json!({"payload": 1}), json!({"topic": 1})),
        ("move deep", json!([moved("a.b", "c.d")]), json!({"a": {"b": 1}}), json!({"a": {}, "c": {"d": 1}})),
        (
            "move out of itself",
            json!([moved("payload.a", "payload")]),
            json!({"payload": {"a": 1}}),
            json!({"payload": 1}),
        ),
        (
            "rules apply in order",
            json!([set("a", "1", "num"), moved("a", "b"), set("c", "b", "msg"), delete("b")]),
            json!({}),
            json!({"c": 1}),
        ),
    ];
    let mut flow = Flow::new();
    for (number, (_, rules, ..)) in rows.iter().enumerate() {
        let id = |name: &str| format!("{name}-{number}");
        flow = flow
            .config(&id("l"), "websocket-listener", json!({"path": format!("/{number}"), "wholemsg": "true"}))
            .node(&id("in"), "websocket in", &id("change"), json!({"server": id("l")}))
            .change(&id("change"), &id("out"), rules.clone())
            .node(&id("out"), "websocket out", "", json!({"server": id("l")}));
    }
    let host = Host::builder().flow(&flow).variable("TEST_VALUE", "ev").start();
    let mut wrong = Vec::new();
    for (number, (what, rules, msg, expected)) in rows.iter().enumerate() {
        let mut client = host.connect(&format!("/{number}"));
        let mut sent = msg.clone();
        sent["_msgid"] = json!("m");
        client.send_json(&sent);
        let mut got = client.recv_json();
        got.as_object_mut().unwrap().shift_remove("_msgid");
        if got != *expected {
            wrong.push(format!("{what}: {rules}\n  made {msg} into {got}\n  instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), host.logs());
}

#[test]
fn change_refuses_jsonata_with_a_clear_error_and_the_rest_runs() {
    let flow = Flow::new()
        .set("jsonata", "out", "payload", "1+1", "jsonata")
        .set("plain", "out", "payload", "x", "str")
        .io("jsonata, plain");
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({}));
    assert_eq!(io.recv_json()["payload"], "x");
    host.wait_log("jsonata*JSONata");
}

// ---- link

#[test]
fn link_out_sends_to_every_link_in_that_either_side_names() {
    let flow = Flow::new()
        .node("away", "link out", "", json!({"mode": "link", "links": ["there"]}))
        .tab("other", json!({}))
        .node("there", "link in", "mark-1", json!({"links": ["away"]}))
        .node("names-it", "link in", "mark-2", json!({"links": ["away"]}))
        .node("stranger", "link in", "mark-3", json!({"links": []}))
        .set("mark-1", "out", "via", "there", "str")
        .set("mark-2", "out", "via", "names-it", "str")
        .set("mark-3", "out", "via", "stranger", "str")
        .io("away");
    let host = Host::run(&flow);
    let mut io = host.io();
    for _ in 0..2 {
        io.send_json(&json!({"payload": 1}));
        let mut via = [io.recv_json()["via"].clone(), io.recv_json()["via"].clone()];
        via.sort_by_key(Value::to_string);
        assert_eq!(via, ["names-it", "there"]);
    }
}

/// A `link call` to `function`, which sets `payload` to `called` and returns.
fn calling(call: Value) -> Flow {
    Flow::new()
        .node("call", "link call", "out", call)
        .node("caught", "catch", "out", json!({"scope": ["call"]}))
        .tab("functions", json!({}))
        .node("function", "link in", "body", json!({"name": "by name", "links": []}))
        .set("body", "return", "payload", "called", "str")
        .node("return", "link out", "", json!({"mode": "return", "links": []}))
        .node("hole", "link in", "nowhere", json!({"links": []}))
        .node("nowhere", "comment", "", json!({}))
        .io("call")
}

#[test]
fn link_call_goes_on_when_the_link_out_returns() {
    let host = Host::run(&calling(json!({"linkType": "static", "links": ["function"], "timeout": "30"})));
    let mut io = host.io();
    for number in 0..3 {
        io.send_json(&json!({"payload": 1, "kept": number}));
        let msg = io.recv_json();
        assert_eq!((&msg["payload"], &msg["kept"]), (&json!("called"), &json!(number)));
        assert!(msg.get("_linkSource").is_none(), "the return address is used up: {msg}");
    }
}

#[test]
fn link_call_finds_its_target_by_name_or_id_in_the_message() {
    let host = Host::run(&calling(json!({"linkType": "dynamic", "links": [], "timeout": "30"})));
    let mut io = host.io();
    for target in ["function", "by name"] {
        io.send_json(&json!({"target": target}));
        assert_eq!(io.recv_json()["payload"], "called", "{target}");
    }
    io.send_json(&json!({"target": "nobody"}));
    let msg = io.recv_json();
    assert_eq!(msg["error"]["source"]["id"], "call", "{msg}");
}

#[test]
fn link_call_that_is_never_answered_is_an_error_after_its_timeout() {
    let host = Host::run(&calling(json!({"linkType": "static", "links": ["hole"], "timeout": "0.3"})));
    let mut io = host.io();
    let begin = Instant::now();
    io.send_json(&json!({"payload": "lost"}));
    let msg = io.recv_json();
    assert!(begin.elapsed() >= Duration::from_millis(290), "after {:?}", begin.elapsed());
    assert!(msg["error"]["message"].as_str().unwrap().contains("timeout"), "{msg}");
    assert_eq!(msg["error"]["source"]["type"], "link call");
    assert_eq!(msg["payload"], "lost");
}

#[test]
fn link_calls_do_not_wait_for_each_other() {
    // The first call is never answered; the second is answered meanwhile.
    let host = Host::run(&calling(json!({"linkType": "dynamic", "links": [], "timeout": "20"})));
    let mut io = host.io();
    io.send_json(&json!({"target": "hole"}));
    io.send_json(&json!({"target": "function"}));
    assert_eq!(io.recv_json()["payload"], "called");
}

#[test]
fn link_calls_nest() {
    let flow = calling(json!({"linkType": "static", "links": ["outer"], "timeout": "30"}))
        .node("outer", "link in", "inner-call", json!({"links": []}))
        .node(
            "inner-call",
            "link call",
            "mark",
            json!({"linkType": "static", "links": ["function"], "timeout": "30"}),
        )
        .set("mark", "return", "outer", "true", "bool");
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({}));
    let msg = io.recv_json();
    assert_eq!((&msg["payload"], &msg["outer"]), (&json!("called"), &json!(true)));
}

// ---- junction and comment

#[test]
fn junction_passes_messages_on_as_they_are() {
    let flow =
        Flow::new().node("j1", "junction", "j2", json!({})).node("j2", "junction", "out", json!({})).io("j1");
    let host = Host::run(&flow);
    let mut io = host.io();
    let msg = json!({"_msgid": "m", "payload": {"a": 1}});
    io.send_json(&msg);
    assert_eq!(io.recv_json(), msg);
}

#[test]
fn comment_is_there_and_does_nothing() {
    let flow = Flow::new().node("note", "comment", "", json!({"info": "why"})).io("note, out");
    let host = Host::run(&flow);
    let mut io = host.io();
    io.send_json(&json!({"payload": 1}));
    assert_eq!(io.recv_json()["payload"], 1);
    assert_eq!(host.count_log("error"), 0, "{}", host.log());
}
