//! OLMo 2 and 3: Llama with norms behind each half of a block in place of before it, and norms of all queries and all keys. OLMo 3
//! has a window in three of four layers, with positions of their own.

use reparam_formats::config::{ModelJson, RopeParameters, SpecialTokens};

use super::decoder::{
    ATTENTION_BIAS, Decoder, Defaults, bias_attention, sliding_layers, window_or,
};
use super::{Family, unsupported};
use crate::architecture::{BlockSpec, NormSpec, NormsSpec, RotarySpec};
use crate::gguf::{GgufFamily, GgufHead, GgufWindows};
use crate::{Architecture, ModelError};

/// llama.cpp has one architecture for both.
const GGUF: GgufFamily = GgufFamily {
    square_queries: true,
    head: GgufHead::Own,
    windows: GgufWindows::Groups {
        layers: 4,
        optional: true,
        own_theta: false,
    },
    ..GgufFamily::new("olmo2")
};

pub(super) const FAMILY: Family = Family {
    model_type: "olmo2",
    describe,
    gguf: Some(GGUF),
};

/// OLMo 3.
pub(super) const WITH_WINDOWS: Family = Family {
    model_type: "olmo3",
    describe: describe_with_windows,
    gguf: Some(GGUF),
};

fn defaults(theta: f64) -> Defaults {
    Defaults {
        eps: (Some("rms_norm_eps"), 1e-5),
        special: SpecialTokens {
            bos: None,
            eos: vec![50_279],
            pad: Some(1),
        },
        theta,
        ..Defaults::default()
    }
}

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let decoder = Decoder::read(json, defaults(10_000.0))?;
    let rotary = decoder.rotary()?;
    describe_blocks(json, &decoder, vec![rotary], |_, _| {})
}

fn describe_with_windows(json: &ModelJson) -> Result<Architecture, ModelError> {
    const THETA: f64 = 500_000.0;
    /// Places of the two kinds of rotary positions.
    const FULL: usize = 0;
    const SLIDING: usize = 1;
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults(THETA))?;
    // transformers takes it for one kind of layers alone.
    if let Some(theta) = raw.f64("rope_theta")?
        && theta != THETA
    {
        return Err(unsupported(
            "rope_theta",
            theta,
            "500000, others in rope_parameters by type of layer",
        ));
    }
    let rotary = [("full_attention", true), ("sliding_attention", false)].map(|(of, is_scaled)| {
        let defaults = decoder.rope_defaults(THETA)?;
        let rope = RopeParameters::read_type(raw, of, "rope_theta", is_scaled, defaults)?;
        decoder.rotary_of(&rope)
    });
    let rotary = rotary.into_iter().collect::<Result<_, ModelError>>()?;
    let window = window_or(raw, 4096)?;
    let sliding = sliding_layers(json, decoder.n_layers, |layer| {
        !(layer + 1).is_multiple_of(4)
    })?;
    describe_blocks(json, &decoder, rotary, |layer, block| {
        let attention = &mut block.attention;
        (attention.window, attention.rotary) = match sliding[layer] {
            true => (window, Some(SLIDING)),
            false => (None, Some(FULL)),
        };
    })
}

fn describe_blocks(
    json: &ModelJson,
    decoder: &Decoder<'_>,
    rotary: Vec<RotarySpec>,
    mut adapt: impl FnMut(usize, &mut BlockSpec),
) -> Result<Architecture, ModelError> {
    for rotary in &rotary {
        decoder.whole_heads(rotary)?;
    }
    let bias = json.json.bool("attention_bias")?.unwrap_or(false);
    let architecture = decoder.describe(rotary, |layer, block| {
        let path = |name: &str| format!("layers.{layer}.{name}");
        let inside = |name: &str| NormsSpec {
            inside: Some(decoder.norm(path(name))),
            ..NormsSpec::default()
        };
        block.attention_norms = inside("post_attention_layernorm");
        block.feed_forward_norms = inside("post_feedforward_layernorm");
        let attention = &mut block.attention;
        let [q, k, _] = attention.widths();
        let all = |name: &str, width: usize| {
            Some(NormSpec {
                width,
                ..decoder.norm(path(name))
            })
        };
        attention.q_norm = all("self_attn.q_norm", q);
        attention.k_norm = all("self_attn.k_norm", k);
        bias_attention(attention, bias, bias);
        adapt(layer, block);
    })?;
    Ok(Architecture {
        bias_keys: vec![ATTENTION_BIAS],
        ..architecture
    })
}
