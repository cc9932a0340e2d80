//! Packing rows that come in pieces.

use rayon::prelude::*;

use super::matrix::Matrix;
use super::right::{lines_of, pack_panel};
use super::weight::PackedWeight;
use crate::KernelError;
use crate::isa::{LANES, Line, Token};

/// Makes a [`PackedWeight`] of rows that come one piece after another, as from a mapped file, so that
/// its numbers never exist twice in memory.
///
/// Numbers of formats other than bf16 and `f32` are made `f32` piece by piece; those of f16 are then
/// rounded once, as every `f32`.
///
/// ```
/// use reparam_kernels::packed::{Matrix, PackedWeightBuilder};
///
/// // A part of three rows, of which two come first.
/// let mut builder = PackedWeightBuilder::new(&[3], 2)?;
/// builder.rows(0, 0, Matrix::new(&[1.0, 2.0, 3.0, 4.0][..], 2, 2)?)?;
/// builder.rows(0, 2, Matrix::new(&[5.0, 6.0][..], 1, 2)?)?;
/// assert_eq!(builder.build()?.rows(), 3);
/// # Ok::<(), reparam_kernels::KernelError>(())
/// ```
#[derive(Debug)]
pub struct PackedWeightBuilder {
    weight: PackedWeight,
    /// For each row, those between the parts included, whether it was given.
    given: Vec<bool>,
}

impl PackedWeightBuilder {
    /// Makes room for parts of `part_rows` rows, one below the other, all `cols` wide.
    ///
    /// # Errors
    ///
    /// [`KernelError::Overflow`] if the packed weight does not fit into the address space.
    pub fn new(part_rows: &[usize], cols: usize) -> Result<Self, KernelError> {
        let overflow = KernelError::Overflow { name: "w" };
        let mut parts = Vec::with_capacity(part_rows.len());
        let mut end = 0_usize;
        for rows in part_rows {
            let part = end
                .checked_next_multiple_of(LANES)
                .and_then(|start| Some(start..start.checked_add(*rows)?))
                .ok_or_else(|| overflow.clone())?;
            end = part.end;
            parts.push(part);
        }
        let len = cols
            .div_ceil(2)
            .checked_mul(end.div_ceil(LANES))
            .filter(|len| *len <= isize::MAX as usize / size_of::<Line>())
            .ok_or(overflow)?;
        debug_assert_eq!(len, lines_of(cols, end));
        let lines = vec![Line::ZERO; len];
        let weight = PackedWeight { lines, parts, cols };
        Ok(Self {
            weight,
            given: vec![false; end],
        })
    }

    /// Packs rows of part `part`, of which `rows` begins with row `first_row`, on the threads of the
    /// current rayon pool. Rows may come in any order; those that come twice overwrite.
    ///
    /// Pieces that begin at a multiple of 16 rows are packed fastest.
    ///
    /// # Errors
    ///
    /// [`KernelError::Length`] if the rows do not have the width of the weight;
    /// [`KernelError::View`] if there is no such part or it does not have so many rows.
    pub fn rows(
        &mut self,
        part: usize,
        first_row: usize,
        rows: Matrix<'_>,
    ) -> Result<(), KernelError> {
        let PackedWeight { lines, parts, cols } = &mut self.weight;
        let cols = *cols;
        if rows.cols() != cols {
            return Err(KernelError::Length {
                name: "rows",
                expected: rows.rows().saturating_mul(cols),
                found: rows.rows().saturating_mul(rows.cols()),
            });
        }
        let part = parts.get(part).cloned().unwrap_or(0..0);
        let last_row = first_row.saturating_add(rows.rows());
        if last_row > part.len() {
            return Err(KernelError::View {
                rows: last_row,
                cols,
                row_stride: cols,
                col_stride: 1,
                found: part.len() * cols,
            });
        }
        let (start, end) = (part.start + first_row, part.start + last_row);
        self.given[start..end].fill(true);
        let pairs = cols.div_ceil(2);
        if pairs == 0 || start == end {
            return Ok(());
        }
        let token = Token::current();
        let panels = start / LANES..end.div_ceil(LANES);
        lines[panels.start * pairs..panels.end * pairs]
            .par_chunks_mut(pairs)
            .zip(panels)
            .for_each(|(lines, panel)| {
                let first = panel * LANES;
                let (start_here, end_here) = (start.max(first), end.min(first + LANES));
                let rows = rows.between(start_here - start, end_here - start).t();
                if start_here == first && (end_here == first + LANES || end_here == part.end) {
                    pack_panel(token, rows, 0, lines);
                    return;
                }
                // The other rows of the panel stay as they are.
                let mut piece = vec![Line::ZERO; pairs];
                pack_panel(token, rows, 0, &mut piece);
                let lanes = 2 * (start_here - first)..2 * (end_here - first);
                for (line, piece) in lines.iter_mut().zip(&piece) {
                    line.0[lanes.clone()].copy_from_slice(&piece.0[..lanes.len()]);
                }
            });
        Ok(())
    }

    /// The weight.
    ///
    /// # Errors
    ///
    /// [`KernelError::Length`] if a row was never given.
    pub fn build(self) -> Result<PackedWeight, KernelError> {
        let expected = self.weight.parts.iter().map(ExactSizeIterator::len).sum();
        let found = self.given.iter().filter(|given| **given).count();
        if found < expected {
            return Err(KernelError::Length {
                name: "rows",
                expected,
                found,
            });
        }
        Ok(self.weight)
    }
}
