use std::fs;
use std::path::Path;

use proptest::prelude::*;
use reparam_formats::FormatError;
use reparam_formats::config::{
    ConfigError, GenerationConfig, ModelJson, RopeDefaults, RopeParameters, RopeScaling,
    SpecialTokens, YarnScaling,
};
use serde_json::{Value, json};

const DEFAULTS: RopeDefaults = RopeDefaults {
    theta: 10_000.0,
    share: 1.0,
    max_positions: 2048,
    original_max_positions: None,
    aliases: &[],
};

fn parse(value: &Value) -> Result<ModelJson, ConfigError> {
    ModelJson::parse(Path::new("dir/config.json"), &value.to_string())
}

/// Parses an object with a `model_type` and some more keys.
fn with(mut keys: Value) -> ModelJson {
    keys["model_type"] = "some".into();
    parse(&keys).unwrap()
}

fn rope(keys: Value) -> Result<RopeParameters, ConfigError> {
    RopeParameters::read(&with(keys).json, DEFAULTS)
}

#[test]
fn the_built_in_model_is_read() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K");
    let model = ModelJson::load(&directory).unwrap();
    assert_eq!(model.model_type, "llama");
    assert_eq!(model.architectures, ["LlamaForCausalLM"]);
    assert_eq!(model.json.f64("initializer_range").unwrap(), Some(0.02));
    let generation = GenerationConfig::load(&directory).unwrap().unwrap();
    assert_eq!(generation.eos_token_ids, [2]);
}

#[test]
fn special_tokens_have_the_defaults_that_are_given() {
    let defaults = SpecialTokens {
        bos: Some(5),
        eos: vec![6, 7],
        pad: Some(8),
    };
    let read = |keys| with(keys).special_tokens(defaults.clone());
    assert_eq!(read(json!({})).unwrap(), defaults);
    let nulls = json!({"bos_token_id": null, "eos_token_id": null, "pad_token_id": null});
    assert_eq!(read(nulls).unwrap(), SpecialTokens::default());
    let given = json!({"bos_token_id": 1, "eos_token_id": [3, 4], "pad_token_id": -1});
    let expected = SpecialTokens {
        bos: Some(1),
        eos: vec![3, 4],
        pad: None,
    };
    assert_eq!(read(given).unwrap(), expected);
    for (keys, expected) in [
        (json!({"eos_token_id": [1, "x"]}), "eos_token_id"),
        (json!({"pad_token_id": -2}), "pad_token_id"),
        (json!({"bos_token_id": 1.5}), "bos_token_id"),
    ] {
        match read(keys) {
            Err(ConfigError::WrongType { key, .. }) => assert_eq!(key, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
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
        share: 1.0,
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
        assert_eq!(rope(case).unwrap(), expected);
    }
    let linear = rope(json!({"rope_scaling": {"rope_type": "linear", "factor": 2}})).unwrap();
    assert_eq!(linear.scaling, RopeScaling::Linear { factor: 2.0 });
    let theta_only = rope(json!({"rope_theta": 1e6, "rope_parameters": {}})).unwrap();
    let plain = |theta: f64, share: f64| RopeParameters {
        theta,
        share,
        scaling: RopeScaling::Default,
    };
    assert_eq!(theta_only, plain(1e6, 1.0));
    assert_eq!(rope(json!({})).unwrap(), plain(10_000.0, 1.0));
    for partial in [
        json!({"partial_rotary_factor": 0.5}),
        json!({"rope_parameters": {"partial_rotary_factor": 0.5}}),
    ] {
        assert_eq!(rope(partial).unwrap(), plain(10_000.0, 0.5));
    }
    // Without an original length, the model's own is meant.
    new_style
        .as_object_mut()
        .unwrap()
        .remove("original_max_position_embeddings");
    for (keys, expected) in [
        (json!({"max_position_embeddings": 77}), 77),
        (json!({}), 2048),
    ] {
        let mut keys = keys;
        keys["rope_parameters"] = new_style.clone();
        match rope(keys).unwrap().scaling {
            RopeScaling::Llama3 {
                original_max_position_embeddings: found,
                ..
            } => assert_eq!(found, expected),
            other => panic!("{other:?}"),
        }
    }
}

/// A missing factor of YaRN is the ratio of the lengths, as transformers has it for `null`.
#[test]
fn stretched_ropes_are_read() {
    let scaling = |keys: Value| rope(keys).unwrap().scaling;
    let dynamic = json!({"rope_type": "dynamic", "factor": 2});
    let expected = RopeScaling::Dynamic {
        factor: 2.0,
        max_position_embeddings: 64,
    };
    let keys = json!({"rope_scaling": dynamic, "max_position_embeddings": 64});
    assert_eq!(scaling(keys), expected);
    let yarn = json!({"rope_type": "yarn", "original_max_position_embeddings": 512});
    let expected = YarnScaling {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: 0.1 * 4.0_f64.ln() + 1.0,
        original_max_position_embeddings: 512,
    };
    let found = scaling(json!({"rope_scaling": yarn}));
    assert_eq!(found, RopeScaling::Yarn(expected));
    assert_eq!(found.attention_factor(), expected.attention_factor);
    let lists = json!({"short_factor": [1, 2], "long_factor": [3, 4.5]});
    let expected = RopeScaling::LongRope {
        short_factor: vec![1.0, 2.0],
        long_factor: vec![3.0, 4.5],
        attention_factor: (1.0 + 2.0_f64.ln() / 1024.0_f64.ln()).sqrt(),
        original_max_position_embeddings: 1024,
    };
    let mut object = lists;
    object["type"] = json!("longrope");
    // The original length stands beside the object.
    let keys = json!({"rope_scaling": object, "original_max_position_embeddings": 1024});
    assert_eq!(scaling(keys), expected);
    object["type"] = json!("own");
    let defaults = RopeDefaults {
        aliases: &[("own", "longrope")],
        original_max_positions: Some(1024),
        ..DEFAULTS
    };
    let found = RopeParameters::read(&with(json!({"rope_scaling": object})).json, defaults);
    assert_eq!(found.unwrap().scaling, expected);
    let missing = rope(json!({"rope_scaling": {"type": "longrope", "short_factor": [1]}}));
    assert!(matches!(
        missing,
        Err(ConfigError::MissingKey { key, .. }) if key == "rope_scaling.long_factor"
    ));
}

#[test]
fn layer_types_have_ropes_of_their_own() {
    let read = |keys: Value, layer_type: &str, takes_scaling: bool| {
        let json = with(keys).json;
        RopeParameters::read_type(&json, layer_type, "local_theta", takes_scaling, DEFAULTS)
    };
    let nested = json!({"rope_parameters": {
        "near": {"rope_type": "default", "rope_theta": 5.0},
        "far": {"rope_type": "linear", "rope_theta": 7.0, "factor": 2.0}
    }});
    let near = read(nested.clone(), "near", false).unwrap();
    assert_eq!((near.theta, near.scaling), (5.0, RopeScaling::Default));
    let far = read(nested.clone(), "far", true).unwrap();
    assert_eq!(
        (far.theta, far.scaling),
        (7.0, RopeScaling::Linear { factor: 2.0 })
    );
    assert_eq!(read(nested, "other", true).unwrap().theta, 10_000.0);
    let older = json!({"local_theta": 3.0, "rope_scaling": {"type": "linear", "factor": 4.0}});
    let found = read(older.clone(), "near", false).unwrap();
    assert_eq!((found.theta, found.scaling), (3.0, RopeScaling::Default));
    let found = read(older, "far", true).unwrap();
    assert_eq!(found.scaling, RopeScaling::Linear { factor: 4.0 });
}

#[test]
fn other_ropes_are_refused_by_name() {
    for rope_type in ["mrope", "proportional"] {
        let error = rope(json!({"rope_scaling": {"type": rope_type, "factor": 2}})).unwrap_err();
        assert!(
            matches!(&error, ConfigError::UnsupportedRope { rope_type: found, .. } if found == rope_type)
        );
        assert!(error.hint().unwrap().contains("llama3"));
    }
    let nested = json!({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}});
    assert!(matches!(
        rope(nested),
        Err(ConfigError::UnsupportedRope { .. })
    ));
}

#[test]
fn impossible_values_name_key_and_file() {
    let cases = [
        (json!({"rope_theta": 0}), "rope_theta"),
        (json!({"partial_rotary_factor": 0}), "partial_rotary_factor"),
        (
            json!({"rope_parameters": {"partial_rotary_factor": 1.1}}),
            "rope_parameters.partial_rotary_factor",
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 0}}),
            "rope_scaling.factor",
        ),
        (
            json!({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4,
                "high_freq_factor": 4}}),
            "rope_scaling.high_freq_factor",
        ),
        (
            json!({"rope_scaling": {"type": "dynamic", "factor": -1}}),
            "rope_scaling.factor",
        ),
        (
            json!({"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 2}}),
            "rope_scaling.beta_fast",
        ),
        (
            json!({"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 0}}),
            "rope_scaling.original_max_position_embeddings",
        ),
        (
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1, 0], "long_factor": [1]}}),
            "rope_scaling.short_factor",
        ),
    ];
    for (changes, expected) in cases {
        match rope(changes) {
            Err(ConfigError::InvalidValue { key, path, .. }) => {
                assert_eq!(key, expected);
                assert_eq!(path, Path::new("dir/config.json"));
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    let json = with(json!({"zero": 0, "one": 1})).json;
    assert!(matches!(
        json.size("zero"),
        Err(ConfigError::InvalidValue { key, .. }) if key == "zero"
    ));
    assert_eq!(
        (json.size("one").unwrap(), json.size("two").unwrap()),
        (Some(1), None)
    );
    assert_eq!(json.required_size("one").unwrap(), 1);
    assert!(matches!(
        json.required_size("two"),
        Err(ConfigError::MissingKey { key, .. }) if key == "two"
    ));
}

#[test]
fn wrong_types_and_missing_keys_are_named() {
    let json = with(json!({"text": "64", "half": 64.5, "minus": -64, "one": 1})).json;
    let wrong = [
        (json.usize("text").map(|_| ()), "text"),
        (json.usize("half").map(|_| ()), "half"),
        (json.usize("minus").map(|_| ()), "minus"),
        (json.f64("text").map(|_| ()), "text"),
        (json.bool("one").map(|_| ()), "one"),
        (json.str("one").map(|_| ()), "one"),
    ];
    for (found, expected) in wrong {
        match found {
            Err(ConfigError::WrongType { key, .. }) => assert_eq!(key, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    for (keys, expected) in [
        (json!({"rope_scaling": []}), "rope_scaling"),
        (
            json!({"rope_parameters": {"rope_type": 3}}),
            "rope_parameters.rope_type",
        ),
    ] {
        match rope(keys) {
            Err(ConfigError::WrongType { key, .. }) => assert_eq!(key, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let listed = parse(&json!({"model_type": "llama", "architectures": "Llama"}));
    assert!(matches!(listed, Err(ConfigError::WrongType { key, .. }) if key == "architectures"));
    let nameless = parse(&json!({"hidden_size": 64}));
    assert!(matches!(nameless, Err(ConfigError::MissingKey { key, .. }) if key == "model_type"));
    let missing = rope(json!({"rope_scaling": {"type": "linear"}}));
    assert!(
        matches!(missing, Err(ConfigError::MissingKey { key, .. }) if key == "rope_scaling.factor")
    );
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let load = || ModelJson::load(scratch.path());
    assert!(matches!(
        load(),
        Err(ConfigError::File(FormatError::NoSuchFile { .. }))
    ));
    let missing = ModelJson::load(&scratch.path().join("no"));
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
            "model_type", "architectures", "eos_token_id", "pad_token_id", "rope_scaling",
            "rope_parameters", "rope_theta", "partial_rotary_factor",
        ]),
        text in prop_oneof![
            Just("null".to_owned()), Just("-1".to_owned()), Just("1e400".to_owned()),
            Just("18446744073709551616".to_owned()), Just(r#"{"rope_type":"llama3"}"#.to_owned()),
            any::<u64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| n.to_string()),
            "[^\"\\\\]{0,6}".prop_map(|s| format!("\"{s}\"")), ".{0,20}",
        ],
    ) {
        let text = format!(r#"{{"model_type":"some","{key}":{text}}}"#);
        if let Ok(model) = ModelJson::parse(Path::new("c"), &text) {
            let _ = model.special_tokens(SpecialTokens::default());
            let _ = RopeParameters::read(&model.json, DEFAULTS);
        }
    }
}
