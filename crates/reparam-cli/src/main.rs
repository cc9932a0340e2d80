//! The program `reparam`: arguments, output and exit codes around the libraries.
//!
//! Nothing else in the project prints, exits or reads environment variables.

mod args;
mod commands;
mod context;
mod env_vars;
mod error;
mod format;
mod interrupt;
mod observer;
mod output;
mod overrides;
mod progress;
mod prompt;
mod run;
mod starting;
mod wrong_use;

use std::io::IsTerminal as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    error::install_panic_hook();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let streams = output::Streams {
        out_is_terminal: out.is_terminal(),
        err_is_terminal: err.is_terminal(),
        out: &mut out,
        err: &mut err,
    };
    let environment = env_vars::Environment::read();
    ExitCode::from(run::run(std::env::args_os(), &environment, streams))
}
