use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use reparam_formats::FormatError;
use reparam_formats::config::ConfigError;
use reparam_formats::peft::{
    Bias, InitLoraWeights, LayerIndices, LoraAdapterConfig, LoraRules, ModuleMatcher, PeftAdapter,
    PeftError, TargetModules, Tensor, target_matches,
};
use serde_json::{Value, json};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// What PEFT itself answered; see `write_peft.py`.
fn answers() -> Value {
    serde_json::from_slice(&fs::read(data().join("answers.json")).unwrap()).unwrap()
}

fn parse(value: &Value) -> Result<LoraAdapterConfig, PeftError> {
    LoraAdapterConfig::parse(Path::new("adapter_config.json"), &value.to_string())
}

/// Parses a plain LoRA configuration with some keys replaced.
fn with(changes: Value) -> Result<LoraAdapterConfig, PeftError> {
    let mut value = json!({"peft_type": "LORA", "target_modules": ["q_proj", "v_proj"]});
    for (key, change) in changes.as_object().unwrap() {
        value[key] = change.clone();
    }
    parse(&value)
}

fn tensor(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor {
        shape: shape.to_vec(),
        data: (0..n).map(|i| i as f32 + 0.5).collect(),
    }
}

/// An adapter of rank 2 for one module.
fn small_tensors() -> BTreeMap<String, Tensor> {
    BTreeMap::from([
        (PeftAdapter::a_name("m.q_proj"), tensor(&[2, 3])),
        (PeftAdapter::b_name("m.q_proj"), tensor(&[4, 2])),
    ])
}

fn small_config() -> LoraAdapterConfig {
    LoraAdapterConfig {
        r: 2,
        target_modules: Some(TargetModules::Names(vec!["q_proj".to_owned()])),
        ..Default::default()
    }
}

#[test]
fn adapters_of_peft_are_read_and_written_back() {
    let scratch = tempfile::tempdir().unwrap();
    let numbers = answers()["numbers"].clone();
    for (name, modules) in numbers.as_object().unwrap() {
        let source = data().join(name);
        let adapter = PeftAdapter::load(&source).unwrap();
        let modules = modules.as_object().unwrap();
        assert_eq!(adapter.module_paths().count(), modules.len());
        assert!(!modules.is_empty());
        for (path, expected) in modules {
            assert_eq!(
                adapter.rank_for(path),
                expected[0].as_u64().map(|r| r as usize)
            );
            assert_eq!(
                adapter.scaling_for(path),
                expected[1].as_f64(),
                "{name} {path}"
            );
            let pair = adapter.pair(path).unwrap();
            assert_eq!(pair.a.shape[0], pair.b.shape[1]);
        }
        let copy = scratch.path().join(name);
        adapter.save(&copy).unwrap();
        let read = |directory: &Path, file| fs::read(directory.join(file)).unwrap();
        let weights = "adapter_model.safetensors";
        assert!(read(&copy, weights) == read(&source, weights), "{name}");
        let config = |directory| -> Value {
            serde_json::from_slice(&read(directory, "adapter_config.json")).unwrap()
        };
        assert_eq!(config(&copy), config(&source), "{name}");
    }
}

#[test]
fn biases_are_where_peft_puts_them() {
    let all = PeftAdapter::load(&data().join("bias_all")).unwrap();
    assert_eq!(all.config().bias, Bias::All);
    assert!(
        all.tensors()
            .contains_key("model.layers.0.self_attn.q_proj.base_layer.bias")
    );
    assert!(
        all.tensors()
            .contains_key("model.layers.0.self_attn.k_proj.bias")
    );
    for module in ["q_proj", "k_proj"] {
        assert_eq!(
            all.bias(&format!("model.layers.1.self_attn.{module}"))
                .unwrap()
                .shape,
            [8]
        );
    }
    let only = PeftAdapter::load(&data().join("bias_only")).unwrap();
    assert!(only.bias("model.layers.1.self_attn.v_proj").is_some());
    assert!(only.bias("model.layers.1.self_attn.k_proj").is_none());
}

#[test]
fn modules_match_as_in_peft() {
    let answers = answers();
    let paths: Vec<&str> = answers["paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .collect();
    let cases = answers["matches"].as_array().unwrap();
    assert!(cases.len() > 15);
    for case in cases {
        let config = with(case["config"].clone()).unwrap();
        let matcher = ModuleMatcher::new(&config).unwrap();
        let matched: Vec<&str> = paths
            .iter()
            .copied()
            .filter(|path| matcher.matches(path).unwrap())
            .collect();
        assert_eq!(json!(matched), case["matched"], "{}", case["config"]);
        assert_eq!(matcher.report(&paths).unwrap().selected, matched);
    }
    for (pattern, matched) in answers["patterns"].as_object().unwrap() {
        let config = with(json!({"rank_pattern": {pattern: 3}})).unwrap();
        let rules = LoraRules::new(&config).unwrap();
        // The answers leave out paths that are the pattern, for which PEFT's function is ambiguous.
        let found: Vec<&str> = paths
            .iter()
            .copied()
            .filter(|path| path != pattern && rules.rank_for(path).unwrap() == 3)
            .collect();
        assert_eq!(json!(found), *matched, "{pattern}");
    }
}

#[test]
fn all_linear_matches_what_it_is_given() {
    let config = with(json!({"target_modules": "All-Linear"})).unwrap();
    assert_eq!(config.target_modules, Some(TargetModules::AllLinear));
    let report = ModuleMatcher::new(&config)
        .unwrap()
        .report(&["a.b", "c"])
        .unwrap();
    report.require_all().unwrap();
    assert_eq!(report.selected, ["a.b", "c"]);
    assert!(target_matches(&TargetModules::AllLinear, "x").unwrap());
    let excluded = with(json!({"target_modules": "all-linear", "exclude_modules": ["b"]})).unwrap();
    assert!(
        !ModuleMatcher::new(&excluded)
            .unwrap()
            .matches("a.b")
            .unwrap()
    );
}

#[test]
fn entries_that_match_nothing_are_reported() {
    let paths = [
        "model.layers.0.q_proj",
        "model.layers.0.v_proj",
        "model.layers.1.q_proj",
    ];
    let check = |changes| {
        let matcher = ModuleMatcher::new(&with(changes).unwrap()).unwrap();
        let report = matcher.report(&paths).unwrap();
        (report.require_all(), report)
    };
    let (result, report) = check(json!({}));
    result.unwrap();
    let counts: Vec<_> = report
        .entries
        .iter()
        .map(|e| (e.entry.as_str(), e.n_modules))
        .collect();
    assert_eq!(counts, [("q_proj", 2), ("v_proj", 1)]);

    let unmatched = [
        (
            json!({"target_modules": ["q_proj", "vproj"]}),
            "target_modules",
            "vproj",
            Some("v_proj"),
        ),
        (
            json!({"target_modules": "q_proj"}),
            "target_modules",
            "q_proj",
            Some("q_proj"),
        ),
        (
            json!({"target_modules": ["zzz"]}),
            "target_modules",
            "zzz",
            None,
        ),
        (
            json!({"target_modules": ["layers.0.qproj"]}),
            "target_modules",
            "layers.0.qproj",
            Some("layers.0.q_proj"),
        ),
        (
            json!({"exclude_modules": ["k_proj"]}),
            "exclude_modules",
            "k_proj",
            Some("q_proj"),
        ),
        (
            json!({"layers_to_transform": [0, 7]}),
            "layers_to_transform",
            "7",
            None,
        ),
    ];
    for (changes, expected_option, expected_pattern, expected_nearest) in unmatched {
        match check(changes).0 {
            Err(PeftError::NoMatch {
                option,
                pattern,
                nearest,
            }) => {
                assert_eq!(
                    (option, pattern.as_str()),
                    (expected_option, expected_pattern)
                );
                assert_eq!(nearest.as_deref(), expected_nearest);
            }
            other => panic!("{expected_pattern}: {other:?}"),
        }
    }
    let (result, _) = check(json!({"exclude_modules": ["q_proj", "v_proj"]}));
    assert!(
        matches!(result, Err(PeftError::NothingSelected { n_matched: 3 })),
        "{result:?}"
    );

    let config =
        with(json!({"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"k_proj": 4}})).unwrap();
    let error = LoraRules::new(&config)
        .unwrap()
        .require_all(&paths)
        .unwrap_err();
    assert!(
        matches!(
            error,
            PeftError::NoMatch {
                option: "alpha_pattern",
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn scaling_follows_r_alpha_and_rslora() {
    let config = with(json!({
        "r": 4, "lora_alpha": 2, "use_rslora": true,
        "rank_pattern": {"v_proj": 9}, "alpha_pattern": {"v_proj": 6}
    }));
    let rules = LoraRules::new(&config.unwrap()).unwrap();
    assert_eq!(rules.scaling_for("m.q_proj").unwrap(), 1.0);
    assert_eq!(rules.scaling_for("m.v_proj").unwrap(), 2.0);
    let plain = LoraRules::new(&with(json!({"r": 4, "lora_alpha": 2})).unwrap()).unwrap();
    assert_eq!(plain.scaling_for("m.q_proj").unwrap(), 0.5);
}

#[test]
fn defaults_are_those_of_peft() {
    let config = parse(&json!({"peft_type": "LORA"})).unwrap();
    assert_eq!(config, LoraAdapterConfig::default());
    assert_eq!(
        (config.r, config.lora_alpha, config.lora_dropout),
        (8, 8.0, 0.0)
    );
    assert_eq!(config.init_lora_weights, InitLoraWeights::Flag(true));
    // What is rendered has every key that PEFT writes, in its order.
    let theirs: Value =
        serde_json::from_slice(&fs::read(data().join("plain/adapter_config.json")).unwrap())
            .unwrap();
    let ours: Value = serde_json::from_str(&config.render()).unwrap();
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&ours), keys(&theirs));
    assert_eq!(parse(&ours).unwrap(), config);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let refused = [
        ("alora_invocation_tokens", json!([1, 2])),
        ("trainable_token_indices", json!([0])),
        ("trainable_token_indices", json!({"embed_tokens": [0]})),
        ("layer_replication", json!([[0, 1]])),
        ("use_qalora", json!(true)),
        ("lora_bias", json!(true)),
        ("megatron_config", json!({"tp": 1})),
        ("kasa_config", json!({})),
        ("monteclora_config", json!({"num_samples": 8})),
        ("velora_config", json!({"num_groups": 64})),
        ("use_bdlora", json!({"nblocks": 2})),
        ("arrow_config", json!({"top_k": 3})),
        ("ensure_weight_tying", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_16")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("lora_ga")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("something new")),
    ];
    for (key, value) in refused {
        match with(json!({key: value})) {
            Err(error @ PeftError::UnsupportedFeature { .. }) => {
                assert!(error.to_string().contains(key), "{error}");
                assert!(error.hint().is_some());
            }
            other => panic!("{key} = {value}: {other:?}"),
        }
    }
    match with(json!({"use_sparkles": 3})) {
        Err(PeftError::UnknownKey { key, value, .. }) => {
            assert_eq!((key.as_str(), value.as_str()), ("use_sparkles", "3"));
        }
        other => panic!("{other:?}"),
    }
    for peft_type in ["LOHA", "OFT", "lora"] {
        let result = with(json!({"peft_type": peft_type}));
        assert!(
            matches!(&result, Err(PeftError::UnsupportedType { peft_type: t, .. }) if t == peft_type)
        );
    }
    assert!(matches!(
        parse(&json!({})),
        Err(PeftError::Config(ConfigError::MissingKey { key, .. })) if key == "peft_type"
    ));
}

#[test]
fn what_is_honoured_is_read_and_written() {
    let config = with(json!({
        "r": 2, "target_modules": ["q_proj"],
        "use_dora": true, "fan_in_fan_out": true, "modules_to_save": ["score"]
    }))
    .unwrap();
    assert!(config.use_dora && config.fan_in_fan_out);
    assert_eq!(config.modules_to_save, ["score"]);
    let written: Value = serde_json::from_str(&config.render()).unwrap();
    assert_eq!(parse(&written).unwrap(), config);

    let mut tensors = small_tensors();
    for (name, shape) in [
        ("m.q_proj.lora_magnitude_vector", &[4][..]),
        ("score.weight", &[3, 4]),
        ("score.bias", &[3]),
        // Inside of a module that is saved whole.
        ("score.dense.weight", &[4, 4]),
    ] {
        tensors.insert(name.to_owned(), tensor(shape));
    }
    let adapter = PeftAdapter::new(config.clone(), tensors.clone()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    adapter.save(scratch.path()).unwrap();
    assert_eq!(
        PeftAdapter::load(scratch.path()).unwrap().tensors(),
        &tensors
    );

    // A magnitude is a vector, and one of a module with factors.
    for (name, shape) in [
        ("m.q_proj.lora_magnitude_vector", &[4, 1][..]),
        ("m.k_proj.lora_magnitude_vector", &[4]),
        ("other.weight", &[3, 4]),
    ] {
        let mut tensors = tensors.clone();
        tensors.insert(name.to_owned(), tensor(shape));
        assert!(PeftAdapter::new(config.clone(), tensors).is_err(), "{name}");
    }
}

#[test]
fn what_changes_nothing_is_tolerated() {
    let tolerated = json!({
        "new_key": null, "newer_key": false, "newest_key": [], "other_key": {}, "text_key": "",
        "modules_to_save": [], "loftq_config": {"loftq_bits": 4}, "eva_config": {"rho": 2.0},
        "corda_config": {"x": 1}, "lora_ga_config": {"x": 1}, "megatron_core": "elsewhere",
        "qalora_group_size": 32, "runtime_config": {"ephemeral_gpu_offload": true},
        "inference_mode": false, "peft_version": "0.10.0", "init_lora_weights": "eva"
    });
    let config = with(tolerated).unwrap();
    assert_eq!(
        config.init_lora_weights,
        InitLoraWeights::Named("eva".to_owned())
    );
    for init in ["gaussian", "orthogonal", "mica"] {
        with(json!({"init_lora_weights": init})).unwrap();
    }
}

#[test]
fn impossible_settings_are_refused() {
    let config_errors = [
        json!({"r": 0}),
        json!({"r": "8"}),
        json!({"lora_dropout": 1.0}),
        json!({"lora_dropout": -0.1}),
        json!({"lora_alpha": "x"}),
        json!({"bias": "some"}),
        json!({"target_modules": 3}),
        json!({"target_modules": [3]}),
        json!({"rank_pattern": {"a": 0}}),
        json!({"rank_pattern": {"a": 1.5}}),
        json!({"alpha_pattern": []}),
        json!({"layers_to_transform": "0"}),
        json!({"task_type": "DREAMING"}),
        json!({"init_lora_weights": 1}),
    ];
    for changes in config_errors {
        let result = with(changes.clone());
        assert!(
            matches!(result, Err(PeftError::Config(_))),
            "{changes}: {result:?}"
        );
    }
    for changes in [
        json!({"target_modules": ".*", "layers_to_transform": [0]}),
        json!({"layers_pattern": "layers"}),
    ] {
        let result = with(changes.clone());
        assert!(
            matches!(result, Err(PeftError::Contradiction { .. })),
            "{changes}: {result:?}"
        );
    }
    let config = with(json!({"target_modules": "(", "rank_pattern": {"[": 1}})).unwrap();
    let error = ModuleMatcher::new(&config).unwrap_err();
    assert!(matches!(
        error,
        PeftError::InvalidPattern {
            option: "target_modules",
            ..
        }
    ));
    let error = LoraRules::new(&config).unwrap_err();
    assert!(matches!(
        error,
        PeftError::InvalidPattern {
            option: "rank_pattern",
            ..
        }
    ));
    let nan = LoraAdapterConfig {
        lora_alpha: f64::NAN,
        ..small_config()
    };
    assert!(matches!(nan.validate(), Err(PeftError::Config(_))));
    let init = InitLoraWeights::Named("pissa".to_owned());
    let changed_base = LoraAdapterConfig {
        init_lora_weights: init,
        ..small_config()
    };
    assert!(matches!(
        changed_base.validate(),
        Err(PeftError::UnsupportedFeature { .. })
    ));
}

#[test]
fn tensors_and_configuration_have_to_agree() {
    PeftAdapter::new(small_config(), small_tensors()).unwrap();
    let with_extra = |name: &str, shape: &[usize], bias| {
        let mut tensors = small_tensors();
        tensors.insert(name.to_owned(), tensor(shape));
        PeftAdapter::new(
            LoraAdapterConfig {
                bias,
                ..small_config()
            },
            tensors,
        )
    };
    for (name, part) in [
        ("m.q_proj.lora_magnitude_vector", "DoRA"),
        ("m.q_proj.lora_B.bias", "lora_bias"),
        ("m.embed_tokens.lora_embedding_A", "embeddings"),
        ("m.q_proj.lora_diag", "KaSA"),
        ("m.lm_head.weight", "no part of a LoRA adapter"),
        ("m.q_proj.bias", "disagree"),
        ("m.k_proj.base_layer.bias", "disagree"),
    ] {
        match with_extra(name, &[4], Bias::All) {
            Err(error @ PeftError::UnexpectedTensor { .. }) => {
                assert!(error.to_string().contains(part), "{error}");
                assert!(error.to_string().contains(name), "{error}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    with_extra("m.k_proj.bias", &[4], Bias::All).unwrap();
    with_extra("m.q_proj.base_layer.bias", &[4], Bias::LoraOnly).unwrap();
    for (name, bias) in [
        ("m.k_proj.bias", Bias::LoraOnly),
        ("m.q_proj.base_layer.bias", Bias::None),
    ] {
        let result = with_extra(name, &[4], bias);
        assert!(
            matches!(result, Err(PeftError::UnexpectedTensor { .. })),
            "{result:?}"
        );
    }
    let result = with_extra("m.k_proj.bias", &[2, 2], Bias::All);
    assert!(
        matches!(result, Err(PeftError::BadTensor { .. })),
        "{result:?}"
    );

    let mut tensors = small_tensors();
    tensors.remove(&PeftAdapter::b_name("m.q_proj"));
    let result = PeftAdapter::new(small_config(), tensors);
    assert!(matches!(
        result,
        Err(PeftError::IncompletePair {
            missing: "lora_B",
            ..
        })
    ));

    for (a, b) in [([3, 3], [4, 3]), ([2, 3], [4, 3]), ([3, 3], [4, 2])] {
        let mut tensors = small_tensors();
        tensors.insert(PeftAdapter::a_name("m.q_proj"), tensor(&a));
        tensors.insert(PeftAdapter::b_name("m.q_proj"), tensor(&b));
        let result = PeftAdapter::new(small_config(), tensors);
        assert!(
            matches!(result, Err(PeftError::WrongRank { expected: 2, .. })),
            "{result:?}"
        );
    }
    for shape in [vec![6], vec![2, 3, 1], vec![2, 0], vec![]] {
        let mut tensors = small_tensors();
        tensors.insert(PeftAdapter::a_name("m.q_proj"), tensor(&shape));
        let result = PeftAdapter::new(small_config(), tensors);
        assert!(
            matches!(result, Err(PeftError::BadTensor { .. })),
            "{shape:?}: {result:?}"
        );
    }
    let mut tensors = small_tensors();
    tensors.insert(
        PeftAdapter::a_name("m.q_proj"),
        Tensor {
            shape: vec![2, 3],
            data: vec![0.0],
        },
    );
    assert!(matches!(
        PeftAdapter::new(small_config(), tensors),
        Err(PeftError::BadTensor { .. })
    ));

    let mut tensors = small_tensors();
    tensors.insert(PeftAdapter::a_name("m.k_proj"), tensor(&[2, 3]));
    tensors.insert(PeftAdapter::b_name("m.k_proj"), tensor(&[4, 2]));
    let result = PeftAdapter::new(small_config(), tensors);
    assert!(matches!(result, Err(PeftError::NotTargeted { module }) if module == "m.k_proj"));

    assert!(matches!(
        PeftAdapter::new(small_config(), BTreeMap::new()),
        Err(PeftError::Empty)
    ));
}

#[test]
fn directories_that_are_no_adapter_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("adapter");
    let load = || PeftAdapter::load(&directory).unwrap_err();
    assert!(matches!(
        load(),
        PeftError::File(FormatError::NoSuchDirectory { .. })
    ));
    fs::create_dir(&directory).unwrap();
    assert!(matches!(load(), PeftError::NotAnAdapter { .. }));
    fs::copy(
        data().join("plain/adapter_config.json"),
        directory.join("adapter_config.json"),
    )
    .unwrap();
    assert!(matches!(
        load(),
        PeftError::File(FormatError::NoSuchFile { .. })
    ));
    fs::write(directory.join("adapter_model.bin"), b"").unwrap();
    let error = load();
    assert!(
        matches!(error, PeftError::File(FormatError::PickleOnly { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("arbitrary code"));

    let weights = fs::read(data().join("plain/adapter_model.safetensors")).unwrap();
    let target = directory.join("adapter_model.safetensors");
    fs::write(&target, &weights[..weights.len() - 4]).unwrap();
    assert!(matches!(
        load(),
        PeftError::File(FormatError::Truncated { .. })
    ));
    let mut poisoned = weights.clone();
    let end = poisoned.len();
    poisoned[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&target, poisoned).unwrap();
    assert!(matches!(
        load(),
        PeftError::File(FormatError::NonFinite { index: 31, .. })
    ));
    let text = String::from_utf8_lossy(&weights[8..]).into_owned();
    let renamed = text.find("base_model.model.").map(|at| {
        let mut bytes = weights.clone();
        bytes[8 + at] = b'B';
        bytes
    });
    fs::write(&target, renamed.unwrap()).unwrap();
    assert!(matches!(load(), PeftError::UnexpectedTensor { .. }));
}

#[test]
fn patterns_whose_order_would_change_are_not_written() {
    let pattern = |names: [&str; 2]| vec![(names[0].to_owned(), 2), (names[1].to_owned(), 3)];
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("adapter");
    let config = LoraAdapterConfig {
        rank_pattern: pattern(["q_proj", ".*"]),
        ..small_config()
    };
    let adapter = PeftAdapter::new(config, small_tensors()).unwrap();
    let error = adapter.save(&target).unwrap_err();
    assert!(
        matches!(
            error,
            PeftError::PatternOrder {
                option: "rank_pattern",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!target.exists());
    let config = LoraAdapterConfig {
        rank_pattern: pattern(["q_proj", "v.*"]),
        ..small_config()
    };
    PeftAdapter::new(config, small_tensors())
        .unwrap()
        .save(&target)
        .unwrap();
}

#[test]
fn saving_replaces_the_older_adapter() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("adapter");
    PeftAdapter::load(&data().join("plain"))
        .unwrap()
        .save(&target)
        .unwrap();
    PeftAdapter::new(small_config(), small_tensors())
        .unwrap()
        .save(&target)
        .unwrap();
    let read = PeftAdapter::load(&target).unwrap();
    assert_eq!(read.tensors(), &small_tensors());
    assert_eq!(read.config(), &small_config());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

fn any_config() -> impl Strategy<Value = LoraAdapterConfig> {
    let names = proptest::collection::vec("[a-z_]{1,8}", 0..4);
    let layers = prop_oneof![
        Just(None),
        (0_usize..99).prop_map(|index| Some(LayerIndices::One(index))),
        proptest::collection::vec(0_usize..99, 0..4)
            .prop_map(|list| Some(LayerIndices::List(list))),
    ];
    (
        (
            1_usize..64,
            -1e20_f64..1e20,
            0.0_f64..1.0,
            any::<bool>(),
            layers,
        ),
        (names.clone(), names, proptest::option::of(".{0,12}")),
        proptest::collection::btree_map("[a-z.*]{1,6}", (1_usize..9, -1e3_f64..1e3), 0..4),
    )
        .prop_map(
            |(
                (r, lora_alpha, lora_dropout, use_rslora, layers),
                (targets, excluded, base),
                patterns,
            )| {
                LoraAdapterConfig {
                    r,
                    lora_alpha,
                    lora_dropout,
                    use_rslora,
                    layers_to_transform: layers,
                    target_modules: Some(TargetModules::Names(targets)),
                    exclude_modules: (!excluded.is_empty())
                        .then_some(TargetModules::Names(excluded)),
                    base_model_name_or_path: base,
                    rank_pattern: patterns
                        .iter()
                        .map(|(key, (rank, _))| (key.clone(), *rank))
                        .collect(),
                    alpha_pattern: patterns
                        .iter()
                        .map(|(key, (_, alpha))| (key.clone(), *alpha))
                        .collect(),
                    ..Default::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn configurations_survive_the_file(config in any_config()) {
        let text = config.render();
        prop_assert!(text.is_ascii());
        let read = LoraAdapterConfig::parse(Path::new("c"), &text).unwrap();
        prop_assert_eq!(&read, &config);
        prop_assert_eq!(read.render(), text);
    }

    #[test]
    fn no_configuration_text_panics(text in ".{0,80}") {
        let _ = LoraAdapterConfig::parse(Path::new("c"), &text);
        let _ = LoraAdapterConfig::parse(Path::new("c"), &format!(r#"{{"peft_type":"LORA",{text}}}"#));
    }

    #[test]
    fn no_pattern_panics(pattern in ".{0,12}", path in "[a-z.]{0,12}") {
        let _ = target_matches(&TargetModules::Pattern(pattern.clone()), &path);
        let config = LoraAdapterConfig { rank_pattern: vec![(pattern, 1)], ..Default::default() };
        let _ = LoraRules::new(&config).map(|rules| rules.rank_for(&path));
    }
}

proptest! {
    // Every case flushes some ten files and directories to the disk.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn adapters_survive_the_directory(
        modules in proptest::collection::btree_map("[a-c]{1,3}(\\.[a-c]{1,3}){0,3}", (1_usize..5, 1_usize..5), 1..5),
        rank in 1_usize..4,
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let config = LoraAdapterConfig {
            r: rank,
            target_modules: Some(TargetModules::Names(modules.keys().cloned().collect())),
            ..Default::default()
        };
        let mut tensors = BTreeMap::new();
        for (path, (d_in, d_out)) in &modules {
            tensors.insert(PeftAdapter::a_name(path), tensor(&[rank, *d_in]));
            tensors.insert(PeftAdapter::b_name(path), tensor(&[*d_out, rank]));
        }
        let adapter = PeftAdapter::new(config, tensors).unwrap();
        let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
        adapter.save(&one).unwrap();
        let read = PeftAdapter::load(&one).unwrap();
        prop_assert_eq!(read.tensors(), adapter.tensors());
        prop_assert_eq!(read.config(), adapter.config());
        read.save(&two).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            prop_assert_eq!(fs::read(one.join(file)).unwrap(), fs::read(two.join(file)).unwrap());
        }
    }
}
