//! What the command line says about a run file, and about a run without one.

use std::path::{Path, PathBuf};

use reparam_train::config::{Override, Start};

use crate::args::TrainArgs;
use crate::error::{CliError, Result};
use crate::wrong_use::conflict;

/// Returns the overrides of `--set` and `--output`, in the order in which they win.
pub(crate) fn overrides(set: Vec<String>, output: Option<&Path>) -> Result<Vec<Override>> {
    let mut overrides: Vec<Override> = set.into_iter().map(Override::set).collect();
    if let Some(directory) = output {
        let directory = directory
            .to_str()
            .ok_or_else(|| CliError::OutputNotUtf8(directory.to_string_lossy().into_owned()))?;
        overrides.push(Override::output(directory));
    }
    Ok(overrides)
}

/// Returns what `train` says; of a run without a file also the directory that it gets.
pub(crate) fn of_train(args: &TrainArgs) -> Result<Vec<Override>> {
    let mut all = Vec::new();
    if args.run_file.is_none() {
        // A task may need no model.
        if args.data.is_empty() || (args.model.is_none() && args.task.is_none()) {
            return Err(conflict(
                "train",
                "a run needs a run file, or --model and --data; `reparam init` writes a run file"
                    .to_owned(),
            ));
        }
        let start = Start {
            model: args.model.clone(),
            data: args.data.clone(),
            output: None,
        };
        let directory = directory_of(&start.name(), args.resume || args.force);
        let directory = directory.to_string_lossy();
        // Before all others, which it gives way to.
        all.push(Override::flag("the default", ["output", "dir"], &directory));
    }
    all.extend(args.set.iter().map(Override::set));
    for (flag, place, value) in [
        ("--model", ["model", "path"], &args.model),
        ("--task", ["model", "task"], &args.task),
        ("--method", ["method", "kind"], &args.method),
        ("--format", ["data", "format"], &args.format),
        ("--fields", ["data", "fields"], &args.fields),
        ("--template", ["data", "template"], &args.template),
        (
            "--chat-template",
            ["data", "chat_template"],
            &args.chat_template,
        ),
        ("--on-error", ["data", "on_error"], &args.on_error),
    ] {
        all.extend(value.iter().map(|value| Override::flag(flag, place, value)));
    }
    if !args.data.is_empty() {
        all.push(Override::files("--data", ["data", "train"], &args.data));
    }
    all.extend(overrides(Vec::new(), args.output.as_deref())?);
    Ok(all)
}

/// The first of `runs/NAME`, `runs/NAME-2`, ... that is free; the last that is there for a run that goes on or takes its place.
fn directory_of(name: &str, wants_last: bool) -> PathBuf {
    let runs = Path::new("runs");
    let mut number = 1_u64;
    let mut last = runs.join(name);
    let mut next = last.clone();
    while next.symlink_metadata().is_ok() {
        number += 1;
        last = std::mem::replace(&mut next, runs.join(format!("{name}-{number}")));
    }
    if wants_last { last } else { next }
}
