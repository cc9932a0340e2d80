//! The only place that writes to standard output and standard error.

use std::io::Write;

use serde::Serialize;
use serde_json::json;

use reparam_train::Warnings;
use reparam_train::event::SCHEMA_VERSION;

use crate::env_vars::{self, Environment};
use crate::error::{CliError, Result};

/// The width of the labels of [`Printer::row`], in columns.
const LABEL_COLUMNS: usize = 11;

/// Where an invocation writes.
pub(crate) struct Streams<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) err: &'a mut dyn Write,
    pub(crate) out_is_terminal: bool,
    pub(crate) err_is_terminal: bool,
}

/// Writes results to standard output, and everything else to standard error.
///
/// Methods that write a result fail when it cannot be written. Notes and errors that cannot be
/// written are lost, because there is nowhere left to say so.
pub(crate) struct Printer<'a> {
    streams: Streams<'a>,
    json: bool,
    quiet: bool,
    color: bool,
    progress: bool,
    failure_is_event: bool,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(streams: Streams<'a>, environment: &Environment) -> Self {
        Self {
            streams,
            json: false,
            quiet: false,
            color: !environment.is_set(env_vars::NO_COLOR.name),
            progress: !environment.is_set(env_vars::REPARAM_NO_PROGRESS.name),
            failure_is_event: false,
        }
    }

    pub(crate) fn set_json(&mut self, json: bool) {
        self.json = json;
    }

    pub(crate) fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// From here on a failure is the last event of a stream of events.
    pub(crate) fn set_failure_is_event(&mut self) {
        self.failure_is_event = true;
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether standard output may be colored.
    pub(crate) fn styles_output(&self) -> bool {
        self.color && self.streams.out_is_terminal
    }

    /// Whether a progress bar can be shown without getting in the way of something else.
    pub(crate) fn shows_progress(&self) -> bool {
        self.progress && self.streams.err_is_terminal && !self.json && !self.quiet
    }

    /// Writes a text as it is, and makes sure that it has left the program.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        let out = &mut self.streams.out;
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(CliError::Output)
    }

    /// Writes a line of the result.
    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        self.text(&format!("{line}\n"))
    }

    /// Writes a line of the result that starts with a label.
    pub(crate) fn row(&mut self, label: &str, value: &str) -> Result<()> {
        self.line(&format!("{label:<LABEL_COLUMNS$} {value}"))
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(value)
            .map_err(|error| CliError::Output(std::io::Error::other(error)))?;
        self.line(&line)
    }

    /// Says something beside the result, unless told to be quiet.
    pub(crate) fn note(&mut self, note: &str) {
        if !self.quiet {
            self.say(&format!("{note}\n"));
        }
    }

    /// Says what the user should know although nothing failed, unless told to be quiet.
    pub(crate) fn warn(&mut self, warning: &str) {
        self.note(&format!("warning: {warning}"));
    }

    /// Takes out and says all that was collected.
    pub(crate) fn warn_all(&mut self, warnings: &Warnings) {
        for warning in warnings.take() {
            self.warn(&warning);
        }
    }

    fn say(&mut self, text: &str) {
        let err = &mut self.streams.err;
        // See the type's documentation for why the error is dropped.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }

    /// Writes an error in the form that was asked for, and returns its exit code.
    pub(crate) fn failure(&mut self, error: &CliError) -> u8 {
        if error.is_broken_pipe() {
            // The reader has what it wanted, and nobody reads what would be said.
            return error.exit_code();
        }
        // An interrupted run has said so in its own event.
        let told = self.failure_is_event && matches!(error, CliError::Interrupted { .. });
        if self.json && !told {
            let object = failure_object(error, self.failure_is_event);
            if let Err(unwritten) = self.json(&object)
                && unwritten.is_broken_pipe()
            {
                return unwritten.exit_code();
            }
        }
        let text = self.render(error);
        self.say(&text);
        error.exit_code()
    }

    /// The error as text for people.
    fn render(&self, error: &CliError) -> String {
        let color = self.color && self.streams.err_is_terminal;
        let paint = |code: &str, text: &str| {
            if color {
                format!("\x1b[1;{code}m{text}\x1b[0m")
            } else {
                text.to_owned()
            }
        };
        if let CliError::Usage { plain, styled } = error {
            return if color { styled } else { plain }.clone();
        }
        let mut chain = error.chain().into_iter();
        let mut text = paint("31", "error:");
        // The place is drawn below the headline instead of put in front of it.
        match error {
            CliError::Config(error) => {
                chain.next();
                text += &format!(" {}\n", error.kind());
                if let Some(location) = error.location() {
                    text += &format!("{location}\n");
                }
            }
            _ => text += &format!(" {}\n", chain.next().unwrap_or_default()),
        }
        for cause in chain {
            text += &format!("  caused by: {cause}\n");
        }
        for hint in error.hints() {
            text += &format!("{} {hint}\n", paint("36", "hint:"));
        }
        text
    }
}

/// `{"error": {...}}`, as an event if the output is a stream of events.
fn failure_object(error: &CliError, is_event: bool) -> serde_json::Value {
    let failure = json!({
        "message": error.message(),
        "kind": error.kind(),
        "exit_code": error.exit_code(),
        "hints": error.hints(),
    });
    if is_event {
        json!({ "schema_version": SCHEMA_VERSION, "event": "failed", "error": failure })
    } else {
        json!({ "error": failure })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_colored_on_a_terminal_unless_told_not_to() {
        for (is_terminal, env, colored) in [
            (true, Environment::of(&[]), true),
            (true, Environment::of(&[("NO_COLOR", "1")]), false),
            (false, Environment::of(&[]), false),
        ] {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let streams = Streams {
                out: &mut out,
                err: &mut err,
                out_is_terminal: false,
                err_is_terminal: is_terminal,
            };
            Printer::new(streams, &env).failure(&CliError::Interrupted { step: 1 });
            let text = String::from_utf8(err).unwrap();
            assert_eq!(
                text.starts_with("\x1b[1;31merror:\x1b[0m "),
                colored,
                "{text:?}"
            );
            assert_eq!(text.contains('\x1b'), colored, "{text:?}");
        }
    }

    #[test]
    fn a_progress_bar_needs_a_terminal_and_nothing_in_its_way() {
        let shown = |is_terminal, env: &Environment, json, quiet| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let streams = Streams {
                out: &mut out,
                err: &mut err,
                out_is_terminal: false,
                err_is_terminal: is_terminal,
            };
            let mut printer = Printer::new(streams, env);
            printer.set_json(json);
            printer.set_quiet(quiet);
            printer.shows_progress()
        };
        let none = Environment::of(&[]);
        let forbidden = Environment::of(&[("REPARAM_NO_PROGRESS", "1")]);
        assert!(shown(true, &none, false, false));
        assert!(!shown(false, &none, false, false));
        assert!(!shown(true, &forbidden, false, false));
        assert!(!shown(true, &none, true, false));
        assert!(!shown(true, &none, false, true));
    }
}
