//! Attention over bf16 rows.

mod backward;
mod elements;
mod forward;
mod gather;
mod gradients;
mod scratch;

use super::shape::{AttentionShape, Segment, check_keys, sort_segments};
use crate::error::check_len;
use crate::gated::check_strided;
use crate::isa::{LANES, Token};
use crate::{Bf16, KernelError};

use scratch::with_plan;
use std::ops::Range;

/// Keys that are worked through before the next rows: with 64 numbers a head, keys and values in all
/// their orders take 96 KiB, which the second cache holds beside what belongs to the rows.
const KEY_BLOCK: usize = 256;

/// Groups of [`LANES`] keys of a block.
const KEY_GROUPS: usize = KEY_BLOCK / LANES;

/// Writes which keys the rows `rows` see; what is left of `bounds` becomes those of the last.
fn fill_bounds(
    shape: &AttentionShape,
    segment: &Segment,
    rows: &Range<usize>,
    bounds: &mut [[usize; 2]],
) {
    let n_rep = shape.n_rep();
    for (row, bounds) in rows.clone().zip(&mut *bounds) {
        let Range { start, end } = shape.visible(segment, row / n_rep);
        *bounds = [start, end];
    }
    if let Some(last) = rows.len().checked_sub(1) {
        let last = bounds[last];
        bounds[rows.len()..].fill(last);
    }
}

/// The keys `start..end` that lie in `block`, counted from its start; an empty range may lie anywhere
/// in it.
#[inline(always)]
fn clipped([start, end]: [usize; 2], block: &Range<usize>) -> Range<usize> {
    let end = end.clamp(block.start, block.end) - block.start;
    let start = start.clamp(block.start, block.end) - block.start;
    start.min(end)..end
}

/// `lanes` counted from the first lane of the groups `groups`.
#[inline(always)]
fn lanes_of(lanes: Range<usize>, groups: &Range<usize>) -> Range<usize> {
    let from = groups.start * LANES;
    lanes.start.saturating_sub(from)..lanes.end.saturating_sub(from)
}

/// The groups in which some keys lie.
#[inline(always)]
fn groups_of(keys: Range<usize>) -> Range<usize> {
    if keys.is_empty() {
        return 0..0;
    }
    keys.start / LANES..keys.end.div_ceil(LANES)
}

/// Rows of numbers, of bf16 where nothing else is said, that lie in a wider buffer, such as the
/// queries of `[N, q | k | v]`.
///
/// Row `i` begins at `i * row_stride`. A row of queries has `n_heads * head_dim` numbers, one of keys
/// or values `n_kv_heads * head_dim`; the slice may end after those of the last row.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T = Bf16> {
    /// The numbers, from the first of the first row on.
    pub values: &'a [T],
    /// Numbers between the beginnings of two rows.
    pub row_stride: usize,
}

impl Rows<'_> {
    /// Rows of `width` numbers that the slice holds.
    fn count(&self, width: usize) -> Result<usize, KernelError> {
        if self.row_stride == 0 {
            return Err(KernelError::Zero { name: "row_stride" });
        }
        let beyond = self.values.len().checked_sub(width);
        Ok(beyond.map_or(0, |beyond| beyond / self.row_stride + 1))
    }
}

/// `out = softmax(scale q k') v` for each head and segment, over bf16 numbers.
///
/// # Shapes
///
/// `q[Nq, n_heads * head_dim]`, `k[Nk, n_kv_heads * head_dim]`, `v` like `k`, each in rows of a
/// stride of its own; `out[Nq, n_heads * head_dim]` without gaps; `lse[Nq, n_heads]` receives the
/// logarithm of the sum of the exponentials of the scores. `Nq` is `lse.len() / n_heads`, `Nk` the
/// number of rows that both `k` and `v` hold. Queries of no segment get zeros, and minus infinity as
/// `lse`; so do queries whose segment has no key.
///
/// Segments may come in any order and share keys, but not queries. Segments of few queries over
/// many keys are divided by their keys among the threads; those of one query, as in decoding, read
/// keys and values where they are.
///
/// # Numerics
///
/// Scores, the statistics of the softmax and all sums are `f32`. Probabilities, relative to the
/// greatest score of their row so far, are rounded to bf16 as factors of the values; the sum that
/// they are divided by is that of the numbers before this rounding. Those of a segment of one query
/// are not rounded. `out` is rounded once. With
/// inputs of size one an error of `out` is about 2^-8 of the greatest value from the probabilities
/// and 2^-8 of itself from its own rounding; `lse` has the error of `f32` sums. Subnormal numbers
/// may count as zero, see [`packed`](crate::packed).
///
/// A score of NaN or plus infinity makes the output of its query and head NaN, and so does a row of
/// which all scores are minus infinity. Values are multiplied by probabilities, zero ones too: NaN
/// in `v` reaches all queries that see it, and may reach queries next to them that do not.
///
/// The bits depend on the shapes, the segments and the instruction set, not on the number of
/// threads.
///
/// # Errors
///
/// [`KernelError::Zero`], [`KernelError::NotPositive`] and [`KernelError::Heads`] for the shape;
/// [`KernelError::Zero`] for a row stride; [`KernelError::Length`]; [`KernelError::View`] if `q` does
/// not hold `Nq` rows; [`KernelError::SegmentBounds`], [`KernelError::SegmentLengths`],
/// [`KernelError::SegmentOverlap`].
///
/// # Cost
///
/// `4 head_dim` operations for each visible pair of query and key and each query head; with a window
/// what lies outside is not computed, but for blocks of 16 keys at its borders. Buffers belong to the
/// threads and are used again: about 1 MiB for each, and some lines for each range of keys in
/// decoding.
pub fn attention_forward_bf16(
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    shape: AttentionShape,
    segments: &[Segment],
    out: &mut [Bf16],
    lse: &mut [f32],
) -> Result<(), KernelError> {
    with_plan(|plan| {
        let (n_queries, n_keys) = check_rows(q, k, v, &shape, lse.len())?;
        check_len("out", out, &[n_queries, shape.q_width()])?;
        sort_segments(&shape, segments, n_queries, n_keys, &mut plan.segments)?;
        forward::forward(Token::current(), [q, k, v], &shape, plan, out, lse);
        Ok(())
    })
}

/// What [`attention_backward_bf16`] reads.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSavedBf16<'a> {
    /// Queries of the forward pass.
    pub q: Rows<'a>,
    /// Keys of the forward pass.
    pub k: Rows<'a>,
    /// Values of the forward pass.
    pub v: Rows<'a>,
    /// Output of the forward pass.
    pub out: &'a [Bf16],
    /// `lse` of the forward pass.
    pub lse: &'a [f32],
    /// Gradient of the output, without gaps as the output.
    pub dout: &'a [Bf16],
}

/// Where [`attention_backward_bf16`] writes: three gradients in the columns of one buffer.
#[derive(Debug)]
pub struct QkvGradient<'a> {
    /// The buffer; row `i` begins at `i * row_stride`.
    pub values: &'a mut [Bf16],
    /// Numbers between the beginnings of two rows.
    pub row_stride: usize,
    /// First column of the gradient of the queries.
    pub q_at: usize,
    /// First column of the gradient of the keys.
    pub k_at: usize,
    /// First column of the gradient of the values.
    pub v_at: usize,
}

/// The gradients of [`attention_forward_bf16`]. With `p = exp(scale q k' - lse)` and, for each query
/// and head, `delta = sum(dout * out)`:
///
/// ```text
/// dv = p' dout,   ds = p * (dout v' - delta),   dq = scale ds k,   dk = scale ds' q
/// ```
///
/// With a soft cap, `ds` is multiplied by the derivative of the cap.
///
/// # Shapes
///
/// Those of the forward pass; `out` and `dout` are `[Nq, n_heads * head_dim]` without gaps. The
/// gradient has `Nq` rows of queries and `Nk` rows of keys and values, all overwritten; other columns
/// stay as they are. Tokens of no segment get zeros. Segments must share neither queries nor keys.
///
/// # Numerics
///
/// `p` and `ds` are computed in `f32` and rounded to bf16 as factors; all three gradients are summed
/// in `f32` and rounded once. Their errors are about 2^-8 of the greatest terms. NaN in a query, a
/// key, a value or an output gradient reaches what sees it, and may reach tokens next to that.
///
/// # Errors
///
/// Those of [`attention_forward_bf16`]; [`KernelError::View`] if a gradient reaches beyond the buffer,
/// [`KernelError::OverlappingView`] if it reaches beyond a row, [`KernelError::ColumnsOverlap`] if two
/// gradients share columns.
///
/// # Cost
///
/// `10 head_dim` operations for each visible pair and query head. Buffers belong to the threads and
/// are used again: for each thread about 1 MiB and, in `f32`, the gradient of the queries of one
/// segment and group of heads; where a few long segments are cut to keep many threads busy, up to
/// four times the gradient of the queries in `f32` on the thread that calls.
pub fn attention_backward_bf16(
    saved: AttentionSavedBf16<'_>,
    shape: AttentionShape,
    segments: &[Segment],
    gradient: QkvGradient<'_>,
) -> Result<(), KernelError> {
    with_plan(|plan| {
        let AttentionSavedBf16 { q, k, v, .. } = saved;
        let (n_queries, n_keys) = check_rows(q, k, v, &shape, saved.lse.len())?;
        check_len("out", saved.out, &[n_queries, shape.q_width()])?;
        check_len("dout", saved.dout, &[n_queries, shape.q_width()])?;
        check_gradient(&gradient, &shape, n_queries, n_keys)?;
        check_keys(segments, &mut plan.by_keys)?;
        sort_segments(&shape, segments, n_queries, n_keys, &mut plan.segments)?;
        backward::backward(
            Token::current(),
            &saved,
            &shape,
            plan,
            gradient,
            [n_queries, n_keys],
        );
        Ok(())
    })
}

/// Checks the shape and the inputs; returns the numbers of queries and keys.
fn check_rows(
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    shape: &AttentionShape,
    lse_len: usize,
) -> Result<(usize, usize), KernelError> {
    shape.check()?;
    let n_queries = lse_len / shape.n_heads;
    if !lse_len.is_multiple_of(shape.n_heads) {
        return Err(KernelError::Length {
            name: "lse",
            expected: n_queries * shape.n_heads,
            found: lse_len,
        });
    }
    if q.count(shape.q_width())? < n_queries {
        return Err(KernelError::View {
            rows: n_queries,
            cols: shape.q_width(),
            row_stride: q.row_stride,
            col_stride: 1,
            found: q.values.len(),
        });
    }
    let n_keys = k.count(shape.kv_width())?.min(v.count(shape.kv_width())?);
    Ok((n_queries, n_keys))
}

fn check_gradient(
    gradient: &QkvGradient<'_>,
    shape: &AttentionShape,
    n_queries: usize,
    n_keys: usize,
) -> Result<(), KernelError> {
    let QkvGradient {
        values, row_stride, ..
    } = gradient;
    let parts = [
        ("dq", gradient.q_at, shape.q_width(), n_queries),
        ("dk", gradient.k_at, shape.kv_width(), n_keys),
        ("dv", gradient.v_at, shape.kv_width(), n_keys),
    ];
    for (name, at, width, rows) in parts {
        let cols = at
            .checked_add(width)
            .ok_or(KernelError::Overflow { name })?;
        if cols > *row_stride {
            return Err(KernelError::OverlappingView {
                rows,
                cols,
                row_stride: *row_stride,
                col_stride: 1,
            });
        }
        check_strided(name, values.len(), rows, cols, *row_stride)?;
    }
    for (i, first) in parts.iter().enumerate() {
        for second in &parts[i + 1..] {
            let columns = |part: &(_, usize, usize, _)| (part.1, part.1 + part.2);
            let (a, b) = (columns(first), columns(second));
            if a.0 < b.1 && b.0 < a.1 {
                return Err(KernelError::ColumnsOverlap {
                    first: first.0,
                    first_columns: a,
                    second: second.0,
                    second_columns: b,
                });
            }
        }
    }
    Ok(())
}
