//! The properties of a `websocket-listener` or `websocket-client` in the flow file.

use flowbay_sdk::{Value, lenient};
use serde::Deserialize;

use crate::payload::Mode;

/// What both configuration types have; which of them it is makes no difference, as in Node-RED.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    /// A path to listen on, or a `ws://` or `wss://` URL to connect to.
    pub path: String,
    #[serde(default)]
    wholemsg: Value,
    #[serde(default, deserialize_with = "lenient::string")]
    subprotocol: String,
    #[serde(default)]
    hb: Value,
    /// Headers of a client's request, see [`crate::headers::resolve`].
    #[serde(default)]
    pub headers: Value,
}

impl Settings {
    /// Whether frames are payloads or entire messages: only the text `true` asks for the latter.
    pub fn mode(&self) -> Mode {
        if self.wholemsg == "true" { Mode::Whole } else { Mode::Payload }
    }

    /// The subprotocols that a client offers, in order.
    pub fn protocols(&self) -> Vec<String> {
        let names = self.subprotocol.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    }

    /// How often a client asks whether the server is still there, in milliseconds; `None` for never.
    pub fn heartbeat_ms(&self) -> Option<u64> {
        let text = self.hb.to_js_string();
        let digits = text.trim_start();
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        // A day is long enough; the product stays far from its limits.
        let seconds = digits[..end].parse::<u64>().ok()?.min(86_400);
        (seconds > 0).then_some(seconds * 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowbay_sdk::value::from_value;

    fn settings(properties: &str) -> Settings {
        let node = format!(r#"{{"id":"a","type":"websocket-client","path":"ws://h"{properties}}}"#);
        from_value(&Value::from_json(node.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn only_the_text_true_asks_for_entire_messages() {
        for (property, mode) in [
            (r#","wholemsg":"true""#, Mode::Whole),
            (r#","wholemsg":"false""#, Mode::Payload),
            (r#","wholemsg":true"#, Mode::Payload),
            ("", Mode::Payload),
        ] {
            assert_eq!(settings(property).mode(), mode, "{property}");
        }
    }

    #[test]
    fn the_heartbeat_is_a_positive_whole_number_of_seconds() {
        for (property, expected) in [
            (r#","hb":"30""#, Some(30_000)),
            (r#","hb":5"#, Some(5000)),
            (r#","hb":"2.9""#, Some(2000)),
            (r#","hb":" 7s""#, Some(7000)),
            (r#","hb":"0""#, None),
            (r#","hb":"""#, None),
            (r#","hb":"-3""#, None),
            (r#","hb":null"#, None),
            (r#","hb":"x""#, None),
            ("", None),
        ] {
            assert_eq!(settings(property).heartbeat_ms(), expected, "{property}");
        }
    }

    #[test]
    fn subprotocols_are_a_list_with_commas() {
        assert_eq!(settings(r#","subprotocol":" a,b , ,c""#).protocols(), ["a", "b", "c"]);
        assert_eq!(settings(r#","subprotocol":"""#).protocols(), [""; 0]);
    }

    #[test]
    fn a_configuration_without_a_path_is_refused() {
        let node = Value::from_json(br#"{"id":"a","wholemsg":"true"}"#).unwrap();
        assert!(from_value::<Settings>(&node).unwrap_err().to_string().contains("path"));
    }
}
