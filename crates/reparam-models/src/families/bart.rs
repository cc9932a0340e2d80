//! BART and mBART: encoder-decoders with learned positions, layer norms, and a bias of the logits.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::encoder::linear;
use super::{Family, activation, initialization, probability, refuse, unsupported};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, CrossSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec,
    HeadWeights, HeadsSpec, Initialization, NormKind, NormSpec, NormsSpec, Seq2SeqSpec, TableSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "bart",
    describe: |json| {
        let kind = Kind {
            class: "BartForConditionalGeneration",
            decoder_start: 2,
            ..learned()
        };
        describe(json, kind)
    },
    gguf: None,
};

/// mBART: norms before each part of a block and at the end, and targets that begin with the code of their language.
pub(super) const MULTILINGUAL: Family = Family {
    model_type: "mbart",
    describe: |json| {
        let bos = json.special_tokens(learned().special)?.bos;
        let kind = Kind {
            class: "MBartForConditionalGeneration",
            is_before: true,
            last_starts: true,
            // What transformers begins with where the file says nothing.
            decoder_start: bos.unwrap_or(0),
            ..learned()
        };
        describe(json, kind)
    },
    gguf: None,
};

/// BART without its name and start.
fn learned() -> Kind {
    Kind {
        class: "",
        is_static: false,
        is_before: false,
        last_starts: false,
        vocab_size: 50_265,
        decoder_start: 0,
        special: SpecialTokens {
            bos: Some(0),
            eos: vec![2],
            pad: Some(1),
        },
    }
}

/// In what the families of this shape differ.
pub(super) struct Kind {
    pub(super) class: &'static str,
    /// Whether positions are sines and cosines, and the embedding has no norm.
    pub(super) is_static: bool,
    /// Whether norms are before each part of a block, and one at the end.
    pub(super) is_before: bool,
    /// [`Seq2SeqSpec::last_starts`]
    pub(super) last_starts: bool,
    pub(super) vocab_size: usize,
    pub(super) decoder_start: u32,
    pub(super) special: SpecialTokens,
}

/// The rows of the table of positions before that of the first token.
const OFFSET: usize = 2;

/// The eps of torch's layer norm.
const EPS: f64 = 1e-5;

/// One of the two stacks.
struct Stack {
    /// `encoder` or `decoder`.
    name: &'static str,
    width: usize,
    inner: usize,
    n_layers: usize,
    n_heads: usize,
    activation: Activation,
    dropout: f64,
    attention_dropout: f64,
    activation_dropout: f64,
}

pub(super) fn describe(json: &ModelJson, kind: Kind) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    for key in ["is_decoder", "tie_encoder_decoder"] {
        refuse(raw, key)?;
    }
    for (key, value) in [
        ("is_encoder_decoder", true),
        ("static_position_embeddings", kind.is_static),
        ("normalize_embedding", !kind.is_static),
        ("normalize_before", kind.is_before),
        ("add_final_layer_norm", kind.is_before),
    ] {
        if raw.bool(key)? == Some(!value) {
            let supported = if value { "true" } else { "false" };
            return Err(unsupported(key, !value, supported));
        }
    }
    for key in ["encoder_layerdrop", "decoder_layerdrop"] {
        if let Some(found) = raw.f64(key)?.filter(|p| *p != 0.0) {
            return Err(unsupported(key, found, "0"));
        }
    }
    let width = raw.size("d_model")?.unwrap_or(1024);
    let stack = |name: &'static str, keys: [&'static str; 3]| -> Result<Stack, ModelError> {
        let [layers, inner, heads] = keys;
        let stack = Stack {
            name,
            width,
            inner: raw.size(inner)?.unwrap_or(4096),
            n_layers: json.layers(layers)?.unwrap_or(12),
            n_heads: raw.size(heads)?.unwrap_or(16),
            activation: activation(raw, "activation_function", Activation::Gelu)?,
            dropout: probability(raw, "dropout", 0.1)?,
            attention_dropout: probability(raw, "attention_dropout", 0.0)?,
            activation_dropout: probability(raw, "activation_dropout", 0.0)?,
        };
        match width.is_multiple_of(stack.n_heads) {
            true => Ok(stack),
            false => {
                let reason = format!("it does not divide d_model, {width}");
                Err(raw.invalid(heads, reason).into())
            }
        }
    };
    let encoder = stack(
        "encoder",
        [
            "encoder_layers",
            "encoder_ffn_dim",
            "encoder_attention_heads",
        ],
    )?;
    let decoder = stack(
        "decoder",
        [
            "decoder_layers",
            "decoder_ffn_dim",
            "decoder_attention_heads",
        ],
    )?;
    let special = json.special_tokens(kind.special.clone())?;
    let decoder_start = raw.token_id("decoder_start_token_id")?;
    let shared = Shared {
        model_type: &json.model_type,
        vocab_size: raw.size("vocab_size")?.unwrap_or(kind.vocab_size),
        max_positions: raw.size("max_position_embeddings")?.unwrap_or(1024),
        scaled: raw.bool("scale_embedding")?.unwrap_or(false),
        tied: raw.bool("tie_word_embeddings")?.unwrap_or(true),
        is_static: kind.is_static,
        is_before: kind.is_before,
        special,
        init: initialization(raw, "init_std")?,
    };
    let seq2seq = Seq2SeqSpec {
        class: kind.class,
        encoder: encoder.describe(&shared, None),
        decoder_start: decoder_start.unwrap_or(kind.decoder_start),
        last_starts: kind.last_starts,
        unlearned: shared.special.pad,
        output_dropout: None,
        logits_bias: Some("final_logits_bias"),
        table_copies: vec!["encoder.embed_tokens", "decoder.embed_tokens"],
    };
    Ok(decoder.describe(&shared, Some(Box::new(seq2seq))))
}

/// What both stacks have in common.
struct Shared<'a> {
    model_type: &'a str,
    vocab_size: usize,
    max_positions: usize,
    scaled: bool,
    tied: bool,
    is_static: bool,
    is_before: bool,
    special: SpecialTokens,
    init: Initialization,
}

impl Stack {
    fn norm(&self, path: String) -> NormSpec {
        NormSpec {
            path,
            kind: NormKind::Layer,
            width: self.width,
            eps: EPS,
        }
    }

    fn norms(&self, path: String, is_before: bool) -> NormsSpec {
        let norm = Some(self.norm(path));
        let (before, after) = if is_before {
            (norm, None)
        } else {
            (None, norm)
        };
        NormsSpec {
            before,
            after,
            ..NormsSpec::default()
        }
    }

    fn describe(&self, shared: &Shared<'_>, seq2seq: Option<Box<Seq2SeqSpec>>) -> Architecture {
        let path = |name: &str| format!("{}.{name}", self.name);
        let offset = if shared.is_static { 0 } else { OFFSET };
        let positions = TableSpec {
            path: path("embed_positions"),
            rows: shared.max_positions + offset,
            offset,
        };
        let (learned, sinusoids) = match shared.is_static {
            true => (None, Some(positions)),
            false => (Some(positions), None),
        };
        let norm = path("layernorm_embedding");
        let is_decoder = seq2seq.is_some();
        Architecture {
            model_type: shared.model_type.to_owned(),
            width: self.width,
            vocab_size: shared.vocab_size,
            max_positions: shared.max_positions,
            special: shared.special.clone(),
            prefix: "model".to_owned(),
            embedding: EmbeddingSpec {
                tokens: "shared".to_owned(),
                factor: shared.scaled.then(|| (self.width as f64).sqrt()),
                positions: learned,
                sinusoids,
                token_types: None,
                token_projection: None,
                norm: (!shared.is_static).then(|| self.norm(norm)),
                dropout: Some(self.dropout),
                projection: None,
            },
            recurrent: None,
            state_space: None,
            rotary: Vec::new(),
            relative: None,
            seq2seq,
            blocks: (0..self.n_layers)
                .map(|layer| {
                    let path = path(&format!("layers.{layer}"));
                    self.block(&path, is_decoder, shared.is_before)
                })
                .collect(),
            norm: (shared.is_before).then(|| self.norm(path("layer_norm"))),
            head: HeadSpec::new("lm_head", shared.tied),
            heads: HeadsSpec::default(),
            buffers: vec!["encoder.version", "decoder.version"],
            bias_keys: Vec::new(),
            init: shared.init,
        }
    }

    fn attention(&self, path: &str, causal: bool) -> AttentionSpec {
        let (width, head_dim) = (self.width, self.width / self.n_heads);
        let layer = |name: &str| linear(format!("{path}.{name}"), width, width);
        AttentionSpec {
            inputs: ["q_proj", "k_proj", "v_proj"].map(layer).to_vec(),
            output: layer("out_proj"),
            grouped: false,
            q_norm: None,
            k_norm: None,
            norm_weights: HeadWeights::Shared,
            clip: None,
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            head_dim,
            scale: (head_dim as f64).powf(-0.5),
            causal,
            window: None,
            soft_cap: None,
            rotary: None,
            positions: None,
            dropout: Some(self.attention_dropout),
            output_dropout: Some(self.dropout),
        }
    }

    fn block(&self, path: &str, is_decoder: bool, is_before: bool) -> BlockSpec {
        let place = |name: &str| format!("{path}.{name}");
        let norms = |name: &str| self.norms(place(name), is_before);
        BlockSpec {
            attention: self.attention(&place("self_attn"), is_decoder),
            attention_norms: norms("self_attn_layer_norm"),
            cross: is_decoder.then(|| CrossSpec {
                attention: self.attention(&place("encoder_attn"), false),
                norms: norms("encoder_attn_layer_norm"),
            }),
            feed_forward: FeedForwardSpec {
                inputs: vec![linear(place("fc1"), self.width, self.inner)],
                gated: false,
                output: linear(place("fc2"), self.inner, self.width),
                activation: self.activation,
                experts: None,
                inner_dropout: Some(self.activation_dropout),
                output_dropout: Some(self.dropout),
            },
            feed_forward_norms: norms("final_layer_norm"),
            parallel: false,
        }
    }
}
