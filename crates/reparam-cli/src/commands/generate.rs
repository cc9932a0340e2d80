//! `reparam generate`.

use std::ops::ControlFlow;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use serde::Serialize;

use crate::args::{Cli, GenerateArgs};
use crate::engine::{GenerateReport, GenerateRequest, Sampling};
use crate::error::CliError;
use crate::format::counted;
use crate::output::Printer;
use crate::run::Context;

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    prompt: &'a str,
    #[serde(flatten)]
    report: &'a GenerateReport,
}

/// Continues a prompt and prints the continuation, as it is made unless JSON was asked for.
pub(crate) fn run(
    args: GenerateArgs,
    context: &Context<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let request = GenerateRequest {
        sampling: sampling(&args)?,
        model: args.model.model,
        adapter: args.model.adapter,
        prompt: args.prompt,
        max_new_tokens: args.max_new_tokens,
        precision: args.model.precision,
    };
    let prompt = request.prompt.clone();
    let engine = context.engine()?;
    let is_json = printer.is_json();
    let mut written = Ok(());
    let report = engine.generate(request, &mut |piece| {
        if is_json {
            return ControlFlow::Continue(());
        }
        written = printer.text(piece);
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    // Output that could not be written is why the text was broken off, so it comes first.
    written?;
    let report = report.map_err(CliError::Engine)?;
    if is_json {
        return printer.json(&Output {
            prompt: &prompt,
            report: &report,
        });
    }
    printer.line("")?;
    printer.note(&format!(
        "{} at {:.1} tokens/s",
        counted(report.tokens.len() as u64, "token"),
        report.tokens_per_s
    ));
    Ok(())
}

/// How the next token is chosen; refuses options that temperature 0 leaves without effect.
fn sampling(args: &GenerateArgs) -> Result<Sampling, CliError> {
    if args.temperature > 0.0 {
        return Ok(Sampling::Random {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            seed: args.seed,
        });
    }
    let idle = [
        ("--top-k", args.top_k.is_some()),
        ("--top-p", args.top_p.is_some()),
    ];
    match idle.into_iter().find(|(_, given)| *given) {
        None => Ok(Sampling::Greedy),
        Some((flag, _)) => {
            let error = Cli::command().error(
                ErrorKind::ArgumentConflict,
                format!(
                    "{flag} has no effect at temperature 0, which takes the most likely token; \
                     give a --temperature greater than 0"
                ),
            );
            Err(CliError::Usage {
                plain: error.render().to_string(),
                styled: error.render().ansi().to_string(),
            })
        }
    }
}
