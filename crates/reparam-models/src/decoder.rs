//! A decoder with its output head.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::{ForwardContext, Linear};
use reparam_ops::fused::{
    BlockCache, FrozenWeight, frozen_embedding, norm_linear_cross_entropy, norm_logits, with_team,
};
use reparam_ops::{
    LinearPlan, RotaryTable, Segments, embedding, linear, linear_cross_entropy,
    segments_from_bounds,
};

use crate::cache::{KvCache, LayerCache, TensorCache};
use crate::layers::{Decoder, Sequences};

/// A flat batch of token sequences.
#[derive(Debug, Clone, Copy)]
pub struct TokenBatch<'a> {
    /// The tokens of all sequences, one after the other.
    pub input_ids: &'a [u32],
    /// The position of each token in its sequence.
    pub position_ids: &'a [u32],
    /// The cumulative starts of the sequences; the last entry is the number of tokens.
    pub bounds: &'a [usize],
}

/// A language model that predicts the next token.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// The decoder.
    pub model: Decoder,
    /// The output head; `None` if it is the embedding's table.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    pub(crate) inverse_frequencies: Arc<[f32]>,
    /// Whether layers with packed weights keep their input alone and compute their activations again in the backward pass:
    /// less memory for about a third more time. Layers with ordinary weights do not look at it.
    #[module(skip)]
    pub recompute: bool,
}

impl CausalLm {
    /// Returns the scaled sum of the negative log-likelihoods of the labelled tokens, `[1]`.
    ///
    /// See [`linear_cross_entropy`] for `labels` and `scale`.
    pub fn loss(
        &self,
        batch: TokenBatch<'_>,
        labels: &[i32],
        scale: f32,
        context: &ForwardContext,
    ) -> Tensor<1> {
        let h = self.hidden(batch, context);
        let norm = &self.model.norm;
        match self.frozen_head() {
            Some(head) => norm_linear_cross_entropy(h, norm.fused(), head, labels, scale),
            None => linear_cross_entropy(norm.forward(h), self.head(), labels, scale),
        }
    }

    /// Returns the logits of every token, `[N, vocab]`.
    pub fn logits(&self, batch: TokenBatch<'_>, context: &ForwardContext) -> Tensor<2> {
        self.logits_of(self.hidden(batch, context))
    }

    /// Returns an empty cache for a sequence of up to `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        let attention = &self.model.layers[0].self_attn;
        let width = attention.n_kv_heads * attention.head_dim;
        let (device, dtype) = (self.model.device().inner(), self.model.dtype());
        KvCache::new(self.model.layers.len(), capacity, || {
            match attention.q_proj.frozen {
                Some(_) => LayerCache::Fused(BlockCache::default()),
                None => {
                    let cache = TensorCache::new(width, capacity, (&device, dtype));
                    LayerCache::Tensors(Box::new(cache))
                }
            }
        })
    }

    /// Feeds the next tokens of a cached sequence and returns the last one's logits, `[1, vocab]`.
    ///
    /// # Panics
    ///
    /// Panics when the cache is full or `tokens` is empty.
    pub fn next_logits(&self, tokens: &[u32], cache: &mut KvCache) -> Tensor<2> {
        let start = cache.len();
        assert!(
            !tokens.is_empty() && start + tokens.len() <= cache.capacity(),
            "the cache holds {} tokens",
            cache.capacity()
        );
        let positions: Vec<u32> = (start..start + tokens.len()).map(|p| p as u32).collect();
        let context = ForwardContext::inference();
        let none = Segments::from([]);
        let logits = || {
            let h = self.run(tokens, &positions, none, Some(cache), &context);
            self.logits_of(h.narrow(0, tokens.len() - 1, 1))
        };
        // A single token is many short products; those of more tokens, and of f32 weights, share their work otherwise.
        if tokens.len() == 1 && self.frozen_head().is_some() {
            with_team(logits)
        } else {
            logits()
        }
    }

    /// Returns the number of rows of the embedding.
    pub fn vocab_size(&self) -> usize {
        self.model.embed_tokens.weight.lazy_shape()[0]
    }

    /// The hidden states after the last layer, `[N, d]`, not normalized.
    fn hidden(&self, batch: TokenBatch<'_>, context: &ForwardContext) -> Tensor<2> {
        let segments = segments_from_bounds(batch.bounds);
        self.run(batch.input_ids, batch.position_ids, segments, None, context)
    }

    fn logits_of(&self, h: Tensor<2>) -> Tensor<2> {
        let norm = &self.model.norm;
        match self.frozen_head() {
            Some(head) => norm_logits(h, norm.fused(), head),
            None => linear(norm.forward(h), self.head(), LinearPlan::Dense),
        }
    }

    /// The output head, if it is packed.
    fn frozen_head(&self) -> Option<&FrozenWeight> {
        match &self.lm_head {
            Some(head) => head.frozen.as_ref(),
            None => self.model.embed_tokens.frozen.as_ref(),
        }
    }

    fn head(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.model.embed_tokens.weight.val(),
        }
    }

    fn run(
        &self,
        input_ids: &[u32],
        position_ids: &[u32],
        segments: Segments,
        mut cache: Option<&mut KvCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let sequences = Sequences {
            rotary: RotaryTable::new(position_ids, &self.inverse_frequencies),
            segments,
            recompute: self.recompute,
        };
        let table = &self.model.embed_tokens;
        let mut h = match &table.frozen {
            Some(frozen) => frozen_embedding(frozen, input_ids, &self.model.device()),
            None => embedding(table.weight.val(), input_ids),
        };
        for (layer_idx, layer) in self.model.layers.iter().enumerate() {
            let layer_cache = cache.as_mut().map(|cache| &mut cache.layers[layer_idx]);
            h = layer.forward(h, &sequences, layer_cache, context);
        }
        h
    }
}
