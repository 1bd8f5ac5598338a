//! Thread-local destructors of this library, kept where the host can run them.
//!
//! A `thread_local!` with a destructor, touched on a thread of the host, makes glibc hold the library mapped until
//! that thread ends; and a pthread key's destructor is called at the thread's end whether or not the library is
//! still there. Both registrations go through a C function. This module defines these functions inside the plugin,
//! and the one that takes a key back, hidden, so that the plugin's own copy of std binds to them and to nothing else.
//! The destructors are listed here, and the host has them run when one of its threads ends and before it unloads the
//! library ([`run_tls_dtors`]). A thread that the plugin makes runs its own when it ends; the plugin must see to it
//! that this is before its nodes are gone. On other platforms than Linux with glibc on x86-64 or AArch64 the host
//! cannot unload a plugin that uses thread-locals, and keeps it mapped.

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use hooked::{keep, run_tls_dtors};

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub(crate) fn keep() {}

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub(crate) extern "C" fn run_tls_dtors(_thread: u32) -> usize {
    0
}

#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[allow(unsafe_code, reason = "a home of unsafe: the TLS hook")]
mod hooked {
    use std::{
        ffi::{CStr, c_char, c_int, c_uint, c_void},
        ptr::{NonNull, null_mut},
        sync::{Mutex, OnceLock, PoisonError},
    };

    type Destructor = unsafe extern "C" fn(*mut u8);

    /// One thread-local value that waits for its destructor.
    struct Entry {
        thread: u32,
        destructor: Destructor,
        object: *mut u8,
    }

    // SAFETY: the object is only handed to its destructor: by the thread it belongs to, or when that thread runs
    // nothing of this library any more.
    unsafe impl Send for Entry {}

    static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
    /// The pthread keys of this library, but for [`END`].
    static KEYS: Mutex<Vec<Key>> = Mutex::new(Vec::new());
    /// A key with a value on each thread that is in [`ENTRIES`]: its destructor is how a thread that the host does
    /// not know comes by here when it ends.
    static END: OnceLock<Option<c_uint>> = OnceLock::new();

    #[derive(Clone, Copy)]
    struct Key {
        key: c_uint,
        destructor: Option<Destructor>,
    }

    unsafe extern "C" {
        safe fn gettid() -> c_int;
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
        // Any number may be passed to these two: for one that is no key the first returns null, the second an error.
        safe fn pthread_getspecific(key: c_uint) -> *mut c_void;
        safe fn pthread_setspecific(key: c_uint, value: *const c_void) -> c_int;
        // The three that the assembly below defines.
        fn __cxa_thread_atexit_impl();
        fn pthread_key_create();
        fn pthread_key_delete();
    }

    unsafe extern "C" fn register(destructor: Destructor, object: *mut u8, _library: *mut u8) -> c_int {
        let entry = Entry { thread: gettid() as u32, destructor, object };
        ENTRIES.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        let end = END.get_or_init(|| {
            let mut key = 0;
            // SAFETY: `key` is written to; the destructor is a function of this library, which deletes the key before
            // it goes.
            (unsafe { really_create(&mut key, Some(thread_ends)) } == 0).then_some(key)
        });
        if let Some(end) = *end {
            // Any value but null.
            pthread_setspecific(end, NonNull::<c_void>::dangling().as_ptr());
        }
        0
    }

    /// What the two key functions say when they can do nothing.
    const EAGAIN: c_int = 11;

    /// libc's function of that name, never the hidden one of this library: the default scope does not have that.
    fn of_libc(name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: a null handle is RTLD_DEFAULT; the name ends in NUL.
        NonNull::new(unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) })
    }

    /// The destructor of [`END`].
    unsafe extern "C" fn thread_ends(_value: *mut u8) {
        run_tls_dtors(gettid() as u32);
    }

    /// # Safety
    /// 1. `key` may be written to.
    /// 2. `destructor` may be called with the key's value at the end of any thread until the key is deleted.
    unsafe fn really_create(key: *mut c_uint, destructor: Option<Destructor>) -> c_int {
        type CreateKey = unsafe extern "C" fn(*mut c_uint, Option<Destructor>) -> c_int;
        let Some(real) = of_libc(c"pthread_key_create") else { return EAGAIN };
        // SAFETY: this is libc's function, whose signature is that.
        let real: CreateKey = unsafe { std::mem::transmute(real) };
        // SAFETY: the caller's promises.
        unsafe { real(key, destructor) }
    }

    unsafe extern "C" fn create_key(key: *mut c_uint, destructor: Option<Destructor>) -> c_int {
        // SAFETY: the caller's promises, which are those of the function that it means to call.
        let result = unsafe { really_create(key, destructor) };
        if result == 0 {
            // SAFETY: the call succeeded, so the key is written.
            let key = Key { key: unsafe { *key }, destructor };
            KEYS.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        }
        result
    }

    unsafe extern "C" fn delete_key(key: c_uint) -> c_int {
        // Off the list first: the number is free from the next call on and may be somebody else's key a moment
        // later, which must not be deleted when this library is unloaded. (std gives back key 0 as soon as it gets
        // it, so this is no rare case.)
        KEYS.lock().unwrap_or_else(PoisonError::into_inner).retain(|listed| listed.key != key);
        really_delete(key)
    }

    fn really_delete(key: c_uint) -> c_int {
        type DeleteKey = unsafe extern "C" fn(c_uint) -> c_int;
        let Some(real) = of_libc(c"pthread_key_delete") else { return EAGAIN };
        // SAFETY: this is libc's function, whose signature is that.
        let real: DeleteKey = unsafe { std::mem::transmute(real) };
        // SAFETY: any number may be passed; one that is no key is an error.
        unsafe { real(key) }
    }

    #[cfg(target_arch = "x86_64")]
    core::arch::global_asm!(
        ".text",
        ".globl __cxa_thread_atexit_impl",
        ".hidden __cxa_thread_atexit_impl",
        ".type __cxa_thread_atexit_impl,@function",
        "__cxa_thread_atexit_impl:",
        "jmp {register}",
        ".globl pthread_key_create",
        ".hidden pthread_key_create",
        ".type pthread_key_create,@function",
        "pthread_key_create:",
        "jmp {create_key}",
        ".globl pthread_key_delete",
        ".hidden pthread_key_delete",
        ".type pthread_key_delete,@function",
        "pthread_key_delete:",
        "jmp {delete_key}",
        register = sym register,
        create_key = sym create_key,
        delete_key = sym delete_key,
    );

    #[cfg(target_arch = "aarch64")]
    core::arch::global_asm!(
        ".text",
        ".globl __cxa_thread_atexit_impl",
        ".hidden __cxa_thread_atexit_impl",
        ".type __cxa_thread_atexit_impl,%function",
        "__cxa_thread_atexit_impl:",
        "b {register}",
        ".globl pthread_key_create",
        ".hidden pthread_key_create",
        ".type pthread_key_create,%function",
        "pthread_key_create:",
        "b {create_key}",
        ".globl pthread_key_delete",
        ".hidden pthread_key_delete",
        ".type pthread_key_delete,%function",
        "pthread_key_delete:",
        "b {delete_key}",
        register = sym register,
        create_key = sym create_key,
        delete_key = sym delete_key,
    );

    /// Makes the linker keep these functions: std refers to the first only weakly, which pulls in nothing.
    pub(crate) fn keep() {
        std::hint::black_box([
            __cxa_thread_atexit_impl as *const (),
            pthread_key_create as *const (),
            pthread_key_delete as *const (),
        ]);
    }

    /// See `PluginRoot::run_tls_dtors` in `flowbay-abi`.
    pub(crate) extern "C" fn run_tls_dtors(thread: u32) -> usize {
        let mut ran = run_entries(thread);
        if thread == 0 {
            // With its memory: nothing drops the statics of a library that is unloaded.
            *ENTRIES.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
            for key in std::mem::take(&mut *KEYS.lock().unwrap_or_else(PoisonError::into_inner)) {
                // The library made this key and has not given it back; glibc now forgets its destructor, which is
                // about to be unmapped.
                really_delete(key.key);
            }
            if let Some(end) = END.get().copied().flatten() {
                really_delete(end);
            }
        } else if thread == gettid() as u32 {
            // The keys' destructors now, while the host keeps the library loaded: glibc would call them when nobody
            // does any more. A destructor may set values anew, so there are several rounds, as many as glibc makes.
            for _round in 0..4 {
                let of_keys = run_key_destructors();
                ran += of_keys + run_entries(thread);
                if of_keys == 0 {
                    break;
                }
            }
            if let Some(end) = END.get().copied().flatten() {
                pthread_setspecific(end, null_mut());
            }
        }
        ran
    }

    fn run_entries(thread: u32) -> usize {
        let mut ran = 0;
        loop {
            // The lock is not held while a destructor runs: it may register another one.
            let entry = {
                let mut entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
                match entries.iter().rposition(|entry| thread == 0 || entry.thread == thread) {
                    Some(at) => entries.swap_remove(at),
                    None => return ran,
                }
            };
            // SAFETY: registered for this object, removed from the list so that it runs once; the host calls this
            // on the thread itself, or when nothing of this library runs any more.
            unsafe { (entry.destructor)(entry.object) };
            ran += 1;
        }
    }

    /// One round over this thread's values of this library's keys.
    fn run_key_destructors() -> usize {
        let keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut ran = 0;
        for Key { key, destructor } in keys {
            let value = pthread_getspecific(key);
            let Some(destructor) = destructor.filter(|_| !value.is_null()) else { continue };
            pthread_setspecific(key, null_mut());
            // SAFETY: the key was created with this destructor for such values; the value is no longer the key's.
            unsafe { destructor(value.cast()) };
            ran += 1;
        }
        ran
    }
}
