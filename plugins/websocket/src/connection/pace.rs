//! How busy a connection is, and what its codec should be like.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use super::{Surroundings, Timer};

/// Two turns with something to do that are no further apart follow each other closely …
const CLOSELY: Duration = Duration::from_millis(100);
/// … and so many that do make a connection busy. A message and its answer are two.
const BUSY_TURNS: u32 = 4;
/// A busy connection without anything to do for so long, or up to twice that, is not busy any more.
const PERIOD_MS: u64 = 1_000;
/// Turns with much to read that make it worth to be prepared for more: a single large message does not.
const MUCH_TURNS: u32 = 3;

/// Decides when a connection's codec comes to rest.
///
/// One with little to do rests after every turn, and has the memory of a codec only during one. A busy one has
/// tens of thousands of turns a second, and a codec all the time; in each turn this costs the look at a flag.
pub struct Pace {
    mode: Mode,
    was_active: bool,
    /// In this period.
    turns_with_much: u32,
}

enum Mode {
    /// The last turn with something to do, and how many such turns followed each other closely.
    Light {
        last: Option<Instant>,
        close_turns: u32,
    },
    Busy(Period),
}

/// What should become of the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// It stays.
    Stay,
    /// It comes to rest.
    Rest,
    /// It should have a buffer for much to read, or not.
    ReadMuch(bool),
}

impl Default for Pace {
    fn default() -> Self {
        let mode = Mode::Light { last: None, close_turns: 0 };
        Self { mode, was_active: false, turns_with_much: 0 }
    }
}

impl Pace {
    /// Something is being read or written in this turn.
    pub fn be_active(&mut self) {
        self.was_active = true;
    }

    /// There was much to read in this turn.
    pub fn read_much(&mut self) {
        self.turns_with_much = self.turns_with_much.saturating_add(1);
    }

    /// At the end of a turn in which there was a codec.
    pub fn end_turn(&mut self, cx: &mut Context<'_>, surroundings: &impl Surroundings) -> Advice {
        match &mut self.mode {
            Mode::Busy(period) if !period.has_ended() => {
                if self.turns_with_much == MUCH_TURNS {
                    Advice::ReadMuch(true)
                } else {
                    Advice::Stay
                }
            }
            Mode::Busy(period) => {
                let much = mem::take(&mut self.turns_with_much) >= MUCH_TURNS;
                if mem::take(&mut self.was_active) {
                    *period = Period::begin(cx, surroundings);
                    Advice::ReadMuch(much)
                } else {
                    *self = Self::default();
                    Advice::Rest
                }
            }
            Mode::Light { last, close_turns } => {
                if mem::take(&mut self.was_active) {
                    let now = surroundings.now();
                    let closely = last.replace(now).is_some_and(|last| now.duration_since(last) < CLOSELY);
                    *close_turns = if closely { *close_turns + 1 } else { 0 };
                    if *close_turns >= BUSY_TURNS {
                        self.mode = Mode::Busy(Period::begin(cx, surroundings));
                        self.turns_with_much = 0;
                        return Advice::Stay;
                    }
                }
                Advice::Rest
            }
        }
    }
}

/// A time at whose end it is looked back.
struct Period {
    /// Only held: its end rings the bell.
    _timer: Timer,
    bell: Arc<Bell>,
}

impl Period {
    fn begin(cx: &mut Context<'_>, surroundings: &impl Surroundings) -> Self {
        let mut timer = surroundings.timer(PERIOD_MS);
        let bell = Arc::new(Bell { rang: AtomicBool::new(false), task: cx.waker().clone() });
        if timer.as_mut().poll(&mut Context::from_waker(&Waker::from(bell.clone()))).is_ready() {
            bell.wake_by_ref();
        }
        Self { _timer: timer, bell }
    }

    fn has_ended(&self) -> bool {
        self.bell.rang.load(Ordering::Acquire)
    }
}

/// Wakes the connection, and tells it that the timer did. Without this, the timer would have to be polled each turn.
struct Bell {
    rang: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}
