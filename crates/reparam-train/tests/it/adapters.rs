//! Runs that train on from an adapter.

use std::fs;
use std::path::PathBuf;

use reparam_data::ReadOptions;
use reparam_formats::peft::{AdapterFiles, Tensor};
use reparam_train::config::{Override, RunConfig};
use reparam_train::event::Event;
use reparam_train::tasks::CausalLanguageModel;
use reparam_train::{Outcome, RunFile as _, Session, Stop, TaskRun, TrainError, evaluate_file};
use serde_json::Value;
use tempfile::TempDir;

use crate::witness::Witness;
use crate::{offline, repository};

const METHODS: [&str; 6] = [
    "{ kind = \"lora\", rank = 4, alpha = 12, dropout = 0.1, target_modules = [\"q_proj\", \"down_proj\"] }",
    "{ kind = \"lora\", rank = 2, use_rslora = true, rank_pattern = { \"layers.1.self_attn.q_proj\" = 3 }, target_modules = [\"q_proj\", \"up_proj\"], layers_to_transform = [1, 2], bias = \"none\" }",
    "{ kind = \"dora\", rank = 2 }",
    "{ kind = \"ia3\" }",
    "{ kind = \"vera\", rank = 8 }",
    "{ kind = \"lora\", rank = 2, target_modules = \".*layers\\\\.[03]\\\\.mlp\\\\.up_proj\" }",
];

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        let text = fs::read(repository("assets/tinyshakespeare.txt")).expect("a text");
        fs::write(place.path("train.txt"), &text[..700]).expect("writes");
        fs::write(place.path("held_out.txt"), &text[900..1300]).expect("writes");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn parse(&self, run: &str, overrides: &[&str]) -> Result<RunConfig, String> {
        let text = format!(
            "[model]\npath = {:?}\n[data]\ntrain = {:?}\neval = {:?}\n[optimizer]\nlearning_rate = 1e-3\n\
             [train]\nmax_steps = 3\nbatch_size = 2\nsequence_length = 32\nprecision = \"f32\"\n[output]\ndir = {:?}\n",
            repository("assets/stories260K"),
            self.path("train.txt"),
            self.path("held_out.txt"),
            self.path(run),
        );
        let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
        RunConfig::parse(&text, "run.toml", &overrides)
            .map_err(|error| format!("{error} {}", error.hint().unwrap_or_default()))
    }

    fn run(&self, run: &str, overrides: &[&str]) -> TaskRun {
        let config = self.parse(run, overrides);
        TaskRun::of::<CausalLanguageModel>(config.unwrap_or_else(|error| panic!("{error}")))
    }

    fn finish(&self, run: &str, overrides: &[&str]) -> Witness {
        let mut witness = Witness::default();
        let outcome = witness.run(&self.run(run, overrides), false);
        let outcome = outcome.unwrap_or_else(|error| panic!("{overrides:?}: {error}"));
        assert_eq!(outcome, Outcome::Finished);
        witness
    }

    /// The setting that names the adapter of a run.
    fn adapter(&self, run: &str) -> String {
        format!("model.adapter={}", self.path(run).join("adapter").display())
    }

    fn weights(&self, run: &str) -> Vec<u8> {
        fs::read(self.path(run).join("adapter/adapter_model.safetensors")).expect("weights")
    }

    /// `adapter_config.json` without what PEFT may choose to write in another order or by other names.
    fn settings(&self, run: &str) -> Value {
        let text = fs::read_to_string(self.path(run).join("adapter/adapter_config.json"));
        let mut json: Value = serde_json::from_str(&text.expect("a file")).expect("JSON");
        for key in [
            "target_modules",
            "layers_to_transform",
            "layers_pattern",
            "rank_pattern",
        ] {
            json.as_object_mut().expect("an object").remove(key);
        }
        json
    }

    fn loss(&self, run: &str, precision: reparam_train::config::Precision) -> f64 {
        let model = repository("assets/stories260K");
        let session = Session::open_with_adapter(
            model.to_str().expect("UTF-8"),
            &self.path(run).join("adapter"),
            &offline(),
            precision,
        );
        let session = session.expect("an adapter");
        let loss = evaluate_file(
            &session,
            self.path("held_out.txt"),
            &ReadOptions::default(),
            32,
            Stop::never(),
        );
        loss.expect("evaluates").primary()
    }
}

#[test]
fn a_run_goes_on_where_the_adapter_is() {
    use reparam_train::config::Precision::{Bf16, F32};
    for (precision, word) in [(F32, "f32"), (Bf16, "bf16")] {
        let precision_set = format!("train.precision={word}");
        for method in METHODS {
            let place = Place::new();
            let method = format!("method={method}");
            place.finish("first", &[&method, &precision_set]);
            let adapter = place.adapter("first");
            let second = place.finish("second", &[&adapter, &precision_set]);
            let finished = second.finished();
            assert_eq!(
                finished.before,
                Some(place.loss("first", precision)),
                "{method}"
            );
            assert_eq!(
                finished.after,
                Some(place.loss("second", precision)),
                "{method}"
            );
            assert!(
                place.weights("first") != place.weights("second"),
                "{method}"
            );
            assert_eq!(
                place.settings("first"),
                place.settings("second"),
                "{method}"
            );
        }
    }
}

/// PEFT adapts the output head of a model whose head is its embedding; the embedding stays as it is.
#[test]
fn an_adapter_of_a_tied_head_is_trained_on() {
    use reparam_train::config::Precision::{Bf16, F32};
    for (precision, word) in [(F32, "f32"), (Bf16, "bf16")] {
        let place = Place::new();
        let precision_set = format!("train.precision={word}");
        let method = "method={ kind = \"lora\", rank = 2, target_modules = [\"q_proj\"] }";
        place.finish("first", &[method, &precision_set]);
        let directory = place.path("first").join("adapter");
        let AdapterFiles {
            config,
            mut tensors,
        } = AdapterFiles::load(&directory).expect("an adapter");
        let mut config = config.map().clone();
        let targets = config["target_modules"].as_array_mut().expect("names");
        targets.push("lm_head".into());
        for (name, shape) in [("lora_A", [2, 64]), ("lora_B", [512, 2])] {
            let numbers = 0..shape[0] * shape[1];
            let tensor = Tensor {
                shape: shape.to_vec(),
                data: numbers.map(|i| 0.01 * (i as f32).sin()).collect(),
            };
            tensors.insert(format!("lm_head.{name}.weight"), tensor);
        }
        let adapter = AdapterFiles::new(config, tensors);
        adapter.save(&directory).expect("saves");

        let second = place.finish("second", &[&place.adapter("first"), &precision_set]);
        let finished = second.finished();
        assert_eq!(finished.before, Some(place.loss("first", precision)));
        assert_eq!(finished.after, Some(place.loss("second", precision)));
        assert!(place.weights("first") != place.weights("second"));
    }
}

#[test]
fn it_says_the_method_and_trains_as_many_numbers() {
    let place = Place::new();
    for (number, method) in METHODS.iter().enumerate() {
        let method = format!("method={method}");
        let (a, b) = (number.to_string(), format!("{number}-on"));
        let first = place.finish(&a, &[&method, "train.max_steps=1"]);
        let second = place.finish(&b, &[&place.adapter(&a), "train.max_steps=1"]);
        let (first, second) = (first.start(), second.start());
        assert_eq!(first.method, second.method);
        assert_eq!(first.targets, second.targets, "{method}");
        assert_eq!(first.scaling, second.scaling, "{method}");
        assert_eq!(
            first.trainable_parameters, second.trainable_parameters,
            "{method}"
        );
        // The resolved configuration is the same run.
        let resolved = fs::read_to_string(place.path(&b).join("config.resolved.toml"));
        let resolved = resolved.expect("a run file");
        assert!(!resolved.contains("[method]"), "{resolved}");
        assert_eq!(
            RunConfig::parse(&resolved, "config.resolved.toml", &[]).expect("a run file"),
            place
                .parse(&b, &[&place.adapter(&a), "train.max_steps=1"])
                .expect("a run file")
        );
    }
}

#[test]
fn it_goes_on_after_an_interruption_and_refuses_another_adapter() {
    let place = Place::new();
    place.finish(
        "first",
        &["method={ kind = \"lora\", rank = 2, dropout = 0.2 }"],
    );
    let adapter = place.adapter("first");
    place.finish("whole", &[&adapter]);
    let mut witness = Witness {
        stop_at: Some(1),
        ..Witness::default()
    };
    let run = place.run("stopped", &[&adapter]);
    let outcome = witness.run(&run, false).expect("it ends well");
    assert_eq!(outcome, Outcome::Interrupted { step: 1 });

    let config = place.path("first/adapter/adapter_config.json");
    let text = fs::read_to_string(&config).expect("a file");
    fs::write(&config, format!("{text} ")).expect("writes");
    let error = Witness::default()
        .run(&run, true)
        .expect_err("another adapter");
    assert!(
        matches!(&error, TrainError::ResumeDiffers { what, .. } if what == "the adapter"),
        "{error}"
    );
    fs::write(&config, text).expect("writes");
    let mut witness = Witness::default();
    witness.run(&run, true).expect("it goes on");
    assert!(witness.events.contains(&Event::Resumed { step: 1 }));
    assert!(place.weights("stopped") == place.weights("whole"));
}

#[test]
fn a_method_beside_an_adapter_is_refused_by_name() {
    let place = Place::new();
    let error = place.parse("run", &["model.adapter=a", "method.rank=4"]);
    let error = error.expect_err("a conflict");
    assert!(error.contains("`rank` in [method]"), "{error}");
    assert!(error.contains("`adapter` in [model]"), "{error}");
    let run = place.run("run", &["model.adapter=nowhere"]);
    let error = Witness::default()
        .run(&run, false)
        .expect_err("no such adapter");
    assert!(matches!(error, TrainError::NoSuchAdapter { .. }), "{error}");
    assert!(!place.path("run").exists());
}
