//! `reparam eval`.

use reparam_train::{EvalRequest, Stop};

use crate::args::EvalArgs;
use crate::error::CliError;
use crate::format::measure;
use crate::output::Printer;
use crate::runtime::Runtime;

/// Measures a model and prints it.
pub(crate) fn run(
    args: EvalArgs,
    runtime: &Runtime,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let model = args.model.request(runtime.tasks.catalog());
    runtime.watch_interrupts("stopping")?;
    runtime.start_threads(0)?;
    let task = runtime
        .tasks
        .of_request(args.task.task.as_deref(), &model, &runtime.hub)?;
    let request = EvalRequest {
        model,
        data: args.data.into(),
        sequence_length: args.sequence_length,
    };
    let metrics = task.eval(&request, &runtime.hub, Stop::new(&runtime.stop))?;
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
