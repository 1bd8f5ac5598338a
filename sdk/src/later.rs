//! Finishing a message from somewhere else.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use crate::Error;

/// A message's end, in two halves: [`Node::on_input`](crate::Node::on_input) awaits the second, and whoever has the
/// first says how the message ended: another task, a connection, a later message.
///
/// A message is done when the future of its handler is. So this is for results that come by another way than a future:
/// an answer on a connection that belongs to some earlier question, for instance. The type needs a `concurrency` other
/// than 1 to be given the next message meanwhile.
///
/// ```
/// use std::{collections::HashMap, sync::{Mutex, PoisonError}};
/// use flowbay_sdk::{Finish, later, prelude::*};
///
/// /// Holds each message until one comes whose `done` has its topic.
/// struct Holds(Mutex<HashMap<String, Finish>>);
///
/// #[node("holds", inputs = 1, concurrency = 0)]
/// impl Node for Holds {
///     type Config = NoConfig;
///     fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
///         Ok(Holds(Mutex::default()))
///     }
///     async fn on_input(&self, msg: Msg, _: &Ctx) -> Result<(), Error> {
///         let held = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         if let Some(topic) = msg["done"].as_str() {
///             let finish = held().remove(topic).ok_or_else(|| Error::new("no such message"))?;
///             finish.ok();
///             return Ok(());
///         }
///         let (finish, finished) = later();
///         held().insert(msg.topic().to_js_string(), finish);
///         finished.await
///     }
/// }
///
/// use flowbay_sdk::{testing::TestNode, value};
/// let mut node = TestNode::<Holds>::new(value!({}));
/// node.input(flowbay_sdk::object!({ "topic": "a" }));
/// assert_eq!(node.unfinished(), 1);
/// node.input(flowbay_sdk::object!({ "done": "a" }));
/// assert_eq!(node.completed().len(), 2);
/// ```
pub fn later() -> (Finish, Finished) {
    let (sender, receiver) = oneshot::channel();
    (Finish(sender), Finished(receiver))
}

/// The half of [`later`] that says how a message ended. Dropping it ends the message with an error.
#[derive(Debug)]
pub struct Finish(oneshot::Sender<Result<(), Error>>);

impl Finish {
    /// The node is done with the message.
    pub fn ok(self) {
        self.with(Ok(()));
    }

    /// The node could not do what it was asked: Catch nodes get the error with the message.
    pub fn fail(self, error: Error) {
        self.with(Err(error));
    }

    /// One or the other. Without effect when the node has been closed meanwhile.
    pub fn with(self, result: Result<(), Error>) {
        let _ = self.0.send(result);
    }

    /// Whether nobody waits any more: the node has been closed.
    pub fn is_over(&self) -> bool {
        self.0.is_closed()
    }
}

/// The half of [`later`] that a message's handler awaits.
#[derive(Debug)]
pub struct Finished(oneshot::Receiver<Result<(), Error>>);

impl Future for Finished {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|result| result.unwrap_or_else(|_| Err(Error::new("the node lost sight of the message"))))
    }
}
