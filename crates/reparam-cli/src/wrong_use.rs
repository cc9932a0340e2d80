//! What to do about commands, flags and values that other programs have.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _};
use reparam_train::Tasks;
use reparam_train::config::elsewhere::{Answer, Place, answers};

use crate::args::Cli;
use crate::error::CliError;

/// The error for arguments that clap refuses.
pub(crate) fn refused(mut error: clap::Error, args: &[OsString]) -> CliError {
    let tip = tip(&error, args);
    if let Some(tip) = &tip {
        // In place of the guesses from the spelling.
        let guesses = [
            ContextKind::SuggestedSubcommand,
            ContextKind::SuggestedArg,
            ContextKind::SuggestedValue,
        ];
        for guess in guesses {
            error.remove(guess);
        }
        let tips = vec![StyledStr::from(tip.clone())];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    usage(&error, tip)
}

/// The error for arguments of a command that do not fit together.
pub(crate) fn conflict(command: &str, message: String) -> CliError {
    let mut commands = Cli::command();
    // It makes known what stands before the command's name.
    commands.build();
    let error = match commands.find_subcommand_mut(command) {
        Some(own) => own.error(ErrorKind::ArgumentConflict, message),
        None => commands.error(ErrorKind::ArgumentConflict, message),
    };
    usage(&error, None)
}

fn usage(error: &clap::Error, tip: Option<String>) -> CliError {
    let rendered = error.render();
    CliError::Usage {
        plain: rendered.to_string(),
        styled: rendered.ansi().to_string(),
        tip,
    }
}

fn tip(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let arg = said(ContextKind::InvalidArg).unwrap_or_default();
    let arg = arg.split([' ', '=']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => for_command(said(ContextKind::InvalidSubcommand)?),
        ErrorKind::UnknownArgument => for_flag(&command(args)?, arg.strip_prefix('-')?),
        ErrorKind::InvalidValue => for_value(
            arg.trim_start_matches('-'),
            said(ContextKind::InvalidValue)?,
        ),
        _ => None,
    }
}

/// The command that the arguments name.
fn command(args: &[OsString]) -> Option<Command> {
    let commands = Cli::command();
    let mut words = args.iter().skip(1).filter_map(|arg| arg.to_str());
    let found = words.find_map(|word| commands.find_subcommand(word));
    found.cloned()
}

fn for_command(word: &str) -> Option<String> {
    answers(Place::Command, word).find_map(|answer| match answer {
        Answer::Do(sentence) => Some(sentence.to_owned()),
        _ => None,
    })
}

fn for_flag(command: &Command, word: &str) -> Option<String> {
    let word = word.trim_start_matches('-');
    let tasks = Tasks::builtin();
    let has = |flag: &str| {
        command
            .get_arguments()
            .any(|arg| arg.get_long() == Some(flag))
    };
    let key = word.to_lowercase().replace('-', "_");
    if let (true, Some(section)) = (has("set"), tasks.section_of(&key)) {
        return Some(format!(
            "it is a key of the run file: --set {section}.{key}=VALUE"
        ));
    }
    answers(Place::Anywhere, word).find_map(|answer| match answer {
        Answer::Flag(flag) if has(flag.trim_start_matches('-')) => {
            Some(format!("it is called {flag} here"))
        }
        Answer::Key(section, key) if has("set") && tasks.has_key(section, key) => Some(format!(
            "it is called `{key}` here: --set {section}.{key}=VALUE"
        )),
        Answer::Set(section, key, value) if has("set") => Some(format!(
            "write --set {section}.{key}={}",
            value.trim_matches('"')
        )),
        Answer::Do(sentence) => Some(sentence.to_owned()),
        _ => None,
    })
}

fn for_value(flag: &str, value: &str) -> Option<String> {
    answers(Place::Value(flag), value).find_map(|answer| match answer {
        Answer::Set(_, _, value) => Some(format!("it is called {} here", value.trim_matches('"'))),
        Answer::Do(sentence) => Some(sentence.to_owned()),
        _ => None,
    })
}
