//! Thread-local values of plugins: who runs their destructors, and when.
//!
//! The SDK keeps a plugin's thread-local destructors in a list inside the plugin instead of giving them to the C
//! library, so that the plugin can be unloaded. Their time comes when a host thread ends that ran plugin code: the
//! value's memory goes with the thread. Or else when the plugin is unloaded, whichever is first. The two must not
//! cross: a thread that ends waits while a library is unloaded, and the other way round.

use std::sync::{Arc, Mutex, PoisonError};

/// A plugin's `run_tls_dtors`.
type RunDtors = extern "C" fn(thread: u32) -> usize;

/// All threads that have a thread, in the plugin's call.
const ALL_THREADS: u32 = 0;

/// The way into one loaded library's list of destructors, shut before the library is unloaded.
pub(super) struct DtorGate {
    run: Mutex<Option<RunDtors>>,
}

/// The libraries that are loaded.
static GATES: Mutex<Vec<Arc<DtorGate>>> = Mutex::new(Vec::new());

impl DtorGate {
    /// Opens the way; from now on threads that end pass through it.
    pub fn open(run: RunDtors) -> Arc<Self> {
        let gate = Arc::new(Self { run: Mutex::new(Some(run)) });
        GATES.lock().unwrap_or_else(PoisonError::into_inner).push(gate.clone());
        gate
    }

    /// Runs all destructors that are left and shuts the way: nobody calls into the library through it any more.
    /// Returns how many ran.
    pub fn shut(self: &Arc<Self>) -> usize {
        // The lock is held meanwhile: a thread that ends now must not free values that are being destroyed here.
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let ran = run.take().map_or(0, |run| run(ALL_THREADS));
        drop(run);
        GATES.lock().unwrap_or_else(PoisonError::into_inner).retain(|gate| !Arc::ptr_eq(gate, self));
        ran
    }

    fn run_for(&self, thread: u32) -> usize {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).map_or(0, |run| run(thread))
    }
}

/// Runs the destructors of this thread's values in all plugins; for the end of a thread that ran plugin code.
/// Returns how many ran.
///
/// Threads that entered plugin code through [`super::with_task`], [`super::Plugin::create`] or [`super::load`] do
/// this by themselves.
pub fn thread_stops() -> usize {
    let gates = GATES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let thread = this_thread();
    gates.iter().map(|gate| gate.run_for(thread)).sum()
}

/// The id by which plugins list this thread's values.
fn this_thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}

/// Sees to it that [`thread_stops`] is called when this thread ends. Costs a look at a thread-local.
#[inline]
pub(super) fn watch_thread() {
    struct Watch;
    impl Drop for Watch {
        fn drop(&mut self) {
            thread_stops();
        }
    }
    thread_local! {
        static WATCH: Watch = const { Watch };
    }
    // Fails when the thread is past this already; then whoever calls plugin code so late is on their own.
    let _ = WATCH.try_with(|_| ());
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_thread_that_ran_plugin_code_runs_its_destructors_when_it_ends() {
        static ENDED: AtomicU32 = AtomicU32::new(0);
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        static WANTED: AtomicU32 = AtomicU32::new(0);
        extern "C" fn run(thread: u32) -> usize {
            // Other tests' threads come by here too.
            if thread == WANTED.load(Ordering::SeqCst) && thread != ALL_THREADS {
                ENDED.store(thread, Ordering::SeqCst);
                CALLS.fetch_add(1, Ordering::SeqCst);
            }
            0
        }
        let gate = DtorGate::open(run);
        let thread = std::thread::spawn(|| {
            WANTED.store(this_thread(), Ordering::SeqCst);
            watch_thread();
            watch_thread();
            this_thread()
        })
        .join()
        .unwrap();
        assert_eq!(ENDED.load(Ordering::SeqCst), thread);
        assert_eq!(CALLS.load(Ordering::SeqCst), 1);
        gate.shut();
    }

    #[test]
    fn nobody_passes_a_gate_that_is_shut() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn run(thread: u32) -> usize {
            CALLS.fetch_add(1, Ordering::SeqCst);
            if thread == ALL_THREADS { 3 } else { 0 }
        }
        let gate = DtorGate::open(run);
        assert_eq!(gate.shut(), 3);
        let calls = CALLS.load(Ordering::SeqCst);
        thread_stops();
        assert_eq!(gate.shut(), 0);
        assert_eq!(CALLS.load(Ordering::SeqCst), calls);
    }
}
