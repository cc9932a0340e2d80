//! The log on standard error.

use tracing_subscriber::EnvFilter;

use crate::args::GlobalArgs;
use crate::env_vars::{Environment, REPARAM_LOG};
use crate::error::CliError;

/// Starts the log: `REPARAM_LOG` if it is set, else as much as `-v` and `-q` say.
pub(crate) fn init(args: &GlobalArgs, environment: &Environment) -> Result<(), CliError> {
    const EXPECTED: &str = "a filter such as debug or reparam=trace";
    let filter = match environment.text(&REPARAM_LOG, EXPECTED)? {
        Some(text) => EnvFilter::try_new(&text).map_err(|_| CliError::Variable {
            variable: REPARAM_LOG.name,
            expected: EXPECTED,
            value: text,
        })?,
        None => EnvFilter::new(level(args)),
    };
    // A second start in one process, as in tests, leaves the first one's log in place.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .try_init();
    Ok(())
}

/// The level of each number of `-v`.
fn level(args: &GlobalArgs) -> &'static str {
    match (args.quiet, args.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    }
}
