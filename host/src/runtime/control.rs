//! The control thread: everything that changes the running flows happens here, one thing at a time.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::{
    Shared, StartError, deploy,
    figures::{Figures, figures},
    inspect::{Inspection, Limits, inspect},
    patience::PatientCaller,
    swap, watch,
};
use crate::{
    credentials::{self, CredentialsFile},
    flow::{FlowFile, FlowGraph, GraphDiff, Layout, Level, ProcessEnv},
    http::Routes,
    loader::{Loader, Place},
    plugin::Plugin,
    registry::Registry,
    settings::Settings,
};

/// Whether flows run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// They run.
    Started,
    /// They wait for node types that no plugin has.
    Waiting(Vec<String>),
}

/// Where the host is between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The flows do not run yet; perhaps they wait for node types.
    Starting,
    /// They run.
    Running,
    /// They are being stopped, or are.
    Stopping,
}

/// The phase, for all threads to see.
#[derive(Default)]
pub struct PhaseCell(AtomicU8);

impl PhaseCell {
    fn set(&self, phase: Phase) {
        // It only goes forward: a deploy that ends while the host is being stopped does not bring it back.
        self.0.fetch_max(phase as u8, Ordering::SeqCst);
    }

    pub fn get(&self) -> Phase {
        match self.0.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Running,
            _ => Phase::Stopping,
        }
    }
}

enum Command {
    Deploy(FlowFile, Map<String, Value>, Sender<State>),
    /// Something happened to these files in the plugin folders.
    PluginFiles(Vec<PathBuf>),
    /// Look at all files in the plugin folders; then tell.
    Reload(Box<dyn FnOnce() + Send>),
    /// The flow file changed.
    FlowFile(PathBuf),
    Stop(Sender<()>),
}

/// The running flows, as the rest of the host sees them. Cloning is cheap.
#[derive(Clone)]
pub struct Runtime {
    commands: Sender<Command>,
    /// Weak: routes of the server hold this, and the runtime holds the routes.
    shared: Weak<Shared>,
}

impl Runtime {
    /// Starts the control thread; no flows yet.
    ///
    /// # Errors
    /// The system has no thread to give, or context cannot be kept as the settings want it.
    pub fn start(
        settings: Settings,
        tokio: Handle,
        routes: Arc<Routes>,
        registry: Arc<Registry>,
        loader: Loader,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new(settings, tokio.clone(), routes, registry)?);
        let stall_deadline = Duration::from_millis(shared.settings.stall_deadline_ms);
        let watched = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || watch::watch(&watched, stall_deadline))?;
        let (commands, received) = channel();
        let seen = Arc::downgrade(&shared);
        let caller = PatientCaller::new(tokio);
        let control =
            Control { shared, caller, loader, wanted: None, credentials: Map::new(), started: false };
        std::thread::Builder::new().name("control".into()).spawn(move || control.run(&received))?;
        Ok(Self { commands, shared: seen })
    }

    /// Makes the flows be those of `file`, with the credentials that are kept beside it. Returns when they are started,
    /// or wait for node types.
    pub fn deploy(&self, file: FlowFile, stored: Map<String, Value>) -> Option<State> {
        let (sender, answer) = channel();
        self.commands.send(Command::Deploy(file, stored, sender)).ok()?;
        answer.recv().ok()
    }

    /// Something happened to these files in the plugin folders.
    pub fn plugin_files_changed(&self, files: BTreeSet<PathBuf>) {
        let _ = self.commands.send(Command::PluginFiles(files.into_iter().collect()));
    }

    /// Looks at all files in the plugin folders and takes over what is new; then calls `done`, on the control thread.
    pub fn reload(&self, done: impl FnOnce() + Send + 'static) {
        let _ = self.commands.send(Command::Reload(Box::new(done)));
    }

    /// The flow file changed: its flows are to run, as a difference from those that do.
    pub fn flow_file_changed(&self, file: &Path) {
        let _ = self.commands.send(Command::FlowFile(file.to_owned()));
    }

    /// Whether flows run.
    pub fn phase(&self) -> Phase {
        self.shared.upgrade().map_or(Phase::Stopping, |shared| shared.phase.get())
    }

    /// What the nodes are doing; `None` when the runtime has ended.
    pub fn figures(&self) -> Option<Figures> {
        self.shared.upgrade().map(|shared| figures(&shared))
    }

    /// What nodes, mailboxes and connections are doing; `None` when the runtime has ended.
    pub fn inspect(&self, limits: Limits) -> Option<Inspection> {
        self.shared.upgrade().map(|shared| inspect(&shared, limits))
    }

    /// Stops all flows and waits for it, within the node close timeout.
    pub fn stop(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.phase.set(Phase::Stopping);
        }
        let (sender, answer) = channel();
        if self.commands.send(Command::Stop(sender)).is_ok() {
            let _ = answer.recv();
        }
    }
}

/// How long the end of the flows may wait for a terminal to show what they printed.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(500);
/// How long it may wait for a disk to take the context.
const CONTEXT_PATIENCE: Duration = Duration::from_secs(4);

struct Control {
    shared: Arc<Shared>,
    caller: PatientCaller,
    loader: Loader,
    /// The flows that should run.
    wanted: Option<FlowFile>,
    /// The credentials beside the flow file, as they were last read.
    credentials: Map<String, Value>,
    /// Whether flows run: a type that goes missing later does not stop them.
    started: bool,
}

impl Control {
    fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Deploy(file, stored, answer) => {
                    self.wanted = Some(file.with_stored_credentials(stored.clone()));
                    self.credentials = stored;
                    let _ = answer.send(self.deploy());
                }
                Command::PluginFiles(files) => self.take_over(Some(&files)),
                Command::Reload(done) => {
                    self.take_over(None);
                    done();
                }
                Command::FlowFile(file) => self.redeploy(&file),
                Command::Stop(answer) => {
                    tracing::info!("stopping flows");
                    deploy::stop(&self.shared);
                    if !self.shared.context.flush(CONTEXT_PATIENCE) {
                        tracing::error!("context that changed last is not in its files");
                    }
                    self.shared.console.flush(OUTPUT_PATIENCE);
                    self.started = false;
                    self.wanted = None;
                    tracing::info!("stopped flows");
                    let _ = answer.send(());
                }
            }
        }
    }

    /// Brings what is new in the plugin folders into use.
    fn take_over(&mut self, files: Option<&[PathBuf]>) {
        let mut types_changed = false;
        for plugin in self.loader.examine(files, &self.shared.registry) {
            // Asked for each in its turn: two of the files may have plugins of one name.
            types_changed |= match self.loader.place(&plugin, &self.shared.registry) {
                Place::Free => self.loader.add(plugin, &self.shared.registry),
                Place::Of(old) => self.swap(old, plugin),
                Place::None => false,
            };
        }
        if types_changed && self.wanted.is_some() {
            self.deploy();
        }
    }

    /// Swaps newer code in; whether there are other node types now than before.
    fn swap(&mut self, old: Arc<Plugin>, new: Arc<Plugin>) -> bool {
        let (name, file) = (new.info().name.clone(), new.info().file.clone());
        let old_file = old.info().file.clone();
        let versions = format!("{name} {} → {}", old.info().version, new.info().version);
        match swap::swap(&self.shared, &mut self.caller, old, &new) {
            Ok(swapped) => {
                let generation = self.shared.swaps.done(&name, swapped.took, swapped.held);
                self.shared.numbers.note(new.info().generation, generation);
                self.loader.replaced(&old_file, &new);
                let left_behind = match swapped.left_behind {
                    0 => String::new(),
                    left => format!(" ({left} stay with the old code until they end)"),
                };
                let missing = match swapped.missing {
                    0 => String::new(),
                    missing => format!(", {missing} nodes lost their type"),
                };
                tracing::info!(
                    "{versions} (generation {generation}): {} nodes, {} connections moved in {} ms{left_behind}{missing}, {}",
                    swapped.nodes,
                    swapped.connections,
                    swapped.took.as_millis(),
                    if swapped.unloaded { "old code unloaded" } else { "old code still in use" }
                );
                tracing::debug!(
                    "{name}: messages were held for {} µs; 99 of 100 connections were between the two for {} µs or \
                     less, the longest for {} µs",
                    swapped.held.as_micros(),
                    swapped.away.0.as_micros(),
                    swapped.away.1.as_micros()
                );
                // A node that the old code could not create is given another chance.
                swapped.new_types || swapped.missing > 0 || self.has_absent_nodes_of(&name)
            }
            Err(undone) => {
                self.shared.swaps.undone(&name);
                let reason = format!("{}: {versions}: the old code goes on: {undone}", file.display());
                self.loader.files().refuse(&file, reason);
                false
            }
        }
    }

    /// Whether nodes of a plugin's types are in the flows and do not run.
    fn has_absent_nodes_of(&self, plugin: &str) -> bool {
        let Some(plugin) = self.shared.registry.plugin(plugin) else { return false };
        let graph = self.shared.graph.load();
        graph
            .nodes
            .iter()
            .any(|node| plugin.info().has_type(&node.node_type) && self.shared.node(&node.id).is_none())
    }

    /// Deploys the flow file as it is now; one that is broken changes nothing.
    fn redeploy(&mut self, path: &Path) {
        let file = match crate::run::read_flows(path) {
            Ok(file) => file,
            Err(text) => {
                tracing::error!("the flows stay as they are: {text}");
                return;
            }
        };
        match credentials::stored(path, &self.shared.settings) {
            Ok(stored) => self.credentials = stored,
            Err(error) => tracing::error!("the credentials stay as they are: {error}"),
        }
        let file = file.with_stored_credentials(self.credentials.clone());
        let same_flows = |wanted: &FlowFile| wanted.to_json(Layout::Compact) == file.to_json(Layout::Compact);
        let same_flows = self.wanted.as_ref().is_some_and(same_flows);
        if same_flows && self.wanted.as_ref().is_some_and(|wanted| wanted.credentials() == file.credentials())
        {
            return;
        }
        let changed = if same_flows { CredentialsFile::path_for(path) } else { path.to_owned() };
        tracing::info!("{} has changed", changed.display());
        self.wanted = Some(file);
        self.deploy();
    }

    fn deploy(&mut self) -> State {
        let Some(file) = self.wanted.clone() else { return State::Started };
        let registry = self.shared.registry.clone();
        let roles = |node_type: &str| registry.role(node_type);
        let (graph, problems) = FlowGraph::build(&file, Arc::new(ProcessEnv::default()), &roles);
        let missing: Vec<String> = graph
            .required_types()
            .iter()
            .filter(|node_type| registry.get(node_type).is_none())
            .cloned()
            .collect();
        self.shared.missing_types.store(Arc::new(missing.clone()));
        if !missing.is_empty() && !self.started {
            tracing::info!("Waiting for missing types to be registered:");
            for node_type in &missing {
                tracing::info!(" - {node_type}");
            }
            return State::Waiting(missing);
        }
        for problem in &problems {
            match problem.level {
                Level::Error => tracing::error!("{problem}"),
                Level::Warning => tracing::warn!("{problem}"),
            }
        }
        for line in credentials::undeclared(&graph, &registry) {
            tracing::warn!("{line}");
        }
        tracing::info!("starting flows");
        let diff = GraphDiff::between(&self.shared.graph.load(), &graph);
        let deployed = deploy::apply(&self.shared, &mut self.caller, Arc::new(graph), &diff);
        self.started = true;
        self.shared.phase.set(Phase::Running);
        match deployed.failed {
            0 => tracing::info!("started flows: {} nodes", deployed.running),
            failed => {
                tracing::warn!("started flows: {} nodes, {failed} could not be created", deployed.running)
            }
        }
        State::Started
    }
}
