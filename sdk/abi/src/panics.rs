//! Panics stop at the boundary: every call that crosses runs inside [`catch`].

use std::{
    any::Any,
    cell::RefCell,
    future::Future,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    pin::Pin,
    sync::Once,
    task::{Context, Poll},
};

use async_ffi::{FfiFuture, FutureExt};

thread_local! {
    /// Where the last panic of this thread happened, left by the hook for [`catch`] to pick up.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes this library's panics silent and remembers where they happened, so that the report to the host can say
/// it. A plugin has a panic hook of its own (its copy of std); the SDK calls this when the plugin is loaded.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
            let text = match info.location() {
                Some(at) => format!("panicked at {}:{}: {}", at.file(), at.line(), message(info.payload())),
                None => format!("panicked: {}", message(info.payload())),
            };
            // Fails at the end of a thread, when the place is gone; a panic in here would end the process.
            let _ = LAST_PANIC.try_with(|last| {
                if let Ok(mut last) = last.try_borrow_mut() {
                    *last = Some(text);
                }
            });
        }));
    });
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

/// Runs `call`; a panic becomes `Err` with its message and, where the hook is installed, its place.
pub fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let text = LAST_PANIC
            .try_with(|last| last.try_borrow_mut().ok().and_then(|mut last| last.take()))
            .ok()
            .flatten()
            .unwrap_or_else(|| format!("panicked: {}", message(&*payload)));
        // A payload may panic in its own drop; that must not cross either.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
        text
    })
}

/// A future whose polls and whose drop cannot unwind into the other side: a panic resolves it to `on_panic(text)`.
///
/// `async_ffi` alone reports a panic in `poll` without its text and aborts the process on a panic in `drop`.
pub fn guarded<F, T>(future: F, on_panic: fn(String) -> T) -> FfiFuture<T>
where
    F: Future<Output = T> + Send + 'static,
    T: 'static,
{
    Guarded { future: Some(Box::pin(future)), on_panic }.into_ffi()
}

struct Guarded<F, T> {
    future: Option<Pin<Box<F>>>,
    on_panic: fn(String) -> T,
}

impl<F: Future<Output = T> + Send, T> Future for Guarded<F, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(future) = self.future.as_mut() else { return Poll::Pending };
        match catch(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => {
                self.release();
                Poll::Ready(output)
            }
            Err(text) => {
                self.release();
                Poll::Ready((self.on_panic)(text))
            }
        }
    }
}

impl<F, T> Guarded<F, T> {
    fn release(&mut self) {
        let future = self.future.take();
        let _ = catch(move || drop(future));
    }
}

impl<F, T> Drop for Guarded<F, T> {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }

    #[test]
    fn a_panic_in_poll_resolves_the_future_with_its_text() {
        let mut future = Box::pin(guarded(async { panic!("in poll") }, |text| text));
        match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(text) => assert!(text.contains("in poll"), "{text}"),
            Poll::Pending => panic!("pending"),
        }
    }

    #[test]
    fn a_panic_in_the_drop_of_a_future_stays_inside() {
        let held = PanicsOnDrop;
        drop(guarded(
            async move {
                std::future::pending::<()>().await;
                drop(held);
            },
            |_| (),
        ));
    }
}
