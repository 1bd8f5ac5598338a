//! Running nodes on the thread whose poll gave them something to do.
//!
//! `send` only puts messages into mailboxes and the nodes on this thread's run list; when the poll of plugin code that
//! sent them has returned, the host runs the list, first come first served. No task switch per hop, no recursion: a
//! chain of a hundred nodes is a loop here, and a flow that loops is one too. After a budget of messages the rest of
//! the list goes on in a task of its own, so that one busy connection cannot keep a thread for itself.

use std::{cell::RefCell, collections::VecDeque, sync::Arc};

use super::cell::NodeCell;
use crate::plugin::with_task;

thread_local! {
    /// Nodes to run when the current poll has returned; `None` outside of a scope.
    static RUN_LIST: RefCell<Option<VecDeque<Arc<NodeCell>>>> = const { RefCell::new(None) };
}

/// The task that plugin code runs in when it is called and not polled: a future's first poll then is with a waker that
/// does nothing, and each is polled again in a task of its own.
pub const NO_TASK: u64 = 0;

/// Messages one node is given before the next on the list has its turn.
const TURN: usize = 32;

/// Puts a node with a message waiting on this thread's run list, or, outside of a scope, into a task.
pub fn schedule(cell: Arc<NodeCell>) {
    let outside = RUN_LIST.with(|list| match &mut *list.borrow_mut() {
        Some(list) => {
            list.push_back(cell);
            None
        }
        None => Some(cell),
    });
    if let Some(cell) = outside {
        continue_in_task(VecDeque::from([cell]));
    }
}

/// Runs `poll`, then the nodes that it gave something to do. A scope inside a scope is part of it.
pub fn scope<R>(poll: impl FnOnce() -> R) -> R {
    let entered = RUN_LIST.with(|list| {
        let mut list = list.borrow_mut();
        let entered = list.is_none();
        if entered {
            *list = Some(VecDeque::new());
        }
        entered
    });
    if !entered {
        return poll();
    }
    let leave = Leave;
    let result = poll();
    run();
    drop(leave);
    result
}

/// Ends the scope, also when the poll unwinds; what is left on the list goes on in a task.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(left) = RUN_LIST.with(|list| list.borrow_mut().take())
            && !left.is_empty()
        {
            continue_in_task(left);
        }
    }
}

fn run() {
    let mut budget = None;
    loop {
        let next = RUN_LIST.with(|list| list.borrow_mut().as_mut().and_then(VecDeque::pop_front));
        let Some(cell) = next else { return };
        let budget = budget.get_or_insert_with(|| cell.shared().settings.drain_budget);
        let turn = TURN.min(*budget);
        let (ran, more) = with_task(NO_TASK, || cell.run(turn));
        *budget -= ran;
        if more {
            RUN_LIST.with(|list| list.borrow_mut().as_mut().map(|list| list.push_back(cell)));
        }
        if *budget == 0 {
            return;
        }
    }
}

fn continue_in_task(list: VecDeque<Arc<NodeCell>>) {
    let Some(first) = list.front() else { return };
    first.shared().tokio.clone().spawn(async move {
        let mut list = Some(list);
        loop {
            // Inside `scope` the list is this thread's; what the budget leaves comes back here instead of into
            // another task.
            let left = resume(list.take().unwrap_or_default());
            if left.is_empty() {
                return;
            }
            list = Some(left);
            tokio::task::yield_now().await;
        }
    });
}

fn resume(list: VecDeque<Arc<NodeCell>>) -> VecDeque<Arc<NodeCell>> {
    RUN_LIST.with(|own| *own.borrow_mut() = Some(list));
    let leave = Leave;
    run();
    let left = RUN_LIST.with(|own| own.borrow_mut().take()).unwrap_or_default();
    drop(leave);
    left
}
