//! Files of trained state that do not fit are refused by name.

use burn::module::Module;
use burn::tensor::DType;
use reparam_formats::FormatError;
use reparam_formats::checkpoint::{Checkpoint, Dtype};

use super::toy::{Net, Toy, parameters_of, randomize};
use crate::methods::{
    Biases, FullConfig, LoraConfig, MethodConfig, MethodError, OverparameterizedConfig, Selection,
    SigmaReparamConfig, WeightNormConfig, attach, load_theta, save_theta,
};
use crate::parameters;

fn attached(method: &dyn MethodConfig, dtype: DType) -> Net {
    let (model, _) = attach(Net::build(dtype), method, 1).expect("attaches");
    model
}

fn sigma() -> SigmaReparamConfig {
    SigmaReparamConfig {
        selection: Selection::default().with_bias(Biases::All),
        ..SigmaReparamConfig::default()
    }
}

#[test]
fn the_file_holds_all_state_by_public_names_in_its_own_type() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("theta.safetensors");
    for (dtype, stored) in [(DType::F64, Dtype::F64), (DType::F32, Dtype::F32)] {
        let model = randomize(attached(&sigma(), dtype), 2);
        save_theta(&model, &path).expect("writable");
        let file = Checkpoint::open_file(&path).expect("what was just written");
        let mut expected: Vec<String> = vec!["lm_head.bias".into()];
        for layer in ["0.q_proj", "0.down_proj", "1.q_proj", "1.down_proj"] {
            for tensor in [
                "bias",
                "weight_gamma",
                "weight_orig",
                "weight_u",
                "weight_v",
            ] {
                expected.push(format!("layers.{layer}.{tensor}"));
            }
        }
        expected.sort();
        let mut names: Vec<&str> = file.names().collect();
        names.sort_unstable();
        assert_eq!(names, expected);
        assert!(file.tensors().all(|(_, view)| view.dtype == stored));
        let u = file
            .get("layers.0.q_proj.weight_u")
            .expect("part of the state");
        assert_eq!(u.shape, [5]);
        let loaded = load_theta(attached(&sigma(), dtype), &path).expect("the same model");
        assert_eq!(parameters_of(&loaded), parameters_of(&model));
    }
}

#[test]
fn another_method_or_setting_is_refused_with_names() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("theta.safetensors");
    save_theta(&attached(&sigma(), DType::F32), &path).expect("writable");
    let others: [&dyn MethodConfig; 5] = [
        &FullConfig::default(),
        &WeightNormConfig::default(),
        &SigmaReparamConfig::default(),
        &OverparameterizedConfig::default(),
        &LoraConfig::new(2, 1.0),
    ];
    for other in others {
        let error = load_theta(attached(other, DType::F32), &path).expect_err("another");
        let MethodError::File(FormatError::Mismatch(mismatch)) = &error else {
            panic!("{error}");
        };
        assert!(!mismatch.missing.is_empty() || !mismatch.unexpected.is_empty());
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("settings of the method"), "{hint}");
    }
    let missing = load_theta(
        attached(&sigma(), DType::F32),
        &directory.path().join("none.safetensors"),
    );
    assert!(matches!(missing, Err(MethodError::File(_))));
}

#[test]
fn a_number_that_is_not_finite_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("theta.safetensors");
    let model = attached(&FullConfig::default(), DType::F32);
    let mut list = parameters::trainable(&model);
    list[0].values = list[0].values.clone() / 0.0;
    save_theta(&parameters::assign(model, list), &path).expect("writable");
    let fresh = attached(&FullConfig::default(), DType::F32);
    let error = load_theta(fresh, &path).expect_err("infinite");
    assert!(
        matches!(error, MethodError::File(FormatError::NonFinite { .. })),
        "{error}"
    );
}

/// Without autodiff nothing says what is trained: an error, and no file with a part of it.
#[test]
fn a_copy_without_autodiff_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("theta.safetensors");
    let model = attached(&sigma(), DType::F32);
    let error = save_theta(&model.valid(), &path).expect_err("nothing requires a gradient");
    assert!(matches!(error, MethodError::NothingTrained), "{error}");
    assert!(error.hint().is_some());
    assert!(!path.exists());
    save_theta(&model, &path).expect("writable");
    let error = load_theta(model.valid(), &path).expect_err("nothing requires a gradient");
    assert!(matches!(error, MethodError::NothingTrained), "{error}");
}

/// A copy without autodiff can be loaded into once it is trained again.
#[test]
fn state_goes_into_a_model_that_was_attached_without_autodiff() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("theta.safetensors");
    let model = randomize(attached(&sigma(), DType::F32), 2);
    save_theta(&model, &path).expect("writable");
    let (plain, _) = attach(Net::build(DType::F32).valid(), &sigma(), 9).expect("attaches");
    let loaded = load_theta(plain.train(), &path).expect("the same model");
    assert_eq!(parameters_of(&loaded), parameters_of(&model));
}
