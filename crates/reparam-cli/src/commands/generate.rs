//! `reparam generate`.

use std::ops::ControlFlow;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use reparam_models::Sampling;
use reparam_train::{Generated, Session, Stop};
use serde::Serialize;

use crate::args::{Cli, GenerateArgs};
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::format::counted;
use crate::output::Printer;

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    prompt: &'a str,
    #[serde(flatten)]
    generated: &'a Generated,
}

/// Continues a prompt and prints the continuation, as it is made unless JSON was asked for.
pub(crate) fn run(
    args: GenerateArgs,
    context: &dyn Fn() -> Result<Context>,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let sampling = sampling(&args)?;
    let context = context()?;
    context.watch_interrupts("stopping after this token")?;
    let request = args.model.request(&context);
    let session = Session::open_request(&request, &context.hub)?;
    let is_json = printer.is_json();
    let stop = Stop::new(&context.stop);
    let mut written = Ok(());
    let mut on_text = |piece: &str| {
        if is_json {
            return ControlFlow::Continue(());
        }
        written = printer.data(piece);
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    let (prompt, most) = (&args.prompt, args.max_new_tokens);
    let generated = session.generate(prompt, most, sampling, stop, &mut on_text);
    // Output that could not be written is why the text was broken off, so it comes first.
    written?;
    let generated = generated?;
    if is_json {
        if stop.is_requested() {
            return Err(CliError::Stopped);
        }
        let generated = &generated;
        return printer.json(&Output { prompt, generated });
    }
    printer.line("")?;
    if stop.is_requested() {
        return Err(CliError::Stopped);
    }
    printer.note(&format!(
        "{} at {:.1} tokens/s",
        counted(generated.tokens.len() as u64, "token"),
        generated.tokens_per_s
    ));
    Ok(())
}

/// How the next token is chosen; refuses options that temperature 0 leaves without effect.
fn sampling(args: &GenerateArgs) -> Result<Sampling> {
    if args.temperature > 0.0 {
        return Ok(Sampling {
            temperature: args.temperature,
            top_k: args.top_k.unwrap_or(0),
            top_p: args.top_p.unwrap_or(1.0),
            seed: args.seed,
        });
    }
    let idle = [
        ("--top-k", args.top_k.is_some()),
        ("--top-p", args.top_p.is_some()),
    ];
    match idle.into_iter().find(|(_, given)| *given) {
        None => Ok(Sampling::greedy()),
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
