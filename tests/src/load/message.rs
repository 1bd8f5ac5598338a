//! What is sent: each message is known from its connection and its number, so that its echo can be checked byte by
//! byte without keeping it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::random::Random;

/// Least and most bytes of a payload.
pub const SIZES: (usize, usize) = (16, 100_000);

/// What stands at the start of each payload: the connection and the number, in hexadecimal.
const HEAD: usize = "cccccc-nnnnnnnn|".len();

/// What a listener or client takes a message for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The payload, text or bytes.
    Payload,
    /// A whole message as JSON text.
    Whole,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Text rather than bytes.
    pub text: bool,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Text of all kinds of characters (none that JSON escapes), and bytes; a message is a slice of one of them.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    const KINDS: [&str; 4] =
        ["abcdefghijklmnopqrstuvwxyz 0123456789", "äöüßéèñ¿", "漢字仮名한국어", "🦀🚀🎈"];
    let mut random = Random::new(7);
    let mut text = String::new();
    while text.len() < 2 * SIZES.1 {
        let kind: Vec<char> = KINDS[random.below(KINDS.len())].chars().collect();
        for _ in 0..random.below(40) {
            text.push(kind[random.below(kind.len())]);
        }
    }
    text
});
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(8);
    (0..2 * SIZES.1).map(|_| random.next() as u8).collect()
});

impl Message {
    /// Message `number` of a connection.
    pub fn of(connection: u32, number: u64, mode: Mode, sizes: (usize, usize)) -> Message {
        let mut random = Random::of(1, u64::from(connection), number);
        let size = random.any_magnitude(sizes.0.max(HEAD), sizes.1.min(SIZES.1));
        let text = mode == Mode::Whole || random.percent(60);
        let mut head = String::new();
        let _ = write!(head, "{connection:06x}-{:08x}|", number as u32);
        let mut payload = head.into_bytes();
        let rest = size - payload.len();
        let from = random.below(SIZES.1);
        if text {
            let from = TEXT.floor_char_boundary(from);
            let until = TEXT.floor_char_boundary(from + rest);
            payload.extend_from_slice(&TEXT.as_bytes()[from..until]);
            payload.resize(size, b'.');
        } else {
            payload.extend_from_slice(&BYTES[from..from + rest]);
        }
        Message { text, payload }
    }

    /// As it is sent.
    pub fn to_wire(&self, number: u64, mode: Mode) -> Vec<u8> {
        match mode {
            Mode::Payload => self.payload.clone(),
            Mode::Whole => json!({"payload": String::from_utf8_lossy(&self.payload), "number": number})
                .to_string()
                .into_bytes(),
        }
    }
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// The echo of the message with this number.
    Echo(u64),
    /// A message that the flow sent by itself to all, with its number.
    Tick(u64),
    /// Something else, or damaged.
    Corrupt(String),
}

/// What a message is that came on a connection. A tick is a text that is a number; a whole message that is one has the
/// topic `tick` and the number as its payload.
pub fn recognise(connection: u32, mode: Mode, sizes: (usize, usize), text: bool, bytes: &[u8]) -> Received {
    if text && let Some(number) = str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()) {
        return Received::Tick(number);
    }
    let whole: Value;
    let payload = match mode {
        Mode::Payload => bytes,
        Mode::Whole => {
            whole = serde_json::from_slice(bytes).unwrap_or_default();
            if let (Some("tick"), Some(number)) = (whole["topic"].as_str(), whole["payload"].as_u64()) {
                return Received::Tick(number);
            }
            whole["payload"].as_str().unwrap_or_default().as_bytes()
        }
    };
    let head = payload.get(..HEAD).and_then(|head| str::from_utf8(head).ok()).and_then(|head| {
        let (from, number) = head.strip_suffix('|')?.split_once('-')?;
        Some((u32::from_str_radix(from, 16).ok()?, u64::from_str_radix(number, 16).ok()?))
    });
    let Some((from, number)) = head else {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        return Received::Corrupt(format!("{} bytes that begin with {shown:?}", bytes.len()));
    };
    if from != connection {
        return Received::Corrupt(format!("message {number} of connection {from}"));
    }
    let expected = Message::of(connection, number, mode, sizes);
    if expected.text != text || expected.payload != payload {
        let same = expected.payload.iter().zip(payload).take_while(|(a, b)| a == b).count();
        return Received::Corrupt(format!(
            "message {number} differs from byte {same} on: {} of {} bytes came",
            payload.len(),
            expected.payload.len()
        ));
    }
    Received::Echo(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_recognised_and_a_damaged_one_is_not() {
        for mode in [Mode::Payload, Mode::Whole] {
            for number in 0..200 {
                let message = Message::of(3, number, mode, SIZES);
                assert!((SIZES.0..=SIZES.1).contains(&message.payload.len()));
                let mut wire = message.to_wire(number, mode);
                assert_eq!(recognise(3, mode, SIZES, message.text, &wire), Received::Echo(number));
                assert!(matches!(recognise(4, mode, SIZES, message.text, &wire), Received::Corrupt(_)));
                let last = wire.len() - if mode == Mode::Whole { 20 } else { 1 };
                wire[last] ^= 1;
                if message.payload.len() > HEAD {
                    assert!(matches!(recognise(3, mode, SIZES, message.text, &wire), Received::Corrupt(_)));
                }
            }
        }
        assert_eq!(recognise(3, Mode::Payload, SIZES, true, b"12"), Received::Tick(12));
    }
}
