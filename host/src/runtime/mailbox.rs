//! A node's mailbox: what waits for it, and the marks that keep it bounded.

use std::collections::VecDeque;

use flowbay_abi::{Msg, node::Via};

use super::weight;

/// A message on its way into a node.
pub struct Delivery {
    pub msg: Msg,
    pub via: Via,
    /// Bytes that it takes; worked out once, and not under a mailbox's lock.
    weight: usize,
}

impl Delivery {
    pub fn new(msg: Msg, via: Via) -> Self {
        let weight = weight::of_message(&msg);
        Self { msg, via, weight }
    }
}

/// When a mailbox counts as full, and when it refuses.
#[derive(Debug, Clone, Copy)]
pub struct Marks {
    /// Messages beyond which the sources upstream wait.
    pub mark: usize,
    /// Bytes beyond which the sources upstream wait.
    pub mark_bytes: usize,
    /// Messages beyond which more are refused.
    pub cap: usize,
    /// Bytes beyond which more are refused.
    pub cap_bytes: usize,
}

/// What a push did; the caller acts on it after it has let go of the lock.
#[derive(Debug, PartialEq, Eq, Default, Clone, Copy)]
pub struct Pushed {
    /// The message was not taken.
    pub refused: Option<Refused>,
    /// It is the first of a series that is not taken: worth a line in the log.
    pub first_refused: bool,
    /// The node must be put on a run list.
    pub schedule: bool,
    /// The mailbox just passed its mark: hold the sources.
    pub congested: bool,
    /// The mailbox just reached its cap: let the sources go.
    pub release: bool,
}

/// How far a node is with a mailbox that is congested.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Standing {
    /// Messages taken so far.
    pub taken: u64,
    /// Messages that wait.
    pub waiting: usize,
}

/// What a mailbox adds to the standing of the loop that it is part of.
#[derive(Debug, PartialEq, Eq, Clone, Copy, Default)]
pub struct LoopStanding {
    /// Messages that wait or are in hand.
    pub messages: usize,
    /// How often the mark was passed so far.
    pub passed: u64,
    /// The sources are held now.
    pub holds_sources: bool,
    /// A node is being exchanged.
    pub held: bool,
    /// The loop was given up.
    pub given_up: bool,
}

impl std::ops::AddAssign for LoopStanding {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.passed += other.passed;
        self.holds_sources |= other.holds_sources;
        self.held |= other.held;
        self.given_up |= other.given_up;
    }
}

/// How a mailbox stands, for those who watch the host.
#[derive(Debug, PartialEq, Eq, Clone, Copy, Default)]
pub struct MailboxFigures {
    /// Messages that wait.
    pub waiting: usize,
    /// Bytes that wait.
    pub waiting_bytes: usize,
    /// Messages that the node is working on.
    pub in_hand: usize,
    /// Messages taken so far.
    pub taken: u64,
    /// Messages refused so far, those to a node that was just being stopped among them.
    pub refused: u64,
    /// The sources upstream wait for it.
    pub holds_sources: bool,
    /// The node was given up as stuck, or is part of a loop that was.
    pub given_up: bool,
    /// The node is being exchanged.
    pub held: bool,
}

/// Why a mailbox took no message.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Refused {
    /// The node does not exist (disabled, failed, closed): messages to it vanish, as in Node-RED.
    Closed,
    /// The node is stuck and its mailbox is full.
    Stuck,
    /// The hard cap is reached: a loop that makes more than it takes.
    Cap,
}

/// The queue, and where the node stands with it. Behind the node's mutex.
#[derive(Default)]
pub struct Mailbox {
    queue: VecDeque<Delivery>,
    bytes: usize,
    /// Accepting messages: the node exists.
    open: bool,
    /// On a run list, or being run, by one thread.
    scheduled: bool,
    /// That thread has given the node a message, and the call has not returned.
    in_call: bool,
    /// Messages whose future is pending.
    in_hand: usize,
    /// Nobody is run: the node behind it is being exchanged.
    held: bool,
    /// Counts the nodes that were behind it; what an earlier one still has in hand does not count.
    term: u64,
    /// Passed the mark and not yet back below half of it.
    congested: bool,
    /// How often it passed the mark.
    passed: u64,
    /// Congested without progress for the stall deadline.
    stuck: bool,
    /// It is part of a loop whose messages do not become fewer. Only the watch, which sees all of the loop, ends that.
    loop_given_up: bool,
    /// Messages taken so far: tells the watch whether there is progress.
    taken: u64,
    /// Messages refused so far.
    refused: u64,
    /// Some were, since the mailbox was last at half its mark.
    refusing: bool,
}

impl Mailbox {
    /// Begins to accept messages.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// Stops accepting; what waits is returned, to be dropped outside the lock. It is not congested any more: release
    /// the sources.
    pub fn close(&mut self) -> VecDeque<Delivery> {
        self.open = false;
        self.bytes = 0;
        self.congested = false;
        self.stuck = false;
        std::mem::take(&mut self.queue)
    }

    /// Puts a message at the end.
    pub fn push(&mut self, delivery: Delivery, marks: &Marks, concurrency: usize) -> Pushed {
        let refused = if !self.open {
            Some(Refused::Closed)
        } else if (self.stuck || self.loop_given_up) && self.over_mark(marks) {
            Some(Refused::Stuck)
        } else if self.queue.len() >= marks.cap || self.bytes >= marks.cap_bytes {
            Some(Refused::Cap)
        } else {
            None
        };
        if refused.is_some() {
            self.refused += 1;
            let first_refused = !self.refusing;
            self.refusing = true;
            // Sources stop at the mark: who fills a mailbox to its cap is a loop, or asks nobody. Holding the sources
            // longer would not help, and the rest of what they feed would wait for ever.
            let release = refused == Some(Refused::Cap) && self.holds_sources();
            self.stuck |= release;
            return Pushed { refused, first_refused, release, ..Pushed::default() };
        }
        self.bytes += delivery.weight;
        self.queue.push_back(delivery);
        let congested = !self.congested && self.over_mark(marks);
        self.congested |= congested;
        self.passed += u64::from(congested);
        let schedule = !self.scheduled && self.may_take(concurrency);
        self.scheduled |= schedule;
        Pushed { schedule, congested, ..Pushed::default() }
    }

    /// Takes the first message for a runner; `None` ends the run. True: the mailbox is back at half its mark, release
    /// the sources.
    pub fn take(&mut self, marks: &Marks, concurrency: usize) -> (Option<Delivery>, bool) {
        self.in_call = false;
        if !self.may_take(concurrency) {
            self.scheduled = false;
            return (None, false);
        }
        let Some(delivery) = self.queue.pop_front() else {
            self.scheduled = false;
            if self.queue.capacity() > 64 {
                self.queue.shrink_to(8);
            }
            return (None, false);
        };
        self.bytes = self.bytes.saturating_sub(delivery.weight);
        self.taken += 1;
        self.in_call = true;
        let release =
            self.congested && self.queue.len() <= marks.mark / 2 && self.bytes <= marks.mark_bytes / 2;
        if release {
            self.congested = false;
            self.stuck = false;
            self.refusing &= self.loop_given_up;
        }
        (Some(delivery), release)
    }

    /// The runner turns to another node before it takes the next message.
    pub fn pause(&mut self) {
        self.in_call = false;
    }

    /// The number of the message that the node was given last, while it has not returned from being given it.
    pub fn in_call(&self) -> Option<u64> {
        self.in_call.then_some(self.taken)
    }

    /// A message is still in hand after its first poll. Returns what [`Self::finish`] wants to know.
    pub fn keep(&mut self) -> u64 {
        self.in_hand += 1;
        self.term
    }

    /// A message in hand is finished. True: put the node on a run list.
    pub fn finish(&mut self, term: u64, concurrency: usize) -> bool {
        if term != self.term {
            return false;
        }
        self.in_hand = self.in_hand.saturating_sub(1);
        let schedule = !self.scheduled && !self.queue.is_empty() && self.may_take(concurrency);
        self.scheduled |= schedule;
        schedule
    }

    /// Whether the sources upstream are to wait. They need not for a node that was given up.
    pub fn holds_sources(&self) -> bool {
        self.congested && !self.stuck && !self.loop_given_up
    }

    /// Where the node stands, when the mailbox holds the sources: what the watch compares.
    pub fn congested_at(&self) -> Option<Standing> {
        (self.holds_sources() && !self.held)
            .then_some(Standing { taken: self.taken, waiting: self.queue.len() })
    }

    /// Gives the node up as stuck until its mailbox is at half its mark again; the sources are to be let go. False, and
    /// nothing done, when it does not hold them any more, or has taken messages since it had taken `taken`.
    pub fn give_up(&mut self, taken: u64) -> bool {
        let stuck = self.holds_sources() && !self.held && taken == self.taken;
        self.stuck |= stuck;
        stuck
    }

    /// What it adds to the standing of its loop.
    pub fn loop_standing(&self) -> LoopStanding {
        LoopStanding {
            messages: self.queue.len() + self.in_hand,
            passed: self.passed,
            holds_sources: self.holds_sources(),
            held: self.held,
            given_up: self.loop_given_up,
        }
    }

    /// Gives the loop up that it is part of, or ends that. The sources are to be asked about again.
    pub fn give_up_loop(&mut self, given_up: bool) {
        self.loop_given_up = given_up;
        self.refusing &= given_up;
    }

    /// Messages refused so far.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How it stands.
    pub fn figures(&self) -> MailboxFigures {
        MailboxFigures {
            waiting: self.queue.len(),
            waiting_bytes: self.bytes,
            in_hand: self.in_hand,
            taken: self.taken,
            refused: self.refused,
            holds_sources: self.holds_sources(),
            given_up: self.stuck || self.loop_given_up,
            held: self.held,
        }
    }

    /// Stops handing out messages; they are still accepted.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Hands out messages again. True: put the node on a run list.
    pub fn release(&mut self, concurrency: usize) -> bool {
        self.held = false;
        let schedule = !self.scheduled && !self.queue.is_empty() && self.may_take(concurrency);
        self.scheduled |= schedule;
        schedule
    }

    /// Another node is behind the mailbox now; what the one before has in hand is its own affair.
    pub fn begin_term(&mut self) {
        self.term += 1;
        self.in_hand = 0;
    }

    /// Messages that the node is still working on.
    pub fn in_hand(&self) -> usize {
        self.in_hand
    }

    /// Whether a thread is giving the node messages, or about to.
    pub fn is_running(&self) -> bool {
        self.scheduled
    }

    fn may_take(&self, concurrency: usize) -> bool {
        !self.held && self.in_hand < concurrency
    }

    fn over_mark(&self, marks: &Marks) -> bool {
        self.queue.len() > marks.mark || self.bytes > marks.mark_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { mark: 4, mark_bytes: 1 << 20, cap: 8, cap_bytes: 1 << 20 };

    fn delivery(payload: i64) -> Delivery {
        Delivery::new(Msg::with_payload(payload), Via::Wire)
    }

    fn open() -> Mailbox {
        let mut mailbox = Mailbox::default();
        mailbox.open();
        mailbox
    }

    #[test]
    fn a_node_is_scheduled_once_until_its_runner_ends() {
        let mut mailbox = open();
        assert!(mailbox.push(delivery(1), &MARKS, 1).schedule);
        assert!(!mailbox.push(delivery(2), &MARKS, 1).schedule);
        assert!(mailbox.take(&MARKS, 1).0.is_some());
        assert!(mailbox.take(&MARKS, 1).0.is_some());
        assert!(mailbox.take(&MARKS, 1).0.is_none());
        assert!(mailbox.push(delivery(3), &MARKS, 1).schedule);
    }

    #[test]
    fn a_busy_node_is_not_scheduled_until_it_has_finished() {
        let mut mailbox = open();
        mailbox.push(delivery(1), &MARKS, 1);
        mailbox.take(&MARKS, 1);
        let term = mailbox.keep();
        assert!(mailbox.take(&MARKS, 1).0.is_none());
        assert!(!mailbox.push(delivery(2), &MARKS, 1).schedule);
        assert!(mailbox.finish(term, 1));
        assert!(mailbox.take(&MARKS, 1).0.is_some());
    }

    #[test]
    fn a_mailbox_past_its_mark_holds_the_sources_until_it_is_half_empty() {
        let mut mailbox = open();
        let congested: Vec<bool> = (0..6).map(|n| mailbox.push(delivery(n), &MARKS, 1).congested).collect();
        assert_eq!(congested, [false, false, false, false, true, false]);
        let released: Vec<bool> = (0..5).map(|_| mailbox.take(&MARKS, 1).1).collect();
        assert_eq!(released, [false, false, false, true, false]);
    }

    #[test]
    fn a_stuck_node_refuses_beyond_the_mark_and_any_node_beyond_the_cap() {
        let mut mailbox = open();
        for n in 0..8 {
            assert_eq!(mailbox.push(delivery(n), &MARKS, 1).refused, None);
        }
        let beyond = mailbox.push(delivery(8), &MARKS, 1);
        assert_eq!((beyond.refused, beyond.first_refused, beyond.release), (Some(Refused::Cap), true, true));
        assert!(!mailbox.holds_sources(), "waiting would not help");
        mailbox.take(&MARKS, 1);
        assert_eq!(mailbox.push(delivery(9), &MARKS, 1).refused, Some(Refused::Stuck));
        assert_eq!(mailbox.refused(), 2);
        // Back below half the mark it is itself again.
        while mailbox.queue.len() > 2 {
            mailbox.take(&MARKS, 1);
        }
        assert_eq!(mailbox.push(delivery(10), &MARKS, 1).refused, None);
    }

    #[test]
    fn a_held_mailbox_keeps_its_messages_until_it_is_released() {
        let mut mailbox = open();
        mailbox.hold();
        assert!(!mailbox.push(delivery(1), &MARKS, 1).schedule);
        assert!(mailbox.take(&MARKS, 1).0.is_none());
        assert!(mailbox.release(1));
        assert!(mailbox.take(&MARKS, 1).0.is_some());
    }

    #[test]
    fn what_an_earlier_node_has_in_hand_does_not_hold_up_its_successor() {
        let mut mailbox = open();
        mailbox.push(delivery(1), &MARKS, 1);
        mailbox.take(&MARKS, 1);
        let term = mailbox.keep();
        mailbox.take(&MARKS, 1);
        mailbox.begin_term();
        assert!(mailbox.push(delivery(2), &MARKS, 1).schedule);
        assert!(mailbox.take(&MARKS, 1).0.is_some());
        assert!(!mailbox.finish(term, 1));
    }

    #[test]
    fn a_node_is_given_up_when_it_has_taken_nothing() {
        let mut mailbox = open();
        assert!(!mailbox.give_up(0), "it holds nobody");
        for n in 0..6 {
            mailbox.push(delivery(n), &MARKS, 1);
        }
        assert_eq!(mailbox.congested_at(), Some(Standing { taken: 0, waiting: 6 }));
        mailbox.take(&MARKS, 1);
        assert!(!mailbox.give_up(0), "it has taken a message meanwhile");
        assert!(mailbox.give_up(1));
        assert_eq!((mailbox.holds_sources(), mailbox.congested_at()), (false, None));
        assert!(!mailbox.give_up(1), "once");
    }

    #[test]
    fn a_node_is_in_a_call_from_one_message_to_the_next() {
        let mut mailbox = open();
        mailbox.push(delivery(1), &MARKS, 1);
        mailbox.push(delivery(2), &MARKS, 1);
        assert_eq!(mailbox.in_call(), None, "not given any yet");
        mailbox.take(&MARKS, 1);
        assert_eq!(mailbox.in_call(), Some(1));
        mailbox.pause();
        assert_eq!(mailbox.in_call(), None, "others have their turn");
        mailbox.take(&MARKS, 1);
        assert_eq!(mailbox.in_call(), Some(2));
        mailbox.take(&MARKS, 1);
        assert_eq!(mailbox.in_call(), None, "there is no more");
    }

    #[test]
    fn a_closed_mailbox_swallows_messages() {
        let mut mailbox = open();
        mailbox.push(delivery(1), &MARKS, 1);
        let left = mailbox.close();
        assert_eq!(left.len(), 1);
        assert_eq!(mailbox.push(delivery(2), &MARKS, 1).refused, Some(Refused::Closed));
    }
}
