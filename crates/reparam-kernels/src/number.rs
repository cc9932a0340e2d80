//! What the numbers of an activation are in memory: `f32` or bf16.
//!
//! Row kernels are generic over [`Number`]. They read numbers as `f32`, compute in `f32` and round
//! once, when a result is stored; so a kernel over `f32` rounds nothing in addition.

use rayon::prelude::*;

use crate::error::check_len;
use crate::isa::{LANES, PairSimd, Token, simd_entry};
use crate::par::block_rows;
use crate::{Bf16, KernelError};

/// A number of an activation: `f32` or [`Bf16`].
pub trait Number: sealed::Lanes + Default + PartialEq + std::fmt::Debug + Send + Sync {
    /// The nearest number; of [`Bf16`] as [`Bf16::from_f32`] finds it.
    fn from_f32(x: f32) -> Self;

    /// The same number; exact.
    fn to_f32(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Number for Bf16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

/// Keeps [`Number`] to the types for which groups can be read and written.
#[expect(
    private_bounds,
    private_interfaces,
    reason = "nothing outside of the crate can name this trait"
)]
mod sealed {
    use super::{Bf16, LANES, PairSimd};
    use crate::isa::Simd;

    pub trait Lanes: Copy + 'static {
        fn load<S: PairSimd>(simd: S, x: &[Self; LANES]) -> S::V;
        fn store<S: PairSimd>(simd: S, x: S::V, to: &mut [Self; LANES]);
        /// The same number; exact.
        fn from_bf16(x: Bf16) -> Self;
    }

    impl Lanes for f32 {
        #[inline(always)]
        fn load<S: PairSimd>(simd: S, x: &[Self; LANES]) -> S::V {
            Simd::load(simd, x)
        }

        #[inline(always)]
        fn store<S: PairSimd>(simd: S, x: S::V, to: &mut [Self; LANES]) {
            Simd::store(simd, x, to);
        }

        #[inline(always)]
        fn from_bf16(x: Bf16) -> Self {
            x.to_f32()
        }
    }

    impl Lanes for Bf16 {
        #[inline(always)]
        fn load<S: PairSimd>(simd: S, x: &[Self; LANES]) -> S::V {
            simd.widen(x)
        }

        #[inline(always)]
        fn store<S: PairSimd>(simd: S, x: S::V, to: &mut [Self; LANES]) {
            *to = simd.narrow(x);
        }

        #[inline(always)]
        fn from_bf16(x: Bf16) -> Self {
            x
        }
    }
}

/// Which numbers of a row are computed together: [`LANES`] of them, or fewer at its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Group {
    /// The same numbers of a row that begins `by` numbers later.
    #[inline(always)]
    pub(crate) fn after(self, by: usize) -> Self {
        Self {
            start: self.start + by,
            ..self
        }
    }
}

/// Reads a group; the lanes beyond its end are 0.
#[inline(always)]
pub(crate) fn read<S: PairSimd, T: Number>(simd: S, x: &[T], at: Group) -> S::V {
    read_or(simd, x, at, 0.0)
}

/// Reads a group; the lanes beyond its end are `fill`.
#[inline(always)]
pub(crate) fn read_or<S: PairSimd, T: Number>(simd: S, x: &[T], at: Group, fill: f32) -> S::V {
    let x = &x[at.start..][..at.len];
    if let Ok(group) = x.try_into() {
        return T::load(simd, group);
    }
    let mut group = [fill; LANES];
    for (lane, x) in group.iter_mut().zip(x) {
        *lane = x.to_f32();
    }
    simd.load(&group)
}

/// Writes a group without the lanes beyond its end.
#[inline(always)]
pub(crate) fn write<S: PairSimd, T: Number>(simd: S, values: S::V, to: &mut [T], at: Group) {
    let to = &mut to[at.start..][..at.len];
    if let Ok(group) = <&mut [T; LANES]>::try_from(&mut *to) {
        T::store(simd, values, group);
        return;
    }
    let mut group = [0.0; LANES];
    simd.store(values, &mut group);
    for (to, lane) in to.iter_mut().zip(group) {
        *to = T::from_f32(lane);
    }
}

/// Runs a block for every [`Group`] of a row: `for_groups!(len, |at| { ... })`.
///
/// The block stands there twice, for whole groups, whose length is then a constant, and for the
/// incomplete one. It is not a closure because the instructions of a closure are not inlined.
macro_rules! for_groups {
    ($len:expr, |$at:ident| $body:block) => {{
        let len: usize = $len;
        let whole = len - len % $crate::isa::LANES;
        let mut start = 0;
        while start < whole {
            let $at = $crate::number::Group {
                start,
                len: $crate::isa::LANES,
            };
            $body
            start += $crate::isa::LANES;
        }
        if whole < len {
            let $at = $crate::number::Group {
                start: whole,
                len: len - whole,
            };
            $body
        }
    }};
}
pub(crate) use for_groups;

/// Adds up over all groups of a row: `sum_groups!(simd, len, |at, sum| sum + ...)`, where the
/// expression is the new value of the lanes `sum`. Lanes beyond the end of the row must add zero.
///
/// The lanes of [`ACCUMULATORS`](crate::vector::ACCUMULATORS) sums take turns, as in
/// [`dot`](crate::vector::dot), and so have the same bits.
macro_rules! sum_groups {
    ($simd:expr, $len:expr, |$at:ident, $sum:ident| $next:expr) => {{
        use $crate::isa::LANES;
        use $crate::number::Group;
        use $crate::vector::ACCUMULATORS;
        let (simd, len): (_, usize) = ($simd, $len);
        let groups = len / LANES;
        let mut sums = [simd.splat(0.0); ACCUMULATORS];
        let mut group = 0;
        while group + ACCUMULATORS <= groups {
            for (i, sum) in sums.iter_mut().enumerate() {
                let $at = Group {
                    start: (group + i) * LANES,
                    len: LANES,
                };
                let $sum = *sum;
                *sum = $next;
            }
            group += ACCUMULATORS;
        }
        while group < groups {
            let $at = Group {
                start: group * LANES,
                len: LANES,
            };
            let $sum = sums[0];
            sums[0] = $next;
            group += 1;
        }
        if groups * LANES < len {
            let $at = Group {
                start: groups * LANES,
                len: len - groups * LANES,
            };
            let $sum = sums[1];
            sums[1] = $next;
        }
        $crate::vector::total(simd, sums)
    }};
}
pub(crate) use sum_groups;

/// `y += x`, element by element, rounded once.
///
/// # Errors
///
/// [`KernelError::Length`] if the slices differ in length.
pub fn add<T: Number>(x: &[T], y: &mut [T]) -> Result<(), KernelError> {
    check_len("y", y, &[x.len()])?;
    let token = Token::current();
    let block = block_rows(1);
    y.par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .for_each(|(y, x)| add_block(token, x, y));
    Ok(())
}

simd_entry!(fn add_block<'a; T: Number>(x: &'a [T], y: &'a mut [T]) = add_slice);

#[inline(always)]
fn add_slice<S: PairSimd, T: Number>(simd: S, x: &[T], y: &mut [T]) {
    for_groups!(y.len(), |at| {
        let sum = simd.add(read(simd, y, at), read(simd, x, at));
        write(simd, sum, y, at);
    });
}
