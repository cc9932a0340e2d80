//! The modules that decoders are made of.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use reparam::{ForwardContext, Linear};
use reparam_ops::fused::{
    AttentionBlock, FrozenWeight, FusedNorm, MlpBlock, attention_block, attention_block_cached,
    mlp_block,
};
use reparam_ops::{
    Activation, AttentionConfig, RotaryTable, Segments, attention, rms_norm, rotary, swiglu,
};

use crate::cache::{LayerCache, TensorCache};

/// A table of token vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocab, d]`; NaN without memory if the table is packed.
    pub weight: Param<Tensor<2>>,
    /// The table in bf16, if that is where it is.
    #[module(skip)]
    pub frozen: Option<FrozenWeight>,
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

    pub(crate) fn fused(&self) -> FusedNorm {
        FusedNorm {
            weight: self.weight.val(),
            eps: self.eps as f32,
        }
    }
}

/// What the attention layers of one forward pass share.
#[derive(Debug, Clone)]
pub(crate) struct Sequences {
    pub(crate) rotary: RotaryTable,
    pub(crate) segments: Segments,
    /// Whether fused layers compute their activations again in the backward pass.
    pub(crate) recompute: bool,
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
        cache: Option<&mut TensorCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let q = rotary(self.q_proj.forward(x.clone(), context), &sequences.rotary);
        let k = rotary(self.k_proj.forward(x.clone(), context), &sequences.rotary);
        let v = self.v_proj.forward(x, context);
        let (k, v, segments) = match cache {
            None => (k, v, sequences.segments.clone()),
            Some(cache) => cache.append(k, v),
        };
        let out = attention(q, k, v, self.config(), &segments);
        self.o_proj.forward(out, context)
    }

    fn config(&self) -> AttentionConfig {
        AttentionConfig {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).powf(-0.5),
            causal: true,
            window: None,
            soft_cap: None,
        }
    }

    /// The whole block as one operation, if its weights are packed.
    fn fused<'a>(
        &self,
        norm: &RmsNorm,
        sequences: &'a Sequences,
        context: &ForwardContext,
    ) -> Option<AttentionBlock<'a>> {
        Some(AttentionBlock {
            norm: norm.fused(),
            q: self.q_proj.fused(context)?,
            k: self.k_proj.fused(context)?,
            v: self.v_proj.fused(context)?,
            o: self.o_proj.fused(context)?,
            config: self.config(),
            rotary: &sequences.rotary,
            recompute: sequences.recompute,
        })
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

    /// The whole block as one operation, if its weights are packed.
    fn fused(
        &self,
        norm: &RmsNorm,
        sequences: &Sequences,
        context: &ForwardContext,
    ) -> Option<MlpBlock> {
        Some(MlpBlock {
            norm: norm.fused(),
            gate: self.gate_proj.fused(context)?,
            up: self.up_proj.fused(context)?,
            down: self.down_proj.fused(context)?,
            activation: Activation::Silu,
            recompute: sequences.recompute,
        })
    }
}

/// Why a layer never meets a cache of the other kind.
const CACHE_OF_MODEL: &str = "a cache is made by the model that fills it";

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
        let (norm, attention) = (&self.input_layernorm, &self.self_attn);
        let h = match (attention.fused(norm, sequences, context), cache) {
            (Some(block), None) => attention_block(h, block, &sequences.segments),
            (Some(block), Some(LayerCache::Fused(cache))) => {
                attention_block_cached(h, block, cache)
            }
            (None, cache) => {
                let cache = match cache {
                    Some(LayerCache::Tensors(cache)) => Some(&mut **cache),
                    None => None,
                    Some(LayerCache::Fused(_)) => unreachable!("{CACHE_OF_MODEL}"),
                };
                h.clone() + attention.forward(norm.forward(h), sequences, cache, context)
            }
            (Some(_), Some(LayerCache::Tensors(_))) => unreachable!("{CACHE_OF_MODEL}"),
        };
        let norm = &self.post_attention_layernorm;
        match self.mlp.fused(norm, sequences, context) {
            Some(block) => mlp_block(h, block),
            None => h.clone() + self.mlp.forward(norm.forward(h), context),
        }
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
