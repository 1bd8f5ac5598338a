//! Every tunable of the host, each defined once.
//!
//! The `settings!` list below is the only place where a setting has its name, type, default, range and
//! description. From it come the command-line option `--some-name`, the environment variable
//! `FLOWBAY_SOME_NAME` and the key `some_name` in `flowbay.toml`, which override one another in that order.
//! Durations are whole milliseconds (`…_ms`), sizes whole bytes (`…_bytes`).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::Parser as _;

/// The settings file that is read from the working directory if it is there and `--config` names no other.
pub const DEFAULT_CONFIG_FILE: &str = "flowbay.toml";

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// How log lines are written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text for each event; coloured if standard error is a terminal.
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// Defines [`Options`] (what one source says, every field optional) and [`Settings`] (what holds) from one list.
///
/// `[…] name: Type = default, within range;` is a setting with a default; `[…] name: Type?;` is one that may
/// stay unset. The brackets hold clap's attributes.
macro_rules! settings {
    (
        $( $(#[$doc:meta])* [$($arg:tt)*] $name:ident : $ty:ty = $default:expr $(, within $range:expr)? ; )*
        unset by default:
        $( $(#[$opt_doc:meta])* [$($opt_arg:tt)*] $opt_name:ident : $opt_ty:ty $(, within $opt_range:expr)? ; )*
    ) => {
        /// What one source (command line, environment or file) says about the settings; absent means silent.
        #[derive(Clone, Debug, Default, PartialEq, clap::Args, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Options {
            $( $(#[$doc])* #[arg(long, $($arg)*)] pub $name: Option<$ty>, )*
            $( $(#[$opt_doc])* #[arg(long, $($opt_arg)*)] pub $opt_name: Option<$opt_ty>, )*
        }

        /// The settings that hold: every source consulted, the rest at its default.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $( $(#[$doc])* pub $name: $ty, )*
            $( $(#[$opt_doc])* pub $opt_name: Option<$opt_ty>, )*
        }

        impl Default for Settings {
            fn default() -> Self {
                Options::default().resolve()
            }
        }

        impl Options {
            /// Every setting by its name in `flowbay.toml`.
            pub const NAMES: &[&str] = &[$(stringify!($name),)* $(stringify!($opt_name),)*];

            /// These options, with what they leave open taken from `under`.
            #[must_use]
            pub fn over(self, under: Options) -> Options {
                Options {
                    $( $name: self.$name.or(under.$name), )*
                    $( $opt_name: self.$opt_name.or(under.$opt_name), )*
                }
            }

            /// The settings, with what is left open at its default.
            #[must_use]
            pub fn resolve(self) -> Settings {
                Settings {
                    $( $name: self.$name.unwrap_or_else(|| $default), )*
                    $( $opt_name: self.$opt_name, )*
                }
            }

            /// Refuses numbers that the host cannot work with. `origin` says where the options come from.
            fn check_ranges(self, origin: &str) -> Result<Options, SettingsError> {
                $($( within(origin, stringify!($name), self.$name, $range)?; )?)*
                $($( within(origin, stringify!($opt_name), self.$opt_name, $opt_range)?; )?)*
                Ok(self)
            }

            /// The default of each setting that has one, as text for the help.
            pub(crate) fn defaults() -> Vec<(&'static str, String)> {
                let settings = Settings::default();
                vec![$( (stringify!($name), display_default(&settings.$name)), )*]
            }
        }
    };
}

settings! {
    /// Port of the HTTP server; 0 picks a free one and prints it
    ///
    /// WebSocket listeners and the admin API share it. 1880 is Node-RED's port, so that the addresses people
    /// know keep working.
    [short = 'p', value_name = "PORT", help_heading = "Server"]
    port: u16 = 1880;

    /// Address or host name that the HTTP server listens on
    ///
    /// Loopback by default, because flows are programs: opening them to the network is a decision to take
    /// knowingly. 0.0.0.0 or :: listens on every interface.
    [value_name = "HOST", help_heading = "Server"]
    host: String = "127.0.0.1".to_owned();

    /// How log lines are written to standard error
    [value_name = "FORMAT", value_enum]
    log_format: LogFormat = LogFormat::Text;

    /// Milliseconds that a node may take to close before it is left behind
    ///
    /// 15 s is Node-RED's nodeCloseTimeout.
    [value_name = "MS", help_heading = "Nodes", hide_short_help = true]
    node_close_timeout_ms: u64 = 15_000, within 1..=HOUR_MS;

    /// Milliseconds that requests in flight have to finish when the host stops
    ///
    /// Five seconds cover a slow client; longer would make Ctrl-C feel broken.
    [value_name = "MS", help_heading = "Server", hide_short_help = true]
    shutdown_grace_ms: u64 = 5_000, within 0..=HOUR_MS;

    /// Messages waiting in one mailbox beyond which the sources that feed it wait
    ///
    /// 1,000 keep a node busy through any scheduling gap; more only adds delay and memory.
    [value_name = "MESSAGES", help_heading = "Nodes", hide_short_help = true]
    mailbox_mark: usize = 1_000, within 1..=1_000_000_000;

    /// Bytes waiting in one mailbox beyond which the sources that feed it wait
    ///
    /// 16 MiB: a thousand messages of 16 KiB, so ordinary traffic meets the other mark first.
    [value_name = "BYTES", help_heading = "Nodes", hide_short_help = true]
    mailbox_mark_bytes: usize = 16 * MIB, within 1..=MAX_BYTES;

    /// Messages in one mailbox beyond which further ones are refused to Catch
    ///
    /// Only a loop in a flow gets here, since sources stop at the mark; 250,000 lets a loop that splits large
    /// sequences work and still ends a runaway within some 100 MB.
    [value_name = "MESSAGES", help_heading = "Nodes", hide_short_help = true]
    mailbox_cap: usize = 250_000, within 1..=1_000_000_000;

    /// Bytes in one mailbox beyond which further messages are refused to Catch
    ///
    /// 256 MiB: room for several messages of the largest size that a WebSocket client takes by default (64 MiB).
    [value_name = "BYTES", help_heading = "Nodes", hide_short_help = true]
    mailbox_cap_bytes: usize = 256 * MIB, within 1..=MAX_BYTES;

    /// Threads for work of nodes that blocks: files, databases, long computations
    ///
    /// They are started when there is work for them, and stay. 8 keep a disk busy; work that computes gains nothing
    /// from more threads than there are cores.
    [value_name = "THREADS", help_heading = "Nodes", hide_short_help = true]
    blocking_threads: usize = 8, within 1..=1024;

    /// Pieces of blocking work that may wait for a thread; further ones fail at once
    ///
    /// A node has one message in hand unless its type says otherwise, so that even large flows stay far below 10,000.
    [value_name = "PIECES", help_heading = "Nodes", hide_short_help = true]
    blocking_queue: usize = 10_000, within 1..=10_000_000;

    /// Threads that nodes may have for themselves, for a runtime that a library of theirs insists on
    ///
    /// One for each node that asks for one: 100 are as many MQTT clients as one host will have.
    [value_name = "THREADS", help_heading = "Nodes", hide_short_help = true]
    plugin_threads: usize = 100, within 0..=10_000;

    /// Milliseconds after which a node that has not finished a message counts as stuck
    ///
    /// A stuck node's further messages are refused to Catch while its mailbox is full, so that its siblings
    /// go on. 10 s is longer than an ordinary network request and shorter than an operator's patience.
    [value_name = "MS", help_heading = "Nodes", hide_short_help = true]
    stall_deadline_ms: u64 = 10_000, within 1..=HOUR_MS;

    /// Milliseconds that a constructor, or another call that a plugin must answer at once, may take
    ///
    /// Such calls read configuration and allocate: microseconds. 5 s is beyond doubt on a busy machine.
    [value_name = "MS", help_heading = "Plugins", hide_short_help = true]
    call_deadline_ms: u64 = 5_000, within 1..=HOUR_MS;

    /// Milliseconds that a plugin may take to load in the process that tries it first
    ///
    /// Loading takes about a millisecond; 2 s tells a plugin that hangs from a slow disk.
    [value_name = "MS", help_heading = "Plugins", hide_short_help = true]
    probe_deadline_ms: u64 = 2_000, within 1..=HOUR_MS;

    /// Milliseconds that running nodes and connections have to come to a boundary when newer code takes over
    ///
    /// A node that is busy for longer finishes its message in the old code, a connection that moves for longer ends
    /// in it. 5 s is longer than most handlers wait for anything.
    [value_name = "MS", help_heading = "Plugins", hide_short_help = true]
    swap_deadline_ms: u64 = 5_000, within 1..=HOUR_MS;

    /// Whether plugin files and the flow file are watched and changes taken over
    ///
    /// On, because that is what the host is for; --no-watch is the same as --watch false.
    [value_name = "true|false", action = clap::ArgAction::Set, help_heading = "Plugins"]
    watch: bool = true;

    /// Whether the plugins that come with the host are loaded besides those in the folders given
    ///
    /// They are in the folder `plugins` beside the executable, or else in the executable's own folder. A plugin of the
    /// same name in a folder given wins. --no-shipped-plugins is the same as --shipped-plugins false.
    [value_name = "true|false", action = clap::ArgAction::Set, help_heading = "Plugins"]
    shipped_plugins: bool = true;

    /// Milliseconds after a change of context until it is in its file; what changes meanwhile is written with it
    ///
    /// 30 s are Node-RED's flushInterval: it spares flash memory. A host that is stopped in order writes at once.
    [value_name = "MS", help_heading = "Nodes", hide_short_help = true]
    context_flush_ms: u64 = 30_000, within 0..=HOUR_MS;

    /// Name by which nodes ask for the context store in files
    ///
    /// As the stores in Node-RED's contextStorage are named; `file` is what its documentation calls it.
    [value_name = "NAME", help_heading = "Nodes", hide_short_help = true]
    context_file_store: String = "file".to_owned();

    /// Bytes that the context of one node, one flow, or of all may have in a store; setting more is an error
    ///
    /// 64 MiB are far beyond what context is for, and end what grows by mistake. A file may have twice as much.
    [value_name = "BYTES", help_heading = "Nodes", hide_short_help = true]
    context_max_bytes: usize = 64 * MIB, within 1024..=MAX_BYTES;

    /// Messages delivered inside one poll before other tasks get their turn
    ///
    /// 256 small messages take well under a millisecond, which keeps 16 busy connections fair on one thread.
    [value_name = "MESSAGES", help_heading = "Nodes", hide_short_help = true]
    drain_budget: usize = 256, within 1..=1_000_000;

    /// Milliseconds in which a client must have sent the whole header of a request, handshakes included
    ///
    /// Also how long an idle connection is kept for a next request. 10 s serves bad mobile links and bounds
    /// what slow handshakes can pile up.
    [value_name = "MS", help_heading = "Server", hide_short_help = true]
    http_header_timeout_ms: u64 = 10_000, within 1..=HOUR_MS;

    /// Bytes that the header of a request may have, its first line included; 431 beyond
    ///
    /// 16 KiB, as in Node.js.
    [value_name = "BYTES", help_heading = "Server", hide_short_help = true]
    http_max_header_bytes: usize = 16 * KIB, within 8 * KIB..=16 * MIB;

    /// Fields that the header of a request may have; 431 beyond
    ///
    /// Browsers behind proxies send about 30; the parser is fastest at 100.
    [value_name = "FIELDS", help_heading = "Server", hide_short_help = true]
    http_max_headers: usize = 100, within 1..=10_000;

    /// Bytes that path and query of a request may have; 414 beyond
    ///
    /// 8 KiB, as most servers allow. What does not even fit the header's limit is 431.
    [value_name = "BYTES", help_heading = "Server", hide_short_help = true]
    http_max_target_bytes: usize = 8 * KIB, within 256..=65_534;

    /// Bytes that the body of a request may have; 413 beyond
    ///
    /// 5 MiB is Node-RED's apiMaxLength; a large flow file fits.
    [value_name = "BYTES", help_heading = "Server", hide_short_help = true]
    http_max_body_bytes: usize = 5 * MIB, within 0..=MAX_BYTES;

    /// Milliseconds in which a client must have sent the whole body of a request; 408 beyond
    ///
    /// 30 s carries the largest body over 1.4 Mbit/s.
    [value_name = "MS", help_heading = "Server", hide_short_help = true]
    http_body_timeout_ms: u64 = 30_000, within 1..=HOUR_MS;

    /// Milliseconds that a client may leave an answer lying before its connection is cut
    ///
    /// Counted from when it last took something in. 30 s outlasts any hiccup of a network.
    [value_name = "MS", help_heading = "Server", hide_short_help = true]
    http_write_timeout_ms: u64 = 30_000, within 1..=HOUR_MS;

    /// Milliseconds that a client may take for the TLS handshake
    ///
    /// 10 s, as for the header that follows: two round trips and some arithmetic, on a bad mobile link.
    [value_name = "MS", help_heading = "Server", hide_short_help = true]
    tls_handshake_timeout_ms: u64 = 10_000, within 1..=HOUR_MS;

    /// Milliseconds that a node may take to accept or refuse a WebSocket handshake; 503 beyond
    ///
    /// 10 s leaves room for a plugin that is being swapped; browsers give up later than that. A listener whose flow
    /// decides may say otherwise (its handshakeTimeout).
    [value_name = "MS", help_heading = "Server", hide_short_help = true]
    upgrade_timeout_ms: u64 = 10_000, within 1..=HOUR_MS;

    /// Connections open at once, WebSocket connections included; further ones are closed at once
    ///
    /// 20,000 idle WebSocket connections take about 70 MB. The host raises its limit of open files as far as it may.
    [value_name = "CONNECTIONS", help_heading = "Server", hide_short_help = true]
    max_connections: usize = 20_000, within 1..=10_000_000;

    /// Connections that one address may have open at once, WebSocket connections included; 0 for no limit
    ///
    /// None, because behind a reverse proxy all clients have the proxy's address. An IPv6 address counts with all of
    /// its /64. Further connections are closed at once.
    [value_name = "CONNECTIONS", help_heading = "Server", hide_short_help = true]
    max_connections_per_address: usize = 0, within 0..=10_000_000;

    /// WebSocket handshakes to one listener that may wait for their answer at once; 503 beyond
    ///
    /// Only a listener whose flow decides makes them wait. 1,000 are a busy reconnect of all clients; each holds a
    /// connection and a message in the flow.
    [value_name = "HANDSHAKES", help_heading = "Server", hide_short_help = true]
    max_waiting_upgrades: usize = 1_000, within 1..=10_000_000;

    /// Bytes waiting to be sent to one WebSocket peer beyond which it counts as too slow
    ///
    /// 16 MiB absorbs a burst; a peer that never reads would otherwise collect messages for ever.
    [value_name = "BYTES", help_heading = "Server", hide_short_help = true]
    session_queue_bytes: usize = 16 * MIB, within 1..=MAX_BYTES;

    /// Messages waiting to be sent to one WebSocket peer beyond which it counts as too slow
    ///
    /// 10,000 small messages are a few seconds of a busy feed.
    [value_name = "MESSAGES", help_heading = "Server", hide_short_help = true]
    session_queue_messages: usize = 10_000, within 1..=1_000_000_000;

    /// Milliseconds that an outgoing connection may take, name look-up and TLS handshake included
    ///
    /// For nodes that set no time of their own (a websocket-client does). 10 s: three attempts of TCP to reach a lossy
    /// peer; nodes try again anyway.
    [value_name = "MS", help_heading = "Server", hide_short_help = true]
    dial_timeout_ms: u64 = 10_000, within 1..=HOUR_MS;

    unset by default:

    /// Folder with plugins of your own, repeatable [default: none, only those that come with the host]
    ///
    /// The environment variable FLOWBAY_PLUGINS lists folders as PATH does. Relative folders in a settings
    /// file start from that file.
    [value_name = "DIR", help_heading = "Plugins"]
    plugins: Vec<PathBuf>;

    /// File with the token that admin requests must carry [default: none, only this machine may ask]
    ///
    /// With it, admin requests are accepted from anywhere if they say `Authorization: Bearer <token>`, and
    /// from nowhere without. The token is the file's text without surrounding blanks.
    [value_name = "FILE", help_heading = "Server"]
    admin_token_file: PathBuf;

    /// File with the secret that credentials are encrypted with [default: the one that Node-RED made for itself]
    ///
    /// Node-RED's credentialSecret: the text of the file without the end of its line. Without this setting, the
    /// environment variable FLOWBAY_CREDENTIAL_SECRET or NODE_RED_CREDENTIAL_SECRET may hold it; without that, it is
    /// the key that Node-RED has written into .config.runtime.json beside the flow file.
    [value_name = "FILE", help_heading = "Server"]
    credential_secret_file: PathBuf;

    /// PEM file with the server's certificate, its chain after it [default: none, plain HTTP]
    ///
    /// With it and --tls-key, the port speaks HTTPS and WSS, and no plain HTTP: TLS 1.2 and 1.3. The files are read
    /// again when they change, and on SIGHUP; connections that there are keep what they have.
    [value_name = "FILE", help_heading = "Server"]
    tls_cert: PathBuf;

    /// PEM file with the private key of --tls-cert, not encrypted
    [value_name = "FILE", help_heading = "Server"]
    tls_key: PathBuf;

    /// Folder in which context is kept over restarts [default: none, context is in memory]
    ///
    /// Its files are laid out as Node-RED's `localfilesystem` does: for an existing installation this is the folder
    /// `context` in its user directory. One host at a time uses it.
    [value_name = "DIR", help_heading = "Nodes"]
    context_dir: PathBuf;

    /// Context store of nodes that name none [default: the one in files if there is one, else memory]
    ///
    /// `memory`, or the name that --context-file-store gives.
    [value_name = "NAME", help_heading = "Nodes", hide_short_help = true]
    context_default_store: String;

    /// Threads that run nodes and connections [default: one for each core]
    [value_name = "THREADS", help_heading = "Nodes", hide_short_help = true]
    worker_threads: usize, within 1..=1024;
}

/// No deadline is longer than an hour: beyond that it would be no deadline, and timers stay far from overflow.
const HOUR_MS: u64 = 3_600_000;
/// Size limits stay below a terabyte, so that sums of them cannot overflow.
const MAX_BYTES: usize = 1 << 40;

/// What is wrong with the settings, as one line that names the source and the setting.
#[derive(Debug)]
pub enum SettingsError {
    /// The settings file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The settings file is not TOML, or a value in it has the wrong type.
    Malformed {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1, if it is known.
        line: Option<usize>,
        /// What is wrong there.
        message: String,
    },
    /// The settings file has a key that is no setting.
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// An environment variable cannot be understood.
    Environment {
        /// The variable, `FLOWBAY_…`.
        variable: String,
        /// What is wrong with it.
        message: String,
    },
    /// A number that the host cannot work with.
    OutOfRange {
        /// Where it was given: the command line, a variable or a file.
        origin: String,
        /// The setting.
        name: &'static str,
        /// The value.
        value: u64,
        /// The least that it may be.
        least: u64,
        /// The most that it may be.
        most: u64,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, error } => {
                write!(f, "cannot read the settings file {}: {error}", file.display())
            }
            Self::Malformed { file, line: Some(line), message } => {
                write!(f, "{} line {line}: {message}", file.display())
            }
            Self::Malformed { file, line: None, message } => write!(f, "{}: {message}", file.display()),
            Self::UnknownKey { file, key } => {
                write!(
                    f,
                    "{}: there is no setting `{key}` (`flowbay run --help` lists them all)",
                    file.display()
                )
            }
            Self::Environment { variable, message } => {
                write!(f, "environment variable {variable}: {message}")
            }
            Self::OutOfRange { origin, name, value, least, most } => {
                write!(f, "{origin}: {name} must be from {least} to {most}, not {value}")
            }
        }
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Brings the sources together: `command_line` over the environment over the settings file.
    ///
    /// `config` is the file to read; without it [`DEFAULT_CONFIG_FILE`] is read if it exists. `environment`
    /// answers for a variable's name, so that tests need not touch the process's own.
    ///
    /// # Errors
    /// The file that was asked for cannot be read, or a source has an unknown or impossible setting.
    pub fn load(
        command_line: Options,
        config: Option<&Path>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Settings, SettingsError> {
        let command_line = command_line.check_ranges("command line")?;
        let environment_options = Options::from_environment(&environment)?;
        let config =
            config.map(Path::to_owned).or_else(|| named(&environment, "FLOWBAY_CONFIG").map(PathBuf::from));
        let file = match config {
            Some(file) => Options::from_file(&file)?,
            None if Path::new(DEFAULT_CONFIG_FILE).exists() => {
                Options::from_file(Path::new(DEFAULT_CONFIG_FILE))?
            }
            None => Options::default(),
        };
        Ok(command_line.over(environment_options).over(file).resolve())
    }

    /// The folder of the plugins that come with the host: `plugins` beside the executable, or else the executable's
    /// own (where `cargo build` puts them). `None` when they are not wanted, or when it is one of the folders given.
    #[must_use]
    pub fn shipped_plugin_dir(&self) -> Option<PathBuf> {
        if !self.shipped_plugins {
            return None;
        }
        let own_folder = std::env::current_exe().ok().and_then(|file| Some(file.parent()?.to_owned()));
        let own_folder = own_folder.unwrap_or_else(|| PathBuf::from("."));
        let plugins = own_folder.join("plugins");
        let shipped = if plugins.is_dir() { plugins } else { own_folder };
        let real = |dir: &Path| std::fs::canonicalize(dir).ok();
        let is_given =
            |given: &PathBuf| *given == shipped || real(given).is_some_and(|it| real(&shipped) == Some(it));
        (!self.plugins.iter().flatten().any(is_given)).then_some(shipped)
    }

    /// The folders to look for plugins in: those given, then that of the plugins that come with the host.
    #[must_use]
    pub fn plugin_dirs(&self) -> Vec<PathBuf> {
        self.plugins.iter().flatten().cloned().chain(self.shipped_plugin_dir()).collect()
    }
}

impl Options {
    /// What the environment says, in variables named `FLOWBAY_` and the setting. An empty one is as good as none.
    ///
    /// # Errors
    /// A value that its setting cannot take.
    pub fn from_environment(
        environment: &impl Fn(&str) -> Option<OsString>,
    ) -> Result<Options, SettingsError> {
        let mut options = Options::default();
        for name in Self::NAMES {
            let variable = format!("FLOWBAY_{}", name.to_uppercase());
            let Some(value) = named(environment, &variable) else { continue };
            let values = if *name == "plugins" {
                std::env::split_paths(&value).filter(|dir| !dir.as_os_str().is_empty()).collect()
            } else {
                vec![PathBuf::from(value)]
            };
            // The command line's own parser reads the value, so both sources accept the same texts.
            let flags = values.iter().map(|value| {
                let mut flag = OsString::from(format!("--{}=", name.replace('_', "-")));
                flag.push(value);
                flag
            });
            let parsed =
                Alone::try_parse_from(std::iter::once(OsString::new()).chain(flags)).map_err(|error| {
                    SettingsError::Environment {
                        variable: variable.clone(),
                        message: first_paragraph(&error),
                    }
                })?;
            options = options.over(parsed.options.check_ranges(&format!("environment variable {variable}"))?);
        }
        Ok(options)
    }

    /// What a settings file says. Relative paths in it start from the file's folder.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has an unknown or impossible setting.
    pub fn from_file(file: &Path) -> Result<Options, SettingsError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| SettingsError::Unreadable { file: file.to_owned(), error })?;
        let malformed = |error: toml::de::Error| SettingsError::Malformed {
            file: file.to_owned(),
            line: error.span().and_then(|span| Some(text.get(..span.start)?.matches('\n').count() + 1)),
            message: error.message().to_owned(),
        };
        let keys: toml::Table = toml::from_str(&text).map_err(malformed)?;
        if let Some(key) = keys.keys().find(|key| !Self::NAMES.contains(&key.as_str())) {
            return Err(SettingsError::UnknownKey { file: file.to_owned(), key: key.clone() });
        }
        let mut options: Options = toml::from_str(&text).map_err(malformed)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let files = [
            &mut options.admin_token_file,
            &mut options.credential_secret_file,
            &mut options.tls_cert,
            &mut options.tls_key,
            &mut options.context_dir,
        ];
        for path in options.plugins.iter_mut().flatten().chain(files.into_iter().flatten()) {
            *path = folder.join(&*path);
        }
        options.check_ranges(&file.display().to_string())
    }
}

/// The options by themselves, to read environment variables with the command line's parser.
#[derive(clap::Parser)]
struct Alone {
    #[command(flatten)]
    options: Options,
}

fn named(environment: &impl Fn(&str) -> Option<OsString>, variable: &str) -> Option<OsString> {
    environment(variable).filter(|value| value != OsStr::new(""))
}

/// What clap says before it goes on to usage hints, on one line.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph: Vec<_> = text
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty())
        .take_while(|l| !l.is_empty())
        .collect();
    paragraph.join(" ").trim_start_matches("error: ").to_owned()
}

fn within<N>(
    origin: &str,
    name: &'static str,
    value: Option<N>,
    range: std::ops::RangeInclusive<N>,
) -> Result<(), SettingsError>
where
    N: PartialOrd + Copy + TryInto<u64>,
{
    let Some(value) = value.filter(|value| !range.contains(value)) else { return Ok(()) };
    let number = |n: N| n.try_into().unwrap_or(u64::MAX);
    Err(SettingsError::OutOfRange {
        origin: origin.to_owned(),
        name,
        value: number(value),
        least: number(*range.start()),
        most: number(*range.end()),
    })
}

/// A default as a user would type it. `Debug` is what every type of setting has in common.
fn display_default(value: &impl fmt::Debug) -> String {
    format!("{value:?}").trim_matches('"').to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads with a settings file of this text (none if empty) and these variables.
    fn load(
        command_line: Options,
        variables: &[(&str, &str)],
        toml: &str,
    ) -> (tempfile::TempDir, Result<Settings, SettingsError>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flowbay.toml");
        std::fs::write(&file, toml).unwrap();
        let environment = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        let settings = Settings::load(command_line, Some(&file), environment);
        (folder, settings)
    }

    fn message(variables: &[(&str, &str)], toml: &str) -> String {
        let (folder, settings) = load(Options::default(), variables, toml);
        let prefix = format!("{}/", folder.path().display());
        settings.unwrap_err().to_string().replace(&prefix, "")
    }

    #[test]
    fn the_command_line_wins_over_the_environment_over_the_file_over_the_default() {
        let rows = [
            (Some(1), "2", "port = 3", 1),
            (None, "2", "port = 3", 2),
            (None, "", "port = 3", 3),
            (None, "", "", 1880),
        ];
        for (port, variable, toml, expected) in rows {
            let options = Options { port, ..Options::default() };
            let (_folder, settings) = load(options, &[("FLOWBAY_PORT", variable)], toml);
            assert_eq!(settings.unwrap().port, expected, "{port:?} {variable:?} {toml:?}");
        }
    }

    #[test]
    fn sources_mix_setting_by_setting() {
        let options = Options { port: Some(0), ..Options::default() };
        let toml = "log_format = \"json\"\nmailbox_mark = 7\nhost = \"::1\"";
        let (_folder, settings) = load(options, &[("FLOWBAY_HOST", "0.0.0.0")], toml);
        let settings = settings.unwrap();
        assert_eq!(settings.port, 0);
        assert_eq!(settings.host, "0.0.0.0");
        assert_eq!(settings.log_format, LogFormat::Json);
        assert_eq!(settings.mailbox_mark, 7);
        assert_eq!(settings.mailbox_cap, 250_000);
        assert_eq!(settings.worker_threads, None);
    }

    #[test]
    fn every_setting_can_be_given_in_the_environment_and_in_the_file() {
        for name in Options::NAMES {
            let (text, toml) = match *name {
                "host" => ("localhost", "\"localhost\""),
                "watch" | "shipped_plugins" => ("false", "false"),
                "log_format" => ("json", "\"json\""),
                "plugins" => ("some", "[\"some\"]"),
                "admin_token_file"
                | "credential_secret_file"
                | "tls_cert"
                | "tls_key"
                | "context_dir"
                | "context_file_store"
                | "context_default_store" => ("token", "\"token\""),
                // A number that every range contains and that is nobody's default.
                _ => ("9000", "9000"),
            };
            let (text, toml) = match *name {
                "worker_threads" | "blocking_threads" => ("3", "3"),
                _ => (text, toml),
            };
            let variable = format!("FLOWBAY_{}", name.to_uppercase());
            let (_folder, from_variable) = load(Options::default(), &[(&variable, text)], "");
            assert_ne!(from_variable.unwrap(), Settings::default(), "{variable}");
            let (_folder, from_file) = load(Options::default(), &[], &format!("{name} = {toml}"));
            assert_ne!(from_file.unwrap(), Settings::default(), "{name}");
        }
    }

    #[test]
    fn folders_of_plugins_are_listed_as_in_path_and_start_from_the_file_that_names_them() {
        let joined = std::env::join_paths(["a", "", "b/c"]).unwrap();
        let joined = joined.to_str().unwrap();
        let (_folder, settings) = load(Options::default(), &[("FLOWBAY_PLUGINS", joined)], "");
        assert_eq!(settings.unwrap().plugins.unwrap(), [PathBuf::from("a"), PathBuf::from("b/c")]);

        let (folder, settings) = load(Options::default(), &[], "plugins = [\"bay\", \"/opt/bay\"]");
        assert_eq!(
            settings.unwrap().plugins.unwrap(),
            [folder.path().join("bay"), PathBuf::from("/opt/bay")]
        );
    }

    #[test]
    fn the_folder_of_the_shipped_plugins_comes_last_and_once_and_can_be_left_out() {
        let given = |dirs: &[&Path], shipped_plugins| Settings {
            plugins: Some(dirs.iter().map(|dir| dir.to_path_buf()).collect()),
            shipped_plugins,
            ..Settings::default()
        };
        let bay = Path::new("/opt/bay");
        let shipped = Settings::default().shipped_plugin_dir().unwrap();
        assert_eq!(Settings::default().plugin_dirs(), std::slice::from_ref(&shipped));
        assert_eq!(given(&[bay], true).plugin_dirs(), [bay.to_owned(), shipped.clone()]);
        assert_eq!(given(&[bay], false).plugin_dirs(), [bay.to_owned()]);
        let roundabout = shipped.join("..").join(shipped.file_name().unwrap());
        for same in [&shipped, &roundabout] {
            assert_eq!(given(&[same], true).plugin_dirs(), std::slice::from_ref(same));
            assert_eq!(given(&[same], true).shipped_plugin_dir(), None);
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it_and_the_file() {
        assert_eq!(
            message(&[], "port = 1\nprot = 2"),
            "flowbay.toml: there is no setting `prot` (`flowbay run --help` lists them all)"
        );
    }

    #[test]
    fn a_wrong_value_is_an_error_that_names_where_it_stands() {
        for (toml, start) in [
            ("host = \"x\"\nport = \"many\"", "flowbay.toml line 2: invalid type: string \"many\""),
            ("port = 70000", "flowbay.toml line 1: "),
            ("port = ", "flowbay.toml line 1: "),
            (
                "http_max_header_bytes = 100",
                "flowbay.toml: http_max_header_bytes must be from 8192 to 16777216, not 100",
            ),
        ] {
            let message = message(&[], toml);
            assert!(message.starts_with(start) && !message.contains('\n'), "{toml:?} gave {message:?}");
        }
        for (variable, value, start) in [
            ("FLOWBAY_PORT", "many", "environment variable FLOWBAY_PORT: invalid value 'many'"),
            ("FLOWBAY_LOG_FORMAT", "xml", "environment variable FLOWBAY_LOG_FORMAT: invalid value 'xml'"),
            (
                "FLOWBAY_DRAIN_BUDGET",
                "0",
                "environment variable FLOWBAY_DRAIN_BUDGET: drain_budget must be from 1",
            ),
        ] {
            let message = message(&[(variable, value)], "");
            assert!(message.starts_with(start) && !message.contains('\n'), "{value:?} gave {message:?}");
        }
    }

    #[test]
    fn a_settings_file_that_was_asked_for_must_be_there() {
        let error = Settings::load(Options::default(), Some(Path::new("/no/such.toml")), |_| None);
        assert!(
            error.unwrap_err().to_string().starts_with("cannot read the settings file /no/such.toml: "),
            "the message names the file"
        );
        let named = |name: &str| (name == "FLOWBAY_CONFIG").then(|| OsString::from("/no/other.toml"));
        let error = Settings::load(Options::default(), None, named).unwrap_err();
        assert!(error.to_string().contains("/no/other.toml"), "{error}");
    }

    #[test]
    fn the_defaults_lie_within_their_ranges() {
        let defaults = Options::defaults();
        let toml: String = defaults
            .iter()
            .filter(|(_, value)| value.parse::<u64>().is_ok())
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        let (_folder, settings) = load(Options::default(), &[], &toml);
        assert_eq!(settings.unwrap(), Settings::default());
    }
}
