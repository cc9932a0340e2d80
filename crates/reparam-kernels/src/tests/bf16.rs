//! The number format.

use proptest::prelude::*;

use super::tokens;
use crate::Bf16;
use crate::isa::{Kernel, LANES, Line, PairSimd};

#[test]
fn every_number_survives_the_way_to_f32_and_back() {
    for bits in 0..=u16::MAX {
        let x = Bf16::from_bits(bits);
        let wide = x.to_f32();
        assert_eq!(wide.to_bits(), u32::from(bits) << 16);
        let back = Bf16::from_f32(wide).to_bits();
        if wide.is_nan() {
            assert_eq!(back, bits | 0x40, "made quiet");
        } else {
            assert_eq!(back, bits);
        }
    }
}

#[test]
fn rounding_at_the_edges() {
    for (x, bits) in [
        (1.0, 0x3f80),
        // Ties go to the even fraction: 1 + 2^-8 down, 1 + 3 2^-8 up.
        (1.0 + 1.0 / 256.0, 0x3f80),
        (1.0 + 3.0 / 256.0, 0x3f82),
        (-1.0 - 1.0 / 256.0, 0xbf80),
        (f32::MAX, 0x7f80),
        (f32::INFINITY, 0x7f80),
        (f32::NEG_INFINITY, 0xff80),
        (-0.0, 0x8000),
        // The least numbers: half of the least bf16 number is a tie.
        (f32::from_bits(0x8000), 0),
        (f32::from_bits(0x8001), 1),
        // A NaN whose upper half alone would be infinity.
        (f32::from_bits(0x7f80_0001), 0x7fc0),
        (f32::from_bits(0xffff_ffff), 0xffff),
    ] {
        assert_eq!(Bf16::from_f32(x).to_bits(), bits, "{x:e}");
    }
}

#[test]
fn views_share_the_numbers() {
    let mut bits = [0x3f80, 0x4000];
    assert_eq!(
        Bf16::from_bits_slice(&bits),
        [Bf16::ONE, Bf16::from_f32(2.0)]
    );
    Bf16::from_bits_slice_mut(&mut bits)[0] = Bf16::from_f32(-1.0);
    assert_eq!(bits, [0xbf80, 0x4000]);
    assert_eq!(f32::from(Bf16::from_bits(bits[0])), -1.0);
    assert_eq!(format!("{:?}", Bf16::ONE), "1.0");
}

/// The vector forms of what the format does.
struct Convert<'a>(&'a [f32; LANES], &'a [Bf16; LANES]);

impl Kernel for Convert<'_> {
    type Output = ([Bf16; LANES], [f32; LANES], Line);
    #[inline(always)]
    fn run<S: PairSimd>(self, simd: S) -> Self::Output {
        let narrow = simd.narrow(simd.load(self.0));
        let mut wide = [0.0; LANES];
        simd.store(simd.widen(self.1), &mut wide);
        (narrow, wide, simd.interleave(&narrow, self.1))
    }
}

proptest! {
    #[test]
    fn the_nearest_number_is_chosen(x in -1e30..1e30_f32) {
        let rounded = Bf16::from_f32(x);
        let error = (f64::from(rounded.to_f32()) - f64::from(x)).abs();
        for neighbour in [rounded.to_bits() - 1, rounded.to_bits() + 1] {
            let neighbour = f64::from(Bf16::from_bits(neighbour).to_f32());
            prop_assert!(error <= (neighbour - f64::from(x)).abs());
        }
    }

    #[test]
    fn vectors_convert_as_numbers_do(bits: [u32; LANES], halves: [u16; LANES]) {
        let x = bits.map(f32::from_bits);
        let y = halves.map(Bf16::from_bits);
        let expected = x.map(Bf16::from_f32);
        for token in tokens() {
            let (narrow, wide, line) = token.dispatch(Convert(&x, &y));
            prop_assert_eq!(narrow, expected, "{}", token.isa());
            prop_assert_eq!(wide.map(f32::to_bits), y.map(|y| y.to_f32().to_bits()));
            for lane in 0..LANES {
                prop_assert_eq!(&line.0[2 * lane..][..2], &[expected[lane], y[lane]]);
            }
        }
    }
}
