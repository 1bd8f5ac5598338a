//! Tests of a built plugin in the real host.

mod built;
mod http;
mod output;

use std::{
    collections::HashMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub use http::Reply;
pub use output::Shown;

use output::Output;

/// How long is waited for anything that a host should do: long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The variable that names the host's program.
const PROGRAM_VARIABLE: &str = "FLOWBAY_BIN";

/// The real host as a child process, with the plugin under test and a flow: for integration tests, in the folder
/// `tests` of the plugin's crate. Killed, and its folder removed, when dropped.
///
/// The host is the program that `FLOWBAY_BIN` names, or else `flowbay` on the `PATH`; it brings its own plugins, so that
/// `inject` and `debug` nodes are there. The plugin is the crate that is being tested: `cargo build` makes it, with the
/// profile of the test, because `cargo test` makes no `cdylib`, and what an earlier build has left may be out of date.
///
/// Whatever does not come within 30 s fails the test, with all that the host has written in the message.
///
/// ```no_run
/// use flowbay_sdk::testing::HostProcess;
///
/// #[test]
/// fn the_flow_shows_its_text_in_lower_case() {
///     // Where there is no host, this says so, and the test ends.
///     if !HostProcess::is_there() {
///         return;
///     }
///     # let flow = "";
///     # let _ = r#"
///     let flow = include_str!("../flow.json");
///     # "#;
///     let host = HostProcess::run(flow);
///     host.inject("the-id-of-the-inject-node");
///     assert_eq!(host.next_debug("result").value, "\"hello\"");
/// }
/// ```
pub struct HostProcess {
    child: Child,
    address: SocketAddr,
    log: Output,
    output: Output,
    /// How many values of each debug node have been asked for.
    asked: Mutex<HashMap<String, usize>>,
    // Last, so that the process is gone before its folder goes.
    folder: Folder,
}

/// What a host is started with.
#[derive(Debug, Clone)]
pub struct HostSetup {
    flow: String,
    plugins: Vec<PathBuf>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// A host that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its log.
    pub log: String,
    /// What it wrote to standard output.
    pub output: String,
}

impl HostProcess {
    /// Whether there is a host to run; if not, a line on standard error says what is missing. A test that cannot do
    /// without one leaves this out: then it fails.
    pub fn is_there() -> bool {
        let there = program().is_some();
        if !there {
            eprintln!("skipped: there is no host; set {PROGRAM_VARIABLE}, or put flowbay on the PATH");
        }
        there
    }

    /// Runs the flow file with this text, and returns when its nodes have begun.
    ///
    /// # Panics
    /// They do not, or the plugin cannot be built.
    #[track_caller]
    pub fn run(flow: &str) -> Self {
        Self::setup(flow).start()
    }

    /// A host that is not started yet, for the flow file with this text.
    #[must_use]
    pub fn setup(flow: &str) -> HostSetup {
        HostSetup { flow: flow.to_owned(), plugins: Vec::new(), arguments: Vec::new(), variables: Vec::new() }
    }

    /// Where its HTTP server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its working directory, with `flows.json` in it and a folder `plugins`.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Presses the button of an inject node.
    ///
    /// # Panics
    /// The host refuses.
    #[track_caller]
    pub fn inject(&self, id: &str) {
        let reply = self.request("POST", &format!("/inject/{id}"), "");
        assert_eq!(reply.status, 200, "inject {id}: {}\n{}", reply.body, self.written());
    }

    /// Sends an HTTP request and returns the answer.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: &str) -> Reply {
        http::request(self.address, method, path, body, PATIENCE)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.written()))
    }

    /// Waits for the next value that a debug node shows: the first at the first call, the second at the second. The node
    /// is meant by its name, or by its id when it has no name.
    ///
    /// # Panics
    /// It shows none.
    #[track_caller]
    pub fn next_debug(&self, name: &str) -> Shown {
        let number = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let count = asked.entry(name.to_owned()).or_default();
            *count += 1;
            *count - 1
        };
        let what = format!("value number {} of the debug node {name}", number + 1);
        self.awaited(&what, self.output.wait(PATIENCE, |lines| output::shown(lines, name).nth(number)))
    }

    /// Waits for a line of the log in which this text stands, and returns it.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn wait_log(&self, text: &str) -> String {
        self.awaited(
            &format!("{text:?} in the log"),
            self.log.wait(PATIENCE, |lines| output::line(lines, text)),
        )
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// What it has written to standard output so far.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Asks the host to stop, as Ctrl-C does, and waits until it has.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn stop(mut self) -> Ended {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "the host is gone\n{}", self.written());
        let status = self.exit(PATIENCE);
        let status = self.awaited("the end of the host", status);
        Ended { code: status.code(), log: self.log.finished(), output: self.output.finished() }
    }

    fn exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
                _ => return None,
            }
        }
    }

    #[track_caller]
    fn awaited<T>(&self, what: &str, found: Option<T>) -> T {
        found.unwrap_or_else(|| panic!("not there: {what}\n{}", self.written()))
    }

    /// All that it has written, for the message of a failure.
    fn written(&self) -> String {
        written(&self.log, &self.output)
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        // Both fail only when it is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.written());
        }
    }
}

impl HostSetup {
    /// With one more plugin, besides the one under test and those that come with the host.
    #[must_use]
    pub fn plugin(mut self, library: impl Into<PathBuf>) -> Self {
        self.plugins.push(library.into());
        self
    }

    /// With a setting, by its name in `flowbay.toml`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([format!("--{}", name.replace('_', "-")), value.to_owned()]);
        self
    }

    /// With a variable in the host's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the host and returns when the nodes of the flow have begun.
    ///
    /// # Panics
    /// They do not, there is no host, or the plugin cannot be built.
    #[track_caller]
    pub fn start(&self) -> HostProcess {
        let Some(program) = program() else {
            panic!("there is no host: set {PROGRAM_VARIABLE}, or put flowbay on the PATH")
        };
        let library = built::plugin_under_test().unwrap_or_else(|error| panic!("{error}"));
        let folder = Folder::new();
        let plugins = folder.0.join("plugins");
        let prepared = fs::create_dir(&plugins)
            .and_then(|()| fs::write(folder.0.join("flows.json"), &self.flow))
            .and_then(|()| {
                // Copies: what the host runs stays as it is when something is built again.
                std::iter::once(&library).chain(&self.plugins).try_for_each(|file| {
                    fs::copy(file, plugins.join(file.file_name().unwrap_or_default())).map(drop)
                })
            });
        if let Err(error) = prepared {
            panic!("the folder of the host cannot be filled: {error}");
        }
        let mut command = Command::new(&program);
        // Nothing from the settings of whoever runs the tests.
        for (name, _) in env::vars_os() {
            let known = name.to_string_lossy();
            if ["FLOWBAY_", "NODE_RED_", "RUST_"].iter().any(|prefix| known.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command
            .args(["run", "flows.json", "--port", "0", "--plugins", "plugins"])
            .args(&self.arguments)
            .current_dir(&folder.0)
            // What a host that is killed leaves behind goes with its folder.
            .env("TMPDIR", &folder.0)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{} cannot be run: {error}", program.display()));
        let output = Output::of(child.stdout.take());
        let log = Output::of(child.stderr.take());
        let begun = log.wait(PATIENCE, |lines| {
            // A flow without its node types waits for them, perhaps for ever.
            if output::line(lines, "Waiting for missing types").is_some() {
                return output::line(lines, "  - ").map(|_| None);
            }
            output::line(lines, "started flows")?;
            output::line(lines, "listening on ").map(|line| output::address(&line))
        });
        let begun = begun.flatten();
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = begun.unwrap_or(unspecified);
        let host = HostProcess { child, address, log, output, asked: Mutex::default(), folder };
        host.awaited("a host whose nodes have begun", begun);
        host
    }
}

/// The host's program.
fn program() -> Option<PathBuf> {
    if let Some(named) = env::var_os(PROGRAM_VARIABLE).filter(|named| !named.is_empty()) {
        // From here, not from the folder that it will be run in.
        return Some(std::path::absolute(&named).unwrap_or_else(|_| named.into()));
    }
    let path = env::var_os("PATH")?;
    let name = format!("flowbay{}", env::consts::EXE_SUFFIX);
    env::split_paths(&path).map(|folder| folder.join(&name)).find(|file| file.is_file())
}

fn written(log: &Output, output: &Output) -> String {
    format!("---- log of the host ----\n{}---- its output ----\n{}----", log.text(), output.text())
}

/// A folder of one host's own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("flowbay-test-{}-{number}", std::process::id()));
        // What an earlier process of this number has left.
        let _ = fs::remove_dir_all(&path);
        if let Err(error) = fs::create_dir_all(&path) {
            panic!("{} cannot be made: {error}", path.display());
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system, which empties such folders.
        let _ = fs::remove_dir_all(&self.0);
    }
}
