//! Phi-3: Llama with queries, keys and values in one layer, gate and up in another, and rotary positions of a part of each
//! head.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::decoder::{Decoder, Defaults};
use super::{Family, probability};
use crate::gguf::{GgufFamily, GgufFrequencies};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "phi3",
    describe,
    gguf: Some(GgufFamily {
        square_queries: true,
        frequencies: GgufFrequencies::ShortAndLong,
        ..GgufFamily::new("phi3")
    }),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        max_positions: 4096,
        eps: (Some("rms_norm_eps"), 1e-5),
        original_max_positions: Some(4096),
        rope_aliases: &[("su", "longrope"), ("yarn", "longrope")],
        special: SpecialTokens {
            bos: Some(1),
            eos: vec![32_000],
            pad: Some(32_000),
        },
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    let window = json.json.size("sliding_window")?;
    // transformers reads `embd_pdrop` and does not apply it.
    let dropout = probability(&json.json, "resid_pdrop", 0.0)?;
    decoder.describe(vec![rotary], |layer, block| {
        let attention = &mut block.attention;
        let layers = ["self_attn.qkv_proj", "self_attn.o_proj"];
        decoder.joined_attention(layer, layers, false, attention);
        attention.window = window;
        decoder.joined_gate(layer, &mut block.feed_forward);
        attention.output_dropout = Some(dropout);
        block.feed_forward.output_dropout = Some(dropout);
    })
}
