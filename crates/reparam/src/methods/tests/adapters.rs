//! Adapters that do not fit are refused by name.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::DType;
use reparam_formats::peft::{AdapterFiles, PeftError, TargetModules, Tensor};
use serde_json::json;

use super::toy::{BurnNet, Net, Toy, parameters_of, randomize};
use crate::methods::{
    AdapterMeta, Biases, LoraConfig, MethodConfig, MethodError, Selection, WeightLayout, attach,
    attach_adapter, to_adapter,
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
