//! Telling rows apart by solved examples, with models that have no head for their labels.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reparam_data::rows::OnError;
use reparam_train::{
    Bootstrap, DataRequest, EvalRequest, ExamplesError, ExamplesRequest, Metrics, ModelRequest,
    PredictRequest, Stop, Tasks, TrainError,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::classification::Printed;
use crate::{offline, repository};

/// Numbers of an f32 model, put together in f64 here and there.
const SAME: f64 = 1e-6;

const CLASSIFY: &str = "sequence-classification";
const CAUSAL: &str = "assets/stories260K";
const ENCODER: &str = "testdata/golden/bert/body";

const EXAMPLES: &str = "text,label\n\
    you have won a FREE prize!,spam\n\
    see you at five,ham\n\
    win a prize call now,spam\n\
    please call me tonight,ham\n\
    is it ok? see you at home,ham\n\
    free prize send text to win,spam\n";

const ROWS: &str = "text,label\n\
    call now and win,spam\n\
    are you at home?,ham\n\
    a free call,spam\n\
    good night,ham\n";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary directory"));
        place.write("examples.csv", EXAMPLES);
        place.write("rows.csv", ROWS);
        place
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path
    }

    fn data(&self, name: &str) -> DataRequest {
        DataRequest::new(self.0.path().join(name))
    }

    /// The examples, so many of them.
    fn asked(&self, shots: Option<usize>) -> ExamplesRequest {
        ExamplesRequest {
            path: Some(self.0.path().join("examples.csv")),
            shots,
            ..ExamplesRequest::default()
        }
    }

    fn eval(&self, model: &str, asked: ExamplesRequest) -> Result<Metrics, TrainError> {
        eval(&EvalRequest {
            examples: Some(asked),
            ..EvalRequest::new(at(model), self.data("rows.csv"))
        })
    }

    fn predict(&self, model: &str, asked: ExamplesRequest, rows: &str) -> Vec<Value> {
        let request = PredictRequest {
            examples: Some(asked),
            ..PredictRequest::new(at(model), self.data(rows))
        };
        predict(CLASSIFY, &request).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn at(model: &str) -> ModelRequest {
    ModelRequest::new(repository(model).to_str().expect("UTF-8"))
}

fn eval(request: &EvalRequest) -> Result<Metrics, TrainError> {
    let tasks = Tasks::builtin();
    let task = tasks.find(CLASSIFY).expect("a task");
    task.eval(request, &offline(), Stop::never())
}

fn predict(task: &str, request: &PredictRequest) -> Result<Vec<Value>, TrainError> {
    let tasks = Tasks::builtin();
    let task = tasks.find(task).expect("a task");
    let mut printed = Printed::default();
    task.predict(request, &offline(), Stop::never(), &mut printed)?;
    Ok(printed.objects)
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|x| (x - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|x| x / sum).collect()
}

/// Labels that are shown no examples: the metrics are those of lm-evaluation-harness, and predictions the softmax of its
/// log-likelihoods.
#[test]
fn a_language_model_without_examples_is_as_in_the_harness() {
    let place = Place::new();
    let golden = std::fs::read_to_string(repository("testdata/golden/shots.json"));
    let golden: Value = serde_json::from_str(&golden.expect("a file")).expect("JSON");
    let case = &golden["cases"][1];
    assert_eq!(case["shots"], 0);
    let mut rows = String::new();
    for row in golden["texts"].as_array().expect("rows") {
        let name = ["0sad", "1happy"][row[1].as_u64().expect("a class") as usize];
        rows += &format!("{}\n", json!({ "text": row[0], "label": name }));
    }
    place.write("golden.jsonl", &rows);
    let asked = ExamplesRequest {
        shots: Some(0),
        words: BTreeMap::from([
            ("0sad".to_owned(), "sad".to_owned()),
            ("1happy".to_owned(), "happy and glad".to_owned()),
        ]),
        ..ExamplesRequest::default()
    };
    let data = DataRequest {
        template: Some("{text}\nIt is {label}".parse().expect("a template")),
        ..place.data("golden.jsonl")
    };
    let request = EvalRequest {
        examples: Some(asked.clone()),
        bootstrap: Some(Bootstrap {
            samples: 20,
            seed: 0,
        }),
        ..EvalRequest::new(at(CAUSAL), data.clone())
    };
    let metrics = eval(&request).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(metrics.get("accuracy"), case["accuracy"].as_f64());
    assert_eq!(metrics.get("accuracy_norm"), case["accuracy_norm"].as_f64());
    assert_eq!(metrics.get("truncated"), Some(0.0));
    assert!(metrics.values()["intervals"]["accuracy_norm"].is_array());
    assert!(metrics.values()["intervals"].get("shots").is_none());
    let request = PredictRequest {
        examples: Some(asked),
        ..PredictRequest::new(at(CAUSAL), data)
    };
    let predicted = predict(CLASSIFY, &request).expect("predictions");
    let mut loss = 0.0;
    for ((object, expected), row) in predicted
        .iter()
        .zip(case["rows"].as_array().expect("rows"))
        .zip(golden["texts"].as_array().expect("rows"))
    {
        let labels = expected["labels"].as_array().expect("labels").iter();
        let sums: Vec<f64> = labels
            .map(|label| label["log_likelihood"].as_f64().expect("a number"))
            .collect();
        let scores = softmax(&sums);
        for (name, score) in ["0sad", "1happy"].iter().zip(&scores) {
            let found = object["scores"][*name].as_f64().expect("a score");
            assert!((found - score).abs() < 1e-4, "{found} {score}");
        }
        loss -= scores[row[1].as_u64().expect("a class") as usize].ln() / 4.0;
    }
    let measured = metrics.get("loss").expect("a loss");
    assert!((measured - loss).abs() < 1e-4, "{measured} {loss}");
}

/// A tokenizer that ends every text does not end a prompt before its label.
#[test]
fn an_end_that_a_template_appends_is_not_read() {
    let place = Place::new();
    let model = place.0.path().join("model");
    std::fs::create_dir(&model).expect("a directory");
    for file in std::fs::read_dir(repository(CAUSAL)).expect("files") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), model.join(file.file_name())).expect("copies");
    }
    let tokenizer = model.join("tokenizer.json");
    let text = std::fs::read_to_string(&tokenizer).expect("a file");
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    let template = &mut json["post_processor"];
    let end = json!({ "SpecialToken": { "id": "</s>", "type_id": 0 } });
    template["single"].as_array_mut().expect("a list").push(end);
    template["special_tokens"]["</s>"] = json!({ "id": "</s>", "ids": [2], "tokens": ["</s>"] });
    std::fs::write(&tokenizer, json.to_string()).expect("writes");
    let model = model.to_str().expect("UTF-8");
    let plain = place.predict(CAUSAL, place.asked(Some(2)), "rows.csv");
    assert_eq!(
        place.predict(model, place.asked(Some(2)), "rows.csv"),
        plain
    );
}

/// The draw follows from the seed and what the examples say, not from the order of their file.
#[test]
fn examples_are_drawn_by_the_seed() {
    let place = Place::new();
    let drawn = |seed: u64| {
        let asked = ExamplesRequest {
            seed,
            ..place.asked(Some(2))
        };
        place.predict(CAUSAL, asked, "rows.csv")
    };
    let first = drawn(0);
    assert_eq!(first, drawn(0));
    assert!((1..5).any(|seed| drawn(seed) != first));
    let mut lines: Vec<&str> = EXAMPLES.lines().collect();
    lines[1..].reverse();
    place.write("examples.csv", &(lines.join("\n") + "\n"));
    assert_eq!(first, drawn(0));

    let metrics = place.eval(CAUSAL, place.asked(Some(2))).expect("metrics");
    let count = |key: &str| metrics.get(key);
    assert_eq!(
        (count("shots"), count("seed"), count("examples")),
        (Some(2.0), Some(0.0), Some(4.0))
    );
    let confusion = &metrics.values()["confusion"]["rows"];
    let sum: u64 = [0, 1]
        .iter()
        .flat_map(|row| [0, 1].map(|column| confusion[row][column].as_u64().expect("a count")))
        .sum();
    assert_eq!(sum, 4);
    // With a file of its own rows there is one example fewer.
    let same = PredictRequest {
        examples: Some(place.asked(Some(6))),
        ..PredictRequest::new(at(CAUSAL), place.data("examples.csv"))
    };
    let error = predict(CLASSIFY, &same).expect_err("five beside each");
    assert!(matches!(
        error,
        TrainError::Examples(ExamplesError::TooFewBeside {
            wanted: 6,
            found: 5,
            ..
        })
    ));
}

/// A row that no prompt can be made of is skipped where others are that cannot be read.
#[test]
fn rows_without_a_prompt_are_skipped() {
    let place = Place::new();
    // The second row is one of six examples, beside which are five.
    place.write(
        "rows.csv",
        "text,label\nhello there,ham\nsee you at five,ham\n",
    );
    let skipping = |name: &str| DataRequest {
        on_error: OnError::Skip,
        ..place.data(name)
    };
    let asked = Some(place.asked(Some(6)));
    let request = EvalRequest {
        examples: asked.clone(),
        ..EvalRequest::new(at(CAUSAL), skipping("rows.csv"))
    };
    let metrics = eval(&request).expect("metrics");
    assert_eq!(
        (metrics.get("examples"), metrics.get("skipped")),
        (Some(1.0), Some(1.0))
    );
    let request = PredictRequest {
        examples: asked,
        ..PredictRequest::new(at(CAUSAL), skipping("rows.csv"))
    };
    let found = predict(CLASSIFY, &request).expect("a line a row");
    assert!(found[0].get("label").is_some());
    let error = found[1]["error"].as_str().expect("what is wrong");
    assert!(error.contains("rows.csv:3"), "{error}");
}

/// An embedding is of one text; where every row is a pair, that is said.
#[test]
fn pairs_are_skipped_by_prototypes() {
    let place = Place::new();
    let pair = "{\"text\":\"see you\",\"text_pair\":\"at five\",\"label\":\"ham\"}\n";
    let alone = "{\"text\":\"hello there\",\"label\":\"ham\"}\n";
    place.write("rows.jsonl", &format!("{alone}{pair}"));
    place.write("pairs.jsonl", pair);
    let request = |rows: &str| EvalRequest {
        examples: Some(place.asked(None)),
        ..EvalRequest::new(
            at(ENCODER),
            DataRequest {
                on_error: OnError::Skip,
                ..place.data(rows)
            },
        )
    };
    let metrics = eval(&request("rows.jsonl")).expect("metrics");
    assert_eq!(
        (metrics.get("examples"), metrics.get("skipped")),
        (Some(1.0), Some(1.0))
    );
    let error = eval(&request("pairs.jsonl")).expect_err("no row is left");
    let said = error.to_string();
    assert!(
        said.contains("pairs.jsonl:1") && said.contains("text_pair"),
        "{said}"
    );
}

/// A prompt that is too long loses its beginning, and the rows of which that is so are counted.
#[test]
fn long_prompts_are_cut() {
    let place = Place::new();
    let request = EvalRequest {
        examples: Some(place.asked(Some(4))),
        sequence_length: Some(24),
        ..EvalRequest::new(at(CAUSAL), place.data("rows.csv"))
    };
    let metrics = eval(&request).expect("metrics");
    assert_eq!(metrics.get("truncated"), Some(4.0));
}

/// The vectors of the task for embeddings, their means and cosines, computed here.
#[test]
fn prototypes_are_means_of_vectors_of_length_one() {
    let place = Place::new();
    let vectors = |rows: &str| -> Vec<Vec<f64>> {
        let request = PredictRequest {
            normalize: true,
            ..PredictRequest::new(at(ENCODER), place.data(rows))
        };
        let objects = predict("embedding", &request).expect("vectors");
        let vector = |object: &Value| {
            let list = object["embedding"].as_array().expect("a list").iter();
            list.map(|x| x.as_f64().expect("a number")).collect()
        };
        objects.iter().map(vector).collect()
    };
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
    let (examples, rows) = (vectors("examples.csv"), vectors("rows.csv"));
    let labels = ["spam", "ham", "spam", "ham", "ham", "spam"];
    let mean = |label: &str| -> Vec<f64> {
        let own = examples.iter().zip(labels).filter(|(_, own)| *own == label);
        let own: Vec<&Vec<f64>> = own.map(|(vector, _)| vector).collect();
        let column = |place: usize| own.iter().map(|v| v[place]).sum::<f64>() / own.len() as f64;
        (0..examples[0].len()).map(column).collect()
    };
    let means = ["ham", "spam"].map(mean);
    let found = place.predict(ENCODER, place.asked(None), "rows.csv");
    // Three of each are all.
    assert_eq!(
        found,
        place.predict(ENCODER, place.asked(Some(3)), "rows.csv")
    );
    let mut right = 0;
    for ((object, row), line) in found.iter().zip(&rows).zip(ROWS.lines().skip(1)) {
        let cosines = means
            .each_ref()
            .map(|mean| dot(mean, row) / dot(mean, mean).sqrt() / dot(row, row).sqrt());
        let scores = softmax(&cosines.map(|cosine| cosine / 0.05));
        for (name, score) in ["ham", "spam"].iter().zip(&scores) {
            let found = object["scores"][*name].as_f64().expect("a score");
            assert!((found - score).abs() < SAME / 0.05, "{found} {score}");
        }
        let label = ["ham", "spam"][usize::from(cosines[1] > cosines[0])];
        assert_eq!(object["label"], label);
        right += usize::from(line.ends_with(&format!(",{label}")));
    }
    let metrics = place.eval(ENCODER, place.asked(None)).expect("metrics");
    assert_eq!(metrics.get("accuracy"), Some(right as f64 / 4.0));
    for key in [
        "loss",
        "f1_macro",
        "f1_micro",
        "matthews",
        "examples",
        "truncated",
        "confusion",
    ] {
        assert!(metrics.values().contains_key(key), "{key}");
    }
    assert_eq!(metrics.get("accuracy_norm"), None);
}

#[test]
fn rows_that_are_examples_are_told_of() {
    let place = Place::new();
    let model = at(ENCODER);
    let request = EvalRequest {
        examples: Some(place.asked(None)),
        ..EvalRequest::new(model.clone(), place.data("examples.csv"))
    };
    eval(&request).expect("metrics");
    let warnings = model.warnings.take();
    assert!(
        warnings[0].starts_with("6 of 6 rows are among the examples"),
        "{warnings:?}"
    );
}

#[test]
fn what_cannot_be_asked_is_refused_by_name() {
    let place = Place::new();
    let none = ExamplesRequest::default;
    let words = |pairs: &[(&str, &str)]| ExamplesRequest {
        words: pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect(),
        ..none()
    };
    let with = |shots: usize, asked: ExamplesRequest| ExamplesRequest {
        shots: Some(shots),
        ..asked
    };
    let headed = "testdata/golden/bert/classifier";
    for (model, asked, message, hint) in [
        (
            headed,
            place.asked(Some(2)),
            "so --shots has no effect",
            "leave --shots out",
        ),
        (
            headed,
            place.asked(None),
            "so --examples has no effect",
            "leave --examples out",
        ),
        (
            CAUSAL,
            with(2, none()),
            "no file of examples",
            "--examples FILE",
        ),
        (
            ENCODER,
            with(2, none()),
            "no file of examples",
            "--examples FILE",
        ),
        (CAUSAL, place.asked(None), "how many examples", "--shots 0"),
        (
            CAUSAL,
            with(0, none()),
            "what the labels are",
            "--label-words",
        ),
        (
            CAUSAL,
            with(0, words(&[("a", "b")])),
            "has one label, `a`",
            "second LABEL=WORD",
        ),
        (
            ENCODER,
            place.asked(Some(0)),
            "0 examples of each label",
            "leave --shots out",
        ),
        (
            CAUSAL,
            place.asked(Some(7)),
            "7 examples are asked for, and the file has 6",
            "at most --shots 6",
        ),
        (
            ENCODER,
            place.asked(Some(4)),
            "4 examples of each label are asked for, and the file has 3 of `ham`",
            "at most --shots 3",
        ),
        (
            ENCODER,
            ExamplesRequest {
                words: words(&[("ham", "x")]).words,
                ..place.asked(None)
            },
            "--label-words has no effect with an embedding model",
            "leave --label-words out",
        ),
        (
            CAUSAL,
            ExamplesRequest {
                words: words(&[("harm", "x")]).words,
                ..place.asked(Some(1))
            },
            "`harm`, which is no label of the examples",
            "did you mean `ham`?",
        ),
    ] {
        let error = place.eval(model, asked).expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
        let hints = error.hint().unwrap_or_default();
        assert!(hints.contains(hint), "{message}: {hints}");
    }
}

#[test]
fn rows_with_other_labels_or_fields_are_refused_by_place() {
    let place = Place::new();
    place.write("rows.csv", "text,label\nhello,ham\nbye,eggs\n");
    let error = place
        .eval(CAUSAL, place.asked(Some(1)))
        .expect_err("a label");
    assert!(
        error.to_string().contains("rows.csv:3") && error.to_string().contains("`eggs`"),
        "{error}"
    );
    let skipping = EvalRequest {
        examples: Some(place.asked(Some(1))),
        ..EvalRequest::new(
            at(CAUSAL),
            DataRequest {
                on_error: OnError::Skip,
                ..place.data("rows.csv")
            },
        )
    };
    let metrics = eval(&skipping).expect("metrics");
    assert_eq!(
        (metrics.get("examples"), metrics.get("skipped")),
        (Some(1.0), Some(1.0))
    );

    // A number is a name like others, not the place of one.
    place.write("examples.csv", "text,label\nhello,1\nbye,2\nsee you,3\n");
    place.write("rows.csv", "text,label\nhello,0\nbye,1\n");
    let error = place.eval(CAUSAL, place.asked(Some(1)));
    let error = error.expect_err("a label").to_string();
    assert!(
        error.contains("rows.csv:2") && error.contains("`0`"),
        "{error}"
    );

    // What examples lose is said.
    place.write("examples.csv", &format!("{EXAMPLES}nothing,\n"));
    place.write("rows.csv", ROWS);
    let mut data = place.data("rows.csv");
    data.on_error = OnError::Skip;
    let request = EvalRequest {
        examples: Some(place.asked(Some(1))),
        ..EvalRequest::new(at(CAUSAL), data)
    };
    let warnings = request.model.warnings.clone();
    eval(&request).expect("metrics");
    let said = warnings.take();
    assert!(
        said.iter()
            .any(|warning| warning.starts_with("examples left out") && warning.ends_with(": 1")),
        "{said:?}"
    );

    place.write("examples.csv", EXAMPLES);
    place.write("rows.csv", "text,text_pair,label\nhello,there,ham\n");
    for (model, shots, problem) in [
        (CAUSAL, Some(1), "the template no {text_pair}"),
        (ENCODER, None, "an embedding is of one text"),
    ] {
        let error = place.eval(model, place.asked(shots)).expect_err(problem);
        let text = error.to_string();
        assert!(
            text.contains(problem) && text.contains("rows.csv:2"),
            "{text}"
        );
    }
    place.write("examples.csv", "text,labels\nhello,\"ham,eggs\"\nbye,ham\n");
    let error = place
        .eval(CAUSAL, place.asked(Some(1)))
        .expect_err("several");
    assert!(
        matches!(error, TrainError::Examples(ExamplesError::SeveralLabels)),
        "{error}"
    );
}

/// Other tasks do not look at examples.
#[test]
fn other_tasks_refuse_examples() {
    let place = Place::new();
    let tasks = Tasks::builtin();
    for (name, model) in [("causal-lm", CAUSAL), ("embedding", ENCODER)] {
        let task = tasks.find(name).expect("a task");
        let request = EvalRequest {
            examples: Some(place.asked(Some(2))),
            ..EvalRequest::new(at(model), place.data("rows.csv"))
        };
        let error = task.eval(&request, &offline(), Stop::never());
        let error = error.expect_err(name).to_string();
        assert_eq!(error, format!("--shots has no effect for the task {name}"));
    }
}
