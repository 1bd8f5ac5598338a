//! Builds that must be refused, one after the other, under load.

use std::fs;
use std::time::Instant;

use flowbay_tests::harness::{Way, install, rebuilt};

use super::rounds::Rounds;
use super::{Args, start};
use crate::error::Error;
use crate::report::{Limit, Verdict};
use crate::servers::Tools;

/// What cargo makes of `tests/faulty` that is refused at the door.
const FIXTURES: [&str; 8] = [
    "not_a_plugin",
    "old_abi",
    "new_abi",
    "wrong_layout",
    "exits_on_load",
    "panics_on_load",
    "panics_in_describe",
    "aborts_panics",
];

/// Runs it and prints what came of it.
///
/// # Errors
/// A build was taken, or the load noticed something.
pub fn run(tools: &Tools, args: &Args, rounds: &Rounds, builds: usize) -> Result<Vec<Verdict>, Error> {
    println!("soak: {builds} bad builds under {} connections\n", args.clients);
    let file = "libflowbay_websocket.so";
    let whole = &rounds.first()[file];
    let mut kinds: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        ("text".into(), b"no library".to_vec()),
        ("half".into(), whole[..whole.len() / 2].to_vec()),
        ("nearly whole".into(), whole[..whole.len() - 1].to_vec()),
    ];
    for name in FIXTURES.into_iter().chain(["hangs_on_load"]) {
        let library = rounds.faulty().join(format!("lib{name}.so"));
        let bytes = fs::read(&library).map_err(Error::io(format!("reading {}", library.display())))?;
        kinds.push((name.to_owned(), bytes));
    }
    let (mut host, load) = start(tools, args, rounds)?;
    let settled = (2 * kinds.len()).min(builds) - 1;
    let mut before = host.sample()?;
    let begin = Instant::now();
    for number in 0..builds {
        let (kind, bytes) = &kinds[number % kinds.len()];
        // Another file each time, except where that would make it one of another kind.
        let bytes = if number % kinds.len() < 4 { bytes.clone() } else { rebuilt(bytes, number as u64) };
        install(&bytes, &host.plugins().join(file), host.aside(), Way::Renamed);
        host.announce()?;
        host.wait_for(&format!("the refusal of build {number} ({kind})"), |line| {
            (line.contains(" WARN ") && line.contains(file)).then_some(())
        })?;
        load.swapped();
        // What each kind makes the host do for the first time has been paid for by then.
        if number == settled {
            before = host.sample()?;
        }
    }
    println!("{builds} bad builds in {:.1} s", begin.elapsed().as_secs_f64());
    let list = host.list();
    let last = host.sample()?;
    let tally = load.stop();
    println!("{tally}\n");
    if list["plugins"].as_array().is_none_or(|plugins| plugins.len() != 3) {
        return Err(Error::Peer(format!("a bad build is in use: {list}")));
    }
    if !tally.is_perfect() {
        return Err(Error::Peer("the load went wrong: see above".into()));
    }
    Ok(vec![
        Verdict {
            figure: format!("memory gained from bad build {} to the last", settled + 1),
            value: (last.memory as f64 - before.memory as f64) / 1e6,
            limit: Limit::AtMost(2.0),
            unit: "MB",
        },
        Verdict {
            figure: "plugin files mapped".into(),
            value: last.generations as f64,
            limit: Limit::AtMost(3.0),
            unit: "",
        },
    ])
}
