//! Nodes whose work is on other threads than those that run nodes. Each touches thread-local values there, which must
//! not keep the library in memory.
//!
//! | type | configuration | what it does |
//! |---|---|---|
//! | `blocks` | `ms`, `file` | on a thread for blocking work: sleeps so long, reads the file, panics for the payload `panic`; sends the message on with `thread`: where that was, and the file's text as payload. Any number at a time |
//! | `blocks-in-run` | `ms` | its own task blocks for so long, on such a thread |
//! | `keeps-its-thread` | `ms` | blocks the thread that gives it a message for so long; the wrong way to do it |
//! | `on-tokio` | | sends each payload through a socket of tokio's and back, with a timer and blocking work of tokio's; its own task is an interval of tokio's |
//! | `stuck-on-tokio` | `ms` | a task of its runtime blocks for so long when it gets a message, which it sends on at once |

#![forbid(unsafe_code)]

mod blocking;
mod on_tokio;

use std::cell::RefCell;

use blocking::{Blocks, BlocksInRun, KeepsItsThread};
use flowbay_sdk::{export_plugin, lenient};
use on_tokio::{OnTokio, StuckOnTokio};

export_plugin!(Blocks, BlocksInRun, KeepsItsThread, OnTokio, StuckOnTokio);

/// What most of the types are configured with.
#[derive(serde::Deserialize)]
pub struct MsConfig {
    #[serde(default, deserialize_with = "lenient::number")]
    ms: Option<f64>,
    file: Option<std::path::PathBuf>,
}

impl MsConfig {
    fn time(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.ms.unwrap_or_default() as u64)
    }
}

/// Makes a thread-local value with a destructor on this thread, and has std make another.
fn touch_thread_locals() -> String {
    thread_local! {
        static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
    }
    TEXT.with_borrow_mut(|text| text.push('x'));
    std::hint::black_box(std::thread::current().id());
    // The name that the system has: std does not know it of threads that it has not made.
    std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default().trim().to_owned()
}
