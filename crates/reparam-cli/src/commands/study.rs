//! `reparam study`.

use std::sync::atomic::Ordering;

use reparam_train::TrainError;
use reparam_train::study::{Repeated, StudyRequest, StudyRun, Vary, study};

use crate::args::StudyArgs;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::format::measured;
use crate::output::Printer;
use crate::overrides::overrides;

/// Makes the runs, says of each how it went, and prints the table.
pub(crate) fn run(args: StudyArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    let vary: Result<Vec<Vary>, _> = args.vary.iter().map(|text| Vary::parse(text)).collect();
    let vary = vary.map_err(TrainError::from)?;
    let request = StudyRequest {
        run_file: args.run_file,
        overrides: overrides(args.set, args.output.as_deref())?,
        vary,
        runtime: context.runtime(0),
    };
    context.keeps.store(true, Ordering::Relaxed);
    context.watch_interrupts(Some("stopping after this step"))?;
    let mut on_run = |run: &StudyRun| {
        let ended = match &run.failed {
            Some(message) if run.diverged => format!("diverged: {message}"),
            Some(message) => format!("failed: {message}"),
            None => format!(
                "loss {} -> {}",
                measured(run.first_loss, 4),
                measured(run.last_loss, 4)
            ),
        };
        printer.note(&format!("{}  {ended}", run.label));
    };
    let (tasks, stop) = (&context.tasks, &context.stop);
    let study = study(&request, tasks, &context.hub, stop, &mut on_run)?;
    let Some(mut study) = study else {
        return Err(CliError::StudyInterrupted);
    };
    let failed = study.failed.take().map_or(Ok(()), Err);
    if printer.is_json() {
        // One object: the runs are in study.json, too.
        failed?;
        return printer.json(&study);
    }
    let runs = study.runs.iter().map(StudyRun::row);
    table(StudyRun::COLUMNS, runs, &[0, 3], printer)?;
    if !study.settings.is_empty() {
        let settings = study.settings.iter().map(Repeated::row);
        table(Repeated::COLUMNS, settings, &[0], printer)?;
    }
    match (study.best_setting, study.best) {
        (Some(best), _) => printer.row("best", &study.settings[best].in_words())?,
        (None, Some(best)) => printer.row("best", &study.runs[best].label)?,
        (None, None) => {}
    }
    printer.row("page", &study.page.display().to_string())?;
    Ok(failed?)
}

/// Prints a table and an empty line; some of its columns are text.
fn table<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    text: &[usize],
    printer: &mut Printer<'_>,
) -> Result<()> {
    let mut all = vec![header.map(str::to_owned)];
    all.extend(rows);
    for row in &all {
        printer.line(&aligned(row, &all, text))?;
    }
    printer.line("")
}

/// Returns a row with its cells as wide as the widest of their column; columns of text begin at the left.
fn aligned<const N: usize>(row: &[String; N], rows: &[[String; N]], text: &[usize]) -> String {
    let cells = row.iter().enumerate().map(|(column, cell)| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        let width = widths.max().unwrap_or(0);
        if text.contains(&column) {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    });
    cells.collect::<Vec<_>>().join("  ")
}
