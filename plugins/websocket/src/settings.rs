//! The properties of a `websocket-listener` or `websocket-client` in the flow file.

use flowbay_sdk::{Error, Overflow, QueueOptions, Value, lenient};
use serde::Deserialize;

use crate::{connection::Limits, options::Options, payload::Mode};

/// The largest message that may be allowed, in bytes: it is held in memory as a whole, and so is what a flow makes of it.
const LARGEST_MESSAGE: u64 = 1 << 30;
/// The longest queue that may be asked for, in messages or bytes: more than any memory holds.
const LONGEST_QUEUE: u64 = 1 << 40;
/// The most fragments that may be allowed.
const MOST_FRAGMENTS: u64 = 1 << 24;

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
    /// The id of the `tls-config` node that a client's TLS is as; empty for the system's own.
    #[serde(default, deserialize_with = "lenient::string")]
    pub tls: String,
    /// All other properties: see [`crate::options`].
    #[serde(flatten)]
    pub options: Value,
}

impl Settings {
    /// Whether frames are payloads or entire messages: only the text `true` asks for the latter.
    pub fn mode(&self) -> Mode {
        if self.wholemsg == "true" { Mode::Whole } else { Mode::Payload }
    }

    /// What peers may send, and how long they may be silent: `usual` unless a property says otherwise.
    ///
    /// # Errors
    /// A property makes no sense.
    pub fn limits(&self, usual: Limits) -> Result<Limits, Error> {
        let options = Options(&self.options);
        let max_message = options.whole("maxMessageSize", 1..=LARGEST_MESSAGE)?.map(|bytes| bytes as usize);
        let max_message = max_message.unwrap_or(usual.max_message);
        let max_frame = options.whole("maxFrameSize", 1..=LARGEST_MESSAGE)?.map(|bytes| bytes as usize);
        let max_fragments = options.whole("maxFragments", 1..=MOST_FRAGMENTS)?.map(|count| count as u32);
        Ok(Limits {
            max_message,
            max_frame: max_frame.unwrap_or(max_message).min(max_message),
            max_fragments: max_fragments.unwrap_or(usual.max_fragments),
            heartbeat_ms: self.heartbeat_ms(),
            idle_ms: options.seconds_ms("idleTimeout")?.filter(|ms| *ms > 0),
        })
    }

    /// How much may wait in the host to be sent to a peer, and what becomes of more.
    ///
    /// # Errors
    /// A property makes no sense.
    pub fn send_queue(&self) -> Result<QueueOptions, Error> {
        let options = Options(&self.options);
        let overflows = [
            ("close", Overflow::Close),
            ("drop-newest", Overflow::DropNewest),
            ("drop-oldest", Overflow::DropOldest),
        ];
        Ok(QueueOptions {
            messages: options.whole("sendQueueMessages", 1..=LONGEST_QUEUE)?,
            bytes: options.whole("sendQueueBytes", 1..=LONGEST_QUEUE)?,
            overflow: options.choice("sendQueueOverflow", &overflows)?.unwrap_or_default(),
        })
    }

    /// The subprotocols of the configuration, in order.
    pub fn protocols(&self) -> Vec<String> {
        let names = self.subprotocol.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    }

    /// How often the peer is asked whether it is still there, in milliseconds; `None` for never.
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
    fn limits_are_the_usual_ones_unless_said_otherwise() {
        let usual = Limits::LISTENER;
        assert_eq!(settings("").limits(usual).unwrap(), usual);
        let given =
            r#","maxMessageSize":"1000","maxFrameSize":100,"maxFragments":"7","hb":"5","idleTimeout":2.5"#;
        let expected = Limits {
            max_message: 1000,
            max_frame: 100,
            max_fragments: 7,
            heartbeat_ms: Some(5000),
            idle_ms: Some(2500),
        };
        assert_eq!(settings(given).limits(usual).unwrap(), expected);
        // A frame is part of a message.
        for given in [r#","maxMessageSize":1000"#, r#","maxMessageSize":1000,"maxFrameSize":5000"#] {
            let limits = settings(given).limits(usual).unwrap();
            assert_eq!((limits.max_message, limits.max_frame), (1000, 1000), "{given}");
        }
        assert_eq!(settings(r#","idleTimeout":"0","maxFragments":"""#).limits(usual).unwrap(), usual);
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_an_error_that_names_it() {
        for (name, value) in [
            ("maxMessageSize", "0"),
            ("maxMessageSize", r#""16 MiB""#),
            ("maxMessageSize", "1.5"),
            ("maxFrameSize", "-1"),
            ("maxFragments", "1e99"),
            ("idleTimeout", "-1"),
            ("idleTimeout", "[]"),
        ] {
            let error = settings(&format!(r#","{name}":{value}"#)).limits(Limits::LISTENER).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn the_send_queue_is_the_hosts_unless_said_otherwise() {
        assert_eq!(settings("").send_queue().unwrap(), QueueOptions::default());
        let given =
            settings(r#","sendQueueMessages":"5","sendQueueBytes":100,"sendQueueOverflow":"drop-oldest""#);
        let expected = QueueOptions { messages: Some(5), bytes: Some(100), overflow: Overflow::DropOldest };
        assert_eq!(given.send_queue().unwrap(), expected);
        for wrong in [r#","sendQueueMessages":0"#, r#","sendQueueOverflow":"never""#] {
            assert!(settings(wrong).send_queue().is_err(), "{wrong}");
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
