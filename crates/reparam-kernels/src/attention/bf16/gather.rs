//! Rows in the order in which products read them.

use std::ops::Range;

use super::super::{AttentionShape, Segment};
use crate::Bf16;
use crate::isa::{LANES, Line, PairSimd};

/// Where the rows of one segment and one key head lie in a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The first number of the first row.
    pub(super) start: usize,
    /// Numbers between two tokens.
    pub(super) stride: usize,
    /// Rows of a token, one after another.
    pub(super) per_token: usize,
    /// Numbers of a row.
    pub(super) width: usize,
}

impl Place {
    /// Query heads of key head `head`.
    pub(super) fn queries(
        shape: &AttentionShape,
        segment: &Segment,
        head: usize,
        stride: usize,
    ) -> Self {
        Self {
            start: segment.q_start * stride + head * shape.n_rep() * shape.head_dim,
            stride,
            per_token: shape.n_rep(),
            width: shape.head_dim,
        }
    }

    /// Key head `head`.
    pub(super) fn keys(
        shape: &AttentionShape,
        segment: &Segment,
        head: usize,
        stride: usize,
    ) -> Self {
        Self {
            start: segment.k_start * stride + head * shape.head_dim,
            stride,
            per_token: 1,
            width: shape.head_dim,
        }
    }
}

/// Numbers of a row in a buffer: whole groups.
pub(super) fn padded(width: usize) -> usize {
    width.next_multiple_of(LANES)
}

/// Tokens that are asked for in advance.
const AHEAD: usize = 24;

/// Copies the rows `rows`, completes each to whole groups with zeros, and adds rows of zeros until
/// `to` is full.
#[inline(always)]
pub(super) fn copy_rows<S: PairSimd>(
    simd: S,
    from: &[Bf16],
    place: &Place,
    rows: Range<usize>,
    to: &mut [Bf16],
) {
    let width = place.width;
    let mut lines = to.chunks_exact_mut(padded(width));
    // Not `at` for each row: a division takes as long as the copy.
    let (mut token, mut rep) = (rows.start / place.per_token, rows.start % place.per_token);
    for to in lines.by_ref().take(rows.len()) {
        if rep == 0 {
            // Other heads lie between the rows of this one, so that nobody else asks in time.
            let ahead = place.start + (token + AHEAD) * place.stride;
            for number in (0..place.per_token * width).step_by(2 * LANES) {
                simd.prefetch(from.as_ptr().wrapping_add(ahead + number).cast());
            }
        }
        let from = &from[place.start + token * place.stride + rep * width..][..width];
        let (to, to_rest) = to.split_at_mut(width / LANES * LANES);
        let (from, from_rest) = from.split_at(to.len());
        let groups = from.as_chunks::<LANES>().0;
        for (to, from) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(groups) {
            *to = *from;
        }
        to_rest[..from_rest.len()].copy_from_slice(from_rest);
        to_rest[from_rest.len()..].fill(Bf16::ZERO);
        rep += 1;
        if rep == place.per_token {
            (token, rep) = (token + 1, 0);
        }
    }
    for to in lines {
        to.fill(Bf16::ZERO);
    }
}

/// Puts rows of `width` numbers, an even number of them, into panels whose pairs are neighbouring
/// rows: line `p` of panel `j` is `lines[j * panel_stride + p]`.
#[inline(always)]
pub(super) fn pack_along_rows<S: PairSimd>(
    simd: S,
    rows: &[Bf16],
    width: usize,
    lines: &mut [Line],
    panel_stride: usize,
) {
    for (pair, rows) in rows.chunks_exact(2 * width).enumerate() {
        let (first, second) = rows.split_at(width);
        let groups = first.as_chunks().0.iter().zip(second.as_chunks().0);
        for (panel, (first, second)) in groups.enumerate() {
            lines[panel * panel_stride + pair] = simd.interleave(first, second);
        }
    }
}

/// Puts rows of `width` numbers, a multiple of [`LANES`] of them, into panels of [`LANES`] rows whose
/// pairs are the first `pairs` pairs of each row: line `p` of panel `j` is `lines[j * pairs + p]`.
#[inline(always)]
pub(super) fn pack_along_width<S: PairSimd>(
    simd: S,
    rows: &[Bf16],
    width: usize,
    lines: &mut [Line],
    pairs: usize,
) {
    let panels = lines.chunks_exact_mut(pairs);
    for (rows, lines) in rows.chunks_exact(LANES * width).zip(panels) {
        let (squares, rest) = lines.as_chunks_mut::<LANES>();
        for (square, lines) in squares.iter_mut().enumerate() {
            let at = 2 * LANES * square;
            let mut turned = [&[Bf16::ZERO; 2 * LANES]; LANES];
            for (turned, row) in turned.iter_mut().zip(rows.chunks_exact(width)) {
                *turned = &row[at..][..2 * LANES].as_chunks().0[0];
            }
            simd.turn(turned, lines);
        }
        let at = 2 * LANES * squares.len();
        for (column, row) in rows.chunks_exact(width).enumerate() {
            for (line, pair) in rest.iter_mut().zip(row[at..].as_chunks::<2>().0) {
                line.0[2 * column..][..2].copy_from_slice(pair);
            }
        }
    }
}

/// Writes the numbers of a row of sums, times `scale`, as bf16.
#[inline(always)]
pub(super) fn write_row<S: PairSimd>(
    simd: S,
    sums: &[crate::packed::Sums],
    scale: f32,
    to: &mut [Bf16],
) {
    let scale = simd.splat(scale);
    let (groups, rest) = to.as_chunks_mut::<LANES>();
    for (to, sums) in groups.iter_mut().zip(sums) {
        *to = simd.narrow(simd.mul(simd.load(&sums.0), scale));
    }
    if !rest.is_empty()
        && let Some(last) = sums.last()
    {
        let last = simd.narrow(simd.mul(simd.load(&last.0), scale));
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
