//! A convolution of each channel over the tokens before it, with SiLU behind it.
//!
//! ```text
//! z_tc = bias_c + sum_k w_ck x_(t - K + 1 + k)c
//! y_tc = z_tc / (1 + exp(-z_tc))
//! ```
//!
//! for `k` in `0..K`; what would be before the first token of a sequence is 0. It is
//! `torch.nn.Conv1d(d, d, K, groups=d, padding=K - 1)`, cut off at the length of the sequence, as
//! Mamba has it.

use rayon::prelude::*;

use crate::KernelError;
use crate::activation::{Curve, Silu};
use crate::error::{check_len, elements};
use crate::isa::{PairSimd, Token, simd_entry};
use crate::number::{for_groups, read, write};
use crate::par::block_rows;
use crate::vector;

/// Rows at least of a block whose part of the gradient of the weight is kept apart: the part is then at
/// most a tenth of them for the usual four taps.
const LEAST_ROWS: usize = 64;

/// A convolution and the sequences that it runs over.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape<'a> {
    /// Channels, `d`.
    pub channels: usize,
    /// Tokens that each sees, itself among them, `K`.
    pub taps: usize,
    /// Where the sequences lie among the `N` tokens: `[0, n1, n1 + n2, ..., N]`.
    pub bounds: &'a [usize],
}

impl ConvShape<'_> {
    /// `N`
    pub fn tokens(&self) -> usize {
        self.bounds.last().copied().unwrap_or(0)
    }

    fn check(&self) -> Result<(), KernelError> {
        for (name, size) in [("channels", self.channels), ("taps", self.taps)] {
            if size == 0 {
                return Err(KernelError::Zero { name });
            }
        }
        // So that no product of dimensions overflows later.
        let rows = self.tokens().max(self.taps.saturating_add(1));
        elements("tokens", &[rows, self.channels])?;
        let mut before = 0;
        for (index, &bound) in self.bounds.iter().enumerate() {
            if bound < before || (index == 0 && bound != 0) {
                return Err(KernelError::Bounds {
                    index,
                    bound,
                    before,
                });
            }
            before = bound;
        }
        Ok(())
    }

    /// How many tokens of its sequence are before each, and behind it.
    fn places(&self) -> Vec<[usize; 2]> {
        let pairs = self.bounds.windows(2);
        let places = pairs.flat_map(|pair| {
            let (first, end) = (pair[0], pair[1]);
            (first..end).map(move |token| [token - first, end - 1 - token])
        });
        places.collect()
    }

    /// `[d, K]` as `[K, d]`.
    fn turned(&self, weight: &[f32]) -> Vec<f32> {
        let mut turned = vec![0.0; weight.len()];
        for (channel, taps) in weight.chunks_exact(self.taps).enumerate() {
            for (tap, x) in taps.iter().enumerate() {
                turned[tap * self.channels + channel] = *x;
            }
        }
        turned
    }
}

/// What the tasks share.
#[derive(Clone, Copy)]
struct Job<'a> {
    channels: usize,
    taps: usize,
    places: &'a [[usize; 2]],
    x: &'a [f32],
    /// `[K, d]`
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
}

/// Convolves all tokens.
///
/// # Shapes
///
/// `x[N, d]`, `weight[d, K]`, `bias[d]`, `y[N, d]`.
///
/// # Errors
///
/// [`KernelError::Length`] for a slice of the wrong length, [`KernelError::Bounds`] for bounds that do
/// not begin at 0 or decrease, [`KernelError::Zero`] if there are no channels or no taps.
///
/// # Cost
///
/// `2 N d K` operations; allocates the weight once more and two numbers a token.
pub fn causal_conv_forward(
    shape: ConvShape<'_>,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    check(&shape, x, weight, bias)?;
    check_len("y", y, &[shape.tokens(), shape.channels])?;
    let (places, weight) = (shape.places(), shape.turned(weight));
    let job = Job {
        channels: shape.channels,
        taps: shape.taps,
        places: &places,
        x,
        weight: &weight,
        bias,
    };
    let token = Token::current();
    let rows = block_rows(shape.channels);
    y.par_chunks_mut(rows * shape.channels)
        .enumerate()
        .for_each(|(block, y)| forward_rows(token, job, block * rows, y));
    Ok(())
}

/// The gradients of [`causal_conv_forward`]: with `dz = dy silu'(z)`, `z` computed again,
///
/// ```text
/// dx_tc    = sum_k w_ck dz_(t + K - 1 - k)c     within the sequence
/// dw_ck    = sum_t dz_tc x_(t - K + 1 + k)c
/// dbias_c  = sum_t dz_tc
/// ```
///
/// # Shapes
///
/// `dy[N, d]`, `dx[N, d]`, `dweight[d, K]`, `dbias[d]`. All outputs are overwritten.
///
/// # Errors
///
/// Those of [`causal_conv_forward`].
///
/// # Cost
///
/// `6 N d K` operations. Allocates `dz`, `N d`, and `K + 1` rows for each block of at least 64.
#[expect(clippy::too_many_arguments, reason = "five inputs, three outputs")]
pub fn causal_conv_backward(
    shape: ConvShape<'_>,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: Option<&mut [f32]>,
) -> Result<(), KernelError> {
    check(&shape, x, weight, bias)?;
    let (tokens, channels, taps) = (shape.tokens(), shape.channels, shape.taps);
    check_len("dy", dy, &[tokens, channels])?;
    check_len("dx", dx, &[tokens, channels])?;
    check_len("dweight", dweight, &[channels, taps])?;
    if let Some(dbias) = &dbias {
        check_len("dbias", dbias, &[channels])?;
    }
    let (places, weight) = (shape.places(), shape.turned(weight));
    let job = Job {
        channels,
        taps,
        places: &places,
        x,
        weight: &weight,
        bias,
    };
    let token = Token::current();
    let rows = block_rows(channels).max(LEAST_ROWS);
    let mut dz = vec![0.0; tokens * channels];
    // Of each block of rows the gradients of the taps, then that of the bias.
    let parts: Vec<Vec<f32>> = dz
        .par_chunks_mut(rows * channels)
        .zip(dy.par_chunks(rows * channels))
        .enumerate()
        .map(|(block, (dz, dy))| {
            let mut sums = vec![0.0; (taps + 1) * channels];
            slope_rows(token, job, block * rows, dy, dz, &mut sums);
            sums
        })
        .collect();
    let mut sums = vec![0.0; (taps + 1) * channels];
    for part in &parts {
        vector::add(part, &mut sums);
    }
    let (of_taps, of_bias) = sums.split_at(taps * channels);
    for (channel, to) in dweight.chunks_exact_mut(taps).enumerate() {
        for (tap, to) in to.iter_mut().enumerate() {
            *to = of_taps[tap * channels + channel];
        }
    }
    if let Some(dbias) = dbias {
        dbias.copy_from_slice(of_bias);
    }
    dx.par_chunks_mut(rows * channels)
        .enumerate()
        .for_each(|(block, dx)| backward_rows(token, job, block * rows, &dz, dx));
    Ok(())
}

fn check(
    shape: &ConvShape<'_>,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Result<(), KernelError> {
    shape.check()?;
    check_len("x", x, &[shape.tokens(), shape.channels])?;
    check_len("weight", weight, &[shape.channels, shape.taps])?;
    match bias {
        Some(bias) => check_len("bias", bias, &[shape.channels]),
        None => Ok(()),
    }
}

/// `z` of a group of channels of a token.
macro_rules! convolved {
    ($simd:expr, $job:expr, $token:expr, $at:expr) => {{
        let mut z = match $job.bias {
            Some(bias) => read($simd, bias, $at),
            None => $simd.splat(0.0),
        };
        let [before, _] = $job.places[$token];
        for back in 0..$job.taps.min(before + 1) {
            let tap = $job.taps - 1 - back;
            let weight = read($simd, &$job.weight[tap * $job.channels..], $at);
            let x = read($simd, &$job.x[($token - back) * $job.channels..], $at);
            z = $simd.mul_add_lanes(weight, x, z);
        }
        z
    }};
}

simd_entry!(fn forward_rows<'a, 'b>(job: Job<'a>, first: usize, y: &'b mut [f32])
    = forward_rows_generic);

#[inline(always)]
fn forward_rows_generic<S: PairSimd>(simd: S, job: Job<'_>, first: usize, y: &mut [f32]) {
    for (row, y) in y.chunks_exact_mut(job.channels).enumerate() {
        for_groups!(job.channels, |at| {
            let z = convolved!(simd, job, first + row, at);
            write(simd, simd.mul(z, Silu.share(simd, z)), y, at);
        });
    }
}

simd_entry!(fn slope_rows<'a, 'b>(
    job: Job<'a>, first: usize, dy: &'b [f32], dz: &'b mut [f32], sums: &'b mut [f32]
) = slope_rows_generic);

/// `dz` of some rows, and what they add to the gradients of the taps and of the bias.
#[inline(always)]
fn slope_rows_generic<S: PairSimd>(
    simd: S,
    job: Job<'_>,
    first: usize,
    dy: &[f32],
    dz: &mut [f32],
    sums: &mut [f32],
) {
    let channels = job.channels;
    let rows = dz.chunks_exact_mut(channels).zip(dy.chunks_exact(channels));
    for (row, (dz, dy)) in rows.enumerate() {
        let token = first + row;
        let [before, _] = job.places[token];
        for_groups!(channels, |at| {
            let z = convolved!(simd, job, token, at);
            let (_, [left, right]) = Silu.slope(simd, z);
            let slope = simd.mul(simd.mul(read(simd, dy, at), left), right);
            write(simd, slope, dz, at);
            for back in 0..job.taps.min(before + 1) {
                let tap = job.taps - 1 - back;
                let x = read(simd, &job.x[(token - back) * channels..], at);
                let sum = &mut sums[tap * channels..];
                let next = simd.mul_add_lanes(slope, x, read(simd, sum, at));
                write(simd, next, sum, at);
            }
            let sum = &mut sums[job.taps * channels..];
            let next = simd.add(slope, read(simd, sum, at));
            write(simd, next, sum, at);
        });
    }
}

simd_entry!(fn backward_rows<'a, 'b>(
    job: Job<'a>, first: usize, dz: &'b [f32], dx: &'b mut [f32]
) = backward_rows_generic);

#[inline(always)]
fn backward_rows_generic<S: PairSimd>(
    simd: S,
    job: Job<'_>,
    first: usize,
    dz: &[f32],
    dx: &mut [f32],
) {
    let channels = job.channels;
    for (row, dx) in dx.chunks_exact_mut(channels).enumerate() {
        let token = first + row;
        let [_, behind] = job.places[token];
        for_groups!(channels, |at| {
            let mut sum = simd.splat(0.0);
            for ahead in 0..job.taps.min(behind + 1) {
                let tap = job.taps - 1 - ahead;
                let weight = read(simd, &job.weight[tap * channels..], at);
                let dz = read(simd, &dz[(token + ahead) * channels..], at);
                sum = simd.mul_add_lanes(weight, dz, sum);
            }
            write(simd, sum, dx, at);
        });
    }
}
