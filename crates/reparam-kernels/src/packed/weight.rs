//! A frozen weight in the order in which tiles read it.

use rayon::prelude::*;

use super::matrix::Matrix;
use super::right::{Panels, lines_of, pack_panel};
use crate::isa::{LANES, Line, Token};
use crate::{Bf16, KernelError};

/// A frozen weight `W[N, K]` as bf16, packed for products with `W'` and with `W`.
///
/// One copy serves both directions. Lines of 64 bytes hold two neighbouring numbers of the summed
/// index `k` for each of 16 rows `n`, as `vdpbf16ps` multiplies them, so [`Direction::Forward`] reads
/// them as they are. [`Direction::Backward`] puts up to 4 MiB at a time into the order of the
/// transpose; with the 2048 rows of a training step that is 1 % of the work, and a second copy of
/// all weights would be the greater cost.
///
/// [`Direction::Forward`]: super::Direction::Forward
/// [`Direction::Backward`]: super::Direction::Backward
///
/// # Memory
///
/// `2 N K` bytes, `N` rounded up to a multiple of 16 and `K` to a multiple of 2.
#[derive(Clone)]
pub struct PackedWeight {
    lines: Vec<Line>,
    rows: usize,
    cols: usize,
}

impl PackedWeight {
    /// Packs `w[N, K]`; `f32` numbers are rounded to the nearest bf16 number.
    ///
    /// Reads `w` once and makes no other copy of it. The panels of 16 rows are packed by the threads
    /// of the current rayon pool.
    ///
    /// # Errors
    ///
    /// [`KernelError::Overflow`] if the packed weight does not fit into the address space.
    pub fn new(w: Matrix<'_>) -> Result<Self, KernelError> {
        let (rows, cols) = (w.rows(), w.cols());
        let pairs = cols.div_ceil(2);
        let len = pairs
            .checked_mul(rows.div_ceil(LANES))
            .filter(|len| *len <= isize::MAX as usize / size_of::<Line>())
            .ok_or(KernelError::Overflow { name: "w" })?;
        debug_assert_eq!(len, lines_of(cols, rows));
        let mut lines = vec![Line::ZERO; len];
        if len > 0 {
            let token = Token::current();
            lines
                .par_chunks_mut(pairs)
                .enumerate()
                .for_each(|(panel, lines)| pack_panel(token, w.t(), panel, lines));
        }
        Ok(Self { lines, rows, cols })
    }

    /// `N`, the width of the output of the layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `K`, the width of its input.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that the packed numbers take.
    pub fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    /// Writes row `row` into `to[K]`, exactly as it was packed.
    ///
    /// # Errors
    ///
    /// [`KernelError::View`] if there is no such row, [`KernelError::Length`] if `to` does not have
    /// `K` elements.
    pub fn read_row(&self, row: usize, to: &mut [Bf16]) -> Result<(), KernelError> {
        crate::error::check_len("to", to, &[self.cols])?;
        if row >= self.rows {
            return Err(KernelError::View {
                rows: row.saturating_add(1),
                cols: self.cols,
                row_stride: self.cols,
                col_stride: 1,
                found: self.rows * self.cols,
            });
        }
        let panels = self.panels();
        let lines = panels.range(row / LANES, row / LANES + 1);
        let lane = 2 * (row % LANES);
        for (to, line) in to.chunks_mut(2).zip(lines) {
            to.copy_from_slice(&line.0[lane..][..to.len()]);
        }
        Ok(())
    }

    /// `W'` as a right factor.
    pub(super) fn panels(&self) -> Panels<'_> {
        Panels {
            lines: &self.lines,
            pairs: self.cols.div_ceil(2),
            cols: self.rows,
        }
    }
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedWeight")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .field("bytes", &self.bytes())
            .finish()
    }
}
