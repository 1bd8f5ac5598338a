//! What the process takes of the machine.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// When the process began, as far as the metrics are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    moment: Instant,
    date: SystemTime,
}

impl Start {
    /// Now.
    pub fn now() -> Self {
        Self { moment: Instant::now(), date: SystemTime::now() }
    }

    /// How long ago it was.
    pub fn uptime(self) -> Duration {
        self.moment.elapsed()
    }

    /// Since 1970.
    pub fn since_epoch(self) -> Duration {
        self.date.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// What the process has; each is absent where the system does not say.
#[derive(Debug, Default, Clone, Copy)]
pub struct ProcessFigures {
    /// Bytes of memory that are its own and not swapped out.
    pub resident_bytes: Option<u64>,
    /// Bytes of address space.
    pub virtual_bytes: Option<u64>,
    /// Open files, sockets among them.
    pub open_files: Option<u64>,
    /// As many as it may open.
    pub max_files: Option<u64>,
}

impl ProcessFigures {
    /// As they are now. Reads three files of the system's; takes a few milliseconds with ten thousand sockets.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            resident_bytes: kilobytes(&status, "VmRSS:"),
            virtual_bytes: kilobytes(&status, "VmSize:"),
            // The folder that is read is itself one of them.
            open_files: std::fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| files.count().saturating_sub(1) as u64),
            max_files: max_files(),
        }
    }
}

/// A line `key   123 kB`, in bytes.
fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(unix)]
fn max_files() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
fn max_files() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_are_read_where_there_are_any() {
        let status = "Name:\tflowbay\nVmSize:\t  10240 kB\nVmRSS:\t    12 kB\nVmLck:\tmany kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(kilobytes(status, "VmSize:"), Some(10_240 * 1024));
        for absent in ["VmLck:", "Name:", "VmHWM:"] {
            assert_eq!(kilobytes(status, absent), None, "{absent}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_is_counted() {
        let before = ProcessFigures::now();
        assert!(before.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(before.max_files >= before.open_files);
        // Other tests open and close files meanwhile: more than they do.
        let files: Vec<_> = (0..500).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let after = ProcessFigures::now();
        assert!(after.open_files.unwrap() > before.open_files.unwrap() + 250, "{before:?} {after:?}");
        drop(files);
    }
}
