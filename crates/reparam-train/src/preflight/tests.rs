//! Each finding with a case that has it and one that has not.

use std::path::Path;

use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use reparam_formats::hub::HubOptions;
use reparam_formats::peft::TargetModules;
use reparam_formats::safetensors::TensorToWrite;

use super::data::findings;
use super::*;
use crate::config::Catalog;
use crate::open::OpenedModel;
use crate::seen::{LabelCount, Noticed, Survey, Surveyed};

fn kinds(findings: &[Finding]) -> Vec<(&'static str, Severity)> {
    findings
        .iter()
        .map(|finding| (finding.kind, finding.severity))
        .collect()
}

/// Twenty rows that nothing is the matter with.
fn data() -> Seen {
    let mut survey = Survey::new(&[]);
    for tokens in 10..30 {
        let row = Surveyed {
            tokens,
            labelled: tokens - 1,
            truncated: false,
            content: None,
            path: None,
        };
        survey.add(row, || "a row".to_owned());
    }
    survey.finish("rows", 32, true)
}

#[test]
fn data_are_judged_by_their_numbers() {
    use Severity::{Note, Warning};
    type Change = fn(&mut Seen);
    let cases: [(Change, &[(&str, Severity)]); 13] = [
        (|_| (), &[]),
        (|seen| seen.masked = some(1), &[("masked_rows", Warning)]),
        (|seen| seen.truncated = some(2), &[("truncated_rows", Note)]),
        (
            |seen| seen.truncated = some(3),
            &[("truncated_rows", Warning)],
        ),
        // Of 22 rows, and of 23.
        (|seen| seen.dropped = some(2), &[("dropped_rows", Note)]),
        (|seen| seen.dropped = some(3), &[("dropped_rows", Warning)]),
        (
            |seen| seen.held_out_dropped = some(9),
            &[("held_out_dropped_rows", Note)],
        ),
        (|seen| seen.duplicates = some(2), &[("duplicates", Note)]),
        (|seen| seen.duplicates = some(3), &[("duplicates", Warning)]),
        (
            |seen| seen.held_out_duplicates = some(1),
            &[("held_out_duplicates", Warning)],
        ),
        (|seen| seen.labels = vec![of_label(1)], &[]),
        (
            |seen| seen.labels = vec![of_label(1), of_label(0)],
            &[("labels_without_rows", Warning)],
        ),
        (
            |seen| (seen.masked, seen.duplicates) = (some(1), some(9)),
            &[("masked_rows", Warning), ("duplicates", Warning)],
        ),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut seen = data();
        change(&mut seen);
        let found = findings(&seen);
        assert_eq!(kinds(&found), expected, "{number}: {found:?}");
        for finding in found {
            // What is no note says what to do.
            assert_eq!(
                finding.hint.is_some(),
                finding.severity != Note,
                "{finding:?}"
            );
            assert!(!finding.message.ends_with('.'), "{finding:?}");
        }
    }
}

fn some(count: u64) -> Noticed {
    Noticed {
        count,
        first: vec!["train.jsonl:7".to_owned()],
    }
}

fn of_label(count: u64) -> LabelCount {
    LabelCount {
        label: "ham".to_owned(),
        count,
    }
}

fn opened() -> OpenedModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K");
    let spec = path.to_str().expect("UTF-8");
    let hub = HubOptions::new("no-such-cache");
    OpenedModel::open(spec, &hub, &Catalog::builtin(), None).expect("a model")
}

#[test]
fn a_tokenizer_and_a_model_are_compared() {
    let OpenedModel {
        tokenizer,
        architecture,
        ..
    } = opened();
    let n = tokenizer.max_id() as usize + 1;
    for (rows, expected) in [
        (n, None),
        (n + n / 20, None),
        (2 * n, Some(Severity::Note)),
        // Tokens that stand for text have no row.
        (n - 1, Some(Severity::Warning)),
    ] {
        let mut architecture = architecture.clone();
        architecture.vocab_size = rows;
        let found = of_tokenizer(&tokenizer, &architecture);
        let vocabulary = found.iter().find(|finding| finding.kind == "vocabulary");
        let severity = vocabulary.map(|finding| finding.severity);
        assert_eq!(severity, expected, "{rows} rows of {n}: {found:?}");
    }
    assert!(beyond(&architecture, architecture.max_positions).is_none());
    let found = beyond(&architecture, architecture.max_positions + 1).expect("a warning");
    assert_eq!(kinds(&[found]), [("sequence_length", Severity::Warning)]);
}

#[test]
fn weights_of_zeros_are_found() {
    use Severity::{Error, Note, Warning};
    // A few numbers more than are looked at together, the last of which is not zero.
    let late: Vec<f32> = (0..70_000)
        .map(|at| f32::from(u8::from(at == 69_999)))
        .collect();
    let (zero, one) = ([0.0, -0.0, 0.0, 0.0], [0.0, 0.0, 1e-30, 0.0]);
    let linears = [
        "model.a".to_owned(),
        "model.b".to_owned(),
        "lm_head".to_owned(),
    ];
    type Tensors<'a> = &'a [(&'a str, &'a [f32])];
    let cases: [(Tensors<'_>, &[&str], Option<Severity>); 8] = [
        (
            &[("model.a.weight", &one), ("lm_head.weight", &one)],
            &[],
            None,
        ),
        (&[("model.a.weight", &zero)], &[], Some(Warning)),
        // As a checkpoint of the body alone calls it.
        (&[("a.weight", &zero)], &[], Some(Warning)),
        (
            &[("model.a.weight", &zero)],
            &["model.a.weight"],
            Some(Note),
        ),
        (&[("lm_head.weight", &zero)], &[], Some(Error)),
        (
            &[("lm_head.weight", &zero)],
            &["lm_head.weight"],
            Some(Note),
        ),
        // No linear layer.
        (&[("model.types.weight", &zero)], &[], None),
        (&[("model.b.weight", &late)], &[], None),
    ];
    for (tensors, trained, expected) in cases {
        let shapes: Vec<[usize; 2]> = tensors.iter().map(|(_, of)| [of.len() / 2, 2]).collect();
        let written: Vec<TensorToWrite<'_>> = (tensors.iter().zip(&shapes))
            .map(|((name, numbers), shape)| TensorToWrite::f32(name, shape, numbers))
            .collect();
        let weights = Checkpoint::in_memory(Path::new("memory"), &written).expect("weights");
        let trained: Vec<String> = trained.iter().map(|name| (*name).to_owned()).collect();
        let found = of_weights(&ModelLook {
            weights: &weights,
            linears: &linears,
            tied: None,
            head: Some("lm_head".to_owned()),
            trained: &trained,
        });
        let found = found.expect("it can be read");
        let severities: Vec<Severity> = found.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, Vec::from_iter(expected), "{found:?}");
    }
}

#[test]
fn layers_are_counted_by_kind_and_by_pattern() {
    let names =
        |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let linears = names(&[
        "m.0.q_proj",
        "m.0.v_proj",
        "m.1.q_proj",
        "m.1.v_proj",
        "lm_head",
    ]);
    let adapted = names(&["m.0.q_proj", "m.1.q_proj", "m.1.v_proj"]);
    let targets = TargetModules::Names(names(&["q_proj", "1.v_proj"]));
    let (kinds, patterns) = layers(&linears, &adapted, &targets).expect("counts");
    let of = |counts: &[LayerCount]| -> Vec<(String, usize, usize)> {
        let counts = counts.iter();
        counts
            .map(|one| (one.name.clone(), one.adapted, one.of))
            .collect()
    };
    let count = |name: &str, adapted, of| (name.to_owned(), adapted, of);
    let expected = [
        count("q_proj", 2, 2),
        count("v_proj", 1, 2),
        count("lm_head", 0, 1),
    ];
    assert_eq!(of(&kinds), expected);
    assert_eq!(
        of(&patterns),
        [count("q_proj", 2, 2), count("1.v_proj", 1, 1)]
    );
    let (_, patterns) = layers(&linears, &adapted, &TargetModules::AllLinear).expect("counts");
    assert!(patterns.is_empty());
}

#[test]
fn too_little_memory_is_said() {
    let estimate = |available| MemoryEstimate {
        loaded: 60,
        gradients: 10,
        optimizer: 20,
        activations: 10,
        peak: 100,
        available,
        largest_batch: 8,
    };
    assert_eq!(estimate(None).finding(), None);
    assert_eq!(estimate(Some(100)).finding(), None);
    let found = estimate(Some(99)).finding().expect("a warning");
    assert_eq!(kinds(&[found]), [("memory", Severity::Warning)]);
}

#[test]
fn errors_are_refused_together() {
    let (note, error) = (
        Finding::note("a", "fine"),
        Finding::error("b", "not fine", "mend it"),
    );
    refuse(std::slice::from_ref(&note)).expect("no error");
    let refused = refuse(&[error.clone(), note, error]).expect_err("two errors");
    assert_eq!(refused.to_string(), "not fine; not fine");
    assert_eq!(refused.hint().expect("a hint"), "mend it; mend it");
}

/// What a token keeps of a small model of a family.
fn kept(family: &str, changes: serde_json::Value, precision: reparam_models::Precision) -> u64 {
    let mut config = serde_json::json!({
        "model_type": family, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
        "vocab_size": 512, "max_position_embeddings": 256,
    });
    for (key, change) in changes.as_object().expect("an object") {
        config[key] = change.clone();
    }
    let json = ModelJson::parse(Path::new("config.json"), &config.to_string()).expect("JSON");
    let families = reparam_models::Families::builtin();
    let architecture = families.describe(&json).expect("a model");
    Footprint::of(&architecture, (precision, false)).kept_per_token
}

#[test]
fn experts_and_state_spaces_are_counted_and_what_is_not_fused_is_in_f32() {
    use reparam_models::Precision::{Bf16, F32};
    use serde_json::json;
    let experts = |per_token: usize| {
        let changes = json!({"intermediate_size": 100, "num_experts_per_tok": per_token});
        kept("mixtral", changes, F32)
    };
    // Of four layers: gate, up and what they make, the input and the output.
    assert_eq!(experts(3) - experts(2), 4 * 4 * (3 * 100 + 2 * 64));
    let spaces = |layers: usize, states: usize| {
        let changes = json!({
            "num_hidden_layers": layers, "state_size": states, "intermediate_size": 128,
        });
        kept("mamba", changes, F32)
    };
    let of_model = 4 * 64;
    assert_eq!(
        spaces(8, 16) - of_model,
        2 * (spaces(4, 16) - of_model),
        "the layers are alike"
    );
    // What is selected, and the states before every 32nd token.
    assert_eq!(
        spaces(4, 32) - spaces(4, 16),
        4 * 4 * (4 * 16 + 128 * 16 / 32)
    );
    let olmo = |clip: Option<f64>, precision| {
        let changes = json!({"intermediate_size": 100, "clip_qkv": clip});
        kept("olmo", changes, precision)
    };
    assert_eq!(olmo(Some(8.0), F32), olmo(None, F32));
    // Attention in f32 in place of its input and output in bf16.
    let apart = 4 * (2 * 64 + 2 * 64 + 2 * 32);
    assert_eq!(
        olmo(Some(8.0), Bf16) - olmo(None, Bf16),
        4 * (apart - 2 * 128)
    );
}
