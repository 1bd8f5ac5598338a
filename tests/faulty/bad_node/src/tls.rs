//! Thread-local values with destructors: what keeps a library in memory unless host and SDK take care.

use std::{cell::RefCell, fs::OpenOptions, io::Write as _, path::PathBuf};

use flowbay_sdk::prelude::*;

/// Ends with a line in a file.
struct Mark(Option<PathBuf>);

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(log) = &self.0
            && let Ok(mut log) = OpenOptions::new().create(true).append(true).open(log)
        {
            let _ = log.write_all(b"gone\n");
        }
    }
}

thread_local! {
    static MARK: RefCell<Mark> = const { RefCell::new(Mark(None)) };
}

/// Makes a thread-local value on each thread that runs it, and asks std for the thread, which makes another.
pub struct UsesTls {
    log: Option<PathBuf>,
}

#[derive(serde::Deserialize)]
pub struct UsesTlsConfig {
    log: Option<PathBuf>,
}

impl UsesTls {
    fn touch(&self) {
        MARK.with_borrow_mut(|mark| mark.0.clone_from(&self.log));
        std::hint::black_box(std::thread::current().id());
    }
}

#[node("uses-tls", inputs = 1, outputs = 1)]
impl Node for UsesTls {
    type Config = UsesTlsConfig;

    fn new(config: UsesTlsConfig, _ctx: &Ctx) -> Result<Self, Error> {
        let node = UsesTls { log: config.log };
        node.touch();
        Ok(node)
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        self.touch();
        ctx.send(msg);
        Ok(())
    }
}

/// While it is created, makes a thread of its own that makes a thread-local value, and waits for its end.
pub struct MakesThread;

#[node("makes-thread", inputs = 1, outputs = 1)]
impl Node for MakesThread {
    type Config = UsesTlsConfig;

    fn new(config: UsesTlsConfig, _ctx: &Ctx) -> Result<Self, Error> {
        let user = UsesTls { log: config.log };
        std::thread::spawn(move || user.touch()).join().map_err(|_| Error::new("the thread panicked"))?;
        Ok(MakesThread)
    }
}
