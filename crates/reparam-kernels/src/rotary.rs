//! Rotary position embedding, in the convention of Hugging Face's `rotate_half` or of neighbours.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::{check_len, elements};
use crate::gated::check_strided;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::number::{Group, Number, for_groups, read, write};
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
pub fn rotary<T: Number>(
    x: &mut [T],
    cos: &[f32],
    sin: &[f32],
    n_heads: usize,
    head_dim: usize,
    inverse: bool,
) -> Result<(), KernelError> {
    let heads = Heads {
        row_stride: n_heads * head_dim,
        n_heads,
        head_dim,
        turned: head_dim,
        interleaved: false,
    };
    let tokens = check_tables(cos, sin, heads)?;
    check_len("x", x, &[tokens, n_heads, head_dim])?;
    turn(x, cos, sin, heads, inverse);
    Ok(())
}

/// Where the heads of a row lie, and how much of each is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Numbers from one row to the next.
    pub row_stride: usize,
    /// Heads, from the first number of a row on.
    pub n_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
    /// How many of them are turned, the first ones: an even number up to `head_dim`.
    pub turned: usize,
    /// Whether pairs are neighbours, as in GPT-J: `x_{2i}` and `x_{2i+1}` in place of `x_i` and `x_{i+h}`.
    pub interleaved: bool,
}

/// [`rotary`] of the heads of rows that hold something else, too, or of a part of each head: what is not turned stays as it is.
///
/// Queries and keys that lie side by side are turned by one call with the heads of both. In the formula of [`rotary`], `h`
/// is half of what is turned; interleaved heads have their pairs elsewhere.
///
/// # Shapes
///
/// `x`: `N` rows, the last one as long as it needs to be or longer; `cos[N, turned / 2]`,
/// `sin[N, turned / 2]`.
///
/// # Errors
///
/// Those of [`rotary`]; [`KernelError::View`] if `x` does not hold so many rows, or a head not what is turned of it,
/// [`KernelError::OverlappingView`] if the rows overlap.
pub fn rotary_rows<T: Number>(
    x: &mut [T],
    heads: Heads,
    cos: &[f32],
    sin: &[f32],
    inverse: bool,
) -> Result<(), KernelError> {
    let tokens = check_tables(cos, sin, heads)?;
    let width = elements("x", &[heads.n_heads, heads.head_dim])?;
    check_strided("x", x.len(), tokens, width, heads.row_stride)?;
    let heads = Heads {
        // A single row may have any stride; this one cuts whole rows.
        row_stride: heads.row_stride.max(width),
        ..heads
    };
    turn(x, cos, sin, heads, inverse);
    Ok(())
}

/// Returns the number of tokens.
fn check_tables(cos: &[f32], sin: &[f32], heads: Heads) -> Result<usize, KernelError> {
    let Heads {
        n_heads,
        head_dim,
        turned,
        ..
    } = heads;
    if !turned.is_multiple_of(2) {
        return Err(KernelError::OddHeadDim { head_dim: turned });
    }
    for (name, value) in [
        ("head_dim", head_dim),
        ("turned", turned),
        ("n_heads", n_heads),
    ] {
        if value == 0 {
            return Err(KernelError::Zero { name });
        }
    }
    if turned > head_dim {
        return Err(KernelError::View {
            rows: 1,
            cols: turned,
            row_stride: head_dim,
            col_stride: 1,
            found: head_dim,
        });
    }
    let half = turned / 2;
    let tokens = cos.len() / half;
    check_len("cos", cos, &[tokens, half])?;
    check_len("sin", sin, &[tokens, half])?;
    Ok(tokens)
}

fn turn<T: Number>(x: &mut [T], cos: &[f32], sin: &[f32], heads: Heads, inverse: bool) {
    let (token, half) = (Token::current(), heads.turned / 2);
    let rows = block_rows(heads.n_heads * heads.head_dim);
    let sign = if inverse { -1.0 } else { 1.0 };
    x.par_chunks_mut(rows.saturating_mul(heads.row_stride))
        .zip(cos.par_chunks(rows * half))
        .zip(sin.par_chunks(rows * half))
        .for_each(|((x, cos), sin)| rotary_block(token, x, cos, sin, heads, sign));
}

simd_entry!(fn rotary_block<'a; T: Number>(
    x: &'a mut [T], cos: &'a [f32], sin: &'a [f32], heads: Heads, sign: f32
) = rotary_generic);

#[inline(always)]
fn rotary_generic<S: PairSimd, T: Number>(
    simd: S,
    x: &mut [T],
    cos: &[f32],
    sin: &[f32],
    heads: Heads,
    sign: f32,
) {
    let half = heads.turned / 2;
    let (plus, minus) = (simd.splat(sign), simd.splat(-sign));
    for ((x, cos), sin) in x
        .chunks_mut(heads.row_stride)
        .zip(cos.chunks_exact(half))
        .zip(sin.chunks_exact(half))
    {
        for head in x.chunks_exact_mut(heads.head_dim).take(heads.n_heads) {
            if heads.interleaved {
                turn_neighbours(&mut head[..heads.turned], cos, sin, sign);
                continue;
            }
            for_groups!(half, |at| {
                let behind: Group = at.after(half);
                let (a, b) = (read(simd, head, at), read(simd, head, behind));
                let (cos, sin) = (read(simd, cos, at), read(simd, sin, at));
                let from_b = simd.mul(b, simd.mul(sin, minus));
                let from_a = simd.mul(a, simd.mul(sin, plus));
                write(simd, simd.mul_add_lanes(a, cos, from_b), head, at);
                write(simd, simd.mul_add_lanes(b, cos, from_a), head, behind);
            });
        }
    }
}

/// Turns a head whose pairs are neighbours.
#[inline(always)]
fn turn_neighbours<T: Number>(head: &mut [T], cos: &[f32], sin: &[f32], sign: f32) {
    let pairs = head.as_chunks_mut::<2>().0.iter_mut();
    for (([a, b], cos), sin) in pairs.zip(cos).zip(sin) {
        let (x, y, sin) = (a.to_f32(), b.to_f32(), sign * sin);
        *a = T::from_f32(x * cos - y * sin);
        *b = T::from_f32(y * cos + x * sin);
    }
}
