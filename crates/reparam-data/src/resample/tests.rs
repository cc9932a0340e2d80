use super::*;

#[test]
fn a_sample_is_a_function_of_its_number_and_the_seed() {
    let drawn = resample(1000, 7, 3);
    assert_eq!(drawn, resample(1000, 7, 3));
    assert_ne!(drawn, resample(1000, 7, 4));
    assert_ne!(drawn, resample(1000, 8, 3));
    assert!(drawn.iter().all(|row| *row < 1000));
    // With replacement: (1 - 1/n)^n of the rows, about 1/e, are not drawn.
    let mut distinct = drawn;
    distinct.sort_unstable();
    distinct.dedup();
    assert!((580..690).contains(&distinct.len()), "{}", distinct.len());
    assert_eq!(resample(1, 0, 0), [0]);
    assert_eq!(resample(0, 0, 0), [0; 0]);
}

#[test]
fn an_interval_is_between_quantiles() {
    assert_eq!(percentile_interval(vec![], 0.95), None);
    assert_eq!(percentile_interval(vec![3.0], 0.95), Some([3.0, 3.0]));
    // numpy.percentile([1, 2, 4], [25, 75])
    assert_eq!(
        percentile_interval(vec![4.0, 1.0, 2.0], 0.5),
        Some([1.5, 3.0])
    );
}

/// The interval of a mean is that of the normal distribution, `mean +- 1.96 s / sqrt(n)`, where rows are many.
#[test]
fn the_interval_of_a_mean_is_about_that_of_theory() {
    let rows: Vec<f64> = (0..400_u32)
        .map(|n| f64::from(n * 7919 % 400) / 400.0)
        .collect();
    let means = (0..2000).map(|sample| {
        let drawn = resample(rows.len(), 1, sample);
        drawn.iter().map(|row| rows[*row]).sum::<f64>() / rows.len() as f64
    });
    let [low, high] = percentile_interval(means.collect(), 0.95).expect("values");
    // A uniform number has a variance of 1/12.
    let half = 1.96 * (1.0_f64 / 12.0 / 400.0).sqrt();
    let expected = [0.49875 - half, 0.49875 + half];
    for (found, expected) in [low, high].into_iter().zip(expected) {
        assert!((found - expected).abs() < 0.1 * half, "{found} {expected}");
    }
}
