//! Grouped-query attention over packed documents, without a matrix of tokens by tokens.
//!
//! The forward pass goes over blocks of queries and keys with a running maximum and sum (Dao et
//! al., "FlashAttention-2", arXiv 2307.08691, algorithms 1 and 2); the backward pass computes the
//! probabilities of each block again from the saved logarithm of the sum. The query heads that
//! share a key head are stacked, so that one product serves them all.

mod backward;
mod decode;
mod forward;
mod transposed;

use crate::KernelError;
use crate::error::check_len;
use crate::isa::{Simd, Token, simd_entry};

pub(crate) use backward::backward_on;
pub(crate) use forward::forward_on;

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads, a multiple of `n_kv_heads`: query head `h` uses key head `h / (n_heads /
    /// n_kv_heads)`.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Numbers of one head.
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Whether query `i` of a segment sees the keys `0..=k_len - q_len + i` only, or all keys of
    /// the segment.
    pub causal: bool,
}

impl AttentionShape {
    /// Numbers of all query heads of a token.
    pub(crate) fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Numbers of all key heads of a token.
    pub(crate) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Query heads that share a key head.
    pub(crate) fn n_rep(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Keys that query `i` of `segment` sees.
    pub(crate) fn visible(&self, segment: &Segment, i: usize) -> usize {
        if self.causal {
            segment.k_len - segment.q_len + i + 1
        } else {
            segment.k_len
        }
    }

    fn check(&self) -> Result<(), KernelError> {
        for (name, value) in [
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
        ] {
            if value == 0 {
                return Err(KernelError::Zero { name });
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(KernelError::Heads {
                n_heads: self.n_heads,
                n_kv_heads: self.n_kv_heads,
            });
        }
        crate::error::elements("head", &[self.n_heads, self.head_dim]).map(|_| ())
    }
}

/// Queries and the keys that they may see, usually one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First query token.
    pub q_start: usize,
    /// Number of query tokens.
    pub q_len: usize,
    /// First key token.
    pub k_start: usize,
    /// Number of key tokens.
    pub k_len: usize,
}

impl Segment {
    /// A document whose queries and keys are the tokens `start..start + len`.
    pub fn document(start: usize, len: usize) -> Self {
        Self {
            q_start: start,
            q_len: len,
            k_start: start,
            k_len: len,
        }
    }
}

/// `out = softmax(scale q k') v` for each head and segment.
///
/// # Shapes
///
/// `q[Nq, n_heads * head_dim]`, `k[Nk, n_kv_heads * head_dim]`, `v` like `k`, `out` like `q`.
/// `lse[Nq, n_heads]` receives the logarithm of the sum of the exponentials of the scores, which
/// the backward pass needs. Queries of no segment get zeros, and minus infinity as `lse`; so do
/// queries whose segment has no key.
///
/// Segments may come in any order and share keys, but not queries.
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
/// [`KernelError::Zero`] and [`KernelError::Heads`] for the shape; [`KernelError::Length`];
/// [`KernelError::SegmentBounds`], [`KernelError::SegmentLengths`], [`KernelError::SegmentOverlap`].
///
/// # Cost
///
/// `4 head_dim` operations for each visible pair of query and key and each query head. Memory: a
/// few hundred KiB for each thread, and a transposed copy of the keys.
pub fn attention_forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: AttentionShape,
    segments: &[Segment],
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<(), KernelError> {
    let sorted = check_inputs(q, k, v, shape, segments, lse.len())?;
    check_len("out", out, &[q.len()])?;
    forward_on(Token::current(), q, k, v, shape, &sorted, out, lse)
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
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) -> Result<(), KernelError> {
    let AttentionSaved { q, k, v, .. } = saved;
    let sorted = check_inputs(q, k, v, shape, segments, saved.lse.len())?;
    check_overlap(segments, "key", |segment| (segment.k_start, segment.k_len))?;
    check_len("out", saved.out, &[q.len()])?;
    check_len("dout", saved.dout, &[q.len()])?;
    check_len("dq", dq, &[q.len()])?;
    check_len("dk", dk, &[k.len()])?;
    check_len("dv", dv, &[v.len()])?;
    backward_on(Token::current(), saved, shape, &sorted, dq, dk, dv)
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
    for (index, segment) in segments.iter().enumerate() {
        let q_end = segment.q_start.saturating_add(segment.q_len);
        let k_end = segment.k_start.saturating_add(segment.k_len);
        if q_end > n_queries || k_end > n_keys {
            return Err(KernelError::SegmentBounds {
                index,
                q_end,
                k_end,
                n_queries,
                n_keys,
            });
        }
        if shape.causal && segment.q_len > segment.k_len {
            return Err(KernelError::SegmentLengths {
                index,
                q_len: segment.q_len,
                k_len: segment.k_len,
            });
        }
    }
    check_overlap(segments, "query", |segment| {
        (segment.q_start, segment.q_len)
    })?;
    let mut sorted: Vec<Segment> = segments
        .iter()
        .copied()
        .filter(|segment| segment.q_len > 0 && segment.k_len > 0)
        .collect();
    sorted.sort_by_key(|segment| segment.q_start);
    Ok(sorted)
}

/// Refuses segments whose ranges meet.
fn check_overlap(
    segments: &[Segment],
    what: &'static str,
    range: impl Fn(&Segment) -> (usize, usize),
) -> Result<(), KernelError> {
    let mut order: Vec<usize> = (0..segments.len())
        .filter(|&index| range(&segments[index]).1 > 0)
        .collect();
    order.sort_by_key(|&index| range(&segments[index]));
    for pair in order.windows(2) {
        let (start, len) = range(&segments[pair[0]]);
        let position = range(&segments[pair[1]]).0;
        if position < start + len {
            return Err(KernelError::SegmentOverlap {
                first: pair[0],
                second: pair[1],
                what,
                position,
            });
        }
    }
    Ok(())
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

/// Which columns of a block of scores a row sees: those before a border that moves with the token.
#[derive(Clone, Copy)]
struct Mask {
    /// Keys that the first token sees, counted from the start of the segment.
    first: usize,
    /// By how many keys each next token sees more: 1 if causal.
    step: usize,
    n_rep: usize,
    /// First key of the block.
    k_block: usize,
}

impl Mask {
    fn new(shape: &AttentionShape, segment: &Segment, first_query: usize, k_block: usize) -> Self {
        Self {
            first: shape.visible(segment, first_query),
            step: usize::from(shape.causal),
            n_rep: shape.n_rep(),
            k_block,
        }
    }

    /// Columns that a row sees; may be more than the block has.
    #[inline(always)]
    fn visible(&self, row: usize) -> usize {
        (self.first + self.step * (row / self.n_rep)).saturating_sub(self.k_block)
    }
}

/// Copies tokens of the query heads of key head `head` from a matrix like `q` and multiplies them:
/// row `token * n_rep + rep` of the result is one head of one token.
fn gather_heads(
    token: Token,
    source: &[f32],
    shape: &AttentionShape,
    tokens: std::ops::Range<usize>,
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
