//! What is a list of methods' alone: which methods compose, and what they make of each other.

use burn::tensor::DType;
use reparam_formats::peft::TargetModules;

use super::assert_close;
use super::toy::{Net, Toy, bits, randomize, values};
use crate::methods::{
    DoraConfig, FullConfig, Ia3Config, LoraConfig, MethodConfig, MethodError, Methods,
    OverparameterizedConfig, ScaleConfig, Selection, SigmaReparamConfig, VeraConfig, WeightLayout,
    WeightNormConfig, attach, attach_all, linear_modules,
};
use crate::parameters;

fn lora() -> LoraConfig {
    LoraConfig::new(2, 3.0)
}

fn normalized(selection: Selection) -> WeightNormConfig {
    WeightNormConfig {
        selection,
        ..WeightNormConfig::default()
    }
}

/// DoRA's formula, by hand: the rows of `W0 + s B A`, each of length `g`.
#[test]
fn the_weight_has_the_direction_of_lora_and_the_length_g() {
    let base = Net::build(DType::F64);
    let w0 = values(&base.layers[0].q_proj.weight.param().val());
    let methods: [&dyn MethodConfig; 2] = [&lora(), &WeightNormConfig::default()];
    let (model, report) = attach_all(base, &methods, 1).expect("it composes");
    // The report is that of the last, which has neither rank nor scaling.
    assert_eq!(report.modules.len(), 4);
    let (rank, scaling) = (report.modules[0].rank, report.modules[0].scaling);
    assert_eq!((rank, scaling), (None, None));
    let model = randomize(model, 3);
    let list = parameters::trainable(&model);
    let names: Vec<&str> = list.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(
        names[..3],
        [
            "layers.0.q_proj.lora_A.weight",
            "layers.0.q_proj.lora_B.weight",
            "layers.0.q_proj.weight_g"
        ]
    );
    let weight = model.layers[0].q_proj.weight.param();
    assert_eq!(values(&weight.base()), w0);
    let [a, b, g] = [0, 1, 2].map(|at: usize| values(&list[at].values));
    let d_in = w0.len() / g.len();
    let mut expected = Vec::new();
    for (row, g) in g.iter().enumerate() {
        let v: Vec<f64> = (0..d_in)
            .map(|col| {
                let product: f64 = (0..2).map(|k| b[row * 2 + k] * a[k * d_in + col]).sum();
                w0[row * d_in + col] + 1.5 * product
            })
            .collect();
        let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        expected.extend(v.iter().map(|v| g * v / norm));
    }
    assert_close(&values(&weight.val()), &expected, 1e-14, "W");
}

/// Whatever the methods are: the one that is attached first stands next to the stored weight, and only a method whose spec
/// says so stands over another one, once.
#[test]
fn only_what_goes_over_others_composes() {
    let methods: Vec<Box<dyn MethodConfig>> = vec![
        Box::new(FullConfig::default()),
        Box::new(ScaleConfig::new(0.5)),
        Box::new(WeightNormConfig::default()),
        Box::new(SigmaReparamConfig::default()),
        Box::new(OverparameterizedConfig::default()),
        Box::new(lora()),
        Box::new(DoraConfig { lora: lora() }),
        Box::new(VeraConfig {
            rank: 2,
            ..VeraConfig::default()
        }),
        Box::new(Ia3Config::default()),
    ];
    assert_eq!(methods.len(), Methods::builtin().iter().count());
    for first in &methods {
        for second in &methods {
            let kinds = [first.spec().kind, second.spec().kind];
            let outcome = attach_all(Net::build(DType::F32), &[&**first, &**second], 0);
            if second.spec().goes_over_others && kinds[0] != kinds[1] {
                let (model, _) = outcome.expect("it composes");
                assert_eq!(linear_modules(&model)[0].methods, kinds);
                for third in &methods {
                    let error = attach(model.clone(), &**third, 0).expect_err("a model with two");
                    check(&error, kinds[0], third.spec().kind);
                }
            } else {
                check(&outcome.expect_err("a second"), kinds[0], kinds[1]);
            }
        }
    }
    let over = WeightNormConfig::default();
    let error = attach_all(Net::build(DType::F32), &[&lora(), &over, &over], 0);
    check(&error.expect_err("twice"), "weight_norm", "weight_norm");
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
    assert!(hint.contains("in one list"), "{hint}");
}

#[test]
fn what_a_method_over_others_cannot_honour_is_refused() {
    let dropout = LoraConfig {
        dropout: 0.5,
        ..lora()
    };
    let over = normalized(Selection::default());
    let error = attach_all(Net::build(DType::F32), &[&dropout, &over], 0).expect_err("dropout");
    assert!(
        matches!(
            &error,
            MethodError::DropoutBelow {
                method: "lora",
                above: "weight_norm"
            }
        ),
        "{error}"
    );
    assert!(error.hint().expect("a hint").contains("dropout"));
    let other = normalized(Selection::default().with_weight_layout(WeightLayout::InOut));
    let error = attach_all(Net::build(DType::F32), &[&lora(), &other], 0).expect_err("a layout");
    let is_layout = matches!(
        error,
        MethodError::Setting {
            setting: "weight_layout",
            ..
        }
    );
    assert!(is_layout, "{error}");
}

/// A layer without the first method is no candidate for the second, and one that the second leaves out keeps the first alone.
#[test]
fn layers_that_are_not_selected_keep_what_is_below() {
    let names = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned());
        Selection::default().with_target_modules(TargetModules::Names(names.collect()))
    };
    let below = LoraConfig {
        selection: names(&["q_proj"]),
        ..lora()
    };
    let over = normalized(names(&["layers.0.q_proj"]));
    let (model, report) =
        attach_all(Net::build(DType::F32), &[&below, &over], 1).expect("it composes");
    assert_eq!(report.modules.len(), 1);
    let expected: [(&str, &[&str]); 5] = [
        ("layers.0.q_proj", &["lora", "weight_norm"]),
        ("layers.0.down_proj", &[]),
        ("layers.1.q_proj", &["lora"]),
        ("layers.1.down_proj", &[]),
        ("lm_head", &[]),
    ];
    for (linear, (path, methods)) in linear_modules(&model).iter().zip(expected) {
        assert_eq!(
            (linear.path.as_str(), &linear.methods[..]),
            (
                path,
                &methods
                    .iter()
                    .map(|method| (*method).to_owned())
                    .collect::<Vec<_>>()[..]
            )
        );
    }
    let elsewhere = normalized(names(&["down_proj"]));
    let error = attach_all(Net::build(DType::F32), &[&below, &elsewhere], 1);
    assert!(matches!(error, Err(MethodError::Peft(_))));
}

/// What stands below is below for the start, too: the lengths are those of the rows that the scale makes.
#[test]
fn a_method_starts_from_what_those_before_it_make() {
    let methods: [&dyn MethodConfig; 2] = [&ScaleConfig::new(0.5), &WeightNormConfig::default()];
    let base = Net::build(DType::F64);
    let w0 = bits(&base.layers[1].down_proj.weight.param().val());
    let (model, _) = attach_all(base, &methods, 1).expect("it composes");
    let weight = model.layers[1].down_proj.weight.param();
    assert_eq!(bits(&weight.val()), w0);
    assert_eq!(bits(&(weight.base() * 0.5)), w0);
}
