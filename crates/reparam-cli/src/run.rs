//! One invocation of the program, from its arguments to its exit code.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::{Cli, Command};
use crate::commands;
use crate::context::Context;
use crate::env_vars::Environment;
use crate::error::{CliError, Result, exit_code};
use crate::interrupt::survive_file_size_limit;
use crate::output::{Printer, Streams};
use crate::wrong_use::refused;

/// Runs the program and returns its exit code.
pub(crate) fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: &Environment,
    streams: Streams<'_>,
) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut printer = Printer::new(streams, environment);
    // Whether a usage error is printed as JSON must be known before the arguments parse.
    printer.set_json(asks_for_json(&args));
    let result = catch_unwind(AssertUnwindSafe(|| {
        dispatch(args, environment, &mut printer)
    }));
    let result = result.unwrap_or_else(|payload| Err(CliError::from_panic(payload.as_ref())));
    match result {
        Ok(()) => exit_code::SUCCESS,
        Err(error) => printer.failure(&error),
    }
}

fn dispatch(
    args: Vec<OsString>,
    environment: &Environment,
    printer: &mut Printer<'_>,
) -> Result<()> {
    survive_file_size_limit()?;
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(error, &args, printer),
    };
    printer.set_json(cli.global.json);
    printer.set_quiet(cli.global.quiet);
    let context = || Context::new(environment);
    match cli.command {
        Command::Train(args) => commands::train::run(args, &context, printer),
        Command::Study(args) => commands::study::run(args, &context()?, printer),
        Command::Predict(args) => commands::predict::run(args, &context()?, printer),
        Command::Eval(args) => commands::eval::run(args, &context()?, printer),
        Command::Explain(args) => commands::explain::run(args, &context()?, printer),
        Command::Chat(args) => commands::chat::run(args, &context, printer),
        Command::Generate(args) => commands::generate::run(args, &context, printer),
        Command::Init(args) => commands::init::run(args, &context()?, printer),
        Command::Merge(args) => commands::merge::run(args, &context()?, printer),
        Command::Convert(args) => commands::convert::run(args, &context()?, printer),
        Command::Data(args) => commands::data::run(args, &context()?, printer),
        Command::Inspect(args) => commands::inspect::run(&args, printer),
        Command::Bench(args) => commands::bench::run(args, &context()?, printer),
        Command::Methods => commands::methods::run(printer),
        Command::Doctor => {
            // A forced instruction set is a part of what the machine computes with.
            let context = context()?;
            commands::doctor::run(environment, &context.runtime(0), printer)
        }
    }
}

/// Help and version are output; everything else that clap returns is a wrong use.
fn usage(error: clap::Error, args: &[OsString], printer: &mut Printer<'_>) -> Result<()> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let rendered = error.render();
            let text = if printer.styles_output() {
                rendered.ansi().to_string()
            } else {
                rendered.to_string()
            };
            printer.own(&text)
        }
        _ => Err(refused(error, args)),
    }
}

/// Whether `--json` is among the arguments.
fn asks_for_json(args: &[OsString]) -> bool {
    args.iter()
        .skip(1)
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--json")
}
