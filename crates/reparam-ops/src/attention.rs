//! Grouped-query attention within document bounds.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::attention as kernels;

use crate::Segments;
use crate::dropout::{self, DropoutKey};
use crate::native::{self, from_values, primitive_and_node, values};
use crate::profile::{self, Work};
use crate::reference;

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionConfig {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// What scores are multiplied by, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Whether a token sees only itself and what is before it.
    pub causal: bool,
    /// How many keys a query sees at most: with `causal` itself and those before it, else those less than this away.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
}

impl AttentionConfig {
    pub(crate) fn shape(&self) -> kernels::AttentionShape {
        kernels::AttentionShape {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            scale: self.scale,
            causal: self.causal,
            window: self.window,
            soft_cap: self.soft_cap,
        }
    }
}

/// Attends within each segment.
///
/// ```text
/// out_i = sum_j softmax_j(scale * q_i . k_j) v_j     over the keys j that query i may see
/// ```
///
/// A query sees the keys of its own segment only; with `causal`, the last query of a segment sees
/// all its keys, the one before all but the last, and so on. Query head `h` reads key head
/// `h / (n_heads / n_kv_heads)`.
///
/// # Shapes
///
/// - q, output: `[N_q, n_heads * head_dim]`
/// - k, v: `[N_k, n_kv_heads * head_dim]`
///
/// # Cost
///
/// Memory is linear in the number of tokens: no score matrix is ever formed. The backward pass
/// keeps `q`, `k`, `v`, the output and one number per token and head, and computes the scores
/// again.
///
/// # References
///
/// Dao, *FlashAttention-2* (arXiv 2307.08691), algorithms 1 and 2; Ainslie et al., *GQA*
/// (arXiv 2305.13245).
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    config: AttentionConfig,
    segments: &Segments,
) -> Tensor<2> {
    attention_with_dropout(q, k, v, config, segments, None)
}

/// As [`attention`], with the probability and the key of a dropout of the weights `softmax_j`: each becomes zero with
/// probability `p`, the others are divided by `1 - p`.
///
/// A weight's place in the mask is that of its segment, among these of its head, then of its query, then of its key.
///
/// # Cost
///
/// A bit for each query, key and head of a segment is kept for the backward pass.
///
/// # Panics
///
/// Panics unless `0 <= p < 1`.
pub fn attention_with_dropout(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    config: AttentionConfig,
    segments: &Segments,
    dropout: Option<(f32, DropoutKey)>,
) -> Tensor<2> {
    let dropout = dropout.filter(|(p, _)| *p > 0.0);
    if !native::is_native(&q) || !native::is_native(&k) || !native::is_native(&v) {
        return reference::attention_with_dropout(q, k, v, config, segments, dropout);
    }
    let dropout = dropout.map(|dropout| Kept::new(&config, segments, dropout));
    let q_dims = q.dims();
    let k_dims = k.dims();
    let is_tracked = q.is_tracked() || k.is_tracked() || v.is_tracked();
    let autodiff = q.is_autodiff() || k.is_autodiff() || v.is_autodiff();
    let (q, q_node) = primitive_and_node(q);
    let (k, k_node) = primitive_and_node(k);
    let (v, v_node) = primitive_and_node(v);
    let mut out = vec![0.0; q_dims[0] * q_dims[1]];
    let mut lse = vec![0.0; q_dims[0] * config.n_heads];
    profile::measure(Work::Attention, 0.0, || {
        native::run(kernels::attention_forward(
            values(&q),
            values(&k),
            values(&v),
            config.shape(),
            segments,
            dropout.as_ref().map(Kept::kernel),
            &mut out,
            &mut lse,
        ));
    });
    let out = from_values(out, q_dims);
    if !is_tracked {
        return native::untracked(out, autodiff);
    }
    let state = AttentionState {
        q,
        k,
        v,
        out: out.clone(),
        lse: from_values(lse, [q_dims[0], config.n_heads]),
        config,
        segments: segments.clone(),
        dropout,
        q_dims,
        k_dims,
    };
    native::tracked(AttentionBackward, [q_node, k_node, v_node], out, state)
}

/// What a dropout keeps.
#[derive(Debug, Clone)]
struct Kept {
    bits: Arc<[u64]>,
    factor: f32,
}

impl Kept {
    fn new(config: &AttentionConfig, segments: &Segments, (p, key): (f32, DropoutKey)) -> Self {
        let len = kernels::AttentionDropout::len(&config.shape(), segments);
        Self {
            bits: dropout::bits(len, p, key).into(),
            factor: dropout::factor(p),
        }
    }

    fn kernel(&self) -> kernels::AttentionDropout<'_> {
        kernels::AttentionDropout {
            kept: &self.bits,
            factor: self.factor,
        }
    }
}

#[derive(Debug)]
struct AttentionBackward;

#[derive(Debug, Clone)]
struct AttentionState {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    out: FlexTensor,
    lse: FlexTensor,
    config: AttentionConfig,
    segments: Segments,
    dropout: Option<Kept>,
    q_dims: [usize; 2],
    k_dims: [usize; 2],
}

impl Backward<Flex, 3> for AttentionBackward {
    type State = AttentionState;

    fn backward(self, ops: Ops<AttentionState, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<Flex>(&ops.node).to_contiguous();
        let state = ops.state;
        let mut dq = vec![0.0; state.q_dims[0] * state.q_dims[1]];
        let mut dk = vec![0.0; state.k_dims[0] * state.k_dims[1]];
        let mut dv = vec![0.0; state.k_dims[0] * state.k_dims[1]];
        profile::measure(Work::Attention, 0.0, || {
            native::run(kernels::attention_backward(
                kernels::AttentionSaved {
                    q: values(&state.q),
                    k: values(&state.k),
                    v: values(&state.v),
                    out: values(&state.out),
                    lse: values(&state.lse),
                    dout: values(&dout),
                },
                state.config.shape(),
                &state.segments,
                state.dropout.as_ref().map(Kept::kernel),
                &mut dq,
                &mut dk,
                &mut dv,
            ));
        });
        let gradients = [(dq, state.q_dims), (dk, state.k_dims), (dv, state.k_dims)];
        for (node, (gradient, dims)) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, from_values(gradient, dims));
            }
        }
    }
}
