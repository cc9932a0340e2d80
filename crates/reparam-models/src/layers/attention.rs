//! Attention of tokens to one another and to a source.

use burn::tensor::Tensor;
use reparam::{ForwardContext, Linear};
use reparam_ops::fused::AttentionBlock;
use reparam_ops::reference::attention_weights;
use reparam_ops::{AttentionConfig, ScoreTerms, Segments, attention_with, embedding, rotary};

use super::{HeadNorm, Norms, Sequences, Source, dropped, drops};
use crate::architecture::{AttentionSpec, PositionLayer, PositionsSpec};
use crate::cache::TensorCache;
use crate::named::{List, Named, side_by_side, unnamed_module};

/// Attention, whose queries may share keys and values.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Queries, keys and values: three layers, or one whose output holds them side by side.
    pub inputs: List<Named<Linear>>,
    /// What makes keys of distances, unless that is the layer of the keys.
    pub position_key: Option<Named<Linear>>,
    /// What makes queries of distances, unless that is the layer of the queries.
    pub position_query: Option<Named<Linear>>,
    /// Back to the hidden states.
    pub output: Named<Linear>,
    /// The norm of the heads of the queries.
    pub q_norm: Option<HeadNorm>,
    /// The norm of the heads of the keys.
    pub k_norm: Option<HeadNorm>,
    /// What it is.
    pub spec: AttentionSpec,
}

unnamed_module!(
    Attention,
    modules: [inputs, position_key, position_query, output, q_norm, k_norm],
    data: [spec]
);

impl Attention {
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        sequences: &Sequences,
        cache: Option<&mut TensorCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let ([q, k, v], terms) = self.q_k_v(x, sequences, context);
        let (k, v, segments) = match cache {
            None => (k, v, sequences.segments.clone()),
            Some(cache) => cache.append(k, v),
        };
        self.attended([q, k, v], terms, &segments, context)
    }

    /// How much each token looks at each, `[heads, N, N]`, if all tokens are one sequence.
    pub(crate) fn weights(
        &self,
        x: Tensor<2>,
        sequences: &Sequences,
        context: &ForwardContext,
    ) -> Option<Tensor<3>> {
        let segment = sequences.segments.first()?;
        let ([q, k, _], terms) = self.q_k_v(x, sequences, context);
        Some(attention_weights([q, k], terms, self.config(), segment))
    }

    /// Queries, keys and values with their norms and positions, and what else scores are made of.
    fn q_k_v(
        &self,
        x: Tensor<2>,
        sequences: &Sequences,
        context: &ForwardContext,
    ) -> ([Tensor<2>; 3], ScoreTerms) {
        if let Some(positions) = &self.spec.positions {
            return self.with_distances(x, positions, sequences, context);
        }
        let [mut q, mut k, v] = self.projections(x, context).map(|x| self.clipped(x));
        if let Some(norm) = &self.q_norm {
            q = norm.forward(q);
        }
        if let Some(norm) = &self.k_norm {
            k = norm.forward(k);
        }
        if let Some(index) = self.spec.rotary {
            let table = &sequences.rotary[index];
            (q, k) = (rotary(q, table), rotary(k, table));
        }
        let terms = ScoreTerms {
            bias: sequences.bias.clone(),
            ..ScoreTerms::default()
        };
        ([q, k, v], terms)
    }

    /// Queries, keys and values of tokens, and keys and queries of distances.
    fn with_distances(
        &self,
        x: Tensor<2>,
        positions: &PositionsSpec,
        sequences: &Sequences,
        context: &ForwardContext,
    ) -> ([Tensor<2>; 3], ScoreTerms) {
        let ([q, k, v], Some(distances)) = (&self.inputs[..], &sequences.distances) else {
            unreachable!("the description is checked when it is loaded")
        };
        let place = format!("{}.positions", self.output.path());
        let vectors = distances.vectors.clone();
        let vectors = dropped(vectors, positions.dropout, &place, context);
        let made =
            |layer: &Named<Linear>, of: &Option<PositionLayer>, own: &Option<Named<Linear>>| {
                let (of_tokens, of_distances) = match of {
                    // One input, so that a dropout of the layer's method draws for each row.
                    Some(PositionLayer::Shared) => {
                        let ([n, _], [rows, _]) = (x.dims(), vectors.dims());
                        let joined = Tensor::cat(vec![x.clone(), vectors.clone()], 0);
                        let joined = layer.forward(joined, context);
                        (
                            joined.clone().narrow(0, 0, n),
                            Some(joined.narrow(0, n, rows)),
                        )
                    }
                    Some(PositionLayer::Own(_)) | None => {
                        let own = own.as_ref();
                        let of_distances = own.map(|own| own.forward(vectors.clone(), context));
                        (layer.forward(x.clone(), context), of_distances)
                    }
                };
                let by_distance = of_distances.map(|rows| embedding(rows, &distances.places));
                (of_tokens, by_distance)
            };
        let (q, queries) = made(q, &positions.queries, &self.position_query);
        let (k, keys) = made(k, &positions.keys, &self.position_key);
        let terms = ScoreTerms {
            bias: None,
            keys,
            queries,
        };
        ([q, k, v.forward(x.clone(), context)], terms)
    }

    /// Attends to a source, whose keys and values are kept where there is a cache.
    pub(crate) fn read(
        &self,
        x: Tensor<2>,
        source: &Source,
        cache: Option<&mut Option<[Tensor<2>; 2]>>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let [q, k, v] = &self.inputs[..] else {
            unreachable!("the layers are checked when they are loaded")
        };
        let states = || {
            let k = self.clipped(k.forward(source.states.clone(), context));
            let k = match &self.k_norm {
                Some(norm) => norm.forward(k),
                None => k,
            };
            let v = v.forward(source.states.clone(), context);
            [k, self.clipped(v)]
        };
        let [k, v] = match cache {
            None => states(),
            Some(kept) => kept.get_or_insert_with(states).clone(),
        };
        let q = self.clipped(q.forward(x, context));
        let q = match &self.q_norm {
            Some(norm) => norm.forward(q),
            None => q,
        };
        let terms = ScoreTerms::default();
        self.attended([q, k, v], terms, &source.segments, context)
    }

    fn attended(
        &self,
        inputs: [Tensor<2>; 3],
        terms: ScoreTerms,
        segments: &Segments,
        context: &ForwardContext,
    ) -> Tensor<2> {
        // Named apart from the layer, whose method may have a dropout of its own.
        let weights = format!("{}.weights", self.output.path());
        let dropout = context.dropout(self.spec.dropout.unwrap_or(0.0), &weights);
        let out = attention_with(inputs, terms, self.config(), segments, dropout);
        self.output.forward(out, context)
    }

    /// Queries, keys and values.
    fn projections(&self, x: Tensor<2>, context: &ForwardContext) -> [Tensor<2>; 3] {
        match &self.inputs[..] {
            [q, k, v] => [
                q.forward(x.clone(), context),
                k.forward(x.clone(), context),
                v.forward(x, context),
            ],
            [qkv] => {
                let joined = qkv.forward(x, context);
                if self.spec.grouped {
                    return self.ungrouped(joined);
                }
                side_by_side(self.spec.widths())
                    .map(|columns| joined.clone().narrow(1, columns.start, columns.len()))
            }
            others => unreachable!("{} layers are checked when they are loaded", others.len()),
        }
    }

    /// Keeps queries, keys or values within the bound, if there is one.
    fn clipped(&self, x: Tensor<2>) -> Tensor<2> {
        match self.spec.clip {
            Some(most) => x.clamp(-most, most),
            None => x,
        }
    }

    /// Queries, keys and values of what holds the heads in groups.
    fn ungrouped(&self, joined: Tensor<2>) -> [Tensor<2>; 3] {
        let AttentionSpec {
            n_heads,
            n_kv_heads: groups,
            head_dim,
            ..
        } = self.spec;
        let queries = n_heads / groups;
        let [n, _] = joined.dims();
        let joined = joined.reshape([n, groups, queries + 2, head_dim]);
        [(0, queries), (queries, 1), (queries + 1, 1)].map(|(first, heads)| {
            let part = joined.clone().narrow(2, first, heads);
            part.reshape([n, groups * heads * head_dim])
        })
    }

    /// Whether the weights are packed.
    pub(crate) fn is_packed(&self) -> bool {
        self.output.weight.as_packed().is_some()
    }

    fn config(&self) -> AttentionConfig {
        let spec = &self.spec;
        AttentionConfig {
            n_heads: spec.n_heads,
            n_kv_heads: spec.n_kv_heads,
            head_dim: spec.head_dim,
            scale: spec.scale as f32,
            causal: spec.causal,
            window: spec.window,
            soft_cap: spec.soft_cap.map(|cap| cap as f32),
        }
    }

    /// The whole block as one operation, if its weights are packed and the operation has all that it does.
    pub(crate) fn fused<'a>(
        &self,
        norms: &Norms,
        sequences: &'a Sequences,
        context: &ForwardContext,
    ) -> Option<AttentionBlock<'a>> {
        let spec = &self.spec;
        if !spec.fuses() || sequences.bias.is_some() || drops(spec.dropouts(), context) {
            return None;
        }
        let inputs = self.inputs.iter().map(|linear| linear.fused(context));
        Some(AttentionBlock {
            inputs: inputs.collect::<Option<_>>()?,
            grouped: spec.grouped,
            output: self.output.fused(context)?,
            norms: norms.fused(),
            q_norm: self.q_norm.as_ref().and_then(HeadNorm::fused),
            k_norm: self.k_norm.as_ref().and_then(HeadNorm::fused),
            config: self.config(),
            rotary: spec.rotary.map(|index| &sequences.rotary[index]),
            recompute: sequences.recompute,
        })
    }
}
