//! A recurrent encoder-decoder from its first step to what it writes.

use std::ops::ControlFlow;
use std::path::Path;

use reparam_train::{
    DataRequest, Decoding, EvalRequest, ModelRequest, Outcome, PredictRequest, Predictions, Stop,
    TaskRun, Tasks,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::witness::Witness;
use crate::{offline, task_of};

/// Letters, and the same from the last to the first; each row once.
fn rows(n: usize) -> Vec<Value> {
    let mut state: u64 = 9;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let mut sources: Vec<Vec<&str>> = Vec::new();
    while sources.len() < n {
        let length = 2 + draw(4);
        let letter = |_| ["a", "b", "c", "d", "e", "f", "g"][draw(7) as usize];
        let source: Vec<&str> = (0..length).map(letter).collect();
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    let row = |source: Vec<&str>| {
        let target: Vec<&str> = source.iter().rev().copied().collect();
        json!({"source": source.join(" "), "target": target.join(" ")})
    };
    sources.into_iter().map(row).collect()
}

fn write(path: &Path, rows: &[Value]) {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(path, lines).expect("writes");
}

/// The run file of a new model, with so many steps.
fn new_model(
    dir: &TempDir,
    (architecture, config): (&str, &str),
    run: &str,
    steps: u64,
) -> TaskRun {
    let text = format!(
        "[model]\ntask = \"seq2seq\"\narchitecture = \"{architecture}\"\nconfig = {{ {config} }}\n\
         tokenizer = {{ kind = \"word_level\", sentence_marks = true }}\n\
         [data]\ntrain = {:?}\neval_fraction = 0.0\n\
         [optimizer]\nlearning_rate = 1e-2\nschedule = \"cosine\"\n\
         [train]\nmax_steps = {steps}\nbatch_size = 32\nsave_every = 100\nthreads = 2\n[output]\ndir = {:?}\n",
        dir.path().join("train.jsonl"),
        dir.path().join(run),
    );
    let run = Tasks::builtin().parse(&text, "run.toml", &[]);
    run.unwrap_or_else(|error| panic!("{error}"))
}

#[derive(Default)]
struct Texts(Vec<String>);

impl Predictions for Texts {
    fn header(&mut self, _: &str) {}

    fn row(&mut self, object: Value, _: String) -> ControlFlow<()> {
        let text = object["text"].as_str().expect("a text");
        self.0.push(text.to_owned());
        ControlFlow::Continue(())
    }

    fn note(&mut self, _: String) {}
}

/// What it has never seen it turns round, greedily and with beams; a run that was stopped goes on to the same bits; and it is
/// no model of another task.
#[test]
fn letters_are_turned_round() {
    let dir = tempfile::tempdir().expect("a directory");
    let all = rows(500);
    let (held_out, train) = all.split_at(60);
    write(&dir.path().join("train.jsonl"), train);
    let test = dir.path().join("test.jsonl");
    write(&test, held_out);
    let config =
        "hidden_size = 32, encoder_hidden_size = 24, embedding_size = 16, bidirectional = true";
    let run = new_model(&dir, ("lstm", config), "run", 240);
    let mut witness = Witness::default();
    assert_eq!(witness.run(&run, false).expect("a run"), Outcome::Finished);
    let losses = witness.losses();
    assert!(
        losses[239] < 0.1 * losses[0],
        "{} {}",
        losses[0],
        losses[239]
    );

    let parts = new_model(&dir, ("lstm", config), "parts", 240);
    let mut stopping = Witness {
        stop_at: Some(130),
        ..Witness::default()
    };
    stopping.run(&parts, false).expect("it stops");
    let mut rest = Witness::default();
    rest.run(&parts, true).expect("it goes on");
    assert_eq!([stopping.losses(), rest.losses()].concat(), losses);
    let weights = |run: &str| {
        let path = dir.path().join(run).join("model/model.safetensors");
        std::fs::read(path).expect("weights")
    };
    assert!(weights("run") == weights("parts"));

    let model = ModelRequest::new(dir.path().join("run").to_str().expect("UTF-8"));
    let task = task_of(&model);
    assert_eq!(task.name, "seq2seq");
    for num_beams in [1, 4] {
        let decoding = Decoding {
            num_beams: Some(num_beams),
            ..Decoding::default()
        };
        let request = EvalRequest {
            generate: Some(decoding),
            ..EvalRequest::new(model.clone(), DataRequest::new(&test))
        };
        let metrics = task
            .eval(&request, &offline(), Stop::never())
            .expect("measures");
        let rouge = metrics.get("rouge_l").expect("it writes");
        assert!(rouge > 0.97, "{num_beams}: {rouge}");
        assert!(
            metrics.primary() < 0.2,
            "{num_beams}: {}",
            metrics.primary()
        );
        let request = PredictRequest {
            decoding,
            ..PredictRequest::new(model.clone(), DataRequest::new(&test))
        };
        let mut texts = Texts::default();
        let predicted = task.predict(&request, &offline(), Stop::never(), &mut texts);
        predicted.expect("predicts");
        let exact = texts.0.iter().zip(held_out);
        let exact = exact.filter(|(text, row)| row["target"] == ***text).count();
        assert!(exact >= 55, "{num_beams}: {exact} of {}", held_out.len());
    }

    let tasks = Tasks::builtin();
    let other = tasks.find("causal-lm").expect("a task");
    let request = EvalRequest::new(model, DataRequest::new(&test));
    let error = other
        .eval(&request, &offline(), Stop::never())
        .expect_err("it has a source");
    assert!(error.to_string().contains("encoder-decoder"), "{error}");
}

/// A low-rank method on recurrent weights and on those of attention trains on from a model that is there.
#[test]
fn adapters_train_on_from_a_recurrent_encoder_decoder() {
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir.path().join("train.jsonl"), &rows(40));
    let config = "hidden_size = 12, bidirectional = true, attention_score = \"additive\"";
    let base = new_model(&dir, ("gru", config), "base", 3);
    Witness::default().run(&base, false).expect("a run");
    let text = format!(
        "[model]\npath = {:?}\n[data]\ntrain = {:?}\neval_fraction = 0.0\n\
         [method]\nkind = \"lora\"\nrank = 2\n\
         target_modules = [\"weight_hh_l0\", \"query\", \"energy\", \"h_l0\", \"output\"]\n\
         [train]\nmax_steps = 6\n[output]\ndir = {:?}\n",
        dir.path().join("base/model"),
        dir.path().join("train.jsonl"),
        dir.path().join("run"),
    );
    let run = Tasks::builtin().parse(&text, "run.toml", &[]);
    let mut witness = Witness::default();
    witness
        .run(&run.expect("a run file"), false)
        .expect("a run");
    let targets = &witness.start().targets;
    for module in [
        "model.encoder.rnn.weight_hh_l0",
        "model.decoder.rnn.weight_hh_l0",
        "model.decoder.bridge.h_l0",
        "model.decoder.attention.energy",
    ] {
        assert!(targets.iter().any(|target| target == module), "{targets:?}");
    }
    let model = ModelRequest::new(dir.path().join("run").to_str().expect("UTF-8"));
    let data = DataRequest::new(dir.path().join("train.jsonl"));
    let task = task_of(&model);
    let adapted = task
        .eval(
            &EvalRequest::new(model, data.clone()),
            &offline(),
            Stop::never(),
        )
        .expect("measures");
    let base = ModelRequest::new(dir.path().join("base").to_str().expect("UTF-8"));
    let base = task
        .eval(&EvalRequest::new(base, data), &offline(), Stop::never())
        .expect("measures");
    assert!(adapted.primary() < base.primary());
}
