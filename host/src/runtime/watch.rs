//! The watch: finds nodes that are stuck, so that they hold nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{Shared, mailbox::Standing};

/// Looks after the mailboxes until the runtime is gone.
pub async fn watch(shared: Weak<Shared>, stall_deadline: Duration) {
    let period = (stall_deadline / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
    let mut seen = Seen::new();
    loop {
        tokio::time::sleep(period).await;
        let Some(shared) = shared.upgrade() else { return };
        look(&shared, stall_deadline, &mut seen);
    }
}

/// Where congested nodes stood when they last came on, and when that was.
type Seen = HashMap<String, (Standing, Instant)>;

fn look(shared: &Arc<Shared>, stall_deadline: Duration, seen: &mut Seen) {
    let now = Instant::now();
    let mut still = HashMap::new();
    for cell in shared.cells() {
        let Some(standing) = cell.congested_at() else { continue };
        let last = match seen.get(cell.id()) {
            // A node in a loop takes messages for ever. It comes on when they become fewer, since the sources wait.
            Some((before, since)) if cell.is_in_loop() && before.waiting <= standing.waiting => {
                (*before, *since)
            }
            Some((before, since)) if !cell.is_in_loop() && before.taken == standing.taken => {
                (*before, *since)
            }
            _ => (standing, now),
        };
        if now.duration_since(last.1) >= stall_deadline {
            cell.give_up(standing);
        } else {
            still.insert(cell.id().to_owned(), last);
        }
    }
    *seen = still;
}
