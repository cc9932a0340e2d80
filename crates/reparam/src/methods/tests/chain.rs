//! What is a chain's alone: which methods compose, and what becomes of the first.

use burn::tensor::DType;

use super::assert_close;
use super::toy::{Net, Toy, bits, randomize, values};
use crate::methods::{
    AnyMethod, IdentityConfig, LoraConfig, MethodError, OverparameterizedConfig, ScaleConfig,
    Selection, SigmaReparamConfig, WeightLayout, WeightNormConfig, attach_lora, attach_weight_norm,
    linear_modules,
};
use crate::parameters;

fn lora() -> LoraConfig {
    LoraConfig::new(2, 3.0)
}

/// DoRA's formula, by hand: the rows of `W0 + s B A`, each of length `g`.
#[test]
fn the_weight_has_the_direction_of_lora_and_the_length_g() {
    let (model, _) = attach_lora(Net::build(DType::F64), &lora(), 1).expect("attaches");
    let model = randomize(model, 3);
    let adapted = values(&model.layers[0].q_proj.weight.val());
    let base = bits(&model.layers[0].q_proj.weight.base());
    let factors = parameters::trainable(&model);
    let (model, report) =
        attach_weight_norm(model, &WeightNormConfig::default(), 0).expect("it composes");
    assert_eq!(report.modules.len(), 4);
    assert_eq!(
        (report.modules[0].rank, report.modules[0].scaling),
        (Some(2), Some(1.5))
    );
    // LoRA's trained state came along, in the middle of training, and W0 is W0 again.
    let weight = &model.layers[0].q_proj.weight;
    assert_eq!(bits(&weight.base()), base);
    assert_eq!(values(&weight.val()), adapted);
    let list = parameters::trainable(&model);
    let names: Vec<&str> = list.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(
        names[..3],
        [
            "layers.0.q_proj.weight_g",
            "layers.0.q_proj.lora_A.weight",
            "layers.0.q_proj.lora_B.weight"
        ]
    );
    for factor in &factors {
        let same = list.iter().find(|tensor| tensor.name == factor.name);
        assert_eq!(bits(&same.expect("kept").values), bits(&factor.values));
    }
    let model = randomize(model, 5);
    let g = values(&parameters::trainable(&model)[0].values);
    let width = adapted.len() / g.len();
    for (row, g) in values(&model.layers[0].q_proj.weight.val())
        .chunks(width)
        .zip(g)
    {
        let length = row.iter().map(|w| w * w).sum::<f64>().sqrt();
        assert_close(&[length], &[g.abs()], 1e-14, "|W_i|");
    }
}

#[test]
fn only_weight_norm_on_lora_composes() {
    let methods = || -> Vec<AnyMethod> {
        vec![
            IdentityConfig::default().into(),
            ScaleConfig::new(0.5).into(),
            WeightNormConfig::default().into(),
            SigmaReparamConfig::default().into(),
            OverparameterizedConfig::default().into(),
            lora().into(),
        ]
    };
    assert_eq!(methods().len(), crate::methods::METHODS.len());
    for first in methods() {
        for second in methods() {
            let (first, second) = (&first, &second);
            let (model, _) = first.attach(Net::build(DType::F32), 0).expect("the first");
            let outcome = second.attach(model, 0);
            let kinds = (first.method().kind, second.method().kind);
            if kinds == ("lora", "weight_norm") {
                let (model, _) = outcome.expect("it composes");
                for third in methods() {
                    let error = third.attach(model.clone(), 0).expect_err("a third");
                    check(&error, "chain", third.method().kind);
                }
            } else {
                check(&outcome.expect_err("a second"), kinds.0, kinds.1);
            }
        }
    }
}

fn check(error: &MethodError, on: &str, new: &str) {
    let MethodError::AlreadyAttached {
        attached, method, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((attached.as_str(), *method), (on, new));
    let hint = error.hint().expect("a hint");
    assert!(hint.contains("`weight_norm` on `lora`"), "{hint}");
}

#[test]
fn what_the_norm_cannot_honour_is_refused() {
    let attach = |lora: LoraConfig, selection: Selection| {
        let (model, _) = attach_lora(Net::build(DType::F32), &lora, 1).expect("attaches");
        attach_weight_norm(model, &WeightNormConfig { selection }, 0).map(|_| ())
    };
    let dropout = LoraConfig {
        dropout: 0.5,
        ..lora()
    };
    let error = attach(dropout, Selection::default()).expect_err("dropout");
    assert!(
        matches!(&error, MethodError::Setting { setting: "dropout", found, .. } if found == "0.5"),
        "{error}"
    );
    let other = Selection::default().with_weight_layout(WeightLayout::InOut);
    let error = attach(lora(), other).expect_err("another layout");
    assert!(
        matches!(
            error,
            MethodError::Setting {
                setting: "weight_layout",
                ..
            }
        ),
        "{error}"
    );
}

/// A layer without LoRA is no candidate, and a layer that is not selected keeps its own.
#[test]
fn layers_that_are_not_selected_keep_their_lora() {
    let names = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned());
        reparam_formats::peft::TargetModules::Names(names.collect())
    };
    let config = LoraConfig {
        dropout: 0.0,
        ..lora().with_target_modules(names(&["q_proj"]))
    };
    let (model, _) = attach_lora(Net::build(DType::F32), &config, 1).expect("attaches");
    let selection = Selection::default().with_target_modules(names(&["layers.0.q_proj"]));
    let (model, _) =
        attach_weight_norm(model, &WeightNormConfig { selection }, 0).expect("it composes");
    let methods: Vec<(String, Option<String>)> = linear_modules(&model)
        .into_iter()
        .map(|linear| (linear.path, linear.method))
        .collect();
    let expected = [
        ("layers.0.q_proj", Some("chain")),
        ("layers.0.down_proj", None),
        ("layers.1.q_proj", Some("lora")),
        ("layers.1.down_proj", None),
        ("lm_head", None),
    ];
    for ((path, method), expected) in methods.iter().zip(expected) {
        assert_eq!((path.as_str(), method.as_deref()), expected);
    }
}
