//! The trait that node authors implement, and its adapter to the boundary.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use abi_stable::std_types::RResult;
use flowbay_abi::{
    FfiFuture, io as abi_io,
    message::Msg,
    node::{NodeError, Outcome, PluginNode, Via},
    panics::{catch, guarded},
    value::Value,
};
use serde::de::DeserializeOwned;

use crate::{
    Connection, ConnectionEnd, Ctx, Error, NodeType, Request, Response, UpgradeAnswer, UpgradeRequest,
    connection, context, let_go, let_go::Reporting,
};

/// What a node type says of itself; written by the `#[node]` attribute.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not described as a node type",
    label = "put `#[node(\"name-of-the-type\")]` on this `impl Node`"
)]
pub trait Described {
    /// The type's description.
    const TYPE: NodeType;
}

/// A node type. One value of it is one node of a running flow.
///
/// All methods take `&self` and may be called on several threads at a time; only `on_input` is called serially
/// (unless the type declares a concurrency), each call waiting until the one before has finished. State that
/// changes goes into atomics or a `Mutex` (never held across an `await`).
///
/// Every method may panic: the panic is reported under the node's id, and the flow goes on.
pub trait Node: Described + Sized + Send + Sync + 'static {
    /// The node's properties in the flow file: any struct that derives `Deserialize`. Properties it does not name
    /// are ignored; a missing or ill-typed one is reported with the node's id and the property's name.
    type Config: DeserializeOwned;

    /// Creates the node. It may read its surroundings through `ctx`, but has no effects yet: other nodes may not
    /// exist, and in a hot swap its predecessor is still at work. What such a predecessor saved is
    /// [`Ctx::restored`].
    ///
    /// # Errors
    /// The node cannot exist; it is reported with its id and type, and the rest of the flow runs without it.
    fn new(config: Self::Config, ctx: &Ctx) -> Result<Self, Error>;

    /// A message arrived. Returning `Ok` completes it.
    ///
    /// # Errors
    /// Reported to Catch nodes with the message as it arrived.
    fn on_input(&self, msg: Msg, ctx: &Ctx) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = (msg, ctx);
        async { Err(Error::ignored()) }
    }

    /// A message arrived that another node addressed to this one ([`Ctx::deliver`]), not through a wire.
    ///
    /// # Errors
    /// As `on_input`.
    fn on_direct(&self, msg: Msg, ctx: &Ctx) -> impl Future<Output = Result<(), Error>> + Send {
        self.on_input(msg, ctx)
    }

    /// The node's own task, begun when all nodes of the deployment exist and dropped when the node has closed.
    /// The place of sources and timers, and of effects that must come once at the start.
    ///
    /// # Errors
    /// Reported to the log; the node stays.
    fn run(&self, ctx: &Ctx) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// The node is being stopped; `removed` when it is gone from the configuration. After this (or after the close
    /// timeout) its tasks and connections are dropped.
    fn on_close(&self, removed: bool, ctx: &Ctx) -> impl Future<Output = ()> + Send {
        let _ = (removed, ctx);
        async {}
    }

    /// A WebSocket upgrade for a path that the node registered with [`Ctx::register_upgrade`].
    fn on_upgrade(&self, request: UpgradeRequest, ctx: &Ctx) -> UpgradeAnswer {
        let _ = (request, ctx);
        UpgradeAnswer::refuse(404)
    }

    /// An HTTP request for a route that the node registered. Dropped unfinished when the client goes away: what is to be
    /// done to its end in any case belongs into a task ([`Ctx::spawn`]).
    fn on_request(&self, request: Request, ctx: &Ctx) -> impl Future<Output = Response> + Send {
        let _ = (request, ctx);
        async { Response::status(404) }
    }

    /// A connection of the node's: an accepted upgrade or one given to [`Ctx::attach`].
    fn on_connection(&self, connection: Connection, ctx: &Ctx) -> impl Future<Output = ConnectionEnd> + Send {
        let _ = (connection, ctx);
        async { ConnectionEnd::Closed }
    }

    /// A connection of the node's is gone without having been served to its end: [`Node::on_connection`] panicked, or
    /// could not take over what an earlier generation handed over. The session may be one of which the node knows only
    /// from what that [saved](Node::save), or one whose end it has noticed already.
    fn on_connection_lost(&self, session: &str, ctx: &Ctx) {
        let _ = (session, ctx);
    }

    /// The state to give to this node's successor when newer code is swapped in, which finds it in
    /// [`Ctx::restored`]; `None` when there is nothing to keep. Must change nothing: the swap may be undone.
    ///
    /// # Errors
    /// The swap is undone.
    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(None)
    }
}

#[cfg(feature = "tokio")]
use crate::on_tokio::Life;

/// What ends with a node; without a runtime of the node's own, nothing.
#[cfg(not(feature = "tokio"))]
#[derive(Clone)]
struct Life;

#[cfg(not(feature = "tokio"))]
impl Life {
    fn new(_ctx: &Ctx) -> Self {
        Self
    }
}

/// A node and its context, as the boundary holds them.
pub(crate) struct Adapter<N> {
    /// There until it is dropped.
    node: Option<Arc<N>>,
    ctx: Ctx,
    life: Life,
}

/// What a future of the node's has of it. Such a future may outlive the adapter: a message in hand is finished by the
/// code that was given it.
struct Part<N> {
    /// There until it is dropped.
    node: Option<Arc<N>>,
    ctx: Ctx,
    /// Dropped after what it is for.
    _life: Life,
}

impl<N> Part<N> {
    fn node(&self) -> &N {
        self.node.as_deref().expect("the node is there until this is dropped")
    }
}

impl<N> Drop for Part<N> {
    fn drop(&mut self) {
        let_go::node(self.node.take(), &self.ctx);
    }
}

impl<N: Node> Adapter<N> {
    pub(crate) fn new(node: Arc<N>, ctx: Ctx) -> Self {
        Self { node: Some(node), life: Life::new(&ctx), ctx }
    }

    fn node(&self) -> &N {
        self.node.as_deref().expect("the node is there until this is dropped")
    }

    fn part(&self) -> Part<N> {
        Part { node: self.node.clone(), ctx: self.ctx.clone(), _life: self.life.clone() }
    }

    fn input(&self, msg: Msg, via: Via) -> Outcome {
        let own = self.part();
        let future: Pin<Box<dyn Future<Output = RResult<(), NodeError>> + Send>> = match via {
            Via::Wire => Box::pin(async move {
                let own = own;
                finished(own.node().on_input(msg, &own.ctx).await)
            }),
            Via::Direct => Box::pin(async move {
                let own = own;
                finished(own.node().on_direct(msg, &own.ctx).await)
            }),
        };
        poll_once(future, &self.ctx)
    }
}

impl<N> Drop for Adapter<N> {
    fn drop(&mut self) {
        if let Some(node) = &self.node {
            context::unshare(self.ctx.id(), node);
        }
        let_go::node(self.node.take(), &self.ctx);
    }
}

fn finished(result: Result<(), Error>) -> RResult<(), NodeError> {
    match result {
        Ok(()) => RResult::ROk(()),
        Err(error) => RResult::RErr(error.into_abi().unwrap_or_else(NodeError::ignored)),
    }
}

/// Most handlers never wait: they are done after one poll, and no future crosses.
fn poll_once(mut future: Pin<Box<dyn Future<Output = RResult<(), NodeError>> + Send>>, ctx: &Ctx) -> Outcome {
    match catch(|| future.as_mut().poll(&mut Context::from_waker(Waker::noop()))) {
        Ok(Poll::Ready(RResult::ROk(()))) => Outcome::Done,
        Ok(Poll::Ready(RResult::RErr(error))) if error.is_ignored() => Outcome::Ignored,
        Ok(Poll::Ready(RResult::RErr(error))) => Outcome::Failed(error),
        Ok(Poll::Pending) => Outcome::Pending(guarded(Reporting::new(future, ctx), |text| {
            RResult::RErr(NodeError::from_panic(text))
        })),
        Err(text) => Outcome::Failed(NodeError::from_panic(text)),
    }
}

impl<N: Node> PluginNode for Adapter<N> {
    fn on_start(&self) {
        let own = self.part();
        let mut task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let own = own;
            if let Err(error) = own.node().run(&own.ctx).await {
                own.ctx.report_error(error, None);
            }
        });
        // A node without a task of its own is done here and costs none.
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.ctx.spawn(task);
        }
    }

    fn on_input(&self, msg: Msg, via: Via) -> Outcome {
        self.input(msg, via)
    }

    fn on_close(&self, removed: bool) -> FfiFuture<()> {
        let own = self.part();
        let log = self.ctx.clone();
        let closing = async move {
            let own = own;
            own.node().on_close(removed, &own.ctx).await;
        };
        let mut closing = Box::pin(Reporting::new(Box::pin(closing), &log));
        guarded(
            std::future::poll_fn(move |cx| match catch(|| closing.as_mut().poll(cx)) {
                Ok(polled) => polled,
                Err(text) => {
                    log.report_error(Error::new(text).with_code("PANIC"), None);
                    Poll::Ready(())
                }
            }),
            |_| (),
        )
    }

    fn on_upgrade(&self, request: Value, ticket: u64) -> Value {
        self.node().on_upgrade(UpgradeRequest::new(request, ticket), &self.ctx).into_value()
    }

    fn on_request(&self, request: Value) -> FfiFuture<Value> {
        let own = self.part();
        let answer = async move {
            let own = own;
            own.node().on_request(Request::new(request), &own.ctx).await.into_value()
        };
        let log = self.ctx.clone();
        let mut answer = Box::pin(Reporting::new(Box::pin(answer), &log));
        // What went wrong is for the log, not for whoever asked.
        let failed = |_| Response::status(500).body("the node failed").into_value();
        guarded(
            std::future::poll_fn(move |cx| match catch(|| answer.as_mut().poll(cx)) {
                Ok(polled) => polled,
                Err(text) => {
                    log.report_error(Error::new(format!("request: {text}")).with_code("PANIC"), None);
                    Poll::Ready(failed(String::new()))
                }
            }),
            failed,
        )
    }

    fn on_connection(&self, connection: abi_io::Connection) -> FfiFuture<abi_io::ConnectionEnd> {
        let own = self.part();
        let told = self.part();
        let connection = connection::from_abi(connection);
        let session = connection.session.id().clone();
        let serve = async move {
            let own = own;
            connection::end_to_abi(own.node().on_connection(connection, &own.ctx).await)
        };
        let mut serve = Some(Box::pin(Reporting::new(Box::pin(serve), &self.ctx)));
        guarded(
            std::future::poll_fn(move |cx| {
                let Some(serving) = &mut serve else { return Poll::Pending };
                let text = match catch(|| serving.as_mut().poll(cx)) {
                    Ok(polled) => return polled,
                    Err(text) => text,
                };
                let report = |text: String| {
                    told.ctx.report_error(
                        Error::new(format!("session {session}: {text}")).with_code("PANIC"),
                        None,
                    );
                };
                report(text);
                // First what the connection still has, which may say by itself that it has ended.
                drop(serve.take());
                if let Err(text) = catch(|| told.node().on_connection_lost(&session, &told.ctx)) {
                    report(text);
                }
                Poll::Ready(abi_io::ConnectionEnd::Closed)
            }),
            |_| abi_io::ConnectionEnd::Closed,
        )
    }

    fn on_connection_lost(&self, session: &str) {
        self.node().on_connection_lost(session, &self.ctx);
    }

    fn save(&self) -> Result<Option<Value>, NodeError> {
        self.node().save().map_err(|error| error.into_abi().unwrap_or_else(|| NodeError::new("not saved")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{NoConfig, testing::TestNode};

    /// Panics when it is given a connection.
    struct PanicsOnConnection {
        lost: Mutex<Vec<String>>,
    }

    impl Described for PanicsOnConnection {
        const TYPE: NodeType = NodeType::new("panics-on-connection");
    }

    impl Node for PanicsOnConnection {
        type Config = NoConfig;

        fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
            Ok(Self { lost: Mutex::default() })
        }

        fn on_upgrade(&self, _request: UpgradeRequest, _ctx: &Ctx) -> UpgradeAnswer {
            UpgradeAnswer::accept()
        }

        async fn on_connection(&self, _connection: Connection, _ctx: &Ctx) -> ConnectionEnd {
            panic!("on purpose")
        }

        fn on_connection_lost(&self, session: &str, _ctx: &Ctx) {
            self.lost.lock().unwrap().push(session.to_owned());
        }

        fn save(&self) -> Result<Option<Value>, Error> {
            let lost: Vec<Value> = self.lost.lock().unwrap().iter().map(|id| id.as_str().into()).collect();
            Ok(Some(lost.into()))
        }
    }

    #[test]
    fn a_node_that_panicked_with_a_connection_is_told_which_is_lost() {
        let mut node = TestNode::<PanicsOnConnection>::new(Value::Null);
        let (_, connection) = node.upgrade(Value::Null);
        let (session, _peer) = connection.unwrap();
        assert_eq!(node.save().unwrap(), Some(Value::from(vec![Value::from(session)])));
        let failures = node.failures();
        assert!(failures.iter().any(|failure| failure.text.contains("on purpose")), "{failures:?}");
    }
}
