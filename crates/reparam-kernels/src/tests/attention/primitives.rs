//! What attention adds to the instruction sets.

use proptest::prelude::*;

use crate::Bf16;
use crate::attention::tanh;
use crate::exp;
use crate::isa::{LANES, Line, PairSimd, Simd, simd_entry};
use crate::tests::tokens;

simd_entry!(fn exp_lanes<'a>(x: &'a mut [f32; LANES]) = exp_lanes_generic);

#[inline(always)]
fn exp_lanes_generic<S: Simd>(simd: S, x: &mut [f32; LANES]) {
    let y = exp::exp_lanes(simd, simd.load(x));
    simd.store(y, x);
}

simd_entry!(fn turn<'a>(rows: &'a [Bf16], lines: &'a mut [Line; LANES]) = turn_generic);

#[inline(always)]
fn turn_generic<S: PairSimd>(simd: S, rows: &[Bf16], lines: &mut [Line; LANES]) {
    let rows = rows.as_chunks::<{ 2 * LANES }>().0;
    simd.turn(std::array::from_fn(|i| &rows[i]), lines);
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
