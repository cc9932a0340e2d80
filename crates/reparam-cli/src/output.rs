//! The only place that writes to standard output and standard error.
//!
//! Names, values and texts come from files and servers. Whatever is for people leaves through [`printable`], so that none of
//! it can steer a terminal; what is for programs stays as it is, or is escaped as JSON.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;

use serde::Serialize;
use serde_json::json;

use reparam_formats::is_unprintable;
use reparam_train::Warnings;
use reparam_train::event::{SCHEMA_VERSION, Time};

use crate::env_vars::{self, Environment};
use crate::error::{CliError, Result};

/// The width of the labels of [`Printer::row`], in columns.
const LABEL_COLUMNS: usize = 11;

/// How many characters of a line of an error are shown; what errors quote is cut far shorter already.
const ERROR_LINE: usize = 4000;

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

    /// Whether lines may say from time to time how far something is: where no bar can.
    pub(crate) fn writes_progress_lines(&self) -> bool {
        !self.shows_progress() && !self.json && !self.quiet
    }

    /// Writes a text as it is, and makes sure that it has left the program.
    fn text(&mut self, text: &str) -> Result<()> {
        let out = &mut self.streams.out;
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(CliError::Output)
    }

    /// Writes the program's own text, which may be colored.
    pub(crate) fn own(&mut self, text: &str) -> Result<()> {
        self.text(text)
    }

    /// Writes text from outside in a style of the program's own: `style` is its code, where output is styled.
    pub(crate) fn styled(&mut self, style: &str, text: &str) -> Result<()> {
        let text = printable(text);
        match self.styles_output() && !style.is_empty() {
            true => self.text(&format!("\x1b[{style}m{text}\x1b[0m")),
            false => self.text(&text),
        }
    }

    /// Writes a piece of a result that programs may read: as it is, but for a terminal.
    pub(crate) fn data(&mut self, text: &str) -> Result<()> {
        if self.streams.out_is_terminal {
            self.text(&printable(text))
        } else {
            self.text(text)
        }
    }

    /// Writes a line of the result, for people.
    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        self.text(&format!("{}\n", printable(line)))
    }

    /// Writes a line of the result that starts with a label.
    pub(crate) fn row(&mut self, label: &str, value: &str) -> Result<()> {
        self.line(&format!("{label:<LABEL_COLUMNS$} {value}"))
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(value)
            .map_err(|error| CliError::Output(std::io::Error::other(error)))?;
        self.json_line(&line)
    }

    /// Writes a line that is JSON already.
    pub(crate) fn json_line(&mut self, line: &str) -> Result<()> {
        self.text(&format!("{}\n", plain_json(line)))
    }

    /// Asks for a line, where somebody sees it.
    pub(crate) fn ask(&mut self, sign: &str) {
        if self.streams.err_is_terminal && !self.quiet && !self.json {
            self.say(sign);
        }
    }

    /// Says an error that does not end the program.
    pub(crate) fn say_error(&mut self, error: &CliError) {
        let text = self.render(error);
        self.say(&text);
    }

    /// Says something beside the result, unless told to be quiet.
    pub(crate) fn note(&mut self, note: &str) {
        if !self.quiet {
            self.say(&format!("{}\n", printable(note)));
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
            let mut object = failure_object(error, self.failure_is_event);
            if let CliError::DryRun { report, .. } = error
                && let (Some(object), Some(report)) = (object.as_object_mut(), report.as_object())
            {
                object.extend(report.clone());
            }
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
        if let CliError::Usage { plain, styled, .. } = error {
            // What the arguments bring along is in both texts; clap's own colors are in one.
            return match printable(plain) {
                Cow::Borrowed(_) if color => styled.clone(),
                text => text.into_owned(),
            };
        }
        let mut chain = error.chain().into_iter().map(|text| readable(&text));
        let mut text = paint("31", "error:");
        // The place is drawn below the headline instead of put in front of it.
        match error {
            CliError::Config(error) => {
                chain.next();
                text += &format!(" {}\n", readable(&error.kind().to_string()));
                if let Some(location) = error.location() {
                    text += &format!("{}\n", readable(&location.to_string()));
                }
            }
            _ => text += &format!(" {}\n", chain.next().unwrap_or_default()),
        }
        for cause in chain {
            text += &format!("  caused by: {cause}\n");
        }
        for hint in error.hints() {
            text += &format!("{} {}\n", paint("36", "hint:"), readable(&hint));
        }
        text
    }
}

/// Escapes what would steer a terminal instead of being shown; line breaks and tabs stay.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| !matches!(c, '\n' | '\t'),
        |c, out| {
            let _ = write!(out, "{}", c.escape_default());
        },
    )
}

/// A text of an error: printable, and cut where a line of it has no end.
fn readable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(2 * ERROR_LINE));
    for line in text.split_inclusive('\n') {
        match line.char_indices().nth(ERROR_LINE) {
            Some((end, _)) => {
                shown += &printable(&line[..end]);
                shown.push('…');
                if line.ends_with('\n') {
                    shown.push('\n');
                }
            }
            None => shown += &printable(line),
        }
    }
    shown
}

/// Escapes in JSON what `serde_json` leaves as it is: such characters stand in its strings alone.
fn plain_json(json: &str) -> Cow<'_, str> {
    escaped(
        json,
        |_| true,
        |c, out| {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        },
    )
}

/// Writes the unprintable characters that `is_wrong` picks in another way.
fn escaped(
    text: &str,
    is_wrong: impl Fn(char) -> bool,
    write: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    let is_wrong = |c: char| is_unprintable(c) && is_wrong(c);
    if !text.contains(is_wrong) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_wrong(c) {
            write(c, &mut out);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
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
        let time = Time::now().to_string();
        json!({ "schema_version": SCHEMA_VERSION, "time": time, "event": "failed", "error": failure })
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
            Printer::new(streams, &env).failure(&CliError::Interrupted {
                step: 1,
                forced: false,
            });
            let text = String::from_utf8(err).unwrap();
            assert_eq!(
                text.starts_with("\x1b[1;31merror:\x1b[0m "),
                colored,
                "{text:?}"
            );
            assert_eq!(text.contains('\x1b'), colored, "{text:?}");
        }
    }

    /// What a printer writes to its two streams, as a terminal or not.
    fn written(is_terminal: bool, write: impl Fn(&mut Printer<'_>)) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let streams = Streams {
            out: &mut out,
            err: &mut err,
            out_is_terminal: is_terminal,
            err_is_terminal: is_terminal,
        };
        write(&mut Printer::new(
            streams,
            &Environment::of(&[("NO_COLOR", "1")]),
        ));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(out), text(err))
    }

    const EVIL: &str = "\u{1b}]0;owned\u{7} \u{9b}1m\u{202e}\r\u{7f} 价格\tx";
    const HARMLESS: &str = "\\u{1b}]0;owned\\u{7} \\u{9b}1m\\u{202e}\\r\\u{7f} 价格\tx";

    #[test]
    fn nothing_for_people_steers_a_terminal() {
        for is_terminal in [true, false] {
            let (out, err) = written(is_terminal, |printer| {
                printer.line(EVIL).unwrap();
                printer.row("name", EVIL).unwrap();
                printer.note(EVIL);
            });
            assert_eq!(out, format!("{HARMLESS}\nname        {HARMLESS}\n"));
            assert_eq!(err, format!("{HARMLESS}\n"));
            let error = CliError::OutputNotUtf8(EVIL.to_owned());
            let (_, err) = written(is_terminal, |printer| {
                printer.failure(&error);
            });
            assert!(
                err.starts_with("error: ") && err.contains(HARMLESS),
                "{err:?}"
            );
            let usage = CliError::Usage {
                plain: format!("error: {EVIL}\n"),
                styled: format!("\u{1b}[1merror:\u{1b}[0m {EVIL}\n"),
                tip: None,
            };
            let (_, err) = written(is_terminal, |printer| {
                printer.failure(&usage);
            });
            assert_eq!(err, format!("error: {HARMLESS}\n"));
        }
    }

    #[test]
    fn results_reach_programs_as_they_are_and_terminals_escaped() {
        let write = |printer: &mut Printer<'_>| printer.data(EVIL).unwrap();
        assert_eq!(written(false, write).0, EVIL);
        assert_eq!(written(true, write).0, HARMLESS);
    }

    #[test]
    fn json_is_of_printable_characters_and_means_the_same() {
        for is_terminal in [true, false] {
            let (out, _) = written(is_terminal, |printer| {
                printer.json(&json!({ EVIL: EVIL })).unwrap();
                printer
                    .json_line(&json!({ EVIL: EVIL }).to_string())
                    .unwrap();
            });
            assert_eq!(out.lines().count(), 2);
            for line in out.lines() {
                assert!(!line.contains(is_unprintable), "{line:?}");
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(value, json!({ EVIL: EVIL }));
            }
        }
    }

    #[test]
    fn an_error_without_end_is_cut() {
        let endless = "é".repeat(1_000_000);
        let (_, err) = written(false, |printer| {
            printer.failure(&CliError::OutputNotUtf8(endless.clone()));
        });
        assert!(err.chars().count() < ERROR_LINE + 20, "{}", err.len());
        assert!(err.ends_with("é…\n"));
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
