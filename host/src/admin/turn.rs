//! [`Turn`]: what takes long is done for one asker at a time.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Whose turn it is. Who asks while another is answered waits.
///
/// The turn belongs to the work, not to who asked for it: that one may go away, while the work goes on to its end. Else
/// whoever asks and leaves, again and again, has as much of it done at once as there are threads.
#[derive(Debug, Default)]
pub struct Turn(Arc<Mutex<()>>);

impl Turn {
    /// Waits for the turn, which lasts until what is returned is dropped.
    pub async fn wait(&self) -> OwnedMutexGuard<()> {
        self.0.clone().lock_owned().await
    }

    /// Does `work` when it is its turn, on a thread that may take its time: no connection waits for it. `None` when
    /// the host is stopping.
    pub async fn take<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = self.wait().await;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn work_whose_asker_has_left_keeps_its_turn_until_it_is_done() {
        let turn = Turn::default();
        let at_work = Arc::new(AtomicUsize::new(0));
        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let first = {
            let at_work = at_work.clone();
            turn.take(move || {
                at_work.fetch_add(1, Ordering::SeqCst);
                begun.send(()).unwrap();
                let _ = finished.recv();
                at_work.fetch_sub(1, Ordering::SeqCst);
            })
        };
        {
            let mut first = std::pin::pin!(first);
            tokio::select! {
                _ = &mut first => panic!("it is not finished"),
                _ = has_begun.recv() => {}
            }
        }
        // Now it is dropped, as when a client goes away.
        let second = turn.take(move || at_work.load(Ordering::SeqCst));
        let mut second = std::pin::pin!(second);
        let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
        assert!(early.is_err(), "the first is still at work: {early:?}");
        drop(finish);
        assert_eq!(second.await, Some(0));
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_turn_back() {
        let turn = Turn::default();
        let failed: Option<()> = turn.take(|| panic!("on purpose")).await;
        assert_eq!(failed, None);
        assert_eq!(turn.take(|| 5).await, Some(5));
    }
}
