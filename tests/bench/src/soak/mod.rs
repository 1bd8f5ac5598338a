//! Swaps plugins of a running host for newer builds, again and again, under a load that notices everything.
//!
//! Reading order: `run` here says what is done; `host` runs the host in a folder of its own and follows its log;
//! `rounds` makes the builds and puts them in place; `idle` is the case of many connections that rest; `bad` the one
//! of builds that must be refused.

mod bad;
mod host;
mod idle;
mod rounds;

use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use flowbay_tests::harness::Certificate;
use flowbay_tests::load::{EchoTimes, Load, Mode, Plan, tls};
use serde_json::{Value, json};

use crate::child::fd_limit;
use crate::error::Error;
use crate::report::{Limit, Table, Verdict, median, megabytes};
use crate::servers::Tools;
use host::{Sample, SoakHost};
use rounds::{Round, Rounds};

/// What is swapped, how often, and under what.
#[derive(clap::Args, Clone)]
pub struct Args {
    /// Connections that are busy all the time.
    #[arg(long, default_value_t = 200)]
    pub clients: usize,
    /// Besides them, clients that connect, exchange a few messages and close, again and again.
    #[arg(long, default_value_t = 20)]
    pub come_and_go: usize,
    /// Swaps of each plugin.
    #[arg(long, default_value_t = 200)]
    pub swaps: usize,
    /// Which side of the connections the host is.
    #[arg(long, value_enum, default_value_t = Role::Listener)]
    pub role: Role,
    /// Plugins that are swapped: websocket, core, bad-node (which makes thread-local values on the host's threads).
    #[arg(long, value_delimiter = ',', default_value = "websocket")]
    pub plugins: Vec<String>,
    /// How the host comes to know of a new build.
    #[arg(long, value_enum, default_value_t = By::Watch)]
    pub by: By,
    /// Milliseconds between the end of a swap and the next build.
    #[arg(long, default_value_t = 200)]
    pub interval_ms: u64,
    /// Seconds of the same load without swaps, before, to compare with.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Mean pause, in milliseconds, between two writes on a connection: less is more load.
    #[arg(long, default_value_t = 20)]
    pub pause_ms: u64,
    /// Most bytes of a message; the least is 16.
    #[arg(long, default_value_t = 100_000)]
    pub largest: usize,
    /// Instead of a load: so many connections at rest, and ten that look how long echoes take.
    #[arg(long, value_name = "CONNECTIONS")]
    pub idle: Option<usize>,
    /// Instead of good builds: so many bad ones, of every kind.
    #[arg(long, value_name = "BUILDS")]
    pub bad: Option<usize>,
}

/// Which side of the connections the host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Clients connect to it.
    Listener,
    /// Clients connect to it by TLS. (Only with `--by watch`.)
    TlsListener,
    /// It connects to a server.
    Client,
    /// It connects to a server by TLS.
    TlsClient,
}

/// How the host comes to know of a new build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// It watches the folder.
    Watch,
    /// It is asked to look, by HTTP.
    Reload,
}

/// Files that a process has open besides its connections.
const SPARE_FILES: usize = 100;
/// How long all connections may take to open.
const OPENING: Duration = Duration::from_secs(60);

/// Runs the soak and prints what came of it.
///
/// # Errors
/// Anything was lost or went wrong: the text says what.
pub fn run(tools: &Tools, args: &Args) -> Result<Vec<Verdict>, Error> {
    let connections = args.idle.unwrap_or(args.clients + args.come_and_go);
    if (connections + SPARE_FILES) as u64 > fd_limit() {
        return Err(Error::Usage(format!(
            "{connections} connections need more open files than the limit allows ({}); raise it with ulimit -n",
            fd_limit()
        )));
    }
    eprintln!("building other builds of the plugins");
    let rounds = Rounds::make(tools, &args.plugins)?;
    match (args.idle, args.bad) {
        (Some(connections), _) => idle::run(tools, args, rounds, connections),
        (None, Some(builds)) => bad::run(tools, args, &rounds, builds),
        (None, None) => busy(tools, args, rounds),
    }
}

/// A host under load, all of whose connections are open.
fn start(tools: &Tools, args: &Args, rounds: &Rounds) -> Result<(SoakHost, Load), Error> {
    let starting = || Error::io("starting the load");
    let plan = |mut plan: Plan| {
        plan.pause = Duration::from_millis(args.pause_ms);
        plan.sizes.1 = args.largest;
        plan
    };
    let (host, load) = match args.role {
        Role::Listener | Role::TlsListener => {
            let certificate = Certificate::First;
            let (chain, key) = certificate.files();
            let tls = [("FLOWBAY_TLS_CERT", chain.as_path()), ("FLOWBAY_TLS_KEY", key.as_path())];
            let with_tls = args.role == Role::TlsListener;
            let variables = if with_tls { &tls[..] } else { &[] };
            let host = SoakHost::start(tools, rounds, &listener_flow(), args.by, variables)?;
            let paths = [("/echo", Mode::Payload), ("/echo", Mode::Payload), ("/whole", Mode::Whole)];
            let mut plan = plan(Plan::clients(host.addr(), &paths, args.clients));
            plan.come_and_go = args.come_and_go;
            plan.client_tls = with_tls.then(|| certificate.trusted());
            let load = Load::start(plan).map_err(starting())?;
            (host, load)
        }
        Role::Client | Role::TlsClient => {
            let with_tls = args.role == Role::TlsClient;
            let config = with_tls.then(tls::server_config);
            let load = Load::start(plan(Plan::server(args.clients, config))).map_err(starting())?;
            let scheme = if with_tls { "wss" } else { "ws" };
            let url = format!("{scheme}://localhost:{}/", load.address().port());
            let folder = tempfile::tempdir().map_err(Error::io("making a temporary folder"))?;
            let roots = flowbay_tests::harness::test_root_file(folder.path());
            let variables = [("SSL_CERT_FILE", roots.as_path())];
            (SoakHost::start(tools, rounds, &client_flow(&url, args.clients), args.by, &variables)?, load)
        }
    };
    let begin = Instant::now();
    while load.open() < args.clients {
        if begin.elapsed() > OPENING {
            return Err(host.failed(format!("{} of {} connections are open", load.open(), args.clients)));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok((host, load))
}

fn busy(tools: &Tools, args: &Args, mut rounds: Rounds) -> Result<Vec<Verdict>, Error> {
    let listens = matches!(args.role, Role::Listener | Role::TlsListener);
    let come_and_go = if listens { args.come_and_go } else { 0 };
    println!(
        "soak: {} {} connections, {} that come and go, messages of 16 to {} B, {} swaps of {}\n",
        args.clients,
        args.role.name(),
        come_and_go,
        args.largest,
        args.swaps,
        args.plugins.join(", ")
    );
    let (mut host, load) = start(tools, args, &rounds)?;
    thread::sleep(Duration::from_secs(args.seconds));
    let still = load.take_times().unwrap_or_default();
    let before = host.sample()?;
    let mut done: Vec<Round> = Vec::new();
    let mut tenth: Option<Sample> = None;
    let begin = Instant::now();
    for number in 0..args.swaps {
        done.extend(rounds.next(&mut host)?);
        load.swapped();
        if number == 9.min(args.swaps - 1) {
            tenth = Some(host.sample()?);
        }
        if (number + 1) % 50 == 0 {
            eprintln!("{} swaps, {} echoes", number + 1, load.echoed());
        }
        thread::sleep(Duration::from_millis(args.interval_ms));
    }
    let took = begin.elapsed();
    let swapping = load.take_times().unwrap_or_default();
    // Still under load, as the others were.
    host.wait_for_one_generation()?;
    let last = host.sample()?;
    let tally = load.stop();
    let tenth = tenth.unwrap_or(last.clone());

    println!("{tally}\n");
    println!("{}", echo_table(&still, args.seconds, &swapping, took));
    println!("{}", swap_table(&done, args.clients + come_and_go));
    let mut process = Table::new(&["host", "before", "tenth swap", "last swap"]);
    for (what, pick) in [
        ("RSS, MB", Sample::megabytes as fn(&Sample) -> String),
        ("threads", |sample| sample.threads.to_string()),
        ("open files", |sample| sample.files.to_string()),
        ("generations mapped", |sample| sample.generations.to_string()),
    ] {
        process.row([what.to_owned(), pick(&before), pick(&tenth), pick(&last)]);
    }
    println!("{process}");
    let stayed = done.iter().filter(|round| !round.unloaded).count();
    println!("{} swaps whose old code was not unloaded at once\n", stayed);
    let code = host.stop()?;

    let mut verdicts = vec![
        Verdict {
            figure: "memory gained from the tenth swap to the last".into(),
            value: (last.memory as f64 - tenth.memory as f64) / 1e6,
            limit: Limit::AtMost(2.0),
            unit: "MB",
        },
        Verdict {
            figure: "threads gained".into(),
            value: last.threads as f64 - tenth.threads as f64,
            limit: Limit::AtMost(0.0),
            unit: "",
        },
        Verdict {
            figure: "generations of each plugin mapped at the end".into(),
            value: last.generations as f64 / last.plugins.max(1) as f64,
            limit: Limit::AtMost(1.0),
            unit: "",
        },
        Verdict {
            figure: format!("detach to attach of {} busy connections, p99", args.clients),
            // Of the 99 of 100 in each swap, the 99 of 100 swaps.
            value: percentile(&millis(&done, |round| round.away.0), 99.0),
            limit: Limit::AtMost(10.0),
            unit: "ms",
        },
    ];
    if args.by == By::Watch {
        verdicts.push(Verdict {
            figure: "last write to new code serving, median".into(),
            value: median(&millis(&done, |round| round.noticed)),
            limit: Limit::AtMost(350.0),
            unit: "ms",
        });
    }
    if !tally.is_perfect() {
        return Err(Error::Peer("the load went wrong: see above".into()));
    }
    if code != Some(0) {
        return Err(Error::Peer(format!("the host ended with code {code:?}")));
    }
    Ok(verdicts)
}

fn millis(rounds: &[Round], pick: impl Fn(&Round) -> Duration) -> Vec<f64> {
    rounds.iter().map(|round| pick(round).as_secs_f64() * 1e3).collect()
}

fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// How long echoes took, without swaps and with them.
fn echo_table(still: &EchoTimes, seconds: u64, swapping: &EchoTimes, took: Duration) -> Table {
    let mut table = Table::new(&["echo", "messages/s", "median ms", "p99 ms", "p99.9 ms", "longest ms"]);
    for (what, times, seconds) in
        [("without swaps", still, seconds as f64), ("with swaps", swapping, took.as_secs_f64())]
    {
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        table.row([
            what.to_owned(),
            format!("{:.0}", times.count() as f64 / seconds.max(0.001)),
            ms(times.percentile(50.0)),
            ms(times.percentile(99.0)),
            ms(times.percentile(99.9)),
            ms(times.longest()),
        ]);
    }
    table
}

/// How long swaps took: the host's own figure, and the time from the last write to the line in the log.
fn swap_table(rounds: &[Round], clients: usize) -> Table {
    let mut table = Table::new(&["swap", "count", "median ms", "p99 ms", "longest ms"]);
    let mut row = |what: &str, values: &[f64]| {
        table.row([
            what.to_owned(),
            values.len().to_string(),
            format!("{:.1}", median(values)),
            format!("{:.1}", percentile(values, 99.0)),
            format!("{:.1}", percentile(values, 100.0)),
        ]);
    };
    row("hold to last moved", &millis(rounds, |round| round.took));
    row("hold to messages flowing", &millis(rounds, |round| round.held));
    row("a connection, told to attached (99 of 100)", &millis(rounds, |round| round.away.0));
    row("a connection, told to attached (longest)", &millis(rounds, |round| round.away.1));
    row("last write to log line", &millis(rounds, |round| round.noticed));
    let moved: Vec<f64> = rounds.iter().map(|round| round.connections as f64).collect();
    row(&format!("connections moved (of {clients}), not ms"), &moved);
    table
}

/// Two listeners that send back what they get, by a node with thread-local values, and that tell all their clients a
/// number ten times a second.
fn listener_flow() -> Value {
    let mut nodes = vec![json!({ "id": "tab", "type": "tab", "label": "Soak" })];
    for (path, whole) in [("echo", "false"), ("whole", "true")] {
        nodes.extend([
            json!({ "id": path, "type": "websocket-listener", "path": format!("/{path}"), "wholemsg": whole }),
            json!({ "id": format!("{path}-in"), "type": "websocket in", "z": "tab", "server": path,
                    "wires": [[format!("{path}-tls")]] }),
            json!({ "id": format!("{path}-tls"), "type": "uses-tls", "z": "tab",
                    "wires": [[format!("{path}-junction")]] }),
            json!({ "id": format!("{path}-junction"), "type": "junction", "z": "tab",
                    "wires": [[format!("{path}-out")]] }),
            json!({ "id": format!("{path}-out"), "type": "websocket out", "z": "tab", "server": path, "wires": [] }),
        ]);
    }
    nodes.extend([
        json!({ "id": "clock", "type": "inject", "z": "tab", "repeat": "0.1", "topic": "tick",
                "props": [{ "p": "topic", "vt": "str" }], "wires": [["number"]] }),
        json!({ "id": "number", "type": "counter", "z": "tab", "wires": [["tell"]] }),
        json!({ "id": "tell", "type": "change", "z": "tab", "wires": [["echo-out", "whole-out"]],
                "rules": [{ "t": "set", "p": "payload", "pt": "msg", "to": "count", "tot": "msg" }] }),
    ]);
    Value::Array(nodes)
}

/// So many clients that send back what they get.
fn client_flow(url: &str, clients: usize) -> Value {
    let mut nodes = vec![json!({ "id": "tab", "type": "tab", "label": "Soak" })];
    for number in 0..clients {
        let client = format!("client{number}");
        nodes.extend([
            json!({ "id": client, "type": "websocket-client", "path": url, "wholemsg": "false" }),
            json!({ "id": format!("in{number}"), "type": "websocket in", "z": "tab", "client": client,
                    "wires": [[format!("tls{number}")]] }),
            json!({ "id": format!("tls{number}"), "type": "uses-tls", "z": "tab",
                    "wires": [[format!("forget{number}")]] }),
            // A message with a session is a reply, which a client drops.
            json!({ "id": format!("forget{number}"), "type": "change", "z": "tab",
                    "rules": [{ "t": "delete", "p": "_session", "pt": "msg" }],
                    "wires": [[format!("out{number}")]] }),
            json!({ "id": format!("out{number}"), "type": "websocket out", "z": "tab", "client": client, "wires": [] }),
        ]);
    }
    Value::Array(nodes)
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Listener => "listener",
            Role::TlsListener => "TLS listener",
            Role::Client => "client",
            Role::TlsClient => "TLS client",
        }
    }
}

impl Sample {
    fn megabytes(&self) -> String {
        megabytes(self.memory)
    }
}
