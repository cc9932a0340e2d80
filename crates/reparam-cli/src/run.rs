//! One invocation of the program, from its arguments to its exit code.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::{Cli, Command};
use crate::commands;
use crate::engine::{Engine, EngineError, EngineSettings};
use crate::env_vars::Environment;
use crate::error::{CliError, exit_code};
use crate::logging;
use crate::output::{Printer, Streams};

/// What an invocation gets from the process around it; tests put their own in.
pub(crate) struct Context<'a> {
    pub(crate) environment: Environment,
    pub(crate) open_engine: &'a dyn Fn(EngineSettings) -> Result<Box<dyn Engine>, EngineError>,
    /// Makes the first interrupt set the flag and the second one end the process.
    pub(crate) watch_interrupts: &'a dyn Fn(Arc<AtomicBool>) -> Result<(), CliError>,
}

impl Context<'_> {
    /// The engine, with the settings that the environment gives it.
    pub(crate) fn engine(&self) -> Result<Box<dyn Engine>, CliError> {
        let settings = self.environment.engine_settings()?;
        (self.open_engine)(settings).map_err(CliError::Engine)
    }
}

/// Runs the program and returns its exit code.
pub(crate) fn run(
    args: impl IntoIterator<Item = OsString>,
    context: &Context<'_>,
    streams: Streams<'_>,
) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut printer = Printer::new(streams, &context.environment);
    // Whether a usage error is printed as JSON must be known before the arguments parse.
    printer.set_json(asks_for_json(&args));
    let result = catch_unwind(AssertUnwindSafe(|| dispatch(args, context, &mut printer)));
    let result = result.unwrap_or_else(|payload| Err(CliError::from_panic(payload.as_ref())));
    match result {
        Ok(()) => exit_code::SUCCESS,
        Err(error) => printer.failure(&error),
    }
}

fn dispatch(
    args: Vec<OsString>,
    context: &Context<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, printer),
    };
    printer.set_json(cli.global.json);
    printer.set_verbosity(cli.global.quiet, cli.global.verbose);
    logging::init(&cli.global, &context.environment)?;
    match cli.command {
        Command::Train(args) => commands::train::run(args, context, printer),
        Command::Study(args) => commands::study::run(args, context, printer),
        Command::Predict(args) => commands::predict::run(args, context, printer),
        Command::Eval(args) => commands::eval::run(args, context, printer),
        Command::Generate(args) => commands::generate::run(args, context, printer),
        Command::Inspect(args) => commands::inspect::run(&args, context, printer),
        Command::Bench(args) => commands::bench::run(args, context, printer),
        Command::Methods => commands::methods::run(printer),
        Command::Doctor => commands::doctor::run(context, printer),
    }
}

/// Help and version are output; everything else that clap returns is a wrong use.
fn usage(error: &clap::Error, printer: &mut Printer<'_>) -> Result<(), CliError> {
    let rendered = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = if printer.styles_output() {
                rendered.ansi().to_string()
            } else {
                rendered.to_string()
            };
            printer.text(&text)
        }
        _ => Err(CliError::Usage {
            plain: rendered.to_string(),
            styled: rendered.ansi().to_string(),
        }),
    }
}

/// Whether `--json` is among the arguments.
fn asks_for_json(args: &[OsString]) -> bool {
    args.iter()
        .skip(1)
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--json")
}
