//! Whole runs: what they write, tell, refuse and survive.

use std::path::{Path, PathBuf};

use reparam::schema::SettingValue;
use reparam_data::ReadOptions;
use reparam_formats::checkpoint::{Checkpoint, sha256_bytes, sha256_file};
use reparam_formats::peft::PeftAdapter;
use reparam_train::RunFile as _;
use reparam_train::config::{Override, RunConfig};
use reparam_train::event::{Event, FailureKind};
use reparam_train::{Outcome, Stop, TrainError, evaluate_file};
use serde_json::Value;
use tempfile::TempDir;

use crate::witness::{Witness, read_events};
use crate::{repository, stories, with_threads};

const SENTENCES: [&str; 7] = [
    "Once upon a time, there was a little girl.",
    "The dog ran to the big tree.",
    "She loved to play outside in the park.",
    "He wanted to see what was inside.",
    "Lily smiled and gave her mom a big hug.",
    "One day, she saw a big, red ball.",
    "Tim had a big box.",
];

/// A directory with data and room for runs.
struct Workplace {
    directory: TempDir,
}

impl Workplace {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let lines: Vec<String> = SENTENCES
            .iter()
            .map(|text| serde_json::json!({ "text": text }).to_string())
            .collect();
        std::fs::write(directory.path().join("data.jsonl"), lines.join("\n")).expect("writes");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Seven documents, each a block, all evaluated too; `overrides` come last.
    fn config(&self, overrides: &[&str]) -> RunConfig {
        let text = format!(
            "[model]\npath = {:?}\n[data]\ntrain = {:?}\neval = {:?}\npacking = \"none\"\n\
             [method]\nkind = \"lora\"\nrank = 4\nalpha = 8\n[optimizer]\nlearning_rate = 1e-2\n\
             [train]\nmax_steps = 6\nbatch_size = 2\nsequence_length = 32\nseed = 3\nprecision = \"f32\"\n\
             [output]\ndir = {:?}\n",
            repository("assets/stories260K"),
            self.path("data.jsonl"),
            self.path("data.jsonl"),
            self.path("run"),
        );
        let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
        RunConfig::parse(&text, "run.toml", &overrides).expect("a run file")
    }
}

fn finish(config: &RunConfig) -> Witness {
    let mut witness = Witness::default();
    let outcome = witness.train(config).expect("a run");
    assert_eq!(outcome, Outcome::Finished);
    witness
}

#[test]
fn a_run_learns_and_leaves_what_it_says() {
    let place = Workplace::new();
    let config = place.config(&["train.save_every=2", "train.eval_every=3"]);
    let witness = finish(&config);
    let run = place.path("run");

    let start = witness.start();
    assert_eq!((start.task.as_str(), start.max_steps), ("causal-lm", 6));
    assert_eq!(
        (&start.data["blocks"], start.batch_size),
        (&Value::from(7), 2)
    );
    assert_eq!((start.method.as_str(), start.scaling), ("lora", Some(2.0)));
    assert_eq!((start.targets.len(), start.seed), (35, 3));
    assert_eq!(start.lambda, Some(1.0));
    // 4 (d_in + d_out) for the seven layers of each of five blocks.
    let a_block = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 172);
    assert_eq!(start.trainable_parameters, 5 * 4 * a_block);
    let base = Checkpoint::open(&repository("assets/stories260K")).expect("the model");
    assert_eq!(
        start.total_parameters,
        base.total_parameters() + 5 * 4 * a_block
    );

    let steps = witness.steps();
    let numbers: Vec<u64> = steps.iter().map(|step| step.step).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    for step in &steps {
        assert!(step.loss.is_finite() && step.grad_norm > 0.0 && step.per_second > 0.0);
        assert_eq!(step.learning_rate, 1e-2);
    }
    if cfg!(target_os = "linux") {
        let peaks: Vec<u64> = steps.iter().map(|step| step.peak_rss_bytes).collect();
        assert!(peaks[0] > base.total_parameters() * 4, "{peaks:?}");
        assert!(peaks.is_sorted(), "{peaks:?}");
    }

    // Evaluated at the start, when due, and at the end, on what is the training text here.
    let evaluations = witness.evaluations();
    assert_eq!(
        evaluations.iter().map(|one| one.0).collect::<Vec<_>>(),
        [0, 3, 6]
    );
    let finished = witness.finished();
    assert_eq!(finished.before, Some(evaluations[0].1));
    assert_eq!(finished.after, Some(evaluations[2].1));
    assert!(
        evaluations[2].1 < evaluations[0].1 - 0.01,
        "{evaluations:?}"
    );
    assert_eq!(
        (finished.steps, &finished.adapter),
        (6, &Some(run.join("adapter")))
    );

    // The numbers are those of what is on disk.
    let base_loss = evaluate_file(
        &stories(),
        place.path("data.jsonl"),
        &ReadOptions::default(),
        32,
        Stop::never(),
    );
    assert_eq!(base_loss.expect("evaluates").primary(), evaluations[0].1);
    let session = stories()
        .with_adapter(&run.join("adapter"))
        .expect("the run's adapter");
    let loss = evaluate_file(
        &session,
        place.path("data.jsonl"),
        &ReadOptions::default(),
        32,
        Stop::never(),
    );
    assert_eq!(loss.expect("evaluates").primary(), evaluations[2].1);
    for step in [2, 4] {
        let path = run.join(format!("checkpoints/step-{step:06}"));
        assert!(witness.events.contains(&Event::Saved {
            step,
            path: path.clone()
        }));
        PeftAdapter::load(&path).expect("a saved adapter");
    }
    assert!(!run.join("checkpoints/step-000006").exists());

    // The file tells what the observer was told, and the configuration repeats the run.
    assert_eq!(read_events(&run), witness.events);
    let resolved = RunConfig::load(&run.join("config.resolved.toml"), &[]).expect("a run file");
    assert_eq!(resolved, config);
}

#[test]
fn the_same_run_gives_the_same_bytes_and_another_seed_others() {
    let place = Workplace::new();
    let weights = |name: &str, seed: &str, threads: usize| {
        let dir = format!("output.dir={:?}", place.path(name));
        let config = place.config(&[&dir, seed, "method.dropout=0.1"]);
        with_threads(threads, || finish(&config));
        std::fs::read(place.path(name).join("adapter/adapter_model.safetensors")).expect("weights")
    };
    let first = weights("a", "train.seed=1", 1);
    assert!(first == weights("b", "train.seed=1", 2));
    assert!(first != weights("c", "train.seed=2", 1));
}

#[test]
fn a_taken_directory_is_refused_before_anything_is_written() {
    let place = Workplace::new();
    let config = place.config(&["train.max_steps=1"]);
    finish(&config);
    let before = std::fs::read(place.path("run/events.jsonl")).expect("events");
    let mut witness = Witness::default();
    let error = witness.train(&config).expect_err("it is taken");
    assert!(
        matches!(&error, TrainError::OutputTaken { directory } if *directory == place.path("run")),
        "{error}"
    );
    assert_eq!(error.kind(), FailureKind::Config);
    assert!(error.hint().is_some());
    assert!(witness.events.is_empty());
    assert_eq!(
        std::fs::read(place.path("run/events.jsonl")).expect("events"),
        before
    );
}

/// A directory that only holds other files, such as the run file, is free.
#[test]
fn other_files_in_the_directory_are_kept() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("run")).expect("creates");
    std::fs::write(place.path("run/run.toml"), "mine").expect("writes");
    finish(&place.config(&["train.max_steps=1"]));
    assert_eq!(
        std::fs::read(place.path("run/run.toml")).expect("kept"),
        b"mine"
    );
}

#[test]
fn epochs_become_steps() {
    let place = Workplace::new();
    // Seven blocks, two in a batch.
    for (name, epochs, accumulation, steps) in [
        ("one", "1", 1, 4),
        ("two", "2", 2, 4),
        ("half", "0.5", 1, 2),
        ("little", "0.01", 4, 1),
        ("beyond", "3", 8, 3),
    ] {
        let text = std::fs::read_to_string(place.path("data.jsonl")).expect("data");
        assert_eq!(text.lines().count(), 7);
        let mut config = place.config(&[
            &format!("output.dir={:?}", place.path(name)),
            &format!("train.gradient_accumulation={accumulation}"),
        ]);
        config.train.length =
            reparam_train::config::Length::Epochs(epochs.parse().expect("a number"));
        let witness = finish(&config);
        assert_eq!(witness.start().max_steps, steps, "{name}");
        assert_eq!(witness.steps().len() as u64, steps, "{name}");
        // Whole epochs learn every token once an epoch, whatever the steps.
        let epochs: f64 = epochs.parse().expect("a number");
        let seen: f64 = witness.steps().iter().map(|step| step.weight).sum();
        let labelled = witness.start().data["labelled_tokens"].as_f64();
        let last = witness
            .steps()
            .pop()
            .expect("a step")
            .epoch
            .expect("an epoch");
        if epochs.fract() == 0.0 {
            assert_eq!(
                Some(seen),
                labelled.map(|labelled| labelled * epochs),
                "{name}"
            );
            assert_eq!(last, epochs, "{name}");
        } else {
            // Two blocks a micro-batch, up to the end of the epoch.
            let blocks = (2 * accumulation * steps).min(7);
            assert_eq!(last, blocks as f64 / 7.0, "{name}");
            assert!(epochs <= last, "{name}: {last}");
        }
    }
}

/// What is held out is the same in each order of the files, and so is what it is measured by, to the last bit.
#[test]
fn the_order_of_the_files_does_not_change_the_loss_before_the_first_step() {
    let place = Workplace::new();
    let other: Vec<String> = (0..40)
        .map(|number| {
            serde_json::json!({ "text": format!("Tim had {number} big dogs.") }).to_string()
        })
        .collect();
    std::fs::write(place.path("other.jsonl"), other.join("\n")).expect("writes");
    let (data, other) = (place.path("data.jsonl"), place.path("other.jsonl"));
    let run = |name: &str, first: &Path, second: &Path, seed: u64| {
        let witness = finish(&place.config(&[
            &format!("output.dir={:?}", place.path(name)),
            &format!("data.train=[{first:?}, {second:?}]"),
            "data.eval_fraction=0.2",
            "train.max_steps=1",
            &format!("train.seed={seed}"),
        ]));
        let mut held_out = witness.start().data["held_out"]
            .as_array()
            .expect("shares")
            .clone();
        held_out.sort_by_key(|share| share["file"].to_string());
        (witness.finished().before, held_out)
    };
    let one = run("one", &data, &other, 3);
    assert_eq!(one, run("two", &other, &data, 3));
    assert_ne!(one.0, run("three", &data, &other, 4).0);
    let held_out = |share: &Value| share["held_out"].as_u64();
    assert!(
        one.1.iter().filter_map(held_out).sum::<u64>() >= 8,
        "{:?}",
        one.1
    );
    assert!(one.1.iter().all(|share| share["unit"] == "documents"));
}

/// Every labelled token counts once an epoch, and a step's tokens are those of its micro-batches.
#[test]
fn an_epoch_sees_every_token() {
    let place = Workplace::new();
    let mut config = place.config(&["train.batch_size=1", "train.gradient_accumulation=7"]);
    config.train.length = reparam_train::config::Length::Epochs(1.0);
    let witness = finish(&config);
    let steps = witness.steps();
    assert_eq!(steps.len(), 1);
    let labelled = witness.start().data["labelled_tokens"].as_f64();
    assert_eq!(
        (Some(steps[0].weight), steps[0].unit.as_str()),
        (labelled, "tokens")
    );
    // One step over all blocks measures what the evaluation before it does.
    let before = witness.finished().before.expect("evaluated");
    assert!(
        (steps[0].loss - before).abs() < 1e-5,
        "{} {before}",
        steps[0].loss
    );
}

#[test]
fn a_diverging_run_stops_with_step_and_cause() {
    let place = Workplace::new();
    let config = place.config(&[
        "optimizer.kind=\"sgd\"",
        "optimizer.learning_rate=1e18",
        "optimizer.clip_grad_norm=0",
        "train.save_every=1",
    ]);
    let mut witness = Witness::default();
    let error = witness.train(&config).expect_err("it diverges");
    // The factors are finite after the first step; what is computed from them overflows.
    let TrainError::Diverged {
        step,
        learning_rate,
        last_saved,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*step, 2);
    assert_eq!(*learning_rate, 1e18);
    let saved = last_saved.as_ref().expect("steps before it were saved");
    assert!(
        saved.ends_with(format!("checkpoints/step-{:06}", step - 1)),
        "{}",
        saved.display()
    );
    assert_eq!(error.kind(), FailureKind::Diverged);
    let hint = error.hint().expect("a hint");
    assert!(
        hint.contains("learning rate") && hint.contains("step-"),
        "{hint}"
    );
    let events = read_events(&place.path("run"));
    assert_eq!(
        events.last(),
        Some(&Event::Failed {
            error: error.to_failure()
        })
    );
    assert!(!place.path("run/adapter").exists());
}

#[test]
fn an_interrupted_run_saves_the_step_it_finished() {
    let place = Workplace::new();
    let mut witness = Witness {
        stop_at: Some(2),
        ..Witness::default()
    };
    let outcome = witness.train(&place.config(&[])).expect("it ends well");
    assert_eq!(outcome, Outcome::Interrupted { step: 2 });
    assert_eq!(witness.events.last(), Some(&Event::Interrupted { step: 2 }));
    PeftAdapter::load(&place.path("run/adapter")).expect("the adapter");
    // It is what a run of two steps ends with: the constant schedule does not know the length.
    let two = place.config(&[
        "train.max_steps=2",
        &format!("output.dir={:?}", place.path("two")),
    ]);
    finish(&two);
    let weights = |run: &str| {
        std::fs::read(place.path(run).join("adapter/adapter_model.safetensors")).expect("weights")
    };
    assert!(weights("run") == weights("two"));
}

#[test]
fn a_step_is_logged_when_due_and_told_always() {
    let place = Workplace::new();
    let witness = finish(&place.config(&["train.log_every=4"]));
    assert_eq!(witness.steps().len(), 6);
    let logged: Vec<u64> = read_events(&place.path("run"))
        .iter()
        .filter_map(|event| match event {
            Event::Step(step) => Some(step.step),
            _ => None,
        })
        .collect();
    assert_eq!(logged, [1, 4]);
}

#[test]
fn samples_are_taken_before_and_after() {
    let place = Workplace::new();
    let witness = finish(&place.config(&[
        "train.sample_prompt=\"Once upon\"",
        "train.sample_tokens=12",
        "train.max_steps=2",
    ]));
    let samples: Vec<(u64, &str)> = witness
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Sample { step, prompt, text } => {
                assert_eq!(prompt, "Once upon");
                Some((*step, text.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(samples.iter().map(|one| one.0).collect::<Vec<_>>(), [0, 2]);
    // B starts at zero: the first sample is the base model's.
    assert_eq!(samples[0].1, " a time, there was a little girl named Lily");
}

#[test]
fn provenance_names_what_the_run_was_made_from() {
    let place = Workplace::new();
    finish(&place.config(&["train.max_steps=1"]));
    let text = std::fs::read_to_string(place.path("run/provenance.json")).expect("provenance");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    let model = repository("assets/stories260K");
    let digests = Checkpoint::open(&model)
        .expect("the model")
        .sha256_tensors()
        .expect("digests");
    assert_eq!(
        found["base_tensors"],
        serde_json::to_value(digests).expect("JSON")
    );
    let digest_of = |path: &Path| Value::from(sha256_file(path).expect("a file"));
    assert_eq!(
        found["tokenizer"]["sha256"],
        digest_of(&model.join("tokenizer.json"))
    );
    let data = found["data"].as_array().expect("a list");
    assert_eq!(data.len(), 2, "the data and what it is evaluated on");
    for file in data {
        assert_eq!(file["sha256"], digest_of(&place.path("data.jsonl")));
        let bytes = std::fs::metadata(place.path("data.jsonl"))
            .expect("a file")
            .len();
        assert_eq!(file["bytes"], bytes);
    }
    let resolved = std::fs::read(place.path("run/config.resolved.toml")).expect("a run file");
    assert_eq!(found["config"], sha256_bytes(&resolved));
    assert_eq!(found["seed"], 3);
    assert_eq!(found["reparam_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(found["burn_version"], pinned_burn());
}

/// The version that the workspace pins, without the `=`.
fn pinned_burn() -> String {
    let manifest = std::fs::read_to_string(repository("Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = toml::from_str(&manifest).expect("TOML");
    let version = manifest["workspace"]["dependencies"]["burn"]["version"].as_str();
    let version = version.expect("a version");
    version.strip_prefix('=').expect("a pin").to_owned()
}

#[test]
fn a_warm_up_longer_than_the_run_is_refused() {
    let place = Workplace::new();
    let mut config = place.config(&[]);
    let schedule = config.optimizer.schedule.clone();
    config.optimizer.schedule = schedule.with("warmup_steps", SettingValue::Count(50));
    config.train.length = reparam_train::config::Length::Epochs(1.0);
    let error = Witness::default().train(&config).expect_err("too long");
    assert!(
        matches!(
            error,
            TrainError::Warmup {
                warmup_steps: 50,
                max_steps: 4
            }
        ),
        "{error}"
    );
    assert!(error.hint().is_some());
}

#[test]
fn a_target_that_matches_nothing_leaves_no_directory() {
    let place = Workplace::new();
    let config = place.config(&["method.target_modules=[\"q_porj\"]"]);
    let error = Witness::default()
        .train(&config)
        .expect_err("no such module");
    assert!(error.to_string().contains("q_porj"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("q_proj")));
    assert!(!place.path("run").exists());
}
