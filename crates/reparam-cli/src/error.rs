//! What ends an invocation early, and the exit code it ends with.

use std::any::Any;
use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;

use reparam_data::tokenizer::is_caught_panic;
use reparam_kernels::KernelError;
use reparam_train::TrainError;
use reparam_train::config::ConfigError;
use reparam_train::event::FailureKind;

use crate::output::printable;

/// The exit codes of the program.
pub(crate) mod exit_code {
    /// The command did what it was asked to.
    pub(crate) const SUCCESS: u8 = 0;
    /// A configuration, a model, data or a file cannot be used.
    pub(crate) const USER: u8 = 1;
    /// The arguments are wrong.
    pub(crate) const USAGE: u8 = 2;
    /// What reads the output has closed it.
    pub(crate) const BROKEN_PIPE: u8 = 3;
    /// The loss or a gradient is not finite.
    pub(crate) const DIVERGED: u8 = 4;
    /// The run was interrupted and its state is saved.
    pub(crate) const INTERRUPTED: u8 = 130;
    /// The program is wrong.
    pub(crate) const BUG: u8 = 255;
}

/// Where a bug is reported.
const ISSUES: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/issues");

/// What a part of an invocation gives.
pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

/// What ends an invocation early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The arguments are wrong; clap has both the plain and the colored text.
    #[error("{}", usage_message(plain))]
    Usage {
        plain: String,
        styled: String,
        /// What to do about another program's word.
        tip: Option<String>,
    },
    /// The run file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An environment variable has a value that cannot be used.
    #[error("{variable} must be {expected}, not `{value}`")]
    Variable {
        variable: &'static str,
        expected: &'static str,
        value: String,
    },
    /// `--output` is not UTF-8, which the run file could not express.
    #[error("the output directory `{0}` is not UTF-8 text")]
    OutputNotUtf8(String),
    /// A run file is to be written where a file is.
    #[error("{} is there already", .0.display())]
    FileExists(PathBuf),
    /// The prompt cannot be read.
    #[error("cannot read the prompt from {from}")]
    Prompt {
        from: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// The prompt is not text.
    #[error("the prompt from {from} is not UTF-8 text: byte {offset} is invalid")]
    PromptNotUtf8 { from: String, offset: usize },
    /// What is said cannot be read.
    #[error("cannot read standard input")]
    Input(#[source] std::io::Error),
    /// The conversation cannot be saved.
    #[error("cannot write {}", path.display())]
    Save {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The work failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The work failed, and the command knows better than the library what to do about it.
    #[error("{source}")]
    Hinted {
        source: TrainError,
        hint: &'static str,
    },
    /// A run that would not begin, with all that a dry run has found.
    #[error("{source}")]
    DryRun {
        source: TrainError,
        report: serde_json::Value,
    },
    /// There is no such instruction set, or the machine does not have it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Standard output cannot be written to.
    #[error("cannot write to standard output")]
    Output(#[source] std::io::Error),
    /// The handler of interrupts cannot be installed.
    #[error("cannot watch for interrupts")]
    Interrupts(#[source] ctrlc::Error),
    /// The handler of a signal cannot be installed.
    #[error("cannot watch for signals")]
    Signals(#[source] std::io::Error),
    /// The run was asked to stop.
    #[error("{}", interrupted(*step))]
    Interrupted {
        step: u64,
        /// Whether the command replaced an earlier run, which it would do again.
        forced: bool,
    },
    /// A study was interrupted; its finished runs are there.
    #[error("interrupted; finished runs are in the study's directory")]
    StudyInterrupted,
    /// The work was asked to stop.
    #[error("interrupted")]
    Stopped,
    /// The program panicked.
    #[error("internal error: {message}")]
    Bug { message: String },
}

impl CliError {
    /// The error for a panic that was caught.
    pub(crate) fn from_panic(payload: &(dyn Any + Send)) -> Self {
        Self::Bug {
            message: panic_message(payload),
        }
    }

    /// The class of the error, one word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Config(_)
            | Self::Kernel(_)
            | Self::Variable { .. }
            | Self::OutputNotUtf8(_)
            | Self::FileExists(_) => "config",
            Self::Prompt { .. } | Self::PromptNotUtf8 { .. } => "data",
            Self::Train(TrainError::Interrupted) => "interrupted",
            Self::Train(error)
            | Self::Hinted { source: error, .. }
            | Self::DryRun { source: error, .. } => match error.kind() {
                FailureKind::Config => "config",
                FailureKind::Data => "data",
                FailureKind::Io => "io",
                FailureKind::Diverged => "diverged",
                // A kind that this program does not know is its fault.
                _ => "bug",
            },
            Self::Output(_) if self.is_broken_pipe() => "broken_pipe",
            Self::Input(_)
            | Self::Save { .. }
            | Self::Output(_)
            | Self::Interrupts(_)
            | Self::Signals(_) => "io",
            Self::Interrupted { .. } | Self::StudyInterrupted | Self::Stopped => "interrupted",
            Self::Bug { .. } => "bug",
        }
    }

    /// The exit code, which depends on the kind alone.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind() {
            "usage" => exit_code::USAGE,
            "broken_pipe" => exit_code::BROKEN_PIPE,
            "diverged" => exit_code::DIVERGED,
            "interrupted" => exit_code::INTERRUPTED,
            "bug" => exit_code::BUG,
            _ => exit_code::USER,
        }
    }

    /// What to do about it.
    pub(crate) fn hints(&self) -> Vec<String> {
        if let Self::Usage { tip, .. } = self {
            let help = "for more information, try `--help`".to_owned();
            return tip.iter().cloned().chain([help]).collect();
        }
        let hint = match self {
            Self::Config(error) => error.hint(),
            Self::Bug { .. } => Some(bug_hint()),
            Self::Train(_) if self.kind() == "bug" => Some(bug_hint()),
            Self::Train(error) | Self::DryRun { source: error, .. } => error.hint(),
            Self::Hinted { hint, .. } => Some((*hint).to_owned()),
            Self::Kernel(error) => error.hint(),
            Self::FileExists(_) => {
                Some("name another path, or write over it with --force".to_owned())
            }
            Self::Prompt { .. } => Some(
                "a prompt that begins with @ is the path of a file; --prompt - reads standard input".to_owned(),
            ),
            Self::PromptNotUtf8 { .. } => Some("convert it to UTF-8".to_owned()),
            Self::Variable { variable, .. } => Some(format!(
                "change or unset the environment variable {variable}"
            )),
            Self::Interrupted { step: 0, .. } => None,
            Self::Interrupted { forced: true, .. } => {
                Some("run the same command with --resume instead of --force to continue".to_owned())
            }
            Self::Interrupted { .. } => {
                Some("run the same command with --resume to continue".to_owned())
            }
            Self::Output(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
                Some("raise the limit on the size of files (ulimit -f)".to_owned())
            }
            Self::Usage { .. }
            | Self::OutputNotUtf8(_)
            | Self::Output(_)
            | Self::Interrupts(_)
            | Self::Signals(_)
            | Self::Stopped
            | Self::StudyInterrupted
            | Self::Input(_)
            | Self::Save { .. } => None,
        };
        hint.into_iter().collect()
    }

    /// The error and its causes, outermost first.
    pub(crate) fn chain(&self) -> Vec<String> {
        let mut chain = vec![self.to_string()];
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors repeat their source in their own text.
            if chain.last().is_none_or(|last| !last.ends_with(&text)) {
                chain.push(text);
            }
            cause = error.source();
        }
        chain
    }

    /// The error and its causes in one line.
    pub(crate) fn message(&self) -> String {
        self.chain().join(": ")
    }

    /// Whether standard output cannot be written to.
    pub(crate) fn is_of_output(&self) -> bool {
        matches!(self, Self::Output(_))
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

fn interrupted(step: u64) -> String {
    match step {
        0 => "interrupted before the first step: nothing was learned".to_owned(),
        step => format!("interrupted after step {step}; its state is saved"),
    }
}

/// The first paragraph of clap's text, in one line and without its `error: `.
fn usage_message(plain: &str) -> String {
    let paragraph = plain.split("\n\n").next().unwrap_or(plain);
    let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
    let line = lines.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

fn bug_hint() -> String {
    format!("this is a bug in reparam; please report it, with the command, at {ISSUES}")
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(message) = payload.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

/// Makes a panic on any thread say where it happened.
///
/// The hook does not end the process: a panic unwinds to [`run`](crate::run::run), which prints
/// the error as the user asked for it and returns [`exit_code::BUG`].
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        // A file that the tokenizers cannot take is reported as such.
        if is_caught_panic(info) {
            return;
        }
        let place = info
            .location()
            .map_or_else(String::new, |location| format!(" at {location}"));
        // There is nobody left to tell if standard error is closed.
        let message = panic_message(info.payload());
        let _ = writeln!(std::io::stderr(), "panic{place}: {}", printable(&message));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_messages_are_one_line() {
        let text = "error: the following required arguments were not provided:\n  --model <DIR>\n\
                    \nUsage: reparam eval\n";
        assert_eq!(
            usage_message(text),
            "the following required arguments were not provided: --model <DIR>"
        );
    }

    #[test]
    fn panics_of_any_payload_are_bugs() {
        let payloads: [Box<dyn Any + Send>; 3] =
            [Box::new("text"), Box::new("string".to_owned()), Box::new(7)];
        for payload in payloads {
            let error = CliError::from_panic(payload.as_ref());
            assert_eq!(error.exit_code(), 255);
            assert!(error.hints()[0].contains("this is a bug"));
        }
    }

    #[test]
    fn an_interrupted_run_is_not_replaced_when_it_goes_on() {
        let hint = |forced| CliError::Interrupted { step: 1, forced }.hints().concat();
        assert!(hint(false).ends_with("with --resume to continue"));
        assert!(hint(true).contains("--resume instead of --force"));
    }

    #[test]
    fn repeated_causes_are_said_once() {
        let inner = std::io::Error::other("disk is full");
        let error = CliError::Output(inner);
        assert_eq!(
            error.message(),
            "cannot write to standard output: disk is full"
        );
    }
}
