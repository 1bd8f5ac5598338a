//! Work of nodes that blocks its thread: a pool of threads apart from those that run nodes.
//!
//! Nobody can stop such work. Its library is kept loaded until it has returned, which is why [`Work`] holds the
//! plugin; who is at it is listed, so that a generation that cannot be unloaded can be explained.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use flowbay_abi::{FfiFuture, host::WorkPlace, node::NodeError, panics::catch};

use super::drain::NO_TASK;
use crate::{
    plugin::{Plugin, thread_stops, with_task},
    settings::Settings,
};

/// Work of one node: polled once, and dropped where it was polled.
///
/// The future is dropped before the reference on its library.
pub struct Work {
    future: Option<FfiFuture<()>>,
    plugin: Arc<Plugin>,
    node: String,
}

impl Work {
    /// Work of that node, whose code is in `plugin`.
    pub fn new(future: FfiFuture<()>, plugin: Arc<Plugin>, node: &str) -> Self {
        Self { future: Some(future), plugin, node: node.to_owned() }
    }

    fn run(mut self) {
        let Some(mut future) = self.future.take() else { return };
        with_task(NO_TASK, || {
            // A plugin's future catches its panics by itself; one that does not must not take the thread with it.
            let polled = catch(move || {
                let ready = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())).is_ready();
                drop(future);
                ready
            });
            match polled {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(node = %self.node, "blocking work did not end with its only poll; it is dropped")
                }
                Err(panicked) => tracing::error!(node = %self.node, "blocking work: {panicked}"),
            }
        });
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            with_task(NO_TASK, || {
                let _ = catch(move || drop(future));
            });
        }
    }
}

/// Runs work. Its threads end when it is dropped and they have nothing left to do.
pub struct BlockingPool {
    shared: Arc<Pool>,
}

struct Pool {
    limits: Limits,
    state: Mutex<State>,
    /// Something is queued, or the pool is closed.
    changed: Condvar,
}

/// How much may be at once.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Threads of the pool.
    threads: usize,
    /// Work that waits for one of them.
    queue: usize,
    /// Threads that work has for itself.
    own_threads: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    /// Threads of the pool, and how many of them have nothing to do.
    threads: usize,
    idle: usize,
    own_threads: usize,
    closed: bool,
    next: u64,
    /// Who is at work: the library's number and the node's id.
    running: HashMap<u64, (u64, String)>,
}

impl BlockingPool {
    /// A pool without threads: they are started when there is work.
    pub fn new(settings: &Settings) -> Self {
        let limits = Limits {
            threads: settings.blocking_threads,
            queue: settings.blocking_queue,
            own_threads: settings.plugin_threads,
        };
        Self { shared: Arc::new(Pool { limits, state: Mutex::default(), changed: Condvar::new() }) }
    }

    /// Runs work, when it is its turn. Never waits.
    ///
    /// # Errors
    /// There is as much as the settings allow, or the system has no thread to give. The work is dropped.
    pub fn run(&self, work: Work, place: WorkPlace) -> Result<(), NodeError> {
        match place {
            WorkPlace::Pool => self.queue(work),
            WorkPlace::OwnThread => self.run_on_own_thread(work),
        }
    }

    fn queue(&self, work: Work) -> Result<(), NodeError> {
        let pool = &self.shared;
        let mut state = pool.lock();
        if state.queue.len() >= pool.limits.queue {
            drop(state);
            return Err(NodeError::new(format!(
                "{} pieces of blocking work wait already, no more are taken (blocking_queue)",
                pool.limits.queue
            ))
            .with_code("BLOCKING_QUEUE_FULL"));
        }
        state.queue.push_back(work);
        if state.idle >= state.queue.len() {
            drop(state);
            pool.changed.notify_one();
            return Ok(());
        }
        if state.threads == pool.limits.threads {
            return Ok(());
        }
        state.threads += 1;
        let number = state.threads;
        drop(state);
        let own = pool.clone();
        let started =
            std::thread::Builder::new().name(format!("blocking-{number}")).spawn(move || own.serve());
        let Err(error) = started else { return Ok(()) };
        let mut state = pool.lock();
        state.threads -= 1;
        if state.threads > 0 {
            // Those that there are will come to it.
            return Ok(());
        }
        let left = std::mem::take(&mut state.queue);
        drop(state);
        drop(left);
        Err(NodeError::new(format!("there is no thread for blocking work: {error}")))
    }

    fn run_on_own_thread(&self, work: Work) -> Result<(), NodeError> {
        let pool = &self.shared;
        {
            let mut state = pool.lock();
            if state.own_threads >= pool.limits.own_threads {
                drop(state);
                return Err(NodeError::new(format!(
                    "plugins have {} threads of their own already, no more are started (plugin_threads)",
                    pool.limits.own_threads
                ))
                .with_code("TOO_MANY_THREADS"));
            }
            state.own_threads += 1;
        }
        let own = pool.clone();
        // 15 bytes are what the system shows of a thread's name.
        let name: String = format!("own-{}", work.node).chars().take(15).collect();
        let started = std::thread::Builder::new().name(name).spawn(move || {
            // Not before the thread has let go of all that it had of the library.
            let plugin = work.plugin.clone();
            own.do_work(work);
            thread_stops();
            drop(plugin);
            own.lock().own_threads -= 1;
        });
        started.map(|_| ()).map_err(|error| {
            pool.lock().own_threads -= 1;
            NodeError::new(format!("there is no thread for the node: {error}"))
        })
    }

    /// Lets go of work that is never to run: not on this thread, since it may take its time.
    pub fn discard(&self, work: Work) {
        // Without a thread to give it is done here: `work` is dropped with the closure.
        let _ = std::thread::Builder::new().name("discarded-work".into()).spawn(move || drop(work));
    }

    /// The nodes whose work runs in the library that was loaded with that number.
    pub fn at_work_in(&self, generation: u64) -> Vec<String> {
        let state = self.shared.lock();
        let mut nodes: Vec<String> = state
            .running
            .values()
            .filter(|(of, _)| *of == generation)
            .map(|(_, node)| node.clone())
            .collect();
        drop(state);
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

impl Drop for BlockingPool {
    fn drop(&mut self) {
        let left = {
            let mut state = self.shared.lock();
            state.closed = true;
            std::mem::take(&mut state.queue)
        };
        self.shared.changed.notify_all();
        drop(left);
    }
}

impl Pool {
    /// The life of a thread of the pool. It does not end before the pool: plugins have thread-local values on it.
    fn serve(&self) {
        loop {
            let mut state = self.lock();
            let work = loop {
                if let Some(work) = state.queue.pop_front() {
                    break work;
                }
                if state.closed {
                    return;
                }
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            };
            drop(state);
            self.do_work(work);
        }
    }

    fn do_work(&self, work: Work) {
        let number = {
            let mut state = self.lock();
            state.next += 1;
            let number = state.next;
            state.running.insert(number, (work.plugin.info().generation, work.node.clone()));
            number
        };
        // Off the list before the library goes.
        let plugin = work.plugin.clone();
        work.run();
        self.lock().running.remove(&number);
        drop(plugin);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use flowbay_abi::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn pool(threads: usize, queue: usize, own: usize) -> BlockingPool {
        BlockingPool::new(&Settings {
            blocking_threads: threads,
            blocking_queue: queue,
            plugin_threads: own,
            ..Settings::default()
        })
    }

    fn work(node: &str, future: impl Future<Output = ()> + Send + 'static) -> Work {
        Work::new(future.into_ffi(), Plugin::for_test(), node)
    }

    /// Work that says that it has begun, and waits until it may end.
    fn waits(node: &str) -> (Work, mpsc::Receiver<String>, mpsc::Sender<()>) {
        let ((begun, has_begun), (end, may_end)) = (mpsc::channel(), mpsc::channel());
        let waits = work(node, async move {
            begun.send(std::thread::current().name().unwrap_or_default().to_owned()).unwrap();
            let _ = may_end.recv();
        });
        (waits, has_begun, end)
    }

    /// Work that counts itself, and says so.
    fn counts(count: &Arc<AtomicUsize>, done: &mpsc::Sender<usize>) -> Work {
        let (count, done) = (count.clone(), done.clone());
        work("counts", async move { done.send(count.fetch_add(1, Ordering::SeqCst)).unwrap() })
    }

    #[test]
    fn all_work_is_done_by_no_more_threads_than_there_may_be() {
        let pool = pool(2, 1_000, 0);
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (done, all_done) = mpsc::channel();
        for _ in 0..1_000 {
            let (at_once, most, done) = (at_once.clone(), most.clone(), done.clone());
            let piece = work("n", async move {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                at_once.fetch_sub(1, Ordering::SeqCst);
                done.send(()).unwrap();
            });
            pool.run(piece, WorkPlace::Pool).unwrap();
        }
        for _ in 0..1_000 {
            all_done.recv_timeout(LONG).unwrap();
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
        assert_eq!(pool.shared.lock().threads, 2);
    }

    #[test]
    fn more_than_may_wait_is_refused_and_dropped() {
        let pool = pool(1, 1, 0);
        let (waits, has_begun, end) = waits("first");
        pool.run(waits, WorkPlace::Pool).unwrap();
        assert_eq!(has_begun.recv_timeout(LONG).unwrap(), "blocking-1");
        let (count, (done, was_done)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
        pool.run(counts(&count, &done), WorkPlace::Pool).unwrap();
        let refused = pool.run(counts(&count, &done), WorkPlace::Pool).unwrap_err();
        assert!(refused.message.contains("blocking_queue"), "{refused}");
        assert_eq!(refused.details["code"], "BLOCKING_QUEUE_FULL");
        assert_eq!(Arc::strong_count(&count), 2, "the test's, and that of the work that waits");
        end.send(()).unwrap();
        assert_eq!(was_done.recv_timeout(LONG).unwrap(), 0);
    }

    #[test]
    fn work_that_panics_or_does_not_end_leaves_its_thread_to_the_next() {
        let pool = pool(1, 10, 0);
        let (count, (done, was_done)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
        pool.run(work("panics", async { panic!("on purpose") }), WorkPlace::Pool).unwrap();
        pool.run(work("never ends", std::future::pending()), WorkPlace::Pool).unwrap();
        pool.run(counts(&count, &done), WorkPlace::Pool).unwrap();
        assert_eq!(was_done.recv_timeout(LONG).unwrap(), 0);
    }

    #[test]
    fn a_thread_of_its_own_is_one_of_so_many_and_ends_with_the_work() {
        let pool = pool(1, 1, 1);
        let (first, has_begun, end) = waits("node");
        pool.run(first, WorkPlace::OwnThread).unwrap();
        assert_eq!(has_begun.recv_timeout(LONG).unwrap(), "own-node");
        let (second, ..) = waits("other");
        let refused = pool.run(second, WorkPlace::OwnThread).unwrap_err();
        assert_eq!(refused.details["code"], "TOO_MANY_THREADS");
        end.send(()).unwrap();
        let deadline = std::time::Instant::now() + LONG;
        while pool.shared.lock().own_threads > 0 {
            assert!(std::time::Instant::now() < deadline, "the thread does not end");
            std::thread::yield_now();
        }
        assert!(pool.run(work("other", async {}), WorkPlace::OwnThread).is_ok());
    }

    #[test]
    fn who_is_at_work_in_a_library_is_known() {
        let pool = pool(2, 10, 2);
        let (pooled, has_begun, end) = waits("b");
        pool.run(pooled, WorkPlace::Pool).unwrap();
        has_begun.recv_timeout(LONG).unwrap();
        let (own, own_has_begun, own_end) = waits("a");
        pool.run(own, WorkPlace::OwnThread).unwrap();
        own_has_begun.recv_timeout(LONG).unwrap();
        assert_eq!(pool.at_work_in(Plugin::for_test().info().generation), ["a", "b"]);
        assert_eq!(pool.at_work_in(77), Vec::<String>::new());
        drop((end, own_end));
    }

    #[test]
    fn work_that_waits_when_the_pool_goes_is_dropped() {
        let pool = pool(1, 10, 0);
        let (waits, has_begun, end) = waits("first");
        pool.run(waits, WorkPlace::Pool).unwrap();
        has_begun.recv_timeout(LONG).unwrap();
        let (count, (done, was_done)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
        pool.run(counts(&count, &done), WorkPlace::Pool).unwrap();
        drop((pool, done));
        assert!(was_done.recv_timeout(LONG).is_err(), "not done");
        assert_eq!(Arc::strong_count(&count), 1, "and gone");
        drop(end);
    }
}
