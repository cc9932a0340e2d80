//! Runs that go on from a checkpoint, within one process: every kind of state, every checkpoint.

use std::fs;
use std::path::Path;

use reparam_train::RunFile as _;
use reparam_train::config::{Override, RunConfig};
use reparam_train::event::Event;
use reparam_train::tasks::CausalLanguageModel;
use reparam_train::{Outcome, TaskRun, TrainError};

use crate::repository;
use crate::witness::{Witness, read_events};

const LORA: &str = "method.dropout=0.1";

/// Updates whose state is of every kind that there is.
const UPDATES: [&str; 9] = [
    "{ kind = \"adamw\" }",
    "{ kind = \"lion\" }",
    "{ kind = \"adafactor\" }",
    "{ kind = \"schedule_free_adamw\" }",
    "{ kind = \"rmsprop\" }",
    "{ kind = \"lamb\" }",
    "{ kind = \"sgd\", momentum = 0.9, lambda = \"adaptive\" }",
    "{ transforms = [{ kind = \"sam\" }, { kind = \"adamw\" }, { kind = \"ema\" }] }",
    "{ transforms = [{ kind = \"accumulate\", steps = 2, transforms = [{ kind = \"muon\" }] }] }",
];

fn run(directory: &Path, data: &Path, overrides: &[&str]) -> TaskRun {
    let text = format!(
        "[model]\npath = {:?}\n[data]\ntrain = {data:?}\neval_fraction = 0.3\n[method]\nkind = \"lora\"\nrank = 2\n\
         [optimizer]\nlearning_rate = 1e-3\n[train]\nmax_steps = 7\nbatch_size = 1\nsequence_length = 16\nseed = 3\n\
         precision = \"f32\"\neval_every = 2\nsave_every = 2\ngradient_accumulation = 2\n[output]\ndir = {directory:?}\n",
        repository("assets/stories260K"),
    );
    let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
    let config = RunConfig::parse(&text, "run.toml", &overrides);
    TaskRun::of::<CausalLanguageModel>(config.unwrap_or_else(|error| panic!("{error}")))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// The losses, norms and measures of a run's file of events.
fn numbers(run: &Path) -> Vec<(u64, f64, f64)> {
    let events = read_events(run)
        .into_iter()
        .filter_map(|event| match event {
            Event::Step(step) => Some((step.step, step.loss, step.grad_norm)),
            Event::Evaluation(evaluation) => Some((evaluation.step, evaluation.value(), 0.0)),
            Event::Finished(finished) => Some((finished.steps, finished.before?, finished.after?)),
            _ => None,
        });
    events.collect()
}

fn result(run: &Path) -> Vec<u8> {
    let adapter = run.join("adapter/adapter_model.safetensors");
    let model = run.join("model/model.safetensors");
    fs::read(if adapter.is_file() { adapter } else { model }).expect("a result")
}

#[track_caller]
fn goes_on(overrides: &[&str]) {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("train.txt");
    let text = fs::read(repository("assets/tinyshakespeare.txt")).expect("a text");
    fs::write(&data, &text[..700]).expect("writes");
    let whole = place.path().join("whole");
    let outcome = Witness::default().run(&run(&whole, &data, overrides), false);
    assert_eq!(outcome.expect("a run"), Outcome::Finished, "{overrides:?}");

    // As if killed after a checkpoint, while a later step's line was being written.
    let name = |step: u64| format!("checkpoints/step-{step:06}");
    for newest in [2, 4] {
        let killed = place.path().join(format!("killed-{newest}"));
        copy(&whole, &killed);
        for step in (newest + 2..=6).step_by(2) {
            fs::remove_dir_all(killed.join(name(step))).expect("removes");
        }
        let events = fs::read_to_string(killed.join("events.jsonl")).expect("events");
        let kept = events.lines().count() - 4;
        let torn: String = events.split_inclusive('\n').take(kept).collect();
        fs::write(killed.join("events.jsonl"), torn + "{\"schema_ver").expect("writes");
        let outcome = Witness::default().run(&run(&killed, &data, overrides), true);
        assert_eq!(outcome.expect("a run"), Outcome::Finished, "{overrides:?}");
        assert!(result(&killed) == result(&whole), "{newest}: {overrides:?}");
        assert_eq!(numbers(&killed), numbers(&whole), "{newest}: {overrides:?}");
        let resumed = read_events(&killed)
            .into_iter()
            .find_map(|event| match event {
                Event::Resumed { step } => Some(step),
                _ => None,
            });
        assert_eq!(resumed, Some(newest));
    }

    // Asked to stop after each step.
    for stop_at in [1, 6, 7] {
        let stopped = place.path().join(format!("stopped-{stop_at}"));
        let task = run(&stopped, &data, overrides);
        let mut witness = Witness {
            stop_at: Some(stop_at),
            ..Witness::default()
        };
        let outcome = witness.run(&task, false).expect("it ends well");
        assert_eq!(outcome, Outcome::Interrupted { step: stop_at });
        let outcome = Witness::default().run(&task, true);
        assert_eq!(outcome.expect("a run"), Outcome::Finished);
        assert!(
            result(&stopped) == result(&whole),
            "{stop_at}: {overrides:?}"
        );
        assert_eq!(
            numbers(&stopped),
            numbers(&whole),
            "{stop_at}: {overrides:?}"
        );
    }
}

#[test]
fn every_update_goes_on_to_the_same_bits() {
    for update in UPDATES {
        let update = update.replacen('{', "{ learning_rate = 1e-3,", 1);
        goes_on(&[LORA, &format!("optimizer={update}")]);
    }
}

#[test]
fn every_method_goes_on_to_the_same_bits() {
    for method in ["full", "weight_norm", "sigma_reparam", "overparameterized"] {
        goes_on(&[&format!("method={{ kind = \"{method}\" }}")]);
    }
    goes_on(&[LORA, "train.precision=bf16"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("train.txt");
    let text = fs::read(repository("assets/tinyshakespeare.txt")).expect("a text");
    fs::write(&data, &text[..700]).expect("writes");
    let whole = place.path().join("whole");
    Witness::default()
        .run(&run(&whole, &data, &[]), false)
        .expect("a run");
    for (file, resumed) in [
        ("state.json", 4),
        ("theta.safetensors", 4),
        ("optimizer.safetensors", 4),
    ] {
        let damaged = place.path().join(file);
        copy(&whole, &damaged);
        let path = damaged.join("checkpoints/step-000006/state").join(file);
        let bytes = fs::read(&path).expect("a file");
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
        let events = fs::read_to_string(damaged.join("events.jsonl")).expect("events");
        let kept: String = events
            .split_inclusive('\n')
            .take(events.lines().count() - 1)
            .collect();
        fs::write(damaged.join("events.jsonl"), kept).expect("writes");
        let mut witness = Witness::default();
        let outcome = witness.run(&run(&damaged, &data, &[]), true);
        assert_eq!(outcome.expect("a run"), Outcome::Finished, "{file}");
        assert!(
            witness.events.contains(&Event::Resumed { step: resumed }),
            "{file}"
        );
        assert!(result(&damaged) == result(&whole), "{file}");
    }
}

#[test]
fn a_run_of_another_version_is_left_alone() {
    let place = tempfile::tempdir().expect("a directory");
    let old = place.path().join("old");
    fs::create_dir(&old).expect("a directory");
    let line = "{\"schema_version\":1,\"event\":\"interrupted\",\"step\":3}\n";
    fs::write(old.join("events.jsonl"), line).expect("writes");
    let task = run(&old, &old.join("none.txt"), &[]);
    let error = Witness::default()
        .run(&task, true)
        .expect_err("another version");
    assert!(matches!(error, TrainError::OldRun { .. }), "{error}");
    assert_eq!(
        fs::read_to_string(old.join("events.jsonl")).expect("events"),
        line
    );
}
