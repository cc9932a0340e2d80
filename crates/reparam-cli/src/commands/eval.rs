//! `reparam eval`.

use reparam_data::tabular::TabularError;
use reparam_train::{CONFUSION, INTERVALS, Stop, TrainError};

use super::matrix::Matrix;
use crate::args::EvalArgs;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::format::measure;
use crate::output::Printer;
use crate::progress::Meter;

/// Measures a model and prints it.
pub(crate) fn run(args: EvalArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
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
    let values = metrics.values();
    for (name, value) in values {
        let Some(text) = measure(value, 6) else {
            continue;
        };
        let interval = values.get(INTERVALS).map(|all| &all[name.as_str()]);
        let ends = interval.and_then(|ends| {
            let [low, high] = [0, 1].map(|end| measure(&ends[end], 6));
            low.zip(high)
        });
        match ends {
            Some((low, high)) => printer.row(name, &format!("{text} ({low} to {high})"))?,
            None => printer.row(name, &text)?,
        }
    }
    let matrix = values.get(CONFUSION).and_then(Matrix::of);
    matrix.map_or(Ok(()), |matrix| matrix.print(printer))
}
