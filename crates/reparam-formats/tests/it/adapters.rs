//! Adapter directories as other programs write them, over a base.

use std::collections::BTreeMap;
use std::path::Path;

use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::peft::{AdapterFiles, PeftError, Tensor};
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};
use serde_json::{Value, json};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn write(path: &Path, tensors: &Tensors) {
    let tensors: Vec<TensorToWrite<'_>> = tensors
        .iter()
        .map(|(name, (shape, values))| TensorToWrite::f32(name, shape, values))
        .collect();
    write_safetensors(path, &tensors, &BTreeMap::new()).unwrap();
}

/// Writes an adapter and reads it.
fn load(names: &[(&str, f32)], config: &Value) -> Result<AdapterFiles, PeftError> {
    let directory = tempfile::tempdir().unwrap();
    let tensors = names
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (vec![2, 2], vec![*value; 4])));
    write(
        &directory.path().join("adapter_model.safetensors"),
        &tensors.collect(),
    );
    let path = directory.path().join("adapter_config.json");
    std::fs::write(path, config.to_string()).unwrap();
    AdapterFiles::load(directory.path())
}

fn names(files: &AdapterFiles) -> Vec<&str> {
    files.tensors.keys().map(String::as_str).collect()
}

const A: &str = "base_model.model.model.q_proj.lora_A.weight";

#[test]
fn the_name_of_the_adapter_in_names_is_left_out() {
    let config = json!({"peft_type": "LORA"});
    let found = load(
        &[("base_model.model.model.q_proj.lora_A.default.weight", 1.0)],
        &config,
    );
    assert_eq!(names(&found.unwrap()), ["model.q_proj.lora_A.weight"]);
    // A module may have the same name.
    for (stored, expected) in [
        (
            "m.default.q_proj.lora_A.weight",
            "m.default.q_proj.lora_A.weight",
        ),
        (
            "m.default.q_proj.lora_A.default.weight",
            "m.default.q_proj.lora_A.weight",
        ),
        ("m.default.lora_A.default.weight", "m.default.lora_A.weight"),
        ("m.default.ia3_l.default", "m.default.ia3_l"),
        ("default.weight", "default.weight"),
    ] {
        let found = load(&[(&format!("base_model.model.{stored}"), 1.0)], &config);
        assert_eq!(names(&found.unwrap()), [expected], "{stored}");
    }
    let twice = [
        (A, 1.0),
        ("base_model.model.model.q_proj.lora_A.default.weight", 2.0),
    ];
    let error = load(&twice, &config).unwrap_err();
    assert!(
        matches!(error, PeftError::UnexpectedTensor { .. }),
        "{error}"
    );
}

#[test]
fn copies_of_the_base_are_left_out_if_they_are_its_own() {
    let base = tempfile::tempdir().unwrap();
    let table = (vec![2, 2], vec![7.0; 4]);
    let path = base.path().join("model.safetensors");
    write(
        &path,
        &Tensors::from([("model.embed_tokens.weight".to_owned(), table)]),
    );
    let base = Checkpoint::open(base.path()).unwrap();
    let tied = [("lm_head.weight", "model.embed_tokens.weight")];
    let config = json!({"peft_type": "LORA"});
    let saved = json!({"peft_type": "LORA", "modules_to_save": ["lm_head", "embed_tokens"]});
    let head = "base_model.model.lm_head.base_layer.weight";
    let copy = "base_model.model.lm_head.weight";
    let table = "base_model.model.model.embed_tokens.weight";
    let over = |extra: (&str, f32), config: &Value, tied: &[(&str, &str)]| {
        load(&[(A, 1.0), extra], config).unwrap().over(&base, tied)
    };
    for name in [head, copy, table] {
        let found = over((name, 7.0), &config, &tied).unwrap();
        assert_eq!(names(&found), ["model.q_proj.lora_A.weight"], "{name}");
        let error = over((name, 8.0), &config, &tied).unwrap_err();
        let expected = "that of the base is another";
        assert!(error.to_string().ends_with(expected), "{name}: {error}");
    }
    // What is trained is no copy, and what the base does not have cannot be compared.
    let found = over((table, 8.0), &saved, &tied).unwrap();
    assert!(found.tensors.contains_key("model.embed_tokens.weight"));
    let error = over((head, 7.0), &config, &[]).unwrap_err();
    assert!(
        error.to_string().ends_with("but the base has none"),
        "{error}"
    );
    let tensor = |value: f32| Tensor {
        shape: vec![2, 2],
        data: vec![value; 4],
    };
    let found = over((copy, 7.0), &config, &[]).unwrap();
    assert_eq!(found.tensors["lm_head.weight"], tensor(7.0));
}
