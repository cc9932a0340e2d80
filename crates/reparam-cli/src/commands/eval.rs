//! `reparam eval`.

use reparam_train::{EvalRequest, Stop};

use crate::args::EvalArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::format::measure;
use crate::output::Printer;

/// Measures a model and prints it.
pub(crate) fn run(
    args: EvalArgs,
    context: &Context,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let model = args.model.request(context);
    context.watch_interrupts("stopping")?;
    let task = context
        .tasks
        .of_request(args.task.task.as_deref(), &model, &context.hub)?;
    let request = EvalRequest {
        model,
        data: args.data.into(),
        sequence_length: args.sequence_length,
    };
    let metrics = task.eval(&request, &context.hub, Stop::new(&context.stop))?;
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
