//! The host: the real binary as a child process, in a folder of its own.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{
    Client, Flow, Output, PATIENCE, Reply, eventually, eventually_within, flows_folder, host_copy, link,
    plugin, request, scratch_folder,
};

/// What the host logs when its server accepts connections; the address follows.
const LISTENING: &str = "listening on http";

/// What the host logs when every node exists.
const STARTED: &str = "started flows";

/// How often a host is started anew because another process took its port between the search and the start.
const PORT_ATTEMPTS: u32 = 5;

/// What a host is to be started with.
#[derive(Debug, Clone)]
pub struct HostBuilder {
    flow: String,
    plugins: Vec<PathBuf>,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    settings_file: String,
    files: Vec<(String, String)>,
    names_plugin_folder: bool,
    program: PathBuf,
}

/// A host that runs; killed when dropped.
pub struct Host {
    child: Child,
    address: Option<SocketAddr>,
    stdout: Output,
    stderr: Output,
    // Last, so that the process is gone before its folder goes.
    folder: tempfile::TempDir,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl HostBuilder {
    /// Runs this flow.
    #[must_use]
    pub fn flow(self, flow: &Flow) -> Self {
        self.flow_text(flow.to_json())
    }

    /// Runs the flow file with this text. `{{PORT}}` in it becomes the host's own port.
    #[must_use]
    pub fn flow_text(mut self, text: impl Into<String>) -> Self {
        self.flow = text.into();
        self
    }

    /// Runs an example flow as it is, except that it meets itself on a free port instead of 1880.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn example(self, file: &str) -> Self {
        let file = flows_folder().join(file);
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.flow_text(text.replace("localhost:1880", "localhost:{{PORT}}"))
    }

    /// With no plugin but those named after this.
    #[must_use]
    pub fn no_plugins(mut self) -> Self {
        self.plugins.clear();
        self
    }

    /// With one more plugin: `core` or `websocket` (which are there from the start), or a package in `tests/faulty`.
    #[must_use]
    pub fn plugin(self, name: &str) -> Self {
        self.plugin_file(&plugin(name))
    }

    /// With a copy of one more file in its plugin folder.
    #[must_use]
    pub fn plugin_file(mut self, file: &Path) -> Self {
        self.plugins.push(file.to_owned());
        self
    }

    /// With a setting, by its name in `flowbay.toml`.
    #[must_use]
    pub fn setting(self, name: &str, value: impl ToString) -> Self {
        let name = format!("--{}", name.replace('_', "-"));
        self.argument(name).argument(value.to_string())
    }

    /// With one more argument on the command line.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// With this text in `flowbay.toml` in its working directory.
    #[must_use]
    pub fn settings_file(mut self, text: &str) -> Self {
        text.clone_into(&mut self.settings_file);
        self
    }

    /// With one more file in its working directory.
    #[must_use]
    pub fn file(mut self, name: &str, text: impl Into<String>) -> Self {
        self.files.push((name.to_owned(), text.into()));
        self
    }

    /// Without its own plugin folder on the command line.
    #[must_use]
    pub fn plugin_folder_from_environment(mut self) -> Self {
        self.names_plugin_folder = false;
        self
    }

    /// With another file as the host's binary.
    #[must_use]
    pub fn program(mut self, file: &Path) -> Self {
        file.clone_into(&mut self.program);
        self
    }

    /// Starts the host and waits until its flows have started.
    ///
    /// # Panics
    /// When they do not.
    pub fn start(self) -> Host {
        let host = self.start_without_flows();
        host.wait_log(STARTED);
        host
    }

    /// Starts the host and waits until its server listens, which is all there is when its flows cannot start yet.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_without_flows(self) -> Host {
        let needs_port = self.flow.contains("{{PORT}}");
        for _ in 0..PORT_ATTEMPTS {
            let port = if needs_port { free_port() } else { 0 };
            let mut host = self.spawn(port);
            let Some((_, line)) = host.stderr.wait(0, LISTENING, PATIENCE) else {
                if needs_port && host.stderr.count("in use") > 0 {
                    continue;
                }
                let code = eventually_within(Duration::from_secs(1), || host.child.try_wait().ok().flatten());
                panic!("the host does not listen (exit: {code:?})\n{}", host.logs());
            };
            host.address = Some(address_in(&line).unwrap_or_else(|| panic!("no address in {line:?}")));
            return host;
        }
        panic!("no free port in {PORT_ATTEMPTS} attempts")
    }

    /// Starts the host on a port and waits for nothing.
    fn spawn(&self, port: u16) -> Host {
        let folder = scratch_folder();
        let plugins = folder.path().join("plugins");
        std::fs::create_dir(&plugins).expect("a folder can be made");
        for file in &self.plugins {
            link(file, &plugins);
        }
        let flow = self.flow.replace("{{PORT}}", &port.to_string());
        std::fs::write(folder.path().join("flows.json"), flow).expect("a file can be written");
        if !self.settings_file.is_empty() {
            std::fs::write(folder.path().join("flowbay.toml"), &self.settings_file)
                .expect("a file can be written");
        }
        for (name, text) in &self.files {
            std::fs::write(folder.path().join(name), text).expect("a file can be written");
        }
        let mut command = command(&self.program, folder.path());
        command.args(["run", "flows.json"]);
        if !self.says_port() {
            command.args(["-p", &port.to_string()]);
        }
        if self.names_plugin_folder {
            command.arg("--plugins").arg(&plugins);
        }
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start the host: {error}"));
        let stdout = Output::of(child.stdout.take().expect("the output is a pipe"));
        let stderr = Output::of(child.stderr.take().expect("the output is a pipe"));
        Host { child, address: None, stdout, stderr, folder }
    }

    /// Whether the test decides about the port.
    fn says_port(&self) -> bool {
        self.arguments.iter().any(|argument| argument == "--port")
            || self.environment.iter().any(|(name, _)| name == "FLOWBAY_PORT")
            || self.settings_file.contains("port")
    }
}

impl Host {
    /// A host with the core and websocket plugins and no flow yet.
    pub fn builder() -> HostBuilder {
        HostBuilder {
            flow: "[]".to_owned(),
            plugins: vec![plugin("core"), plugin("websocket")],
            arguments: Vec::new(),
            environment: Vec::new(),
            settings_file: String::new(),
            files: Vec::new(),
            names_plugin_folder: true,
            program: host_copy(),
        }
    }

    /// A host with the core and websocket plugins that runs `flow`.
    ///
    /// # Panics
    /// When the flow does not start.
    pub fn run(flow: &Flow) -> Host {
        Self::builder().flow(flow).start()
    }

    /// Where its server listens.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("a host that was started listens")
    }

    /// Its working directory, with `flows.json` and the folder `plugins` in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its plugin folder.
    pub fn plugin_folder(&self) -> PathBuf {
        self.folder().join("plugins")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Connects to a WebSocket path.
    ///
    /// # Panics
    /// When it refuses.
    pub fn connect(&self, path: &str) -> Client {
        Client::connect(self.address(), path)
    }

    /// The status with which it refuses to open a WebSocket on a path.
    ///
    /// # Panics
    /// When it does not refuse.
    pub fn connect_refused(&self, path: &str) -> u16 {
        match Client::connect_with(self.address(), path, &[]) {
            Err(refusal) => refusal.status,
            Ok(_) => panic!("{path} is open\n{}", self.logs()),
        }
    }

    /// Connects to the way in and out that [`Flow::io`] makes.
    ///
    /// # Panics
    /// When the flow has none.
    pub fn io(&self) -> Client {
        self.connect("/io")
    }

    /// Sends a GET request.
    pub fn get(&self, path: &str) -> Reply {
        request(self.address(), "GET", path, &[], "")
    }

    /// Sends a POST request without a body.
    pub fn post(&self, path: &str) -> Reply {
        request(self.address(), "POST", path, &[], "")
    }

    /// Presses the button of an inject node.
    ///
    /// # Panics
    /// When the host refuses.
    pub fn inject(&self, id: &str) {
        let reply = self.post(&format!("/inject/{id}"));
        assert_eq!(reply.status, 200, "inject {id}: {reply:?}\n{}", self.logs());
    }

    /// Waits for a line in the log that has all parts of `pattern`, split at `*`, in whatever order, and returns it.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_log(&self, pattern: &str) -> String {
        self.found("log", pattern, &self.stderr)
    }

    /// As [`Host::wait_log`], for standard output: what debug nodes show.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_stdout(&self, pattern: &str) -> String {
        self.found("standard output", pattern, &self.stdout)
    }

    /// What the debug node of this name (its id, when it has none) shows first: the line with topic, property and
    /// type, and the line with the value.
    ///
    /// # Panics
    /// When it shows nothing.
    pub fn wait_debug(&self, name: &str) -> (String, String) {
        let head = format!("[debug:{name}] ");
        let Some((number, line)) = self.stdout.wait(0, &head, PATIENCE) else {
            panic!("the debug node {name} shows nothing\n{}", self.logs())
        };
        let Some((_, value)) = self.stdout.wait(number + 1, "", PATIENCE) else {
            panic!("the debug node {name} shows no value\n{}", self.logs())
        };
        (line.split(&head).nth(1).unwrap_or_default().to_owned(), value)
    }

    fn found(&self, place: &str, pattern: &str, output: &Output) -> String {
        match output.wait(0, pattern, PATIENCE) {
            Some((_, line)) => line,
            None => panic!("no line {pattern:?} in the {place}\n{}", self.logs()),
        }
    }

    /// How many lines of the log match `pattern` so far.
    pub fn count_log(&self, pattern: &str) -> usize {
        self.stderr.count(pattern)
    }

    /// How many lines of standard output match `pattern` so far.
    pub fn count_stdout(&self, pattern: &str) -> usize {
        self.stdout.count(pattern)
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// All that the host has written, for the message of a failure.
    pub fn logs(&self) -> String {
        format!(
            "---- standard error of the host ----\n{}\n---- standard output ----\n{}\n----",
            self.stderr.text(),
            self.stdout.text()
        )
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the host is there to get a signal");
    }

    /// Asks the host to stop (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(self) -> Finished {
        self.signal(Signal::TERM);
        self.wait_exit()
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_exit(mut self) -> Finished {
        let status = eventually_within(PATIENCE, || self.child.try_wait().ok().flatten());
        let Some(status) = status else { panic!("the host does not exit\n{}", self.logs()) };
        // The pipes end with the process; what was in them must be read first.
        self.stdout.wait(usize::MAX, "", Duration::from_secs(1));
        self.stderr.wait(usize::MAX, "", Duration::from_secs(1));
        finished(status, self.stdout.text(), self.stderr.text())
    }

    /// Waits until `look` finds something; a failure shows the log.
    ///
    /// # Panics
    /// When it finds nothing within [`PATIENCE`].
    pub fn eventually<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        eventually_within(PATIENCE, look).unwrap_or_else(|| panic!("not in time: {what}\n{}", self.logs()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Both fail only when the process is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// Runs the binary with these arguments in `folder` until it ends.
///
/// # Panics
/// When it does not end.
pub fn flowbay(folder: &Path, arguments: &[&str]) -> Finished {
    flowbay_given(folder, arguments, "")
}

/// As [`flowbay`], with a text on its standard input.
///
/// # Panics
/// When it does not end.
pub fn flowbay_given(folder: &Path, arguments: &[&str], input: &str) -> Finished {
    let mut command = command(&host_copy(), folder);
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.args(arguments).spawn().expect("the host can be started");
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever wants none of it may close it.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = Output::of(child.stdout.take().expect("the output is a pipe"));
    let stderr = Output::of(child.stderr.take().expect("the output is a pipe"));
    let status = eventually_within(PATIENCE, || child.try_wait().ok().flatten()).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("flowbay {arguments:?} does not end\n{}\n{}", stderr.text(), stdout.text())
    });
    finished(status, stdout.finish(), stderr.finish())
}

fn finished(status: ExitStatus, stdout: String, stderr: String) -> Finished {
    Finished { code: status.code(), stdout, stderr }
}

/// The host, with nothing from the settings of whoever runs the tests.
fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // What a host that is killed leaves behind goes with its folder.
    command.env("TMPDIR", folder);
    for (name, _) in std::env::vars_os() {
        let known = name.to_string_lossy();
        let is_proxy = known.to_ascii_lowercase().ends_with("_proxy");
        let own = ["FLOWBAY_", "NODE_RED_", "RUST_"].iter().any(|prefix| known.starts_with(prefix));
        if own || is_proxy {
            command.env_remove(&name);
        }
    }
    // Only what the test puts into its folders, not what lies beside the binary.
    command.env("FLOWBAY_SHIPPED_PLUGINS", "false");
    command
}

/// The address behind `http://` or `https://` in a line of the log.
fn address_in(line: &str) -> Option<SocketAddr> {
    let rest = line.split("://").nth(1)?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "[].:".contains(c))).unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').parse().ok()
}

/// A port that nobody uses at the moment.
///
/// Below those that the system hands out by itself, so that no outgoing connection takes it
/// meanwhile; other test processes begin elsewhere.
///
/// # Panics
/// When all are taken.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    let start = (std::process::id().wrapping_mul(7_919) % u32::from(COUNT)) as u16;
    eventually("a free port", || {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    })
}
