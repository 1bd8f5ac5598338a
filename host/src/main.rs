//! The `flowbay` command.

use std::process::ExitCode;

use flowbay::{cli::Cli, run};

fn main() -> ExitCode {
    run::main(Cli::from_process())
}
