//! Models with experts: what is read of their configuration, adapters of experts, and the two layouts of checkpoints.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;
use reparam::methods::{
    AdapterMeta, BuildContext, LoraConfig, MethodError, Methods, Selection, WeightLayout, attach,
    least_numbers, linear_modules, to_adapter,
};
use reparam::schema::Chosen;
use reparam::{ForwardContext, parameters};
use reparam_formats::FormatError;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use reparam_formats::peft::{AdapterFiles, PeftError, TargetModules};
use serde_json::{Value, json};

use super::describe;
use super::families::{documents, load_rounded, randomized, relative_error};
use super::{
    differentiate, floats, golden, golden_json, golden_tensors, load_in, max_difference,
    relative_difference, tensors_of, values, write,
};
use crate::{Architecture, CausalLm, ModelError, Precision};

const FAMILIES: [&str; 3] = ["mixtral", "qwen2_moe", "qwen3_moe"];
const LOSS_TOLERANCE: f64 = 2e-6;
/// Relative to the largest element of each tensor.
const GRADIENT_TOLERANCE: f64 = 2e-5;
/// Of sums of a few products in f32.
const MERGED_TOLERANCE: f64 = 1e-6;
/// As that of families.
const BF16_LOSS_TOLERANCE: f64 = 0.03;
/// Half as much again as that of families: of an expert's few tokens less is averaged.
const BF16_GRADIENT_TOLERANCE: f64 = 0.075;
/// What a router learns from is how much better one expert is than another: a difference of numbers that are rounded each.
const ROUTER_TOLERANCE: f64 = 0.2;

fn load(family: &str, device: &Device, precision: Precision) -> CausalLm {
    load_in(&golden(&format!("families/{family}")), device, precision)
}

/// A configuration with the required keys and the key heads of Qwen2-MoE, which by default are more than its query heads here.
fn with(family: &str, mut changes: Value) -> Result<Architecture, ModelError> {
    changes["num_key_value_heads"] = json!(4);
    describe::with(family, changes)
}

fn adapter(family: &str) -> AdapterFiles {
    AdapterFiles::load(&golden(&format!("families/{family}.adapter"))).expect("PEFT's")
}

/// PEFT wrote them: of attention, of both parameters of experts, of one, and of the router.
#[test]
fn adapters_of_experts_are_those_of_peft() {
    for family in FAMILIES {
        let file = golden_tensors(&format!("families/{family}.golden.safetensors"));
        let expected = golden_tensors(&format!("families/{family}.adapter.golden.safetensors"));
        let json = golden_json(&format!("families/{family}.golden.json"));
        let loss = json["adapter_loss"].as_f64().expect("a number");
        let documents = documents(&file);
        let scale = 1.0 / documents.n_labelled() as f32;
        let adapter = adapter(family);
        let model = load(family, &Device::flex().autodiff(), Precision::F32);
        let (model, report, method) = Methods::builtin()
            .attach_adapter(model, &adapter, WeightLayout::OutIn)
            .expect("it fits the model");

        let found = differentiate(&model, &documents, scale);
        let difference = (found.loss - loss).abs();
        assert!(difference <= LOSS_TOLERANCE, "{family}: {difference:e}");
        let names: BTreeSet<&str> = expected
            .names()
            .filter_map(|name| name.strip_prefix("grad."))
            .collect();
        let own: BTreeSet<&str> = found.gradients.keys().map(String::as_str).collect();
        assert_eq!(own, names, "{family}");
        for (name, gradient) in &found.gradients {
            let expected = floats(&expected, &format!("grad.{name}"));
            let difference = relative_difference(gradient, &expected);
            assert!(
                difference <= GRADIENT_TOLERANCE,
                "{family}: {name}: {difference:e}"
            );
        }

        let effective: BTreeMap<String, Vec<f64>> = parameters::effective(&model)
            .into_iter()
            .map(|tensor| (tensor.name, values(&tensor.values)))
            .collect();
        let merged = expected
            .names()
            .filter_map(|name| name.strip_prefix("merged."));
        let mut n_merged = 0;
        for name in merged {
            let expected = floats(&expected, &format!("merged.{name}"));
            let difference = max_difference(&effective[name], &expected);
            assert!(
                difference <= MERGED_TOLERANCE,
                "{family}: {name}: {difference:e}"
            );
            n_merged += 1;
        }
        assert_eq!(n_merged, report.modules.len(), "{family}");

        let meta = AdapterMeta::new(&*method, &report.modules);
        let written = to_adapter(&model, &*method, &meta).expect("its own adapter");
        assert_eq!(written.tensors, adapter.tensors, "{family}");
        let parameters = |files: &AdapterFiles| {
            let listed = files.config.strings("target_parameters");
            BTreeSet::from_iter(listed.expect("a list").expect("a list"))
        };
        assert_eq!(parameters(&written), parameters(&adapter), "{family}");
    }
}

#[test]
fn adapters_of_experts_run_over_packed_weights() {
    for family in FAMILIES {
        let file = golden_tensors(&format!("families/{family}.golden.safetensors"));
        let documents = documents(&file);
        let scale = 1.0 / documents.n_labelled() as f32;
        let targets = ["experts.gate_up_proj", "experts.down_proj", "gate.weight"];
        let mut config = LoraConfig::new(2, 4.0)
            .with_target_modules(TargetModules::Names(vec!["q_proj".to_owned()]));
        config.selection.target_parameters = targets.map(str::to_owned).to_vec();
        let with_lora = |precision| {
            let model = load_rounded(family, &Device::flex().autodiff(), precision);
            let (model, _) = attach(model, &config, 3).expect("attaches");
            differentiate(&randomized(model), &documents, scale)
        };
        let expected = with_lora(Precision::F32);
        let found = with_lora(Precision::Bf16);
        let difference = (found.loss - expected.loss).abs();
        assert!(difference <= BF16_LOSS_TOLERANCE, "{family}: {difference}");
        assert!(
            expected.gradients.keys().eq(found.gradients.keys()),
            "{family}"
        );
        for (name, expected) in &expected.gradients {
            let error = relative_error(&found.gradients[name], expected);
            let tolerance = match name.contains("mlp.gate.") {
                true => ROUTER_TOLERANCE,
                false => BF16_GRADIENT_TOLERANCE,
            };
            assert!(error <= tolerance, "{family}: {name}: {error}");
        }
    }
}

/// With factors that begin at zero the model is its base.
#[test]
fn new_factors_of_experts_change_nothing() {
    let family = "qwen3_moe";
    let file = golden_tensors(&format!("families/{family}.golden.safetensors"));
    let mut config = LoraConfig::new(3, 6.0).with_target_modules(TargetModules::Names(Vec::new()));
    config.selection.target_parameters = vec!["mlp.experts.gate_up_proj".to_owned()];
    let model = load(family, &Device::flex().autodiff(), Precision::F32);
    let context = ForwardContext::inference();
    let expected = values(&model.logits(documents(&file).batch(), &context));
    let (model, report) = attach(model, &config, 3).expect("attaches");
    let adapted: Vec<&str> = report.modules.iter().map(|one| &*one.module).collect();
    assert_eq!(
        adapted,
        [
            "model.layers.1.mlp.experts.gate_up_proj",
            "model.layers.3.mlp.experts.gate_up_proj"
        ]
    );
    let found = values(&model.logits(documents(&file).batch(), &context));
    assert!(max_difference(&found, &expected) <= 1e-5);
    let trainable = parameters::trainable(&model);
    let shapes: Vec<(&str, &[usize])> = trainable
        .iter()
        .map(|tensor| (&*tensor.name, &*tensor.shape))
        .collect();
    assert_eq!(
        shapes[..2],
        [
            ("model.layers.1.mlp.experts.lora_A.weight", &[3 * 6, 32][..]),
            ("model.layers.1.mlp.experts.lora_B.weight", &[40, 3 * 6][..]),
        ]
    );
}

/// `all-linear` is what is a linear layer in transformers, too: neither routers nor experts, but a shared one and its gate.
#[test]
fn experts_are_no_linear_layers() {
    let names = |family: &str| -> BTreeSet<String> {
        let model = load(family, &Device::flex(), Precision::F32);
        let linears = linear_modules(&model).into_iter();
        let linears = linears.filter(|linear| !linear.is_output_head);
        let names = linears.map(|linear| {
            let inside = linear.path.splitn(5, '.').nth(4);
            inside.expect("a layer of a block").to_owned()
        });
        names.collect()
    };
    let of = |names: &[&str]| -> BTreeSet<String> {
        let attention = ["q_proj", "k_proj", "v_proj", "o_proj"];
        let all = attention.iter().chain(names);
        all.map(|name| (*name).to_owned()).collect()
    };
    assert_eq!(names("mixtral"), of(&[]));
    let dense = ["gate_proj", "up_proj", "down_proj"];
    assert_eq!(names("qwen3_moe"), of(&dense));
    let shared = dense.map(|name| format!("shared_expert.{name}"));
    let mut all = of(&dense);
    all.extend(shared);
    all.insert("shared_expert_gate".to_owned());
    assert_eq!(names("qwen2_moe"), all);
}

/// transformers holds the experts of a layer in one tensor, and may save them so.
#[test]
fn experts_in_one_tensor_are_read() {
    for family in FAMILIES {
        let from = golden(&format!("families/{family}"));
        let expected = load(family, &Device::flex(), Precision::F32);
        let architecture = expected.architecture().clone();
        let parts = architecture.expert_parts();
        let checkpoint = Checkpoint::open(&from).expect("a checkpoint");
        let (mut joined, mut tensors) = (BTreeMap::new(), Vec::new());
        for (name, shape, data) in tensors_of(&checkpoint) {
            match parts.iter().find(|(part, _)| *part == name) {
                None => tensors.push((name, shape, data)),
                Some((_, part)) => {
                    let rows: &mut BTreeMap<usize, Vec<f32>> =
                        joined.entry(part.parameter.clone()).or_default();
                    rows.insert(part.rows.start, data);
                }
            }
        }
        for (path, n_experts, [rows, d_in]) in architecture.expert_parameters() {
            let data: Vec<f32> = joined[&path].values().flatten().copied().collect();
            let shape = match n_experts {
                1 => vec![rows, d_in],
                n => vec![n, rows / n, d_in],
            };
            tensors.push((path, shape, data));
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("config.json");
        std::fs::copy(from.join("config.json"), config).expect("copies");
        write(directory.path(), &tensors);
        let file = golden_tensors(&format!("families/{family}.golden.safetensors"));
        let documents = documents(&file);
        let context = ForwardContext::inference();
        for precision in [Precision::F32, Precision::Bf16] {
            let logits = |model: &CausalLm| values(&model.logits(documents.batch(), &context));
            let found = logits(&load_in(directory.path(), &Device::flex(), precision));
            let expected = logits(&load(family, &Device::flex(), precision));
            assert_eq!(found, expected, "{family} {precision:?}");
        }
    }
}

#[test]
fn what_is_said_of_experts_is_read() {
    let sizes = |family: &str, changes| {
        let architecture = with(family, changes).expect("valid");
        let blocks = architecture.blocks.iter();
        let sizes = blocks.map(|block| {
            let layer = &block.feed_forward;
            let experts = layer.experts.as_ref()?;
            let shared = experts.shared.as_ref();
            let shared = shared.map(|shared| shared.feed_forward.output.d_in);
            let counts = (experts.n_experts, experts.per_token, experts.normalize);
            Some((counts, layer.output.d_in, shared))
        });
        sizes.collect::<Vec<_>>()
    };
    let five = |one| vec![Some(one); 5];
    assert_eq!(sizes("mixtral", json!({})), five(((8, 2, true), 172, None)));
    assert_eq!(
        sizes("qwen2_moe", json!({})),
        five(((60, 4, false), 1408, Some(5632)))
    );
    assert_eq!(
        sizes("qwen3_moe", json!({})),
        five(((128, 8, false), 768, None))
    );
    let own = json!({
        "num_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 20,
        "norm_topk_prob": true, "decoder_sparse_step": 2, "mlp_only_layers": [3]
    });
    let one = Some(((12, 3, true), 20, None));
    assert_eq!(sizes("qwen3_moe", own), [None, one, None, None, None]);
    let renamed = json!({"num_local_experts": 9});
    assert_eq!(
        sizes("qwen3_moe", renamed),
        five(((9, 8, false), 768, None))
    );
    // Without a coefficient that loss is none.
    let without = json!({"output_router_logits": true, "router_aux_loss_coef": 0.0});
    sizes("mixtral", without);
    let windows = |family: &str, changes| {
        let architecture = with(family, changes).expect("valid");
        let blocks = architecture.blocks.iter();
        blocks
            .map(|block| block.attention.window)
            .collect::<Vec<_>>()
    };
    let asked = json!({"use_sliding_window": true, "sliding_window": 9, "max_window_layers": 3});
    let (nine, none) = (Some(9), None);
    assert_eq!(
        windows("qwen2_moe", asked.clone()),
        [nine, none, nine, none, none]
    );
    assert_eq!(windows("qwen3_moe", asked), [nine; 5]);
    assert_eq!(windows("mixtral", json!({"sliding_window": 9})), [nine; 5]);
    assert_eq!(windows("mixtral", json!({})), [none; 5]);
}

#[test]
fn what_is_not_honoured_of_experts_is_refused() {
    for (family, changes, key) in [
        (
            "mixtral",
            json!({"output_router_logits": true}),
            "output_router_logits",
        ),
        (
            "qwen2_moe",
            json!({"output_router_logits": true, "router_aux_loss_coef": 0.01}),
            "output_router_logits",
        ),
        (
            "mixtral",
            json!({"router_jitter_noise": 0.1}),
            "router_jitter_noise",
        ),
        (
            "mixtral",
            json!({"num_experts_per_tok": 9}),
            "num_experts_per_tok",
        ),
        (
            "qwen3_moe",
            json!({"num_experts": 1_u64 << 40}),
            "num_experts",
        ),
        ("qwen3_moe", json!({"num_experts": 0}), "num_experts"),
        (
            "qwen3_moe",
            json!({"decoder_sparse_step": 0}),
            "decoder_sparse_step",
        ),
        (
            "qwen3_moe",
            json!({"mlp_only_layers": [0.5]}),
            "mlp_only_layers",
        ),
    ] {
        let error = with(family, changes).expect_err("not honoured");
        assert!(error.to_string().contains(key), "{family}: {error}");
        if let ModelError::UnsupportedSetting { setting, .. } = error {
            assert_eq!(setting, key);
        }
    }
}

#[test]
fn parameters_that_are_not_there_are_refused() {
    let attach_to = |target: &str| {
        let mut config = LoraConfig::new(2, 4.0);
        config.selection.target_parameters = vec![target.to_owned()];
        let model = load("mixtral", &Device::flex(), Precision::F32);
        attach(model, &config, 3).map(|_| ())
    };
    attach_to("mlp.experts.down_proj").expect("it is there");
    for target in ["experts.up_proj", "q_proj.weight", "proj"] {
        let error = attach_to(target).expect_err("it is not there");
        assert!(
            matches!(
                error,
                MethodError::Peft(PeftError::NoMatch {
                    option: "target_parameters",
                    ..
                })
            ),
            "{error}"
        );
    }
    let mut config = LoraConfig::new(2, 4.0);
    config.dropout = 0.1;
    config.selection.target_parameters = vec!["experts.down_proj".to_owned()];
    let model = load("mixtral", &Device::flex(), Precision::F32);
    let error = attach(model, &config, 3)
        .map(|_| ())
        .expect_err("as in PEFT");
    assert!(error.to_string().contains("lora_dropout"), "{error}");
}

/// They would take the weights of all experts for one.
#[test]
fn methods_without_factors_of_experts_refuse_them() {
    let model = || load("mixtral", &Device::flex(), Precision::F32);
    let selection = Selection {
        target_parameters: vec!["experts.down_proj".to_owned()],
        ..Selection::default()
    };
    let methods = Methods::builtin();
    let mut n_refused = 0;
    for spec in methods.iter().filter(|spec| spec.kind != "lora") {
        let chosen = Chosen::new(spec.kind);
        let Ok(config) = methods.build(&chosen, &BuildContext { total_steps: 1 }) else {
            continue;
        };
        let config = config.with_selection(selection.clone());
        let errors = [
            attach(model(), &*config, 3).map(|_| ()),
            least_numbers(&model(), &*config).map(|_| ()),
        ];
        for error in errors {
            assert!(
                matches!(error, Err(MethodError::NoParameters { method }) if method == spec.kind),
                "{}: {error:?}",
                spec.kind
            );
        }
        n_refused += 1;
    }
    assert!(n_refused >= 5, "{n_refused}");
}

/// Sizes whose products are no numbers are compared with the files before anything is made of them.
#[test]
fn sizes_beyond_all_numbers_are_a_mismatch() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = std::fs::read_to_string(golden("families/qwen3_moe/config.json")).expect("text");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["num_local_experts"] = json!(4096);
    config["moe_intermediate_size"] = json!(1_u64 << 31);
    config["hidden_size"] = json!(1_u64 << 20);
    let config = config.to_string();
    std::fs::write(directory.path().join("config.json"), config).expect("writes");
    let one = |name: &str| (name.to_owned(), vec![1, 1, 1], vec![0.0]);
    let names =
        ["gate_up_proj", "down_proj"].map(|name| format!("model.layers.1.mlp.experts.{name}"));
    // In one tensor for all, and one by one.
    for tensors in [
        names.map(|name| one(&name)).to_vec(),
        vec![one("model.norm.weight")],
    ] {
        write(directory.path(), &tensors);
        let checkpoint = Checkpoint::open(directory.path()).expect("a checkpoint");
        let json = ModelJson::load(directory.path()).expect("JSON");
        let architecture = describe(&json);
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let device = Device::flex();
            let loaded = CausalLm::load(&checkpoint, architecture.clone(), &device, precision);
            let error = loaded.map(|_| ()).expect_err("no such sizes");
            assert!(
                matches!(error, ModelError::Format(FormatError::Mismatch(_))),
                "{error}"
            );
        }
    }
}
