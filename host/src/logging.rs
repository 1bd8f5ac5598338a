//! Log lines: `tracing` to standard error. Standard output is for what flows print.

use std::io::IsTerminal;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::settings::LogFormat;

/// Starts logging for this process. A second call changes nothing, so that several hosts may run in one test.
///
/// `RUST_LOG` decides what is logged if it is set (`debug`, or `warn,flowbay=trace`: levels, for all or by target); else `verbosity` does: 0 is info, 1 debug, more is trace.
///
/// # Errors
/// `RUST_LOG` is set to something that is no filter. The line names it.
pub fn start(format: LogFormat, verbosity: u8) -> Result<(), String> {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref(), verbosity)?;
    // When nobody reads the log any more, a line is lost. To complain about that on standard error, as the library would,
    // is a panic, in whichever thread has something to say: the one that accepts connections, for instance.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => {
            // https://no-color.org: set to anything means no colours.
            let colours = std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            lines.compact().with_ansi(colours).with_target(verbosity > 0).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    if tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().is_err() {
        tracing::debug!("logging was already started");
    }
    Ok(())
}

fn filter(rust_log: Option<&str>, verbosity: u8) -> Result<Targets, String> {
    if let Some(directives) = rust_log.filter(|text| !text.is_empty()) {
        return directives.parse().map_err(|error: tracing_subscriber::filter::ParseError| {
            format!("environment variable RUST_LOG: `{directives}` is no filter: {error}")
        });
    }
    let level = match verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // The libraries' own detail drowns the host's; RUST_LOG still gets at it.
    let libraries = ["hyper", "mio", "notify", "rustls"].map(|name| (name, LevelFilter::INFO));
    Ok(Targets::new().with_default(level).with_targets(libraries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_wins_over_verbosity_and_info_is_the_default() {
        let level = |rust_log, verbosity| filter(rust_log, verbosity).unwrap().default_level().unwrap();
        assert_eq!(level(None, 0).to_string(), "info");
        assert_eq!(level(None, 1).to_string(), "debug");
        assert_eq!(level(None, 9).to_string(), "trace");
        assert_eq!(level(Some(""), 0).to_string(), "info");
        assert_eq!(level(Some("warn"), 2).to_string(), "warn");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_one_clear_line() {
        let error = filter(Some("flowbay=loud"), 0).unwrap_err();
        assert!(error.starts_with("environment variable RUST_LOG: `flowbay=loud` is no filter"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
