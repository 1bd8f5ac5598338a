//! What a connection sends before anything else: messages that were older than it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use flowbay_sdk::{Received, Session, Value};

/// In a connection's state: its backlog.
pub const BACKLOG: &str = "backlog";
/// Frames given away at a time: what the socket has not sent of them when it fails is lost.
const BATCH: usize = 16;

/// Frames that go out before those of the session's queue. They move with the connection, and what is left of them at
/// its end goes back to where they waited.
#[derive(Debug, Default)]
pub struct Backlog {
    /// The oldest one last. Used by the connection alone; a mutex, because that moves between threads with a
    /// reference to it.
    frames: Mutex<Vec<Value>>,
}

impl Backlog {
    fn frames(&self) -> MutexGuard<'_, Vec<Value>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backlog in a connection's state.
    pub fn from_state(state: &Value) -> Self {
        let frames = state[BACKLOG].as_array().into_iter().flatten().rev().cloned().collect();
        Self { frames: Mutex::new(frames) }
    }

    /// Puts it into the state, an object, that a connection hands over.
    pub fn save(&self, state: &mut Value) {
        let frames = self.frames();
        if let (Value::Object(state), false) = (state, frames.is_empty()) {
            state.insert(BACKLOG, Value::from(frames.iter().rev().cloned().collect::<Vec<_>>()));
        }
    }

    /// Takes what is left, the oldest first.
    pub fn take(&self) -> Vec<Value> {
        let mut frames = std::mem::take(&mut *self.frames());
        frames.reverse();
        frames
    }

    /// Appends what is to be sent next to `into`: from here while there is something, then from the session's queue.
    pub fn poll_outgoing(
        &self,
        session: &Session,
        cx: &mut Context<'_>,
        into: &mut Vec<Value>,
    ) -> Poll<Received> {
        let mut frames = self.frames();
        if frames.is_empty() {
            return session.poll_recv(cx, into);
        }
        if session.poll_hand_over(cx).is_ready() {
            return Poll::Ready(Received::HandOver);
        }
        Poll::Ready(Received::Values(take_batch(&mut frames, into)))
    }
}

fn take_batch(frames: &mut Vec<Value>, into: &mut Vec<Value>) -> usize {
    let first = frames.len().saturating_sub(BATCH);
    let taken = frames.len() - first;
    into.extend(frames.drain(first..).rev());
    if frames.is_empty() {
        // It is not needed again.
        *frames = Vec::new();
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowbay_sdk::Object;

    fn numbers(numbers: std::ops::Range<i64>) -> Vec<Value> {
        numbers.map(Value::from).collect()
    }

    fn state(frames: Vec<Value>) -> Value {
        Value::Object(Object::from([(BACKLOG, Value::from(frames))]))
    }

    #[test]
    fn the_oldest_goes_first() {
        let backlog = Backlog::from_state(&state(numbers(0..40)));
        let mut sent = Vec::new();
        assert_eq!(take_batch(&mut backlog.frames(), &mut sent), BATCH);
        assert_eq!(sent, numbers(0..16));
        assert_eq!(backlog.take(), numbers(16..40));
        assert!(backlog.take().is_empty());
    }

    #[test]
    fn what_is_left_moves_with_the_connection() {
        let backlog = Backlog::from_state(&state(numbers(0..20)));
        take_batch(&mut backlog.frames(), &mut Vec::new());
        let mut saved = Value::Object(Object::new());
        backlog.save(&mut saved);
        assert_eq!(Backlog::from_state(&saved).take(), numbers(16..20));

        let mut none = Value::Object(Object::new());
        Backlog::from_state(&Value::Null).save(&mut none);
        assert_eq!(none, Value::Object(Object::new()));
    }
}
