//! Rotary position embedding in the convention of Hugging Face's `rotate_half`.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::{check_len, elements};
use crate::isa::{Simd, Token, simd_entry};
use crate::par::block_rows;

/// The cosines and sines of [`rotary`]: `cos[n, i] = attention_scaling * cos(position_n inv_freq_i)`.
///
/// # Shapes
///
/// `position_ids[N]`, `inv_freq[head_dim / 2]`; returns `cos` and `sin`, each `[N, head_dim / 2]`.
///
/// # Numerics
///
/// The angle is rounded to `f32`, as `transformers` does it; its cosine is that of the rounded
/// angle, computed in `f64`.
///
/// # Errors
///
/// [`KernelError::Overflow`] if the tables would not fit into the address space.
///
/// # References
///
/// Su et al., "RoFormer", arXiv 2104.09864, eq. 34. The scaling is that of YaRN, 1 elsewhere.
pub fn rotary_tables(
    position_ids: &[u32],
    inv_freq: &[f32],
    attention_scaling: f32,
) -> Result<(Vec<f32>, Vec<f32>), KernelError> {
    let len = elements("cos", &[position_ids.len(), inv_freq.len()])?;
    let (mut cos, mut sin) = (vec![0.0; len], vec![0.0; len]);
    let half = inv_freq.len().max(1);
    let rows = block_rows(half * 16);
    let scaling = f64::from(attention_scaling);
    (
        cos.par_chunks_mut(rows * half),
        sin.par_chunks_mut(rows * half),
    )
        .into_par_iter()
        .zip(position_ids.par_chunks(rows))
        .for_each(|((cos, sin), positions)| {
            for ((cos, sin), &position) in cos
                .chunks_exact_mut(half)
                .zip(sin.chunks_exact_mut(half))
                .zip(positions)
            {
                for ((cos, sin), &inv_freq) in cos.iter_mut().zip(sin).zip(inv_freq) {
                    let (s, c) = f64::from(position as f32 * inv_freq).sin_cos();
                    *cos = (c * scaling) as f32;
                    *sin = (s * scaling) as f32;
                }
            }
        });
    Ok((cos, sin))
}

/// Turns each head of each token in place. With `h = head_dim / 2`, for `i < h`:
///
/// ```text
/// x_i     <- x_i cos_i     - x_{i+h} sin_i
/// x_{i+h} <- x_{i+h} cos_i + x_i     sin_i
/// ```
///
/// With `inverse`, the sine changes its sign: that undoes the rotation where `cos^2 + sin^2 = 1`,
/// and for any tables it is the transpose, hence the backward pass.
///
/// # Shapes
///
/// `x[N, n_heads * head_dim]`, `cos[N, head_dim / 2]`, `sin[N, head_dim / 2]`.
///
/// # Errors
///
/// [`KernelError::OddHeadDim`], [`KernelError::Zero`] for no heads or a head without numbers,
/// [`KernelError::Length`].
pub fn rotary(
    x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    n_heads: usize,
    head_dim: usize,
    inverse: bool,
) -> Result<(), KernelError> {
    if !head_dim.is_multiple_of(2) {
        return Err(KernelError::OddHeadDim { head_dim });
    }
    if head_dim == 0 {
        return Err(KernelError::Zero { name: "head_dim" });
    }
    if n_heads == 0 {
        return Err(KernelError::Zero { name: "n_heads" });
    }
    let half = head_dim / 2;
    let tokens = cos.len() / half;
    check_len("cos", cos, &[tokens, half])?;
    check_len("sin", sin, &[tokens, half])?;
    check_len("x", x, &[tokens, n_heads, head_dim])?;
    rotary_on(Token::current(), x, cos, sin, n_heads, head_dim, inverse);
    Ok(())
}

pub(crate) fn rotary_on(
    token: Token,
    x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    n_heads: usize,
    head_dim: usize,
    inverse: bool,
) {
    let (width, half) = (n_heads * head_dim, head_dim / 2);
    let rows = block_rows(width);
    let sign = if inverse { -1.0 } else { 1.0 };
    x.par_chunks_mut(rows * width)
        .zip(cos.par_chunks(rows * half))
        .zip(sin.par_chunks(rows * half))
        .for_each(|((x, cos), sin)| rotary_block(token, x, cos, sin, width, half, sign));
}

simd_entry!(fn rotary_block<'a>(
    x: &'a mut [f32], cos: &'a [f32], sin: &'a [f32], width: usize, half: usize, sign: f32
) = rotary_rows);

#[inline(always)]
fn rotary_rows<S: Simd>(
    _: S,
    x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    width: usize,
    half: usize,
    sign: f32,
) {
    for ((x, cos), sin) in x
        .chunks_exact_mut(width)
        .zip(cos.chunks_exact(half))
        .zip(sin.chunks_exact(half))
    {
        for head in x.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for (((first, second), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                let sin = sign * sin;
                let (a, b) = (*first, *second);
                *first = S::mul_add(a, cos, -(b * sin));
                *second = S::mul_add(b, cos, a * sin);
            }
        }
    }
}
