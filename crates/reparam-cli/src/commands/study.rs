//! `reparam study`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use reparam_train::study::{StudyRequest, StudyRun, Vary};

use crate::args::StudyArgs;
use crate::engine::EngineError;
use crate::error::CliError;
use crate::interrupt::survive_file_size_limit;
use crate::output::Printer;
use crate::overrides::overrides;
use crate::run::Context;

/// Makes the runs, says of each how it went, and prints the table.
pub(crate) fn run(
    args: StudyArgs,
    context: &Context<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let vary: Result<Vec<Vary>, _> = args.vary.iter().map(|text| Vary::parse(text)).collect();
    let vary = vary.map_err(|error| {
        let hint = error.hint();
        CliError::Engine(EngineError::new(
            reparam_train::event::FailureKind::Config,
            error,
            hint,
        ))
    })?;
    let request = StudyRequest {
        run_file: args.run_file,
        overrides: overrides(args.set, args.output.as_deref())?,
        vary,
    };
    let engine = context.engine()?;
    survive_file_size_limit()?;
    let stop = Arc::new(AtomicBool::new(false));
    (context.watch_interrupts)(Arc::clone(&stop))?;
    let mut on_run = |run: &StudyRun| {
        let ended = match &run.failed {
            Some(message) if run.diverged => format!("diverged: {message}"),
            Some(message) => format!("failed: {message}"),
            None => format!("loss {:.4} -> {:.4}", run.first_loss, run.last_loss),
        };
        printer.note(&format!("{}  {ended}", run.label));
    };
    let study = engine
        .study(request, &stop, &mut on_run)
        .map_err(CliError::Engine)?;
    let Some(study) = study else {
        return Err(CliError::StudyInterrupted);
    };
    if printer.is_json() {
        return printer.json(&study);
    }
    let mut rows = vec![StudyRun::COLUMNS.map(str::to_owned)];
    rows.extend(study.runs.iter().map(StudyRun::row));
    for row in &rows {
        printer.line(&aligned(row, &rows))?;
    }
    printer.line("")?;
    printer.row("page", &study.page.display().to_string())
}

/// Returns a row with its cells as wide as the widest of their column; the first column is text.
fn aligned(row: &[String; 8], rows: &[[String; 8]]) -> String {
    let cells = row.iter().enumerate().map(|(column, cell)| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        let width = widths.max().unwrap_or(0);
        if column < 2 {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    });
    cells.collect::<Vec<_>>().join("  ")
}
