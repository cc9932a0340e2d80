//! Between PEFT and MLX and back.

use std::collections::BTreeMap;

use super::*;
use crate::peft::{AdapterFiles, LoraAdapterConfig, PeftAdapter, PeftError, TargetModules, Tensor};

const MODULE: &str = "model.layers.3.self_attn.q_proj";
const OTHER: &str = "model.layers.0.mlp.up_proj";

/// An adapter of two modules with ranks of their own.
fn adapter(change: impl FnOnce(&mut LoraAdapterConfig)) -> PeftAdapter {
    let mut config = LoraAdapterConfig {
        r: 2,
        lora_alpha: 6.0,
        lora_dropout: 0.25,
        target_modules: Some(TargetModules::Names(vec![
            "q_proj".into(),
            "up_proj".into(),
        ])),
        base_model_name_or_path: Some("base".into()),
        task_type: Some("CAUSAL_LM".into()),
        ..LoraAdapterConfig::default()
    };
    change(&mut config);
    let tensor = |shape: [usize; 2], seed: usize| Tensor {
        shape: shape.to_vec(),
        data: (0..shape[0] * shape[1])
            .map(|at| ((at * 7 + seed) % 11) as f32 / 3.0 - 1.5)
            .collect(),
    };
    let other = config.rank_pattern.first().map_or(2, |(_, rank)| *rank);
    let tensors = BTreeMap::from([
        (PeftAdapter::a_name(MODULE), tensor([2, 5], 1)),
        (PeftAdapter::b_name(MODULE), tensor([3, 2], 2)),
        (PeftAdapter::a_name(OTHER), tensor([other, 4], 3)),
        (PeftAdapter::b_name(OTHER), tensor([6, other], 4)),
    ]);
    PeftAdapter::new(config, tensors).expect("an adapter")
}

fn files(adapter: &PeftAdapter) -> AdapterFiles {
    AdapterFiles::new(adapter.config().to_map(), adapter.tensors().clone())
}

#[test]
fn there_and_back_gives_the_same_bits() {
    let peft = adapter(|_| {});
    let mlx = from_peft(files(&peft)).expect("an adapter of MLX");
    assert_eq!(mlx.scale, 3.0);
    assert_eq!(mlx.tensors[&format!("{MODULE}.lora_a")].shape, [5, 2]);
    assert_eq!(mlx.tensors[&format!("{MODULE}.lora_b")].shape, [2, 3]);
    let place = tempfile::tempdir().expect("a directory");
    mlx.save(place.path()).expect("saves");
    assert!(MlxAdapter::is_in(place.path()));
    let loaded = MlxAdapter::load(place.path()).expect("loads");
    assert_eq!(loaded, mlx);
    // Who takes it for one of PEFT is told what it is.
    let error = AdapterFiles::load(place.path()).expect_err("one of MLX");
    assert!(matches!(error, PeftError::OfMlx { .. }), "{error}");
    assert!(error.hint().expect("a hint").contains("--to peft"));
    let again = to_peft(&loaded).expect("an adapter of PEFT");
    assert_eq!(again.tensors(), peft.tensors());
    // Neither is in every layer, so that its name alone would stand for more.
    let mut expected = peft.config().clone();
    expected.target_modules = Some(TargetModules::Names(vec![OTHER.into(), MODULE.into()]));
    assert_eq!(again.config(), &expected);
    let text = std::fs::read_to_string(place.path().join("adapter_config.json")).expect("text");
    let config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let keys = serde_json::json!(["mlp.up_proj", "self_attn.q_proj"]);
    assert_eq!(config["lora_parameters"]["keys"], keys);
}

/// The product of the factors of a module, with the scaling.
fn delta(adapter: &PeftAdapter, module: &str) -> Vec<f64> {
    let pair = adapter.pair(module).expect("a pair");
    let (d_in, rank) = (pair.a.shape[1], pair.numbers.rank);
    let mut product = Vec::new();
    for row in 0..pair.b.shape[0] {
        for column in 0..d_in {
            let terms = (0..rank).map(|k| {
                f64::from(pair.b.data[row * rank + k]) * f64::from(pair.a.data[k * d_in + column])
            });
            product.push(pair.numbers.scaling * terms.sum::<f64>());
        }
    }
    product
}

#[test]
fn modules_of_all_layers_are_named_by_their_last_part() {
    let everywhere = ["q_proj", "v_proj"]
        .map(|name| (0..2).map(move |layer| format!("model.layers.{layer}.self_attn.{name}")));
    let everywhere: Vec<String> = everywhere.into_iter().flatten().collect();
    let names = |modules: &[String]| {
        let tensors = modules.iter().flat_map(|module| {
            let zeros = |shape: [usize; 2]| Tensor {
                shape: shape.to_vec(),
                data: vec![0.0; shape[0] * shape[1]],
            };
            [
                (format!("{module}.lora_a"), zeros([5, 2])),
                (format!("{module}.lora_b"), zeros([2, 5])),
            ]
        });
        let mlx = MlxAdapter {
            is_dora: false,
            rank: 2,
            scale: 1.0,
            dropout: 0.0,
            model: None,
            tensors: tensors.collect(),
        };
        let peft = to_peft(&mlx).expect("an adapter of PEFT");
        peft.config().target_modules.clone()
    };
    let short = vec!["q_proj".to_owned(), "v_proj".to_owned()];
    assert_eq!(names(&everywhere), Some(TargetModules::Names(short)));
    // The last layer alone, and one layer without a module that another has.
    let last = vec![everywhere[1].clone(), everywhere[3].clone()];
    for mut some in [last, everywhere[..3].to_vec()] {
        some.sort();
        assert_eq!(names(&some), Some(TargetModules::Names(some.clone())));
    }
}

#[test]
fn numbers_of_modules_are_folded_into_one() {
    let peft = adapter(|config| {
        config.rank_pattern = vec![("up_proj".into(), 3)];
        config.alpha_pattern = vec![("up_proj".into(), 5.0)];
        config.use_rslora = true;
    });
    let mlx = from_peft(files(&peft)).expect("an adapter of MLX");
    assert_eq!(mlx.rank, 3);
    let again = to_peft(&mlx).expect("an adapter of PEFT");
    for module in [MODULE, OTHER] {
        for (a, b) in delta(&peft, module).iter().zip(delta(&again, module)) {
            assert!(
                (a - b).abs() <= 1e-6 * a.abs().max(1.0),
                "{module}: {a} {b}"
            );
        }
    }
}

#[test]
fn what_has_no_place_is_refused() {
    let peft = adapter(|config| config.fan_in_fan_out = true);
    let error = from_peft(files(&peft)).expect_err("refused");
    assert!(error.to_string().contains("fan_in_fan_out"), "{error}");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("reparam merge"))
    );
    let mut mlx = from_peft(files(&adapter(|_| {}))).expect("an adapter of MLX");
    let whole = Tensor {
        shape: vec![1],
        data: vec![1.0],
    };
    mlx.tensors.insert("model.norm.weight".into(), whole);
    assert!(matches!(to_peft(&mlx), Err(MlxError::NoPlace { .. })));
    let place = tempfile::tempdir().expect("a directory");
    let error = MlxAdapter::load(place.path()).expect_err("nothing there");
    assert!(matches!(error, MlxError::NotAnAdapter { .. }));
}
