//! The built plugin in the real host.

use flowbay_sdk::testing::HostProcess;

/// A button, the node, and what shows its result.
const FLOW: &str = r#"[
    {"id": "t", "type": "tab", "label": "test"},
    {"id": "press", "type": "inject", "z": "t", "props": [{"p": "payload"}], "payload": "a, b", "payloadType": "str",
     "wires": [["count"]]},
    {"id": "count", "type": "letters", "z": "t", "property": "payload", "wires": [["show"]]},
    {"id": "show", "type": "debug", "z": "t", "name": "letters", "active": true, "complete": "letters", "wires": []}
]"#;

#[test]
fn a_flow_is_run_pressed_asked_and_stopped() {
    if !HostProcess::is_there() {
        return;
    }
    let host =
        HostProcess::setup(FLOW).setting("drain_budget", "7").variable("FLOWBAY_LOG_FORMAT", "text").start();
    for _ in 0..2 {
        host.inject("press");
        let shown = host.next_debug("letters");
        assert_eq!(
            (shown.property.as_str(), shown.format.as_str(), shown.value.as_str()),
            ("msg.letters", "number", "2")
        );
    }
    assert!(host.wait_log("plugin outside").contains("letters"));
    let plugins = host.request("GET", "/plugins", "");
    assert!(plugins.status == 200 && plugins.body.contains("outside"), "{plugins:?}");
    assert_eq!(host.request("POST", "/nowhere", "{}").status, 404);

    let folder = host.folder().to_owned();
    let ended = host.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.log.contains("stopped flows"), "{ended:?}");
    assert!(ended.output.contains("[debug:letters]"), "{ended:?}");
    assert!(!folder.exists(), "its folder is gone");
}

#[test]
#[should_panic(expected = "inject nobody: Not Found")]
fn a_button_that_is_not_there_fails_the_test() {
    if !HostProcess::is_there() {
        panic!("inject nobody: Not Found (skipped)");
    }
    HostProcess::run(FLOW).inject("nobody");
}
