//! What a process writes, line by line.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What a debug node shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shown {
    /// The property and, before it, the topic of the message if it has one: `msg.payload`.
    pub property: String,
    /// The type of the value: `string[5]`, `number`, `Object`, `undefined`, …
    pub format: String,
    /// The value: JSON for strings, arrays and objects. Of a string with several lines, the first.
    pub value: String,
}

/// The lines so far of one of a process's two outputs.
pub struct Output(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Output {
    /// Reads on a thread of its own, to the end.
    pub fn of(from: Option<impl Read + Send + 'static>) -> Self {
        let shared = Arc::new(Shared::default());
        let filled = shared.clone();
        std::thread::spawn(move || {
            let mut lines = from.map(BufReader::new);
            let mut line = Vec::new();
            while let Some(Ok(1..)) = lines.as_mut().map(|lines| lines.read_until(b'\n', &mut line)) {
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                filled.lock().lines.push(text);
                filled.more.notify_all();
                line.clear();
            }
            filled.lock().ended = true;
            filled.more.notify_all();
        });
        Self(shared)
    }

    /// Waits until `look` finds something in the lines; `None` when they have ended, or time is up.
    pub fn wait<T>(&self, patience: Duration, mut look: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut state = self.0.lock();
        loop {
            if let Some(found) = look(&state.lines) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.0.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The lines so far.
    pub fn text(&self) -> String {
        self.0.lock().lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// All lines of a process that has ended.
    pub fn finished(&self) -> String {
        // A process that it has started itself may hold the pipe open.
        self.wait(Duration::from_secs(1), |_| None::<()>);
        self.text()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first line in which this text stands.
pub fn line(lines: &[String], text: &str) -> Option<String> {
    lines.iter().find(|line| line.contains(text)).cloned()
}

/// What the debug node of that name has shown, in order: a line with the name, property and type, then the value.
pub fn shown(lines: &[String], name: &str) -> impl Iterator<Item = Shown> {
    let head = format!(" [debug:{name}] ");
    lines.windows(2).filter_map(move |pair| {
        let (_, what) = pair[0].split_once(&head)?;
        let (property, format) = what.rsplit_once(" : ")?;
        Some(Shown { property: property.to_owned(), format: format.to_owned(), value: pair[1].clone() })
    })
}

/// The address behind `http://` or `https://` in a line of the log.
pub fn address(line: &str) -> Option<SocketAddr> {
    let rest = line.split("://").nth(1)?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_debug_node_shows_is_its_property_type_and_value() {
        let text = "2026 [debug:a] msg.payload : string[5]\n\"hello\"\n2026 [debug:b] t : msg : Object\n{\"x\":1}\n\
                    2026 [debug:a] msg.payload : number\n7\n2026 [debug:a] msg.payload : number";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let values: Vec<String> = shown(&lines, "a").map(|shown| shown.value).collect();
        // The value of the last has not been written yet.
        assert_eq!(values, ["\"hello\"", "7"]);
        let b = shown(&lines, "b").next().map(|shown| (shown.property, shown.format));
        assert_eq!(b, Some(("t : msg".to_owned(), "Object".to_owned())));
        assert_eq!(shown(&lines, "c").count(), 0);
    }

    #[test]
    fn the_address_is_behind_the_scheme() {
        assert_eq!(address("INFO listening on http://127.0.0.1:80"), "127.0.0.1:80".parse().ok());
        assert_eq!(address("INFO listening on https://[::1]:80 (TLS)"), "[::1]:80".parse().ok());
        assert_eq!(address("INFO nothing"), None);
    }

    #[test]
    fn lines_are_waited_for_until_the_end() {
        let output = Output::of(Some(&b"one\ntwo\nthree"[..]));
        assert_eq!(
            output.wait(Duration::from_secs(30), |lines| line(lines, "thr")).as_deref(),
            Some("three")
        );
        assert_eq!(output.wait(Duration::from_secs(30), |lines| line(lines, "four")), None);
        assert_eq!(output.finished(), "one\ntwo\nthree\n");
    }
}
