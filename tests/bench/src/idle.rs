//! Memory per idle connection: open many, let each echo once, wait, and look.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::child::{Server, fd_limit};
use crate::connect::{self, ECHO_PATH};
use crate::error::Error;
use crate::proc::Memory;
use crate::report::{Limit, Table, Verdict, megabytes};
use crate::servers::{Flow, Kind, Tools};

/// How many connections, and how long they rest.
#[derive(clap::Args, Clone)]
pub struct Args {
    /// Connections to open [default: 5000; 1000 with --quick]. One client address has about 28,000 ports.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=25_000))]
    pub connections: Option<u32>,
    /// Payload bytes of the one message that each connection exchanges.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub size: u32,
    /// Seconds from the last message until the memory is read [default: 3; 1 with --quick].
    #[arg(long)]
    pub settle: Option<f64>,
    /// Fewer connections and a shorter wait, for development.
    #[arg(long)]
    pub quick: bool,
}

impl Default for Args {
    fn default() -> Args {
        Args { connections: None, size: 64, settle: None, quick: false }
    }
}

/// Files a process has open besides its connections.
const SPARE_FILES: u64 = 100;

/// Memory at the three moments.
struct Readings {
    before: Memory,
    opened: Memory,
    settled: Memory,
}

/// Measures and prints flowbay and the server written by hand.
///
/// # Errors
/// A server fails, a connection is refused or lost, or the file limit is too low.
pub fn run(tools: &Tools, args: &Args) -> Result<Vec<Verdict>, Error> {
    let connections = args.connections.unwrap_or(if args.quick { 1000 } else { 5000 });
    if u64::from(connections) + SPARE_FILES > fd_limit() {
        return Err(Error::Usage(format!(
            "{connections} connections need more open files than the limit allows ({}); raise it with ulimit -n",
            fd_limit()
        )));
    }
    let settle = args.settle.unwrap_or(if args.quick { 1.0 } else { 3.0 });
    let settle = Duration::try_from_secs_f64(settle)
        .map_err(|_| Error::Usage(format!("--settle {settle} is not a time to wait")))?;
    println!(
        "idle: {connections} connections, one message of {} B each; RSS in MB, MB and KB decimal\n",
        args.size
    );
    let mut table =
        Table::new(&["server", "before", "all open", "settled", "KB/connection", "PSS KB/connection"]);
    let mut verdicts = Vec::new();
    for kind in [Kind::Flowbay, Kind::Tungstenite] {
        let readings = measure(&tools.start(kind, Flow::Echo, 0)?, connections, args.size as usize, settle)?;
        let each = |before: u64, after: u64| (after as f64 - before as f64) / 1e3 / f64::from(connections);
        let rss_each = each(readings.before.rss, readings.settled.rss);
        let pss_each = readings.before.pss.zip(readings.settled.pss).map(|(from, to)| each(from, to));
        table.row([
            kind.name().to_owned(),
            megabytes(readings.before.rss),
            megabytes(readings.opened.rss),
            megabytes(readings.settled.rss),
            format!("{rss_each:.2}"),
            pss_each.map_or("unknown".to_owned(), |each| format!("{each:.2}")),
        ]);
        if kind == Kind::Flowbay {
            verdicts.push(Verdict {
                figure: format!("memory per idle connection, {connections} connections"),
                value: rss_each,
                limit: Limit::AtMost(8.0),
                unit: "KB",
            });
        }
    }
    println!("{table}");
    Ok(verdicts)
}

fn measure(server: &Server, connections: u32, size: usize, settle: Duration) -> Result<Readings, Error> {
    let message = "idle ".repeat(size.div_ceil(5));
    let message = &message.as_bytes()[..size];
    let before = server.memory()?;
    let mut open: Vec<TcpStream> = Vec::with_capacity(connections as usize);
    for _ in 0..connections {
        let number = open.len() + 1;
        let lost = |error| server.failed(format!("failed at connection {number}: {error}"));
        let mut stream = connect::connect(server.addr(), ECHO_PATH).map_err(lost)?;
        connect::exchange(&mut stream, message).map_err(lost)?;
        open.push(stream);
    }
    let opened = server.memory()?;
    // The one place where time itself is what is waited for.
    thread::sleep(settle);
    let settled = server.memory()?;
    // Memory saved by dropping connections would not count.
    for (index, stream) in open.iter_mut().enumerate() {
        connect::exchange(stream, message)
            .map_err(|error| server.failed(format!("lost idle connection {}: {error}", index + 1)))?;
    }
    Ok(Readings { before, opened, settled })
}
