//! The forward pass against `transformers`.

use burn::tensor::Device;
use reparam::ForwardContext;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;

use super::{
    Documents, STORIES, describe, floats, golden, golden_json, golden_tensors, in_f64, integers,
    load, max_difference, repository, values,
};
use crate::{CausalLm, Families, ModelError};

/// Logits are of size ten, and `transformers` in `f32` is itself up to 1.5e-5 from `f64`.
const TOLERANCE: f64 = 1e-4;

/// Compares the logits of every row of a golden file; returns the largest difference.
fn compare(model: &CausalLm, file: &str) -> f64 {
    let file = golden_tensors(file);
    let shape = file.require("logits").expect("logits").shape.to_vec();
    let [rows, length, vocab] = shape[..] else {
        panic!("{shape:?}");
    };
    assert_eq!(model.vocab_size(), vocab);
    let ids: Vec<u32> = integers(&file, "input_ids")
        .into_iter()
        .map(|id| id as u32)
        .collect();
    assert_eq!(ids.len(), rows * length);
    let expected = floats(&file, "logits");
    // All rows at once: what one row sees must not depend on the others.
    let documents = Documents::new(ids.chunks(length));
    let found = model.logits(documents.batch(), &ForwardContext::inference());
    max_difference(&values(&found), &expected)
}

#[test]
fn logits_of_stories260k() {
    let difference = compare(&load(STORIES), "logits.safetensors");
    assert!(difference <= TOLERANCE, "{difference:e}");
}

#[test]
fn logits_in_f64_are_as_far_from_the_golden_ones_as_these_are_from_exact() {
    let golden_error = golden_json("logits.json")["max_abs_difference_to_f64"]
        .as_f64()
        .expect("a number");
    let difference = compare(&in_f64(load(STORIES)), "logits.safetensors");
    // The frequencies and angles of the rotary embedding stay in `f32` here, and so does its own
    // rounding; without it both numbers would be equal.
    assert!(
        difference <= 3.0 * golden_error,
        "{difference:e} {golden_error:e}"
    );
}

const VARIANTS: [&str; 5] = [
    "untied_bias",
    "llama3_rope",
    "linear_rope",
    "bf16_sharded",
    "f16",
];

#[test]
fn logits_of_every_variant() {
    for name in VARIANTS {
        let model = load(&format!("testdata/golden/variants/{name}"));
        let difference = compare(&model, &format!("variants/{name}.logits.safetensors"));
        assert!(difference <= TOLERANCE, "{name}: {difference:e}");
    }
}

#[test]
fn older_configurations_mean_the_same() {
    for name in ["llama3_rope", "linear_rope"] {
        let directory = golden("variants").join(name);
        let path = golden("variants").join(format!("{name}.legacy_config.json"));
        let text = std::fs::read_to_string(&path).expect("the golden file is in the repository");
        let json = ModelJson::parse(&path, &text).expect("a configuration");
        let checkpoint = Checkpoint::open(&directory).expect("a checkpoint");
        let model = CausalLm::load(
            &checkpoint,
            describe(&json),
            &Device::flex(),
            crate::Precision::F32,
        )
        .expect("a model");
        let difference = compare(&model, &format!("variants/{name}.logits.safetensors"));
        assert!(difference <= TOLERANCE, "{name}: {difference:e}");
    }
}

fn config_with(change: impl Fn(&mut serde_json::Value)) -> ModelJson {
    let path = repository(STORIES).join("config.json");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    let mut json = serde_json::from_str(&text).expect("JSON");
    change(&mut json);
    ModelJson::parse(&path, &json.to_string()).expect("a configuration")
}

fn load_error(config: &ModelJson) -> ModelError {
    let checkpoint = Checkpoint::open(&repository(STORIES)).expect("a checkpoint");
    let load = |architecture| {
        let device = Device::flex();
        CausalLm::load(&checkpoint, architecture, &device, crate::Precision::F32)
    };
    let architecture = Families::builtin().describe(config);
    architecture.and_then(load).expect_err("it does not fit")
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let error = load_error(&config_with(|json| json["model_type"] = "rwkv".into()));
    assert!(
        matches!(&error, ModelError::UnsupportedFamily { found, supported }
            if found == "rwkv" && supported == &Families::builtin().model_types()),
        "{error}"
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("llama")));
    let error = load_error(&config_with(|json| json["hidden_act"] = "mish".into()));
    assert!(
        matches!(&error, ModelError::UnsupportedSetting { setting: "hidden_act", found, .. }
            if found == "mish"),
        "{error}"
    );
}

#[test]
fn a_checkpoint_of_another_shape_is_refused_with_every_tensor() {
    let error = load_error(&config_with(|json| json["num_hidden_layers"] = 6.into()));
    let message = error.to_string();
    assert!(message.contains("model.layers.5."), "{message}");
    let error = load_error(&config_with(|json| json["num_hidden_layers"] = 4.into()));
    let message = error.to_string();
    assert!(message.contains("model.layers.4."), "{message}");
    let error = load_error(&config_with(|json| json["intermediate_size"] = 170.into()));
    let message = error.to_string();
    assert!(
        message.contains("mlp.") && message.contains("172"),
        "{message}"
    );
}

/// The greatest f32 numbers are nearer to what follows the greatest bf16 number than to that.
#[test]
fn a_weight_beyond_bf16_is_refused_where_it_is_rounded() {
    let name = "model.layers.1.mlp.up_proj.weight";
    let directory = tempfile::tempdir().expect("a temporary directory");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(repository(STORIES).join(file), directory.path().join(file)).expect("copies");
    }
    let path = directory.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("reads");
    let header_len = u64::from_le_bytes(*bytes.first_chunk().expect("a header")) as usize;
    let header: serde_json::Value =
        serde_json::from_slice(&bytes[8..8 + header_len]).expect("JSON");
    let start = header[name]["data_offsets"][0].as_u64().expect("an offset") as usize;
    let element = 8 + header_len + start + 4 * 70;
    let config = config_with(|_| ());
    let mut load = |value: f32, precision| {
        bytes[element..element + 4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, &bytes).expect("writes");
        let checkpoint = Checkpoint::open(directory.path()).expect("a checkpoint");
        CausalLm::load(&checkpoint, describe(&config), &Device::flex(), precision).map(|_| ())
    };
    let greatest = f32::from_bits(0x7f7f_8000);
    for precision in [crate::Precision::Bf16, crate::Precision::Int8] {
        load(greatest.next_down(), precision).expect("it is rounded to a number");
        let error = load(-greatest, precision).expect_err("it is rounded to infinity");
        let ModelError::BeyondBf16 {
            name: found,
            index,
            value,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((found.as_str(), *index, *value), (name, 70, -greatest));
        assert!(error.hint().is_some_and(|hint| hint.contains("f32")));
    }
    load(greatest, crate::Precision::F32).expect("f32 holds it");
}
