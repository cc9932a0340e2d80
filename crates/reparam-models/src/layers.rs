//! The modules that decoders are made of.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use reparam::{ForwardContext, Linear};
use reparam_ops::{AttentionConfig, RotaryTable, Segments, attention, rms_norm, rotary, swiglu};

use crate::cache::LayerCache;

/// A table of token vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocab, d]`.
    pub weight: Param<Tensor<2>>,
}

/// Root mean square normalization with a learned scale.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d]`.
    pub weight: Param<Tensor<1>>,
    /// What is added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, self.weight.val(), self.eps as f32)
    }
}

/// What the attention layers of one forward pass share.
#[derive(Debug, Clone)]
pub(crate) struct Sequences {
    pub(crate) rotary: RotaryTable,
    pub(crate) segments: Segments,
}

/// Grouped-query self-attention with rotary positions.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// Queries.
    pub q_proj: Linear,
    /// Keys.
    pub k_proj: Linear,
    /// Values.
    pub v_proj: Linear,
    /// Output.
    pub o_proj: Linear,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Elements a head.
    pub head_dim: usize,
}

impl SelfAttention {
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        sequences: &Sequences,
        cache: Option<&mut LayerCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let q = rotary(self.q_proj.forward(x.clone(), context), &sequences.rotary);
        let k = rotary(self.k_proj.forward(x.clone(), context), &sequences.rotary);
        let v = self.v_proj.forward(x, context);
        let config = AttentionConfig {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).powf(-0.5),
            causal: true,
        };
        let (k, v, segments) = match cache {
            None => (k, v, sequences.segments.clone()),
            Some(cache) => cache.append(k, v),
        };
        let out = attention(q, k, v, config, &segments);
        self.o_proj.forward(out, context)
    }
}

/// The gated feed-forward layer `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// The gate.
    pub gate_proj: Linear,
    /// What is gated.
    pub up_proj: Linear,
    /// Back to the hidden size.
    pub down_proj: Linear,
}

impl GatedMlp {
    pub(crate) fn forward(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let gate = self.gate_proj.forward(x.clone(), context);
        let up = self.up_proj.forward(x, context);
        self.down_proj.forward(swiglu(gate, up), context)
    }
}

/// One block: attention and feed-forward, each on a normalized input, each added back.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Attention.
    pub self_attn: SelfAttention,
    /// Feed-forward.
    pub mlp: GatedMlp,
    /// The norm before attention.
    pub input_layernorm: RmsNorm,
    /// The norm before the feed-forward layer.
    pub post_attention_layernorm: RmsNorm,
}

impl DecoderLayer {
    pub(crate) fn forward(
        &self,
        h: Tensor<2>,
        sequences: &Sequences,
        cache: Option<&mut LayerCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let x = self.input_layernorm.forward(h.clone());
        let h = h + self.self_attn.forward(x, sequences, cache, context);
        let x = self.post_attention_layernorm.forward(h.clone());
        h + self.mlp.forward(x, context)
    }
}

/// Everything but the output head.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Token vectors.
    pub embed_tokens: Embedding,
    /// The blocks.
    pub layers: Vec<DecoderLayer>,
    /// The last norm.
    pub norm: RmsNorm,
}

impl Decoder {
    pub(crate) fn device(&self) -> Device {
        self.embed_tokens.weight.base().device()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.embed_tokens.weight.base().dtype()
    }
}
