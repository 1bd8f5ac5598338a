//! `flowbay-bench`: how fast and how small the host is, measured from outside.
//!
//! The host and the servers it is compared with run as processes of their own. This program loads them over
//! sockets and reads their processor time and memory from `/proc`, so it runs on Linux only.
//!
//! Reading order: `echo`, `idle`, `start` and `soak` are the measurements; `load` is the load generator, made of
//! `frames` and `connect`; `servers` says what is measured and `child` runs it; `proc` reads `/proc`;
//! `report` holds medians, ratios, tables and bars.
//!
//! A new opponent is a variant of [`servers::Kind`]; a new case is a file like `echo` and a subcommand here.
#![forbid(unsafe_code)]

mod child;
mod connect;
mod echo;
mod error;
mod frames;
mod histogram;
mod idle;
mod load;
mod proc;
mod report;
mod serve;
mod servers;
mod soak;
mod start;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::Error;
use servers::Tools;

/// Measures flowbay beside a WebSocket server written by hand.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// The flowbay executable [default: the one beside this program].
    #[arg(long, global = true, value_name = "FILE")]
    flowbay: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput, server CPU per message and latency of an echo, in interleaved rounds.
    Echo(echo::Args),
    /// Memory per idle connection.
    Idle(idle::Args),
    /// Time from start to listening, and idle memory, with the seed flow.
    Start(start::Args),
    /// Everything above, with a summary against the bars.
    All {
        /// Fewer and shorter rounds, for development.
        #[arg(long)]
        quick: bool,
    },
    /// Plugins swapped for newer builds under load: nothing may be lost. Fails when anything is.
    Soak(soak::Args),
    /// The echo server written by hand: what flowbay is compared with.
    #[command(hide = true)]
    ServeTungstenite {
        /// 0 picks a free port.
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// Becomes PROGRAM, which ends when the process that started this one ends.
    #[command(hide = true)]
    Guard {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flowbay-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Command::ServeTungstenite { port } => return serve::run(port),
        Command::Guard { program } => return Err(child::become_guarded(program)),
        _ => {}
    }
    let tools = Tools::new(cli.flowbay)?;
    child::raise_fd_limit();
    println!("{}\n", proc::machine());
    let verdicts = match cli.command {
        Command::Echo(args) => echo::run(&tools, &args)?,
        Command::Idle(args) => idle::run(&tools, &args)?,
        Command::Start(args) => start::run(&tools, &args)?,
        Command::All { quick } => all(&tools, quick)?,
        Command::Soak(args) => soak::run(&tools, &args)?,
        Command::ServeTungstenite { .. } | Command::Guard { .. } => return Ok(()),
    };
    if !verdicts.is_empty() {
        println!("{}", report::verdict_table(&verdicts));
    }
    Ok(())
}

/// Runs every measurement; the caller prints all verdicts as one table.
fn all(tools: &Tools, quick: bool) -> Result<Vec<report::Verdict>, Error> {
    let mut verdicts = echo::run(tools, &echo::Args { quick, ..Default::default() })?;
    verdicts.extend(echo::run(tools, &echo::Args { quick, in_flight: 16, ..Default::default() })?);
    verdicts.extend(idle::run(tools, &idle::Args { quick, ..Default::default() })?);
    verdicts.extend(start::run(tools, &start::Args { quick, ..Default::default() })?);
    Ok(verdicts)
}
