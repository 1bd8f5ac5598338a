//! The properties of a configuration in the flow file that only a client reads.

use std::time::Duration;

use flowbay_sdk::Error;

use crate::{backoff::Reconnect, options::Options, waiting::Limits};

/// The delay before the first attempt of a back-off: a server that restarts is back at about that time.
const BACKOFF_FIRST_MS: u64 = 1_000;
/// The longest delay of a back-off: a server that was away for an hour is found again within half a minute, and one
/// that is not there costs two attempts a minute.
const BACKOFF_LONGEST_MS: u64 = 30_000;
/// The fixed delay; Node-RED's.
const FIXED_MS: u64 = 3_000;
/// Shorter delays would only keep the machine busy.
const SHORTEST_MS: u64 = 10;
/// For TCP, TLS and proxy, and again for the handshake: three attempts of TCP to reach a lossy peer.
const CONNECT_MS: u64 = 10_000;
/// More messages than this wait in no machine's memory.
const MAX_QUEUE: u64 = 1_000_000_000;
/// Bytes that may wait for a connection: as many as the host's queue of a session takes by default.
const QUEUE_BYTES: u64 = 16 << 20;
/// A terabyte, which is no limit.
const MAX_QUEUE_BYTES: u64 = 1 << 40;

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSettings {
    /// When it connects again.
    pub reconnect: Reconnect,
    /// How long TCP, TLS and a proxy may take, and again the handshake.
    pub connect_timeout: Duration,
    /// How much may wait while there is no connection.
    pub queue: Limits,
}

impl ClientSettings {
    /// Reads them: `reconnect`, `reconnectDelay`, `reconnectMaxDelay`, `connectTimeout`, `queueWhileDisconnected` and
    /// `queueWhileDisconnectedBytes`.
    ///
    /// # Errors
    /// One of them makes no sense.
    pub fn read(options: Options<'_>) -> Result<Self, Error> {
        let delay = |name: &str, default: u64| -> Result<Duration, Error> {
            let ms = options.seconds_ms(name)?.unwrap_or(default);
            Ok(Duration::from_millis(ms.max(SHORTEST_MS)))
        };
        let fixed = options.choice("reconnect", &[("backoff", false), ("fixed", true)])?.unwrap_or(false);
        let reconnect = if fixed {
            Reconnect::Fixed(delay("reconnectDelay", FIXED_MS)?)
        } else {
            Reconnect::Backoff {
                first: delay("reconnectDelay", BACKOFF_FIRST_MS)?,
                longest: delay("reconnectMaxDelay", BACKOFF_LONGEST_MS)?,
            }
        };
        // None at all would be a time in which nobody answers.
        let timeout_ms = options.seconds_ms("connectTimeout")?.filter(|ms| *ms > 0);
        let whole = |name: &str, most: u64, default: u64| -> Result<usize, Error> {
            let given = options.whole(name, 0..=most)?.unwrap_or(default);
            Ok(usize::try_from(given).unwrap_or(usize::MAX))
        };
        Ok(Self {
            reconnect,
            connect_timeout: Duration::from_millis(timeout_ms.unwrap_or(CONNECT_MS)),
            queue: Limits {
                messages: whole("queueWhileDisconnected", MAX_QUEUE, 0)?,
                bytes: whole("queueWhileDisconnectedBytes", MAX_QUEUE_BYTES, QUEUE_BYTES)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowbay_sdk::Value;

    fn settings(properties: &str) -> Result<ClientSettings, String> {
        let value = Value::from_json(format!("{{{properties}}}").as_bytes()).unwrap();
        ClientSettings::read(Options(&value)).map_err(|error| error.to_string())
    }

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn without_properties_a_client_has_the_documented_defaults() {
        for nothing in ["", r#""reconnect":"","reconnectDelay":"","connectTimeout":"0""#] {
            assert_eq!(
                settings(nothing).unwrap(),
                ClientSettings {
                    reconnect: Reconnect::Backoff { first: millis(1000), longest: millis(30_000) },
                    connect_timeout: millis(10_000),
                    queue: Limits { messages: 0, bytes: 16 << 20 },
                }
            );
        }
        let fixed = settings(r#""reconnect":"fixed""#).unwrap();
        assert_eq!(fixed.reconnect, Reconnect::Fixed(millis(3000)));
    }

    #[test]
    fn what_is_configured_is_used() {
        let given = settings(
            r#""reconnect":"backoff","reconnectDelay":"0.5","reconnectMaxDelay":2,"connectTimeout":"7",
               "queueWhileDisconnected":"100","queueWhileDisconnectedBytes":1000"#,
        );
        assert_eq!(
            given.unwrap(),
            ClientSettings {
                reconnect: Reconnect::Backoff { first: millis(500), longest: millis(2000) },
                connect_timeout: millis(7000),
                queue: Limits { messages: 100, bytes: 1000 },
            }
        );
        let busy = settings(r#""reconnect":"fixed","reconnectDelay":0"#).unwrap();
        assert_eq!(busy.reconnect, Reconnect::Fixed(millis(10)), "never without a pause");
    }

    #[test]
    fn what_makes_no_sense_is_an_error_that_names_it() {
        for (name, wrong) in [
            ("reconnect", "\"sometimes\""),
            ("reconnectDelay", "-1"),
            ("reconnectMaxDelay", "\"soon\""),
            ("connectTimeout", "1e300"),
            ("queueWhileDisconnected", "1.5"),
            ("queueWhileDisconnectedBytes", "[]"),
        ] {
            let error = settings(&format!("\"{name}\":{wrong}")).unwrap_err();
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
