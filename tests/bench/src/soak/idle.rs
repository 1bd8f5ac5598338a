//! Many connections at rest are moved, while a few look how long an echo takes.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use flowbay_tests::load::{Load, Mode, Plan};

use super::host::SoakHost;
use super::rounds::Rounds;
use super::{Args, echo_table, listener_flow, swap_table};
use crate::connect;
use crate::error::Error;
use crate::report::{Limit, Verdict};
use crate::servers::Tools;

/// What each says before it rests, and after.
const MESSAGE: &[u8] = b"0123456789abcdef";
/// Connections that are watched.
const WATCHED: usize = 10;

/// Runs it and prints what came of it.
///
/// # Errors
/// A connection was lost, or the host failed.
pub fn run(
    tools: &Tools,
    args: &Args,
    mut rounds: Rounds,
    connections: usize,
) -> Result<Vec<Verdict>, Error> {
    let swaps = args.swaps.min(20);
    println!("soak: {connections} idle connections, {swaps} swaps\n");
    // Without the numbers that the flow tells to all: those at rest are to rest.
    let mut flow = listener_flow();
    if let Some(nodes) = flow.as_array_mut() {
        nodes.retain(|node| node["type"] != "inject");
    }
    let mut host = SoakHost::start(tools, &rounds, &flow, args.by, &[])?;
    let mut open: Vec<TcpStream> = Vec::with_capacity(connections);
    for number in 0..connections {
        let lost = |error| host.failed(format!("failed at connection {number}: {error}"));
        let mut stream = connect::connect(host.addr(), "/echo").map_err(lost)?;
        connect::exchange(&mut stream, MESSAGE).map_err(lost)?;
        open.push(stream);
    }
    let mut plan = Plan::clients(host.addr(), &[("/echo", Mode::Payload)], WATCHED);
    plan.in_flight = 1;
    plan.sizes = (16, 200);
    plan.pause = Duration::from_millis(1);
    let load = Load::start(plan).map_err(Error::io("starting the load"))?;
    thread::sleep(Duration::from_secs(args.seconds));
    let still = load.take_times().unwrap_or_default();
    let before = host.sample()?;
    let mut done = Vec::new();
    let begin = Instant::now();
    for _ in 0..swaps {
        done.extend(rounds.next(&mut host)?);
        load.swapped();
        thread::sleep(Duration::from_millis(args.interval_ms));
    }
    let took = begin.elapsed();
    let swapping = load.take_times().unwrap_or_default();
    let tally = load.stop();
    host.wait_for_one_generation()?;
    let after = host.sample()?;
    for (number, stream) in open.iter_mut().enumerate() {
        connect::exchange(stream, MESSAGE)
            .map_err(|error| host.failed(format!("lost idle connection {number}: {error}")))?;
    }
    println!("{tally}\n");
    println!("{}", echo_table(&still, args.seconds, &swapping, took));
    println!("{}", swap_table(&done, connections + WATCHED));
    println!(
        "RSS before the swaps {}, after {}; {} generations mapped\n",
        before.megabytes(),
        after.megabytes(),
        after.generations
    );
    if !tally.is_perfect() {
        return Err(Error::Peer("the load went wrong: see above".into()));
    }
    Ok(vec![Verdict {
        figure: format!("longest echo while {connections} idle connections move"),
        value: swapping.longest().as_secs_f64() * 1e3,
        limit: Limit::AtMost(250.0),
        unit: "ms",
    }])
}
