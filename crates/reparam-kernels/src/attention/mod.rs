//! Grouped-query attention over packed documents, without a matrix of tokens by tokens.
//!
//! The forward pass goes over blocks of queries and keys with a running maximum and sum (Dao et
//! al., "FlashAttention-2", arXiv 2307.08691, algorithms 1 and 2); the backward pass computes the
//! probabilities of each block again from the saved logarithm of the sum. The query heads that
//! share a key head are stacked, so that one product serves them all.

mod backward;
mod bf16;
mod bias;
mod decode;
mod dropout;
mod forward;
mod positions;
mod shape;
mod soft_cap;
mod transposed;

use std::ops::Range;

use crate::KernelError;
use crate::error::check_len;
use crate::isa::{Simd, Token, simd_entry};

use bias::check_bias;
use positions::Positions;
use shape::{check_keys, sort_segments};
use soft_cap::SoftCap;

pub use bf16::{
    AttentionSavedBf16, QkvGradient, Rows, attention_backward_bf16, attention_forward_bf16,
};
pub use bias::AttentionBias;
pub use dropout::AttentionDropout;
pub use positions::AttentionPositions;
pub use shape::{AttentionShape, Segment};

#[cfg(test)]
pub(crate) use soft_cap::tanh;

/// `out = softmax(scale q k') v` for each head and segment, with the mask and the soft cap of
/// [`AttentionShape`].
///
/// # Shapes
///
/// `q[Nq, n_heads * head_dim]`, `k[Nk, n_kv_heads * head_dim]`, `v` like `k`, `out` like `q`.
/// `lse[Nq, n_heads]` receives the logarithm of the sum of the exponentials of the scores, which
/// the backward pass needs. Queries of no segment get zeros, and minus infinity as `lse`; so do
/// queries whose segment has no key.
///
/// Segments may come in any order and share keys, but not queries. `dropout` multiplies the probabilities.
///
/// # Numerics
///
/// A score of NaN or plus infinity makes the output of its query and head NaN, and so does a row of
/// which all scores are minus infinity. Values are multiplied by probabilities, zero ones too: NaN
/// in `v` reaches all queries of its block that come after it, and may reach earlier queries of
/// the block.
///
/// # Errors
///
/// [`KernelError::Zero`], [`KernelError::NotPositive`] and [`KernelError::Heads`] for the shape;
/// [`KernelError::Length`], also of a dropout that has not one bit for each probability;
/// [`KernelError::SegmentBounds`], [`KernelError::SegmentLengths`], [`KernelError::SegmentOverlap`].
///
/// # Cost
///
/// `4 head_dim` operations for each visible pair of query and key and each query head; blocks of 128
/// keys that no query of a block sees are left out. Memory: a few hundred KiB for each thread, and a transposed copy of the keys.
#[expect(
    clippy::too_many_arguments,
    reason = "inputs, what they mean, and outputs"
)]
pub fn attention_forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: AttentionShape,
    segments: &[Segment],
    dropout: Option<AttentionDropout<'_>>,
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<(), KernelError> {
    let sorted = check_inputs(q, k, v, shape, segments, lse.len())?;
    check_len("out", out, &[q.len()])?;
    let terms = Terms::default();
    forward::forward(q, k, v, shape, &sorted, &terms, dropout, out, lse)
}

/// What is added to the scaled scores, before a soft cap and the mask.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionTerms<'a> {
    /// By head and distance.
    pub bias: Option<AttentionBias<'a>>,
    /// By distance and what stands there.
    pub positions: Option<AttentionPositions<'a>>,
}

/// Where the gradients of [`AttentionTerms`] go, each like what it is of, overwritten. One that nobody wants may be missing, and has to
/// be where its term is.
#[derive(Debug, Default)]
pub struct TermGradients<'a> {
    /// That of the bias.
    pub bias: Option<&'a mut [f32]>,
    /// That of the keys of the positions.
    pub keys: Option<&'a mut [f32]>,
    /// That of their queries.
    pub queries: Option<&'a mut [f32]>,
}

/// As [`attention_forward`], with what is added to the scores.
///
/// # Errors
///
/// Those of [`attention_forward`]; [`KernelError::Length`] if a term is not as long as it says or reaches less far than the longest
/// segment, [`KernelError::SegmentLengths`] for a segment with more queries than keys, and [`KernelError::Heads`] for positions unless
/// each query head has a key head of its own.
///
/// # Cost
///
/// That of [`attention_forward`]. A bias: an addition for each pair and head. Either kind of positions: a product of the queries
/// or keys of a block with the vectors of all distances in it, which is up to three times the product of queries and keys; 240 KiB for each
/// thread, and a transposed copy of the positions' keys.
#[expect(
    clippy::too_many_arguments,
    reason = "inputs, what they mean, and outputs"
)]
pub fn attention_forward_with(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    terms: AttentionTerms<'_>,
    shape: AttentionShape,
    segments: &[Segment],
    dropout: Option<AttentionDropout<'_>>,
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<(), KernelError> {
    let sorted = check_inputs(q, k, v, shape, segments, lse.len())?;
    check_len("out", out, &[q.len()])?;
    let terms = Terms::new(terms, &shape, segments)?;
    forward::forward(q, k, v, shape, &sorted, &terms, dropout, out, lse)
}

/// [`AttentionTerms`] that are checked.
#[derive(Default)]
struct Terms<'a> {
    bias: Option<AttentionBias<'a>>,
    positions: Option<Positions<'a>>,
}

impl<'a> Terms<'a> {
    fn new(
        terms: AttentionTerms<'a>,
        shape: &AttentionShape,
        segments: &[Segment],
    ) -> Result<Self, KernelError> {
        if let Some(bias) = terms.bias {
            check_bias(bias, shape, segments)?;
        }
        let positions = terms.positions;
        let positions = positions.map(|positions| Positions::new(positions, shape, segments));
        Ok(Self {
            bias: terms.bias,
            positions: positions.transpose()?,
        })
    }

    /// How many numbers a task over so many rows of scores needs for them.
    fn scratch(&self, rows: usize) -> usize {
        match self.positions {
            Some(_) => (rows + BLOCK_KEYS) * rows.max(BLOCK_KEYS),
            None => 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.bias.is_none() && self.positions.is_none()
    }
}

/// What [`attention_backward`] reads.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSaved<'a> {
    /// Queries of the forward pass.
    pub q: &'a [f32],
    /// Keys of the forward pass.
    pub k: &'a [f32],
    /// Values of the forward pass.
    pub v: &'a [f32],
    /// Output of the forward pass.
    pub out: &'a [f32],
    /// `lse` of the forward pass.
    pub lse: &'a [f32],
    /// Gradient of the output.
    pub dout: &'a [f32],
}

/// The gradients of [`attention_forward`]. With `p = exp(scale q k' - lse)` and, for each query and
/// head, `delta = sum(dout * out)`:
///
/// ```text
/// dv = p' dout,   ds = p * (dout v' - delta),   dq = scale ds k,   dk = scale ds' q
/// ```
///
/// With a soft cap, `ds` is multiplied by the derivative of the cap; with the dropout of the forward pass, `dout v'` and the `p` of
/// `dv` are multiplied by its mask.
///
/// # Shapes
///
/// Those of the forward pass; `dq` like `q`, `dk` and `dv` like `k`, all overwritten. Tokens of no
/// segment get zeros. Segments must share neither queries nor keys.
///
/// # Errors
///
/// Those of [`attention_forward`].
///
/// # Cost
///
/// `10 head_dim` operations for each visible pair and query head. Memory: about the size of `dk`,
/// `dv` and one to four times `dq`, a few hundred KiB for each thread, and transposed copies of keys
/// and values.
pub fn attention_backward(
    saved: AttentionSaved<'_>,
    shape: AttentionShape,
    segments: &[Segment],
    dropout: Option<AttentionDropout<'_>>,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) -> Result<(), KernelError> {
    let sorted = check_saved(&saved, shape, segments, [&*dq, dk, dv])?;
    let terms = (&Terms::default(), TermGradients::default());
    backward::backward(saved, shape, &sorted, terms, dropout, [dq, dk, dv])
}

/// The gradients of [`attention_forward_with`]. With the `ds` of [`attention_backward`] and `t = reach + j - p_i`:
///
/// ```text
/// dbias_t    = sum of ds_ij over the pairs of distance t
/// dkeys_t    = scale sum of ds_ij q_i               dq_i += scale sum_j ds_ij keys_t
/// dqueries_t = scale sum of ds_ij k_j               dk_j += scale sum_i ds_ij queries_t
/// ```
///
/// # Shapes
///
/// Those of [`attention_backward`], and [`TermGradients`].
///
/// # Errors
///
/// Those of [`attention_forward_with`]; [`KernelError::Length`] for the gradient of a term that is not there.
///
/// # Cost
///
/// That of [`attention_backward`], and up to three times what the terms add to the forward pass. Memory: for each key, query head
/// and range of keys two numbers for a bias, `2 head_dim` for either gradient of positions.
pub fn attention_backward_with(
    saved: AttentionSaved<'_>,
    terms: AttentionTerms<'_>,
    shape: AttentionShape,
    segments: &[Segment],
    dropout: Option<AttentionDropout<'_>>,
    [dq, dk, dv]: [&mut [f32]; 3],
    dterms: TermGradients<'_>,
) -> Result<(), KernelError> {
    let sorted = check_saved(&saved, shape, segments, [&*dq, dk, dv])?;
    let bias = terms.bias.map(|bias| bias.values);
    let positions = terms.positions.map(|of| [of.keys, of.queries]);
    let [keys, queries] = positions.unwrap_or_default();
    for (name, of, gradient) in [
        ("dbias", bias, &dterms.bias),
        ("dkeys", keys, &dterms.keys),
        ("dqueries", queries, &dterms.queries),
    ] {
        if let Some(gradient) = gradient {
            check_len(name, gradient, &[of.map_or(0, <[f32]>::len)])?;
        }
    }
    let terms = Terms::new(terms, &shape, segments)?;
    backward::backward(
        saved,
        shape,
        &sorted,
        (&terms, dterms),
        dropout,
        [dq, dk, dv],
    )
}

/// Checks what the backward pass is given; returns the segments as [`check_inputs`] does.
fn check_saved(
    saved: &AttentionSaved<'_>,
    shape: AttentionShape,
    segments: &[Segment],
    [dq, dk, dv]: [&[f32]; 3],
) -> Result<Vec<Segment>, KernelError> {
    let AttentionSaved { q, k, v, .. } = *saved;
    let sorted = check_inputs(q, k, v, shape, segments, saved.lse.len())?;
    check_keys(segments, &mut Vec::new())?;
    check_len("out", saved.out, &[q.len()])?;
    check_len("dout", saved.dout, &[q.len()])?;
    check_len("dq", dq, &[q.len()])?;
    check_len("dk", dk, &[k.len()])?;
    check_len("dv", dv, &[v.len()])?;
    Ok(sorted)
}

/// Checks everything but the outputs; returns the segments with queries and keys, in the order of
/// the queries.
fn check_inputs(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: AttentionShape,
    segments: &[Segment],
    lse_len: usize,
) -> Result<Vec<Segment>, KernelError> {
    shape.check()?;
    let n_queries = q.len() / shape.q_width();
    let n_keys = k.len() / shape.kv_width();
    check_len("q", q, &[n_queries, shape.q_width()])?;
    check_len("k", k, &[n_keys, shape.kv_width()])?;
    check_len("v", v, &[n_keys, shape.kv_width()])?;
    let expected = n_queries * shape.n_heads;
    if lse_len != expected {
        return Err(KernelError::Length {
            name: "lse",
            expected,
            found: lse_len,
        });
    }
    let mut sorted = Vec::new();
    sort_segments(&shape, segments, n_queries, n_keys, &mut sorted)?;
    Ok(sorted)
}

/// Rows of one block of scores: query heads of a group times query tokens. With [`BLOCK_KEYS`]
/// columns the scores fill 96 KiB, which the second-level cache holds beside keys and values.
const BLOCK_ROWS: usize = 192;

/// Columns of one block of scores.
const BLOCK_KEYS: usize = 128;

/// Query tokens of one block.
fn block_queries(shape: &AttentionShape) -> usize {
    (BLOCK_ROWS / shape.n_rep()).max(8)
}

/// Which columns of a block of scores a row sees.
#[derive(Clone, Copy)]
struct Mask {
    shape: AttentionShape,
    segment: Segment,
    first_query: usize,
    /// First key of the block.
    k_block: usize,
}

impl Mask {
    /// Columns that a row sees, of a block of `keys`; an empty range may lie anywhere in it.
    #[inline(always)]
    fn visible(&self, row: usize, keys: usize) -> Range<usize> {
        let query = self.first_query + row / self.shape.n_rep();
        let Range { start, end } = self.shape.visible(&self.segment, query);
        let end = end.saturating_sub(self.k_block).min(keys);
        start.saturating_sub(self.k_block).min(end)..end
    }

    fn soft_cap(&self) -> Option<SoftCap> {
        self.shape.soft_cap.map(SoftCap::new)
    }
}

/// Copies tokens of the query heads of key head `head` from a matrix like `q` and multiplies them:
/// row `token * n_rep + rep` of the result is one head of one token.
fn gather_heads(
    token: Token,
    source: &[f32],
    shape: &AttentionShape,
    tokens: Range<usize>,
    head: usize,
    factor: f32,
    gathered: &mut [f32],
) {
    let group = shape.n_rep() * shape.head_dim;
    let source = &source[tokens.start * shape.q_width() + head * group..];
    let gathered = &mut gathered[..tokens.len() * group];
    gather_rows(token, source, shape.q_width(), group, factor, gathered);
}

simd_entry!(fn gather_rows<'a>(
    source: &'a [f32], stride: usize, width: usize, factor: f32, gathered: &'a mut [f32]
) = gather_rows_generic);

#[inline(always)]
fn gather_rows_generic<S: Simd>(
    _: S,
    source: &[f32],
    stride: usize,
    width: usize,
    factor: f32,
    gathered: &mut [f32],
) {
    for (source, gathered) in source.chunks(stride).zip(gathered.chunks_exact_mut(width)) {
        for (gathered, &source) in gathered.iter_mut().zip(&source[..width]) {
            *gathered = source * factor;
        }
    }
}
