//! `reparam bench`.

use reparam_train::bench::{BenchReport, BenchRequest, bench};

use crate::args::BenchArgs;
use crate::context::Context;
use crate::error::Result;
use crate::format::bytes;
use crate::output::Printer;

/// Measures training steps and prints what they took.
pub(crate) fn run(args: BenchArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    let request = BenchRequest {
        model: args.model,
        method: args.method,
        rank: args.rank,
        batch_size: args.batch_size,
        sequence_length: args.sequence_length,
        steps: args.steps,
        warmup: args.warmup,
        precision: args.precision,
        recompute: args.recompute,
        seed: args.seed,
        runtime: context.runtime,
    };
    let report = bench(&request, &context.hub)?;
    if printer.is_json() {
        return printer.json(&report);
    }
    print(&report, printer)
}

fn print(report: &BenchReport, printer: &mut Printer<'_>) -> Result<()> {
    let least = report
        .step_seconds
        .iter()
        .copied()
        .fold(f64::INFINITY, f64::min);
    let most = report.step_seconds.iter().copied().fold(0.0, f64::max);
    printer.row(
        "step",
        &format!(
            "{:.3} s (median; {least:.3} to {most:.3})",
            report.step_seconds_median
        ),
    )?;
    printer.row("speed", &format!("{:.0} tokens/s", report.tokens_per_s))?;
    printer.row(
        "computed in",
        &format!(
            "{}, {}, {} threads",
            report.precision, report.isa, report.threads
        ),
    )?;
    printer.row("loading", &format!("{:.3} s", report.load_seconds))?;
    if report.peak_rss_bytes > 0 {
        printer.row("peak memory", &bytes(report.peak_rss_bytes))?;
    }
    if let Some(most) = report.minor_page_faults.iter().max() {
        printer.row("page faults", &format!("{most} a step at most"))?;
    }
    printer.row(
        "share",
        &format!(
            "the linear layers reach {:.0} of {:.0} GFLOP/s, {:.0} % of what the registers can do",
            report.linear_gflops,
            report.limit_gflops,
            100.0 * report.linear_share_of_limit
        ),
    )?;
    for operation in &report.operations {
        let share = 100.0 * operation.share;
        let speed = if operation.gflop > 0.0 {
            format!(", {:.0} GFLOP/s", operation.gflop / operation.seconds)
        } else {
            String::new()
        };
        printer.row(
            operation.name,
            &format!("{:.4} s, {share:.1} %{speed}", operation.seconds),
        )?;
    }
    Ok(())
}
