//! Models.

use std::path::Path;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::gguf::{
    GgufDtype, GgufError, GgufModel, GgufTokenizer, GgufWeight, Layout, ModelOptions, Source,
    write_model,
};
use crate::safetensors::TensorToWrite;
use crate::weights::Weights;

/// [`Checkpoint`] with errors of both kinds.
struct Stored(Checkpoint);

impl Weights for Stored {
    type Error = GgufError;

    fn shape(&mut self, name: &str) -> Result<Vec<usize>, GgufError> {
        Ok((&self.0).shape(name)?)
    }

    fn dtype(&mut self, name: &str) -> Result<crate::checkpoint::Dtype, GgufError> {
        Ok((&self.0).dtype(name)?)
    }

    fn read(&mut self, name: &str, first: usize, to: &mut [f64]) -> Result<(), GgufError> {
        Ok((&self.0).read(name, first, to)?)
    }
}

fn checkpoint(tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Stored {
    let tensors: Vec<TensorToWrite<'_>> = tensors
        .iter()
        .map(|(name, shape, values)| TensorToWrite::f32(name, shape, values))
        .collect();
    Stored(Checkpoint::in_memory(Path::new("memory"), &tensors).expect("a checkpoint"))
}

fn stored(name: &str, of: &str, layout: Layout) -> GgufWeight {
    GgufWeight {
        name: name.to_owned(),
        source: Source::Stored {
            name: of.to_owned(),
            layout,
            keeps_f32: false,
        },
    }
}

fn model(weights: Vec<GgufWeight>) -> GgufModel {
    GgufModel {
        architecture: "some".to_owned(),
        settings: vec![("block_count", GgufValue::U32(2))],
        weights,
        notes: Vec::new(),
    }
}

fn written(model: &GgufModel, stored: &mut Stored, dtype: GgufDtype) -> Result<File, GgufError> {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("model.gguf");
    let tokenizer = GgufTokenizer::read(&super::tokenizer::bytes_tokenizer(
        &super::tokenizer::bytes_json(),
    ))
    .expect("a tokenizer");
    let options = ModelOptions {
        dtype,
        name: Some("tiny"),
    };
    write_model(&path, model, &tokenizer, stored, options)?;
    Ok(read(&path))
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|value| value as f32 - 3.5).collect()
}

#[test]
fn numbers_come_back_in_every_type_and_layout() {
    let mut weights = checkpoint(&[
        ("plain", vec![3, 32], ramp(96)),
        ("odd", vec![2, 5], ramp(10)),
        ("heads", vec![8, 2], ramp(16)),
        ("bias", vec![8], ramp(8)),
        ("turned", vec![2, 3], ramp(6)),
        ("norm", vec![4], ramp(4)),
        ("conv", vec![3, 1, 2], ramp(6)),
        ("one", vec![3, 1, 1], ramp(3)),
    ]);
    let all = vec![
        stored("a", "plain", Layout::AsStored),
        stored("b", "odd", Layout::AsStored),
        stored("c", "heads", Layout::Pairs { heads: 2 }),
        stored("d", "bias", Layout::Pairs { heads: 2 }),
        stored("e", "turned", Layout::Transposed),
        stored("f", "norm", Layout::PlusOne),
        stored("h", "conv", Layout::Squeezed),
        stored("i", "one", Layout::Squeezed),
        GgufWeight {
            name: "g".to_owned(),
            source: Source::Given(vec![0.5, 8.0]),
        },
    ];
    for (dtype, kind) in [
        (GgufDtype::F32, 0),
        (GgufDtype::F16, 1),
        (GgufDtype::BF16, 30),
        (GgufDtype::Q8_0, 8),
    ] {
        let file = written(&model(all.clone()), &mut weights, dtype).expect("a file");
        let at = |name: &str| &file.tensors[name];
        assert_eq!((at("a").kind, &*at("a").shape), (kind, &[3, 32][..]));
        // Half a step of the largest block.
        let error = if kind == 8 { 0.4 } else { 0.0 };
        for (found, expected) in at("a").values.iter().zip(ramp(96)) {
            assert!(
                (found - f64::from(expected)).abs() <= error,
                "{dtype}: {found} {expected}"
            );
        }
        // Rows that are no whole blocks.
        let of_small = if kind == 8 { 1 } else { kind };
        assert_eq!((at("b").kind, at("d").kind), (of_small, 0));
        // Heads of four rows: pairs half a head apart stand together.
        let rows: Vec<f64> = at("c")
            .values
            .iter()
            .step_by(2)
            .map(|v| (v + 3.5) / 2.0)
            .collect();
        assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(
            at("d").values,
            rows.iter().map(|v| v - 3.5).collect::<Vec<_>>()
        );
        assert_eq!(at("e").shape, [3, 2]);
        assert_eq!(at("e").values, [-3.5, -0.5, -2.5, 0.5, -1.5, 1.5]);
        assert_eq!(at("f").values, [-2.5, -1.5, -0.5, 0.5]);
        assert_eq!((at("f").kind, &*at("g").values), (0, &[0.5, 8.0][..]));
        // A convolution over one token is a matrix, too.
        assert_eq!(
            (&*at("h").shape, &*at("i").shape),
            (&[3, 2][..], &[3, 1][..])
        );
        assert_eq!(file.metadata["some.block_count"], GgufValue::U32(2));
        let name = GgufValue::Text("tiny".to_owned());
        assert_eq!(file.metadata["general.name"], name);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_writes_nothing() {
    let mut weights = checkpoint(&[
        ("large", vec![1, 32], vec![1e6; 32]),
        ("heads", vec![6, 2], ramp(12)),
    ]);
    let large = model(vec![stored("a", "large", Layout::AsStored)]);
    let error = written(&large, &mut weights, GgufDtype::F16).expect_err("too large");
    assert!(matches!(error, GgufError::BeyondRange { .. }), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("bf16")));
    let odd = model(vec![stored("a", "heads", Layout::Pairs { heads: 2 })]);
    let error = written(&odd, &mut weights, GgufDtype::F32).expect_err("heads of three rows");
    assert!(matches!(error, GgufError::Shape { .. }), "{error}");
    let flat = model(vec![stored("a", "heads", Layout::Squeezed)]);
    let error = written(&flat, &mut weights, GgufDtype::F32).expect_err("no convolution");
    assert!(matches!(error, GgufError::Shape { .. }), "{error}");
    let none = model(vec![stored("a", "nothing", Layout::AsStored)]);
    assert!(written(&none, &mut weights, GgufDtype::F32).is_err());
}

/// One by one or all in one tensor, of which a part of each expert's rows may be wanted, the numbers are the same.
#[test]
fn experts_are_written_one_after_the_other() {
    let mut weights = checkpoint(&[
        ("e0", vec![2, 32], ramp(64)),
        (
            "e1",
            vec![2, 32],
            ramp(64).iter().map(|x| x * 0.5).collect(),
        ),
        ("wide", vec![2, 16], ramp(32)),
        ("all", vec![2, 3, 32], ramp(192)),
    ]);
    let of = |each: [&str; 2], joined: &str, rows| {
        model(vec![GgufWeight {
            name: "a".to_owned(),
            source: Source::Experts {
                each: each.map(str::to_owned).to_vec(),
                joined: joined.to_owned(),
                rows,
            },
        }])
    };
    for (dtype, kind) in [
        (GgufDtype::F32, 0),
        (GgufDtype::BF16, 30),
        (GgufDtype::Q8_0, 8),
    ] {
        let apart = of(["e0", "e1"], "none", 0..2);
        let file = written(&apart, &mut weights, dtype).expect("a file");
        let found = &file.tensors["a"];
        assert_eq!((found.kind, &*found.shape), (kind, &[2, 2, 32][..]));
        let joined = of(["none", "none"], "all", 1..3);
        let file = written(&joined, &mut weights, dtype).expect("a file");
        let all = &file.tensors["a"];
        assert_eq!((all.kind, &*all.shape), (kind, &[2, 2, 32][..]));
        if kind == 0 {
            let expected: Vec<f64> = ramp(64).into_iter().map(f64::from).collect();
            assert_eq!(found.values[..64], expected);
            assert_eq!((found.values[64], found.values[127]), (-1.75, 29.75));
            // Rows 1 and 2 of three of each.
            assert_eq!((all.values[0], all.values[64]), (28.5, 124.5));
        }
    }
    for wrong in [
        of(["e0", "wide"], "none", 0..2),
        of(["e0", "e1"], "none", 0..1),
        of(["e0", "e1"], "all", 2..4),
        of(["e0", "e1"], "e0", 0..1),
    ] {
        let error = written(&wrong, &mut weights, GgufDtype::F32).expect_err("no experts");
        assert!(matches!(error, GgufError::Shape { .. }), "{error}");
    }
}
