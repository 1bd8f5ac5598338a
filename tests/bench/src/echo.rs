//! Echo side by side: the flow against servers written by hand, in interleaved rounds.

use std::time::Duration;

use crate::error::Error;
use crate::load::{self, Load};
use crate::proc::CpuSample;
use crate::report::{Limit, Table, Verdict, median, paired_ratio};
use crate::servers::{Flow, Kind, Tools};

/// What to echo, and for how long.
#[derive(clap::Args, Clone)]
pub struct Args {
    /// Connections, all busy.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Payload bytes of a message.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub size: u32,
    /// Messages that each connection keeps in flight.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub in_flight: u32,
    /// Send binary messages instead of text.
    #[arg(long)]
    pub binary: bool,
    /// Seconds measured per server and round [default: 3; 1 with --quick].
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Rounds; each measures every server once [default: 5; 3 with --quick].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// Fewer and shorter rounds, for development.
    #[arg(long)]
    pub quick: bool,
    /// The server in question.
    #[arg(long, value_enum, default_value_t = Kind::Flowbay)]
    pub subject: Kind,
    /// What it is compared with; repeatable. The subject's own kind shows the noise of the method.
    #[arg(long, value_enum, default_values_t = [Kind::Tungstenite])]
    pub against: Vec<Kind>,
}

impl Default for Args {
    fn default() -> Args {
        Args {
            connections: 50,
            size: 64,
            in_flight: 1,
            binary: false,
            seconds: None,
            rounds: None,
            quick: false,
            subject: Kind::Flowbay,
            against: vec![Kind::Tungstenite],
        }
    }
}

/// One figure per round, for one server.
#[derive(Default)]
struct Figures {
    messages_per_second: Vec<f64>,
    cpu_micros: Vec<f64>,
    load_cpu_micros: Vec<f64>,
    p50_micros: Vec<f64>,
    p99_micros: Vec<f64>,
}

/// Measures and prints; returns the verdicts if this is a case that has bars.
///
/// # Errors
/// A server fails, or a reply is wrong or missing.
pub fn run(tools: &Tools, args: &Args) -> Result<Vec<Verdict>, Error> {
    let seconds = args.seconds.unwrap_or(if args.quick { 1.0 } else { 3.0 });
    if !(0.01..=3600.0).contains(&seconds) {
        return Err(Error::Usage(format!("--seconds {seconds} is not between 0.01 and 3600")));
    }
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 5 });
    let kind = if args.binary { "binary" } else { "text" };
    let case =
        format!("{} connections, {} B {kind}, {} in flight", args.connections, args.size, args.in_flight);
    println!("echo: {case}; medians of {rounds} interleaved rounds of {seconds} s\n");

    let servers: Vec<Kind> = [args.subject].into_iter().chain(args.against.iter().copied()).collect();
    let mut figures: Vec<Figures> = servers.iter().map(|_| Figures::default()).collect();
    for _ in 0..rounds {
        for (&server, figures) in servers.iter().zip(&mut figures) {
            round(tools, server, args, Duration::from_secs_f64(seconds), figures)?;
        }
    }
    println!("{}", table(&servers, &figures));
    Ok(verdicts(args, &servers, &figures))
}

/// A fresh process each time: how its memory happens to be laid out is part of the noise.
fn round(
    tools: &Tools,
    kind: Kind,
    args: &Args,
    measured: Duration,
    figures: &mut Figures,
) -> Result<(), Error> {
    let server = tools.start(kind, Flow::Echo, 0)?;
    let load = Load {
        addr: server.addr(),
        path: crate::connect::ECHO_PATH.to_owned(),
        connections: args.connections as usize,
        size: args.size as usize,
        binary: args.binary,
        in_flight: args.in_flight as usize,
        warm_up: measured.mul_f64(0.2).min(Duration::from_millis(500)),
        measured,
    };
    let mut samples = Vec::new();
    let outcome = load::run(&load, || {
        samples.push((server.cpu()?, CpuSample::take(std::process::id())?));
        Ok(())
    })
    .map_err(|error| match error {
        Error::Peer(what) => server.failed(format!("failed under load: {what}")),
        other => other,
    })?;
    let [(server_begin, own_begin), (server_end, own_end)] = samples.as_slice() else {
        return Err(Error::Peer("the load ended before it was measured".into()));
    };
    if outcome.messages == 0 {
        return Err(server.failed("answered nothing in the time measured"));
    }
    let messages = outcome.messages as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    figures.messages_per_second.push(messages / outcome.elapsed.as_secs_f64());
    figures.cpu_micros.push(micros(server_end.since(server_begin)) / messages);
    figures.load_cpu_micros.push(micros(own_end.since(own_begin)) / messages);
    figures.p50_micros.push(micros(outcome.latency.percentile(50.0)));
    figures.p99_micros.push(micros(outcome.latency.percentile(99.0)));
    Ok(())
}

fn table(servers: &[Kind], figures: &[Figures]) -> Table {
    let mut table =
        Table::new(&["server", "msgs/s", "server CPU µs/msg", "p50 µs", "p99 µs", "load CPU µs/msg"]);
    for (server, figures) in servers.iter().zip(figures) {
        table.row([
            server.name().to_owned(),
            format!("{:.0}", median(&figures.messages_per_second)),
            format!("{:.2}", median(&figures.cpu_micros)),
            format!("{:.0}", median(&figures.p50_micros)),
            format!("{:.0}", median(&figures.p99_micros)),
            format!("{:.2}", median(&figures.load_cpu_micros)),
        ]);
    }
    let [subject, others @ ..] = figures else { return table };
    for (server, other) in servers[1..].iter().zip(others) {
        let ratio =
            |figure: fn(&Figures) -> &[f64]| format!("{:.3}×", paired_ratio(figure(subject), figure(other)));
        table.row([
            format!("{} / {}", servers[0].name(), server.name()),
            ratio(|figures| &figures.messages_per_second),
            ratio(|figures| &figures.cpu_micros),
            ratio(|figures| &figures.p50_micros),
            ratio(|figures| &figures.p99_micros),
            String::new(),
        ]);
    }
    table
}

/// The bars of "First figures": 50 connections, 64 bytes, one message in flight, against tokio-tungstenite.
fn verdicts(args: &Args, servers: &[Kind], figures: &[Figures]) -> Vec<Verdict> {
    let is_the_case = (args.connections, args.size, args.in_flight, args.binary) == (50, 64, 1, false);
    let against = (1..servers.len()).find(|&index| servers[index] == Kind::Tungstenite);
    let Some(other) = against.filter(|_| is_the_case && args.subject == Kind::Flowbay) else {
        return Vec::new();
    };
    let verdict = |figure: &str, value: f64, limit: Limit| Verdict {
        figure: format!("echo, 50 connections, 64 B: {figure} against tokio-tungstenite"),
        value,
        limit,
        unit: "×",
    };
    let (subject, other) = (&figures[0], &figures[other]);
    vec![
        verdict(
            "msgs/s",
            paired_ratio(&subject.messages_per_second, &other.messages_per_second),
            Limit::AtLeast(0.85),
        ),
        verdict(
            "server CPU per message",
            paired_ratio(&subject.cpu_micros, &other.cpu_micros),
            Limit::AtMost(1.2),
        ),
    ]
}
