//! What families read from `config.json`.

use std::path::Path;

use proptest::prelude::*;
use reparam_formats::config::{ConfigError, ModelJson};
use serde_json::{Value, json};

use super::describe as describe_valid;
use crate::architecture::{AttentionSpec, BlockSpec, HeadWeights, RelativeSpec};
use crate::{Architecture, Families, Family, ModelError};
use reparam_ops::Activation;

/// A configuration with the required keys only.
fn minimal(family: &str) -> Value {
    match family {
        "gpt2" => json!({
            "model_type": "gpt2", "n_embd": 64, "n_layer": 5, "n_head": 8, "vocab_size": 512
        }),
        // Heads of 64 elements, as many as are turned where nothing is said.
        "gptj" => json!({
            "model_type": "gptj", "n_embd": 512, "n_layer": 5, "n_head": 8, "vocab_size": 512
        }),
        "gpt_neo" => json!({
            "model_type": "gpt_neo", "hidden_size": 64, "num_layers": 5, "num_heads": 8, "vocab_size": 512
        }),
        "mamba" => json!({
            "model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 5, "vocab_size": 512
        }),
        "t5" => json!({"model_type": "t5", "decoder_start_token_id": 0}),
        family => json!({
            "model_type": family, "hidden_size": 64, "intermediate_size": 172,
            "num_hidden_layers": 5, "num_attention_heads": 8, "vocab_size": 512
        }),
    }
}

fn parse(value: &Value) -> Result<Architecture, ModelError> {
    let json = ModelJson::parse(Path::new("dir/config.json"), &value.to_string())?;
    Families::builtin().describe(&json)
}

/// Describes the minimal configuration with some keys replaced.
pub(super) fn with(family: &str, changes: Value) -> Result<Architecture, ModelError> {
    let mut value = minimal(family);
    for (key, change) in changes.as_object().expect("an object") {
        value[key] = change.clone();
    }
    parse(&value)
}

fn attention(architecture: &Architecture, layer: usize) -> &AttentionSpec {
    &architecture.blocks[layer].attention
}

fn windows(architecture: &Architecture) -> Vec<Option<usize>> {
    let blocks = architecture.blocks.iter();
    blocks.map(|block| block.attention.window).collect()
}

#[test]
fn defaults_are_those_of_transformers() {
    // Key heads, size of a head, positions, tied, bos, eos, pad.
    type Expected = (
        usize,
        usize,
        usize,
        bool,
        Option<u32>,
        Vec<u32>,
        Option<u32>,
    );
    let gpt2_tokens = (Some(50_256), vec![50_256]);
    let cases: [(&str, Expected); 28] = [
        ("llama", (8, 8, 2048, false, Some(1), vec![2], None)),
        ("mistral", (8, 8, 131_072, false, Some(1), vec![2], None)),
        ("qwen2", (32, 8, 32_768, false, None, vec![], None)),
        ("qwen3", (32, 128, 32_768, false, None, vec![], None)),
        (
            "gemma3_text",
            (4, 256, 131_072, true, Some(2), vec![1], Some(0)),
        ),
        (
            "phi3",
            (8, 8, 4096, false, Some(1), vec![32_000], Some(32_000)),
        ),
        ("gpt2", (8, 8, 1024, true, Some(50_256), vec![50_256], None)),
        ("gemma", (16, 256, 8192, true, Some(2), vec![1], Some(0))),
        ("gemma2", (4, 256, 8192, true, Some(2), vec![1], Some(0))),
        (
            "gpt_neo",
            (8, 8, 2048, true, Some(50_256), vec![50_256], None),
        ),
        ("ministral", (8, 8, 131_072, false, Some(1), vec![2], None)),
        ("olmo", (8, 8, 2048, false, None, vec![50_279], Some(1))),
        ("olmo2", (8, 8, 2048, false, None, vec![50_279], Some(1))),
        ("olmo3", (8, 8, 2048, false, None, vec![50_279], Some(1))),
        ("opt", (8, 8, 2048, true, Some(2), vec![2], Some(1))),
        (
            "smollm3",
            (
                4,
                8,
                32_768,
                true,
                Some(128_000),
                vec![128_001],
                Some(128_004),
            ),
        ),
        ("stablelm", (32, 8, 4096, false, Some(0), vec![0], None)),
        (
            "starcoder2",
            (2, 8, 4096, true, gpt2_tokens.0, gpt2_tokens.1.clone(), None),
        ),
        ("bloom", (8, 8, 2048, true, Some(1), vec![2], None)),
        (
            "cohere",
            (8, 8, 8192, true, Some(5), vec![255_001], Some(0)),
        ),
        (
            "cohere2",
            (8, 8, 8192, true, Some(5), vec![255_001], Some(0)),
        ),
        ("falcon", (1, 8, 2048, true, Some(11), vec![11], None)),
        ("gpt_neox", (8, 8, 2048, false, Some(0), vec![2], None)),
        (
            "gptj",
            (8, 64, 2048, false, gpt2_tokens.0, gpt2_tokens.1, None),
        ),
        ("granite", (8, 8, 2048, false, Some(1), vec![2], None)),
        ("phi", (8, 8, 2048, false, Some(1), vec![2], None)),
        (
            "glm",
            (
                2,
                128,
                131_072,
                false,
                None,
                vec![151_329, 151_336, 151_338],
                Some(151_329),
            ),
        ),
        (
            "glm4",
            (
                2,
                128,
                131_072,
                false,
                None,
                vec![151_329, 151_336, 151_338],
                Some(151_329),
            ),
        ),
    ];
    for (family, expected) in cases {
        let changes = match expected.0 {
            32 => json!({"num_attention_heads": 64, "hidden_size": 512}),
            16 => json!({"num_attention_heads": 16}),
            _ => json!({}),
        };
        let all = with(family, changes).expect(family);
        let (spec, special) = (attention(&all, 0), all.special.clone());
        let found = (
            spec.n_kv_heads,
            spec.head_dim,
            all.max_positions,
            all.head.tied,
            special.bos,
            special.eos,
            special.pad,
        );
        assert_eq!(found, expected, "{family}");
    }
    // The second frequency says the base: theta^(-2 / turned elements).
    for (family, theta, turned, eps) in [
        ("llama", 1e4_f64, 8, 1e-6),
        ("smollm3", 2e6, 8, 1e-6),
        ("olmo", 1e4, 8, 1e-5),
        ("olmo2", 1e4, 8, 1e-5),
        ("olmo3", 5e5, 8, 1e-5),
        ("starcoder2", 1e4, 8, 1e-5),
        ("stablelm", 1e4, 4, 1e-5),
        ("cohere", 5e5, 8, 1e-5),
        ("cohere2", 1e4, 8, 1e-5),
        ("falcon", 1e4, 8, 1e-5),
        ("glm4", 1e4, 64, 1.5625e-7),
        ("gpt_neox", 1e4, 4, 1e-5),
        ("gptj", 1e4, 64, 1e-5),
        ("granite", 1e4, 8, 1e-6),
        ("phi", 1e4, 4, 1e-5),
    ] {
        // Heads of 8 elements, of some of 16.
        let changes = match family {
            "stablelm" => json!({"num_attention_heads": 32, "hidden_size": 512}),
            "gpt_neox" => json!({"hidden_size": 128}),
            _ => json!({}),
        };
        let all = with(family, changes).expect(family);
        let found = &all.rotary[0].inverse_frequencies;
        assert_eq!(found.len(), turned / 2, "{family}");
        let expected = theta.powf(-2.0 / turned as f64);
        let difference = (f64::from(found[1]) - expected).abs();
        assert!(difference <= 1e-6 * expected, "{family}");
        assert_eq!(all.norm.expect("a norm").eps, eps, "{family}");
    }
    let bare = json!({"enable_bias": false, "do_layer_norm_before": false});
    let opt = with("opt", bare).expect("valid");
    assert!(opt.norm.is_none() && opt.linears().all(|linear| !linear.bias));
    let norms = &opt.blocks[0].feed_forward_norms;
    assert!(norms.before.is_none() && norms.after.is_some());
    let activation = |family: &str, changes: Value| {
        let all = with(family, changes).expect(family);
        all.blocks[0].feed_forward.activation
    };
    let gelu = json!({"num_attention_heads": 16, "hidden_act": "gelu"});
    assert_eq!(activation("gemma", gelu), Activation::GeluTanh);
    assert_eq!(activation("opt", json!({})), Activation::Relu);
    assert_eq!(activation("starcoder2", json!({})), Activation::GeluTanh);
    for (family, is_parallel, has_own_norm, is_interleaved) in [
        ("cohere", true, false, true),
        ("falcon", true, false, false),
        ("glm4", false, true, true),
        ("gpt_neox", true, true, false),
        ("gptj", true, false, true),
        ("phi", true, false, false),
        ("stablelm", false, true, false),
    ] {
        let changes = match family {
            "stablelm" => json!({"num_attention_heads": 32, "hidden_size": 512}),
            "gpt_neox" => json!({"hidden_size": 128}),
            _ => json!({}),
        };
        let all = with(family, changes).expect(family);
        let (block, rotary) = (&all.blocks[0], &all.rotary[0]);
        let own = block.feed_forward_norms.before.is_some();
        let found = (block.parallel, own, rotary.interleaved);
        assert_eq!(
            found,
            (is_parallel, has_own_norm, is_interleaved),
            "{family}"
        );
    }
    let blocks = |changes: Value| with("falcon", changes).expect("valid").blocks;
    let groups = json!({"new_decoder_architecture": true, "num_kv_heads": 4});
    let found = blocks(groups).remove(0);
    assert!(found.attention.grouped && found.feed_forward_norms.before.is_some());
    let apart = json!({"multi_query": false, "parallel_attn": false});
    let found = blocks(apart).remove(0);
    assert!(found.attention.grouped && found.attention.n_kv_heads == 8 && !found.parallel);
    let older =
        json!({"hidden_size": null, "n_embed": 64, "num_attention_heads": null, "n_head": 4});
    let bloom = with("bloom", older).expect("valid");
    assert_eq!((bloom.width, attention(&bloom, 0).n_heads), (64, 4));
    let llama = with("llama", json!({})).expect("valid");
    let norm = llama.norm.as_ref().expect("a norm");
    assert_eq!((norm.eps, norm.path.as_str()), (1e-6, "norm"));
    assert!(
        llama
            .linears()
            .all(|linear| !linear.bias && !linear.transposed)
    );
}

#[test]
fn null_means_none_and_lists_are_read() {
    let all = with(
        "llama",
        json!({
            "bos_token_id": null, "eos_token_id": [3, 5], "pad_token_id": -1,
            "head_dim": null, "num_key_value_heads": null, "rope_scaling": null
        }),
    )
    .expect("valid");
    assert_eq!(all.special.bos, None);
    assert_eq!(all.special.eos, [3, 5]);
    assert_eq!(all.special.pad, None);
    let uncapped = json!({"attn_logit_softcapping": null, "final_logit_softcapping": null, "sliding_window": null});
    let all = with("gemma2", uncapped).expect("valid");
    let capped = (attention(&all, 0).soft_cap, all.head.soft_cap);
    assert_eq!((capped, attention(&all, 0).window), ((None, None), None));
    let none = with("llama", json!({"eos_token_id": null})).expect("valid");
    assert_eq!(none.special.eos, [0_u32; 0]);
    // As many as query heads, where a family's default is another number.
    let all = with(
        "mistral",
        json!({"num_attention_heads": 16, "num_key_value_heads": null}),
    );
    assert_eq!(attention(&all.expect("valid"), 0).n_kv_heads, 16);
    // An explicit head dimension frees hidden_size from the number of heads.
    let all = with("llama", json!({"head_dim": 128, "num_attention_heads": 7})).expect("valid");
    assert_eq!(attention(&all, 0).head_dim, 128);
}

#[test]
fn windows_are_where_transformers_has_them() {
    let all = with("mistral", json!({})).expect("valid");
    assert_eq!(windows(&all), [Some(4096); 5]);
    let all = with("mistral", json!({"sliding_window": null})).expect("valid");
    assert_eq!(windows(&all), [None; 5]);
    let heads = json!({"num_key_value_heads": 8});
    assert_eq!(windows(&with("qwen2", heads).expect("valid")), [None; 5]);
    let asked = json!({
        "num_key_value_heads": 8, "use_sliding_window": true, "sliding_window": 9,
        "max_window_layers": 3
    });
    let expected = [None, None, None, Some(9), Some(9)];
    assert_eq!(windows(&with("qwen2", asked).expect("valid")), expected);
    let listed = json!({
        "num_key_value_heads": 8, "use_sliding_window": true, "layer_types": [
            "sliding_attention", "full_attention", "full_attention", "full_attention",
            "sliding_attention"
        ]
    });
    let expected = [Some(4096), None, None, None, Some(4096)];
    assert_eq!(windows(&with("qwen3", listed).expect("valid")), expected);
    let listed = json!({"sliding_window": 6, "layer_types": [
        "full_attention", "sliding_attention", "full_attention", "full_attention", "full_attention"
    ]});
    for family in ["mistral", "ministral", "smollm3"] {
        let all = with(family, listed.clone()).expect("valid");
        assert_eq!(windows(&all), [None, Some(6), None, None, None], "{family}");
    }
    let (wide, near) = (Some(4096), Some(256));
    for (family, expected) in [
        ("ministral", [wide; 5]),
        ("gemma2", [wide, None, wide, None, wide]),
        ("olmo3", [wide, wide, wide, None, wide]),
        ("smollm3", [None; 5]),
        ("starcoder2", [None; 5]),
        ("cohere2", [wide, wide, wide, None, wide]),
        ("gpt_neo", [None, near, None, near, None]),
    ] {
        let all = with(family, json!({})).expect("valid");
        assert_eq!(windows(&all), expected, "{family}");
    }
    let sliding = json!({"use_sliding_window": true, "sliding_window": 6, "no_rope_layers": [1, 0, 1, 1, 0, 1, 1]});
    let all = with("smollm3", sliding).expect("valid");
    assert_eq!(windows(&all), [None, Some(6), None, None, Some(6)]);
    let turned: Vec<_> = (0..5)
        .map(|layer| attention(&all, layer).rotary.is_some())
        .collect();
    assert_eq!(turned, [true, false, true, true, false]);
    let all = with("gemma3_text", json!({"num_hidden_layers": 7})).expect("valid");
    let expected = [
        Some(4096),
        Some(4096),
        Some(4096),
        Some(4096),
        Some(4096),
        None,
        Some(4096),
    ];
    assert_eq!(windows(&all), expected);
    let rotary: Vec<_> = all
        .blocks
        .iter()
        .map(|block| block.attention.rotary)
        .collect();
    assert_eq!(rotary[4..], [Some(1), Some(0), Some(1)]);
    let both = json!({"use_bidirectional_attention": true, "sliding_window": 512});
    let all = with("gemma3_text", both).expect("valid");
    assert_eq!((windows(&all)[0], all.is_causal()), (Some(257), false));
}

#[test]
fn impossible_values_name_key_and_file() {
    let cases = [
        ("llama", json!({"hidden_size": 0}), "hidden_size"),
        ("llama", json!({"vocab_size": 0}), "vocab_size"),
        (
            "llama",
            json!({"num_hidden_layers": 0}),
            "num_hidden_layers",
        ),
        (
            "llama",
            json!({"num_key_value_heads": 0}),
            "num_key_value_heads",
        ),
        (
            "llama",
            json!({"num_key_value_heads": 3}),
            "num_key_value_heads",
        ),
        (
            "llama",
            json!({"num_attention_heads": 7}),
            "num_attention_heads",
        ),
        ("llama", json!({"head_dim": 7}), "head_dim"),
        ("mistral", json!({"head_dim": 1_u64 << 59}), "head_dim"),
        ("llama", json!({"hidden_size": 56}), "hidden_size"),
        ("llama", json!({"rms_norm_eps": -1.0}), "rms_norm_eps"),
        ("llama", json!({"rope_theta": 0}), "rope_theta"),
        (
            "llama",
            json!({"partial_rotary_factor": 0.5}),
            "partial_rotary_factor",
        ),
        (
            "stablelm",
            json!({"partial_rotary_factor": null}),
            "partial_rotary_factor",
        ),
        (
            "stablelm",
            json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": null}}),
            "rope_parameters.partial_rotary_factor",
        ),
        (
            "phi3",
            json!({"partial_rotary_factor": 1.5}),
            "partial_rotary_factor",
        ),
        (
            "gemma3_text",
            json!({"query_pre_attn_scalar": 0}),
            "query_pre_attn_scalar",
        ),
        (
            "gemma3_text",
            json!({"layer_types": ["full_attention"]}),
            "layer_types",
        ),
        ("gpt2", json!({"n_head": 7}), "n_head"),
        ("gpt_neo", json!({"num_heads": 7}), "num_heads"),
        ("gptj", json!({"rotary_dim": 66}), "rotary_dim"),
        ("gptj", json!({"rotary_dim": 7}), "n_embd"),
        ("gpt_neox", json!({"rotary_pct": 0}), "rotary_pct"),
        (
            "granite",
            json!({"residual_multiplier": 0}),
            "residual_multiplier",
        ),
        ("granite", json!({"logits_scaling": -1}), "logits_scaling"),
        (
            "falcon",
            json!({"new_decoder_architecture": true, "num_kv_heads": 3}),
            "num_kv_heads",
        ),
        (
            "gpt_neo",
            json!({"attention_types": [[["local"], 1_u64 << 60]]}),
            "attention_types",
        ),
        (
            "gpt_neo",
            json!({"attention_types": [[[], 1_u64 << 60], [["local"], 5]]}),
            "attention_types",
        ),
        (
            "opt",
            json!({"num_attention_heads": 7}),
            "num_attention_heads",
        ),
        (
            "opt",
            json!({"word_embed_proj_dim": 0}),
            "word_embed_proj_dim",
        ),
        ("olmo", json!({"clip_qkv": 0}), "clip_qkv"),
        ("mamba", json!({"expand": 0}), "expand"),
        ("mamba", json!({"expand": 0.001}), "expand"),
        (
            "mamba",
            json!({"intermediate_size": 64}),
            "intermediate_size",
        ),
        ("mamba", json!({"state_size": 0}), "state_size"),
        ("mamba", json!({"time_step_rank": 0}), "time_step_rank"),
        ("mamba", json!({"time_step_min": 0}), "time_step_min"),
        (
            "smollm3",
            json!({"no_rope_layers": [1, 0]}),
            "no_rope_layers",
        ),
        (
            "gemma2",
            json!({"final_logit_softcapping": 0}),
            "final_logit_softcapping",
        ),
        (
            "llama",
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1, 2], "long_factor": [1, 2]}}),
            "rope_scaling",
        ),
        (
            "llama",
            json!({"rope_parameters": {
                "rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1e-60]
            }}),
            "rope_parameters",
        ),
        (
            "llama",
            json!({"rope_scaling": {"type": "yarn", "factor": 2.0, "attention_factor": 1e39}}),
            "rope_scaling",
        ),
        (
            "stablelm",
            json!({"num_attention_heads": 32, "hidden_size": 640}),
            "hidden_size",
        ),
        (
            "olmo3",
            json!({"rope_parameters": {"full_attention": {
                "rope_type": "yarn", "factor": 2.0, "truncate": false
            }}}),
            "rope_parameters.full_attention.truncate",
        ),
        (
            "llama",
            json!({"rope_theta": 1.0, "rope_scaling": {"type": "yarn", "factor": 2.0}}),
            "rope_scaling",
        ),
        (
            "deberta-v2",
            json!({"relative_attention": true}),
            "pos_att_type",
        ),
        (
            "deberta-v2",
            json!({"relative_attention": true, "pos_att_type": "c2p", "position_buckets": 1}),
            "position_buckets",
        ),
        (
            "gpt2",
            json!({"layer_norm_epsilon": -1}),
            "layer_norm_epsilon",
        ),
    ];
    for (family, changes, expected) in cases {
        match with(family, changes) {
            Err(ModelError::Config(ConfigError::InvalidValue { key, path, .. })) => {
                assert_eq!(key, expected);
                assert_eq!(path, Path::new("dir/config.json"));
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    for family in ["llama", "gpt2", "gpt_neo"] {
        for key in minimal(family).as_object().expect("an object").keys() {
            let mut value = minimal(family);
            value.as_object_mut().expect("an object").remove(key);
            match parse(&value) {
                Err(ModelError::Config(ConfigError::MissingKey { key: found, .. })) => {
                    assert_eq!(&found, key);
                }
                other => panic!("{key}: {other:?}"),
            }
        }
    }
}

#[test]
fn what_a_family_does_not_run_is_refused_by_name() {
    let cases = [
        (
            "gpt2",
            json!({"add_cross_attention": true}),
            "add_cross_attention",
        ),
        (
            "gpt2",
            json!({"activation_function": "mish"}),
            "activation_function",
        ),
        ("opt", json!({"layerdrop": 0.1}), "layerdrop"),
        (
            "opt",
            json!({"layer_norm_elementwise_affine": false}),
            "layer_norm_elementwise_affine",
        ),
        (
            "gpt_neo",
            json!({"attention_types": [[["global", "far"], 5]], "num_layers": 10}),
            "attention_types",
        ),
        ("mamba", json!({"hidden_act": "gelu"}), "hidden_act"),
        (
            "mamba",
            json!({"time_step_init_scheme": "constant"}),
            "time_step_init_scheme",
        ),
        ("mamba", json!({"time_step_rank": "all"}), "time_step_rank"),
        ("falcon", json!({"hidden_dropout": 0.1}), "hidden_dropout"),
        (
            "falcon",
            json!({"new_decoder_architecture": true, "parallel_attn": false}),
            "parallel_attn",
        ),
        (
            "falcon",
            json!({"num_ln_in_parallel_attn": 3}),
            "num_ln_in_parallel_attn",
        ),
        (
            "bloom",
            json!({"apply_residual_connection_post_layernorm": true}),
            "apply_residual_connection_post_layernorm",
        ),
        (
            "gemma",
            json!({"num_attention_heads": 16, "use_bidirectional_attention": true}),
            "use_bidirectional_attention",
        ),
        ("llama", json!({"is_causal": false}), "is_causal"),
        ("gpt2", json!({"is_causal": false}), "is_causal"),
        ("olmo3", json!({"rope_theta": 1e6}), "rope_theta"),
        (
            "gemma2",
            json!({"use_bidirectional_attention": true}),
            "use_bidirectional_attention",
        ),
        (
            "gemma3_text",
            json!({"attn_logit_softcapping": 50.0}),
            "attn_logit_softcapping",
        ),
        (
            "qwen2",
            json!({"num_key_value_heads": 8, "layer_types": vec!["linear_attention"; 5]}),
            "layer_types",
        ),
        (
            "deberta-v2",
            json!({"conv_kernel_size": 3}),
            "conv_kernel_size",
        ),
        (
            "deberta-v2",
            json!({"attention_head_size": 7}),
            "attention_head_size",
        ),
        (
            "deberta-v2",
            json!({"pooler_hidden_size": 32}),
            "pooler_hidden_size",
        ),
        (
            "deberta-v2",
            json!({"pos_att_type": "c2p|p2p"}),
            "pos_att_type",
        ),
        (
            "deberta-v2",
            json!({"relative_attention": true, "pos_att_type": ["c2p"], "norm_rel_ebd": "batch_norm"}),
            "norm_rel_ebd",
        ),
    ];
    for (family, changes, expected) in cases {
        match with(family, changes) {
            Err(ModelError::UnsupportedSetting { setting, .. }) => assert_eq!(setting, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let scaling = json!({"rope_scaling": {"type": "mrope", "factor": 2}});
    assert!(matches!(
        with("phi3", scaling),
        Err(ModelError::Config(ConfigError::UnsupportedRope { .. }))
    ));
}

#[test]
fn state_spaces_are_described() {
    let all = with("mamba", json!({})).expect("valid");
    let spec = all.state_space.as_ref().expect("state-space layers");
    assert_eq!((spec.channels, spec.states, spec.taps), (128, 16, 4));
    let layer = &spec.layers[4];
    let linears = [&layer.input, &layer.selection, &layer.step, &layer.output];
    let sizes = linears.map(|linear| (linear.d_in, linear.d_out, linear.bias));
    let expected = [
        (64, 256, false),
        (128, 36, false),
        (4, 128, true),
        (128, 64, false),
    ];
    assert_eq!((sizes, layer.conv_bias), (expected, true));
    assert_eq!(spec.kept(), 5 * 128 * (3 + 16));
    assert_eq!(
        (all.n_layers(), all.head.tied, all.special.eos.clone()),
        (5, true, vec![0])
    );
    assert!(all.is_causal() && !all.has_state() && !all.fuses_in_training());
    let steps = json!({"time_step_rank": 9, "time_step_scale": 3.0, "expand": 1.5});
    let all = with("mamba", steps).expect("valid");
    let spec = all.state_space.as_ref().expect("state-space layers");
    assert_eq!((spec.channels, spec.layers[0].step.d_in), (96, 9));
    assert_eq!(spec.layers[0].steps.bound, 1.0);
    for other in ["mamba2", "falcon_mamba"] {
        match with(other, json!({})) {
            Err(ModelError::UnsupportedFamily { found, supported }) => {
                assert!(found == other && supported.contains(&"mamba"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn parts_that_only_some_models_have_are_described() {
    let narrow = with("opt", json!({"word_embed_proj_dim": 16})).expect("valid");
    assert_eq!((narrow.table_width(), narrow.width), (16, 64));
    let ends = [&narrow.embedding.token_projection, &narrow.head.projection];
    let ends = ends.map(|linear| linear.as_ref().map(|linear| (linear.d_in, linear.d_out)));
    assert_eq!(ends, [Some((16, 64)), Some((64, 16))]);
    let plain = with("opt", json!({"word_embed_proj_dim": 64})).expect("valid");
    assert!(plain.embedding.token_projection.is_none() && plain.head.projection.is_none());
    let falling = with("falcon", json!({"alibi": true})).expect("valid");
    assert!(falling.rotary.is_empty());
    // As the scores of heads of 8 elements.
    let RelativeSpec::Slopes(slopes) = falling.relative.expect("slopes") else {
        panic!("no slopes");
    };
    assert!((slopes[0] - 0.5 / 8f64.sqrt()).abs() < 1e-15);
    let clipped = with("olmo", json!({"clip_qkv": 8.0})).expect("valid");
    assert_eq!(attention(&clipped, 1).clip, Some(8.0));
    let norms = json!({"qk_layernorm": true, "num_attention_heads": 32, "hidden_size": 512});
    for (family, changes, weights) in [
        ("stablelm", norms, HeadWeights::Apart),
        ("cohere", json!({"use_qk_norm": true}), HeadWeights::Rows),
    ] {
        let all = with(family, changes).expect(family);
        let spec = attention(&all, 1);
        assert_eq!(spec.norm_weights, weights, "{family}");
        assert!(!spec.fuses() && spec.q_norm.is_some() && spec.k_norm.is_some());
    }
}

/// A caller's family: Llama under another name, with every second layer without attention to what is far.
#[test]
fn a_family_is_added_from_outside() {
    fn toy(json: &ModelJson) -> Result<Architecture, ModelError> {
        let mut llama = json.clone();
        llama.model_type = "llama".to_owned();
        let mut all = Families::builtin().describe(&llama)?;
        let narrow = |block: &mut BlockSpec| block.attention.window = Some(3);
        all.blocks.iter_mut().step_by(2).for_each(narrow);
        Ok(all)
    }
    let json = ModelJson::parse(Path::new("c"), &minimal("toy").to_string()).expect("valid");
    let error = Families::builtin().describe(&json).expect_err("unknown");
    assert!(matches!(error, ModelError::UnsupportedFamily { .. }));
    let families = Families::builtin().with(Family {
        model_type: "toy",
        describe: toy,
        gguf: None,
    });
    assert!(families.model_types().contains(&"toy"));
    let all = families.describe(&json).expect("it is there now");
    assert_eq!(windows(&all), [Some(3), None, Some(3), None, Some(3)]);
}

#[test]
fn older_and_newer_settings_of_positions_mean_the_same() {
    let yarn = json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64});
    let mut with_theta = yarn.clone();
    with_theta["rope_theta"] = json!(5e5);
    for (family, older, newer) in [
        (
            "gemma2",
            json!({"rope_theta": 3e4}),
            json!({"rope_parameters": {"rope_type": "default", "rope_theta": 3e4}}),
        ),
        (
            "olmo2",
            json!({"rope_theta": 5e5, "rope_scaling": yarn}),
            json!({"rope_parameters": with_theta}),
        ),
        (
            "olmo3",
            json!({"rope_theta": 5e5, "rope_scaling": yarn}),
            json!({"rope_parameters": {
                "full_attention": with_theta, "sliding_attention": {"rope_theta": 5e5}
            }}),
        ),
        (
            "stablelm",
            json!({"num_attention_heads": 32, "rope_theta": 2e4, "partial_rotary_factor": 1.0}),
            json!({"num_attention_heads": 32, "rope_parameters": {
                "rope_theta": 2e4, "partial_rotary_factor": 1.0
            }}),
        ),
    ] {
        let [older, newer] = [older, newer].map(|changes| with(family, changes).expect(family));
        assert_eq!(older, newer, "{family}");
    }
    // What stands beside parameters by type of layer has no effect on them.
    let nested = json!({"rope_parameters": {"full_attention": with_theta}});
    let mut beside = nested.clone();
    beside["original_max_position_embeddings"] = json!(8);
    let [plain, beside] = [nested, beside].map(|changes| with("olmo3", changes).expect("valid"));
    assert_eq!(plain, beside);
    let phi = |name: &str| {
        let scaling = json!({
            "type": name, "short_factor": [1, 2, 3, 4], "long_factor": [2, 3, 4, 5],
        });
        with(
            "phi3",
            json!({"rope_scaling": scaling, "max_position_embeddings": 8192}),
        )
    };
    let expected = phi("longrope").expect("valid");
    let factor = (1.0 + 2.0_f64.ln() / 4096.0_f64.ln()).sqrt();
    assert_eq!(expected.rotary[0].attention_factor, factor);
    for name in ["su", "yarn"] {
        assert_eq!(phi(name).expect("valid"), expected, "{name}");
    }
    let flat = json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}});
    assert!(matches!(
        with("olmo3", flat),
        Err(ModelError::Config(ConfigError::UnsupportedRope { .. }))
    ));
}

#[test]
fn the_built_in_model_is_described() {
    let directory = super::repository(super::STORIES);
    let all = describe_valid(&ModelJson::load(&directory).expect("a configuration"));
    let spec = attention(&all, 0);
    assert_eq!((spec.n_heads, spec.n_kv_heads, spec.head_dim), (8, 4, 8));
    assert_eq!((all.max_positions, all.head.tied), (512, true));
    assert_eq!(all.special.pad, None);
    assert_eq!(all.norm.expect("a norm").eps, 1e-5);
    assert_eq!(all.rotary[0].inverse_frequencies.len(), 4);
}

proptest! {
    #[test]
    fn no_value_of_any_key_panics(
        family in proptest::sample::select(Families::builtin().model_types()),
        key in proptest::sample::select(vec![
            "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "eos_token_id",
            "rope_scaling", "rope_parameters", "rms_norm_eps", "rope_theta", "n_head", "n_embd",
            "layer_types", "sliding_window", "sliding_window_pattern", "partial_rotary_factor",
            "max_window_layers", "query_pre_attn_scalar", "n_positions", "n_inner", "d_model", "d_kv",
            "num_heads", "relative_attention_num_buckets", "relative_attention_max_distance",
            "feed_forward_proj", "encoder_attention_heads", "max_position_embeddings", "ffn_dim",
            "state_size", "expand", "time_step_rank", "conv_kernel", "word_embed_proj_dim", "clip_qkv",
            "attention_types", "window_size", "no_rope_layers", "no_rope_layer_interval", "intermediate_size",
        ]),
        text in prop_oneof![
            Just("null".to_owned()), Just("-1".to_owned()), Just("1e400".to_owned()),
            Just("18446744073709551616".to_owned()), Just(r#"{"rope_type":"llama3"}"#.to_owned()),
            Just(r#"{"rope_type":"yarn","factor":1e300,"rope_theta":1e-300}"#.to_owned()),
            Just(r#"{"rope_type":"longrope","short_factor":[],"long_factor":[1]}"#.to_owned()),
            Just(r#"[[["local"],3],[["global","local"],1]]"#.to_owned()),
            (0_u64..300).prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| n.to_string()),
            "[^\"\\\\]{0,6}".prop_map(|s| format!("\"{s}\"")), ".{0,20}",
        ],
    ) {
        let mut value = minimal(family).to_string();
        value.pop();
        if let Ok(json) = ModelJson::parse(Path::new("c"), &format!("{value},\"{key}\":{text}}}")) {
            let _ = Families::builtin().describe(&json);
        }
    }
}

#[test]
fn each_family_drops_out_where_transformers_does() {
    // The places that a family has, and the keys for embedding, halves of a block and attention.
    let all = ["embd_pdrop", "resid_pdrop", "attn_pdrop"];
    let attention_alone = ["", "", "attention_dropout"];
    for (family, keys) in [
        ("gpt2", all),
        ("phi3", ["", "resid_pdrop", "attention_dropout"]),
        ("llama", attention_alone),
        ("mistral", attention_alone),
        ("qwen2", attention_alone),
        ("qwen3", attention_alone),
        ("gemma3_text", attention_alone),
        ("gemma", attention_alone),
        ("gemma2", attention_alone),
        ("ministral", attention_alone),
        ("olmo2", attention_alone),
        ("smollm3", attention_alone),
        ("opt", ["", "dropout", "attention_dropout"]),
        (
            "gpt_neo",
            ["embed_dropout", "resid_dropout", "attention_dropout"],
        ),
        (
            "starcoder2",
            ["embedding_dropout", "residual_dropout", "attention_dropout"],
        ),
    ] {
        let places = |all: &Architecture| {
            let block = &all.blocks[1];
            let of_output = block.attention.output_dropout;
            assert_eq!(block.feed_forward.output_dropout, of_output);
            [all.embedding.dropout, of_output, block.attention.dropout]
        };
        let expected = |value: f64| keys.map(|key| (!key.is_empty()).then_some(value));
        // Heads that each default number of key heads divides.
        let mut changes = json!({"num_attention_heads": 64, "hidden_size": 512});
        for key in keys.iter().filter(|key| !key.is_empty()) {
            changes[*key] = json!(0.25);
        }
        let mut described = with(family, changes).expect(family);
        assert_eq!(places(&described), expected(0.25), "{family}");
        described.set_dropout(0.5).expect(family);
        assert_eq!(places(&described), expected(0.5), "{family}");
        assert!(described.has_dropout(), "{family}");
        described.set_dropout(0.0).expect(family);
        assert!(!described.has_dropout(), "{family}");
    }
    let mut none = with("llama", json!({})).expect("valid");
    for block in &mut none.blocks {
        block.attention.dropout = None;
    }
    let error = none.set_dropout(0.0).expect_err("there is none");
    assert!(
        matches!(&error, ModelError::NoDropout { model_type } if model_type == "llama"),
        "{error}"
    );
    assert!(error.hint().is_some());
}
