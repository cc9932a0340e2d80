//! The program `reparam`: arguments, output and exit codes around the libraries.
//!
//! Nothing else in the project prints, exits or reads environment variables. The work itself is
//! behind [`engine::Engine`].

mod args;
mod commands;
mod engine;
mod env_vars;
mod error;
mod format;
mod interrupt;
mod logging;
mod observer;
mod output;
mod overrides;
mod run;
#[cfg(test)]
mod tests;

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
    let context = run::Context {
        environment: env_vars::Environment::read(),
        open_engine: &engine::open,
        watch_interrupts: &interrupt::watch,
    };
    ExitCode::from(run::run(std::env::args_os(), &context, streams))
}
