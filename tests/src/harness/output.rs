//! What a process writes, line by line, while it is being written.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One stream of output (standard output or standard error) of a process. Read by a thread of its own, so that the
/// process never waits for its reader.
pub struct Output {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Output {
    /// Starts to read `stream`.
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let to = Arc::clone(&shared);
        let reader = std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                to.state().lines.push(text);
                to.changed.notify_all();
                line.clear();
            }
            to.state().ended = true;
            to.changed.notify_all();
        });
        Self { shared, reader: Some(reader) }
    }

    /// Waits for a line, from line `from` on, that has all parts of `pattern`, split at `*`, in whatever order.
    /// `None` when the stream ends or the time is over before it comes.
    pub fn wait(&self, from: usize, pattern: &str, deadline: Duration) -> Option<(usize, String)> {
        let end = Instant::now() + deadline;
        let mut seen = from;
        let mut state = self.shared.state();
        loop {
            for (number, line) in state.lines.iter().enumerate().skip(seen) {
                if matches(line, pattern) {
                    return Some((number, line.clone()));
                }
            }
            seen = seen.max(state.lines.len());
            let left = end.checked_duration_since(Instant::now())?;
            if state.ended {
                return None;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.shared.state().lines.clone()
    }

    /// All lines so far, as one text.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// How many lines so far match `pattern`, see [`Output::wait`].
    pub fn count(&self, pattern: &str) -> usize {
        self.shared.state().lines.iter().filter(|line| matches(line, pattern)).count()
    }

    /// Waits until the process has closed the stream, and returns its text.
    pub fn finish(mut self) -> String {
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has already said so; what it read is still there.
            let _ = reader.join();
        }
        self.text()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `line` has all parts of `pattern`, split at `*`. In whatever order: tests are about what is said.
fn matches(line: &str, pattern: &str) -> bool {
    pattern.split('*').all(|part| line.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_parts_in_any_order() {
        assert!(matches("it broke node=n1 type=debug", "debug*n1*broke"));
        assert!(!matches("it broke node=n1", "debug*n1"));
        assert!(matches("anything", ""));
    }

    #[test]
    fn lines_are_found_while_the_stream_is_open_and_the_end_ends_the_wait() {
        let output = Output::of(&b"one\ntwo\nlast"[..]);
        assert_eq!(output.wait(0, "last", Duration::from_secs(5)), Some((2, "last".to_owned())));
        assert_eq!(output.wait(0, "never", Duration::from_secs(5)), None);
        assert_eq!(output.finish(), "one\ntwo\nlast");
    }
}
