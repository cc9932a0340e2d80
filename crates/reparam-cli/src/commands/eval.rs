//! `reparam eval`.

use reparam_data::tabular::TabularError;
use reparam_train::{Stop, TrainError};

use crate::args::AskArgs;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::format::measure;
use crate::output::Printer;
use crate::progress::Meter;

/// Measures a model and prints it.
pub(crate) fn run(args: AskArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    let (task, request) = args.start(context)?;
    let meter = Meter::new(printer);
    let watch = Stop::new(&context.stop).with_progress(&meter);
    let metrics = task.eval(&request, &context.hub, watch);
    meter.print_notes(printer);
    printer.warn_all(&request.model.warnings);
    let metrics = metrics.map_err(|source| match source {
        // A run file has other ways out.
        TrainError::Tabular(TabularError::MissingValues { .. }) => CliError::Hinted {
            source,
            hint: "fill them in, or leave these rows out of the file",
        },
        source => source.into(),
    })?;
    if printer.is_json() {
        return printer.json(&metrics);
    }
    for (name, value) in metrics.values() {
        if let Some(text) = measure(value, 6) {
            printer.row(name, &text)?;
        }
    }
    Ok(())
}
