//! The attention half of a decoder layer as one operation.

use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::Bf16;
use reparam_kernels::attention::{
    AttentionSavedBf16, QkvGradient, Rows, Segment, attention_backward_bf16, attention_forward_bf16,
};
use reparam_kernels::rotary::rotary_rows;

use super::block::{Block, apply};
use super::buffer::Buffer;
use super::norm::{FusedNorm, Norm};
use super::packed::FusedLinear;
use super::stack::{NODES, PartGradients, Stack};
use super::states;
use crate::native::{self, halves, halves_mut, primitive_and_node, run};
use crate::profile::{self, Work};
use crate::{AttentionConfig, RotaryTable, Segments};

/// A self-attention block with rotary positions.
#[derive(Debug, Clone)]
pub struct AttentionBlock<'a> {
    /// The normalization before it.
    pub norm: FusedNorm,
    /// Queries; shares a stack with `k` and `v`.
    pub q: FusedLinear,
    /// Keys.
    pub k: FusedLinear,
    /// Values.
    pub v: FusedLinear,
    /// Back to the width of the hidden states.
    pub o: FusedLinear,
    /// The heads.
    pub config: AttentionConfig,
    /// The angles of the tokens' positions.
    pub rotary: &'a RotaryTable,
    /// Whether the backward pass computes the activations again instead of keeping them.
    pub recompute: bool,
}

/// Applies an attention block to bf16 hidden states, each segment by itself.
///
/// ```text
/// x       = norm(h)
/// q, k, v = rotary(q(x)), rotary(k(x)), v(x)
/// h'      = h + o(attention(q, k, v))
/// ```
///
/// # Shapes
///
/// - h, output: `[N, d]`, bf16
///
/// # Gradients
///
/// For `h`, the low-rank factors, scales and biases; weights and the norm are frozen.
///
/// # Numerics
///
/// What lies in memory between two steps is bf16, sums are `f32`; the residual is added before the rounding.
///
/// # Cost
///
/// Keeps `h`, the attention's output, and a few numbers a token and head; `x`, queries, keys and values are made again in
/// the backward pass, one product of the three of the block that read `x`. With `recompute` it keeps `h` alone and attends
/// once more, too.
pub fn attention_block(h: Tensor<2>, block: AttentionBlock<'_>, segments: &Segments) -> Tensor<2> {
    let recompute = block.recompute;
    let (core, nodes) = Core::new(block, segments.clone(), &h);
    apply::<_, { 1 + 4 * NODES }>(h, core, nodes, recompute)
}

/// The keys and values of the tokens of one sequence that a block has seen.
#[derive(Debug, Clone, Default)]
pub struct BlockCache {
    k: Vec<Bf16>,
    v: Vec<Bf16>,
    len: usize,
}

impl BlockCache {
    /// Returns how many tokens it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Applies an attention block to the next tokens of a sequence, which see those in the cache and those before them.
///
/// Adds their keys and values to the cache. Nothing is tracked; otherwise like [`attention_block`].
pub fn attention_block_cached(
    h: Tensor<2>,
    block: AttentionBlock<'_>,
    cache: &mut BlockCache,
) -> Tensor<2> {
    let autodiff = h.is_autodiff();
    let [n, _] = h.dims();
    let segment = Segment {
        q_start: 0,
        q_len: n,
        k_start: 0,
        k_len: cache.len + n,
    };
    let (core, _) = Core::new(block, Segments::from([segment]), &h);
    let (h, _) = primitive_and_node(h);
    let mut y = states::copy_of(&h);
    let inputs = core.inputs(halves(&h));
    let attended = core.attended(&inputs, Some(cache));
    core.o
        .forward(&attended.out, &attended.t_o, halves_mut(&mut y), true);
    native::untracked(y, autodiff)
}

/// The block on slices.
#[derive(Debug)]
struct Core {
    norm: Norm,
    qkv: Stack,
    o: Stack,
    config: AttentionConfig,
    rotary: RotaryTable,
    segments: Segments,
}

/// What comes before the scores.
struct Inputs {
    x: Buffer<Bf16>,
    inv_rms: Buffer<f32>,
    /// `x A'` of queries, keys and values.
    t: Buffer<Bf16>,
    /// Queries, keys and values side by side, turned.
    qkv: Buffer<Bf16>,
}

/// What comes of them.
#[derive(Debug)]
struct Attended {
    out: Buffer<Bf16>,
    lse: Buffer<f32>,
    /// `out A'` of the output layer.
    t_o: Buffer<Bf16>,
}

impl Core {
    fn new(block: AttentionBlock<'_>, segments: Segments, h: &Tensor<2>) -> (Self, Vec<NodeGuard>) {
        let (qkv, mut nodes) = Stack::new([block.q, block.k, block.v], h);
        let (o, o_nodes) = Stack::new([block.o], h);
        nodes.extend(o_nodes);
        let core = Self {
            norm: Norm::new(block.norm),
            qkv,
            o,
            config: block.config,
            rotary: block.rotary.clone(),
            segments,
        };
        (core, nodes)
    }

    fn inputs(&self, h: &[Bf16]) -> Inputs {
        let (x, inv_rms) = self.norm.forward(h);
        let t = self.qkv.project(&x);
        let mut qkv = self.qkv.output_buffer(self.norm.n_tokens(h));
        self.qkv.forward(&x, &t, &mut qkv, false);
        self.rotate(&mut qkv, false);
        Inputs { x, inv_rms, t, qkv }
    }

    /// With a cache, the tokens see what is in it, too.
    fn attended(&self, inputs: &Inputs, cache: Option<&mut BlockCache>) -> Attended {
        let n = inputs.inv_rms.len();
        let mut out = Buffer::dirty(n * self.o.d_in());
        let mut lse = Buffer::dirty(n * self.config.n_heads);
        let [q, k, v] = self.rows(&inputs.qkv);
        match cache {
            None => self.attend([q, k, v], &mut out, &mut lse),
            Some(cache) => {
                let width = self.config.n_kv_heads * self.config.head_dim;
                cache.append(k, v, width, n);
                let cached = |values| Rows {
                    values,
                    row_stride: width,
                };
                self.attend([q, cached(&cache.k), cached(&cache.v)], &mut out, &mut lse);
            }
        }
        let t_o = self.o.project(&out);
        Attended { out, lse, t_o }
    }

    fn attend(&self, [q, k, v]: [Rows<'_>; 3], out: &mut [Bf16], lse: &mut [f32]) {
        let shape = self.config.shape();
        let operations = 4.0 * self.n_scores() * self.config.head_dim as f64;
        profile::measure(Work::Attention, operations, || {
            run(attention_forward_bf16(
                q,
                k,
                v,
                shape,
                &self.segments,
                out,
                lse,
            ));
        });
    }

    /// Pairs of a query and a key that it sees, for all heads.
    fn n_scores(&self) -> f64 {
        let pairs: f64 = self
            .segments
            .iter()
            .map(|segment| {
                let (queries, keys) = (segment.q_len as f64, segment.k_len as f64);
                if self.config.causal {
                    queries * (keys - queries) + queries * (queries + 1.0) / 2.0
                } else {
                    queries * keys
                }
            })
            .sum();
        pairs * self.config.n_heads as f64
    }

    /// Turns queries and keys by their angles, or back.
    fn rotate(&self, qkv: &mut [Bf16], inverse: bool) {
        let AttentionConfig {
            n_heads,
            n_kv_heads,
            ..
        } = self.config;
        profile::measure(Work::Rotary, 0.0, || {
            for (part, n_heads) in [(0, n_heads), (1, n_kv_heads)] {
                let first = self.qkv.columns(part).start.min(qkv.len());
                run(rotary_rows(
                    &mut qkv[first..],
                    self.rotary.heads(n_heads, self.qkv.width()),
                    &self.rotary.cos,
                    &self.rotary.sin,
                    inverse,
                ));
            }
        });
    }

    /// Queries, keys and values in a buffer of the stack's outputs.
    fn rows<'a>(&self, qkv: &'a [Bf16]) -> [Rows<'a>; 3] {
        [0, 1, 2].map(|part| Rows {
            values: &qkv[self.qkv.columns(part).start.min(qkv.len())..],
            row_stride: self.qkv.width(),
        })
    }
}

impl Block for Core {
    type Kept = Attended;

    fn is_trained(&self) -> bool {
        self.qkv.is_trained() || self.o.is_trained()
    }

    fn forward(&self, h: &[Bf16], y: &mut [Bf16]) -> Attended {
        let inputs = self.inputs(h);
        let attended = self.attended(&inputs, None);
        drop(inputs);
        self.o.forward(&attended.out, &attended.t_o, y, true);
        attended
    }

    fn backward(
        &self,
        h: &[Bf16],
        kept: Option<Attended>,
        dy: &mut FlexTensor,
        wants_dh: bool,
    ) -> Vec<PartGradients> {
        // Kept, they would be a fifth of the memory of all activations; the product costs a twentieth of the step.
        let inputs = self.inputs(h);
        let Attended { out, lse, t_o } = kept.unwrap_or_else(|| self.attended(&inputs, None));
        let Inputs { x, inv_rms, t, qkv } = inputs;
        let mut dout = Buffer::dirty(out.len());
        let (g, mut o) = self.o.backward(halves(dy), &t_o, Some(&mut dout));
        self.o.input_gradients(&out, &g, &mut o);
        drop(g);

        let mut dqkv = self.qkv.output_buffer(inv_rms.len());
        let operations = 10.0 * self.n_scores() * self.config.head_dim as f64;
        profile::measure(Work::Attention, operations, || {
            let [q, k, v] = self.rows(&qkv);
            run(attention_backward_bf16(
                AttentionSavedBf16 {
                    q,
                    k,
                    v,
                    out: &out,
                    lse: &lse,
                    dout: &dout,
                },
                self.config.shape(),
                &self.segments,
                QkvGradient {
                    values: &mut dqkv,
                    row_stride: self.qkv.width(),
                    q_at: self.qkv.columns(0).start,
                    k_at: self.qkv.columns(1).start,
                    v_at: self.qkv.columns(2).start,
                },
            ));
        });
        drop((dout, qkv));
        self.rotate(&mut dqkv, true);

        let mut dx = wants_dh.then(|| Buffer::dirty(h.len()));
        let dx_out = dx.as_deref_mut();
        let (g, mut gradients) = self.qkv.backward(&dqkv, &t, dx_out);
        drop(dqkv);
        self.qkv.input_gradients(&x, &g, &mut gradients);
        if let Some(dx) = dx {
            self.norm.backward_add(&dx, h, &inv_rms, halves_mut(dy));
        }
        gradients.extend(o);
        gradients
    }
}

impl BlockCache {
    /// Adds the rows of `n` new tokens.
    fn append(&mut self, k: Rows<'_>, v: Rows<'_>, width: usize, n: usize) {
        for (cache, new) in [(&mut self.k, k), (&mut self.v, v)] {
            for row in new.values.chunks(new.row_stride).take(n) {
                cache.extend_from_slice(&row[..width]);
            }
        }
        self.len += n;
    }
}
