//! Views of matrices of bf16 or `f32` numbers.

use std::marker::PhantomData;

use crate::error::check_len;
use crate::isa::{LANES, PairSimd};
use crate::matmul::Layout;
use crate::{Bf16, KernelError};

/// The numbers of a [`Matrix`].
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// bf16 numbers.
    Bf16(&'a [Bf16]),
    /// `f32` numbers, rounded to bf16 when they are read.
    F32(&'a [f32]),
}

impl<'a> From<&'a [Bf16]> for Values<'a> {
    fn from(values: &'a [Bf16]) -> Self {
        Self::Bf16(values)
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

/// The numbers of a [`MatrixMut`].
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// bf16 numbers, rounded when they are written.
    Bf16(&'a mut [Bf16]),
    /// `f32` numbers.
    F32(&'a mut [f32]),
}

impl<'a> From<&'a mut [Bf16]> for ValuesMut<'a> {
    fn from(values: &'a mut [Bf16]) -> Self {
        Self::Bf16(values)
    }
}

impl<'a> From<&'a mut [f32]> for ValuesMut<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        Self::F32(values)
    }
}

fn strided(rows: usize, cols: usize, row_stride: usize, len: usize) -> Result<Layout, KernelError> {
    let layout = Layout {
        row_stride,
        ..Layout::row_major(rows, cols)
    };
    layout.check("view", len)
}

/// A matrix that is read: rows of numbers that follow one another, or the transpose of such.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) values: Values<'a>,
    /// One of the strides is 1.
    pub(super) layout: Layout,
    /// Whether columns, not rows, follow one another.
    pub(super) transposed: bool,
}

impl<'a> Matrix<'a> {
    /// Views a row-major matrix.
    ///
    /// # Errors
    ///
    /// [`KernelError::Length`] if `values` does not have exactly `rows * cols` elements.
    pub fn new(
        values: impl Into<Values<'a>>,
        rows: usize,
        cols: usize,
    ) -> Result<Self, KernelError> {
        let values = values.into();
        match values {
            Values::Bf16(values) => check_len("matrix", values, &[rows, cols])?,
            Values::F32(values) => check_len("matrix", values, &[rows, cols])?,
        }
        Ok(Self {
            values,
            layout: Layout::row_major(rows, cols),
            transposed: false,
        })
    }

    /// Views rows that begin every `row_stride` elements; `values` may go on beyond them.
    ///
    /// # Errors
    ///
    /// [`KernelError::View`] if an element would lie outside of `values`.
    pub fn with_row_stride(
        values: impl Into<Values<'a>>,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Result<Self, KernelError> {
        let values = values.into();
        let len = match values {
            Values::Bf16(values) => values.len(),
            Values::F32(values) => values.len(),
        };
        Ok(Self {
            values,
            layout: strided(rows, cols, row_stride, len)?,
            transposed: false,
        })
    }

    /// The transpose, a view of the same elements.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            layout: self.layout.t(),
            transposed: !self.transposed,
            ..self
        }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    /// Rows `start..end`, which must exist.
    pub(super) fn between(self, start: usize, end: usize) -> Self {
        let layout = Layout {
            rows: end - start,
            ..self.layout
        };
        // Rows without columns have no place that could be looked up.
        let skip = if self.cols() == 0 || start == end {
            0
        } else {
            start * self.layout.row_stride
        };
        let values = match self.values {
            Values::Bf16(values) => Values::Bf16(&values[skip..]),
            Values::F32(values) => Values::F32(&values[skip..]),
        };
        Self {
            values,
            layout,
            ..self
        }
    }

    /// Row `row` as bf16.
    pub(super) fn read_row(&self, row: usize, to: &mut [Bf16]) {
        let start = row * self.layout.row_stride;
        if !self.transposed {
            return self.read(start, to);
        }
        for (col, to) in to.iter_mut().enumerate() {
            let at = start + col * self.layout.col_stride;
            *to = match self.values {
                Values::Bf16(values) => values[at],
                Values::F32(values) => Bf16::from_f32(values[at]),
            };
        }
    }

    /// The numbers as they are stored: element `j` of line `i` is at `i * stride + j`, where lines
    /// are the rows, or the columns of a transpose.
    pub(super) fn stride(&self) -> usize {
        if self.transposed {
            self.layout.col_stride
        } else {
            self.layout.row_stride
        }
    }

    /// Stored numbers `start..start + to.len()` as bf16.
    #[inline(always)]
    pub(super) fn read(&self, start: usize, to: &mut [Bf16]) {
        match self.values {
            Values::Bf16(values) => to.copy_from_slice(&values[start..][..to.len()]),
            Values::F32(values) => {
                let values = &values[start..][..to.len()];
                for (to, from) in to.iter_mut().zip(values) {
                    *to = Bf16::from_f32(*from);
                }
            }
        }
    }

    /// Stored numbers from `start` on as bf16, `len` of them if that is less than a group, then
    /// zeros.
    #[inline(always)]
    pub(super) fn read_group<S: PairSimd>(
        &self,
        simd: S,
        start: usize,
        len: usize,
    ) -> [Bf16; LANES] {
        if len < LANES {
            let mut group = [Bf16::ZERO; LANES];
            self.read(start, &mut group[..len]);
            return group;
        }
        match self.values {
            Values::Bf16(values) => *first_group(&values[start..]),
            Values::F32(values) => simd.narrow(simd.load(first_group(&values[start..]))),
        }
    }
}

/// The first numbers of a slice that has at least so many; one more bounds check, not a copy.
#[inline(always)]
fn first_group<T>(values: &[T]) -> &[T; LANES] {
    &values[..LANES].as_chunks().0[0]
}

/// A matrix that is written: rows of numbers that follow one another, or the transpose of such.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    values: ValuesMut<'a>,
    layout: Layout,
}

impl<'a> MatrixMut<'a> {
    /// Views a row-major matrix.
    ///
    /// # Errors
    ///
    /// [`KernelError::Length`] if `values` does not have exactly `rows * cols` elements.
    pub fn new(
        values: impl Into<ValuesMut<'a>>,
        rows: usize,
        cols: usize,
    ) -> Result<Self, KernelError> {
        let values = values.into();
        match &values {
            ValuesMut::Bf16(values) => check_len("matrix", values, &[rows, cols])?,
            ValuesMut::F32(values) => check_len("matrix", values, &[rows, cols])?,
        }
        Ok(Self {
            values,
            layout: Layout::row_major(rows, cols),
        })
    }

    /// Views rows that begin every `row_stride` elements; `values` may go on beyond them, and what
    /// lies between two rows stays as it is.
    ///
    /// # Errors
    ///
    /// [`KernelError::View`] if an element would lie outside of `values`;
    /// [`KernelError::OverlappingView`] if two rows would share elements.
    pub fn with_row_stride(
        values: impl Into<ValuesMut<'a>>,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Result<Self, KernelError> {
        let values = values.into();
        let len = match &values {
            ValuesMut::Bf16(values) => values.len(),
            ValuesMut::F32(values) => values.len(),
        };
        Ok(Self {
            values,
            layout: strided(rows, cols, row_stride, len)?.check_distinct()?,
        })
    }

    /// The transpose, a view of the same elements.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            layout: self.layout.t(),
            values: self.values,
        }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    /// Gives up the borrow for an address, so that tasks can write their own parts.
    pub(super) fn into_target(self) -> Target<'a> {
        let address = match self.values {
            ValuesMut::Bf16(values) => Address::Bf16(values.as_mut_ptr()),
            ValuesMut::F32(values) => Address::F32(values.as_mut_ptr()),
        };
        Target {
            address,
            layout: self.layout,
            borrow: PhantomData,
        }
    }
}

/// Where the numbers of a [`Target`] begin.
#[derive(Debug, Clone, Copy)]
pub(super) enum Address {
    Bf16(*mut Bf16),
    F32(*mut f32),
}

/// A [`MatrixMut`] that several tasks write, each its own rows and columns.
///
/// Every element below `layout.rows` and `layout.cols` lies inside of the slice that is borrowed for
/// `'a`, and no two indices name the same element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) address: Address,
    pub(super) layout: Layout,
    borrow: PhantomData<&'a mut [f32]>,
}

impl Target<'_> {
    /// The transpose, the same elements.
    pub(super) fn t(self) -> Self {
        Self {
            layout: self.layout.t(),
            ..self
        }
    }
}
