//! GPT-NeoX and Pythia: layer norms, rotary positions of a part of each head, no gate, queries, keys and values head by head in one
//! layer, and both halves of a block side by side, each behind a norm of its own.

use reparam_formats::config::{ModelJson, RopeDefaults, RopeParameters, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, Keys};
use super::{Family, probability};
use crate::architecture::NormKind;
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_neox",
    gguf: None,
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        keys: Keys {
            n_kv_heads: None,
            head_dim: None,
            ..Keys::LLAMA
        },
        norm: NormKind::Layer,
        eps: (Some("layer_norm_eps"), 1e-5),
        activation: ("hidden_act", Activation::Gelu),
        special: SpecialTokens {
            bos: Some(0),
            eos: vec![2],
            pad: None,
        },
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let theta = raw.f64("rotary_emb_base")?.unwrap_or(10_000.0);
    let share = raw.f64("rotary_pct")?.unwrap_or(0.25);
    if !(share > 0.0 && share <= 1.0) {
        let reason = "it has to be above 0 and at most 1";
        return Err(raw.invalid("rotary_pct", reason).into());
    }
    let rope = RopeDefaults {
        share,
        ..decoder.rope_defaults(theta)?
    };
    let rotary = decoder.rotary_of(&RopeParameters::read(raw, rope)?)?;
    let dropout = probability(raw, "hidden_dropout", 0.0)?;
    let bias = raw.bool("attention_bias")?.unwrap_or(true);
    let is_parallel = raw.bool("use_parallel_residual")?.unwrap_or(true);
    let mut architecture = decoder.describe(vec![rotary], |layer, block| {
        decoder.megatron_layers(layer, "attention", [bias, true], block);
        block.attention.grouped = true;
        block.attention.output_dropout = Some(dropout);
        block.feed_forward.output_dropout = Some(dropout);
        block.parallel = is_parallel;
    })?;
    architecture.prefix = "gpt_neox".to_owned();
    architecture.embedding.tokens = "embed_in".to_owned();
    architecture.embedding.dropout = Some(dropout);
    architecture.norm = Some(decoder.norm("final_layer_norm"));
    // transformers calls it `lm_head` since its fifth version, and stores it under this name all the same.
    architecture.head.path = "embed_out".to_owned();
    // The causal mask, and the frequencies.
    architecture.buffers = vec![
        ".attention.bias",
        ".attention.masked_bias",
        "rotary_emb.inv_freq",
    ];
    architecture.bias_keys = vec![("attention.", "attention_bias")];
    Ok(architecture)
}
