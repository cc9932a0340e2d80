//! Examples with a prompt: what is measured, what is learned, and what is refused.

use std::path::PathBuf;

use reparam::ForwardContext;
use reparam_data::{Dataset, DatasetOptions, IGNORE_INDEX, PackingStrategy, ReadOptions, TooLong};
use reparam_formats::peft::PeftAdapter;
use reparam_models::TokenBatch;
use reparam_train::RunFile as _;
use reparam_train::config::{Override, RunConfig};
use reparam_train::event::FailureKind;
use reparam_train::{Metrics, Outcome, Session, Stop, TrainError, evaluate_file};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::witness::Witness;
use crate::{repository, stories};

/// Both are `f32` forward passes.
const TOLERANCE: f64 = 1e-5;

fn golden() -> Value {
    let text = std::fs::read(repository("testdata/golden/instructions.json")).expect("golden");
    serde_json::from_slice(&text).expect("JSON")
}

/// A directory with a file in Alpaca's format, and room for runs.
struct Workplace {
    directory: TempDir,
}

impl Workplace {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let examples = golden()["examples"].to_string();
        std::fs::write(directory.path().join("data.json"), examples).expect("writes");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self, overrides: &[&str]) -> RunConfig {
        let text = format!(
            "[model]\npath = {:?}\n[data]\ntrain = {:?}\neval = {:?}\npacking = \"none\"\n\
             [method]\nkind = \"lora\"\nrank = 4\n[optimizer]\nlearning_rate = 1e-2\n\
             [train]\nmax_steps = 2\nbatch_size = 3\nsequence_length = 512\nprecision = \"f32\"\n\
             [output]\ndir = {:?}\n",
            repository("assets/stories260K"),
            self.path("data.json"),
            self.path("data.json"),
            self.path("run"),
        );
        let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
        RunConfig::parse(&text, "run.toml", &overrides).expect("a run file")
    }

    fn evaluate(&self, session: &Session, sequence_length: usize) -> Metrics {
        let (data, stop) = (self.path("data.json"), Stop::never());
        evaluate_file(
            session,
            data,
            &ReadOptions::default(),
            sequence_length,
            stop,
        )
        .expect("evaluates")
    }
}

/// The loss of the tokens that are labelled, one by one: each is scored by a call of its own.
fn by_hand(session: &Session, ids: &[u32], labels: &[i32]) -> (f64, u64) {
    let position_ids: Vec<u32> = (0..ids.len() as u32).collect();
    let (mut sum, mut count) = (0.0, 0);
    for index in (0..ids.len()).filter(|&index| labels[index] != IGNORE_INDEX) {
        let mut alone = vec![IGNORE_INDEX; ids.len()];
        alone[index] = labels[index];
        let batch = TokenBatch {
            input_ids: ids,
            position_ids: &position_ids,
            bounds: &[0, ids.len()],
        };
        let loss = session
            .model
            .loss(batch, &alone, 1.0, &ForwardContext::inference());
        sum += f64::from(loss.into_scalar::<f32>());
        count += 1;
    }
    (sum, count)
}

/// Ids and labels as transformers makes them, shifted: what each position predicts.
fn expected_labels() -> Vec<(Vec<u32>, Vec<i32>)> {
    let golden = golden();
    let numbers = |value: &Value| -> Vec<i64> {
        let list = value.as_array().expect("a list").iter();
        list.map(|number| number.as_i64().expect("a number"))
            .collect()
    };
    let lists = |key: &str| golden[key].as_array().expect("lists").clone();
    let pairs = lists("ids").into_iter().zip(lists("labels"));
    pairs
        .map(|(ids, labels)| {
            let ids = numbers(&ids).iter().map(|&id| id as u32).collect();
            let mut labels: Vec<i32> = numbers(&labels).iter().map(|&id| id as i32).collect();
            assert_eq!(labels.remove(0), IGNORE_INDEX, "BOS is not predicted");
            labels.push(IGNORE_INDEX);
            (ids, labels)
        })
        .collect()
}

#[test]
fn ids_and_labels_are_those_of_transformers() {
    let place = Workplace::new();
    let options = DatasetOptions {
        read: ReadOptions::default(),
        train_on_prompt: false,
        sequence_length: 512,
        packing: PackingStrategy::None,
        streams: None,
        too_long: TooLong::Cut,
        cache: None,
        weights: None,
    };
    let paths = [place.path("data.json")];
    let dataset =
        Dataset::build(&paths, &stories().tokenizer, &options, Stop::never()).expect("a data set");
    let blocks = (0..dataset.blocks.len()).map(|block| dataset.batch(&[block]).unwrap());
    let found: Vec<_> = blocks
        .map(|block| (block.input_ids, block.labels))
        .collect();
    assert_eq!(found, expected_labels());
}

#[test]
fn only_responses_are_scored() {
    let place = Workplace::new();
    let session = stories();
    let found = place.evaluate(&session, 512);
    let expected = golden()["loss"].as_f64().expect("a loss");
    assert!(
        (found.primary() - expected).abs() < TOLERANCE,
        "{} {expected}",
        found.primary()
    );
    // Whole, and cut into pieces that each stand alone.
    for sequence_length in [512, 64, 7] {
        let (mut sum, mut count) = (0.0, 0);
        for (ids, labels) in expected_labels() {
            for (ids, labels) in ids
                .chunks(sequence_length)
                .zip(labels.chunks(sequence_length))
            {
                // The last token of a piece does not see the next one.
                let mut labels = labels.to_vec();
                *labels.last_mut().expect("not empty") = IGNORE_INDEX;
                let (nll, predicted) = by_hand(&session, ids, &labels);
                sum += nll;
                count += predicted;
            }
        }
        let found = place.evaluate(&session, sequence_length);
        assert_eq!(found.get("tokens"), Some(count as f64), "{sequence_length}");
        let expected = sum / count as f64;
        assert!(
            (found.primary() - expected).abs() < TOLERANCE,
            "{} {expected}",
            found.primary()
        );
    }
}

fn finish(config: &RunConfig) -> Witness {
    let mut witness = Witness::default();
    assert_eq!(witness.train(config).expect("a run"), Outcome::Finished);
    witness
}

#[test]
fn a_run_learns_responses_or_prompts_too() {
    let place = Workplace::new();
    let examples = expected_labels();
    let tokens: usize = examples.iter().map(|(ids, _)| ids.len()).sum();
    let responses = examples.iter().flat_map(|(_, labels)| labels);
    let responses = responses.filter(|label| **label != IGNORE_INDEX).count();
    let measured = place.evaluate(&stories(), 512);

    let mut adapters = Vec::new();
    for (train_on_prompt, labelled) in [(false, responses), (true, tokens - examples.len())] {
        let run = place.path(&format!("run-{train_on_prompt}"));
        let witness = finish(&place.config(&[
            &format!("data.train_on_prompt={train_on_prompt}"),
            &format!("output.dir={run:?}"),
        ]));
        let start = witness.start();
        assert_eq!(start.data["train_tokens"], tokens as u64);
        assert_eq!(start.data["labelled_tokens"], labelled as u64);
        // A step's tokens are those that it learns; the batch has all examples.
        for step in witness.steps() {
            assert_eq!(step.weight, labelled as f64);
        }
        // What is measured are the responses, whatever is learned.
        assert_eq!(start.data["eval_tokens"], responses as u64);
        let finished = witness.finished();
        let before = finished.before.expect("evaluated");
        assert!((before - measured.primary()).abs() < TOLERANCE);
        let first = witness.losses()[0];
        assert_eq!(
            (first - before).abs() < TOLERANCE,
            !train_on_prompt,
            "{first} {before}"
        );
        let adapter = run.join("adapter");
        let session = stories().with_adapter(&adapter).expect("an adapter");
        let after = finished.after.expect("evaluated");
        assert!((after - place.evaluate(&session, 512).primary()).abs() < TOLERANCE);
        assert!(after < before, "{after} {before}");
        PeftAdapter::load(&adapter).expect("loads");
        adapters.push(std::fs::read(adapter.join("adapter_model.safetensors")).expect("a file"));
    }
    assert_ne!(adapters[0], adapters[1]);
}

#[test]
fn a_part_of_the_examples_can_be_held_out() {
    let place = Workplace::new();
    for train_on_prompt in [false, true] {
        let run = place.path(&format!("run-{train_on_prompt}"));
        let mut config = place.config(&[
            "data.eval_fraction=0.4",
            &format!("data.train_on_prompt={train_on_prompt}"),
            &format!("output.dir={run:?}"),
        ]);
        config.train.batch_size = 1;
        let witness = finish(&config);
        // The first of three, which has 18 of the 44 tokens.
        let (_, labels) = &expected_labels()[0];
        let predicted = labels
            .iter()
            .filter(|label| **label != IGNORE_INDEX)
            .count();
        assert_eq!(witness.start().data["eval_tokens"], predicted as u64);
        assert_eq!(witness.start().data["blocks"], 2);
    }
}

#[test]
fn prompts_to_learn_must_be_there() {
    let place = Workplace::new();
    let line = json!({"text": "Once upon a time"}).to_string();
    std::fs::write(place.path("texts.jsonl"), line).expect("writes");
    let config = place.config(&[
        &format!("data.train={:?}", place.path("texts.jsonl")),
        "data.train_on_prompt=true",
    ]);
    let error = Witness::default()
        .train(&config)
        .expect_err("there is no prompt");
    assert!(matches!(error, TrainError::Data(_)));
    assert_eq!(error.kind(), FailureKind::Config);
    assert!(
        error.to_string().contains("train_on_prompt has no effect"),
        "{error}"
    );
    assert!(!place.path("run").exists());
}

#[test]
fn a_run_says_how_many_examples_are_cut() {
    let place = Workplace::new();
    for (sequence_length, cut) in [(512, 0), (7, expected_labels().len() as u64)] {
        let run = place.path(&format!("run-{sequence_length}"));
        let witness = finish(&place.config(&[
            &format!("train.sequence_length={sequence_length}"),
            &format!("output.dir={run:?}"),
        ]));
        assert_eq!(witness.start().data["cut_examples"], cut);
    }
}

/// Rows and files to measure on are counted as those to train on are.
#[test]
fn rows_that_are_left_out_of_the_evaluation_are_counted_too() {
    let place = Workplace::new();
    let eval = place.path("eval");
    std::fs::create_dir(&eval).expect("a directory");
    let rows = "{\"instruction\":\"a\",\"output\":\"b\"}\nnothing\n";
    std::fs::write(eval.join("bad.jsonl"), rows).expect("writes");
    std::fs::write(eval.join("README"), "no data").expect("writes");
    let witness = finish(&place.config(&[
        "train.max_steps=1",
        "data.on_error=skip",
        &format!("data.eval={eval:?}"),
    ]));
    let data = &witness.start().data;
    assert_eq!(data["skipped"], 1);
    let row = data["skipped_rows"][0].as_str().expect("a row");
    assert!(row.contains("bad.jsonl:2"), "{row}");
    assert_eq!(
        data["left_out"][0],
        eval.join("README").display().to_string()
    );
    assert_eq!(data["format"], "alpaca");
}
