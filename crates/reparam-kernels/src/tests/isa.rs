use std::str::FromStr;

use super::{numbers, tokens};
use crate::capabilities::{
    capabilities, measure_matmul_gflops, measure_mul_add_limit_gflops, measure_packed_gflops,
    measure_pair_limit_gflops,
};
use crate::isa::{Kernel, PairSimd, Token};
use crate::{Bf16, Isa, KernelError, vector};

#[test]
fn names_round_trip_and_others_are_refused_with_the_choice() {
    for isa in [
        Isa::Portable,
        Isa::Avx2Fma,
        Isa::Avx512,
        Isa::Avx512Bf16,
        Isa::AmxBf16,
    ] {
        assert_eq!(Isa::from_str(isa.name()), Ok(isa));
        assert_eq!(Isa::from_str(&isa.to_string().to_uppercase()), Ok(isa));
    }
    let error = Isa::from_str("sse9").unwrap_err();
    assert_eq!(
        error,
        KernelError::IsaUnknown {
            name: "sse9".to_owned(),
            available: Isa::available()
        }
    );
    assert!(error.to_string().contains("`sse9`") && error.to_string().contains("`portable`"));
    assert!(error.hint().unwrap().contains("portable"));
}

#[test]
fn the_machine_can_always_run_portable_code_and_the_best_is_the_last() {
    let available = Isa::available();
    assert_eq!(available[0], Isa::Portable);
    assert!(available.is_sorted());
    assert_eq!(available.last(), Some(&Isa::best()));
    for isa in available {
        assert_eq!(isa.token().unwrap().isa(), isa);
    }
}

#[test]
fn what_is_not_available_is_refused() {
    for isa in [Isa::Avx2Fma, Isa::Avx512, Isa::Avx512Bf16, Isa::AmxBf16] {
        if !Isa::available().contains(&isa) {
            let available = Isa::available();
            assert_eq!(
                crate::with_isa(isa, || unreachable!()),
                Err(KernelError::IsaUnavailable { isa, available })
            );
        }
    }
}

/// Products of small integers are exact in any order and with any rounding.
#[test]
fn loops_of_all_lengths_compute_the_same_everywhere() {
    struct Sums<'a>(&'a [f32], &'a [f32]);
    impl Kernel for Sums<'_> {
        type Output = [f32; 8];
        #[inline(always)]
        fn run<S: PairSimd>(self, simd: S) -> [f32; 8] {
            let Self(a, b) = self;
            let mut c = b.to_vec();
            vector::add(a, &mut c);
            vector::scale(2.0, &mut c);
            let mut d = b.to_vec();
            let both = [a, b].concat();
            vector::add_weighted(simd, &[2.0, 3.0], &both, a.len(), &mut d);
            let fours = vector::dot4(simd, a, [b, a, b, a]);
            let halves = |x: &[f32]| x.iter().map(|x| Bf16::from_f32(*x)).collect::<Vec<_>>();
            let mut of_halves = b.to_vec();
            vector::add_weighted(simd, &[2.0, 3.0], &halves(&both), a.len(), &mut of_halves);
            assert_eq!(of_halves, d);
            let [a_halves, b_halves] = [halves(a), halves(b)];
            let [a_halves, b_halves] = [&a_halves[..], &b_halves[..]];
            let of_halves = vector::dot4(simd, a, [b_halves, a_halves, b_halves, a_halves]);
            assert_eq!(of_halves, fours);
            [
                vector::dot(simd, a, b),
                vector::max(simd, a),
                c.iter().sum(),
                d.iter().sum(),
                fours[0],
                fours[1],
                fours[2],
                fours[3],
            ]
        }
    }
    for len in (0..200).chain([1000]) {
        let integers = |seed| -> Vec<f32> {
            numbers(seed, len)
                .iter()
                .map(|x| (x * 8.0).round())
                .collect()
        };
        let (a, b) = (integers(1), integers(2));
        let zip = || a.iter().zip(&b);
        let ab = zip().map(|(a, b)| a * b).sum();
        let aa = a.iter().map(|a| a * a).sum();
        let expected = [
            ab,
            a.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            zip().map(|(a, b)| 2.0 * (a + b)).sum(),
            zip().map(|(a, b)| 2.0 * a + 4.0 * b).sum(),
            ab,
            aa,
            ab,
            aa,
        ];
        for token in tokens() {
            assert_eq!(
                token.dispatch(Sums(&a, &b)),
                expected,
                "{} {len}",
                token.isa()
            );
        }
    }
}

#[test]
fn capabilities_name_what_is_in_use() {
    let capabilities = capabilities();
    assert_eq!(capabilities.architecture, std::env::consts::ARCH);
    assert_eq!(capabilities.available, Isa::available());
    let expected = format!("{}-f32-{}", std::env::consts::ARCH, capabilities.chosen);
    assert_eq!(capabilities.row_kernels, expected);
    let expected = expected.replace("f32", "bf16");
    assert_eq!(capabilities.packed_kernels, expected);
    assert!(capabilities.threads >= 1);
    if Isa::available().contains(&Isa::Avx512) {
        assert!(capabilities.features.contains(&"avx512f"));
        assert_eq!(capabilities.matrix_kernels, "x86_64-f32-gemm-avx512");
    }
}

#[test]
fn speeds_are_plausible_numbers() {
    for gflops in [
        measure_matmul_gflops(),
        measure_packed_gflops(),
        measure_pair_limit_gflops(),
        measure_mul_add_limit_gflops(),
    ] {
        let gflops = gflops.unwrap();
        assert!(gflops > 0.01 && gflops < 1e6, "{gflops}");
    }
}

/// What the other tests rely on.
#[test]
fn a_test_chooses_for_the_calls_of_its_thread() {
    for token in super::tokens_with_tiles() {
        assert_eq!(format!("{:?}", Token::current()), format!("{token:?}"));
    }
    assert!(crate::isa::IN_FORCE.get().is_none());
}
