//! Tiles of bf16 numbers, the registers of AMX.
#![expect(
    unsafe_code,
    reason = "tiles are loaded from and stored to addresses with strides"
)]

/// The eight tile registers of a thread, all of them 16 rows of 64 bytes.
///
/// What the methods do is what Intel's manual says of the instructions of their names.
pub(crate) trait Tiles {
    /// `tilezero`
    fn zero<const TILE: usize>(&mut self);

    /// `tileloadd`: row `i` comes from `at + i stride`, in bytes.
    ///
    /// # Safety
    ///
    /// All 16 rows of 64 bytes can be read.
    unsafe fn load<const TILE: usize>(&mut self, at: *const u8, stride: usize);

    /// `tilestored`: row `i` goes to `at + i stride`, in bytes.
    ///
    /// # Safety
    ///
    /// All 16 rows of 64 bytes can be written.
    unsafe fn store<const TILE: usize>(&mut self, at: *mut u8, stride: usize);

    /// `tdpbf16ps`: adds to the 16 by 16 `f32` sums the products of 16 rows of 32 numbers with 16
    /// rows of 16 pairs of numbers.
    ///
    /// For each element the products of the first and of the second numbers of the pairs are summed
    /// apart, in order and each time with one rounding, to the nearest; then both sums are added, and
    /// the result is added to what is there. Subnormal numbers are taken for zero and become zero.
    fn dot<const SUMS: usize, const LEFT: usize, const RIGHT: usize>(&mut self);
}

/// Tile registers in memory: what is tested on machines without AMX.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(crate) struct EmulatedTiles([[[u8; 64]; 16]; 8]);

#[cfg(test)]
impl EmulatedTiles {
    /// Loading a configuration makes all tiles zero.
    pub(crate) fn new() -> Self {
        Self([[[0; 64]; 16]; 8])
    }
}

/// Both modes that the manual names, "denormals are zero" and "flush to zero".
#[cfg(test)]
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() {
        0.0_f32.copysign(x)
    } else {
        x
    }
}

/// `a b + c`, rounded once. The product of two bf16 numbers is exact unless it is too great or too
/// small, so that the slow function is seldom needed.
#[cfg(test)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    let product = a * b;
    if product.is_normal() || a == 0.0 || b == 0.0 {
        product + c
    } else {
        a.mul_add(b, c)
    }
}

#[cfg(test)]
impl Tiles for EmulatedTiles {
    fn zero<const TILE: usize>(&mut self) {
        self.0[TILE] = [[0; 64]; 16];
    }

    unsafe fn load<const TILE: usize>(&mut self, at: *const u8, stride: usize) {
        for (i, row) in self.0[TILE].iter_mut().enumerate() {
            // SAFETY: the promise of the caller; bytes have no alignment.
            *row = unsafe { at.add(i * stride).cast::<[u8; 64]>().read() };
        }
    }

    unsafe fn store<const TILE: usize>(&mut self, at: *mut u8, stride: usize) {
        for (i, row) in self.0[TILE].iter().enumerate() {
            // SAFETY: the promise of the caller; bytes have no alignment.
            unsafe { at.add(i * stride).cast::<[u8; 64]>().write(*row) };
        }
    }

    fn dot<const SUMS: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        let number = |row: &[u8; 64], at: usize| {
            let bits = u16::from_le_bytes([row[2 * at], row[2 * at + 1]]);
            flushed(f32::from_bits(u32::from(bits) << 16))
        };
        let (left, right) = (self.0[LEFT], self.0[RIGHT]);
        for (m, sums) in self.0[SUMS].iter_mut().enumerate() {
            let mut products = [0.0_f32; 32];
            for (k, right) in right.iter().enumerate() {
                let pair = [number(&left[m], 2 * k), number(&left[m], 2 * k + 1)];
                for (at, product) in products.iter_mut().enumerate() {
                    let (a, b) = (pair[at % 2], number(right, at));
                    *product = flushed(mul_add(a, b, *product));
                }
            }
            for (sum, pair) in sums
                .as_chunks_mut::<4>()
                .0
                .iter_mut()
                .zip(products.as_chunks::<2>().0)
            {
                let both = flushed(pair[0] + pair[1]);
                let old = flushed(f32::from_le_bytes(*sum));
                *sum = flushed(old + both).to_le_bytes();
            }
        }
    }
}
