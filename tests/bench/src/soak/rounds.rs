//! Two builds of each plugin, put in place of each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flowbay_tests::harness::{Builds, Way, cargo, install, rebuilt};
use tempfile::TempDir;

use super::host::SoakHost;
use crate::error::Error;
use crate::servers::Tools;

/// The version of the builds that take turns with the product's own.
const OTHER: &str = "0.1.1";

/// A plugin whose builds take turns.
struct Swapped {
    /// As it is called in the log.
    name: String,
    /// Its file's name.
    file: String,
    builds: [Vec<u8>; 2],
}

/// The builds, and whose turn it is.
pub struct Rounds {
    target: PathBuf,
    first: BTreeMap<String, Vec<u8>>,
    swapped: Vec<Swapped>,
    number: u64,
}

/// One plugin swapped.
#[derive(Debug, Clone)]
pub struct Round {
    /// From the first node held to the last connection moved, as the host has it.
    pub took: Duration,
    /// From the last write to the line in the log.
    pub noticed: Duration,
    /// Connections that moved.
    pub connections: usize,
    /// The old code went at once.
    pub unloaded: bool,
    /// From the first node held until messages flowed again.
    pub held: Duration,
    /// From a connection's being told to move until the new code had it: 99 of 100, and the longest.
    pub away: (Duration, Duration),
}

impl Rounds {
    /// Builds what is needed beside the host.
    ///
    /// # Errors
    /// The plugins are not there, or a name is none of a plugin.
    ///
    /// # Panics
    /// When a build fails.
    pub fn make(tools: &Tools, names: &[String]) -> Result<Rounds, Error> {
        let release = tools.flowbay_file()?;
        let folder = release.parent().unwrap_or(Path::new("."));
        let target = folder.parent().unwrap_or(folder).to_owned();
        let other = Builds::make(OTHER, true, &target.join("builds"));
        let faulty = target.join("faulty");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../faulty/Cargo.toml");
        cargo(&manifest, &faulty, true);
        let read = |file: &Path| fs::read(file).map_err(Error::io(format!("reading {}", file.display())));
        let fixture = read(&faulty.join("release/libbad_node.so"))?;
        let mut first = BTreeMap::new();
        for file in ["libflowbay_core.so", "libflowbay_websocket.so"] {
            first.insert(file.to_owned(), read(&folder.join(file))?);
        }
        first.insert("libbad_node.so".to_owned(), fixture.clone());
        let mut swapped = Vec::new();
        for name in names {
            let (file, second) = match name.as_str() {
                "core" => ("libflowbay_core.so", read(&other.core)?),
                "websocket" => ("libflowbay_websocket.so", read(&other.websocket)?),
                "bad-node" => ("libbad_node.so", rebuilt(&fixture, 1)),
                _ => return Err(Error::Usage(format!("there is no plugin {name} to swap"))),
            };
            let builds = [first[file].clone(), second];
            swapped.push(Swapped { name: name.clone(), file: file.to_owned(), builds });
        }
        Ok(Rounds { target, first, swapped, number: 0 })
    }

    /// The builds to start with, by the names of their files.
    pub fn first(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.first
    }

    /// Where cargo puts the fixtures.
    pub fn faulty(&self) -> PathBuf {
        self.target.join("faulty/release")
    }

    /// A new folder on the file system of the builds.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self) -> Result<TempDir, Error> {
        let all = self.target.join("tmp");
        fs::create_dir_all(&all).map_err(Error::io("making a folder"))?;
        tempfile::Builder::new().prefix("soak-").tempdir_in(all).map_err(Error::io("making a folder"))
    }

    /// Puts the next builds in place, all of them, and waits until they are in use.
    ///
    /// # Errors
    /// The host does not take one.
    pub fn next(&mut self, host: &mut SoakHost) -> Result<Vec<Round>, Error> {
        let ways = [Way::CargosLink, Way::Renamed, Way::CopiedOver];
        let way = ways[(self.number as usize) % ways.len()];
        self.number += 1;
        for plugin in &self.swapped {
            let bytes = &plugin.builds[(self.number % 2) as usize];
            install(bytes, &host.plugins().join(&plugin.file), host.aside(), way);
        }
        let written = Instant::now();
        host.announce()?;
        let mut waiting: Vec<&str> = self.swapped.iter().map(|plugin| plugin.name.as_str()).collect();
        let mut done = Vec::new();
        while !waiting.is_empty() {
            let what = format!("swap {} of {}", self.number, waiting.join(", "));
            let (at, swapped) = host.wait_for(&what, |line| {
                if line.contains(" WARN ") || line.contains(" ERROR ") {
                    eprintln!("{line}");
                }
                if self.swapped.iter().any(|plugin| line.contains(" WARN ") && line.contains(&plugin.file)) {
                    return Some(None);
                }
                let name = waiting.iter().copied().find(|name| is_swap_of(line, name))?;
                Some(Some((name.to_owned(), parse(line)?)))
            })?;
            let Some((name, round)) = swapped else { return Err(host.failed(format!("refuses {what}"))) };
            let (_, (held, away)) = host.wait_for("the finer figures", parse_detail)?;
            waiting.retain(|waits| *waits != name);
            done.push(Round { noticed: at.saturating_duration_since(written), held, away, ..round });
        }
        Ok(done)
    }
}

/// Whether a line says that a plugin was swapped.
fn is_swap_of(line: &str, name: &str) -> bool {
    line.contains(" → ") && line.contains("(generation ") && line.contains(name)
}

/// Reads `NAME OLD → NEW (generation N): A nodes, B connections moved in M ms, old code unloaded`.
fn parse(line: &str) -> Option<Round> {
    let (_, rest) = line.split_once("(generation ")?;
    let before = |mark: &str| -> Option<&str> {
        let (text, _) = rest.split_once(mark)?;
        text.rsplit([' ', '(']).next()
    };
    Some(Round {
        took: Duration::try_from_secs_f64(before(" ms")?.parse::<f64>().ok()? / 1e3).ok()?,
        noticed: Duration::ZERO,
        connections: before(" connections")?.parse().ok()?,
        unloaded: rest.contains("old code unloaded"),
        held: Duration::ZERO,
        away: (Duration::ZERO, Duration::ZERO),
    })
}

/// Reads `messages were held for A µs; 99 of 100 connections were between the two for B µs or less, the longest for C
/// µs`.
fn parse_detail(line: &str) -> Option<(Duration, (Duration, Duration))> {
    let (_, rest) = line.split_once("messages were held for ")?;
    let micros: Vec<Duration> = rest
        .split(" µs")
        .filter_map(|part| part.rsplit(' ').next()?.parse().ok())
        .map(Duration::from_micros)
        .collect();
    let [held, most, longest] = micros[..] else { return None };
    Some((held, (most, longest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_read_from_the_line_in_the_log() {
        let line = "2026 INFO flowbay-websocket 0.1.0 → 0.1.1 (generation 2): 12 nodes, 200 connections moved \
                    in 6 ms, old code unloaded";
        assert!(is_swap_of(line, "websocket") && !is_swap_of(line, "core"));
        let round = parse(line).unwrap();
        assert_eq!((round.took.as_millis(), round.connections, round.unloaded), (6, 200, true));
        let line = line
            .replace("6 ms, old code unloaded", "6.5 ms (3 stay with the old code), old code still in use");
        let round = parse(&line).unwrap();
        assert_eq!((round.took.as_micros(), round.unloaded), (6500, false));

        let line = "core: messages were held for 12 µs; 99 of 100 connections were between the two for 34 µs or less, \
                    the longest for 56 µs";
        let micros = Duration::from_micros;
        assert_eq!(parse_detail(line), Some((micros(12), (micros(34), micros(56)))));
    }
}
