//! The same encoder-decoder as different programs store it.

use burn::tensor::Device;
use reparam::ForwardContext;
use reparam_formats::FormatError;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use tempfile::TempDir;

use super::{Tensors, describe, golden, max_difference, tensors_of, values, write};
use crate::{ModelError, Precision, Seq2SeqLm, TokenBatch};

/// Writes a golden model with changed tensors, and loads it.
fn load(name: &str, change: &dyn Fn(&mut Tensors)) -> Result<Seq2SeqLm, ModelError> {
    let directory = TempDir::new().expect("a directory");
    let from = golden(&format!("seq2seq/{name}"));
    let base = Checkpoint::open(&from).expect("a checkpoint");
    let mut tensors = tensors_of(&base);
    change(&mut tensors);
    write(directory.path(), &tensors);
    let checkpoint = Checkpoint::open(directory.path()).expect("a checkpoint");
    let json = ModelJson::load(&from).expect("a configuration");
    let place = (&Device::flex(), Precision::F32);
    Seq2SeqLm::load(&checkpoint, describe(&json), place)
}

fn logits(model: &Seq2SeqLm) -> Vec<f64> {
    let batch = |input_ids| TokenBatch {
        input_ids,
        position_ids: &[0, 1, 2],
        bounds: &[0, 3],
    };
    let context = ForwardContext::inference();
    values(&model.logits(batch(&[4, 9, 30]), batch(&[2, 17, 5]), &context))
}

fn find<'a>(tensors: &'a mut Tensors, name: &str) -> &'a mut (String, Vec<usize>, Vec<f32>) {
    let mut tensors = tensors.iter_mut();
    let found = tensors.find(|(known, ..)| known == name);
    found.expect("a tensor of this name")
}

/// Adds a tensor that is another times a factor.
fn copy(tensors: &mut Tensors, from: &str, to: &str, factor: f32) {
    let (_, shape, values) = find(tensors, from).clone();
    let values = values.iter().map(|value| factor * value).collect();
    tensors.push((to.to_owned(), shape, values));
}

#[test]
fn the_table_may_have_any_of_its_names() {
    for (family, prefix) in [("t5", ""), ("bart", "model.")] {
        let name = |name: &str| format!("{prefix}{name}.weight");
        let table = name("shared");
        let others = [
            name("encoder.embed_tokens"),
            name("decoder.embed_tokens"),
            "lm_head.weight".to_owned(),
        ];
        let expected = logits(&load(family, &|_| {}).expect("a model"));
        let all = load(family, &|tensors| {
            for other in &others {
                copy(tensors, &table, other, 1.0);
            }
        });
        let all = all.expect("copies");
        assert!(all.architecture().head.tied, "{family}");
        assert_eq!(logits(&all), expected, "{family}");
        for other in &others {
            let only = load(family, &|tensors| find(tensors, &table).0 = other.clone());
            let only = only.unwrap_or_else(|error| panic!("{family} {other}: {error}"));
            assert_eq!(logits(&only), expected, "{family} {other}");
        }
        for other in &others[..2] {
            let own = load(family, &|tensors| copy(tensors, &table, other, 2.0));
            assert!(
                matches!(&own, Err(ModelError::OwnTable { name, .. }) if name == other),
                "{family} {other}"
            );
        }
        let head = load(family, &|tensors| copy(tensors, &table, &others[2], 2.0));
        let head = head.expect("a head of its own");
        assert!(!head.architecture().head.tied, "{family}");
        assert!(max_difference(&logits(&head), &expected) > 1e-3, "{family}");
        let none = load(family, &|tensors| {
            find(tensors, &table).0 = "other".to_owned()
        });
        let Err(ModelError::Format(FormatError::Mismatch(mismatch))) = none else {
            panic!("{family}: a table is needed");
        };
        assert_eq!(mismatch.missing, [table], "{family}");
    }
}

/// As the class without a head saves it; the bias of the logits is then zero.
#[test]
fn a_body_alone_is_enough() {
    let without_bias = load("bart", &|tensors| {
        find(tensors, "final_logits_bias").2.fill(0.0);
    });
    let body = load("bart", &|tensors| {
        tensors.retain(|(name, ..)| name != "final_logits_bias");
        for (name, ..) in tensors {
            *name = name.strip_prefix("model.").expect("of the body").to_owned();
        }
    });
    let [expected, found] = [without_bias, body].map(|model| logits(&model.expect("a model")));
    assert_eq!(found, expected);
}

#[test]
fn positions_that_are_stored_are_used() {
    let computed = load("marian", &|_| {}).expect("a model");
    let stored = |of: fn(f64) -> f64| {
        let load = load("marian", &|tensors| {
            for stack in ["encoder", "decoder"] {
                let angle = |at: usize, pair: usize| at as f64 / 1e4f64.powf(pair as f64 / 4.0);
                let row = |at: usize| {
                    let sines = (0..4).map(move |pair| angle(at, pair).sin());
                    sines.chain((0..4).map(move |pair| angle(at, pair).cos()))
                };
                let values = (0..32).flat_map(row).map(|x| of(x) as f32).collect();
                let name = format!("model.{stack}.embed_positions.weight");
                tensors.push((name, vec![32, 8], values));
            }
        });
        logits(&load.expect("a model"))
    };
    assert_eq!(stored(|x| x), logits(&computed));
    assert!(max_difference(&stored(|x| 2.0 * x), &logits(&computed)) > 1e-3);
    // They are no parameters.
    let names = computed.to_tensors().into_iter().map(|tensor| tensor.name);
    assert!(names.into_iter().all(|name| !name.contains("positions")));
}

#[test]
fn buffers_of_old_programs_are_ignored() {
    let buffer = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    let with_buffer = load("t5", &|tensors| {
        tensors.push((buffer.to_owned(), vec![8, 2], vec![1.0; 16]));
    });
    let expected = logits(&load("t5", &|_| {}).expect("a model"));
    assert_eq!(logits(&with_buffer.expect("a model")), expected);
    let unknown = load("t5", &|tensors| {
        tensors.push(("encoder.other".to_owned(), vec![1], vec![1.0]));
    });
    assert!(matches!(
        unknown,
        Err(ModelError::Format(FormatError::Mismatch(_)))
    ));
}
