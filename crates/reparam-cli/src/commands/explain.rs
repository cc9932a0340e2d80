//! `reparam explain`.

use std::path::Path;

use reparam_formats::atomic::write_file_atomic;
use reparam_train::explain::{Explanation, page};
use reparam_train::{Stop, TrainError};

use crate::args::ExplainArgs;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::format::measured;
use crate::output::Printer;

/// Explains a text, and prints how much each word counts.
pub(crate) fn run(args: ExplainArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    let output = args.output.clone().map(|path| context.expand(path));
    let (task, request) = args.start(context)?;
    let explained = task.explain(&request, &context.hub, Stop::new(&context.stop));
    printer.warn_all(&request.model.warnings);
    let explanations = explained?;
    if let Some(path) = &output {
        write(path, &explanations)?;
    }
    for explanation in &explanations {
        match printer.is_json() {
            true => printer.json(explanation)?,
            false => print(explanation, printer)?,
        }
    }
    Ok(())
}

/// Writes a page, and one object a line beside it.
fn write(path: &Path, explanations: &[Explanation]) -> Result<()> {
    let failed = |source| CliError::from(TrainError::Format(source));
    write_file_atomic(path, page(explanations).as_bytes()).map_err(failed)?;
    let mut lines = String::new();
    for explanation in explanations {
        let line = serde_json::to_string(explanation);
        lines += &line.map_err(|error| CliError::Output(std::io::Error::other(error)))?;
        lines.push('\n');
    }
    write_file_atomic(&path.with_extension("json"), lines.as_bytes()).map_err(failed)
}

fn print(explanation: &Explanation, printer: &mut Printer<'_>) -> Result<()> {
    printer.row("target", &explanation.target)?;
    printer.row("logit", &measured(explanation.score, 4))?;
    printer.row("probability", &measured(explanation.probability, 4))?;
    if let Some(baseline) = explanation.baseline {
        printer.row("baseline", baseline)?;
    }
    if let Some(score) = explanation.baseline_score {
        printer.row("baseline logit", &measured(score, 4))?;
    }
    if let Some(error) = explanation.completeness_error {
        printer.row("completeness error", &format!("{error:.1e}"))?;
    }
    for word in &explanation.words {
        printer.line(&format!(
            "{:>10}  {}",
            measured(word.attribution, 4),
            word.text
        ))?;
    }
    printer.line("")
}
