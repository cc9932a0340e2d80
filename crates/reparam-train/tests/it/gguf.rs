//! Files for llama.cpp, against what llama.cpp computed from the same files.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_formats::checkpoint::sha256_file;
use reparam_formats::gguf::GgufDtype;
use reparam_models::TokenBatch;
use reparam_train::config::Precision;
use reparam_train::convert::{GgufReport, GgufRequest, adapter_to_gguf, model_to_gguf};
use reparam_train::{DataRequest, ModelRequest, Session, Stop};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::{offline, repository};

/// Both are f32 through a few layers, with sums in other orders, and angles that llama.cpp has in f32; relative to the largest logit.
const F32: f64 = 2e-5;
/// llama.cpp looks GELU up in a table of f16.
const GELU: f64 = 1e-3;
/// With weights rounded to f16 or bf16, which the golden logits have and ours do not.
const HALF: f64 = 2e-2;
/// With weights of 8 bits.
const EIGHT_BITS: f64 = 5e-2;

fn golden(name: &str) -> Value {
    let path = repository("testdata/golden/gguf").join(name);
    let text = std::fs::read_to_string(path).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

fn tokens(of: &Value) -> Vec<u32> {
    let tokens = of["tokens"].as_array().expect("tokens").iter();
    tokens
        .map(|id| id.as_u64().expect("an id") as u32)
        .collect()
}

/// The largest difference of our logits from golden ones, relative to the largest of these.
fn difference(request: &ModelRequest, golden: &Value) -> f64 {
    let request = request.clone().with_precision(Precision::F32);
    let session = Session::open_request(&request, &offline()).expect("a model");
    let ids = tokens(golden);
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let batch = TokenBatch {
        input_ids: &ids,
        position_ids: &positions,
        bounds: &[0, ids.len()],
    };
    let logits: Tensor<2> = session.model.logits(batch, &ForwardContext::inference());
    let ours: Vec<f64> = logits.into_data().iter::<f64>().collect();
    let rows = golden["logits"].as_array().expect("rows").iter();
    let theirs: Vec<f64> = rows
        .flat_map(|row| row.as_array().expect("a row").iter())
        .map(|value| value.as_f64().expect("a number"))
        .collect();
    // Of some there are the last positions alone.
    let ours = &ours[ours.len() - theirs.len()..];
    let most = theirs
        .iter()
        .fold(0.0_f64, |most, value| most.max(value.abs()));
    let differences = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max) / most
}

/// The model of a family with the changes of a case, in a directory that has the name that is in the file.
fn model_of(place: &TempDir, family: &str, case: &Value) -> PathBuf {
    let directory = place.path().join("model");
    std::fs::create_dir(&directory).expect("a directory");
    let from = match case["from"].as_str() {
        Some(from) => repository(from),
        None => repository("testdata/golden/families").join(family),
    };
    for name in ["model.safetensors", "generation_config.json"] {
        std::fs::copy(from.join(name), directory.join(name)).expect("copies");
    }
    let tokenizer = repository("testdata/golden/gguf/tokenizer.json");
    std::fs::copy(tokenizer, directory.join("tokenizer.json")).expect("copies");
    let text = std::fs::read_to_string(from.join("config.json")).expect("a configuration");
    let mut config: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    if let Some(changes) = case["config"].as_object() {
        config.extend(changes.clone());
    }
    let text = Value::Object(config).to_string();
    std::fs::write(directory.join("config.json"), text).expect("writes");
    directory
}

fn request(directory: &Path) -> ModelRequest {
    ModelRequest::new(directory.display().to_string())
}

fn digest(path: &Path) -> String {
    sha256_file(path).expect("a file")
}

#[test]
fn llama_cpp_computes_every_family_as_we_do() {
    let (cases, golden) = (golden("cases.json"), golden("logits.json"));
    let families = golden["families"].as_object().expect("families");
    assert!(families.len() >= 14);
    for (family, logits) in families {
        let place = tempfile::tempdir().expect("a directory");
        let directory = model_of(&place, family, &cases[family]);
        let file = place.path().join("model.gguf");
        let request = request(&directory);
        let dtype = Some(GgufDtype::F32);
        let asked = GgufRequest::new(request.clone(), dtype);
        let report = model_to_gguf(&asked, &file, &offline(), Stop::never()).expect(family);
        // Gemma's norms are of one more, which f32 rounds.
        let worst = report.worst().map_or(0.0, |of| of.relative_error);
        assert!(worst < 2.0_f64.powi(-24), "{family}: {worst:e}");
        // The file is the one that llama.cpp read.
        assert_eq!(digest(&file), logits["sha256"], "{family}");
        let text = std::fs::read_to_string(directory.join("config.json")).expect("text");
        let bound = if text.contains("gelu") { GELU } else { F32 };
        let difference = difference(&request, logits);
        assert!(difference <= bound, "{family}: {difference:e}");
    }
}

/// The beginning of the built-in text.
fn shakespeare(place: &TempDir) -> PathBuf {
    let text = std::fs::read_to_string(repository("assets/tinyshakespeare.txt")).expect("text");
    let path = place.path().join("held-out.txt");
    std::fs::write(&path, &text[..4000]).expect("writes");
    path
}

/// What is said of rounding, against what the type can do.
fn check_cost(report: &GgufReport, word: &str) {
    let agreement = report.agreement.as_ref().expect("a comparison");
    let worst = report.worst().map_or(0.0, |of| of.relative_error);
    let (least, most, kl) = match report.dtype {
        GgufDtype::F32 => (0.0, 0.0, 0.0),
        // Half a unit of the last place of 11 and of 8 bits.
        GgufDtype::F16 => (1e-5, 2.0_f64.powi(-11), 1e-5),
        GgufDtype::BF16 => (1e-4, 2.0_f64.powi(-8), 1e-3),
        GgufDtype::Q8_0 => (1e-3, 1e-2, 1e-3),
    };
    assert!((least..=most).contains(&worst), "{word}: {worst:e}");
    assert!((0.0..=kl).contains(&agreement.kl), "{word}: {agreement:?}");
    assert_eq!(agreement.kl > 0.0, word != "f32", "{word}: {agreement:?}");
    let gap = (agreement.loss - agreement.merged_loss).abs();
    assert!(gap <= kl.sqrt(), "{word}: {agreement:?}");
    assert!(agreement.tokens > 1000 && agreement.loss < 6.0, "{word}");
    for tensor in &report.tensors {
        // One number a row or fewer stays as it is.
        let is_vector = tensor.name.contains("norm");
        assert_eq!(
            is_vector || word == "f32",
            tensor.max_error == 0.0,
            "{word}: {tensor:?}"
        );
        assert!(tensor.mean_error <= tensor.max_error, "{word}: {tensor:?}");
    }
}

#[test]
fn llama_cpp_computes_the_built_in_model_in_every_type() {
    let golden = golden("logits.json");
    let request = request(&repository("assets/stories260K"));
    for (word, dtype) in GgufDtype::WORDS {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("model.gguf");
        let asked = GgufRequest {
            data: Some(DataRequest::new(shakespeare(&place))),
            ..GgufRequest::new(request.clone(), Some(dtype))
        };
        let report = model_to_gguf(&asked, &file, &offline(), Stop::never()).expect(word);
        assert!(!place.path().join("model.gguf.rounded").exists());
        check_cost(&report, word);
        let logits = &golden["types"][word];
        assert_eq!(digest(&file), logits["sha256"], "{word}");
        let bound = match dtype {
            GgufDtype::F32 => F32,
            GgufDtype::F16 | GgufDtype::BF16 => HALF,
            GgufDtype::Q8_0 => EIGHT_BITS,
        };
        let difference = difference(&request, logits);
        assert!(difference <= bound, "{word}: {difference:e}");
    }
}

#[test]
fn llama_cpp_applies_an_adapter_as_we_do() {
    let golden = golden("logits.json");
    let base = repository("assets/stories260K");
    for (name, logits) in golden["adapters"].as_object().expect("adapters") {
        let adapter = repository("testdata/golden/peft").join(name);
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("adapter.gguf");
        let request = request(&base);
        let dtype = GgufDtype::F32;
        let hub = offline();
        adapter_to_gguf(&adapter, Some(&request), dtype, &file, &request, &hub).expect(name);
        assert_eq!(digest(&file), logits["sha256"], "{name}");
        let with_adapter = request.clone().with_adapter(&adapter);
        let with_adapter = difference(&with_adapter, logits);
        assert!(with_adapter <= F32, "{name}: {with_adapter:e}");
        // The adapter shows in the logits.
        assert!(difference(&request, logits) > 100.0 * F32, "{name}");
    }
}

#[test]
fn llama_cpp_cuts_texts_as_we_do() {
    let golden = golden("logits.json");
    let base = repository("assets/stories260K");
    let hub = offline();
    let session =
        Session::open(&base.display().to_string(), &hub, Precision::F32).expect("a model");
    for case in golden["texts"].as_array().expect("texts") {
        let text = case["text"].as_str().expect("a text");
        let ours = session.tokenizer.encode(text, true).expect("tokens");
        assert_eq!(ours, tokens(case), "{text:?}");
    }
}
