//! What there is to tell of a connection besides its messages.

use std::mem;

use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

/// The code for "the close frame had none"; never in a frame.
const NO_STATUS: u16 = 1005;
/// The code for "there was no close frame"; never in a frame.
const ABNORMAL: u16 = 1006;

/// How a connection ended: what the first close frame said, the peer's or ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The close code; 1005 when the close frame had none, and 1006 when there was none.
    pub code: u16,
    /// The reason; our own word for it when the peer broke the protocol or was cut off.
    pub reason: Box<str>,
}

impl Default for Ending {
    /// The peer just left.
    fn default() -> Self {
        Self { code: ABNORMAL, reason: Box::default() }
    }
}

impl Ending {
    pub(super) fn from_frame(frame: Option<&CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self { code: frame.code.into(), reason: frame.reason.as_str().into() },
            None => Self { code: NO_STATUS, reason: Box::default() },
        }
    }

    /// Whether this is what tungstenite makes of a close frame with a code that must not be sent.
    pub(super) fn is_violation(frame: Option<&CloseFrame>) -> bool {
        frame.is_some_and(|frame| frame.code == CloseCode::Protocol && frame.reason == "Protocol violation")
    }
}

/// Messages, and their bytes of payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the peer.
    pub messages_received: u32,
    /// In them.
    pub bytes_received: u64,
    /// Given to the socket.
    pub messages_sent: u32,
    /// In them.
    pub bytes_sent: u64,
}

impl Traffic {
    pub(super) fn receive(&mut self, bytes: usize) {
        self.messages_received += 1;
        self.bytes_received += bytes as u64;
    }

    pub(super) fn send(&mut self, bytes: usize) {
        self.messages_sent += 1;
        self.bytes_sent += bytes as u64;
    }

    pub(super) fn take(&mut self) -> Option<Self> {
        let nothing = self.messages_received == 0 && self.messages_sent == 0;
        if nothing { None } else { Some(mem::take(self)) }
    }
}
