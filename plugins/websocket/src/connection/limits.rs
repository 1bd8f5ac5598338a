//! What a peer may do.

use flowbay_sdk::frames;

/// What one connection's peer may send, and how long it may be silent. A configuration has one, and all of its
/// connections refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message; a longer one ends the connection with code 1009.
    pub max_message: usize,
    /// Bytes of a frame; likewise. More than `max_message` is no more than that.
    pub max_frame: usize,
    /// Frames of a message; more end the connection with code 1008.
    pub max_fragments: u32,
    /// How often the peer is asked whether it is there, in milliseconds, with a ping. When it neither answers nor says
    /// anything of its own until the next one is due, the connection is cut. `None` for never.
    pub heartbeat_ms: Option<u64>,
    /// After how many milliseconds without any frame from the peer (also a pong: with a heartbeat, a peer that is there
    /// is never idle) the connection ends with code 1001. `None` for never.
    pub idle_ms: Option<u64>,
}

impl Limits {
    /// For a listener, to which anybody may connect. Node-RED takes messages of 100 MiB, which a few peers can turn
    /// into all of a small machine's memory; 16 MiB is far beyond what flows exchange. A sender that fragments does so
    /// by its buffer, of 4 KiB and more as a rule: 1,024 of those are a message of 4 MiB.
    pub const LISTENER: Self = Self {
        max_message: 16 << 20,
        max_frame: 16 << 20,
        max_fragments: 1 << 10,
        heartbeat_ms: None,
        idle_ms: None,
    };

    /// For a client, whose server was chosen.
    pub const CLIENT: Self =
        Self { max_message: 64 << 20, max_frame: 64 << 20, max_fragments: 1 << 16, ..Self::LISTENER };

    /// The part of them that is about frames.
    pub(super) fn frames(&self) -> frames::Limits {
        frames::Limits {
            message_bytes: self.max_message,
            frame_bytes: self.max_frame.min(self.max_message),
            fragments: self.max_fragments,
        }
    }
}
