//! From start to listening, and what the seed flow needs at rest.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::proc::Memory;
use crate::report::{Limit, Table, Verdict, median, megabytes};
use crate::servers::{Flow, Kind, Tools};

/// How often to start.
#[derive(clap::Args, Clone, Default)]
pub struct Args {
    /// Starts per server [default: 11; 3 with --quick].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub starts: Option<u32>,
    /// Fewer starts, for development.
    #[arg(long)]
    pub quick: bool,
}

/// How long after its start a server is at rest, and its memory is read.
const REST: Duration = Duration::from_secs(2);

/// Starts flowbay with the seed flow, and the server written by hand, again and again.
///
/// # Errors
/// A server does not start.
pub fn run(tools: &Tools, args: &Args) -> Result<Vec<Verdict>, Error> {
    let starts = args.starts.unwrap_or(if args.quick { 3 } else { 11 });
    println!(
        "start: medians of {starts} starts, in ms from the making of the process; memory in MB (decimal) after {} s\n",
        REST.as_secs()
    );
    let mut table = Table::new(&[
        "server",
        "first handshake",
        "'listening' logged",
        "first start",
        "slowest",
        "idle RSS",
        "idle PSS",
    ]);
    let mut verdicts = Vec::new();
    for kind in [Kind::Flowbay, Kind::Tungstenite] {
        let (mut answered, mut logged) = (Vec::new(), Vec::new());
        let mut memory = None;
        for index in 0..starts {
            let server = tools.start(kind, Flow::Seed, free_port()?)?;
            answered.push(server.times().answered.as_secs_f64() * 1e3);
            logged.push(server.times().logged.as_secs_f64() * 1e3);
            if index + 1 == starts {
                thread::sleep(REST);
                memory = Some(server.memory()?);
            }
        }
        let Some(Memory { rss, pss }) = memory else { continue };
        table.row([
            kind.name().to_owned(),
            format!("{:.1}", median(&answered)),
            format!("{:.1}", median(&logged)),
            format!("{:.1}", answered[0]),
            format!("{:.1}", answered.iter().copied().fold(0.0, f64::max)),
            megabytes(rss),
            pss.map_or("unknown".to_owned(), megabytes),
        ]);
        if kind == Kind::Flowbay {
            let verdict = |figure: &str, value, limit, unit| Verdict {
                figure: figure.to_owned(),
                value,
                limit: Limit::AtMost(limit),
                unit,
            };
            verdicts.push(verdict("start to listening, seed flow", median(&answered), 100.0, "ms"));
            verdicts.push(verdict("idle memory, seed flow", rss as f64 / 1e6, 12.0, "MB"));
        }
    }
    println!("{table}");
    Ok(verdicts)
}

/// A port that was free a moment ago: the seed flow's client must know it before the host starts.
///
/// Below the range that the system picks from for outgoing connections: there, a connection attempt to a port
/// where nobody listens yet can be given that very port as its own, and so take it from the server.
fn free_port() -> Result<u16, Error> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let offset = process::id().wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = (FIRST + offset) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::Usage(format!("no port from {FIRST} on is free")))
}
