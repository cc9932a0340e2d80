//! `reparam predict`.

use std::ops::ControlFlow;

use reparam_data::tabular::TabularError;
use reparam_train::{PredictRequest, Predictions, Stop, TrainError};
use serde_json::Value;

use crate::args::PredictArgs;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::output::Printer;
use crate::progress::Meter;
use crate::wrong_use::conflict;

/// Prints a prediction a row, as text or as an object.
pub(crate) fn run(args: PredictArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    let sampling = args.sampling.asked("predict")?;
    if !args.examples.are_drawn() && args.sampling.is_seed_left() {
        let problem = "--seed has no effect where nothing is drawn; give --temperature or --shots";
        return Err(conflict("predict", problem.to_owned()));
    }
    let examples = args.examples.asked(args.sampling.seed(), context);
    let (task, asked) = args.ask.start(context)?;
    let request = PredictRequest {
        sequence_length: asked.sequence_length,
        drop_rows: args.drop_rows,
        threshold: args.labels.threshold,
        pooling: args.pooling,
        normalize: args.normalize,
        decoding: args.decoding.asked(sampling),
        examples,
        ..PredictRequest::new(asked.model, asked.data)
    };
    let meter = Meter::new(printer);
    let mut printed = Printed {
        printer,
        written: Ok(()),
    };
    let stop = Stop::new(&context.stop).with_progress(&meter);
    let predicted = task.predict(&request, &context.hub, stop, &mut printed);
    let written = printed.written;
    printer.warn_all(&request.model.warnings);
    // Output that could not be written is why there are no more rows, so it comes first.
    written?;
    predicted.map_err(|source| match source {
        // Of a run file's ways out, only this one is a command's too.
        TrainError::Tabular(TabularError::MissingValues { .. }) => CliError::Hinted {
            source,
            hint: "fill them in, or leave these rows out with --drop-rows",
        },
        source => source.into(),
    })
}

/// Prints rows as they come.
struct Printed<'a, 'p> {
    printer: &'a mut Printer<'p>,
    /// The first failure to write.
    written: Result<()>,
}

impl Printed<'_, '_> {
    fn line(&mut self, line: &str) {
        if self.written.is_ok() {
            self.written = self.printer.data(&format!("{line}\n"));
        }
    }
}

impl Predictions for Printed<'_, '_> {
    fn header(&mut self, text: &str) {
        if !self.printer.is_json() {
            self.line(text);
        }
    }

    fn row(&mut self, object: Value, text: String) -> ControlFlow<()> {
        if !self.printer.is_json() {
            self.line(&text);
        } else if self.written.is_ok() {
            self.written = self.printer.json(&object);
        }
        match self.written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn note(&mut self, text: String) {
        self.printer.note(&text);
    }
}
