//! What happens to scores between two products.

use std::ops::Range;

use super::super::{AttentionShape, SoftCap};
use crate::Bf16;
use crate::exp::exp_lanes;
use crate::isa::{LANES, Line, PairSimd};
use crate::packed::Sums;

/// From a product of a query and a key to a score.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scaling {
    scale: f32,
    cap: Option<SoftCap>,
}

impl Scaling {
    pub(super) fn new(shape: &AttentionShape) -> Self {
        Self {
            scale: shape.scale,
            cap: shape.soft_cap.map(SoftCap::new),
        }
    }

    /// Whether scores are products times a positive factor, so that minus infinity stays what it is.
    fn is_simple(&self) -> bool {
        self.cap.is_none() && self.scale > 0.0
    }
}

/// Sets all lanes but those in `seen` to `value`.
#[inline(always)]
fn hide(groups: &mut [Sums], seen: &Range<usize>, value: f32) {
    for lane in (0..seen.start).chain(seen.end..groups.len() * LANES) {
        groups[lane / LANES].0[lane % LANES] = value;
    }
}

/// The greatest lane, if none is NaN.
#[inline(always)]
fn greatest<S: PairSimd>(simd: S, x: S::V) -> f32 {
    let mut lanes = [0.0; LANES];
    simd.store(x, &mut lanes);
    // Halves, so that the comparisons do not wait for each other.
    let mut len = LANES / 2;
    while len > 0 {
        for i in 0..len {
            lanes[i] = if lanes[i + len] > lanes[i] {
                lanes[i + len]
            } else {
                lanes[i]
            };
        }
        len /= 2;
    }
    lanes[0]
}

/// The state of the softmax of one row.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// The greatest score so far.
    pub(super) max: &'a mut f32,
    /// The sums of `exp(score - max)`, lane by lane.
    pub(super) exponentials: &'a mut Sums,
    /// The sums of these times the values.
    pub(super) acc: &'a mut [Sums],
}

/// Turns products into probabilities relative to the greatest score of their row so far, and scales
/// what was summed before accordingly. Lanes outside of `seen` become 0.
#[inline(always)]
pub(super) fn softmax_row<S: PairSimd>(
    simd: S,
    scores: &mut [Sums],
    seen: Range<usize>,
    scaling: Scaling,
    row: Row<'_>,
    probabilities: &mut [[Bf16; LANES]],
) {
    if seen.is_empty() {
        probabilities.fill([Bf16::ZERO; LANES]);
        return;
    }
    let mut scale = scaling.scale;
    if !scaling.is_simple() {
        for scores in &mut *scores {
            for score in &mut scores.0 {
                *score *= scaling.scale;
                if let Some(cap) = scaling.cap {
                    *score = cap.value::<S>(*score);
                }
            }
        }
        scale = 1.0;
    }
    hide(scores, &seen, f32::NEG_INFINITY);
    let scale = simd.splat(scale);
    let mut most = [simd.splat(f32::NEG_INFINITY); 4];
    let (fours, ones) = scores.as_chunks::<4>();
    for four in fours {
        for i in 0..4 {
            most[i] = simd.max(simd.mul(simd.load(&four[i].0), scale), most[i]);
        }
    }
    for one in ones {
        most[0] = simd.max(simd.mul(simd.load(&one.0), scale), most[0]);
    }
    let most = simd.max(simd.max(most[0], most[1]), simd.max(most[2], most[3]));
    let most = greatest(simd, most);
    if most > *row.max {
        // In the first block there is nothing yet to be scaled.
        if *row.max > f32::NEG_INFINITY {
            let factor = exp_lanes(simd, simd.splat(*row.max - most));
            for sums in row.acc.iter_mut().chain([&mut *row.exponentials]) {
                simd.store(simd.mul(simd.load(&sums.0), factor), &mut sums.0);
            }
        }
        *row.max = most;
    }
    // As long as all scores are minus infinity, all exponentials are zero.
    let shift = if *row.max == f32::NEG_INFINITY {
        0.0
    } else {
        -*row.max
    };
    let shift = simd.splat(shift);
    let mut sums = simd.load(&row.exponentials.0);
    for (scores, probabilities) in scores.iter().zip(probabilities) {
        // Not in one rounding: then the greatest of great scores would not become exactly 0.
        let score = simd.mul(simd.load(&scores.0), scale);
        let p = exp_lanes(simd, simd.add(score, shift));
        sums = simd.add(sums, p);
        *probabilities = simd.narrow(p);
    }
    simd.store(sums, &mut row.exponentials.0);
}

/// Two rows of a tile, of which the groups of some keys are looked at.
#[derive(Debug)]
pub(super) struct RowPair<'a> {
    /// Products of queries and keys.
    pub(super) scores: [&'a mut [Sums]; 2],
    /// Products of output gradients and values.
    pub(super) dprobabilities: [&'a mut [Sums]; 2],
    /// Lanes that each row sees.
    pub(super) seen: [Range<usize>; 2],
    /// `lse` and `delta` of each row.
    pub(super) stats: [[f32; 2]; 2],
}

/// Where the gradients of the scores of a [`RowPair`] go, and the pairs of both rows: those of the
/// next group follow `stride` lines later.
#[derive(Debug)]
pub(super) struct Turned<'a> {
    pub(super) dscores: [&'a mut [[Bf16; LANES]]; 2],
    pub(super) probability_pairs: &'a mut [Line],
    pub(super) dscore_pairs: &'a mut [Line],
    pub(super) stride: usize,
}

/// `p = exp(score - lse)` and `ds = p (dp - delta)`, both 0 where a row does not see.
#[inline(always)]
pub(super) fn gradient_rows<S: PairSimd>(
    simd: S,
    mut rows: RowPair<'_>,
    scaling: Scaling,
    to: Turned<'_>,
) {
    for i in 0..2 {
        if !scaling.is_simple() {
            let both = rows.scores[i].iter_mut().zip(&mut *rows.dprobabilities[i]);
            for (scores, dprobabilities) in both {
                cap_group::<S>(scores, dprobabilities, scaling, rows.stats[i][1]);
            }
            // It is already subtracted.
            rows.stats[i][1] = 0.0;
        }
        hide(rows.scores[i], &rows.seen[i], f32::NEG_INFINITY);
        hide(rows.dprobabilities[i], &rows.seen[i], 0.0);
    }
    let scale = simd.splat(if scaling.is_simple() {
        scaling.scale
    } else {
        1.0
    });
    let minus = rows
        .stats
        .map(|[lse, delta]| (simd.splat(-lse), simd.splat(-delta)));
    let groups = rows.scores[0].len();
    for group in 0..groups {
        let mut p = [[Bf16::ZERO; LANES]; 2];
        let mut ds = [[Bf16::ZERO; LANES]; 2];
        for i in 0..2 {
            let (lse, delta) = minus[i];
            // In two roundings, as in the forward pass.
            let score = simd.mul(simd.load(&rows.scores[i][group].0), scale);
            let dp = simd.load(&rows.dprobabilities[i][group].0);
            let probability = exp_lanes(simd, simd.add(score, lse));
            p[i] = simd.narrow(probability);
            ds[i] = simd.narrow(simd.mul(probability, simd.add(dp, delta)));
            to.dscores[i][group] = ds[i];
        }
        to.probability_pairs[group * to.stride] = simd.interleave(&p[0], &p[1]);
        to.dscore_pairs[group * to.stride] = simd.interleave(&ds[0], &ds[1]);
    }
}

/// Turns products into capped scores, and `dp` into `(dp - delta)` times the slope of the cap.
#[inline(always)]
fn cap_group<S: PairSimd>(
    scores: &mut Sums,
    dprobabilities: &mut Sums,
    scaling: Scaling,
    delta: f32,
) {
    for (score, dp) in scores.0.iter_mut().zip(&mut dprobabilities.0) {
        *score *= scaling.scale;
        *dp -= delta;
        if let Some(cap) = scaling.cap {
            let (value, slope) = cap.value_and_slope::<S>(*score);
            *score = value;
            *dp *= slope;
        }
    }
}
