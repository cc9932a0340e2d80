//! The output layer with a frozen weight and the cross-entropy in one.

use rayon::prelude::*;

use super::matrix::{Matrix, MatrixMut};
use super::product::{Direction, Epilogue, matmul};
use super::weight::PackedView;
use crate::cross_entropy::{CrossEntropy, labelled_tokens};
use crate::error::check_len;
use crate::isa::{LANES, PairSimd, Token, simd_entry};
use crate::{Bf16, KernelError, vector};

/// Labelled rows that go through the vocabulary together.
pub(crate) const CHUNK_ROWS: usize = 512;

/// Tokens of the vocabulary whose logits exist at the same time; a multiple of [`LANES`].
pub(crate) const BLOCK: usize = 2048;

/// Numbers between two rows of a block: one line more than the numbers take, so that the rows of a
/// tile do not meet in one set of the cache.
const LOGITS_STRIDE: usize = BLOCK + LANES;
const PROBABILITIES_STRIDE: usize = BLOCK + 2 * LANES;

/// The negative log-likelihood of each label under `softmax(h W')`, and its gradient:
///
/// ```text
/// sum = sum over labelled n of  logsumexp_v(z_nv) - z_n,label_n,   z = h W'
/// dh  = grad_scale (softmax(z) - onehot(label)) W    for labelled rows, 0 for others
/// ```
///
/// As [`cross_entropy::linear_cross_entropy`](crate::cross_entropy::linear_cross_entropy), with
/// the products of [`packed`](super) and without a gradient of the weight.
///
/// # Shapes
///
/// `h[N, d]`, `w[V, d]`, `labels[N]` with [`IGNORE`](crate::cross_entropy::IGNORE) for tokens that are
/// not predicted, `dh[N, d]` (overwritten). If `w` is a weight of several parts, the zeros between
/// them count as tokens of the vocabulary: give a part.
///
/// # Arguments
///
/// `grad_scale` is the gradient of the sum: `1 / tokens` for the gradient of the mean.
///
/// # Numerics
///
/// Logits in `f32`, of bf16 factors; exponentials relative to the greatest logit so far; their sum in
/// `f64`, in a fixed order. The loss keeps its relative precision where the label is nearly certain.
/// For the gradient the probabilities of all tokens but the label are rounded to bf16, relative error
/// 2^-8, and summed in `f32`; the label's own term is not rounded before the end. A row of `h`
/// with NaN makes the sum and the gradient of that row NaN.
///
/// # Errors
///
/// [`KernelError::Label`] for a label that is neither `IGNORE` nor in `0..V`, before anything is
/// written; [`KernelError::Length`]; [`KernelError::MatmulShapes`] if `h` and `w` differ in width;
/// [`KernelError::Zero`] if `d` is zero.
///
/// # Cost
///
/// For `L` labelled tokens `2 L V d` operations for the loss and as many again for the gradient;
/// 6 MiB for the logits and probabilities of 2048 tokens of the vocabulary and up to 512 rows,
/// and `8 d` bytes for each of these rows, whatever `N` and `V`. The weight is read from memory once
/// for 512 rows.
pub fn linear_cross_entropy<'w>(
    h: Matrix<'_>,
    w: impl Into<PackedView<'w>>,
    labels: &[i32],
    grad_scale: f32,
    dh: Option<&mut [Bf16]>,
) -> Result<CrossEntropy, KernelError> {
    let (token, w) = (Token::current(), w.into());
    let d = w.cols();
    if d == 0 {
        return Err(KernelError::Zero { name: "d" });
    }
    if h.cols() != d {
        return Err(KernelError::MatmulShapes {
            a_rows: h.rows(),
            a_cols: h.cols(),
            b_rows: d,
            b_cols: w.rows(),
            dst_rows: h.rows(),
            dst_cols: w.rows(),
        });
    }
    check_len("labels", labels, &[h.rows()])?;
    if let Some(dh) = &dh {
        check_len("dh", dh, &[labels.len(), d])?;
    }
    let labelled = labelled_tokens(labels, w.rows())?;
    let problem = Problem {
        token,
        h,
        w,
        grad_scale,
    };
    problem.run(&labelled, dh)
}

struct Problem<'a> {
    token: Token,
    h: Matrix<'a>,
    w: PackedView<'a>,
    grad_scale: f32,
}

/// What is known of a row after some blocks of the vocabulary.
#[derive(Debug, Clone, Copy)]
struct Row {
    label: usize,
    label_logit: f32,
    /// The greatest logit so far.
    max: f32,
    /// Sum of `exp(z - max)` of all tokens but the label.
    others: f64,
}

impl Row {
    fn new(label: usize) -> Self {
        Self {
            label,
            label_logit: f32::NEG_INFINITY,
            max: f32::NEG_INFINITY,
            others: 0.0,
        }
    }

    /// The label's logit relative to the greatest.
    fn shift(&self) -> f64 {
        f64::from(self.label_logit - self.max)
    }

    fn loss(&self) -> f64 {
        // The greatest logit alone is 1 in the sum of exponentials; what is left of it without that
        // 1 may be tiny.
        (self.others + self.shift().exp_m1()).ln_1p() - self.shift()
    }
}

/// Buffers of a chunk of rows.
struct Buffers {
    hidden: Vec<Bf16>,
    logits: Vec<f32>,
    probabilities: Vec<Bf16>,
    /// Sum of `exp(z - max) w` of all tokens but the label.
    gradient: Vec<f32>,
    rows: Vec<Row>,
}

impl Buffers {
    fn new(rows: usize, d: usize, vocabulary: usize, wants_gradient: bool) -> Self {
        let of_gradient = |len: usize| if wants_gradient { len } else { 0 };
        let (logits, probabilities) = if vocabulary < BLOCK {
            (vocabulary, vocabulary)
        } else {
            (LOGITS_STRIDE, PROBABILITIES_STRIDE)
        };
        Self {
            hidden: vec![Bf16::ZERO; rows * d],
            logits: vec![0.0; rows * logits],
            probabilities: vec![Bf16::ZERO; of_gradient(rows * probabilities)],
            gradient: vec![0.0; of_gradient(rows * d)],
            rows: Vec::with_capacity(rows),
        }
    }
}

impl Problem<'_> {
    /// `labelled` holds position and label of the tokens that count, in order.
    fn run(
        &self,
        labelled: &[(usize, usize)],
        mut dh: Option<&mut [Bf16]>,
    ) -> Result<CrossEntropy, KernelError> {
        let d = self.w.cols();
        if let Some(dh) = dh.as_deref_mut() {
            dh.fill(Bf16::ZERO);
        }
        let buffer_rows = CHUNK_ROWS.min(labelled.len());
        let mut buffers = Buffers::new(buffer_rows, d, self.w.rows(), dh.is_some());
        let mut sum = 0.0;
        for chunk in labelled.chunks(CHUNK_ROWS) {
            self.run_chunk(chunk, dh.is_some(), &mut buffers)?;
            // In the order of the tokens.
            sum += buffers.rows.iter().map(Row::loss).sum::<f64>();
            if let Some(dh) = dh.as_deref_mut() {
                self.finish_gradient(&mut buffers);
                for (row, &(position, _)) in buffers.hidden.chunks_exact(d).zip(chunk) {
                    dh[position * d..][..d].copy_from_slice(row);
                }
            }
        }
        Ok(CrossEntropy {
            sum,
            tokens: labelled.len(),
        })
    }

    /// Takes the rows of `chunk` through the vocabulary. The second product of a block finds its part
    /// of the weight in the cache.
    fn run_chunk(
        &self,
        chunk: &[(usize, usize)],
        wants_gradient: bool,
        buffers: &mut Buffers,
    ) -> Result<(), KernelError> {
        let (d, vocabulary, m) = (self.w.cols(), self.w.rows(), chunk.len());
        let Buffers {
            hidden,
            logits,
            probabilities,
            gradient,
            rows,
        } = buffers;
        let hidden = &mut hidden[..m * d];
        for (to, &(position, _)) in hidden.chunks_exact_mut(d).zip(chunk) {
            self.h.read_row(position, to);
        }
        rows.clear();
        rows.extend(chunk.iter().map(|&(_, label)| Row::new(label)));
        for start in (0..vocabulary).step_by(BLOCK) {
            let width = BLOCK.min(vocabulary - start);
            let panels = start / LANES..(start + width).div_ceil(LANES);
            let w = self.w.panels_as(panels, width);
            let (logits_stride, stride) = if vocabulary < BLOCK {
                (width, width)
            } else {
                (LOGITS_STRIDE, PROBABILITIES_STRIDE)
            };
            let logits = &mut logits[..m * logits_stride];
            matmul(
                Matrix::new(&*hidden, m, d)?,
                w,
                Direction::Forward,
                Epilogue::default(),
                MatrixMut::with_row_stride(&mut *logits, m, width, logits_stride)?,
            )?;
            let logits = logits.par_chunks_mut(logits_stride).with_min_len(8);
            let softmax = |row: &mut Row, logits: &mut [f32], to: Option<&mut [Bf16]>| {
                softmax_block(self.token, row, start, &mut logits[..width], to)
            };
            if !wants_gradient {
                logits.zip(&mut *rows).for_each(|(logits, row)| {
                    softmax(row, logits, None);
                });
                continue;
            }
            let probabilities = &mut probabilities[..m * stride];
            let gradient = &mut gradient[..m * d];
            logits
                .zip(&mut *rows)
                .zip(probabilities.par_chunks_mut(stride))
                .zip(gradient.par_chunks_mut(d))
                .for_each(|(((logits, row), to), gradient)| {
                    let factor = softmax(row, logits, Some(&mut to[..width]));
                    if start > 0 && factor != 1.0 {
                        vector::scale(factor, gradient);
                    }
                });
            matmul(
                Matrix::with_row_stride(&*probabilities, m, width, stride)?,
                w,
                Direction::Backward,
                Epilogue {
                    accumulate: start > 0,
                    ..Epilogue::default()
                },
                MatrixMut::new(gradient, m, d)?,
            )?;
        }
        Ok(())
    }

    /// Writes the gradients of the rows into `hidden`.
    fn finish_gradient(&self, buffers: &mut Buffers) {
        let d = self.w.cols();
        let Buffers {
            hidden,
            gradient,
            rows,
            ..
        } = buffers;
        hidden
            .par_chunks_exact_mut(d)
            .zip(gradient.par_chunks_exact(d))
            .zip(&*rows)
            .for_each(|((to, gradient), row)| {
                let total = row.others + row.shift().exp();
                let scale = f64::from(self.grad_scale) / total;
                self.w.copy_row(row.label, to);
                finish_row(
                    self.token,
                    gradient,
                    scale as f32,
                    // softmax - 1 of the label is minus the others.
                    (-scale * row.others) as f32,
                    to,
                );
            });
    }
}

simd_entry!(fn softmax_block<'a>(
    row: &'a mut Row, start: usize, logits: &'a mut [f32], probabilities: Option<&'a mut [Bf16]>,
) -> f32 = softmax_block_generic);

/// Adds the tokens from `start` on to a row and writes `exp(z - max)`, zero for the label. Returns
/// by what earlier exponentials of the row are to be multiplied.
#[inline(always)]
fn softmax_block_generic<S: PairSimd>(
    simd: S,
    row: &mut Row,
    start: usize,
    logits: &mut [f32],
    probabilities: Option<&mut [Bf16]>,
) -> f32 {
    let greatest = vector::max(simd, logits);
    let max = if greatest > row.max {
        greatest
    } else {
        row.max
    };
    // Also where both are minus infinity.
    let factor = if max == row.max {
        1.0
    } else {
        f64::from(row.max - max).exp()
    };
    row.max = max;
    if let Some(label) = row.label.checked_sub(start)
        && let Some(logit) = logits.get_mut(label)
    {
        row.label_logit = *logit;
        *logit = f32::NEG_INFINITY;
    }
    row.others = row.others * factor + f64::from(vector::exp_shifted_sum(simd, logits, max));
    if let Some(to) = probabilities {
        narrow(simd, logits, to);
    }
    factor as f32
}

#[inline(always)]
fn narrow<S: PairSimd>(simd: S, from: &[f32], to: &mut [Bf16]) {
    let (groups, rest) = from.as_chunks::<LANES>();
    let (to_groups, to_rest) = to.as_chunks_mut::<LANES>();
    for (from, to) in groups.iter().zip(to_groups) {
        *to = simd.narrow(simd.load(from));
    }
    for (from, to) in rest.iter().zip(to_rest) {
        *to = Bf16::from_f32(*from);
    }
}

simd_entry!(fn finish_row<'a>(
    gradient: &'a [f32], scale: f32, label_scale: f32, row: &'a mut [Bf16],
) = finish_row_generic);

/// `row = scale gradient + label_scale row`
#[inline(always)]
fn finish_row_generic<S: PairSimd>(
    _: S,
    gradient: &[f32],
    scale: f32,
    label_scale: f32,
    row: &mut [Bf16],
) {
    for (row, gradient) in row.iter_mut().zip(gradient) {
        *row = Bf16::from_f32(S::mul_add(scale, *gradient, label_scale * row.to_f32()));
    }
}
