//! What is handed over for llama.cpp, and what is refused. That llama.cpp computes the same is tested where files are written.

use std::path::Path;

use reparam_formats::config::ModelJson;
use reparam_formats::gguf::{GgufModel, GgufValue, Layout, Source};
use serde_json::{Value, json};

use crate::{Families, ModelError};

fn gguf(family: &str, changes: Value, is_tied: bool) -> Result<GgufModel, ModelError> {
    let mut config = json!({
        "model_type": family, "hidden_size": 64, "intermediate_size": 172, "head_dim": 8,
        "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
        "max_position_embeddings": 256,
        "n_embd": 64, "n_layer": 2, "n_head": 8,
    });
    for (key, change) in changes.as_object().expect("an object") {
        config[key] = change.clone();
    }
    let families = Families::builtin();
    let json = ModelJson::parse(Path::new("config.json"), &config.to_string())?;
    let architecture = families.describe(&json)?;
    families.gguf(&architecture, is_tied)
}

fn setting<'a>(model: &'a GgufModel, key: &str) -> Option<&'a GgufValue> {
    let mut settings = model.settings.iter();
    settings
        .find(|(known, _)| *known == key)
        .map(|(_, value)| value)
}

#[test]
fn names_follow_from_what_layers_are_for() {
    let model = gguf("llama", json!({}), true).expect("a model");
    let at = |name: &str| {
        let mut weights = model.weights.iter();
        weights
            .find(|weight| weight.name == name)
            .map(|weight| weight.source.clone())
    };
    let stored = |name: &str, layout, keeps_f32| {
        Some(Source::Stored {
            name: name.to_owned(),
            layout,
            keeps_f32,
        })
    };
    let layer = "model.layers.3";
    let cases = [
        (
            "blk.3.attn_q.weight",
            "self_attn.q_proj.weight",
            Layout::Pairs { heads: 8 },
            false,
        ),
        (
            "blk.3.attn_k.weight",
            "self_attn.k_proj.weight",
            Layout::Pairs { heads: 4 },
            false,
        ),
        (
            "blk.3.attn_v.weight",
            "self_attn.v_proj.weight",
            Layout::AsStored,
            false,
        ),
        (
            "blk.3.ffn_gate.weight",
            "mlp.gate_proj.weight",
            Layout::AsStored,
            false,
        ),
        (
            "blk.3.ffn_norm.weight",
            "post_attention_layernorm.weight",
            Layout::AsStored,
            true,
        ),
    ];
    for (name, of, layout, keeps_f32) in cases {
        assert_eq!(
            at(name),
            stored(&format!("{layer}.{of}"), layout, keeps_f32),
            "{name}"
        );
    }
    // Tied, the head has no tensor; untied it has its own.
    assert_eq!(at("output.weight"), None);
    let untied = gguf("llama", json!({}), false).expect("a model");
    assert!(
        untied
            .weights
            .iter()
            .any(|weight| weight.name == "output.weight")
    );
    // Where llama.cpp wants one, the table is written twice.
    let twice = gguf("olmo2", json!({}), true).expect("a model");
    assert!(
        twice
            .weights
            .iter()
            .any(|weight| weight.name == "output.weight")
    );
    assert_eq!(
        setting(&model, "attention.head_count_kv"),
        Some(&GgufValue::U32(4))
    );
    assert_eq!(
        setting(&model, "context_length"),
        Some(&GgufValue::U32(256))
    );
}

#[test]
fn windows_that_llama_cpp_does_not_have_bound_the_context() {
    let model = gguf("mistral", json!({"sliding_window": 32}), false).expect("a model");
    assert_eq!(setting(&model, "context_length"), Some(&GgufValue::U32(32)));
    assert!(model.notes[0].contains("32 tokens"), "{:?}", model.notes);
    let wide = gguf("mistral", json!({"sliding_window": 256}), false).expect("a model");
    assert!(wide.notes.is_empty());
    // Those that it has follow a period.
    let of = |types: [&str; 4]| {
        let types = types.map(|of| format!("{of}_attention"));
        gguf(
            "gemma3_text",
            json!({"layer_types": types, "sliding_window": 16, "query_pre_attn_scalar": 8}),
            true,
        )
    };
    let pairs = of(["sliding", "full", "sliding", "full"]).expect("a model");
    assert_eq!(
        setting(&pairs, "attention.sliding_window"),
        Some(&GgufValue::U32(16))
    );
    assert_eq!(
        setting(&pairs, "attention.sliding_window_pattern"),
        Some(&GgufValue::U32(2))
    );
    assert_eq!(
        setting(&pairs, "rope.freq_base_swa"),
        Some(&GgufValue::F32(10_000.0))
    );
    let usual = of(["sliding"; 4]).expect("a model");
    assert_eq!(setting(&usual, "attention.sliding_window_pattern"), None);
    let error = of(["full", "sliding", "sliding", "full"]).expect_err("no period");
    assert!(error.to_string().contains("period"), "{error}");
}

#[test]
fn what_llama_cpp_would_compute_otherwise_is_refused_by_what_it_is() {
    let yarn = json!({"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "beta_fast": 4.0, "original_max_position_embeddings": 32});
    let dynamic = json!({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0});
    let llama3 = json!({
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    });
    let cases = [
        (
            "gemma2",
            json!({"query_pre_attn_scalar": 24}),
            true,
            "scores are multiplied",
        ),
        (
            "gemma2",
            json!({"final_logit_softcapping": null}),
            true,
            "cap logits",
        ),
        ("gemma", json!({}), false, "output head"),
        (
            "gpt2",
            json!({"scale_attn_by_inverse_layer_idx": true}),
            true,
            "layer 1",
        ),
        ("starcoder2", json!({"use_bias": false}), true, "biases"),
        ("qwen3", json!({"attention_bias": true}), true, "biases"),
        ("qwen2", json!({"head_dim": 16}), true, "as wide as"),
        ("llama", json!({"hidden_act": "gelu"}), true, "activation"),
        (
            "llama",
            json!({"rope_parameters": dynamic}),
            true,
            "length of the sequence",
        ),
        ("llama", json!({"rope_parameters": yarn}), true, "YaRN"),
        ("qwen2", json!({"rope_parameters": llama3}), true, "stretch"),
        (
            "cohere",
            json!({"use_qk_norm": true}),
            true,
            "weights for each",
        ),
        (
            "phi",
            json!({"qk_layernorm": true}),
            false,
            "norms of heads",
        ),
        ("cohere", json!({}), false, "output head"),
        (
            "smollm3",
            json!({"no_rope_layers": [1, 0, 1, 0]}),
            true,
            "rotates",
        ),
    ];
    for (family, changes, is_tied, said) in cases {
        let error = gguf(family, changes, is_tied).expect_err(said);
        assert!(matches!(error, ModelError::NotInGguf { .. }), "{error}");
        assert!(error.to_string().contains(said), "{family}: {error}");
    }
    // A family that llama.cpp does not have, or not in this form, says which are there.
    let error = gguf("gpt_neo", json!({"num_layers": 2, "num_heads": 8}), true).expect_err("none");
    assert!(error.to_string().contains("starcoder2"), "{error}");
}

#[test]
fn factors_and_bounds_are_settings() {
    let f32_of = |model: &GgufModel, key: &str| match setting(model, key) {
        Some(GgufValue::F32(value)) => *value,
        other => panic!("{key}: {other:?}"),
    };
    let keys = json!({
        "embedding_multiplier": 3.0, "attention_multiplier": 0.25, "residual_multiplier": 0.5, "logits_scaling": 8.0,
    });
    let granite = gguf("granite", keys, true).expect("a model");
    for (key, expected) in [
        ("embedding_scale", 3.0),
        ("attention.scale", 0.25),
        ("residual_scale", 0.5),
        ("logit_scale", 8.0),
    ] {
        assert_eq!(f32_of(&granite, key), expected, "{key}");
    }
    let cohere = gguf("cohere", json!({"logit_scale": 0.5}), true).expect("a model");
    assert_eq!(f32_of(&cohere, "logit_scale"), 0.5);
    assert_eq!(setting(&cohere, "embedding_scale"), None);
    let olmo = gguf("olmo", json!({"clip_qkv": 8.0, "head_dim": null}), true).expect("a model");
    assert_eq!(f32_of(&olmo, "attention.clamp_kqv"), 8.0);
    // Its norms have no tensors.
    let mut weights = olmo.weights.iter();
    assert!(weights.all(|weight| !weight.name.contains("norm")));
    // Neighbours stay where they are; what is half a head apart is moved together.
    let layout = |model: &GgufModel| {
        let mut weights = model.weights.iter();
        let q = weights.find(|weight| weight.name == "blk.0.attn_q.weight");
        match q.map(|weight| &weight.source) {
            Some(Source::Stored { layout, .. }) => *layout,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(layout(&cohere), Layout::AsStored);
    assert_eq!(layout(&olmo), Layout::Pairs { heads: 8 });
}

#[test]
fn experts_are_joined_and_their_router_stays_precise() {
    let sizes = json!({
        "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "shared_expert_intermediate_size": 28,
    });
    let model = gguf("qwen2_moe", sizes, false).expect("a model");
    for (key, expected) in [
        ("expert_count", 6),
        ("expert_used_count", 2),
        ("expert_feed_forward_length", 20),
        ("expert_shared_feed_forward_length", 28),
    ] {
        assert_eq!(
            setting(&model, key),
            Some(&GgufValue::U32(expected)),
            "{key}"
        );
    }
    let of = |name: &str| {
        let mut weights = model.weights.iter();
        let found = weights.find(|weight| weight.name == format!("blk.1.{name}.weight"));
        found.map(|weight| weight.source.clone()).expect(name)
    };
    let Source::Experts { each, joined, rows } = of("ffn_up_exps") else {
        panic!("they are of experts");
    };
    assert_eq!(each[5], "model.layers.1.mlp.experts.5.up_proj.weight");
    assert_eq!(
        (each.len(), rows, joined.as_str()),
        (6, 20..40, "model.layers.1.mlp.experts.gate_up_proj")
    );
    for (name, stored, keeps_f32) in [
        ("ffn_gate_inp", "gate", true),
        ("ffn_gate_inp_shexp", "shared_expert_gate", true),
        ("ffn_down_shexp", "shared_expert.down_proj", false),
    ] {
        let expected = Source::Stored {
            name: format!("model.layers.1.mlp.{stored}.weight"),
            layout: Layout::AsStored,
            keeps_f32,
        };
        assert_eq!(of(name), expected, "{name}");
    }
    for (family, changes, said) in [
        ("qwen2_moe", json!({"norm_topk_prob": true}), "sum to one"),
        (
            "qwen3_moe",
            json!({"norm_topk_prob": false}),
            "probabilities",
        ),
        (
            "qwen3_moe",
            json!({"norm_topk_prob": true, "mlp_only_layers": [2]}),
            "no experts",
        ),
    ] {
        let error = gguf(family, changes, false).expect_err(said);
        assert!(error.to_string().contains(said), "{error}");
    }
    // Of an architecture without experts it is no model.
    let path = super::golden("families/qwen3_moe");
    let mut experts = super::describe(&ModelJson::load(&path).expect("JSON"));
    experts.model_type = "qwen3".to_owned();
    let error = Families::builtin().gguf(&experts, false);
    let error = error.expect_err("experts").to_string();
    assert!(error.contains("has experts"), "{error}");
}

#[test]
fn state_spaces_have_names_of_their_own() {
    let keys = json!({"intermediate_size": 128, "state_size": 5, "time_step_rank": 3});
    let model = gguf("mamba", keys.clone(), true).expect("a model");
    for (key, expected) in [
        ("ssm.conv_kernel", 4),
        ("ssm.inner_size", 128),
        ("ssm.state_size", 5),
        ("ssm.time_step_rank", 3),
        ("block_count", 4),
        ("attention.head_count", 0),
    ] {
        assert_eq!(
            setting(&model, key),
            Some(&GgufValue::U32(expected)),
            "{key}"
        );
    }
    let of = |name: &str| {
        let mut weights = model.weights.iter();
        weights
            .find(|weight| weight.name == name)
            .map(|weight| weight.source.clone())
    };
    let stored = |name: &str, layout, keeps_f32| {
        Some(Source::Stored {
            name: format!("backbone.layers.2.{name}"),
            layout,
            keeps_f32,
        })
    };
    let conv = stored("mixer.conv1d.weight", Layout::Squeezed, true);
    assert_eq!(of("blk.2.ssm_conv1d.weight"), conv);
    assert_eq!(
        of("blk.2.ssm_a"),
        stored("mixer.A_log", Layout::MinusExp, true)
    );
    assert_eq!(
        of("blk.2.ssm_in.weight"),
        stored("mixer.in_proj.weight", Layout::AsStored, false)
    );
    assert_eq!(model.weights.len(), 2 + 4 * 10);
    for (changes, said) in [
        (json!({"expand": 1, "intermediate_size": 64}), "64 channels"),
        (json!({"use_bias": true}), "biases"),
        (json!({"use_conv_bias": false}), "biases"),
    ] {
        let mut keys = keys.clone();
        for (key, change) in changes.as_object().expect("an object") {
            keys[key] = change.clone();
        }
        let error = gguf("mamba", keys, true).expect_err(said);
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn factors_of_frequencies_are_tensors() {
    let llama3 = json!({
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    });
    let model = gguf("llama", json!({"rope_parameters": llama3}), true).expect("a model");
    let mut weights = model.weights.iter();
    let factors = weights.find(|weight| weight.name == "rope_freqs.weight");
    let Some(Source::Given(factors)) = factors.map(|weight| &weight.source) else {
        panic!("no factors");
    };
    // The first pair turns fast and is kept, the last one slow and is divided.
    assert_eq!(factors.len(), 4);
    assert!(
        (factors[0] - 1.0).abs() < 1e-6 && (factors[3] - 8.0).abs() < 1e-5,
        "{factors:?}"
    );
}
