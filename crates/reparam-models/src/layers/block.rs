//! One block of a model.

use std::borrow::Cow;

use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_ops::fused::{FusedNorms, attention_block, attention_block_cached, mlp_block};
use reparam_ops::{RecurrentState, RotaryTable, Segments, dropout};

use super::{Attention, Experts, FeedForward, Norm};
use crate::cache::LayerCache;
use crate::named::{Named, unnamed_module};
use crate::precision::{narrowed, widened};

/// What the blocks of one forward pass share.
#[derive(Debug, Clone)]
pub(crate) struct Sequences {
    /// One for each kind of rotary positions.
    pub(crate) rotary: Vec<RotaryTable>,
    /// What is added to the scores of self-attention by head and distance.
    pub(crate) bias: Option<Tensor<2>>,
    /// What layers make keys and queries of distances of.
    pub(crate) distances: Option<Distances>,
    pub(crate) segments: Segments,
    /// What the blocks of a decoder with a source attend to.
    pub(crate) source: Option<Source>,
    /// Whether fused layers compute their activations again in the backward pass.
    pub(crate) recompute: bool,
}

impl Sequences {
    /// Where the sequences of `n` tokens lie; without segments there is one.
    pub(crate) fn bounds(&self, n: usize) -> Vec<usize> {
        let mut bounds = vec![0];
        match self.segments.is_empty() {
            true => bounds.push(n),
            false => bounds.extend(self.segments.iter().map(|one| one.q_start + one.q_len)),
        }
        bounds
    }
}

/// The vectors of distances.
#[derive(Debug, Clone)]
pub(crate) struct Distances {
    /// `[rows, d]`
    pub(crate) vectors: Tensor<2>,
    /// The row of each distance, from that to the first key of the longest segment to that to its last one.
    pub(crate) places: Vec<u32>,
}

/// The source of an encoder-decoder.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The hidden states of the encoder, `[N, d]`.
    pub(crate) states: Tensor<2>,
    /// Which of them the tokens of the decoder see.
    pub(crate) segments: Segments,
    /// Where recurrent layers of the encoder end, by layer, then by direction.
    pub(crate) last: Vec<RecurrentState>,
}

/// The norms of half a block `f`: `h' = after(h + factor * inside(f(before(h))))`.
#[derive(Debug, Clone)]
pub struct Norms {
    /// On the input.
    pub before: Option<Named<Norm>>,
    /// On the output, before it is added.
    pub inside: Option<Named<Norm>>,
    /// On the sum.
    pub after: Option<Named<Norm>>,
    /// What is added is multiplied by this.
    pub factor: Option<f64>,
}

unnamed_module!(Norms, modules: [before, inside, after], data: [factor]);

impl Norms {
    /// Half a block that reads `h` and is added to `sum`.
    fn around(
        &self,
        h: Tensor<2>,
        sum: Tensor<2>,
        f: impl FnOnce(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let apply = |norm: &Option<Named<Norm>>, x: Tensor<2>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let out = apply(&self.inside, f(apply(&self.before, h)));
        let out = match self.factor {
            Some(factor) => out * factor,
            None => out,
        };
        apply(&self.after, sum + out)
    }

    pub(crate) fn fused(&self) -> FusedNorms {
        let fused = |norm: &Option<Named<Norm>>| norm.as_ref().map(|norm| norm.fused());
        FusedNorms {
            before: fused(&self.before),
            inside: fused(&self.inside),
            after: fused(&self.after),
            factor: self.factor.map(|factor| factor as f32),
        }
    }
}

/// Attention to a source, with its norms.
#[derive(Debug, Clone)]
pub struct CrossAttention {
    /// Attention.
    pub attention: Attention,
    /// The norms around it.
    pub norms: Norms,
}

unnamed_module!(CrossAttention, modules: [attention, norms], data: []);

/// One block: attention, in a decoder with a source attention to that, and feed-forward, each with its norms, each added to its
/// input or, [in parallel](crate::architecture::BlockSpec::parallel), to that of the block.
#[derive(Debug, Clone)]
pub struct Block {
    /// Attention.
    pub attention: Attention,
    /// Attention to the source of an encoder-decoder.
    pub cross: Option<CrossAttention>,
    /// Feed-forward, where it is one layer for all tokens.
    pub feed_forward: Option<FeedForward>,
    /// Feed-forward, where tokens choose among experts.
    pub experts: Option<Experts>,
    /// The norms around attention.
    pub attention_norms: Norms,
    /// The norms around the feed-forward layer.
    pub feed_forward_norms: Norms,
    /// Whether the feed-forward layer reads what attention reads.
    pub parallel: bool,
}

unnamed_module!(
    Block,
    modules: [attention, cross, feed_forward, experts, attention_norms, feed_forward_norms],
    data: [parallel]
);

/// Drops out what the module at `path` gives, where there is a dropout.
pub(crate) fn dropped(
    x: Tensor<2>,
    probability: Option<f64>,
    path: &str,
    context: &ForwardContext,
) -> Tensor<2> {
    match context.dropout(probability.unwrap_or(0.0), &format!("{path}.output")) {
        Some((p, key)) => dropout(widened(x), p, key),
        None => x,
    }
}

/// Whether any of these dropouts is on in this pass. Fused operations have none.
pub(crate) fn drops(probabilities: [Option<f64>; 2], context: &ForwardContext) -> bool {
    let mut probabilities = probabilities.into_iter().flatten();
    probabilities.any(|p| context.dropout(p, "").is_some())
}

/// Why a layer never meets a cache of the other kind.
const CACHE_OF_MODEL: &str = "a cache is made by the model that fills it";

impl CrossAttention {
    fn attend(
        &self,
        h: Tensor<2>,
        source: &Source,
        cache: Option<&mut LayerCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let cache = match cache {
            Some(LayerCache::Tensors(cache)) => Some(&mut cache.source),
            None => None,
            Some(LayerCache::Fused(_)) => unreachable!("{CACHE_OF_MODEL}"),
        };
        let h = widened(h);
        self.norms.around(h.clone(), h, |x| {
            let out = self.attention.read(x, source, cache, context);
            let Attention { output, spec, .. } = &self.attention;
            dropped(out, spec.output_dropout, output.path(), context)
        })
    }
}

impl Block {
    pub(crate) fn forward(
        &self,
        h: Tensor<2>,
        sequences: &Sequences,
        mut cache: Option<&mut LayerCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let input = self.parallel.then(|| h.clone());
        let h = self.attend(h, sequences, cache.as_deref_mut(), context);
        let h = match (&self.cross, &sequences.source) {
            (Some(cross), Some(source)) => cross.attend(h, source, cache, context),
            _ => h,
        };
        let mut norms = Cow::Borrowed(&self.feed_forward_norms);
        if self.parallel && norms.before.is_none() {
            norms.to_mut().before = self.attention_norms.before.clone();
        }
        let fused = self.feed_forward.as_ref();
        let fused = fused.and_then(|layer| layer.fused(&norms, sequences, context));
        match fused {
            Some(block) => match input {
                Some(input) => mlp_block(narrowed(input), Some(narrowed(h)), block),
                None => mlp_block(narrowed(h), None, block),
            },
            None => {
                let h = widened(h);
                let input = input.map_or_else(|| h.clone(), widened);
                norms.around(input, h, |x| self.feed(x, context))
            }
        }
    }

    /// The feed-forward layer, or the experts.
    fn feed(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        match (&self.feed_forward, &self.experts) {
            (Some(layer), _) => {
                let out = layer.forward(x, context);
                let FeedForward { output, spec, .. } = layer;
                dropped(out, spec.output_dropout, output.path(), context)
            }
            (None, Some(experts)) => experts.forward(x, context),
            (None, None) => unreachable!("a block is made with one of the two"),
        }
    }

    /// How much each token looks at each: see [`Attention::weights`].
    pub(crate) fn attention_weights(
        &self,
        h: &Tensor<2>,
        sequences: &Sequences,
        context: &ForwardContext,
    ) -> Option<Tensor<3>> {
        let h = widened(h.clone());
        let x = match &self.attention_norms.before {
            Some(norm) => norm.forward(h),
            None => h,
        };
        self.attention.weights(x, sequences, context)
    }

    fn attend(
        &self,
        h: Tensor<2>,
        sequences: &Sequences,
        cache: Option<&mut LayerCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let norms = &self.attention_norms;
        let cache = match (self.attention.fused(norms, sequences, context), cache) {
            (Some(block), None) => {
                return attention_block(narrowed(h), block, &sequences.segments);
            }
            (Some(block), Some(LayerCache::Fused(cache))) => {
                return attention_block_cached(narrowed(h), block, cache);
            }
            (_, Some(LayerCache::Tensors(cache))) => Some(&mut **cache),
            (None, None) => None,
            (None, Some(LayerCache::Fused(_))) => unreachable!("{CACHE_OF_MODEL}"),
        };
        let h = widened(h);
        norms.around(h.clone(), h, |x| {
            let out = self.attention.forward(x, sequences, cache, context);
            let Attention { output, spec, .. } = &self.attention;
            dropped(out, spec.output_dropout, output.path(), context)
        })
    }
}
