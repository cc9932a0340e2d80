use super::*;

fn f1(scores: &[f64], is_of_label: &[bool], threshold: f64) -> f64 {
    let rows = || {
        scores
            .iter()
            .map(|score| *score >= threshold)
            .zip(is_of_label)
    };
    let hits = rows()
        .filter(|(predicted, is_of)| *predicted && **is_of)
        .count();
    let both: usize = rows().map(|(p, a)| usize::from(p) + usize::from(*a)).sum();
    2.0 * hits as f64 / both as f64
}

/// No threshold of a fine grid is better than the one that is chosen.
#[test]
fn no_other_threshold_has_a_larger_f1() {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % 20
    };
    for rows in 1..40 {
        let scores: Vec<f64> = (0..rows).map(|_| next() as f64 / 20.0).collect();
        let mut is_of_label: Vec<bool> = (0..rows).map(|_| next() < 7).collect();
        is_of_label[0] = true;
        let chosen = best_threshold(&scores, &is_of_label);
        let own = f1(&scores, &is_of_label, chosen);
        for step in 1..200 {
            let other = f64::from(step) / 200.0;
            assert!(
                f1(&scores, &is_of_label, other) <= own,
                "{scores:?} {chosen} {other}"
            );
        }
    }
}

#[test]
fn thresholds_are_between_scores() {
    assert_eq!(
        best_threshold(&[0.125, 0.25, 0.5, 0.375], &[false, true, true, false]),
        0.1875
    );
    assert_eq!(best_threshold(&[0.75, 0.25], &[true, false]), 0.5);
    // Every row has the label: the least threshold is right, and so are none above the least score.
    assert_eq!(best_threshold(&[0.5, 0.75], &[true, true]), 0.25);
    assert_eq!(best_threshold(&[0.9, 0.8], &[false, false]), 0.5);
}
