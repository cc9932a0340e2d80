//! Grouped-query attention within document bounds.

use burn::backend::flex::FlexTensor;
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
    attention_with([q, k, v], ScoreTerms::default(), config, segments, dropout)
}

/// What is added to the scaled scores, before a soft cap and the mask:
///
/// ```text
/// score_ij = scale * (q_i . k_j + q_i . keys[t] + k_j . queries[t]) + bias[h, t]        t = R + j - p_i
/// ```
///
/// where `p_i` is the position of query `i` among the keys of its segment, the last query being at that of the last key. What is
/// missing adds nothing.
///
/// # References
///
/// Raffel et al., *Exploring the Limits of Transfer Learning* (arXiv 1910.10683), section 2.1: the bias. He et al., *DeBERTa:
/// Decoding-enhanced BERT with Disentangled Attention* (arXiv 2006.03654), equation 4: keys and queries of positions.
#[derive(Debug, Clone, Default)]
pub struct ScoreTerms {
    /// By head and distance, `[n_heads, 2 R + 1]`.
    pub bias: Option<Tensor<2>>,
    /// What queries are multiplied with by distance, `[2 R + 1, n_heads * head_dim]`.
    pub keys: Option<Tensor<2>>,
    /// What keys are multiplied with by distance, `[2 R + 1, n_heads * head_dim]`.
    pub queries: Option<Tensor<2>>,
}

impl ScoreTerms {
    /// All that there is.
    fn tensors(&self) -> impl Iterator<Item = &Tensor<2>> {
        let Self {
            bias,
            keys,
            queries,
        } = self;
        bias.iter().chain(keys).chain(queries)
    }
}

/// As [`attention_with_dropout`], with [terms](ScoreTerms) that are added to the scores.
///
/// # Shapes
///
/// - q, k, v, output: those of [`attention`]
/// - terms: `R` at least the keys of the longest segment less one
///
/// # Cost
///
/// That of [`attention`], and for a bias an addition for each pair of query and key and each head; for either kind of positions up to
/// three times the product of queries and keys, and no memory that grows with the pairs. Terms are kept for the backward pass.
///
/// # Panics
///
/// Panics unless `0 <= p < 1`, if a term reaches less far, if a segment has more queries than keys, and if query heads share key
/// heads where there are positions.
pub fn attention_with(
    [q, k, v]: [Tensor<2>; 3],
    terms: ScoreTerms,
    config: AttentionConfig,
    segments: &Segments,
    dropout: Option<(f32, DropoutKey)>,
) -> Tensor<2> {
    let dropout = dropout.filter(|(p, _)| *p > 0.0);
    let is_native = [&q, &k, &v]
        .into_iter()
        .chain(terms.tensors())
        .all(native::is_native);
    if !is_native {
        return reference::attention_with([q, k, v], terms, config, segments, dropout);
    }
    let dropout = dropout.map(|dropout| Kept::new(&config, segments, dropout));
    let (q_dims, k_dims) = (q.dims(), k.dims());
    let mut operation = Operation::default();
    let [q, k, v] = [q, k, v].map(|tensor| operation.input(tensor));
    let terms = Terms::new(terms, &mut operation);
    let mut out = vec![0.0; q_dims[0] * q_dims[1]];
    let mut lse = vec![0.0; q_dims[0] * config.n_heads];
    profile::measure(Work::Attention, 0.0, || {
        let [q, k, v] = [&q, &k, &v].map(values);
        let shape = config.shape();
        let dropout = dropout.as_ref().map(Kept::kernel);
        native::run(kernels::attention_forward_with(
            q,
            k,
            v,
            terms.kernel(),
            shape,
            segments,
            dropout,
            &mut out,
            &mut lse,
        ));
    });
    let out = from_values(out, q_dims);
    let segments = segments.clone();
    operation.output(out.clone(), move |dout, [_, _, _, bias, keys, queries]| {
        let dims = [q_dims, k_dims, k_dims];
        let mut gradients = dims.map(|[rows, cols]| vec![0.0; rows * cols]);
        let mut of_terms = terms.gradients([bias, keys, queries]);
        profile::measure(Work::Attention, 0.0, || {
            let saved = kernels::AttentionSaved {
                q: values(&q),
                k: values(&k),
                v: values(&v),
                out: values(&out),
                lse: &lse,
                dout: values(&dout),
            };
            let dropout = dropout.as_ref().map(Kept::kernel);
            let [bias, keys, queries] = of_terms.each_mut().map(Option::as_deref_mut);
            let of_terms = kernels::TermGradients {
                bias,
                keys,
                queries,
            };
            native::run(kernels::attention_backward_with(
                saved,
                terms.kernel(),
                config.shape(),
                &segments,
                dropout,
                gradients.each_mut().map(|of| &mut of[..]),
                of_terms,
            ));
        });
        let [dq, dk, dv] = gradients;
        let [dq, dk, dv] = [(dq, q_dims), (dk, k_dims), (dv, k_dims)]
            .map(|(gradient, dims)| Some(from_values(gradient, dims)));
        let [bias, keys, queries] = terms.tensors(of_terms);
        [dq, dk, dv, bias, keys, queries]
    })
}

/// [`ScoreTerms`] as an operation holds them, with their shapes.
struct Terms([Option<(FlexTensor, [usize; 2])>; 3]);

impl Terms {
    fn new(terms: ScoreTerms, operation: &mut Operation) -> Self {
        Self([terms.bias, terms.keys, terms.queries].map(|of| {
            let dims = of.as_ref().map(Tensor::dims);
            operation.optional_input(of).zip(dims)
        }))
    }

    fn kernel(&self) -> kernels::AttentionTerms<'_> {
        let [bias, keys, queries] = &self.0;
        let bias = bias
            .as_ref()
            .map(|(of, [_, width])| kernels::AttentionBias {
                values: values(of),
                reach: width / 2,
            });
        let mut rows = keys.iter().chain(queries).map(|(_, [rows, _])| rows / 2);
        let [keys, queries] = [keys, queries].map(|of| of.as_ref().map(|(of, _)| values(of)));
        let positions = rows.next().map(|reach| kernels::AttentionPositions {
            keys,
            queries,
            reach,
        });
        kernels::AttentionTerms { bias, positions }
    }

    /// Room for the gradients that are wanted.
    fn gradients(&self, wanted: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let mut wanted = wanted.into_iter();
        self.0.each_ref().map(|of| {
            let is_wanted = wanted.next() == Some(true);
            let (_, [rows, cols]) = of.as_ref().filter(|_| is_wanted)?;
            Some(vec![0.0; rows * cols])
        })
    }

    fn tensors(&self, gradients: [Option<Vec<f32>>; 3]) -> [Option<FlexTensor>; 3] {
        let mut dims = self.0.iter().map(|of| of.as_ref().map(|(_, dims)| *dims));
        gradients.map(|gradient| {
            let dims = dims.next().flatten();
            gradient.zip(dims).map(|(of, dims)| from_values(of, dims))
        })
    }
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
