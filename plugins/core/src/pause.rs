//! Waiting that a loop can rely on.

use std::{
    future::{Future, pending},
    time::{Duration, Instant},
};

use flowbay_sdk::Ctx;

/// Waits for a time, rounded up to milliseconds.
///
/// For ever when the host has no timers any more, as when it is going down: then [`Ctx::sleep_ms`] is done at once,
/// and a loop around it would never let go of its thread.
pub async fn pause(ctx: &Ctx, time: Duration) {
    let ms = u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    in_earnest(time, ctx.sleep_ms(ms)).await;
}

/// Waits for `sleep`, and for ever if that takes nowhere near as long as it should.
async fn in_earnest(time: Duration, sleep: impl Future<Output = ()>) {
    let begun = Instant::now();
    sleep.await;
    if begun.elapsed() < time / 2 {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    fn is_done(time: Duration, sleep: impl Future<Output = ()>) -> bool {
        pin!(in_earnest(time, sleep)).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_timer_that_fails_does_not_make_a_loop_spin() {
        assert!(!is_done(Duration::from_secs(1), ready(())), "done at once");
        assert!(!is_done(Duration::MAX, ready(())));
        assert!(is_done(Duration::ZERO, ready(())), "nothing to wait for");
        assert!(is_done(Duration::from_millis(1), async { std::thread::sleep(Duration::from_millis(1)) }));
    }
}
