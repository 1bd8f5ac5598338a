//! The commands: `run`, `plugins`, `check`, and the loader's `probe`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    admin,
    cli::{Cli, Command, Sources},
    flow::{FlowFile, FlowGraph, Level, ProcessEnv},
    http::{AdminGuard, Routes, RunningServer, Server},
    loader::{FileState, Loader},
    logging, plugin,
    registry::Registry,
    runtime::Runtime,
    settings::Settings,
    watcher::Watcher,
};

/// Carries out the command line. Errors are one line on standard error and exit code 1.
pub fn main(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Probe { file } => {
            return u8::try_from(plugin::probe_main(&file)).map_or(ExitCode::FAILURE, ExitCode::from);
        }
        Command::Run { flows, sources } => settings(&sources).and_then(|settings| run(&flows, settings)),
        Command::Plugins { url: None, sources } => settings(&sources).map(|settings| plugins(&settings)),
        Command::Plugins { url: Some(url), sources } => {
            settings(&sources).and_then(|settings| plugins_of(&url, &settings))
        }
        Command::Check { flows, sources } => settings(&sources).and_then(|settings| check(&flows, &settings)),
    };
    match result {
        Ok(code) => code,
        Err(text) => {
            eprintln!("flowbay: {text}");
            ExitCode::FAILURE
        }
    }
}

fn settings(sources: &Sources) -> Result<Settings, String> {
    let settings = sources.settings().map_err(|error| error.to_string())?;
    logging::start(settings.log_format, sources.verbose)?;
    Ok(settings)
}

/// Reads a flow file.
///
/// # Errors
/// One line that names the file.
pub fn read_flows(flows: &Path) -> Result<FlowFile, String> {
    let text = std::fs::read_to_string(flows).map_err(|error| format!("{}: {error}", flows.display()))?;
    FlowFile::parse(&text).map_err(|error| format!("{}: {error}", flows.display()))
}

/// Runs flows until a signal ends the process.
fn run(flows: &Path, settings: Settings) -> Result<ExitCode, String> {
    let loader = Loader::new(&settings);
    let folders = loader.folders().to_vec();
    // Before anything is read: what changes from then on is not missed, and comes to its turn when the flows run.
    let started = Arc::new(OnceLock::new());
    let _watchers = settings.watch.then(|| watch_files(&started, &folders, flows));

    let file = read_flows(flows)?;
    let guard =
        AdminGuard::from_file(settings.admin_token_file.as_deref()).map_err(|error| error.to_string())?;
    let registry = Arc::new(Registry::default());
    let mut tokio = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.worker_threads {
        tokio.worker_threads(threads);
    }
    let tokio = tokio
        .enable_all()
        .thread_name("worker")
        .build()
        .map_err(|error| format!("no threads to run on: {error}"))?;

    let routes = Arc::new(Routes::new());
    // Bound first: a taken port is found before anything starts, and flows that connect to their own listener wait
    // in the backlog instead of being refused.
    let server =
        tokio.block_on(Server::bind(&settings, routes.clone(), guard)).map_err(|error| error.to_string())?;
    let address = server.local_addr();

    loader.load_all(&registry);
    if registry.plugins().is_empty() {
        let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        tracing::warn!("no plugins in {}", folders.join(", "));
    }
    let files = loader.files().clone();
    // Each of the two has its own deadline; this is for when a plugin keeps the threads that those need.
    let patience =
        Duration::from_millis(settings.node_close_timeout_ms.max(settings.shutdown_grace_ms)) + OVERTIME;
    let runtime = Runtime::start(settings, tokio.handle().clone(), routes.clone(), registry.clone(), loader)
        .map_err(|error| format!("no thread to run on: {error}"))?;
    admin::plugins::add_routes(&routes, registry, files, runtime.clone())
        .map_err(|taken| taken.to_string())?;

    runtime.deploy(file);
    let _ = started.set(runtime.clone());
    // `start` spawns the accept loop.
    let entered = tokio.enter();
    let server = server.start();
    drop(entered);
    // Before anybody is told that the host is there: from then on a signal stops it in order.
    let no_signals = |error| format!("cannot wait for signals: {error}");
    let stopping = Stopping::prepare().map_err(no_signals)?;
    tracing::info!("listening on http://{address}");

    let code = stopping.until_stopped(runtime, server, tokio.handle(), patience).map_err(no_signals)?;
    // Not waited for: a plugin may keep a thread, and everything that had to be said is said.
    tokio.shutdown_background();
    Ok(code)
}

/// Has changes to plugin files and to the flow file taken over, once the flows are started. What cannot be watched is
/// said in the log.
fn watch_files(started: &Arc<OnceLock<Runtime>>, folders: &[PathBuf], flows: &Path) -> Vec<Watcher> {
    let runtime = started.clone();
    let plugins = Watcher::start(folders, move |files| runtime.wait().plugin_files_changed(files));
    let (flow_file, runtime) = (flows.to_owned(), started.clone());
    let folder = match flows.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let flows = Watcher::start(&[folder], move |files| {
        if files.iter().any(|file| file.file_name() == flow_file.file_name()) {
            runtime.wait().flow_file_changed(&flow_file);
        }
    });
    [("plugin folders", plugins), ("the flow file", flows)]
        .into_iter()
        .filter_map(|(what, watcher)| {
            watcher.inspect_err(|error| tracing::warn!("changes to {what} are not noticed: {error}")).ok()
        })
        .collect()
}

/// What stopping may take beyond the deadlines that it has.
const OVERTIME: Duration = Duration::from_secs(5);

/// What waits for signals.
///
/// On the main thread, with timers of its own: code of a plugin that blocks may keep all the worker threads, and with
/// them every timer and signal of theirs.
struct Stopping {
    own: tokio::runtime::Runtime,
    signals: Signals,
}

impl Stopping {
    /// From now on signals do not end the process by themselves.
    fn prepare() -> std::io::Result<Self> {
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = own.block_on(async { Signals::new() })?;
        Ok(Self { own, signals })
    }

    /// Waits for a signal, then stops the server and the flows. A second signal, or `patience` passing, ends that.
    fn until_stopped(
        self,
        runtime: Runtime,
        server: RunningServer,
        tokio: &Handle,
        patience: Duration,
    ) -> std::io::Result<ExitCode> {
        let Self { own, mut signals } = self;
        own.block_on(async {
            let signal = signals.next(|| runtime.reload(|| ())).await;
            tracing::info!("{signal}: stopping");
            let (done, stopped) = tokio::sync::oneshot::channel();
            let tokio = tokio.clone();
            std::thread::Builder::new().name("stop".into()).spawn(move || {
                let server = tokio.spawn(server.stop());
                runtime.stop();
                let _ = tokio.block_on(server);
                let _ = done.send(());
            })?;
            tokio::select! {
                _ = stopped => Ok(ExitCode::SUCCESS),
                signal = signals.next(|| ()) => {
                    tracing::warn!("{signal} again: not waiting for what is still at work");
                    Ok(ExitCode::FAILURE)
                }
                () = tokio::time::sleep(patience) => {
                    tracing::warn!("not waiting any longer for what is still at work");
                    Ok(ExitCode::SUCCESS)
                }
            }
        })
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal that ends the process. Until then, SIGHUP calls `on_hangup`.
    async fn next(&mut self, on_hangup: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hangup.recv() => on_hangup(),
            }
        }
    }
}

/// Prints what is in the plugin folders.
fn plugins(settings: &Settings) -> ExitCode {
    let registry = Registry::default();
    let loader = Loader::new(settings);
    loader.load_all(&registry);
    print!("{}", plugin_table(&loader.files().all(), &registry));
    ExitCode::SUCCESS
}

fn plugin_table(files: &BTreeMap<PathBuf, FileState>, registry: &Registry) -> String {
    let plugins: Vec<serde_json::Value> =
        registry.plugins().iter().map(|plugin| admin::plugins::describe(plugin.info())).collect();
    let refused: Vec<String> = files.values().filter_map(|state| state.refused.clone()).collect();
    table(&plugins, &refused)
}

/// Prints what a host that runs uses, and what it refused.
fn plugins_of(url: &str, settings: &Settings) -> Result<ExitCode, String> {
    let token = settings
        .admin_token_file
        .as_ref()
        .map(|file| std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display())))
        .transpose()?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let answer = tokio.block_on(admin::ask::get(url, "/plugins", token.as_deref().map(str::trim)))?;
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let refused: Vec<String> =
        list("refused").iter().filter_map(|file| file["reason"].as_str().map(str::to_owned)).collect();
    print!("{}", table(&list("plugins"), &refused));
    Ok(ExitCode::SUCCESS)
}

/// Plugins as `GET /plugins` lists them, and paragraphs about refused files, as text.
fn table(plugins: &[serde_json::Value], refused: &[String]) -> String {
    let mut rows =
        vec![["FILE", "PLUGIN", "VERSION", "SDK", "ABI", "RUSTC", "NODE TYPES"].map(str::to_owned)];
    for plugin in plugins {
        let text = |key: &str| plugin[key].as_str().unwrap_or_default().to_owned();
        let file = text("file");
        let file =
            Path::new(&file).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let types: Vec<&str> =
            plugin["types"].as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
        rows.push([
            file,
            text("name"),
            text("version"),
            text("sdk"),
            text("abi"),
            text("rustc"),
            types.join(", "),
        ]);
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(table, "{}", cells.join("  ").trim_end());
    }
    for reason in refused {
        let _ = writeln!(table, "\nrefused: {reason}");
    }
    table
}

/// Checks a flow file against the plugins that are there, without starting anything.
fn check(flows: &Path, settings: &Settings) -> Result<ExitCode, String> {
    let file = read_flows(flows)?;
    let registry = Registry::default();
    Loader::new(settings).load_all(&registry);
    let (graph, problems) =
        FlowGraph::build(&file, Arc::new(ProcessEnv::default()), &|node_type: &str| registry.role(node_type));
    let mut bad = false;
    for problem in &problems {
        bad |= problem.level == Level::Error;
        println!("{}: {}: {problem}", flows.display(), problem.level);
    }
    for node_type in graph.required_types().iter().filter(|node_type| registry.get(node_type).is_none()) {
        bad = true;
        println!("{}: error: no plugin has the node type {node_type}", flows.display());
    }
    if bad {
        return Ok(ExitCode::FAILURE);
    }
    println!("{}: {} nodes, no errors", flows.display(), graph.nodes.len());
    Ok(ExitCode::SUCCESS)
}
