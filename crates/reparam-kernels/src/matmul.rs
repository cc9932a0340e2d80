//! Matrix products over strided views, by the `gemm` crate.

use gemm::Parallelism;
use rayon::prelude::*;

use crate::KernelError;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A number that matrices are made of: `f32` or `f64`.
pub trait Real:
    sealed::Sealed + Copy + Send + Sync + PartialEq + std::fmt::Debug + 'static
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// Rows, columns and strides of a view; reaches at most `len` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl Layout {
    pub(crate) fn row_major(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    pub(crate) fn check(self, name: &'static str, len: usize) -> Result<Self, KernelError> {
        if self.is_empty() {
            return Ok(self);
        }
        let last = (self.rows - 1)
            .checked_mul(self.row_stride)
            .zip((self.cols - 1).checked_mul(self.col_stride))
            .and_then(|(row, col)| row.checked_add(col))
            .ok_or(KernelError::Overflow { name })?;
        if last < len {
            Ok(self)
        } else {
            Err(KernelError::View {
                rows: self.rows,
                cols: self.cols,
                row_stride: self.row_stride,
                col_stride: self.col_stride,
                found: len,
            })
        }
    }

    /// Refuses layouts that [`Self::check`] let pass and in which two indices may meet.
    pub(crate) fn check_distinct(self) -> Result<Self, KernelError> {
        let spans = |outer_len: usize, outer: usize, inner_len: usize, inner: usize| {
            (outer_len <= 1 || outer > (inner_len - 1) * inner) && (inner_len <= 1 || inner > 0)
        };
        if self.is_empty()
            || spans(self.rows, self.row_stride, self.cols, self.col_stride)
            || spans(self.cols, self.col_stride, self.rows, self.row_stride)
        {
            Ok(self)
        } else {
            Err(KernelError::OverlappingView {
                rows: self.rows,
                cols: self.cols,
                row_stride: self.row_stride,
                col_stride: self.col_stride,
            })
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// A strided matrix that is read. Element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    layout: Layout,
}

impl<'a, T: Real> MatRef<'a, T> {
    /// Views a row-major matrix.
    ///
    /// # Errors
    ///
    /// [`KernelError::Length`] if `data` does not have exactly `rows * cols` elements.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self, KernelError> {
        crate::error::check_len("matrix", data, &[rows, cols])?;
        Ok(Self {
            data,
            layout: Layout::row_major(rows, cols),
        })
    }

    /// Views a matrix with the given strides, in elements; `data` may go on beyond it.
    ///
    /// # Errors
    ///
    /// [`KernelError::View`] if an element would lie outside of `data`.
    pub fn with_strides(
        data: &'a [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, KernelError> {
        let layout = Layout {
            rows,
            cols,
            row_stride,
            col_stride,
        }
        .check("view", data.len())?;
        Ok(Self { data, layout })
    }

    /// The transpose, a view of the same elements.
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            layout: self.layout.t(),
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

    /// Columns `start..start + len`, which the caller keeps in range.
    fn col_range(self, start: usize, len: usize) -> Self {
        let offset = if self.layout.is_empty() {
            0
        } else {
            start * self.layout.col_stride
        };
        Self {
            data: &self.data[offset..],
            layout: Layout {
                cols: len,
                ..self.layout
            },
        }
    }
}

/// A strided matrix that is written. No two indices name the same element.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    layout: Layout,
}

impl<'a, T: Real> MatMut<'a, T> {
    /// Views a row-major matrix.
    ///
    /// # Errors
    ///
    /// [`KernelError::Length`] if `data` does not have exactly `rows * cols` elements.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self, KernelError> {
        crate::error::check_len("matrix", data, &[rows, cols])?;
        Ok(Self {
            data,
            layout: Layout::row_major(rows, cols),
        })
    }

    /// Views a matrix with the given strides, in elements; `data` may go on beyond it.
    ///
    /// # Errors
    ///
    /// [`KernelError::View`] if an element would lie outside of `data`;
    /// [`KernelError::OverlappingView`] if two rows or columns could share elements.
    pub fn with_strides(
        data: &'a mut [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, KernelError> {
        let layout = Layout {
            rows,
            cols,
            row_stride,
            col_stride,
        }
        .check("view", data.len())?
        .check_distinct()?;
        Ok(Self { data, layout })
    }

    /// The transpose, a view of the same elements.
    pub fn t(self) -> Self {
        Self {
            layout: self.layout.t(),
            data: self.data,
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
}

/// `dst = beta dst + alpha a b`
///
/// # Shapes
///
/// `a[m, k]`, `b[k, n]`, `dst[m, n]`, any strides. For `k = 0` the product is zero.
///
/// # Numerics
///
/// Each element is a sum over `k` in blocks whose size depends on the shapes and the caches of the
/// machine, not on the number of threads: equal bits for any number of threads, and from run to run
/// on one machine. If `beta` is 0, `dst` is not read: NaN in it does not survive.
///
/// # Errors
///
/// [`KernelError::MatmulShapes`] if the shapes do not fit together.
///
/// # Cost
///
/// `2 m n k` operations; packs blocks of `a` and `b` into buffers that `gemm` allocates.
pub fn matmul<T: Real>(
    dst: MatMut<'_, T>,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    alpha: T,
    beta: T,
) -> Result<(), KernelError> {
    check_shapes(&dst, &a, &b)?;
    // A single row is bound by reading `b`, which `gemm` does on one thread only.
    let is_row = dst.layout.rows == 1 && dst.layout.col_stride == 1;
    let is_col = dst.layout.cols == 1 && dst.layout.row_stride == 1;
    if is_row {
        vector_product(dst.data, dst.layout.cols, a, b, alpha, beta);
    } else if is_col {
        vector_product(dst.data, dst.layout.rows, b.t(), a.t(), alpha, beta);
    } else {
        run_gemm(dst, a, b, alpha, beta, Parallelism::Rayon(0));
    }
    Ok(())
}

/// [`matmul`] on the calling thread, for callers that split the work themselves.
pub(crate) fn matmul_serial<T: Real>(
    dst: MatMut<'_, T>,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    alpha: T,
    beta: T,
) -> Result<(), KernelError> {
    check_shapes(&dst, &a, &b)?;
    run_gemm(dst, a, b, alpha, beta, Parallelism::None);
    Ok(())
}

fn check_shapes<T: Real>(
    dst: &MatMut<'_, T>,
    a: &MatRef<'_, T>,
    b: &MatRef<'_, T>,
) -> Result<(), KernelError> {
    if a.cols() == b.rows() && dst.rows() == a.rows() && dst.cols() == b.cols() {
        return Ok(());
    }
    Err(KernelError::MatmulShapes {
        a_rows: a.rows(),
        a_cols: a.cols(),
        b_rows: b.rows(),
        b_cols: b.cols(),
        dst_rows: dst.rows(),
        dst_cols: dst.cols(),
    })
}

/// Elements of `b` that one task of [`vector_product`] reads.
const VECTOR_TASK_ELEMENTS: usize = 128 * 1024;

/// A contiguous row of `cols` elements as the product of the row `a` and `b`, in blocks of columns.
fn vector_product<T: Real>(
    dst: &mut [T],
    cols: usize,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    alpha: T,
    beta: T,
) {
    let block = (VECTOR_TASK_ELEMENTS / b.rows().max(1)).max(64);
    let product = |(index, dst): (usize, &mut [T])| {
        let len = dst.len();
        let dst = MatMut {
            data: dst,
            layout: Layout::row_major(1, len),
        };
        let b = b.col_range(index * block, len);
        run_gemm(dst, a, b, alpha, beta, Parallelism::None);
    };
    let dst = &mut dst[..cols];
    if cols <= block {
        product((0, dst));
    } else {
        dst.par_chunks_mut(block).enumerate().for_each(product);
    }
}

/// Calls `gemm` on shapes that fit together.
#[expect(unsafe_code, reason = "`gemm` takes raw pointers and strides")]
fn run_gemm<T: Real>(
    dst: MatMut<'_, T>,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    alpha: T,
    beta: T,
    parallelism: Parallelism,
) {
    debug_assert!(check_shapes(&dst, &a, &b).is_ok());
    if dst.layout.is_empty() {
        return;
    }
    // A slice has at most `isize::MAX` bytes, and a stride that is used lies inside its slice; one
    // that is not used, of a dimension of length 1, must not overflow either.
    let stride = |len: usize, stride: usize| if len <= 1 { 1 } else { stride as isize };
    // `gemm` calls the factor of `dst` alpha and that of the product beta.
    //
    // SAFETY: The constructors of both views proved that every index below `rows` and `cols` lies
    // inside the slice, and those of `MatMut` that no two indices of `dst` meet; the shapes were
    // checked by the callers. `dst` is borrowed mutably, so it does not alias `a` or `b`. `Real` is
    // sealed to `f32` and `f64`, which `gemm` accepts.
    unsafe {
        gemm::gemm(
            dst.layout.rows,
            dst.layout.cols,
            a.layout.cols,
            dst.data.as_mut_ptr(),
            stride(dst.layout.cols, dst.layout.col_stride),
            stride(dst.layout.rows, dst.layout.row_stride),
            beta != T::ZERO,
            a.data.as_ptr(),
            stride(a.layout.cols, a.layout.col_stride),
            stride(a.layout.rows, a.layout.row_stride),
            b.data.as_ptr(),
            stride(b.layout.cols, b.layout.col_stride),
            stride(b.layout.rows, b.layout.row_stride),
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
