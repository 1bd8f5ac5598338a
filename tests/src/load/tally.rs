//! What came of a load.

use std::fmt;
use std::time::Duration;

/// Problems that are described; further ones are only counted.
const DESCRIBED: usize = 20;

/// Counts of everything that happened, good and bad.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// Messages whose echo came, whole and in order.
    pub echoed: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Messages that the flow sent by itself and that came in order.
    pub ticks: u64,
    /// Messages whose echo did not come.
    pub lost: u64,
    /// Messages that came more than once.
    pub duplicated: u64,
    /// Messages that came after later ones.
    pub reordered: u64,
    /// Messages that came damaged, or are nobody's.
    pub corrupt: u64,
    /// Connections that ended by themselves.
    pub disconnects: u64,
    /// Pings sent.
    pub pings: u64,
    /// Pongs that came, in order, with what was in the ping.
    pub pongs: u64,
    /// Opening handshakes begun.
    pub handshakes: u64,
    /// Opening handshakes that were answered by anything but an acceptance, or not at all.
    pub refused: u64,
    /// Closing handshakes begun.
    pub closes: u64,
    /// Closing handshakes that were answered with the same code, and followed by the end of the stream.
    pub closes_answered: u64,
    /// Times that a client stood still in the middle of a frame.
    pub stalls: u64,
    /// Most bytes that one connection had written without reading what came back.
    pub largest_backlog: u64,
    /// The first problems in words.
    pub problems: Vec<String>,
}

impl Tally {
    /// Describes a problem that is counted elsewhere.
    pub(super) fn problem(&mut self, text: String) {
        if self.problems.len() < DESCRIBED {
            self.problems.push(text);
        }
    }

    /// Whether nothing at all went wrong.
    pub fn is_perfect(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupt + self.disconnects + self.refused == 0
            && self.echoed == self.sent
            && self.pongs == self.pings
            && self.closes_answered == self.closes
            && self.problems.is_empty()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} messages sent ({:.1} MB), {} echoed, {} ticks; {} lost, {} duplicated, {} reordered, {} corrupt",
            self.sent,
            self.bytes as f64 / 1e6,
            self.echoed,
            self.ticks,
            self.lost,
            self.duplicated,
            self.reordered,
            self.corrupt
        )?;
        write!(
            f,
            "{} disconnects, {} pings, {} pongs, {} stalls in a frame, {:.1} MB unread at most; \
             {} handshakes, {} refused; {} closes, {} answered",
            self.disconnects,
            self.pings,
            self.pongs,
            self.stalls,
            self.largest_backlog as f64 / 1e6,
            self.handshakes,
            self.refused,
            self.closes,
            self.closes_answered
        )?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n    {problem}"))
    }
}

/// Times from a message's last byte written to its echo's last byte read, of the clients that neither stall nor read
/// slowly.
#[derive(Debug, Default, Clone)]
pub struct EchoTimes(pub(super) Vec<u32>);

impl EchoTimes {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` of all do not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        let mut micros = self.0.clone();
        micros.sort_unstable();
        let rank = (percent / 100.0 * micros.len() as f64).ceil() as usize;
        Duration::from_micros(micros.get(rank.saturating_sub(1)).copied().unwrap_or(0).into())
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.0.iter().copied().max().unwrap_or(0).into())
    }
}
