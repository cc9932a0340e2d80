use proptest::prelude::*;

use super::{assert_threads_agree, cases, floats, halves, numbers, tokens};
use crate::number::{Number, add};
use crate::{Bf16, KernelError};

#[test]
fn adds_at_sizes_around_blocks_and_rounds_once() {
    for len in [0, 1, 15, 16, 17, 31, 33, 16_383, 16_384, 16_385, 40_000] {
        check(len);
    }
}

fn check(len: usize) {
    let (x, y) = (halves(&numbers(1, len)), halves(&numbers(2, len)));
    let (x_wide, y_wide) = (floats(&x), floats(&y));
    let expected: Vec<f32> = x_wide.iter().zip(&y_wide).map(|(x, y)| x + y).collect();
    for token in tokens() {
        let (mut wide, mut narrow) = (y_wide.clone(), y.clone());
        add(&x_wide, &mut wide).unwrap();
        add(&x, &mut narrow).unwrap();
        assert_eq!(wide, expected, "{} {len}", token.isa());
        assert_eq!(narrow, halves(&expected), "{} {len}", token.isa());
    }
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn adds(len in 0_usize..300) {
        check(len);
    }

    /// All bits of both numbers, so also infinity, NaN and subnormal numbers.
    #[test]
    fn adds_any_numbers(pairs in prop::collection::vec((any::<u16>(), any::<u16>()), 1..40)) {
        let x: Vec<Bf16> = pairs.iter().map(|(x, _)| Bf16::from_bits(*x)).collect();
        let y: Vec<Bf16> = pairs.iter().map(|(_, y)| Bf16::from_bits(*y)).collect();
        for _ in tokens() {
            let mut sum = y.clone();
            add(&x, &mut sum).unwrap();
            for ((x, y), sum) in x.iter().zip(&y).zip(sum) {
                let expected = Bf16::from_f32(x.to_f32() + y.to_f32());
                if expected.to_f32().is_nan() {
                    prop_assert!(sum.to_f32().is_nan());
                } else {
                    prop_assert_eq!(sum, expected);
                }
            }
        }
    }
}

#[test]
fn numbers_are_read_exactly_and_rounded_to_the_nearest() {
    fn both<T: Number>(x: f32) -> f32 {
        T::from_f32(x).to_f32()
    }
    assert_eq!(both::<f32>(1.000_001), 1.000_001);
    // A tie between two bf16 numbers goes to the even one.
    assert_eq!(both::<Bf16>(1.003_906_2), 1.0);
    assert_eq!(both::<Bf16>(1.011_718_8), 1.015_625);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, y) = (halves(&numbers(1, 50_000)), halves(&numbers(2, 50_000)));
    assert_threads_agree("add", || {
        let mut sum = y.clone();
        add(&x, &mut sum).unwrap();
        vec![floats(&sum)]
    });
}

#[test]
fn refuses_slices_of_different_length() {
    assert!(matches!(
        add(&[0.0_f32; 3], &mut [0.0; 2]),
        Err(KernelError::Length {
            name: "y",
            expected: 3,
            found: 2
        })
    ));
}
