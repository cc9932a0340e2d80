//! The gated activation of Llama-like models over separate slices of `f32`; [`crate::gated`] has it for
//! gate and up side by side, and other activations.

use rayon::prelude::*;

use crate::KernelError;
use crate::activation::Silu;
use crate::error::check_len;
use crate::gated;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::number::{for_groups, read, write};
use crate::par::block_rows;

/// `y = silu(gate) * up`, `silu(g) = g / (1 + exp(-g))`, element by element.
///
/// # Numerics
///
/// `silu` tends to 0 for `g -> -inf` and is computed as -0 or a tiny number there; `g = -inf`
/// itself gives NaN, the product of infinity and zero.
///
/// # Errors
///
/// [`KernelError::Length`] if the slices differ in length.
pub fn swiglu_forward(gate: &[f32], up: &[f32], y: &mut [f32]) -> Result<(), KernelError> {
    check_len("up", up, &[gate.len()])?;
    check_len("y", y, &[gate.len()])?;
    let token = Token::current();
    let block = block_rows(1);
    y.par_chunks_mut(block)
        .zip(gate.par_chunks(block))
        .zip(up.par_chunks(block))
        .for_each(|((y, gate), up)| forward_block(token, gate, up, y));
    Ok(())
}

/// The gradients of [`swiglu_forward`], with `s = 1 / (1 + exp(-gate))`, computed again:
///
/// ```text
/// dgate = dy up s (1 + gate (1 - s))
/// dup   = dy gate s
/// ```
///
/// Both outputs are overwritten.
///
/// # Errors
///
/// [`KernelError::Length`] if the slices differ in length.
pub fn swiglu_backward(
    dy: &[f32],
    gate: &[f32],
    up: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) -> Result<(), KernelError> {
    check_len("gate", gate, &[dy.len()])?;
    check_len("up", up, &[dy.len()])?;
    check_len("dgate", dgate, &[dy.len()])?;
    check_len("dup", dup, &[dy.len()])?;
    let token = Token::current();
    let block = block_rows(1);
    (dgate.par_chunks_mut(block), dup.par_chunks_mut(block))
        .into_par_iter()
        .zip(dy.par_chunks(block))
        .zip(gate.par_chunks(block))
        .zip(up.par_chunks(block))
        .for_each(|((((dgate, dup), dy), gate), up)| {
            backward_block(token, dy, gate, up, dgate, dup);
        });
    Ok(())
}

simd_entry!(fn forward_block<'a>(gate: &'a [f32], up: &'a [f32], y: &'a mut [f32])
    = forward_slice);

#[inline(always)]
fn forward_slice<S: PairSimd>(simd: S, gate: &[f32], up: &[f32], y: &mut [f32]) {
    gated::forward_row(simd, Silu, gate, up, y);
}

simd_entry!(fn backward_block<'a>(
    dy: &'a [f32], gate: &'a [f32], up: &'a [f32], dgate: &'a mut [f32], dup: &'a mut [f32]
) = backward_slice);

#[inline(always)]
fn backward_slice<S: PairSimd>(
    simd: S,
    dy: &[f32],
    gate: &[f32],
    up: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    for_groups!(dgate.len(), |at| {
        let values = [read(simd, gate, at), read(simd, up, at), read(simd, dy, at)];
        let [to_gate, to_up, _] = gated::backward_group(simd, Silu, values);
        write(simd, to_gate, dgate, at);
        write(simd, to_up, dup, at);
    });
}
