//! Adapters that do not fit are refused by name.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::DType;
use reparam_formats::peft::{AdapterFiles, PeftError, TargetModules, Tensor};
use serde_json::json;

use super::toy::{BurnNet, Net, Toy, parameters_of, randomize};
use crate::methods::{
    AdapterMeta, Biases, DoraConfig, Ia3Config, LoraConfig, MethodConfig, MethodError, Selection,
    VeraConfig, WeightLayout, WeightNormConfig, attach, attach_adapter, to_adapter,
};

fn config() -> LoraConfig {
    LoraConfig::new(2, 3.0).with_target_modules(TargetModules::Names(vec!["q_proj".into()]))
}

fn attached(config: &dyn MethodConfig) -> (Net, AdapterMeta) {
    let (model, report) = attach(Net::build(DType::F32), config, 1).expect("attaches");
    let meta = AdapterMeta::new(config, &report.modules);
    (randomize(model, 2), meta)
}

fn trained(config: &dyn MethodConfig) -> Net {
    attached(config).0
}

fn adapter_of(config: &dyn MethodConfig) -> AdapterFiles {
    let (model, meta) = attached(config);
    to_adapter(&model, config, &meta).expect("its own adapter")
}

/// Builds an adapter from changed tensors of a good one.
fn changed(
    adapter: &AdapterFiles,
    change: impl FnOnce(&mut BTreeMap<String, Tensor>),
) -> AdapterFiles {
    let mut files = adapter.clone();
    change(&mut files.tensors);
    files
}

/// Sets a key of the configuration.
fn with_key(adapter: &AdapterFiles, key: &str, value: serde_json::Value) -> AdapterFiles {
    let mut map = adapter.config.map().clone();
    map.insert(key.to_owned(), value);
    AdapterFiles::new(map, adapter.tensors.clone())
}

fn attach_error(adapter: &AdapterFiles) -> MethodError {
    let error = attach_adapter(Net::build(DType::F32), adapter, WeightLayout::OutIn)
        .expect_err("it does not fit");
    assert!(error.hint().is_some(), "{error}");
    error
}

#[test]
fn an_adapter_for_other_modules_is_refused() {
    let good = adapter_of(&config());
    let other_names = with_key(&good, "target_modules", json!(["k_proj"]));
    let adapter = changed(&other_names, |tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (name.replace("q_proj", "k_proj"), tensor))
            .collect();
    });
    let error = attach_error(&adapter);
    let MethodError::AdapterMismatch { names, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(names, &["layers.0.k_proj", "layers.1.k_proj"]);
    assert!(error.to_string().contains("layers.0.k_proj"), "{error}");
}

/// A model in which the layers are deeper.
#[derive(Module, Debug)]
struct Deeper {
    model: Net,
}

#[test]
fn an_adapter_with_another_prefix_is_refused_with_both() {
    let good = adapter_of(&config());
    let with_prefix = |prefix: &str| {
        let adapter = changed(&good, |tensors| {
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
                .collect();
        });
        let model = Deeper {
            model: Net::build(DType::F32),
        };
        let error = attach_adapter(model, &adapter, WeightLayout::OutIn);
        error.expect_err("another prefix")
    };
    for (prefix, shown) in [
        ("", "model.`"),
        ("a.b.", "model.a.b.`"),
        ("\u{1b}[2J.", "model.\\u{1b}[2J.`"),
    ] {
        let error = with_prefix(prefix);
        assert!(
            matches!(
                &error,
                MethodError::AdapterPrefix { found, expected } if found == prefix && expected == "model."
            ),
            "{error}"
        );
        assert!(error.hint().is_some());
        let text = error.to_string();
        let both = [
            format!("its names begin with `base_model.{shown}"),
            "those of this model with `base_model.model.model.`".to_owned(),
        ];
        assert!(both.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn an_adapter_that_lacks_modules_is_refused() {
    let good = adapter_of(&config());
    let adapter = changed(&good, |tensors| {
        tensors.retain(|name, _| !name.starts_with("layers.1."));
    });
    let error = attach_error(&adapter);
    assert!(
        matches!(&error, MethodError::AdapterMismatch { names, .. } if names == &["layers.1.q_proj"]),
        "{error}"
    );
}

#[test]
fn a_factor_of_another_shape_is_refused() {
    let good = adapter_of(&config());
    let name = "layers.1.q_proj.lora_A.weight";
    let adapter = changed(&good, |tensors| {
        let wide = Tensor {
            shape: vec![2, 9],
            data: vec![0.5; 18],
        };
        tensors.insert(name.into(), wide);
    });
    let error = attach_error(&adapter);
    let MethodError::FactorShape {
        name: found_name,
        expected,
        found,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(found_name, name);
    assert_eq!((expected, found), (&vec![2, 6], &vec![2, 9]));
    // The layouts differ in what is wide: an adapter for square layers would not tell.
    let error = attach_adapter(BurnNet::build(DType::F32), &good, WeightLayout::OutIn);
    assert!(matches!(error, Err(MethodError::FactorShape { .. })));
}

#[test]
fn biases_that_do_not_fit_are_refused() {
    let config = LoraConfig {
        selection: Selection {
            bias: Biases::All,
            ..config().selection
        },
        ..config()
    };
    let good = adapter_of(&config);
    let short = changed(&good, |tensors| {
        let bias = Tensor {
            shape: vec![3],
            data: vec![0.5; 3],
        };
        tensors.insert("lm_head.bias".into(), bias);
    });
    let error = attach_error(&short);
    assert!(
        matches!(&error, MethodError::FactorShape { name, .. } if name == "lm_head.bias"),
        "{error}"
    );
    let unknown = changed(&good, |tensors| {
        let bias = tensors["lm_head.bias"].clone();
        tensors.insert("other.bias".into(), bias);
    });
    let error = attach_error(&unknown);
    assert!(
        matches!(&error, MethodError::AdapterMismatch { names, .. } if names == &["other.bias"]),
        "{error}"
    );
}

#[test]
fn an_adapter_is_not_attached_twice() {
    let adapter = adapter_of(&config());
    let error = attach_adapter(trained(&config()), &adapter, WeightLayout::OutIn)
        .expect_err("already attached");
    assert!(
        matches!(&error, MethodError::AlreadyAttached { module, .. } if module == "layers.0.q_proj"),
        "{error}"
    );
}

#[test]
fn a_model_without_theta_has_no_adapter() {
    let frozen = Net::build(DType::F32).freeze();
    let error =
        to_adapter(&frozen, &config(), &AdapterMeta::new(&config(), &[])).expect_err("no factors");
    assert!(
        matches!(error, MethodError::Peft(PeftError::Empty)),
        "{error}"
    );
}

#[test]
fn a_configuration_of_another_adapter_is_refused() {
    let other = LoraConfig {
        rank: 3,
        ..config()
    };
    let (model, meta) = attached(&config());
    let error = to_adapter(&model, &other, &meta).expect_err("another rank");
    assert!(
        matches!(error, MethodError::Peft(PeftError::WrongRank { .. })),
        "{error}"
    );
}

/// A `.valid()` copy has no gradients, but it holds the same factors.
#[test]
fn an_adapter_can_be_attached_without_autodiff_and_trained_later() {
    let adapter = adapter_of(&config());
    let plain = Net::build(DType::F32).valid();
    let (plain, report) =
        attach_adapter(plain, &adapter, WeightLayout::OutIn).expect("the same model");
    assert_eq!(report.modules.len(), 2);
    let model = plain.train();
    assert_eq!(parameters_of(&model), parameters_of(&trained(&config())));
    let meta = AdapterMeta::new(&config(), &report.modules);
    let again = to_adapter(&model, &config(), &meta).expect("its own adapter");
    assert_eq!(again, adapter);
}

/// PEFT's word for the biases of adapted layers is another for each method, and its files of IA3 have none.
#[test]
fn biases_are_written_in_the_words_of_the_method() {
    let biased = config().selection.with_bias(Biases::Targets);
    let vera = VeraConfig {
        rank: 2,
        selection: biased.clone(),
        ..VeraConfig::default()
    };
    let dora = DoraConfig {
        lora: LoraConfig {
            selection: biased.clone(),
            ..config()
        },
    };
    let cases: [(&dyn MethodConfig, &str); 2] = [(&vera, "vera_only"), (&dora, "lora_only")];
    for (method, word) in cases {
        let adapter = adapter_of(method);
        assert_eq!(adapter.config.str("bias").expect("a string"), Some(word));
        assert!(
            adapter
                .tensors
                .contains_key("layers.1.q_proj.base_layer.bias")
        );
        let (model, _) =
            attach_adapter(Net::build(DType::F32), &adapter, WeightLayout::OutIn).expect("reads");
        assert_eq!(parameters_of(&model), parameters_of(&trained(method)));
    }
    let odd = with_key(&adapter_of(&vera), "bias", json!("some"));
    let error = attach_adapter(Net::build(DType::F32), &odd, WeightLayout::OutIn);
    let error = error.expect_err("no such word").to_string();
    assert!(
        error.contains("'bias'") && error.contains("some"),
        "{error}"
    );
    let ia3 = Ia3Config {
        selection: biased,
        ..Ia3Config::default()
    };
    let error = attach(Net::build(DType::F32), &ia3, 0).expect_err("no place for biases");
    assert!(
        matches!(
            error,
            MethodError::Setting {
                setting: "bias",
                ..
            }
        ),
        "{error}"
    );
}

/// What changes the result and is not honoured is refused, for each method by its own table of keys.
#[test]
fn keys_that_cannot_be_honoured_are_refused_by_name() {
    let vera = VeraConfig {
        rank: 2,
        selection: config().selection,
        ..VeraConfig::default()
    };
    let ia3 = Ia3Config {
        selection: config().selection,
        ..Ia3Config::default()
    };
    let cases: [(&dyn MethodConfig, &str, serde_json::Value); 4] = [
        (&vera, "save_projection", json!(false)),
        (&vera, "use_sparkles", json!(3)),
        (&ia3, "use_sparkles", json!(3)),
        (&config(), "use_qalora", json!(true)),
    ];
    for (method, key, value) in cases {
        let good = adapter_of(method);
        let adapter = match (key, value.as_bool()) {
            ("save_projection", _) => changed(&with_key(&good, key, value), |tensors| {
                tensors.retain(|name, _| name.contains('.'));
            }),
            _ => with_key(&good, key, value),
        };
        let error = attach_error(&adapter);
        assert!(error.to_string().contains(key), "{error}");
    }
    let error = attach_error(&with_key(&adapter_of(&ia3), "peft_type", json!("LOHA")));
    assert!(error.to_string().contains("LOHA"), "{error}");
}

/// A method of its own file type that lacks a tensor, or has one that is not its.
#[test]
fn adapters_of_vera_and_ia3_that_do_not_fit_are_refused() {
    let vera = VeraConfig {
        rank: 2,
        selection: config().selection,
        ..VeraConfig::default()
    };
    let good = adapter_of(&vera);
    for name in ["vera_A", "layers.1.q_proj.vera_lambda_d"] {
        let short = changed(&good, |tensors| {
            tensors.remove(name);
        });
        let error = attach_error(&short);
        assert!(
            matches!(&error, MethodError::AdapterMismatch { names, .. } if names == &[name]),
            "{error}"
        );
    }
    let ia3 = Ia3Config {
        selection: config().selection,
        ..Ia3Config::default()
    };
    let wide = changed(&adapter_of(&ia3), |tensors| {
        let l = Tensor {
            shape: vec![9, 1],
            data: vec![0.5; 9],
        };
        tensors.insert("layers.0.q_proj.ia3_l".into(), l);
    });
    assert!(matches!(
        attach_error(&wide),
        MethodError::FactorShape { .. }
    ));
    let other = changed(&adapter_of(&ia3), |tensors| {
        let l = tensors["layers.0.q_proj.ia3_l"].clone();
        tensors.insert("layers.0.q_proj.lora_A.weight".into(), l);
    });
    let error = attach_error(&other);
    assert!(
        matches!(&error, MethodError::AdapterMismatch { names, .. } if names == &["layers.0.q_proj.lora_A.weight"]),
        "{error}"
    );
    for method in [&vera as &dyn MethodConfig, &ia3] {
        let error = to_adapter(
            &Net::build(DType::F32),
            method,
            &AdapterMeta::new(method, &[]),
        );
        assert!(matches!(error, Err(MethodError::Peft(PeftError::Empty))));
    }
}

#[test]
fn a_method_that_peft_lacks_has_no_adapter() {
    let method = WeightNormConfig::default();
    let (model, meta) = attached(&method);
    let error = to_adapter(&model, &method, &meta).expect_err("no format");
    assert!(
        matches!(
            error,
            MethodError::NoAdapterFile {
                method: "weight_norm"
            }
        ),
        "{error}"
    );
    assert!(error.hint().is_some());
}

/// A classification head that is trained whole goes along, and comes back.
#[test]
fn modules_to_save_are_stored_whole() {
    let (model, mut meta) = attached(&config());
    meta.modules_to_save = vec!["lm_head".into()];
    meta.task_type = Some("SEQ_CLS".into());
    let files = to_adapter(&model, &config(), &meta).expect("its own adapter");
    for name in ["lm_head.weight", "lm_head.bias"] {
        assert!(files.tensors.contains_key(name), "{name}");
    }
    let moved = changed(&files, |tensors| {
        tensors.get_mut("lm_head.weight").expect("stored").data[0] = 42.0;
    });
    let (model, _) =
        attach_adapter(Net::build(DType::F32), &moved, WeightLayout::OutIn).expect("reads");
    assert_eq!(
        super::toy::values(&model.lm_head.weight.param().val())[0],
        42.0
    );
    let short = changed(&files, |tensors| {
        tensors.remove("lm_head.weight");
    });
    let error = attach_error(&short);
    assert!(
        matches!(&error, MethodError::AdapterMismatch { names, .. } if names == &["lm_head.weight"]),
        "{error}"
    );
}

/// PEFT's VeRA has no `exclude_modules`, and its IA3 tells feed-forward modules by names among the targets.
#[test]
fn targets_are_written_so_that_peft_finds_the_same_modules() {
    let written = |method: &dyn MethodConfig, key: &str| {
        let value = adapter_of(method).config.map().get(key).cloned();
        value.unwrap_or(serde_json::Value::Null)
    };
    let some = |target: &[&str], exclude: Option<&str>| {
        let names = |names: &[&str]| {
            TargetModules::Names(names.iter().map(|name| (*name).to_owned()).collect())
        };
        Selection {
            target_modules: names(target),
            exclude_modules: exclude.map(|exclude| names(&[exclude])),
            ..Selection::default()
        }
    };
    let vera = VeraConfig {
        rank: 2,
        selection: some(&["q_proj"], Some("layers.0.q_proj")),
        ..VeraConfig::default()
    };
    assert_eq!(written(&vera, "exclude_modules"), json!(null));
    assert_eq!(written(&vera, "target_modules"), json!(["layers.1.q_proj"]));

    let ia3 = |feedforward: &str, selection: Selection| Ia3Config {
        feedforward_modules: TargetModules::Names(vec![feedforward.into()]),
        selection,
    };
    let plain = ia3("down_proj", some(&["down_proj", "q_proj"], None));
    assert_eq!(written(&plain, "feedforward_modules"), json!(["down_proj"]));
    assert_eq!(
        written(&plain, "target_modules"),
        json!(["down_proj", "q_proj"])
    );
    // One of two modules of a name: only paths tell them apart.
    let one = ia3("layers.1.q_proj", some(&["q_proj"], None));
    assert_eq!(
        written(&one, "feedforward_modules"),
        json!(["layers.1.q_proj"])
    );
    assert_eq!(
        written(&one, "target_modules"),
        json!(["layers.0.q_proj", "layers.1.q_proj"])
    );
    let none = ia3("fc2", some(&["q_proj"], None));
    assert_eq!(written(&none, "feedforward_modules"), json!([]));
}
