//! CPU kernels: slices of `f32` in, slices of `f32` out; matrix products also over bf16.
//!
//! This crate knows nothing of tensors, models or files. Each module holds one operation of a
//! model, forward and backward, over row-major slices; the layers above decide what is
//! computed, saved and recomputed.
//!
//! # Conventions
//!
//! Shape letters: `N` tokens, `d` the width of a token, `d_in` and `d_out` of a linear layer, `r`
//! rank, `V` vocabulary. A slice written `x[N, d]` holds `N * d` numbers, the last index fastest.
//! Lengths are checked once at the entry; a wrong one is a [`KernelError`], never a panic.
//! Outputs are overwritten unless the function says that it adds to them.
//!
//! # Numerics
//!
//! Sums run in `f32` over many independent lanes; the loss is summed in `f64`. The order of
//! every sum is fixed by the shapes alone, so a result has the same bits for any number of
//! threads. It may differ between instruction sets, which round a multiply-add once or twice.
//! NaN and infinity travel as IEEE 754 says unless a function states otherwise.
//!
//! # Instruction sets
//!
//! Element-wise and row kernels are written once and compiled for each [`Isa`]; the choice is
//! made at run time (see [`with_isa`]), as are the bf16 products of [`packed`]. Products of `f32`
//! matrices go through the `gemm` crate, which makes the same choice by itself and is not affected
//! by [`with_isa`].
//!
//! # Unsafe code
//!
//! Few places only: entering a function compiled for a detected instruction set, the vector
//! instructions of such a set, the call into `gemm` after the bounds of the views were checked,
//! in [`packed`] the innermost loop, and in [`packed`], [`attention`], [`recurrent`] and
//! [`selective_scan`] the tasks that write their own parts of one output.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod activation;
pub mod attention;
pub mod bf16;
pub mod capabilities;
pub mod causal_conv;
pub mod cross_entropy;
pub mod embedding;
mod error;
mod exp;
pub mod gated;
mod isa;
pub mod layer_norm;
pub mod linear;
pub mod matmul;
pub mod memory;
mod norm;
mod normal;
pub mod number;
pub mod packed;
mod par;
pub mod recurrent;
pub mod rms_norm;
pub mod rotary;
pub mod selective_scan;
mod shared;
pub mod swiglu;
pub mod team;
mod vector;

pub use bf16::Bf16;
pub use error::KernelError;
pub use isa::{Isa, with_isa};
pub use number::Number;

#[cfg(test)]
mod tests;
