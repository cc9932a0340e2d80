//! New tokens: added, trained, read again and merged, and against PEFT's rows of tokens.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module as _;
use reparam::{ForwardContext, parameters};
use reparam_data::ReadOptions;
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::peft::AdapterFiles;
use reparam_models::TokenBatch;
use reparam_train::RunFile as _;
use reparam_train::config::{Override, Precision, RunConfig};
use reparam_train::merge::{MergeError, MergeRequest, merge};
use reparam_train::tasks::CausalLanguageModel;
use reparam_train::{ModelRequest, Outcome, Session, Stop, TaskRun, TrainError, evaluate_file};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::witness::Witness;
use crate::{names, offline, repository};

/// Losses and gradients of f32 in other orders of sums.
pub(crate) const CLOSE: f64 = 2e-5;

pub(crate) const TABLE: &str = "model.embed_tokens.weight";
pub(crate) const ROWS: &str = "model.embed_tokens.token_adapter.trainable_tokens_delta";
pub(crate) const LORA: &str =
    "method={ kind = \"lora\", rank = 2, target_modules = [\"q_proj\", \"down_proj\"] }";
pub(crate) const TOKENS: &str = "data.add_tokens=[\"<tool>\", \"</tool>\"]";
const SPECIAL: &str = "data.add_special_tokens=[\"<|call|>\"]";

pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        let line = "<|call|>Once upon a time <tool>a dog</tool> went <tool>out</tool>. ";
        fs::write(place.path("train.txt"), line.repeat(12)).expect("writes");
        fs::write(place.path("held_out.txt"), line.repeat(4)).expect("writes");
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn parse(&self, run: &str, base: &Path, overrides: &[&str]) -> Result<RunConfig, String> {
        let text = format!(
            "[model]\npath = {base:?}\n[data]\ntrain = {:?}\neval = {:?}\n[optimizer]\nlearning_rate = 1e-2\n\
             [train]\nmax_steps = 4\nbatch_size = 2\nsequence_length = 64\nprecision = \"f32\"\nsave_every = 2\n[output]\ndir = {:?}\n",
            self.path("train.txt"),
            self.path("held_out.txt"),
            self.path(run),
        );
        let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
        RunConfig::parse(&text, "run.toml", &overrides)
            .map_err(|error| format!("{error} {}", error.hint().unwrap_or_default()))
    }

    fn task(&self, run: &str, base: &Path, overrides: &[&str]) -> TaskRun {
        let config = self.parse(run, base, overrides);
        TaskRun::of::<CausalLanguageModel>(config.unwrap_or_else(|error| panic!("{error}")))
    }

    pub(crate) fn finish(&self, run: &str, base: &Path, overrides: &[&str]) -> Witness {
        let mut witness = Witness::default();
        let outcome = witness.run(&self.task(run, base, overrides), false);
        let outcome = outcome.unwrap_or_else(|error| panic!("{overrides:?}: {error}"));
        assert_eq!(outcome, Outcome::Finished);
        witness
    }

    fn fails(&self, run: &str, base: &Path, overrides: &[&str]) -> TrainError {
        let run = Witness::default().run(&self.task(run, base, overrides), false);
        run.expect_err("refused")
    }

    /// The loss of what a request names.
    pub(crate) fn loss(&self, request: &ModelRequest) -> f64 {
        let session = Session::open_request(request, &offline()).expect("a model");
        let text = self.path("held_out.txt");
        let loss = evaluate_file(&session, text, &ReadOptions::default(), 64, Stop::never());
        loss.expect("evaluates").primary()
    }

    /// A copy of the built-in model whose table has more rows, or fewer, and which has a head of its own if asked for.
    pub(crate) fn base(&self, name: &str, more_rows: isize, untie: bool) -> PathBuf {
        let from = repository("assets/stories260K");
        let to = self.path(name);
        fs::create_dir(&to).expect("a directory");
        for file in names(&from) {
            fs::copy(from.join(&file), to.join(&file)).expect("copies");
        }
        let stored = Checkpoint::open(&from).expect("a model");
        let table = stored.require(TABLE).expect("a table");
        let mut longer = table.to_f32_vec().expect("numbers");
        let rows = 512_usize.saturating_add_signed(more_rows);
        let more = 0..rows.saturating_sub(512) * 64;
        longer.truncate(rows * 64);
        longer.extend(more.map(|at| 0.01 * (at as f32).sin()));
        let head: Vec<f32> = longer.iter().map(|value| 0.5 * value).collect();
        let others: Vec<(String, Vec<usize>, Vec<f32>)> = stored
            .tensors()
            .filter(|(name, _)| *name != TABLE)
            .map(|(name, tensor)| {
                let values = tensor.to_f32_vec().expect("numbers");
                (name.to_owned(), tensor.shape.to_vec(), values)
            })
            .collect();
        let shape = [rows, 64];
        let mut tensors: Vec<_> = others
            .iter()
            .map(|(name, shape, values)| {
                reparam_formats::safetensors::TensorToWrite::f32(name, shape, values)
            })
            .collect();
        let of = reparam_formats::safetensors::TensorToWrite::f32;
        tensors.push(of(TABLE, &shape, &longer));
        if untie {
            tensors.push(of("lm_head.weight", &shape, &head));
        }
        let path = to.join("model.safetensors");
        reparam_formats::safetensors::write_safetensors(&path, &tensors, &Default::default())
            .expect("writes");
        let path = to.join("config.json");
        let mut config: Value =
            serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        config["vocab_size"] = json!(rows);
        config["tie_word_embeddings"] = json!(!untie);
        fs::write(&path, config.to_string()).expect("writes");
        to
    }
}

pub(crate) fn request(base: &Path, adapter: Option<&Path>, precision: Precision) -> ModelRequest {
    let request = ModelRequest::new(base.display().to_string()).with_precision(precision);
    match adapter {
        Some(adapter) => request.with_adapter(adapter),
        None => request,
    }
}

pub(crate) fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().expect("a list").iter();
    ids.map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn adapters_with_rows_that_peft_wrote_give_its_losses_and_gradients() {
    let golden = repository("testdata/golden/tokens");
    let expected = json_file(&golden.join("expected.json"));
    let gradients = Checkpoint::open_file(&golden.join("gradients.safetensors"));
    let gradients = gradients.expect("a file");
    let place = tempfile::tempdir().expect("a directory");
    let adapters = ["tied", "untied", "untied_list", "tied_list", "tied_dict"];
    for name in adapters {
        let case = &expected[name];
        // The small models have no tokenizer of their own.
        let from = repository(case["base"].as_str().expect("a path"));
        let base = place.path().join(name);
        fs::create_dir(&base).expect("a directory");
        for file in names(&from) {
            fs::copy(from.join(&file), base.join(&file)).expect("copies");
        }
        if !base.join("tokenizer.json").exists() {
            let tokenizer = repository("testdata/golden/gguf/tokenizer.json");
            fs::copy(tokenizer, base.join("tokenizer.json")).expect("copies");
        }
        let request = request(&base, Some(&golden.join(name)), Precision::F32);
        let session = Session::open_request(&request, &offline()).expect(name);
        if let Some(text) = case["text"].as_str() {
            let found = session.tokenizer.encode(text, true).expect("encodes");
            assert_eq!(found, ids(&case["text_ids"]));
        }
        let ids = ids(&case["input_ids"]);
        let positions: Vec<u32> = (0..ids.len() as u32).collect();
        let batch = TokenBatch {
            input_ids: &ids,
            position_ids: &positions,
            bounds: &[0, ids.len()],
        };
        let next = ids[1..].iter().map(|id| *id as i32);
        let labels: Vec<i32> = next.chain([reparam_data::IGNORE_INDEX]).collect();
        let model = session.model.clone().train();
        let scale = 1.0 / (ids.len() - 1) as f32;
        let loss = model.loss(batch, &labels, scale, &ForwardContext::inference());
        let found: f32 = loss.clone().into_scalar();
        let wanted = case["loss"].as_f64().expect("a number");
        assert!(
            (f64::from(found) - wanted).abs() < CLOSE,
            "{name}: {found} {wanted}"
        );
        let mut graph = loss.backward();
        let found = parameters::take_gradients(&model, &mut graph);
        let mut compared = 0;
        for tensor in found {
            let Some(wanted) = gradients.get(&format!("{name}.{}", tensor.name)) else {
                continue;
            };
            let wanted = wanted.to_f32_vec().expect("numbers");
            let values: Vec<f32> = tensor.values.into_data().iter::<f32>().collect();
            for (found, wanted) in values.iter().zip(&wanted) {
                let difference = f64::from((found - wanted).abs());
                assert!(
                    difference < CLOSE,
                    "{name} {}: {found} {wanted}",
                    tensor.name
                );
            }
            assert_eq!(values.len(), wanted.len());
            compared += 1;
        }
        assert_eq!(compared, if name == "untied" { 2 } else { 1 });
    }
}

/// What a run trains is what its adapter says, whatever the precision, tied or not, beside a table that is longer than the
/// vocabulary, too; merged, it says the same.
#[test]
fn new_tokens_are_trained_read_again_and_merged() {
    let place = Place::new();
    let bases = [
        (repository("assets/stories260K"), "tied"),
        (place.base("untied", 0, true), "own head"),
        (place.base("padded", 8, false), "padded"),
    ];
    for (number, (base, name)) in bases.iter().enumerate() {
        for (precision, word) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16")] {
            let run = format!("{number}-{word}");
            let precision_set = format!("train.precision={word}");
            let set = [LORA, TOKENS, SPECIAL, &precision_set];
            let witness = place.finish(&run, base, &set);
            let finished = witness.finished();
            let (before, after) = (
                finished.before.expect("a loss"),
                finished.after.expect("a loss"),
            );
            assert!(after < before, "{name} {word}: {before} {after}");
            let adapter = place.path(&run).join("adapter");
            let files = AdapterFiles::load(&adapter).expect("an adapter");
            let indices = json!([512, 513, 514]);
            let said = match *name {
                "own head" => json!({"embed_tokens": indices, "lm_head": indices}),
                _ => indices,
            };
            assert_eq!(
                files.config.get("trainable_token_indices"),
                Some(&said),
                "{name}"
            );
            let rows = &files.tensors[ROWS];
            assert_eq!(rows.shape, [3, 64]);
            let head = "lm_head.token_adapter.trainable_tokens_delta";
            assert_eq!(files.tensors.contains_key(head), *name == "own head");
            let request = request(base, Some(&adapter), precision);
            assert_eq!(place.loss(&request), after, "{name} {word}");

            let output = place.path(&format!("{run}-merged"));
            let asked = MergeRequest {
                dtype: Some(Dtype::F32),
                ..MergeRequest::new(
                    self::request(base, None, Precision::F32),
                    vec![(adapter.clone(), 1.0)],
                )
            };
            merge(&asked, &output, &offline(), Stop::never()).expect("merges");
            let merged = Checkpoint::open(&output).expect("a model");
            let table = merged.require(TABLE).expect("a table");
            let n_rows = if *name == "padded" { 520 } else { 515 };
            assert_eq!(table.shape, [n_rows, 64], "{name}");
            let values = table.to_f32_vec().expect("numbers");
            assert_eq!(values[512 * 64..515 * 64], rows.data, "{name}");
            let config = json_file(&output.join("config.json"));
            assert_eq!(config["vocab_size"], n_rows);
            if precision == Precision::F32 {
                let loss = place.loss(&self::request(&output, None, Precision::F32));
                assert!((loss - after).abs() < CLOSE, "{name}: {loss} {after}");
            }
            let text = "<tool>a</tool><|call|>";
            let session = Session::open_request(&request, &offline()).expect("a model");
            let ids = session.tokenizer.encode(text, false).expect("encodes");
            assert_eq!((ids[0], ids.last()), (512, Some(&514)));
            let shown = session.tokenizer.decode(&ids, true).expect("decodes");
            assert!(
                shown.contains("<tool>") && !shown.contains("<|call|>"),
                "{shown}"
            );
            let merged = fs::read(output.join("tokenizer.json")).expect("a file");
            assert!(merged == fs::read(adapter.join("tokenizer.json")).expect("a file"));
        }
    }
}

#[test]
fn a_run_with_new_tokens_goes_on_to_the_same_bits() {
    let place = Place::new();
    let base = repository("assets/stories260K");
    for (name, method) in [("lora", LORA), ("full", "method={ kind = \"full\" }")] {
        let set = [method, TOKENS];
        place.finish(&format!("{name}-whole"), &base, &set);
        let parts = place.task(&format!("{name}-parts"), &base, &set);
        let mut witness = Witness {
            stop_at: Some(3),
            ..Witness::default()
        };
        let stopped = witness.run(&parts, false).expect("it ends well");
        assert_eq!(stopped, Outcome::Interrupted { step: 3 });
        let outcome = Witness::default().run(&parts, true).expect("it goes on");
        assert_eq!(outcome, Outcome::Finished);
        let file = match name {
            "lora" => "adapter/adapter_model.safetensors",
            _ => "model/model.safetensors",
        };
        let bytes = |run: &str| fs::read(place.path(&format!("{name}-{run}")).join(file));
        assert!(
            bytes("whole").expect("a file") == bytes("parts").expect("a file"),
            "{name}"
        );
    }
    // Full training has the whole table, and no rows beside it.
    let model = place.path("full-whole/model");
    let table = Checkpoint::open(&model).expect("a model");
    assert_eq!(table.require(TABLE).expect("a table").shape, [514, 64]);
    assert_eq!(json_file(&model.join("config.json"))["vocab_size"], 514);
    let base = Checkpoint::open(&base).expect("a model");
    let before = base.require(TABLE).expect("a table").to_f32_vec();
    let after = table
        .require(TABLE)
        .expect("a table")
        .to_f32_vec()
        .expect("numbers");
    assert_ne!(after[..512 * 64], before.expect("numbers"));
}

#[test]
fn a_run_goes_on_from_an_adapter_with_tokens() {
    let place = Place::new();
    let base = repository("assets/stories260K");
    let first = place.finish("first", &base, &[LORA, TOKENS]);
    let adapter = format!("model.adapter={}", place.path("first/adapter").display());
    let second = place.finish("second", &base, &[&adapter]);
    assert_eq!(second.finished().before, first.finished().after);
    assert_eq!(
        first.start().trainable_parameters,
        second.start().trainable_parameters
    );
    let rows = |run: &str| {
        let files = AdapterFiles::load(&place.path(run).join("adapter")).expect("an adapter");
        files.tensors[ROWS].clone()
    };
    assert_ne!(rows("first"), rows("second"));
    let tokenizer = |run: &str| fs::read(place.path(run).join("adapter/tokenizer.json"));
    assert!(tokenizer("first").expect("a file") == tokenizer("second").expect("a file"));
    let error = place.fails("third", &base, &[&adapter, TOKENS]);
    assert!(matches!(error, TrainError::TokensOverAdapter), "{error}");
    // Two adapters with tokens of their own are no model together.
    let adapters = ["first", "second"].map(|run| (place.path(run).join("adapter"), 1.0));
    let asked = MergeRequest::new(request(&base, None, Precision::F32), adapters.to_vec());
    let error = merge(&asked, &place.path("merged"), &offline(), Stop::never());
    assert!(
        matches!(
            error,
            Err(TrainError::Merge(MergeError::SeveralTokens { .. }))
        ),
        "{error:?}"
    );
}

#[test]
fn what_cannot_be_added_is_refused_or_said() {
    let place = Place::new();
    let base = repository("assets/stories260K");
    let error = place.parse("a", &base, &["data.add_tokens=[\"a\", \" \"]"]);
    let error = error.expect_err("an empty token");
    assert!(error.contains("a new token is empty"), "{error}");
    let error = place.fails(
        "b",
        &base,
        &["method={ kind = \"vera\", rank = 4 }", TOKENS],
    );
    assert!(error.to_string().contains("vera"), "{error}");
    assert!(error.hint().expect("a hint").contains("lora"));
    // A token that is there keeps its id, and is said.
    let known = "data.add_tokens=[\"<s>\", \"<tool>\"]";
    let special = "data.add_special_tokens=[\"</s>\"]";
    let witness = place.finish("c", &base, &[LORA, known, special]);
    for note in [
        "`<s>` in data.add_tokens is a token already (id 1)",
        "`</s>` in data.add_special_tokens is a token already (id 2)",
    ] {
        let mut events = witness.events.iter();
        let is_said = events.any(|event| format!("{event:?}").contains(note));
        assert!(is_said, "{note}: {:?}", witness.events);
    }
    let files = AdapterFiles::load(&place.path("c/adapter")).expect("an adapter");
    let indices = files.config.get("trainable_token_indices");
    assert_eq!(indices, Some(&json!([512])));
}
