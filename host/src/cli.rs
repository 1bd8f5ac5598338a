//! The command line: which command, and the options that become [`Settings`].

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::settings::{Options, Settings, SettingsError};

/// What the user typed.
#[derive(Clone, Debug, Parser)]
#[command(name = "flowbay", version, arg_required_else_help = true)]
#[command(about = "Runs Node-RED flow files; node types come from plugins", long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the host is asked to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a flow file until Ctrl-C
    Run {
        /// The flow file, as Node-RED writes it
        #[arg(value_name = "FLOWS.json", default_value = "flows.json")]
        flows: PathBuf,
        /// The settings.
        #[command(flatten)]
        sources: Sources,
    },
    /// List the plugins with their node types, or explain files; exits with 1 if one of the files would not load
    Plugins {
        /// Library files to explain: what each is, whether it would load, why not, what to do [default: list the folders]
        #[arg(value_name = "FILE", conflicts_with = "url")]
        files: Vec<PathBuf>,
        /// Ask the host that runs there, and learn what it uses and what it refused
        #[arg(long, value_name = "http://HOST:PORT")]
        url: Option<String>,
        /// The settings.
        #[command(flatten)]
        sources: Sources,
    },
    /// Show what a host that runs is doing; exits with 1 unless its flows run
    Status {
        /// The host to ask [default: the one on this machine, by its settings]
        #[arg(long, value_name = "http://HOST:PORT")]
        url: Option<String>,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
        /// The settings.
        #[command(flatten)]
        sources: Sources,
    },
    /// Check a flow file without starting anything; exits with 1 if it has problems
    Check {
        /// The flow file
        #[arg(value_name = "FLOWS.json")]
        flows: PathBuf,
        /// The settings.
        #[command(flatten)]
        sources: Sources,
    },
    /// Write a small plugin to begin with: a node, its test, a flow that uses it
    New {
        /// The folder to create; its name is the crate's
        #[arg(value_name = "NAME")]
        path: PathBuf,
        /// Build against the SDK in this folder instead of the published one
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
    /// Show and change the credentials of a flow file's nodes
    #[command(subcommand)]
    Credentials(CredentialsCommand),
    /// Load one plugin and exit: what the loader does in a child process before it trusts a file.
    #[command(hide = true)]
    Probe {
        /// The plugin
        file: PathBuf,
    },
}

/// What to do with credentials.
#[derive(Clone, Debug, Subcommand)]
pub enum CredentialsCommand {
    /// Set a field of a node; the value is asked for, or read from standard input
    ///
    /// The value of a field may have several lines on standard input; the end of the last is not part of it. Tabs,
    /// groups and subflows have fields too: their variables of type credential.
    Set {
        /// The flow file; the credentials are beside it, in FLOWS_cred.json
        #[arg(value_name = "FLOWS.json")]
        flows: PathBuf,
        /// The node's id; inside a subflow, its id in the definition
        #[arg(value_name = "NODE-ID")]
        node: String,
        /// The name of the field
        #[arg(value_name = "FIELD")]
        field: String,
        /// The settings.
        #[command(flatten)]
        sources: Sources,
    },
    /// List the nodes with credentials and the names of their fields
    List {
        /// The flow file
        #[arg(value_name = "FLOWS.json")]
        flows: PathBuf,
        /// The settings.
        #[command(flatten)]
        sources: Sources,
    },
    /// Remove a field of a node, or all of them
    Remove {
        /// The flow file
        #[arg(value_name = "FLOWS.json")]
        flows: PathBuf,
        /// The node's id
        #[arg(value_name = "NODE-ID")]
        node: String,
        /// The name of the field
        #[arg(value_name = "FIELD")]
        field: Option<String>,
        /// The settings.
        #[command(flatten)]
        sources: Sources,
    },
}

impl CredentialsCommand {
    /// Where its settings come from.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        match self {
            Self::Set { sources, .. } | Self::List { sources, .. } | Self::Remove { sources, .. } => sources,
        }
    }
}

/// Where a command's settings come from, besides the environment.
#[derive(Clone, Debug, Args)]
pub struct Sources {
    /// Settings file [default: flowbay.toml in the working directory, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Log more: -v for debug, -vv for trace (RUST_LOG says it in detail)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Do not take over changed plugin files and flow files
    #[arg(long, conflicts_with = "watch", help_heading = "Plugins")]
    pub no_watch: bool,

    /// Do not load the plugins that come with the host
    #[arg(long, conflicts_with = "shipped_plugins", help_heading = "Plugins")]
    pub no_shipped_plugins: bool,

    /// Settings given on the command line.
    #[command(flatten)]
    pub options: Options,
}

impl Sources {
    /// The settings that hold, from the command line, this process's environment and the settings file.
    ///
    /// # Errors
    /// See [`Settings::load`].
    pub fn settings(&self) -> Result<Settings, SettingsError> {
        let mut options = self.options.clone();
        if self.no_watch {
            options.watch = Some(false);
        }
        if self.no_shipped_plugins {
            options.shipped_plugins = Some(false);
        }
        Settings::load(options, self.config.as_deref(), |name| std::env::var_os(name))
    }
}

/// What `plugins` and `check` show in their help. They take every setting, since all share one file, but most
/// have no effect there.
const SHOWN_EVERYWHERE: [&str; 5] =
    ["plugins", "shipped_plugins", "log_format", "probe_deadline_ms", "call_deadline_ms"];

const SOURCES_NOTE: &str = "\
Options can also be given in the environment and in flowbay.toml: --log-format json is
FLOWBAY_LOG_FORMAT=json and log_format = \"json\". The command line wins over the environment,
which wins over the file. (-v is for the command line only, --config not for the file.)";

impl Cli {
    /// Reads the process's command line. Prints help, the version or a usage error and exits if that is all.
    #[must_use]
    pub fn from_process() -> Self {
        Self::from_args(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line; the first of `args` is the program's name.
    ///
    /// # Errors
    /// A usage error, or a request for help or the version: clap treats them alike, and [`clap::Error::exit`]
    /// does what each calls for.
    pub fn from_args<A>(args: impl IntoIterator<Item = A>) -> Result<Self, clap::Error>
    where
        A: Into<std::ffi::OsString> + Clone,
    {
        Self::from_arg_matches(&Self::described().try_get_matches_from(args)?)
    }

    /// The parser with what the derive cannot say: defaults in the help (the options have none of their own,
    /// or else a file could not be told from silence) and what to hide where.
    fn described() -> clap::Command {
        let mut command = Self::command();
        command = command.mut_subcommand("run", |run| with_settings(run, Options::NAMES));
        for name in ["plugins", "check"] {
            command = command.mut_subcommand(name, |subcommand| with_settings(subcommand, &SHOWN_EVERYWHERE));
        }
        command =
            command.mut_subcommand("status", |status| with_settings(status, &["port", "admin_token_file"]));
        command.mut_subcommand("credentials", |mut credentials| {
            for name in ["set", "list", "remove"] {
                credentials = credentials.mut_subcommand(name, |subcommand| {
                    with_settings(subcommand, &["credential_secret_file"])
                });
            }
            credentials
        })
    }
}

/// A subcommand whose help has the defaults of settings, and shows only some of these.
fn with_settings(mut subcommand: clap::Command, shown: &[&str]) -> clap::Command {
    for (setting, default) in Options::defaults() {
        subcommand = subcommand.mut_arg(setting, |arg| with_default(arg, &default));
    }
    for setting in Options::NAMES.iter().filter(|setting| !shown.contains(setting)) {
        subcommand = subcommand.mut_arg(setting, |arg| arg.hide(true));
        if ["watch", "shipped_plugins"].contains(setting) {
            subcommand = subcommand.mut_arg(format!("no_{setting}"), |arg| arg.hide(true));
        }
    }
    subcommand.after_long_help(SOURCES_NOTE)
}

fn with_default(arg: clap::Arg, default: &str) -> clap::Arg {
    let add = |text: String| match text.split_once("\n\n") {
        Some((first, rest)) => format!("{first} [default: {default}]\n\n{rest}"),
        None => format!("{text} [default: {default}]"),
    };
    let help = arg.get_help().map(|help| add(help.to_string()));
    let long_help = arg.get_long_help().map(|help| add(help.to_string()));
    match (help, long_help) {
        (Some(help), Some(long_help)) => arg.help(help).long_help(long_help),
        (Some(help), None) => arg.help(help),
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::from_args(std::iter::once("flowbay").chain(line.split_whitespace())).unwrap()
    }

    fn help(line: &str) -> String {
        Cli::from_args(std::iter::once("flowbay").chain(line.split_whitespace())).unwrap_err().to_string()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::described().debug_assert();
    }

    #[test]
    fn run_takes_a_flow_file_and_options() {
        let Command::Run { flows, sources } =
            parse("run my.json -p 0 --host ::1 --plugins a --plugins b -vv --admin-token-file t").command
        else {
            panic!("not run")
        };
        assert_eq!(flows, PathBuf::from("my.json"));
        assert_eq!(sources.verbose, 2);
        assert_eq!(sources.options.port, Some(0));
        assert_eq!(sources.options.host.as_deref(), Some("::1"));
        assert_eq!(sources.options.plugins, Some(vec!["a".into(), "b".into()]));
        assert_eq!(sources.options.admin_token_file, Some("t".into()));
    }

    #[test]
    fn run_without_a_file_runs_flows_json_and_leaves_every_setting_open() {
        let Command::Run { flows, sources } = parse("run").command else { panic!("not run") };
        assert_eq!(flows, PathBuf::from("flows.json"));
        assert_eq!(sources.options, Options::default());
    }

    #[test]
    fn short_help_shows_what_most_need_and_long_help_shows_everything() {
        let short = help("run -h");
        assert!(short.contains("--port <PORT>") && short.contains("[default: 1880]"), "{short}");
        assert!(!short.contains("--stall-deadline-ms"), "{short}");
        let long = help("run --help");
        for name in Options::NAMES {
            assert!(long.contains(&format!("--{}", name.replace('_', "-"))), "{name} is missing in {long}");
        }
        assert!(long.contains("FLOWBAY_LOG_FORMAT=json"), "{long}");
        assert!(!help("--help").contains("probe"), "the probe is not for users");
    }

    #[test]
    fn the_probe_takes_one_file() {
        let Command::Probe { file } = parse("probe lib.so").command else { panic!("not probe") };
        assert_eq!(file, PathBuf::from("lib.so"));
    }
}
