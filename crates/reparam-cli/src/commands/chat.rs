//! `reparam chat`.

use std::fs::OpenOptions;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use reparam_models::Sampling;
use reparam_train::chat::Chat;
use reparam_train::{Generated, Session, Stop};
use serde::Serialize;
use serde_json::json;

use crate::args::ChatArgs;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::output::Printer;

/// What `/help` says.
const HELP: &str = "\
/reset        forget the conversation, but for the system message
/system TEXT  begin anew with this system message; without a text, with none
/save FILE    add the conversation to FILE as a line of JSON, which can be trained on
/help         show this
/exit         leave, as Ctrl-D does
Ctrl-C breaks an answer off. A line that begins with // is said with one /.";

/// What `--json` prints for each answer.
#[derive(Serialize)]
struct Output<'a> {
    prompt: &'a str,
    #[serde(flatten)]
    generated: &'a Generated,
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Say(&'a str),
    Reset,
    System(Option<&'a str>),
    Save(&'a str),
    SaveWhere,
    Help,
    Exit,
    Unknown(&'a str),
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        let line = line.trim();
        if line.is_empty() {
            return Self::Nothing;
        }
        let Some(command) = line.strip_prefix('/') else {
            return Self::Say(line);
        };
        if command.starts_with('/') {
            return Self::Say(command);
        }
        let (word, rest) = match command.split_once(char::is_whitespace) {
            Some((word, rest)) => (word, rest.trim()),
            None => (command, ""),
        };
        let rest = Some(rest).filter(|rest| !rest.is_empty());
        match (word, rest) {
            ("reset" | "clear" | "new", None) => Self::Reset,
            ("system", rest) => Self::System(rest),
            ("save", Some(path)) => Self::Save(path),
            ("save", None) => Self::SaveWhere,
            ("help" | "?", None) => Self::Help,
            ("exit" | "quit" | "bye", None) => Self::Exit,
            _ => Self::Unknown(word),
        }
    }
}

/// Says each line of standard input to a model, and prints the answers.
pub(crate) fn run(
    args: ChatArgs,
    context: &dyn Fn() -> Result<Context>,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let sampling = args.sampling.of_tokens("chat")?;
    let context = context()?;
    context.watch_answers()?;
    let request = args.model.request(&context);
    let session = Session::open_request(&request, &context.hub)?;
    printer.warn_all(&session.warnings);
    let system = args.template.system.as_deref();
    let chosen = args.template.chat_template.as_deref();
    let mut talk = Talk {
        chat: Chat::new(&session, chosen, system)?,
        session: &session,
        context: &context,
        max_new_tokens: args.max_new_tokens,
        sampling,
    };
    let input = std::io::stdin();
    let is_terminal = input.is_terminal();
    if is_terminal {
        printer.note("/help lists commands; Ctrl-D ends the conversation");
    }
    let mut line = String::new();
    loop {
        printer.ask("> ");
        line.clear();
        let read = input.lock().read_line(&mut line).map_err(CliError::Input)?;
        if read == 0 {
            break;
        }
        match talk.line(&line, printer) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            // Whoever sees it can say something else.
            Err(error) if is_terminal && !printer.is_json() && !error.is_of_output() => {
                printer.say_error(&error);
            }
            Err(error) => return Err(error),
        }
    }
    printer.ask("\n");
    Ok(())
}

/// A conversation in a terminal.
struct Talk<'a> {
    chat: Chat<'a>,
    session: &'a Session,
    context: &'a Context,
    max_new_tokens: Option<usize>,
    sampling: Sampling,
}

impl Talk<'_> {
    /// Does what a line asks for.
    fn line(&mut self, line: &str, printer: &mut Printer<'_>) -> Result<ControlFlow<()>> {
        match Line::of(line) {
            Line::Nothing => {}
            Line::Say(said) => self.say(said, printer)?,
            Line::Reset => {
                let system = self.chat.system().map(str::to_owned);
                self.chat.begin(system.as_deref());
                printer.note("the conversation begins anew");
            }
            Line::System(system) => {
                self.chat.begin(system);
                printer.note("the conversation begins anew");
            }
            Line::Save(path) => self.save(Path::new(path), printer)?,
            Line::SaveWhere => printer.note("/save needs the name of a file"),
            Line::Help => printer.note(HELP),
            Line::Exit => return Ok(ControlFlow::Break(())),
            Line::Unknown(word) => {
                printer.note(&format!("there is no command /{word}; /help lists them"));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Says something and prints the answer.
    fn say(&mut self, said: &str, printer: &mut Printer<'_>) -> Result<()> {
        let context = self.context;
        let is_json = printer.is_json();
        let mut written = Ok(());
        let mut on_text = |piece: &str| {
            printer.warn_all(&self.session.warnings);
            if is_json {
                return ControlFlow::Continue(());
            }
            written = printer.data(piece);
            match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        context.keeps.store(true, Ordering::Relaxed);
        let stop = Stop::new(&context.stop);
        let (most, sampling) = (self.max_new_tokens, self.sampling);
        let generated = self.chat.answer(said, most, sampling, stop, &mut on_text);
        context.keeps.store(false, Ordering::Relaxed);
        context.stop.store(false, Ordering::Relaxed);
        // Output that could not be written is why the answer was broken off, so it comes first.
        written?;
        let generated = generated?;
        printer.warn_all(&self.session.warnings);
        match is_json {
            true => printer.json(&Output {
                prompt: said,
                generated: &generated,
            }),
            false => printer.line(""),
        }
    }

    /// Adds the conversation to a file.
    fn save(&self, path: &Path, printer: &mut Printer<'_>) -> Result<()> {
        let path = self.context.expand(PathBuf::from(path));
        let line = format!("{}\n", json!({ "messages": self.chat.messages() }));
        let open = OpenOptions::new().create(true).append(true).open(&path);
        let written = open.and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(|source| CliError::Save {
            path: path.clone(),
            source,
        })?;
        printer.note(&format!("saved to {}", path.display()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_unless_it_is_a_command() {
        for (line, asked) in [
            ("\n", Line::Nothing),
            ("  \t", Line::Nothing),
            (" Hello /exit\r\n", Line::Say("Hello /exit")),
            ("//exit", Line::Say("/exit")),
            ("/exit\n", Line::Exit),
            ("/reset", Line::Reset),
            ("/reset now", Line::Unknown("reset")),
            ("/system Be short. \n", Line::System(Some("Be short."))),
            ("/system\n", Line::System(None)),
            ("/save a b.jsonl\n", Line::Save("a b.jsonl")),
            ("/save", Line::SaveWhere),
            ("/help", Line::Help),
            ("/", Line::Unknown("")),
            ("/usr/bin is a folder", Line::Unknown("usr/bin")),
        ] {
            assert_eq!(Line::of(line), asked, "{line:?}");
        }
    }
}
