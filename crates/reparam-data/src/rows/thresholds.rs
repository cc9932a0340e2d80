//! From which probability on a label is predicted.

#[cfg(test)]
mod tests;

/// The threshold of a label by itself that nothing is known of.
pub const THRESHOLD: f64 = 0.5;

/// Returns the threshold of a label with the largest F1 on rows, of equals the one nearest to 0.5: halfway between two scores, or
/// between the least one and 0. A label that no row has keeps 0.5.
///
/// # Panics
///
/// If there are not as many scores as rows.
#[must_use]
pub fn best_threshold(scores: &[f64], is_of_label: &[bool]) -> f64 {
    assert_eq!(scores.len(), is_of_label.len(), "a score a row");
    let actual = is_of_label.iter().filter(|is_of| **is_of).count();
    if actual == 0 {
        return THRESHOLD;
    }
    let mut rows: Vec<(f64, bool)> = scores
        .iter()
        .copied()
        .zip(is_of_label.iter().copied())
        .collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut predicted, mut hits) = (0_usize, 0_usize);
    let (mut best, mut best_f1) = (THRESHOLD, -1.0);
    let groups: Vec<&[(f64, bool)]> = rows.chunk_by(|a, b| a.0 == b.0).collect();
    for (number, group) in groups.iter().enumerate() {
        predicted += group.len();
        hits += group.iter().filter(|(_, is_of)| *is_of).count();
        let below = groups.get(number + 1).map_or(0.0, |next| next[0].0);
        // No number between the two that is above the lower one would be less than the upper one.
        let at = f64::midpoint(group[0].0, below);
        let f1 = 2.0 * hits as f64 / (actual + predicted) as f64;
        let is_nearer = || (at - THRESHOLD).abs() < (best - THRESHOLD).abs();
        if f1 > best_f1 || f1 == best_f1 && is_nearer() {
            (best, best_f1) = (at, f1);
        }
    }
    best
}
