//! `reparam eval`.

use crate::args::EvalArgs;
use crate::engine::EvalRequest;
use crate::error::CliError;
use crate::format::counted;
use crate::output::Printer;
use crate::run::Context;

/// Measures a loss and prints it.
pub(crate) fn run(
    args: EvalArgs,
    context: &Context<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let request = EvalRequest {
        model: args.model.model,
        adapter: args.model.adapter,
        data: args.data,
        format: args.format,
        sequence_length: args.sequence_length,
        precision: args.model.precision,
    };
    let report = context.engine()?.eval(request).map_err(CliError::Engine)?;
    if printer.is_json() {
        return printer.json(&report);
    }
    printer.row("loss", &format!("{:.6} nats a token", report.loss))?;
    printer.row("perplexity", &format!("{:.4}", report.perplexity))?;
    printer.row("scored", &counted(report.tokens, "token"))
}
