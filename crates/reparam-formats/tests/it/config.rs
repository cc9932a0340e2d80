use std::fs;
use std::path::Path;

use proptest::prelude::*;
use reparam_formats::FormatError;
use reparam_formats::config::{
    ConfigError, GenerationConfig, ModelConfig, RopeParameters, RopeScaling,
};
use serde_json::{Value, json};

/// A configuration with the required keys only.
fn minimal() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
        "num_hidden_layers": 5, "num_attention_heads": 8, "vocab_size": 512
    })
}

fn parse(value: &Value) -> Result<ModelConfig, ConfigError> {
    ModelConfig::parse(Path::new("dir/config.json"), &value.to_string())
}

/// Parses the minimal configuration with some keys replaced.
fn with(changes: Value) -> Result<ModelConfig, ConfigError> {
    let mut value = minimal();
    for (key, change) in changes.as_object().unwrap() {
        value[key] = change.clone();
    }
    parse(&value)
}

#[test]
fn the_built_in_model_is_read() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K");
    let config = ModelConfig::load(&directory).unwrap();
    assert_eq!(config.architectures, ["LlamaForCausalLM"]);
    assert_eq!(
        (config.num_attention_heads, config.num_key_value_heads),
        (8, 4)
    );
    assert_eq!((config.head_dim, config.max_position_embeddings), (8, 512));
    assert_eq!(config.rms_norm_eps, 1e-5);
    assert!(config.tie_word_embeddings);
    assert_eq!(config.pad_token_id, None);
    assert_eq!(
        config.rope,
        RopeParameters {
            theta: 10_000.0,
            scaling: RopeScaling::Default
        }
    );
    assert_eq!(config.raw().f64("initializer_range").unwrap(), Some(0.02));
    let generation = GenerationConfig::load(&directory).unwrap().unwrap();
    assert_eq!(generation.eos_token_ids, [2]);
}

#[test]
fn defaults_are_those_of_llama() {
    let config = parse(&minimal()).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (8, 8));
    assert_eq!(
        (config.rms_norm_eps, config.max_position_embeddings),
        (1e-6, 2048)
    );
    assert_eq!(config.hidden_act, "silu");
    assert!(!config.attention_bias && !config.mlp_bias && !config.tie_word_embeddings);
    assert_eq!(config.bos_token_id, Some(1));
    assert_eq!(config.eos_token_ids, [2]);
    assert_eq!(config.pad_token_id, None);
    assert_eq!(config.rope.theta, 10_000.0);
}

#[test]
fn null_means_none_and_lists_are_read() {
    let config = with(json!({
        "bos_token_id": null, "eos_token_id": [3, 5], "pad_token_id": -1,
        "head_dim": null, "num_key_value_heads": null, "rope_scaling": null
    }))
    .unwrap();
    assert_eq!(config.bos_token_id, None);
    assert_eq!(config.eos_token_ids, [3, 5]);
    assert_eq!(config.pad_token_id, None);
    assert_eq!(
        with(json!({"eos_token_id": null})).unwrap().eos_token_ids,
        [0_u32; 0]
    );
    // An explicit head dimension frees hidden_size from the number of heads.
    let config = with(json!({"head_dim": 128, "num_attention_heads": 7})).unwrap();
    assert_eq!(config.head_dim, 128);
}

#[test]
fn both_styles_of_rope_are_read() {
    let llama3 = json!({
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192
    });
    let mut new_style = llama3.clone();
    new_style["rope_type"] = json!("llama3");
    new_style["rope_theta"] = json!(500_000.0);
    let mut old_style = llama3.clone();
    old_style["type"] = json!("llama3");
    let expected = RopeParameters {
        theta: 500_000.0,
        scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        },
    };
    let cases = [
        json!({"rope_parameters": new_style}),
        json!({"rope_theta": 500_000, "rope_scaling": old_style}),
        json!({"rope_theta": 1.0, "rope_scaling": new_style, "rope_parameters": {"factor": 9}}),
    ];
    for case in cases {
        assert_eq!(with(case).unwrap().rope, expected);
    }
    let linear = with(json!({"rope_scaling": {"rope_type": "linear", "factor": 2}})).unwrap();
    assert_eq!(linear.rope.scaling, RopeScaling::Linear { factor: 2.0 });
    let theta_only = with(json!({"rope_theta": 1e6, "rope_parameters": {}})).unwrap();
    assert_eq!(
        theta_only.rope,
        RopeParameters {
            theta: 1e6,
            scaling: RopeScaling::Default
        }
    );
    // Without an original length, the model's own is meant.
    new_style
        .as_object_mut()
        .unwrap()
        .remove("original_max_position_embeddings");
    let config =
        with(json!({"rope_parameters": new_style, "max_position_embeddings": 77})).unwrap();
    assert!(matches!(
        config.rope.scaling,
        RopeScaling::Llama3 {
            original_max_position_embeddings: 77,
            ..
        }
    ));
}

#[test]
fn other_ropes_are_refused_by_name() {
    for rope_type in ["yarn", "dynamic", "longrope", "mrope"] {
        let error = with(json!({"rope_scaling": {"type": rope_type, "factor": 2}})).unwrap_err();
        assert!(
            matches!(&error, ConfigError::UnsupportedRope { rope_type: found, .. } if found == rope_type)
        );
        assert!(error.hint().unwrap().contains("llama3"));
    }
    let nested = json!({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}});
    assert!(matches!(
        with(nested),
        Err(ConfigError::UnsupportedRope { .. })
    ));
    for partial in [
        json!({"partial_rotary_factor": 0.5}),
        json!({"rope_parameters": {"partial_rotary_factor": 0.5}}),
    ] {
        let error = with(partial).unwrap_err();
        assert!(
            error.to_string().contains("partial_rotary_factor"),
            "{error}"
        );
    }
}

#[test]
fn impossible_values_name_key_and_file() {
    let cases = [
        (json!({"hidden_size": 0}), "hidden_size"),
        (json!({"vocab_size": 0}), "vocab_size"),
        (json!({"num_hidden_layers": 0}), "num_hidden_layers"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        (json!({"num_attention_heads": 7}), "num_attention_heads"),
        (json!({"head_dim": 7}), "head_dim"),
        (json!({"hidden_size": 56}), "hidden_size"),
        (json!({"rms_norm_eps": -1.0}), "rms_norm_eps"),
        (json!({"rope_theta": 0}), "rope_theta"),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 0}}),
            "rope_scaling.factor",
        ),
        (
            json!({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4,
                "high_freq_factor": 4}}),
            "rope_scaling.high_freq_factor",
        ),
    ];
    for (changes, expected) in cases {
        match with(changes) {
            Err(ConfigError::InvalidValue { key, path, .. }) => {
                assert_eq!(key, expected);
                assert_eq!(path, Path::new("dir/config.json"));
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn wrong_types_and_missing_keys_are_named() {
    let cases = [
        (json!({"hidden_size": "64"}), "hidden_size"),
        (json!({"hidden_size": 64.5}), "hidden_size"),
        (json!({"hidden_size": -64}), "hidden_size"),
        (json!({"rms_norm_eps": "1e-5"}), "rms_norm_eps"),
        (json!({"tie_word_embeddings": 1}), "tie_word_embeddings"),
        (json!({"eos_token_id": [1, "x"]}), "eos_token_id"),
        (json!({"pad_token_id": -2}), "pad_token_id"),
        (json!({"architectures": "Llama"}), "architectures"),
        (json!({"rope_scaling": []}), "rope_scaling"),
        (
            json!({"rope_parameters": {"rope_type": 3}}),
            "rope_parameters.rope_type",
        ),
    ];
    for (changes, expected) in cases {
        match with(changes) {
            Err(ConfigError::WrongType { key, .. }) => assert_eq!(key, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    for key in minimal().as_object().unwrap().keys() {
        let mut value = minimal();
        value.as_object_mut().unwrap().remove(key);
        match parse(&value) {
            Err(ConfigError::MissingKey { key: found, .. }) => assert_eq!(&found, key),
            other => panic!("{key}: {other:?}"),
        }
    }
    let missing = with(json!({"rope_scaling": {"type": "linear"}}));
    assert!(
        matches!(missing, Err(ConfigError::MissingKey { key, .. }) if key == "rope_scaling.factor")
    );
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let load = || ModelConfig::load(scratch.path());
    assert!(matches!(
        load(),
        Err(ConfigError::File(FormatError::NoSuchFile { .. }))
    ));
    let missing = ModelConfig::load(&scratch.path().join("no"));
    assert!(matches!(
        missing,
        Err(ConfigError::File(FormatError::NoSuchDirectory { .. }))
    ));
    fs::write(scratch.path().join("config.json"), "{").unwrap();
    assert!(matches!(load(), Err(ConfigError::InvalidJson { .. })));
    fs::write(scratch.path().join("config.json"), "[]").unwrap();
    assert!(matches!(load(), Err(ConfigError::NotAnObject { .. })));
    assert_eq!(GenerationConfig::load(scratch.path()).unwrap(), None);
    fs::write(
        scratch.path().join("generation_config.json"),
        r#"{"eos_token_id":[7,9]}"#,
    )
    .unwrap();
    let generation = GenerationConfig::load(scratch.path()).unwrap().unwrap();
    assert_eq!(generation.eos_token_ids, [7, 9]);
    assert_eq!(generation.bos_token_id, None);
}

proptest! {
    #[test]
    fn no_value_of_any_key_panics(
        key in proptest::sample::select(vec![
            "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "eos_token_id",
            "rope_scaling", "rope_parameters", "rms_norm_eps", "architectures", "rope_theta",
        ]),
        text in prop_oneof![
            Just("null".to_owned()), Just("-1".to_owned()), Just("1e400".to_owned()),
            Just("18446744073709551616".to_owned()), Just(r#"{"rope_type":"llama3"}"#.to_owned()),
            any::<u64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| n.to_string()),
            "[^\"\\\\]{0,6}".prop_map(|s| format!("\"{s}\"")), ".{0,20}",
        ],
    ) {
        let mut value = minimal().to_string();
        value.pop();
        let _ = ModelConfig::parse(Path::new("c"), &format!("{value},\"{key}\":{text}}}"));
    }
}
