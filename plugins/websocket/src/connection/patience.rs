//! How long a connection that is to end waits for a peer that takes nothing.

use std::task::{Context, Poll};

use super::{Surroundings, Timer};

/// How long the peer may take to read what it was sent, and the close frame behind it; twice what a closing handshake
/// may take. Without an end, a peer that never reads would keep the connection, and all that it holds, for ever.
const PATIENCE_MS: u64 = 10_000;
/// How often it is looked whether the connection is to end. Nothing wakes it for that: the request to end waits in the
/// queue, behind what the peer does not take.
const LOOK_MS: u64 = 5_000;

/// Waits while the peer takes nothing: for any time, unless the connection is to end.
pub struct Patience {
    timer: Timer,
    /// The connection is to end, and the timer's is all the time that is left.
    is_last: bool,
}

impl Patience {
    /// From now on the peer takes nothing.
    pub fn new(surroundings: &impl Surroundings) -> Self {
        Self { timer: surroundings.timer(LOOK_MS), is_last: false }
    }

    /// The connection is to end.
    pub fn come_to_an_end(&mut self, surroundings: &impl Surroundings) {
        if !self.is_last {
            *self = Self { timer: surroundings.timer(PATIENCE_MS), is_last: true };
        }
    }

    /// Ready when the connection ends without its peer.
    pub fn poll_over(&mut self, cx: &mut Context<'_>, surroundings: &impl Surroundings) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.is_last {
                return Poll::Ready(());
            }
            self.timer = surroundings.timer(LOOK_MS);
            if surroundings.is_to_end() {
                self.come_to_an_end(surroundings);
            }
        }
        Poll::Pending
    }
}
