//! `reparam train`.

use std::sync::Arc;

use reparam_train::{Outcome, Stop, Tasks, TrainOptions, train};

use super::dry_run;
use crate::args::TrainArgs;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::observer::TrainObserver;
use crate::output::Printer;
use crate::overrides::of_train;
use crate::progress::Meter;

/// Reads the run file, runs it, and tells of every event.
pub(crate) fn run(
    args: TrainArgs,
    context: &dyn Fn() -> Result<Context>,
    printer: &mut Printer<'_>,
) -> Result<()> {
    if !args.dry_run {
        printer.set_failure_is_event();
    }
    let overrides = of_train(&args)?;
    let context = context();
    let tasks = context.as_ref().map(|context| context.tasks.clone());
    // A mistake in the run file is worth more than one in the environment.
    let tasks = tasks.unwrap_or_else(|_| Tasks::builtin());
    let run = match &args.run_file {
        Some(path) => tasks.load(path, &overrides)?,
        None => tasks.without_file(&overrides)?,
    };
    let context = context?;

    let said = (!args.dry_run).then_some("stopping after this step");
    context.watch_interrupts(said)?;
    let options = TrainOptions {
        resume: args.resume,
        force: args.force,
        runtime: context.runtime(run.threads()),
        ..TrainOptions::new(context.hub.clone())
    };
    if args.dry_run {
        return dry_run::run(&run, &options, &context, printer);
    }
    let flags = (Arc::clone(&context.stop), Arc::clone(&context.keeps));
    let meter = Meter::new(printer);
    let mut observer = TrainObserver::new(printer, &meter, flags);
    let watch = Stop::new(&context.stop).with_progress(&meter);
    let outcome = train(&run, &options, watch, &mut observer);
    // Output that could not be written is why the run was stopped, so it comes first.
    observer.finish()?;
    match outcome? {
        Outcome::Finished => Ok(()),
        Outcome::AlreadyFinished => {
            let directory = run.output().display();
            printer.note(&format!("the run in {directory} is already complete"));
            Ok(())
        }
        Outcome::Interrupted { step } => Err(CliError::Interrupted {
            step,
            forced: args.force,
        }),
    }
}
