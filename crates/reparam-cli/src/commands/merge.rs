//! `reparam merge`.

use reparam_train::Stop;
use reparam_train::merge::{Agreement, MergeReport, merge};
use serde::Serialize;

use crate::args::MergeArgs;
use crate::context::Context;
use crate::error::Result;
use crate::format::counted;
use crate::output::Printer;
use crate::progress::Meter;

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    output: String,
    max_error: f64,
    #[serde(flatten)]
    report: &'a MergeReport,
}

/// Merges adapters and says what it cost.
pub(crate) fn run(args: MergeArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    let output = context.expand(args.output.clone());
    let request = args.request(context)?;
    context.watch_interrupts(None)?;
    let meter = Meter::new(printer);
    let stop = Stop::new(&context.stop).with_progress(&meter);
    let report = merge(&request, &output, &context.hub, stop);
    meter.print_notes(printer);
    printer.warn_all(&request.model.warnings);
    let report = report?;
    let output = output.display().to_string();
    if printer.is_json() {
        return printer.json(&Output {
            output,
            max_error: report.max_error(),
            report: &report,
        });
    }
    print(&report, printer)?;
    printer.row("merged", &output)
}

fn print(report: &MergeReport, printer: &mut Printer<'_>) -> Result<()> {
    let names = report.layers.iter().map(|layer| layer.name.chars().count());
    let width = names.max().unwrap_or(0);
    for layer in &report.layers {
        printer.line(&format!(
            "{:<width$}  {}  error {:.1e} (mean {:.1e})  change {:.1e} (mean {:.1e})",
            layer.name,
            layer.dtype,
            layer.max_error,
            layer.mean_error,
            layer.max_change,
            layer.mean_change,
        ))?;
    }
    printer.row(
        "weights",
        &counted(report.layers.len() as u64, "changed weight"),
    )?;
    match &report.agreement {
        Some(agreement) => print_agreement(agreement, "adapter", printer),
        None => Ok(()),
    }
}

/// Says how close two models are, of which one is called `other`.
pub(crate) fn print_agreement(
    agreement: &Agreement,
    other: &str,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let Agreement {
        kl,
        max_kl,
        loss,
        merged_loss,
        tokens,
    } = *agreement;
    printer.row(
        "divergence",
        &format!("{kl:.3e} nats per token (at most {max_kl:.3e}), {tokens} tokens"),
    )?;
    printer.row("loss", &format!("{merged_loss:.6} ({other}: {loss:.6})"))
}
