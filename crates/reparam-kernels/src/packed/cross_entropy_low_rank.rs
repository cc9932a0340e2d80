//! The output layer with a frozen weight and a trained low-rank term, and the cross-entropy in one.

use super::cross_entropy::{BLOCK, CHUNK_ROWS, Row, check_shapes, finish_row, softmax_block};
use super::matrix::{Matrix, MatrixMut};
use super::product::{Direction, Epilogue, LowRankTerm, matmul_with, product_with};
use super::weight::PackedView;
use crate::cross_entropy::{CrossEntropy, labelled_tokens};
use crate::error::check_len;
use crate::isa::{LANES, Token};
use crate::{Bf16, KernelError};

/// What is added to the logits: `s t B'`.
#[derive(Debug, Clone, Copy)]
pub struct HeadTerm<'a> {
    /// `t = z A'`, `[N, r]`.
    pub t: Matrix<'a>,
    /// `B`, `[V, r]`.
    pub b: &'a [f32],
    /// `s`.
    pub scaling: f32,
}

/// Where the gradients go.
#[derive(Debug)]
pub struct HeadGradients<'a> {
    /// Of `h` through the frozen weight, `[N, d]`, overwritten.
    pub dh: &'a mut [Bf16],
    /// Of `t`, `[N, r]`, overwritten.
    pub dt: &'a mut [f32],
    /// Of `B`, `[V, r]`, overwritten.
    pub db: &'a mut [f32],
}

/// As [`linear_cross_entropy`](super::linear_cross_entropy) for `z = h W' + s t B'`, with the gradients of `h`, `t` and `B`.
///
/// # Cost
///
/// The gradient of `B` needs the whole denominator of each row before the first block of the vocabulary, so the logits are
/// made twice where gradients are wanted: `6 L V d` operations and `8 L V r` for the term.
///
/// # Errors
///
/// As that, and for a term that does not fit.
pub fn linear_cross_entropy_low_rank<'w>(
    h: Matrix<'_>,
    w: impl Into<PackedView<'w>>,
    term: HeadTerm<'_>,
    labels: &[i32],
    grad_scale: f32,
    gradients: Option<HeadGradients<'_>>,
) -> Result<CrossEntropy, KernelError> {
    let token = Token::current();
    linear_cross_entropy_low_rank_with(token, h, w.into(), term, labels, grad_scale, gradients)
}

/// [`linear_cross_entropy_low_rank`] with the instruction set of `token`.
pub(crate) fn linear_cross_entropy_low_rank_with(
    token: Token,
    h: Matrix<'_>,
    w: PackedView<'_>,
    term: HeadTerm<'_>,
    labels: &[i32],
    grad_scale: f32,
    mut gradients: Option<HeadGradients<'_>>,
) -> Result<CrossEntropy, KernelError> {
    check_shapes(&h, &w, labels)?;
    let (d, rank) = (w.cols(), term.t.cols());
    check_len("b", term.b, &[w.rows(), rank])?;
    if term.t.rows() != h.rows() {
        return Err(KernelError::Length {
            name: "t",
            expected: h.rows(),
            found: term.t.rows(),
        });
    }
    if let Some(HeadGradients { dh, dt, db }) = &mut gradients {
        check_len("dh", dh, &[labels.len(), d])?;
        check_len("dt", dt, &[labels.len(), rank])?;
        check_len("db", db, &[w.rows(), rank])?;
        dh.fill(Bf16::ZERO);
        dt.fill(0.0);
        db.fill(0.0);
    }
    let labelled = labelled_tokens(labels, w.rows())?;
    let problem = Problem {
        token,
        h,
        w,
        term,
        grad_scale,
    };
    let mut sum = 0.0;
    for chunk in labelled.chunks(CHUNK_ROWS) {
        sum += problem.chunk(chunk, gradients.as_mut())?;
    }
    Ok(CrossEntropy {
        sum,
        tokens: labelled.len(),
    })
}

struct Problem<'a> {
    token: Token,
    h: Matrix<'a>,
    w: PackedView<'a>,
    term: HeadTerm<'a>,
    grad_scale: f32,
}

/// The rows of a chunk that go through the vocabulary.
struct Chunk {
    hidden: Vec<Bf16>,
    t: Vec<Bf16>,
    logits: Vec<f32>,
}

impl Problem<'_> {
    /// Takes some labelled tokens, each with its position, through the vocabulary; returns the sum of their losses.
    fn chunk(
        &self,
        tokens: &[(usize, usize)],
        gradients: Option<&mut HeadGradients<'_>>,
    ) -> Result<f64, KernelError> {
        let (d, rank, m) = (self.w.cols(), self.term.t.cols(), tokens.len());
        let mut chunk = Chunk {
            hidden: vec![Bf16::ZERO; m * d],
            t: vec![Bf16::ZERO; m * rank],
            logits: vec![0.0; m * BLOCK.min(self.w.rows())],
        };
        for (row, &(position, _)) in tokens.iter().enumerate() {
            self.h.read_row(position, &mut chunk.hidden[row * d..][..d]);
            self.term
                .t
                .read_row(position, &mut chunk.t[row * rank..][..rank]);
        }
        let mut rows: Vec<Row> = tokens.iter().map(|&(_, label)| Row::new(label)).collect();
        self.blocks(&mut chunk, |_, start, width, logits| {
            for (row, logits) in rows.iter_mut().zip(logits.chunks_mut(width)) {
                softmax_block(self.token, row, start, logits, None);
            }
            Ok(())
        })?;
        if let Some(gradients) = gradients {
            self.gradients(&mut chunk, tokens, &rows, gradients)?;
        }
        Ok(rows.iter().map(Row::loss).sum())
    }

    /// Makes the logits of one block of the vocabulary after the other.
    fn blocks(
        &self,
        chunk: &mut Chunk,
        mut see: impl FnMut(PackedView<'_>, usize, usize, &mut [f32]) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let (d, rank, vocabulary) = (self.w.cols(), self.term.t.cols(), self.w.rows());
        let Chunk { hidden, t, logits } = chunk;
        let m = hidden.len() / d;
        for start in (0..vocabulary).step_by(BLOCK) {
            let width = BLOCK.min(vocabulary - start);
            let panels = start / LANES..(start + width).div_ceil(LANES);
            let w = self.w.panels_as(panels, width);
            let logits = &mut logits[..m * width];
            let low_rank = LowRankTerm {
                left: Matrix::new(&t[..], m, rank)?,
                right: self.block_of_b(start, width)?.t(),
                scaling: self.term.scaling,
            };
            matmul_with(
                self.token,
                Matrix::new(&hidden[..], m, d)?,
                w,
                Direction::Forward,
                Epilogue {
                    low_rank: (rank > 0).then_some(low_rank),
                    ..Epilogue::default()
                },
                MatrixMut::new(&mut *logits, m, width)?,
            )?;
            see(w, start, width, logits)?;
        }
        Ok(())
    }

    fn block_of_b(&self, start: usize, width: usize) -> Result<Matrix<'_>, KernelError> {
        let rank = self.term.t.cols();
        Matrix::new(&self.term.b[start * rank..][..width * rank], width, rank)
    }

    fn gradients(
        &self,
        chunk: &mut Chunk,
        tokens: &[(usize, usize)],
        rows: &[Row],
        gradients: &mut HeadGradients<'_>,
    ) -> Result<(), KernelError> {
        let (d, rank, m) = (self.w.cols(), self.term.t.cols(), tokens.len());
        let scales: Vec<f64> = rows
            .iter()
            .map(|row| f64::from(self.grad_scale) / (row.others + row.shift().exp()))
            .collect();
        // What is known of a row makes its exponentials the final ones from the first block on.
        let mut known: Vec<Row> = rows.iter().map(Row::again).collect();
        let scaled_t: Vec<f32> = (0..m * rank)
            .map(|at| chunk.t[at].to_f32() * scales[at / rank] as f32)
            .collect();
        let mut probabilities = vec![Bf16::ZERO; m * BLOCK.min(self.w.rows())];
        let mut of_h = vec![0.0_f32; m * d];
        let mut of_t = vec![0.0_f32; m * rank];
        let token = self.token;
        self.blocks(chunk, |w, start, width, logits| {
            let probabilities = &mut probabilities[..m * width];
            let parts = logits
                .chunks_mut(width)
                .zip(probabilities.chunks_mut(width));
            for (row, (logits, to)) in known.iter_mut().zip(parts) {
                softmax_block(token, row, start, logits, Some(to));
            }
            let p = Matrix::new(&*probabilities, m, width)?;
            let accumulate = start > 0;
            matmul_with(
                token,
                p,
                w,
                Direction::Backward,
                Epilogue {
                    accumulate,
                    ..Epilogue::default()
                },
                MatrixMut::new(&mut of_h[..], m, d)?,
            )?;
            if rank == 0 {
                return Ok(());
            }
            let b = self.block_of_b(start, width)?;
            let out = MatrixMut::new(&mut of_t[..], m, rank)?;
            product_with(token, p, b, 1.0, accumulate, out)?;
            let t = Matrix::new(&scaled_t[..], m, rank)?;
            let db = &mut gradients.db[start * rank..][..width * rank];
            let out = MatrixMut::new(db, width, rank)?;
            product_with(token, p.t(), t, self.term.scaling, true, out)
        })?;
        for (index, (&(position, label), row)) in tokens.iter().zip(rows).enumerate() {
            // softmax - 1 of the label is minus the others.
            let (scale, of_label) = (scales[index] as f32, (-scales[index] * row.others) as f32);
            let dh = &mut gradients.dh[position * d..][..d];
            self.w.copy_row(label, dh);
            finish_row(token, &of_h[index * d..][..d], scale, of_label, dh);
            let b = &self.term.b[label * rank..][..rank];
            let dt = &mut gradients.dt[position * rank..][..rank];
            let db = &mut gradients.db[label * rank..][..rank];
            for k in 0..rank {
                let s = self.term.scaling;
                dt[k] = s * (scale * of_t[index * rank + k] + of_label * b[k]);
                db[k] += s * of_label * chunk.t[index * rank + k].to_f32();
            }
        }
        Ok(())
    }
}
