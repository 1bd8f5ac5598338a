//! What of a WebSocket's input must be kept to be read a second time, and what of it need not be waited for.

use super::{Fault, Limits};

/// Longest header of a frame: two bytes, eight of length, four of mask.
const MAX_HEADER_BYTES: usize = 14;
/// Longest payload of a control frame.
const MAX_CONTROL_BYTES: u64 = 125;
/// Memory that stays from one message to the next, so that messages of ordinary size need no new one.
const SPARE_BYTES: usize = 64 << 10;

const FIN: u8 = 0x80;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;

/// Follows the frames of one direction and keeps what was read since the last message boundary: the payload of the
/// finished fragments of an unfinished message, and the unfinished frame. Whole messages pass without a copy.
///
/// It judges what is unfinished, and only as far as waiting for the rest would be a mistake: lengths, the number of
/// fragments, and whether a text is UTF-8 so far. All else is the codec's to refuse, and until then it is a frame like
/// any other.
pub(super) struct Tracker {
    limits: Limits,
    frame: Frame,
    /// The unfinished frame's header, as it was read.
    header: [u8; MAX_HEADER_BYTES],
    header_len: u8,
    /// There are finished fragments: the first byte of the first one's header, and whether it was masked.
    fragments: Option<(u8, bool)>,
    /// How many finished fragments there are.
    fragment_count: u32,
    /// Payload of the finished fragments, unmasked and joined; then that of the unfinished frame, unmasked when it is
    /// text and otherwise as it was read.
    kept: Vec<u8>,
    /// Where in `kept` the unfinished frame begins.
    fragments_len: usize,
    /// How much of `kept` is known to be whole characters. Only looked at within a text.
    valid_len: usize,
}

/// Where in a frame the input ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Between two frames.
    Boundary,
    /// In a header.
    Header,
    /// In a payload, of which so many bytes are to come.
    Payload { left: u64 },
    /// Nothing is kept and nothing is judged, now and later: because of a fault, or as was asked for.
    Lost(Option<Fault>),
}

struct Header {
    /// FIN, reserved bits and opcode.
    first: u8,
    /// Bytes of the header.
    len: usize,
    payload_len: u64,
}

impl Header {
    /// `None` when there is not all of it.
    #[inline]
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[first, second, ..] = bytes else { return None };
        let (len, payload_len) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
            short => (2, u64::from(short)),
        };
        let len = if second & MASKED != 0 { len + 4 } else { len };
        (bytes.len() >= len).then_some(Self { first, len, payload_len })
    }
}

impl Tracker {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            frame: Frame::Boundary,
            header: [0; MAX_HEADER_BYTES],
            header_len: 0,
            fragments: None,
            fragment_count: 0,
            kept: Vec::new(),
            fragments_len: 0,
            valid_len: 0,
        }
    }

    /// The message that begins has had so many fragments already, see [`Parts::joined`](super::Parts::joined).
    pub(super) fn begin_with_joined(&mut self, fragments: u32) {
        self.fragment_count = fragments;
    }

    /// These bytes were read. Returns how many of them the codec should see: all, or those before the
    /// [fault](Tracker::fault).
    #[inline]
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        loop {
            // Whole messages of one frame are all that most connections ever see.
            if self.frame == Frame::Boundary && self.fragments.is_none() {
                while let Some(behind) = self.skip_message(rest) {
                    rest = behind;
                }
            }
            if rest.is_empty() {
                return bytes.len();
            }
            match self.step(rest) {
                Ok(behind) => rest = behind,
                Err(fault) => {
                    self.lose(Some(fault));
                    return bytes.len() - rest.len();
                }
            }
        }
    }

    /// What is behind a whole message of one frame at the beginning of `bytes`.
    #[inline]
    fn skip_message<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let header = Header::parse(bytes)?;
        let payload_len = usize::try_from(header.payload_len).ok()?;
        let is_message = header.first & (FIN | CONTROL) == FIN && payload_len <= self.limits.frame_bytes();
        let rest = &bytes[header.len..];
        if is_message { rest.get(payload_len..) } else { None }
    }

    /// Goes on in `bytes`, which are not empty, by a header or a payload or what there is of it; returns the rest.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Fault> {
        match self.frame {
            Frame::Boundary | Frame::Header => self.step_header(bytes),
            Frame::Payload { left } => self.step_payload(bytes, left),
            Frame::Lost(_) => Ok(&[]),
        }
    }

    fn step_header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Fault> {
        let had = usize::from(self.header_len);
        let taken = bytes.len().min(MAX_HEADER_BYTES - had);
        self.header[had..had + taken].copy_from_slice(&bytes[..taken]);
        match Header::parse(&self.header[..had + taken]) {
            None => {
                // A header is complete with its 14th byte, so these were all the bytes there are.
                self.header_len = (had + taken) as u8;
                self.frame = Frame::Header;
                Ok(&[])
            }
            Some(header) => {
                self.header_len = header.len as u8;
                self.begin_payload(&header)?;
                Ok(&bytes[header.len - had..])
            }
        }
    }

    fn begin_payload(&mut self, header: &Header) -> Result<(), Fault> {
        if header.first & CONTROL != 0 {
            if header.payload_len > MAX_CONTROL_BYTES {
                return Err(Fault::ControlTooLong);
            }
        } else {
            let room = self.limits.message_bytes - self.fragments_len;
            if header.payload_len > room.min(self.limits.frame_bytes()) as u64 {
                return Err(Fault::TooLong);
            }
            if self.fragment_count >= self.limits.fragments {
                return Err(Fault::TooManyFragments);
            }
            if header.first & OPCODE == TEXT {
                self.valid_len = self.fragments_len;
            }
        }
        if header.payload_len == 0 {
            self.finish_frame();
        } else {
            self.frame = Frame::Payload { left: header.payload_len };
        }
        Ok(())
    }

    fn step_payload<'a>(&mut self, bytes: &'a [u8], left: u64) -> Result<&'a [u8], Fault> {
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (payload, rest) = bytes.split_at(taken);
        let left = left - taken as u64;
        // The end of a frame is needed only when it is a fragment: with any other it has all been used.
        if left > 0 || self.is_fragment() {
            self.keep(payload, left);
            if self.is_text() {
                self.unmask_last(payload.len());
                self.check_text()?;
            }
        }
        if left == 0 {
            self.finish_frame();
        } else {
            self.frame = Frame::Payload { left };
        }
        Ok(rest)
    }

    /// Keeps payload behind which so many bytes of the frame follow. What it takes up doubles as it grows, as a vector
    /// does, but not beyond the end of the frame.
    fn keep(&mut self, payload: &[u8], left: u64) {
        let len = self.kept.len() + payload.len();
        if len > self.kept.capacity() {
            let end = usize::try_from(left).unwrap_or(usize::MAX).saturating_add(len);
            let capacity = (2 * self.kept.capacity()).clamp(len, end);
            self.kept.reserve_exact(capacity - self.kept.len());
        }
        self.kept.extend_from_slice(payload);
    }

    /// Unmasks the last so many bytes of an unfinished frame; those before them are unmasked already.
    fn unmask_last(&mut self, len: usize) {
        if let Some(mut key) = self.mask() {
            let begin = self.kept.len() - len;
            key.rotate_left((begin - self.fragments_len) % 4);
            unmask(&mut self.kept[begin..], key);
        }
    }

    /// Whether what there is of a text can still become one. The last character may be unfinished.
    fn check_text(&mut self) -> Result<(), Fault> {
        match std::str::from_utf8(&self.kept[self.valid_len..]) {
            Ok(text) => self.valid_len += text.len(),
            Err(error) if error.error_len().is_none() => self.valid_len += error.valid_up_to(),
            Err(_) => return Err(Fault::Utf8),
        }
        Ok(())
    }

    /// Whether the frame whose header this is belongs to a message and does not end it.
    fn is_fragment(&self) -> bool {
        self.header[0] & (FIN | CONTROL) == 0
    }

    /// Whether the frame whose header this is, is text.
    fn is_text(&self) -> bool {
        match self.header[0] & OPCODE {
            TEXT => true,
            CONTINUATION => self.fragments.is_some_and(|(first, _)| first & OPCODE == TEXT),
            _ => false,
        }
    }

    /// The key of the frame whose header this is.
    fn mask(&self) -> Option<[u8; 4]> {
        let masked = self.header[1] & MASKED != 0;
        self.header[..usize::from(self.header_len)].last_chunk().filter(|_| masked).copied()
    }

    fn finish_frame(&mut self) {
        let first = self.header[0];
        self.frame = Frame::Boundary;
        if self.is_fragment() {
            let key = self.mask();
            if let Some(key) = key
                && !self.is_text()
            {
                unmask(&mut self.kept[self.fragments_len..], key);
            }
            self.fragments_len = self.kept.len();
            self.fragments.get_or_insert((first, key.is_some()));
            self.fragment_count = self.fragment_count.saturating_add(1);
        } else if first & CONTROL != 0 {
            self.kept.truncate(self.fragments_len);
        } else {
            self.fragments = None;
            self.fragment_count = 0;
            self.fragments_len = 0;
            self.kept.clear();
            if self.kept.capacity() > SPARE_BYTES {
                self.kept = Vec::new();
            }
        }
        self.header_len = 0;
    }

    /// Keeps nothing any more, and judges nothing.
    pub(super) fn give_up(&mut self) {
        self.lose(None);
    }

    fn lose(&mut self, fault: Option<Fault>) {
        *self = Self { frame: Frame::Lost(fault), ..Self::new(self.limits) };
    }

    /// Why it has given up by itself.
    pub(super) fn fault(&self) -> Option<Fault> {
        if let Frame::Lost(fault) = self.frame { fault } else { None }
    }

    /// Whether it has given up.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.frame, Frame::Lost(_))
    }

    /// The input since the last message boundary, as frames that say the same: fragments joined into as few as the
    /// limits allow, control frames between them left out. And how many fragments fewer there are than were read.
    pub(super) fn into_input(self) -> (Vec<u8>, u32) {
        let mut input = Vec::new();
        let mut joined = self.fragment_count;
        let (fragments, unfinished) = self.kept.split_at(self.fragments_len);
        if let Some((mut first, masked)) = self.fragments {
            let mut rest = fragments;
            loop {
                let (fragment, behind) = rest.split_at(rest.len().min(self.limits.frame_bytes()));
                push_header(&mut input, first, masked, fragment.len() as u64);
                input.extend_from_slice(fragment);
                joined = joined.saturating_sub(1);
                // The next one, if any, continues it.
                (rest, first) = (behind, CONTINUATION);
                if rest.is_empty() {
                    break;
                }
            }
        }
        input.extend_from_slice(&self.header[..usize::from(self.header_len)]);
        let begin = input.len();
        input.extend_from_slice(unfinished);
        if !unfinished.is_empty()
            && self.is_text()
            && let Some(key) = self.mask()
        {
            // As it was read: what is still to come of this frame has the same mask.
            unmask(&mut input[begin..], key);
        }
        (input, joined)
    }

    /// Bytes of payload that it keeps.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.len()
    }

    /// Bytes of memory that it holds apart from itself.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.kept.capacity()
    }
}

/// The header of a frame whose payload is not masked, or masked with zeroes, which is the same.
fn push_header(out: &mut Vec<u8>, first: u8, masked: bool, payload_len: u64) {
    let mask_bit = if masked { MASKED } else { 0 };
    out.push(first);
    match payload_len {
        0..126 => out.push(mask_bit | payload_len as u8),
        126..0x1_0000 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(payload_len as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&payload_len.to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
}

fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    // As wide as it takes for the compiler to use the machine's widest registers.
    const WIDE: usize = 32;
    let wide: [u8; WIDE] = std::array::from_fn(|index| key[index % key.len()]);
    let mut blocks = bytes.chunks_exact_mut(WIDE);
    for block in &mut blocks {
        block.iter_mut().zip(&wide).for_each(|(byte, key)| *byte ^= key);
    }
    for (byte, key) in blocks.into_remainder().iter_mut().zip(&wide) {
        *byte ^= key;
    }
}
