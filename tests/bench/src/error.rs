//! The one error type: every variant ends the run, since half a measurement is none.

use std::fmt;
use std::io;

/// Why a measurement could not be made or cannot be trusted.
#[derive(Debug)]
pub enum Error {
    /// A system call failed: what was being done, and the system's answer.
    Io(String, io::Error),
    /// A server did not start, or ended: its name, what happened, and the last lines of its log.
    Server { name: &'static str, what: String, log: Vec<String> },
    /// A server answered wrongly, late or not at all, or closed a connection.
    Peer(String),
    /// The arguments ask for something that cannot be done.
    Usage(String),
}

impl Error {
    /// For `map_err`: an I/O error with the words for what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io(doing.into(), source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(doing, source) => write!(f, "{doing}: {source}"),
            Error::Server { name, what, log } => {
                write!(f, "{name} {what}")?;
                if log.is_empty() {
                    return write!(f, " (it logged nothing)");
                }
                write!(f, "; the end of its log:")?;
                log.iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
            Error::Peer(what) | Error::Usage(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}
