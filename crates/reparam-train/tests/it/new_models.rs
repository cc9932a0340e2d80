//! Models that begin with nothing: the examples, and what is refused.

use std::ops::ControlFlow;
use std::path::PathBuf;

use reparam_data::OnError;
use reparam_train::config::Override;
use reparam_train::event::Event;
use reparam_train::explain::ExplainRequest;
use reparam_train::inspect::{WordQuestion, ask_words};
use reparam_train::tasks::TrainedTexts;
use reparam_train::{
    DataRequest, EvalRequest, ExamplesRequest, Metrics, ModelRequest, Outcome, PredictRequest,
    Predictions, Session, Stop, TaskRun, Tasks, TrainError,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::witness::Witness;
use crate::{measured, names, offline, repository, task_of};

/// An example, the file that its result is measured on, and whether the measure in the run is on the same rows.
pub(crate) struct Example {
    pub(crate) name: &'static str,
    pub(crate) task: &'static str,
    data: &'static str,
}

pub(crate) const EXAMPLES: [Example; 10] = [
    Example {
        name: "topics",
        task: "sequence-classification",
        data: "topics.csv",
    },
    Example {
        name: "entities",
        task: "token-classification",
        data: "entities.conll",
    },
    Example {
        name: "questions",
        task: "question-answering",
        data: "questions.jsonl",
    },
    Example {
        name: "similar",
        task: "embedding",
        data: "similar.jsonl",
    },
    Example {
        name: "masked",
        task: "masked-lm",
        data: "texts.txt",
    },
    Example {
        name: "new-llama",
        task: "causal-lm",
        data: "texts.txt",
    },
    Example {
        name: "numbers",
        task: "seq2seq",
        data: "numbers.jsonl",
    },
    Example {
        name: "characters",
        task: "causal-lm",
        data: "texts.txt",
    },
    Example {
        name: "numbers-lstm",
        task: "seq2seq",
        data: "numbers.jsonl",
    },
    Example {
        name: "words",
        task: "word-embedding",
        data: "texts.txt",
    },
];

impl Example {
    pub(crate) fn data(&self) -> PathBuf {
        repository("examples/data").join(self.data)
    }

    fn parse(&self, dir: &TempDir, overrides: &[&str]) -> Result<TaskRun, String> {
        let path = repository("examples").join(format!("{}.toml", self.name));
        let text = std::fs::read_to_string(path).expect("an example");
        let place = [
            format!("data.train={:?}", self.data()),
            format!("output.dir={:?}", dir.path().join("run")),
            "train.threads=2".to_owned(),
        ];
        let given = overrides.iter().map(|one| (*one).to_owned());
        let all: Vec<Override> = place.into_iter().chain(given).map(Override::set).collect();
        let run = Tasks::builtin().parse(&text, "run.toml", &all);
        run.map_err(|error| format!("{error} {:?}", error.hint()))
    }

    pub(crate) fn run(&self, dir: &TempDir, overrides: &[&str]) -> Result<Witness, TrainError> {
        let run = self.parse(dir, overrides);
        let run = run.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let mut witness = Witness::default();
        let outcome = witness.run(&run, false)?;
        assert_eq!(outcome, Outcome::Finished);
        Ok(witness)
    }
}

/// A few steps.
const SHORT: [&str; 3] = [
    "train.max_steps=3",
    "train.eval_every=0",
    "train.batch_size=2",
];

pub(crate) fn place() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn measure(example: &Example, dir: &TempDir) -> Result<Metrics, TrainError> {
    let model = dir.path().join("run");
    let request = EvalRequest::new(
        ModelRequest::new(model.to_str().expect("UTF-8")),
        DataRequest::new(example.data()),
    );
    let tasks = Tasks::builtin();
    let task = *tasks.of_request(None, &request.model, &offline())?;
    assert_eq!(task.name, example.task);
    task.eval(&request, &offline(), Stop::never())
}

fn bytes(dir: &TempDir, file: &str) -> Vec<u8> {
    std::fs::read(dir.path().join("run").join(file)).expect("a file")
}

const WEIGHTS: &str = "model/model.safetensors";

#[test]
fn examples_make_models_that_can_be_measured() {
    for example in &EXAMPLES {
        let dir = place();
        let witness = example.run(&dir, &SHORT);
        let witness = witness.unwrap_or_else(|error| panic!("{}: {error}", example.name));
        let finished = witness.finished();
        let after = finished.after.expect("an evaluation");
        assert!(after.is_finite(), "{}", example.name);
        let files = names(&dir.path().join("run").join("model"));
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            assert!(
                files.iter().any(|name| name == file),
                "{} {file}",
                example.name
            );
        }
        if example.task == "word-embedding" {
            let ask = |word: &str| {
                let question = WordQuestion::Nearest(word.to_owned());
                ask_words(&dir.path().join("run"), &question, 5)
            };
            assert_eq!(ask("soup").expect("words").len(), 5);
            assert!(matches!(ask("Soup"), Err(TrainError::NoVector { .. })));
            continue;
        }
        let metrics = measure(example, &dir);
        let metrics = metrics.unwrap_or_else(|error| panic!("{}: {error}", example.name));
        assert!(metrics.primary().is_finite(), "{}", example.name);
    }
}

/// The vocabulary and the weights follow from the run file and the texts alone, and a run that was stopped goes on to the same
/// bits.
#[test]
fn new_models_come_out_to_the_same_bits() {
    for example in [0, 5, 6, 7, 8, 9].map(|number| &EXAMPLES[number]) {
        let longer = [
            "train.max_steps=12",
            "train.eval_every=0",
            "train.batch_size=2",
            "train.save_every=5",
        ];
        let (whole, parts) = (place(), place());
        example.run(&whole, &longer).expect("a run");
        let run = example.parse(&parts, &longer).expect("a run file");
        let mut witness = Witness {
            stop_at: Some(7),
            ..Witness::default()
        };
        witness.run(&run, false).expect("it stops");
        Witness::default().run(&run, true).expect("it goes on");
        for file in [WEIGHTS, "model/tokenizer.json", "model/config.json"] {
            assert!(
                bytes(&whole, file) == bytes(&parts, file),
                "{} {file}",
                example.name
            );
        }
        // Another seed begins with other weights.
        let other = place();
        let seeded = [&longer[..], &["train.seed=5"]].concat();
        example.run(&other, &seeded).expect("a run");
        assert!(
            bytes(&whole, WEIGHTS) != bytes(&other, WEIGHTS),
            "{}",
            example.name
        );
    }
}

/// A low-rank method on drawn weights gives a whole model, for no base would be there for an adapter.
#[test]
fn a_new_model_is_saved_whole_whatever_the_method() {
    let example = &EXAMPLES[0];
    let dir = place();
    let lora = [&SHORT[..], &["method={ kind = \"lora\", rank = 2 }"]].concat();
    example.run(&dir, &lora).expect("a run");
    let files = names(&dir.path().join("run"));
    assert!(files.contains(&"model".to_owned()) && !files.contains(&"adapter".to_owned()));
    assert!(
        measure(example, &dir)
            .expect("measures")
            .primary()
            .is_finite()
    );
}

/// An encoder with scores by distance, for each task that it has a head for; then adapters of it, in f32 alone.
#[test]
fn scores_by_distance_are_learned_for_each_task() {
    let family = [
        "model.architecture=deberta-v2",
        "model.config={ hidden_size = 16, intermediate_size = 24, num_hidden_layers = 2, num_attention_heads = 2, \
         relative_attention = true, pos_att_type = \"c2p|p2c\", position_buckets = 8, max_relative_positions = 32, \
         norm_rel_ebd = \"layer_norm\", share_att_key = true, position_biased_input = false }",
        "model.tokenizer={ kind = \"word_piece\", vocab_size = 300 }",
    ];
    for example in &EXAMPLES[..5] {
        let dir = place();
        let witness = example.run(&dir, &[&SHORT[..], &family].concat());
        let witness = witness.unwrap_or_else(|error| panic!("{}: {error}", example.name));
        let after = witness.finished().after.expect("an evaluation");
        let metrics = measure(example, &dir);
        let metrics = metrics.unwrap_or_else(|error| panic!("{}: {error}", example.name));
        assert!(after.is_finite() && metrics.primary().is_finite());
        let model = dir.path().join("run").join("model");
        let adapted = |precision: &str, targets: &str| -> Result<Witness, String> {
            let text = format!(
                "[model]\ntask = {:?}\npath = {model:?}\n[data]\ntrain = {:?}\n[method]\nkind = \"lora\"\nrank = 2\n\
                 target_modules = {targets}\n\
                 [train]\nmax_steps = 2\nbatch_size = 2\nprecision = {precision:?}\n[output]\ndir = {:?}\n",
                example.task,
                example.data(),
                dir.path().join(format!("{precision}{}", targets.len())),
            );
            let run = Tasks::builtin().parse(&text, "run.toml", &[]);
            let run = run.map_err(|error| format!("{error} {:?}", error.hint()))?;
            let mut witness = Witness::default();
            let outcome = witness.run(&run, false);
            outcome.map_err(|error| format!("{error} {:?}", error.hint()))?;
            Ok(witness)
        };
        // The layer before the last one is called `dense`, too, and where it is trained whole has no factors.
        for targets in ["\"all-linear\"", "[\"dense\"]"] {
            let witness = adapted("f32", targets);
            let witness = witness.unwrap_or_else(|error| panic!("{}: {error}", example.name));
            assert!(witness.losses().iter().all(|loss| loss.is_finite()));
            let name = format!("f32{}/adapter", targets.len());
            let adapter = dir.path().join(name);
            let weights = std::fs::read(adapter.join("adapter_model.safetensors")).expect("a file");
            let weights = String::from_utf8_lossy(&weights);
            assert!(weights.contains("output.dense.lora_A"));
            let is_whole = example.task == "sequence-classification";
            assert!(!(is_whole && weights.contains("pooler.dense.lora_A")));
            let request = ModelRequest::new(model.to_str().expect("UTF-8")).with_adapter(adapter);
            let request = EvalRequest::new(request, DataRequest::new(example.data()));
            let tasks = Tasks::builtin();
            let task = tasks.find(example.task).expect("a task");
            let metrics = task.eval(&request, &offline(), Stop::never());
            let metrics = metrics.unwrap_or_else(|error| panic!("{}: {error}", example.name));
            assert!(metrics.primary().is_finite(), "{}", example.name);
        }
        let packed = adapted("bf16", "\"all-linear\"");
        let packed = packed.unwrap_or_else(|error| panic!("{}: {error}", example.name));
        assert_eq!(packed.start().precision, "bf16");
        assert!(packed.losses().iter().all(|loss| loss.is_finite()));
    }
}

/// The tokenizer of another model, and word vectors for some of the words.
#[test]
fn parts_of_a_new_model_may_come_from_elsewhere() {
    let dir = place();
    let example = &EXAMPLES[5];
    let path = repository("assets/stories260K");
    let tokenizer = format!("model.tokenizer={{ path = {path:?} }}");
    let own = [&SHORT[..], &[&tokenizer]].concat();
    example.run(&dir, &own).expect("a run");
    let original = std::fs::read(path.join("tokenizer.json")).expect("a file");
    assert!(bytes(&dir, "model/tokenizer.json") == original);

    // One of the time before tokenizer.json is made into one.
    let example = &EXAMPLES[0];
    let dir = place();
    let path = repository("testdata/golden/older_tokenizers/qwen2");
    let tokenizer = format!("model.tokenizer={{ path = {path:?} }}");
    let own = [&SHORT[..], &[&tokenizer]].concat();
    example.run(&dir, &own).expect("a run");
    let read = |name: &str| std::fs::read(path.join(name)).ok();
    let kept = ["vocab.json", "merges.txt", "tokenizer_config.json"].map(|name| (name, read(name)));
    let made = reparam_data::tokenizer::tokenizer_json(&path, None, |name| {
        let kept = kept.iter().find(|(known, _)| *known == name);
        kept.and_then(|(_, bytes)| bytes.as_deref())
    });
    let made = made.expect("reads").expect("files");
    assert!(bytes(&dir, "model/tokenizer.json") == made);
    assert!(!dir.path().join("run/model/vocab.json").exists());

    let dir = place();
    let vectors = dir.path().join("vectors.txt");
    let line = |word: &str, first: f32| {
        let rest = " 0.5".repeat(63);
        format!("{word} {first}{rest}\n")
    };
    std::fs::write(&vectors, line("soup", 0.25) + &line("unheard", 1.0)).expect("writes");
    let given = format!("model.word_vectors={vectors:?}");
    let frozen = "method={ kind = \"full\", exclude_modules = [\"embedding\"] }";
    let witness = example.run(&dir, &[&SHORT[..], &[&given, frozen]].concat());
    let witness = witness.expect("a run");
    let said = witness.events.iter().any(
        |event| matches!(event, Event::Warning { message, .. } if message.starts_with("1 of ")),
    );
    assert!(said);
    let tokenizer: Value =
        serde_json::from_slice(&bytes(&dir, "model/tokenizer.json")).expect("JSON");
    let id = tokenizer["model"]["vocab"]["soup"]
        .as_u64()
        .expect("a word") as usize;
    let checkpoint = reparam_formats::checkpoint::Checkpoint::open(&dir.path().join("run/model"));
    let checkpoint = checkpoint.expect("a checkpoint");
    let table = checkpoint
        .require("model.embedding.weight")
        .expect("a table");
    let values = table.to_f32_vec().expect("numbers");
    assert_eq!(values[64 * id..64 * id + 2], [0.25, 0.5]);

    std::fs::write(&vectors, "soup 1 2 3\n").expect("writes");
    let error = example
        .run(&place(), &[&SHORT[..], &[&given]].concat())
        .err();
    assert!(
        matches!(
            error,
            Some(TrainError::VectorWidth {
                found: 3,
                expected: 64,
                ..
            })
        ),
        "{error:?}"
    );
    let line = line("unheard", 1.0);
    std::fs::write(&vectors, line).expect("writes");
    let error = example
        .run(&place(), &[&SHORT[..], &[&given]].concat())
        .err();
    assert!(
        matches!(error, Some(TrainError::NoCommonWords { .. })),
        "{error:?}"
    );
}

/// What is done to texts is done again in a prediction, and said in the first event.
#[test]
fn texts_are_made_uniform_before_they_become_tokens() {
    let example = &EXAMPLES[0];
    let dir = place();
    let witness = example.run(&dir, &SHORT).expect("a run");
    let said = &witness.start().data["text"];
    let steps = said["steps"].as_array().expect("steps");
    let names: Vec<&str> = steps
        .iter()
        .filter_map(|step| step["step"].as_str())
        .collect();
    assert_eq!(names, ["lowercase", "segment"]);
    assert_eq!(said["samples"].as_array().map(Vec::len), Some(3));
    let rows = |text: &str| {
        let file = dir.path().join("rows.csv");
        std::fs::write(&file, format!("text,label\n{text},food\n")).expect("writes");
        let request = EvalRequest::new(
            ModelRequest::new(dir.path().join("run").to_str().expect("UTF-8")),
            DataRequest::new(file),
        );
        measured(&request).get("loss").expect("a loss")
    };
    assert_eq!(rows("We ate THE soup."), rows("we ate the SOUP ."));
    assert_ne!(rows("we ate the soup ."), rows("we ate the cake ."));
    // A run that trains on does the same where it says nothing.
    let on = place();
    let text = format!(
        "[model]\npath = {:?}\n[data]\ntrain = {:?}\n[method]\nkind = \"lora\"\nrank = 2\n\
         [train]\nmax_steps = 1\n[output]\ndir = {:?}\n",
        dir.path().join("run/model"),
        example.data(),
        on.path().join("run"),
    );
    let run = Tasks::builtin()
        .parse(&text, "run.toml", &[])
        .expect("a run file");
    let mut witness = Witness::default();
    witness.run(&run, false).expect("a run");
    assert!(witness.start().data["text"].is_object());
}

/// Language models of both kinds do it, too: to what they learn and measure, and again to what their result is given.
#[test]
fn texts_of_language_models_are_made_uniform() {
    let text = "data.text={ normalize = \"nfkc\", lowercase = true, min_length = 40 }";
    for (example, shown) in [(&EXAMPLES[5], "my sister"), (&EXAMPLES[4], "")] {
        let (dir, plain) = (place(), place());
        let witness = example.run(&dir, &[&SHORT[..], &[text]].concat());
        let said = witness.expect("a run").start().data["text"].clone();
        let steps = said["steps"].as_array().expect("steps").iter();
        let steps: Vec<&str> = steps.filter_map(|step| step["step"].as_str()).collect();
        assert_eq!(steps, ["normalize", "lowercase"]);
        assert_eq!(said["samples"].as_array().map(Vec::len), Some(3));
        let first = said["samples"][0]["after"].as_str().expect("a text");
        assert!(first.starts_with("nobody expected"), "{first}");
        let tokenizer = String::from_utf8(bytes(&dir, "model/tokenizer.json")).expect("UTF-8");
        let of_plain = example.run(&plain, &SHORT).expect("a run");
        assert!(of_plain.start().data.get("text").is_none());
        // A vocabulary of the prepared texts, and none of the others.
        let plain = String::from_utf8(bytes(&plain, "model/tokenizer.json")).expect("UTF-8");
        assert!(
            plain != tokenizer && !tokenizer.contains("Nob"),
            "{}",
            example.name
        );
        let model = dir.path().join("run");
        let request = ModelRequest::new(model.to_str().expect("UTF-8"));
        let losses = |text: &str| {
            let file = dir.path().join("lines.txt");
            std::fs::write(&file, text).expect("writes");
            let data = DataRequest {
                format: Some("lines".to_owned()),
                ..DataRequest::new(file)
            };
            let request = EvalRequest::new(request.clone(), data);
            let metrics = measured(&request);
            (metrics.get("loss").expect("a loss"), metrics.get("tokens"))
        };
        // Short texts are measured like others.
        assert_eq!(losses("We ate THE soup."), losses("we ate the soup."));
        assert_ne!(losses("we ate the soup."), losses("we ate the cake."));
        if !shown.is_empty() {
            let session = Session::open_request(&request, &offline()).expect("a model");
            let texts = TrainedTexts::of(&request, &session, &offline()).expect("a card");
            assert_eq!(texts.prepared("My SISTER"), shown);
            prompts_are_prepared(&request, &dir);
        }
        // A run that trains on does the same unless it says otherwise.
        for (own, is_said) in [("", true), ("text = {}", false)] {
            let on = place();
            let text = format!(
                "[model]\npath = {:?}\n[data]\ntrain = {:?}\nformat = \"lines\"\n{own}\n\
                 [method]\nkind = \"lora\"\nrank = 2\n\
                 [train]\nmax_steps = 1\nbatch_size = 2\n[output]\ndir = {:?}\n",
                dir.path().join("run/model"),
                example.data(),
                on.path().join("run"),
            );
            let run = Tasks::builtin().parse(&text, "run.toml", &[]);
            let mut witness = Witness::default();
            witness
                .run(&run.expect("a run file"), false)
                .expect("a run");
            assert_eq!(witness.start().data.get("text").is_some(), is_said, "{own}");
            // And says so in its own result, of which an adapter is.
            let card = std::fs::read_to_string(on.path().join("run/adapter/reparam.json"));
            let card: Value = serde_json::from_str(&card.expect("a card")).expect("JSON");
            assert_eq!(
                card["settings"]["text"]["lowercase"] == true,
                is_said,
                "{card}"
            );
        }
    }
}

/// What explains a text, and what scores labels behind one, does to it what was done in training.
fn prompts_are_prepared(model: &ModelRequest, dir: &TempDir) {
    let tasks = Tasks::builtin();
    let explained = |text: &str, target: &str| {
        let request = ExplainRequest {
            target: Some(target.to_owned()),
            steps: Some(4),
            ..ExplainRequest::new(model.clone(), text)
        };
        let task = tasks.find("causal-lm").expect("a task");
        let explained = task.explain(&request, &offline(), Stop::never());
        format!("{:?}", explained.expect("an explanation"))
    };
    let small = explained("we ate", " the soup");
    assert_eq!(explained("We ATE", " THE Soup"), small);
    assert_ne!(explained("we ate", " the cake"), small);
    let scores = |text: &str, yes: &str| {
        let file = dir.path().join("row.jsonl");
        std::fs::write(&file, serde_json::json!({ "text": text }).to_string()).expect("writes");
        let words = [("a", yes), ("b", "no")].map(|(label, word)| (label.into(), word.into()));
        let request = PredictRequest {
            examples: Some(ExamplesRequest {
                shots: Some(0),
                words: words.into(),
                ..ExamplesRequest::default()
            }),
            ..PredictRequest::new(model.clone(), DataRequest::new(file))
        };
        let task = tasks.find("sequence-classification").expect("a task");
        let mut printed = Printed::default();
        let predicted = task.predict(&request, &offline(), Stop::never(), &mut printed);
        predicted.expect("predicts");
        printed.0[0].clone()
    };
    let small = scores("we ate the soup", "yes");
    assert_eq!(scores("We ate THE soup", "Yes"), small);
    assert_ne!(scores("we ate the cake", "yes"), small);
}

#[test]
fn what_a_new_model_cannot_be_is_said() {
    let [topics, .., lstm, words] = &EXAMPLES;
    for (example, overrides, expected) in [
        (topics, &["model.path=x"][..], "path"),
        (topics, &["model.revision=x"], "revision"),
        (
            topics,
            &["model.tokenizer={ kind = \"word_piece\", sentence_marks = true }"],
            "sentence_marks",
        ),
        (
            topics,
            &["model.tokenizer={ path = \"x\", min_count = 3 }"],
            "min_count",
        ),
        (topics, &["data.text={ stop_words = \"en\" }"], "stop_words"),
        (&EXAMPLES[1], &["data.text={ lowercase = true }"], "text"),
    ] {
        let error = example.parse(&place(), overrides).err();
        let error = error.unwrap_or_else(|| panic!("{overrides:?}"));
        assert!(error.contains(expected), "{overrides:?}: {error}");
    }
    for (example, overrides, expected) in [
        (topics, &["model.architecture=lstn"][..], "lstn"),
        (
            topics,
            &["model.config={ hidden_sise = 4, hidden_size = 4 }"],
            "hidden_size",
        ),
        (
            topics,
            &["model.config={ embedding_size = 4 }"],
            "hidden_size",
        ),
        (
            topics,
            &["model.config={ hidden_size = 8, vocab_size = 3 }"],
            "vocab_size",
        ),
        (
            topics,
            &["model.tokenizer={ kind = \"bpe\", vocab_size = 4 }"],
            "vocab",
        ),
        (
            topics,
            &["model.config={ hidden_size = 2147483648 }"],
            "model.config",
        ),
        (
            &EXAMPLES[5],
            &["model.tokenizer={ kind = \"bpe\", vocab_size = 512 }"],
            "sentence_marks",
        ),
        (
            &EXAMPLES[5],
            &[
                "model.architecture=gru",
                "model.config={ hidden_size = 8, is_encoder_decoder = true }",
            ],
            "decoder_start_token_id",
        ),
        (
            &EXAMPLES[5],
            &[
                "model.architecture=gru",
                "model.config={ hidden_size = 8, is_encoder_decoder = true, decoder_start_token_id = 0 }",
            ],
            "encoder-decoder",
        ),
        (
            lstm,
            &["model.config={ hidden_size = 8, atention = \"dot\" }"],
            "attention_score",
        ),
        (
            lstm,
            &["model.config={ hidden_size = 8, classifier_pooling = \"last\" }"],
            "classifier_pooling",
        ),
        (
            lstm,
            &["model.config={ hidden_size = 8, attention_score = \"concat\" }"],
            "dot, general, additive",
        ),
        (
            lstm,
            &["model.config={ hidden_size = 8, bidirectional = true, attention_score = \"dot\" }"],
            "16",
        ),
        (
            lstm,
            &["model.config={ hidden_size = 8, decoder_start_token_id = 70000 }"],
            "70000",
        ),
        (
            lstm,
            &["model.config={ hidden_size = 8, is_encoder_decoder = false }"],
            "no encoder-decoder",
        ),
        (words, &["model.architecture=lstm"], "skip_gram"),
        (words, &["model.dropout=0.1"], "dropout"),
        (words, &["model.tokenizer={ kind = \"bpe\" }"], "word_level"),
        (words, &["model.config={ hidden_size = 4 }"], "vector_size"),
        (
            &EXAMPLES[4],
            &["model.tokenizer={ kind = \"bpe\", vocab_size = 400 }"],
            "mask",
        ),
    ] {
        let error = example.run(&place(), overrides).err();
        let error = error.unwrap_or_else(|| panic!("{overrides:?}"));
        let said = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(said.contains(expected), "{overrides:?}: {said}");
    }
}

/// Tokenizers of words put no token around a text, so that one without words has none.
#[test]
fn a_text_without_a_token_is_refused() {
    let dir = place();
    let steps = "data.text={ segment = \"words\", stop_words = \"en\" }";
    let topics = &EXAMPLES[0];
    topics
        .run(&dir, &[&SHORT[..], &[steps]].concat())
        .expect("a run");
    let model = ModelRequest::new(dir.path().join("run").to_str().expect("UTF-8"));
    let rows = dir.path().join("rows.jsonl");
    let some = "{\"text\":\"the bread\"}\n{\"text\":\"the\"}\n";
    std::fs::write(&rows, some).expect("writes");
    let task = task_of(&model);
    let mut request = PredictRequest::new(model, DataRequest::new(&rows));
    let mut printed = Printed::default();
    let error = task.predict(&request, &offline(), Stop::never(), &mut printed);
    let error = error.expect_err("a text of stop words");
    let said = error.to_string();
    assert!(
        said.ends_with("rows.jsonl:2: the text has no token"),
        "{said}"
    );
    assert!(error.hint().expect("a hint").contains("data.text"));
    request.data.on_error = OnError::Skip;
    let mut printed = Printed::default();
    task.predict(&request, &offline(), Stop::never(), &mut printed)
        .expect("predicts");
    assert!(printed.0[0]["label"].is_string(), "{:?}", printed.0);
    assert!(printed.0[1]["error"].is_string(), "{:?}", printed.0);
}

#[derive(Default)]
pub(crate) struct Printed(pub(crate) Vec<Value>);

impl Predictions for Printed {
    fn header(&mut self, _: &str) {}

    fn row(&mut self, object: Value, _: String) -> ControlFlow<()> {
        self.0.push(object);
        ControlFlow::Continue(())
    }

    fn note(&mut self, _: String) {}
}
