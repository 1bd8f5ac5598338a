//! Thread-local destructors of this library, kept where the host can run them.
//!
//! A `thread_local!` with a destructor, touched on a thread of the host, makes glibc hold the library mapped until
//! that thread ends; and a pthread key's destructor is called at the thread's end whether or not the library is
//! still there. Both registrations go through a C function. This module defines both functions inside the plugin,
//! hidden, so that the plugin's own copy of std binds to them and to nothing else; the destructors are listed here,
//! and the host has them run when one of its threads ends and before it unloads the library
//! ([`run_tls_dtors`]). On other platforms than Linux with glibc on x86-64 or AArch64 the host cannot unload a
//! plugin that uses thread-locals, and keeps it mapped.

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
        ffi::{c_char, c_int, c_uint, c_void},
        sync::{Mutex, PoisonError},
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
    static KEYS: Mutex<Vec<c_uint>> = Mutex::new(Vec::new());

    unsafe extern "C" {
        safe fn gettid() -> c_int;
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
        fn pthread_key_delete(key: c_uint) -> c_int;
        // The two that the assembly below defines.
        fn __cxa_thread_atexit_impl();
        fn pthread_key_create();
    }

    unsafe extern "C" fn register(destructor: Destructor, object: *mut u8, _library: *mut u8) -> c_int {
        let entry = Entry { thread: gettid() as u32, destructor, object };
        ENTRIES.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        0
    }

    unsafe extern "C" fn create_key(key: *mut c_uint, destructor: Option<Destructor>) -> c_int {
        type CreateKey = unsafe extern "C" fn(*mut c_uint, Option<Destructor>) -> c_int;
        // SAFETY: a null handle is RTLD_DEFAULT; the name ends in NUL. The default scope has libc's function,
        // never the hidden one of this library.
        let real = unsafe { dlsym(std::ptr::null_mut(), c"pthread_key_create".as_ptr()) };
        if real.is_null() {
            return 11; // EAGAIN: what the function says when there are no more keys.
        }
        // SAFETY: this is libc's function, whose signature is that.
        let real: CreateKey = unsafe { std::mem::transmute(real) };
        // SAFETY: the caller's arguments, passed on.
        let result = unsafe { real(key, destructor) };
        if result == 0 {
            // SAFETY: the call succeeded, so the key is written.
            KEYS.lock().unwrap_or_else(PoisonError::into_inner).push(unsafe { *key });
        }
        result
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
        register = sym register,
        create_key = sym create_key,
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
        register = sym register,
        create_key = sym create_key,
    );

    /// Makes the linker keep the two functions: std refers to the first only weakly, which pulls in nothing.
    pub(crate) fn keep() {
        std::hint::black_box([__cxa_thread_atexit_impl as *const (), pthread_key_create as *const ()]);
    }

    /// See `PluginRoot::run_tls_dtors` in `flowbay-abi`.
    pub(crate) extern "C" fn run_tls_dtors(thread: u32) -> usize {
        let mut ran = 0;
        loop {
            // The lock is not held while a destructor runs: it may register another one.
            let entry = {
                let mut entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
                match entries.iter().rposition(|entry| thread == 0 || entry.thread == thread) {
                    Some(at) => entries.swap_remove(at),
                    None => break,
                }
            };
            // SAFETY: registered for this object, removed from the list so that it runs once; the host calls this
            // on the thread itself, or when nothing of this library runs any more.
            unsafe { (entry.destructor)(entry.object) };
            ran += 1;
        }
        if thread == 0 {
            for key in std::mem::take(&mut *KEYS.lock().unwrap_or_else(PoisonError::into_inner)) {
                // SAFETY: the key was created by this library and is deleted once; glibc then forgets its
                // destructor, which is about to be unmapped.
                unsafe { pthread_key_delete(key) };
            }
        }
        ran
    }
}
