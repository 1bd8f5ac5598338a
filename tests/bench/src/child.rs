//! Running a server as a child process: its port, its log, and its end.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use tempfile::TempDir;

use crate::connect::{self, ECHO_PATH};
use crate::error::Error;
use crate::proc::{CpuSample, Memory};

/// A server that does not echo after this long has failed to start, however busy the machine is.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// How closely the first possible handshake is met, and how little the waiting takes from the server.
const START_POLL: Duration = Duration::from_micros(500);
/// How long to wait for the log of a server that has ended; something it started may keep the log open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Log lines kept to explain a failure.
const LOG_LINES: usize = 20;

/// A running server. Dropping it kills the process and removes its folder.
pub struct Server {
    name: &'static str,
    child: Child,
    addr: SocketAddr,
    log: Log,
    times: StartTimes,
    /// Its working folder: empty but for its flow file, so that no settings file lies about.
    _folder: TempDir,
}

/// How long a start took, from just before the process was made.
#[derive(Clone, Copy, Debug)]
pub struct StartTimes {
    /// Until the line that says where it listens.
    pub logged: Duration,
    /// Until the first handshake at [`ECHO_PATH`] was complete.
    pub answered: Duration,
}

/// The last lines a server wrote to stderr.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Server {
    /// Starts `command` in `folder` and waits until it echoes. With `port` 0 the port is taken from its log;
    /// otherwise the handshake is tried from the start, so that its time does not depend on the log.
    ///
    /// # Errors
    /// The process cannot be made, ends, or does not accept a handshake in time; its log is in the error.
    pub fn start(
        name: &'static str,
        mut command: Command,
        folder: TempDir,
        port: u16,
    ) -> Result<Server, Error> {
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Measured as a user finds it: without this shell's settings.
        for (variable, _) in env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("FLOWBAY_") || text == "RUST_LOG" || text.starts_with("TOKIO_") {
                command.env_remove(&variable);
            }
        }
        let begin = Instant::now();
        let mut child = command.spawn().map_err(|error| {
            Error::Io(format!("starting {name} ({})", command.get_program().display()), error)
        })?;
        let log = Log::default();
        let (found, listening) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            let log = log.clone();
            thread::spawn(move || follow(stderr, &log, &found));
        }
        let unknown = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let times = StartTimes { logged: Duration::ZERO, answered: Duration::ZERO };
        let mut server = Server { name, child, addr: unknown, log, times, _folder: folder };
        server.wait_until_it_echoes(begin, &listening)?;
        Ok(server)
    }

    fn wait_until_it_echoes(
        &mut self,
        begin: Instant,
        listening: &mpsc::Receiver<(SocketAddr, Instant)>,
    ) -> Result<(), Error> {
        let mut logged = None;
        let mut answered = None;
        let mut last = String::from("its log names no address to listen on");
        while begin.elapsed() < START_TIMEOUT {
            if let Ok((addr, at)) = listening.try_recv() {
                self.addr = addr;
                logged = logged.or(Some(at - begin));
            }
            if answered.is_none() && self.addr.port() != 0 {
                match connect::connect(self.addr, ECHO_PATH) {
                    Ok(_) => answered = Some(begin.elapsed()),
                    Err(error) => last = error.to_string(),
                }
            }
            if let (Some(logged), Some(answered)) = (logged, answered) {
                self.times = StartTimes { logged, answered };
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                // Its last words may still be on their way.
                while listening.recv_timeout(LAST_WORDS).is_ok() {}
                return Err(self.failed(format!("ended with {status} instead of starting")));
            }
            thread::sleep(START_POLL);
        }
        Err(self.failed(format!("did not start within {} s: {last}", START_TIMEOUT.as_secs())))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How long its start took.
    pub fn times(&self) -> StartTimes {
        self.times
    }

    /// Its memory now.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<Memory, Error> {
        Memory::of(self.child.id()).map_err(|error| self.failed(format!("has ended: {error}")))
    }

    /// Its processor time until now.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<CpuSample, Error> {
        CpuSample::take(self.child.id()).map_err(|error| self.failed(format!("has ended: {error}")))
    }

    /// An error that shows the end of the log.
    pub fn failed(&self, what: impl Into<String>) -> Error {
        Error::Server { name: self.name, what: what.into(), log: self.log.lines() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log to its end, so that the server never waits for us, and reports each address it listens on.
fn follow(stderr: impl Read, log: &Log, found: &mpsc::Sender<(SocketAddr, Instant)>) {
    for line in BufReader::new(stderr).split(b'\n') {
        let at = Instant::now();
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(addr) = listening_addr(&line) {
            // The receiver is gone once the server runs.
            let _ = found.send((addr, at));
        }
        log.push(line);
    }
}

/// The address in a line like `listening on http://127.0.0.1:1880`, whatever stands around it.
pub fn listening_addr(line: &str) -> Option<SocketAddr> {
    if !line.to_lowercase().contains("listening") {
        return None;
    }
    let (_, rest) = line.split_once("http://").or_else(|| line.split_once("https://"))?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || ".:[]-".contains(c);
    let authority = rest.split(|c| !is_part(c)).next()?.trim_end_matches(['.', ':']);
    let (host, port) = authority.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let ip = host.trim_matches(['[', ']']).parse().unwrap_or(Ipv4Addr::LOCALHOST.into());
    Some(SocketAddr::new(ip, port))
}

/// A command for `program` that ends when the thread that starts it ends, however that happens: `bench` (this
/// program) asks the system for that and then becomes `program`. Costs about a millisecond.
pub fn guarded(bench: &Path, program: &Path) -> Command {
    let mut guard = Command::new(bench);
    guard.arg("guard").arg("--").arg(program);
    guard
}

/// Turns this process into `program`, to be killed when the thread that started it ends. Returns only on failure.
pub fn become_guarded(program: Vec<OsString>) -> Error {
    let [program, args @ ..] = program.as_slice() else {
        return Error::Usage("guard: no program given".into());
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Error::Io("asking to end with the parent".into(), error.into());
    }
    Error::Io(format!("running {}", program.display()), Command::new(program).args(args).exec())
}

/// Allows this process, and the servers it starts, as many open files as the system lets it.
pub fn raise_fd_limit() {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be raised shows when a connection cannot be opened, with the system's own words.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// How many files this process and each server may have open.
pub fn fd_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_any_log_line() {
        for (line, expected) in [
            ("listening on http://127.0.0.1:1880", Some("127.0.0.1:1880")),
            (
                "2026-01-01T00:00:00Z  INFO flowbay: listening on http://127.0.0.1:41234/ plugins=2",
                Some("127.0.0.1:41234"),
            ),
            ("\u{1b}[32mINFO\u{1b}[0m Listening on \u{1b}[3mhttp://0.0.0.0:99\u{1b}[0m", Some("0.0.0.0:99")),
            ("listening on http://localhost:8080, pid 3", Some("127.0.0.1:8080")),
            ("listening on http://[::1]:8080.", Some("[::1]:8080")),
            (r#"{"message":"listening on http://127.0.0.1:7"}"#, Some("127.0.0.1:7")),
            ("plugin from http://127.0.0.1:1880", None),
            ("listening on http://127.0.0.1", None),
            ("listening", None),
        ] {
            assert_eq!(listening_addr(line), expected.map(|addr| addr.parse().unwrap()), "{line}");
        }
    }

    #[test]
    fn a_program_that_ends_instead_of_starting_is_an_error_with_its_log() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such flow >&2; exit 3"]);
        let folder = tempfile::tempdir().unwrap();
        let error = Server::start("it", command, folder, 9).err().unwrap().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such flow"), "{error}");
    }
}
