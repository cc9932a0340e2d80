use super::tokens;
use crate::exp::{
    MAX_ULP, SOFTPLUS_MAX_ULP, TANH_MAX_ULP, exp_lanes, exp_one, softplus_lanes, tanh_lanes,
};
use crate::isa::{Kernel, PairSimd, Token};
use crate::number::{for_groups, read, write};

/// The loop over numbers, as attention has it.
fn exp(x: &[f32], y: &mut [f32]) {
    struct Ones<'a>(&'a [f32], &'a mut [f32]);
    impl Kernel for Ones<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: PairSimd>(self, _: S) {
            for (y, x) in self.1.iter_mut().zip(self.0) {
                *y = exp_one::<S>(*x);
            }
        }
    }
    Token::current().dispatch(Ones(x, y));
}

/// Distance to the exact result in units in its last place; the unit of subnormal results is 2^-149.
fn ulp_error(actual: f32, x: f32) -> f64 {
    let exact = f64::from(x).exp();
    let exponent = (exact.log2().floor() as i32).max(-126);
    let unit = 2.0_f64.powi(exponent - 23);
    (f64::from(actual) - exact).abs() / unit
}

/// The greatest error over the given bit patterns, of which all must be finite numbers.
fn greatest_error(bits: impl Iterator<Item = u32>) -> (f64, f32) {
    let x: Vec<f32> = bits.map(f32::from_bits).collect();
    let mut y = vec![0.0; x.len()];
    exp(&x, &mut y);
    let mut greatest = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(&y) {
        if f64::from(x).exp() >= 2.0_f64.powi(128) * (1.0 - 2.0_f64.powi(-25)) {
            assert_eq!(y, f32::INFINITY, "exp({x})");
        } else {
            let error = ulp_error(y, x);
            if error.is_nan() || error > greatest.0 {
                greatest = (error, x);
            }
        }
    }
    greatest
}

fn finite_bits(step: usize) -> impl Iterator<Item = u32> {
    let positive = (0..0x7f80_0000_u32).step_by(step);
    positive.clone().chain(positive.map(|bits| bits | 1 << 31))
}

#[test]
fn is_within_the_stated_bound_on_a_dense_sample() {
    for token in tokens() {
        // A prime step visits all low bits; the interesting range is denser.
        let near = (1.0e-4_f32.to_bits()..110.0_f32.to_bits()).step_by(499);
        let near = near.clone().chain(near.map(|bits| bits | 1 << 31));
        let (error, x) = greatest_error(finite_bits(9973).chain(near));
        assert!(
            error <= MAX_ULP,
            "{}: exp({x}) errs by {error} ulp",
            token.isa()
        );
    }
}

#[test]
#[ignore = "slow: all finite f32, some minutes"]
fn is_within_the_stated_bound_everywhere() {
    for token in tokens() {
        for sign in [0, 1 << 31] {
            for block in 0..0x7f8_u32 {
                let bits = (block << 20..(block + 1) << 20).map(|bits| bits | sign);
                let (error, x) = greatest_error(bits);
                assert!(
                    error <= MAX_ULP,
                    "{}: exp({x}) errs by {error} ulp",
                    token.isa()
                );
            }
        }
    }
}

#[test]
fn handles_the_edges() {
    let cases = [
        (0.0, 1.0),
        (-0.0, 1.0),
        (f32::NEG_INFINITY, 0.0),
        (f32::INFINITY, f32::INFINITY),
        (f32::MAX, f32::INFINITY),
        (f32::MIN, 0.0),
        (88.722_84, f32::INFINITY),
        (-104.0, 0.0),
        (1e-40, 1.0),
        // The least positive number.
        (-103.9, f32::from_bits(1)),
    ];
    for token in tokens() {
        for len in [1, 2, 7, 16, 17, 33] {
            for (x, expected) in cases {
                let mut y = vec![f32::NAN; len];
                exp(&vec![x; len], &mut y);
                assert_eq!(y, vec![expected; len], "{}: exp({x})", token.isa());
            }
            let mut y = vec![0.0; len];
            exp(&vec![f32::NAN; len], &mut y);
            assert!(y.iter().all(|y| y.is_nan()));
        }
    }
    // The greatest argument with a finite result.
    let mut y = [0.0];
    exp(&[88.722_83], &mut y);
    assert!(y[0].is_finite() && y[0] > 3.4e38);
}

/// The lanes of vectors, which other kernels use, and the loop over numbers.
#[test]
fn lanes_have_the_same_bits() {
    struct Lanes<'a>(&'a [f32], &'a mut [f32]);
    impl Kernel for Lanes<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: PairSimd>(self, simd: S) {
            for_groups!(self.0.len(), |at| {
                let x = read(simd, self.0, at);
                write(simd, exp_lanes(simd, x), self.1, at);
            });
        }
    }
    let near = (1.0e-4_f32.to_bits()..110.0_f32.to_bits()).step_by(499);
    let near = near.clone().chain(near.map(|bits| bits | 1 << 31));
    let x: Vec<f32> = finite_bits(9973)
        .chain(near)
        .map(f32::from_bits)
        .chain([f32::INFINITY, f32::NEG_INFINITY])
        .collect();
    let (mut expected, mut actual) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for token in tokens() {
        exp(&x, &mut expected);
        token.dispatch(Lanes(&x, &mut actual));
        for ((x, actual), expected) in x.iter().zip(&actual).zip(&expected) {
            assert_eq!(
                actual.to_bits(),
                expected.to_bits(),
                "{}: exp({x})",
                token.isa()
            );
        }
        let mut nan = [0.0; 16];
        token.dispatch(Lanes(&[f32::NAN; 16], &mut nan));
        assert!(nan.iter().all(|x| x.is_nan()));
    }
}

#[test]
fn tangents_are_within_the_stated_bound() {
    struct Tanh<'a>(&'a [f32], &'a mut [f32]);
    impl Kernel for Tanh<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: PairSimd>(self, simd: S) {
            for_groups!(self.0.len(), |at| {
                let x = read(simd, self.0, at);
                write(simd, tanh_lanes(simd, x), self.1, at);
            });
        }
    }
    let x: Vec<f32> = finite_bits(9973)
        .chain((1.0e-4_f32.to_bits()..12.0_f32.to_bits()).step_by(499))
        .map(f32::from_bits)
        .chain([f32::INFINITY, f32::NEG_INFINITY])
        .collect();
    let mut y = vec![0.0; x.len()];
    for token in tokens() {
        token.dispatch(Tanh(&x, &mut y));
        for (&x, &y) in x.iter().zip(&y) {
            let exact = f64::from(x).tanh();
            let exponent = (exact.abs().log2().floor() as i32).max(-126);
            let error = (f64::from(y) - exact).abs() / 2.0_f64.powi(exponent - 23);
            assert!(
                error <= TANH_MAX_ULP,
                "{}: tanh({x}) is {y}: {error}",
                token.isa()
            );
        }
        let mut nan = [0.0; 16];
        token.dispatch(Tanh(&[f32::NAN; 16], &mut nan));
        assert!(nan.iter().all(|x| x.is_nan()));
    }
}

#[test]
fn the_softplus_is_within_the_stated_bound() {
    struct Softplus<'a>(&'a [f32], &'a mut [f32]);
    impl Kernel for Softplus<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: PairSimd>(self, simd: S) {
            for_groups!(self.0.len(), |at| {
                let x = read(simd, self.0, at);
                write(simd, softplus_lanes(simd, x), self.1, at);
            });
        }
    }
    let near = (1.0e-4_f32.to_bits()..110.0_f32.to_bits()).step_by(499);
    let near = near.clone().chain(near.map(|bits| bits | 1 << 31));
    let x: Vec<f32> = finite_bits(9973).chain(near).map(f32::from_bits).collect();
    let mut y = vec![0.0; x.len()];
    for token in tokens() {
        token.dispatch(Softplus(&x, &mut y));
        for (&x, &y) in x.iter().zip(&y) {
            let exact = f64::from(x).max(0.0) + (-f64::from(x).abs()).exp().ln_1p();
            let exponent = (exact.log2().floor() as i32).max(-126);
            let error = (f64::from(y) - exact).abs() / 2.0_f64.powi(exponent - 23);
            assert!(
                error <= SOFTPLUS_MAX_ULP,
                "{}: ln(1 + exp({x})) is {y}: {error}",
                token.isa()
            );
        }
        let mut edges = [0.0; 3];
        let at = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        token.dispatch(Softplus(&at, &mut edges));
        assert_eq!(edges[..2], [f32::INFINITY, 0.0]);
        assert!(edges[2].is_nan());
    }
}
