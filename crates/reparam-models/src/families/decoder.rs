//! What the decoders with rotary positions and gated feed-forward layers have in common.

use reparam_formats::config::{
    ConfigError, JsonObject, ModelJson, RopeDefaults, RopeParameters, SpecialTokens,
};
use reparam_ops::Activation;

use super::{activation, deviation, epsilon, probability, required_layers};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec, HeadsSpec,
    Initialization, LinearSpec, NormKind, NormSpec, NormsSpec, RotarySpec,
};

/// The most elements of a head: a hundred times those of published models. More is almost certainly a typo, and a table of
/// that size would end the process for want of memory.
const MOST_HEAD_DIM: usize = 1 << 16;

/// The key that gives the layers of attention biases: see [`Architecture::bias_keys`].
pub(super) const ATTENTION_BIAS: (&str, &str) = ("self_attn.", "attention_bias");

/// What a family takes where `config.json` says nothing.
pub(super) struct Defaults {
    /// `num_key_value_heads`; without one as many as query heads, as for `null`.
    pub(super) n_kv_heads: Option<usize>,
    /// `head_dim`; without one `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    pub(super) max_positions: usize,
    /// The key of what norms add to the mean square, and that.
    pub(super) eps: (&'static str, f64),
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
    /// `initializer_range`.
    pub(super) std: f64,
}

impl Default for Defaults {
    /// Those that most families share.
    fn default() -> Self {
        Self {
            n_kv_heads: None,
            head_dim: None,
            max_positions: 2048,
            eps: ("rms_norm_eps", 1e-6),
            activation: ("hidden_act", Activation::Silu),
            tied: false,
            special: SpecialTokens::default(),
            theta: 10_000.0,
            original_max_positions: None,
            rope_aliases: &[],
            turned: 1.0,
            std: 0.02,
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
        let width = raw.required_size("hidden_size")?;
        let n_heads = raw.required_size("num_attention_heads")?;
        let n_kv_heads = match raw.size("num_key_value_heads")? {
            Some(n_kv_heads) => n_kv_heads,
            None if raw.contains("num_key_value_heads") => n_heads,
            None => defaults.n_kv_heads.unwrap_or(n_heads),
        };
        if !n_heads.is_multiple_of(n_kv_heads) {
            let reason = format!("it does not divide num_attention_heads, {n_heads}");
            return Err(raw.invalid("num_key_value_heads", reason).into());
        }
        let (key, default) = defaults.eps;
        let eps = epsilon(raw, key, default)?;
        let (key, default) = defaults.activation;
        Ok(Self {
            width,
            inner: raw.required_size("intermediate_size")?,
            n_layers: required_layers(json, "num_hidden_layers")?,
            n_heads,
            n_kv_heads,
            head_dim: head_dim(json, defaults.head_dim, width, n_heads)?,
            eps,
            norm: NormKind::Rms,
            activation: activation(raw, key, default)?,
            attention_dropout: probability(raw, "attention_dropout", 0.0)?,
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
            let key = match raw.get("head_dim") {
                Some(_) => "head_dim",
                None => "hidden_size",
            };
            ModelError::from(raw.invalid(key, reason))
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
        let found = self.json.json.size("max_position_embeddings")?;
        Ok(found.unwrap_or(self.defaults.max_positions))
    }

    /// Returns a norm of the hidden states.
    pub(super) fn norm(&self, path: impl Into<String>) -> NormSpec {
        NormSpec {
            path: path.into(),
            kind: self.norm,
            width: self.width,
            eps: self.eps,
        }
    }

    /// Gives attention a norm of each head of queries and of keys.
    pub(super) fn norm_heads(&self, layer: usize, attention: &mut AttentionSpec) {
        let norm = |name: &str| NormSpec {
            width: self.head_dim,
            ..self.norm(format!("layers.{layer}.self_attn.{name}"))
        };
        attention.q_norm = Some(norm("q_norm"));
        attention.k_norm = Some(norm("k_norm"));
    }

    /// Gives both halves of a block a norm before and one behind, as Gemma has them since its second version.
    pub(super) fn norm_outputs(&self, layer: usize, block: &mut BlockSpec) {
        let norm = |name: &str| Some(self.norm(format!("layers.{layer}.{name}")));
        block.attention_norms.inside = norm("post_attention_layernorm");
        block.feed_forward_norms.before = norm("pre_feedforward_layernorm");
        block.feed_forward_norms.inside = norm("post_feedforward_layernorm");
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
        let blocks = (0..self.n_layers).map(|layer| {
            let mut block = self.block(layer);
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
                norm: None,
                dropout: None,
                projection: None,
            },
            recurrent: None,
            rotary,
            relative: None,
            seq2seq: None,
            blocks: blocks.collect(),
            norm: Some(self.norm("norm")),
            head: HeadSpec {
                path: "lm_head".to_owned(),
                tied: tied.unwrap_or(self.defaults.tied),
                soft_cap: None,
            },
            heads: HeadsSpec::default(),
            buffers: vec!["rotary_emb.inv_freq"],
            bias_keys: Vec::new(),
            init: Initialization::Normal(deviation(raw, "initializer_range", self.defaults.std)?),
        })
    }

    /// Llama's block.
    fn block(&self, layer: usize) -> BlockSpec {
        let (width, inner) = (self.width, self.inner);
        let q_width = self.n_heads * self.head_dim;
        let kv_width = self.n_kv_heads * self.head_dim;
        let linear = |name: &str, d_in: usize, d_out: usize| {
            LinearSpec::new(format!("layers.{layer}.{name}"), d_in, d_out)
        };
        let before = |name: &str| NormsSpec {
            before: Some(self.norm(format!("layers.{layer}.{name}"))),
            ..NormsSpec::default()
        };
        BlockSpec {
            attention: AttentionSpec {
                inputs: vec![
                    linear("self_attn.q_proj", width, q_width),
                    linear("self_attn.k_proj", width, kv_width),
                    linear("self_attn.v_proj", width, kv_width),
                ],
                output: linear("self_attn.o_proj", q_width, width),
                q_norm: None,
                k_norm: None,
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
            attention_norms: before("input_layernorm"),
            cross: None,
            feed_forward: FeedForwardSpec {
                inputs: vec![
                    linear("mlp.gate_proj", width, inner),
                    linear("mlp.up_proj", width, inner),
                ],
                gated: true,
                output: linear("mlp.down_proj", inner, width),
                activation: self.activation,
                inner_dropout: None,
                output_dropout: None,
            },
            feed_forward_norms: before("post_attention_layernorm"),
        }
    }
}

/// Says whether queries, keys and values have biases, and whether the output has one.
pub(super) fn bias_attention(attention: &mut AttentionSpec, inputs: bool, output: bool) {
    for linear in &mut attention.inputs {
        linear.bias = inputs;
    }
    attention.output.bias = output;
}

/// Says whether the layers of a feed-forward layer have biases.
pub(super) fn bias_feed_forward(feed_forward: &mut FeedForwardSpec, bias: bool) {
    let inputs = feed_forward.inputs.iter_mut();
    for linear in inputs.chain([&mut feed_forward.output]) {
        linear.bias = bias;
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
    json: &ModelJson,
    default: Option<usize>,
    width: usize,
    n_heads: usize,
) -> Result<usize, ConfigError> {
    let raw = &json.json;
    let default = default.filter(|_| !raw.contains("head_dim"));
    match raw.size("head_dim")?.or(default) {
        Some(head_dim) => Ok(head_dim),
        None if width.is_multiple_of(n_heads) => Ok(width / n_heads),
        None => {
            let reason =
                format!("it does not divide hidden_size, {width}, and head_dim is not given");
            Err(raw.invalid("num_attention_heads", reason))
        }
    }
}
