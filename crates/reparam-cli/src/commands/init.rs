//! `reparam init`.

use reparam_formats::atomic::write_file_atomic;
use reparam_train::TrainError;
use reparam_train::config::Start;
use serde_json::json;

use crate::args::InitArgs;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::output::Printer;

/// Writes a run file to start from.
pub(crate) fn run(args: InitArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    let start = Start {
        model: args.model,
        data: args.data,
        output: args.output,
    };
    let text = context.tasks.template(args.task.as_deref(), &start)?;
    let path = &args.path;
    // A link that leads nowhere is there, too.
    if !args.force && path.symlink_metadata().is_ok() {
        return Err(CliError::FileExists(path.clone()));
    }
    write_file_atomic(path, text.as_bytes()).map_err(TrainError::from)?;
    // JSON cannot say a path that is not UTF-8.
    let path = path.display().to_string();
    if printer.is_json() {
        return printer.json(&json!({ "path": path }));
    }
    printer.row("run file", &path)?;
    printer.note(&format!("`reparam train {path}` trains what it says"));
    Ok(())
}
