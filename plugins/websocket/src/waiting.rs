//! What a client is to send while it has no connection.

use std::{collections::VecDeque, fmt};

use flowbay_sdk::Value;

/// What a frame takes of memory besides its payload, about: many that are empty must not be free.
pub const OVERHEAD_BYTES: usize = 64;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages; with 0 nothing waits.
    pub messages: usize,
    /// Bytes of their payloads as they are sent, each with [`OVERHEAD_BYTES`].
    pub bytes: usize,
}

/// There is no room for a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Full(Limits);

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { messages, bytes } = self.0;
        write!(f, "the queue for the time without a connection is full ({messages} messages, {bytes} bytes)")
    }
}

impl std::error::Error for Full {}

/// Frames that wait for a connection, the oldest first, within limits.
#[derive(Debug)]
pub struct Waiting {
    frames: VecDeque<Value>,
    bytes: usize,
    limits: Limits,
}

impl Waiting {
    /// Begins with what a predecessor left.
    pub fn new(limits: Limits, saved: &Value) -> Self {
        let mut waiting = Self { frames: VecDeque::new(), bytes: 0, limits };
        // Within the limits: those of a predecessor were the same.
        waiting.put_back(saved.as_array().into_iter().flatten().cloned().collect());
        waiting
    }

    /// What a successor has to know.
    pub fn save(&self) -> Value {
        Value::from(self.frames.iter().cloned().collect::<Vec<_>>())
    }

    /// Whether messages wait at all, instead of being errors.
    pub fn is_on(&self) -> bool {
        self.limits.messages > 0
    }

    /// Adds the newest one.
    ///
    /// # Errors
    /// There is no room.
    pub fn push(&mut self, frame: Value) -> Result<(), Full> {
        let size = size_of(&frame);
        if self.frames.len() >= self.limits.messages || self.bytes + size > self.limits.bytes {
            return Err(Full(self.limits));
        }
        self.bytes += size;
        self.frames.push_back(frame);
        Ok(())
    }

    /// Puts back what was taken and not sent: older than all that waits, newest last. What is too much then is left
    /// out, the newest first; returns how many those are.
    pub fn put_back(&mut self, frames: Vec<Value>) -> usize {
        for frame in frames.into_iter().rev() {
            self.bytes += size_of(&frame);
            self.frames.push_front(frame);
        }
        let mut left_out = 0;
        while (self.frames.len() > self.limits.messages || self.bytes > self.limits.bytes)
            && let Some(frame) = self.frames.pop_back()
        {
            self.bytes -= size_of(&frame);
            left_out += 1;
        }
        left_out
    }

    /// Takes all, oldest first.
    pub fn take(&mut self) -> Vec<Value> {
        self.bytes = 0;
        std::mem::take(&mut self.frames).into()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Bytes of their payloads as they are sent, each with [`OVERHEAD_BYTES`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn size_of(frame: &Value) -> usize {
    let payload = match frame {
        Value::Str(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    OVERHEAD_BYTES + payload
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(messages: usize, bytes: usize) -> Waiting {
        Waiting::new(Limits { messages, bytes }, &Value::Null)
    }

    fn values(texts: &[&str]) -> Vec<Value> {
        texts.iter().map(|text| Value::from(*text)).collect()
    }

    #[test]
    fn what_waits_keeps_its_order() {
        let mut waiting = waiting(10, 1000);
        for text in ["a", "b"] {
            waiting.push(text.into()).unwrap();
        }
        assert_eq!(waiting.take(), values(&["a", "b"]));
        waiting.push("c".into()).unwrap();
        assert_eq!(waiting.put_back(values(&["a", "b"])), 0);
        assert_eq!(waiting.take(), values(&["a", "b", "c"]));
        assert_eq!((waiting.len(), waiting.bytes), (0, 0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut few = waiting(2, 1000);
        few.push("a".into()).unwrap();
        few.push("b".into()).unwrap();
        let full = few.push("c".into()).unwrap_err();
        assert!(full.to_string().contains("2 messages, 1000 bytes"), "{full}");

        let mut small = waiting(10, 2 * OVERHEAD_BYTES + 4);
        small.push("abcd".into()).unwrap();
        assert!(small.push("e".into()).is_err());
        assert!(small.push("".into()).is_ok(), "no bytes fit");
        assert!(small.push("".into()).is_err(), "but not without end");
        assert!(waiting(10, 100).push("x".repeat(100).into()).is_err(), "larger than all the room there is");
        assert!(waiting(0, 1000).push("".into()).is_err());
    }

    #[test]
    fn of_what_is_put_back_beyond_the_limits_the_newest_is_left_out() {
        let mut waiting = waiting(3, 1000);
        waiting.push("c".into()).unwrap();
        waiting.push("d".into()).unwrap();
        assert_eq!(waiting.put_back(values(&["a", "b"])), 1);
        assert_eq!(waiting.take(), values(&["a", "b", "c"]));
        let bytes = 2 * OVERHEAD_BYTES + 4;
        let mut small = self::waiting(3, bytes);
        assert_eq!(small.put_back(values(&["ab", "cd", "e"])), 1);
        assert_eq!((small.bytes, small.take()), (bytes, values(&["ab", "cd"])));
    }

    #[test]
    fn a_successor_has_what_waited() {
        let limits = Limits { messages: 3, bytes: 1000 };
        let mut old = Waiting::new(limits, &Value::Null);
        old.push("a".into()).unwrap();
        old.push(Value::Bytes(flowbay_sdk::Blob::from(&[1, 2][..]))).unwrap();
        let mut new = Waiting::new(limits, &old.save());
        assert_eq!((new.bytes, new.take()), (2 * OVERHEAD_BYTES + 3, old.take()));
        assert_eq!(Waiting::new(limits, &Value::from(7)).len(), 0);
    }
}
