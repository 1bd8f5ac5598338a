//! The watch: finds nodes that are stuck, and loops that do not become emptier, so that they hold nobody else; and says
//! which nodes keep a thread.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    Shared,
    cell::{NodeCell, UnderWay},
    drain::NO_TASK,
    mailbox::{LoopStanding, Standing},
};

use crate::plugin::with_task;

/// Looks after the nodes until the runtime is gone. On a thread of its own: nodes may keep all the others.
pub fn watch(shared: &Weak<Shared>, stall_deadline: Duration) {
    let period = (stall_deadline / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
    let mut watch = Watch::new(stall_deadline);
    loop {
        std::thread::sleep(period);
        let Some(shared) = shared.upgrade() else { return };
        // Sources that are let go are woken here, which is code of plugins.
        with_task(NO_TASK, || watch.look(&shared));
    }
}

pub(super) struct Watch {
    stall_deadline: Duration,
    /// Where congested nodes stood when they last came on, and when that was.
    nodes: HashMap<String, (Standing, Instant)>,
    /// How congested loops stood when they last had fewer messages, and when that was.
    loops: HashMap<NonZeroUsize, (LoopStanding, Instant)>,
    /// Nodes whose code has not returned: what of it, since when, and whether that was said.
    calls: HashMap<String, Calls>,
}

/// Since when each of a node's calls is under way.
struct Calls([Call; 3]);

#[derive(Clone, Copy)]
struct Call {
    /// Its number; `None` when none is under way.
    number: Option<u64>,
    since: Instant,
    said: bool,
}

impl Calls {
    fn new(under_way: UnderWay, now: Instant) -> Self {
        Self(under_way.map(|number| Call { number, since: now, said: false }))
    }

    /// Whether one of them has just passed the deadline.
    fn passed(&mut self, under_way: UnderWay, now: Instant, deadline: Duration) -> bool {
        let mut passed = false;
        for (call, number) in self.0.iter_mut().zip(under_way) {
            if number.is_none() || number != call.number {
                *call = Call { number, since: now, said: false };
            } else if !call.said && now.duration_since(call.since) >= deadline {
                call.said = true;
                passed = true;
            }
        }
        passed
    }
}

impl Watch {
    pub(super) fn new(stall_deadline: Duration) -> Self {
        Self { stall_deadline, nodes: HashMap::new(), loops: HashMap::new(), calls: HashMap::new() }
    }

    pub(super) fn look(&mut self, shared: &Arc<Shared>) {
        let now = Instant::now();
        let mut nodes = HashMap::new();
        let mut calls = HashMap::new();
        let mut loops: HashMap<NonZeroUsize, Vec<Arc<NodeCell>>> = HashMap::new();
        for cell in shared.cells() {
            self.look_at_calls(&cell, now, &mut calls);
            match cell.in_loop() {
                Some(number) => loops.entry(number).or_default().push(cell),
                None => self.look_at_node(&cell, now, &mut nodes),
            }
        }
        (self.nodes, self.calls) = (nodes, calls);
        self.loops.retain(|number, _| loops.contains_key(number));
        for (number, cells) in loops {
            self.look_at_loop(number, &cells, now, shared.marks.mark);
        }
    }

    fn look_at_calls(&mut self, cell: &NodeCell, now: Instant, still: &mut HashMap<String, Calls>) {
        let under_way = cell.under_way();
        if under_way == UnderWay::default() {
            return;
        }
        let mut calls = self.calls.remove(cell.id()).unwrap_or_else(|| Calls::new(under_way, now));
        if calls.passed(under_way, now, self.stall_deadline) {
            cell.keeps_a_thread();
        }
        still.insert(cell.id().to_owned(), calls);
    }

    fn look_at_node(&self, cell: &NodeCell, now: Instant, still: &mut HashMap<String, (Standing, Instant)>) {
        let Some(standing) = cell.congested_at() else { return };
        let last = match self.nodes.get(cell.id()) {
            Some((before, since)) if before.taken == standing.taken => (*before, *since),
            _ => (standing, now),
        };
        if now.duration_since(last.1) >= self.stall_deadline {
            cell.give_up(standing);
        } else {
            still.insert(cell.id().to_owned(), last);
        }
    }

    /// Messages move between the nodes of a loop for ever, so that none of them is congested for long: what counts is
    /// how many there are in all of it. They become fewer when it comes on, since the sources wait.
    fn look_at_loop(&mut self, number: NonZeroUsize, cells: &[Arc<NodeCell>], now: Instant, mark: usize) {
        let standing = NodeCell::loop_standing(cells);
        if standing.given_up {
            if standing.messages <= mark / 2 {
                cells.iter().for_each(|cell| cell.give_up_loop(false));
            }
            return;
        }
        let Some((fewest, since)) = self.loops.get_mut(&number) else {
            self.loops.insert(number, (standing, now));
            return;
        };
        let congested = standing.holds_sources || standing.passed != fewest.passed;
        fewest.passed = standing.passed;
        if !congested || standing.held || standing.messages < fewest.messages {
            (fewest.messages, *since) = (standing.messages, now);
        } else if now.duration_since(*since) >= self.stall_deadline {
            self.loops.remove(&number);
            cells.iter().for_each(|cell| cell.give_up_loop(true));
            let nodes: Vec<&str> = cells.iter().take(NAMED_IN_A_WARNING).map(|cell| cell.id()).collect();
            tracing::warn!(
                nodes = nodes.join(", "),
                messages = standing.messages,
                "messages go round in a loop and do not become fewer; more are refused until they do"
            );
        }
    }
}

/// Nodes of a loop that its warning names.
const NAMED_IN_A_WARNING: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_spoken_of_once_when_it_passes_the_deadline() {
        let (start, deadline) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut calls = Calls::new([Some(1), None, None], start);
        let mut passed = |under_way, seconds| calls.passed(under_way, at(seconds), deadline);
        assert!(!passed([Some(1), None, None], 9), "not yet");
        assert!(passed([Some(1), None, None], 10));
        assert!(!passed([Some(1), None, None], 30), "once");
        assert!(!passed([Some(2), None, None], 40), "another call");
        assert!(!passed([Some(2), Some(7), None], 45), "one of another kind beside it");
        assert!(passed([Some(2), Some(7), None], 50), "the first");
        assert!(passed([Some(2), Some(7), None], 55), "the second");
        assert!(
            !passed([None, Some(7), None], 60) && !passed([Some(2), Some(7), None], 65),
            "it had returned"
        );
    }
}
