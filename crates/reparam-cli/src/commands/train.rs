//! `reparam train`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use reparam_train::config::TaskConfig;

use crate::args::TrainArgs;
use crate::engine::{TrainOutcome, TrainRequest};
use crate::error::CliError;
use crate::interrupt::survive_file_size_limit;
use crate::observer::TrainObserver;
use crate::output::Printer;
use crate::overrides::overrides;
use crate::run::Context;

/// Reads the run file, runs it, and tells of every event.
pub(crate) fn run(
    args: TrainArgs,
    context: &Context<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    printer.set_failure_is_event();
    let overrides = overrides(args.set, args.output.as_deref())?;
    let config = TaskConfig::load_with(&args.run_file, &overrides)?;
    let engine = context.engine()?;

    survive_file_size_limit()?;
    let stop = Arc::new(AtomicBool::new(false));
    (context.watch_interrupts)(Arc::clone(&stop))?;
    let mut observer = TrainObserver::new(printer, Arc::clone(&stop));
    let outcome = engine.train(TrainRequest { config, stop }, &mut observer);
    // Output that could not be written is why the run was stopped, so it comes first.
    observer.finish()?;
    match outcome.map_err(CliError::Engine)? {
        TrainOutcome::Finished => Ok(()),
        TrainOutcome::Interrupted { step } => Err(CliError::Interrupted { step }),
    }
}
