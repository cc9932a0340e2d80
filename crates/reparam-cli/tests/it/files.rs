//! Inputs that are no files, files that lie about sizes, and directories that others use, too.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

#[cfg(target_os = "linux")]
use crate::support::{Outcome, path_text};
use crate::support::{Workplace, json_lines, model};

fn make_pipe(path: &Path) {
    let status = Command::new("mkfifo").arg(path).status();
    assert!(status.expect("mkfifo").success());
}

/// Each is refused at once; whoever opens a pipe waits for a writer.
#[test]
fn pipes_are_no_inputs() {
    let workplace = Workplace::new();
    let hint = "write what comes through the pipe to one first";
    make_pipe(&workplace.path("pipe.txt"));
    for key in ["data.train", "data.eval"] {
        workplace.train(&[&format!("{key}=pipe.txt")]).failed(
            1,
            "pipe.txt is a pipe, socket or device, not a file",
            hint,
        );
    }
    workplace.train_file("pipe.txt", &[]).failed(
        1,
        "pipe.txt is a pipe, socket or device, not a file",
        hint,
    );
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let model = workplace.copy_model("model");
        std::fs::remove_file(model.join(name)).expect("a file");
        make_pipe(&model.join(name));
        workplace.train(&["model.path=model"]).failed(
            1,
            "is a pipe, socket or device, not a file",
            hint,
        );
        std::fs::remove_dir_all(model).expect("a directory");
    }
    workplace.train(&[]).succeeded();
    for name in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "reparam.json",
    ] {
        let path = workplace.path("run/adapter").join(name);
        let bytes = std::fs::read(&path).expect("a file");
        std::fs::remove_file(&path).expect("a file");
        make_pipe(&path);
        let args = [
            "--model",
            &model(),
            "--adapter",
            "run/adapter",
            "--data",
            "held_out.txt",
        ];
        let eval = workplace.reparam(&[&["eval"], &args[..]].concat());
        eval.failed(1, "is a pipe, socket or device, not a file", hint);
        std::fs::remove_file(&path).expect("a file");
        std::fs::write(&path, bytes).expect("a file");
    }
}

#[test]
fn a_link_to_nothing_is_named() {
    let workplace = Workplace::new();
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "special_tokens_map.json",
    ] {
        let model = workplace.copy_model("model");
        let _ = std::fs::remove_file(model.join(name));
        std::os::unix::fs::symlink("/nowhere", model.join(name)).expect("a link");
        workplace.train(&["model.path=model"]).failed(
            1,
            &format!("{name} is a link to /nowhere, which does not exist"),
            "restore",
        );
        std::fs::remove_dir_all(model).expect("a directory");
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
    change(&mut json);
    std::fs::write(path, json.to_string()).expect("a file");
}

/// A size in `config.json` is compared with the weights before anything is made of it; the message names the key.
#[test]
fn sizes_of_a_configuration_are_those_of_the_weights() {
    const MOST: u64 = u64::MAX;
    let workplace = Workplace::new();
    let model = workplace.copy_model("model");
    let config = model.join("config.json");
    let whole = std::fs::read(&config).expect("a file");
    for (key, value) in [
        ("intermediate_size", 1 << 31),
        ("intermediate_size", 1 << 32),
        ("intermediate_size", MOST),
        ("vocab_size", 1_000_000_000),
        ("vocab_size", 1 << 63),
        ("hidden_size", 1 << 20),
        ("hidden_size", 1 << 63),
        ("num_hidden_layers", 6),
        ("num_hidden_layers", 1_000_000_000),
        ("num_hidden_layers", (1 << 63) - 1),
        ("num_attention_heads", 1 << 31),
        ("num_attention_heads", MOST),
        ("head_dim", 1 << 31),
        ("head_dim", MOST),
    ] {
        change(&config, |config| config[key] = json!(value));
        for precision in ["f32", "bf16", "int8"] {
            let prompt = [
                "--prompt",
                "a",
                "--max-new-tokens",
                "1",
                "--precision",
                precision,
            ];
            let args = [&["generate", "--model", "model"], &prompt[..]].concat();
            let outcome = workplace.reparam(&args);
            assert_eq!(
                outcome.code,
                Some(1),
                "{key} {value} {precision}: {outcome:?}"
            );
            let found = outcome.err.contains(key) || outcome.err.contains("expected [");
            assert!(
                found && !outcome.err.contains("panic"),
                "{key}: {outcome:?}"
            );
        }
        std::fs::write(&config, &whole).expect("a file");
    }
    change(&config, |config| {
        config["intermediate_size"] = json!(1_000_000)
    });
    let args = ["generate", "--model", "model", "--prompt", "a"];
    let outcome = workplace.reparam(&args);
    outcome.failed(
        1,
        "expected [1000000, 64], found [172, 64]",
        "config.json says intermediate_size = 1000000",
    );
}

/// What the tokenizers library panics on is an error of the file, without a word of the panic elsewhere.
#[test]
fn a_tokenizer_that_contradicts_itself_is_refused() {
    let workplace = Workplace::new();
    let model = workplace.copy_model("model");
    let tokenizer = model.join("tokenizer.json");
    let fixed = json!({"type": "FixedLength", "length": 0});
    change(&tokenizer, |tokenizer| tokenizer["pre_tokenizer"] = fixed);
    workplace.train(&["model.path=model"]).failed(
        1,
        "model/tokenizer.json is not a tokenizer: its parts contradict each other",
        "download it again",
    );
    workplace.assert_no_run();
}

/// The program with so many KiB of addresses, which stand for a small machine.
#[cfg(target_os = "linux")]
fn with_memory_limit(workplace: &Workplace, kib: u64, args: &str) -> Outcome {
    let program = path_text(assert_cmd::cargo::cargo_bin!("reparam"));
    let output = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("ulimit -v {kib} && exec \"$0\" {args}"))
        .arg(program)
        .current_dir(workplace.root())
        .output()
        .expect("a shell");
    Outcome::of(output)
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_fit_is_refused_before_the_first_step() {
    let workplace = Workplace::new();
    for (setting, hint) in [
        ("method.rank=65536", "lower rank, which takes"),
        (
            "train.batch_size=65536",
            "lower batch_size or sequence_length, which takes",
        ),
    ] {
        let args = format!("train run.toml --set {setting}");
        let outcome = with_memory_limit(&workplace, 2_000_000, &args);
        outcome.failed(1, "this needs at least", hint);
        workplace.assert_no_run();
    }
    let model = model();
    let args = [
        "generate",
        "--model",
        &model,
        "--prompt",
        "a",
        "--max-new-tokens",
    ];
    let outcome = workplace.reparam(&[&args[..], &["1000000000000"]].concat());
    outcome.failed(
        1,
        "this needs at least",
        "lower the number of new tokens, which takes",
    );
}

/// Of two runs that begin at once in one new directory, one has it and the other leaves it alone.
#[test]
fn two_runs_do_not_share_a_directory() {
    let workplace = Workplace::new();
    for round in 0..4 {
        let directory = format!("run-{round}");
        let start = |seed: u32| {
            Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
                .args(["train", "run.toml", "--output", &directory, "--set"])
                .arg(format!("train.seed={seed}"))
                .env_clear()
                .current_dir(workplace.root())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("a process")
        };
        let (mut first, mut second) = (start(1), start(2));
        let codes = [&mut first, &mut second].map(|child| child.wait().expect("an end").code());
        assert!(
            codes.contains(&Some(0)) && codes.contains(&Some(1)),
            "{codes:?}"
        );
        let winner = if codes[0] == Some(0) { 1 } else { 2 };
        for name in [
            "config.resolved.toml",
            "provenance.json",
            "events.jsonl",
            "adapter",
        ] {
            assert!(workplace.path(&directory).join(name).exists(), "{name}");
        }
        let config = workplace.read_text(&format!("{directory}/config.resolved.toml"));
        assert!(config.contains(&format!("seed = {winner}")), "{config}");
        let events = json_lines(&workplace.read_text(&format!("{directory}/events.jsonl")));
        assert_eq!(events[0]["seed"], winner);
        assert_eq!(events[events.len() - 1]["event"], "finished");
    }
}

/// A run that ended before its first step is in nobody's way, nor is what a killed run was writing.
#[test]
fn what_no_run_has_learned_is_no_run() {
    let workplace = Workplace::new();
    workplace.train(&["train.max_steps=1"]).succeeded();
    let events = workplace.read_text("run/events.jsonl");
    let start = events.lines().next().expect("an event").to_owned();
    workplace
        .train(&[])
        .failed(1, "already holds a run", "--resume");
    std::fs::remove_dir_all(workplace.path("run/adapter")).expect("a directory");
    let version: Value = serde_json::from_str(&start).expect("JSON");
    let version = &version["schema_version"];
    let interrupted = json!({"schema_version": version, "event": "interrupted", "step": 0});
    let events = format!("{start}\n{interrupted}\n");
    workplace.write("run/events.jsonl", events.as_bytes());
    workplace.write("run/.provenance.json.a1B2c3.tmp", b"half");
    workplace.train(&["train.save_every=1"]).succeeded();
    workplace.assert_no_temporary_files();
    // A killed run that is gone on with.
    std::fs::create_dir_all(workplace.path("run/checkpoints/.step-000002.a1B2c3.tmp/state"))
        .expect("a directory");
    let events = workplace.read_text("run/events.jsonl");
    let (unfinished, _) = events.trim_end().rsplit_once('\n').expect("lines");
    workplace.write("run/events.jsonl", format!("{unfinished}\n").as_bytes());
    let again = workplace.reparam(&[
        "train",
        "run.toml",
        "--set",
        "train.save_every=1",
        "--resume",
    ]);
    again.succeeded();
    workplace.assert_no_temporary_files();
}
