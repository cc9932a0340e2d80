//! What decoders have in common: Llama's blocks, which a family changes where its own are others.

mod experts;
mod parts;

use reparam_formats::config::{
    ConfigError, JsonObject, ModelJson, RopeDefaults, RopeParameters, SpecialTokens,
};
use reparam_ops::Activation;

use super::{activation, deviation, epsilon, probability, required_layers};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec, HeadWeights,
    HeadsSpec, Initialization, NormKind, RotarySpec,
};

pub(super) use self::experts::{
    ExpertNames, ExpertSizes, expert_counts, sparse_layers, without_balancing,
};
pub(super) use self::parts::{bias_attention, bias_feed_forward, learned_positions};

/// The most elements of a head: a hundred times those of published models. More is almost certainly a typo, and a table of
/// that size would end the process for want of memory.
const MOST_HEAD_DIM: usize = 1 << 16;

/// The key that gives the layers of attention biases: see [`Architecture::bias_keys`].
pub(super) const ATTENTION_BIAS: (&str, &str) = ("self_attn.", "attention_bias");

/// How a family calls what all of them have in `config.json`.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub(super) width: &'static str,
    pub(super) n_heads: &'static str,
    /// None where each query head has a key head.
    pub(super) n_kv_heads: Option<&'static str>,
    /// None where heads share the width.
    pub(super) head_dim: Option<&'static str>,
    pub(super) n_layers: &'static str,
    pub(super) inner: &'static str,
    pub(super) max_positions: &'static str,
}

impl Keys {
    /// Llama's.
    pub(super) const LLAMA: Self = Self {
        width: "hidden_size",
        n_heads: "num_attention_heads",
        n_kv_heads: Some("num_key_value_heads"),
        head_dim: Some("head_dim"),
        n_layers: "num_hidden_layers",
        inner: "intermediate_size",
        max_positions: "max_position_embeddings",
    };

    /// Those of GPT-2 and GPT-J.
    pub(super) const GPT2: Self = Self {
        width: "n_embd",
        n_heads: "n_head",
        n_kv_heads: None,
        head_dim: None,
        n_layers: "n_layer",
        inner: "n_inner",
        max_positions: "n_positions",
    };
}

/// What a family takes where `config.json` says nothing.
pub(super) struct Defaults {
    pub(super) keys: Keys,
    /// What comes before the number of a layer in its path.
    pub(super) layers: &'static str,
    /// How wide the feed-forward layer is where hidden states are so wide; without it the file has to say it.
    pub(super) inner: Option<fn(usize) -> usize>,
    /// `num_key_value_heads`; without one as many as query heads, as for `null`.
    pub(super) n_kv_heads: Option<usize>,
    /// `head_dim`; without one `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    pub(super) max_positions: usize,
    /// What norms compute.
    pub(super) norm: NormKind,
    /// The key of what norms add to the mean square, if there is one, and that.
    pub(super) eps: (Option<&'static str>, f64),
    /// The key of the dropout of attention's weights, and that.
    pub(super) attention_dropout: (&'static str, f64),
    /// The key of the activation function.
    pub(super) activation: (&'static str, Activation),
    pub(super) tied: bool,
    pub(super) special: SpecialTokens,
    /// The base of the rotary frequencies.
    pub(super) theta: f64,
    /// `original_max_position_embeddings`; without one what the settings of rotary positions say.
    pub(super) original_max_positions: Option<usize>,
    /// Other names of types of rotary positions.
    pub(super) rope_aliases: &'static [(&'static str, &'static str)],
    /// `partial_rotary_factor`.
    pub(super) turned: f64,
    /// The key of the standard deviation of new weights, and that.
    pub(super) std: (&'static str, f64),
}

impl Default for Defaults {
    /// Those that most families share.
    fn default() -> Self {
        Self {
            keys: Keys::LLAMA,
            layers: "layers",
            inner: None,
            n_kv_heads: None,
            head_dim: None,
            max_positions: 2048,
            norm: NormKind::Rms,
            eps: (Some("rms_norm_eps"), 1e-6),
            attention_dropout: ("attention_dropout", 0.0),
            activation: ("hidden_act", Activation::Silu),
            tied: false,
            special: SpecialTokens::default(),
            theta: 10_000.0,
            original_max_positions: None,
            rope_aliases: &[],
            turned: 1.0,
            std: ("initializer_range", 0.02),
        }
    }
}

/// The special tokens that the first SentencePiece models had.
pub(super) fn sentencepiece_tokens() -> SpecialTokens {
    SpecialTokens {
        bos: Some(1),
        eos: vec![2],
        pad: None,
    }
}

/// The sizes of a decoder.
pub(super) struct Decoder<'a> {
    json: &'a ModelJson,
    defaults: Defaults,
    pub(super) width: usize,
    pub(super) inner: usize,
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) eps: f64,
    pub(super) norm: NormKind,
    pub(super) activation: Activation,
    attention_dropout: f64,
}

impl<'a> Decoder<'a> {
    /// Reads the sizes.
    ///
    /// # Errors
    ///
    /// Fails when one is missing, zero or does not divide another.
    pub(super) fn read(json: &'a ModelJson, defaults: Defaults) -> Result<Self, ModelError> {
        let raw = &json.json;
        let keys = defaults.keys;
        let width = raw.required_size(keys.width)?;
        let n_heads = raw.required_size(keys.n_heads)?;
        let n_kv_heads = match keys.n_kv_heads {
            Some(key) => match raw.size(key)? {
                Some(n_kv_heads) => n_kv_heads,
                None if raw.contains(key) => n_heads,
                None => defaults.n_kv_heads.unwrap_or(n_heads),
            },
            None => n_heads,
        };
        if !n_heads.is_multiple_of(n_kv_heads) {
            let reason = format!("it does not divide {}, {n_heads}", keys.n_heads);
            let key = keys.n_kv_heads.unwrap_or(keys.n_heads);
            return Err(raw.invalid(key, reason).into());
        }
        let inner = match (raw.size(keys.inner)?, defaults.inner) {
            (Some(inner), _) => inner,
            (None, Some(inner)) => inner(width),
            (None, None) => return Err(raw.missing(keys.inner).into()),
        };
        let (key, default) = defaults.attention_dropout;
        let attention_dropout = probability(raw, key, default)?;
        let (key, default) = defaults.eps;
        let eps = match key {
            Some(key) => epsilon(raw, key, default)?,
            None => default,
        };
        let (key, default) = defaults.activation;
        Ok(Self {
            width,
            inner,
            n_layers: required_layers(json, keys.n_layers)?,
            n_heads,
            n_kv_heads,
            head_dim: head_dim(raw, &defaults, width, n_heads)?,
            eps,
            norm: defaults.norm,
            activation: activation(raw, key, default)?,
            attention_dropout,
            json,
            defaults,
        })
    }

    /// Reads rotary positions that all layers share.
    ///
    /// # Errors
    ///
    /// Fails when they are of an unknown kind, or do not fit the heads.
    pub(super) fn rotary(&self) -> Result<RotarySpec, ModelError> {
        let rope = RopeParameters::read(&self.json.json, self.rope_defaults(self.defaults.theta)?)?;
        self.rotary_of(&rope)
    }

    pub(super) fn rope_defaults(&self, theta: f64) -> Result<RopeDefaults, ModelError> {
        Ok(RopeDefaults {
            theta,
            share: self.defaults.turned,
            max_positions: self.max_positions()?,
            original_max_positions: self.defaults.original_max_positions,
            aliases: self.defaults.rope_aliases,
        })
    }

    /// Makes rotary positions for the heads.
    pub(super) fn rotary_of(&self, rope: &RopeParameters) -> Result<RotarySpec, ModelError> {
        let head_dim = self.head_dim;
        let invalid = |reason: String| {
            let raw = &self.json.json;
            let keys = self.defaults.keys;
            let head_dim = keys.head_dim.filter(|key| raw.contains(key));
            ModelError::from(raw.invalid(head_dim.unwrap_or(keys.width), reason))
        };
        if head_dim > MOST_HEAD_DIM {
            let reason = format!("the head dimension is {head_dim}, the most is {MOST_HEAD_DIM}");
            return Err(invalid(reason));
        }
        let turned = rope.turned(head_dim);
        if turned == 0 || !turned.is_multiple_of(2) {
            let reason = format!(
                "{turned} of the {head_dim} elements of a head are rotated, which has to be an even number"
            );
            return Err(invalid(reason));
        }
        RotarySpec::new(rope, head_dim, &self.json.json)
    }

    /// Refuses rotary positions of a part of each head, which the family does not have.
    pub(super) fn whole_heads(&self, rope: &RotarySpec) -> Result<(), ModelError> {
        if 2 * rope.inverse_frequencies.len() == rope.head_dim {
            return Ok(());
        }
        let reason = "this family rotates whole heads";
        let error = self.json.json.invalid("partial_rotary_factor", reason);
        Err(error.into())
    }

    fn max_positions(&self) -> Result<usize, ConfigError> {
        let found = self.json.json.size(self.defaults.keys.max_positions)?;
        Ok(found.unwrap_or(self.defaults.max_positions))
    }

    /// The standard deviation of new weights.
    pub(super) fn std(&self) -> Result<f64, ModelError> {
        let (key, default) = self.defaults.std;
        deviation(&self.json.json, key, default)
    }

    /// Returns the path of a module of a layer.
    pub(super) fn path(&self, layer: usize, name: &str) -> String {
        format!("{}.{layer}.{name}", self.defaults.layers)
    }

    /// Reads what scores are multiplied by: one over the root of a setting.
    pub(super) fn scale_of(&self, key: &'static str, default: f64) -> Result<f64, ModelError> {
        let raw = &self.json.json;
        let squared = raw.f64(key)?.unwrap_or(default);
        match squared > 0.0 {
            true => Ok(squared.powf(-0.5)),
            false => Err(raw.invalid(key, "it has to be larger than 0").into()),
        }
    }

    /// Describes the whole model; `adapt` changes the plain block of a layer.
    pub(super) fn describe(
        &self,
        rotary: Vec<RotarySpec>,
        mut adapt: impl FnMut(usize, &mut BlockSpec),
    ) -> Result<Architecture, ModelError> {
        let raw = &self.json.json;
        let is_turned = !rotary.is_empty();
        let blocks = (0..self.n_layers).map(|layer| {
            let mut block = self.block(layer);
            block.attention.rotary = is_turned.then_some(0);
            adapt(layer, &mut block);
            block
        });
        let tied = raw.bool("tie_word_embeddings")?;
        Ok(Architecture {
            model_type: self.json.model_type.clone(),
            width: self.width,
            vocab_size: raw.required_size("vocab_size")?,
            max_positions: self.max_positions()?,
            special: self.json.special_tokens(self.defaults.special.clone())?,
            prefix: "model".to_owned(),
            embedding: EmbeddingSpec {
                tokens: "embed_tokens".to_owned(),
                factor: None,
                positions: None,
                sinusoids: None,
                token_types: None,
                token_projection: None,
                norm: None,
                dropout: None,
                projection: None,
            },
            recurrent: None,
            state_space: None,
            rotary,
            relative: None,
            seq2seq: None,
            blocks: blocks.collect(),
            norm: Some(self.norm("norm")),
            head: HeadSpec::new("lm_head", tied.unwrap_or(self.defaults.tied)),
            heads: HeadsSpec::default(),
            buffers: vec!["rotary_emb.inv_freq"],
            bias_keys: Vec::new(),
            init: Initialization::Normal(self.std()?),
        })
    }

    /// Llama's block.
    fn block(&self, layer: usize) -> BlockSpec {
        let (width, inner) = (self.width, self.inner);
        let q_width = self.n_heads * self.head_dim;
        let kv_width = self.n_kv_heads * self.head_dim;
        let linear =
            |name: &str, d_in: usize, d_out: usize| self.linear(layer, name, [d_in, d_out], false);
        BlockSpec {
            attention: AttentionSpec {
                inputs: vec![
                    linear("self_attn.q_proj", width, q_width),
                    linear("self_attn.k_proj", width, kv_width),
                    linear("self_attn.v_proj", width, kv_width),
                ],
                output: linear("self_attn.o_proj", q_width, width),
                grouped: false,
                q_norm: None,
                k_norm: None,
                norm_weights: HeadWeights::Shared,
                clip: None,
                n_heads: self.n_heads,
                n_kv_heads: self.n_kv_heads,
                head_dim: self.head_dim,
                scale: (self.head_dim as f64).powf(-0.5),
                causal: true,
                window: None,
                soft_cap: None,
                rotary: Some(0),
                positions: None,
                dropout: Some(self.attention_dropout),
                output_dropout: None,
            },
            attention_norms: self.before(layer, "input_layernorm"),
            cross: None,
            feed_forward: FeedForwardSpec {
                inputs: vec![
                    linear("mlp.gate_proj", width, inner),
                    linear("mlp.up_proj", width, inner),
                ],
                gated: true,
                output: linear("mlp.down_proj", inner, width),
                activation: self.activation,
                experts: None,
                inner_dropout: None,
                output_dropout: None,
            },
            feed_forward_norms: self.before(layer, "post_attention_layernorm"),
            parallel: false,
        }
    }
}

/// Reads the window of layers that have one; `null` means none.
pub(super) fn window_or(raw: &JsonObject, default: usize) -> Result<Option<usize>, ConfigError> {
    let key = "sliding_window";
    match raw.contains(key) {
        true => raw.size(key),
        false => Ok(Some(default)),
    }
}

/// Reads what scores or logits are capped at; `null` means nothing.
pub(super) fn cap_or(
    raw: &JsonObject,
    key: &str,
    default: Option<f64>,
) -> Result<Option<f64>, ConfigError> {
    match raw.f64(key)? {
        Some(cap) if cap <= 0.0 => Err(raw.invalid(key, "it has to be larger than 0")),
        None if !raw.contains(key) => Ok(default),
        found => Ok(found),
    }
}

/// Reads which layers have a window, in layers of the types `full_attention` and `sliding_attention`.
///
/// # Errors
///
/// Fails when the list names something else, or not every layer.
pub(super) fn sliding_layers(
    json: &ModelJson,
    n_layers: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, ModelError> {
    let key = "layer_types";
    let Some(types) = json.json.strings(key)? else {
        return Ok((0..n_layers).map(default).collect());
    };
    if types.len() != n_layers {
        let reason = format!("it has {} entries for {n_layers} layers", types.len());
        return Err(json.json.invalid(key, reason).into());
    }
    let is_sliding = |layer_type: &String| match layer_type.as_str() {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => Err(super::unsupported(
            key,
            other,
            "full_attention, sliding_attention",
        )),
    };
    types.iter().map(is_sliding).collect()
}

fn head_dim(
    raw: &JsonObject,
    defaults: &Defaults,
    width: usize,
    n_heads: usize,
) -> Result<usize, ConfigError> {
    let keys = defaults.keys;
    let found = match keys.head_dim {
        Some(key) => {
            let default = defaults.head_dim.filter(|_| !raw.contains(key));
            raw.size(key)?.or(default)
        }
        None => None,
    };
    match found {
        Some(head_dim) => Ok(head_dim),
        None if width.is_multiple_of(n_heads) => Ok(width / n_heads),
        None => {
            let mut reason = format!("it does not divide {}, {width}", keys.width);
            if let Some(key) = keys.head_dim {
                reason = format!("{reason}, and {key} is not given");
            }
            Err(raw.invalid(keys.n_heads, reason))
        }
    }
}
