//! What attention adds to the instruction sets.

use proptest::prelude::*;

use crate::attention::tanh;
use crate::exp::exp_of_scores;
use crate::isa::{LANES, Line, PairSimd, Simd, simd_entry};
use crate::tests::{numbers, tokens};
use crate::{Bf16, Isa};

simd_entry!(fn exp_lanes<'a>(x: &'a mut [f32; LANES]) = exp_lanes_generic);

#[inline(always)]
fn exp_lanes_generic<S: Simd>(simd: S, x: &mut [f32; LANES]) {
    let y = exp_of_scores(simd, simd.load(x));
    simd.store(y, x);
}

simd_entry!(fn turn<'a>(rows: &'a [Bf16], lines: &'a mut [Line; LANES]) = turn_generic);

#[inline(always)]
fn turn_generic<S: PairSimd>(simd: S, rows: &[Bf16], lines: &mut [Line; LANES]) {
    let rows = rows.as_chunks::<{ 2 * LANES }>().0;
    simd.turn(std::array::from_fn(|i| &rows[i]), lines);
}

simd_entry!(fn narrow_factor<'a>(x: &'a [f32; LANES]) -> [Bf16; LANES] = narrow_factor_generic);

#[inline(always)]
fn narrow_factor_generic<S: PairSimd>(simd: S, x: &[f32; LANES]) -> [Bf16; LANES] {
    simd.narrow_factor(simd.load(x))
}

simd_entry!(fn tanh_on<'a>(x: &'a mut [f32; LANES]) = tanh_generic);

#[inline(always)]
fn tanh_generic<S: Simd>(_: S, x: &mut [f32; LANES]) {
    for x in x {
        *x = tanh::<S>(*x);
    }
}

#[test]
fn exponentials_of_scores_are_accurate() {
    for token in tokens() {
        for block in 0..20_000 {
            let mut x: [f32; LANES] =
                std::array::from_fn(|i| 80.0 - (block * LANES + i) as f32 * (180.0 / 320_000.0));
            let expected = x.map(|x| f64::from(x).exp());
            exp_lanes(token, &mut x);
            for (actual, expected) in x.iter().zip(expected) {
                let error = (f64::from(*actual) - expected).abs();
                let unit = expected.max(f64::from(f32::MIN_POSITIVE)) * 1.3e-7;
                assert!(error <= unit, "{} {actual:e} {expected:e}", token.isa());
            }
        }
        let mut x = [0.0; LANES];
        x[..5].copy_from_slice(&[f32::NAN, f32::NEG_INFINITY, -1e30, -104.5, 0.0]);
        exp_lanes(token, &mut x);
        assert!(x[0].is_nan());
        assert_eq!(x[1..5], [0.0, 0.0, 0.0, 1.0]);
    }
}

#[test]
fn turned_rows_are_their_transpose() {
    let rows: Vec<Bf16> = (0..2 * LANES * LANES)
        .map(|i| Bf16::from_bits(i as u16))
        .collect();
    for token in tokens() {
        let mut lines = [Line::ZERO; LANES];
        turn(token, &rows, &mut lines);
        for (pair, line) in lines.iter().enumerate() {
            for lane in 0..2 * LANES {
                let expected = rows[lane / 2 * 2 * LANES + 2 * pair + lane % 2];
                assert_eq!(line.0[lane], expected, "{} {pair} {lane}", token.isa());
            }
        }
    }
}

#[test]
fn factors_are_rounded_like_other_numbers_but_for_subnormal_ones() {
    let mut bits: Vec<f32> = numbers(5, 4096);
    bits.extend([
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        1.001e38,
    ]);
    bits.extend((0..500).map(|i| f32::from_bits(0x3f80_0000 + i * 0x800)));
    bits.resize(bits.len().next_multiple_of(LANES), f32::MIN_POSITIVE);
    for token in tokens() {
        for x in bits.as_chunks::<LANES>().0 {
            assert_eq!(
                narrow_factor(token, x),
                x.map(Bf16::from_f32),
                "{}",
                token.isa()
            );
        }
        let mut x = [f32::MIN_POSITIVE / 4.0; LANES];
        x[0] = f32::NAN;
        let narrow = narrow_factor(token, &x);
        assert!(narrow[0].to_f32().is_nan());
        let expected = if token.isa() == Isa::Avx512Bf16 {
            0.0
        } else {
            x[1]
        };
        assert_eq!(narrow[1].to_f32(), expected, "{}", token.isa());
    }
}

proptest! {
    #[test]
    fn tanh_is_accurate(x in prop_oneof![-1.0_f32..1.0, -20.0_f32..20.0, -1e30_f32..1e30]) {
        for token in tokens() {
            let mut y = [x; LANES];
            tanh_on(token, &mut y);
            let expected = f64::from(x).tanh();
            prop_assert!((f64::from(y[0]) - expected).abs() <= 4e-7 * expected.abs());
        }
    }
}

#[test]
fn tanh_of_the_ends() {
    for token in tokens() {
        let mut y = [0.0; LANES];
        y[..4].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0]);
        tanh_on(token, &mut y);
        assert_eq!(y[..2], [1.0, -1.0]);
        assert!(y[2].is_nan());
        assert_eq!(y[3], 0.0);
    }
}
