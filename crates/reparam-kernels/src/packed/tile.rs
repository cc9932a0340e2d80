//! The innermost loop: a tile of the output whose sums stay in registers.
#![expect(
    unsafe_code,
    reason = "a bounds check for every pair would cost as much as its products"
)]

use super::left::LeftTile;
use crate::Bf16;
use crate::isa::{LANES, Line, PairSimd};

/// The sums of one row and [`LANES`] columns.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [f32; LANES]);

impl Sums {
    pub(super) const ZERO: Self = Self([0.0; LANES]);
}

/// Adds `pairs` pairs of terms to `T` tiles of `R` rows and `P` panels.
///
/// `right` begins at the first line of the first panel; those of the next panel follow
/// `panel_stride` lines later. Sum `(t R + i) P + j` belongs to row `i` of tile `t` and panel `j`.
#[inline(always)]
pub(super) fn add_tile<S: PairSimd, const T: usize, const R: usize, const P: usize>(
    simd: S,
    left: [LeftTile<'_>; T],
    right: &[Line],
    panel_stride: usize,
    pairs: usize,
    sums: &mut [Sums],
) {
    let sums = &mut sums[..T * R * P];
    if pairs == 0 {
        return;
    }
    assert!((P - 1) * panel_stride + pairs <= right.len());
    let (row_stride, pair_stride) = (left[0].row_stride, left[0].pair_stride);
    for left in &left {
        assert!(left.row_stride == row_stride && left.pair_stride == pair_stride);
        assert!((R - 1) * row_stride + (pairs - 1) * pair_stride + 2 <= left.numbers.len());
    }
    let mut lanes = [[[simd.splat(0.0); P]; R]; T];
    for (sums, lanes) in sums
        .iter()
        .zip(lanes.as_flattened_mut().as_flattened_mut())
    {
        *lanes = simd.load(&sums.0);
    }
    for pair in 0..pairs {
        let mut columns = [simd.splat_pair([Bf16::ZERO; 2]); P];
        for (j, column) in columns.iter_mut().enumerate() {
            // SAFETY: `j` is below `P` and `pair` below `pairs`, so that the index is below
            // `(P - 1) panel_stride + pairs`, which was asserted not to exceed the length.
            *column = simd.load_pairs(unsafe { right.get_unchecked(j * panel_stride + pair) });
        }
        for (lanes, left) in lanes.iter_mut().zip(&left) {
            for (i, lanes) in lanes.iter_mut().enumerate() {
                let at = i * row_stride + pair * pair_stride;
                // SAFETY: `i` is below `R` and `pair` below `pairs`, so that `at + 2` is at most
                // `(R - 1) row_stride + (pairs - 1) pair_stride + 2`, which was asserted not to
                // exceed the length; an array of two has the alignment of its elements.
                let numbers = unsafe { *left.numbers.as_ptr().add(at).cast::<[Bf16; 2]>() };
                let row = simd.splat_pair(numbers);
                for (sum, column) in lanes.iter_mut().zip(&columns) {
                    *sum = simd.dot_pairs(row, *column, *sum);
                }
            }
        }
    }
    for (sums, lanes) in sums.iter_mut().zip(lanes.as_flattened().as_flattened()) {
        simd.store(*lanes, &mut sums.0);
    }
}
