//! `reparam eval`.

use reparam_train::Stop;

use crate::args::AskArgs;
use crate::error::Result;
use crate::format::measure;
use crate::output::Printer;
use crate::runtime::Runtime;

/// Measures a model and prints it.
pub(crate) fn run(args: AskArgs, runtime: &Runtime, printer: &mut Printer<'_>) -> Result<()> {
    let (task, request) = args.start(runtime)?;
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
