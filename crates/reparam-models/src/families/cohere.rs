//! Cohere's Command: layer norms without bias, rotary positions of neighbours, both halves of a block side by side behind one norm,
//! and logits times a factor. Command R+ has norms of queries and keys, with weights for each head. The second form has a window in
//! three of four layers, and positions only in those.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::Family;
use super::decoder::{
    ATTENTION_BIAS, Decoder, Defaults, Keys, bias_attention, sliding_layers, window_or,
};
use crate::architecture::{BlockSpec, HeadWeights, NormKind};
use crate::gguf::{GgufFactors, GgufFamily, GgufHead};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "cohere",
    gguf: Some(GgufFamily {
        rotates_neighbours: true,
        parallel: Some(true),
        factors: GgufFactors::Logits,
        head: GgufHead::Table,
        ..GgufFamily::new("command-r")
    }),
    describe: |json| {
        let has_norms = json.json.bool("use_qk_norm")?.unwrap_or(false);
        let decoder = Decoder::read(json, defaults(Keys::LLAMA, 500_000.0))?;
        describe(json, &decoder, |layer, block| {
            if has_norms {
                decoder.norm_heads(layer, &mut block.attention);
                block.attention.norm_weights = HeadWeights::Rows;
            }
        })
    },
};

/// Command R7B and those after it.
pub(super) const WITH_WINDOWS: Family = Family {
    model_type: "cohere2",
    gguf: None,
    describe: describe_with_windows,
};

fn defaults(keys: Keys, theta: f64) -> Defaults {
    Defaults {
        keys,
        max_positions: 8192,
        norm: NormKind::LayerWithoutBias,
        eps: (Some("layer_norm_eps"), 1e-5),
        tied: true,
        special: SpecialTokens {
            bos: Some(5),
            eos: vec![255_001],
            pad: Some(0),
        },
        theta,
        ..Defaults::default()
    }
}

fn describe_with_windows(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let keys = Keys {
        head_dim: None,
        ..Keys::LLAMA
    };
    let decoder = Decoder::read(json, defaults(keys, 10_000.0))?;
    let window = window_or(raw, 4096)?;
    let every = raw.size("sliding_window_pattern")?.unwrap_or(4);
    let sliding = sliding_layers(json, decoder.n_layers, |layer| {
        !(layer + 1).is_multiple_of(every)
    })?;
    describe(json, &decoder, |layer, block| {
        let attention = &mut block.attention;
        attention.window = window.filter(|_| sliding[layer]);
        if attention.window.is_none() {
            attention.rotary = None;
        }
    })
}

fn describe(
    json: &ModelJson,
    decoder: &Decoder<'_>,
    mut adapt: impl FnMut(usize, &mut BlockSpec),
) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let mut rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    rotary.interleaved = true;
    let bias = raw.bool("attention_bias")?.unwrap_or(false);
    let mut architecture = decoder.describe(vec![rotary], |layer, block| {
        bias_attention(&mut block.attention, bias, bias);
        block.share_norm();
        adapt(layer, block);
    })?;
    architecture.head.factor = Some(raw.f64("logit_scale")?.unwrap_or(0.0625));
    architecture.bias_keys = vec![ATTENTION_BIAS];
    Ok(architecture)
}
