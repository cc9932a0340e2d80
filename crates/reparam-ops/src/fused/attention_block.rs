//! The attention half of a layer as one operation.

use std::ops::Range;

use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;
use reparam_kernels::Bf16;
use reparam_kernels::attention::{
    AttentionSavedBf16, QkvGradient, Rows, Segment, attention_backward_bf16, attention_forward_bf16,
};
use reparam_kernels::rotary::rotary_rows;

use super::block::{Block, BlockGradients, INPUT_NODES, apply};
use super::buffer::Buffer;
use super::norm::{FusedNorm, NORM_NODES, Norm, NormGradients, Normed, Statistics};
use super::packed::FusedLinear;
use super::residual::{FusedNorms, Outputs, RESIDUAL_NODES, Residual};
use super::stack::{NODES, Stack};
use super::states;
use crate::native::{self, halves, halves_mut, primitive_and_node, run};
use crate::profile::{self, Work};
use crate::{AttentionConfig, RotaryTable, Segments};

/// A self-attention block.
#[derive(Debug, Clone)]
pub struct AttentionBlock<'a> {
    /// The norms around it.
    pub norms: FusedNorms,
    /// Queries, keys and values, which share a stack; or one layer whose output holds them side by side.
    pub inputs: Vec<FusedLinear>,
    /// Whether the output of that one layer holds, for each key head, its queries, its key and its value.
    pub grouped: bool,
    /// Back to the width of the hidden states.
    pub output: FusedLinear,
    /// The norm of each head of the queries, or of all of them if it is as wide.
    pub q_norm: Option<FusedNorm>,
    /// The norm of each head of the keys, or of all of them if it is as wide.
    pub k_norm: Option<FusedNorm>,
    /// The heads.
    pub config: AttentionConfig,
    /// The angles of the tokens' positions, if queries and keys are turned.
    pub rotary: Option<&'a RotaryTable>,
    /// Whether the backward pass computes the activations again instead of keeping them.
    pub recompute: bool,
}

/// Applies an attention block to bf16 hidden states, each segment by itself.
///
/// ```text
/// x       = before(h)
/// q, k, v = rotary(q_norm(q(x))), rotary(k_norm(k(x))), v(x)
/// h'      = after(h + factor * inside(output(attention(q, k, v))))
/// ```
///
/// # Shapes
///
/// - h, output: `[N, d]`, bf16
///
/// # Gradients
///
/// For `h`, the low-rank factors, scales and biases, and the norms; weights are frozen.
///
/// # Numerics
///
/// What lies in memory between two steps is bf16, sums are `f32`; the residual is added before the rounding, unless a norm or a
/// factor comes between.
///
/// # Cost
///
/// Keeps `h`, the attention's output, and a few numbers a token and head; `x`, queries, keys and values are made again in
/// the backward pass, one product of the three of the block that read `x`. With `recompute` it keeps `h` alone and attends
/// once more, too. A norm inside or after keeps its input.
///
/// # Panics
///
/// Panics when the inputs are not one layer or three, or anything else does not fit.
pub fn attention_block(h: Tensor<2>, block: AttentionBlock<'_>, segments: &Segments) -> Tensor<2> {
    /// Those of the inputs, the layer of the output and the norms.
    const REST: usize = INPUT_NODES + NODES + RESIDUAL_NODES + 2 * NORM_NODES;
    let h = (h, None);
    let recompute = block.recompute;
    let n_inputs = block.inputs.len();
    let (core, nodes) = Core::new(block, segments.clone());
    match n_inputs {
        1 => apply::<_, { REST + NODES }>(h, core, nodes, recompute),
        3 => apply::<_, { REST + 3 * NODES }>(h, core, nodes, recompute),
        _ => panic!("queries, keys and values are one layer or three"),
    }
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
    let (core, _) = Core::new(block, Segments::from([segment]));
    let (h, _) = primitive_and_node(h);
    let mut y = states::copy_of(&h);
    let inputs = core.inputs(halves(&h));
    let attended = core.attended(&inputs, Some(cache));
    core.output(&attended, halves_mut(&mut y));
    native::untracked(y, autodiff)
}

/// The block on slices.
#[derive(Debug)]
struct Core {
    residual: Residual,
    qkv: Stack,
    grouped: bool,
    o: Stack,
    /// The norms of the heads of queries and of keys.
    head_norms: [Option<Norm>; 2],
    config: AttentionConfig,
    rotary: Option<RotaryTable>,
    segments: Segments,
}

/// What comes before the scores.
struct Inputs<'a> {
    x: Normed<'a>,
    /// `x A'` of queries, keys and values.
    t: Buffer<Bf16>,
    /// Queries, keys and values side by side, normalized and turned.
    qkv: Buffer<Bf16>,
    /// Queries and keys before their norms, where they have some.
    raw: [Option<(Buffer<Bf16>, Statistics)>; 2],
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
    fn new(block: AttentionBlock<'_>, segments: Segments) -> (Self, Vec<Option<NodeGuard>>) {
        let (qkv, mut nodes) = Stack::new(block.inputs);
        let (o, o_nodes) = Stack::new(vec![block.output]);
        let (residual, residual_nodes) = Residual::new(block.norms);
        let (q_norm, q_nodes) = Norm::optional(block.q_norm);
        let (k_norm, k_nodes) = Norm::optional(block.k_norm);
        nodes.extend(o_nodes);
        nodes.extend(residual_nodes);
        nodes.extend(q_nodes);
        nodes.extend(k_nodes);
        let core = Self {
            residual,
            qkv,
            grouped: block.grouped,
            o,
            head_norms: [q_norm, k_norm],
            config: block.config,
            rotary: block.rotary.cloned(),
            segments,
        };
        (core, nodes)
    }

    /// The columns of queries, keys and values in the outputs of their stack.
    fn columns(&self) -> [Range<usize>; 3] {
        let AttentionConfig {
            n_heads,
            n_kv_heads,
            head_dim,
            ..
        } = self.config;
        let widths = [n_heads, n_kv_heads, n_kv_heads].map(|heads| heads * head_dim);
        let mut next = 0;
        let starts: [usize; 3] = std::array::from_fn(|part| match self.qkv.n_parts() {
            1 => {
                next += widths[part];
                next - widths[part]
            }
            _ => self.qkv.columns(part).start,
        });
        std::array::from_fn(|part| starts[part]..starts[part] + widths[part])
    }

    fn inputs<'a>(&self, h: &'a [Bf16]) -> Inputs<'a> {
        let x = self.residual.input(h);
        let t = self.qkv.project(&x);
        let mut qkv = self.qkv.output_buffer(h.len() / self.qkv.d_in());
        self.qkv.forward(&x, &t, &mut qkv, false);
        self.regroup(&mut qkv, false);
        let raw = self.normalize(&mut qkv);
        self.rotate(&mut qkv, false);
        Inputs { x, t, qkv, raw }
    }

    /// With a cache, the tokens see what is in it, too.
    fn attended(&self, inputs: &Inputs<'_>, cache: Option<&mut BlockCache>) -> Attended {
        let n = inputs.qkv.len() / self.qkv.width();
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

    /// Makes the block's output of `y`, which holds `h`.
    fn output(&self, attended: &Attended, y: &mut [Bf16]) -> Outputs {
        self.residual.output(y, |y, accumulate| {
            self.o.forward(&attended.out, &attended.t_o, y, accumulate);
        })
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
        let AttentionConfig {
            causal,
            window,
            n_heads,
            ..
        } = self.config;
        let pairs: f64 = self
            .segments
            .iter()
            .map(|segment| {
                let (queries, keys) = (segment.q_len as f64, segment.k_len as f64);
                // At most so many keys on one side, the query's own included.
                let window = window.map_or(keys, |window| (window as f64).min(keys));
                if causal {
                    let (first, last) = (keys - queries + 1.0, keys);
                    let growing = (last.min(window) - first + 1.0).max(0.0);
                    growing * (first + first + growing - 1.0) / 2.0 + (queries - growing) * window
                } else {
                    queries * (2.0 * window - 1.0).min(keys)
                }
            })
            .sum();
        pairs * n_heads as f64
    }

    /// Brings queries, keys and values that lie in groups side by side, or back.
    fn regroup(&self, qkv: &mut [Bf16], inverse: bool) {
        if !self.grouped {
            return;
        }
        let AttentionConfig {
            n_heads,
            n_kv_heads,
            head_dim,
            ..
        } = self.config;
        let queries = n_heads / n_kv_heads;
        // Where each head of the parts stands in the groups.
        let place = |part: usize| match part {
            query if query < n_heads => query / queries * (queries + 2) + query % queries,
            other => {
                let (which, group) = (
                    (other - n_heads) / n_kv_heads,
                    (other - n_heads) % n_kv_heads,
                );
                group * (queries + 2) + queries + which
            }
        };
        qkv.par_chunks_mut(self.qkv.width())
            .with_min_len(ROWS)
            .for_each_init(Vec::new, |from, row| {
                from.clear();
                from.extend_from_slice(row);
                for part in 0..n_heads + 2 * n_kv_heads {
                    let (part, group) = (part * head_dim, place(part) * head_dim);
                    let (to, at) = if inverse {
                        (group, part)
                    } else {
                        (part, group)
                    };
                    row[to..to + head_dim].copy_from_slice(&from[at..at + head_dim]);
                }
            });
    }

    /// Normalizes the heads of queries and keys that have a norm; returns what they were.
    fn normalize(&self, qkv: &mut [Bf16]) -> [Option<(Buffer<Bf16>, Statistics)>; 2] {
        let [q, k, _] = self.columns();
        let [q_norm, k_norm] = &self.head_norms;
        [(q, q_norm), (k, k_norm)].map(|(columns, norm)| {
            let norm = norm.as_ref()?;
            let raw = gather(qkv, self.qkv.width(), &columns);
            let (normed, statistics) = norm.forward(&raw);
            scatter(&normed, qkv, self.qkv.width(), &columns);
            Some((raw, statistics))
        })
    }

    /// Turns the gradients of normalized heads into those of what they were.
    fn normalize_backward(
        &self,
        dqkv: &mut [Bf16],
        raw: &[Option<(Buffer<Bf16>, Statistics)>; 2],
    ) -> [NormGradients; 2] {
        let [q, k, _] = self.columns();
        std::array::from_fn(|part| {
            let (Some(norm), Some((raw, statistics))) = (&self.head_norms[part], &raw[part]) else {
                return NormGradients::default();
            };
            let columns = [&q, &k][part];
            let dy = gather(dqkv, self.qkv.width(), columns);
            let mut dx = Buffer::dirty(dy.len());
            let gradients = norm.backward(&dy, raw, statistics, &mut dx);
            scatter(&dx, dqkv, self.qkv.width(), columns);
            gradients
        })
    }

    /// Turns queries and keys by their angles, or back.
    fn rotate(&self, qkv: &mut [Bf16], inverse: bool) {
        let Some(table) = &self.rotary else {
            return;
        };
        let [q, k, _] = self.columns();
        let AttentionConfig {
            n_heads,
            n_kv_heads,
            ..
        } = self.config;
        profile::measure(Work::Rotary, 0.0, || {
            for (columns, n_heads) in [(q, n_heads), (k, n_kv_heads)] {
                let first = columns.start.min(qkv.len());
                run(rotary_rows(
                    &mut qkv[first..],
                    table.heads(n_heads, self.qkv.width()),
                    &table.cos,
                    &table.sin,
                    inverse,
                ));
            }
        });
    }

    /// Queries, keys and values in a buffer of the stack's outputs.
    fn rows<'a>(&self, qkv: &'a [Bf16]) -> [Rows<'a>; 3] {
        self.columns().map(|columns| Rows {
            values: &qkv[columns.start.min(qkv.len())..],
            row_stride: self.qkv.width(),
        })
    }
}

/// Some columns of all rows, one after the other.
fn gather(rows: &[Bf16], width: usize, columns: &Range<usize>) -> Buffer<Bf16> {
    let mut gathered = Buffer::dirty(rows.len() / width * columns.len());
    gathered
        .par_chunks_mut(columns.len())
        .with_min_len(ROWS)
        .zip(rows.par_chunks(width))
        .for_each(|(to, row)| to.copy_from_slice(&row[columns.clone()]));
    gathered
}

/// The inverse of [`gather`].
fn scatter(gathered: &[Bf16], rows: &mut [Bf16], width: usize, columns: &Range<usize>) {
    gathered
        .par_chunks(columns.len())
        .with_min_len(ROWS)
        .zip(rows.par_chunks_mut(width))
        .for_each(|(from, row)| row[columns.clone()].copy_from_slice(from));
}

/// Rows that one task copies at least.
const ROWS: usize = 32;

impl Block for Core {
    type Kept = (Attended, Outputs);

    fn is_trained(&self) -> bool {
        let mut head_norms = self.head_norms.iter().flatten();
        self.qkv.is_trained()
            || self.o.is_trained()
            || self.residual.is_trained()
            || head_norms.any(Norm::is_tracked)
    }

    fn forward(&self, h: &[Bf16], y: &mut [Bf16]) -> (Attended, Outputs) {
        let inputs = self.inputs(h);
        let attended = self.attended(&inputs, None);
        drop(inputs);
        let outputs = self.output(&attended, y);
        (attended, outputs)
    }

    fn backward(
        &self,
        h: &[Bf16],
        kept: Option<(Attended, Outputs)>,
        dy: &mut FlexTensor,
        dh: Option<&mut FlexTensor>,
        wants_dh: bool,
    ) -> BlockGradients {
        // Kept, they would be a fifth of the memory of all activations; the product costs a twentieth of the step.
        let inputs = self.inputs(h);
        let (Attended { out, lse, t_o }, outputs) = kept.unwrap_or_else(|| {
            let attended = self.attended(&inputs, None);
            let outputs = match self.residual.needs_outputs() {
                true => self.output(&attended, &mut Buffer::copy_of(h)),
                false => Outputs::default(),
            };
            (attended, outputs)
        });
        let Inputs { x, t, qkv, raw } = inputs;
        let (dlayer, output_norms) = self.residual.output_gradient(&outputs, halves_mut(dy));
        drop(outputs);
        let mut dout = Buffer::dirty(out.len());
        let dlayer_rows = dlayer.as_deref().unwrap_or(halves(dy));
        let (g, mut o) = self.o.backward(dlayer_rows, &t_o, Some(&mut dout));
        self.o.input_gradients(&out, &g, &mut o);
        drop((g, dlayer));

        let mut dqkv = self.qkv.output_buffer(qkv.len() / self.qkv.width());
        let operations = 10.0 * self.n_scores() * self.config.head_dim as f64;
        profile::measure(Work::Attention, operations, || {
            let [q, k, v] = self.rows(&qkv);
            let [q_at, k_at, v_at] = self.columns().map(|columns| columns.start);
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
                    q_at,
                    k_at,
                    v_at,
                },
            ));
        });
        drop((dout, qkv));
        self.rotate(&mut dqkv, true);
        let head_norms = self.normalize_backward(&mut dqkv, &raw);
        drop(raw);
        self.regroup(&mut dqkv, true);

        let wants_dx = wants_dh || self.residual.wants_input_gradient();
        let dh = wants_dx.then(|| halves_mut(dh.unwrap_or(dy)));
        let (mut layers, before) =
            self.residual
                .backward_inputs(&self.qkv, dqkv, &t, (h, || x), dh);
        layers.extend(o);
        let [inside, after] = output_norms;
        let norms = [before, inside, after].into_iter().chain(head_norms);
        BlockGradients {
            layers,
            norms: norms.collect(),
        }
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
