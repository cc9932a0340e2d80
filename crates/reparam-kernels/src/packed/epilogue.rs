//! What happens to the sums of a tile on their way to the output.
#![expect(
    unsafe_code,
    reason = "tasks write their own parts of one output through its address"
)]

use super::matrix::{Address, Target};
use crate::Bf16;
use crate::isa::LANES;

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
    /// Writes the sums of row `row` and the columns from `col` on, as many as exist.
    ///
    /// # Safety
    ///
    /// While this runs nobody else may read or write the elements of that row and those columns.
    #[inline(always)]
    pub(super) unsafe fn write(&self, row: usize, col: usize, sums: &[f32; LANES]) {
        let layout = self.target.layout;
        assert!(row < layout.rows && col < layout.cols);
        let len = LANES.min(layout.cols - col);
        let mut values = *sums;
        for value in &mut values {
            *value *= self.scale;
        }
        if let Some(bias) = self.bias {
            let bias = &bias[col..][..len];
            for (value, bias) in values.iter_mut().zip(bias) {
                *value += bias;
            }
        }
        let at = row * layout.row_stride + col * layout.col_stride;
        if layout.col_stride == 1 {
            // SAFETY: elements `(row, col)` to `(row, col + len - 1)` exist, follow one another and
            // lie inside of the borrowed slice, by the promise of `Target`; the caller promises
            // that nobody else uses them.
            unsafe {
                match self.target.address {
                    Address::Bf16(first) => {
                        let out = std::slice::from_raw_parts_mut(first.add(at), len);
                        write_bf16(out, &values, self.accumulate);
                    }
                    Address::F32(first) => {
                        let out = std::slice::from_raw_parts_mut(first.add(at), len);
                        write_f32(out, &values, self.accumulate);
                    }
                }
            }
            return;
        }
        for (i, value) in values[..len].iter().enumerate() {
            let at = at + i * layout.col_stride;
            // SAFETY: as above, one element at a time.
            unsafe {
                match self.target.address {
                    Address::Bf16(first) => {
                        let out = std::slice::from_mut(&mut *first.add(at));
                        write_bf16(out, std::slice::from_ref(value), self.accumulate);
                    }
                    Address::F32(first) => {
                        let out = std::slice::from_mut(&mut *first.add(at));
                        write_f32(out, std::slice::from_ref(value), self.accumulate);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn write_bf16(out: &mut [Bf16], values: &[f32], accumulate: bool) {
    // A whole group has a length that the compiler knows.
    if let (Some(out), Some(values)) = (
        out.as_mut_array::<LANES>(),
        values.first_chunk::<LANES>(),
    ) {
        if accumulate {
            for (out, value) in out.iter_mut().zip(values) {
                *out = Bf16::from_f32(value + out.to_f32());
            }
        } else {
            for (out, value) in out.iter_mut().zip(values) {
                *out = Bf16::from_f32(*value);
            }
        }
        return;
    }
    for (out, value) in out.iter_mut().zip(values) {
        *out = Bf16::from_f32(if accumulate { value + out.to_f32() } else { *value });
    }
}

#[inline(always)]
fn write_f32(out: &mut [f32], values: &[f32], accumulate: bool) {
    if accumulate {
        for (out, value) in out.iter_mut().zip(values) {
            *out += value;
        }
    } else {
        out.copy_from_slice(&values[..out.len()]);
    }
}
