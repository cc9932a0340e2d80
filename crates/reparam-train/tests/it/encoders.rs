//! Tags, answers, masked tokens and vectors: what runs save, measure and predict.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use reparam_train::config::{Override, Precision};
use reparam_train::preflight::inspect_data;
use reparam_train::{
    DataRequest, EvalRequest, Metrics, ModelRequest, Outcome, PredictRequest, Predictions, Stop,
    TaskRun, Tasks, TrainError, TrainOptions,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::witness::Witness;
use crate::{names, offline, repository, task_of};

/// The same numbers, measured in the run and on what is read back.
const SAVED: f64 = 1e-6;

/// A task with rows that a tiny model learns.
struct Case {
    task: &'static str,
    file: &'static str,
    rows: &'static str,
    /// What PEFT saves whole beside the factors.
    saved: &'static [&'static str],
}

const CASES: [Case; 5] = [
    Case {
        task: "token-classification",
        file: "rows.conll",
        rows: "-DOCSTART- O\n\nsee O\nyou O\nat O\nhome B-LOC\n\nwin O\nfree B-ITEM\nprize I-ITEM\n\nsend O\ntext B-ITEM\nat O\nhome B-LOC\n",
        saved: &["classifier"],
    },
    Case {
        task: "question-answering",
        file: "rows.jsonl",
        rows: "{\"context\":\"see you at home tonight\",\"question\":\"at ?\",\"answers\":[\"home\"]}\n\
               {\"context\":\"win a free prize\",\"question\":\"win ?\",\"answers\":{\"text\":[\"free prize\"],\"answer_start\":[6]}}\n\
               {\"context\":\"please call me\",\"question\":\"is it ok ?\",\"answers\":[]}\n",
        saved: &["qa_outputs"],
    },
    Case {
        task: "masked-lm",
        file: "rows.txt",
        rows: "see you at home tonight. win a free prize now! please call me. see you at home tonight.",
        saved: &[],
    },
    Case {
        task: "embedding",
        file: "rows.jsonl",
        rows: "{\"text\":\"see you\",\"text_pair\":\"see you at home\",\"score\":5}\n\
               {\"text\":\"see you\",\"text_pair\":\"win a prize\",\"score\":0}\n\
               {\"text\":\"free prize\",\"text_pair\":\"win a prize\",\"score\":4}\n\
               {\"text\":\"free prize\",\"text_pair\":\"please call me\",\"score\":1}\n",
        saved: &[],
    },
    Case {
        task: "embedding",
        file: "ranked.jsonl",
        rows: "{\"anchor\":\"see you\",\"positive\":\"at home tonight\",\"negative\":\"free prize\"}\n\
               {\"anchor\":\"win\",\"positive\":\"a free prize\",\"negative\":\"home\"}\n\
               {\"anchor\":\"please call\",\"positive\":\"send text\",\"negative\":\"is it ok\"}\n",
        saved: &[],
    },
];

struct Place(TempDir);

impl Place {
    fn new(case: &Case) -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary directory"));
        std::fs::write(place.path(case.file), case.rows).expect("writes");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A run on the rows, measured on the same.
    fn config(&self, case: &Case, run: &str, overrides: &[&str]) -> TaskRun {
        let data = self.path(case.file);
        let text = format!(
            "[model]\ntask = {:?}\npath = {:?}\ndropout = 0.0\n\
             [data]\ntrain = {data:?}\neval = {data:?}\n\
             [method]\nkind = \"lora\"\nrank = 4\n[optimizer]\nlearning_rate = 2e-2\n\
             [train]\nmax_steps = 40\nbatch_size = 4\n[output]\ndir = {:?}\n",
            case.task,
            base(case),
            self.path(run),
        );
        let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
        let run = Tasks::builtin().parse(&text, "run.toml", &overrides);
        run.unwrap_or_else(|error| panic!("{}: {error}", case.task))
    }

    fn train(&self, case: &Case, run: &str, overrides: &[&str]) -> Witness {
        let mut witness = Witness::default();
        let outcome = witness.run(&self.config(case, run, overrides), false);
        let outcome = outcome.unwrap_or_else(|error| panic!("{}: {error}", case.task));
        assert_eq!(outcome, Outcome::Finished);
        witness
    }

    fn data(&self, case: &Case) -> DataRequest {
        DataRequest::new(self.path(case.file))
    }
}

/// The directory of a tiny model with what the task needs of a head that cannot be new.
fn base(case: &Case) -> PathBuf {
    match case.task {
        "masked-lm" => repository("testdata/golden/bert/masked"),
        _ => repository("testdata/golden/bert/body"),
    }
}

fn request(case: &Case) -> ModelRequest {
    ModelRequest::new(base(case).to_str().expect("UTF-8"))
}

fn eval(model: &ModelRequest, data: DataRequest) -> Result<Metrics, TrainError> {
    let request = EvalRequest::new(model.clone(), data);
    task_of(model).eval(&request, &offline(), Stop::never())
}

#[derive(Default)]
struct Printed(Vec<Value>);

impl Predictions for Printed {
    fn header(&mut self, _: &str) {}

    fn row(&mut self, object: Value, _: String) -> ControlFlow<()> {
        self.0.push(object);
        ControlFlow::Continue(())
    }

    fn note(&mut self, _: String) {}
}

fn predict(model: &ModelRequest, data: DataRequest) -> Vec<Value> {
    let request = PredictRequest::new(model.clone(), data);
    let mut printed = Printed::default();
    let predicted = task_of(model).predict(&request, &offline(), Stop::never(), &mut printed);
    predicted.unwrap_or_else(|error| panic!("{error}"));
    printed.0
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn what_is_learned_is_saved_measured_and_said() {
    for case in &CASES {
        let place = Place::new(case);
        let witness = place.train(case, "run", &[]);
        let finished = witness.finished();
        let adapter = place.path("run").join("adapter");
        let adapted = request(case).with_adapter(&adapter);
        assert_eq!(task_of(&adapted).name, case.task);
        let after = eval(&adapted, place.data(case)).expect("measures");
        let best = finished.after.expect("an evaluation");
        let primary = after.primary();
        assert!(
            (primary - best).abs() <= SAVED,
            "{}: {primary} {best}",
            case.task
        );
        // It has learned, on what it was measured on before.
        let before = finished.before.expect("an evaluation");
        // Of the measure that decides, less is better where it is a loss.
        let is_loss = after
            .values()
            .keys()
            .next()
            .is_some_and(|first| first == "loss");
        let won = if is_loss {
            before - best
        } else {
            best - before
        };
        assert!(won > 0.0, "{} {before} {best}", case.task);
        let config = read_json(&adapter.join("adapter_config.json"));
        assert_eq!(config["task_type"], task_type(case), "{}", case.task);
        let saved = match case.saved {
            [] => Value::Null,
            names => json!(names),
        };
        assert_eq!(config["modules_to_save"], saved, "{}", case.task);
        let card = read_json(&adapter.join("reparam.json"));
        assert_eq!(card["task"], case.task);
        // A whole model is the same, and says by itself what it is for.
        let full = [
            "method={ kind = \"full\" }",
            "optimizer.learning_rate=0.005",
        ];
        let witness = place.train(case, "whole", &full);
        let model = place.path("whole").join("model");
        let whole = ModelRequest::new(model.to_str().expect("UTF-8"));
        if case.task != "embedding" {
            assert_eq!(task_of(&whole).name, case.task);
            let measured = eval(&whole, place.data(case)).expect("measures").primary();
            let after = witness.finished().after.expect("an evaluation");
            assert!(
                (measured - after).abs() <= SAVED,
                "{} {measured} {after}",
                case.task
            );
        }
        assert!(names(&model).contains(&"model.safetensors".to_owned()));
    }
}

#[test]
fn packed_weights_learn_the_same() {
    for case in &CASES {
        let place = Place::new(case);
        let witness = place.train(case, "run", &["train.precision=bf16"]);
        assert_eq!(witness.start().precision, "bf16", "{}", case.task);
        let full = place.train(case, "full", &[]).finished().after;
        let finished = witness.finished();
        let adapter = place.path("run").join("adapter");
        let mut adapted = request(case).with_adapter(&adapter);
        adapted.precision = Precision::Bf16;
        let measured = eval(&adapted, place.data(case)).expect("measures");
        let (measured, best) = (measured.primary(), finished.after.expect("an evaluation"));
        assert!(
            (measured - best).abs() <= SAVED,
            "{} {measured} {best}",
            case.task
        );
        let full = full.expect("an evaluation");
        let before = finished.before.expect("an evaluation");
        let (won, wanted) = ((before - best).abs(), (before - full).abs());
        assert!(won > 0.5 * wanted, "{} {before} {best} {full}", case.task);
    }
}

/// With its own dropout on, no half of a block of BERT recomputes anything.
#[test]
fn recomputing_nothing_is_refused() {
    let case = &CASES[0];
    let place = Place::new(case);
    let packed = ["train.precision=bf16", "train.recompute=true"];
    place.train(case, "run", &packed);
    let dropping = [&packed[..], &["model.dropout=0.1"]].concat();
    let mut witness = Witness::default();
    let refused = witness.run(&place.config(case, "dropping", &dropping), false);
    let refused = refused.expect_err("nothing is computed again");
    assert!(
        matches!(refused, TrainError::NothingRecomputed),
        "{refused}"
    );
    assert!(
        refused
            .hint()
            .is_some_and(|hint| hint.contains("model.dropout = 0"))
    );
}

fn task_type(case: &Case) -> Value {
    match case.task {
        "token-classification" => "TOKEN_CLS".into(),
        "question-answering" => "QUESTION_ANS".into(),
        "embedding" => "FEATURE_EXTRACTION".into(),
        _ => Value::Null,
    }
}

#[test]
fn predictions_have_the_form_of_their_task() {
    for case in &CASES[..2] {
        let place = Place::new(case);
        place.train(case, "run", &[]);
        let model = request(case).with_adapter(place.path("run").join("adapter"));
        let said = predict(&model, place.data(case));
        match case.task {
            "token-classification" => {
                let tags: Vec<usize> = said
                    .iter()
                    .map(|row| row["tags"].as_array().expect("tags").len())
                    .collect();
                assert_eq!(tags, [4, 3, 4]);
                assert_eq!(said[1]["tags"], json!(["O", "B-ITEM", "I-ITEM"]));
            }
            _ => {
                assert_eq!(said[0]["answer"], "home");
                assert_eq!(
                    (&said[0]["start"], &said[0]["end"]),
                    (&json!(11), &json!(15))
                );
                assert_eq!(
                    (&said[2]["answer"], &said[2]["start"]),
                    (&json!(""), &Value::Null)
                );
                let score = said[0]["score"].as_f64().expect("a score");
                assert!(score > 0.5 && score <= 1.0, "{score}");
            }
        }
    }
    let place = Place::new(&CASES[3]);
    place.train(&CASES[3], "run", &[]);
    let model = request(&CASES[3]).with_adapter(place.path("run").join("adapter"));
    std::fs::write(place.path("texts.jsonl"), "{\"text\":\"see you\"}\n").expect("writes");
    let said = predict(&model, DataRequest::new(place.path("texts.jsonl")));
    assert_eq!(said[0]["embedding"].as_array().expect("numbers").len(), 16);
    let said = predict(&model, place.data(&CASES[3]));
    let alike: Vec<f64> = said
        .iter()
        .map(|row| row["similarity"].as_f64().expect("a cosine"))
        .collect();
    assert!(alike[0] > alike[1] && alike[2] > alike[3], "{alike:?}");
}

/// What a run file says of answers holds for its result, too.
#[test]
fn a_result_keeps_the_settings_of_its_run() {
    let case = &CASES[1];
    let place = Place::new(case);
    let witness = place.train(case, "run", &["data.max_answer_tokens=1"]);
    let model = request(case).with_adapter(place.path("run").join("adapter"));
    let measured = eval(&model, place.data(case)).expect("measures");
    assert_eq!(Some(measured.primary()), witness.finished().after);
    // "free prize" are two tokens.
    let said = predict(&model, place.data(case));
    assert_ne!(said[1]["answer"], "free prize");
}

#[test]
fn every_loss_of_an_embedding_is_learned() {
    for (case, loss) in [
        (&CASES[4], "triplet"),
        (&CASES[3], "cosine"),
        (&CASES[3], "cosent"),
    ] {
        let place = Place::new(case);
        let witness = place.train(case, "run", &[&format!("data.loss={loss}")]);
        let losses = witness.losses();
        assert!(losses.last() < losses.first(), "{loss}: {losses:?}");
    }
}

#[test]
fn a_run_goes_on_to_the_same_bits() {
    for case in &CASES[..3] {
        let place = Place::new(case);
        let whole = place.train(case, "whole", &["train.save_every=5"]);
        let mut witness = Witness {
            stop_at: Some(12),
            ..Witness::default()
        };
        let run = place.config(case, "parts", &["train.save_every=5"]);
        witness.run(&run, false).expect("it stops");
        let mut witness = Witness::default();
        witness.run(&run, true).expect("it goes on");
        let weights = |run: &str| {
            std::fs::read(place.path(run).join("adapter/adapter_model.safetensors"))
                .expect("a file")
        };
        assert!(weights("whole") == weights("parts"), "{}", case.task);
        assert_eq!(whole.finished().after, witness.finished().after);
    }
}

#[test]
fn what_is_wrong_with_rows_is_said_with_its_place() {
    let line = |case: &Case, rows: &str, overrides: &[&str]| {
        let place = Place::new(case);
        std::fs::write(place.path(case.file), rows).expect("writes");
        let mut witness = Witness::default();
        let error = witness.run(&place.config(case, "run", overrides), false);
        let error = error.expect_err("it is refused");
        assert!(error.hint().is_some(), "{error}");
        error.to_string()
    };
    let [tags, answers, _, alike, ranked] = &CASES;
    let many = "{\"tokens\":[\"see\",\"you\"],\"tags\":[\"O\"]}\n";
    let of_jsonl = Case {
        file: "rows.jsonl",
        ..*tags
    };
    let said = line(&of_jsonl, many, &[]);
    assert!(said.contains("rows.jsonl:1"), "{said}");
    let elsewhere = "{\"context\":\"see you\",\"question\":\"?\",\"answers\":{\"text\":[\"home\"],\"answer_start\":[0]}}\n";
    let said = line(answers, elsewhere, &[]);
    assert!(
        said.contains("rows.jsonl:1") && said.contains("home"),
        "{said}"
    );
    let said = line(alike, alike.rows, &["data.loss=contrastive"]);
    assert!(said.contains("anchor"), "{said}");
    let said = line(ranked, ranked.rows, &["data.loss=cosent"]);
    assert!(
        said.contains("ranked.jsonl:1") && said.contains("score"),
        "{said}"
    );
    let lone = "{\"anchor\":\"a\",\"positive\":\"b\",\"negative\":\"c\"}\n{\"anchor\":\"a\",\"positive\":\"b\"}\n";
    let said = line(ranked, lone, &["data.loss=triplet"]);
    assert!(
        said.contains("ranked.jsonl:2") && said.contains("negative"),
        "{said}"
    );
    let same = alike.rows.lines().next().expect("a row");
    let said = line(alike, same, &[]);
    assert!(said.contains("nothing to compare"), "{said}");
}

/// The run is measured on what it learns from, so every piece that is held out is learned, too.
#[test]
fn masked_pieces_say_where_their_text_stands() {
    let case = &CASES[2];
    let place = Place::new(case);
    let run = place.config(case, "run", &["train.sequence_length=12"]);
    let options = TrainOptions::new(offline());
    let inspected = inspect_data(&run, &options, 9, Stop::never()).expect("data");
    let seen = inspected.data;
    assert!(seen.rows > 1, "{seen:?}");
    assert_eq!(seen.held_out_duplicates.count, seen.rows);
    let path = place.path(case.file);
    let expected = format!("{}:1", path.display());
    assert_eq!(seen.examples.len() as u64, seen.rows);
    for row in &seen.examples {
        assert_eq!(row.place.as_deref(), Some(expected.as_str()));
    }
    let [file] = &seen.files[..] else {
        panic!("{:?}", seen.files);
    };
    assert_eq!((&file.file, file.rows), (&path, seen.rows));
}
