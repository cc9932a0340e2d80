//! `reparam eval`.

use reparam_train::Stop;

use crate::args::AskArgs;
use crate::context::Context;
use crate::error::Result;
use crate::format::measure;
use crate::output::Printer;

/// Measures a model and prints it.
pub(crate) fn run(args: AskArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    let (task, request) = args.start(context)?;
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
