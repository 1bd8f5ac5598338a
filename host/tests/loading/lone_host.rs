//! A host that does nothing: nodes can be created, and whatever they ask for is not there.

use std::{sync::Arc, task::Poll};

use flowbay_abi::{
    FfiFuture, Metric, MetricKind, Msg, Str, Value,
    host::{
        ContextScope, HostApi, HostFuture, HostFutureApi, HostNode, HostReply, LogLevel, PortMsg, Queued,
        WorkPlace,
    },
    io::HostIo,
    node::NodeError,
    waker::CallerWaker,
};

/// The services for one node.
pub fn lone_host() -> HostNode {
    HostNode::new(Arc::new(LoneHost))
}

struct LoneHost;

struct Never;

impl HostFutureApi for Never {
    fn poll(&mut self, _waker: CallerWaker<'_, '_>) -> Poll<Result<HostReply, NodeError>> {
        Poll::Pending
    }
}

impl HostApi for LoneHost {
    fn send(&self, _batch: &mut [PortMsg]) {}
    fn poll_ready(&self, _waker: CallerWaker<'_, '_>) -> Poll<()> {
        Poll::Ready(())
    }
    fn deliver(&self, _target: &str, _msg: Msg) -> bool {
        false
    }
    fn error(&self, _error: NodeError, _msg: Option<Msg>) {}
    fn status(&self, _status: Value) {}
    fn debug(&self, _event: Value) {}
    fn log(&self, _level: LogLevel, _text: &str) {}
    fn info(&self) -> Value {
        Value::Null
    }
    fn env(&self, _name: &str) -> Option<Value> {
        None
    }
    fn config(&self, _id: &str) -> Option<Value> {
        None
    }
    fn credentials(&self) -> Value {
        Value::Null
    }
    fn context_get(&self, _: ContextScope, _: &str, _: &str) -> Result<Option<Value>, NodeError> {
        Ok(None)
    }
    fn context_set(&self, _: ContextScope, _: &str, _: &str, _: Option<Value>) -> Result<(), NodeError> {
        Ok(())
    }
    fn context_keys(&self, _scope: ContextScope, _store: &str) -> Vec<Str> {
        Vec::new()
    }
    fn spawn(&self, _task: FfiFuture<()>) {}
    fn sleep(&self, _ms: u64) -> HostFuture {
        HostFuture::new(Never)
    }
    fn dial(&self, _options: Value) -> HostFuture {
        HostFuture::new(Never)
    }
    fn attach(&self, _io: HostIo, _state: Value) -> Result<Str, NodeError> {
        Err(NodeError::new("no sessions here"))
    }
    fn session_send(&self, _id: &str, _value: Value) -> Queued {
        Queued::NoSession
    }
    fn session_broadcast(&self, _value: Value) -> u64 {
        0
    }
    fn session_count(&self) -> u64 {
        0
    }
    fn register_route(&self, _route: Value) -> Result<(), NodeError> {
        Ok(())
    }
    fn answer_upgrade(&self, _ticket: u64, _answer: Value) {}
    fn session_broadcast_except(&self, _value: Value, _except: &[&str]) -> u64 {
        0
    }
    fn metric(&self, _kind: MetricKind, _name: &str, _help: &str) -> Metric {
        Metric::new()
    }
    fn run_blocking(&self, _work: FfiFuture<()>, _place: WorkPlace) -> Result<(), NodeError> {
        Err(NodeError::new("no threads here"))
    }
}
