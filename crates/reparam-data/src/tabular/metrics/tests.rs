use proptest::prelude::*;

use super::*;

#[test]
fn worked_examples() {
    // scikit-learn's example of `r2_score`, and the same numbers by hand: errors 0.5, -0.5, 0, 1.
    let (target, prediction) = ([3.0, -0.5, 2.0, 7.0], [2.5, 0.0, 2.0, 8.0]);
    assert_eq!(mse(&prediction, &target).unwrap(), 0.375);
    assert!((r2(&prediction, &target).unwrap() - 0.948_608_137_044_967_9).abs() < 1e-15);
}

#[test]
fn perfect_mean_and_worse_predictions() {
    let target = [1.0, 2.0, 3.0, 6.0];
    assert_eq!(r2(&target, &target).unwrap(), 1.0);
    assert_eq!(r2(&[3.0; 4], &target).unwrap(), 0.0);
    assert!(r2(&[-3.0; 4], &target).unwrap() < 0.0);
}

#[test]
fn a_diverged_model_has_no_finite_error() {
    assert!(mse(&[f64::NAN, 0.0], &[1.0, 2.0]).unwrap().is_nan());
    assert_eq!(mse(&[1e200, 0.0], &[1.0, 2.0]).unwrap(), f64::INFINITY);
    assert!(r2(&[f64::NAN, 0.0], &[1.0, 2.0]).unwrap().is_nan());
}

#[test]
fn a_constant_target_has_no_r2() {
    for target in [&[4.0, 4.0, 4.0][..], &[4.0]] {
        let error = r2(target, target).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the target is constant over the {} rows: 4", target.len())
        );
        assert!(error.hint().unwrap().contains("nothing to learn"));
    }
}

#[test]
fn slices_are_checked() {
    assert_eq!(
        mse(&[], &[]).unwrap_err().to_string(),
        "there are no rows to compute the mean squared error of"
    );
    assert_eq!(
        r2(&[], &[]).unwrap_err().to_string(),
        "there are no rows to compute R^2 of"
    );
    assert_eq!(
        r2(&[1.0], &[1.0, 2.0]).unwrap_err().to_string(),
        "the predictions should have 2 numbers, found 1"
    );
}

proptest! {
    #[test]
    fn r2_does_not_depend_on_the_unit(
        pairs in prop::collection::vec((-10.0f64..10.0, -10.0f64..10.0), 3..20),
        scale in 0.01f64..100.0,
        shift in -100.0f64..100.0,
    ) {
        let (prediction, target): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let spread = target.iter().copied().fold(f64::MIN, f64::max)
            - target.iter().copied().fold(f64::MAX, f64::min);
        prop_assume!(spread > 0.1);
        let map = |values: &[f64]| values.iter().map(|v| v * scale + shift).collect::<Vec<_>>();
        let before = r2(&prediction, &target).unwrap();
        let after = r2(&map(&prediction), &map(&target)).unwrap();
        prop_assert!((before - after).abs() <= 1e-7 * (1.0 + before.abs()), "{} {}", before, after);
    }
}
