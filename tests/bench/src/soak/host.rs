//! The host that is soaked: in a folder of its own, with plugin files that are ours to replace, and a log that is
//! followed line by line.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::By;
use super::rounds::Rounds;
use crate::child::listening_addr;
use crate::error::Error;
use crate::proc::Memory;
use crate::servers::Tools;

/// How long any single step of the host's may take, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// Log lines that explain a failure.
const LAST_LINES: usize = 20;

/// A running host. Dropping it kills the process and removes its folder.
pub struct SoakHost {
    child: Child,
    addr: SocketAddr,
    by: By,
    lines: Receiver<(Instant, String)>,
    log: Vec<String>,
    folder: TempDir,
}

/// What the process has at one moment.
#[derive(Clone)]
pub struct Sample {
    /// Resident bytes.
    pub memory: u64,
    /// Threads.
    pub threads: usize,
    /// Open files.
    pub files: usize,
    /// Plugin files that are mapped.
    pub generations: usize,
    /// Different plugins among them.
    pub plugins: usize,
}

impl SoakHost {
    /// Starts the host with the first builds of the plugins and waits until the flow runs.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(
        tools: &Tools,
        rounds: &Rounds,
        flow: &Value,
        by: By,
        variables: &[(&str, &Path)],
    ) -> Result<SoakHost, Error> {
        let making = || Error::io("making the host's folder");
        let folder = rounds.folder()?;
        let plugins = folder.path().join("plugins");
        fs::create_dir(&plugins).map_err(making())?;
        for (file, bytes) in rounds.first() {
            fs::write(plugins.join(file), bytes).map_err(making())?;
        }
        fs::write(folder.path().join("flows.json"), flow.to_string()).map_err(making())?;
        let mut command = tools.flowbay_guarded()?;
        command.args(["run", "flows.json", "--port", "0", "--plugins", "plugins", "--no-shipped-plugins"]);
        if by == By::Reload {
            command.arg("--no-watch");
        }
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for (variable, _) in env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("FLOWBAY_") || text == "RUST_LOG" || text.starts_with("TOKIO_") {
                command.env_remove(&variable);
            }
        }
        // The finer figures of each swap.
        command.env("RUST_LOG", "info,flowbay::runtime::control=debug");
        // What a host that is killed leaves behind goes with its folder.
        command.env("TMPDIR", folder.path()).envs(variables.iter().copied());
        let mut child = command.spawn().map_err(Error::io("starting flowbay"))?;
        let (sender, lines) = channel();
        if let Some(stderr) = child.stderr.take() {
            thread::spawn(move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    if sender.send((Instant::now(), String::from_utf8_lossy(&line).into_owned())).is_err() {
                        return;
                    }
                }
            });
        }
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut host = SoakHost { child, addr, by, lines, log: Vec::new(), folder };
        host.wait_for("the flow to start", |line| line.contains("started flows").then_some(()))?;
        host.addr = host.wait_for("its address", listening_addr)?.1;
        Ok(host)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its plugin folder.
    pub fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    /// A folder on the same file system that it does not watch.
    pub fn aside(&self) -> &Path {
        self.folder.path()
    }

    /// Has it look for new builds, unless it does so by itself.
    pub fn announce(&self) -> Result<(), Error> {
        match self.by {
            By::Watch => Ok(()),
            By::Reload => {
                let reply = flowbay_tests::harness::request(self.addr, "POST", "/plugins/reload", &[], "");
                match reply.status {
                    200 => Ok(()),
                    status => Err(self.failed(format!("answers the request to reload with {status}"))),
                }
            }
        }
    }

    /// What `GET /plugins` says.
    pub fn list(&self) -> Value {
        flowbay_tests::harness::request(self.addr, "GET", "/plugins", &[], "").json()
    }

    /// Waits for a line from which `find` makes something; when it came, and that.
    ///
    /// # Errors
    /// It does not come, or the process has ended.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Result<(Instant, T), Error> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((at, line)) => {
                    let found = find(&line);
                    self.log.push(line);
                    if let Some(found) = found {
                        return Ok((at, found));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failed(format!("has not said within {PATIENCE:?}: {what}")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.failed(format!("has ended before {what}")));
                }
            }
        }
    }

    /// What the process has now.
    ///
    /// # Errors
    /// It has ended.
    pub fn sample(&self) -> Result<Sample, Error> {
        let pid = self.child.id();
        let count = |what: &str| -> Result<usize, Error> {
            let folder = format!("/proc/{pid}/{what}");
            Ok(fs::read_dir(&folder).map_err(Error::io(format!("reading {folder}")))?.count())
        };
        let maps = format!("/proc/{pid}/maps");
        let maps = fs::read_to_string(&maps).map_err(Error::io(format!("reading {maps}")))?;
        let files: HashSet<&str> = maps
            .lines()
            .filter(|line| line.contains("flowbay-plugins-"))
            .filter_map(|line| line.split_whitespace().nth(5)?.rsplit('/').next())
            .collect();
        // generation-hash-name
        let names: HashSet<&str> = files.iter().filter_map(|file| file.splitn(3, '-').nth(2)).collect();
        Ok(Sample {
            memory: Memory::of(pid)?.rss,
            threads: count("task")?,
            files: count("fd")?,
            generations: files.len(),
            plugins: names.len(),
        })
    }

    /// Waits until every plugin is mapped once.
    ///
    /// # Errors
    /// That does not happen.
    pub fn wait_for_one_generation(&self) -> Result<(), Error> {
        let begin = Instant::now();
        loop {
            let sample = self.sample()?;
            if sample.generations <= sample.plugins {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                return Err(self.failed(format!("has {} generations mapped", sample.generations)));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it; its exit code.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(mut self) -> Result<Option<i32>, Error> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .map_err(|error| Error::Io("stopping flowbay".into(), error.into()))?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status.code()),
                Ok(None) => thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(Error::Io("waiting for flowbay".into(), error)),
            }
        }
        Err(self.failed("does not stop"))
    }

    /// An error that shows the end of the log.
    pub fn failed(&self, what: impl Into<String>) -> Error {
        let mut log = self.log.clone();
        log.extend(self.lines.try_iter().map(|(_, line)| line));
        Error::Server {
            name: "flowbay",
            what: what.into(),
            log: log.split_off(log.len().saturating_sub(LAST_LINES)),
        }
    }
}

impl Drop for SoakHost {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
