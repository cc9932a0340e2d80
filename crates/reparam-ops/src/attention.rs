//! Grouped-query attention within document bounds.

use burn::tensor::Tensor;
use reparam_kernels::attention as kernels;

use crate::Segments;
use crate::dropout::{self, DropoutKey};
use crate::native::{self, Operation, from_values, values};
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
    let (q_dims, k_dims) = (q.dims(), k.dims());
    let mut operation = Operation::default();
    let [q, k, v] = [q, k, v].map(|tensor| operation.input(tensor));
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
    let segments = segments.clone();
    operation.output(out.clone(), move |dout, [_, _, _]| {
        let dims = [q_dims, k_dims, k_dims];
        let mut gradients = dims.map(|[rows, cols]| vec![0.0; rows * cols]);
        let [dq, dk, dv] = &mut gradients;
        profile::measure(Work::Attention, 0.0, || {
            native::run(kernels::attention_backward(
                kernels::AttentionSaved {
                    q: values(&q),
                    k: values(&k),
                    v: values(&v),
                    out: values(&out),
                    lse: &lse,
                    dout: values(&dout),
                },
                config.shape(),
                &segments,
                dropout.as_ref().map(Kept::kernel),
                dq,
                dk,
                dv,
            ));
        });
        let [dq, dk, dv] = gradients;
        [(dq, q_dims), (dk, k_dims), (dv, k_dims)]
            .map(|(gradient, dims)| Some(from_values(gradient, dims)))
    })
}

/// What a dropout keeps.
struct Kept {
    bits: Vec<u64>,
    factor: f32,
}

impl Kept {
    fn new(config: &AttentionConfig, segments: &Segments, (p, key): (f32, DropoutKey)) -> Self {
        let len = kernels::AttentionDropout::len(&config.shape(), segments);
        Self {
            bits: dropout::bits(len, p, key),
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
