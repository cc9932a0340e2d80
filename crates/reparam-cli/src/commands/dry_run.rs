//! `reparam train --dry-run`.

use reparam_train::preflight::{
    DryRun, Finding, LayerCount, Measured, MemoryEstimate, Severity, dry_run,
};
use reparam_train::{Stop, TaskRun, TrainOptions};

use super::data::numbers;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::format::{bytes, count, counted, hinted, measured, seconds};
use crate::output::Printer;
use crate::progress::Meter;
use crate::starting::lines;

/// Says what a run would be. An error that was found is the error of the command, after all of it.
pub(crate) fn run(
    run: &TaskRun,
    options: &TrainOptions,
    context: &Context,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let meter = Meter::new(printer);
    let watch = Stop::new(&context.stop).with_progress(&meter);
    let found = dry_run(run, options, watch);
    meter.print_notes(printer);
    let found = found?;
    let checked = found.check();
    if printer.is_json() {
        return match checked {
            Ok(()) => printer.json(&found),
            Err(source) => Err(CliError::DryRun {
                source,
                report: serde_json::to_value(&found).unwrap_or_default(),
            }),
        };
    }
    print(&found, printer)?;
    Ok(checked?)
}

fn print(found: &DryRun, printer: &mut Printer<'_>) -> Result<()> {
    for (label, value) in lines(&found.run) {
        printer.row(label, &value)?;
    }
    if !found.layers.is_empty() {
        printer.row("layers", &layers(&found.layers))?;
    }
    if !found.target_modules.is_empty() {
        printer.row("targets", &layers(&found.target_modules))?;
    }
    if let Some(data) = &found.data {
        numbers(data, printer)?;
    }
    if let Some(memory) = &found.memory {
        printer.row("memory", &memory_line(memory))?;
    }
    if let Some(measured) = &found.measured {
        printer.row("measured", &measured_line(measured))?;
        let run = seconds(measured.run_seconds);
        printer.row(
            "time",
            &format!(
                "about {run} for {}, evaluations and checkpoints aside",
                counted(found.run.max_steps, "step")
            ),
        )?;
    }
    // Errors are what the command fails with.
    let others = found.findings.iter();
    let others = others.filter(|finding| finding.severity != Severity::Error);
    findings(others, printer)
}

/// `q_proj 5 of 5, lm_head 0 of 1`: what the method is attached to.
fn layers(layers: &[LayerCount]) -> String {
    let layers = layers.iter().map(|layer| {
        let (adapted, of) = (count(layer.adapted as u64), count(layer.of as u64));
        format!("{} {adapted} of {of}", layer.name)
    });
    layers.collect::<Vec<_>>().join(", ")
}

fn memory_line(memory: &MemoryEstimate) -> String {
    let available = memory.available;
    let available = available.map_or_else(String::new, |free| format!(" of {}", bytes(free)));
    format!(
        "about {}{available}: {} loaded, {} for gradients, {} for the optimizer, {} for activations of {}",
        bytes(memory.peak),
        bytes(memory.loaded),
        bytes(memory.gradients),
        bytes(memory.optimizer),
        bytes(memory.activations),
        counted(memory.largest_batch, "token")
    )
}

fn measured_line(found: &Measured) -> String {
    format!(
        "two steps: {} and {}, loss {}, at most {} held",
        seconds(found.first_step_seconds),
        seconds(found.second_step_seconds),
        measured(found.loss, 4),
        bytes(found.peak_rss_bytes)
    )
}

/// Findings, one after the other, with what to do about each.
pub(super) fn findings<'a>(
    findings: impl IntoIterator<Item = &'a Finding>,
    printer: &mut Printer<'_>,
) -> Result<()> {
    for finding in findings {
        let text = hinted(&finding.message, finding.hint.as_deref());
        printer.line(&format!("{}: {text}", finding.severity.name()))?;
    }
    Ok(())
}
