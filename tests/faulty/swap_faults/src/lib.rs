//! A plugin whose builds differ in how they take part in a hot swap. What a build does stands in its version, where
//! tests change it in the library's bytes: as many different builds as they like, and none to compile.
//!
//! | version | what the build's `keeps` nodes do |
//! |---|---|
//! | `good` | everything right |
//! | `fails-in-restore` | refuse to be created from what their predecessor saved |
//! | `panics-in-restore` | panic instead |
//! | `hangs-in-restore` | block the thread for three seconds first |
//! | `slow-in-restore` | block the thread for a third of a second first |
//! | `fails-in-save` | cannot save |
//! | `panics-in-save` | panic instead |
//! | `forgets` | save nothing: they are stopped and started |
//!
//! | type | configuration | what it does |
//! |---|---|---|
//! | `keeps` | `ms` | passes messages on, after so many milliseconds, with `count` (how many there were, kept over swaps) and `build` |
//! | `optional-1` | | passes messages on; tests rename the type, and so drop it and add another |

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use flowbay_sdk::{lenient, prelude::*};

/// What this build does.
fn build() -> &'static str {
    // Not known to the compiler: the bytes in the file decide.
    let version = std::hint::black_box(env!("CARGO_PKG_VERSION"));
    version.split_once('-').map_or("", |(_, what)| what.trim_end_matches('-'))
}

/// Counts messages.
struct Keeps {
    count: AtomicI64,
    ms: u64,
}

#[derive(serde::Deserialize)]
struct KeepsConfig {
    #[serde(default, deserialize_with = "lenient::number")]
    ms: Option<f64>,
}

#[node("keeps", inputs = 1, outputs = 1)]
impl Node for Keeps {
    type Config = KeepsConfig;

    fn new(config: KeepsConfig, ctx: &Ctx) -> Result<Self, Error> {
        if ctx.restored().is_some() {
            match build() {
                "fails-in-restore" => return Err(Error::new("this build cannot restore")),
                "panics-in-restore" => panic!("this build panics while it restores"),
                "hangs-in-restore" => std::thread::sleep(Duration::from_secs(3)),
                "slow-in-restore" => std::thread::sleep(Duration::from_millis(333)),
                _ => {}
            }
        }
        let count = ctx.restored().and_then(Value::as_i64).unwrap_or(0);
        Ok(Keeps { count: AtomicI64::new(count), ms: config.ms.unwrap_or_default() as u64 })
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        if self.ms > 0 {
            ctx.sleep_ms(self.ms).await;
        }
        msg.set("count", self.count.fetch_add(1, Ordering::Relaxed) + 1);
        msg.set("build", build());
        ctx.send(msg);
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        match build() {
            "fails-in-save" => Err(Error::new("this build cannot save")),
            "panics-in-save" => panic!("this build panics while it saves"),
            "forgets" => Ok(None),
            _ => Ok(Some(self.count.load(Ordering::Relaxed).into())),
        }
    }
}

/// Passes messages on.
struct Optional;

#[node("optional-1", inputs = 1, outputs = 1)]
impl Node for Optional {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Optional)
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.send(msg);
        Ok(())
    }
}

export_plugin!(Keeps, Optional);
