//! What is wrong with frames that are not even finished.

use std::{error::Error, fmt, io};

/// How large a message may be, and of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of payload of a message; the codec's limit.
    pub message_bytes: usize,
    /// Bytes of payload of a frame; the codec's limit. Not more than `message_bytes` in any case.
    pub frame_bytes: usize,
    /// Frames of a message. Without this limit, a peer could send empty fragments for ever.
    pub fragments: u32,
}

impl Limits {
    /// What a frame may have, whatever is said about messages.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes.min(self.message_bytes)
    }
}

/// Why a connection should be failed, whatever follows of the unfinished message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The text is not UTF-8.
    Utf8,
    /// The message, or a frame of it, is longer than its limit.
    TooLong,
    /// The message has more frames than its limit.
    TooManyFragments,
    /// A control frame has more than 125 bytes.
    ControlTooLong,
}

impl Fault {
    /// The close code for it (RFC 6455, 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::Utf8 => 1007,
            Self::TooLong => 1009,
            // There is none for it; "policy violation" is what is left.
            Self::TooManyFragments => 1008,
            Self::ControlTooLong => 1002,
        }
    }

    /// The fault that an error of a read stands for.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utf8 => "text that is not UTF-8",
            Self::TooLong => "message too long",
            Self::TooManyFragments => "too many fragments",
            Self::ControlTooLong => "control frame too long",
        })
    }
}

impl Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }
}
