//! Errors in run files and overrides, as the user sees them.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::{reparam, run};

const RUN_FILE: &str = "\
[model]
path = \"assets/stories260K\"

[data]
train = \"assets/tinyshakespeare.txt\"

[method]
kind = \"lora\"
rank = 16

[optimizer]
learning_rate = 2e-4

[output]
dir = \"runs/shakespeare\"
";

/// A directory with the run file, in which `from` is replaced with `to`.
fn directory(from: &str, to: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(RUN_FILE.contains(from), "{from}");
    let text = RUN_FILE.replace(from, to);
    std::fs::write(directory.path().join("run.toml"), text).expect("a file");
    directory
}

fn train(directory: &Path, args: &[&str]) -> String {
    run(directory, &[&["train", "run.toml"], args].concat())
}

#[test]
fn an_unknown_key() {
    let directory = directory("learning_rate", "lerning_rate");
    insta::assert_snapshot!(train(directory.path(), &[]), @r#"
    exit code: 1
    --- stdout
    --- stderr
    error: unknown key `lerning_rate` in [optimizer]
      --> run.toml:12
       |
    12 | lerning_rate = 2e-4
       | ^^^^^^^^^^^^
    hint: did you mean `learning_rate`?
    "#);
}

#[test]
fn a_value_out_of_range() {
    let directory = directory("rank = 16", "rank = 0");
    insta::assert_snapshot!(train(directory.path(), &[]), @r#"
    exit code: 1
    --- stdout
    --- stderr
    error: `rank` in [method] must be a whole number of at least 1, not `0`
     --> run.toml:9
      |
    9 | rank = 0
      |        ^
    "#);
}

#[test]
fn invalid_toml() {
    let directory = directory("\"lora\"", "lora");
    insta::assert_snapshot!(train(directory.path(), &[]), @r#"
    exit code: 1
    --- stdout
    --- stderr
    error: invalid TOML: string values must be quoted, expected literal string
     --> run.toml:8
      |
    8 | kind = lora
      |        ^^^^
    hint: strings need quotes, as in path = "models/base"; a section starts with [name]
    "#);
}

#[test]
fn a_missing_key() {
    let directory = directory("dir =", "# dir =");
    insta::assert_snapshot!(train(directory.path(), &[]), @r#"
    exit code: 1
    --- stdout
    --- stderr
    error: missing `dir` in [output]
      --> run.toml:14
       |
    14 | [output]
       |  ^^^^^^
    hint: add to [output]: dir = "runs/name"
    "#);
    // The flag supplies it, and the run gets as far as the engine.
    let text = train(directory.path(), &["--output", "runs/b"]);
    assert!(!text.contains("missing"), "{text}");
}

#[test]
fn a_missing_file() {
    let directory = tempfile::tempdir().expect("a directory");
    insta::assert_snapshot!(train(directory.path(), &[]), @r#"
    exit code: 1
    --- stdout
    --- stderr
    error: cannot read the run file run.toml
      caused by: no such file: run.toml
    hint: check the path; it is relative to the current directory
    "#);
}

#[test]
fn wrong_overrides() {
    let directory = directory("", "");
    insta::assert_snapshot!(train(directory.path(), &["--set", "train.max_step=5"]), @r#"
    exit code: 1
    --- stdout
    --- stderr
    error: unknown key `max_step` in [train]
    --> --set
     |
     | train.max_step=5
     |       ^^^^^^^^
    hint: did you mean `max_steps`?
    "#);
    insta::assert_snapshot!(train(directory.path(), &["--set", "optimizer.learning_rate=fast"]), @r#"
    exit code: 1
    --- stdout
    --- stderr
    error: `learning_rate` in [optimizer] must be a number, not the string `fast`
    --> --set
     |
     | optimizer.learning_rate=fast
     |                         ^^^^
    "#);
    insta::assert_snapshot!(train(directory.path(), &["--set", "train.max_steps"]), @r#"
    exit code: 1
    --- stdout
    --- stderr
    error: the override `train.max_steps` has no `=`
    hint: use --set section.key=value, as in --set train.max_steps=50
    "#);
}

#[test]
fn failures_are_events_with_json() {
    let directory = directory("rank = 16", "rnk = 16");
    let output = reparam(directory.path())
        .args(["train", "run.toml", "--json"])
        .output()
        .expect("a process");
    assert_eq!(output.status.code(), Some(1));
    let mut event: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let time = event.as_object_mut().and_then(|event| event.remove("time"));
    assert!(time.is_some_and(|time| time.is_string()), "{event}");
    assert_eq!(
        event,
        serde_json::json!({
            "schema_version": 2,
            "event": "failed",
            "error": {
                "message": "run.toml:9: unknown key `rnk` in [method]",
                "kind": "config",
                "exit_code": 1,
                "hints": ["did you mean `rank`?"],
            },
        })
    );
}

#[test]
fn an_unusable_variable() {
    let directory = directory("", "");
    let output = reparam(directory.path())
        .args(["train", "run.toml"])
        .env("REPARAM_THREADS", "many")
        .output()
        .expect("a process");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.starts_with("error: REPARAM_THREADS must be a whole number"),
        "{text}"
    );
}
