//! The watch: finds nodes that are stuck, and loops that do not become emptier, so that they hold nobody else.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    Shared,
    cell::NodeCell,
    mailbox::{LoopStanding, Standing},
};

/// Looks after the mailboxes until the runtime is gone.
pub async fn watch(shared: Weak<Shared>, stall_deadline: Duration) {
    let period = (stall_deadline / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
    let mut watch = Watch { stall_deadline, nodes: HashMap::new(), loops: HashMap::new() };
    loop {
        tokio::time::sleep(period).await;
        let Some(shared) = shared.upgrade() else { return };
        watch.look(&shared);
    }
}

struct Watch {
    stall_deadline: Duration,
    /// Where congested nodes stood when they last came on, and when that was.
    nodes: HashMap<String, (Standing, Instant)>,
    /// How congested loops stood when they last had fewer messages, and when that was.
    loops: HashMap<NonZeroUsize, (LoopStanding, Instant)>,
}

impl Watch {
    fn look(&mut self, shared: &Arc<Shared>) {
        let now = Instant::now();
        let mut nodes = HashMap::new();
        let mut loops: HashMap<NonZeroUsize, Vec<Arc<NodeCell>>> = HashMap::new();
        for cell in shared.cells() {
            match cell.in_loop() {
                Some(number) => loops.entry(number).or_default().push(cell),
                None => self.look_at_node(&cell, now, &mut nodes),
            }
        }
        self.nodes = nodes;
        self.loops.retain(|number, _| loops.contains_key(number));
        for (number, cells) in loops {
            self.look_at_loop(number, &cells, now, shared.marks.mark);
        }
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
