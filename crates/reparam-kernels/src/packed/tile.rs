//! The innermost loop: a tile of the output whose sums stay in registers.
#![expect(
    unsafe_code,
    reason = "a bounds check for every pair would cost as much as its products"
)]

use super::left::LeftTile;
use crate::Bf16;
use crate::isa::{LANES, Line, PairSimd, Simd};

/// The sums of one row and [`LANES`] columns.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [f32; LANES]);

impl Sums {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);
}

/// Terms that are added to `T` tiles of `R` rows and `P` panels: `pairs` pairs for every element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a, const T: usize> {
    pub(super) left: [LeftTile<'a>; T],
    /// From the first line of the first panel on; those of the next panel follow `panel_stride`
    /// lines later.
    pub(super) right: &'a [Line],
    pub(super) panel_stride: usize,
    pub(super) pairs: usize,
}

/// The sums of a tile before its terms are added.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'a, const T: usize> {
    /// Zero.
    Zero,
    /// The sums of other terms, scaled.
    Scaled(f32, Terms<'a, T>),
    /// What is there.
    Sums,
}

/// Adds `terms` to the sums; sum `(t R + i) P + j` belongs to row `i` of tile `t` and panel `j`.
#[inline(always)]
pub(super) fn add_tile<S: PairSimd, const T: usize, const R: usize, const P: usize>(
    simd: S,
    start: Start<'_, T>,
    terms: Terms<'_, T>,
    sums: &mut [Sums],
) {
    let sums = &mut sums[..T * R * P];
    let mut lanes = [[[simd.splat(0.0); P]; R]; T];
    match start {
        Start::Zero => {}
        Start::Scaled(scaling, terms) => {
            add_terms::<S, T, R, P>(simd, &mut lanes, terms);
            let scaling = simd.splat(scaling);
            for lanes in lanes.as_flattened_mut().as_flattened_mut() {
                *lanes = simd.mul(*lanes, scaling);
            }
        }
        Start::Sums => {
            let lanes = lanes.as_flattened_mut().as_flattened_mut();
            for (sums, lanes) in sums.iter().zip(lanes) {
                *lanes = simd.load(&sums.0);
            }
        }
    }
    add_terms::<S, T, R, P>(simd, &mut lanes, terms);
    for (sums, lanes) in sums.iter_mut().zip(lanes.as_flattened().as_flattened()) {
        simd.store(*lanes, &mut sums.0);
    }
}

/// Lines that a low tile asks for in advance.
const AHEAD: usize = 32;

/// Sums in registers.
pub(super) type Lanes<S, const T: usize, const R: usize, const P: usize> =
    [[[<S as Simd>::V; P]; R]; T];

#[inline(always)]
pub(super) fn add_terms<S: PairSimd, const T: usize, const R: usize, const P: usize>(
    simd: S,
    lanes: &mut Lanes<S, T, R, P>,
    terms: Terms<'_, T>,
) {
    let Terms {
        left,
        right,
        panel_stride,
        pairs,
    } = terms;
    if pairs == 0 {
        return;
    }
    assert!((P - 1) * panel_stride + pairs <= right.len());
    let (row_stride, pair_stride) = (left[0].row_stride, left[0].pair_stride);
    for left in &left {
        assert!(left.row_stride == row_stride && left.pair_stride == pair_stride);
        assert!((R - 1) * row_stride + (pairs - 1) * pair_stride + 2 <= left.numbers.len());
    }
    // Few rows wait for the memory. With one or two the loop itself runs far enough ahead; with
    // more it does not reach the next lines early enough.
    let ask = R > 2 && R < 8 && R != S::ROWS;
    for pair in 0..pairs {
        if ask {
            for j in 0..P {
                let ahead = j * panel_stride + pair + AHEAD;
                simd.prefetch(right.as_ptr().wrapping_add(ahead));
            }
        }
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
}
