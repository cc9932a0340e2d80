//! Telling rows of text apart: what a run saves, measures and predicts.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use reparam_data::rows::OnError;
use reparam_train::config::Override;
use reparam_train::{
    DataRequest, EvalRequest, Metrics, ModelRequest, Outcome, PredictRequest, Predictions, Stop,
    TaskRun, Tasks, TrainError,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::witness::Witness;
use crate::{names, offline, repository};

/// The same numbers, measured in the run and on what is read back.
const SAVED: f64 = 1e-6;

const ROWS: &str = "Kind\tBody\n\
    spam\tyou have won a FREE prize!\n\
    ham\tsee you at five\n\
    spam\twin a prize call now\n\
    ham\tplease call me tonight\n\
    ham\tis it ok? see you at home\n\
    spam\tfree prize send text to win\n";

const FIELDS: &str = "text=Body,label=Kind";

pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary directory"));
        place.write("rows.tsv", ROWS);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("writes");
    }

    /// A run on the rows, measured on the same.
    pub(crate) fn config(&self, run: &str, overrides: &[&str]) -> TaskRun {
        let data = self.path("rows.tsv");
        let text = format!(
            "[model]\ntask = \"sequence-classification\"\npath = {:?}\n\
             [data]\ntrain = {data:?}\neval = {data:?}\nfields = {FIELDS:?}\n\
             [method]\nkind = \"lora\"\nrank = 4\n[optimizer]\nlearning_rate = 1e-2\n\
             [train]\nmax_steps = 12\nbatch_size = 4\n[output]\ndir = {:?}\n",
            repository("testdata/golden/bert/body"),
            self.path(run),
        );
        let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
        let tasks = Tasks::builtin();
        tasks
            .parse(&text, "run.toml", &overrides)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn train(&self, run: &str, overrides: &[&str]) -> Witness {
        let mut witness = Witness::default();
        let outcome = witness.run(&self.config(run, overrides), false);
        assert_eq!(
            outcome.unwrap_or_else(|error| panic!("{error}")),
            Outcome::Finished
        );
        witness
    }

    /// The base, with the adapter of a run.
    pub(crate) fn adapted(&self, run: &str) -> ModelRequest {
        ModelRequest::new(text_of(&repository("testdata/golden/bert/body")))
            .with_adapter(self.path(run).join("adapter"))
    }

    pub(crate) fn model(&self, run: &str) -> ModelRequest {
        ModelRequest::new(text_of(&self.path(run).join("model")))
    }

    pub(crate) fn eval(
        &self,
        model: ModelRequest,
        data: DataRequest,
    ) -> Result<Metrics, TrainError> {
        let tasks = Tasks::builtin();
        let task = tasks.of_request(None, &model, &offline())?;
        assert_eq!(task.name, "sequence-classification");
        let request = EvalRequest::new(model, data);
        task.eval(&request, &offline(), Stop::never())
    }

    pub(crate) fn predict(
        &self,
        model: ModelRequest,
        data: DataRequest,
    ) -> Result<Printed, TrainError> {
        let tasks = Tasks::builtin();
        let task = tasks.of_request(None, &model, &offline())?;
        let request = PredictRequest::new(model, data);
        let mut printed = Printed::default();
        task.predict(&request, &offline(), Stop::never(), &mut printed)?;
        Ok(printed)
    }

    pub(crate) fn rows(&self) -> DataRequest {
        DataRequest::new(self.path("rows.tsv"))
    }
}

fn text_of(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[derive(Debug, Default)]
pub(crate) struct Printed {
    header: String,
    pub(crate) objects: Vec<Value>,
    lines: Vec<String>,
    notes: Vec<String>,
}

impl Predictions for Printed {
    fn header(&mut self, text: &str) {
        self.header = text.to_owned();
    }

    fn row(&mut self, object: Value, text: String) -> ControlFlow<()> {
        self.objects.push(object);
        self.lines.push(text);
        ControlFlow::Continue(())
    }

    fn note(&mut self, text: String) {
        self.notes.push(text);
    }
}

pub(crate) fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

#[test]
fn an_adapter_brings_its_head_and_what_peft_has_no_place_for() {
    let place = Place::new();
    let witness = place.train("run", &[]);
    let (before, after) = (witness.finished().before, witness.finished().after);
    assert!(
        after.expect("measured") < before.expect("measured"),
        "{before:?} {after:?}"
    );
    let start = witness.start();
    assert_eq!(start.task, "sequence-classification");
    assert_eq!(start.data["labels"], json!(["ham", "spam"]));

    let adapter = place.path("run").join("adapter");
    let files = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "reparam.json",
    ];
    assert_eq!(names(&adapter), files);
    let config = json_of(&adapter.join("adapter_config.json"));
    assert_eq!(config["task_type"], "SEQ_CLS");
    assert_eq!(config["modules_to_save"], json!(["classifier"]));
    // The head is no target: it is trained as a whole.
    let targets = config["target_modules"].as_array().expect("names");
    assert!(!targets.contains(&json!("classifier")), "{targets:?}");
    let card = json!({
        "task": "sequence-classification",
        "labels": ["ham", "spam"],
        "problem_type": "single_label_classification",
        "sequence_length": 24,
        "fields": {"label": "Kind", "text": "Body"},
    });
    assert_eq!(json_of(&adapter.join("reparam.json")), card);

    // Fields are those of the run.
    let metrics = place
        .eval(place.adapted("run"), place.rows())
        .expect("measures");
    let difference = (metrics.primary() - after.expect("measured")).abs();
    assert!(difference < SAVED, "{difference:e}");
    let keys: Vec<&str> = metrics.values().keys().map(String::as_str).collect();
    let expected = [
        "loss",
        "accuracy",
        "f1_macro",
        "f1_micro",
        "matthews",
        "examples",
        "truncated",
        "confusion",
    ];
    assert_eq!(keys, expected);
    assert_eq!(
        (metrics.get("examples"), metrics.get("truncated")),
        (Some(6.0), Some(0.0))
    );

    let printed = place
        .predict(place.adapted("run"), place.rows())
        .expect("predicts");
    assert_eq!(printed.objects.len(), 6);
    assert_eq!(printed.header, "row,label,score");
    let mut right = 0;
    for (index, (object, label)) in printed
        .objects
        .iter()
        .zip(["spam", "ham", "spam", "ham", "ham", "spam"])
        .enumerate()
    {
        let score = |name: &str| object["scores"][name].as_f64().expect("a score");
        assert!(
            (score("ham") + score("spam") - 1.0).abs() < 1e-12,
            "{object}"
        );
        let best = if score("ham") >= score("spam") {
            "ham"
        } else {
            "spam"
        };
        assert_eq!(object["label"], best);
        right += usize::from(object["label"] == label);
        assert_eq!(
            printed.lines[index],
            format!("{index},{best},{:.6}", score(best))
        );
    }
    assert_eq!(metrics.get("accuracy"), Some(right as f64 / 6.0));
}

#[test]
fn a_method_of_weights_saves_a_model_with_its_labels() {
    let place = Place::new();
    let mut witness = Witness::default();
    let data = place.path("rows.tsv");
    let text = format!(
        "[model]\ntask = \"sequence-classification\"\npath = {:?}\n\
         [data]\ntrain = {data:?}\neval = {data:?}\nfields = {FIELDS:?}\n\
         [method]\nkind = \"identity\"\n[optimizer]\nlearning_rate = 1e-3\n\
         [train]\nmax_steps = 4\n[output]\ndir = {:?}\n",
        repository("testdata/golden/bert/body"),
        place.path("whole"),
    );
    let run = Tasks::builtin()
        .parse(&text, "run.toml", &[])
        .expect("a run file");
    witness
        .run(&run, false)
        .unwrap_or_else(|error| panic!("{error}"));
    let model = place.path("whole").join("model");
    let config = json_of(&model.join("config.json"));
    assert_eq!(
        config["architectures"],
        json!(["BertForSequenceClassification"])
    );
    assert_eq!(config["id2label"], json!({"0": "ham", "1": "spam"}));
    assert_eq!(config["label2id"], json!({"ham": 0, "spam": 1}));
    let metrics = place
        .eval(place.model("whole"), place.rows())
        .expect("measures");
    let after = witness.finished().after.expect("measured");
    assert!(
        (metrics.primary() - after).abs() < SAVED,
        "{metrics:?} {after}"
    );
}

#[test]
fn a_run_goes_on_to_the_same_bits_with_the_dropouts_of_the_base() {
    let place = Place::new();
    let overrides = [
        "train.gradient_accumulation=2",
        "train.batch_size=2",
        "method.dropout=0.1",
    ];
    let whole = place.train("whole", &overrides);
    let mut first = Witness {
        stop_at: Some(5),
        ..Witness::default()
    };
    let config = place.config("broken", &overrides);
    assert_eq!(
        first.run(&config, false).expect("stops"),
        Outcome::Interrupted { step: 5 }
    );
    let mut second = Witness::default();
    assert_eq!(
        second.run(&config, true).expect("goes on"),
        Outcome::Finished
    );
    let bytes = |run: &str| {
        let file = place.path(run).join("adapter/adapter_model.safetensors");
        std::fs::read(file).expect("an adapter")
    };
    assert!(bytes("whole") == bytes("broken"));
    let losses: Vec<f64> = first.losses().into_iter().chain(second.losses()).collect();
    assert_eq!(losses, whole.losses());
}

#[test]
fn the_dropouts_of_the_base_are_on_unless_they_are_turned_off() {
    let place = Place::new();
    // One batch of all rows, so that the first loss is that of the evaluation before it.
    let all = ["train.batch_size=6", "train.max_steps=1"];
    let first = |run: &str, more: &[&str]| {
        let overrides: Vec<&str> = all.iter().chain(more).copied().collect();
        let witness = place.train(run, &overrides);
        (
            witness.losses()[0],
            witness.finished().before.expect("measured"),
        )
    };
    let (loss, before) = first("off", &["model.dropout=0"]);
    assert!((loss - before).abs() < SAVED, "{loss} {before}");
    let (loss, before) = first("on", &[]);
    assert!((loss - before).abs() > 1e-4, "{loss} {before}");
}

#[test]
fn several_labels_have_probabilities_of_their_own() {
    let place = Place::new();
    place.write(
        "several.jsonl",
        "{\"text\":\"free prize\",\"labels\":[\"money\",\"fun\"]}\n{\"text\":\"call me\",\"labels\":[]}\n\
         {\"text\":\"see you\",\"labels\":[\"fun\"]}\n",
    );
    let data = text_of(&place.path("several.jsonl"));
    let (train, eval) = (format!("data.train={data}"), format!("data.eval={data}"));
    place.train("run", &[&train, &eval, "data.fields=text=text"]);
    let rows = || DataRequest::new(place.path("several.jsonl"));
    let metrics = place.eval(place.adapted("run"), rows()).expect("measures");
    assert!(metrics.get("matthews").is_none() && metrics.get("f1_macro").is_some());
    let printed = place
        .predict(place.adapted("run"), rows())
        .expect("predicts");
    for object in &printed.objects {
        let scores = object["scores"].as_object().expect("scores");
        let likely: Vec<&String> = scores
            .iter()
            .filter_map(|(name, score)| (score.as_f64()? >= 0.5).then_some(name))
            .collect();
        assert_eq!(object["labels"], json!(likely));
        assert_eq!(scores.keys().collect::<Vec<_>>(), ["fun", "money"]);
    }
    place.write("bad.jsonl", "nothing\n{\"text\":\"free prize\"}\n");
    let bad = DataRequest {
        on_error: OnError::Skip,
        ..DataRequest::new(place.path("bad.jsonl"))
    };
    let printed = place.predict(place.adapted("run"), bad).expect("predicts");
    assert_eq!(
        (printed.header.as_str(), printed.lines[0].as_str()),
        ("row,labels", "0,")
    );
}

#[test]
fn rows_that_cannot_be_read_stop_or_keep_their_place() {
    let place = Place::new();
    place.train("run", &["train.max_steps=1"]);
    place.write(
        "bad.jsonl",
        "{\"Body\":\"see you\",\"Kind\":\"ham\"}\nnothing\n{\"Body\":\"win\",\"Kind\":\"eggs\"}\n",
    );
    let rows = |on_error| DataRequest {
        on_error,
        ..DataRequest::new(place.path("bad.jsonl"))
    };
    let error = place
        .predict(place.adapted("run"), rows(OnError::Stop))
        .expect_err("an error");
    assert!(
        error.to_string().contains("bad.jsonl:2:2: invalid JSON"),
        "{error}"
    );
    let printed = place
        .predict(place.adapted("run"), rows(OnError::Skip))
        .expect("predicts");
    assert_eq!(printed.objects.len(), 3);
    assert_eq!(printed.objects[1]["row"], 1);
    assert!(
        printed.objects[1]["error"]
            .as_str()
            .expect("a text")
            .contains("invalid JSON")
    );
    assert!(printed.objects[2]["label"].is_string());
    assert_eq!(printed.lines[1], "1,,");
    assert_eq!(printed.notes, ["1 of 3 rows could not be read"]);

    let error = place
        .eval(place.adapted("run"), rows(OnError::Stop))
        .expect_err("an error");
    assert!(error.to_string().contains("invalid JSON"), "{error}");
    let metrics = place
        .eval(place.adapted("run"), rows(OnError::Skip))
        .expect("measures");
    assert_eq!(
        (metrics.get("examples"), metrics.get("skipped")),
        (Some(1.0), Some(2.0))
    );
    place.write("eggs.tsv", "Kind\tBody\neggs\twin\n");
    let error = place.eval(
        place.adapted("run"),
        DataRequest::new(place.path("eggs.tsv")),
    );
    let error = error.expect_err("an error");
    assert!(
        error
            .to_string()
            .contains("no label `eggs`, its labels are `ham`, `spam`"),
        "{error}"
    );
    assert!(error.hint().is_some());
}

/// Rows and files to measure on are counted as those to train on are.
#[test]
fn rows_that_are_left_out_of_the_evaluation_are_counted_too() {
    let place = Place::new();
    std::fs::create_dir(place.path("eval")).expect("a directory");
    place.write("eval/README", "no data");
    place.write(
        "eval/bad.jsonl",
        "{\"Body\":\"see you\",\"Kind\":\"ham\"}\nnothing\n{\"Body\":\"win\",\"Kind\":\"eggs\"}\n",
    );
    let witness = place.train(
        "run",
        &[
            "train.max_steps=1",
            "data.on_error=skip",
            &format!("data.eval={}", text_of(&place.path("eval"))),
        ],
    );
    let data = &witness.start().data;
    assert_eq!(
        (&data["eval_rows"], &data["skipped"]),
        (&json!(1), &json!(2))
    );
    let rows = data["skipped_rows"].as_array().expect("rows");
    assert!(
        rows.iter()
            .all(|row| row.to_string().contains("bad.jsonl:"))
    );
    assert_eq!(rows.len(), 2);
    assert_eq!(data["left_out"], json!([place.path("eval/README")]));
}

/// A format and its fields belong together: one that is asked for takes the place of both.
#[test]
fn what_a_run_remembers_is_taken_whole_or_not_at_all() {
    let place = Place::new();
    place.train("run", &["train.max_steps=1"]);
    place.write("other.jsonl", "{\"text\":\"see you\",\"label\":\"ham\"}\n");
    let other = || DataRequest::new(place.path("other.jsonl"));
    let error = place.eval(place.adapted("run"), other());
    let hint = error.expect_err("other fields").hint().expect("a hint");
    let options = "say otherwise with --format or --fields";
    assert!(hint.ends_with(options), "{hint}");
    let asked = DataRequest {
        format: Some("jsonl".to_owned()),
        ..other()
    };
    place.eval(place.adapted("run"), asked).expect("measures");
}

#[test]
fn what_has_no_effect_is_refused() {
    let parse = |line: &str| {
        let text = "[model]\npath = \"m\"\ntask = \"sequence-classification\"\n[data]\ntrain = \"a\"\n\
                    [train]\nmax_steps = 1\n[output]\ndir = \"o\"\n";
        let overrides = [Override::set(line)];
        let parsed = Tasks::builtin().parse(text, "run.toml", &overrides);
        parsed
            .map(|run| run.task())
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        parse("data.fields=text=a,label=b").expect("a run file"),
        "sequence-classification"
    );
    for (line, message) in [
        ("data.fields=text", "fields"),
        ("data.format=orc", "format"),
        ("data.packing=none", "packing"),
        ("train.sample_prompt=hello", "generates no text"),
        ("train.recompute=true", "f32"),
        ("model.dropout=1.0", "dropout"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.contains(message), "{line}: {error}");
    }
    let place = Place::new();
    let config = TaskRun::task(&place.config("run", &[]));
    assert_eq!(config, "sequence-classification");
    // A model without a head cannot be asked.
    let body = ModelRequest::new(text_of(&repository("testdata/golden/bert/body")));
    let tasks = Tasks::builtin();
    let task = tasks.find("sequence-classification").expect("a task");
    let request = EvalRequest::new(body, place.rows());
    let error = task
        .eval(&request, &offline(), Stop::never())
        .expect_err("an error");
    assert!(
        error
            .to_string()
            .contains("the checkpoint has no head for this task (`classifier`)"),
        "{error}"
    );
}

#[test]
fn a_card_that_does_not_fit_is_an_error() {
    let place = Place::new();
    place.train("run", &["train.max_steps=1"]);
    let path = place.path("run").join("adapter/reparam.json");
    let card = std::fs::read_to_string(&path).expect("a card");
    let with = |key: &str, value: Value| {
        let mut card: Value = serde_json::from_str(&card).expect("JSON");
        card[key] = value;
        std::fs::write(&path, card.to_string()).expect("writes");
        let found = place.eval(place.adapted("run"), place.rows());
        found.expect_err("it does not fit")
    };
    let error = with("labels", json!(["ham", "spam", "eggs"]));
    assert!(
        matches!(
            error,
            TrainError::LabelCount {
                n_labels: 3,
                n_classes: 2,
                ..
            }
        ),
        "{error}"
    );
    let error = with("task", json!("telepathy"));
    assert!(
        matches!(&error, TrainError::UnknownTask { task, .. } if task == "telepathy"),
        "{error}"
    );
    assert!(error.hint().is_some());

    // The same of a whole model.
    let golden = repository("testdata/golden/bert/classifier");
    let copy = place.path("classifier");
    std::fs::create_dir(&copy).expect("a directory");
    for name in names(&golden) {
        std::fs::copy(golden.join(&name), copy.join(&name)).expect("a copy");
    }
    let mut config = json_of(&copy.join("config.json"));
    config["id2label"] = json!({"0": "ham", "1": "spam"});
    place.write("classifier/config.json", &config.to_string());
    let error = place.eval(ModelRequest::new(text_of(&copy)), place.rows());
    let error = error.expect_err("three classes");
    assert!(
        error
            .to_string()
            .contains("config.json has 2 labels for a head of 3 classes"),
        "{error}"
    );
}

#[test]
fn a_task_that_nothing_says_is_named_in_errors() {
    let place = Place::new();
    let data = place.path("rows.tsv");
    // Its `architectures` is that of a body alone.
    let body = repository("testdata/golden/bert/body");
    let text = |more: &str| {
        format!(
            "[model]\npath = {body:?}\n[data]\ntrain = {data:?}\n{more}\n[train]\nmax_steps = 1\n\
             [output]\ndir = {:?}\n",
            place.path("run"),
        )
    };
    let advice = "set `task` in [model] to one of causal-lm, ";
    let parse = |text: &str| Tasks::builtin().parse(text, "run.toml", &[]);
    let error = parse(&text("fields = \"text=Body,label=Kind\"")).expect_err("of another task");
    let hint = error.hint().expect("a hint");
    assert!(hint.contains(advice), "{hint}");
    // Where it is said, a slip of the pen is only that.
    let said = text("feilds = \"text=Body\"").replace("[model]", "[model]\ntask = \"causal-lm\"");
    let hint = parse(&said).expect_err("a slip").hint().expect("a hint");
    assert!(!hint.contains("task"), "{hint}");

    let run = parse(&text("format = \"text\"")).expect("a run file");
    let error = Witness::default().run(&run, false);
    let error = error.expect_err("an encoder");
    assert!(
        matches!(error, TrainError::ModelOfAnotherKind { .. }),
        "{error}"
    );
    let hint = error.hint().expect("a hint");
    assert!(hint.contains(advice), "{hint}");
}
