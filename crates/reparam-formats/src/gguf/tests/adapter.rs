//! Adapters.

use super::*;
use crate::gguf::{
    AdapterOptions, GgufDtype, GgufError, GgufModel, GgufWeight, Layout, Source, write_adapter,
};
use crate::peft::{AdapterFiles, LoraAdapterConfig, PeftAdapter, TargetModules, Tensor};

const Q: &str = "model.layers.0.self_attn.q_proj";
const UP: &str = "model.layers.0.mlp.up_proj";

fn base() -> GgufModel {
    let weight = |name: &str, of: &str, layout| GgufWeight {
        name: name.to_owned(),
        source: Source::Stored {
            name: format!("{of}.weight"),
            layout,
            keeps_f32: false,
        },
    };
    GgufModel {
        architecture: "some".to_owned(),
        settings: Vec::new(),
        weights: vec![
            weight("blk.0.attn_q.weight", Q, Layout::Pairs { heads: 2 }),
            weight("blk.0.ffn_up.weight", UP, Layout::AsStored),
        ],
        notes: Vec::new(),
    }
}

fn adapter(change: impl FnOnce(&mut LoraAdapterConfig)) -> PeftAdapter {
    let names = vec!["q_proj".to_owned(), "up_proj".to_owned()];
    let mut config = LoraAdapterConfig {
        r: 2,
        lora_alpha: 6.0,
        target_modules: Some(TargetModules::Names(names)),
        ..LoraAdapterConfig::default()
    };
    change(&mut config);
    let tensor = |shape: [usize; 2], seed: usize| Tensor {
        shape: shape.to_vec(),
        data: (0..shape[0] * shape[1])
            .map(|at| ((at * 5 + seed) % 13) as f32 / 4.0 - 1.5)
            .collect(),
    };
    let of_up = config.rank_pattern.first().map_or(2, |(_, rank)| *rank);
    let tensors = BTreeMap::from([
        (PeftAdapter::a_name(Q), tensor([2, 3], 1)),
        (PeftAdapter::b_name(Q), tensor([8, 2], 2)),
        (PeftAdapter::a_name(UP), tensor([of_up, 3], 3)),
        (PeftAdapter::b_name(UP), tensor([5, of_up], 4)),
    ]);
    PeftAdapter::new(config, tensors).expect("an adapter")
}

fn written(files: AdapterFiles, dtype: GgufDtype) -> Result<File, GgufError> {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("adapter.gguf");
    write_adapter(&path, files, &base(), AdapterOptions { dtype })?;
    Ok(read(&path))
}

fn files(adapter: &PeftAdapter) -> AdapterFiles {
    AdapterFiles::new(adapter.config().to_map(), adapter.tensors().clone())
}

/// What a program adds to a weight that multiplies `B A` by alpha over rank, with the rows where the checkpoint has them.
fn delta(file: &File, name: &str, layout: Layout) -> Vec<f64> {
    let GgufValue::F32(alpha) = file.metadata["adapter.lora.alpha"] else {
        panic!("alpha");
    };
    let a = &file.tensors[&format!("{name}.lora_a")];
    let b = &file.tensors[&format!("{name}.lora_b")];
    let (rows, rank, columns) = (b.shape[0], b.shape[1], a.shape[1]);
    let mut delta = vec![0.0; rows * columns];
    for place in 0..rows {
        for column in 0..columns {
            let terms =
                (0..rank).map(|k| b.values[place * rank + k] * a.values[k * columns + column]);
            let sum: f64 = terms.sum();
            delta[layout.row(place, rows) * columns + column] =
                f64::from(alpha) / rank as f64 * sum;
        }
    }
    delta
}

/// What PEFT adds.
fn expected(adapter: &PeftAdapter, module: &str) -> Vec<f64> {
    let pair = adapter.pair(module).expect("a pair");
    let (rank, columns) = (pair.numbers.rank, pair.a.shape[1]);
    let at = |row: usize, column: usize| {
        let terms = (0..rank).map(|k| {
            f64::from(pair.b.data[row * rank + k]) * f64::from(pair.a.data[k * columns + column])
        });
        pair.numbers.scaling * terms.sum::<f64>()
    };
    let rows = 0..pair.b.shape[0];
    rows.flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| at(row, column))
        .collect()
}

#[test]
fn every_scaling_comes_to_the_same_product() {
    type Change = fn(&mut LoraAdapterConfig);
    let cases: [(Change, bool); 5] = [
        (|_| {}, true),
        (|config| config.use_rslora = true, false),
        (
            |config| config.alpha_pattern = vec![("up_proj".into(), 1.5)],
            false,
        ),
        (
            |config| config.rank_pattern = vec![("up_proj".into(), 3)],
            true,
        ),
        (
            |config| {
                config.use_rslora = true;
                config.rank_pattern = vec![("up_proj".into(), 3)];
                config.alpha_pattern = vec![("up_proj".into(), 5.0)];
            },
            false,
        ),
    ];
    for (number, (change, is_exact)) in cases.into_iter().enumerate() {
        let adapter = adapter(change);
        let file = written(files(&adapter), GgufDtype::F32).expect("a file");
        assert_eq!(
            file.metadata["general.type"],
            GgufValue::Text("adapter".into())
        );
        for (module, name, layout) in [
            (Q, "blk.0.attn_q.weight", Layout::Pairs { heads: 2 }),
            (UP, "blk.0.ffn_up.weight", Layout::AsStored),
        ] {
            let found = delta(&file, name, layout);
            for (found, expected) in found.iter().zip(expected(&adapter, module)) {
                let error = (found - expected).abs();
                assert!(
                    error <= 1e-6 * expected.abs().max(1.0),
                    "{number} {module}: {error:e}"
                );
            }
            let kept = &file.tensors[&format!("{name}.lora_a")].values;
            let a = adapter.pair(module).expect("a pair").a;
            assert!(
                kept.iter()
                    .zip(&a.data)
                    .all(|(kept, a)| *kept == f64::from(*a))
            );
        }
        if is_exact {
            assert_eq!(file.metadata["adapter.lora.alpha"], GgufValue::F32(6.0));
            let mut kept = file.tensors["blk.0.ffn_up.weight.lora_b"].values.clone();
            kept.retain(|value| *value != 0.0);
            let b = &adapter.pair(UP).expect("a pair").b.data;
            let b: Vec<f64> = b
                .iter()
                .map(|v| f64::from(*v))
                .filter(|v| *v != 0.0)
                .collect();
            assert_eq!(kept, b, "{number}");
        }
    }
}

#[test]
fn what_has_no_place_is_refused_by_name() {
    let dora = {
        let plain = adapter(|_| {});
        let mut tensors = plain.tensors().clone();
        for (module, n) in [(Q, 8), (UP, 5)] {
            let lengths = Tensor {
                shape: vec![n],
                data: vec![1.0; n],
            };
            tensors.insert(format!("{module}.lora_magnitude_vector"), lengths);
        }
        let mut config = plain.config().clone();
        config.use_dora = true;
        AdapterFiles::new(config.to_map(), tensors)
    };
    let mut of_other = files(&adapter(|_| {}));
    let own = of_other.tensors.keys().cloned().collect::<Vec<_>>();
    for name in own {
        if let Some(tensor) = of_other.tensors.remove(&name) {
            of_other
                .tensors
                .insert(name.replace("layers.0", "layers.7"), tensor);
        }
    }
    let mut ia3 = files(&adapter(|_| {}));
    ia3.config = crate::config::JsonObject::parse(
        std::path::Path::new("adapter_config.json"),
        r#"{"peft_type": "IA3"}"#,
    )
    .expect("JSON");
    for (files, said) in [(dora, "use_dora"), (of_other, "layers.7"), (ia3, "IA3")] {
        let error = written(files, GgufDtype::F32).expect_err(said);
        assert!(error.to_string().contains(said), "{error}");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("--merge")),
            "{error}"
        );
    }
    let error = written(files(&adapter(|_| {})), GgufDtype::Q8_0).expect_err("a type");
    assert!(matches!(error, GgufError::AdapterDtype { .. }));
}
