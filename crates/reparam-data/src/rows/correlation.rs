//! How well one list of numbers follows another.

#[cfg(test)]
mod tests;

/// Pearson's correlation coefficient, `sum (a - mean a)(b - mean b) / sqrt(sum (a - mean a)^2 sum (b - mean b)^2)`; `None` if
/// one of the lists has fewer than two different numbers, or one that is not finite.
///
/// # Panics
///
/// If the lists are not of one length.
#[must_use]
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "one number for each of the other list");
    let (a, b) = (centered(a)?, centered(b)?);
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // Of unit length, so that no square is too small or too large; rounding may still pass the bounds by a digit.
    Some(product(&a, &b).clamp(-1.0, 1.0))
}

/// Spearman's rank correlation coefficient: Pearson's of the ranks, where equal numbers have the mean of their ranks. `None` as
/// there.
///
/// # Panics
///
/// If the lists are not of one length.
#[must_use]
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "one number for each of the other list");
    pearson(&ranks(a)?, &ranks(b)?)
}

/// The numbers less their mean, scaled to a length of 1.
fn centered(numbers: &[f64]) -> Option<Vec<f64>> {
    let first = *numbers.first()?;
    if !numbers.iter().all(|number| number.is_finite()) || numbers.iter().all(|x| *x == first) {
        return None;
    }
    let n = numbers.len() as f64;
    let scale = numbers
        .iter()
        .fold(0.0_f64, |max, number| max.max(number.abs()));
    let scaled = numbers.iter().map(|number| number / scale);
    let mean = scaled.clone().sum::<f64>() / n;
    let centered: Vec<f64> = scaled.map(|number| number - mean).collect();
    let length = centered
        .iter()
        .map(|number| number * number)
        .sum::<f64>()
        .sqrt();
    (length > 0.0).then(|| centered.iter().map(|number| number / length).collect())
}

/// The ranks of numbers from 1, equal ones with the mean of theirs.
fn ranks(numbers: &[f64]) -> Option<Vec<f64>> {
    if !numbers.iter().all(|number| number.is_finite()) {
        return None;
    }
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
    let mut ranks = vec![0.0; numbers.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| numbers[*a] == numbers[*b]) {
        // The mean of before + 1 to before + n.
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|at| ranks[*at] = rank);
        before += equal.len();
    }
    Some(ranks)
}
