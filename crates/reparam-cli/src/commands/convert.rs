//! `reparam convert`.

use std::path::{Path, PathBuf};

use reparam_formats::checkpoint::Dtype;
use reparam_formats::gguf::{GgufDtype, WrittenTensor};
use reparam_train::convert::{
    GgufReport, adapter_to_gguf, adapter_to_mlx, adapter_to_peft, model_to_gguf,
};
use reparam_train::merge::{Agreement, LoraReport, MergeRequest, merge, to_lora};
use reparam_train::{ModelRequest, Stop, TaskEntry};
use serde::Serialize;

use crate::args::{ConvertArgs, Target};
use crate::commands::merge::print_agreement;
use crate::context::Context;
use crate::error::Result;
use crate::format::counted;
use crate::output::Printer;
use crate::progress::Meter;
use crate::wrong_use::conflict;

/// Writes a model or an adapter for another program.
pub(crate) fn run(args: ConvertArgs, context: &Context, printer: &mut Printer<'_>) -> Result<()> {
    args.check()?;
    context.watch_interrupts(None)?;
    let output = context.expand(args.output.clone());
    let model = args.model(context);
    let adapter = args.adapter.clone().map(|path| context.expand(path));
    // What is asked of a request without a model: where things are looked up.
    let any = crate::args::read_request(String::new(), context);
    let warnings = model.as_ref().unwrap_or(&any).warnings.clone();
    if args.to == Target::Lora {
        return write_lora(
            &args,
            adapter,
            model.unwrap_or(any),
            &output,
            context,
            printer,
        );
    }
    let written = match (&adapter, model) {
        (Some(adapter), model) if !args.merge => {
            let model = model.as_ref();
            write_adapter(&args, adapter, model, (&output, &any), context)
        }
        (Some(adapter), Some(model)) => write_model(
            &args,
            model.with_adapter(adapter),
            &output,
            context,
            printer,
        ),
        (None, Some(model)) => write_model(&args, model, &output, context, printer),
        (Some(adapter), None) => {
            let named = any.of_adapter(adapter);
            let named = named.map_err(crate::error::CliError::from);
            named.and_then(|model| write_model(&args, model, &output, context, printer))
        }
        // The arguments require a model or an adapter.
        (None, None) => Err(conflict(
            "convert",
            "there is neither --model nor --adapter".to_owned(),
        )),
    };
    printer.warn_all(&warnings);
    let Written {
        what,
        dtype,
        report,
    } = written?;
    let path = output.display().to_string();
    if printer.is_json() {
        return printer.json(&Output {
            output: &path,
            kind: what,
            format: args.to.word(),
            dtype: dtype.map(GgufDtype::name),
            tensors: report
                .iter()
                .flat_map(GgufReport::rounded)
                .map(Rounded::of)
                .collect(),
            agreement: report.as_ref().and_then(|report| report.agreement.as_ref()),
        });
    }
    if let Some(worst) = report.as_ref().and_then(GgufReport::worst) {
        printer.row(
            "rounding",
            &format!(
                "at most {:.2e} of a tensor's norm, {:.1e} of a number ({})",
                worst.relative_error, worst.max_error, worst.name
            ),
        )?;
    }
    if let Some(agreement) = report.as_ref().and_then(|report| report.agreement.as_ref()) {
        print_agreement(agreement, "unrounded", printer)?;
    }
    let dtype = dtype.map_or(String::new(), |dtype| format!(" ({dtype})"));
    printer.row(what, &format!("{path}{dtype}"))
}

/// What was written.
struct Written {
    what: &'static str,
    /// The type of its matrices.
    dtype: Option<GgufDtype>,
    /// What was said of a model for llama.cpp.
    report: Option<GgufReport>,
}

impl Written {
    fn new(what: &'static str, dtype: Option<GgufDtype>) -> Self {
        Self {
            what,
            dtype,
            report: None,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    output: &'a str,
    kind: &'static str,
    format: &'static str,
    dtype: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Rounded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    agreement: Option<&'a Agreement>,
}

/// What it prints of a tensor.
#[derive(Serialize)]
struct Rounded<'a> {
    name: &'a str,
    dtype: &'static str,
    max_error: f64,
    mean_error: f64,
    relative_error: f64,
}

impl<'a> Rounded<'a> {
    fn of(tensor: &'a WrittenTensor) -> Self {
        Self {
            name: &tensor.name,
            dtype: tensor.dtype.name(),
            max_error: tensor.max_error,
            mean_error: tensor.mean_error,
            relative_error: tensor.relative_error,
        }
    }
}

/// Writes an adapter by itself.
fn write_adapter(
    args: &ConvertArgs,
    adapter: &Path,
    model: Option<&ModelRequest>,
    (output, any): (&Path, &ModelRequest),
    context: &Context,
) -> Result<Written> {
    if args.to != Target::Gguf {
        let word = args.to.word();
        if args.dtype.is_some() {
            let problem =
                format!("--dtype has no effect on an adapter that is written --to {word}");
            return Err(conflict("convert", problem));
        }
        if model.is_some() {
            let problem = format!(
                "--model has no effect on an adapter that is written --to {word}; give --merge to write the model"
            );
            return Err(conflict("convert", problem));
        }
    }
    let dtype = match args.to {
        Target::Gguf => {
            let dtype = args.dtype.unwrap_or(GgufDtype::F32);
            adapter_to_gguf(adapter, model, dtype, output, any, &context.hub)?;
            Some(dtype)
        }
        Target::Mlx => {
            adapter_to_mlx(adapter, output)?;
            None
        }
        // A LoRA has a way of its own.
        Target::Peft | Target::Lora => {
            adapter_to_peft(adapter, output)?;
            None
        }
    };
    Ok(Written::new("adapter", dtype))
}

/// What `--json` prints of a LoRA.
#[derive(Serialize)]
struct Lora<'a> {
    output: &'a str,
    kind: &'static str,
    format: &'static str,
    relative_error: f64,
    #[serde(flatten)]
    report: &'a LoraReport,
}

/// Makes a LoRA of an adapter or of another model, and says what it leaves.
fn write_lora(
    args: &ConvertArgs,
    adapter: Option<PathBuf>,
    model: ModelRequest,
    output: &Path,
    context: &Context,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let named = match &adapter {
        Some(adapter) if model.model.is_empty() => model.of_adapter(adapter)?,
        _ => model,
    };
    let (base, hub) = named.found(&context.hub)?;
    let base = ModelRequest {
        adapter: None,
        ..base
    };
    // PEFT does not need the word: a model of no task that is known is no error.
    let task = context.tasks.of_request(None, &base, &hub).ok();
    let task_type = task.and_then(TaskEntry::task_type);
    let request = args.lora(base, adapter, task_type, context);
    let meter = Meter::new(printer);
    let stop = Stop::new(&context.stop).with_progress(&meter);
    let report = to_lora(&request, output, &hub, stop);
    meter.print_notes(printer);
    printer.warn_all(&request.base.warnings);
    let report = report?;
    let path = output.display().to_string();
    if !report.left_out.is_empty() {
        let names: Vec<&str> = report
            .left_out
            .iter()
            .take(10)
            .map(String::as_str)
            .collect();
        printer.warn(&format!(
            "not in the LoRA, though different: {} ({})",
            counted(report.left_out.len() as u64, "tensor"),
            names.join(", ")
        ));
    }
    if printer.is_json() {
        return printer.json(&Lora {
            output: &path,
            kind: "adapter",
            format: args.to.word(),
            relative_error: report.relative_error(),
            report: &report,
        });
    }
    let widths = report.layers.iter().map(|layer| layer.name.chars().count());
    let width = widths.max().unwrap_or(0);
    for layer in &report.layers {
        printer.line(&format!(
            "{:<width$}  rank {:<4} error {:.2e} of {:.2e} ({:.2e}), at most {:.1e}",
            layer.name, layer.rank, layer.error, layer.norm, layer.relative_error, layer.max_error,
        ))?;
    }
    printer.row(
        "error",
        &format!(
            "{:.3e} of the change of these layers",
            report.relative_error()
        ),
    )?;
    if let Some(agreement) = &report.agreement {
        print_agreement(agreement, "source", printer)?;
    }
    printer.row("adapter", &path)
}

/// Writes a whole model, with its adapter merged into it if there is one.
fn write_model(
    args: &ConvertArgs,
    model: ModelRequest,
    output: &Path,
    context: &Context,
    printer: &mut Printer<'_>,
) -> Result<Written> {
    match args.to {
        Target::Gguf => {
            let request = args.gguf(model, context);
            let meter = Meter::new(printer);
            let stop = Stop::new(&context.stop).with_progress(&meter);
            let report = model_to_gguf(&request, output, &context.hub, stop);
            meter.print_notes(printer);
            let report = report?;
            Ok(Written {
                report: Some(report.clone()),
                ..Written::new("model", Some(report.dtype))
            })
        }
        Target::Mlx => {
            let dtype = match args.dtype {
                None => None,
                Some(GgufDtype::F32) => Some(Dtype::F32),
                Some(GgufDtype::F16) => Some(Dtype::F16),
                Some(GgufDtype::BF16) => Some(Dtype::BF16),
                Some(GgufDtype::Q8_0) => {
                    let problem = "--dtype q8_0 is of GGUF; MLX quantizes what it reads";
                    return Err(conflict("convert", problem.to_owned()));
                }
            };
            let (found, hub) = model.found(&context.hub)?;
            let adapters = found.adapter.clone().map(|path| (path, 1.0));
            let request = MergeRequest {
                dtype,
                ..MergeRequest::new(found, adapters.into_iter().collect())
            };
            merge(&request, output, &hub, Stop::new(&context.stop))?;
            Ok(Written::new("model", args.dtype))
        }
        Target::Peft | Target::Lora => {
            let problem = "--to peft writes an adapter; give --adapter without --merge";
            Err(conflict("convert", problem.to_owned()))
        }
    }
}
