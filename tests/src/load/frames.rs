//! WebSocket frames of either side, with fragments.

/// Opcodes.
pub const CONTINUATION: u8 = 0;
/// A text message.
pub const TEXT: u8 = 1;
/// A binary message.
pub const BINARY: u8 = 2;
/// The end.
pub const CLOSE: u8 = 8;
/// A question for a sign of life.
pub const PING: u8 = 9;
/// Its answer.
pub const PONG: u8 = 10;

/// Appends a frame; with a mask it is a client's.
pub fn encode(fin: bool, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8], out: &mut Vec<u8>) {
    out.push(u8::from(fin) << 7 | opcode);
    let masked = u8::from(mask.is_some()) << 7;
    match payload.len() {
        length @ 0..126 => out.push(masked | length as u8),
        length @ 126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    match mask {
        None => out.extend_from_slice(payload),
        Some(mask) => {
            out.extend_from_slice(&mask);
            let from = out.len();
            out.extend_from_slice(payload);
            apply(mask, &mut out[from..]);
        }
    }
}

fn apply(mask: [u8; 4], bytes: &mut [u8]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    let mask_word = u32::from_ne_bytes(mask);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ mask_word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// What came from a peer: a whole message, or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message and whether it is text.
    Message(bool, Vec<u8>),
    /// A control frame.
    Control(u8, Vec<u8>),
}

/// Puts frames together from a stream that is cut anywhere.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Text or not, and what came of the message so far.
    message: Option<(bool, Vec<u8>)>,
    /// The peer is a client, whose frames must be masked; a server's must not be.
    pub from_client: bool,
}

impl Reader {
    /// Takes in what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message or control frame.
    ///
    /// # Errors
    /// The peer broke the protocol; the text says how.
    pub fn next(&mut self) -> Result<Option<Incoming>, String> {
        loop {
            let Some((fin, opcode, payload)) = self.frame()? else { return Ok(None) };
            if opcode >= CLOSE {
                return match fin {
                    true => Ok(Some(Incoming::Control(opcode, payload))),
                    false => Err("a fragmented control frame".into()),
                };
            }
            let (text, whole) = match (opcode, self.message.take()) {
                (CONTINUATION, Some((text, mut whole))) => {
                    whole.extend_from_slice(&payload);
                    (text, whole)
                }
                (TEXT | BINARY, None) => (opcode == TEXT, payload),
                (opcode, before) => {
                    return Err(format!(
                        "opcode {opcode} {} a message",
                        if before.is_some() { "within" } else { "without" }
                    ));
                }
            };
            if fin {
                return Ok(Some(Incoming::Message(text, whole)));
            }
            self.message = Some((text, whole));
        }
    }

    fn frame(&mut self) -> Result<Option<(bool, u8, Vec<u8>)>, String> {
        let [first, second, rest @ ..] = &self.bytes[..] else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(format!("reserved bits in {first:#x}"));
        }
        if (second & 0x80 != 0) != self.from_client {
            return Err(format!("a mask that should {}be there", if self.from_client { "" } else { "not " }));
        }
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let (head, length) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
            (126 | 127, _) => return Ok(None),
            (length, _) => (2, u64::from(length)),
        };
        if length > 1 << 24 {
            return Err(format!("a frame of {length} bytes"));
        }
        let start = head + if self.from_client { 4 } else { 0 };
        let end = start + length as usize;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let mut payload = self.bytes[start..end].to_vec();
        if self.from_client {
            let mask = self.bytes[head..start].try_into().expect("a mask has four bytes");
            apply(mask, &mut payload);
        }
        self.bytes.drain(..end);
        Ok(Some((fin, opcode, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_again_however_it_is_cut() {
        for mask in [None, Some([1, 2, 3, 4])] {
            let mut wire = Vec::new();
            let payload: Vec<u8> = (0..70_000_u32).map(|byte| byte as u8).collect();
            encode(false, TEXT, mask, &payload[..200], &mut wire);
            encode(true, PING, mask, b"p", &mut wire);
            encode(false, CONTINUATION, mask, &[], &mut wire);
            encode(true, CONTINUATION, mask, &payload[200..], &mut wire);
            encode(true, BINARY, mask, &payload[..3], &mut wire);
            for cut in [1, 2, 3, 7, 100, wire.len()] {
                let mut reader = Reader { from_client: mask.is_some(), ..Reader::default() };
                let mut got = Vec::new();
                for bytes in wire.chunks(cut) {
                    reader.push(bytes);
                    while let Some(incoming) = reader.next().unwrap() {
                        got.push(incoming);
                    }
                }
                let expected = [
                    Incoming::Control(PING, b"p".to_vec()),
                    Incoming::Message(true, payload.clone()),
                    Incoming::Message(false, payload[..3].to_vec()),
                ];
                assert!(got == expected, "cut {cut}");
            }
        }
    }
}
