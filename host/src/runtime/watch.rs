//! The watch: finds nodes that are stuck, so that they hold nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::Shared;

/// Looks after the mailboxes until the runtime is gone.
pub async fn watch(shared: Weak<Shared>, stall_deadline: Duration) {
    let period = (stall_deadline / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
    // Congested nodes: how many messages they had taken when first seen so, and when that was.
    let mut seen: HashMap<String, (u64, Instant)> = HashMap::new();
    loop {
        tokio::time::sleep(period).await;
        let Some(shared) = shared.upgrade() else { return };
        look(&shared, stall_deadline, &mut seen);
    }
}

fn look(shared: &Arc<Shared>, stall_deadline: Duration, seen: &mut HashMap<String, (u64, Instant)>) {
    let now = Instant::now();
    let mut still = HashMap::new();
    for cell in shared.cells() {
        let Some(taken) = cell.congested_at() else { continue };
        let since = match seen.get(cell.id()) {
            Some((before, since)) if *before == taken => *since,
            _ => now,
        };
        if now.duration_since(since) >= stall_deadline {
            cell.give_up(taken);
        } else {
            still.insert(cell.id().to_owned(), (taken, since));
        }
    }
    *seen = still;
}
