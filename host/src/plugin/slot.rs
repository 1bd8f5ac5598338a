//! Wakers of plugin code, held where the host can let go of them.
//!
//! What plugin code waits for belongs to the host: sockets, timers, queues. Each must keep the plugin's waker, and
//! such a waker is code and memory of the plugin's library. Tokio keeps the last waker that it was given for as long
//! as a socket lives, which is longer than a generation. So tokio only ever sees the host's own waker, made from a
//! [`WakerSlot`]; the plugin's is in the slot, together with a reference on its library, and can be taken out.
//!
//! Cloning a waker over the boundary costs two allocations, so a slot keeps the one it has while the identity stays
//! the same. A [`WakerKey`] alone does not tell that: the wakers of two tasks may lie at the same place on two
//! stacks. So the host numbers its tasks, and says around each poll of plugin code whose it is ([`with_task`]).

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use flowbay_abi::waker::{CallerWaker, WakerKey};

use super::{Plugin, tls};

/// No task: wakers registered then are never taken to be the same as another.
const NO_TASK: u64 = 0;

thread_local! {
    /// The task whose plugin code runs on this thread.
    static TASK: Cell<u64> = const { Cell::new(NO_TASK) };
}

/// A number for a new task, never used before. One number is for one thing that is always polled with one and the
/// same waker: a tokio task that polls one future, or several of them one after another with its own waker.
pub fn next_task_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(NO_TASK + 1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Runs `f`, which runs plugin code, as part of that task. Around every poll of a plugin's future, and best around
/// every call into a plugin: it also sees to the plugin's thread-local values when this thread ends.
#[inline]
pub fn with_task<R>(task: u64, f: impl FnOnce() -> R) -> R {
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            TASK.set(self.0);
        }
    }
    tls::watch_thread();
    let _restore = Restore(TASK.replace(task));
    f()
}

/// A place for one plugin waker that the host can clear.
///
/// To wait for something of the host's own: [`register`](Self::register), then look again whether it has happened
/// meanwhile. To wait for something of tokio's, use a [`TokioSlot`].
#[derive(Default)]
pub struct WakerSlot {
    /// A std mutex: it is held for a few instructions, never while a waker or any other plugin code runs.
    held: Mutex<Option<Arc<Held>>>,
    /// Set by each wake; a poll clears it and sees whether one came in between.
    woken: AtomicBool,
}

/// The order of the fields matters: the waker's drop runs code of the plugin's library.
struct Held {
    task: u64,
    key: WakerKey,
    waker: Waker,
    _plugin: Arc<Plugin>,
}

impl WakerSlot {
    /// Keeps the caller's waker, of the plugin `keep`, in place of the one before. True when it was not there
    /// already: then a wake that came before this call may have gone to nobody or to somebody else.
    pub fn register(&self, caller: &mut CallerWaker<'_, '_>, keep: &Arc<Plugin>) -> bool {
        if self.is_for(caller) {
            return false;
        }
        let held =
            Held { task: TASK.get(), key: caller.key(), waker: caller.to_waker(), _plugin: keep.clone() };
        let old = self.lock().replace(Arc::new(held));
        // Outside of the lock: dropping a waker runs plugin code.
        drop(old);
        true
    }

    /// Whether the waker in the slot is the caller's.
    pub fn is_for(&self, caller: &CallerWaker<'_, '_>) -> bool {
        let task = TASK.get();
        task != NO_TASK
            && self.lock().as_ref().is_some_and(|held| held.task == task && held.key == caller.key())
    }

    /// Wakes the waker in the slot, if there is one; it stays there.
    pub fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        // Outside of the lock, since the wake may come back here; and the copy keeps the library loaded meanwhile.
        let held = self.lock().clone();
        if let Some(held) = held {
            held.waker.wake_by_ref();
        }
    }

    /// Lets go of the waker, and with it of the library.
    pub fn clear(&self) {
        let old = self.lock().take();
        drop(old);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakers of any number of tasks that wait for one and the same thing of the host's.
///
/// To wait: [`register`](Self::register), then look again whether it has happened meanwhile. A task that is dropped
/// while it waits cannot say so; when wakers pile up, all are woken now and then, and those who still wait come back.
#[derive(Default)]
pub struct WakerList {
    /// As a [`WakerSlot`]'s: never locked while plugin code runs.
    held: Mutex<Listed>,
}

#[derive(Default)]
struct Listed {
    /// By task, identity, and a number that tells those apart whose task is not known.
    wakers: HashMap<(u64, WakerKey, u64), Held>,
    unknown: u64,
    swept: Option<Instant>,
}

/// So many wakers in a list are too many to be kept without asking whether somebody still waits.
const SWEEP_FROM: usize = 256;
/// How often that is asked: what piles up meanwhile is bounded by how fast tasks come and go.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl WakerList {
    /// Keeps the caller's waker, of the plugin `keep`, until the next [`wake_all`](Self::wake_all).
    pub fn register(&self, caller: &mut CallerWaker<'_, '_>, keep: &Arc<Plugin>) {
        let (task, key) = (TASK.get(), caller.key());
        if task != NO_TASK && self.lock().wakers.contains_key(&(task, key, 0)) {
            return;
        }
        // Outside of the lock: plugin code.
        let held = Held { task, key, waker: caller.to_waker(), _plugin: keep.clone() };
        let (replaced, crowd) = {
            let mut listed = self.lock();
            let crowd = listed.crowd();
            let number = if task == NO_TASK {
                listed.unknown += 1;
                listed.unknown
            } else {
                0
            };
            (listed.wakers.insert((task, key, number), held), crowd)
        };
        drop(replaced);
        wake(crowd);
    }

    /// Wakes everybody and forgets them.
    pub fn wake_all(&self) {
        let wakers = std::mem::take(&mut self.lock().wakers);
        wake(wakers);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listed> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    /// Takes all wakers when there are many and have been for a while.
    fn crowd(&mut self) -> HashMap<(u64, WakerKey, u64), Held> {
        if self.wakers.len() < SWEEP_FROM {
            return HashMap::new();
        }
        let now = Instant::now();
        if self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP_EVERY) {
            return HashMap::new();
        }
        self.swept = Some(now);
        std::mem::take(&mut self.wakers)
    }
}

fn wake(wakers: HashMap<(u64, WakerKey, u64), Held>) {
    for held in wakers.into_values() {
        held.waker.wake_by_ref();
    }
}

/// A slot and the host waker made from it, for things of tokio's. Cleared when dropped.
pub struct TokioSlot {
    shared: Arc<Shared>,
    /// Made once: a poll allocates nothing.
    waker: Waker,
}

/// What tokio wakes.
#[derive(Default)]
struct Shared(WakerSlot);

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

impl TokioSlot {
    /// An empty slot.
    pub fn new() -> Self {
        let shared = Arc::<Shared>::default();
        Self { waker: Waker::from(shared.clone()), shared }
    }

    /// Polls something of tokio's in the caller's name. Tokio sees the host's waker, and the caller's is in the slot
    /// when the result is pending.
    #[inline]
    pub fn poll<T>(
        &self,
        caller: &mut CallerWaker<'_, '_>,
        keep: &Arc<Plugin>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // A swap, not a store: what the wake announced must be visible to the poll if its mark is overwritten here.
        let slot = &self.shared.0;
        slot.woken.swap(false, Ordering::AcqRel);
        let polled = poll(&mut Context::from_waker(&self.waker));
        if polled.is_pending() && slot.register(caller, keep) && slot.woken.load(Ordering::Acquire) {
            // It was woken while the waker was not there yet. The caller is told to poll again, rather than polled
            // again here: tokio also wakes those at once who have used up their share of the thread.
            slot.wake();
        }
        polled
    }

    /// Lets go of the caller's waker.
    pub fn clear(&self) {
        self.shared.0.clear();
    }
}

impl Default for TokioSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TokioSlot {
    fn drop(&mut self) {
        // Tokio may keep the host's waker, and so the slot, for longer.
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future as _, pin::Pin, sync::atomic::AtomicUsize};

    use flowbay_abi::{
        Value,
        host::{HostFuture, HostFutureApi, HostReply},
        node::NodeError,
    };

    use super::*;

    /// Counts its wakes, and its copies by the references on it.
    #[derive(Default)]
    struct Counter(AtomicUsize);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    impl Counter {
        fn wakes(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// Runs a piece of code as what a plugin polls, so that it gets the plugin's waker as the host would see it.
    struct Host<F>(F);
    impl<F: FnMut(&mut CallerWaker<'_, '_>) -> Poll<()> + Send + 'static> HostFutureApi for Host<F> {
        fn poll(&mut self, mut waker: CallerWaker<'_, '_>) -> Poll<Result<HostReply, NodeError>> {
            (self.0)(&mut waker)
                .map(|()| Ok(HostReply { value: Value::Null, io: abi_stable::std_types::ROption::RNone }))
        }
    }

    fn polled_by(
        waker: &Waker,
        task: u64,
        code: impl FnMut(&mut CallerWaker<'_, '_>) -> Poll<()> + Send + 'static,
    ) {
        let mut future = HostFuture::new(Host(code));
        let _ = with_task(task, || Pin::new(&mut future).poll(&mut Context::from_waker(waker)));
    }

    fn register(slot: &Arc<WakerSlot>, waker: &Waker, task: u64) -> bool {
        let (slot, plugin, new) = (slot.clone(), Plugin::for_test(), Arc::new(AtomicBool::new(false)));
        let seen = new.clone();
        polled_by(waker, task, move |caller| {
            new.store(slot.register(caller, &plugin), Ordering::SeqCst);
            Poll::Pending
        });
        seen.load(Ordering::SeqCst)
    }

    #[test]
    fn a_waker_in_the_slot_is_woken_each_time_until_it_is_cleared() {
        let slot = Arc::new(WakerSlot::default());
        let counter = Arc::new(Counter::default());
        slot.wake();
        register(&slot, &counter.clone().into(), 1);
        slot.wake();
        slot.wake();
        assert_eq!(counter.wakes(), 2);
        slot.clear();
        slot.wake();
        assert_eq!(counter.wakes(), 2);
        assert_eq!(Arc::strong_count(&counter), 1, "the slot holds nothing any more");
    }

    #[test]
    fn a_waker_is_copied_only_when_it_or_its_task_changes() {
        let slot = Arc::new(WakerSlot::default());
        let (one, other) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let (one_waker, other_waker): (Waker, Waker) = (one.clone().into(), other.clone().into());
        assert!(register(&slot, &one_waker, 1), "new");
        assert!(!register(&slot, &one_waker, 1), "the same");
        assert!(register(&slot, &one_waker, 2), "another task");
        assert!(register(&slot, &other_waker, 2), "another waker");
        assert!(register(&slot, &other_waker, NO_TASK), "who knows whose");
        assert!(register(&slot, &other_waker, NO_TASK), "who knows whose");
        slot.wake();
        assert_eq!((one.wakes(), other.wakes()), (0, 1));
        assert_eq!(Arc::strong_count(&one), 2, "the test's own two");
    }

    #[test]
    fn tasks_nest_and_end_with_a_panic_too() {
        with_task(7, || {
            let _ = std::panic::catch_unwind(|| with_task(8, || panic!("in plugin code")));
            assert_eq!(TASK.get(), 7);
        });
        assert_eq!(TASK.get(), NO_TASK);
    }

    #[test]
    fn a_wake_may_come_back_to_the_slot() {
        struct Reenters(Mutex<Option<Arc<WakerSlot>>>, AtomicUsize);
        impl Wake for Reenters {
            fn wake(self: Arc<Self>) {
                self.1.fetch_add(1, Ordering::SeqCst);
                let slot = self.0.lock().unwrap().take();
                if let Some(slot) = slot {
                    slot.wake();
                    slot.clear();
                }
            }
        }
        let slot = Arc::new(WakerSlot::default());
        let reenters = Arc::new(Reenters(Mutex::new(Some(slot.clone())), AtomicUsize::new(0)));
        register(&slot, &reenters.clone().into(), 1);
        slot.wake();
        assert_eq!(reenters.1.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_wake_before_the_waker_is_in_its_place_is_not_lost() {
        let counter = Arc::new(Counter::default());
        let plugin = Plugin::for_test();
        let slot = TokioSlot::new();
        polled_by(&counter.clone().into(), 1, move |caller| {
            // As if the socket became readable just after it was asked.
            slot.poll(caller, &plugin, |cx| {
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            })
        });
        assert_eq!(counter.wakes(), 1);
    }

    #[test]
    fn what_is_ready_keeps_no_waker() {
        let counter = Arc::new(Counter::default());
        let plugin = Plugin::for_test();
        let slot = Arc::new(TokioSlot::new());
        let same = slot.clone();
        polled_by(&counter.clone().into(), 1, move |caller| same.poll(caller, &plugin, |_| Poll::Ready(())));
        slot.shared.0.wake();
        assert_eq!(counter.wakes(), 0);
    }

    fn list(list: &Arc<WakerList>, waker: &Waker, task: u64) {
        let (list, plugin) = (list.clone(), Plugin::for_test());
        polled_by(waker, task, move |caller| {
            list.register(caller, &plugin);
            Poll::Pending
        });
    }

    #[test]
    fn all_who_wait_in_a_list_are_woken_once_each() {
        let (one, other) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let (one_waker, other_waker): (Waker, Waker) = (one.clone().into(), other.clone().into());
        let waiting = Arc::new(WakerList::default());
        for _ in 0..3 {
            list(&waiting, &one_waker, 1);
            list(&waiting, &other_waker, 2);
        }
        waiting.wake_all();
        waiting.wake_all();
        assert_eq!((one.wakes(), other.wakes()), (1, 1));
        assert_eq!(Arc::strong_count(&one), 2, "the list holds nothing any more");
        // Whose wakers these are is not known, so none replaces another.
        list(&waiting, &one_waker, NO_TASK);
        list(&waiting, &one_waker, NO_TASK);
        waiting.wake_all();
        assert_eq!(one.wakes(), 3);
    }

    #[test]
    fn wakers_of_tasks_that_are_gone_do_not_pile_up() {
        let waiting = Arc::new(WakerList::default());
        let counter = Arc::new(Counter::default());
        for task in 1..=SWEEP_FROM as u64 + 1 {
            list(&waiting, &counter.clone().into(), task);
        }
        assert_eq!(counter.wakes(), SWEEP_FROM, "asked whether they still wait");
        assert_eq!(waiting.lock().wakers.len(), 1, "who came last");
    }

    #[test]
    fn many_threads_wake_while_the_waker_changes() {
        let slot = Arc::new(WakerSlot::default());
        let counter = Arc::new(Counter::default());
        let stop = Arc::new(AtomicBool::new(false));
        let wakers: Vec<_> = (0..3)
            .map(|_| {
                let (slot, stop) = (slot.clone(), stop.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        slot.wake();
                    }
                })
            })
            .collect();
        for task in 1..2_000 {
            register(&slot, &counter.clone().into(), task);
            if task % 3 == 0 {
                slot.clear();
            }
        }
        stop.store(true, Ordering::Relaxed);
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        let before = counter.wakes();
        slot.wake();
        assert_eq!(counter.wakes(), before + 1, "the last waker is in its place");
    }
}
