//! T5: an encoder-decoder with a bias of scores by distance, norms before each part of a block, and scores that are not scaled.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::{Family, activation_of, deviation, epsilon, probability, refuse, unsupported};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, CrossSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec,
    HeadWeights, HeadsSpec, Initialization, LinearSpec, NormKind, NormSpec, NormsSpec,
    RelativeBiasSpec, RelativeSpec, Seq2SeqSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "t5",
    describe: |json| {
        let defaults = Defaults {
            vocab_size: 32_128,
            d_ff: 2048,
            n_layers: 6,
            n_heads: 8,
            feed_forward: "relu",
            decoder_start: None,
        };
        let raw = &json.json;
        // Version 1.1 does not scale; its files say that the head is not tied, or, of late, what is meant.
        let scales = match raw.bool("scale_decoder_outputs")? {
            Some(scales) => scales,
            None => raw.bool("tie_word_embeddings")?.unwrap_or(true),
        };
        describe(json, &defaults, "T5ForConditionalGeneration", scales)
    },
    gguf: None,
};

pub(super) const MULTILINGUAL: Family = Family {
    model_type: "mt5",
    describe: |json| {
        let defaults = Defaults {
            vocab_size: 250_112,
            d_ff: 1024,
            n_layers: 8,
            n_heads: 6,
            feed_forward: "gated-gelu",
            decoder_start: Some(0),
        };
        describe(json, &defaults, "MT5ForConditionalGeneration", false)
    },
    gguf: None,
};

/// What a family takes where `config.json` says nothing.
struct Defaults {
    vocab_size: usize,
    d_ff: usize,
    n_layers: usize,
    n_heads: usize,
    feed_forward: &'static str,
    decoder_start: Option<u32>,
}

/// The sizes of both stacks.
struct Sizes {
    width: usize,
    d_kv: usize,
    d_ff: usize,
    n_heads: usize,
    eps: f64,
    dropout: f64,
    /// What all deviations of a new model are multiplied by.
    factor: f64,
    gated: bool,
    activation: Activation,
}

fn describe(
    json: &ModelJson,
    defaults: &Defaults,
    class: &'static str,
    scales: bool,
) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    for key in ["is_decoder", "tie_encoder_decoder"] {
        refuse(raw, key)?;
    }
    if raw.bool("is_encoder_decoder")? == Some(false) {
        return Err(unsupported("is_encoder_decoder", false, "true"));
    }
    let (gated, activation) = feed_forward(json, defaults.feed_forward)?;
    let sizes = Sizes {
        width: raw.size("d_model")?.unwrap_or(512),
        d_kv: raw.size("d_kv")?.unwrap_or(64),
        d_ff: raw.size("d_ff")?.unwrap_or(defaults.d_ff),
        n_heads: raw.size("num_heads")?.unwrap_or(defaults.n_heads),
        eps: epsilon(raw, "layer_norm_epsilon", 1e-6)?,
        dropout: probability(raw, "dropout_rate", 0.1)?,
        factor: deviation(raw, "initializer_factor", 1.0)?,
        gated,
        activation,
    };
    let buckets = raw.size("relative_attention_num_buckets")?.unwrap_or(32);
    let max_distance = raw.size("relative_attention_max_distance")?.unwrap_or(128);
    let n_layers = json.layers("num_layers")?.unwrap_or(defaults.n_layers);
    let n_decoder_layers = json.layers("num_decoder_layers")?.unwrap_or(n_layers);
    let vocab_size = raw.size("vocab_size")?.unwrap_or(defaults.vocab_size);
    let max_positions = raw.size("n_positions")?.unwrap_or(512);
    let decoder_start = raw.token_id("decoder_start_token_id")?;
    let decoder_start = decoder_start.or(defaults.decoder_start);
    let decoder_start = decoder_start.ok_or_else(|| raw.missing("decoder_start_token_id"))?;
    let special = json.special_tokens(SpecialTokens {
        bos: None,
        eos: vec![1],
        pad: Some(0),
    })?;
    let stack = |name: &str, n_layers: usize, seq2seq: Option<Box<Seq2SeqSpec>>| {
        let is_decoder = seq2seq.is_some();
        let first = format!("{name}.block.0.layer.0.SelfAttention");
        Architecture {
            model_type: json.model_type.clone(),
            width: sizes.width,
            vocab_size,
            max_positions,
            special: special.clone(),
            prefix: String::new(),
            embedding: EmbeddingSpec {
                tokens: "shared".to_owned(),
                factor: None,
                positions: None,
                sinusoids: None,
                token_types: None,
                token_projection: None,
                norm: None,
                dropout: Some(sizes.dropout),
                projection: None,
            },
            recurrent: None,
            state_space: None,
            rotary: Vec::new(),
            relative: Some(RelativeSpec::Bias(RelativeBiasSpec {
                path: format!("{first}.relative_attention_bias"),
                buckets,
                max_distance,
                bidirectional: !is_decoder,
                std: sizes.factor * (sizes.width as f64).powf(-0.5),
            })),
            seq2seq,
            blocks: (0..n_layers)
                .map(|layer| sizes.block(&format!("{name}.block.{layer}.layer"), is_decoder))
                .collect(),
            norm: Some(sizes.norm(format!("{name}.final_layer_norm"))),
            // A checkpoint with another head has its own, whatever the file says.
            head: HeadSpec {
                factor: scales.then(|| (sizes.width as f64).powf(-0.5)),
                ..HeadSpec::new("lm_head", true)
            },
            heads: HeadsSpec::default(),
            // The first checkpoints had it, and no model reads it.
            buffers: vec!["layer.1.EncDecAttention.relative_attention_bias.weight"],
            bias_keys: Vec::new(),
            // The table and a head; `Sizes::linear` is how layers begin.
            init: Initialization::Normal(sizes.factor),
        }
    };
    let seq2seq = Seq2SeqSpec {
        class,
        encoder: stack("encoder", n_layers, None),
        decoder_start,
        last_starts: false,
        unlearned: None,
        output_dropout: Some(sizes.dropout),
        logits_bias: None,
        table_copies: vec!["encoder.embed_tokens", "decoder.embed_tokens"],
    };
    Ok(stack("decoder", n_decoder_layers, Some(Box::new(seq2seq))))
}

/// Reads whether feed-forward layers have a gate, and their activation function: `relu`, `gated-gelu` and their like.
fn feed_forward(json: &ModelJson, default: &str) -> Result<(bool, Activation), ModelError> {
    let raw = &json.json;
    let kind = raw.str("feed_forward_proj")?.unwrap_or(default);
    let (gated, function) = match kind.strip_prefix("gated-") {
        // The name is older than the two forms of the function.
        Some("gelu") => (true, "gelu_new"),
        Some(function) => (true, function),
        None => (false, kind),
    };
    let gated = raw.bool("is_gated_act")?.unwrap_or(gated);
    match raw.str("dense_act_fn")? {
        Some(function) => Ok((gated, activation_of("dense_act_fn", function)?)),
        None => Ok((gated, activation_of("feed_forward_proj", function)?)),
    }
}

impl Sizes {
    /// A layer whose weight begins with the deviation `factor / sqrt(fan)`.
    fn linear(&self, path: String, d_in: usize, d_out: usize, fan: usize) -> LinearSpec {
        let std = self.factor * (fan as f64).powf(-0.5);
        LinearSpec::new(path, d_in, d_out).with_std(std)
    }

    fn norm(&self, path: String) -> NormSpec {
        NormSpec {
            path,
            kind: NormKind::Rms,
            width: self.width,
            eps: self.eps,
        }
    }

    fn before(&self, path: String) -> NormsSpec {
        NormsSpec {
            before: Some(self.norm(path)),
            ..NormsSpec::default()
        }
    }

    fn attention(&self, path: &str, causal: bool) -> AttentionSpec {
        let inner = self.n_heads * self.d_kv;
        let input = |(name, fan): (&str, usize)| {
            self.linear(format!("{path}.{name}"), self.width, inner, fan)
        };
        // Nothing divides the scores, so queries begin smaller.
        let queries = self.width.saturating_mul(self.d_kv);
        let inputs = [("q", queries), ("k", self.width), ("v", self.width)];
        AttentionSpec {
            inputs: inputs.map(input).to_vec(),
            output: self.linear(format!("{path}.o"), inner, self.width, inner),
            grouped: false,
            q_norm: None,
            k_norm: None,
            norm_weights: HeadWeights::Shared,
            clip: None,
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            head_dim: self.d_kv,
            scale: 1.0,
            causal,
            window: None,
            soft_cap: None,
            rotary: None,
            positions: None,
            dropout: Some(self.dropout),
            output_dropout: Some(self.dropout),
        }
    }

    fn block(&self, path: &str, is_decoder: bool) -> BlockSpec {
        let last = if is_decoder { 2 } else { 1 };
        let dense = |name: &str| format!("{path}.{last}.DenseReluDense.{name}");
        let inputs: &[&str] = if self.gated {
            &["wi_0", "wi_1"]
        } else {
            &["wi"]
        };
        let norms = |part: usize| self.before(format!("{path}.{part}.layer_norm"));
        BlockSpec {
            attention: self.attention(&format!("{path}.0.SelfAttention"), is_decoder),
            attention_norms: norms(0),
            cross: is_decoder.then(|| CrossSpec {
                attention: self.attention(&format!("{path}.1.EncDecAttention"), false),
                norms: norms(1),
            }),
            feed_forward: FeedForwardSpec {
                inputs: inputs
                    .iter()
                    .map(|name| self.linear(dense(name), self.width, self.d_ff, self.width))
                    .collect(),
                gated: self.gated,
                output: self.linear(dense("wo"), self.d_ff, self.width, self.d_ff),
                activation: self.activation,
                experts: None,
                inner_dropout: Some(self.dropout),
                output_dropout: Some(self.dropout),
            },
            feed_forward_norms: norms(last),
            parallel: false,
        }
    }
}
