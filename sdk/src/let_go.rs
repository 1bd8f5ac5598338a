//! Panics in drops: the boundary contains them, and nobody is there to be told. Here they are reported by the node.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use flowbay_abi::{host::LogLevel, panics::catch};

use crate::Ctx;

/// Gives one reference on a node up; a panic in the drop of the last is reported.
pub(crate) fn node<N>(node: Option<Arc<N>>, ctx: &Ctx) {
    if let Some(last) = node.and_then(Arc::into_inner) {
        reporting(last, ctx);
    }
}

fn reporting<T>(value: T, ctx: &Ctx) {
    if let Err(text) = catch(move || drop(value)) {
        // To the log and not as an error of the node's: by now nobody may be left to catch it.
        ctx.log(LogLevel::Error, format!("in a drop: {text}"));
    }
}

/// A future of a node's; a panic in its drop is reported, one in its poll goes on as it would without this.
pub(crate) struct Reporting<F: ?Sized> {
    future: Option<Pin<Box<F>>>,
    ctx: Ctx,
}

impl<F: ?Sized> Reporting<F> {
    pub(crate) fn new(future: Pin<Box<F>>, ctx: &Ctx) -> Self {
        Self { future: Some(future), ctx: ctx.clone() }
    }
}

impl<F: Future + ?Sized> Future for Reporting<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match &mut self.future {
            Some(future) => future.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<F: ?Sized> Drop for Reporting<F> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            reporting(future, &self.ctx);
        }
    }
}
