//! `reparam inspect`.

use std::path::Path;

use reparam_formats::shown;
use reparam_train::Tasks;
use reparam_train::inspect::{
    Description, Neighbour, TensorDescription, WordQuestion, ask_words, inspect,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::InspectArgs;
use crate::error::Result;
use crate::format::{bytes, count, counted};
use crate::output::Printer;

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    path: &'a Path,
    kind: &'a str,
    tensor_count: usize,
    elements: u64,
    bytes: u64,
    properties: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<&'a [TensorDescription]>,
}

/// Describes what is at a path.
pub(crate) fn run(args: &InspectArgs, printer: &mut Printer<'_>) -> Result<()> {
    if let Some(question) = question(args) {
        let words = ask_words(&args.path, &question, args.k)?;
        if printer.is_json() {
            return printer.json(&json!({ "words": words }));
        }
        for Neighbour { word, cosine } in words {
            printer.line(&format!("{cosine:.4}  {}", shown(&word)))?;
        }
        return Ok(());
    }
    let report = inspect(&args.path, &Tasks::builtin())?;
    let elements = report.tensors.iter().map(TensorDescription::elements).sum();
    let size = report.tensors.iter().map(|tensor| tensor.bytes).sum();
    if printer.is_json() {
        let properties = report.properties.iter();
        let properties = properties.map(|(name, value)| ((*name).to_owned(), value.clone()));
        return printer.json(&Output {
            path: &args.path,
            kind: report.kind.name(),
            tensor_count: report.tensors.len(),
            elements,
            bytes: size,
            properties: properties.collect(),
            tensors: args.tensors.then_some(&report.tensors),
        });
    }
    print_text(&report, elements, size, args, printer)
}

fn question(args: &InspectArgs) -> Option<WordQuestion> {
    let nearest = args.nearest.clone().map(WordQuestion::Nearest);
    nearest.or_else(|| {
        let words = args.analogy.clone()?;
        Some(WordQuestion::Analogy(words.try_into().ok()?))
    })
}

fn print_text(
    report: &Description,
    elements: u64,
    size: u64,
    args: &InspectArgs,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let rows = [
        ("path", args.path.display().to_string()),
        ("kind", report.kind.name().to_owned()),
        (
            "tensors",
            format!(
                "{} with {}, {}",
                counted(report.tensors.len() as u64, "tensor"),
                counted(elements, "element"),
                bytes(size)
            ),
        ),
    ];
    let properties = report
        .properties
        .iter()
        .map(|(name, value)| (*name, show(value)));
    let rows: Vec<(&str, String)> = rows.into_iter().chain(properties).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in &rows {
        printer.line(&format!("{name:<width$}  {value}"))?;
    }
    if args.tensors {
        printer.line("")?;
        print_tensors(&report.tensors, printer)?;
    }
    Ok(())
}

fn print_tensors(tensors: &[TensorDescription], printer: &mut Printer<'_>) -> Result<()> {
    let names: Vec<String> = tensors.iter().map(|t| shown(&t.name).to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0);
    for (tensor, name) in tensors.iter().zip(&names) {
        let shape: Vec<String> = tensor.shape.iter().map(|n| count(*n as u64)).collect();
        printer.line(&format!(
            "{name:<width$}  {:<5} {:>10}  [{}]",
            tensor.dtype,
            bytes(tensor.bytes),
            shape.join(" x ")
        ))?;
    }
    Ok(())
}

/// A value as text: strings without quotes, the rest as JSON.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text).to_string(),
        other => other.to_string(),
    }
}
