//! Products of pairs of bf16 numbers, the arithmetic of [`crate::packed`].

use super::{LANES, Portable, Simd};
use crate::Bf16;

/// One line of the cache: a pair of bf16 numbers for each of [`LANES`] columns. The two numbers of
/// a pair follow one another along the dimension that is summed.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [Bf16; 2 * LANES]);

impl Line {
    pub(crate) const ZERO: Self = Self([Bf16::ZERO; 2 * LANES]);
}

/// What an instruction set adds to [`Simd`] for products of bf16 matrices.
pub(crate) trait PairSimd: Simd {
    /// [`LANES`] pairs, in the form in which they are multiplied.
    type Pairs: Copy;

    /// Rows of a tile, whose sums stay in registers; a power of two.
    const ROWS: usize;
    /// Groups of [`LANES`] columns of a tile, at most 3.
    const PANELS: usize;

    fn load_pairs(self, x: &Line) -> Self::Pairs;

    /// The same pair for every lane.
    fn splat_pair(self, x: [Bf16; 2]) -> Self::Pairs;

    /// `sum + a.0 b.0 + a.1 b.1`, lane by lane.
    fn dot_pairs(self, a: Self::Pairs, b: Self::Pairs, sum: Self::V) -> Self::V;

    /// The pairs of `first` and `second`.
    fn interleave(self, first: &[Bf16; LANES], second: &[Bf16; LANES]) -> Line;

    /// Exchanges the indices of [`LANES`] rows of [`LANES`] pairs: line `p` holds pair `p` of each row.
    #[inline(always)]
    fn turn(self, rows: [&[Bf16; 2 * LANES]; LANES], lines: &mut [Line; LANES]) {
        for (column, row) in rows.iter().enumerate() {
            for (line, pair) in lines.iter_mut().zip(row.as_chunks::<2>().0) {
                line.0[2 * column..][..2].copy_from_slice(pair);
            }
        }
    }

    /// Asks for what will be read soon; a hint. The address may be of nothing.
    #[inline(always)]
    fn prefetch(self, _at: *const Line) {}

    /// The same numbers as `f32`.
    fn widen(self, x: &[Bf16; LANES]) -> Self::V;

    /// The nearest bf16 numbers, as [`Bf16::from_f32`] finds them.
    fn narrow(self, x: Self::V) -> [Bf16; LANES];
}

impl PairSimd for Portable {
    type Pairs = [[f32; LANES]; 2];

    // Eight of the sixteen registers of SSE2 hold the sums.
    const ROWS: usize = 2;
    const PANELS: usize = 1;

    #[inline(always)]
    fn load_pairs(self, x: &Line) -> Self::Pairs {
        let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
        for (lane, pair) in x.0.as_chunks::<2>().0.iter().enumerate() {
            first[lane] = pair[0].to_f32();
            second[lane] = pair[1].to_f32();
        }
        [first, second]
    }

    #[inline(always)]
    fn splat_pair(self, x: [Bf16; 2]) -> Self::Pairs {
        [[x[0].to_f32(); LANES], [x[1].to_f32(); LANES]]
    }

    #[inline(always)]
    fn dot_pairs(self, a: Self::Pairs, b: Self::Pairs, sum: Self::V) -> Self::V {
        let sum = self.mul_add_lanes(a[0], b[0], sum);
        self.mul_add_lanes(a[1], b[1], sum)
    }
    #[inline(always)]
    fn interleave(self, first: &[Bf16; LANES], second: &[Bf16; LANES]) -> Line {
        let mut line = Line::ZERO;
        let pairs = line.0.as_chunks_mut::<2>().0;
        for ((to, first), second) in pairs.iter_mut().zip(first).zip(second) {
            *to = [*first, *second];
        }
        line
    }

    #[inline(always)]
    fn widen(self, x: &[Bf16; LANES]) -> Self::V {
        x.map(Bf16::to_f32)
    }

    #[inline(always)]
    fn narrow(self, x: Self::V) -> [Bf16; LANES] {
        x.map(Bf16::from_f32)
    }
}
