//! GPT-J: layer norms, rotary positions of neighbours in a part of each head, no gate, both halves of a block side by side behind one
//! norm, and a head with a bias.

use reparam_formats::config::{ModelJson, RopeParameters, RopeScaling, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, Keys};
use super::{Family, probability};
use crate::architecture::NormKind;
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "gptj",
    gguf: None,
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        keys: Keys::GPT2,
        layers: "h",
        inner: Some(|width| width.saturating_mul(4)),
        norm: NormKind::Layer,
        eps: (Some("layer_norm_epsilon"), 1e-5),
        activation: ("activation_function", Activation::GeluTanh),
        attention_dropout: ("attn_pdrop", 0.0),
        special: SpecialTokens {
            bos: Some(50_256),
            eos: vec![50_256],
            pad: None,
        },
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let turned = match raw.size("rotary_dim")? {
        Some(turned) if turned > decoder.head_dim => {
            let reason = format!("a head has {} elements", decoder.head_dim);
            return Err(raw.invalid("rotary_dim", reason).into());
        }
        Some(turned) => turned,
        None if raw.contains("rotary_dim") => return Err(raw.missing("rotary_dim").into()),
        None => 64,
    };
    let mut rotary = decoder.rotary_of(&RopeParameters {
        theta: 10_000.0,
        // Half an element more, so that what is rounded down is that number.
        share: (turned as f64 + 0.5) / decoder.head_dim as f64,
        scaling: RopeScaling::Default,
    })?;
    rotary.interleaved = true;
    let dropout = probability(raw, "resid_pdrop", 0.0)?;
    let mut architecture = decoder.describe(vec![rotary], |layer, block| {
        let attention = &mut block.attention;
        let layers = ["attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj"];
        decoder.attention_layers(layer, layers, attention);
        attention.output_dropout = Some(dropout);
        let feed_forward = &mut block.feed_forward;
        decoder.without_gate(layer, ["mlp.fc_in", "mlp.fc_out"], true, feed_forward);
        feed_forward.output_dropout = Some(dropout);
        block.attention_norms = decoder.before(layer, "ln_1");
        block.share_norm();
    })?;
    decoder.gpt2_paths(&mut architecture);
    architecture.embedding.dropout = Some(probability(raw, "embd_pdrop", 0.0)?);
    architecture.head.bias = true;
    architecture.buffers = vec![".attn.bias", ".attn.masked_bias", ".attn.embed_positions"];
    Ok(architecture)
}
