//! Debug output on standard output, in Node-RED's order: name, topic, property and type, value.

use std::{
    fmt::Write as _,
    io::Write as _,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

use flowbay_abi::Value;
use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime, SystemTime},
};

/// Lines that may wait for a terminal that does not read.
const WAITING_LINES: usize = 1_024;
/// Characters of a value that are shown: Node-RED's `debugMaxLength`.
const MAX_SHOWN: usize = 1_000;

/// The writer. A thread of its own does the writing, so that a terminal that is stopped, or a pipe that nobody reads,
/// never stops a node; lines that find the queue full are counted and dropped.
pub struct Console {
    lines: SyncSender<Job>,
    dropped: AtomicU64,
}

enum Job {
    Write(String),
    /// Says when everything before it is written.
    Report(Sender<()>),
}

impl Console {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start() -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING_LINES);
        std::thread::Builder::new().name("console".into()).spawn(move || write_lines(&waiting))?;
        Ok(Self { lines, dropped: AtomicU64::new(0) })
    }

    /// Prints what a debug node shows; for the shape of `event` see `flowbay_abi::shapes`.
    pub fn print(&self, node_id: &str, event: &Value) {
        let mut line = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut line));
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = write!(line, " ({dropped} debug messages were dropped: the output does not keep up)");
        }
        line.push_str(&layout(node_id, event));
        line.push('\n');
        if self.lines.try_send(Job::Write(line)).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
    }

    /// Waits until what was printed is written, or `patience` has passed: for the end of the process.
    pub fn flush(&self, patience: Duration) {
        let (written, wait) = channel();
        // A queue that is full belongs to an output that nobody reads.
        if self.lines.try_send(Job::Report(written)).is_ok() {
            let _ = wait.recv_timeout(patience);
        }
    }
}

fn write_lines(waiting: &Receiver<Job>) {
    let mut out = std::io::stdout();
    while let Ok(job) = waiting.recv() {
        match job {
            // A closed standard output is no reason to stop the flows.
            Job::Write(line) if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() => return,
            Job::Write(_) => {}
            // Whoever asked may have given up waiting.
            Job::Report(written) => drop(written.send(())),
        }
    }
}

fn layout(node_id: &str, event: &Value) -> String {
    let text = |key| event.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let value = event.get("value").unwrap_or(&Value::Null);
    let absent = event.get("absent").and_then(Value::as_bool) == Some(true);
    let mut line = format!(" [debug:{}] ", text("name").unwrap_or(node_id));
    if let Some(topic) = event.get("topic").filter(|topic| !matches!(topic, Value::Null)) {
        let topic = topic.to_js_string();
        if !topic.is_empty() {
            let _ = write!(line, "{} : ", shown(&topic));
        }
    }
    let property = match text("property") {
        Some(property) => format!("msg.{property}"),
        None => "msg".to_owned(),
    };
    let _ = write!(
        line,
        "{property} : {}\n{}",
        if absent { "undefined".to_owned() } else { format_of(value) },
        if absent { "undefined".to_owned() } else { inspected(value) }
    );
    line
}

/// The type as the debug sidebar names it.
fn format_of(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Int(_) | Value::Float(_) => "number".into(),
        // JavaScript counts UTF-16 units.
        Value::Str(text) => format!("string[{}]", text.encode_utf16().count()),
        Value::Bytes(bytes) => format!("buffer[{}]", bytes.len()),
        Value::Array(items) => format!("array[{}]", items.len()),
        Value::Object(_) => "Object".into(),
        Value::Handle(_) => "handle".into(),
    }
}

fn inspected(value: &Value) -> String {
    match value {
        Value::Str(text) => format!("\"{}\"", shown(text)),
        Value::Bytes(bytes) => {
            let mut hex = String::new();
            for byte in bytes.iter().take(MAX_SHOWN / 2) {
                let _ = write!(hex, "{byte:02x}");
            }
            if bytes.len() > MAX_SHOWN / 2 {
                hex.push_str("...");
            }
            hex
        }
        Value::Array(_) | Value::Object(_) => match value.to_json() {
            Ok(json) => shown(&json),
            Err(error) => format!("({error})"),
        },
        other => other.to_js_string(),
    }
}

/// `text`, cut to what is shown, with nothing in it that could steer a terminal.
fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_SHOWN)
        .flat_map(|c| {
            let control = c.is_control() && !matches!(c, '\n' | '\t');
            let escaped = control.then(|| c.escape_default());
            let plain = (!control).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowbay_abi::Object;

    fn event(value: Value) -> Value {
        Value::Object(Object::from_iter([
            ("name", Value::from("debug 5")),
            ("topic", Value::from("t")),
            ("property", Value::from("payload")),
            ("value", value),
        ]))
    }

    #[test]
    fn the_layout_is_name_topic_property_type_and_value() {
        for (value, expected) in [
            (Value::from("hi"), " [debug:debug 5] t : msg.payload : string[2]\n\"hi\""),
            (Value::from(7), " [debug:debug 5] t : msg.payload : number\n7"),
            (Value::Null, " [debug:debug 5] t : msg.payload : null\nnull"),
            (Value::from(vec![Value::from(1)]), " [debug:debug 5] t : msg.payload : array[1]\n[1]"),
        ] {
            assert_eq!(layout("id", &event(value)), expected);
        }
    }

    #[test]
    fn a_value_cannot_steer_the_terminal_or_flood_it() {
        let text = layout("id", &event(Value::from("\u{1b}[2J")));
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(layout("id", &event(Value::from("x".repeat(5_000)))).len() < 1_200);
    }
}
