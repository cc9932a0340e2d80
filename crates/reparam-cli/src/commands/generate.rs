//! `reparam generate`.

use std::ops::ControlFlow;

use reparam_data::Format;
use reparam_train::chat::Chat;
use reparam_train::tasks::TrainedTexts;
use reparam_train::{Generated, Session, Stop};
use serde::Serialize;

use crate::args::GenerateArgs;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::format::counted;
use crate::output::Printer;
use crate::prompt;

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
    args.check()?;
    let sampling = args.sampling.of_tokens("generate")?;
    let prompt = prompt::read(&args.prompt)?;
    let prompt = match args.format {
        Some(format) => format.prompt(&prompt),
        None => prompt,
    };
    let context = context()?;
    context.watch_interrupts(None)?;
    let request = args.model.request(&context);
    let session = Session::open_request(&request, &context.hub)?;
    let trained = TrainedTexts::of(&request, &session, &context.hub)?;
    match trained.format {
        Some(Format::Alpaca) if args.format.is_none() && !args.chat => {
            printer.note("it was trained on Alpaca's examples: --format alpaca writes the prompt as they have it");
        }
        Some(format) if format.is_of_conversations() && !args.chat => {
            printer.note("it was trained on conversations: --chat writes the prompt as one");
        }
        _ => {}
    }
    let warnings = request.warnings;
    let is_json = printer.is_json();
    let stop = Stop::new(&context.stop);
    let mut written = Ok(());
    let mut on_text = |piece: &str| {
        printer.warn_all(&warnings);
        if is_json {
            return ControlFlow::Continue(());
        }
        written = printer.data(piece);
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    let (prompt, most) = (&prompt, args.max_new_tokens);
    let generated = match args.chat {
        true => {
            let (chosen, system) = (&args.template.chat_template, &args.template.system);
            let chat = Chat::new(&session, chosen.as_deref(), system.as_deref());
            chat.and_then(|mut chat| chat.answer(prompt, Some(most), sampling, stop, &mut on_text))
        }
        false => {
            let prepared = trained.prepared(prompt);
            session.generate(&prepared, most, sampling, stop, &mut on_text)
        }
    };
    printer.warn_all(&warnings);
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
