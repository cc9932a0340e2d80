//! Every family against transformers: logits, loss, all gradients, greedy text.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;
use reparam::methods::{AdapterMeta, LoraConfig, Methods, WeightLayout, attach, to_adapter};
use reparam::{ForwardContext, parameters};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use reparam_formats::peft::{AdapterFiles, TargetModules};
use serde_json::Value;

use super::generation::{check_cache, greedy};
use super::{
    Documents, assert_gradients_close_or_zero, describe, differentiate, floats, golden,
    golden_json, golden_tensors, ids, in_f64, in_memory, integers, load_in, max_difference,
    tensors_of, values, write,
};
use crate::{CausalLm, ModelError, Precision, Sampling};

const FAMILIES: [&str; 39] = [
    "bloom",
    "cohere",
    "cohere2",
    "cohere_norms",
    "falcon",
    "falcon_alibi",
    "falcon_new",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "granite",
    "mamba",
    "mamba_biased",
    "ministral",
    "mistral",
    "mixtral",
    "olmo",
    "olmo2",
    "olmo3",
    "opt",
    "opt_narrow",
    "phi",
    "phi3",
    "phi_plain",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "stablelm",
    "stablelm_norms",
    "stablelm_parallel",
    "starcoder2",
];

/// Logits are of size one to ten; both sides are rounded to `f32` through a few layers.
const LOGIT_TOLERANCE: f64 = 2e-5;
const LOSS_TOLERANCE: f64 = 2e-6;
/// Relative to the largest element of each tensor.
const GRADIENT_TOLERANCE: f64 = 2e-5;
/// What rounding leaves of a gradient that is zero.
const ZERO: f64 = 1e-6;
/// Of `f64` without rounding but that of the golden files and the rotary angles.
const CACHE_TOLERANCE: f64 = 1e-5;

/// How many tokens [`check_cache`] takes.
const CACHED: usize = 48;

fn name_in(family: &str, rest: &str) -> String {
    format!("families/{family}{rest}")
}

fn load(family: &str, device: &Device) -> CausalLm {
    load_in(&golden(&name_in(family, "")), device, Precision::F32)
}

/// The golden sequences, each its own document.
pub(super) fn documents(file: &Checkpoint) -> Documents {
    let shape = file.require("input_ids").expect("input").shape.to_vec();
    let ids: Vec<u32> = integers(file, "input_ids")
        .into_iter()
        .map(|id| id as u32)
        .collect();
    Documents::new(ids.chunks(shape[1]))
}

fn golden_of(family: &str) -> (Checkpoint, Value) {
    let tensors = golden_tensors(&name_in(family, ".golden.safetensors"));
    (tensors, golden_json(&name_in(family, ".golden.json")))
}

fn assert_logits(model: &CausalLm, file: &Checkpoint, what: &str) {
    let logits = model.logits(documents(file).batch(), &ForwardContext::inference());
    let difference = max_difference(&values(&logits), &floats(file, "logits"));
    assert!(difference <= LOGIT_TOLERANCE, "{what}: {difference:e}");
}

#[test]
fn logits_loss_and_every_gradient_are_those_of_transformers() {
    for family in FAMILIES {
        let (file, json) = golden_of(family);
        let model = load(family, &Device::flex().autodiff());
        assert_logits(&model, &file, family);
        let expected: BTreeMap<String, Vec<f64>> = file
            .names()
            .filter_map(|name| {
                let parameter = name.strip_prefix("grad.")?;
                // transformers calls GPT-NeoX's head otherwise than its files do.
                let parameter = match family {
                    "gpt_neox" => parameter.replace("lm_head", "embed_out"),
                    _ => parameter.to_owned(),
                };
                Some((parameter, floats(&file, name)))
            })
            .collect();
        // GPT-2's are stored as `[d_in, d_out]`, and so are their gradients in the golden file.
        let expected = expected
            .into_iter()
            .map(|(name, values)| {
                let values = match model.stored_transposed(&name) {
                    false => values,
                    true => {
                        let shape = &file.require(&format!("grad.{name}")).expect("there").shape;
                        transposed(&values, shape[0], shape[1])
                    }
                };
                (name, values)
            })
            .collect();
        let documents = documents(&file);
        let scale = 1.0 / documents.n_labelled() as f32;
        let loss = json["loss"].as_f64().expect("a number");
        let found = differentiate(&model.clone().set_require_grad(true), &documents, scale);
        let difference = (found.loss - loss).abs();
        assert!(difference <= LOSS_TOLERANCE, "{family}: {difference:e}");
        let tolerances = (GRADIENT_TOLERANCE, ZERO);
        // The biases of OPT's keys: without rotary positions they change no probability.
        let zeros = if family.starts_with("opt") { 2 } else { 0 };
        let compared =
            assert_gradients_close_or_zero(&found.gradients, &expected, tolerances, family);
        assert_eq!(compared, expected.len() - zeros, "{family}");
        // The reference form of every operation.
        let reference = in_f64(model).set_require_grad(true);
        let found = differentiate(&reference, &documents, scale);
        let compared =
            assert_gradients_close_or_zero(&found.gradients, &expected, tolerances, family);
        assert_eq!(compared, expected.len() - zeros, "{family}");
    }
}

fn transposed(values: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..cols)
        .flat_map(|col| (0..rows).map(move |row| values[row * cols + col]))
        .collect()
}

#[test]
fn greedy_text_is_that_of_transformers() {
    for family in FAMILIES {
        let (_, json) = golden_of(family);
        let expected = ids(&json["greedy"]);
        let model = load(family, &Device::flex());
        let found = greedy(&model, &ids(&json["prompt"]), expected.len(), &[]);
        assert_eq!(found, expected, "{family}");
    }
}

#[test]
fn cached_logits_equal_those_of_the_whole_pass() {
    for family in FAMILIES {
        let (file, _) = golden_of(family);
        let text: Vec<u32> = documents(&file).input_ids;
        check_cache(
            &load(family, &Device::flex()),
            &text[..CACHED],
            CACHE_TOLERANCE,
            family,
        );
    }
}

/// The mean loss of models whose weights and activations are rounded to bf16 (2^-9 each, at random), or weights to 8 bits of
/// the greatest of their row: of losses near five, over 46 tokens.
const BF16_LOSS_TOLERANCE: f64 = 0.03;
const INT8_LOSS_TOLERANCE: f64 = 0.08;

fn load_packed(family: &str, device: &Device, precision: Precision) -> CausalLm {
    load_in(&golden(&name_in(family, "")), device, precision)
}

#[test]
fn packed_models_have_the_loss_of_transformers() {
    for family in FAMILIES {
        let (file, json) = golden_of(family);
        let documents = documents(&file);
        let (scale, context) = (
            1.0 / documents.n_labelled() as f32,
            ForwardContext::inference(),
        );
        let expected = json["loss"].as_f64().expect("a number");
        for (precision, tolerance) in [
            (Precision::Bf16, BF16_LOSS_TOLERANCE),
            (Precision::Int8, INT8_LOSS_TOLERANCE),
        ] {
            let model = load_packed(family, &Device::flex(), precision);
            let loss = model.loss(documents.batch(), &documents.labels, scale, &context);
            let difference = (values(&loss)[0] - expected).abs();
            assert!(
                difference <= tolerance,
                "{family} {precision:?}: {difference}"
            );
        }
    }
}

/// One token at a time, and each what it would be without a cache; the tokens themselves may differ from those in `f32`
/// where two are near.
#[test]
fn packed_models_generate_with_a_cache() {
    for family in FAMILIES {
        let (file, json) = golden_of(family);
        let text: Vec<u32> = documents(&file).input_ids;
        for precision in [Precision::Bf16, Precision::Int8] {
            let model = load_packed(family, &Device::flex(), precision);
            check_cache(&model, &text[..CACHED], BF16_CACHE_TOLERANCE, family);
            let found = greedy(&model, &ids(&json["prompt"]), 32, &[]);
            assert_eq!(found.len(), 32);
        }
    }
}

/// Relative to the largest logit: a cached step rounds other sums than a whole pass.
const BF16_CACHE_TOLERANCE: f64 = 0.05;

/// Relative to the length of the logits, of the same weights: activations are rounded to 2^-9 of themselves in each half of a block.
const BF16_LOGIT_TOLERANCE: f64 = 0.02;
/// Relative to the length of each gradient, of the same weights: rounded forward and backward.
const BF16_GRADIENT_TOLERANCE: f64 = 0.05;

fn bf16_gradient_tolerance(family: &str) -> f64 {
    match family {
        // Rounding turns one of the 48 rectified neurons off.
        "opt" | "opt_narrow" => 2.0 * BF16_GRADIENT_TOLERANCE,
        // The keys' gradient is what is left behind the norm of all heads together: the smallest of the layer.
        "olmo3" => 1.2 * BF16_GRADIENT_TOLERANCE,
        _ => BF16_GRADIENT_TOLERANCE,
    }
}

/// A model of the weights that a checkpoint in bf16 would have.
pub(super) fn load_rounded(family: &str, device: &Device, precision: Precision) -> CausalLm {
    let directory = golden(&name_in(family, ""));
    let json = ModelJson::load(&directory).expect("a configuration");
    let mut tensors = tensors_of(&Checkpoint::open(&directory).expect("a checkpoint"));
    let numbers = tensors.iter_mut().flat_map(|(.., values)| values);
    numbers.for_each(|x| *x = bf16::from_f32(*x).to_f32());
    CausalLm::load(&in_memory(&tensors), describe(&json), device, precision).expect("a model")
}

/// The length of what two lists differ by, over that of the second.
pub(super) fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    let length = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let off = &mut found.iter().zip(expected).map(|(a, b)| a - b);
    length(off) / length(&mut expected.iter().copied())
}

#[test]
fn logits_of_packed_models_are_those_in_f32() {
    for family in FAMILIES {
        let documents = documents(&golden_of(family).0);
        let logits = |precision| {
            let model = load_rounded(family, &Device::flex(), precision);
            values(&model.logits(documents.batch(), &ForwardContext::inference()))
        };
        let error = relative_error(&logits(Precision::Bf16), &logits(Precision::F32));
        assert!(error <= BF16_LOGIT_TOLERANCE, "{family}: {error}");
    }
}

/// All linear layers but the head, and the head, too, with LoRA.
#[test]
fn factors_of_packed_models_have_the_gradients_of_those_in_f32() {
    for family in FAMILIES {
        let (file, _) = golden_of(family);
        let documents = documents(&file);
        let scale = 1.0 / documents.n_labelled() as f32;
        let device = Device::flex().autodiff();
        let mut targets: Vec<String> = load(family, &Device::flex())
            .architecture()
            .linears()
            .map(|linear| linear.path.rsplit('.').next().expect("a name").to_owned())
            .collect();
        let model = load(family, &device);
        targets.extend(model.head.as_ref().map(|head| head.path().to_owned()));
        targets.sort();
        targets.dedup();
        let config = LoraConfig::new(4, 8.0).with_target_modules(TargetModules::Names(targets));
        let with_lora = |precision, recompute, draw| {
            let mut model = load_rounded(family, &device, precision);
            model.body.recompute = recompute;
            let (model, _) = attach(model, &config, 3).expect("attaches");
            differentiate(&randomized_by(model, draw), &documents, scale)
        };
        // The worst gradient of a draw of factors, and how far it is off.
        let worst = |draw| {
            let expected = with_lora(Precision::F32, false, draw);
            let found = with_lora(Precision::Bf16, false, draw);
            assert!(
                expected.gradients.keys().eq(found.gradients.keys()),
                "{family}"
            );
            assert!(
                (found.loss - expected.loss).abs() <= BF16_LOSS_TOLERANCE,
                "{family}"
            );
            let errors = expected.gradients.iter().map(|(name, expected)| {
                let error = relative_error(&found.gradients[name], expected);
                (error, name.clone())
            });
            errors.max_by(|a, b| a.0.total_cmp(&b.0)).expect("some")
        };
        // A token near a tie of a router goes through other experts once it is rounded, and all gradients with it: of some draws one
        // has no such token.
        let draws = if model.architecture().has_experts() {
            4
        } else {
            1
        };
        let tolerance = bf16_gradient_tolerance(family);
        let mut found = (0..draws).map(worst);
        let mut far = Vec::new();
        let is_close = found.any(|(error, name)| {
            far.push(format!("{name}: {error}"));
            error <= tolerance
        });
        assert!(is_close, "{family}: {far:?}");
        let gradients = |recompute| with_lora(Precision::Bf16, recompute, 0).gradients;
        assert_eq!(gradients(false), gradients(true), "{family}");
    }
}

/// The low-rank term of an output head runs by its plan in every precision: dropout acts on its input, and on nothing else.
#[test]
fn dropout_on_the_output_head_is_felt_in_every_precision() {
    let family = "qwen3";
    let (file, _) = golden_of(family);
    let documents = documents(&file);
    let head = TargetModules::Names(vec!["lm_head".to_owned()]);
    for precision in [Precision::F32, Precision::Bf16] {
        let loss = |dropout, context: &ForwardContext| {
            let mut config = LoraConfig::new(4, 8.0).with_target_modules(head.clone());
            config.dropout = dropout;
            let model = load_packed(family, &Device::flex().autodiff(), precision);
            let (model, _) = attach(model, &config, 3).expect("attaches");
            let loss = randomized(model).loss(documents.batch(), &documents.labels, 1.0, context);
            values(&loss)[0]
        };
        let pass = |number| ForwardContext::training(1, number);
        let plain = loss(0.0, &pass(1));
        assert_ne!(loss(0.5, &pass(1)), plain, "{precision:?}");
        assert_ne!(loss(0.5, &pass(1)), loss(0.5, &pass(2)), "{precision:?}");
        let inference = ForwardContext::inference();
        assert_eq!(
            loss(0.5, &inference),
            loss(0.0, &inference),
            "{precision:?}"
        );
    }
}

/// Gives every trained tensor small numbers, so that no gradient is zero.
pub(super) fn randomized<M: Module>(model: M) -> M {
    randomized_by(model, 0)
}

/// [`randomized`] by other numbers for each draw.
fn randomized_by<M: Module>(model: M, draw: usize) -> M {
    let mut list = parameters::trainable(&model);
    for (index, tensor) in list.iter_mut().enumerate() {
        let len = tensor.len();
        let values: Vec<f32> = (0..len)
            .map(|i| 0.1 * ((i * 7919 + index * 104_729 + draw) as f32).sin())
            .collect();
        let device = tensor.values.device();
        tensor.values = Tensor::from_data(TensorData::new(values, [len]), &device);
    }
    parameters::assign(model, list)
}

/// Joined layers are one module, and layers that are stored the other way have factors all the same, as in PEFT.
#[test]
fn adapters_that_peft_wrote_give_its_losses() {
    for family in ["gpt2", "phi3", "gpt_neox", "falcon_new", "mamba"] {
        let (file, json) = golden_of(family);
        let documents = documents(&file);
        let (scale, context) = (
            1.0 / documents.n_labelled() as f32,
            ForwardContext::inference(),
        );
        let expected = json["adapter_loss"].as_f64().expect("a number");
        let adapter = AdapterFiles::load(&golden(&name_in(family, ".adapter"))).expect("PEFT's");
        for (precision, tolerance) in [
            (Precision::F32, LOSS_TOLERANCE),
            (Precision::Bf16, BF16_LOSS_TOLERANCE),
        ] {
            let model = load_packed(family, &Device::flex(), precision);
            let (model, report, method) = Methods::builtin()
                .attach_adapter(model, &adapter, WeightLayout::OutIn)
                .expect("it fits the model");
            let loss = model.loss(documents.batch(), &documents.labels, scale, &context);
            let difference = (values(&loss)[0] - expected).abs();
            assert!(
                difference <= tolerance,
                "{family} {precision:?}: {difference:e}"
            );
            let meta = AdapterMeta {
                fan_in_fan_out: model.stores_transposed(&report.modules),
                ..AdapterMeta::new(&*method, &report.modules)
            };
            assert_eq!(meta.fan_in_fan_out, family == "gpt2");
            let written = to_adapter(&model, &*method, &meta).expect("its own adapter");
            assert_eq!(written.tensors, adapter.tensors, "{family}");
            let key = "fan_in_fan_out";
            assert_eq!(
                written.config.bool(key).expect("a flag"),
                adapter.config.bool(key).expect("a flag")
            );
        }
    }
}

#[test]
fn older_configurations_mean_the_same() {
    for family in ["gemma3_text", "phi3", "phi", "gpt_neox"] {
        let path = golden(&name_in(family, ".legacy_config.json"));
        let text = std::fs::read_to_string(&path).expect("the golden file is in the repository");
        let legacy = ModelJson::parse(&path, &text).expect("a configuration");
        let json = ModelJson::load(&golden(&name_in(family, ""))).expect("a configuration");
        assert_eq!(describe(&legacy), describe(&json), "{family}");
    }
}

#[test]
fn capped_logits_have_the_loss_of_transformers() {
    let family = "gemma3_text";
    let (file, golden_values) = golden_of(family);
    let directory = golden(&name_in(family, ""));
    let json = ModelJson::load(&directory).expect("a configuration");
    let mut architecture = describe(&json);
    architecture.head.soft_cap = golden_values["final_logit_softcapping"].as_f64();
    let checkpoint = Checkpoint::open(&directory).expect("a checkpoint");
    let model = CausalLm::load(&checkpoint, architecture, &Device::flex(), Precision::F32)
        .expect("a model");
    let documents = documents(&file);
    let (scale, context) = (
        1.0 / documents.n_labelled() as f32,
        ForwardContext::inference(),
    );
    let loss = values(&model.loss(documents.batch(), &documents.labels, scale, &context))[0];
    let expected = golden_values["capped_loss"].as_f64().expect("a number");
    assert!(
        (loss - expected).abs() <= LOSS_TOLERANCE,
        "{loss} {expected}"
    );
    let logits = values(&model.logits(documents.batch(), &context));
    assert!(logits.iter().all(|logit| logit.abs() <= 3.0));
}

/// Copies a model directory with its tensors renamed.
fn renamed(family: &str, to: &Path, rename: impl Fn(&str) -> String) {
    let from = golden(&name_in(family, ""));
    std::fs::copy(from.join("config.json"), to.join("config.json")).expect("copies");
    let checkpoint = Checkpoint::open(&from).expect("a checkpoint");
    let mut tensors = tensors_of(&checkpoint);
    tensors
        .iter_mut()
        .for_each(|(name, ..)| *name = rename(name));
    write(to, &tensors);
}

/// What the class without a head saves lacks the prefix; the first GPT-2 and most OPTs are published like that.
#[test]
fn a_checkpoint_of_the_body_alone_is_loaded() {
    for (family, prefix) in [("gpt2", "transformer."), ("opt", "model.")] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        renamed(family, directory.path(), |name| {
            let short = name.strip_prefix(prefix);
            short.expect("the head is tied").to_owned()
        });
        let model = load_in(directory.path(), &Device::flex(), Precision::F32);
        assert_logits(&model, &golden_of(family).0, family);
    }
}

#[test]
fn what_is_written_is_what_was_read() {
    for family in FAMILIES {
        let model = load(family, &Device::flex());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = model
            .to_tensors()
            .into_iter()
            .map(|tensor| {
                let values = tensor.values.into_data().try_to_vec().expect("f32 data");
                (tensor.name, tensor.shape, values)
            })
            .collect();
        let original = Checkpoint::open(&golden(&name_in(family, ""))).expect("a checkpoint");
        assert_eq!(tensors.len(), original.names().count(), "{family}");
        for (name, shape, values) in &tensors {
            let view = original.expect(name, shape).expect("the same tensors");
            assert_eq!(
                &view.to_f32_vec().expect("floats"),
                values,
                "{family}: {name}"
            );
        }
        let config = golden(&name_in(family, "/config.json"));
        std::fs::copy(config, directory.path().join("config.json")).expect("copies");
        write(directory.path(), &tensors);
        let again = load_in(directory.path(), &Device::flex(), Precision::F32);
        assert_logits(&again, &golden_of(family).0, family);
    }
}

#[test]
fn sequences_beyond_learned_positions_are_refused() {
    let model = load("gpt2", &Device::flex());
    assert_eq!(model.architecture().max_tokens(), Some(64));
    model.check_length(64).expect("one row for each");
    let error = model
        .generate(&[5, 6], 63, Sampling::greedy(), &[])
        .map(|_| ())
        .expect_err("one too many");
    assert!(
        matches!(
            error,
            ModelError::TooLong {
                n_tokens: 65,
                limit: 64
            }
        ),
        "{error}"
    );
    assert_eq!(greedy(&model, &[5, 6], 62, &[]).len(), 62);
    load("qwen3", &Device::flex())
        .check_length(1_000_000)
        .expect("rotary positions have no end");
}

#[test]
fn the_head_is_known_by_its_role() {
    for (family, tied) in [("gpt2", true), ("mistral", false)] {
        let model = load(family, &Device::flex());
        assert_eq!(
            (&*model.architecture().head.path, model.head.is_none()),
            ("lm_head", tied)
        );
    }
}
