//! Recurrent language models that carry their states from step to step.

use std::path::{Path, PathBuf};

use reparam_data::ReadOptions;
use reparam_formats::file;
use reparam_train::config::{Override, Precision, RunConfig};
use reparam_train::event::Event;
use reparam_train::{Outcome, RunFile as _, Session, Stop, TrainError, evaluate_file};
use serde_json::Value;
use tempfile::TempDir;

use crate::witness::Witness;
use crate::{offline, repository};

/// Losses in f32 after updates that both sides have rounded.
const TORCH: f64 = 1e-5;
/// Sums of some hundred f32 losses in another order.
const SUMS: f64 = 1e-5;

/// A directory for runs of the model of `testdata/golden/streams`.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // Three documents, which no number of streams divides evenly; tokens are letters.
        let words = |n: usize, by: usize| {
            let letters = (0..n).map(|at| char::from(b'a' + (at * by + at / 7) as u8 % 21));
            letters
                .map(|letter| format!("{letter} "))
                .collect::<String>()
        };
        let documents = [words(41, 5), words(9, 3), words(83, 8)];
        std::fs::write(directory.path().join("lines.txt"), documents.join("\n")).expect("writes");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Learns the lines by plain descent, with nothing held out.
    fn config(&self, run: &str, overrides: &[&str]) -> RunConfig {
        self.config_of(run, &repository("testdata/golden/streams"), overrides)
    }

    fn config_of(&self, run: &str, model: &Path, overrides: &[&str]) -> RunConfig {
        let text = format!(
            "[model]\npath = {model:?}\n\
             [data]\ntrain = {:?}\nformat = \"lines\"\neval_fraction = 0\ncarry_state = true\n\
             [method]\nkind = \"full\"\n\
             [optimizer]\nkind = \"sgd\"\nlearning_rate = 0.8\nclip_grad_norm = 0\nschedule = \"constant\"\n\
             [train]\nbatch_size = 2\nsequence_length = 5\nkeep = \"last\"\nprecision = \"f32\"\nthreads = 1\n\
             [output]\ndir = {:?}\n",
            self.path("lines.txt"),
            self.path(run),
        );
        let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
        RunConfig::parse(&text, "run.toml", &overrides).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn finish(&self, run: &str, overrides: &[&str]) -> Witness {
        let mut witness = Witness::default();
        let outcome = witness.train(&self.config(run, overrides));
        let outcome = outcome.unwrap_or_else(|error| panic!("{run}: {error}"));
        assert_eq!(outcome, Outcome::Finished);
        witness
    }
}

/// The loss of a file as `eval` measures it: each piece by itself.
fn eval(model: &Path, data: PathBuf, format: &str, length: usize) -> f64 {
    let model = model.to_str().expect("UTF-8");
    let session = Session::open(model, &offline(), Precision::F32).expect("a model");
    let read = ReadOptions {
        format: Some(format.parse().expect("a format")),
        ..ReadOptions::default()
    };
    let metrics = evaluate_file(&session, data, &read, length, Stop::never());
    metrics.expect("measures").primary()
}

fn golden() -> Value {
    let path = repository("testdata/golden/streams/losses.json");
    serde_json::from_str(&file::read_text(&path).expect("a file")).expect("JSON")
}

/// Six steps over the end of the text, in two micro-batches of two streams each.
#[test]
fn steps_are_those_of_torch() {
    let (place, golden) = (Place::new(), golden());
    let text = format!(
        "data.train={:?}",
        repository("testdata/golden/streams/text.txt")
    );
    let set = |key: &str, name: &str| format!("{key}={}", golden[name]);
    let overrides = [
        text,
        "data.format=text".to_owned(),
        set("train.batch_size", "batch_size"),
        set("train.gradient_accumulation", "gradient_accumulation"),
        set("train.sequence_length", "length"),
        set("train.max_steps", "steps"),
        set("optimizer.learning_rate", "learning_rate"),
    ];
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    let expected = golden["losses"].as_array().expect("losses");
    let expected: Vec<f64> = expected.iter().filter_map(Value::as_f64).collect();
    let found = place.finish("run", &overrides).losses();
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= TORCH, "step {step}: {found} {expected}");
    }
    // The same steps from zeros are others, but for the first of a pass.
    let anew = [
        &overrides[..],
        &["data.carry_state=false", "data.shuffle=false"],
    ]
    .concat();
    let anew = place.finish("anew", &anew).losses();
    assert!((anew[1] - expected[1]).abs() > 100.0 * TORCH, "{anew:?}");
    // As many streams in one micro-batch make the same steps.
    let whole = [
        &overrides[..],
        &["train.batch_size=4", "train.gradient_accumulation=1"],
    ]
    .concat();
    let whole = place.finish("whole", &whole).losses();
    for (whole, found) in whole.iter().zip(&found) {
        assert!((whole - found).abs() <= TORCH, "{whole} {found}");
    }
}

/// With a learning rate at which nothing moves, the losses of a pass over one stream add up to those of the whole documents,
/// wherever the pieces end; and that is what held-out texts are measured by.
#[test]
fn losses_add_up_to_those_of_whole_documents() {
    let place = Place::new();
    let base = repository("testdata/golden/streams");
    let lines = place.path("lines.txt");
    let whole = eval(&base, lines.clone(), "lines", 1000);
    for length in [2, 5, 16, 200] {
        let overrides = [
            format!("train.sequence_length={length}"),
            "train.batch_size=1".to_owned(),
            "optimizer.learning_rate=1e-30".to_owned(),
            format!("data.eval={lines:?}"),
        ];
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let run = format!("run-{length}");
        let witness = place.finish(&run, &overrides);
        let steps = witness.steps();
        let weight: f64 = steps.iter().map(|step| step.weight).sum();
        // Every token but the first of each document, of which all have an end.
        assert_eq!(weight, (41 + 9 + 83) as f64);
        let sum: f64 = steps.iter().map(|step| step.loss * step.weight).sum();
        assert!(
            (sum / weight - whole).abs() <= SUMS,
            "{length}: {sum} {whole}"
        );
        for (_, value) in witness.evaluations() {
            assert!((value - whole).abs() <= SUMS, "{length}: {value} {whole}");
        }
    }
    // `eval` cuts, and does not know what is before a piece.
    let cut = eval(&base, lines, "lines", 5);
    assert!((cut - whole).abs() > 100.0 * SUMS, "{cut} {whole}");
}

/// Each of several streams begins with zeros, in the middle of a document, too.
#[test]
fn a_stream_begins_with_zeros() {
    let place = Place::new();
    let overrides = [
        "optimizer.learning_rate=1e-30",
        "train.batch_size=7",
        "train.epochs=2",
    ];
    let witness = place.finish("run", &overrides);
    assert_eq!(witness.start().data["streams"], 7);
    let losses = witness.losses();
    // 133 tokens are seven streams of 19, which are four steps; the second pass is the first one again.
    assert_eq!(losses.len(), 8);
    assert_eq!(losses[..4], losses[4..]);
    let first: f64 = witness.steps()[0].weight;
    assert_eq!(first, 35.0);
}

/// Held-out stretches are gaps, behind which a text begins anew.
#[test]
fn a_part_of_the_texts_may_be_held_out() {
    let place = Place::new();
    let witness = place.finish(
        "run",
        &[
            "data.eval_fraction=0.3",
            "train.epochs=6",
            "train.eval_every=2",
        ],
    );
    let start = witness.start();
    assert!(
        start.data["eval_tokens"].as_u64() > Some(20),
        "{:?}",
        start.data
    );
    let evaluations = witness.evaluations();
    assert!(evaluations.len() > 2);
    assert!(evaluations.iter().all(|(_, loss)| loss.is_finite()));
    assert_ne!(evaluations[0].1, evaluations[1].1);
}

/// States are part of a checkpoint.
#[test]
fn a_run_goes_on_with_its_states() {
    let updates = [
        "optimizer={ kind = \"sgd\", learning_rate = 0.5, momentum = 0.9 }",
        // A probe looks ahead; what is carried is what the model itself leaves.
        "optimizer={ learning_rate = 1e-2, transforms = [{ kind = \"sam\" }, { kind = \"adamw\" }] }",
    ];
    for update in updates {
        let place = Place::new();
        let overrides = [
            update,
            "train.gradient_accumulation=2",
            "train.max_steps=12",
            "train.save_every=3",
        ];
        let whole = place.finish("whole", &overrides);
        for stop_at in [1, 4, 7] {
            let name = format!("stopped-{stop_at}");
            let run = place.config(&name, &overrides);
            let mut before = Witness {
                stop_at: Some(stop_at),
                ..Witness::default()
            };
            let outcome = before.train(&run).expect("it ends well");
            assert_eq!(outcome, Outcome::Interrupted { step: stop_at });
            let state = format!("{name}/checkpoints/step-{stop_at:06}/state/carried.safetensors");
            assert!(place.path(&state).is_file(), "{state}");
            let task = reparam_train::TaskRun::of::<reparam_train::tasks::CausalLanguageModel>(run);
            let mut after = Witness::default();
            let outcome = after.run(&task, true).expect("it goes on");
            assert_eq!(outcome, Outcome::Finished);
            let losses = [before.losses(), after.losses()].concat();
            assert_eq!(losses, whole.losses(), "{update} {stop_at}");
            let result = |run: &str| std::fs::read(place.path(run).join("model/model.safetensors"));
            assert!(result(&name).expect("a file") == result("whole").expect("a file"));
        }
        // Without its states a step would not be the one that comes next.
        let run = place.config("lost", &overrides);
        let mut stopped = Witness {
            stop_at: Some(4),
            ..Witness::default()
        };
        stopped.train(&run).expect("it ends well");
        let state = place.path("lost/checkpoints/step-000004/state/carried.safetensors");
        std::fs::remove_file(state).expect("removes");
        let task = reparam_train::TaskRun::of::<reparam_train::tasks::CausalLanguageModel>(run);
        let error = Witness::default()
            .run(&task, true)
            .expect_err("they are gone");
        assert!(matches!(error, TrainError::NoState { .. }), "{error}");
    }
}

/// Nothing of it is in an ordinary run.
#[test]
fn an_ordinary_run_has_no_states() {
    let place = Place::new();
    let witness = place.finish(
        "run",
        &[
            "data.carry_state=false",
            "train.max_steps=2",
            "train.save_every=1",
        ],
    );
    assert!(witness.start().data.get("streams").is_none());
    let saved = witness
        .events
        .iter()
        .any(|event| matches!(event, Event::Saved { .. }));
    let state = place.path("run/checkpoints/step-000001/state");
    assert!(saved && state.is_dir() && !state.join("carried.safetensors").exists());
}

#[test]
fn what_has_no_state_to_carry_is_refused() {
    let place = Place::new();
    let run = |model: &Path, overrides: &[&str]| {
        let config = place.config_of("run", model, overrides);
        let error = Witness::default()
            .train(&config)
            .expect_err("it is refused");
        format!("{error} {}", error.hint().unwrap_or_default())
    };
    let said = run(&repository("assets/stories260K"), &[]);
    assert!(
        said.contains("carry_state") && said.contains("llama"),
        "{said}"
    );
    let base = repository("testdata/golden/streams");
    let said = run(&base, &["train.batch_size=200"]);
    assert!(
        said.contains("200 streams") && said.contains("batch_size"),
        "{said}"
    );
    let examples = place.path("examples.jsonl");
    std::fs::write(
        &examples,
        "{\"prompt\": \"a b\", \"completion\": \" c d\"}\n",
    )
    .expect("writes");
    let data = format!("data.train={examples:?}");
    let said = run(&base, &[&data, "data.format=prompt_completion"]);
    assert!(
        said.contains("1 of the documents") && said.contains("carry_state"),
        "{said}"
    );
}
