//! The number format bf16: the upper half of an `f32`.
#![expect(
    unsafe_code,
    reason = "views of `u16` slices as `Bf16` slices, which have the same layout"
)]

/// A bf16 number: sign, 8 bits of exponent, 7 bits of fraction; relative spacing 2^-7.
///
/// Has the layout of `u16`, so that slices of any other bf16 type can be viewed by their bits: see
/// [`Bf16::from_bits_slice`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Bf16(u16);

impl Bf16 {
    /// 0
    pub const ZERO: Self = Self(0);
    /// 1
    pub const ONE: Self = Self(0x3f80);

    /// The number with these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits of the number.
    #[inline(always)]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// The nearest bf16 number, of two equally near ones that with the even fraction.
    ///
    /// What is too great becomes infinity; numbers below the least normal one keep the bits that
    /// they have left; NaN stays NaN, made quiet, with its sign and upper bits.
    #[inline(always)]
    pub const fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        // Half a unit, less one bit if the fraction is even: a tie then stays below the carry.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet = (bits >> 16) | 0x40;
        // Not `is_nan`: with a selection of integers the loop over a slice becomes vectors.
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        Self(if is_nan { quiet } else { rounded } as u16)
    }

    /// The same number; exact.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }

    /// Views bits as numbers.
    pub const fn from_bits_slice(bits: &[u16]) -> &[Self] {
        // SAFETY: `Bf16` is a transparent wrapper of `u16`, and every `u16` is a valid one.
        unsafe { std::slice::from_raw_parts(bits.as_ptr().cast(), bits.len()) }
    }

    /// Views bits as numbers that can be written.
    pub const fn from_bits_slice_mut(bits: &mut [u16]) -> &mut [Self] {
        // SAFETY: `Bf16` is a transparent wrapper of `u16`, and every value of either is a valid
        // one of the other.
        unsafe { std::slice::from_raw_parts_mut(bits.as_mut_ptr().cast(), bits.len()) }
    }
}

impl std::fmt::Debug for Bf16 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.to_f32(), f)
    }
}

impl From<Bf16> for f32 {
    fn from(x: Bf16) -> Self {
        x.to_f32()
    }
}
