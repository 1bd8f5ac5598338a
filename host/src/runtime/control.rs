//! The control thread: everything that changes the running flows happens here, one thing at a time.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use tokio::runtime::Handle;

use super::{Shared, deploy, patience::PatientCaller, swap, watch};
use crate::{
    flow::{FlowFile, FlowGraph, GraphDiff, Layout, Level, ProcessEnv},
    http::Routes,
    loader::{Found, Loader},
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

enum Command {
    Deploy(FlowFile, Sender<State>),
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
}

impl Runtime {
    /// Starts the control thread; no flows yet.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(
        settings: Settings,
        tokio: Handle,
        routes: Arc<Routes>,
        registry: Arc<Registry>,
        loader: Loader,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(settings, tokio.clone(), routes, registry)?);
        let stall_deadline = Duration::from_millis(shared.settings.stall_deadline_ms);
        tokio.spawn(watch::watch(Arc::downgrade(&shared), stall_deadline));
        let (commands, received) = channel();
        let caller = PatientCaller::new(tokio);
        let control =
            Control { shared, caller, loader, wanted: None, started: false, generations: HashMap::new() };
        std::thread::Builder::new().name("control".into()).spawn(move || control.run(&received))?;
        Ok(Self { commands })
    }

    /// Makes the flows be those of `file`. Returns when they are started, or wait for node types.
    pub fn deploy(&self, file: FlowFile) -> Option<State> {
        let (sender, answer) = channel();
        self.commands.send(Command::Deploy(file, sender)).ok()?;
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

    /// Stops all flows and waits for it, within the node close timeout.
    pub fn stop(&self) {
        let (sender, answer) = channel();
        if self.commands.send(Command::Stop(sender)).is_ok() {
            let _ = answer.recv();
        }
    }
}

/// How long the end of the flows may wait for a terminal to show what they printed.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(500);

struct Control {
    shared: Arc<Shared>,
    caller: PatientCaller,
    loader: Loader,
    /// The flows that should run.
    wanted: Option<FlowFile>,
    /// Whether flows run: a type that goes missing later does not stop them.
    started: bool,
    /// How often each plugin was loaded, by name.
    generations: HashMap<String, u64>,
}

impl Control {
    fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Deploy(file, answer) => {
                    self.wanted = Some(file);
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
        for Found { plugin, replaces } in self.loader.examine(files, &self.shared.registry) {
            types_changed |= match replaces {
                None => self.loader.add(plugin, &self.shared.registry),
                Some(old) => self.swap(old, plugin),
            };
        }
        if types_changed && self.wanted.is_some() {
            self.deploy();
        }
    }

    /// Swaps newer code in; whether there are other node types now than before.
    fn swap(&mut self, old: Arc<Plugin>, new: Arc<Plugin>) -> bool {
        let (name, file) = (new.info().name.clone(), new.info().file.clone());
        let versions = format!("{name} {} → {}", old.info().version, new.info().version);
        match swap::swap(&self.shared, &mut self.caller, old, &new) {
            Ok(swapped) => {
                let generation = self.generations.entry(name.clone()).or_insert(1);
                *generation += 1;
                self.loader.files().accept(&file, &name);
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
        let same = |wanted: &FlowFile| wanted.to_json(Layout::Compact) == file.to_json(Layout::Compact);
        if self.wanted.as_ref().is_some_and(same) {
            return;
        }
        tracing::info!("{} has changed", path.display());
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
        tracing::info!("starting flows");
        let diff = GraphDiff::between(&self.shared.graph.load(), &graph);
        self.shared.file.store(Arc::new(file));
        let deployed = deploy::apply(&self.shared, &mut self.caller, Arc::new(graph), &diff);
        self.started = true;
        match deployed.failed {
            0 => tracing::info!("started flows: {} nodes", deployed.running),
            failed => {
                tracing::warn!("started flows: {} nodes, {failed} could not be created", deployed.running)
            }
        }
        State::Started
    }
}
