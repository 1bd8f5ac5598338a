//! What `/proc` says about a process: processor time and memory. And about the machine.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::error::Error;

/// Processor time of each thread of a process, at one moment.
///
/// Taken per thread because only there the kernel gives nanoseconds. A thread that ends between two samples
/// takes its time with it; the servers measured keep their threads.
pub struct CpuSample(HashMap<u64, u64>);

impl CpuSample {
    /// Reads it now.
    ///
    /// # Errors
    /// The process is gone.
    pub fn take(pid: u32) -> Result<CpuSample, Error> {
        let folder = format!("/proc/{pid}/task");
        let reading = || Error::io(format!("reading {folder}"));
        let mut nanos_by_thread = HashMap::new();
        for entry in fs::read_dir(&folder).map_err(reading())? {
            let path = entry.map_err(reading())?.path();
            let Some(thread) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            // A kernel without scheduler statistics has the same in clock ticks.
            let nanos = fs::read_to_string(path.join("schedstat"))
                .ok()
                .and_then(|text| parse_schedstat(&text))
                .or_else(|| parse_stat(&fs::read_to_string(path.join("stat")).ok()?, nanos_per_tick()));
            nanos_by_thread.extend(nanos.map(|nanos| (thread, nanos)));
        }
        Ok(CpuSample(nanos_by_thread))
    }

    /// Processor time of all threads since `earlier`.
    pub fn since(&self, earlier: &CpuSample) -> Duration {
        let spent =
            |(thread, nanos): (&u64, &u64)| nanos.saturating_sub(*earlier.0.get(thread).unwrap_or(&0));
        Duration::from_nanos(self.0.iter().map(spent).sum())
    }
}

/// The first field of `schedstat`: nanoseconds on a processor.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `stat` (user and system time), counted after the name, which may hold spaces.
fn parse_stat(text: &str, nanos_per_tick: u64) -> Option<u64> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * nanos_per_tick)
}

fn nanos_per_tick() -> u64 {
    static NANOS: OnceLock<u64> = OnceLock::new();
    *NANOS.get_or_init(|| {
        let output = Command::new("getconf").arg("CLK_TCK").output().ok();
        let per_second = output.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok());
        1_000_000_000 / per_second.filter(|&ticks: &u64| ticks > 0).unwrap_or(100)
    })
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Resident pages, shared ones in full.
    pub rss: u64,
    /// Resident pages, shared ones divided among those who share them; not every kernel tells.
    pub pss: Option<u64>,
}

impl Memory {
    /// Reads it now.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(pid: u32) -> Result<Memory, Error> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).map_err(Error::io(format!("reading {path}")))?;
        let rss = field_bytes(&status, "VmRSS:")
            .ok_or_else(|| Error::Peer(format!("process {pid} has ended: {path} states no memory")))?;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        Ok(Memory { rss, pss: field_bytes(&rollup, "Pss:") })
    }
}

fn field_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    // What the kernel calls kB is 1024 bytes.
    line.trim().strip_suffix("kB")?.trim().parse().ok().map(|kib: u64| kib * 1024)
}

/// One line about the machine, since figures mean nothing without it.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{} cores of {}, Linux {}, load before the run {}",
        cores,
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_from_either_file() {
        assert_eq!(parse_schedstat("592315 17 3\n"), Some(592_315));
        assert_eq!(parse_schedstat(""), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 300 0 0 0 25 17 0 0 20 0 3 0 12345 1000 200\n";
        assert_eq!(parse_stat(stat, 10_000_000), Some(420_000_000));
        assert_eq!(parse_stat("7 (a", 1), None);
    }

    #[test]
    fn time_spent_is_the_sum_over_threads_old_and_new() {
        let earlier = CpuSample(HashMap::from([(1, 100), (2, 50), (3, 9)]));
        let later = CpuSample(HashMap::from([(1, 130), (2, 50), (4, 7)]));
        assert_eq!(later.since(&earlier), Duration::from_nanos(37));
    }

    #[test]
    fn this_process_spends_time_and_has_memory() {
        let pid = std::process::id();
        let before = CpuSample::take(pid).unwrap();
        let mut spin = 0_u64;
        while CpuSample::take(pid).unwrap().since(&before) < Duration::from_millis(1) {
            spin = std::hint::black_box(spin + 1);
        }
        let memory = Memory::of(pid).unwrap();
        assert!(memory.rss > 500_000, "{memory:?}");
        assert_eq!(field_bytes("Name:\tx\nVmRSS:\t    1712 kB\n", "VmRSS:"), Some(1712 * 1024));
    }
}
