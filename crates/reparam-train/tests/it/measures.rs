//! Intervals, which label is taken for which, class weights and thresholds.

use reparam_models::architecture::Pooling;
use reparam_train::{
    Bootstrap, CONFUSION, DataRequest, EvalRequest, INTERVALS, Metrics, ModelRequest,
    PredictRequest, Stop, Tasks, TrainError,
};
use serde_json::{Value, json};

use crate::classification::{Place, Printed, json_of};
use crate::witness::Witness;
use crate::{offline, repository, with_threads};

/// Sums of the same numbers in another order.
const SUMS: f64 = 1e-5;

const BOOTSTRAP: Bootstrap = Bootstrap {
    samples: 200,
    seed: 4,
};

fn eval(request: &EvalRequest) -> Result<Metrics, TrainError> {
    let tasks = Tasks::builtin();
    let task = tasks.of_request(None, &request.model, &offline())?;
    task.eval(request, &offline(), Stop::never())
}

#[test]
fn intervals_stand_beside_the_same_metrics_whatever_the_threads() {
    let place = Place::new();
    place.train("run", &[]);
    let request = || EvalRequest::new(place.adapted("run"), place.rows());
    let plain = eval(&request()).expect("measures");
    let with = |samples: u64, seed: u64| EvalRequest {
        bootstrap: Some(Bootstrap { samples, seed }),
        ..request()
    };
    let measured = eval(&with(200, 4)).expect("measures");
    for (name, value) in plain.values() {
        assert_eq!(measured.values()[name], *value, "{name}");
    }
    let intervals = measured.values()[INTERVALS].as_object().expect("intervals");
    let names: Vec<&str> = intervals.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["loss", "accuracy", "f1_macro", "f1_micro", "matthews"]
    );
    for (name, interval) in intervals {
        let [low, high] = [0, 1].map(|end| interval[end].as_f64().expect("a number"));
        let value = plain.get(name).expect("a number");
        assert!(
            low <= value && value <= high,
            "{name}: {low} {value} {high}"
        );
    }
    let one = with_threads(1, || eval(&with(200, 4)).expect("measures"));
    assert_eq!(one.values()[INTERVALS], measured.values()[INTERVALS]);
    let other = eval(&with(200, 5)).expect("measures");
    assert_ne!(other.values()[INTERVALS], measured.values()[INTERVALS]);
}

/// Documents are drawn again; with one block a piece the loss is the same up to the order of sums.
#[test]
fn language_models_draw_documents() {
    let place = Place::new();
    let texts = [
        "Once upon a time",
        "there was a little girl",
        "The dog ran home",
        "Hi",
    ];
    let lines: Vec<String> = texts
        .iter()
        .map(|text| json!({ "text": text }).to_string())
        .collect();
    place.write("texts.jsonl", &lines.join("\n"));
    let stories = repository("assets/stories260K");
    let model = ModelRequest::new(stories.to_str().expect("UTF-8"));
    let request = EvalRequest::new(model, DataRequest::new(place.path("texts.jsonl")));
    let plain = eval(&request).expect("measures");
    let with = eval(&EvalRequest {
        bootstrap: Some(BOOTSTRAP),
        ..request
    });
    let with = with.expect("measures");
    assert!(
        (plain.primary() - with.primary()).abs() < SUMS,
        "{plain:?} {with:?}"
    );
    assert_eq!(plain.values()["tokens"], with.values()["tokens"]);
    let interval = &with.values()[INTERVALS]["loss"];
    let [low, high] = [0, 1].map(|end| interval[end].as_f64().expect("a number"));
    assert!(low < with.primary() && with.primary() < high, "{interval}");
}

#[test]
fn a_confusion_matrix_counts_every_row_once() {
    let place = Place::new();
    place.train("run", &[]);
    let metrics = eval(&EvalRequest::new(place.adapted("run"), place.rows())).expect("measures");
    let matrix = &metrics.values()[CONFUSION];
    assert_eq!(matrix["labels"], json!(["ham", "spam"]));
    let count = |row: usize, column: usize| matrix["rows"][row][column].as_u64().expect("a count");
    assert_eq!(
        (count(0, 0) + count(0, 1), count(1, 0) + count(1, 1)),
        (3, 3)
    );
    let right = (count(0, 0) + count(1, 1)) as f64 / 6.0;
    assert_eq!(metrics.get("accuracy"), Some(right));
}

/// With all rows in a step: `(w_h S_h + w_s S_s) / (w_h n_h + w_s n_s)`, of the sums `S` of the losses of three rows each.
#[test]
fn class_weights_are_those_of_torch() {
    let place = Place::new();
    let all = [
        "train.batch_size=6",
        "train.max_steps=1",
        "model.dropout=0.0",
        "train.keep=last",
    ];
    let weighted = |run: &str, weights: &str, more: &[&str]| {
        let weights = format!("data.class_weights={weights}");
        let overrides = [&all[..], &[weights.as_str()], more].concat();
        let witness = place.train(run, &overrides);
        (witness.losses()[0], witness.evaluations()[0].1)
    };
    let plain = place.train("plain", &all);
    let (loss, before) = (plain.losses()[0], plain.evaluations()[0].1);
    let (of_spam, unchanged) = weighted("spam", "{ spam = 3 }", &[]);
    let (of_ham, _) = weighted("ham", "{ ham = 3, spam = 1 }", &[]);
    assert!(
        (of_spam + of_ham - 2.0 * loss).abs() < SUMS,
        "{of_spam} {of_ham} {loss}"
    );
    assert!((of_spam - of_ham).abs() > 1e-3, "{of_spam} {of_ham}");
    // What is evaluated has no weights.
    assert_eq!(unchanged, before);
    // Weights of two for all are exact in floating point; these labels are balanced.
    assert_eq!(weighted("double", "{ spam = 2, ham = 2 }", &[]).0, loss);
    assert_eq!(weighted("balanced", "balanced", &[]).0, loss);
    // The result remembers them, and is measured as that of a run without them.
    eval(&EvalRequest::new(place.adapted("spam"), place.rows())).expect("measures");
    // A step of several batches weighs its rows as one of all of them.
    let parts = ["train.batch_size=2", "train.gradient_accumulation=3"];
    let (in_parts, _) = weighted("parts", "{ spam = 3 }", &parts);
    assert!((in_parts - of_spam).abs() < SUMS, "{in_parts} {of_spam}");
}

#[test]
fn class_weights_that_do_not_fit_are_refused() {
    let place = Place::new();
    let refused = |run: &str, overrides: &[&str]| {
        let mut witness = Witness::default();
        let error = witness.run(&place.config(run, overrides), false);
        error.expect_err("an error")
    };
    let error = refused("unknown", &["data.class_weights={ spma = 2.0 }"]);
    assert_eq!(
        error.to_string(),
        "data.class_weights has `spma`, which is no label of this model"
    );
    assert_eq!(error.hint().as_deref(), Some("did you mean `spam`?"));
    let error = refused("threshold", &["data.threshold=0.3"]);
    assert_eq!(
        error.to_string(),
        "data.threshold is for rows with any number of labels, and these labels are of rows with one label each"
    );
    several(&place);
    let data = place.path("several.jsonl").display().to_string();
    let files = [format!("data.train={data}"), format!("data.eval={data}")];
    let files = [
        files[0].as_str(),
        files[1].as_str(),
        "data.fields=text=text,labels=labels",
    ];
    let error = refused(
        "several",
        &[&files[..], &["data.class_weights=balanced"]].concat(),
    );
    assert!(
        matches!(error, TrainError::WrongLabels { several: false, .. }),
        "{error}"
    );
}

fn several(place: &Place) {
    let rows = [
        ("you have won a FREE prize", &["spam", "prize"][..]),
        ("see you at five", &[]),
        ("win a prize call now", &["spam", "prize", "call"]),
        ("please call me tonight", &["call"]),
        ("is it ok? see you at home", &[]),
        ("free text to win", &["spam"]),
    ];
    let lines = rows.map(|(text, labels)| json!({ "text": text, "labels": labels }).to_string());
    place.write("several.jsonl", &lines.join("\n"));
}

#[test]
fn thresholds_are_chosen_on_held_out_rows_and_stay_with_the_result() {
    let place = Place::new();
    several(&place);
    let data = place.path("several.jsonl");
    let text = format!(
        "[model]\ntask = \"sequence-classification\"\npath = {:?}\n[data]\ntrain = {data:?}\neval = {data:?}\n\
         threshold = \"tune\"\n[method]\nkind = \"lora\"\nrank = 4\n[optimizer]\nlearning_rate = 1e-2\n\
         [train]\nmax_steps = 6\n[output]\ndir = {:?}\n",
        repository("testdata/golden/bert/body"),
        place.path("run"),
    );
    let run = Tasks::builtin()
        .parse(&text, "run.toml", &[])
        .expect("a run file");
    Witness::default()
        .run(&run, false)
        .unwrap_or_else(|error| panic!("{error}"));
    let card = json_of(&place.path("run/adapter/reparam.json"));
    let thresholds = card["thresholds"].as_object().expect("thresholds").clone();
    let labels: Vec<&str> = thresholds.keys().map(String::as_str).collect();
    assert_eq!(labels, ["call", "prize", "spam"]);
    let threshold = |label: &str| thresholds[label].as_f64().expect("a number");

    let request = || EvalRequest::new(place.adapted("run"), DataRequest::new(data.clone()));
    let tuned = eval(&request()).expect("measures");
    for other in [0.1, 0.3, 0.5, 0.7] {
        let with = EvalRequest {
            threshold: Some(other),
            ..request()
        };
        let with = eval(&with).expect("measures");
        let f1 = |metrics: &Metrics| metrics.get("f1_macro").expect("a number");
        assert!(f1(&with) <= f1(&tuned), "{other}: {with:?} {tuned:?}");
        assert_eq!(with.primary(), tuned.primary());
    }
    let printed = place
        .predict(place.adapted("run"), DataRequest::new(data))
        .expect("predicts");
    for object in &printed.objects {
        let scores = object["scores"].as_object().expect("scores");
        let labels = scores
            .iter()
            .filter(|(label, score)| score.as_f64().expect("a score") >= threshold(label));
        let labels: Vec<&str> = labels.map(|(label, _)| label.as_str()).collect();
        assert_eq!(object["labels"], json!(labels), "{object}");
    }
}

#[test]
fn a_threshold_is_for_rows_with_any_number_of_labels() {
    let place = Place::new();
    place.train("run", &[]);
    let request = EvalRequest {
        threshold: Some(0.3),
        ..EvalRequest::new(place.adapted("run"), place.rows())
    };
    let error = eval(&request).expect_err("one label each");
    assert!(
        error.to_string().starts_with("--threshold is for rows"),
        "{error}"
    );
    // A task without labels does not look at it.
    let stories = repository("assets/stories260K");
    let model = ModelRequest::new(stories.to_str().expect("UTF-8"));
    let error = eval(&EvalRequest { model, ..request }).expect_err("no labels");
    assert_eq!(
        error.to_string(),
        "--threshold has no effect for the task causal-lm"
    );
}

#[test]
fn vectors_are_pooled_and_scaled_as_asked() {
    let place = Place::new();
    let body = repository("testdata/golden/bert/body");
    let model = ModelRequest::new(body.to_str().expect("UTF-8"));
    place.write("texts.jsonl", "{\"text\": \"see you at home\"}\n");
    let tasks = Tasks::builtin();
    let task = tasks.find("embedding").expect("a task");
    let vector = |pooling: Option<Pooling>, normalize: bool| {
        let request = PredictRequest {
            pooling,
            normalize,
            ..PredictRequest::new(model.clone(), DataRequest::new(place.path("texts.jsonl")))
        };
        let mut printed = Printed::default();
        let predicted = task.predict(&request, &offline(), Stop::never(), &mut printed);
        predicted.unwrap_or_else(|error| panic!("{error}"));
        let vector = printed.objects[0]["embedding"]
            .as_array()
            .expect("a vector")
            .clone();
        let numbers = vector
            .iter()
            .map(|number: &Value| number.as_f64().expect("a number"));
        numbers.collect::<Vec<f64>>()
    };
    let mean = vector(None, false);
    assert_eq!(vector(Some(Pooling::Mean), false), mean);
    let cls = vector(Some(Pooling::First), false);
    assert_ne!(cls, mean);
    let length = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let scaled = vector(Some(Pooling::First), true);
    assert!((length(&scaled) - 1.0).abs() < SUMS, "{scaled:?}");
    for (a, b) in scaled.iter().zip(&cls) {
        assert!((a - b / length(&cls)).abs() < SUMS, "{scaled:?} {cls:?}");
    }
}
