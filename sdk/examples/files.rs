//! Work that blocks its thread, on threads of the host that are there for it.
//!
//! The node reads a text file and counts its lines. Try it: `sdk/examples/run files`.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use flowbay_sdk::{object, prelude::*};

/// What a message may make the node read.
const MAX_BYTES: u64 = 16 << 20;

struct CountLines;

// As many at a time as the host has threads for it (8 by default); the others wait for one.
#[node("count lines", category = "storage", inputs = 1, outputs = 1, concurrency = 4)]
impl Node for CountLines {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self)
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let path = msg.payload().as_str().ok_or_else(|| Error::new("the payload is no path"))?.to_owned();
        // What the closure works with it owns. The first `?` is for the work as such: it panicked, or too much waits for a
        // thread. The second is for what it returned.
        let text = ctx.blocking(move || read(path.as_ref())).await??;
        let longest = text.lines().map(str::len).max();
        msg.set("payload", object!({ "lines": text.lines().count(), "longest": longest }));
        ctx.send(msg);
        Ok(())
    }

    // Newer code takes over when the files in hand are read.
    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("{} has more than {MAX_BYTES} bytes", path.display())));
    }
    Ok(text)
}

export_plugin!(CountLines);

#[cfg(test)]
mod tests {
    use flowbay_sdk::{testing::TestNode, value};

    use super::*;

    #[test]
    fn lines_are_counted() {
        let mut node = TestNode::<CountLines>::new(value!({}));
        node.input(Msg::with_payload(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/files.json")));
        let expected = include_str!("files.json").lines().count();
        assert_eq!(node.next_sent().payload()["lines"], expected as i64);
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_of_its_message() {
        let mut node = TestNode::<CountLines>::new(value!({}));
        node.input(Msg::with_payload("/no/such/file"));
        let failure = &node.failures()[0];
        assert!(failure.text.contains("No such file") && failure.msg.is_some(), "{failure:?}");
    }
}
