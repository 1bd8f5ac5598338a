//! One library in memory: opened, checked, entered, and unmapped when nothing can run it any more.
#![allow(unsafe_code, reason = "a home of unsafe: the dynamic linker")]

use std::{
    mem::ManuallyDrop,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use abi_stable::library::{AbiHeaderRef, LibraryError, RootModuleError};
use flowbay_abi::{panics::catch, root::PluginRootRef};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use super::{
    abi_check,
    elf::{ElfFacts, ROOT_SYMBOL},
    error::Refusal,
    staging::Staged,
    tls::DtorGate,
};

/// Libraries of plugins that are mapped at this moment.
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// How many generations of plugins are mapped: the current ones, those that still finish something, and those that
/// could not be unloaded. More than there are plugins, for long, is a leak.
pub fn live_generations() -> usize {
    MAPPED.load(Ordering::Relaxed)
}

/// A library that the dynamic linker has mapped and that fits this host. Dropping it leaves it mapped.
pub(super) struct Opened {
    handle: ManuallyDrop<Handle>,
    /// Points into the library.
    pub root: PluginRootRef,
    /// The library never lets go of the threads it ran on, so it is never unmapped.
    pins_itself: bool,
}

/// Maps the library at `file`, checks that it speaks the host's ABI, and has it make its root.
///
/// Runs code of the library: its initialisers, then the root's constructor. `facts` are those of this very file.
/// When this fails after the mapping, the library stays mapped for good: without a root nobody can tell it to let go
/// of the thread-local values that it has made. That happens in the process that tries a plugin, which ends anyway.
///
/// # Errors
/// See [`Refusal`].
pub(super) fn open(file: &Path, facts: ElfFacts) -> Result<Opened, Refusal> {
    if !facts.has_root {
        return Err(Refusal::NotAPlugin);
    }
    // SAFETY: the file is a whole library of this machine (`facts` exist) that exports a plugin's root, and unless
    // this is the process that tries it, that one has loaded it before. What its initialisers do is up to its
    // author: that is what installing a plugin means.
    let handle = unsafe { Handle::open(Some(file), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|error| Refusal::Open(one_line(&error.to_string())))?;
    let handle = ManuallyDrop::new(handle);
    MAPPED.fetch_add(1, Ordering::Relaxed);

    // SAFETY: libloading gives the symbol's address as a value of the type asked for, which is a pointer. `facts`
    // say that data of at least a header's size lies there, within what is mapped. The header is plain integers, so
    // any content is valid; it is used only here, while the library is mapped.
    let header = unsafe { handle.get::<AbiHeaderRef>(ROOT_SYMBOL) }
        .map(|symbol| *symbol)
        .map_err(|error| Refusal::Open(one_line(&error.to_string())))?;
    abi_check::check_header(&header)?;

    // From here on abi_stable reads what the library claims; should it panic over that, the library is refused.
    let root = catch(|| {
        let header = header.upgrade().map_err(|error| Refusal::Root(one_line(&error.to_string())))?;
        let plugin_abi = header.version_strings().version.as_str().to_owned();
        abi_check::check_version(&plugin_abi)?;
        abi_check::check_layout(header.layout(), &plugin_abi)?;
        // SAFETY: `check_layout` compared the layout that the library declares for its root with the host's.
        unsafe { header.init_root_module_with_unchecked_layout::<PluginRootRef>() }.map_err(root_failed)
    })
    .unwrap_or_else(|panic| Err(Refusal::Root(panic)))?;
    Ok(Opened { handle, root, pins_itself: facts.pins_itself })
}

fn root_failed(error: LibraryError) -> Refusal {
    Refusal::Root(match error {
        LibraryError::RootModule { err: RootModuleError::Unwound, .. } => "it panicked".to_owned(),
        LibraryError::RootModule { err: RootModuleError::Returned(error), .. } => {
            one_line(&error.to_string())
        }
        other => one_line(&other.to_string()),
    })
}

/// The parts of a long message that say something, in one line.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A loaded library with its private copy. Dropping it has it unloaded: not here and now, since this thread may be
/// inside a call into it, but by the unloader.
///
/// # Safety
/// Whoever owns it drops everything else that points into the library first, and whoever is in a call into the
/// library keeps it from being dropped. `Plugin`, which is shared by `Arc`, does both.
pub(super) struct Library {
    /// Empty once dropped.
    retired: Option<Retired>,
}

struct Retired {
    opened: Opened,
    gate: Arc<DtorGate>,
    /// Last: the file goes after the library.
    staged: Staged,
}

impl Library {
    /// Takes over an opened library and its copy, and starts the unloader if this is the first.
    ///
    /// # Errors
    /// There is no thread for the unloader. The library stays mapped.
    pub fn new(opened: Opened, staged: Staged) -> Result<Self, Refusal> {
        if unloader().is_none() {
            return Err(Refusal::Open("the system has no thread left to unload it with later".to_owned()));
        }
        let gate = DtorGate::open(opened.root.run_tls_dtors());
        Ok(Self { retired: Some(Retired { opened, gate, staged }) })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if let Some(retired) = self.retired.take()
            && let Some(unloader) = unloader()
            && let Err(mpsc::SendError(Job::Unload(retired))) = unloader.send(Job::Unload(retired))
        {
            // The unloader is gone, which only a panic in it can do. Leaking is safe, unmapping here is not.
            std::mem::forget(retired);
        }
    }
}

enum Job {
    Unload(Retired),
    Report(mpsc::Sender<()>),
}

fn unloader() -> Option<&'static mpsc::Sender<Job>> {
    static UNLOADER: OnceLock<Option<mpsc::Sender<Job>>> = OnceLock::new();
    UNLOADER
        .get_or_init(|| {
            let (jobs, inbox) = mpsc::channel();
            std::thread::Builder::new()
                .name("flowbay-unload".to_owned())
                .spawn(move || {
                    for job in inbox {
                        match job {
                            Job::Unload(retired) => unload(retired),
                            // Whoever asked may have given up waiting.
                            Job::Report(done) => drop(done.send(())),
                        }
                    }
                })
                .ok()
                .map(|_| jobs)
        })
        .as_ref()
}

/// Waits until everything that was dropped before this call is unloaded; false when `deadline` passes first.
pub fn wait_for_unloads(deadline: Duration) -> bool {
    let Some(unloader) = unloader() else { return true };
    let (done, wait) = mpsc::channel();
    unloader.send(Job::Report(done)).is_ok() && wait.recv_timeout(deadline).is_ok()
}

fn unload(retired: Retired) {
    let Retired { opened, gate, staged } = retired;
    let file = staged.path.clone();
    gate.shut();
    if opened.pins_itself {
        tracing::warn!(
            "{} stays in memory: it was not built with the flowbay-sdk's thread-local hook",
            file.display()
        );
        // The file stays too: backtraces may still lead into the library.
        std::mem::forget(staged);
        return;
    }
    let handle = ManuallyDrop::into_inner(opened.handle);
    // Closing is not unsafe to libloading, which says so when the library is opened. It is sound here because the
    // owner has gone (see `Library`): no thread runs code of the library or will, nothing points into it, and its
    // thread-local values are destroyed.
    if let Err(error) = handle.close() {
        tracing::warn!("{} could not be unloaded: {error}", file.display());
        std::mem::forget(staged);
    } else if is_mapped(&file) {
        tracing::warn!("{} stays in memory: the system does not let go of it", file.display());
        std::mem::forget(staged);
    } else {
        MAPPED.fetch_sub(1, Ordering::Relaxed);
        tracing::debug!("{} is unloaded", file.display());
        give_back_memory();
    }
}

/// Gives the system back what loading, checking and handing over took for a moment: glibc keeps it otherwise, in pieces
/// between what is in use, and with each swap there are more.
fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call takes any number, and the allocator locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps a library at once, in the process that tried it: its initialisers and destructors are tried too.
pub(super) fn close_in_probe(opened: Opened) {
    if opened.pins_itself {
        return;
    }
    opened.root.run_tls_dtors()(0);
    // See `unload`: here nothing has ever pointed into the library but `opened`, and this process ends now.
    let _ = ManuallyDrop::into_inner(opened.handle).close();
}

/// Whether the library that was opened at `file` is still mapped.
fn is_mapped(file: &Path) -> bool {
    // SAFETY: with NOLOAD nothing is loaded and no initialiser runs. A library that is mapped gets one more
    // reference, which the drop of the handle gives back.
    unsafe { Handle::open(Some(file), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NOLOAD) }.is_ok()
}

#[cfg(test)]
impl Library {
    /// The library that this test runs in, which is never unloaded.
    pub(super) fn of_this_process() -> Self {
        Self { retired: None }
    }
}
