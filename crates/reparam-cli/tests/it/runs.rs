//! What a run writes, that it repeats to the byte, and how it is interrupted.

use serde_json::Value;

use crate::support::{Workplace, json_lines, model};

const ADAPTER: &str = "adapter/adapter_model.safetensors";

/// The bytes of the adapter that a run with these overrides makes in `directory`.
fn adapter(workplace: &Workplace, directory: &str, overrides: &[&str]) -> Vec<u8> {
    let output = format!("output.dir={directory}");
    workplace
        .train(&[&[output.as_str()], overrides].concat())
        .succeeded();
    workplace.read(&format!("{directory}/{ADAPTER}"))
}

fn is_sha256(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == 64 && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
}

#[test]
fn a_run_directory_has_everything() {
    let workplace = Workplace::new();
    let outcome = workplace.train(&["train.save_every=1"]).succeeded();
    // The model has 260,032 parameters without the adapter's.
    assert!(outcome.out.contains(", 260,032 parameters"), "{outcome:?}");

    let events = json_lines(&workplace.read_text("run/events.jsonl"));
    let of = |kind: &str| -> Vec<&Value> { events.iter().filter(|e| e["event"] == kind).collect() };
    let steps = of("step");
    assert_eq!(steps.len(), 2);
    for (index, step) in steps.iter().enumerate() {
        assert_eq!(step["step"], index + 1);
        assert_eq!(step["learning_rate"], 1e-3);
        // Two blocks of 32 tokens; the first of each is not predicted.
        assert_eq!(
            (&step["weight"], &step["unit"]),
            (&62.0.into(), &"tokens".into())
        );
        for key in ["loss", "grad_norm", "per_second"] {
            assert!(step[key].as_f64().expect(key) > 0.0, "{step}");
        }
        let peak = step["peak_rss_bytes"].as_u64().expect("bytes");
        assert!(peak > 1 << 20 || !cfg!(target_os = "linux"), "{step}");
    }
    assert_eq!(of("start").len(), 1);
    assert_eq!(of("evaluation").len(), 2);
    assert_eq!(of("saved").len(), 2);
    assert_eq!(events.last().expect("an event")["event"], "finished");

    let text = workplace.read_text("run/provenance.json");
    let provenance: Value = serde_json::from_str(&text).expect("JSON");
    let base = provenance["base_tensors"].as_object().expect("tensors");
    assert_eq!(base.len(), 47);
    assert!(base.values().all(is_sha256));
    assert!(is_sha256(&provenance["tokenizer"]["sha256"]));
    assert!(is_sha256(&provenance["config"]));
    let data = provenance["data"].as_array().expect("data");
    let paths: Vec<&Value> = data.iter().map(|file| &file["path"]).collect();
    assert_eq!(paths, ["train.txt", "held_out.txt"]);
    assert!(data.iter().all(|file| is_sha256(&file["sha256"])));
    assert_eq!(provenance["seed"], 0);

    for directory in ["run/adapter", "run/checkpoints/step-000001"] {
        let config = workplace.read_text(&format!("{directory}/adapter_config.json"));
        let config: Value = serde_json::from_str(&config).expect("JSON");
        assert_eq!(config["peft_type"], "LORA");
        assert_eq!(config["r"], 4);
        assert!(
            workplace
                .path(directory)
                .join("adapter_model.safetensors")
                .is_file()
        );
    }
}

#[test]
fn accumulation_is_reproducible_on_any_number_of_threads() {
    let workplace = Workplace::new();
    let long = ["train.sequence_length=200", "train.gradient_accumulation=2"];
    let of = |directory: &str, threads: &str| {
        adapter(&workplace, directory, &[long[0], long[1], threads])
    };
    assert_eq!(of("a", "train.threads=1"), of("b", "train.threads=3"));
}

#[test]
fn the_resolved_configuration_is_the_same_run() {
    let workplace = Workplace::new();
    let overrides = [
        "method.dropout=0.1",
        "train.seed=3",
        "optimizer.schedule=cosine",
    ];
    let first = adapter(&workplace, "run", &overrides);
    workplace
        .train_file("run/config.resolved.toml", &["output.dir=again"])
        .succeeded();
    assert_eq!(workplace.read(&format!("again/{ADAPTER}")), first);
}

#[test]
fn json_is_the_stream_of_events() {
    let workplace = Workplace::new();
    let outcome = workplace
        .reparam(&["train", "run.toml", "--json"])
        .succeeded();
    let printed: Vec<String> = outcome.events().iter().map(ToString::to_string).collect();
    let written = json_lines(&workplace.read_text("run/events.jsonl"));
    let written: Vec<String> = written.iter().map(ToString::to_string).collect();
    assert_eq!(printed, written);
    assert!(outcome.err.is_empty(), "{outcome:?}");
}

#[test]
fn the_final_loss_is_that_of_eval() {
    let workplace = Workplace::new();
    workplace.train(&[]).succeeded();
    let events = json_lines(&workplace.read_text("run/events.jsonl"));
    let finished = events.last().expect("an event");
    let eval = |adapter: &[&str]| {
        let model = model();
        let args = [
            "eval",
            "--json",
            "--sequence-length",
            "32",
            "--data",
            "held_out.txt",
        ];
        let args = [&args, &["--model", &model][..], adapter].concat();
        workplace.reparam(&args).succeeded().json()
    };
    let after = eval(&["--adapter", "run/adapter"]);
    assert_eq!(after["loss"], finished["after"]);
    let before = eval(&[]);
    assert_eq!(before["loss"], finished["before"]);
    assert_ne!(before["loss"], after["loss"]);
    let (loss, perplexity) = (before["loss"].as_f64(), before["perplexity"].as_f64());
    assert_eq!(loss.map(f64::exp), perplexity);
    assert_eq!(before["tokens"], events[0]["data"]["eval_tokens"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_is_saved() {
    let workplace = Workplace::new();
    let (events, err) = workplace.interrupt_training();
    let last = events.last().expect("an end");
    let steps = events.iter().filter(|event| event["event"] == "step");
    let steps = steps.count() as u64;
    assert_eq!(last["event"], "interrupted");
    assert_eq!(last["step"], steps);
    assert!(err.contains("stopping after this step"), "{err}");
    assert!(err.contains("its state is saved"), "{err}");

    let model = model();
    let args = ["generate", "--model", &model, "--adapter", "run/adapter"];
    workplace
        .reparam(&[&args[..], &["--prompt", "To be", "--max-new-tokens", "4"]].concat())
        .succeeded();
}

/// A reader that goes away ends the run, with the adapter saved once there is something learned.
#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_the_run() {
    use std::io::{BufRead as _, BufReader};

    let workplace = Workplace::new();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(["train", "run.toml", "--json"])
        .args(["--set", "train.max_steps=100000000"])
        .env_clear()
        .current_dir(workplace.root())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.expect("a line").contains("\"event\":\"step\"")));
    drop(lines);
    assert_eq!(child.wait().expect("an end").code(), Some(3));
    assert!(workplace.path("run").join(ADAPTER).is_file());

    // Before the first step there is nothing to save.
    let workplace = Workplace::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(["train", "run.toml", "--json"])
        .env_clear()
        .current_dir(workplace.root())
        .stdout(writer)
        .output()
        .expect("a process");
    assert_eq!(output.status.code(), Some(3));
    assert!(!workplace.path("run").join(ADAPTER).exists());
}

/// The old run goes when the new one is sure to start, and nothing else goes with it.
#[test]
fn force_replaces_a_run_and_nothing_else() {
    let workplace = Workplace::new();
    let force = |more: &[&str]| {
        let args = [&["train", "run.toml", "--force"], more].concat();
        workplace.reparam(&args)
    };
    // Where there is none, there is nothing to replace.
    let first = force(&["--set", "train.save_every=1"]).succeeded();
    assert!(!first.out.contains("replaced"), "{first:?}");
    let old = workplace.read(&format!("run/{ADAPTER}"));
    workplace.write("run/notes.txt", b"mine");
    workplace
        .reparam(&["train", "run.toml"])
        .failed(1, "run already holds a run", "--force");

    let missing = ["--set", "data.train=missing.txt"];
    assert_eq!(force(&missing).code, Some(1));
    assert_eq!(workplace.read(&format!("run/{ADAPTER}")), old);
    let events = json_lines(&workplace.read_text("run/events.jsonl"));
    assert_eq!(events.last().expect("events")["event"], "finished");

    let second = force(&["--set", "train.seed=5"]).succeeded();
    let row = "replaced    the earlier run: config.resolved.toml, provenance.json, loss.svg, adapter, checkpoints\n";
    assert!(second.out.contains(row), "{second:?}");
    assert_ne!(workplace.read(&format!("run/{ADAPTER}")), old);
    assert!(!workplace.path("run/checkpoints").exists());
    assert_eq!(workplace.read_text("run/notes.txt"), "mine");
    assert!(!workplace.path("run/.replaced.tmp").exists());
    let events = json_lines(&workplace.read_text("run/events.jsonl"));
    let starts = events.iter().filter(|event| event["event"] == "start");
    assert_eq!(starts.count(), 1);

    // What is no run is not replaced.
    std::fs::create_dir_all(workplace.path("other/model")).expect("a directory");
    workplace.write("other/model/weights", b"mine");
    force(&["--output", "other"]).failed(1, "other already holds a run", "--output");
    assert_eq!(workplace.read_text("other/model/weights"), "mine");
    assert_eq!(force(&["--resume"]).code, Some(2));
}

/// A run that wins nothing succeeds, and says so.
#[test]
fn a_run_that_is_no_better_warns() {
    let workplace = Workplace::new();
    let outcome = workplace
        .train(&[
            "optimizer.learning_rate=0.5",
            "train.max_steps=6",
            "train.eval_every=2",
        ])
        .succeeded();
    assert!(
        outcome
            .err
            .contains("warning: the model is not better than before: held-out loss "),
        "{outcome:?}"
    );
    let events = json_lines(&workplace.read_text("run/events.jsonl"));
    let finished = events.last().expect("an end");
    assert_eq!(finished["improved"], false);
    assert!(finished["best_loss"].as_f64() > finished["before"].as_f64());
    assert_eq!(finished["best_loss"], finished["after"]);
}
