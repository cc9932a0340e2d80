//! What happens to the sums of a tile on their way to the output.
#![expect(
    unsafe_code,
    reason = "tasks write their own parts of one output through its address"
)]

use super::matrix::{Address, Target};
use crate::isa::{LANES, Line, PairSimd};

/// `out = scale sums + bias (+ out)`
#[derive(Debug, Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) scale: f32,
    /// One number for each column of the output, if any.
    pub(super) bias: Option<&'a [f32]>,
    /// Whether the sums are added to what the output holds.
    pub(super) accumulate: bool,
    pub(super) target: Target<'a>,
}

// SAFETY: the address in `target` comes from a mutable borrow for `'a`. Whoever writes through it,
// from whatever thread, promises in `write` that no one else uses the same element.
unsafe impl Send for Finish<'_> {}
// SAFETY: as above.
unsafe impl Sync for Finish<'_> {}

impl Finish<'_> {
    /// The same for the transpose of the output; there must be no bias.
    pub(super) fn t(self) -> Self {
        Self {
            target: self.target.t(),
            ..self
        }
    }

    /// Asks for row `row` and `panels` panels from column `col` on, which will soon be written; a
    /// hint. Else the first write of each line waits until the line is there.
    #[inline(always)]
    pub(super) fn ask<S: PairSimd>(&self, simd: S, row: usize, col: usize, panels: usize) {
        let layout = self.target.layout;
        if layout.col_stride != 1 {
            return;
        }
        let at = row * layout.row_stride + col;
        let (first, bytes): (*const Line, usize) = match self.target.address {
            Address::Bf16(first) => (first.wrapping_add(at).cast(), 2),
            Address::F32(first) => (first.wrapping_add(at).cast(), 4),
        };
        for line in 0..(panels * LANES * bytes).div_ceil(size_of::<Line>()) {
            simd.prefetch(first.wrapping_add(line));
        }
    }

    /// Writes the sums of row `row` and the columns from `col` on, as many as exist.
    ///
    /// # Safety
    ///
    /// While this runs nobody else may read or write the elements of that row and those columns.
    #[inline(always)]
    pub(super) unsafe fn write<S: PairSimd>(
        &self,
        simd: S,
        row: usize,
        col: usize,
        sums: &[f32; LANES],
    ) {
        let layout = self.target.layout;
        assert!(row < layout.rows && col < layout.cols);
        let len = LANES.min(layout.cols - col);
        let mut values = simd.mul(simd.load(sums), simd.splat(self.scale));
        if let Some(bias) = self.bias {
            values = simd.add(values, simd.load(&padded(&bias[col..][..len])));
        }
        let at = row * layout.row_stride + col * layout.col_stride;
        // SAFETY: elements `(row, col)` to `(row, col + len - 1)` lie inside of the borrowed slice,
        // by the promise of `Target`, and if columns follow one another so do they; the caller
        // promises that nobody else uses them.
        unsafe {
            match self.target.address {
                Address::Bf16(first) if layout.col_stride == 1 => {
                    let out = std::slice::from_raw_parts_mut(first.add(at), len);
                    if self.accumulate {
                        values = simd.add(values, simd.widen(&padded(out)));
                    }
                    copy(&simd.narrow(values), out);
                }
                Address::F32(first) if layout.col_stride == 1 => {
                    let out = std::slice::from_raw_parts_mut(first.add(at), len);
                    if self.accumulate {
                        values = simd.add(values, simd.load(&padded(out)));
                    }
                    let mut lanes = [0.0; LANES];
                    simd.store(values, &mut lanes);
                    copy(&lanes, out);
                }
                Address::Bf16(first) => {
                    let first = first.add(at);
                    if self.accumulate {
                        let old = gather(first, layout.col_stride, len);
                        values = simd.add(values, simd.widen(&old));
                    }
                    scatter(&simd.narrow(values), first, layout.col_stride, len);
                }
                Address::F32(first) => {
                    let first = first.add(at);
                    if self.accumulate {
                        let old = gather(first, layout.col_stride, len);
                        values = simd.add(values, simd.load(&old));
                    }
                    let mut lanes = [0.0; LANES];
                    simd.store(values, &mut lanes);
                    scatter(&lanes, first, layout.col_stride, len);
                }
            }
        }
    }
}

/// At most [`LANES`] numbers, then zeros.
#[inline(always)]
fn padded<T: Copy + Default>(from: &[T]) -> [T; LANES] {
    // A whole group has a length that the compiler knows.
    if let Some(whole) = from.as_array() {
        return *whole;
    }
    let mut lanes = [T::default(); LANES];
    lanes[..from.len()].copy_from_slice(from);
    lanes
}

/// As many lanes as `to` has room for.
#[inline(always)]
fn copy<T: Copy>(lanes: &[T; LANES], to: &mut [T]) {
    match to.as_mut_array() {
        Some(whole) => *whole = *lanes,
        None => to.copy_from_slice(&lanes[..to.len()]),
    }
}

/// # Safety
///
/// `len` elements, at most [`LANES`], every `stride` after `first`, can be read.
#[inline(always)]
unsafe fn gather<T: Copy + Default>(first: *const T, stride: usize, len: usize) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    for (i, lane) in lanes[..len].iter_mut().enumerate() {
        // SAFETY: the promise of the caller.
        *lane = unsafe { first.add(i * stride).read() };
    }
    lanes
}

/// # Safety
///
/// `len` elements, at most [`LANES`], every `stride` after `first`, can be written.
#[inline(always)]
unsafe fn scatter<T: Copy>(lanes: &[T; LANES], first: *mut T, stride: usize, len: usize) {
    for (i, lane) in lanes[..len].iter().enumerate() {
        // SAFETY: the promise of the caller.
        unsafe { first.add(i * stride).write(*lane) };
    }
}
