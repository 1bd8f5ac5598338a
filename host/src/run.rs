//! The commands: `run`, `plugins`, `status`, `check`, `credentials`, and the loader's `probe`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
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
    admin::{self, ask::Host, table::aligned},
    cli::{Cli, Command, Sources},
    credentials::{self, CredentialsFile, RUNTIME_FILES},
    explain::Explainer,
    flow::{FlowFile, FlowGraph, Level, ProcessEnv},
    http::{AdminGuard, Routes, RunningServer, Server, ServerTls},
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
        Command::Plugins { url: Some(url), sources, .. } => {
            settings(&sources).and_then(|settings| plugins_of(&url, &settings))
        }
        Command::Plugins { files, sources, .. } if files.is_empty() => {
            settings(&sources).map(|settings| plugins(&settings))
        }
        Command::Plugins { files, sources, .. } => {
            settings(&sources).map(|settings| explain(&files, &settings))
        }
        Command::New { path, sdk } => new_plugin(&path, sdk.as_deref()),
        Command::Status { url, json, sources } => {
            settings(&sources).and_then(|settings| status(url.as_deref(), json, &settings))
        }
        Command::Credentials(command) => settings(command.sources())
            .and_then(|settings| credentials::command::run(&command, &settings).map(|()| ExitCode::SUCCESS)),
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

/// Writes a new plugin and says what to do with it.
fn new_plugin(path: &Path, sdk: Option<&Path>) -> Result<ExitCode, String> {
    crate::new::new(path, sdk)?;
    let path = path.display();
    println!(
        "{path} is there. Next:
    cd {path}
    cargo test
    cargo build --release
    flowbay run flow.json --plugins target/release"
    );
    Ok(ExitCode::SUCCESS)
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
    let no_signals = |error| format!("cannot wait for signals: {error}");
    // Before anything else: whoever asks for a reload while the host starts does not end it.
    let hangups = Hangups::prepare().map_err(no_signals)?;
    let loader = Loader::new(&settings);
    let folders = loader.folders().to_vec();
    // Before anything is read: what changes from then on is not missed, and comes to its turn when the flows run.
    let started = Arc::new(OnceLock::new());
    let _watchers = settings.watch.then(|| watch_files(&started, &folders, flows));

    let file = read_flows(flows)?;
    credentials::check_secret(&settings).map_err(|error| error.to_string())?;
    let stored = credentials::stored(flows, &settings).unwrap_or_else(|error| {
        tracing::error!("the flows start without credentials: {error}");
        serde_json::Map::new()
    });
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
    let (url, tls) = (server.url(), server.tls());
    let _tls_watcher = tls.as_ref().filter(|_| settings.watch).and_then(watch_certificate);

    loader.load_all(&registry);
    if registry.plugins().is_empty() {
        let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        tracing::warn!("no plugins in {}", folders.join(", "));
    }
    let files = loader.files().clone();
    // Each of the two has its own deadline; this is for when a plugin keeps the threads that those need.
    let patience =
        Duration::from_millis(settings.node_close_timeout_ms.max(settings.shutdown_grace_ms)) + OVERTIME;
    let max_connections = settings.max_connections;
    let runtime = Runtime::start(settings, tokio.handle().clone(), routes.clone(), registry.clone(), loader)
        .map_err(|error| error.to_string())?;
    admin::plugins::add_routes(&routes, registry, files.clone(), runtime.clone())
        .and_then(|()| admin::runtime::add_route(&routes, runtime.clone(), files))
        .and_then(|()| admin::metrics::add_route(&routes, runtime.clone(), server.places(), max_connections))
        .and_then(|()| admin::health::add_route(&routes, runtime.clone()))
        .map_err(|taken| taken.to_string())?;

    runtime.deploy(file, stored);
    let _ = started.set(runtime.clone());
    // `start` spawns the accept loop.
    let entered = tokio.enter();
    let server = server.start();
    drop(entered);
    // Before anybody is told that the host is there: from then on a signal stops it in order.
    let stopping = Stopping::prepare(hangups).map_err(no_signals)?;
    tracing::info!("listening on {url}");

    let reloading = runtime.clone();
    let on_hangup = move || {
        reloading.reload(|| ());
        if let Some(tls) = &tls {
            tls.reload();
        }
    };
    let code =
        stopping.until_stopped(runtime, server, tokio.handle(), patience, on_hangup).map_err(no_signals)?;
    // Not waited for: a plugin may keep a thread, and everything that had to be said is said.
    tokio.shutdown_background();
    Ok(code)
}

/// Has changes to plugin files, to the flow file and to its credentials taken over, once the flows are started. What
/// cannot be watched is said in the log.
fn watch_files(started: &Arc<OnceLock<Runtime>>, folders: &[PathBuf], flows: &Path) -> Vec<Watcher> {
    let runtime = started.clone();
    let plugins = Watcher::start(folders, move |files| runtime.wait().plugin_files_changed(files));
    let (flow_file, runtime) = (flows.to_owned(), started.clone());
    let folder = match flows.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let credentials = CredentialsFile::path_for(flows);
    let mut names: Vec<OsString> = RUNTIME_FILES.map(OsString::from).into();
    names.extend([flows, &credentials].into_iter().filter_map(|file| file.file_name().map(OsString::from)));
    let flows = Watcher::start(&[folder], move |files| {
        if files.iter().filter_map(|file| file.file_name()).any(|name| names.iter().any(|own| own == name)) {
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

/// Has changes to the server's certificate taken over. `None`, and a line in the log, when it cannot be watched.
fn watch_certificate(tls: &Arc<ServerTls>) -> Option<Watcher> {
    // Whatever happens in those folders: certificates that are mounted or renewed by others often change by way of a
    // link, whose name is not theirs. Looking at them costs little, and nothing comes of it when they are the same.
    let changed = tls.clone();
    let watcher = Watcher::start(&tls.folders(), move |_| changed.reload())
        .inspect_err(|error| tracing::warn!("changes to the TLS certificate are not noticed: {error}"))
        .ok();
    // They may have changed between being read and being watched.
    tls.reload();
    watcher
}

/// What stopping may take beyond the deadlines that it has.
const OVERTIME: Duration = Duration::from_secs(5);

/// What waits for SIGHUP.
///
/// On the main thread, with timers of its own: code of a plugin that blocks may keep all the worker threads, and with
/// them every timer and signal of theirs.
struct Hangups {
    own: tokio::runtime::Runtime,
    hangup: Signal,
}

impl Hangups {
    /// From now on a hangup does not end the process; one that comes is kept until it is waited for.
    fn prepare() -> std::io::Result<Self> {
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let hangup = own.block_on(async { signal(SignalKind::hangup()) })?;
        Ok(Self { own, hangup })
    }
}

/// What waits for all signals.
struct Stopping {
    own: tokio::runtime::Runtime,
    signals: Signals,
}

impl Stopping {
    /// From now on signals do not end the process by themselves.
    fn prepare(Hangups { own, hangup }: Hangups) -> std::io::Result<Self> {
        let signals = own.block_on(async { Signals::new(hangup) })?;
        Ok(Self { own, signals })
    }

    /// Waits for a signal that ends the process (SIGHUP calls `on_hangup`), then stops the server and the flows. A second
    /// signal, or `patience` passing, ends that.
    fn until_stopped(
        self,
        runtime: Runtime,
        server: RunningServer,
        tokio: &Handle,
        patience: Duration,
        on_hangup: impl Fn(),
    ) -> std::io::Result<ExitCode> {
        let Self { own, mut signals } = self;
        own.block_on(async {
            let signal = signals.next(on_hangup).await;
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
    fn new(hangup: Signal) -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
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

/// Prints what is to be said of each file; the exit code says whether all would load.
fn explain(files: &[PathBuf], settings: &Settings) -> ExitCode {
    let explainer = Explainer::new(settings);
    let mut all_load = true;
    for (number, file) in files.iter().enumerate() {
        let explanation = explainer.explain(file);
        all_load &= explanation.loads;
        print!("{}{}", if number > 0 { "\n" } else { "" }, explanation.text);
    }
    if all_load { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plugin_table(files: &BTreeMap<PathBuf, FileState>, registry: &Registry) -> String {
    let plugins: Vec<serde_json::Value> =
        registry.plugins().iter().map(|plugin| admin::plugins::describe(plugin.info())).collect();
    let refused: Vec<String> = files.values().filter_map(|state| state.refused.clone()).collect();
    let overridden: Vec<(String, String)> = files
        .iter()
        .filter_map(|(file, state)| {
            Some((file.display().to_string(), state.overridden.as_ref()?.display().to_string()))
        })
        .collect();
    table(&plugins, &refused, &overridden)
}

/// Prints what a host that runs uses, and what it refused.
fn plugins_of(url: &str, settings: &Settings) -> Result<ExitCode, String> {
    let answer = Host::at(url).get("/plugins", settings)?;
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let refused: Vec<String> =
        list("refused").iter().filter_map(|file| file["reason"].as_str().map(str::to_owned)).collect();
    let text = |file: &serde_json::Value, key: &str| file[key].as_str().unwrap_or_default().to_owned();
    let overridden: Vec<(String, String)> =
        list("overridden").iter().map(|file| (text(file, "file"), text(file, "by"))).collect();
    print!("{}", table(&list("plugins"), &refused, &overridden));
    Ok(ExitCode::SUCCESS)
}

/// Prints what a host that runs is doing. The exit code says whether its flows run.
fn status(url: Option<&str>, as_json: bool, settings: &Settings) -> Result<ExitCode, String> {
    let host = url.map_or_else(|| Host::of(settings), Host::at);
    let answer = host.get("/runtime", settings)?;
    if as_json {
        println!("{answer:#}");
    } else {
        print!("{}", admin::status::text(&answer));
    }
    Ok(if answer["state"] == "running" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plugins as `GET /plugins` lists them, paragraphs about refused files, and files whose plugin another file has, with
/// that one, as text.
fn table(plugins: &[serde_json::Value], refused: &[String], overridden: &[(String, String)]) -> String {
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
    let mut table = aligned(&rows);
    for reason in refused {
        let _ = writeln!(table, "\nrefused: {reason}");
    }
    for (file, by) in overridden {
        let _ = writeln!(table, "\nnot used: {file}: its plugin comes from {by}");
    }
    table
}

/// Checks a flow file against the plugins that are there, without starting anything.
fn check(flows: &Path, settings: &Settings) -> Result<ExitCode, String> {
    let file = read_flows(flows)?;
    let stored = credentials::stored(flows, settings);
    let unreadable = stored.as_ref().err().map(ToString::to_string);
    let file = file.with_stored_credentials(stored.unwrap_or_default());
    let registry = Registry::default();
    Loader::new(settings).load_all(&registry);
    let (graph, problems) =
        FlowGraph::build(&file, Arc::new(ProcessEnv::default()), &|node_type: &str| registry.role(node_type));
    let mut bad = false;
    for problem in &problems {
        bad |= problem.level == Level::Error;
        println!("{}: {}: {problem}", flows.display(), problem.level);
    }
    // No errors of the flow file: where it is checked, the secret may be unknown.
    if let Some(text) = unreadable {
        println!("{}: warning: {text}", flows.display());
    }
    for line in credentials::undeclared(&graph, &registry) {
        println!("{}: warning: {line}", flows.display());
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
