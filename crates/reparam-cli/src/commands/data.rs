//! `reparam data`.

use reparam_formats::atomic::write_file_atomic;
use reparam_train::preflight::{Inspected, inspect_data};
use reparam_train::seen::{Lengths, Noticed, Seen, SeenPart, SeenRow, page};
use reparam_train::{Stop, TrainError, TrainOptions};

use super::dry_run::findings;
use crate::args::{DataArgs, DataCommand, InspectDataArgs};
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::format::{count, counted, percent};
use crate::output::Printer;
use crate::overrides::overrides;
use crate::progress::Meter;

/// The columns of the longest bar of a histogram.
const BAR_COLUMNS: u64 = 40;

/// The codes of what is only read, and of special tokens that are learned.
const DIM: &str = "2";
const BRIGHT: &str = "1";
const SPECIAL: &str = "35";
const LABEL: &str = "36";

/// Does what is asked of data.
pub(crate) fn run(args: DataArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    match args.command {
        DataCommand::Inspect(args) => inspect(args, context, printer),
    }
}

fn inspect(args: InspectDataArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    let html = args.html.map(|path| context.expand(path));
    let run = (context.tasks).load(&args.run_file, &overrides(args.set, None)?)?;
    context.watch_interrupts(None)?;
    let options = TrainOptions {
        runtime: context.runtime(run.threads()),
        ..TrainOptions::new(context.hub.clone())
    };
    let meter = Meter::new(printer);
    let watch = Stop::new(&context.stop).with_progress(&meter);
    let inspected = inspect_data(&run, &options, args.rows, watch);
    meter.print_notes(printer);
    let inspected = inspected?;
    if let Some(path) = &html {
        let title = format!("Data of {}", args.run_file.display());
        let page = page(&title, &inspected.data, &inspected.findings);
        let written = write_file_atomic(path, page.as_bytes());
        written.map_err(|source| CliError::from(TrainError::Format(source)))?;
    }
    if printer.is_json() {
        return printer.json(&inspected);
    }
    print(&inspected, printer)
}

fn print(inspected: &Inspected, printer: &mut Printer<'_>) -> Result<()> {
    printer.row("task", &inspected.task)?;
    printer.row("model", &inspected.model)?;
    numbers(&inspected.data, printer)?;
    findings(&inspected.findings, printer)?;
    for row in &inspected.data.examples {
        print_row(row, printer)?;
    }
    Ok(())
}

/// The numbers of data, in lines.
pub(super) fn numbers(seen: &Seen, printer: &mut Printer<'_>) -> Result<()> {
    let learned = seen.labelled_tokens.map(|labelled| {
        let share = percent(labelled, seen.tokens);
        format!(", {} learned ({share})", count(labelled))
    });
    printer.row(
        seen.unit,
        &format!(
            "{} of {}{}, at most {} at once",
            count(seen.rows),
            counted(seen.tokens, "token"),
            learned.unwrap_or_default(),
            count(seen.sequence_length)
        ),
    )?;
    lengths(&seen.lengths, printer)?;
    if let Some(fill) = seen.fill {
        printer.row(
            "blocks",
            &format!("{:.1} % full, without padding", 100.0 * fill),
        )?;
    }
    for (label, noticed) in [
        ("truncated", &seen.truncated),
        ("dropped", &seen.dropped),
        ("eval dropped", &seen.held_out_dropped),
        ("masked", &seen.masked),
        ("duplicates", &seen.duplicates),
        ("held out", &seen.held_out_duplicates),
    ] {
        if noticed.count > 0 {
            printer.row(label, &places(noticed))?;
        }
    }
    for file in &seen.files {
        printer.row(
            "file",
            &format!(
                "{}: {} {}, {}",
                file.file.display(),
                count(file.rows),
                seen.unit,
                counted(file.tokens, "token")
            ),
        )?;
    }
    if !seen.labels.is_empty() {
        let labels = seen.labels.iter();
        let labels: Vec<String> = labels
            .map(|label| format!("{} {}", label.label, count(label.count)))
            .collect();
        printer.row("labels", &labels.join(", "))?;
    }
    Ok(())
}

fn places(noticed: &Noticed) -> String {
    let more = if noticed.count > noticed.first.len() as u64 {
        " ..."
    } else {
        ""
    };
    format!(
        "{}: {}{more}",
        count(noticed.count),
        noticed.first.join(", ")
    )
}

fn lengths(lengths: &Lengths, printer: &mut Printer<'_>) -> Result<()> {
    printer.row(
        "tokens",
        &format!(
            "min {}, median {}, mean {:.1}, 95 % {}, max {}",
            count(lengths.min),
            count(lengths.median),
            lengths.mean,
            count(lengths.p95),
            count(lengths.max)
        ),
    )?;
    if lengths.histogram.len() < 2 {
        return Ok(());
    }
    let range = |from: u64, to: u64| match from == to {
        true => count(from),
        false => format!("{}-{}", count(from), count(to)),
    };
    let names: Vec<String> = (lengths.histogram.iter())
        .map(|bin| range(bin.from, bin.to))
        .collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let most = lengths
        .histogram
        .iter()
        .map(|bin| bin.rows)
        .max()
        .unwrap_or(0)
        .max(1);
    for (bin, name) in lengths.histogram.iter().zip(names) {
        let columns = (bin.rows * BAR_COLUMNS).div_ceil(most) as usize;
        let bar = "#".repeat(columns);
        let space = if bar.is_empty() { "" } else { " " };
        printer.row(
            "",
            &format!("{name:>width$}  {bar}{space}{}", count(bin.rows)),
        )?;
    }
    Ok(())
}

/// A row of the data: what is learned in brackets, or bright where output is styled.
fn print_row(row: &SeenRow, printer: &mut Printer<'_>) -> Result<()> {
    let label = row.label.as_ref();
    let label = label.map_or_else(String::new, |label| format!(", {label}"));
    printer.line("")?;
    printer.line(&format!(
        "{} ({}{label})",
        row.place.as_deref().unwrap_or("row"),
        counted(row.tokens, "token")
    ))?;
    let marks = !printer.styles_output();
    let is_all_read = !row.parts.iter().any(|part| part.learned);
    let mut inside = false;
    for part in &row.parts {
        if marks && part.learned != inside {
            printer.styled("", if part.learned { "[[" } else { "]]" })?;
            inside = part.learned;
        }
        printer.styled(style(part, is_all_read), &part.text)?;
        if let Some(label) = &part.label {
            printer.styled(LABEL, &format!("{{{label}}}"))?;
        }
    }
    printer.line(if inside { "]]" } else { "" })
}

fn style(part: &SeenPart, is_all_read: bool) -> &'static str {
    match (part.learned, part.special) {
        (_, true) => SPECIAL,
        (true, false) => BRIGHT,
        (false, false) if is_all_read => "",
        (false, false) => DIM,
    }
}
