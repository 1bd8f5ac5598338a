//! WebSocket frames, as cheaply as a load generator can have them: client frames encoded before the run,
//! and a reader that skips through server frames without collecting them.

use std::fmt;

/// Opcode of a text frame.
pub const TEXT: u8 = 1;
/// Opcode of a binary frame.
pub const BINARY: u8 = 2;
/// Opcode of a close frame.
pub const CLOSE: u8 = 8;

/// Appends one final, masked frame: what a client sends.
pub fn encode_masked(opcode: u8, key: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Different messages of one size, encoded once and sent round and round.
///
/// Neighbours differ, so a reply that is missing, doubled or out of order shows as wrong content.
pub struct FrameRing {
    /// The encoded frames, then the first ones again, so that a whole window is always one slice.
    bytes: Vec<u8>,
    /// Their payloads, as a server must send them back.
    payloads: Vec<Vec<u8>>,
    frame_len: usize,
}

/// How many different messages a ring holds. Prime, so that no regular check meets the same few only.
const DISTINCT: usize = 61;
/// Large messages are fewer, so that reading them does not push everything else out of the cache.
const DISTINCT_LARGE: usize = 7;

impl FrameRing {
    /// A ring of `opcode` messages of `size` bytes, of which up to `window` are written at once.
    pub fn new(opcode: u8, size: usize, window: usize) -> FrameRing {
        let distinct = if size <= 4096 { DISTINCT } else { DISTINCT_LARGE };
        let payloads: Vec<Vec<u8>> = (0..distinct).map(|index| payload(index, size)).collect();
        let mut bytes = Vec::new();
        for (index, payload) in payloads.iter().cycle().take(distinct + window).enumerate() {
            let key = (0x9e37_79b9_u32.wrapping_mul(index as u32 + 1) | 0x0101_0101).to_be_bytes();
            encode_masked(opcode, key, payload, &mut bytes);
        }
        let frame_len = bytes.len() / (distinct + window);
        FrameRing { bytes, payloads, frame_len }
    }

    /// Bytes of one encoded frame; all have the same length.
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    /// Bytes after which the ring repeats.
    pub fn period(&self) -> usize {
        self.payloads.len() * self.frame_len
    }

    /// The `len` encoded bytes from `at`, which is below the period; `len` is at most one window.
    pub fn slice(&self, at: usize, len: usize) -> &[u8] {
        &self.bytes[at..at + len]
    }

    /// The payload of message number `number`, counted from the ring's beginning.
    pub fn payload(&self, number: u64) -> &[u8] {
        &self.payloads[(number % self.payloads.len() as u64) as usize]
    }
}

/// Printable ASCII, so that it can be sent as text: a first byte of its own, then a pattern of its own.
fn payload(index: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| b'!' + ((index + at * (index + 3)) % 90) as u8).collect()
}

/// What a server may not send in a benchmark.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Server frames carry no mask.
    Masked,
    /// An extension bit is set, though none was negotiated.
    Reserved,
    /// Part of a fragmented message: an echo of small messages has no reason for one.
    Fragment,
    /// A length that no address space holds.
    Length,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::Masked => "a masked frame",
            FrameError::Reserved => "a frame with reserved bits set",
            FrameError::Fragment => "a fragmented message",
            FrameError::Length => "a frame with an impossible length",
        })
    }
}

/// A piece of a frame's payload, as it arrived.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The frame's opcode.
    pub opcode: u8,
    /// Length of the frame's whole payload.
    pub frame_len: usize,
    /// Where in the payload this piece begins.
    pub offset: usize,
    /// The piece itself.
    pub data: &'a [u8],
}

impl Piece<'_> {
    /// Whether the frame is complete with this piece.
    pub fn is_last(&self) -> bool {
        self.offset + self.data.len() == self.frame_len
    }
}

/// Reads server frames from a stream cut anywhere; copies nothing but an incomplete header.
#[derive(Default)]
pub struct Incoming {
    head: [u8; 10],
    head_len: usize,
    /// Of the frame whose payload is being passed through, if any: opcode, length, bytes already seen.
    frame: Option<(u8, usize, usize)>,
}

impl Incoming {
    /// Takes the next piece off the front of `bytes`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The frame breaks the protocol, or is a fragment.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        let (opcode, frame_len, offset) = match self.frame {
            Some(frame) => frame,
            None => match self.header(bytes)? {
                Some((opcode, frame_len)) => (opcode, frame_len, 0),
                None => return Ok(None),
            },
        };
        let (data, rest) = bytes.split_at(bytes.len().min(frame_len - offset));
        *bytes = rest;
        let seen = offset + data.len();
        self.frame = (seen < frame_len).then_some((opcode, frame_len, seen));
        if data.is_empty() && self.frame.is_some() {
            return Ok(None);
        }
        Ok(Some(Piece { opcode, frame_len, offset, data }))
    }

    /// The opcode and payload length, once the header is complete.
    fn header(&mut self, bytes: &mut &[u8]) -> Result<Option<(u8, usize)>, FrameError> {
        // The usual case by itself: a small frame whose header is here as a whole.
        if self.head_len == 0
            && let [first, second, rest @ ..] = *bytes
            && *second < 126
        {
            *bytes = rest;
            return Ok(Some((opcode(*first)?, usize::from(*second))));
        }
        loop {
            let need = match (self.head_len, self.head[1]) {
                (0 | 1, _) => 2,
                (_, 0..126) => 2,
                (_, 126) => 4,
                (_, 127) => 10,
                (_, 128..) => return Err(FrameError::Masked),
            };
            if self.head_len >= need {
                break;
            }
            let [byte, rest @ ..] = *bytes else { return Ok(None) };
            self.head[self.head_len] = *byte;
            self.head_len += 1;
            *bytes = rest;
        }
        let [first, second, a, b, ..] = self.head;
        let len = match second {
            126 => usize::from(u16::from_be_bytes([a, b])),
            127 => {
                let [_, _, eight @ ..] = self.head;
                let len = u64::from_be_bytes(eight);
                isize::try_from(len).map_err(|_| FrameError::Length)? as usize
            }
            len => usize::from(len),
        };
        self.head_len = 0;
        Ok(Some((opcode(first)?, len)))
    }
}

/// The opcode in a frame's first byte, which must be that of a whole, plain frame.
fn opcode(first: u8) -> Result<u8, FrameError> {
    match first {
        _ if first & 0x70 != 0 => Err(FrameError::Reserved),
        _ if first & 0x80 == 0 || first & 0x0f == 0 => Err(FrameError::Fragment),
        _ => Ok(first & 0x0f),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's frame: the client encoder's, without the mask.
    fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        encode_masked(opcode, [0; 4], payload, &mut frame);
        let key_at = frame.len() - payload.len() - 4;
        frame.drain(key_at..key_at + 4);
        frame[1] &= 0x7f;
        frame
    }

    #[test]
    fn the_hello_of_the_rfc_encodes_to_its_bytes() {
        let mut out = Vec::new();
        encode_masked(TEXT, [0x37, 0xfa, 0x21, 0x3d], b"Hello", &mut out);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn each_length_has_its_header() {
        for (size, header) in [
            (0, &[0x82, 0x80][..]),
            (125, &[0x82, 0xfd]),
            (126, &[0x82, 0xfe, 0, 126]),
            (65_535, &[0x82, 0xfe, 0xff, 0xff]),
            (65_536, &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            encode_masked(BINARY, [1, 2, 3, 4], &vec![7; size], &mut out);
            assert_eq!(&out[..header.len()], header, "size {size}");
            assert_eq!(out.len(), header.len() + 4 + size, "size {size}");
        }
    }

    #[test]
    fn frames_cut_anywhere_read_the_same() {
        let sizes = [0, 1, 64, 125, 126, 300, 70_000, 3];
        let sent: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, &size)| payload(i, size)).collect();
        let stream: Vec<u8> = sent.iter().flat_map(|payload| server_frame(TEXT, payload)).collect();
        for cut in [1, 2, 3, 7, 64, 1000, stream.len()] {
            let mut incoming = Incoming::default();
            let mut got = Vec::new();
            let mut current = Vec::new();
            for mut bytes in stream.chunks(cut) {
                while let Some(piece) = incoming.next(&mut bytes).unwrap() {
                    assert_eq!((piece.opcode, piece.offset), (TEXT, current.len()), "cut {cut}");
                    current.extend_from_slice(piece.data);
                    if piece.is_last() {
                        got.push(std::mem::take(&mut current));
                    }
                }
                assert!(bytes.is_empty(), "cut {cut}");
            }
            assert!(got == sent, "cut {cut}");
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_refused() {
        for (bytes, expected) in [
            (&[0x81, 0x85, 0, 0, 0, 0][..], FrameError::Masked),
            (&[0xc1, 0x01, 0], FrameError::Reserved),
            (&[0x01, 0x01, 0], FrameError::Fragment),
            (&[0x80, 0x01, 0], FrameError::Fragment),
            (&[0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
        ] {
            let mut rest = bytes;
            assert_eq!(Incoming::default().next(&mut rest), Err(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_ring_goes_round_and_its_neighbours_differ() {
        for (size, window) in [(1, 1), (64, 16), (16_384, 20)] {
            let ring = FrameRing::new(TEXT, size, window);
            assert_eq!(ring.period() % ring.frame_len(), 0);
            for number in 0..200 {
                assert_eq!(ring.payload(number).len(), size);
                assert_ne!(ring.payload(number), ring.payload(number + 1), "{size} bytes, number {number}");
            }
            // A whole window can be taken from the last frame on, and it continues with the first one.
            let last = ring.period() - ring.frame_len();
            let window_bytes = ring.slice(last, window * ring.frame_len());
            let unmask = |frame: &[u8]| {
                let (head, payload) = frame.split_at(frame.len() - size);
                let key = &head[head.len() - 4..];
                payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect::<Vec<u8>>()
            };
            for (index, frame) in window_bytes.chunks(ring.frame_len()).enumerate() {
                let number = (ring.payloads.len() - 1 + index) as u64;
                assert!(unmask(frame) == ring.payload(number), "{size} bytes, frame {index} of the window");
            }
        }
    }
}
