//! The output layer and the cross-entropy in one, over labelled tokens only.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::check_len;
use crate::isa::{Simd, Token, simd_entry};
use crate::matmul::{MatMut, MatRef, matmul};
use crate::vector;

/// The label of a token that is not predicted.
pub const IGNORE: i32 = -100;

/// The most labelled rows whose logits exist at the same time.
const MAX_CHUNK_ROWS: usize = 512;

/// The fewest; below, products of a chunk would be bound by reading the weight.
const MIN_CHUNK_ROWS: usize = 64;

/// Logits that exist at the same time, 64 MiB, if that lies between the two bounds.
const CHUNK_LOGITS: usize = 16 << 20;

/// Labelled rows of one chunk. The weight is read and packed once for each chunk, so long ones are
/// faster: at a vocabulary of 49152 on two Zen 5 cores, 128 rows reach 260 GFLOP/s, 256 rows 350 and 512
/// rows 370, of 420 that the products alone would.
pub(crate) fn chunk_rows(vocabulary: usize) -> usize {
    (CHUNK_LOGITS / vocabulary.max(1)).clamp(MIN_CHUNK_ROWS, MAX_CHUNK_ROWS) / 64 * 64
}

/// What [`linear_cross_entropy`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CrossEntropy {
    /// Sum of the negative log-likelihoods of the labelled tokens, in nats.
    pub sum: f64,
    /// Number of labelled tokens.
    pub tokens: usize,
}

/// The negative log-likelihood of each label under `softmax(h W')`, and its gradients:
///
/// ```text
/// sum = sum over labelled n of  logsumexp_v(z_nv) - z_n,label_n,   z = h W'
/// dh  = grad_scale (softmax(z) - onehot(label)) W    for labelled rows, 0 for others
/// dw += grad_scale (softmax(z) - onehot(label))' h
/// ```
///
/// # Shapes
///
/// `h[N, d]`, `w[V, d]`, `labels[N]` with [`IGNORE`] for tokens that are not predicted, `dh[N, d]`
/// (overwritten), `dw[V, d]` (added to).
///
/// # Arguments
///
/// `grad_scale` is the gradient of the sum: `1 / tokens` for the gradient of the mean.
///
/// # Numerics
///
/// Logits in `f32`; the sum of the exponentials of a row and the sum over rows in `f64`, in a
/// fixed order. A row of `h` with NaN makes the sum and the gradient of that row NaN.
///
/// # Errors
///
/// [`KernelError::Label`] for a label that is neither [`IGNORE`] nor in `0..V`, before anything is
/// written; [`KernelError::Length`]; [`KernelError::Zero`] if `d` is zero.
///
/// # Cost
///
/// For `L` labelled tokens `2 L V d` operations for the loss and as many again for each gradient;
/// memory for the logits of at most 512 rows and at most 64 MiB, or 64 rows if that is more, whatever
/// `N`.
pub fn linear_cross_entropy(
    h: &[f32],
    w: &[f32],
    d: usize,
    labels: &[i32],
    grad_scale: f32,
    mut dh: Option<&mut [f32]>,
    mut dw: Option<&mut [f32]>,
) -> Result<CrossEntropy, KernelError> {
    let vocabulary = check_weight(w, d)?;
    check_len("h", h, &[labels.len(), d])?;
    if let Some(dh) = &dh {
        check_len("dh", dh, &[labels.len(), d])?;
    }
    if let Some(dw) = &dw {
        check_len("dw", dw, &[vocabulary, d])?;
    }
    let labelled = labelled_tokens(labels, vocabulary)?;
    let (token, w) = (Token::current(), MatRef::new(w, vocabulary, d)?);
    if let Some(dh) = dh.as_deref_mut() {
        dh.fill(0.0);
    }
    let chunk_rows = chunk_rows(vocabulary);
    let buffer_rows = chunk_rows.min(labelled.len());
    let mut gathered = vec![0.0; buffer_rows * d];
    let mut dh_chunk = vec![0.0; if dh.is_some() { buffer_rows * d } else { 0 }];
    let mut logits = vec![0.0; buffer_rows * vocabulary];
    let mut stats = vec![Row::default(); buffer_rows];
    let wants_gradient = dh.is_some() || dw.is_some();
    let mut sum = 0.0;

    for chunk in labelled.chunks(chunk_rows) {
        let rows = chunk.len();
        let gathered = &mut gathered[..rows * d];
        for (row, &(position, _)) in gathered.chunks_exact_mut(d).zip(chunk) {
            row.copy_from_slice(&h[position * d..][..d]);
        }
        let logits = &mut logits[..rows * vocabulary];
        matmul(
            MatMut::new(logits, rows, vocabulary)?,
            MatRef::new(gathered, rows, d)?,
            w.t(),
            1.0,
            0.0,
        )?;
        let stats = &mut stats[..rows];
        logits
            .par_chunks_exact_mut(vocabulary)
            .zip(chunk)
            .zip(&mut *stats)
            .for_each(|((logits, &(_, label)), stats)| {
                *stats = softmax_row(token, logits, label, wants_gradient);
            });
        // In the order of the tokens.
        sum += stats.iter().map(|row| row.loss).sum::<f64>();
        if !wants_gradient {
            continue;
        }
        // The rows of `logits` are now the gradient but for a factor of the row, which is
        // applied to rows of width `d` instead of rows of width `V`.
        let factor = |row: &Row| (f64::from(grad_scale) / row.exp_sum) as f32;
        let gradient = MatRef::new(&*logits, rows, vocabulary)?;
        if let Some(dh) = dh.as_deref_mut() {
            let dh_chunk = &mut dh_chunk[..rows * d];
            let product = MatMut::new(dh_chunk, rows, d)?;
            matmul(product, gradient, w, 1.0, 0.0)?;
            for ((row, &(position, _)), stats) in dh_chunk.chunks_exact(d).zip(chunk).zip(&*stats) {
                let factor = factor(stats);
                for (dh, &row) in dh[position * d..][..d].iter_mut().zip(row) {
                    *dh = factor * row;
                }
            }
        }
        if let Some(dw) = dw.as_deref_mut() {
            for (row, stats) in gathered.chunks_exact_mut(d).zip(&*stats) {
                vector::scale(factor(stats), row);
            }
            let h = MatRef::new(gathered, rows, d)?;
            matmul(MatMut::new(dw, vocabulary, d)?, gradient.t(), h, 1.0, 1.0)?;
        }
    }
    Ok(CrossEntropy {
        sum,
        tokens: labelled.len(),
    })
}

/// Position and label of the tokens that are predicted, in order.
pub(crate) fn labelled_tokens(
    labels: &[i32],
    vocabulary: usize,
) -> Result<Vec<(usize, usize)>, KernelError> {
    let mut labelled = Vec::new();
    for (position, &label) in labels.iter().enumerate() {
        if label == IGNORE {
            continue;
        }
        match usize::try_from(label) {
            Ok(index) if index < vocabulary => labelled.push((position, index)),
            _ => {
                return Err(KernelError::Label {
                    position,
                    label,
                    vocabulary,
                });
            }
        }
    }
    Ok(labelled)
}

fn check_weight(w: &[f32], d: usize) -> Result<usize, KernelError> {
    if d == 0 {
        return Err(KernelError::Zero { name: "d" });
    }
    let vocabulary = w.len() / d;
    check_len("w", w, &[vocabulary, d])?;
    Ok(vocabulary)
}

/// What one row yields: its loss and the sum of its shifted exponentials.
#[derive(Clone, Copy, Default)]
struct Row {
    loss: f64,
    exp_sum: f64,
}

simd_entry!(fn softmax_row<'a>(
    logits: &'a mut [f32], label: usize, wants_gradient: bool
) -> Row = softmax_row_generic);

/// Columns whose exponentials are summed in `f32` before the sum goes on in `f64`.
const SUM_BLOCK: usize = 4096;

/// Replaces the logits by `exp(z - max) - onehot * sum`, the gradient times the sum.
#[inline(always)]
fn softmax_row_generic<S: Simd>(
    simd: S,
    logits: &mut [f32],
    label: usize,
    wants_gradient: bool,
) -> Row {
    let max = vector::max(simd, logits);
    let shifted_label = f64::from(logits[label] - max);
    let mut exp_sum = 0.0;
    for block in logits.chunks_mut(SUM_BLOCK) {
        exp_sum += f64::from(vector::exp_shifted_sum(simd, block, max));
    }
    if wants_gradient {
        logits[label] = (f64::from(logits[label]) - exp_sum) as f32;
    }
    Row {
        loss: exp_sum.ln() - shifted_label,
        exp_sum,
    }
}
