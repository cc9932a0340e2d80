//! Matrix products over bf16 with sums in `f32`: the frozen weights of a model and the small
//! trainable factors beside them.
//!
//! A [`PackedWeight`] is put once into the order in which the instructions want it; from then on
//! [`matmul`] multiplies by it, or by its transpose, without ordering it again for every call, as
//! a general product has to. [`product`] multiplies matrices that change at every step.
//!
//! An [`Int8Weight`] is half as long as a [`PackedWeight`], for decoding: see [`matmul_int8`].
//!
//! # Numerics
//!
//! Factors are bf16; what is given as `f32` is rounded to the nearest (see
//! [`Bf16::from_f32`](crate::Bf16::from_f32)), once, when it is read. A product of two bf16 numbers
//! is exact in `f32`. The terms of one element are added in the order of the summed index, each
//! rounded to `f32`; the low-rank term comes first and is scaled before the rest is added; then
//! come the bias and what the output held; then one rounding to bf16 if the output is bf16.
//!
//! So the bits of an element depend on its row, its column and the instruction set alone: not on
//! the number of threads, nor on how many other rows or columns there are. NaN and infinity travel
//! as IEEE 754 says, each along its own row or column only.
//!
//! With [`Isa::Avx512Bf16`](crate::Isa::Avx512Bf16) the terms are added by `vdpbf16ps`, which takes
//! subnormal factors for zero, makes subnormal results zero, and always rounds to the nearest.
//! The other instruction sets make the numbers wide and multiply-add, rounded once with
//! [`Isa::Avx512`](crate::Isa::Avx512) and [`Isa::Avx2Fma`](crate::Isa::Avx2Fma); they keep
//! subnormal numbers.
//!
//! With [`Isa::AmxBf16`](crate::Isa::AmxBf16) a product of more than four rows is computed by tiles of
//! 16 rows, 32 terms and 16 columns with `tdpbf16ps`, which sums the first and the second numbers of
//! the 16 pairs apart, adds both sums, and adds the result to what was there; subnormal numbers are
//! as with `vdpbf16ps`. Products of up to four rows, and those of [`product`] that sum over the rows
//! of a great factor, are computed as with [`Isa::Avx512Bf16`](crate::Isa::Avx512Bf16), so that there
//! the bits of four rows are not those of five.
//!
//! # Memory
//!
//! Buffers belong to the threads and are used again: on the thread that calls, up to 4 MiB for
//! [`Direction::Backward`] and the small factors; on each thread that works, up to 512 KiB for rows
//! that have to be rounded or ordered. After the first calls nothing is allocated.

mod block;
mod builder;
mod cross_entropy;
mod epilogue;
mod grid;
mod int8;
mod left;
mod matrix;
mod outer;
mod product;
mod right;
mod serial;
mod tile;
mod tile_block;
mod weight;
mod workspace;

pub use builder::PackedWeightBuilder;
pub use cross_entropy::linear_cross_entropy;
pub use int8::{Int8View, Int8Weight, matmul_int8};
pub use matrix::{Matrix, MatrixMut, Values, ValuesMut};
pub use product::{Direction, Epilogue, LowRankTerm, matmul, product};
pub use weight::{PackedView, PackedWeight};

pub(crate) use left::{LeftTile, numbers};
pub(crate) use serial::{Right, add_rows};
pub(crate) use tile::Sums;

#[cfg(test)]
pub(crate) use cross_entropy::{BLOCK, CHUNK_ROWS};
