//! Activations as gates: `act(gate) * up` of Llama-like models.
//!
//! Gate and up come from one product and lie side by side in the rows of one buffer, see
//! [`GatedRows`]. Activations are `f32` or bf16; everything is computed in `f32` and rounded once,
//! when it is stored.

use rayon::prelude::*;

use crate::KernelError;
pub use crate::activation::Activation;
use crate::activation::{Curve, with_curve};
use crate::error::check_len;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::matmul::Layout;
use crate::number::{Number, for_groups, read, write};
use crate::par::block_rows;

/// Where gate and up lie: in each row of `row_stride` numbers, `inner` numbers of gate from column 0
/// and `inner` numbers of up from column `up_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatedRows {
    /// Numbers of gate and of up in a row.
    pub inner: usize,
    /// Numbers from one row to the next.
    pub row_stride: usize,
    /// The first column of up, at least `inner`.
    pub up_at: usize,
}

impl GatedRows {
    /// Rows that hold nothing else.
    pub fn new(inner: usize) -> Self {
        Self {
            inner,
            row_stride: 2 * inner,
            up_at: inner,
        }
    }

    /// Checks the rows of `len` numbers against those of an output of `out_len`.
    ///
    /// The result has a stride that cuts whole rows, even where there are too few for it to matter.
    fn check(self, len: usize, out_len: usize) -> Result<Self, KernelError> {
        let Self {
            inner,
            row_stride,
            up_at,
        } = self;
        if inner == 0 {
            return Err(KernelError::Zero { name: "inner" });
        }
        if up_at < inner {
            return Err(KernelError::OverlappingView {
                rows: 2,
                cols: inner,
                row_stride: up_at,
                col_stride: 1,
            });
        }
        let rows = out_len / inner;
        let overflow = KernelError::Overflow { name: "gate_up" };
        let cols = up_at.checked_add(inner).ok_or(overflow)?;
        check_strided("gate_up", len, rows, cols, row_stride)?;
        Ok(Self {
            row_stride: row_stride.max(cols),
            ..self
        })
    }
}

/// Checks that `rows` distinct rows of `cols` numbers, `row_stride` apart, lie within `len`.
pub(crate) fn check_strided(
    name: &'static str,
    len: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
) -> Result<(), KernelError> {
    let layout = Layout {
        row_stride,
        ..Layout::row_major(rows, cols)
    };
    layout.check(name, len)?.check_distinct().map(|_| ())
}

/// `out = act(gate) * up`, row by row.
///
/// # Shapes
///
/// `gate_up`: `N` rows as `rows` says, the last one as long as it needs to be or longer;
/// `out[N, inner]`.
///
/// # Errors
///
/// [`KernelError::Length`] if `out` is not a number of whole rows, [`KernelError::View`] if
/// `gate_up` does not hold as many, [`KernelError::OverlappingView`] if rows, or gate and up, overlap,
/// [`KernelError::Zero`] if `inner` is zero.
pub fn gated_forward<T: Number>(
    activation: Activation,
    gate_up: &[T],
    rows: GatedRows,
    out: &mut [T],
) -> Result<(), KernelError> {
    let rows = rows.check(gate_up.len(), out.len())?;
    check_len("out", out, &[out.len() / rows.inner, rows.inner])?;
    let token = Token::current();
    let block = block_rows(rows.inner);
    out.par_chunks_mut(block * rows.inner)
        .zip(gate_up.par_chunks(block.saturating_mul(rows.row_stride)))
        .for_each(|(out, gate_up)| {
            with_curve!(activation, |curve| forward_block(
                token, curve, gate_up, rows, out
            ));
        });
    Ok(())
}

/// The gradients of [`gated_forward`], the activation computed again; they replace gate and up:
///
/// ```text
/// dgate = dout up act'(gate)
/// dup   = dout act(gate)
/// ```
///
/// With `out`, also what [`gated_forward`] gave, to its bits: the next layer may need it for the
/// gradient of its factors, and here it costs one more product.
///
/// # Shapes
///
/// `gate_up`: `N` rows as `rows` says; what lies between gate, up and the next row stays as it is.
/// `dout[N, inner]`, `out[N, inner]`.
///
/// # Errors
///
/// Those of [`gated_forward`].
pub fn gated_backward_in_place<T: Number>(
    activation: Activation,
    gate_up: &mut [T],
    rows: GatedRows,
    dout: &[T],
    out: Option<&mut [T]>,
) -> Result<(), KernelError> {
    let rows = rows.check(gate_up.len(), dout.len())?;
    let inner = rows.inner;
    check_len("dout", dout, &[dout.len() / inner, inner])?;
    if let Some(out) = &out {
        check_len("out", out, &[dout.len()])?;
    }
    let (token, block) = (Token::current(), block_rows(inner));
    let blocks = gate_up
        .par_chunks_mut(block.saturating_mul(rows.row_stride))
        .zip(dout.par_chunks(block * inner));
    let run = |(gate_up, dout): (&mut [T], &[T]), out: &mut [T]| {
        with_curve!(activation, |curve| backward_block(
            token, curve, gate_up, rows, dout, out
        ));
    };
    match out {
        Some(out) => blocks
            .zip(out.par_chunks_mut(block * inner))
            .for_each(|(block, out)| run(block, out)),
        None => blocks.for_each(|block| run(block, &mut [])),
    }
    Ok(())
}

simd_entry!(fn forward_block<'a; T: Number, C: Curve>(
    curve: C, gate_up: &'a [T], rows: GatedRows, out: &'a mut [T]
) = forward_rows);

#[inline(always)]
fn forward_rows<S: PairSimd, T: Number, C: Curve>(
    simd: S,
    curve: C,
    gate_up: &[T],
    rows: GatedRows,
    out: &mut [T],
) {
    let GatedRows {
        inner,
        row_stride,
        up_at,
    } = rows;
    for (row, out) in gate_up.chunks(row_stride).zip(out.chunks_exact_mut(inner)) {
        forward_row(simd, curve, &row[..inner], &row[up_at..][..inner], out);
    }
}

#[inline(always)]
pub(crate) fn forward_row<S: PairSimd, T: Number, C: Curve>(
    simd: S,
    curve: C,
    gate: &[T],
    up: &[T],
    out: &mut [T],
) {
    for_groups!(out.len(), |at| {
        let gate = read(simd, gate, at);
        let act = simd.mul(gate, curve.share(simd, gate));
        write(simd, simd.mul(act, read(simd, up, at)), out, at);
    });
}

simd_entry!(fn backward_block<'a; T: Number, C: Curve>(
    curve: C, gate_up: &'a mut [T], rows: GatedRows, dout: &'a [T], out: &'a mut [T]
) = backward_rows);

/// `out` is empty if it is not wanted.
#[inline(always)]
fn backward_rows<S: PairSimd, T: Number, C: Curve>(
    simd: S,
    curve: C,
    gate_up: &mut [T],
    rows: GatedRows,
    dout: &[T],
    out: &mut [T],
) {
    let GatedRows {
        inner,
        row_stride,
        up_at,
    } = rows;
    let both = gate_up.chunks_mut(row_stride).zip(dout.chunks_exact(inner));
    for (n, (row, dout)) in both.enumerate() {
        let (gate, up) = row.split_at_mut(up_at);
        let (gate, up) = (&mut gate[..inner], &mut up[..inner]);
        let out: &mut [T] = if out.is_empty() {
            &mut []
        } else {
            &mut out[n * inner..][..inner]
        };
        for_groups!(inner, |at| {
            let values = [
                read(simd, gate, at),
                read(simd, up, at),
                read(simd, dout, at),
            ];
            let [dgate, dup, act] = backward_group(simd, curve, values);
            write(simd, dgate, gate, at);
            write(simd, dup, up, at);
            if !out.is_empty() {
                write(simd, act, out, at);
            }
        });
    }
}

/// `dgate`, `dup` and the output again.
#[inline(always)]
pub(crate) fn backward_group<S: PairSimd, C: Curve>(
    simd: S,
    curve: C,
    [gate, up, dout]: [S::V; 3],
) -> [S::V; 3] {
    let (share, [first, second]) = curve.slope(simd, gate);
    let dgate = simd.mul(simd.mul(simd.mul(dout, up), first), second);
    let dup = simd.mul(simd.mul(dout, gate), share);
    let out = simd.mul(simd.mul(gate, share), up);
    [dgate, dup, out]
}
