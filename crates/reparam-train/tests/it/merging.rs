//! Merged models beside the adapters that they are made of.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::peft::AdapterFiles;
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};
use reparam_models::TokenBatch;
use reparam_train::config::Precision;
use reparam_train::merge::{MergeError, MergeReport, MergeRequest, merge};
use reparam_train::{DataRequest, ModelRequest, Session, Stop, TrainError};
use tempfile::TempDir;

use crate::{names, offline, repository};

/// Both are f32 and sum in other orders; relative to the largest logit.
const LOGITS: f64 = 2e-6;

/// The base of an adapter, with a tokenizer where it has none.
fn base_of(adapter: &Path, place: &TempDir) -> PathBuf {
    let config = AdapterFiles::load_config(adapter).expect("a configuration");
    let base = config
        .str("base_model_name_or_path")
        .expect("text")
        .expect("a base");
    let from = repository(base);
    if from.join("tokenizer.json").exists() {
        return from;
    }
    let tokenizer = "testdata/golden/gguf/tokenizer.json";
    let directory = place.path().join("base");
    std::fs::create_dir(&directory).expect("a directory");
    for name in names(&from) {
        std::fs::copy(from.join(&name), directory.join(&name)).expect("copies");
    }
    std::fs::copy(repository(tokenizer), directory.join("tokenizer.json")).expect("copies");
    directory
}

fn request(directory: &Path) -> ModelRequest {
    ModelRequest::new(directory.display().to_string()).with_precision(Precision::F32)
}

fn asked(base: &Path, adapters: &[&Path]) -> MergeRequest {
    let adapters = adapters.iter().map(|path| (path.to_path_buf(), 1.0));
    MergeRequest::new(request(base), adapters.collect())
}

fn merged(request: &MergeRequest, output: &Path) -> MergeReport {
    merge(request, output, &offline(), Stop::never()).unwrap_or_else(|error| panic!("{error}"))
}

fn logits(request: &ModelRequest) -> Vec<f64> {
    let session = Session::open_request(request, &offline()).expect("a model");
    let ids: Vec<u32> = (0..20).map(|place| (7 * place + 11) % 60 + 5).collect();
    let positions: Vec<u32> = (0..20).collect();
    let batch = TokenBatch {
        input_ids: &ids,
        position_ids: &positions,
        bounds: &[0, 20],
    };
    let logits: Tensor<2> = session.model.logits(batch, &ForwardContext::inference());
    logits.into_data().iter::<f64>().collect()
}

/// The largest difference, relative to the largest of the second.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let most = b.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max) / most
}

#[test]
fn a_merged_model_is_its_adapter_for_every_method_and_base() {
    let mut checked = 0;
    for place in ["testdata/golden/peft", "testdata/golden/methods"] {
        for name in names(&repository(place)) {
            let adapter = repository(place).join(&name);
            if !adapter.join("adapter_config.json").exists() {
                continue;
            }
            let place = tempfile::tempdir().expect("a directory");
            let base = base_of(&adapter, &place);
            let output = place.path().join("merged");
            let report = merged(&asked(&base, &[&adapter]), &output);
            let expected = logits(&request(&base).with_adapter(&adapter));
            let found = logits(&request(&output));
            let difference = difference(&found, &expected);
            assert!(difference <= LOGITS, "{name}: {difference:e}");
            // In f32 what is lost is below what changed, and only that is reported.
            assert!(!report.layers.is_empty(), "{name}");
            for layer in &report.layers {
                assert_eq!(layer.dtype, "F32");
                assert!(
                    layer.max_error <= 1e-6 && layer.max_change > 0.0,
                    "{name}: {layer:?}"
                );
            }
            checked += 1;
        }
    }
    assert!(checked >= 14, "{checked}");
}

#[test]
fn merged_experts_are_their_adapter() {
    for family in ["mixtral", "qwen2_moe", "qwen3_moe"] {
        let adapter = repository(&format!("testdata/golden/families/{family}.adapter"));
        let place = tempfile::tempdir().expect("a directory");
        let base = base_of(&adapter, &place);
        let output = place.path().join("merged");
        merged(&asked(&base, &[&adapter]), &output);
        let plain = logits(&request(&base));
        let expected = logits(&request(&base).with_adapter(&adapter));
        let found = logits(&request(&output));
        let error = difference(&found, &expected);
        assert!(error <= LOGITS, "{family}: {error:e}");
        assert!(difference(&plain, &expected) > 1e-3, "{family}");
    }
}

/// A shape and numbers.
type Stored = (Vec<usize>, Vec<f32>);

#[test]
fn experts_in_other_shapes_are_refused() {
    let adapter = repository("testdata/golden/families/mixtral.adapter");
    let name = "model.layers.1.block_sparse_moe.experts.3.w1.weight";
    let error = |change: fn(Stored) -> Option<Stored>| {
        let place = tempfile::tempdir().expect("a directory");
        let base = base_of(&adapter, &place);
        let checkpoint = Checkpoint::open(&base).expect("a checkpoint");
        let stored = checkpoint.tensors().filter_map(|(own, tensor)| {
            let values = tensor.to_f32_vec().expect("numbers");
            let values = (tensor.shape.to_vec(), values);
            let values = match own == name {
                true => change(values)?,
                false => values,
            };
            Some((own.to_owned(), values))
        });
        let stored: Vec<(String, Stored)> = stored.collect();
        let tensors: Vec<TensorToWrite<'_>> = stored
            .iter()
            .map(|(name, (shape, values))| TensorToWrite::f32(name, shape, values))
            .collect();
        let path = base.join("model.safetensors");
        write_safetensors(&path, &tensors, &Default::default()).expect("writes");
        let output = place.path().join("merged");
        let asked = asked(&base, &[&adapter]);
        merge(&asked, &output, &offline(), Stop::never()).expect_err("it does not fit")
    };
    let turned = error(|(shape, values)| Some((vec![shape[1], shape[0]], values)));
    let TrainError::Merge(MergeError::Shape { name: of, base, .. }) = &turned else {
        panic!("{turned}");
    };
    assert_eq!((of.as_str(), base.as_slice()), (name, &[32, 24][..]));
    let short = error(|(shape, values)| {
        let rest = values[shape[1]..].to_vec();
        Some((vec![shape[0] - 1, shape[1]], rest))
    });
    assert!(
        matches!(short, TrainError::Merge(MergeError::Shape { .. })),
        "{short}"
    );
    let gone = error(|_| None);
    let TrainError::Merge(MergeError::Incomplete { name }) = &gone else {
        panic!("{gone}");
    };
    assert_eq!(name, "model.layers.1.mlp.experts.gate_up_proj");
}

#[test]
fn what_does_not_change_keeps_its_bytes() {
    let base = repository("assets/stories260K");
    let adapter = repository("testdata/golden/peft/plain");
    let place = tempfile::tempdir().expect("a directory");
    let output = place.path().join("merged");
    let request = MergeRequest {
        shard_size: 300_000,
        ..asked(&base, &[&adapter])
    };
    let report = merged(&request, &output);
    assert!(report.files.len() > 1);
    let (before, after) = (
        Checkpoint::open(&base).expect("the base"),
        Checkpoint::open(&output).expect("shards and their index"),
    );
    let changed: Vec<&str> = report
        .layers
        .iter()
        .map(|layer| layer.name.as_str())
        .collect();
    for (name, tensor) in before.tensors() {
        let same = tensor.bytes().expect("bytes")
            == after.require(name).expect(name).bytes().expect("bytes");
        assert_eq!(same, !changed.contains(&name), "{name}");
    }
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        let [a, b] = [&base, &output].map(|directory| std::fs::read(directory.join(name)));
        assert_eq!(a.expect(name), b.expect(name), "{name}");
    }
}

#[test]
fn a_smaller_type_is_said_and_compared() {
    let base = repository("assets/stories260K");
    let adapter = repository("testdata/golden/peft/rslora");
    let place = tempfile::tempdir().expect("a directory");
    let text = place.path().join("text.txt");
    std::fs::write(
        &text,
        "Once upon a time, there was a little girl named Lily.",
    )
    .expect("writes");
    let output = place.path().join("merged");
    let request = MergeRequest {
        dtype: Some(Dtype::BF16),
        data: Some(DataRequest::new(&text)),
        ..asked(&base, &[&adapter])
    };
    let report = merged(&request, &output);
    let agreement = report.agreement.expect("a comparison");
    assert!(
        agreement.tokens > 10 && agreement.kl > 0.0 && agreement.kl < 0.01,
        "{agreement:?}"
    );
    assert!(agreement.max_kl >= agreement.kl);
    assert!(
        (agreement.loss - agreement.merged_loss).abs() < 0.05,
        "{agreement:?}"
    );
    let config = std::fs::read_to_string(output.join("config.json")).expect("text");
    assert!(config.contains("\"dtype\": \"bfloat16\""), "{config}");
    assert!(
        report
            .layers
            .iter()
            .all(|layer| layer.dtype == "BF16" && layer.mean_error > 0.0)
    );
    // A bound that bf16 does not keep: nothing is written.
    let strict = MergeRequest {
        max_kl: Some(agreement.kl / 2.0),
        ..request
    };
    let output = place.path().join("refused");
    let error = merge(&strict, &output, &offline(), Stop::never()).expect_err("it diverges");
    assert!(
        matches!(error, TrainError::Merge(MergeError::TooFar { .. })),
        "{error}"
    );
    assert!(!output.exists());
}

#[test]
fn changes_of_several_adapters_are_added_with_their_factors() {
    let base = repository("assets/stories260K");
    let [a, b] = ["plain", "rslora"].map(|name| repository("testdata/golden/peft").join(name));
    let place = tempfile::tempdir().expect("a directory");
    let weight = |output: &str, adapters: Vec<(PathBuf, f64)>| -> Vec<f64> {
        let output = place.path().join(output);
        let request = MergeRequest {
            dtype: Some(Dtype::F32),
            ..MergeRequest::new(request(&base), adapters)
        };
        merged(&request, &output);
        let checkpoint = Checkpoint::open(&output).expect("a model");
        let tensor = checkpoint
            .require("model.layers.0.self_attn.q_proj.weight")
            .expect("a weight");
        tensor
            .to_f32_vec()
            .expect("numbers")
            .into_iter()
            .map(f64::from)
            .collect()
    };
    let of_none = weight("none", Vec::new());
    let of_a = weight("a", vec![(a.clone(), 1.0)]);
    let of_b = weight("b", vec![(b.clone(), 1.0)]);
    let of_both = weight("both", vec![(a, 0.5), (b, -2.0)]);
    for (index, found) in of_both.iter().enumerate() {
        let w = of_none[index];
        let expected = w + 0.5 * (of_a[index] - w) - 2.0 * (of_b[index] - w);
        assert!(
            (found - expected).abs() < 1e-6,
            "{index}: {found} {expected}"
        );
    }
}

/// What PEFT has no place for goes on in `config.json`, labels under transformers' keys.
#[test]
fn a_merged_model_says_what_its_adapter_is_for() {
    let base = repository("assets/stories260K");
    let place = tempfile::tempdir().expect("a directory");
    let adapter = place.path().join("adapter");
    std::fs::create_dir(&adapter).expect("a directory");
    let plain = repository("testdata/golden/peft/plain");
    for name in names(&plain) {
        std::fs::copy(plain.join(&name), adapter.join(&name)).expect("copies");
    }
    let config = |output: &str| -> serde_json::Value {
        let path = place.path().join(output).join("config.json");
        serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
    };
    merged(&asked(&base, &[&adapter]), &place.path().join("without"));
    assert!(config("without").get("reparam").is_none());
    let card =
        r#"{"task": "causal-lm", "format": "alpaca", "labels": ["a", "b"], "problem_type": "p"}"#;
    std::fs::write(adapter.join("reparam.json"), card).expect("writes");
    merged(
        &asked(&base, &[&plain, &adapter]),
        &place.path().join("with"),
    );
    let found = config("with");
    assert_eq!(found["reparam"]["task"], "causal-lm");
    assert_eq!(found["reparam"]["format"], "alpaca");
    assert_eq!(found["id2label"], serde_json::json!({"0": "a", "1": "b"}));
    assert_eq!(found["label2id"], serde_json::json!({"a": 0, "b": 1}));
    assert_eq!(found["problem_type"], "p");
    std::fs::write(adapter.join("reparam.json"), "[").expect("writes");
    let damaged = asked(&base, &[&adapter]);
    let error = merge(
        &damaged,
        &place.path().join("none"),
        &offline(),
        Stop::never(),
    );
    assert!(matches!(error, Err(TrainError::Card { .. })), "{error:?}");
}

#[test]
fn what_cannot_be_merged_writes_nothing() {
    let base = repository("assets/stories260K");
    let place = tempfile::tempdir().expect("a directory");
    let output = place.path().join("merged");
    let of_gpt2 = repository("testdata/golden/methods/gpt2_lora");
    let plain = repository("testdata/golden/peft/plain");
    let refused = |request: &MergeRequest| {
        merge(request, &output, &offline(), Stop::never())
            .expect_err("refused")
            .to_string()
    };
    let other = refused(&asked(&base, &[&of_gpt2]));
    assert!(other.contains("no such linear layers"), "{other}");
    let mut request = asked(&base, &[&plain]);
    request.adapters[0].1 = f64::NAN;
    assert!(refused(&request).contains("NaN"));
    // Nor is a model written beside another's files.
    let taken = place.path().join("taken");
    std::fs::create_dir(&taken).expect("a directory");
    std::fs::write(taken.join("model.safetensors"), "").expect("writes");
    let request = asked(&base, &[&plain]);
    let error = merge(&request, &taken, &offline(), Stop::never()).expect_err("taken");
    assert!(error.to_string().contains("is there already"), "{error}");
    std::fs::remove_dir_all(&taken).expect("removes");
    let missing = place.path().join("nothing");
    assert!(refused(&asked(&base, &[&missing])).contains("nothing"));
    let mut request = asked(&base, &[&plain, &plain]);
    request.data = Some(DataRequest::new(repository("assets/tinyshakespeare.txt")));
    assert!(refused(&request).contains("one adapter"));
    assert!(!output.exists());
    assert!(names(place.path()).is_empty());
}
