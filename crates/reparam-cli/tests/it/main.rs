//! The program as a process: exit codes, standard output and standard error.

#[cfg(unix)]
mod chat;
mod commands;
mod config;
mod convert;
mod data;
#[cfg(unix)]
mod docs;
mod examples;
mod failures;
mod files;
mod forms;
mod help;
#[cfg(target_os = "linux")]
mod interrupts;
mod measures;
mod models;
mod predict;
mod preflight;
mod regression;
mod resume;
mod runs;
mod start;
mod studies;
mod support;
mod tables;
mod wrong_use;

use std::path::Path;

use assert_cmd::Command;

/// The program in an empty directory, with nothing from the environment that it would read.
pub(crate) fn reparam(directory: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("reparam"));
    command.env_clear().current_dir(directory);
    command
}

/// What a process did, in the form of the snapshots; spaces at the ends of lines do not matter.
pub(crate) fn run(directory: &Path, args: &[&str]) -> String {
    let output = reparam(directory).args(args).output().expect("a process");
    let code = output
        .status
        .code()
        .map_or("none".to_owned(), |c| c.to_string());
    let text = |bytes: Vec<u8>| -> String {
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    };
    let (out, err) = (text(output.stdout), text(output.stderr));
    format!("exit code: {code}\n--- stdout\n{out}--- stderr\n{err}")
}
