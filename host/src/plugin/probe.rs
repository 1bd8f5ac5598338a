//! Trying a plugin in a child process first: what would end or hang the host ends the child instead.
//!
//! The child is this executable again, as `probe FILE`: it loads the file, has it describe itself, unloads it, and
//! says so in one line of JSON, the last on its standard output. Whatever else it does is a reason to refuse.

use std::{
    io::{self, Read, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group,
    set_parent_process_death_signal, setrlimit, waitid,
};
use serde::{Deserialize, Serialize};

use super::{description, elf, error::Refusal, library};

/// The hidden subcommand.
const COMMAND: &str = "probe";
/// Bytes kept of what the child writes; the rest is read and forgotten, so that it never waits.
const MAX_OUTPUT: usize = 64 * 1024;
/// Characters of the child's last words in a refusal: enough for a panic with its place.
const MAX_SAID: usize = 300;
/// How long what the child wrote may take to arrive when it has ended.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// What the child says.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
enum Answer {
    Loads,
    Refused(Refusal),
}

/// What `flowbay probe FILE` does: tries the file in this very process and prints the answer. Returns the exit code:
/// 0 when it can be loaded, 1 when not.
pub fn probe_main(file: &Path) -> i32 {
    // This process is nobody's if its parent dies, and a crash here is news for the parent, not worth a core file.
    // Should either call fail, trying the plugin is still right.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });

    let (answer, code) = match try_here(file) {
        Ok(()) => (Answer::Loads, 0),
        Err(refusal) => (Answer::Refused(refusal), 1),
    };
    let line = serde_json::to_string(&answer).unwrap_or_default();
    // On a line of its own, whatever the plugin has printed.
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "\n{line}").and_then(|()| stdout.flush());
    if written.is_ok() { code } else { 2 }
}

fn try_here(file: &Path) -> Result<(), Refusal> {
    let facts = elf::inspect(file)?;
    let opened = library::open(file, facts)?;
    let described = description::read(&opened.root.describe()());
    // Its destructors may crash or hang as well.
    library::close_in_probe(opened);
    described.map(drop)
}

/// Has a child process load the library at `file`, and waits for its answer until `deadline` has passed.
///
/// # Errors
/// What the child found, or how it ended.
pub(super) fn try_in_child(exe: &Path, file: &Path, deadline: Duration) -> Result<(), Refusal> {
    let started = Instant::now();
    let mut command = Command::new(exe);
    command
        .arg(COMMAND)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that processes which the plugin starts can be ended with it.
        .process_group(0);
    let mut child =
        command.spawn().map_err(|error| Refusal::Probe(format!("cannot run {}: {error}", exe.display())))?;
    let stdout = child.stdout.take().map(last_bytes);
    let stderr = child.stderr.take().map(last_bytes);

    let ended = wait(&mut child, deadline)?;
    let Some(status) = ended else {
        return Err(Refusal::Hung(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)));
    };
    tracing::debug!("{} was tried in {:?}: {status}", file.display(), started.elapsed());
    let said = last_words(&collect(stderr));
    match serde_json::from_str(&last_line(&collect(stdout))) {
        Ok(Answer::Loads) if status.success() => Ok(()),
        Ok(Answer::Refused(refusal)) => Err(with_words(refusal, &said)),
        _ => Err(Refusal::Crashed { how: ending(status), said }),
    }
}

/// Waits for the end of the child, and ends its whole group then or at the deadline: `None`.
fn wait(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>, Refusal> {
    let pid = Pid::from_child(child);
    let (ended, end) = mpsc::channel();
    let watch = std::thread::Builder::new().name("flowbay-probe".to_owned()).spawn(move || {
        // Leaves it to be reaped: until then its number, which is the group's too, is not given to another process.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let _ = ended.send(());
    });
    // Without a thread to watch it the channel is closed, and it counts as ended at once: then it has failed.
    let in_time = watch.is_ok() && end.recv_timeout(deadline).is_ok();
    // Also after a regular end: it may have left processes behind.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait().map_err(|error| Refusal::Probe(error.to_string()))?;
    Ok(in_time.then_some(status))
}

/// Reads to the end on a thread of its own and delivers the last bytes.
fn last_bytes(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (bytes, last) = mpsc::channel();
    let reading = std::thread::Builder::new().name("flowbay-probe".to_owned()).spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        // An error ends it like the end does: what came until then counts.
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..read]);
            if kept.len() > 2 * MAX_OUTPUT {
                kept.drain(..kept.len() - MAX_OUTPUT);
            }
        }
        let _ = bytes.send(kept);
    });
    drop(reading);
    last
}

fn collect(from: Option<mpsc::Receiver<Vec<u8>>>) -> String {
    // A process that left the group may hold the pipe open: what it would say is not waited for.
    let bytes = from.and_then(|from| from.recv_timeout(OUTPUT_GRACE).ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_line(text: &str) -> String {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// What the child wrote that most likely says why it failed: a panic with its place, or else its last line.
fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let panic = lines.iter().rposition(|line| line.contains("panicked at"));
    let words = match panic {
        Some(at) => lines[at..].iter().take(2).copied().collect::<Vec<_>>().join(" "),
        None => lines.last().copied().unwrap_or_default().to_owned(),
    };
    words.chars().filter(|letter| !letter.is_control()).take(MAX_SAID).collect()
}

/// Adds the child's last words where they say more than the refusal does.
fn with_words(refusal: Refusal, said: &str) -> Refusal {
    match refusal {
        Refusal::Root(text) if !said.is_empty() => Refusal::Root(format!("{text}; it said: {said}")),
        refusal => refusal,
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}{}", signal_name(signal)),
        (None, None) => status.to_string(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => ", a memory fault",
        libc::SIGBUS => ", a memory fault in a file",
        libc::SIGILL => ", an illegal instruction",
        libc::SIGABRT => ", an abort",
        libc::SIGFPE => ", an arithmetic fault",
        libc::SIGKILL => ", killed",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// Stands in for the host's executable: a shell script that gets `probe FILE`.
    fn probe_with(script: &str, deadline: Duration) -> Result<(), Refusal> {
        let folder = tempfile::tempdir().unwrap();
        let exe = folder.path().join("host");
        fs::write(&exe, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&exe, fs::Permissions::from_mode(0o700)).unwrap();
        loop {
            match try_in_child(&exe, Path::new("/bay/libx.so"), deadline) {
                // Another test's child, just forked, still has the script open for writing.
                Err(Refusal::Probe(text)) if text.contains("Text file busy") => std::thread::yield_now(),
                result => return result,
            }
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_child_that_says_so_is_believed() {
        assert_eq!(probe_with("test \"$1 $2\" = 'probe /bay/libx.so' && echo '\"Loads\"'", LONG), Ok(()));
    }

    #[test]
    fn the_answer_is_the_last_line_whatever_the_plugin_prints() {
        assert_eq!(probe_with("printf 'hello'; printf '\\n\"Loads\"\\n'", LONG), Ok(()));
        assert_eq!(
            probe_with("head -c 1000000 /dev/zero | tr '\\0' 'x'; printf '\\n\"Loads\"\\n'", LONG),
            Ok(())
        );
    }

    #[test]
    fn the_child_s_refusal_is_the_refusal() {
        let line = serde_json::to_string(&Answer::Refused(Refusal::NotAPlugin)).unwrap();
        assert_eq!(probe_with(&format!("echo '{line}'; exit 1"), LONG), Err(Refusal::NotAPlugin));
    }

    #[test]
    fn a_child_that_ends_without_an_answer_is_a_crash_with_its_last_words() {
        assert_eq!(
            probe_with("echo first >&2; echo 'out of luck' >&2; exit 3", LONG),
            Err(Refusal::Crashed { how: "exit code 3".into(), said: "out of luck".into() })
        );
        assert_eq!(
            probe_with("kill -SEGV $$", LONG),
            Err(Refusal::Crashed { how: "signal 11, a memory fault".into(), said: String::new() })
        );
        assert_eq!(
            probe_with("echo '\"Loads\"'; exit 9", LONG),
            Err(Refusal::Crashed { how: "exit code 9".into(), said: String::new() })
        );
    }

    #[test]
    fn of_a_panic_its_place_and_text_are_kept() {
        let said = "thread 'main' panicked at src/lib.rs:6:5:\nno root today\nstack backtrace:\n 0: main\nnote: more\n";
        assert_eq!(last_words(said), "thread 'main' panicked at src/lib.rs:6:5: no root today");
        assert_eq!(last_words("one\n\n two \n\n"), "two");
        assert_eq!(last_words(""), "");
        assert_eq!(last_words(&"x".repeat(10 * MAX_SAID)).len(), MAX_SAID);
    }

    #[test]
    fn a_child_that_hangs_is_ended_at_the_deadline_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pids.display());
        // Long enough for the script to get there on a busy machine.
        let deadline = Duration::from_millis(1_500);
        assert_eq!(probe_with(&script, deadline), Err(Refusal::Hung(1_500)));
        let sleeper = fs::read_to_string(&pids).unwrap();
        let status = format!("/proc/{}/stat", sleeper.trim());
        let ended = (0..1_000).any(|_| {
            std::thread::yield_now();
            // Gone, or a zombie that waits for init.
            fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z ")) || {
                std::thread::sleep(Duration::from_millis(5));
                false
            }
        });
        assert!(ended, "the process that the child had started still runs");
    }

    #[test]
    fn a_missing_executable_is_an_error() {
        let result = try_in_child(Path::new("/no/such/host"), Path::new("/bay/libx.so"), LONG);
        assert!(matches!(result, Err(Refusal::Probe(text)) if text.contains("/no/such/host")));
    }
}
