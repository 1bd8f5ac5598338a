//! The control thread: everything that changes the running flows happens here, one thing at a time.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use tokio::runtime::Handle;

use super::{Shared, deploy, patience::PatientCaller, watch};
use crate::{
    flow::{FlowFile, FlowGraph, GraphDiff, Level, ProcessEnv},
    http::Routes,
    loader::Loader,
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
    PluginFiles(Vec<PathBuf>),
    Stop(Sender<()>),
}

/// The running flows, as the rest of the host sees them.
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
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || Control { shared, caller, loader, wanted: None, started: false }.run(&received))?;
        Ok(Self { commands })
    }

    /// Makes the flows be those of `file`. Returns when they are started, or wait for node types.
    pub fn deploy(&self, file: FlowFile) -> Option<State> {
        let (sender, answer) = channel();
        self.commands.send(Command::Deploy(file, sender)).ok()?;
        answer.recv().ok()
    }

    /// Something happened to these files in the plugin folders.
    pub fn plugin_files_changed(&self) -> impl FnMut(std::collections::BTreeSet<PathBuf>) + Send + 'static {
        let commands = self.commands.clone();
        move |paths| {
            let _ = commands.send(Command::PluginFiles(paths.into_iter().collect()));
        }
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
}

impl Control {
    fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Deploy(file, answer) => {
                    self.wanted = Some(file);
                    let _ = answer.send(self.deploy());
                }
                Command::PluginFiles(paths) => {
                    if self.loader.load_new(&paths, &self.shared.registry)
                        && !self.started
                        && self.wanted.is_some()
                    {
                        self.deploy();
                    }
                }
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
